//! What a connection must know of the node it belongs to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base::{ClusterId, DiskId, NodeId};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::hello::Hello;
use super::{Former, Inbound, Lane, LinkEvent, Security};

/// Nodes that are no members and were refused, remembered so that each is told of once.
const STRANGERS_MAX: usize = 64;
/// A refusal that is not repeated for this long is over.
const REFUSAL_LASTS_MS: u64 = 5_000;

pub struct Local {
    pub node: NodeId,
    pub disk: DiskId,
    pub instance: Uuid,
    pub security: Security,
    pub inbound: Arc<dyn Inbound>,
    /// Where calls are answered.
    pub server: Handle,
    /// True when everything is to end.
    pub closing: watch::Sender<bool>,
    cluster: watch::Receiver<Option<ClusterId>>,
    former: watch::Receiver<Arc<Former>>,
    started: Instant,
    /// With the reason, and when they were refused last.
    strangers: Mutex<BTreeMap<NodeId, (String, u64)>>,
}

impl Local {
    pub fn new(
        (node, disk): (NodeId, DiskId),
        (cluster, former): (watch::Receiver<Option<ClusterId>>, watch::Receiver<Arc<Former>>),
        security: Security,
        inbound: Arc<dyn Inbound>,
        server: Handle,
    ) -> Self {
        Self {
            node,
            disk,
            instance: Uuid::new_v4(),
            security,
            inbound,
            server,
            closing: watch::Sender::new(false),
            cluster,
            former,
            started: Instant::now(),
            strangers: Mutex::default(),
        }
    }

    pub fn cluster(&self) -> Option<ClusterId> {
        *self.cluster.borrow()
    }

    /// What a node is told that still has an id which the cluster had before.
    pub fn told_former(&self, cluster: ClusterId) -> Option<String> {
        self.former.borrow().get(&cluster).cloned()
    }

    /// Milliseconds since the links were started. From 1, so that 0 can mean never.
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    pub fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub fn since_ms(&self, earlier_ms: u64) -> u64 {
        self.elapsed_ms().saturating_sub(earlier_ms)
    }

    /// What this node says of itself.
    pub fn hello(&self, to: NodeId, lane: Lane, versions: (u16, u16)) -> Hello {
        let (node, disk, instance) = (self.node, self.disk, self.instance);
        Hello { versions, lane, node, to, cluster: self.cluster(), disk, instance }
    }

    /// Someone who is no member was refused.
    pub fn refused_stranger(&self, node: NodeId, reason: &str) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = self.elapsed_ms();
        if let Some((_, at_ms)) = strangers.get_mut(&node).filter(|(before, _)| before == reason) {
            *at_ms = now_ms;
            return;
        }
        if strangers.len() >= STRANGERS_MAX && !strangers.contains_key(&node) {
            return;
        }
        strangers.insert(node, (reason.to_owned(), now_ms));
        // Under the lock, so that this and its end are told in their order.
        self.inbound.link(node, LinkEvent::Refused { reason: reason.to_owned() });
    }

    /// Once a second: one that has not asked for a while is not spoken of any more, such as a node that was decommissioned
    /// and has been switched off.
    pub fn tidy(&self) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<NodeId> = strangers
            .iter()
            .filter(|(_, (_, at_ms))| self.since_ms(*at_ms) >= REFUSAL_LASTS_MS)
            .map(|(node, _)| *node)
            .collect();
        strangers.retain(|node, _| !gone.contains(node));
        gone.into_iter().for_each(|node| self.inbound.link(node, LinkEvent::RefusalOver));
    }

    /// It has become a member, or is not one any more.
    pub fn forget_stranger(&self, node: NodeId) {
        if self.strangers.lock().unwrap_or_else(PoisonError::into_inner).remove(&node).is_some() {
            self.inbound.link(node, LinkEvent::RefusalOver);
        }
    }
}

/// Waits until everything is to end.
pub async fn closed(closing: &mut watch::Receiver<bool>) {
    drop(closing.wait_for(|closing| *closing).await);
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("node", &self.node).field("instance", &self.instance).finish_non_exhaustive()
    }
}
