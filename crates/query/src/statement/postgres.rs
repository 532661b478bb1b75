//! What psql and drivers write that no one else does: `::regclass`, `OPERATOR(pg_catalog.~)`, session functions.

use datafusion::sql::sqlparser::ast::{BinaryOperator, CastKind, DataType, Expr};

use super::ast::{as_number, as_text, boolean, call, null, number, text};
use super::rewrite::Session;

/// `OPERATOR(pg_catalog.~)` is `~`.
pub fn operator(op: BinaryOperator) -> BinaryOperator {
    let BinaryOperator::PGCustomBinaryOperator(parts) = &op else { return op };
    match parts.last().map(String::as_str) {
        Some("~") => BinaryOperator::PGRegexMatch,
        Some("!~") => BinaryOperator::PGRegexNotMatch,
        Some("~*") => BinaryOperator::PGRegexIMatch,
        Some("!~*") => BinaryOperator::PGRegexNotIMatch,
        Some("=") => BinaryOperator::Eq,
        Some("<>") => BinaryOperator::NotEq,
        Some("~~") => BinaryOperator::PGLikeMatch,
        Some("!~~") => BinaryOperator::PGNotLikeMatch,
        Some("||") => BinaryOperator::StringConcat,
        _ => op,
    }
}

/// Casts to types that only PostgreSQL has.
pub fn cast(expr: Expr, data_type: DataType, session: &Session) -> Expr {
    let name = data_type.to_string().to_lowercase().replace('"', "");
    let name = name.rsplit('.').next().unwrap_or(&name).to_owned();
    match name.as_str() {
        "regclass" => match (as_number(&expr), as_text(&expr)) {
            (Some(_), _) => expr,
            (None, Some(_)) => call("to_regclass", vec![expr]),
            (None, None) => expr,
        },
        "regtype" | "regproc" | "regprocedure" | "regnamespace" | "regrole" | "oid" | "xid" | "int2" | "int4"
        | "int8" => Expr::Cast {
            kind: CastKind::TryCast,
            expr: Box::new(expr),
            data_type: DataType::BigInt(None),
            array: false,
            format: None,
        },
        "name" | "char" | "bpchar" | "text" | "varchar" | "json" | "jsonb" | "information_schema" => {
            call("cast_varchar", vec![expr, text(session.zone_name.as_str())])
        }
        "bool" => Expr::Cast {
            kind: CastKind::TryCast,
            expr: Box::new(expr),
            data_type: DataType::Boolean,
            array: false,
            format: None,
        },
        "timestamptz" => call("cast_timestamp", vec![expr, text(session.zone_name.as_str())]),
        _ => Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None },
    }
}

/// Session functions without arguments.
pub fn niladic(name: &str, session: &Session) -> Option<Expr> {
    Some(match name {
        "current_catalog" | "current_database" => text(crate::pg_catalog::DATABASE),
        "current_schema" => text(crate::pg_catalog::SCHEMA),
        "current_role" => text(session.identity.as_str()),
        "version" => text(crate::pg_catalog::VERSION),
        "pg_backend_pid" => number(1),
        "pg_is_in_recovery" => boolean(false),
        "pg_postmaster_start_time" => call("millis_to_timestamp", vec![number(session.now_ms)]),
        "txid_current" => number(1),
        "inet_server_addr" | "inet_client_addr" | "inet_server_port" | "inet_client_port" => null(),
        _ => return None,
    })
}

/// Functions with arguments that need the session or have one answer only.
pub fn function(name: &str, args: Vec<Expr>, session: &Session) -> Result<Expr, Vec<Expr>> {
    let setting = |name: &Expr| {
        let key = as_text(name).unwrap_or_default();
        crate::pg_catalog::setting(key, session).map_or_else(null, text)
    };
    match (name, args.len()) {
        ("current_setting", 1 | 2) => Ok(setting(&args[0])),
        ("set_config", 3) => Ok(args.into_iter().nth(1).unwrap_or_else(null)),
        ("current_schemas", 1) => {
            let with_catalog = matches!(&args[0], Expr::Value(value) if value.to_string().eq_ignore_ascii_case("true"));
            let mut schemas = vec![text(crate::pg_catalog::SCHEMA)];
            if with_catalog {
                schemas.insert(0, text("pg_catalog"));
            }
            Ok(Expr::Array(datafusion::sql::sqlparser::ast::Array { elem: schemas, named: true }))
        }
        _ => Err(args),
    }
}
