//! Who holds a partition.

use base::NodeId;

/// The replicas a partition starts with. Membership entries in its log rule from then on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seats {
    /// Decide together what is committed. One voter decides alone.
    pub voters: Vec<NodeId>,
    /// Receive the log and have no vote.
    pub learners: Vec<NodeId>,
}

impl Seats {
    /// A partition on one node.
    #[must_use]
    pub fn alone(node: NodeId) -> Self {
        Self { voters: vec![node], learners: Vec::new() }
    }
}
