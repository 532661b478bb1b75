//! What members and administrators ask, and the answers.

use base::{Offset, PartitionIndex, ProducerEpoch, ProducerId, Timestamp};
use bytes::Bytes;

use super::error::GroupError;
use super::group::GroupState;

/// A way of assigning partitions that a member offers, with what its assignor wants to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// A member joins, or joins again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Join {
    pub group: String,
    /// Empty: a new member.
    pub member: String,
    /// Makes it a static member, which may restart without a rebalance.
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: u64,
    pub rebalance_timeout_ms: u64,
    pub protocol_type: String,
    /// The preferred first.
    pub protocols: Vec<Protocol>,
    /// A new member is told its id first and joins with it (KIP-394), so that a lost answer leaves no ghost.
    pub id_required: bool,
    /// The member understands that it leads and need not assign (KIP-814).
    pub may_skip_assignment: bool,
}

/// What the leader gives one member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    pub member: String,
    pub assignment: Bytes,
}

/// Who leaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaver {
    /// May be empty if `instance` is given.
    pub member: String,
    pub instance: Option<String>,
}

/// One partition's position to keep.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitOffset {
    pub topic: String,
    pub partition: PartitionIndex,
    /// As received; refused if negative.
    pub offset: i64,
    /// -1: not told.
    pub leader_epoch: i32,
    pub metadata: String,
}

/// Positions that count when a transaction commits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransactionCommit {
    pub group: String,
    pub producer: ProducerId,
    pub epoch: ProducerEpoch,
    /// From [`Request::Guard`], before the transaction was verified.
    pub guard: u64,
    /// `None`: the producer does not say for whom it reads.
    pub generation: Option<i32>,
    pub member: String,
    pub instance: Option<String>,
    pub offsets: Vec<CommitOffset>,
}

/// Partitions of one topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicPartitions {
    pub topic: String,
    pub partitions: Vec<PartitionIndex>,
}

/// All that can be asked. Names as the client wrote them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Waits until the group's members have joined.
    Join(Box<Join>),
    /// Waits for the leader's assignment.
    Sync {
        group: String,
        generation: i32,
        member: String,
        instance: Option<String>,
        /// Compared where told.
        protocol_type: Option<String>,
        protocol: Option<String>,
        /// Only the leader's counts.
        assignments: Vec<Assignment>,
    },
    Heartbeat {
        group: String,
        generation: i32,
        member: String,
        instance: Option<String>,
    },
    Leave {
        group: String,
        leavers: Vec<Leaver>,
    },
    CommitOffsets {
        group: String,
        /// `None`: the committer takes part in no rebalance.
        generation: Option<i32>,
        member: String,
        instance: Option<String>,
        offsets: Vec<CommitOffset>,
    },
    /// Taken before it is asked whether a transaction is under way.
    Guard,
    /// Answered as [`Request::CommitOffsets`]; nobody sees the offsets before the transaction commits.
    CommitInTransaction(Box<TransactionCommit>),
    /// The producer's transaction was committed, or aborted: its offsets become the group's, or go.
    EndTransaction {
        group: String,
        producer: ProducerId,
        commit: bool,
        /// The transaction coordinator's term, and its round: one that has been carried out does nothing.
        mark: (u64, u64),
    },
    FetchOffsets {
        group: String,
        /// `None`: all it has.
        topics: Option<Vec<TopicPartitions>>,
    },
    Describe {
        group: String,
    },
    List {
        /// Empty: all.
        states: Vec<GroupState>,
    },
    /// Deletes a group without members, and its offsets.
    Delete {
        group: String,
    },
    DeleteOffsets {
        group: String,
        topics: Vec<TopicPartitions>,
    },
    /// A topic was deleted: no group has offsets for it any more.
    ForgetTopic {
        topic: String,
    },
}

/// One member as its leader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinedMember {
    pub member: String,
    pub instance: Option<String>,
    pub metadata: Bytes,
}

/// A member of the next generation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub member: String,
    pub skip_assignment: bool,
    /// For the leader; empty for the others.
    pub members: Vec<JoinedMember>,
}

/// A member's part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Synced {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

/// A position that is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    pub offset: Offset,
    pub leader_epoch: i32,
    pub metadata: String,
    /// When it was committed.
    pub at: Timestamp,
}

/// What became of one offset of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffsetOutcome {
    pub topic: String,
    pub partition: PartitionIndex,
    pub result: Result<(), GroupError>,
}

/// What became of one offset to delete.
pub type DeletedOffset = OffsetOutcome;

/// The positions of one topic; `None` where there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicOffsets {
    pub topic: String,
    pub partitions: Vec<(PartitionIndex, Option<Committed>)>,
    /// Those that transactions under way have offsets for.
    pub unstable: Vec<PartitionIndex>,
}

/// A member for people to see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedMember {
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Of the chosen protocol; empty while there is none.
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// A group for people to see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedGroup {
    pub group: String,
    pub state: GroupState,
    pub generation: i32,
    pub protocol_type: String,
    /// Empty while none is chosen.
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

/// A group in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedGroup {
    pub group: String,
    pub protocol_type: String,
    pub state: GroupState,
}

/// The answer to the request of the same name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    Join(Result<Joined, GroupError>),
    Sync(Result<Synced, GroupError>),
    Heartbeat(Result<(), GroupError>),
    /// In the order of the request.
    Leave(Result<Vec<Result<(), GroupError>>, GroupError>),
    /// In the order of the request.
    CommitOffsets(Result<Vec<OffsetOutcome>, GroupError>),
    Guard(Result<u64, GroupError>),
    EndTransaction(Result<(), GroupError>),
    /// Never empty for want of an answer: a client that is told of no offset starts from the beginning or the end.
    FetchOffsets(Result<Vec<TopicOffsets>, GroupError>),
    /// `None`: no such group.
    Describe(Result<Option<DescribedGroup>, GroupError>),
    List(Result<Vec<ListedGroup>, GroupError>),
    Delete(Result<(), GroupError>),
    DeleteOffsets(Result<Vec<DeletedOffset>, GroupError>),
    ForgetTopic(Result<(), GroupError>),
}

impl Request {
    /// The answer that refuses this request as a whole. For a caller that cannot even ask the coordinator.
    #[must_use]
    pub fn refused(&self, error: GroupError) -> Response {
        self.refused_as()(error)
    }

    /// As [`Request::refused`], for later.
    #[must_use]
    pub const fn refused_as(&self) -> fn(GroupError) -> Response {
        match self {
            Self::Join(_) => |error| Response::Join(Err(error)),
            Self::Sync { .. } => |error| Response::Sync(Err(error)),
            Self::Heartbeat { .. } => |error| Response::Heartbeat(Err(error)),
            Self::Leave { .. } => |error| Response::Leave(Err(error)),
            Self::CommitOffsets { .. } | Self::CommitInTransaction(_) => |error| Response::CommitOffsets(Err(error)),
            Self::Guard => |error| Response::Guard(Err(error)),
            Self::EndTransaction { .. } => |error| Response::EndTransaction(Err(error)),
            Self::FetchOffsets { .. } => |error| Response::FetchOffsets(Err(error)),
            Self::Describe { .. } => |error| Response::Describe(Err(error)),
            Self::List { .. } => |error| Response::List(Err(error)),
            Self::Delete { .. } => |error| Response::Delete(Err(error)),
            Self::DeleteOffsets { .. } => |error| Response::DeleteOffsets(Err(error)),
            Self::ForgetTopic { .. } => |error| Response::ForgetTopic(Err(error)),
        }
    }
}
