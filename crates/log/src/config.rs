//! What a partition may be told: bounds on its files and how long they are kept.

use crate::limits::{FILE_BYTES_MAX, INDEX_STEP_BYTES_DEFAULT, LOST_BYTES_DEFAULT, SCRUB_INTERVAL_MS_DEFAULT};

/// Whose clock a record's time is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimestampType {
    /// The producer's, untouched.
    #[default]
    CreateTime,
    /// The time of the append, written into the batch.
    LogAppendTime,
}

/// What is done with what another leader's records replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LostPolicy {
    #[default]
    Keep,
    /// Appended again, once, if it was or may have been acknowledged and is part of no transaction.
    Republish,
    /// Counted and given up.
    Drop,
}

/// A partition's settings. All may change while it is open ([`crate::Partition::configure`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionConfig {
    /// Closed files whose newest record is older are removed. `None`: kept.
    pub retention_ms: Option<u64>,
    /// Oldest closed files are removed while the rest holds at least this much. `None`: kept.
    pub retention_bytes: Option<u64>,
    /// A file is closed before it grows past this; at most [`FILE_BYTES_MAX`].
    pub file_bytes_max: u64,
    /// A file is closed this long after its first append.
    pub file_age_ms_max: u64,
    /// Largest batch accepted, header included.
    pub batch_bytes_max: usize,
    pub timestamp_type: TimestampType,
    /// One entry of the sparse index per this many bytes.
    pub index_step_bytes: u64,
    /// Idempotent producers remembered; the one silent longest is forgotten first.
    pub producers_max: usize,
    /// A producer silent for this long is forgotten.
    pub producer_expiry_ms: u64,
    pub lost_policy: LostPolicy,
    /// Bytes kept of what another leader's records replaced; the oldest goes first. 0: nothing is kept.
    pub lost_bytes_max: u64,
    /// Closed files are read again, and compared with their checksums, once within this time. `None`: never.
    pub scrub_interval_ms: Option<u64>,
}

impl Default for PartitionConfig {
    fn default() -> Self {
        Self {
            retention_ms: Some(7 * 24 * 3600 * 1000),
            retention_bytes: None,
            file_bytes_max: 256 << 20,
            file_age_ms_max: 7 * 24 * 3600 * 1000,
            batch_bytes_max: (1 << 20) + 12,
            timestamp_type: TimestampType::CreateTime,
            index_step_bytes: INDEX_STEP_BYTES_DEFAULT,
            producers_max: 10_000,
            producer_expiry_ms: 24 * 3600 * 1000,
            lost_policy: LostPolicy::Keep,
            lost_bytes_max: LOST_BYTES_DEFAULT,
            scrub_interval_ms: Some(SCRUB_INTERVAL_MS_DEFAULT),
        }
    }
}

impl PartitionConfig {
    /// The size at which a file is closed, whatever was asked for.
    pub(crate) fn file_bytes_bound(&self) -> u64 {
        self.file_bytes_max.clamp(1, FILE_BYTES_MAX)
    }
}
