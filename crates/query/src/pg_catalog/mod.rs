//! PostgreSQL's catalog.

use crate::statement::Session;

pub const DATABASE: &str = "seawall";
pub const SCHEMA: &str = "public";
pub const VERSION: &str = "PostgreSQL 16.0 (Seawall)";

/// The value of a session setting, as `SHOW name` and `current_setting('name')` give it.
pub fn setting(_name: &str, _session: &Session) -> Option<String> {
    None
}
