//! What a step of a node brings about: for the world to carry out.

use std::fmt;

use std::sync::Arc;

use base::{NodeId, Offset, Term, TopicPartition};
use bytes::Bytes;
use control::{Applied, Refused, State};
use log::groups;
use quorum::{Message, QuorumError};

use super::Acks;

/// Which group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupName {
    Control,
    Partition(TopicPartition),
}

impl fmt::Debug for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("control"),
            Self::Partition(tp) => {
                // The random part of a topic's id tells two apart; its name is not known here.
                let id = tp.topic.0.as_u128() & 0xffff;
                write!(f, "{id:04x}-{}", tp.partition)
            }
        }
    }
}

impl GroupName {
    /// For the trace's hash.
    #[must_use]
    pub fn number(self) -> u64 {
        match self {
            Self::Control => 0,
            Self::Partition(tp) => {
                let (high, low) = tp.topic.0.as_u64_pair();
                high ^ low ^ u64::from(tp.partition.0.unsigned_abs())
            }
        }
    }
}

/// A question of a client, whose number is in its upper half.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

impl Ticket {
    #[must_use]
    pub fn new(client: u32, count: u32) -> Self {
        Self(u64::from(client) << 32 | u64::from(count))
    }

    #[must_use]
    pub fn client(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(u32::MAX)
    }
}

/// Why a command was not applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProposeFailure {
    NotLeader(Option<NodeId>),
    Busy,
    /// It may have been or become committed.
    Unknown,
    Stopped,
    Refused(Refused),
}

/// Why an append was not acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProduceFailure {
    NotLeader(Option<NodeId>),
    Busy,
    DiskFull,
    /// It may have been or become committed.
    Unknown,
    OutOfOrder {
        expected: i32,
        found: i32,
    },
    Stopped,
    Invalid(String),
}

/// Records that were acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acked {
    pub tp: TopicPartition,
    pub acks: Acks,
    pub base: Offset,
    pub next: Offset,
    pub term: Term,
    /// Of the batch: tells its content.
    pub crc: u32,
}

/// Which sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncOf {
    Control,
    Partition(TopicPartition),
    /// Reading old files again, and mending them.
    Care(TopicPartition),
}

/// See the module.
#[derive(Default)]
pub struct Effects {
    /// Groups that did something.
    pub touched: Vec<GroupName>,
    pub sends: Vec<(GroupName, Message)>,
    pub replies: Vec<(Ticket, Reply)>,
    /// Begun; the world says when they are done.
    pub syncs: Vec<SyncOf>,
    /// Messages a group dropped, and why.
    pub refusals: Vec<(GroupName, QuorumError)>,
    pub acked: Vec<Acked>,
    /// Writes of the coordinator of consumer groups that came to an end, and whether well.
    pub writes: Vec<(Term, groups::WriteId, bool)>,
    /// Moves of replicas that are over: to be said to group 0, by somebody, some time.
    pub finished: Vec<(TopicPartition, Vec<NodeId>)>,
    /// The state of group 0 changed.
    pub applied: bool,
}

impl Effects {
    pub fn send_all(&mut self, group: GroupName, messages: Vec<Message>) {
        self.sends.extend(messages.into_iter().map(|message| (group, message)));
    }

    pub fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.replies.push((ticket, reply));
    }

    pub fn refused(&mut self, group: GroupName, error: QuorumError) {
        self.refusals.push((group, error));
    }

    pub fn touch(&mut self, group: GroupName) {
        if !self.touched.contains(&group) {
            self.touched.push(group);
        }
    }
}

/// What a client is told.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The node is not running.
    Refused,
    Proposed(Result<Applied, ProposeFailure>),
    /// The first offset.
    Produced(Result<Offset, ProduceFailure>),
    /// The state of group 0 as this node has it, and who leads each partition that it has a replica of.
    Described(Arc<State>, Vec<(TopicPartition, NodeId)>),
    /// Whole batches, and the offset after them.
    Fetched(Result<(Bytes, Offset), String>),
    /// `None`: this node does not coordinate groups.
    Group(Option<groups::Response>),
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Request {
    Propose(control::Command),
    Produce { tp: TopicPartition, acks: Acks, batch: Bytes },
    Describe,
    Fetch { tp: TopicPartition, from: Offset },
    Group(groups::Request),
}
