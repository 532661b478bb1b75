//! Bounds of this part.

/// Longest transactional id.
pub const ID_BYTES_MAX: usize = 1024;
/// Most transactional ids.
pub const TRANSACTIONS_MAX: usize = 100_000;
/// Most partitions of one transaction.
pub const PARTITIONS_MAX: usize = 10_000;
/// Most groups of one transaction.
pub const GROUPS_MAX: usize = 1_000;
/// Most writes that are not yet durable; further requests are told to retry.
pub const WRITES_MAX: usize = 10_000;
/// Longest wait for a write; after it the requester is told to retry.
pub const WRITE_MS_MAX: u64 = 10_000;
/// Most marks under way at once; the others wait.
pub const MARKS_OUT_MAX: usize = 512;
/// Shortest wait before something that failed is tried again.
pub const RETRY_MS_MIN: u64 = 10;
/// Longest wait before something that failed is tried again.
pub const RETRY_MS_MAX: u64 = 500;
/// Time between two searches for transactional ids that nobody has used for a long time.
pub const EXPIRY_EVERY_MS: u64 = 10 * 60_000;
/// Most ids forgotten in one search; the rest goes with the next.
pub const EXPIRED_MAX: usize = 1_000;

const PARTITION_BYTES: usize = 20;
const RECORD_BYTES_MAX: usize =
    PARTITIONS_MAX * PARTITION_BYTES + GROUPS_MAX * (super::super::groups::limits::GROUP_ID_BYTES_MAX + 2);
const _: () =
    assert!(RECORD_BYTES_MAX * 3 / 2 < base::limits::BATCH_BYTES_MAX, "a transaction's record must fit into a batch");
