//! The owner thread's loop and the flushers'.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::disk::{Disk, DiskError};
use base::{NodeId, Offset, Tick, TopicPartition};
use log::{AppendError, CareJob, FlushDone, FlushJob, Partition, Stopped};
use tokio::sync::watch;

use super::care::Care;
use super::handle::{LogsHandle, Open, Shared, Urgent};
use super::insync::Looked;
use super::opening::{OpenJob, Opener, Pending};
use super::reads::Reads;
use super::reopen::Reopening;
use super::rounds::Round;
use super::sleep::Sleepers;
use super::slot::{Dirty, Slot, want, want_dirty};
use super::trouble::broken_finding;
use super::waiters::{Until, answer};
use super::{
    Append, CLOSE_PATIENCE, CROWD, Command, DEADLINE_CHECK_MS, DRAIN_BYTES_MAX, DRAIN_MAX, DRAIN_MS_MAX,
    FLUSHES_AHEAD_MAX, FLUSHES_MAX, IDLE_MS, LogsConfig, LogsError, RETENTION_MS, Reply, SPACE_CHECK_MS, Start,
    TICK_MS, What,
};
use crate::node::Acks;
use crate::node::findings::Findings;
use crate::node::time;
use crate::shell::outbox::{Outbox, Ticker};
use crate::shell::peers::GroupFrame;
use crate::shell::thread::spawn_owner;

/// Commands between two looks at the clock.
const CLOCK_EVERY: usize = 8;

/// Work for the flushers.
pub(super) enum Job {
    Flush(TopicPartition, FlushJob),
    Care(TopicPartition, CareJob),
    Settle(TopicPartition, log::SettleJob, Reply<bool>),
}

/// Starts the owner thread and the flushers of one disk.
pub fn start(start: Start) -> std::io::Result<LogsHandle> {
    let (commands, inbox) = mpsc::channel();
    let (jobs, job_inbox) = mpsc::channel::<Job>();
    let job_inbox = Arc::new(Mutex::new(job_inbox));
    for _ in 0..FLUSHES_MAX {
        let (inbox, done) = (Arc::clone(&job_inbox), commands.clone());
        spawn_owner("log-flush", move || flush_loop(&inbox, &done))?;
    }
    let open = Arc::new(Open::default());
    let (urgent, urgent_inbox) = mpsc::channel();
    let is_told = Arc::new(AtomicBool::new(false));
    let urgent = Urgent { frames: urgent, is_told: Arc::clone(&is_told) };
    let now = time::now();
    let opener = Opener { disk: Arc::clone(&start.disk), hard: Arc::clone(&start.hard), node: start.config.node };
    let opens = opener.start(&commands)?;
    let owner = Owner {
        disk: start.disk,
        hard: start.hard,
        config: start.config,
        findings: start.findings,
        open: Arc::clone(&open),
        jobs,
        outbox: start.outbox,
        connected: BTreeSet::new(),
        partitions: BTreeMap::new(),
        sleepers: Sleepers::new(),
        touched: Vec::new(),
        waited_on: BTreeSet::new(),
        leadership_changed: false,
        broken: BTreeMap::new(),
        deleting: BTreeMap::new(),
        wanted: VecDeque::new(),
        flushes: 0,
        reads: Reads::start(&commands)?,
        opens,
        opening: BTreeMap::new(),
        dirty: Dirty::default(),
        stopped: None,
        full: false,
        over: false,
        urgent: urgent_inbox,
        is_told,
        ticker: Ticker::new(TICK_MS, now),
        looked: Looked::default(),
        orphans: VecDeque::new(),
        reopening: Reopening::default(),
        checked_deadlines: now,
        checked_space: Tick(0),
        checked_retention: now,
        care: Care::default(),
    };
    spawn_owner("log-owner", move || owner.run(&inbox))?;
    Ok(LogsHandle::new(commands, urgent, open))
}

fn flush_loop(inbox: &Mutex<mpsc::Receiver<Job>>, done: &mpsc::Sender<Command>) {
    loop {
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let told = match job {
            Ok(Job::Flush(partition, job)) => Command::Flushed(partition, job.run()),
            Ok(Job::Care(partition, job)) => Command::Cared(partition, job.run()),
            Ok(Job::Settle(partition, job, reply)) => Command::Settled(partition, job.run(), reply),
            Err(_) => return,
        };
        if done.send(told).is_err() {
            return;
        }
    }
}

pub(super) struct Owner {
    pub(super) disk: Arc<dyn Disk>,
    hard: log::HardStates,
    pub(super) config: LogsConfig,
    pub(super) findings: Arc<Findings>,
    pub(super) open: Arc<Open>,
    jobs: mpsc::Sender<Job>,
    pub(super) outbox: Arc<dyn Outbox>,
    /// Nodes that a link to is up.
    pub(super) connected: BTreeSet<NodeId>,
    /// A slot is large, and is looked at in order of its name all the time: the map holds no more than where it is.
    pub(super) partitions: BTreeMap<TopicPartition, Box<Slot>>,
    pub(super) sleepers: Sleepers,
    /// Partitions to be looked after at the end of this round, each once.
    pub(super) touched: Vec<TopicPartition>,
    /// Partitions that somebody may wait on.
    waited_on: BTreeSet<TopicPartition>,
    /// Some partition got another leader in this round.
    pub(super) leadership_changed: bool,
    /// Partitions that could not be opened, with the reason.
    broken: BTreeMap<TopicPartition, String>,
    /// Partitions to be removed when their flush is done.
    deleting: BTreeMap<TopicPartition, Reply<()>>,
    /// Partitions to be flushed as soon as a flusher is free, each once.
    pub(super) wanted: VecDeque<TopicPartition>,
    /// Under way.
    flushes: usize,
    pub(super) reads: Reads,
    pub(super) opens: mpsc::Sender<OpenJob>,
    pub(super) opening: BTreeMap<TopicPartition, Pending>,
    dirty: Dirty,
    /// Set by a failed fsync: this disk takes no write any more.
    pub(super) stopped: Option<Stopped>,
    pub(super) full: bool,
    /// The log has the size that it may have.
    pub(super) over: bool,
    /// Votes, heartbeats and answers of other replicas.
    urgent: mpsc::Receiver<GroupFrame>,
    is_told: Arc<AtomicBool>,
    pub(super) ticker: Ticker,
    pub(super) looked: Looked,
    /// Partitions that lost their leader together with the link to it, to be told so.
    pub(super) orphans: VecDeque<(TopicPartition, NodeId)>,
    pub(super) reopening: Reopening,
    checked_deadlines: Tick,
    pub(super) checked_space: Tick,
    checked_retention: Tick,
    pub(super) care: Care,
}

impl Owner {
    fn run(mut self, inbox: &mpsc::Receiver<Command>) {
        loop {
            let mut next = match inbox.recv_timeout(Duration::from_millis(self.patience_ms())) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut round = Round::begin(self.ticker.late_ms(time::now()));
            self.hear();
            while let Some(command) = next {
                match command {
                    Command::Close { reply } => return answer(reply, self.close(inbox)),
                    Command::Abandon => return,
                    Command::Message(frame) => {
                        round.bytes += frame.message.len();
                        self.message(frame);
                    }
                    command => self.handle(command),
                }
                round.commands += 1;
                let is_time_up = round.commands.is_multiple_of(CLOCK_EVERY) && round.took_ms() >= DRAIN_MS_MAX;
                let is_over = is_time_up || round.commands >= DRAIN_MAX || round.bytes >= DRAIN_BYTES_MAX;
                next = if is_over { None } else { inbox.try_recv().ok() };
            }
            round.commands_done();
            // What was said while this thread was busy is heard before anybody is missed.
            self.hear();
            self.tick_groups();
            self.timers();
            round.ticks_done();
            // Taking a flush may leave something to send, and what was sent before may want a flush.
            loop {
                self.serve_touched();
                self.start_flushes();
                if self.touched.is_empty() {
                    break;
                }
            }
            self.start_reads();
            if std::mem::take(&mut self.leadership_changed) {
                self.open.changes.send_modify(|count| *count += 1);
            }
            round.end(&self.open.rounds);
        }
    }

    /// Takes what is urgent.
    pub(super) fn hear(&mut self) {
        self.is_told.store(false, Ordering::Release);
        while let Ok(frame) = self.urgent.try_recv() {
            self.message(frame);
        }
    }

    /// How long the thread may sleep: until the next flush that nobody waits for, at most `IDLE_MS`.
    fn patience_ms(&self) -> u64 {
        let now = time::now();
        let due = self.dirty.waits_ms(now).map(|waits| self.config.flush_interval_ms.saturating_sub(waits).max(1));
        due.unwrap_or(IDLE_MS).min(IDLE_MS).min(self.ticker.wait_ms(now).max(1))
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Open { partition, config, seats, reply } => {
                self.open_partition(OpenJob { partition, config, seats }, reply);
            }
            Command::Opened(opened) => self.opened(*opened),
            Command::Configure { partition, config } => {
                if let Some(slot) = self.partitions.get_mut(&partition) {
                    slot.partition.configure(config);
                } else {
                    self.configure_opening(partition, config);
                }
            }
            Command::Append { append, permits } => {
                self.append(append);
                drop(permits);
            }
            Command::VerifyBegin { partition, producer, epoch, reply } => {
                answer(reply, self.verify_begin(partition, producer, epoch));
            }
            Command::Verified { partition, verification, reply } => {
                let missing = self.missing(partition);
                let slot = self.partitions.get_mut(&partition).ok_or(missing);
                answer(reply, slot.map(|slot| slot.partition.verified(time::now(), verification)));
            }
            Command::SetFloor { partition, floor } => {
                if let Some(slot) = self.partitions.get_mut(&partition) {
                    slot.partition.set_retention_floor(floor);
                }
            }
            Command::DeleteBefore { partition, before, reply } => {
                self.awaken(partition);
                let Some(slot) = self.partitions.get_mut(&partition) else {
                    return answer(reply, Err(self.missing(partition)));
                };
                self.dirty.note(partition, slot, time::now());
                answer(reply, slot.partition.delete_before(before).map_err(LogsError::from));
            }
            Command::Delete { partition, reply } => self.delete(partition, reply),
            Command::Wake => {}
            Command::Read(partition, done) => self.read(partition, done),
            Command::Link(node, is_connected) => self.link(node, is_connected),
            Command::Transfer(partition, to) => {
                self.awaken(partition);
                if let Some(slot) = self.partitions.get_mut(&partition) {
                    if let Err(error) = slot.partition.transfer_leadership(to) {
                        tracing::debug!(%partition, %to, %error, "leadership stays here");
                    }
                    self.touch(partition);
                }
            }
            Command::SetMembers { partition, voters, learners, reply } => {
                answer(reply, self.set_members(partition, &voters, &learners));
            }
            Command::Status { partition, reply } => answer(reply, self.status(partition)),
            Command::Producers { partition, reply } => {
                let slot = self.partitions.get(&partition).ok_or_else(|| self.missing(partition));
                answer(reply, slot.map(|slot| slot.partition.producers()));
            }
            Command::Lost { partition, reply } => answer(reply, self.lost(partition)),
            Command::LostDue { partition, reply } => answer(reply, self.lost_due(partition)),
            Command::Rescue { partition, file, by_hand, reply } => {
                answer(reply, self.rescue(partition, &file, by_hand));
            }
            Command::Settle { partition, file, fates, reply } => self.settle(partition, &file, &fates, reply),
            Command::Settled(partition, done, reply) => answer(reply, self.settled(partition, done)),
            Command::Flushed(partition, result) => self.flushed(partition, result),
            Command::Cared(partition, done) => self.cared(partition, done),
            Command::Message(_) | Command::Close { .. } | Command::Abandon => unreachable!("the loop takes it"),
        }
    }

    /// Why there is no such partition here.
    pub(super) fn missing(&self, partition: TopicPartition) -> LogsError {
        let broken = self.broken.get(&partition).cloned();
        broken.map_or(LogsError::Unknown(partition), |reason| LogsError::Broken { partition, reason })
    }

    /// Takes a partition that was opened, or says why it could not be.
    pub(super) fn take_opened(
        &mut self,
        partition: TopicPartition,
        opened: Result<(Partition, log::Recovery), log::OpenError>,
        goes_first: bool,
    ) -> Result<watch::Receiver<Offset>, LogsError> {
        let dir = partition_dir(partition);
        let now = time::now();
        let (opened, recovery) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.findings.raise(&dir, broken_finding(&dir, &error));
                self.broken.insert(partition, error.to_string());
                return Err(error.into());
            }
        };
        if recovery.truncated_bytes > 0 {
            tracing::info!(%partition, bytes = recovery.truncated_bytes, "cut off a torn tail that was never acknowledged");
        }
        for finding in &recovery.findings {
            tracing::warn!(%partition, "{finding}");
        }
        let mut slot = Box::new(Slot::new(opened, goes_first));
        slot.partition.read_apart();
        slot.leadership.send_replace(slot.lead(self.config.node));
        let (shared, committed) = (slot.shared(), slot.committed.subscribe());
        self.share(partition, shared);
        self.dirty.note(partition, &mut slot, now);
        self.broken.remove(&partition);
        self.partitions.insert(partition, slot);
        self.tell_damage(partition, &recovery.findings);
        self.leadership_changed = true;
        self.touch(partition);
        Ok(committed)
    }

    /// From now on this is what others know of the partition.
    pub(super) fn share(&self, partition: TopicPartition, shared: Shared) {
        self.open.partitions.write().unwrap_or_else(PoisonError::into_inner).insert(partition, shared);
    }

    fn append(&mut self, append: Append) {
        let Append { partition, what, acks, deadline, term, reply } = append;
        if let Some(stopped) = &self.stopped {
            return answer(reply, Err(AppendError::Stopped(stopped.clone()).into()));
        }
        if self.full || self.over {
            return answer(reply, Err(AppendError::DiskFull.into()));
        }
        let now = time::now();
        if deadline <= now {
            return answer(reply, Err(LogsError::Timeout));
        }
        self.awaken(partition);
        let Some(slot) = self.partitions.get_mut(&partition) else {
            return answer(reply, Err(self.missing(partition)));
        };
        if term.is_some_and(|term| term != slot.partition.term()) && !slot.is_sole(self.config.node) {
            return answer(reply, Err(slot.not_leader()));
        }
        let appended = match what {
            What::Batches(batches) => slot.partition.append(now, time::wall(), batches),
            What::Rescued(batches) => slot.partition.append_rescued(now, time::wall(), batches),
            What::Marker(marker, mark) => slot.mark(now, time::wall(), marker, mark),
        };
        match appended {
            Err(error) => {
                answer(reply, Err(self.refused(partition, error.clone())));
                match error {
                    AppendError::DiskFull => self.check_space(now),
                    AppendError::Stopped(stopped) => self.partition_stopped(partition, &stopped),
                    _ => {}
                }
            }
            Ok(appended) => {
                self.dirty.note(partition, slot, now);
                let is_committed = appended.next_offset <= slot.partition.committed();
                match acks {
                    Acks::None => answer(reply, Ok(appended)),
                    _ if is_committed => answer(reply, Ok(appended)),
                    // Asked after the append: whoever could have been elected before it would not have it.
                    Acks::Leader if slot.partition.lease_valid(time::now()) => {
                        slot.partition.note_acked(appended.base_offset, appended.next_offset);
                        answer(reply, Ok(appended));
                    }
                    Acks::Leader | Acks::All => {
                        let until = if acks == Acks::All { Until::Committed } else { Until::Lease };
                        slot.waiters.push(appended, until, deadline, reply);
                        self.waited_on.insert(partition);
                        want(&mut self.wanted, partition, slot);
                    }
                }
                self.touch(partition);
            }
        }
    }

    /// Hands wanted partitions to the flushers as they are free; all dirty ones are wanted when it is time.
    fn start_flushes(&mut self) {
        if self.dirty.waits_ms(time::now()).is_some_and(|waits| waits >= self.config.flush_interval_ms) {
            for id in self.dirty.take() {
                if let Some(slot) = self.partitions.get_mut(&id) {
                    want_dirty(&mut self.wanted, id, slot);
                }
            }
        }
        let at_once = if self.wanted.len() > CROWD { FLUSHES_AHEAD_MAX } else { FLUSHES_MAX };
        while self.flushes < at_once && self.stopped.is_none() {
            let Some(id) = self.wanted.pop_front() else { return };
            let Some(slot) = self.partitions.get_mut(&id) else { continue };
            slot.wanted = false;
            slot.dirty = false;
            if let Some(job) = slot.partition.flush_job() {
                slot.flushing = true;
                self.flushes += usize::from(self.jobs.send(Job::Flush(id, job)).is_ok());
                self.touch(id);
            } else if let Some(stopped) = slot.partition.stopped().cloned() {
                self.partition_stopped(id, &stopped);
            } else if !slot.waiters.is_empty() {
                // There was no room for something that must be written first.
                self.dirty.note(id, slot, time::now());
            }
        }
    }

    /// Hands it to the flushers.
    pub(super) fn send_job(&self, job: Job) -> bool {
        self.jobs.send(job).is_ok()
    }

    fn flushed(&mut self, id: TopicPartition, result: Result<FlushDone, DiskError>) {
        self.flushes = self.flushes.saturating_sub(1);
        if let Some(reply) = self.deleting.remove(&id) {
            return answer(reply, self.remove_files(id));
        }
        let Some(slot) = self.partitions.get_mut(&id) else { return };
        slot.flushing = false;
        match slot.partition.flushed(result) {
            Ok(_) => {
                if slot.dirty && !slot.waiters.is_empty() {
                    want(&mut self.wanted, id, slot);
                } else if slot.dirty {
                    self.dirty.note(id, slot, time::now());
                }
            }
            Err(stopped) => self.stop(stopped),
        }
        self.touch(id);
    }

    fn delete(&mut self, partition: TopicPartition, reply: Reply<()>) {
        self.open.partitions.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
        self.broken.remove(&partition);
        self.sleepers.forget(partition);
        self.reopening.forget(partition);
        let Some(reply) = self.delete_opening(partition, reply) else { return };
        let slot = self.partitions.remove(&partition);
        let flushing = slot.as_ref().is_some_and(|slot| slot.flushing);
        if let Some(mut slot) = slot {
            slot.waiters.fail(&LogsError::Unknown(partition));
        }
        if flushing {
            self.deleting.insert(partition, reply);
        } else {
            answer(reply, self.remove_files(partition));
        }
    }

    pub(super) fn remove_files(&self, partition: TopicPartition) -> Result<(), LogsError> {
        self.disk.remove_dir_all(&partition_dir(partition))?;
        let mut hard = self.hard.lock().unwrap_or_else(PoisonError::into_inner);
        // Durable with the next vote of any partition. Until then it costs a few bytes.
        if let Err(error) = hard.remove(log::group_key(partition)) {
            tracing::debug!(%partition, %error, "the hard state of a deleted partition stays");
        }
        Ok(())
    }

    fn timers(&mut self) {
        let now = time::now();
        self.look_at_copies(now);
        self.reopen_damaged(now);
        self.care(now);
        if now.since(self.checked_deadlines) >= DEADLINE_CHECK_MS {
            self.checked_deadlines = now;
            let partitions = &mut self.partitions;
            self.waited_on.retain(|id| {
                let Some(slot) = partitions.get_mut(id) else { return false };
                slot.waiters.expire(now);
                !slot.waiters.is_empty()
            });
        }
        if now.since(self.checked_space) >= SPACE_CHECK_MS {
            self.check_space(now);
        }
        if now.since(self.checked_retention) >= RETENTION_MS && self.stopped.is_none() {
            self.checked_retention = now;
            self.look_at_transactions();
            let wall = time::wall();
            for (id, slot) in &mut self.partitions {
                slot.partition.chores(now, wall);
                let trimmed = slot.partition.trim(now, wall);
                if trimmed.files > 0 {
                    tracing::info!(partition = %id, files = trimmed.files, bytes = trimmed.bytes, start = %trimmed.start, "retention");
                }
                if slot.partition.needs_flush() {
                    self.dirty.note(*id, slot, now);
                }
            }
        }
    }

    /// Ends in order: what is under way is flushed, then every partition leaves a clean mark.
    fn close(&mut self, inbox: &mpsc::Receiver<Command>) -> Result<(), LogsError> {
        while self.flushes > 0 {
            match inbox.recv_timeout(CLOSE_PATIENCE) {
                Ok(Command::Flushed(partition, result)) => self.flushed(partition, result),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        let mut first_error = None;
        for (_, slot) in std::mem::take(&mut self.partitions) {
            let is_sole = slot.is_sole(self.config.node);
            let Slot { partition, mut waiters, .. } = *slot;
            waiters.release(partition.committed());
            match partition.close() {
                // What one voter has written down is decided.
                Ok(()) if is_sole => waiters.release(Offset(i64::MAX)),
                Ok(()) => {}
                Err(error) => drop(first_error.get_or_insert(error)),
            }
            waiters.fail(&LogsError::Closed);
        }
        first_error.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// A partition's folder below the log's root.
pub fn partition_dir(partition: TopicPartition) -> String {
    format!("{}/{}", partition.topic, partition.partition)
}
