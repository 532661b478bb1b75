//! Which groups cannot decide, for want of whose votes, and what would bring them back: read only, nothing is forced. And
//! the metadata as a backup.

use base::{NodeId, PartitionIndex, TopicPartition};
use control::backup::Head;
use control::{Backup, Command, State};

use super::{Node, NodeError, time};

/// Groups told of; more are counted.
pub const GROUPS_MAX: usize = 1_000;

/// A group as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// `metadata`, or a topic and a partition.
    pub name: String,
    pub voters: Vec<NodeId>,
    pub missing: Vec<NodeId>,
    /// What this node itself has of it: records, or entries of the metadata. `None`: no copy here.
    pub here: Option<u64>,
}

impl Group {
    pub fn can_decide(&self) -> bool {
        2 * (self.voters.len() - self.missing.len()) > self.voters.len()
    }

    /// Those of the missing of which any so many bring it back.
    pub fn needed(&self) -> usize {
        (self.voters.len() / 2 + 1).saturating_sub(self.voters.len() - self.missing.len())
    }
}

impl Node {
    /// The metadata as this node has it, at one committed entry.
    ///
    /// # Errors
    /// The cluster has not been formed, or the node is ending.
    pub async fn backup(&self) -> Result<Backup, NodeError> {
        let (state, term, voters) = self.meta().backup().await.ok_or(NodeError::Stopping)?;
        let Some(cluster) = state.cluster else {
            return Err(NodeError::Invalid("the cluster has not been formed yet: there is nothing to keep".into()));
        };
        let (index, taken, taken_by) = (state.applied, time::wall(), self.id());
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let head = Head { cluster, index, term, taken, taken_by, version, voters, founding: None };
        Ok(Backup { head, state: State::clone(&state) })
    }

    /// Nobody speaks any more of how the cluster was begun anew; how many such acts that were.
    ///
    /// # Errors
    /// What the metadata said.
    pub async fn acknowledge_refoundings(&self) -> Result<usize, NodeError> {
        let state = self.state();
        let open = state.refoundings.iter().filter(|act| act.acknowledged.is_none());
        let mut count = 0;
        for act in open {
            self.propose(Command::AcknowledgeRefounding { id: act.id, at: time::wall() }).await?;
            count += 1;
        }
        Ok(count)
    }

    /// Groups that cannot decide, the metadata first; and how many there are.
    pub fn undecided_groups(&self) -> (Vec<Group>, usize) {
        let (state, master) = (self.state(), self.master());
        let missing = |voters: &[NodeId]| voters.iter().copied().filter(|id| !self.is_up(*id)).collect::<Vec<_>>();
        let metadata = Group {
            name: "metadata".into(),
            voters: master.voters.clone(),
            missing: missing(&master.voters),
            here: Some(state.applied.0),
        };
        let partitions = state.topics.values().flat_map(|topic| {
            (0..topic.partitions).map(PartitionIndex).map(move |partition| {
                let at = TopicPartition { topic: topic.id, partition };
                (format!("{}-{partition}", topic.name), topic.replicas_of(partition).to_vec(), at)
            })
        });
        let group = |(name, voters, at): (String, Vec<NodeId>, TopicPartition)| {
            let here = self.reader(at).and_then(|reader| u64::try_from(reader.committed().0).ok());
            Group { name, missing: missing(&voters), voters, here }
        };
        let mut all: Vec<Group> = std::iter::once(metadata)
            .chain(partitions.map(group))
            .filter(|group| !group.voters.is_empty() && !group.can_decide())
            .collect();
        let count = all.len();
        all.truncate(GROUPS_MAX);
        (all, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(voters: u32, missing: u32) -> Group {
        let ids = |count| (1..=count).map(NodeId).collect();
        Group { name: "t-0".into(), voters: ids(voters), missing: ids(missing), here: None }
    }

    #[test]
    fn so_many_must_come_back() {
        assert!(group(3, 1).can_decide() && group(5, 2).can_decide() && !group(1, 1).can_decide());
        assert_eq!(
            (group(3, 2).needed(), group(3, 3).needed(), group(5, 3).needed(), group(3, 0).needed()),
            (1, 2, 1, 0)
        );
    }
}
