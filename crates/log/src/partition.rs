//! One partition: what its owner calls.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};

use base::batch::{self, BatchError, BatchHeader};
use base::checksum::crc32c;
use base::disk::{Disk, DiskError, DiskFile};
use base::{LogIndex, NodeId, Offset, Term, Tick, Timestamp, TopicPartition};
use bytes::{Bytes, BytesMut};
use quorum::{Group, GroupConfig, GroupKey, HardState, Payload, ProposeError, Ready, Role};

use crate::file::LogFile;
use crate::flush::{FlushDone, FlushJob, HardStates, SideFile, disk_error};
use crate::frame::{NoteKind, Place};
use crate::limits::{CHECKPOINT_BYTES, EXPIRY_MS, MARK_SYNC_BYTES, PRODUCER_SNAPSHOTS, UNCOMMITTED_BYTES_MAX};
use crate::mark::Mark;
use crate::producers::{Producers, SnapshotPlace, Verdict};
use crate::reader::Shared;
use crate::recovery::{Recovered, Recovery, recover, snapshot_name};
use crate::storage::{LogStorage, Now, WriteFault, Written};
use crate::{AppendError, DeleteError, OpenError, PartitionConfig, Reader, Stopped, TimestampType};

/// Ticks of the group; with one voter nothing waits for them.
const ELECTION_TICKS: u32 = 10;
const HEARTBEAT_TICKS: u32 = 1;
const INFLIGHT_MESSAGES_MAX: usize = 256;

/// What an append gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    pub base_offset: Offset,
    /// The offset after the last record: all is durable once `committed` reaches it.
    pub next_offset: Offset,
    /// Set if the topic's records carry the append's time.
    pub log_append_time: Option<Timestamp>,
    pub log_start_offset: Offset,
    /// All of it was there already; its offsets are given again. It may still wait to be committed.
    pub duplicate: bool,
}

/// What retention removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trimmed {
    pub files: usize,
    pub bytes: u64,
    pub start: Offset,
}

/// A partition, for its one owner. See the crate's documentation for the order of calls.
pub struct Partition {
    id: TopicPartition,
    config: PartitionConfig,
    group: Group<LogStorage>,
    hard: HardStates,
    /// The hard state was put and no flush job has taken it yet.
    hard_dirty: bool,
    producers: Producers,
    producers_expired: Tick,
    /// Entries not committed: their index and the offset after them.
    pending: VecDeque<(LogIndex, Offset)>,
    /// A ready whose entries could not be written for lack of room.
    stalled: Option<Ready>,
    /// The last ready that was written, and the last one that is durable.
    ready: u64,
    persisted: u64,
    /// When the owner last said what time it is.
    now: Now,
    mark: Mark,
    mark_file: Arc<dyn DiskFile>,
    /// The mark speaks of a new start that is not durable.
    mark_dirty: bool,
    bytes_since_mark_sync: u64,
    bytes_since_checkpoint: u64,
    /// Paths of producer snapshots, oldest first.
    snapshots: VecDeque<String>,
    removals: Vec<String>,
    retention_floor: Option<Offset>,
    /// The flush job that is out.
    flushing: Option<Flushing>,
    stopped: Option<Stopped>,
}

struct Flushing {
    bytes: u64,
    checkpoint: Option<Checkpoint>,
}

/// What to take back if there was no room for a checkpoint.
struct Checkpoint {
    unindexed: Vec<Arc<LogFile>>,
    snapshot: String,
    retired: Vec<String>,
}

/// Names the group of a partition among the node's hard states.
#[must_use]
pub fn group_key(id: TopicPartition) -> GroupKey {
    let mut key = [0; 20];
    key[..16].copy_from_slice(id.topic.0.as_bytes());
    key[16..].copy_from_slice(&id.partition.0.to_be_bytes());
    GroupKey(key)
}

impl Partition {
    /// Opens the partition in folder `dir`, creating it if it is new. Reads no more than what was written
    /// since the last checkpoint; writes nothing if the last process closed it. Blocks on the disk.
    ///
    /// # Errors
    /// See [`OpenError`]: nothing was changed.
    #[expect(clippy::too_many_arguments, reason = "all a partition needs from its surroundings, once")]
    pub fn open(
        id: TopicPartition,
        dir: &str,
        config: PartitionConfig,
        node: NodeId,
        disk: Arc<dyn Disk>,
        hard: HardStates,
        now: Tick,
        wall: Timestamp,
    ) -> Result<(Self, Recovery), OpenError> {
        let dir: Arc<str> = dir.into();
        let voted = hard.lock().unwrap_or_else(PoisonError::into_inner).get(group_key(id));
        let recovered = recover(&disk, &dir, &config, voted.is_some(), wall)?;
        let Recovered { files, unindexed, end, last_term, mark, mark_file, producers, snapshots, recovery } = recovered;
        // A vote reaches the disk before the entries of its term, but a power loss may keep entries that
        // were never flushed and lose the vote: nothing of that term was acknowledged.
        let hard_state = match voted {
            Some(voted) if voted.term >= last_term => voted,
            _ => HardState { term: last_term, vote: None, commit: LogIndex::ZERO },
        };
        let list: Vec<_> = files.iter().cloned().collect();
        let shared = Arc::new(Shared::new(&list, mark.start, end.offset, hard_state.term));
        let storage = LogStorage {
            node,
            disk,
            dir,
            shared,
            files,
            active: false,
            active_since: now,
            end,
            last_term,
            trimmed: (mark.trimmed_index, mark.trimmed_term),
            hard_state,
            dirty: Vec::new(),
            dirty_bytes: 0,
            new_names: false,
            checkpoint_due: !unindexed.is_empty(),
            unindexed,
        };
        let group = GroupConfig {
            node,
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: HEARTBEAT_TICKS,
            seed: u64::from(id.partition.0.unsigned_abs()),
            uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
            inflight_messages_max: INFLIGHT_MESSAGES_MAX,
        };
        let group = Group::open(group, storage).map_err(|error| OpenError::Group(error.to_string()))?;
        let partition = Self {
            id,
            config,
            group,
            hard,
            hard_dirty: false,
            producers,
            producers_expired: now,
            pending: VecDeque::new(),
            stalled: None,
            ready: 0,
            persisted: 0,
            now: Now { tick: now, wall },
            mark,
            mark_file,
            mark_dirty: false,
            bytes_since_mark_sync: 0,
            bytes_since_checkpoint: 0,
            snapshots,
            removals: Vec::new(),
            retention_floor: None,
            flushing: None,
            stopped: None,
        };
        Ok((partition, recovery))
    }

    /// Takes the batches of one producer request: validates them, gives them offsets, writes them. They are
    /// durable once [`Partition::committed`] reaches `next_offset`, which takes a flush.
    ///
    /// # Errors
    /// See [`AppendError`]. Of several batches, those before the refused one are kept.
    pub fn append(&mut self, now: Tick, wall: Timestamp, batches: Bytes) -> Result<Appended, AppendError> {
        self.check_running()?;
        self.now = Now { tick: now, wall };
        let headers = self.validate(&batches)?;
        let log_append_time = matches!(self.config.timestamp_type, TimestampType::LogAppendTime).then_some(wall);
        let mut appended: Option<Appended> = None;
        let mut rest = batches;
        for header in headers {
            let bytes = rest.split_to(header.size_bytes);
            let (base_offset, next_offset, duplicate) = match self.producers.check(&header)? {
                Verdict::Duplicate { base_offset, next_offset } => (base_offset, next_offset, true),
                Verdict::New => {
                    let (base_offset, next_offset) = self.append_one(header, bytes, log_append_time)?;
                    (base_offset, next_offset, false)
                }
            };
            let log_start_offset = self.start();
            let one = Appended { base_offset, next_offset, log_append_time, log_start_offset, duplicate };
            let first = appended.get_or_insert(one);
            first.next_offset = first.next_offset.max(next_offset);
            first.duplicate &= duplicate;
        }
        appended.ok_or(AppendError::Invalid(BatchError::Truncated { have: 0, need: batch::HEADER_BYTES }))
    }

    /// What has to reach the disk now, to be run on a thread that may block; then [`Partition::flushed`].
    /// `None` if there is nothing, or a job is out already: one at a time. Call it after appends, and after
    /// [`Partition::trim`] and [`Partition::delete_before`].
    pub fn flush_job(&mut self) -> Option<FlushJob> {
        if self.flushing.is_some() || self.stopped.is_some() {
            return None;
        }
        // On a full disk the group's own entry waits for the next try; any other fault stops the partition.
        if self.pump().is_err() && self.stopped.is_some() {
            return None;
        }
        let storage = self.group.storage();
        if storage.dirty.is_empty() && !self.hard_dirty && !self.mark_dirty && self.removals.is_empty() {
            return None;
        }
        let bytes = storage.dirty_bytes;
        let checkpoint = storage.checkpoint_due || self.bytes_since_checkpoint + bytes >= CHECKPOINT_BYTES;
        self.job(bytes, checkpoint)
    }

    /// Takes what a flush job gave. Returns the committed offset.
    ///
    /// # Errors
    /// The disk failed to sync or write: the partition takes no write any more, reads go on.
    pub fn flushed(&mut self, done: Result<FlushDone, DiskError>) -> Result<Offset, Stopped> {
        let Some(flushing) = self.flushing.take() else { return Ok(self.committed()) };
        let done = match done {
            Ok(done) => done,
            Err(error) => return Err(self.stop(error.to_string())),
        };
        self.bytes_since_mark_sync = if done.mark_synced { 0 } else { self.bytes_since_mark_sync + flushing.bytes };
        self.bytes_since_checkpoint += flushing.bytes;
        self.mark_dirty |= !done.mark_written;
        self.removals.extend(done.removals_left);
        if let Some(checkpoint) = flushing.checkpoint {
            // Without room for it, the next one is due after as many bytes again.
            self.bytes_since_checkpoint = 0;
            if !done.side_files_written {
                self.group.storage_mut().unindexed.extend(checkpoint.unindexed);
                self.snapshots.retain(|path| *path != checkpoint.snapshot);
                self.snapshots.extend(checkpoint.retired);
                self.snapshots.make_contiguous().sort();
            }
        }
        self.persisted = self.persisted.max(done.ready);
        self.take_committed()?;
        Ok(self.committed())
    }

    /// The high watermark: the first offset that is not committed.
    #[must_use]
    pub fn committed(&self) -> Offset {
        self.storage().shared.committed()
    }

    /// The first offset not written.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.storage().end.offset
    }

    /// The first offset that is not deleted.
    #[must_use]
    pub fn start(&self) -> Offset {
        self.storage().shared.start()
    }

    /// The leader epoch. The first append after a restart raises it.
    #[must_use]
    pub fn term(&self) -> Term {
        self.group.term()
    }

    #[must_use]
    pub fn id(&self) -> TopicPartition {
        self.id
    }

    /// Of all log files.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.storage().files.iter().map(|file| file.len_bytes()).sum()
    }

    /// Why no write is taken any more, if so.
    #[must_use]
    pub fn stopped(&self) -> Option<&Stopped> {
        self.stopped.as_ref()
    }

    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.storage().shared))
    }

    pub fn configure(&mut self, config: PartitionConfig) {
        self.config = config;
    }

    /// Nothing at or above `floor` is removed: the lowest published offset of the tables that read it.
    pub fn set_retention_floor(&mut self, floor: Option<Offset>) {
        self.retention_floor = floor;
    }

    /// Removes the oldest closed files that retention lets go. They are gone from the disk after a flush.
    pub fn trim(&mut self, now: Tick, wall: Timestamp) -> Trimmed {
        self.now = Now { tick: now, wall };
        self.close_if_expired(wall);
        let floor = self.retention_floor.map_or(self.committed(), |floor| floor.min(self.committed()));
        let storage = self.group.storage();
        let mut left: u64 = self.size_bytes();
        let mut count = 0;
        for file in storage.files.iter().take(storage.removable(floor)) {
            let len = file.len_bytes();
            let surplus = self.config.retention_bytes.is_some_and(|keep| left - len >= keep);
            if !surplus && !self.is_expired(file, wall) {
                break;
            }
            left -= len;
            count += 1;
        }
        self.remove_oldest(count)
    }

    /// Deletes the records below `offset`: they are not read any more, and files that hold nothing else
    /// are removed. Durable after the next flush. Returns the new start.
    ///
    /// # Errors
    /// See [`DeleteError`]: nothing was deleted.
    pub fn delete_before(&mut self, offset: Offset) -> Result<Offset, DeleteError> {
        self.check_running()?;
        let (start, end) = (self.start(), self.committed());
        if offset.0 < 0 || offset > end {
            return Err(DeleteError::OutOfRange { offset, start, end });
        }
        if let Some(floor) = self.retention_floor.filter(|floor| offset > *floor) {
            return Err(DeleteError::Held { floor });
        }
        if offset > start {
            self.storage().shared.set_start(offset);
            self.mark_dirty = true;
            self.remove_oldest(self.storage().removable(offset));
        }
        Ok(self.start())
    }

    /// To be called every second or so: closes a file that is old, forgets silent producers.
    pub fn tick(&mut self, now: Tick, wall: Timestamp) {
        self.now = Now { tick: now, wall };
        let storage = self.group.storage_mut();
        let filled = storage.active && storage.files.back().is_some_and(|file| file.len_bytes() > 0);
        if filled && now.since(storage.active_since) >= self.config.file_age_ms_max {
            storage.close_active();
        }
        if now.since(self.producers_expired) >= EXPIRY_MS {
            self.producers_expired = now;
            self.producers.expire(wall, self.config.producer_expiry_ms);
        }
        // The group is not ticked: a sole voter needs no clock, and would only be elected for nothing.
    }

    /// Flushes and leaves a mark, so that the next open reads nothing. Blocks.
    ///
    /// # Errors
    /// The disk failed; the next open recovers.
    pub fn close(mut self) -> Result<(), DiskError> {
        if let Some(stopped) = &self.stopped {
            return Err(DiskError::Io { path: self.storage().dir.to_string(), cause: stopped.reason.clone() });
        }
        if let Some(flushing) = self.flushing.take() {
            // The job that is out may not have run: its files are synced here again.
            let storage = self.group.storage_mut();
            storage.unindexed.extend(flushing.checkpoint.into_iter().flat_map(|checkpoint| checkpoint.unindexed));
            storage.dirty = storage.files.iter().cloned().collect();
            storage.new_names = true;
            self.hard_dirty = true;
        }
        let last_index = LogIndex(self.storage().end.index.0 - 1);
        let written = self.bytes_since_checkpoint + self.bytes_since_mark_sync + self.storage().dirty_bytes;
        let idle = self.mark.flushed_index == last_index && written == 0 && self.removals.is_empty();
        if idle && !self.mark_dirty && self.storage().unindexed.is_empty() {
            return Ok(());
        }
        let bytes = self.storage().dirty_bytes;
        self.bytes_since_mark_sync = MARK_SYNC_BYTES;
        self.job(bytes, true).map_or(Ok(()), |job| job.run().map(|_| ()))
    }

    pub(crate) fn storage(&self) -> &LogStorage {
        self.group.storage()
    }

    fn check_running(&self) -> Result<(), Stopped> {
        self.stopped.clone().map_or(Ok(()), Err)
    }

    fn check_group(&mut self) -> Result<(), Stopped> {
        match self.group.fault().map(ToString::to_string) {
            Some(fault) => Err(self.stop(fault)),
            None => self.check_running(),
        }
    }

    /// From here on nothing is written.
    fn stop(&mut self, reason: String) -> Stopped {
        self.stopped.get_or_insert(Stopped { reason }).clone()
    }

    /// The headers of `batches`, each of which may be appended as far as its bytes can tell.
    fn validate(&self, batches: &Bytes) -> Result<Vec<BatchHeader>, AppendError> {
        let mut headers = Vec::with_capacity(1);
        let mut rest = &batches[..];
        while !rest.is_empty() {
            let header = BatchHeader::check(rest)?;
            if header.size_bytes > self.config.batch_bytes_max {
                return Err(AppendError::TooLarge { bytes: header.size_bytes, bytes_max: self.config.batch_bytes_max });
            }
            if header.is_control() {
                return Err(AppendError::Unsupported("a control batch is the broker's to write"));
            }
            if header.is_transactional() {
                return Err(AppendError::Unsupported("transactions are not supported"));
            }
            if header.is_log_append_time() {
                return Err(AppendError::Unsupported("the append time is the broker's to set"));
            }
            let BatchHeader { record_count: count, last_offset_delta, .. } = header;
            if last_offset_delta != count - 1 {
                return Err(BatchError::Count { count, last_offset_delta }.into());
            }
            rest = &rest[header.size_bytes..];
            headers.push(header);
        }
        Ok(headers)
    }

    /// Writes and proposes one batch that is new.
    fn append_one(
        &mut self,
        mut header: BatchHeader,
        bytes: Bytes,
        log_append_time: Option<Timestamp>,
    ) -> Result<(Offset, Offset), AppendError> {
        self.lead()?;
        let (now, term) = (self.now, self.group.term());
        let Place { offset, index } = self.storage().end;
        // Copied once, unless the caller gave all of a buffer away.
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        batch::assign(&mut bytes, offset, term);
        header.base_offset = offset;
        if let Some(time) = log_append_time {
            stamp(&mut bytes, time);
            header.max_timestamp = time;
        }
        let bytes = bytes.freeze();
        let span = i64::from(header.last_offset_delta) + 1;
        let written = self.group.storage_mut().write(&bytes, term, span, now, &self.config);
        self.fit(written)?;
        if let Err(error) = self.group.propose(bytes) {
            let taken_back = self.group.storage_mut().take_back();
            self.fit(taken_back)?;
            return Err(self.refused(error));
        }
        let next = Place { offset: header.next_offset(), index: index.next() };
        let written = Written { size_bytes: header.size_bytes, next, max_timestamp: Some(header.max_timestamp) };
        self.group.storage_mut().count(&written, term, now, &self.config);
        self.pending.push_back((index, next.offset));
        self.producers.record(&header, now.wall, self.config.producers_max);
        Ok((offset, next.offset))
    }

    /// Becomes leader, if it is not. A sole voter elects itself; its first entry starts a new file.
    fn lead(&mut self) -> Result<(), AppendError> {
        if self.stalled.is_some() {
            self.pump()?;
        }
        if self.group.role() != Role::Leader {
            self.group.campaign();
            self.pump()?;
            self.check_group()?;
        }
        Ok(())
    }

    /// Does what the group asks for, until it asks for nothing.
    fn pump(&mut self) -> Result<(), AppendError> {
        while let Some(ready) = self.stalled.take().or_else(|| self.group.ready()) {
            if let Err(fault) = self.obey(&ready) {
                if fault == WriteFault::Full {
                    self.stalled = Some(ready);
                }
                return self.fit(Err(fault));
            }
        }
        Ok(())
    }

    fn obey(&mut self, ready: &Ready) -> Result<(), WriteFault> {
        let now = self.now;
        let voted = self.storage().hard_state;
        if let Some(state) = ready.hard_state.filter(|state| (state.term, state.vote) != (voted.term, voted.vote)) {
            let put = self.hard.lock().unwrap_or_else(PoisonError::into_inner).put(group_key(self.id), state);
            put.map_err(|error| match disk_error(error) {
                DiskError::Full { .. } => WriteFault::Full,
                error => WriteFault::Broken(error.to_string()),
            })?;
            self.hard_dirty = true;
            let storage = self.group.storage_mut();
            storage.hard_state = state;
            storage.shared.set_term(state.term);
        }
        for entry in &ready.entries {
            if entry.index < self.storage().end.index {
                // Written before it was proposed.
                continue;
            }
            let kind = match &entry.payload {
                Payload::Empty => NoteKind::Empty,
                Payload::Membership(_) => NoteKind::Membership,
                Payload::Data(_) => return Err(WriteFault::Broken(format!("entry {} was never written", entry.index))),
            };
            let payload = entry.payload.bytes();
            self.group.storage_mut().write_note(kind, payload, entry.term, now, &self.config)?;
            self.pending.push_back((entry.index, self.storage().end.offset));
        }
        self.group.written(ready.number);
        self.ready = ready.number;
        if let Some(last) = ready.committed.last() {
            self.group.applied(last.index);
        }
        Ok(())
    }

    /// Tells the group what is durable, and takes note of what is committed with it.
    fn take_committed(&mut self) -> Result<(), Stopped> {
        self.check_running()?;
        if self.stalled.is_none() {
            self.group.persisted(self.persisted);
            let commit = self.group.commit_index();
            let mut committed = None;
            while let Some((_, next)) = self.pending.pop_front_if(|(index, _)| *index <= commit) {
                committed = Some(next);
            }
            if let Some(committed) = committed {
                self.storage().shared.set_committed(committed);
            }
        }
        // Full is tried again at the next flush.
        let _stopped_is_seen_below = self.pump();
        self.check_group()
    }

    fn fit(&mut self, result: Result<(), WriteFault>) -> Result<(), AppendError> {
        result.map_err(|fault| match fault {
            WriteFault::Full => AppendError::DiskFull,
            WriteFault::Broken(reason) => AppendError::Stopped(self.stop(reason)),
        })
    }

    fn refused(&mut self, error: ProposeError) -> AppendError {
        match error {
            ProposeError::NotLeader { leader } => AppendError::NotLeader { leader },
            ProposeError::Busy { uncommitted_bytes } => {
                AppendError::Busy { uncommitted_bytes: uncommitted_bytes as u64 }
            }
            ProposeError::Stopped(fault) => AppendError::Stopped(self.stop(fault.to_string())),
        }
    }

    /// A job for everything written so far. `None` if a file cannot be opened.
    fn job(&mut self, bytes: u64, checkpoint: bool) -> Option<FlushJob> {
        let storage = self.group.storage_mut();
        let handles: Result<Vec<_>, _> = storage.dirty.iter().map(|file| file.handle()).collect();
        let files = match handles {
            Ok(files) => files,
            Err(error) => {
                self.stop(error.to_string());
                return None;
            }
        };
        storage.dirty.clear();
        storage.dirty_bytes = 0;
        let removals = std::mem::take(&mut self.removals);
        let mark = Mark {
            sequence: self.mark.sequence + 1,
            flushed_index: LogIndex(storage.end.index.0 - 1),
            flushed_offset: storage.end.offset,
            start: storage.shared.start(),
            trimmed_index: storage.trimmed.0,
            trimmed_term: storage.trimmed.1,
        };
        let second_mark = (!removals.is_empty()).then_some(Mark { sequence: mark.sequence + 1, ..mark });
        let names = std::mem::take(&mut storage.new_names);
        let unindexed = if checkpoint { std::mem::take(&mut storage.unindexed) } else { Vec::new() };
        let (disk, dir) = (Arc::clone(&storage.disk), Arc::clone(&storage.dir));
        if checkpoint {
            storage.checkpoint_due = false;
            storage.unindexed.extend(storage.files.back().filter(|_| storage.active).cloned());
        }
        let mark_sync = checkpoint
            || self.mark_dirty
            || second_mark.is_some()
            || self.bytes_since_mark_sync + bytes >= MARK_SYNC_BYTES;
        let mut job = FlushJob {
            disk,
            dir,
            hard: std::mem::take(&mut self.hard_dirty).then(|| Arc::clone(&self.hard)),
            files,
            names,
            mark_file: Arc::clone(&self.mark_file),
            mark,
            second_mark,
            mark_sync,
            side_files: Vec::new(),
            removals,
            retired: Vec::new(),
            ready: self.ready,
        };
        self.mark = second_mark.unwrap_or(mark);
        self.mark_dirty = false;
        let checkpoint = checkpoint.then(|| self.checkpoint(&mut job, unindexed));
        self.flushing = Some(Flushing { bytes, checkpoint });
        Some(job)
    }

    /// Adds what spares the next open from reading the log: producers first, indexes after them.
    fn checkpoint(&mut self, job: &mut FlushJob, mut unindexed: Vec<Arc<LogFile>>) -> Checkpoint {
        let place = SnapshotPlace { next_offset: job.mark.flushed_offset, last_index: job.mark.flushed_index };
        let snapshot = format!("{}/{}", job.dir, snapshot_name(place));
        job.side_files.push(SideFile { path: snapshot.clone(), content: self.producers.encode(place) });
        unindexed.sort_by_key(|file| file.name);
        unindexed.dedup_by_key(|file| file.name);
        for file in unindexed.iter().filter(|file| file.len_bytes() > 0) {
            let content = file.encode_index();
            job.side_files.extend(content.map(|content| SideFile { path: file.index_path(), content }));
        }
        self.snapshots.retain(|known| *known != snapshot);
        self.snapshots.push_back(snapshot.clone());
        let surplus = self.snapshots.len().saturating_sub(PRODUCER_SNAPSHOTS);
        let retired: Vec<String> = self.snapshots.drain(..surplus).collect();
        job.retired.clone_from(&retired);
        Checkpoint { unindexed, snapshot, retired }
    }

    /// Retention by time lets go of the file that takes appends too, once all in it is old.
    fn close_if_expired(&mut self, wall: Timestamp) {
        let storage = self.group.storage();
        let all_committed = storage.end.offset == storage.shared.committed() && self.pending.is_empty();
        let last = storage.files.back().filter(|file| storage.active && file.next_offset() > file.name.base_offset);
        if all_committed && last.is_some_and(|file| self.is_expired(file, wall)) {
            self.group.storage_mut().close_active();
        }
    }

    /// True if the newest record of the file is older than retention keeps. A time in the future, or none,
    /// counts as the time of the append.
    fn is_expired(&self, file: &LogFile, wall: Timestamp) -> bool {
        let Some(keep_ms) = self.config.retention_ms else { return false };
        let summary = file.summary();
        let newest = match summary.max_timestamp {
            Timestamp(..0) => summary.last_append,
            time => time.min(summary.last_append),
        };
        wall.0.saturating_sub(newest.0) > i64::try_from(keep_ms).unwrap_or(i64::MAX)
    }

    fn remove_oldest(&mut self, count: usize) -> Trimmed {
        let dropped = self.group.storage_mut().drop_oldest(count);
        let bytes = dropped.iter().map(|file| file.len_bytes()).sum();
        self.removals.extend(dropped.iter().flat_map(|file| [file.path(), file.index_path()]));
        Trimmed { files: dropped.len(), bytes, start: self.start() }
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, committed, end) = (self.start(), self.committed(), self.end());
        write!(f, "Partition({}, {start}..{committed}, end {end}, {:?})", self.id, self.group)
    }
}

/// Makes the records of a batch carry the append's time, as Kafka does: a flag and the max timestamp.
fn stamp(batch: &mut [u8], time: Timestamp) {
    let attributes = i16::from_be_bytes([batch[21], batch[22]]) | 0x08;
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    batch[35..43].copy_from_slice(&time.0.to_be_bytes());
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}
