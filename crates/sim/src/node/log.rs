//! A partition's replica on one node: what the owner of the logs does for it. Flushes take time and run beside
//! everything else; who waits for them is answered when the records are committed.

use std::sync::Arc;

use base::disk::Disk;
use base::{LogIndex, NodeId, Offset, Term, Tick, Timestamp, TopicPartition};
use bytes::Bytes;
use log::{AppendError, CareJob, FlushJob, HardStates, OpenError, Partition, PartitionConfig, Seats, StepError};
use quorum::{Message, Role};

use super::effects::Acked;
use super::moves::{self, Step};
use super::{Bug, Effects, GroupName, ProduceFailure, Reply, SyncOf, Ticket};

/// Between two steps of a move.
const MOVE_STEP_MS: u64 = 200;
/// Old files are read again this often.
const SCRUB_INTERVAL_MS: u64 = 3_000;
/// Who waits for an append; more are refused.
const WAITERS_MAX: usize = 500;

/// When a producer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    None,
    Leader,
    All,
}

/// See the module.
pub struct Log {
    pub tp: TopicPartition,
    pub partition: Partition,
    waiting: Vec<Waiter>,
    job: Option<FlushJob>,
    care: Option<CareJob>,
    /// When the last step of a move was taken.
    stepped: Tick,
    /// The last term led, and the last entry when that began: its own first one, or after it.
    led: (Term, LogIndex),
    bug: Bug,
}

/// Whom to tell that an append is committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waits {
    Client(Ticket),
    /// The coordinator of consumer groups, in this term, about this write.
    Coordinator(Term, log::groups::WriteId),
}

struct Waiter {
    who: Waits,
    base: Offset,
    next: Offset,
    term: Term,
    crc: u32,
}

/// Small files and an index entry for every batch, so that runs see many of both.
fn config() -> PartitionConfig {
    PartitionConfig {
        file_bytes_max: 4 << 10,
        index_step_bytes: 256,
        retention_ms: None,
        retention_bytes: None,
        scrub_interval_ms: Some(SCRUB_INTERVAL_MS),
        ..PartitionConfig::default()
    }
}

pub(crate) fn folder(tp: TopicPartition) -> String {
    format!("{}/{}", tp.topic, tp.partition)
}

impl Log {
    #[expect(clippy::too_many_arguments, reason = "all a replica needs from its node, once")]
    pub fn open(
        tp: TopicPartition,
        node: NodeId,
        seats: Seats,
        disk: Arc<dyn Disk>,
        hard: HardStates,
        now: Tick,
        wall: Timestamp,
        bug: Bug,
    ) -> Result<Self, OpenError> {
        let (partition, _) = Partition::open(tp, &folder(tp), config(), node, seats, disk, hard, now, wall)?;
        Ok(Self {
            tp,
            partition,
            waiting: Vec::new(),
            job: None,
            care: None,
            stepped: now,
            led: (Term::ZERO, LogIndex::ZERO),
            bug,
        })
    }

    pub fn tick(&mut self, now: Tick, wall: Timestamp, fx: &mut Effects) {
        self.partition.tick(now, wall);
        if let Some(job) = self.partition.care_job(now) {
            self.care = Some(job);
            fx.syncs.push(SyncOf::Care(self.tp));
        }
        self.drive(now, fx);
    }

    /// Old files were read again, or written over.
    pub fn cared(&mut self, now: Tick, fx: &mut Effects) {
        let Some(job) = self.care.take() else { return };
        self.partition.cared(job.run());
        self.drive(now, fx);
    }

    pub fn step(&mut self, now: Tick, message: Message, fx: &mut Effects) {
        if self.bug == Bug::NeverMended && message.copies().is_some() {
            return;
        }
        match self.partition.step(now, message) {
            Ok(()) | Err(StepError::Stalled | StepError::Stopped(_)) => {}
            Err(StepError::Refused(error)) => fx.refused(GroupName::Partition(self.tp), error),
        }
        self.drive(now, fx);
    }

    /// The flush that was begun is to be done now.
    pub fn synced(&mut self, now: Tick, fx: &mut Effects) {
        let Some(job) = self.job.take() else { return };
        let done = job.run();
        let _stopped_is_seen_by_the_node = self.partition.flushed(done);
        self.drive(now, fx);
    }

    pub fn produce(&mut self, now: Tick, wall: Timestamp, who: Waits, acks: Acks, batch: Bytes, fx: &mut Effects) {
        if self.waiting.len() >= WAITERS_MAX {
            return Self::answer(who, Err(ProduceFailure::Busy), fx);
        }
        if !self.partition.lease_valid(now) && self.bug != Bug::LeaseIgnored {
            let leader = self.partition.leader().filter(|_| self.partition.role() != Role::Leader);
            return Self::answer(who, Err(ProduceFailure::NotLeader(leader)), fx);
        }
        let crc = base::batch::BatchHeader::parse(&batch).map_or(0, |header| header.crc);
        match self.partition.append(now, wall, batch) {
            Ok(appended) => {
                let (base, next, term) = (appended.base_offset, appended.next_offset, appended.term);
                // Now, not before the append: it may have taken long.
                let lease = self.partition.lease_valid(now) || self.bug == Bug::LeaseIgnored;
                let acked = Acked { tp: self.tp, acks, base, next, term, crc };
                match acks {
                    Acks::Leader if lease => {
                        self.partition.note_acked(base, next);
                        fx.acked.push(acked);
                        Self::answer(who, Ok(base), fx);
                    }
                    Acks::All if self.bug == Bug::AckUncommitted => {
                        fx.acked.push(acked);
                        Self::answer(who, Ok(base), fx);
                    }
                    Acks::Leader => Self::answer(who, Err(ProduceFailure::Unknown), fx),
                    Acks::None => {}
                    Acks::All => self.waiting.push(Waiter { who, base, next, term, crc }),
                }
            }
            Err(error) => Self::answer(who, Err(failure(error)), fx),
        }
        self.drive(now, fx);
    }

    /// The next step on the way to where its replicas are wanted, if it leads. True if all is there.
    pub fn bring_to(&mut self, now: Tick, own: NodeId, target: &[NodeId], fx: &mut Effects) -> bool {
        if self.partition.role() != Role::Leader || now.since(self.stepped) < MOVE_STEP_MS {
            return false;
        }
        self.stepped = now;
        match moves::next(own, &self.partition.group_status(), target) {
            Step::Wait => {}
            Step::Finish => return true,
            Step::HandOver(to) => self.transfer(now, to, fx),
            Step::SetMembers { voters, learners } => {
                let _pending_is_fine = self.partition.propose_membership(&voters, &learners);
                self.drive(now, fx);
            }
        }
        false
    }

    pub fn transfer(&mut self, now: Tick, to: NodeId, fx: &mut Effects) {
        if self.partition.role() == Role::Leader {
            let _refused_is_fine = self.partition.transfer_leadership(to);
        }
        self.drive(now, fx);
    }

    pub fn leader_gone(&mut self, now: Tick, node: NodeId, fx: &mut Effects) {
        if self.partition.leader() == Some(node) {
            self.partition.hint_leader_gone(now);
            self.drive(now, fx);
        }
    }

    /// True if this leader's own first entry is committed, and with it all that came before.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        self.led.0 == self.partition.term() && self.partition.indexes().1 >= self.led.1
    }

    /// Starts a flush if one is due, sends what may be sent, tells whoever waited.
    pub fn drive(&mut self, now: Tick, fx: &mut Effects) {
        if self.job.is_none()
            && let Some(job) = self.partition.flush_job()
        {
            self.job = Some(job);
            fx.syncs.push(SyncOf::Partition(self.tp));
        }
        if self.partition.role() == Role::Leader && self.led.0 != self.partition.term() {
            self.led = (self.partition.term(), self.partition.indexes().0);
        }
        fx.touch(GroupName::Partition(self.tp));
        fx.send_all(GroupName::Partition(self.tp), self.partition.take_messages());
        self.release(now, fx);
    }

    fn release(&mut self, now: Tick, fx: &mut Effects) {
        let replaced = self.partition.take_replaced();
        if self.waiting.is_empty() {
            return;
        }
        let (committed, term, lease) =
            (self.partition.committed(), self.partition.term(), self.partition.lease_valid(now));
        let tp = self.tp;
        self.waiting.retain(|waiter| {
            let Waiter { who, base, next, crc, .. } = *waiter;
            let gone = replaced.is_some_and(|from| next > from) || waiter.term != term;
            if !gone && committed >= next {
                fx.acked.push(Acked { tp, acks: Acks::All, base, next, term, crc });
                Self::answer(who, Ok(base), fx);
                return false;
            }
            if gone || !lease {
                Self::answer(who, Err(ProduceFailure::Unknown), fx);
                return false;
            }
            true
        });
    }

    fn answer(who: Waits, result: Result<Offset, ProduceFailure>, fx: &mut Effects) {
        match who {
            Waits::Client(ticket) => fx.reply(ticket, Reply::Produced(result)),
            Waits::Coordinator(term, write) => fx.writes.push((term, write, result.is_ok())),
        }
    }
}

fn failure(error: AppendError) -> ProduceFailure {
    match error {
        AppendError::NotLeader { leader } => ProduceFailure::NotLeader(leader),
        AppendError::Busy { .. } => ProduceFailure::Busy,
        AppendError::DiskFull => ProduceFailure::DiskFull,
        AppendError::OutOfOrderSequence { expected, found, .. } => ProduceFailure::OutOfOrder { expected, found },
        AppendError::Stopped(_) => ProduceFailure::Stopped,
        other => ProduceFailure::Invalid(other.to_string()),
    }
}
