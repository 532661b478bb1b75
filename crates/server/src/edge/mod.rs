//! Where clients come in: each protocol translated to calls on [`crate::node::Node`], and answers back.
//!
//! Nothing here decides anything about the product: a rule found here is in the wrong room.

pub mod cells;
pub mod http;
pub mod kafka;
pub mod postgres;
pub mod queries;
pub mod socket;

#[cfg(test)]
pub mod testing;
