//! Bounds of this room.

use base::limits::BATCH_BYTES_MAX;

/// Largest log file: positions in it are 32 bits wide in the index file.
pub const FILE_BYTES_MAX: u64 = 2 << 30;
/// One index entry per this many bytes of log, unless configured otherwise.
pub const INDEX_STEP_BYTES_DEFAULT: u64 = 16 << 10;
/// Batches remembered per idempotent producer: what a client may have in flight.
pub const PRODUCER_BATCHES_MAX: usize = 5;
/// Bytes of log between two checkpoints of index and producers: what a restart reads again at most.
pub const CHECKPOINT_BYTES: u64 = 64 << 20;
/// After this long a checkpoint is made of fewer bytes too, but not below `CHECKPOINT_BYTES_MIN`.
pub(crate) const CHECKPOINT_MS: u64 = 30_000;
pub(crate) const CHECKPOINT_BYTES_MIN: u64 = 1 << 20;
/// A file below `CHECKPOINT_BYTES_MIN` that a new leader ended waits for the next checkpoint, unless there are so many: a
/// checkpoint is five fsyncs, and when thousands of partitions elect they would all wait for each other's.
pub(crate) const UNINDEXED_FILES_MAX: usize = 8;
/// Bytes flushed between two syncs of the mark.
pub const MARK_SYNC_BYTES: u64 = 4 << 20;
/// Bytes proposed but not yet durable on a majority; past it appends are refused until some are.
pub const UNCOMMITTED_BYTES_MAX: u64 = 256 << 20;
/// Largest entry of the group that is no record batch (a membership change).
pub const NOTE_BYTES_MAX: usize = 1 << 20;
/// Bytes read at once when a file is scanned.
pub const SCAN_BYTES: usize = 1 << 20;
/// Read at once for a follower that is behind: while the owner reads, it speaks with nobody.
pub(crate) const CATCH_UP_BYTES: u64 = 64 << 10;
/// Bytes of one read for it: what is wanted, and the way there from an entry of the sparse index.
pub(crate) const CATCH_UP_READ_BYTES: usize = 96 << 10;
/// Silent producers are looked for this often.
pub(crate) const EXPIRY_MS: u64 = 60_000;
/// Producer snapshots kept: the newest and one in case it is damaged.
pub(crate) const PRODUCER_SNAPSHOTS: usize = 2;
/// Most bytes one read gives.
pub const READ_BYTES_MAX: usize = 64 << 20;
/// Bytes read at once in the search for a time.
pub(crate) const TIME_SCAN_BYTES: usize = 64 << 10;
/// Largest index file accepted: one entry per smallest batch of the largest file would be bigger, but the
/// index is sparse.
pub const INDEX_FILE_BYTES_MAX: u64 = 64 << 20;
/// Largest producer snapshot accepted.
pub const PRODUCERS_FILE_BYTES_MAX: u64 = 256 << 20;

/// Open transactions of a partition; past it none begins until one ends.
pub const OPEN_TRANSACTIONS_MAX: usize = 10_000;
/// Aborted transactions noted per log file: a file that has as many is closed.
pub const ABORTED_MAX: usize = 1 << 20;
/// Transactions that the coordinator was asked about at once; past it the oldest question counts for nothing.
pub const VERIFICATIONS_MAX: usize = 10_000;
/// How long a coordinator's yes to a transaction's first batch holds, from the question on.
pub const VERIFIED_MS: u64 = 30_000;
/// Ranges of offsets acknowledged before they were committed; past it two count as one, with what is between.
pub(crate) const ACKED_RANGES_MAX: usize = 4096;
/// Largest manifest of a file in lost+found that is read.
pub(crate) const LOST_MANIFEST_BYTES_MAX: usize = 64 << 20;
/// Bytes kept in a partition's lost+found, unless configured otherwise.
pub const LOST_BYTES_DEFAULT: u64 = 64 << 20;
/// What is told of lost batches that were republished, returned or dropped is forgotten this long after they were lost.
pub(crate) const LOST_SETTLED_MS: i64 = 7 * 24 * 3600 * 1000;
/// A batch of which nobody knows whether its producer was answered is republished this long after it was lost: by
/// then a producer that was not answered has sent it again.
pub const RESCUE_WAIT_MS: i64 = 30_000;
/// Read at once in the search for what is in the log already.
pub(crate) const RESCUE_READ_BYTES: usize = 4 << 20;
/// Most of the log that is searched so: with more written since, lost batches are kept.
pub const RESCUE_SEARCH_BYTES_MAX: u64 = 16 << 30;
/// Messages that wait to be taken; past it new ones are dropped, and sent again by the group when it matters.
pub(crate) const MESSAGES_MAX: usize = 16 << 10;
/// After this long the mark learns of a commit that no flush followed.
pub(crate) const COMMIT_MARK_MS: u64 = 1000;

const _: () = assert!((ABORTED_MAX as u64) * 32 < INDEX_FILE_BYTES_MAX, "what was aborted must fit into an index");
/// Bytes of an old file read again at once.
pub const SCRUB_BYTES: u64 = 4 << 20;
/// Between two such reads of one partition, at least.
pub const SCRUB_STEP_MS_MIN: u64 = 250;
/// All closed files are read again within this time, unless configured otherwise.
pub const SCRUB_INTERVAL_MS_DEFAULT: u64 = 7 * 24 * 3600 * 1000;
/// Damaged places known at once; a replica among others that has more fetches everything again.
pub const WOUNDS_MAX: usize = 64;
/// Largest damaged place that is mended in place: between two index entries lie less and one batch.
pub const MEND_BYTES_MAX: u64 = 2 * BATCH_BYTES_MAX as u64;
/// Files that readers complained of, until they are read again.
pub(crate) const SUSPECTS_MAX: usize = 64;
/// After this long without an answer another replica is asked for copies.
pub(crate) const COPIES_MS_MAX: u64 = 1000;

const _: () = assert!(SCAN_BYTES as u64 <= FILE_BYTES_MAX, "a scan reads part of a file");
const _: () = assert!(BATCH_BYTES_MAX as u64 <= FILE_BYTES_MAX, "a batch must fit into a file");
const _: () = assert!(BATCH_BYTES_MAX as u64 <= MEND_BYTES_MAX, "a damaged batch must be mendable");
const _: () = assert!(BATCH_BYTES_MAX as u64 <= UNCOMMITTED_BYTES_MAX, "a batch must be appendable");
