//! The folder with a node's certificate, and the cluster's own authority.
//!
//! ```text
//! security/
//!   cluster.json   the cluster's id
//!   ca.pem         authorities whose certificates are trusted
//!   node.pem       this node's certificate, signed by one of them
//!   node.key       its key, which never leaves this folder
//!   ca.key         only where the authority is: `cluster init` was run here
//!   tokens.json    only there: tokens given out (their digests) and node ids that have joined
//! ```
//!
//! What always holds: every file comes into being whole; keys are readable by their owner only; a token is kept as a
//! digest. Certificates that were replaced are in use for new connections within [`RELOAD_EVERY`].

mod authority;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base::{ClusterId, NodeId, Timestamp};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::peers::join::{self, Authority, FINGERPRINT_BYTES, JoinRequest, Joined, SECRET_BYTES};
use super::peers::tls::{Credentials, Tls};
use super::peers::{HandshakeError, Security};

pub use authority::{CertificateAuthority, TOKEN_VALID};

/// How often the files are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// Largest file that is read here.
const FILE_BYTES_MAX: u64 = 1 << 20;

const CLUSTER: &str = "cluster.json";
const ROOTS: &str = "ca.pem";
const CERTIFICATE: &str = "node.pem";
const KEY: &str = "node.key";

/// Why certificates cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("{path}: {cause}")]
    Damaged { path: PathBuf, cause: String },
    #[error("{0} holds a node's certificate already: choose another folder, or remove it to begin anew")]
    Exists(PathBuf),
    #[error("{0} holds no authority: run `seawall cluster init` there, or go to the node where it was run")]
    NoAuthority(PathBuf),
    #[error("this is not a join token: it begins with `{TOKEN_PREFIX}` and has {TOKEN_CHARS} characters")]
    Token,
    #[error("{address}: {cause}; is listen.peer of the first node this address, and the node running?")]
    Unreachable { address: String, cause: String },
    #[error("{0}")]
    Refused(String),
    #[error("making a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// What lets a node join: the secret, and how to know the authority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    pub secret: [u8; SECRET_BYTES],
    pub authority: [u8; FINGERPRINT_BYTES],
}

const TOKEN_PREFIX: &str = "seawall-";
const TOKEN_CHARS: usize = TOKEN_PREFIX.len() + 2 * (SECRET_BYTES + FINGERPRINT_BYTES);

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{TOKEN_PREFIX}{}{}", hex(&self.secret), hex(&self.authority))
    }
}

impl std::str::FromStr for Token {
    type Err = SecurityError;

    fn from_str(text: &str) -> Result<Self, SecurityError> {
        let digits = text.trim().strip_prefix(TOKEN_PREFIX).ok_or(SecurityError::Token)?;
        let bytes = unhex(digits).ok_or(SecurityError::Token)?;
        let (secret, authority) = bytes.split_at_checked(SECRET_BYTES).ok_or(SecurityError::Token)?;
        let secret = secret.try_into().map_err(|_| SecurityError::Token)?;
        Ok(Self { secret, authority: authority.try_into().map_err(|_| SecurityError::Token)? })
    }
}

#[derive(Serialize, Deserialize)]
struct ClusterFile {
    cluster: ClusterId,
}

/// The folder within a node's data folder.
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("security")
}

/// Whether the folder holds a node's certificate.
pub fn exists(dir: &Path) -> bool {
    dir.join(CERTIFICATE).exists()
}

/// The cluster that the folder's certificate is of.
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn cluster(dir: &Path) -> Result<ClusterId, SecurityError> {
    let path = dir.join(CLUSTER);
    serde_json::from_slice::<ClusterFile>(&read(&path)?)
        .map(|file| file.cluster)
        .map_err(|error| SecurityError::Damaged { path, cause: error.to_string() })
}

/// How the links of `node` are protected: by what is in the folder, if there is something. Follows the files as they
/// are replaced. Must be called within a tokio runtime.
///
/// # Errors
/// If what is there now cannot be used, or is another node's.
pub fn of(dir: &Path, node: NodeId, clock: fn() -> Timestamp) -> Result<Security, SecurityError> {
    if !exists(dir) {
        return Ok(Security::Plain);
    }
    let authority = CertificateAuthority::open(dir, clock)?.map(|authority| Arc::new(authority) as Arc<dyn Authority>);
    Ok(Security::Tls { tls: follow(dir, node)?, authority })
}

/// Later, what was good is kept and the log says what is wrong.
fn follow(dir: &Path, node: NodeId) -> Result<watch::Receiver<Arc<Tls>>, SecurityError> {
    let mut before = times(dir);
    let (sender, receiver) = watch::channel(Arc::new(load(dir, node)?));
    let dir = dir.to_owned();
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(RELOAD_EVERY);
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                () = sender.closed() => return,
            }
            let now = times(&dir);
            if now == before {
                continue;
            }
            before = now;
            match load(&dir, node) {
                Ok(tls) => {
                    tracing::info!(folder = %dir.display(), "certificates were replaced");
                    sender.send_replace(Arc::new(tls));
                }
                Err(error) => tracing::warn!(%error, "the new certificates cannot be used; the old ones are kept"),
            }
        }
    });
    Ok(receiver)
}

fn times(dir: &Path) -> [Option<SystemTime>; 3] {
    [ROOTS, CERTIFICATE, KEY].map(|name| fs::metadata(dir.join(name)).ok()?.modified().ok())
}

fn load(dir: &Path, node: NodeId) -> Result<Tls, SecurityError> {
    let damaged = |name: &str, cause: String| SecurityError::Damaged { path: dir.join(name), cause };
    let roots = read(&dir.join(ROOTS))?;
    let roots: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&roots).collect();
    let certificate = CertificateDer::from_pem_slice(&read(&dir.join(CERTIFICATE))?);
    let key = PrivateKeyDer::from_pem_slice(&read(&dir.join(KEY))?);
    let credentials = Credentials {
        cluster: cluster(dir)?,
        roots: roots.map_err(|error| damaged(ROOTS, error.to_string()))?,
        certificate: certificate.map_err(|error| damaged(CERTIFICATE, error.to_string()))?,
        key: key.map_err(|error| damaged(KEY, error.to_string()))?,
    };
    let certificate = credentials.certificate.clone();
    let tls = Tls::new(credentials).map_err(|error| damaged(CERTIFICATE, error.to_string()))?;
    if tls.check(Some(&certificate), node).is_err() {
        return Err(damaged(CERTIFICATE, format!("it is not the certificate of node {node}: correct node.id")));
    }
    Ok(tls)
}

/// Joins a cluster: asks the node at `address` for a certificate as `node` and writes the folder.
///
/// # Errors
/// If there is a certificate already, or none was to be had.
pub async fn join(dir: &Path, address: &str, token: &Token, node: NodeId) -> Result<ClusterId, SecurityError> {
    if exists(dir) {
        return Err(SecurityError::Exists(dir.to_owned()));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let public_key = key.der_bytes().try_into().map_err(|_| SecurityError::Refused("an unusual key".into()))?;
    let request = JoinRequest { secret: token.secret, node, public_key };
    let joined = join::join(address, token.authority, request).await.map_err(|error| match error {
        HandshakeError::Refused(refusal) => SecurityError::Refused(format!("{address}: {refusal}")),
        other => SecurityError::Unreachable { address: address.to_owned(), cause: other.to_string() },
    })?;
    write_node(dir, &joined, &key)?;
    Ok(joined.cluster)
}

/// Writes what a node needs; the certificate last, as it says that the folder is whole.
fn write_node(dir: &Path, joined: &Joined, key: &KeyPair) -> Result<(), SecurityError> {
    fs::create_dir_all(dir).map_err(|error| SecurityError::Io(dir.to_owned(), error))?;
    let cluster = serde_json::to_vec_pretty(&ClusterFile { cluster: joined.cluster }).unwrap_or_default();
    write(&dir.join(CLUSTER), &cluster)?;
    write(&dir.join(ROOTS), authority::pem(&joined.authority).as_bytes())?;
    write(&dir.join(KEY), key.serialize_pem().as_bytes())?;
    write(&dir.join(CERTIFICATE), authority::pem(&joined.certificate).as_bytes())
}

/// Replaces a file whole. Only its owner can read it.
fn write(path: &Path, bytes: &[u8]) -> Result<(), SecurityError> {
    let unfinished = path.with_extension("part");
    let writing = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    writing().map_err(|error| SecurityError::Io(path.to_owned(), error))
}

fn read(path: &Path) -> Result<Vec<u8>, SecurityError> {
    let io = |error| SecurityError::Io(path.to_owned(), error);
    let bytes = fs::metadata(path).map_err(io)?.len();
    if bytes > FILE_BYTES_MAX {
        let cause = format!("its {bytes} bytes are more than the {FILE_BYTES_MAX} allowed");
        return Err(SecurityError::Damaged { path: path.to_owned(), cause });
    }
    fs::read(path).map_err(io)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}
