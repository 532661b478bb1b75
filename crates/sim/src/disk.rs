//! A disk that says yes to every sync and does nothing: what the checkers must be able to catch.

use std::sync::Arc;

use base::disk::memory::MemDisk;
use base::disk::{DirEntry, Disk, DiskError, DiskFile};

/// See the module.
#[derive(Clone, Debug)]
pub struct Lying(pub MemDisk);

#[derive(Debug)]
struct LyingFile(Arc<dyn DiskFile>);

fn lying(file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
    Arc::new(LyingFile(file))
}

impl Disk for Lying {
    fn create(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.0.create(path).map(lying)
    }

    fn open(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.0.open(path).map(lying)
    }

    fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError> {
        self.0.list(dir)
    }

    fn create_dir_all(&self, dir: &str) -> Result<(), DiskError> {
        self.0.create_dir_all(dir)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &str) -> Result<(), DiskError> {
        self.0.remove_file(path)
    }

    fn remove_dir_all(&self, dir: &str) -> Result<(), DiskError> {
        self.0.remove_dir_all(dir)
    }

    /// Names are kept: only bytes are lied about, as a disk's cache does.
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.0.sync_dir(dir)
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.0.free_bytes()
    }
}

impl DiskFile for LyingFile {
    fn len_bytes(&self) -> u64 {
        self.0.len_bytes()
    }

    fn append(&self, parts: &[&[u8]]) -> Result<u64, DiskError> {
        self.0.append(parts)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.0.write_at(position, bytes)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.0.read_at(position, buffer)
    }

    fn truncate(&self, len_bytes: u64) -> Result<(), DiskError> {
        self.0.truncate(len_bytes)
    }

    fn sync(&self) -> Result<(), DiskError> {
        Ok(())
    }
}
