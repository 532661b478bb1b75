//! A message between the members of a group.

use std::fmt;

use base::{LogIndex, NodeId, Term};
use bytes::Bytes;
use raft::eraftpb::{self, MessageType};

use crate::storage::{from_raft_entry, to_raft_entry};
use crate::{DecodeError, Entry};

pub(crate) mod codec;

/// What one member tells another. Opaque: carry it, as bytes between nodes, and give it to
/// [`crate::Group::step`] of its receiver.
#[derive(Clone, PartialEq)]
pub struct Message(pub(crate) eraftpb::Message);

/// What the owners of two members' logs say to each other, see [`Message::copies_wanted`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Copies {
    Wanted {
        term: Term,
        first: LogIndex,
        last: LogIndex,
    },
    /// Of any length, also none.
    Given(Vec<Entry>),
}

impl Message {
    #[must_use]
    pub fn from(&self) -> NodeId {
        node(self.0.from)
    }

    #[must_use]
    pub fn to(&self) -> NodeId {
        node(self.0.to)
    }

    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.0.term)
    }

    /// Asks for a vote, or to ask for votes: nothing for a member that has lost entries.
    #[must_use]
    pub fn is_vote_request(&self) -> bool {
        use MessageType::{MsgRequestPreVote, MsgRequestVote, MsgTimeoutNow};
        matches!(self.0.get_msg_type(), MsgRequestVote | MsgRequestPreVote | MsgTimeoutNow)
    }

    /// Promises its term to someone else: a vote that counts.
    #[must_use]
    pub fn grants_vote(&self) -> bool {
        self.0.get_msg_type() == MessageType::MsgRequestVoteResponse && !self.0.reject
    }

    /// Most bytes of an encoded message. Decode refuses more; only a snapshot can be larger.
    pub const BYTES_MAX: usize = 128 << 20;

    /// Carries entries or a snapshot, or belongs in order among those that do. The others are small and urgent.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        matches!(self.0.get_msg_type(), MessageType::MsgAppend | MessageType::MsgSnapshot | codec::COPIES_GIVEN)
    }

    /// Asks another member for its copies of the entries `first..=last`, all of `term`. Of no concern to the
    /// groups: the owners of two logs speak over the same way.
    #[must_use]
    pub fn copies_wanted(from: NodeId, to: NodeId, term: Term, first: LogIndex, last: LogIndex) -> Self {
        let mut m = eraftpb::Message { from: from.0.into(), to: to.0.into(), ..eraftpb::Message::default() };
        m.set_msg_type(codec::COPIES_WANTED);
        (m.term, m.index, m.commit) = (term.0, first.0, last.0);
        Self(m)
    }

    /// The answer: entries that follow one another.
    #[must_use]
    pub fn copies_given(from: NodeId, to: NodeId, entries: Vec<Entry>) -> Self {
        let mut m = eraftpb::Message { from: from.0.into(), to: to.0.into(), ..eraftpb::Message::default() };
        m.set_msg_type(codec::COPIES_GIVEN);
        m.index = entries.first().map_or(0, |entry| entry.index.0.saturating_sub(1));
        m.term = entries.first().map_or(0, |entry| entry.term.0);
        m.entries = entries.into_iter().map(to_raft_entry).collect::<Vec<_>>().into();
        Self(m)
    }

    /// What it says of copies; `None` if it is a group's own.
    #[must_use]
    pub fn copies(&self) -> Option<Copies> {
        let m = &self.0;
        match m.get_msg_type() {
            codec::COPIES_WANTED => {
                Some(Copies::Wanted { term: Term(m.term), first: LogIndex(m.index), last: LogIndex(m.commit) })
            }
            codec::COPIES_GIVEN => Some(Copies::Given(m.entries.iter().map(from_raft_entry).collect())),
            _ => None,
        }
    }

    /// As it goes over the wire: docs/formats/peer-messages.md.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        codec::encode(&self.0)
    }

    /// Reads what `encode` wrote. Payloads are slices of `bytes`, not copies.
    ///
    /// # Errors
    /// The bytes are no message.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        codec::decode(bytes).map(Self)
    }
}

/// As a line of a trace: `1 -> 2 append term 1 after 0/0 entries 1..2 commit 0`.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = &self.0;
        write!(f, "{} -> {} ", m.from, m.to)?;
        let (index, log_term, commit) = (m.index, m.log_term, m.commit);
        match m.get_msg_type() {
            MessageType::MsgAppend => {
                write!(f, "append term {} after {log_term}/{index}", m.term)?;
                if let (Some(first), Some(last)) = (m.entries.first(), m.entries.last()) {
                    write!(f, " entries {}..={}", first.index, last.index)?;
                }
                write!(f, " commit {commit}")
            }
            MessageType::MsgAppendResponse if m.reject => {
                write!(f, "append refused term {} at {index}, try {log_term}/{}", m.term, m.reject_hint)
            }
            MessageType::MsgAppendResponse => write!(f, "appended term {} up to {index}", m.term),
            MessageType::MsgRequestPreVote => write!(f, "would you vote term {} last {log_term}/{index}", m.term),
            MessageType::MsgRequestVote => write!(f, "vote for me term {} last {log_term}/{index}", m.term),
            MessageType::MsgRequestPreVoteResponse => write!(f, "would vote {} term {}", yes(!m.reject), m.term),
            MessageType::MsgRequestVoteResponse => write!(f, "vote {} term {}", yes(!m.reject), m.term),
            MessageType::MsgHeartbeat => write!(f, "heartbeat term {} commit {commit}", m.term),
            MessageType::MsgHeartbeatResponse => write!(f, "heartbeat heard term {}", m.term),
            MessageType::MsgSnapshot => {
                let meta = m.get_snapshot().get_metadata();
                write!(f, "snapshot term {} at {}/{}", m.term, meta.term, meta.index)
            }
            MessageType::MsgTimeoutNow => write!(f, "take over term {}", m.term),
            codec::COPIES_WANTED => write!(f, "copies wanted of {index}..={commit} term {}", m.term),
            codec::COPIES_GIVEN => write!(f, "copies given after {index}: {}", m.entries.len()),
            other => write!(f, "{other:?} term {}", m.term),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({self})")
    }
}

const fn yes(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}

/// Node ids are u32 everywhere outside `raft`; the group checks that at the door.
pub(crate) fn node(id: u64) -> NodeId {
    NodeId(u32::try_from(id).unwrap_or(u32::MAX))
}
