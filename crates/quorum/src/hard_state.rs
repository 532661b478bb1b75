//! The hard states of many groups in one file, so that one sync serves them all.
//!
//! The file is drawn in docs/formats/hard-state.md. Every change is appended; when the file has grown to a
//! few times what it says, all states are written to a new one that replaces it.
//!
//! What always holds: after [`HardStates::sync`] returned, every state put before it is there again at the
//! next [`HardStates::open`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use base::disk::Disk;

use crate::frames::{self, FrameFile, Frames, Kind, SyncDone, SyncJob};
use crate::journal::{encode_hard_state, read_hard_state};
use crate::{HardState, JournalError};

const KIND: Kind = Kind { magic: *b"SWhardst", suffix: ".hard" };
const STATE: u8 = 1;
const REMOVED: u8 = 2;
const KEY_BYTES: usize = 20;
/// A frame with a state: 24 bytes before the payload of 40.
const STATE_FRAME_BYTES: u64 = 64;
/// The file is rewritten when it is this many times as large as its live content ..
const GROWTH_MAX: u64 = 4;
/// .. but not below this size.
const REWRITE_BYTES_MIN: u64 = 256 << 10;

/// Names a group. What the bytes mean is the caller's; a topic's id and a partition's number fit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey(pub [u8; KEY_BYTES]);

impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// See the module.
#[derive(Debug)]
pub struct HardStates {
    disk: Arc<dyn Disk>,
    dir: String,
    file: FrameFile,
    number: u64,
    states: BTreeMap<GroupKey, HardState>,
    gate: Arc<Mutex<()>>,
}

impl HardStates {
    /// Opens the hard states in `dir`, creating them if there are none.
    pub fn open(disk: Arc<dyn Disk>, dir: &str) -> Result<Self, JournalError> {
        disk.create_dir_all(dir)?;
        let numbers = frames::numbers(&*disk, dir, KIND)?;
        let dir = dir.to_owned();
        let Some((newest, older)) = numbers.split_last() else {
            let file = FrameFile::install(&*disk, &dir, KIND, (1, 0), Frames::default())?;
            return Ok(Self { disk, dir, file, number: 1, states: BTreeMap::new(), gate: Arc::default() });
        };
        let found = frames::find(&*disk, &dir, *newest, KIND)?;
        let states = read(&found)?;
        let file = found.resume()?;
        disk.sync_dir(&dir)?;
        for number in older {
            frames::remove(&*disk, &frames::path(&dir, *number, KIND))?;
        }
        Ok(Self { disk, dir, file, number: *newest, states, gate: Arc::default() })
    }

    #[must_use]
    pub fn get(&self, group: GroupKey) -> Option<HardState> {
        self.states.get(&group).copied()
    }

    /// Every group that has a state.
    pub fn groups(&self) -> impl Iterator<Item = GroupKey> {
        self.states.keys().copied()
    }

    /// Writes a state. Durable after [`HardStates::sync`]; on an error it is as before.
    pub fn put(&mut self, group: GroupKey, state: HardState) -> Result<(), JournalError> {
        let mut frames = Frames::default();
        frames.push(STATE, &[&group.0, &encode_hard_state(&state)])?;
        self.file.append(&mut frames)?;
        self.states.insert(group, state);
        Ok(())
    }

    /// Forgets a group that was deleted. Durable after [`HardStates::sync`].
    pub fn remove(&mut self, group: GroupKey) -> Result<(), JournalError> {
        if self.states.contains_key(&group) {
            let mut frames = Frames::default();
            frames.push(REMOVED, &[&group.0])?;
            self.file.append(&mut frames)?;
            self.states.remove(&group);
        }
        Ok(())
    }

    /// Makes every change durable; free if there was none.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.sync_job()?.map_or(Ok(()), |job| self.synced(job.run()))
    }

    /// As `sync`, to be run without holding on to the states; `None` if everything is durable. Only with the gate held,
    /// until [`HardStates::synced`].
    pub fn sync_job(&mut self) -> Result<Option<SyncJob>, JournalError> {
        let live = self.states.len() as u64 * STATE_FRAME_BYTES;
        if self.file.len_bytes() > REWRITE_BYTES_MIN.max(live * GROWTH_MAX) {
            self.rewrite()?;
        }
        self.file.sync_job()
    }

    /// What was put before the job was taken is durable, unless this says otherwise.
    pub fn synced(&mut self, done: SyncDone) -> Result<(), JournalError> {
        self.file.synced(done)
    }

    /// To be locked before a job is taken: one at a time.
    #[must_use]
    pub fn gate(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.gate)
    }

    fn rewrite(&mut self) -> Result<(), JournalError> {
        // Keeps the promise even if there is no room for the new file.
        self.file.sync()?;
        let mut frames = Frames::default();
        for (group, state) in &self.states {
            frames.push(STATE, &[&group.0, &encode_hard_state(state)])?;
        }
        let number = self.number + 1;
        match FrameFile::install(&*self.disk, &self.dir, KIND, (number, 0), frames) {
            Ok(file) => self.file = file,
            Err(JournalError::Disk(base::disk::DiskError::Full { .. })) => return Ok(()),
            Err(error) => {
                self.file.stop_unless_full(&error);
                return Err(error);
            }
        }
        let old = frames::path(&self.dir, self.number, KIND);
        self.number = number;
        // The new file rules; if the old one cannot be removed now, the next open does it.
        let _best_effort = frames::remove(&*self.disk, &old);
        Ok(())
    }
}

fn read(found: &frames::Found) -> Result<BTreeMap<GroupKey, HardState>, JournalError> {
    let mut states = BTreeMap::new();
    for frame in found.frames() {
        let split = frame.payload.split_first_chunk::<KEY_BYTES>();
        match (frame.kind, split) {
            (STATE, Some((key, rest))) if let Some(state) = read_hard_state(rest) => {
                states.insert(GroupKey(*key), state);
            }
            (REMOVED, Some((key, []))) => {
                states.remove(&GroupKey(*key));
            }
            _ => {
                return Err(JournalError::Damaged {
                    path: found.path.clone(),
                    position: frame.position,
                    what: "a frame's checksum is right but its content makes no sense".to_owned(),
                });
            }
        }
    }
    Ok(states)
}

#[cfg(test)]
mod tests;
