//! Bounds of the Kafka edge.

use std::time::Duration;

use base::limits::{BATCH_BYTES_MAX, FRAME_BYTES_MAX};

/// Produce requests of one connection that are worked on at a time. Clients keep at most five.
pub const PIPELINE_MAX: u32 = 16;
/// A connection that sends nothing for this long is closed. Kafka's own default; clients reconnect without a word.
pub const IDLE_MAX: Duration = Duration::from_secs(600);
/// Longest a frame may take to arrive once its length has: it holds its share of the budget meanwhile.
pub const FRAME_READ_MAX: Duration = Duration::from_secs(60);
/// Longest a write may go without the client taking a byte.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(60);
/// Answers still owed when a connection ends its sending, or breaks the protocol, are given up after this.
pub const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Longest a fetch waits for records, whatever the client asks.
pub const FETCH_WAIT_MS_MAX: u64 = 60_000;
/// Shortest time between two passes of a fetch that waits for more bytes than there are.
pub const FETCH_PASS_PAUSE: Duration = Duration::from_millis(5);
/// Most record bytes in one answer, but for one batch beyond it.
pub const FETCH_BYTES_MAX: usize = 64 << 20;
/// Bytes of records on their way to consumers at a time, all connections together.
pub const RESPONSE_BYTES_MAX: usize = 256 << 20;
/// A connection's read buffer: what an idle one costs.
pub const READ_BYTES: usize = 16 << 10;
/// Room made at once for a frame that has its share of the budget; a larger one grows with what has come.
pub const FRAME_FIRST_BYTES: usize = 1 << 20;
/// Longest wait of a produce request, whatever the client asks.
pub const PRODUCE_WAIT_MS_MAX: u64 = 120_000;
/// Topics that one metadata request may create; the client asks again for the rest.
pub const AUTO_CREATE_MAX: usize = 100;
/// How long Metadata goes on naming a node that cannot be reached. Clients let go of a node as soon as one answer does not have
/// it, and what they keep per node with it: librdkafka waits for ever in `send_offsets_to_transaction` for a coordinator that it
/// has let go of (its issue 5511). Kafka names a broker until its session of 9 s is over.
pub const NAMED_AFTER_LOSS: Duration = Duration::from_secs(10);

const _: () = assert!(BATCH_BYTES_MAX <= RESPONSE_BYTES_MAX, "a batch must be sendable");
const _: () = assert!(FETCH_BYTES_MAX + BATCH_BYTES_MAX <= i32::MAX as usize, "an answer must fit into a frame");
const _: () = assert!(READ_BYTES <= FRAME_BYTES_MAX, "the first buffer is not larger than a frame");

/// Longest wait of ElectLeaders for preferred leaders to take over.
pub const ELECTION_WAIT_MS_MAX: u64 = 30_000;

/// Longest wait of DeleteRecords for a majority of the replicas.
pub const DELETE_WAIT_MS_MAX: u64 = 30_000;
/// Most partitions that one answer to DescribeTopicPartitions tells of, whatever was asked for: as Kafka has it.
pub const DESCRIBED_PARTITIONS_MAX: usize = 2_000;

/// Longest wait of FindCoordinator for one that is being elected. librdkafka asks for the coordinator of a group three times within
/// 300 ms, and again only when one of its connections comes or goes (its rd_kafka_coord_req_fsm): three answers are to outlast
/// an election. Answers of the same connection wait as long.
pub const COORDINATOR_WAIT_MS_MAX: u64 = 500;
/// Between two looks whether there is one.
pub const COORDINATOR_POLL: Duration = Duration::from_millis(10);
