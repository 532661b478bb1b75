//! Bounds that more than one room leans on. A bound used by one room only lives in that room's own `limits`.

/// Largest record batch accepted from a client or read from a file, header included.
pub const BATCH_BYTES_MAX: usize = 16 << 20;
/// Largest size one batch may decompress to. Guards against a compression bomb.
pub const BATCH_DECOMPRESSED_BYTES_MAX: usize = 128 << 20;
/// Most records one batch may claim.
pub const BATCH_RECORDS_MAX: usize = 10_000_000;
/// Largest Kafka request frame.
pub const FRAME_BYTES_MAX: usize = 100 << 20;
/// Longest topic name, as in Kafka.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Most partitions of one topic.
pub const PARTITIONS_PER_TOPIC_MAX: i32 = 10_000;

const _: () = assert!(BATCH_BYTES_MAX <= FRAME_BYTES_MAX, "a batch must fit into a frame");
const _: () =
    assert!(BATCH_BYTES_MAX <= BATCH_DECOMPRESSED_BYTES_MAX, "a plain batch must pass the decompressed bound");
