//! Small constructors of syntax tree nodes, so that a rewrite reads like the SQL it makes.

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, Value, helpers::attached_token::AttachedToken,
};

pub fn ident(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

pub fn column(name: &str) -> Expr {
    Expr::Identifier(ident(name))
}

pub fn text(value: impl Into<String>) -> Expr {
    Expr::value(Value::SingleQuotedString(value.into()))
}

pub fn number(value: i64) -> Expr {
    let literal = Expr::value(Value::Number(value.unsigned_abs().to_string(), false));
    if value == i64::MIN {
        // The parser has no negative literal, and the least number has no positive twin.
        return cast(text(value.to_string()), DataType::BigInt(None));
    }
    match value {
        ..0 => Expr::UnaryOp { op: datafusion::sql::sqlparser::ast::UnaryOperator::Minus, expr: Box::new(literal) },
        _ => literal,
    }
}

pub fn boolean(value: bool) -> Expr {
    Expr::value(Value::Boolean(value))
}

pub fn null() -> Expr {
    Expr::value(Value::Null)
}

pub fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

pub fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(function(name, args))
}

pub fn function(name: &str, args: Vec<Expr>) -> Function {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Function {
        name: ObjectName::from(vec![ident(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    }
}

pub fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

/// The text of a plain string literal.
pub fn as_text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        Expr::Nested(inner) => as_text(inner),
        _ => None,
    }
}

/// The value of a whole number literal, also a negative one.
pub fn as_number(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse().ok(),
            _ => None,
        },
        Expr::UnaryOp { op: datafusion::sql::sqlparser::ast::UnaryOperator::Minus, expr } => {
            as_number(expr).map(i64::wrapping_neg)
        }
        Expr::Nested(inner) => as_number(inner),
        _ => None,
    }
}

/// A token where the tree wants one and none was written.
pub fn no_token() -> AttachedToken {
    AttachedToken::empty()
}
