//! The PostgreSQL edge: psql, drivers and BI tools in, rows out.
//!
//! ```text
//! listener   accept, startup, one message at a time      wire      messages from bytes that may be anything
//! session    what a session remembers, how it waits      simple, extended   the two protocols
//! command    BEGIN, SET, SHOW, DECLARE ...               settings  a session's, and query context
//! rows, encode, types   results in text and binary       params    parameters in text and binary
//! cancel     cancel requests                             failure   errors with SQLSTATEs
//! ```
//! What always holds: a message is bounded before it is read and checked while it is decoded; rows are sent as the client
//! takes them, so that neither side's slowness holds memory; a cancel request, a client that leaves and the node's stop
//! end a running query. Deliberately not here: TLS and passwords (a listener that is not on loopback is refused without
//! them), COPY, transactions that do anything, pg_catalog (the query room's).

pub mod cancel;
pub mod command;
mod commands;
pub mod encode;
mod extended;
pub mod failure;
pub mod limits;
pub mod listener;
pub mod params;
pub mod rows;
pub mod session;
pub mod settings;
mod simple;
pub mod statements;
pub mod types;
pub mod wire;

use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::edge::queries::Queries;
use crate::node::Node;

/// Serves PostgreSQL clients until `stop` is done.
pub async fn serve(node: Arc<Node>, listener: TcpListener, stop: impl Future<Output = ()>) {
    let connections_max = usize::try_from(node.config().listen.connections_max).unwrap_or(usize::MAX);
    listener::serve(Queries::of(&node, "postgres"), connections_max, listener, stop).await;
}

#[cfg(test)]
mod tests;
