//! Why a node refused. The variant says what an edge may tell its client to do.

use base::disk::DiskError;

#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum NodeError {
    #[error("topic {0} does not exist: create it, or turn log.auto_create_topics on")]
    UnknownTopic(String),
    #[error("partition {0} is not on this node")]
    UnknownPartition(String),
    #[error("table {0} does not exist")]
    UnknownTable(String),
    #[error(transparent)]
    Refused(#[from] control::Refused),
    #[error(transparent)]
    Append(#[from] log::AppendError),
    /// The outcome is unknown: retry.
    #[error("{what} was not done within {waited_ms} ms; it may still happen: retry")]
    Timeout { what: &'static str, waited_ms: u64 },
    /// A queue is full: retry later.
    #[error("{what} is full ({bound}): retry")]
    Busy { what: &'static str, bound: String },
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the node is stopping")]
    Stopping,
    #[error("{0}")]
    Internal(String),
}
