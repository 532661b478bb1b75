//! PostgreSQL's catalog.

use crate::statement::Session;

pub const DATABASE: &str = "seawall";
pub const SCHEMA: &str = "public";
pub const VERSION: &str = "PostgreSQL 16.0 (Seawall)";

/// The value of a session setting, as `SHOW name` and `current_setting('name')` give it.
pub fn setting(_name: &str, _session: &Session) -> Option<String> {
    None
}

pub fn functions() -> Vec<std::sync::Arc<datafusion::logical_expr::ScalarUDF>> {
    Vec::new()
}

pub fn table(_resolver: &crate::system::Resolver, _name: &str) -> Option<crate::system::Rows> {
    None
}

pub fn type_name(_ty: store::schema::ColumnType) -> &'static str {
    "text"
}
