//! The PostgreSQL edge.

pub mod limits;
pub mod statements;
pub mod wire;
