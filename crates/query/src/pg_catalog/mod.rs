//! PostgreSQL's catalog, as far as psql, drivers and SQLAlchemy look into it.
//!
//! ```text
//! tables     the tables that have rows here;  empty  those that never have any
//! types      types and their oids
//! functions  format_type and its like
//! settings   SHOW and current_setting
//! ```
//!
//! A query over a table that never has rows is answered without looking at its expressions (see
//! [`is_always_empty`]): psql's questions about policies, statistics or publications need functions and types
//! that nothing else needs.

mod empty;
mod functions;
mod settings;
mod tables;
mod types;

pub use empty::is_always_empty;
pub use functions::functions;
pub use settings::setting;
pub use types::type_name;

use crate::system::{Resolver, Rows};

/// The one database.
pub const DATABASE: &str = "seawall";
/// The schema of the user's tables.
pub const SCHEMA: &str = "public";
/// The owner of everything.
pub const OWNER: &str = "seawall";
/// What `version()` says.
pub const VERSION: &str = "PostgreSQL 16.0 (Seawall) on Rust, 64-bit";

/// The table of that name.
pub fn table(resolver: &Resolver, name: &str) -> Option<Rows> {
    tables::table(resolver, name).or_else(|| empty::columns(name).map(Rows::new))
}

/// A relation's oid: made of its name, so that it is the same in every query and on every node.
pub fn oid_of(name: &str) -> i64 {
    const FIRST: i64 = 16_384;
    FIRST + i64::from(base::checksum::crc32c(name.as_bytes()) & 0x3fff_ffff)
}
