//! `FROM t, UNNEST(t.tags) AS u(tag)`: the array of each row as rows. The planner takes `unnest(..)` among the
//! selected expressions only, so the table becomes a subquery that selects it:
//! `FROM (SELECT t.*, unnest(t.tags) AS tag FROM t) AS t`, and `u.tag` becomes `tag`.
//!
//! Deliberately not here: UNNEST beside a join of several tables, and LEFT JOIN UNNEST; the planner refuses them.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, Select, Statement, TableAlias, TableFactor, TableWithJoins, Value,
    Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::parser::Parser;

use super::dialect::DruidDialect;

/// Rewrites the FROM list where an UNNEST speaks of the table before it.
pub fn rewrite_from(select: &mut Select) {
    if !select.from.iter().any(has_unnest) {
        return;
    }
    gather(&mut select.from);
    let mut aliases = Vec::new();
    for table in &mut select.from {
        while let Some(join) = table.joins.first() {
            let Some((array, alias, column)) = correlated(join) else { break };
            let Some(wrapped) = wrap(&table.relation, &array, &column) else { break };
            table.relation = wrapped;
            table.joins.remove(0);
            aliases.push(alias);
        }
    }
    if !aliases.is_empty() {
        let _ = select.visit(&mut Unqualify { aliases });
    }
}

fn has_unnest(table: &TableWithJoins) -> bool {
    let is = |relation: &TableFactor| matches!(relation, TableFactor::UNNEST { .. });
    is(&table.relation) || table.joins.iter().any(|join| is(&join.relation))
}

/// `t, UNNEST(..)` as `t CROSS JOIN UNNEST(..)`.
fn gather(from: &mut Vec<TableWithJoins>) {
    let mut at = 1;
    while at < from.len() {
        let lone = from[at].joins.is_empty();
        let speaks =
            matches!(&from[at].relation, TableFactor::UNNEST { array_exprs, .. } if speaks_of_columns(array_exprs));
        if lone && speaks {
            let relation = from.remove(at).relation;
            let join_operator = JoinOperator::CrossJoin(JoinConstraint::None);
            from[at - 1].joins.push(Join { relation, global: false, join_operator });
        } else {
            at += 1;
        }
    }
}

fn speaks_of_columns(exprs: &[Expr]) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    exprs.iter().any(|expr| expr.visit(&mut Find).is_break())
}

/// The array, the alias and the column of a join with an UNNEST over columns.
fn correlated(join: &Join) -> Option<(Expr, Ident, Ident)> {
    let always = |constraint: &JoinConstraint| match constraint {
        JoinConstraint::None => true,
        JoinConstraint::On(Expr::Value(value)) => value.value == Value::Boolean(true),
        _ => false,
    };
    match &join.join_operator {
        JoinOperator::CrossJoin(constraint) | JoinOperator::Inner(constraint) | JoinOperator::Join(constraint)
            if always(constraint) => {}
        _ => return None,
    }
    let TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality: false, .. } = &join.relation
    else {
        return None;
    };
    let [array] = array_exprs.as_slice() else { return None };
    if !speaks_of_columns(array_exprs) {
        return None;
    }
    let alias = alias.as_ref()?;
    let column = alias.columns.first().map_or_else(|| alias.name.clone(), |column| column.name.clone());
    Some((array.clone(), alias.name.clone(), column))
}

/// The table with the array's elements as one more column.
fn wrap(relation: &TableFactor, array: &Expr, column: &Ident) -> Option<TableFactor> {
    let name = match relation {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            alias.name.clone()
        }
        TableFactor::Table { name, .. } => name.0.last()?.as_ident()?.clone(),
        TableFactor::Derived { .. } => Ident::with_quote('"', "unnested"),
        _ => return None,
    };
    let mut relation = relation.clone();
    if let TableFactor::Derived { alias: alias @ None, .. } = &mut relation {
        *alias = Some(TableAlias { explicit: true, name: name.clone(), columns: vec![], at: None });
    }
    let text = format!("SELECT * FROM (SELECT {name}.*, unnest({array}) AS {column} FROM {relation}) AS {name}");
    let statement = Parser::parse_sql(&DruidDialect, &text).ok()?.pop()?;
    let Statement::Query(query) = statement else { return None };
    query.body.as_select()?.from.first().map(|table| table.relation.clone())
}

/// `u.tag` as `tag`.
struct Unqualify {
    aliases: Vec<Ident>,
}

impl VisitorMut for Unqualify {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expr
            && let [table, column] = parts.as_slice()
            && self.aliases.iter().any(|alias| alias.value == table.value)
        {
            *expr = Expr::Identifier(column.clone());
        }
        ControlFlow::Continue(())
    }
}
