//! Bounds of this part.

/// Longest group id.
pub const GROUP_ID_BYTES_MAX: usize = 1024;
/// Longest of the other names a member tells: its id, instance, client, host, protocols.
pub const NAME_BYTES_MAX: usize = 4096;
/// Most protocols one member may offer.
pub const PROTOCOLS_MAX: usize = 64;
/// What the protocols of all members of a group may hold together.
pub const GROUP_METADATA_BYTES_MAX: usize = 4 << 20;
/// What the assignments of a group may hold together. One record has to hold them.
pub const GROUP_ASSIGNMENT_BYTES_MAX: usize = 4 << 20;
/// Most groups.
pub const GROUPS_MAX: usize = 100_000;
/// Most partitions a group may have offsets for.
pub const OFFSETS_PER_GROUP_MAX: usize = 100_000;
/// Most producers whose transactions ended last that are remembered.
pub const PRODUCERS_REMEMBERED_MAX: usize = 10_000;
/// Most writes that are not yet durable; further requests are told to retry.
pub const WRITES_MAX: usize = 10_000;
/// Longest wait for a write; after it the requester is told to retry.
pub const WRITE_MS_MAX: u64 = 10_000;
/// Longest wait for the members of a group to join again, whatever they ask for.
pub const REBALANCE_MS_MAX: u64 = 30 * 60_000;
/// Time between two searches for groups that nobody has used for the retention time.
pub const EXPIRY_EVERY_MS: u64 = 10 * 60_000;
/// Most records one write carries when offsets expire; the rest goes with the next.
pub const EXPIRY_RECORDS_MAX: usize = 10_000;

const RECORD_BYTES_MAX: usize = GROUP_METADATA_BYTES_MAX + GROUP_ASSIGNMENT_BYTES_MAX;
const _: () =
    assert!(RECORD_BYTES_MAX * 3 / 2 < base::limits::BATCH_BYTES_MAX, "a group's record must fit into a batch");
