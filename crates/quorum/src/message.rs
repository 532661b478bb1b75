//! A message between the members of a group.

use std::fmt;

use base::{NodeId, Term};
use bytes::Bytes;
use raft::eraftpb::{self, MessageType};

use crate::DecodeError;

pub(crate) mod codec;

/// What one member tells another. Opaque: carry it, as bytes between nodes, and give it to
/// [`crate::Group::step`] of its receiver.
#[derive(Clone, PartialEq)]
pub struct Message(pub(crate) eraftpb::Message);

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

    /// Most bytes of an encoded message. Decode refuses more; only a snapshot can be larger.
    pub const BYTES_MAX: usize = 128 << 20;

    /// Carries entries or a snapshot, or belongs in order among those that do. The others are small and urgent.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        matches!(self.0.get_msg_type(), MessageType::MsgAppend | MessageType::MsgSnapshot)
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
