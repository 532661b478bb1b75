//! What is removed, and when: whole files, oldest first, never above what is committed or still needed.

use base::{Offset, Tick, Timestamp};

use super::Partition;
use crate::DeleteError;
use crate::file::LogFile;
use crate::frame::{Note, NoteKind, Place};
use crate::storage::Now;

/// What retention removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trimmed {
    pub files: usize,
    pub bytes: u64,
    pub start: Offset,
}

impl Partition {
    /// Nothing at or above `floor` is removed: the lowest published offset of the tables that read it.
    pub fn set_retention_floor(&mut self, floor: Option<Offset>) {
        self.retention_floor = floor;
    }

    /// See [`Partition::set_retention_floor`].
    #[must_use]
    pub fn retention_floor(&self) -> Option<Offset> {
        self.retention_floor
    }

    /// Removes the oldest closed files that retention lets go. They are gone from the disk after a flush.
    pub fn trim(&mut self, now: Tick, wall: Timestamp) -> Trimmed {
        self.now = Now { tick: now, wall };
        self.close_if_expired(wall);
        let floor = self.retention_floor.map_or(self.committed(), |floor| floor.min(self.committed()));
        let storage = self.group.storage();
        let mut left: u64 = self.size_bytes();
        let mut count = 0;
        let removable = storage.removable(floor);
        let mut is_held = false;
        for (at, file) in storage.files.iter().take(storage.below(floor)).enumerate() {
            let len = file.len_bytes();
            let surplus = self.config.retention_bytes.is_some_and(|keep| left - len >= keep);
            if !surplus && !self.is_expired(file, wall) {
                break;
            }
            is_held |= at >= removable;
            left -= len;
            count += 1;
        }
        if is_held {
            // The next flush saves the producers that are still to be read from it.
            self.group.storage_mut().checkpoint_due = true;
            self.mark_dirty = true;
        }
        self.remove_oldest(count.min(removable))
    }

    /// Deletes the records below `offset`: they are not read any more, and files that hold nothing else
    /// are removed. Returns the new start; it is durable after the next flush. With other replicas it moves
    /// once a majority has agreed: wait for [`Partition::start`] to reach `offset`.
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
        if offset > start && !self.is_alone() {
            self.propose_start(offset)?;
        } else if offset > start {
            self.group.storage_mut().delete_below(offset);
            self.mark_dirty = true;
            self.remove_oldest(self.storage().removable(offset));
        }
        Ok(self.start())
    }

    /// Asks the other replicas to delete the records below `offset` too.
    fn propose_start(&mut self, offset: Offset) -> Result<(), DeleteError> {
        self.lead().map_err(DeleteError::Append)?;
        let (now, term, place) = (self.now, self.group.term(), self.storage().end);
        let bytes = Note::encode(NoteKind::Start, place, term, &offset.0.to_be_bytes());
        let next = Place { offset: place.offset, index: place.index.next() };
        self.write_and_propose(bytes, next, None, term, now).map_err(DeleteError::Append)
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

    pub(super) fn remove_oldest(&mut self, count: usize) -> Trimmed {
        let storage = self.group.storage_mut();
        let dropped = storage.drop_oldest(count);
        // A replica that needs what is gone gets the producers of a later place instead.
        let (trimmed, _) = storage.trimmed;
        storage.checkpoint_due |= storage.snapshots.last().is_none_or(|place| place.last_index < trimmed);
        let bytes = dropped.iter().map(|file| file.len_bytes()).sum();
        self.removals.extend(dropped.iter().flat_map(|file| [file.path(), file.index_path()]));
        Trimmed { files: dropped.len(), bytes, start: self.start() }
    }
}
