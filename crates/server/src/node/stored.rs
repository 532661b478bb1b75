//! How many bytes of partitions' logs a node holds: asked of nodes that are being emptied.

use std::sync::{Arc, Weak};
use std::time::Duration;

use base::NodeId;
use bytes::Bytes;

use super::Node;
use crate::shell::calls;

const PATIENCE: Duration = Duration::from_secs(1);

/// Answers others.
pub fn serve(node: &Arc<Node>) {
    let weak = Arc::downgrade(node);
    node.router.on(calls::STORED, move |_, _| {
        let bytes = Weak::upgrade(&weak).map(|node| node.stored_bytes());
        async move { bytes.map(|bytes| Bytes::copy_from_slice(&bytes.to_be_bytes())).ok_or("the node ends".to_owned()) }
    });
}

impl Node {
    /// What this node's copies of partitions take on its disk.
    pub fn stored_bytes(&self) -> u64 {
        let state = self.state();
        state.partitions_on(self.id()).filter_map(|partition| Some(self.reader(partition)?.size_bytes())).sum()
    }

    /// As [`Node::stored_bytes`], of another node. `None`: it does not answer.
    pub async fn stored_bytes_of(&self, other: NodeId) -> Option<u64> {
        if other == self.id() {
            return Some(self.stored_bytes());
        }
        let answer = self.peers()?.call(other, calls::STORED, Bytes::new(), PATIENCE).await.ok()?;
        Some(u64::from_be_bytes(answer[..].try_into().ok()?))
    }
}
