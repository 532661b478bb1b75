//! The kinds of calls between nodes. A number is never used again for something else.

/// A command for group 0's leader; see `meta/forward.rs`.
pub const PROPOSE: u8 = 1;
/// Which partitions the caller leads; see `node/leaders.rs`.
pub const LEADERS: u8 = 2;
/// The active master is asked to hand over; see `node/mastery.rs`.
pub const TRANSFER_MASTER: u8 = 3;
/// How far a partition is committed at its leader; see `node/tables/freshness.rs`.
pub const COMMITTED: u8 = 4;
/// Which replicas of the partitions that the caller leads are behind; see `node/leaders.rs`.
pub const BEHIND: u8 = 201;
/// A partition's leader is asked to hand over; see `node/leaders.rs`.
pub const TRANSFER_PARTITION: u8 = 202;
/// A call for a node that the caller has no link to, to be passed on once; see `shell/peers/relay.rs`.
pub const RELAY: u8 = 200;
/// A transaction's end for a partition that the called node leads; see `node/transactions/marks.rs`.
pub const MARK: u8 = 20;
/// A transaction's end for a consumer group that the called node coordinates; see `node/transactions/marks.rs`.
pub const END_OFFSETS: u8 = 21;
/// Is a transaction under way? For its coordinator; see `node/transactions/verify.rs`.
pub const VERIFY: u8 = 22;
/// How far several partitions are committed at their leader; see `node/tables/freshness.rs`.
pub const COMMITTED_MANY: u8 = 30;
/// Live rows of a table's partition; see `node/tables/borrow.rs`.
pub const LIVE_ROWS: u8 = 31;
/// What queries and tasks there were; see `node/history.rs`.
pub const HISTORY: u8 = 32;
/// What is in the asked node's lost+found; see `node/lost.rs`.
pub const LOST: u8 = 33;
/// Batches of lost+found for a partition that the called node leads; see `node/rescue.rs`.
pub const RESCUE: u8 = 34;
/// Batches of the called node's lost+found are republished or dropped by hand; see `node/rescue.rs`.
pub const LOST_ACT: u8 = 35;
/// What time it is there; see `node/clocks.rs`.
pub const CLOCK: u8 = 10;
/// How many bytes of logs are there; see `edge/http/cluster.rs`.
pub const STORED: u8 = 11;
