//! What is handed to the disk, and what its answer means.

use std::sync::Arc;

use base::disk::{DiskError, DiskFile};
use base::{LogIndex, Offset};

use super::Partition;
use crate::Stopped;
use crate::cut::CutJob;
use crate::file::LogFile;
use crate::flush::{FlushDone, FlushJob, HardStates, SideFile};
use crate::limits::{CHECKPOINT_BYTES, MARK_SYNC_BYTES, PRODUCER_SNAPSHOTS};
use crate::lost::Saver;
use crate::mark::Mark;
use crate::producers::SnapshotPlace;
use crate::recovery::snapshot_name;

/// A job that is out.
pub(super) struct Flushing {
    bytes: u64,
    checkpoint: Option<Checkpoint>,
    is_cut: bool,
}

/// What a checkpoint changes, and what to take back if there was no room for it.
struct Checkpoint {
    unindexed: Vec<Arc<LogFile>>,
    snapshot: Option<SnapshotPlace>,
    retired: Vec<SnapshotPlace>,
}

impl Partition {
    /// True if [`Partition::flush_job`] would give one: also an answer to a leader waits for it.
    #[must_use]
    pub fn needs_flush(&self) -> bool {
        self.flushing.is_none() && self.stopped.is_none() && (self.cutting.is_some() || self.has_work())
    }

    pub(super) fn has_work(&self) -> bool {
        !self.storage().dirty.is_empty()
            || !self.unpersisted.is_empty()
            || self.hard_dirty
            || self.mark_dirty
            || self.mark_behind
            || self.members_dirty
            || !self.removals.is_empty()
    }

    /// What has to reach the disk now, to be run on a thread that may block; then [`Partition::flushed`].
    /// `None` if there is nothing, or a job is out already: one at a time. Call it after appends, after
    /// messages and ticks, and after [`Partition::trim`] and [`Partition::delete_before`].
    pub fn flush_job(&mut self) -> Option<FlushJob> {
        if self.flushing.is_some() || self.stopped.is_some() {
            return None;
        }
        // On a full disk the group's own entry waits for the next try; any other fault stops the partition.
        if self.pump().is_err() && self.stopped.is_some() {
            return None;
        }
        if self.cutting.is_some() {
            return self.cut_job();
        }
        if !self.has_work() {
            return None;
        }
        let storage = self.group.storage();
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
        let mut done = match done {
            Ok(done) => done,
            Err(error) => return Err(self.stop(error.to_string())),
        };
        self.bytes_since_mark_sync = if done.mark_synced { 0 } else { self.bytes_since_mark_sync + flushing.bytes };
        if done.mark_synced {
            self.mark_slot = self.mark_slot.other();
        }
        self.bytes_since_checkpoint += flushing.bytes;
        self.mark_dirty |= !done.mark_written && !flushing.is_cut;
        self.members_dirty |= !done.members_written;
        self.removals.append(&mut done.removals_left);
        if let Some(checkpoint) = flushing.checkpoint {
            // Without room for it, the next one is due after as many bytes again.
            self.bytes_since_checkpoint = 0;
            let storage = self.group.storage_mut();
            if done.side_files_written {
                storage.snapshots.retain(|known| !checkpoint.retired.contains(known));
                storage.snapshots.retain(|known| Some(*known) != checkpoint.snapshot);
                storage.snapshots.extend(checkpoint.snapshot);
            } else {
                storage.unindexed.extend(checkpoint.unindexed);
            }
        }
        if done.members_written {
            self.persisted = self.persisted.max(done.ready);
        }
        if let Some(cut) = done.cut {
            self.cut_done(*cut);
        }
        // Full is tried again at the next flush.
        let _stopped_is_seen_below = self.pump();
        self.check_group()?;
        Ok(self.committed())
    }

    /// Flushes and leaves a mark, so that the next open reads nothing. Blocks.
    ///
    /// # Errors
    /// The disk failed; the next open recovers.
    pub fn close(mut self) -> Result<(), DiskError> {
        if let Some(stopped) = &self.stopped {
            return Err(DiskError::Io { path: self.storage().dir.to_string(), cause: stopped.reason.clone() });
        }
        if self.cutting.is_some() {
            // What stands above the cut is no more worth than what a crash leaves.
            return Ok(());
        }
        if let Some(flushing) = self.flushing.take() {
            // The job that is out may not have run: its files are synced here again.
            let storage = self.group.storage_mut();
            storage.unindexed.extend(flushing.checkpoint.into_iter().flat_map(|checkpoint| checkpoint.unindexed));
            storage.dirty = storage.files.iter().cloned().collect();
            storage.new_names = true;
            self.hard_dirty = true;
            self.members_dirty |= !self.storage().roster.is_alone(self.node);
        }
        let last = LogIndex(self.storage().end.index.0 - 1);
        let decided = LogIndex(self.storage().decided().index.0 - 1);
        let written = self.bytes_since_checkpoint + self.bytes_since_mark_sync + self.storage().dirty_bytes;
        let said = self.mark.flushed_index == last && self.mark.committed_index == decided;
        let idle = said && written == 0 && self.removals.is_empty() && !self.hard_dirty && !self.members_dirty;
        if idle && !self.mark_dirty && self.storage().unindexed.is_empty() {
            return Ok(());
        }
        let bytes = self.storage().dirty_bytes;
        self.bytes_since_mark_sync = MARK_SYNC_BYTES;
        self.job(bytes, true).map_or(Ok(()), |job| job.run().map(|_| ()))
    }

    /// The open files among `files`; stops if one cannot be opened.
    fn handles(&mut self, files: &[Arc<LogFile>]) -> Option<Vec<Arc<dyn DiskFile>>> {
        match files.iter().map(|file| file.handle()).collect() {
            Ok(handles) => Some(handles),
            Err(error) => {
                self.stop(error.to_string());
                None
            }
        }
    }

    /// A job for everything written so far. `None` if a file cannot be opened.
    fn job(&mut self, bytes: u64, checkpoint: bool) -> Option<FlushJob> {
        let dirty = std::mem::take(&mut self.group.storage_mut().dirty);
        let files = self.handles(&dirty)?;
        let removals = std::mem::take(&mut self.removals);
        let members = std::mem::take(&mut self.members_dirty).then(|| self.storage().roster.clone());
        let storage = self.group.storage_mut();
        storage.dirty_bytes = 0;
        let mark = Mark {
            sequence: self.mark.sequence + 1,
            flushed_index: LogIndex(storage.end.index.0 - 1),
            flushed_offset: storage.end.offset,
            start: storage.start,
            trimmed_index: storage.trimmed.0,
            trimmed_term: storage.trimmed.1,
            committed_index: LogIndex(storage.decided().index.0 - 1),
            committed_offset: storage.decided().offset,
            seeded_index: self.mark.seeded_index,
            repair_term: self.mark.repair_term,
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
            hard: std::mem::take(&mut self.hard_dirty).then(|| HardStates::clone(&self.hard)),
            files,
            names,
            members,
            cut: None,
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
        self.mark_behind = false;
        self.mark_written = self.now.tick;
        let checkpoint = checkpoint.then(|| self.checkpoint(&mut job, unindexed));
        self.flushing = Some(Flushing { bytes, checkpoint, is_cut: false });
        Some(job)
    }

    /// A job that makes durable what stays and takes back what has to go.
    fn cut_job(&mut self) -> Option<FlushJob> {
        let cutting = self.cutting.as_ref()?;
        let (place, by, install) = (cutting.place, cutting.by, cutting.install.clone());
        let roster = match (&install, &cutting.members) {
            (Some(install), Some(members)) => {
                let mut roster = self.storage().roster.clone();
                roster.applied(install.index, members.clone());
                Some(roster)
            }
            _ => None,
        };
        let storage = self.group.storage_mut();
        let mut dirty = std::mem::take(&mut storage.dirty);
        dirty.retain(|file| file.name.base_index < place.index);
        let files = self.handles(&dirty)?;
        let members = std::mem::take(&mut self.members_dirty).then(|| self.storage().roster.clone());
        let saver = Saver {
            acked: self.acked.clone(),
            policy: self.config.lost_policy,
            bytes_max: self.config.lost_bytes_max,
            wall: self.now.wall,
            replaced_by: by,
            there: self.lost.iter().map(|one| (one.path.clone(), one.size_bytes, one.kept())).collect(),
            dropped_batches: self.lost_dropped,
        };
        let storage = self.group.storage_mut();
        let bytes = std::mem::take(&mut storage.dirty_bytes);
        // Readers of what is not committed turn back before the bytes go.
        storage.shared.set_end(place.offset);
        let mark = Mark {
            sequence: self.mark.sequence + 1,
            flushed_index: LogIndex(place.index.0 - 1),
            flushed_offset: place.offset,
            start: storage.start,
            trimmed_index: storage.trimmed.0,
            trimmed_term: storage.trimmed.1,
            committed_index: LogIndex(storage.decided().index.0 - 1),
            committed_offset: storage.decided().offset,
            ..self.mark
        };
        let cut = CutJob {
            place,
            files: storage.files.iter().cloned().collect(),
            snapshots: storage.snapshots.clone(),
            seeded: self.mark.seeded_index,
            producers_max: self.config.producers_max,
            wall: self.now.wall,
            install,
            roster,
            saver,
            mark,
        };
        // Numbers are left for the marks that the cut writes.
        self.mark.sequence += MARKS_OF_A_CUT;
        self.flushing = Some(Flushing { bytes, checkpoint: None, is_cut: true });
        Some(FlushJob {
            disk: Arc::clone(&storage.disk),
            dir: Arc::clone(&storage.dir),
            hard: std::mem::take(&mut self.hard_dirty).then(|| HardStates::clone(&self.hard)),
            files,
            names: std::mem::take(&mut storage.new_names),
            members,
            cut: Some(Box::new(cut)),
            mark_file: Arc::clone(&self.mark_file),
            mark,
            mark_slot: self.mark_slot,
            mark_in_doubt: std::mem::take(&mut self.mark_in_doubt),
            mark_sync: true,
            side_files: Vec::new(),
            removals: std::mem::take(&mut self.removals),
            retired: Vec::new(),
            ready: self.ready,
        })
    }

    /// Adds what spares the next open from reading the log: indexes first, producers after them.
    fn checkpoint(&mut self, job: &mut FlushJob, mut unindexed: Vec<Arc<LogFile>>) -> Checkpoint {
        let place = SnapshotPlace { next_offset: job.mark.flushed_offset, last_index: job.mark.flushed_index };
        // Producers that a leader gave are ahead of the log for a while: their own snapshot stands for them.
        let is_behind = place.last_index >= job.mark.seeded_index;
        let snapshot = is_behind.then_some(place);
        let path = |place: SnapshotPlace| format!("{}/{}", job.dir, snapshot_name(place));
        unindexed.sort_by_key(|file| file.name);
        unindexed.dedup_by_key(|file| file.name);
        for file in unindexed.iter().filter(|file| file.len_bytes() > 0) {
            let content = file.encode_index();
            job.side_files.extend(content.map(|content| SideFile { path: file.index_path(), content }));
        }
        if let Some(place) = snapshot {
            job.side_files.push(SideFile { path: path(place), content: self.producers.encode(place) });
        }
        let storage = self.group.storage();
        let known = storage.snapshots.iter().filter(|known| Some(**known) != snapshot);
        let known: Vec<SnapshotPlace> = known.copied().collect();
        let surplus = (known.len() + usize::from(snapshot.is_some())).saturating_sub(PRODUCER_SNAPSHOTS);
        // One that is committed stays: a replica that is far behind needs it, and so does trimming.
        let decided = storage.decided_snapshot();
        let needed = decided.and_then(|place| known.iter().position(|known| *known == place));
        let retired = known[..needed.map_or(surplus, |at| at.min(surplus))].to_vec();
        job.retired = retired.iter().copied().map(path).collect();
        Checkpoint { unindexed, snapshot, retired }
    }
}

/// Marks written by one cut, at most.
const MARKS_OF_A_CUT: u64 = 5;
