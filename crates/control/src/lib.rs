//! The cluster as a state machine: which nodes, topics, tables and segments there are, where the copies of each
//! partition are, and how far each table has been published.
//!
//! ```text
//! Command --encode--> group 0's log --committed--> State::apply --> Applied | Refused
//!                                                       |
//!                                             snapshot / restore
//! ```
//!
//! Duties of the caller: apply each committed command exactly once, in log order, with its index; persist
//! a snapshot together with the index it was taken at.
//!
//! What always holds:
//! - `apply` is a function of the state and the command: no clock, no randomness. Ids and times are in the command.
//! - A refused command changes nothing.
//! - A table's published offsets only grow, without a gap: [`Command::PublishSegments`] is refused unless
//!   its `from` is the partition's published offset. So no row is missed or counted twice, whoever dies.
//! - A leader of an older term than the last one that published cannot publish.
//! - A node is known by its id and its disk: another disk under an old id, or an old disk under another id, is refused.
//! - Every partition's replicas are members of the cluster, once any node has registered.
//! - A topic's data may be deleted only when its id is among [`State::tombstones`]; a topic the state does
//!   not know is not a reason to delete anything.
//!
//! Deliberately not here: how rows become segments (a table's spec and schema are opaque JSON text), where
//! a segment's bytes are cached, and who leads now (each partition decides that by itself).

pub mod backup;
pub mod codec;
pub mod command;
pub mod node;
pub mod plan;
pub mod refounding;
pub mod segment;
pub mod state;
pub mod table;
pub mod topic;

pub use backup::{Backup, BackupError, Founding};
pub use codec::CodecError;
pub use command::{Applied, Command, NewSegment, Refused};
pub use node::{Address, NodeAddresses, NodeMode, RegisteredNode};
pub use plan::{Candidate, PlaceError};
pub use refounding::{Fate, Found, RefoundError, Refounding, Survey, refound};
pub use segment::{Interval, Segment, SegmentId};
pub use state::State;
pub use table::{Table, TableId, TableMode};
pub use topic::{Topic, TopicConfig};
