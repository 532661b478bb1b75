//! The owner thread's loop and the flushers'.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::disk::{Disk, DiskError};
use base::{Offset, Tick, TopicPartition};
use log::{AppendError, FlushDone, FlushJob, Partition, PartitionConfig, Stopped};
use tokio::sync::watch;

use super::handle::{LogsHandle, Open};
use super::waiters::{Waiters, answer};
use super::{
    Append, CLOSE_PATIENCE, Command, DEADLINE_CHECK_MS, DRAIN_MAX, FLUSHES_MAX, IDLE_MS, LogsConfig, LogsError,
    RETENTION_MS, Reply, SPACE_CHECK_MS, Start,
};
use crate::node::Acks;
use crate::node::findings::{Finding, Findings, Severity};
use crate::node::time;
use crate::shell::thread::spawn_owner;

type Job = (TopicPartition, FlushJob);

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
    let now = time::now();
    let owner = Owner {
        disk: start.disk,
        hard: start.hard,
        config: start.config,
        findings: start.findings,
        open: Arc::clone(&open),
        jobs,
        partitions: BTreeMap::new(),
        broken: BTreeMap::new(),
        deleting: BTreeMap::new(),
        wanted: VecDeque::new(),
        flushes: 0,
        dirty_since: None,
        stopped: None,
        full: false,
        checked_deadlines: now,
        checked_space: Tick(0),
        checked_retention: now,
    };
    spawn_owner("log-owner", move || owner.run(&inbox))?;
    Ok(LogsHandle::new(commands, open))
}

fn flush_loop(inbox: &Mutex<mpsc::Receiver<Job>>, done: &mpsc::Sender<Command>) {
    loop {
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((partition, job)) = job else { return };
        if done.send(Command::Flushed(partition, job.run())).is_err() {
            return;
        }
    }
}

struct Slot {
    partition: Partition,
    waiters: Waiters,
    committed: watch::Sender<Offset>,
    /// Something was written since the last flush job was taken.
    dirty: bool,
    /// It stands in `Owner::wanted`.
    wanted: bool,
    flushing: bool,
}

struct Owner {
    disk: Arc<dyn Disk>,
    hard: log::HardStates,
    config: LogsConfig,
    findings: Arc<Findings>,
    open: Arc<Open>,
    jobs: mpsc::Sender<Job>,
    partitions: BTreeMap<TopicPartition, Slot>,
    /// Partitions that could not be opened, with the reason.
    broken: BTreeMap<TopicPartition, String>,
    /// Partitions to be removed when their flush is done.
    deleting: BTreeMap<TopicPartition, Reply<()>>,
    /// Partitions to be flushed as soon as a flusher is free, each once.
    wanted: VecDeque<TopicPartition>,
    /// Under way.
    flushes: usize,
    dirty_since: Option<Tick>,
    /// Set by a failed fsync: this disk takes no write any more.
    stopped: Option<Stopped>,
    full: bool,
    checked_deadlines: Tick,
    checked_space: Tick,
    checked_retention: Tick,
}

impl Owner {
    fn run(mut self, inbox: &mpsc::Receiver<Command>) {
        loop {
            let mut next = match inbox.recv_timeout(Duration::from_millis(self.patience_ms())) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut taken = 0;
            while let Some(command) = next {
                match command {
                    Command::Close { reply } => return answer(reply, self.close(inbox)),
                    Command::Abandon => return,
                    command => self.handle(command),
                }
                taken += 1;
                next = if taken < DRAIN_MAX { inbox.try_recv().ok() } else { None };
            }
            self.timers();
            self.start_flushes();
        }
    }

    /// How long the thread may sleep: until the next flush that nobody waits for, at most `IDLE_MS`.
    fn patience_ms(&self) -> u64 {
        let due =
            self.dirty_since.map(|since| self.config.flush_interval_ms.saturating_sub(time::now().since(since)).max(1));
        due.unwrap_or(IDLE_MS).min(IDLE_MS)
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Open { partition, config, reply } => answer(reply, self.open_partition(partition, config)),
            Command::Configure { partition, config } => {
                if let Some(slot) = self.partitions.get_mut(&partition) {
                    slot.partition.configure(config);
                }
            }
            Command::Append { append, permits } => {
                self.append(append);
                drop(permits);
            }
            Command::SetFloor { partition, floor } => {
                if let Some(slot) = self.partitions.get_mut(&partition) {
                    slot.partition.set_retention_floor(floor);
                }
            }
            Command::DeleteBefore { partition, before, reply } => {
                let Some(slot) = self.partitions.get_mut(&partition) else {
                    return answer(reply, Err(self.missing(partition)));
                };
                slot.dirty = true;
                self.dirty_since.get_or_insert_with(time::now);
                answer(reply, slot.partition.delete_before(before).map_err(LogsError::from));
            }
            Command::Delete { partition, reply } => self.delete(partition, reply),
            Command::Flushed(partition, result) => self.flushed(partition, result),
            Command::Close { .. } | Command::Abandon => unreachable!("the loop takes it"),
        }
    }

    /// Why there is no such partition here.
    fn missing(&self, partition: TopicPartition) -> LogsError {
        let broken = self.broken.get(&partition).cloned();
        broken.map_or(LogsError::Unknown(partition), |reason| LogsError::Broken { partition, reason })
    }

    fn open_partition(
        &mut self,
        partition: TopicPartition,
        config: PartitionConfig,
    ) -> Result<watch::Receiver<Offset>, LogsError> {
        if let Some(slot) = self.partitions.get(&partition) {
            return Ok(slot.committed.subscribe());
        }
        let dir = partition_dir(partition);
        let (now, wall) = (time::now(), time::wall());
        let opened = Partition::open(
            partition,
            &dir,
            config,
            self.config.node,
            Arc::clone(&self.disk),
            log::HardStates::clone(&self.hard),
            now,
            wall,
        );
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
        let (committed, signal) = watch::channel(opened.committed());
        let mut shared = self.open.partitions.write().unwrap_or_else(PoisonError::into_inner);
        shared.insert(partition, (opened.reader(), signal.clone()));
        drop(shared);
        // Opening may have written (a torn tail cut, a new term): the next flush makes it durable.
        self.dirty_since.get_or_insert(now);
        let waiters = Waiters::default();
        let slot = Slot { partition: opened, waiters, committed, dirty: true, wanted: false, flushing: false };
        self.partitions.insert(partition, slot);
        Ok(signal)
    }

    fn append(&mut self, append: Append) {
        let Append { partition, batches, acks, deadline, reply } = append;
        if let Some(stopped) = &self.stopped {
            return answer(reply, Err(AppendError::Stopped(stopped.clone()).into()));
        }
        if self.full {
            return answer(reply, Err(AppendError::DiskFull.into()));
        }
        let now = time::now();
        if deadline <= now {
            return answer(reply, Err(LogsError::Timeout));
        }
        let Some(slot) = self.partitions.get_mut(&partition) else {
            return answer(reply, Err(self.missing(partition)));
        };
        match slot.partition.append(now, time::wall(), batches) {
            Err(error) => {
                answer(reply, Err(error.clone().into()));
                match error {
                    AppendError::DiskFull => self.check_space(now),
                    AppendError::Stopped(stopped) => self.partition_stopped(partition, &stopped),
                    _ => {}
                }
            }
            Ok(appended) => {
                slot.dirty = true;
                self.dirty_since.get_or_insert(now);
                if acks != Acks::All || appended.next_offset <= slot.partition.committed() {
                    answer(reply, Ok(appended));
                } else {
                    slot.waiters.push(appended, deadline, reply);
                    want(&mut self.wanted, partition, slot);
                }
            }
        }
    }

    /// Hands wanted partitions to the flushers as they are free; all dirty ones are wanted when it is time.
    fn start_flushes(&mut self) {
        if self.dirty_since.is_some_and(|since| time::now().since(since) >= self.config.flush_interval_ms) {
            self.dirty_since = None;
            for (id, slot) in self.partitions.iter_mut().filter(|(_, slot)| slot.dirty) {
                want(&mut self.wanted, *id, slot);
            }
        }
        while self.flushes < FLUSHES_MAX && self.stopped.is_none() {
            let Some(id) = self.wanted.pop_front() else { return };
            let Some(slot) = self.partitions.get_mut(&id) else { continue };
            slot.wanted = false;
            slot.dirty = false;
            if let Some(job) = slot.partition.flush_job() {
                slot.flushing = true;
                self.flushes += usize::from(self.jobs.send((id, job)).is_ok());
            } else if let Some(stopped) = slot.partition.stopped().cloned() {
                self.partition_stopped(id, &stopped);
            } else if !slot.waiters.is_empty() {
                // There was no room for something that must be written first.
                slot.dirty = true;
                self.dirty_since.get_or_insert_with(time::now);
            }
        }
    }

    fn flushed(&mut self, id: TopicPartition, result: Result<FlushDone, DiskError>) {
        self.flushes = self.flushes.saturating_sub(1);
        if let Some(reply) = self.deleting.remove(&id) {
            return answer(reply, self.remove_files(id));
        }
        let Some(slot) = self.partitions.get_mut(&id) else { return };
        slot.flushing = false;
        match slot.partition.flushed(result) {
            Ok(committed) => {
                slot.waiters.release(committed);
                slot.committed.send_if_modified(|before| std::mem::replace(before, committed) != committed);
                if slot.dirty && !slot.waiters.is_empty() {
                    want(&mut self.wanted, id, slot);
                } else if slot.dirty {
                    self.dirty_since.get_or_insert_with(time::now);
                }
            }
            Err(stopped) => self.stop(stopped),
        }
    }

    /// A write failed: this partition is out, the others go on.
    fn partition_stopped(&mut self, id: TopicPartition, stopped: &Stopped) {
        self.findings.raise(
            &partition_dir(id),
            Finding {
                code: "partition-stopped",
                severity: Severity::Critical,
                title: format!("partition {id} takes no writes; what it holds is served"),
                since: time::wall(),
                impact: vec!["log", "ingest"],
                cause: stopped.to_string(),
                action: "check the disk (dmesg, smartctl); then restart the node".into(),
            },
        );
        if let Some(slot) = self.partitions.get_mut(&id) {
            slot.waiters.fail(&LogsError::Append(AppendError::Stopped(stopped.clone())));
        }
    }

    /// A failed fsync: the whole disk is out, for good.
    fn stop(&mut self, stopped: Stopped) {
        self.findings.raise(
            "log",
            Finding {
                code: "log-stopped",
                severity: Severity::Critical,
                title: "the log takes no writes: its disk failed to sync".into(),
                since: time::wall(),
                impact: vec!["log", "ingest"],
                cause: stopped.to_string(),
                action: "check the disk (dmesg, smartctl); replace it if it is bad; then restart the node".into(),
            },
        );
        let error = LogsError::Append(AppendError::Stopped(stopped.clone()));
        self.partitions.values_mut().for_each(|slot| slot.waiters.fail(&error));
        self.stopped = Some(stopped);
    }

    fn delete(&mut self, partition: TopicPartition, reply: Reply<()>) {
        self.open.partitions.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
        self.broken.remove(&partition);
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

    fn remove_files(&self, partition: TopicPartition) -> Result<(), LogsError> {
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
        if now.since(self.checked_deadlines) >= DEADLINE_CHECK_MS {
            self.checked_deadlines = now;
            self.partitions.values_mut().for_each(|slot| slot.waiters.expire(now));
        }
        if now.since(self.checked_space) >= SPACE_CHECK_MS {
            self.check_space(now);
        }
        if now.since(self.checked_retention) >= RETENTION_MS && self.stopped.is_none() {
            self.checked_retention = now;
            let wall = time::wall();
            for (id, slot) in &mut self.partitions {
                slot.partition.tick(now, wall);
                let trimmed = slot.partition.trim(now, wall);
                if trimmed.files > 0 {
                    tracing::info!(partition = %id, files = trimmed.files, bytes = trimmed.bytes, start = %trimmed.start, "retention");
                }
                slot.dirty = true;
            }
            self.dirty_since.get_or_insert(now);
        }
    }

    fn check_space(&mut self, now: Tick) {
        self.checked_space = now;
        let Ok(free) = self.disk.free_bytes() else { return };
        let reserve = self.config.reserve_bytes;
        if free < reserve {
            self.full = true;
            self.findings.raise(
                "log",
                Finding {
                    code: "disk-full",
                    severity: Severity::Critical,
                    title: "produce is refused: the disk is almost full".into(),
                    since: time::wall(),
                    impact: vec!["log", "ingest"],
                    cause: format!("{free} bytes are free, {reserve} are kept in reserve (log.disk_reserve_bytes)"),
                    action: "free space or enlarge the disk; writes resume by themselves".into(),
                },
            );
        } else if self.full && free > reserve.saturating_add(reserve / 2) {
            self.full = false;
            self.findings.clear("disk-full", "log");
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
            let Slot { partition, mut waiters, .. } = slot;
            match partition.close() {
                Ok(()) => waiters.release(Offset(i64::MAX)),
                Err(error) => {
                    waiters.fail(&LogsError::Closed);
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Puts a partition into the queue for the flushers, if it is not there and none of them has it.
fn want(wanted: &mut VecDeque<TopicPartition>, id: TopicPartition, slot: &mut Slot) {
    if !slot.wanted && !slot.flushing {
        slot.wanted = true;
        wanted.push_back(id);
    }
}

/// A partition's folder below the log's root.
pub fn partition_dir(partition: TopicPartition) -> String {
    format!("{}/{}", partition.topic, partition.partition)
}

fn broken_finding(dir: &str, error: &log::OpenError) -> Finding {
    Finding {
        code: "partition-damaged",
        severity: Severity::Critical,
        title: format!("partition {dir} is not served: its log is damaged"),
        since: time::wall(),
        impact: vec!["log", "ingest"],
        cause: error.to_string(),
        action: "restore the partition's folder from a copy, or delete the topic; the other partitions are served"
            .into(),
    }
}
