//! A memory disk whose syncs are counted and can be held up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use base::disk::memory::MemDisk;
use base::disk::{DirEntry, Disk, DiskError, DiskFile};

/// Clones share their content and gate.
#[derive(Clone, Debug)]
pub struct SlowDisk {
    pub inner: MemDisk,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
    file_syncs: AtomicUsize,
}

impl SlowDisk {
    pub fn new(inner: MemDisk) -> Self {
        Self { inner, gate: Arc::default() }
    }

    /// From now on syncs wait for [`SlowDisk::open_gate`].
    pub fn close_gate(&self) {
        *self.gate.closed.lock().unwrap() = true;
    }

    pub fn open_gate(&self) {
        *self.gate.closed.lock().unwrap() = false;
        self.gate.opened.notify_all();
    }

    /// Syncs of files so far.
    pub fn file_syncs(&self) -> usize {
        self.gate.file_syncs.load(Ordering::Relaxed)
    }

    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(SlowFile { inner: file, gate: Arc::clone(&self.gate) })
    }
}

impl Disk for SlowDisk {
    fn create(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.inner.create(path).map(|file| self.wrap(file))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.inner.open(path).map(|file| self.wrap(file))
    }

    fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError> {
        self.inner.list(dir)
    }

    fn create_dir_all(&self, dir: &str) -> Result<(), DiskError> {
        self.inner.create_dir_all(dir)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &str) -> Result<(), DiskError> {
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, dir: &str) -> Result<(), DiskError> {
        self.inner.remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.inner.sync_dir(dir)
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.inner.free_bytes()
    }
}

#[derive(Debug)]
struct SlowFile {
    inner: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl DiskFile for SlowFile {
    fn len_bytes(&self) -> u64 {
        self.inner.len_bytes()
    }

    fn append(&self, parts: &[&[u8]]) -> Result<u64, DiskError> {
        self.inner.append(parts)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.inner.write_at(position, bytes)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.inner.read_at(position, buffer)
    }

    fn truncate(&self, len_bytes: u64) -> Result<(), DiskError> {
        self.inner.truncate(len_bytes)
    }

    fn sync(&self) -> Result<(), DiskError> {
        let closed = self.gate.closed.lock().unwrap();
        drop(self.gate.opened.wait_while(closed, |closed| *closed).unwrap());
        self.gate.file_syncs.fetch_add(1, Ordering::Relaxed);
        self.inner.sync()
    }
}
