//! Writing a file of lost+found anew when it is known what became of some of its batches.
//!
//! What always holds: the file under its name is the old one or the new one, whole; bytes go only of batches that are in the
//! log again or were given up.

use std::sync::Arc;

use base::Timestamp;
use base::disk::{Disk, DiskError};

use super::{ENTRY_BYTES, HEADER_BYTES, LostFound, encode, read_batch};
use crate::flush::remove_if_there;

/// To be run on a thread that may block.
#[derive(Debug)]
pub struct SettleJob {
    pub(crate) disk: Arc<dyn Disk>,
    /// What is there.
    pub(crate) old: LostFound,
    /// The same batches in the same order, with what became of them.
    pub(crate) new: LostFound,
}

/// What it came to; for [`crate::Partition::settled`].
#[derive(Debug)]
pub struct SettleDone {
    pub(crate) path: String,
    pub(crate) saved_at: Timestamp,
    pub(crate) written: Result<LostFound, DiskError>,
}

impl SettleJob {
    /// Does it. Blocks.
    #[must_use]
    pub fn run(self) -> SettleDone {
        let (path, saved_at) = (self.old.path.clone(), self.old.saved_at);
        SettleDone { path, saved_at, written: self.write() }
    }

    fn write(self) -> Result<LostFound, DiskError> {
        let Self { disk, old, mut new } = self;
        let mut position = (HEADER_BYTES + new.batches.len() * ENTRY_BYTES + 4) as u64;
        for batch in &mut new.batches {
            batch.position = position;
            position += u64::from(batch.size_bytes);
        }
        new.size_bytes = position;
        let temporary = format!("{}.tmp", old.path);
        remove_if_there(disk.as_ref(), &temporary)?;
        let file = disk.create(&temporary)?;
        file.append(&[&encode(&new)])?;
        for (before, _) in old.batches.iter().zip(&new.batches).filter(|(_, after)| after.size_bytes > 0) {
            file.append(&[&read_batch(disk.as_ref(), &old.path, before)?])?;
        }
        file.sync()?;
        disk.rename(&temporary, &old.path)?;
        if let Some((folder, _)) = old.path.rsplit_once('/') {
            disk.sync_dir(folder)?;
        }
        Ok(new)
    }
}
