//! Why a query on the engine ended without an answer.

use crate::segment::FormatError;

/// What went wrong; the variant says what the caller may do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine does not do this. Run it another way.
    #[error("the segment engine cannot do this: {0}")]
    Unsupported(String),
    /// No such column in the snapshot. The query is wrong.
    #[error("column {0:?} is not in the table")]
    UnknownColumn(String),
    /// The group state outgrew the query's bound. Narrow the query or raise the bound.
    #[error(
        "the query needs more than its {limit_bytes} bytes of memory ({needed_bytes} wanted); narrow its interval or its keys, or raise the limit"
    )]
    Memory { needed_bytes: usize, limit_bytes: usize },
    /// Somebody cancelled the query, or its time was up.
    #[error("the query was cancelled")]
    Cancelled,
    /// A column file holds damaged bytes. Load the segment again from deep storage.
    #[error("segment {segment}: {error}")]
    Corrupt { segment: String, error: FormatError },
    /// A fault of ours. Only this query is hurt.
    #[error("fault in the segment engine: {0}")]
    Internal(String),
}
