//! How Druid's SQL is read: Calcite's words, double-quoted names, `?` parameters, no backslash escapes.

use std::any::TypeId;

use datafusion::sql::sqlparser::dialect::{Dialect as SqlDialect, PostgreSqlDialect};

use crate::request::Dialect;

/// Druid's dialect. Where the parser asks for a dialect by its type it is PostgreSQL's: the nearest to Calcite's.
#[derive(Debug)]
pub struct DruidDialect;

impl SqlDialect for DruidDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn identifier_quote_style(&self, _identifier: &str) -> Option<char> {
        Some('"')
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '"'
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_alphabetic() || ch == '_'
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_alphanumeric() || ch == '_' || ch == '$'
    }

    fn supports_unicode_string_literal(&self) -> bool {
        true
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    fn supports_window_function_null_treatment_arg(&self) -> bool {
        true
    }

    fn allow_extract_custom(&self) -> bool {
        true
    }

    fn allow_extract_single_quotes(&self) -> bool {
        true
    }

    fn supports_parens_around_table_factor(&self) -> bool {
        true
    }
}

/// The parser's dialect for ours.
pub fn parser_dialect(dialect: Dialect) -> &'static dyn SqlDialect {
    match dialect {
        Dialect::Druid => &DruidDialect,
        Dialect::Postgres => &PostgreSqlDialect {},
    }
}
