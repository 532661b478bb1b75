//! The log as the rest of the server sees it: cheap to clone, async, bounded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::time::Duration;

use base::{NodeId, Offset, ProducerEpoch, ProducerId, Term, Tick, TopicPartition};
use bytes::Bytes;
use log::{Appended, Marker, PartitionConfig, ProducerSeen, Reader, Seats, Verification};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::{
    Append, Behind, COMMANDS_MAX, Command, Leadership, LogsError, LostFile, QUEUED_KIB_MAX, ReplicaStatus, Rounds, What,
};
use crate::node::{Acks, time};
use crate::shell::peers::{GroupFrame, Lane};

/// What is known of the open partitions without asking the owner thread, shared with it.
pub(super) struct Open {
    pub partitions: RwLock<BTreeMap<TopicPartition, Shared>>,
    /// Counts the changes of leadership.
    pub changes: watch::Sender<u64>,
    pub rounds: Rounds,
    /// Free space as seen last; `u64::MAX`: not yet.
    pub free_bytes: AtomicU64,
}

impl Default for Open {
    fn default() -> Self {
        Self {
            partitions: RwLock::default(),
            changes: watch::channel(0).0,
            rounds: Rounds::default(),
            free_bytes: AtomicU64::new(u64::MAX),
        }
    }
}

/// One open partition.
#[derive(Clone)]
pub(super) struct Shared {
    pub reader: Reader,
    pub committed: watch::Receiver<Offset>,
    pub stable: watch::Receiver<Offset>,
    pub leadership: watch::Receiver<Leadership>,
    pub behind: watch::Receiver<Behind>,
}

#[derive(Clone)]
pub struct LogsHandle {
    commands: Arc<Commands>,
    open: Arc<Open>,
    places: Arc<Semaphore>,
    kibs: Arc<Semaphore>,
}

/// The way to the owner thread, which ends when the last handle goes. The flusher has a sender too, so the
/// thread does not see that by itself.
struct Commands(mpsc::Sender<Command>, Urgent);

/// Votes, heartbeats and answers go before everything that waits: an owner with much to do still hears its peers.
pub(super) struct Urgent {
    pub frames: mpsc::Sender<GroupFrame>,
    /// A command that makes the owner look at them is on its way.
    pub is_told: Arc<AtomicBool>,
}

impl Drop for Commands {
    fn drop(&mut self) {
        let _ended_already = self.0.send(Command::Abandon);
    }
}

impl LogsHandle {
    pub(super) fn new(commands: mpsc::Sender<Command>, urgent: Urgent, open: Arc<Open>) -> Self {
        Self {
            commands: Arc::new(Commands(commands, urgent)),
            open,
            places: Arc::new(Semaphore::new(COMMANDS_MAX)),
            kibs: Arc::new(Semaphore::new(QUEUED_KIB_MAX)),
        }
    }

    /// Opens a partition, made if it is absent. Answers its committed offset as it changes. `seats` counts for a
    /// partition that is new here; the first voter is its preferred leader.
    pub async fn open(
        &self,
        partition: TopicPartition,
        config: PartitionConfig,
        seats: Seats,
    ) -> Result<watch::Receiver<Offset>, LogsError> {
        self.ask(|reply| Command::Open { partition, config, seats, reply }).await
    }

    pub fn configure(&self, partition: TopicPartition, config: PartitionConfig) {
        self.tell(Command::Configure { partition, config });
    }

    /// Appends; answers as `acks` says, by `deadline`. Waits for a place in the queue no longer than that.
    pub async fn append(
        &self,
        partition: TopicPartition,
        batches: Bytes,
        acks: Acks,
        deadline: Tick,
    ) -> Result<Appended, LogsError> {
        self.append_as(partition, What::Batches(batches), acks, deadline, None).await
    }

    /// Appends batches that a [`log::Rescue`] gave; answers when they are durable on a majority.
    pub async fn append_rescued(
        &self,
        partition: TopicPartition,
        batches: Bytes,
        deadline: Tick,
    ) -> Result<Appended, LogsError> {
        self.append_as(partition, What::Rescued(batches), Acks::All, deadline, None).await
    }

    /// As [`LogsHandle::append`], refused with `NotLeader` unless this node leads in `term`: what was decided in
    /// an earlier leadership is not written in a later one. A sole voter has only one.
    pub async fn append_in_term(
        &self,
        partition: TopicPartition,
        batches: Bytes,
        acks: Acks,
        deadline: Tick,
        term: Term,
    ) -> Result<Appended, LogsError> {
        self.append_as(partition, What::Batches(batches), acks, deadline, Some(term)).await
    }

    async fn append_as(
        &self,
        partition: TopicPartition,
        what: What,
        acks: Acks,
        deadline: Tick,
        term: Option<Term>,
    ) -> Result<Appended, LogsError> {
        let bytes = match &what {
            What::Batches(batches) | What::Rescued(batches) => batches.len(),
            What::Marker(..) => 0,
        };
        let kibs = u32::try_from(bytes.div_ceil(1024).clamp(1, QUEUED_KIB_MAX)).unwrap_or(1);
        let permits = self.permits(kibs, deadline).await?;
        let (reply, answer) = oneshot::channel();
        let append = Append { partition, what, acks, deadline, term, reply };
        self.commands.0.send(Command::Append { append, permits }).map_err(|_| LogsError::Closed)?;
        answer.await.map_err(|_| LogsError::Closed)?
    }

    /// Ends a producer's transaction in a partition that this node leads in `term`; answers when that is durable. `mark` numbers
    /// the marker (the coordinator's term, its round): one that comes late, after it or a later one, is answered and not
    /// written, because the producer may be in its next transaction by then.
    pub async fn append_marker(
        &self,
        partition: TopicPartition,
        marker: Marker,
        mark: (u64, u64),
        term: Term,
        deadline: Tick,
    ) -> Result<Appended, LogsError> {
        let permits = self.permits(1, deadline).await?;
        let (reply, answer) = oneshot::channel();
        let what = What::Marker(marker, mark);
        let append = Append { partition, what, acks: Acks::All, deadline, term: Some(term), reply };
        self.commands.0.send(Command::Append { append, permits }).map_err(|_| LogsError::Closed)?;
        answer.await.map_err(|_| LogsError::Closed)?
    }

    /// Before a transaction's coordinator is asked whether it runs. `None`: it is open in this partition, nobody need be asked.
    pub async fn verify_begin(
        &self,
        partition: TopicPartition,
        producer: ProducerId,
        epoch: ProducerEpoch,
    ) -> Result<Option<Verification>, LogsError> {
        self.ask(|reply| Command::VerifyBegin { partition, producer, epoch, reply }).await
    }

    /// The coordinator said yes. False: too late, ask again.
    pub async fn verified(&self, partition: TopicPartition, verification: Verification) -> Result<bool, LogsError> {
        self.ask(|reply| Command::Verified { partition, verification, reply }).await
    }

    /// Records above `floor` are kept whatever retention says.
    pub fn set_floor(&self, partition: TopicPartition, floor: Option<Offset>) {
        self.tell(Command::SetFloor { partition, floor });
    }

    pub async fn delete_before(&self, partition: TopicPartition, before: Offset) -> Result<Offset, LogsError> {
        self.ask(|reply| Command::DeleteBefore { partition, before, reply }).await
    }

    /// Removes a partition and its files. Only for a topic that has a tombstone.
    pub async fn delete(&self, partition: TopicPartition) -> Result<(), LogsError> {
        self.ask(|reply| Command::Delete { partition, reply }).await
    }

    /// A message from another replica.
    pub fn step(&self, frame: GroupFrame) {
        if frame.lane == Lane::Bulk {
            return self.tell(Command::Message(frame));
        }
        let Urgent { frames, is_told } = &self.commands.1;
        if frames.send(frame).is_ok() && !is_told.swap(true, Ordering::AcqRel) {
            self.tell(Command::Wake);
        }
    }

    /// The link to a node came or went.
    pub fn link(&self, node: NodeId, is_connected: bool) {
        self.tell(Command::Link(node, is_connected));
    }

    /// Hands a partition's leadership to another replica, if this node leads. Watch for it.
    pub fn transfer(&self, partition: TopicPartition, to: NodeId) {
        self.tell(Command::Transfer(partition, to));
    }

    /// Asks a partition that this node leads to have other members. Watch its status: it takes a while.
    pub async fn set_members(
        &self,
        partition: TopicPartition,
        voters: Vec<NodeId>,
        learners: Vec<NodeId>,
    ) -> Result<(), LogsError> {
        self.ask(|reply| Command::SetMembers { partition, voters, learners, reply }).await
    }

    /// A replica as its owner sees it.
    pub async fn status(&self, partition: TopicPartition) -> Result<ReplicaStatus, LogsError> {
        self.ask(|reply| Command::Status { partition, reply }).await
    }

    /// What the partition remembers of its producers.
    pub async fn producers(&self, partition: TopicPartition) -> Result<Vec<ProducerSeen>, LogsError> {
        self.ask(|reply| Command::Producers { partition, reply }).await
    }

    /// What this replica had written and another leader's records have replaced.
    pub async fn lost(&self, partition: TopicPartition) -> Result<Vec<log::LostFound>, LogsError> {
        self.ask(|reply| Command::Lost { partition, reply }).await
    }

    /// What of it the topic's policy has something to do with now.
    pub async fn lost_due(&self, partition: TopicPartition) -> Result<Vec<log::LostFound>, LogsError> {
        self.ask(|reply| Command::LostDue { partition, reply }).await
    }

    /// What republishes one file of it. `None`: there is no such file, or its batches may still come back.
    pub async fn rescue(
        &self,
        partition: TopicPartition,
        file: LostFile,
        by_hand: bool,
    ) -> Result<Option<log::Rescue>, LogsError> {
        self.ask(|reply| Command::Rescue { partition, file, by_hand, reply }).await
    }

    /// Notes what became of batches of one file of it, durably. False: there is no such file, its batches may still come back,
    /// or another is being written.
    pub async fn settle(
        &self,
        partition: TopicPartition,
        file: LostFile,
        fates: Vec<(usize, log::LostState)>,
    ) -> Result<bool, LogsError> {
        self.ask(|reply| Command::Settle { partition, file, fates, reply }).await
    }

    /// The partitions that are open here.
    pub fn open_here(&self) -> Vec<TopicPartition> {
        self.open.partitions.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Reads beside the owner thread.
    pub fn reader(&self, partition: TopicPartition) -> Option<Reader> {
        self.shared(partition, |shared| shared.reader.clone())
    }

    /// Changes whenever the partition's committed offset does.
    pub fn committed(&self, partition: TopicPartition) -> Option<watch::Receiver<Offset>> {
        self.shared(partition, |shared| shared.committed.clone())
    }

    /// Changes whenever the offset does up to which all transactions are decided; it is never above the committed one.
    pub fn stable(&self, partition: TopicPartition) -> Option<watch::Receiver<Offset>> {
        self.shared(partition, |shared| shared.stable.clone())
    }

    /// Changes whenever this node learns of another leader or term. `None`: no replica here.
    pub fn leadership(&self, partition: TopicPartition) -> Option<watch::Receiver<Leadership>> {
        self.shared(partition, |shared| shared.leadership.clone())
    }

    /// The partitions that this node leads.
    pub fn led(&self) -> Vec<(TopicPartition, Term)> {
        let partitions = self.open.partitions.read().unwrap_or_else(PoisonError::into_inner);
        let leadership = |shared: &Shared| *shared.leadership.borrow();
        let all = partitions.iter().map(|(id, shared)| (*id, leadership(shared)));
        all.filter(|(_, leadership)| leadership.is_mine).map(|(id, leadership)| (id, leadership.term)).collect()
    }

    /// How long the owner thread's rounds take.
    #[must_use]
    pub fn rounds(&self) -> &Rounds {
        &self.open.rounds
    }

    /// Of a partition that this node leads: the replicas that do not keep up, or are not reached. Empty if it does not lead.
    pub fn behind(&self, partition: TopicPartition) -> Behind {
        self.shared(partition, |shared| Behind::clone(&shared.behind.borrow())).unwrap_or_default()
    }

    /// The partitions that this node leads and of which replicas are behind, with these.
    pub fn all_behind(&self) -> Vec<(TopicPartition, Behind)> {
        let partitions = self.open.partitions.read().unwrap_or_else(PoisonError::into_inner);
        let some_are_behind = partitions.iter().filter(|(_, shared)| !shared.behind.borrow().is_empty());
        some_are_behind.map(|(id, shared)| (*id, Behind::clone(&shared.behind.borrow()))).collect()
    }

    /// Free space of the log's disk, as seen a moment ago.
    pub fn free_bytes(&self) -> Option<u64> {
        Some(self.open.free_bytes.load(Ordering::Relaxed)).filter(|free| *free != u64::MAX)
    }

    /// Counts the changes of any partition's leadership.
    pub fn leadership_changes(&self) -> watch::Receiver<u64> {
        self.open.changes.subscribe()
    }

    fn shared<T>(&self, partition: TopicPartition, get: impl FnOnce(&Shared) -> T) -> Option<T> {
        self.open.partitions.read().unwrap_or_else(PoisonError::into_inner).get(&partition).map(get)
    }

    /// Flushes everything and ends the threads.
    pub async fn close(&self) -> Result<(), LogsError> {
        self.ask(|reply| Command::Close { reply }).await
    }

    /// A place and room in the queue; at once if there is, else by `deadline`.
    async fn permits(&self, kibs: u32, deadline: Tick) -> Result<[OwnedSemaphorePermit; 2], LogsError> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned()
            && let Ok(bytes) = Arc::clone(&self.kibs).try_acquire_many_owned(kibs)
        {
            return Ok([place, bytes]);
        }
        let wait = async {
            let place = Arc::clone(&self.places).acquire_owned().await;
            let bytes = Arc::clone(&self.kibs).acquire_many_owned(kibs).await;
            Ok([closed(place)?, closed(bytes)?])
        };
        let left = Duration::from_millis(deadline.since(time::now()));
        tokio::time::timeout(left, wait).await.map_err(|_| LogsError::Busy)?
    }

    fn tell(&self, command: Command) {
        if self.commands.0.send(command).is_err() {
            tracing::debug!("the log is closed; a setting came too late");
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(super::Reply<T>) -> Command) -> Result<T, LogsError> {
        let place = closed(Arc::clone(&self.places).acquire_owned().await)?;
        let (reply, answer) = oneshot::channel();
        self.commands.0.send(command(reply)).map_err(|_| LogsError::Closed)?;
        let answer = answer.await.map_err(|_| LogsError::Closed)?;
        drop(place);
        answer
    }
}

fn closed<T>(permit: Result<T, tokio::sync::AcquireError>) -> Result<T, LogsError> {
    permit.map_err(|_| LogsError::Closed)
}
