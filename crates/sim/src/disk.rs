//! A disk that says yes to syncs and does nothing: what the checkers must be able to catch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base::disk::memory::MemDisk;
use base::disk::{DirEntry, Disk, DiskError, DiskFile};

/// See the module.
#[derive(Clone, Debug)]
pub struct Lying {
    pub disk: MemDisk,
    /// The first syncs of a file that was made are done.
    pub honest_syncs: u32,
}

#[derive(Debug)]
struct LyingFile {
    file: Arc<dyn DiskFile>,
    honest_left: AtomicU32,
}

fn lying(file: Arc<dyn DiskFile>, honest_left: u32) -> Arc<dyn DiskFile> {
    Arc::new(LyingFile { file, honest_left: AtomicU32::new(honest_left) })
}

impl Disk for Lying {
    fn create(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.disk.create(path).map(|file| lying(file, self.honest_syncs))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.disk.open(path).map(|file| lying(file, 0))
    }

    fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError> {
        self.disk.list(dir)
    }

    fn create_dir_all(&self, dir: &str) -> Result<(), DiskError> {
        self.disk.create_dir_all(dir)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &str) -> Result<(), DiskError> {
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, dir: &str) -> Result<(), DiskError> {
        self.disk.remove_dir_all(dir)
    }

    /// Names are kept: only bytes are lied about, as a disk's cache does.
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.disk.free_bytes()
    }
}

impl DiskFile for LyingFile {
    fn len_bytes(&self) -> u64 {
        self.file.len_bytes()
    }

    fn append(&self, parts: &[&[u8]]) -> Result<u64, DiskError> {
        self.file.append(parts)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_at(position, bytes)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.file.read_at(position, buffer)
    }

    fn truncate(&self, len_bytes: u64) -> Result<(), DiskError> {
        self.file.truncate(len_bytes)
    }

    fn sync(&self) -> Result<(), DiskError> {
        let left = self.honest_left.load(Ordering::Relaxed);
        self.honest_left.store(left.saturating_sub(1), Ordering::Relaxed);
        if left > 0 { self.file.sync() } else { Ok(()) }
    }
}
