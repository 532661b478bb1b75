//! Long chains of AND and OR made shallow, so that what recurses over them later needs little stack; and a bound on
//! the depth of everything else. This walk itself is safe: the parser's visitor grows its stack.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Select, Statement, VisitMut, VisitorMut};

use super::ast::null;
use crate::error::{QueryError, QueryErrorKind};
use crate::limits::{EXPRESSION_DEPTH_MAX, RELATIONS_MAX};

/// # Errors
/// If an expression is too deep, or a FROM list too long.
pub fn balance(statement: &mut Statement) -> Result<(), QueryError> {
    match statement.visit(&mut Balance { depth: 0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Balance {
    depth: usize,
}

impl VisitorMut for Balance {
    type Break = QueryError;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<QueryError> {
        if select.from.len() > RELATIONS_MAX {
            let message = format!("a FROM list of {} tables is longer than {RELATIONS_MAX}", select.from.len());
            return ControlFlow::Break(QueryError::new(QueryErrorKind::Parse, message));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        self.depth += 1;
        if let Expr::BinaryOp { op, .. } = expr
            && matches!(op, BinaryOperator::And | BinaryOperator::Or)
        {
            let op = op.clone();
            let terms = terms_of(std::mem::replace(expr, null()), &op);
            *expr = tree(terms, &op);
        }
        if self.depth > EXPRESSION_DEPTH_MAX {
            let message = format!("an expression is nested more than {EXPRESSION_DEPTH_MAX} deep; simplify it");
            return ControlFlow::Break(QueryError::new(QueryErrorKind::Parse, message));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _expr: &mut Expr) -> ControlFlow<QueryError> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

/// The terms of a chain that leans to the left, as the parser makes it; in order.
fn terms_of(chain: Expr, wanted: &BinaryOperator) -> Vec<Expr> {
    let mut terms = Vec::new();
    let mut rest = chain;
    loop {
        match rest {
            Expr::BinaryOp { left, op, right } if op == *wanted => {
                terms.push(*right);
                rest = *left;
            }
            other => {
                terms.push(other);
                terms.reverse();
                return terms;
            }
        }
    }
}

/// A tree of the least depth.
fn tree(mut terms: Vec<Expr>, op: &BinaryOperator) -> Expr {
    while terms.len() > 1 {
        let mut pairs = Vec::with_capacity(terms.len().div_ceil(2));
        let mut rest = terms.into_iter();
        while let Some(left) = rest.next() {
            pairs.push(match rest.next() {
                Some(right) => Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) },
                None => left,
            });
        }
        terms = pairs;
    }
    terms.pop().unwrap_or_else(null)
}
