//! What can go wrong, by what the caller may do next.

use base::batch::BatchError;
use base::disk::DiskError;
use base::{NodeId, Offset, ProducerEpoch, ProducerId};

/// Why an append was refused. Nothing of it was kept, unless the variant says so.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// The bytes are no valid batch. Do not send them again.
    #[error("invalid record batch: {0}")]
    Invalid(#[from] BatchError),
    /// A valid batch that asks for something this log does not do. Do not send it again.
    #[error("record batch refused: {0}")]
    Unsupported(&'static str),
    #[error("batch of {bytes} bytes is larger than the {bytes_max} bytes this topic allows (max.message.bytes)")]
    TooLarge { bytes: usize, bytes_max: usize },
    /// A batch before this one is missing.
    #[error("producer {producer} sent sequence {found}, expected {expected}: a batch before it is missing")]
    OutOfOrderSequence { producer: ProducerId, expected: i32, found: i32 },
    /// A newer incarnation of the producer has written.
    #[error("producer {producer} with epoch {found} was fenced by epoch {current}")]
    FencedEpoch { producer: ProducerId, current: ProducerEpoch, found: ProducerEpoch },
    /// The first batch of a transaction here, and it is not known whether the transaction runs: ask the coordinator
    /// ([`crate::Partition::verify_begin`]), then append again.
    #[error("producer {producer} with epoch {epoch} has no transaction that is known to run here")]
    NotVerified { producer: ProducerId, epoch: ProducerEpoch },
    /// The batch does not fit the producer's transaction. Do not send it again.
    #[error("record batch refused: {0}")]
    InvalidTransaction(&'static str),
    /// Try again when some have ended.
    #[error("{open} transactions are open in this partition: try again")]
    TooManyTransactions { open: usize },
    /// A marker of a coordinator that was replaced. Do not send it again.
    #[error("coordinator epoch {found} for producer {producer} was fenced by {current}")]
    FencedCoordinator { producer: ProducerId, current: i32, found: i32 },
    /// Ask `leader`, if known, or again after refreshing the metadata.
    #[error("this node does not lead the partition")]
    NotLeader { leader: Option<NodeId> },
    /// Too much waits for the disk or the followers. Try again.
    #[error("{uncommitted_bytes} bytes wait to become durable: try again")]
    Busy { uncommitted_bytes: u64 },
    /// No room. Try again when there is; reads go on.
    #[error("the disk is full")]
    DiskFull,
    /// The partition takes no more writes until the node is restarted. It may have been written.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A partition that takes no more writes; reads go on. The reason is made for a finding.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the partition stopped taking writes: {reason}")]
pub struct Stopped {
    pub reason: String,
}

/// Why a message was dropped. Nothing changed; the sender sends again what matters.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StepError {
    /// The leader's entries wait for room on this disk, or for a truncation that is under way.
    #[error("the replica waits for its disk")]
    Stalled,
    #[error(transparent)]
    Refused(#[from] quorum::QuorumError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a partition could not be opened. Its files are as they were.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// What was durable is damaged. Never repaired by cutting: restore the file or refetch it from a peer.
    #[error(
        "{path}: byte {position}: {reason}; this data was durable, so it is not cut off: \
         restore the file from a copy, or move the partition's folder aside to go on without it"
    )]
    Corrupt { path: String, position: u64, reason: String },
    /// The group has voted or written before, but its files are gone.
    #[error("{dir}: the partition's log is missing: is the right disk mounted? restore the folder from a copy")]
    Missing { dir: String },
    #[error("the group's hard state or log is not usable: {0}")]
    Group(String),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a read gave nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    #[error("offset {offset} is out of range: the log holds {start} to {end}")]
    OutOfRange { offset: Offset, start: Offset, end: Offset },
    /// The bytes on disk are not what was written.
    #[error("{path}: byte {position}: {reason}")]
    Corrupt { path: String, position: u64, reason: String },
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why records were not deleted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeleteError {
    #[error("offset {offset} is out of range: the log holds {start} to {end}")]
    OutOfRange { offset: Offset, start: Offset, end: Offset },
    /// A table still has to read from `floor`.
    #[error("records from offset {floor} on are not yet in every table that reads the topic: try again later")]
    Held { floor: Offset },
    /// With other replicas it takes an entry in their log.
    #[error(transparent)]
    Append(AppendError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}
