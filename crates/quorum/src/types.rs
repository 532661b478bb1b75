//! What goes in and out of a group: entries, hard state, snapshot, ready.

use base::{LogIndex, NodeId, Term, Tick};
use bytes::Bytes;

use crate::{Members, Message};

/// What an entry carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// Nothing: the entry every leader starts its term with. It commits what earlier terms left.
    Empty,
    /// What was proposed. Never empty.
    Data(Bytes),
    /// A change of the members: [`crate::Members::after`] says to what. Stored as it is; when it is committed,
    /// [`crate::Group::apply_membership`] makes it so.
    Membership(Bytes),
}

impl Payload {
    /// The bytes carried, whatever their kind.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::Data(bytes) | Self::Membership(bytes) => bytes,
        }
    }
}

/// One entry of a group's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub term: Term,
    pub index: LogIndex,
    pub payload: Payload,
}

/// What a voter must never forget: its term, whom it voted for in it, and (for speed only) what it knows to
/// be committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    pub term: Term,
    pub vote: Option<NodeId>,
    pub commit: LogIndex,
}

/// The state machine after the entry `index`, in place of the log up to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    pub index: LogIndex,
    pub term: Term,
    /// As of `index`.
    pub members: Members,
    pub data: Bytes,
}

/// What the caller must do next; see the crate's documentation for the order.
#[derive(Debug)]
pub struct Ready {
    /// Names this ready in `written` and `persisted`. Grows by one each time.
    pub number: u64,
    /// The hard state to write, if it changed.
    pub hard_state: Option<HardState>,
    /// Entries to write. The first may be at or below the last one written: it and all above are replaced.
    pub entries: Vec<Entry>,
    /// True if this ready needs an fsync before `persisted`; false if only the commit index moved.
    pub must_sync: bool,
    /// A snapshot from the leader, to be installed before the entries: it replaces the whole log.
    pub snapshot: Option<Snapshot>,
    /// To be sent now.
    pub messages: Vec<Message>,
    /// To be sent after this ready is persisted, never before: they promise that it is.
    pub messages_after_persist: Vec<Message>,
    /// Entries that are decided, to take effect in order.
    pub committed: Vec<Entry>,
}

/// What this node is in its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Leader,
    Follower,
    /// Asking for votes.
    Candidate,
    /// Receives the log but has no vote.
    Learner,
}

/// A group as an operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupStatus {
    pub role: Role,
    pub term: Term,
    /// As far as this node has heard.
    pub leader: Option<NodeId>,
    pub commit: LogIndex,
    pub last: LogIndex,
    pub members: Members,
    /// The other members, in ascending order.
    pub peers: Vec<PeerStatus>,
    /// How long the lease goes on; 0 without one. Of a sole voter it never ends: always `lease_ms`.
    pub lease_left_ms: u64,
    /// How many times the configured timeout is waited, from what was measured of late; 1 on a quiet machine.
    pub patience: u32,
}

/// Another member, as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    pub node: NodeId,
    /// The log there is the leader's up to here; known to the leader only, else 0.
    pub matched: LogIndex,
    /// When the last message came from there; `None` if never since this node started.
    pub last_heard: Option<Tick>,
    /// The leader sends no entries now: it waits for an answer or for a snapshot to arrive.
    pub paused: bool,
}
