//! The replicas of this node, as the metadata has them: opened, configured, and removed with their topic.
//!
//! ```text
//! meta.watch() --state--> task: what differs from the last state --open | configure | delete--> logs
//!                           '--applied index that has been carried out--> whoever waits for it
//! ```
//! What always holds: files are deleted only for a topic that has a tombstone; a partition is opened with the replicas that
//! its topic names; a partition that could not be opened is said once and the others go on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::disk::{Disk, DiskError};
use base::{LogIndex, NodeId, TopicId, TopicPartition};
use control::{State, Topic};
use futures::StreamExt;
use log::Seats;
use tokio::sync::watch;

use super::topics::{partition_config, partitions};
use crate::config::Config;
use crate::shell::logs::{LogsError, LogsHandle};
use crate::shell::meta::MetaHandle;

/// Most partitions opened or deleted at the same time.
const WORKING_MAX: usize = 64;

type Failures = Arc<Mutex<BTreeMap<TopicPartition, String>>>;

/// What has been carried out. Cheap to clone.
#[derive(Clone)]
pub struct Hosting {
    done: watch::Receiver<LogIndex>,
    failures: Failures,
}

impl Hosting {
    /// Carries out what the metadata says now, then follows it until the node ends. `disk` is where `logs` has its folders.
    ///
    /// # Errors
    /// The folders cannot be listed, or one of a deleted topic cannot be removed.
    pub async fn start(
        config: &Arc<Config>,
        meta: &MetaHandle,
        logs: &LogsHandle,
        disk: &dyn Disk,
    ) -> Result<Self, DiskError> {
        let mut states = meta.watch();
        let state = Arc::clone(&states.borrow_and_update());
        clean_up(&state, disk)?;
        let failures = Failures::default();
        let mut host = Host {
            config: Arc::clone(config),
            logs: logs.clone(),
            topics: BTreeMap::new(),
            failures: Arc::clone(&failures),
        };
        host.carry_out(&state).await;
        let (done, carried_out) = watch::channel(state.applied);
        tokio::spawn(host.run(states, done));
        Ok(Self { done: carried_out, failures })
    }

    /// Waits until the state at `index` has been carried out here. False if it was not within `patience`.
    pub async fn reached(&self, index: LogIndex, patience: Duration) -> bool {
        let mut done = self.done.clone();
        let reached = done.wait_for(|done| *done >= index);
        matches!(tokio::time::timeout(patience, reached).await, Ok(Ok(_)))
    }

    /// Why a partition of this node is not served.
    pub fn failure(&self, partition: TopicPartition) -> Option<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).cloned()
    }
}

/// The replicas of a partition as the topic has them, the preferred leader first; `None` if this node has none.
/// A node that a partition is being moved to learns first; so does one that a move was to bring it to before it was
/// called off, if it has nothing yet: if it has a copy, that one may have a vote that the others need.
pub fn seats(topic: &Topic, partition: TopicPartition, node: NodeId) -> Option<Seats> {
    let voters = topic.replicas_of(partition.partition);
    if voters.is_empty() {
        // Before any node has registered there is one, and it is this one.
        return Some(Seats::alone(node));
    }
    let target = topic.targets.get(&partition.partition).map_or(&[][..], Vec::as_slice);
    if !topic.is_on(partition.partition, node) {
        return None;
    }
    let mut learners: Vec<NodeId> = target.iter().copied().filter(|learner| !voters.contains(learner)).collect();
    if !voters.contains(&node) && !learners.contains(&node) {
        learners.push(node);
    }
    Some(Seats { voters: voters.to_vec(), learners })
}

/// Removes the folders of topics that were deleted while this node was away. What nobody knows is left alone.
fn clean_up(state: &State, disk: &dyn Disk) -> Result<(), DiskError> {
    let mut by_name: BTreeMap<String, TopicId> = BTreeMap::new();
    by_name.extend(state.topics.keys().chain(state.tombstones.keys()).map(|id| (id.to_string(), *id)));
    for entry in disk.list("")?.into_iter().filter(|entry| entry.is_dir) {
        match by_name.get(&entry.name) {
            Some(id) if state.tombstones.contains_key(id) => disk.remove_dir_all(&entry.name)?,
            Some(_) => {}
            None => tracing::warn!(
                folder = %entry.name,
                "the log holds a topic that the metadata does not know; it is left alone, not deleted"
            ),
        }
    }
    Ok(())
}

struct Host {
    config: Arc<Config>,
    logs: LogsHandle,
    /// As they have been carried out.
    topics: BTreeMap<TopicId, Arc<Topic>>,
    failures: Failures,
}

impl Host {
    async fn run(mut self, mut states: watch::Receiver<Arc<State>>, done: watch::Sender<LogIndex>) {
        while states.changed().await.is_ok() {
            let state = Arc::clone(&states.borrow_and_update());
            self.carry_out(&state).await;
            done.send_replace(state.applied);
        }
    }

    async fn carry_out(&mut self, state: &State) {
        let gone: Vec<Arc<Topic>> =
            self.topics.values().filter(|topic| !state.topics.contains_key(&topic.id)).cloned().collect();
        for topic in gone {
            if state.tombstones.contains_key(&topic.id) {
                self.delete(&topic).await;
            } else {
                tracing::warn!(topic = %topic.name, "a topic vanished without a tombstone: its data is left alone");
            }
            self.topics.remove(&topic.id);
        }
        let is_known = |topic: &Arc<Topic>| self.topics.get(&topic.id).is_some_and(|known| Arc::ptr_eq(known, topic));
        let changed: Vec<Arc<Topic>> = state.topics.values().filter(|topic| !is_known(topic)).cloned().collect();
        for topic in changed {
            self.open(&topic).await;
            let before = self.topics.insert(topic.id, Arc::clone(&topic));
            if before.is_some_and(|before| before.overrides != topic.overrides) {
                self.configure(&topic);
            }
        }
    }

    async fn open(&self, topic: &Topic) {
        for (partition, result) in open_topic(&self.logs, topic, &self.config).await {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(()) => {
                    failures.remove(&partition);
                }
                Err(error) => {
                    if failures.insert(partition, error.to_string()).is_none() {
                        tracing::error!(topic = %topic.name, %partition, %error, "a partition is not served");
                    }
                }
            }
        }
    }

    fn configure(&self, topic: &Topic) {
        let config = partition_config(topic, &self.config);
        partitions(topic).for_each(|partition| self.logs.configure(partition, config.clone()));
    }

    async fn delete(&self, topic: &Topic) {
        let deletions = partitions(topic).map(|partition| async move {
            match self.logs.delete(partition).await {
                Ok(()) | Err(LogsError::Unknown(_) | LogsError::Closed) => {}
                Err(error) => {
                    tracing::warn!(topic = %topic.name, %partition, %error,
                        "a deleted partition's files are still there; the next start removes them");
                }
            }
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
        });
        futures::stream::iter(deletions).buffer_unordered(WORKING_MAX).collect::<Vec<()>>().await;
    }
}

/// Opens this node's replicas of a topic; those that are open stay as they are.
async fn open_topic(logs: &LogsHandle, topic: &Topic, config: &Config) -> Vec<(TopicPartition, Result<(), LogsError>)> {
    let (node, partition_config) = (NodeId(config.node.id), partition_config(topic, config));
    let openings = partitions(topic).filter_map(|partition| {
        let seats = seats(topic, partition, node)?;
        let config = partition_config.clone();
        Some(async move { (partition, logs.open(partition, config, seats).await.map(drop)) })
    });
    futures::stream::iter(openings).buffered(WORKING_MAX).collect().await
}
