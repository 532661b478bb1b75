//! The Kafka edge: connections, and each request translated to calls on the node.
//!
//! ```text
//! socket --> connection (frames, order, budget) --> dispatch --> one handler per API --> Node
//! ```
//! What always holds: the requests of a connection are handled and answered in order (produce requests overlap, up to
//! [`limits::PIPELINE_MAX`]); a frame is buffered only after its length was compared with the bound of its API and room was found
//! in the node-wide budget; a malformed frame closes its connection and nothing else.
//!
//! Not here: what a topic, a group or an offset may do. Handlers translate; the node decides.

mod brokers;
mod budget;
mod cluster;
mod configs;
mod connection;
mod described;
mod dispatch;
mod elections;
mod errors;
mod fetch;
mod groups;
pub mod limits;
mod listener;
mod metadata;
mod offsets;
mod produce;
mod producers;
mod reassign;
mod topics;
mod transactions;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use budget::Budget;

use crate::node::Node;

pub use listener::serve;

/// What every handler is given.
struct Edge {
    node: Arc<Node>,
    /// Bytes of requests being worked on, all connections together.
    requests: Budget,
    /// Bytes of records being sent to consumers, all connections together.
    responses: Budget,
    /// One change of a topic's configuration at a time: each reads, changes and writes back the whole set.
    config_changes: tokio::sync::Mutex<()>,
    /// Appends refused because too few replicas could be reached.
    short_of_replicas: AtomicU32,
}

/// Who sent a request.
#[derive(Clone, Debug)]
struct Client {
    peer: SocketAddr,
    /// The address the client reached us at: what it is told to connect to, unless the configuration names another.
    local: SocketAddr,
    /// As the client names itself.
    id: String,
    /// Whose records in transactions go to the logs next: those of a connection keep their order while they are verified.
    turn: Arc<tokio::sync::Mutex<()>>,
}
