//! What can go wrong; each variant says what the caller may do next.

use base::disk::DiskError;
use base::{LogIndex, NodeId};

use crate::members::MembersError;

/// Why a storage did not give what was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StorageError {
    /// Below the first index; a snapshot has it. Normal.
    #[error("the log no longer has this index; the snapshot does")]
    Compacted,
    /// Not there, or not now. Ask again later.
    #[error("the log does not have this index")]
    Unavailable,
    /// The bytes are wrong, and their owner mends them: they are not sent meanwhile. Where they are needed at once,
    /// as `Corrupt`.
    #[error("the log is damaged and being mended: {0}")]
    Mending(String),
    /// The bytes are wrong. The group stops: repair it from its peers or a backup.
    #[error("the log is damaged: {0}")]
    Corrupt(String),
}

/// Why a proposal was not taken. Nothing was proposed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Propose to `leader`, or wait for one.
    #[error("{}", not_leader(*leader))]
    NotLeader { leader: Option<NodeId> },
    /// Too much is waiting to be committed. Try again when some of it is.
    #[error("{uncommitted_bytes} bytes wait to be committed already; propose again when some are")]
    Busy { uncommitted_bytes: usize },
    /// The storage failed; the group stands still until it is opened again.
    #[error("the group stopped: {0}")]
    Stopped(StorageError),
}

/// Why a change of the members was not taken. Nothing was proposed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MembershipError {
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// Propose again when the change before is through: when the members are no longer joint.
    #[error("another change of the members is under way; try again when it is through")]
    Pending,
    /// Never possible. Correct it.
    #[error("these members make no sense: {0}")]
    Invalid(#[from] MembersError),
}

/// Why leadership was not handed over.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TransferError {
    /// Ask `leader`, or wait for one.
    #[error("{}", not_leader(*leader))]
    NotLeader { leader: Option<NodeId> },
    /// Name a voter.
    #[error("node {node} has no vote in this group")]
    NotVoter { node: NodeId },
    /// The storage failed; the group stands still until it is opened again.
    #[error("the group stopped: {0}")]
    Stopped(StorageError),
}

/// Why bytes are no message. The sender is broken or speaks a later version: cut it off.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("a message of format version {version}; this program reads {readable}")]
    Version { version: u8, readable: u8 },
    #[error("a message of {bytes} bytes; at most {bytes_max} are allowed")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("a message makes no sense: {0}")]
    Malformed(&'static str),
}

fn not_leader(leader: Option<NodeId>) -> String {
    match leader {
        Some(node) => format!("node {node} leads this group; propose there"),
        None => "this group has no leader now; try again after an election".to_owned(),
    }
}

/// Why a group could not be opened or a message was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuorumError {
    /// The configuration is wrong. Correct it.
    #[error("group configuration: {0}")]
    Config(String),
    /// The storage contradicts itself. Do not run this group on it.
    #[error("the stored group contradicts itself: {0}")]
    Inconsistent(String),
    /// The storage failed; the group stands still until it is opened again.
    #[error("the group stopped: {0}")]
    Stopped(StorageError),
    /// The message makes no sense here. It was dropped and changed nothing.
    #[error("message from node {from} dropped: {what}")]
    BadMessage { from: NodeId, what: String },
    /// The log ends below what the leader knows to be committed here: this disk lost what it had
    /// acknowledged. Do not vote with it; join again as a new replica.
    #[error("node {from} says {commit} is committed here but the log ends at {last}: this disk has lost entries")]
    LostEntries { from: NodeId, commit: LogIndex, last: LogIndex },
}

/// Why a journal refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refused. After [`DiskError::Full`] nothing was written: try again when there is room. After
    /// any other the journal is stopped; open it again.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Bytes that were durable have changed. Nothing was touched: restore the file or repair from a peer.
    #[error("{path}: damaged at byte {position}: {what}; restore it from a backup or another replica")]
    Damaged { path: String, position: u64, what: String },
    /// Written by a later version. Start that version.
    #[error("{path}: format version {version}, this program reads up to {readable}; start a newer one")]
    Version { path: String, version: u32, readable: u32 },
    /// One entry or snapshot is larger than the format allows. Refuse it.
    #[error("{bytes} bytes do not fit into one frame of at most {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
    /// An earlier error left the file's content unknown. Open the journal again.
    #[error("stopped after an earlier error: {0}")]
    Stopped(DiskError),
}
