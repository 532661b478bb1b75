//! The machine's disk behind [`base::disk::Disk`]: one folder, plain files, pwrite, pread, fdatasync.
//!
//! Names are made durable by fsync of their folder, data by fdatasync of its file. ENOSPC and EDQUOT become
//! [`DiskError::Full`]; a failed fdatasync becomes [`DiskError::Sync`], after which the kernel may have dropped
//! the dirty pages: whoever sees it stops writing. A path that could lead out of the folder is refused.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use base::disk::{DirEntry, Disk, DiskError, DiskFile};
use rustix::io::Errno;

#[cfg(test)]
mod tests;

/// Parts that one system call takes; further ones are written by calls of their own.
const PARTS_MAX: usize = 16;

/// A folder of this machine.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// Uses `root`, made if it is absent.
    pub fn open(root: &Path) -> Result<Self, DiskError> {
        fs::create_dir_all(root).map_err(|error| fault(&root.display().to_string(), &error))?;
        Ok(Self { root: root.to_owned() })
    }

    /// The path of a name. An empty one is the folder itself.
    fn at(&self, path: &str) -> Result<PathBuf, DiskError> {
        let plain = |component| matches!(component, Component::Normal(_));
        let whole = path.is_empty() || path.split('/').all(|name| !matches!(name, "" | "." | ".."));
        if whole && Path::new(path).components().all(plain) {
            return Ok(self.root.join(path));
        }
        Err(DiskError::Io { path: path.to_owned(), cause: "not a relative path without . and ..".to_owned() })
    }

    fn file(&self, path: &str, options: &OpenOptions) -> Result<Arc<dyn DiskFile>, DiskError> {
        let file = options.open(self.at(path)?).map_err(|error| fault(path, &error))?;
        Ok(Arc::new(RealFile { file, path: path.to_owned() }))
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.file(path, OpenOptions::new().read(true).write(true).create_new(true))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.file(path, OpenOptions::new().read(true).write(true))
    }

    fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError> {
        let folder = self.at(dir)?;
        let read = || -> io::Result<Vec<DirEntry>> {
            let mut entries = Vec::new();
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let metadata = match entry.metadata() {
                    // Removed by another thread while we looked.
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    other => other?,
                };
                let is_dir = metadata.is_dir();
                let name = entry.file_name().to_string_lossy().into_owned();
                entries.push(DirEntry { name, is_dir, len_bytes: if is_dir { 0 } else { metadata.len() } });
            }
            entries.sort();
            Ok(entries)
        };
        read().map_err(|error| fault(dir, &error))
    }

    fn create_dir_all(&self, dir: &str) -> Result<(), DiskError> {
        fs::create_dir_all(self.at(dir)?).map_err(|error| fault(dir, &error))?;
        let mut path = Path::new(dir);
        while let Some(parent) = path.parent() {
            self.sync_dir(&parent.to_string_lossy())?;
            path = parent;
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        fs::rename(self.at(from)?, self.at(to)?).map_err(|error| fault(from, &error))
    }

    fn remove_file(&self, path: &str) -> Result<(), DiskError> {
        fs::remove_file(self.at(path)?).map_err(|error| fault(path, &error))
    }

    fn remove_dir_all(&self, dir: &str) -> Result<(), DiskError> {
        match fs::remove_dir_all(self.at(dir)?) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| fault(dir, &error)),
        }
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        let folder = File::open(self.at(dir)?).map_err(|error| fault(dir, &error))?;
        folder.sync_all().map_err(|error| DiskError::Sync { path: dir.to_owned(), cause: error.to_string() })
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        let stat =
            rustix::fs::statvfs(&self.root).map_err(|errno| fault(&self.root.display().to_string(), &errno.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    path: String,
}

impl DiskFile for RealFile {
    fn len_bytes(&self) -> u64 {
        // The file's, not this handle's: another one may have written. A failing fstat of an open file is
        // the kernel's end; no length is better than a wrong one.
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    fn append(&self, parts: &[&[u8]]) -> Result<u64, DiskError> {
        let start = self.file.metadata().map_err(|error| fault(&self.path, &error))?.len();
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let slices: Vec<IoSlice<'_>> = parts.iter().take(PARTS_MAX).map(|part| IoSlice::new(part)).collect();
        let written = rustix::io::retry_on_intr(|| rustix::io::pwritev(&self.file, &slices, start));
        let written = written.map_err(|errno| fault(&self.path, &errno.into()))?;
        if written < total {
            let mut position = start + written as u64;
            let mut skip = written;
            for part in parts {
                let rest = &part[skip.min(part.len())..];
                skip = skip.saturating_sub(part.len());
                self.file.write_all_at(rest, position).map_err(|error| fault(&self.path, &error))?;
                position += rest.len() as u64;
            }
        }
        Ok(start)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_all_at(bytes, position).map_err(|error| fault(&self.path, &error))
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(fault(&self.path, &error)),
            }
        }
        Ok(filled)
    }

    fn truncate(&self, len_bytes: u64) -> Result<(), DiskError> {
        self.file.set_len(len_bytes).map_err(|error| fault(&self.path, &error))
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(|error| DiskError::Sync { path: self.path.clone(), cause: error.to_string() })
    }
}

fn fault(path: &str, error: &io::Error) -> DiskError {
    let path = path.to_owned();
    match error.kind() {
        ErrorKind::NotFound => DiskError::NotFound { path },
        ErrorKind::AlreadyExists => DiskError::AlreadyExists { path },
        _ => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => DiskError::Full { path },
            _ => DiskError::Io { path, cause: error.to_string() },
        },
    }
}
