//! Why a node refused. The variant says what an edge may tell its client to do.

use base::disk::DiskError;

use crate::shell::logs::LogsError;
use crate::shell::meta::MetaError;

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
    Propose(quorum::ProposeError),
    #[error("metadata cannot be changed now: {0}")]
    ControlStopped(String),
    /// No majority, or an election: nothing was changed. Retry.
    #[error("{0}")]
    NoLeader(String),
    /// Too few replicas can be reached: nothing was written. Retry.
    #[error("{0}")]
    NotEnoughReplicas(String),
    /// Written and committed, and not copied as often as asked: retry.
    #[error(
        "partition {partition}: {have} replicas have the write and min.insync.replicas is {wanted}; it stays: retry"
    )]
    TooFewCopies { partition: String, have: usize, wanted: usize },
    #[error(transparent)]
    Append(#[from] log::AppendError),
    #[error(transparent)]
    Delete(#[from] log::DeleteError),
    /// A partition that could not be opened.
    #[error("partition {partition} is not served: {reason}")]
    Broken { partition: String, reason: String },
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

impl From<MetaError> for NodeError {
    fn from(error: MetaError) -> Self {
        match error {
            MetaError::Refused(refused) => Self::Refused(refused),
            MetaError::Propose(error) => Self::Propose(error),
            MetaError::Members(_) => Self::Invalid(error.to_string()),
            MetaError::TooLarge { .. } => Self::Invalid(error.to_string()),
            MetaError::DiskFull => Self::ControlStopped(error.to_string()),
            MetaError::Stopped(cause) => Self::ControlStopped(cause),
            MetaError::NoLeader { .. } => Self::NoLeader(error.to_string()),
            MetaError::Timeout { waited_ms } => Self::Timeout { what: "the change of the metadata", waited_ms },
        }
    }
}

impl From<LogsError> for NodeError {
    fn from(error: LogsError) -> Self {
        match error {
            LogsError::Append(error) => Self::Append(error),
            LogsError::Delete(error) => Self::Delete(error),
            LogsError::Open(error) => Self::Internal(error.to_string()),
            LogsError::Disk(error) => Self::Disk(error),
            LogsError::Unknown(partition) => Self::UnknownPartition(partition.to_string()),
            LogsError::Broken { partition, reason } => Self::Broken { partition: partition.to_string(), reason },
            LogsError::NotEnoughReplicas { .. } => Self::NotEnoughReplicas(error.to_string()),
            LogsError::Members { .. } => Self::Invalid(error.to_string()),
            LogsError::Timeout => Self::Timeout { what: "making the write durable", waited_ms: 0 },
            LogsError::Busy => Self::Busy { what: "the log's queue", bound: error.to_string() },
            LogsError::Closed => Self::Stopping,
        }
    }
}
