//! The words every room shares. No async, no clock, no thread, and nothing that decides.
//!
//! ```text
//! ids      who and which: NodeId, ClusterId, TopicId, TopicPartition, ProducerId
//! position where: Offset, Term, LogIndex; when: Timestamp, Tick
//! batch    Kafka record batch v2: the validated header; the body stays opaque bytes
//! marker   the end of a transaction in a partition: Kafka's control batch
//! records  the records inside a batch, decoded and decompressed with a bound; and a builder
//! checksum CRC-32C, the one checksum of every format of ours
//! disk     the seam between a room that stores and the machine; `MemDisk` is its double with faults
//! limits   every bound that more than one room leans on
//! ```
//!
//! What always holds: nothing here panics on bytes that came from a network or a disk, and nothing
//! allocates by a length it has not compared with the bytes that are there or with a bound.

pub mod batch;
pub mod checksum;
pub mod disk;
pub mod ids;
pub mod limits;
pub mod marker;
pub mod position;
pub mod records;

pub use ids::{ClusterId, DiskId, NodeId, PartitionIndex, ProducerEpoch, ProducerId, TopicId, TopicPartition};
pub use position::{LogIndex, Offset, Term, Tick, Timestamp};
