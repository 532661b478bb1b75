//! One partition: what its owner calls. Appending and retention are in their own files.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};

use base::disk::{Disk, DiskError, DiskFile};
use base::{LogIndex, NodeId, Offset, Term, Tick, Timestamp, TopicPartition};
use quorum::{Group, GroupConfig, GroupKey, HardState, Payload, Ready, Role};

use crate::file::LogFile;
use crate::flush::{FlushDone, FlushJob, HardStates, SideFile, disk_error};
use crate::frame::NoteKind;
use crate::limits::{
    CHECKPOINT_BYTES, CHECKPOINT_BYTES_MIN, CHECKPOINT_MS, EXPIRY_MS, MARK_SYNC_BYTES, PRODUCER_SNAPSHOTS,
    UNCOMMITTED_BYTES_MAX,
};
use crate::mark::{Mark, Slot};
use crate::producers::{Producers, SnapshotPlace};
use crate::reader::Shared;
use crate::recovery::{Recovered, Recovery, recover, snapshot_name};
use crate::storage::{LogStorage, Now, WriteFault};
use crate::{AppendError, OpenError, PartitionConfig, Reader, Seats, Stopped};

mod append;
mod replication;
mod retention;

pub use append::Appended;
pub use replication::{Acked, LostBatch, LostFound, PartitionStatus};
pub use retention::Trimmed;

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
    /// Where the next mark goes: not where the last synced one is.
    mark_slot: Slot,
    /// What was found in the other slot may not be durable.
    mark_in_doubt: bool,
    /// The mark speaks of a new start that is not durable.
    mark_dirty: bool,
    bytes_since_mark_sync: u64,
    bytes_since_checkpoint: u64,
    checkpointed: Tick,
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

/// Draws the elections of the groups of a node apart.
fn seed(id: TopicPartition) -> u64 {
    let (high, low) = id.topic.0.as_u64_pair();
    high ^ low.rotate_left(17) ^ u64::from(id.partition.0.unsigned_abs())
}

impl Partition {
    /// Opens the partition in folder `dir`, creating it if it is new. Reads no more than what was written
    /// since the last checkpoint; writes nothing if the last process closed it. Blocks on the disk. `seats`
    /// counts only for a partition that is new here.
    ///
    /// # Errors
    /// See [`OpenError`]: nothing was changed.
    #[expect(clippy::too_many_arguments, reason = "all a partition needs from its surroundings, once")]
    pub fn open(
        id: TopicPartition,
        dir: &str,
        config: PartitionConfig,
        node: NodeId,
        seats: Seats,
        disk: Arc<dyn Disk>,
        hard: HardStates,
        now: Tick,
        wall: Timestamp,
    ) -> Result<(Self, Recovery), OpenError> {
        let dir: Arc<str> = dir.into();
        let voted = hard.lock().unwrap_or_else(PoisonError::into_inner).get(group_key(id));
        let recovered = recover(&disk, &dir, &config, voted.is_some(), wall)?;
        let Recovered { files, unindexed, end, last_term, mark, producers, snapshots, recovery, .. } = recovered;
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
            seats,
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
        let group =
            GroupConfig { uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX, ..GroupConfig::standard(node, seed(id)) };
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
            mark_file: recovered.mark_file,
            mark_slot: recovered.mark_slot,
            mark_in_doubt: recovered.mark_in_doubt,
            mark_dirty: false,
            bytes_since_mark_sync: 0,
            bytes_since_checkpoint: 0,
            checkpointed: now,
            snapshots,
            removals: Vec::new(),
            retention_floor: None,
            flushing: None,
            stopped: None,
        };
        Ok((partition, recovery))
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
        if done.mark_synced {
            self.mark_slot = self.mark_slot.other();
        }
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

    /// To be called every `tick_ms` of the group, and a flush job to be asked for after it: closes a file that is
    /// old, makes a checkpoint due, forgets silent producers.
    pub fn tick(&mut self, now: Tick, wall: Timestamp) {
        self.now = Now { tick: now, wall };
        let storage = self.group.storage_mut();
        let filled = storage.active && storage.files.back().is_some_and(|file| file.len_bytes() > 0);
        if filled && now.since(storage.active_since) >= self.config.file_age_ms_max {
            storage.close_active();
        }
        if now.since(self.checkpointed) >= CHECKPOINT_MS && self.bytes_since_checkpoint >= CHECKPOINT_BYTES_MIN {
            self.checkpointed = now;
            storage.checkpoint_due = true;
            self.mark_dirty = true;
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

    /// Becomes leader, if it is not. A sole voter elects itself; its first entry starts a new file.
    fn lead(&mut self) -> Result<(), AppendError> {
        if self.stalled.is_some() {
            self.pump()?;
        }
        if self.storage().files.is_empty() && std::mem::take(&mut self.mark_in_doubt) {
            // The process that created the mark may have died before it was durable; it must be before
            // there is a log file.
            let storage = self.group.storage();
            let synced = self.mark_file.sync().and_then(|()| storage.disk.sync_dir(&storage.dir));
            self.fit(synced.map_err(|error| WriteFault::Broken(error.to_string())))?;
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
        let names = std::mem::take(&mut storage.new_names);
        let unindexed = if checkpoint { std::mem::take(&mut storage.unindexed) } else { Vec::new() };
        let (disk, dir) = (Arc::clone(&storage.disk), Arc::clone(&storage.dir));
        if checkpoint {
            storage.checkpoint_due = false;
            storage.unindexed.extend(storage.files.back().filter(|_| storage.active).cloned());
        }
        let mark_sync = checkpoint
            || self.mark_dirty
            || !removals.is_empty()
            || self.bytes_since_mark_sync + bytes >= MARK_SYNC_BYTES;
        let mut job = FlushJob {
            disk,
            dir,
            hard: std::mem::take(&mut self.hard_dirty).then(|| Arc::clone(&self.hard)),
            files,
            names,
            mark_file: Arc::clone(&self.mark_file),
            mark,
            mark_slot: self.mark_slot,
            mark_in_doubt: std::mem::take(&mut self.mark_in_doubt),
            mark_sync,
            side_files: Vec::new(),
            removals,
            retired: Vec::new(),
            ready: self.ready,
        };
        // One number is left for a second write.
        self.mark = Mark { sequence: mark.sequence + 1, ..mark };
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
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, committed, end) = (self.start(), self.committed(), self.end());
        write!(f, "Partition({}, {start}..{committed}, end {end}, {:?})", self.id, self.group)
    }
}
