//! Who this data folder belongs to: one process at a time, one node for ever.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use base::{DiskId, NodeId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const LOCK: &str = "lock";
const IDENTITY: &str = "node.json";

/// Why the folder cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{0} is in use by another process; stop that one or choose another node.data_dir")]
    InUse(PathBuf),
    #[error(
        "{path} belongs to node {found}, but this is configured as node {configured}: correct node.id or node.data_dir"
    )]
    OtherNode { path: PathBuf, found: NodeId, configured: NodeId },
    #[error("{path} is damaged: {cause}; restore it from a copy of the folder")]
    Damaged { path: PathBuf, cause: String },
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
}

/// What is written into a new data folder.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Identity {
    pub node: NodeId,
    pub disk: DiskId,
    /// Of the folder's layout.
    pub layout: u32,
}

const LAYOUT: u32 = 1;

/// The folder, held until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    pub path: PathBuf,
    pub identity: Identity,
    _lock: File,
}

/// A folder that no other process holds, and whose it is so far.
#[derive(Debug)]
pub struct Held {
    pub path: PathBuf,
    /// `None`: no node's yet.
    pub identity: Option<Identity>,
    lock: File,
}

/// Takes the folder for this process; writes its identity if it is new, compares it if it is not.
pub fn claim(path: &Path, node: NodeId) -> Result<DataDir, IdentityError> {
    hold(path)?.claim(node)
}

/// Takes the folder for this process, whoever's it is.
pub fn hold(path: &Path) -> Result<Held, IdentityError> {
    fs::create_dir_all(path).map_err(io(path))?;
    let lock_path = path.join(LOCK);
    let lock = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(io(&lock_path))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| IdentityError::InUse(path.to_owned()))?;
    let file = path.join(IDENTITY);
    let identity = match fs::read(&file) {
        Ok(bytes) => {
            let identity = serde_json::from_slice::<Identity>(&bytes);
            Some(identity.map_err(|error| IdentityError::Damaged { path: file.clone(), cause: error.to_string() })?)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(io(&file)(error)),
    };
    if let Some(identity) = identity.filter(|identity| identity.layout != LAYOUT) {
        let cause = format!("its layout is {}, this build knows {LAYOUT}", identity.layout);
        return Err(IdentityError::Damaged { path: file, cause });
    }
    Ok(Held { path: path.to_owned(), identity, lock })
}

impl Held {
    /// Makes it the node's, if it is nobody else's.
    pub fn claim(self, node: NodeId) -> Result<DataDir, IdentityError> {
        let Self { path, identity, lock } = self;
        let identity = match identity {
            Some(identity) if identity.node != node => {
                return Err(IdentityError::OtherNode { path, found: identity.node, configured: node });
            }
            Some(identity) => identity,
            None => {
                let identity = Identity { node, disk: DiskId(Uuid::new_v4()), layout: LAYOUT };
                let file = path.join(IDENTITY);
                write_durably(&file, &identity).map_err(io(&file))?;
                identity
            }
        };
        Ok(DataDir { path, identity, _lock: lock })
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> IdentityError {
    let path = path.to_owned();
    move |error| IdentityError::Io(path, error)
}

/// Sets the control data and the identity of a stopped node aside, so that it starts without a cluster, as another disk: the
/// old cluster will not take it for the voter it was. Nothing is deleted. Returns the folder they are in.
///
/// # Errors
/// The node runs, there is nothing to set aside, or the folder cannot be changed.
pub fn set_control_aside(path: &Path) -> Result<PathBuf, String> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    if !path.join(IDENTITY).exists() {
        return Err(format!("{} is no node's data folder: there is no {IDENTITY} in it", path.display()));
    }
    let lock = File::options().create(true).truncate(false).write(true).open(path.join(LOCK)).map_err(told)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| format!("{}: the node runs; stop every node of the cluster first", path.display()))?;
    let aside = path.join(format!("control-aside-{}", Uuid::new_v4()));
    fs::create_dir(&aside).map_err(told)?;
    // The identity goes first: from then on this is another disk, whatever else is left.
    for name in [IDENTITY, "control", "hard-state"] {
        match fs::rename(path.join(name), aside.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(told(error)),
            _ => {}
        }
    }
    File::open(path).and_then(|folder| folder.sync_all()).map_err(told)?;
    Ok(aside)
}

fn write_durably(path: &Path, identity: &Identity) -> std::io::Result<()> {
    let unfinished = path.with_extension("part");
    let mut file = File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec_pretty(identity)?)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
