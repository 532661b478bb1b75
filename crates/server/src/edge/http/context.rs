//! What every handler of this edge works with.

use std::sync::Arc;

use crate::node::Node;

/// Shared by all requests; cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub node: Arc<Node>,
    /// `host:port` of this listener, named in errors.
    pub host: Arc<str>,
    /// `host:port` Kafka clients connect to.
    pub bootstrap: Arc<str>,
}

impl Context {
    pub fn new(node: &Arc<Node>, host: String) -> Self {
        let listen = &node.config().listen;
        let bootstrap = listen.advertised_kafka.clone().unwrap_or_else(|| listen.kafka.to_string());
        Self { node: Arc::clone(node), host: host.into(), bootstrap: bootstrap.into() }
    }
}
