//! The thread that owns the partitions of one disk, and the threads that make their bytes durable.
//!
//! ```text
//! LogsHandle --Command--> owner thread: append (write) --FlushJob of each dirty partition--> flushers: fdatasync
//!     ^                        |   acks=1 answered here                                          |
//!     +------ answer ----------+<------------------- acks=all answered here <--------- Flushed --+
//! ```
//!
//! Group commit needs no timer: while a partition's flush is under way, its appends gather; the next flush
//! takes all of them. Partitions flush side by side, a few at a time. Appends that nobody waits for (acks 0
//! and 1) are flushed within `flush_interval`.
//!
//! A partition with replicas on other nodes is a Raft group: its messages come in as commands and go out through the
//! [`Outbox`], those that promise something durable only after the flush. Whatever was touched by a command is looked
//! after once, at the end of a round, so that a message costs the same with one partition or ten thousand.
//!
//! What a follower lacks is read by threads of their own, a few reads at a time, and nothing is read for one whose link
//! is crowded: a replica that comes back never keeps the owner from its heartbeats.
//!
//! What always holds: an acks=all waiter is answered `Ok` only after the fdatasync of a majority that covers it; an
//! acks=1 waiter only while no other node can have been elected; when this node stops leading, every waiter is
//! answered at once; every waiter is answered by its deadline; after a failed fsync this disk takes no write until the
//! process is restarted; a partition's files are removed only when no flush of it is under way.

mod care;
#[cfg(test)]
mod cluster_tests;
mod handle;
mod insync;
mod lost;
mod opening;
mod owner;
mod reads;
mod reopen;
mod replicas;
mod rounds;
mod sleep;
mod slot;
#[cfg(test)]
mod tests;
mod trouble;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use base::disk::{Disk, DiskError};
use base::{NodeId, Offset, ProducerEpoch, ProducerId, Term, Tick, TopicPartition};
use bytes::Bytes;
use log::{
    AppendError, Appended, DeleteError, FlushDone, Marker, OpenError, PartitionConfig, ProducerSeen, ReadDone, Seats,
    Verification,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::outbox::Outbox;
use super::peers::GroupFrame;
use crate::node::Acks;
use crate::node::findings::Findings;

pub use handle::LogsHandle;
pub use insync::Behind;
pub use owner::start;
pub use replicas::ReplicaStatus;
pub use rounds::Rounds;

/// Commands waiting for the owner thread.
const COMMANDS_MAX: usize = 16_384;
/// Bytes of batches waiting for the owner thread, in KiB.
const QUEUED_KIB_MAX: usize = 256 << 10;
/// Commands taken in one go before flushes and timers get their turn.
const DRAIN_MAX: usize = 1_024;
/// .. and longest time spent with them.
const DRAIN_MS_MAX: u64 = 10;
/// .. and the bytes of appends from other replicas taken with them.
const DRAIN_BYTES_MAX: usize = 1 << 20;
/// While partitions are served, votes and heartbeats are listened for this often ..
const HEAR_MS: u64 = 5;
/// .. and at most so often a round.
const HEARS_MAX: u32 = 8;
/// Longest sleep of the owner thread without a command.
const IDLE_MS: u64 = 50;
/// Flushes under way at once. More would not make the disk faster, only the batches smaller.
const FLUSHES_MAX: usize = 4;
/// While more than this many partitions wait for a flush, as when all of them elect ..
const CROWD: usize = 64;
/// .. so many are handed to the flushers ahead: else each round of the owner would let no more than a few vote, and
/// elections of thousands would end before their votes are written.
const FLUSHES_AHEAD_MAX: usize = 256;
/// Reads for followers under way at once, of all partitions. Each gives a message: this is what a follower that comes
/// back may take of a round.
const READS_MAX: usize = 2;
/// Partitions opened at once.
const OPENS_MAX: usize = 2;
/// How often deadlines are looked at.
const DEADLINE_CHECK_MS: u64 = 5;
/// How often free space is looked at.
const SPACE_CHECK_MS: u64 = 250;
/// How long closing waits for a flush under way.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a tick of a group is.
const TICK_MS: u64 = 25;
/// Who is to lead a new partition asks for votes this many times, every other tick, before it waits like the others.
const EAGER_CAMPAIGNS: u8 = 20;
/// How often retention runs.
const RETENTION_MS: u64 = 5_000;
/// Old files that are due to be read again are looked for this often.
const CARE_CHECK_MS: u64 = 1_000;

/// How the log of one disk behaves.
#[derive(Clone, Debug)]
pub struct LogsConfig {
    pub node: NodeId,
    /// Longest time an acks=1 record stays without fsync.
    pub flush_interval_ms: u64,
    /// Below this much free space appends are refused; above one and a half times it they are taken again.
    pub reserve_bytes: u64,
    /// Above this much in all partitions together appends are refused.
    pub bytes_max: Option<u64>,
}

/// Why the log did not do what it was asked.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum LogsError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Delete(#[from] DeleteError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("partition {0} is not on this node")]
    Unknown(TopicPartition),
    #[error("partition {partition} could not be opened: {reason}")]
    Broken { partition: TopicPartition, reason: String },
    /// Nothing was written. It is taken again when enough replicas can talk.
    #[error("partition {partition} takes no writes: its replicas on {} are out of reach", nodes(.missing))]
    NotEnoughReplicas { partition: TopicPartition, missing: Vec<NodeId> },
    /// Nothing was changed. Look at the members and ask again.
    #[error("the replicas of partition {partition} cannot be changed now: {reason}")]
    Members { partition: TopicPartition, reason: String },
    /// Written, but not durable in time: the outcome is unknown to the client, who retries.
    #[error("the write was not durable within its deadline; it may still become so: retry")]
    Timeout,
    #[error("the log's queue is full ({COMMANDS_MAX} requests or {QUEUED_KIB_MAX} KiB): retry")]
    Busy,
    #[error("the log is closed")]
    Closed,
}

fn nodes(nodes: &[NodeId]) -> String {
    let named: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    format!("node {}", named.join(", "))
}

/// Who leads a partition, as far as this node knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leadership {
    pub leader: Option<NodeId>,
    pub term: Term,
    /// This node leads, and everything decided before its term is known to it.
    pub is_mine: bool,
}

type Reply<T> = oneshot::Sender<Result<T, LogsError>>;

/// What the owner thread is asked. The permit is the command's place in the queue; dropping it frees the place.
enum Command {
    Open {
        partition: TopicPartition,
        config: PartitionConfig,
        seats: Seats,
        reply: Reply<watch::Receiver<Offset>>,
    },
    Opened(Box<opening::Opened>),
    Configure {
        partition: TopicPartition,
        config: PartitionConfig,
    },
    Append {
        append: Append,
        permits: [OwnedSemaphorePermit; 2],
    },
    /// Before a transaction's coordinator is asked whether it runs. `None`: it does, as far as can be seen here.
    VerifyBegin {
        partition: TopicPartition,
        producer: ProducerId,
        epoch: ProducerEpoch,
        reply: Reply<Option<Verification>>,
    },
    /// The coordinator said yes.
    Verified {
        partition: TopicPartition,
        verification: Verification,
        reply: Reply<bool>,
    },
    SetFloor {
        partition: TopicPartition,
        floor: Option<Offset>,
    },
    DeleteBefore {
        partition: TopicPartition,
        before: Offset,
        reply: Reply<Offset>,
    },
    /// Forgets the partition and removes its files: its topic has a tombstone.
    Delete {
        partition: TopicPartition,
        reply: Reply<()>,
    },
    /// From another replica.
    Message(GroupFrame),
    /// Urgent messages wait.
    Wake,
    /// The link to a node came or went.
    Link(NodeId, bool),
    Transfer(TopicPartition, NodeId),
    SetMembers {
        partition: TopicPartition,
        voters: Vec<NodeId>,
        learners: Vec<NodeId>,
        reply: Reply<()>,
    },
    Status {
        partition: TopicPartition,
        reply: Reply<ReplicaStatus>,
    },
    Producers {
        partition: TopicPartition,
        reply: Reply<Vec<ProducerSeen>>,
    },
    Lost {
        partition: TopicPartition,
        reply: Reply<Vec<log::LostFound>>,
    },
    /// What of it the topic's policy has something to do with now.
    LostDue {
        partition: TopicPartition,
        reply: Reply<Vec<log::LostFound>>,
    },
    /// Republishes one file of it.
    Rescue {
        partition: TopicPartition,
        file: LostFile,
        by_hand: bool,
        reply: Reply<Option<log::Rescue>>,
    },
    /// Notes what became of the batches of one file of it. False: not now.
    Settle {
        partition: TopicPartition,
        file: LostFile,
        fates: Vec<(usize, log::LostState)>,
        reply: Reply<bool>,
    },
    Settled(TopicPartition, log::SettleDone, Reply<bool>),
    Flushed(TopicPartition, Result<FlushDone, DiskError>),
    /// What was read for followers that are behind.
    Read(TopicPartition, ReadDone),
    Cared(TopicPartition, log::CareDone),
    /// Flush everything, leave clean marks, end the threads.
    Close {
        reply: Reply<()>,
    },
    /// The last handle is gone: end the threads as they are. The next start recovers.
    Abandon,
}

struct Append {
    partition: TopicPartition,
    what: What,
    acks: Acks,
    deadline: Tick,
    /// Only if this node leads in this term.
    term: Option<Term>,
    reply: Reply<Appended>,
}

/// A file of lost+found: its path, and when it was saved.
pub type LostFile = (String, base::Timestamp);

/// What is appended.
enum What {
    Batches(Bytes),
    /// They lay in lost+found.
    Rescued(Bytes),
    /// The end of a transaction, with its number: the coordinator's term and round.
    Marker(Marker, (u64, u64)),
}

/// What [`start`] needs.
pub struct Start {
    pub disk: Arc<dyn Disk>,
    pub hard: log::HardStates,
    pub config: LogsConfig,
    pub findings: Arc<Findings>,
    pub outbox: Arc<dyn Outbox>,
}
