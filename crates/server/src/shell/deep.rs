//! Deep storage: where sealed segments live for good. A folder now; `object_store` keeps the door open.
//!
//! A put is answered only when the bytes would survive a power loss: for a folder that means fsync of the file
//! and of every folder on its way, which `object_store` leaves to its caller.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

/// Longest wait for one object.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why deep storage did not do it. Retry: nothing else depends on the outcome.
#[derive(Debug, thiserror::Error)]
pub enum DeepError {
    #[error("deep storage: {0}")]
    Store(#[from] object_store::Error),
    #[error("deep storage: {0} cannot be made durable: {1}")]
    Sync(String, std::io::Error),
    #[error("deep storage did not answer within {} s", PATIENCE.as_secs())]
    Timeout,
}

#[derive(Clone, Debug)]
pub struct DeepStorage {
    store: Arc<dyn ObjectStore>,
    folder: PathBuf,
}

impl DeepStorage {
    /// Uses `folder`, made if it is absent.
    pub fn folder(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(std::io::Error::other)?;
        Ok(Self { store: Arc::new(store), folder: folder.canonicalize()? })
    }

    /// Stores an object; answers when it is durable.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), DeepError> {
        let put = async { self.store.put(&Key::from(key), PutPayload::from_bytes(bytes)).await };
        tokio::time::timeout(PATIENCE, put).await.map_err(|_| DeepError::Timeout)??;
        let folder = self.folder.clone();
        let path = folder.join(key);
        let synced = tokio::task::spawn_blocking(move || sync_up_to(&path, &folder)).await;
        let synced = synced.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        synced.map_err(|error| DeepError::Sync(key.to_owned(), error))
    }

    pub async fn get(&self, key: &str) -> Result<Bytes, DeepError> {
        let get = async { self.store.get(&Key::from(key)).await?.bytes().await };
        Ok(tokio::time::timeout(PATIENCE, get).await.map_err(|_| DeepError::Timeout)??)
    }

    pub async fn delete(&self, key: &str) -> Result<(), DeepError> {
        let delete = async { self.store.delete(&Key::from(key)).await };
        match tokio::time::timeout(PATIENCE, delete).await.map_err(|_| DeepError::Timeout)? {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            other => Ok(other?),
        }
    }
}

/// fsync of the file and of each folder from its own up to `root`.
fn sync_up_to(path: &Path, root: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()?;
    let mut folder = path.parent();
    while let Some(at) = folder {
        std::fs::File::open(at)?.sync_all()?;
        if at == root {
            break;
        }
        folder = at.parent();
    }
    Ok(())
}
