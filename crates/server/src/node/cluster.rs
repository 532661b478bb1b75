//! What this node knows of the others: whom it reaches, who leads what, which copies keep up.

use std::time::Duration;

use base::{NodeId, Tick, TopicPartition};
use bytes::Bytes;

use super::{Acks, Node, NodeError, time};
use crate::shell::logs::Leadership;

/// Between two looks at how far the other replicas are.
const COPIES_POLL: Duration = Duration::from_millis(2);

/// How a partition is served, as this node sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leader {
    /// It has a leader, under this epoch.
    Known { node: NodeId, epoch: i32 },
    /// None is known, and enough replicas can be reached to elect one: soon.
    Electing,
    /// Nobody can write: most replicas are out of reach, or the only one has stopped. This one can be read.
    ReadOnly { node: NodeId, epoch: i32 },
    /// Most replicas are out of reach, and none that can be reached has a copy.
    Unreachable,
}

impl Node {
    /// Appends with acks=all: answers when a majority has it durably, and at least `copies` replicas.
    ///
    /// # Errors
    /// [`NodeError::NotEnoughReplicas`] if so many cannot be reached: nothing was written.
    /// [`NodeError::TooFewCopies`] if it was written and fewer had it by `deadline`.
    pub async fn append_in_sync(
        &self,
        partition: TopicPartition,
        batches: Bytes,
        copies: usize,
        deadline: Tick,
    ) -> Result<log::Appended, NodeError> {
        if copies < 2 {
            return self.append(partition, batches, Acks::All, deadline).await;
        }
        let state = self.state();
        let replicas = state.replicas(partition);
        let reached = self.reachable_of(replicas).count();
        if reached < copies && self.leads(partition) {
            let message = format!(
                "partition {partition} takes no writes with acks=all: {reached} of its replicas can be reached and \
                 min.insync.replicas is {copies}"
            );
            return Err(NodeError::NotEnoughReplicas(message));
        }
        let appended = self.append(partition, batches, Acks::All, deadline).await?;
        if copies > replicas.len() / 2 + 1 {
            self.await_copies(partition, copies, deadline).await?;
        }
        Ok(appended)
    }

    /// Until `copies` replicas have what is committed now.
    async fn await_copies(&self, partition: TopicPartition, copies: usize, deadline: Tick) -> Result<(), NodeError> {
        let mut wanted = None;
        loop {
            let status = self.logs.status(partition).await?.group;
            let commit = *wanted.get_or_insert(status.commit);
            let have = 1 + status.peers.iter().filter(|peer| peer.matched >= commit).count();
            if have >= copies {
                return Ok(());
            }
            if time::now() >= deadline {
                return Err(NodeError::TooFewCopies { partition: partition.to_string(), have, wanted: copies });
            }
            tokio::time::sleep(COPIES_POLL).await;
        }
    }

    /// What this node's own replica knows of its leadership. `None`: no replica here.
    pub fn leadership(&self, partition: TopicPartition) -> Option<Leadership> {
        self.logs.leadership(partition).map(|leadership| *leadership.borrow())
    }

    /// True if this node leads the partition.
    pub fn leads(&self, partition: TopicPartition) -> bool {
        self.leadership(partition).is_some_and(|leadership| leadership.is_mine)
    }

    /// This node, or one to which a link is up.
    pub fn is_up(&self, node: NodeId) -> bool {
        node == self.id() || self.links.borrow().get(&node).copied().unwrap_or(false)
    }

    /// True if the node can be reached, or could be at some time within the last `within`. Before this node has served that
    /// long, of every node: those that it has not met yet may be there for others.
    pub fn was_up(&self, node: NodeId, within: Duration) -> bool {
        // In this order: a node that is not up any more has its time of loss by then.
        self.is_up(node) || {
            let since = self.router.lost_since(node).unwrap_or(self.started);
            Duration::from_millis(time::now().since(since)) < within
        }
    }

    /// True if more than half of `replicas` can be reached from here.
    pub fn reaches_majority_of(&self, replicas: &[NodeId]) -> bool {
        2 * self.reachable_of(replicas).count() > replicas.len()
    }

    /// Those of `replicas` that can be reached from here, in their order.
    pub fn reachable_of<'a>(&'a self, replicas: &'a [NodeId]) -> impl Iterator<Item = NodeId> + 'a {
        replicas.iter().copied().filter(|node| self.is_up(*node))
    }

    /// Who serves a partition whose copies are on `replicas`. Empty: on this node alone.
    pub fn leader(&self, partition: TopicPartition, replicas: &[NodeId]) -> Leader {
        if let Some((node, term)) = self.leader_of(partition) {
            return Leader::Known { node, epoch: epoch(term.0) };
        }
        let own = self.leadership(partition);
        // The only copy has stopped taking writes: there is nobody to elect.
        let is_only = own.is_some() && replicas.len() < 2;
        if !is_only && (replicas.is_empty() || self.reaches_majority_of(replicas)) {
            return Leader::Electing;
        }
        match own {
            Some(own) => Leader::ReadOnly { node: self.id(), epoch: epoch(own.term.0) },
            None => match self.reachable_of(replicas).next() {
                Some(node) => Leader::ReadOnly { node, epoch: -1 },
                None => Leader::Unreachable,
            },
        }
    }
}

/// A term as the wire has it.
pub fn epoch(term: u64) -> i32 {
    i32::try_from(term).unwrap_or(i32::MAX)
}
