//! The active master: who it is, and giving its duties to another node.

use std::time::Duration;

use base::NodeId;
use bytes::Bytes;

use super::router::Router;
use super::{Node, NodeError};
use crate::shell::calls;
use crate::shell::meta::MetaHandle;

/// Longest wait for the other node to take over.
const PATIENCE: Duration = Duration::from_secs(3);

/// Answers other nodes that ask this one, the active master, to hand over.
pub fn serve(router: &Router, meta: &MetaHandle) {
    let meta = meta.clone();
    router.on(calls::TRANSFER_MASTER, move |_, body| {
        let asked = begin(&meta, &body);
        async move { asked }
    });
}

fn begin(meta: &MetaHandle, body: &Bytes) -> Result<Bytes, String> {
    let to = <[u8; 4]>::try_from(&body[..]).map_err(|_| "a node's number has four bytes".to_owned())?;
    if !meta.master().is_active {
        return Err("this node is not the active master any more".into());
    }
    meta.transfer_leadership(NodeId(u32::from_be_bytes(to)));
    Ok(Bytes::new())
}

impl Node {
    /// Makes `to` the active master. Requests go on meanwhile; answers when this node sees it there.
    ///
    /// # Errors
    /// [`NodeError::Invalid`] for a node that has no vote or cannot be reached; [`NodeError::Timeout`] if it did not
    /// take over: the old one goes on.
    pub async fn transfer_master(&self, to: NodeId) -> Result<(), NodeError> {
        let master = self.master();
        if master.leader == Some(to) {
            return Ok(());
        }
        if !master.voters.contains(&to) {
            let voters = master.voters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(NodeError::Invalid(format!("node {to} has no vote; those that have one are {voters}")));
        }
        if !self.is_up(to) {
            return Err(NodeError::Invalid(format!("node {to} cannot be reached from here: start it first")));
        }
        match (master.leader, self.peers()) {
            _ if master.is_active => self.meta().transfer_leadership(to),
            (Some(leader), Some(peers)) => {
                let body = Bytes::copy_from_slice(&to.0.to_be_bytes());
                let asked = peers.call(leader, calls::TRANSFER_MASTER, body, PATIENCE).await;
                asked.map_err(|error| NodeError::Invalid(format!("node {leader}, the active master: {error}")))?;
            }
            _ => return Err(NodeError::Invalid("no active master is known: one is being elected; ask again".into())),
        }
        let mut changes = self.meta().watch_master();
        let taken_over = async { changes.wait_for(|master| master.leader == Some(to)).await.is_ok() };
        if tokio::time::timeout(PATIENCE, taken_over).await.unwrap_or(false) {
            return Ok(());
        }
        let waited_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        Err(NodeError::Timeout { what: "the other node to become the active master", waited_ms })
    }
}
