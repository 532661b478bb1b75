//! Why the node refused, in Kafka's codes. The code decides what a client does next: retry, refresh, give up.

use base::batch::BatchError;
use control::{PlaceError, Refused};
use kafka::ErrorCode;
use log::{AppendError, DeleteError, ReadError, Reader};
use quorum::ProposeError;

use crate::node::NodeError;

/// A code, and the words for the person behind the client.
pub(super) fn of_node(error: &NodeError) -> (ErrorCode, String) {
    let code = match error {
        NodeError::UnknownTopic(_) | NodeError::UnknownPartition(_) | NodeError::UnknownTable(_) => {
            ErrorCode::UnknownTopicOrPartition
        }
        NodeError::Refused(refused) => of_refused(refused),
        NodeError::Propose(ProposeError::NotLeader { .. }) => ErrorCode::NotController,
        NodeError::Append(error) => of_append(error),
        NodeError::Delete(DeleteError::OutOfRange { .. }) => ErrorCode::OffsetOutOfRange,
        NodeError::Delete(DeleteError::Held { .. }) => ErrorCode::PolicyViolation,
        NodeError::Timeout { .. } => ErrorCode::RequestTimedOut,
        // Nothing was written: clients wait and send it again.
        NodeError::Propose(_) | NodeError::Busy { .. } | NodeError::NotEnoughReplicas(_) => {
            ErrorCode::NotEnoughReplicas
        }
        NodeError::TooFewCopies { .. } => ErrorCode::NotEnoughReplicasAfterAppend,
        NodeError::NoLeader(_) => ErrorCode::NotController,
        NodeError::Invalid(_) => ErrorCode::InvalidRequest,
        NodeError::ControlStopped(_) | NodeError::Delete(_) | NodeError::Broken { .. } | NodeError::Disk(_) => {
            ErrorCode::KafkaStorageError
        }
        NodeError::Stopping => ErrorCode::NotLeaderOrFollower,
        NodeError::Internal(_) => ErrorCode::UnknownServerError,
    };
    (code, error.to_string())
}

fn of_append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Invalid(BatchError::Magic(_)) => ErrorCode::UnsupportedForMessageFormat,
        AppendError::Invalid(BatchError::Codec(_)) => ErrorCode::UnsupportedCompressionType,
        AppendError::Invalid(BatchError::Count { .. }) | AppendError::Unsupported(_) => ErrorCode::InvalidRecord,
        AppendError::Invalid(BatchError::Length(_)) | AppendError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        AppendError::Invalid(_) => ErrorCode::CorruptMessage,
        AppendError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::FencedEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        // Sent again, it is verified again: that tells for good.
        AppendError::NotVerified { .. } => ErrorCode::NotEnoughReplicas,
        AppendError::InvalidTransaction(_) => ErrorCode::InvalidTxnState,
        AppendError::FencedCoordinator { .. } => ErrorCode::ProducerFenced,
        AppendError::TooManyTransactions { .. } => ErrorCode::NotEnoughReplicas,
        AppendError::NotLeader { .. } => ErrorCode::NotLeaderOrFollower,
        AppendError::Busy { .. } => ErrorCode::NotEnoughReplicas,
        AppendError::DiskFull | AppendError::Stopped(_) => ErrorCode::KafkaStorageError,
    }
}

pub(super) fn of_refused(refused: &Refused) -> ErrorCode {
    match refused {
        Refused::TopicExists { .. } => ErrorCode::TopicAlreadyExists,
        Refused::UnknownTopic(_) => ErrorCode::UnknownTopicOrPartition,
        Refused::InvalidTopicName { .. } | Refused::InternalTopic(_) => ErrorCode::InvalidTopic,
        Refused::InvalidPartitions { .. } => ErrorCode::InvalidPartitions,
        Refused::InvalidConfig { .. } => ErrorCode::InvalidConfig,
        Refused::TopicInUse { .. } => ErrorCode::PolicyViolation,
        Refused::Place(error) => of_place(error),
        _ => ErrorCode::InvalidRequest,
    }
}

fn of_place(error: &PlaceError) -> ErrorCode {
    match error {
        PlaceError::Even { .. } | PlaceError::Outside { .. } | PlaceError::TooFewNodes { .. } => {
            ErrorCode::InvalidReplicationFactor
        }
        _ => ErrorCode::InvalidReplicaAssignment,
    }
}

pub(super) fn of_read(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Corrupt { .. } | ReadError::Disk(_) => ErrorCode::KafkaStorageError,
    }
}

/// Compares the leadership a client believes in with the partition's.
pub(super) fn check_epoch(reader: &Reader, believed: i32) -> Result<(), ErrorCode> {
    let current = reader.leader_epoch();
    match believed {
        _ if believed < 0 => Ok(()),
        _ if believed < current => Err(ErrorCode::FencedLeaderEpoch),
        _ if believed > current => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}
