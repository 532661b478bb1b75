//! A table of the store as DataFusion sees it: one snapshot, filters and limits taken down to the codes.
//!
//! ```text
//! provider   SnapshotTable: what can be pushed down, and the scan
//! filter     DataFusion expressions -> the engine's filters, where both mean exactly the same
//! scan       SegmentScanExec: rows, one task per partition
//! grouped    GroupedTable, SegmentAggregateExec: a whole aggregation done by the engine
//! ```

pub mod filter;
mod grouped;
mod provider;
mod scan;

pub use grouped::{GroupedTable, SegmentAggregateExec};
pub use provider::{ByTime, SnapshotTable};

use datafusion::common::DataFusionError;
use store::engine::EngineError;

/// An engine error on its way through DataFusion.
pub fn engine_error(error: EngineError) -> DataFusionError {
    match error {
        EngineError::Memory { .. } => DataFusionError::ResourcesExhausted(error.to_string()),
        EngineError::Unsupported(_) => DataFusionError::NotImplemented(error.to_string()),
        EngineError::UnknownColumn(_) => DataFusionError::Plan(error.to_string()),
        EngineError::Corrupt { .. } | EngineError::Cancelled => DataFusionError::Execution(error.to_string()),
        EngineError::Internal(text) => DataFusionError::Internal(text),
    }
}
