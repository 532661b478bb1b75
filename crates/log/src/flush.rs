//! What has to reach the disk, in the one order that survives a crash at any point.
//!
//! ```text
//! hard states -> log files -> their names -> members -> mark -> indexes, producers -> mark's sync -> removals
//! ```
//! The vote before the entries of its term; the mark after what it speaks of; a file's removal after the
//! mark that says it is not missed; indexes before the producers of the same place, because only they know what was
//! aborted below it. If entries have to go, that is done in place of the mark: see `cut`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base::disk::{Disk, DiskError, DiskFile};
use bytes::Bytes;
use quorum::JournalError;

use crate::cut::{CutDone, CutJob, Ground};
use crate::mark::{Mark, Slot};
use crate::roster::Roster;

/// The hard states of the node's groups, shared by its partitions.
pub type HardStates = Arc<Mutex<quorum::HardStates>>;

/// What one partition has to make durable. Blocks while it runs; may run on any thread.
pub struct FlushJob {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: Arc<str>,
    pub(crate) hard: Option<HardStates>,
    pub(crate) files: Vec<Arc<dyn DiskFile>>,
    pub(crate) names: bool,
    pub(crate) members: Option<Roster>,
    pub(crate) cut: Option<Box<CutJob>>,
    pub(crate) mark_file: Arc<dyn DiskFile>,
    pub(crate) mark: Mark,
    pub(crate) mark_slot: Slot,
    /// What an earlier process wrote into the other slot may be in the page cache only.
    pub(crate) mark_in_doubt: bool,
    pub(crate) mark_sync: bool,
    pub(crate) side_files: Vec<SideFile>,
    pub(crate) removals: Vec<String>,
    /// Removed only if the side files that replace them were written.
    pub(crate) retired: Vec<String>,
    pub(crate) ready: u64,
}

/// A file that helps a restart and can be done without.
pub(crate) struct SideFile {
    pub path: String,
    pub content: Bytes,
}

impl SideFile {
    /// Writes it as a whole. False if there was no room: then what was there before still is.
    pub fn write(&self, disk: &dyn Disk) -> Result<bool, DiskError> {
        let temporary = format!("{}.tmp", self.path);
        remove_if_there(disk, &temporary)?;
        let written = disk.create(&temporary).and_then(|file| {
            file.append(&[&self.content])?;
            file.sync()
        });
        if !unless_full(written)? {
            remove_if_there(disk, &temporary)?;
            return Ok(false);
        }
        disk.rename(&temporary, &self.path)?;
        Ok(true)
    }
}

/// What a [`FlushJob`] did; for [`crate::Partition::flushed`].
#[derive(Debug)]
pub struct FlushDone {
    pub(crate) ready: u64,
    /// False if there was no room for the members: nothing of the job counts as durable.
    pub(crate) members_written: bool,
    pub(crate) cut: Option<Box<CutDone>>,
    /// False if there was no room: what depends on it has to wait.
    pub(crate) mark_written: bool,
    pub(crate) mark_synced: bool,
    /// False if there was no room.
    pub(crate) side_files_written: bool,
    /// Not removed, to be tried again.
    pub(crate) removals_left: Vec<String>,
}

impl FlushJob {
    /// Makes it durable.
    ///
    /// # Errors
    /// Anything that leaves in doubt what the disk holds: the partition must stop.
    pub fn run(mut self) -> Result<FlushDone, DiskError> {
        if let Some(hard) = &self.hard {
            sync_hard_states(hard).map_err(disk_error)?;
        }
        for file in &self.files {
            file.sync()?;
        }
        if self.names {
            self.disk.sync_dir(&self.dir)?;
        }
        if let Some(members) = &self.members
            && !unless_full(members.save(self.disk.as_ref(), &self.dir))?
        {
            return Ok(self.done(false, None));
        }
        if self.mark_in_doubt {
            self.mark_file.sync()?;
        }
        if let Some(cut) = self.cut.take() {
            let (disk, mark_file) = (self.disk.as_ref(), self.mark_file.as_ref());
            let done = cut.run(&Ground { disk, dir: &self.dir, mark_file, slot: self.mark_slot })?;
            return Ok(self.done(true, done.map(Box::new)));
        }
        let mark_written = unless_full(self.mark.write(self.mark_file.as_ref(), self.mark_slot))?;
        let side_files_written = self.write_side_files()?;
        let mark_synced = mark_written && self.mark_sync;
        if mark_synced {
            self.mark_file.sync()?;
        }
        if mark_synced && !self.removals.is_empty() {
            // Neither slot speaks of a file that is gone, should the other one rot.
            let again = Mark { sequence: self.mark.sequence + 1, ..self.mark };
            again.write(self.mark_file.as_ref(), self.mark_slot.other())?;
            self.mark_file.sync()?;
        }
        if side_files_written {
            // One that stays costs room only.
            let _left = self.remove(&self.retired);
        }
        let removals_left = if mark_synced { self.remove(&self.removals) } else { std::mem::take(&mut self.removals) };
        let done = self.done(true, None);
        Ok(FlushDone { mark_written, mark_synced, side_files_written, removals_left, ..done })
    }

    /// What was done if the mark was not.
    fn done(&self, members_written: bool, cut: Option<Box<CutDone>>) -> FlushDone {
        FlushDone {
            ready: self.ready,
            members_written,
            cut,
            mark_written: false,
            mark_synced: false,
            side_files_written: false,
            removals_left: self.removals.clone(),
        }
    }

    fn write_side_files(&self) -> Result<bool, DiskError> {
        for side in &self.side_files {
            if !side.write(self.disk.as_ref())? {
                return Ok(false);
            }
        }
        if !self.side_files.is_empty() {
            self.disk.sync_dir(&self.dir)?;
        }
        Ok(true)
    }

    /// Removes what is not needed any more. A failure costs room only: it is tried again.
    fn remove(&self, paths: &[String]) -> Vec<String> {
        let failed = |path: &&String| remove_if_there(self.disk.as_ref(), path).is_err();
        paths.iter().filter(failed).cloned().collect()
    }
}

impl fmt::Debug for FlushJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlushJob({}, {} files up to {:?})", self.dir, self.files.len(), self.mark)
    }
}

/// Partitions that vote meanwhile do not wait for the disk, and share the next sync.
pub(crate) fn sync_hard_states(hard: &HardStates) -> Result<(), JournalError> {
    let states = || hard.lock().unwrap_or_else(PoisonError::into_inner);
    let gate = states().gate();
    let _one_at_a_time = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(job) = states().sync_job()? else { return Ok(()) };
    let done = job.run();
    states().synced(done)
}

pub(crate) fn remove_if_there(disk: &dyn Disk, path: &str) -> Result<(), DiskError> {
    match disk.remove_file(path) {
        Ok(()) | Err(DiskError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// True if it was done, false if there was no room.
pub(crate) fn unless_full(result: Result<(), DiskError>) -> Result<bool, DiskError> {
    match result {
        Ok(()) => Ok(true),
        Err(DiskError::Full { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) fn disk_error(error: JournalError) -> DiskError {
    match error {
        JournalError::Disk(error) | JournalError::Stopped(error) => error,
        error => DiskError::Io { path: "hard states".to_owned(), cause: error.to_string() },
    }
}
