//! A disk that is only looked at: reads are real, and whatever would change something is answered as done and is not.
//!
//! What a room repairs when it opens (a torn tail that it cuts) stays as it was found; what it reads after that is what it
//! had read before. Creating files is refused: nothing that is merely looked at needs new ones.

use std::sync::Arc;

use base::disk::{DirEntry, Disk, DiskError, DiskFile};

#[derive(Debug)]
pub struct LookingDisk(pub Arc<dyn Disk>);

#[derive(Debug)]
struct LookingFile(Arc<dyn DiskFile>);

impl Disk for LookingDisk {
    fn create(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        Err(DiskError::Io { path: path.to_owned(), cause: "it is missing, and the folder is only looked at".into() })
    }

    fn open(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        Ok(Arc::new(LookingFile(self.0.open(path)?)))
    }

    fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError> {
        self.0.list(dir)
    }

    fn create_dir_all(&self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn rename(&self, _: &str, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn remove_file(&self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn remove_dir_all(&self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync_dir(&self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.0.free_bytes()
    }
}

impl DiskFile for LookingFile {
    fn len_bytes(&self) -> u64 {
        self.0.len_bytes()
    }

    fn append(&self, _: &[&[u8]]) -> Result<u64, DiskError> {
        Ok(self.0.len_bytes())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<(), DiskError> {
        Ok(())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.0.read_at(position, buffer)
    }

    fn truncate(&self, _: u64) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        Ok(())
    }
}
