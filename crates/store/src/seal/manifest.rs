//! What a segment says about itself in its own file.

use base::{Offset, PartitionIndex, Timestamp};
use serde::{Deserialize, Serialize};

use crate::interval::Interval;

/// The key of the Parquet footer's metadata that holds the manifest as JSON.
pub const MANIFEST_KEY: &str = "seawall.manifest";
/// The version written.
pub(super) const VERSION: u32 = 1;

/// Which rows of which table a segment holds. Enough to find its place again if all else is lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The segment's identity.
    pub segment: String,
    pub table: String,
    pub partition: PartitionIndex,
    /// The rows come from the offsets `[from, to)`; other segments may hold other time chunks of them.
    pub from: Offset,
    pub to: Offset,
    /// The time chunk.
    pub interval: Interval,
    pub rows: u64,
    /// When it was sealed.
    pub created: Timestamp,
}

/// The manifest as it is in the file.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    pub version: u32,
    #[serde(flatten)]
    pub manifest: Manifest,
}
