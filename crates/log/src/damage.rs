//! What a replica does when its own disk lost what it had promised to keep: it says so by its term, gives up its
//! vote, and fetches everything again.
//!
//! The leader believes that this replica holds entries which are gone, and raft has no way to tell it
//! otherwise within its term. So the replica goes to a term of its own: the leader steps down, and whoever
//! is elected next, without this replica's vote, holds every committed entry and starts to count anew. Once
//! an entry of that term or a later one is committed and durable here, all that was promised is here again.
//!
//! What always holds: nothing is deleted before that; a crash at any point begins it again.

use base::disk::{Disk, DiskError};
use base::{LogIndex, Term};
use quorum::{GroupKey, HardState};

use crate::OpenError;
use crate::file::FileName;
use crate::flush::{HardStates, disk_error, remove_if_there, sync_hard_states};
use crate::mark::Mark;
use crate::roster::MEMBERS_NAME;

/// Where damaged files are moved to.
pub(crate) const FOLDER: &str = "damaged";
/// A file that says that the log is not to be trusted although it can be read.
const FLAG: &str = "repair";

/// True if other replicas can make good what is wrong.
pub(crate) const fn is_repairable(error: &OpenError) -> bool {
    matches!(error, OpenError::Corrupt { .. } | OpenError::Missing { .. })
}

/// Notes that the log in `dir` must be fetched again, whatever the next open thinks of it.
pub(crate) fn declare(disk: &dyn Disk, dir: &str) -> Result<(), DiskError> {
    let path = format!("{dir}/{FLAG}");
    remove_if_there(disk, &path)?;
    disk.create(&path)?.sync()?;
    disk.sync_dir(dir)
}

/// True if [`declare`] was called.
pub(crate) fn is_declared(disk: &dyn Disk, dir: &str) -> Result<bool, DiskError> {
    Ok(disk.list(dir)?.iter().any(|entry| entry.name == FLAG))
}

/// Moves the log aside and begins a new one, without a vote. Returns the term to start from.
pub(crate) fn set_aside(disk: &dyn Disk, dir: &str, hard: &HardStates, key: GroupKey) -> Result<HardState, OpenError> {
    let entries = disk.list(dir)?;
    let written = entries.iter().filter_map(|entry| FileName::parse(&entry.name)).map(|name| name.term).max();
    let state = {
        let mut hard = hard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let voted = hard.get(key).map(|state| state.term);
        let term = Term(voted.max(written).unwrap_or_default().0 + 1);
        let state = HardState { term, vote: None, commit: LogIndex::ZERO };
        hard.put(key, state).map_err(|error| OpenError::Disk(disk_error(error)))?;
        state
    };
    sync_hard_states(hard).map_err(|error| OpenError::Disk(disk_error(error)))?;
    let folder = format!("{dir}/{FOLDER}");
    disk.create_dir_all(&folder)?;
    let kept = |name: &str| name == MEMBERS_NAME || name == FLAG || name.ends_with(".tmp");
    for entry in entries.iter().filter(|entry| !entry.is_dir && !kept(&entry.name)) {
        disk.rename(&format!("{dir}/{}", entry.name), &format!("{folder}/{}", entry.name))?;
    }
    disk.sync_dir(&folder)?;
    disk.sync_dir(dir)?;
    Mark { repair_term: state.term, ..Mark::NEW }.create(disk, dir)?;
    remove_if_there(disk, &format!("{dir}/{FLAG}"))?;
    disk.sync_dir(dir)?;
    Ok(state)
}

/// The files that were moved aside.
pub(crate) fn list(disk: &dyn Disk, dir: &str) -> Result<Vec<String>, DiskError> {
    let folder = format!("{dir}/{FOLDER}");
    match disk.list(&folder) {
        Ok(entries) => Ok(entries.iter().map(|entry| format!("{folder}/{}", entry.name)).collect()),
        Err(DiskError::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
