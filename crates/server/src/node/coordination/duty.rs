//! Whose duty it is: the node that leads the internal topic's partition coordinates, for as long as it leads.
//!
//! ```text
//! Unknown --a leader is known--> Elsewhere        another node coordinates: NOT_COORDINATOR
//!    |                              |
//!    '--this node leads, term T-----'--> Loading  what was written before is read: LOAD_IN_PROGRESS
//!                                           '--> Here(T)  requests reach the coordinator
//! Here(T) --another leader or term--> the coordinator and everything it waits for is dropped: NOT_COORDINATOR
//! ```
//! What always holds: a coordinator begins with every record that was committed before its term, and writes in its term only.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::{Offset, PartitionIndex, Term, TopicPartition};
use control::{Refused, State};
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};

use super::{Asked, Machine, QUEUE_MAX, Task, Works, load, overrides};
use crate::node::hosting::Hosting;
use crate::node::topics::{self, Copies, NewTopic};
use crate::node::{NodeError, time};
use crate::shell::logs::{Leadership, LogsHandle};
use crate::shell::meta::MetaHandle;

/// Between two tries of what did not work.
const RETRY: Duration = Duration::from_millis(200);
/// The active master makes the topic; the others do after this long without it.
const TOPIC_PATIENCE: Duration = Duration::from_secs(3);

/// See the module.
pub(super) enum Duty<M: Machine> {
    Unknown,
    Elsewhere,
    Loading,
    Here(mpsc::Sender<Asked<M>>),
}

impl<M: Machine> Clone for Duty<M> {
    fn clone(&self) -> Self {
        match self {
            Self::Unknown => Self::Unknown,
            Self::Elsewhere => Self::Elsewhere,
            Self::Loading => Self::Loading,
            Self::Here(requests) => Self::Here(requests.clone()),
        }
    }
}

pub(super) struct Keeper<M: Machine> {
    pub works: Works<M>,
    pub meta: MetaHandle,
    pub hosting: Hosting,
    pub logs: LogsHandle,
    pub duty: watch::Sender<Duty<M>>,
}

impl<M: Machine> Keeper<M> {
    /// Until the node ends.
    pub async fn run(self) {
        let partition = self.partition().await;
        loop {
            let Some(mut leadership) = self.logs.leadership(partition) else {
                self.duty.send_replace(Duty::Elsewhere);
                tokio::time::sleep(RETRY).await;
                continue;
            };
            let now = *leadership.borrow_and_update();
            if now.is_mine {
                self.coordinate(partition, now.term, &mut leadership).await;
                if leadership.has_changed().is_err() {
                    // The logs have ended, and the node is about to: nobody will say any more that this node does not lead.
                    tokio::time::sleep(RETRY).await;
                }
                continue;
            }
            self.duty.send_replace(if now.leader.is_some() { Duty::Elsewhere } else { Duty::Unknown });
            if leadership.changed().await.is_err() {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// The internal topic's partition; the topic is made if it is absent.
    async fn partition(&self) -> TopicPartition {
        let mut states = self.meta.watch();
        let began = time::now();
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            if let Some(topic) = state.topic_named(M::TOPIC) {
                return TopicPartition { topic: topic.id, partition: PartitionIndex(0) };
            }
            let is_late = Duration::from_millis(time::now().since(began)) >= TOPIC_PATIENCE;
            if (self.meta.master().is_active || is_late)
                && let Err(error) = self.make_topic(&state).await
            {
                tracing::debug!(topic = M::TOPIC, %error, "{} are not available yet", M::WHAT);
            }
            drop(tokio::time::timeout(RETRY, states.changed()).await);
        }
    }

    async fn make_topic(&self, state: &State) -> Result<(), NodeError> {
        // Before the cluster is formed nobody knows how many copies there can be.
        if state.cluster.is_none() {
            return Ok(());
        }
        let (name, overrides) = (M::TOPIC.to_owned(), overrides());
        let new = NewTopic { name, partitions: 1, copies: Copies::Default, overrides, internal: true };
        match topics::create_topic(&self.meta, &self.hosting, new).await {
            Ok(_) | Err(NodeError::Refused(Refused::TopicExists { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Coordinates while this node leads in `term`.
    async fn coordinate(&self, partition: TopicPartition, term: Term, leadership: &mut watch::Receiver<Leadership>) {
        self.duty.send_replace(Duty::Loading);
        let is_sole = self.meta.state().replicas(partition).len() < 2;
        let work = async {
            let task = match self.load(partition, term).await {
                Ok(task) => task,
                Err(error) => {
                    tracing::error!(topic = M::TOPIC, %error, "{} are not available: their log cannot be read", M::WHAT);
                    self.duty.send_replace(Duty::Unknown);
                    tokio::time::sleep(RETRY * 5).await;
                    return;
                }
            };
            let (requests, queue) = mpsc::channel(QUEUE_MAX);
            self.duty.send_replace(Duty::Here(requests));
            tracing::info!(%term, "{} are coordinated here", M::WHAT);
            task.run(queue, self.meta.watch()).await;
        };
        tokio::select! {
            () = work => {}
            () = over(leadership, term, is_sole) => {
                tracing::info!(%term, "{} are no longer coordinated here", M::WHAT);
            }
        }
    }

    /// The coordinator with everything that was written before `term`.
    async fn load(&self, partition: TopicPartition, term: Term) -> Result<Task<M>, NodeError> {
        let gone = || NodeError::UnknownPartition(partition.to_string());
        let reader = self.logs.reader(partition).ok_or_else(gone)?;
        // A new leader has every committed record, but learns only with its own first commit that they are.
        let end = reader.end();
        let mut committed = self.logs.committed(partition).ok_or_else(gone)?;
        committed.wait_for(|committed: &Offset| *committed >= end).await.map_err(|_| gone())?;
        let machine = (self.works.make)();
        let loaded = tokio::task::spawn_blocking(move || load(&reader, machine)).await;
        let loaded = loaded.map_err(|error| NodeError::Internal(format!("loading {}: {error}", M::WHAT)))?;
        let (machine, bytes) = loaded.map_err(|error| NodeError::Internal(error.to_string()))?;
        Ok(Task {
            machine,
            run: Arc::clone(&self.works.run),
            logs: self.logs.clone(),
            partition,
            term,
            last_ticket: 0,
            waiting: BTreeMap::new(),
            errands: FuturesUnordered::new(),
            writes: VecDeque::new(),
            checkpoint: None,
            bytes_since_checkpoint: bytes,
            checkpoint_bytes: 0,
            is_failing: false,
        })
    }
}

/// Until this node does not lead in `term` any more. The only replica has no rival, whatever its term.
async fn over(leadership: &mut watch::Receiver<Leadership>, term: Term, is_sole: bool) {
    // An error: the partition was closed.
    drop(leadership.wait_for(|now| !now.is_mine || (now.term != term && !is_sole)).await);
}
