//! Why a transactional request was refused. The variant says what the producer may do next.

use super::request::TransactionState;

/// See each variant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TransactionError {
    /// Choose another id.
    #[error("the transactional id is empty or longer than {} bytes", super::limits::ID_BYTES_MAX)]
    InvalidId,
    /// Ask for a timeout within the range.
    #[error("transaction timeout {asked_ms} ms is not within 1 to {max_ms} ms (log.transaction_timeout_max)")]
    InvalidTimeout { asked_ms: i64, max_ms: u64 },
    /// The producer has to be started anew.
    #[error("the producer id does not belong to this transactional id")]
    UnknownProducer,
    /// Another process uses this transactional id by now: stop.
    #[error("producer epoch {asked} is not the current one, {current}")]
    Fenced { asked: i16, current: i16 },
    /// Retry in a moment.
    #[error("the transactional id's last request is still at work")]
    Concurrent,
    /// The producer asks for what cannot be: abort, or start anew.
    #[error("the transaction is {0}: this cannot be done to it")]
    InvalidState(TransactionState),
    /// Retry later: too many ids or writes; or make smaller transactions.
    #[error("{what} are at their bound of {max}")]
    Busy { what: &'static str, max: usize },
    /// Make smaller transactions.
    #[error("{what} of one transaction are more than {max}")]
    TooLarge { what: &'static str, max: usize },
    /// The write failed or took too long; whether it happened is unknown. Retry.
    #[error("the transaction's record could not be made durable in time")]
    NotPersisted,
    /// There is no coordinator to ask. Retry.
    #[error("transactions are not available: their log cannot be read, or the node is stopping")]
    NotAvailable,
    /// Another node coordinates: ask who.
    #[error("another node coordinates transactions")]
    NotCoordinator,
    /// This node coordinates since a moment ago and reads what was written before. Retry.
    #[error("the transactions are being loaded")]
    Loading,
    /// No such id.
    #[error("no such transactional id")]
    NotFound,
}
