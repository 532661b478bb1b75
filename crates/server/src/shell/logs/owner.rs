//! The owner thread's loop and the flusher's.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use base::disk::{Disk, DiskError};
use base::{Offset, Tick, TopicPartition};
use log::{AppendError, FlushDone, FlushJob, Partition, PartitionConfig, Stopped};
use tokio::sync::watch;

use super::handle::{LogsHandle, Open};
use super::waiters::{Waiters, answer};
use super::{Append, Command, DRAIN_MAX, IDLE_MS, LogsConfig, LogsError, RETENTION_MS, SPACE_CHECK_MS, Start};
use crate::node::Acks;
use crate::node::findings::{Finding, Findings, Severity};
use crate::node::time;

type Jobs = Vec<(TopicPartition, FlushJob)>;

/// Starts the owner thread and the flusher of one disk.
pub fn start(start: Start) -> std::io::Result<LogsHandle> {
    let (commands, inbox) = mpsc::channel();
    let (jobs, job_inbox) = mpsc::channel::<Jobs>();
    let open = Arc::new(Open::default());
    let flushed = commands.clone();
    std::thread::Builder::new().name("log-flush".into()).spawn(move || flush_loop(&job_inbox, &flushed))?;
    let owner = Owner {
        disk: start.disk,
        hard: start.hard,
        config: start.config,
        findings: start.findings,
        open: Arc::clone(&open),
        jobs,
        partitions: BTreeMap::new(),
        broken: BTreeMap::new(),
        flushing: false,
        waiting: false,
        dirty_since: None,
        stopped: None,
        full: false,
        checked_space: Tick(0),
        checked_retention: Tick(0),
    };
    std::thread::Builder::new().name("log-owner".into()).spawn(move || owner.run(&inbox))?;
    Ok(LogsHandle::new(commands, open))
}

fn flush_loop(inbox: &mpsc::Receiver<Jobs>, done: &mpsc::Sender<Command>) {
    while let Ok(jobs) = inbox.recv() {
        let results: Vec<(TopicPartition, Result<FlushDone, DiskError>)> =
            jobs.into_iter().map(|(partition, job)| (partition, job.run())).collect();
        if done.send(Command::Flushed(results)).is_err() {
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
}

struct Owner {
    disk: Arc<dyn Disk>,
    hard: log::HardStates,
    config: LogsConfig,
    findings: Arc<Findings>,
    open: Arc<Open>,
    jobs: mpsc::Sender<Jobs>,
    partitions: BTreeMap<TopicPartition, Slot>,
    /// Partitions that could not be opened, with the reason.
    broken: BTreeMap<TopicPartition, String>,
    flushing: bool,
    /// Someone waits for the next flush.
    waiting: bool,
    dirty_since: Option<Tick>,
    /// Set by a failed fsync: this disk takes no write any more.
    stopped: Option<Stopped>,
    full: bool,
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
                if let Command::Close { reply } = command {
                    answer(reply, self.close(inbox));
                    return;
                }
                self.handle(command);
                taken += 1;
                next = if taken < DRAIN_MAX { inbox.try_recv().ok() } else { None };
            }
            self.start_flush();
            self.timers();
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
                let result = self.slot(partition).and_then(|slot| {
                    slot.dirty = true;
                    Ok(slot.partition.delete_before(before)?)
                });
                self.dirty_since.get_or_insert_with(time::now);
                answer(reply, result);
            }
            Command::Delete { partition, reply } => answer(reply, self.delete(partition)),
            Command::Flushed(results) => self.flushed(results),
            Command::Close { .. } => unreachable!("the loop takes it"),
        }
    }

    fn slot(&mut self, partition: TopicPartition) -> Result<&mut Slot, LogsError> {
        if let Some(reason) = self.broken.get(&partition) {
            return Err(LogsError::Broken { partition, reason: reason.clone() });
        }
        self.partitions.get_mut(&partition).ok_or(LogsError::Unknown(partition))
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
        self.partitions
            .insert(partition, Slot { partition: opened, waiters: Waiters::default(), committed, dirty: true });
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
        let slot = match self.slot(partition) {
            Ok(slot) => slot,
            Err(error) => return answer(reply, Err(error)),
        };
        match slot.partition.append(now, time::wall(), batches) {
            Err(error) => {
                let full = error == AppendError::DiskFull;
                answer(reply, Err(error.into()));
                if full {
                    self.check_space(now);
                }
            }
            Ok(appended) => {
                slot.dirty = true;
                if acks != Acks::All || appended.next_offset <= slot.partition.committed() {
                    answer(reply, Ok(appended));
                } else {
                    slot.waiters.push(appended, deadline, reply);
                    self.waiting = true;
                }
                self.dirty_since.get_or_insert(now);
            }
        }
    }

    /// Hands every dirty partition to the flusher, if it is idle and someone waits or it is time.
    fn start_flush(&mut self) {
        let due = self.dirty_since.is_some_and(|since| time::now().since(since) >= self.config.flush_interval_ms);
        if self.flushing || self.stopped.is_some() || !(self.waiting || due) {
            return;
        }
        let mut jobs = Vec::new();
        for (id, slot) in self.partitions.iter_mut().filter(|(_, slot)| slot.dirty) {
            slot.dirty = false;
            jobs.extend(slot.partition.flush_job().map(|job| (*id, job)));
        }
        self.waiting = false;
        self.dirty_since = None;
        if !jobs.is_empty() {
            self.flushing = self.jobs.send(jobs).is_ok();
        }
    }

    fn flushed(&mut self, results: Vec<(TopicPartition, Result<FlushDone, DiskError>)>) {
        self.flushing = false;
        for (id, result) in results {
            let Some(slot) = self.partitions.get_mut(&id) else { continue };
            match slot.partition.flushed(result) {
                Ok(committed) => {
                    slot.waiters.release(committed);
                    slot.committed.send_if_modified(|before| std::mem::replace(before, committed) != committed);
                    self.waiting |= !slot.waiters.is_empty();
                    if !slot.waiters.is_empty() {
                        slot.dirty = true;
                    }
                }
                Err(stopped) => self.stop(stopped),
            }
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

    fn delete(&mut self, partition: TopicPartition) -> Result<(), LogsError> {
        self.open.partitions.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
        self.broken.remove(&partition);
        if let Some(mut slot) = self.partitions.remove(&partition) {
            slot.waiters.fail(&LogsError::Unknown(partition));
        }
        self.disk.remove_dir_all(&partition_dir(partition))?;
        Ok(())
    }

    fn timers(&mut self) {
        let now = time::now();
        self.partitions.values_mut().for_each(|slot| slot.waiters.expire(now));
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
        while self.flushing {
            match inbox.recv_timeout(Duration::from_secs(10)) {
                Ok(Command::Flushed(results)) => self.flushed(results),
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
