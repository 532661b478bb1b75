//! The seam between a room that stores and the machine.
//!
//! Paths are relative to the disk's root, slash-separated, without `.` or `..`. Calls block and are
//! made from threads that may block. `server` has the real one; [`memory::MemDisk`] is the double that
//! can lose unsynced writes, tear, fail fsync and fill up.
//!
//! What an implementation promises: bytes written are readable at once by this process; they survive a
//! crash only after [`DiskFile::sync`] returned, and a new, renamed or removed name only after
//! [`Disk::sync_dir`] of its folder returned. After [`DiskError::Sync`] nothing about the file's
//! unsynced bytes is known: stop using the disk, never retry.

use std::fmt;
use std::sync::Arc;

#[doc(hidden)]
pub mod conformance;
pub mod memory;

/// Why a disk refused. The variant says what the caller may do next.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiskError {
    /// No such file or folder.
    #[error("{path}: not found")]
    NotFound { path: String },
    /// The name is taken.
    #[error("{path}: already exists")]
    AlreadyExists { path: String },
    /// No room. Refuse the write; reads go on; try again when there is room.
    #[error("{path}: the disk is full")]
    Full { path: String },
    /// fsync failed. Stop writing to this disk for good.
    #[error("{path}: fsync failed ({cause}); what the disk holds is unknown")]
    Sync { path: String, cause: String },
    /// Any other fault of the machine. Treat the file as unusable.
    #[error("{path}: {cause}")]
    Io { path: String, cause: String },
}

/// A name in a folder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
    /// Zero for a folder.
    pub len_bytes: u64,
}

/// A disk: one folder of the machine, or memory.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Creates an empty file; its folder must exist.
    fn create(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError>;
    /// The entries of a folder, sorted by name.
    fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError>;
    /// Creates a folder and its parents, and makes their names durable.
    fn create_dir_all(&self, dir: &str) -> Result<(), DiskError>;
    /// Renames over `to` if it exists, atomically. Durable after `sync_dir`.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;
    fn remove_file(&self, path: &str) -> Result<(), DiskError>;
    /// Removes a folder and what is in it. Not an error if it is not there.
    fn remove_dir_all(&self, dir: &str) -> Result<(), DiskError>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError>;
    /// Bytes that can still be written.
    fn free_bytes(&self) -> Result<u64, DiskError>;
}

/// An open file. All calls take `&self`: reads may run beside one writer.
pub trait DiskFile: Send + Sync + fmt::Debug {
    fn len_bytes(&self) -> u64;
    /// Writes all of `parts` one after another at the end; returns where the first byte landed. On an
    /// error any prefix may have been written: truncate back or stop using the file.
    fn append(&self, parts: &[&[u8]]) -> Result<u64, DiskError>;
    /// Overwrites or extends at `position`.
    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// Fills `buffer` from `position`; returns how many bytes were there (fewer only at the end).
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, DiskError>;
    fn truncate(&self, len_bytes: u64) -> Result<(), DiskError>;
    /// Makes what was written before this call durable (fdatasync).
    fn sync(&self) -> Result<(), DiskError>;
}
