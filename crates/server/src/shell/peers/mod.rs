//! The links to the other nodes: frames in order per lane, calls with a deadline, and word of who is there.
//!
//! ```text
//! send(to, lane, group, bytes) --> queue of the lane, bounded --> writer task ==TCP==> reader task --> Inbound::group
//! call(to, kind, body, deadline) --------- the same lanes ---------------------------> Inbound::call --> answer
//!                                                       Up, Silent, Heard, Down, ... --> Inbound::link
//! ```
//!
//! Between two nodes there are two connections (docs/formats/peer-protocol.md says why): heartbeats and votes never
//! wait behind appends.
//!
//! A node that no link is up to is reached through one that has links to both, if there is one (`relay`).
//!
//! What always holds: sending never blocks; frames of one lane arrive in order, each once, or are lost together with
//! the connection, which [`LinkEvent::Down`] or [`LinkEvent::Interrupted`] tells; memory for a peer is bounded, both
//! ways, whatever it does; no length is believed; a peer is dialled for ever, with a pause of half a second at most.
//!
//! Deliberately not here: what a message means, who is a member, whether a node is alive. A silent link is a hint.

mod admission;
mod calls;
mod connection;
pub mod enter;
mod frame;
mod handshake;
mod hello;
pub mod join;
mod links;
mod local;
mod peer;
mod queue;
mod relay;
#[cfg(test)]
pub mod tests;
pub mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, DiskId, NodeId};
use bytes::Bytes;
use quorum::GroupKey;
use tokio::sync::{OwnedSemaphorePermit, watch};
use uuid::Uuid;

pub use handshake::HandshakeError;
pub use hello::{Refusal, RefusalCode};

use frame::{Frame, KEY_BYTES, Status};
use join::Authority;
use links::Links;
use peer::Peer;
use queue::PushError;
use tls::Tls;

/// Largest frame of the control lane, its key included.
pub const CONTROL_FRAME_BYTES_MAX: usize = 256 << 10;
/// Largest frame of the bulk lane: the largest message of a group with its key, passed on for another node.
pub const BULK_FRAME_BYTES_MAX: usize = (128 << 20) + KEY_BYTES + relay::PASSED_BYTES;
/// Calls and answers up to this size go with the control lane.
const SMALL_CALL_BYTES_MAX: usize = 16 << 10;

/// Which of a link's two connections carries a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lane {
    /// Small and urgent: votes, heartbeats, answers to appends.
    Control,
    /// Everything that may be large: appends, snapshots.
    Bulk,
}

/// What differs between the lanes. As drawn in docs/formats/peer-protocol.md.
#[derive(Clone, Copy, Debug)]
struct LaneLimits {
    frame_bytes_max: usize,
    /// Waiting to be sent to one peer.
    queue_bytes_max: usize,
    /// Received from one peer and not yet worked on. A larger frame takes all of it.
    room_bytes_max: usize,
    /// After so much silence of its own a side sends a ping.
    keep_alive: Duration,
    /// Without a byte for this long the connection is given up.
    dead_after: Duration,
    /// A write without progress for this long gives the connection up.
    stall_max: Duration,
}

const CONTROL: LaneLimits = LaneLimits {
    frame_bytes_max: CONTROL_FRAME_BYTES_MAX,
    queue_bytes_max: 8 << 20,
    room_bytes_max: 8 << 20,
    keep_alive: Duration::from_millis(100),
    dead_after: Duration::from_secs(2),
    stall_max: Duration::from_secs(2),
};

const BULK: LaneLimits = LaneLimits {
    frame_bytes_max: BULK_FRAME_BYTES_MAX,
    queue_bytes_max: 64 << 20,
    room_bytes_max: 64 << 20,
    keep_alive: Duration::from_millis(500),
    dead_after: Duration::from_secs(3),
    stall_max: Duration::from_secs(10),
};

const _: () =
    assert!(quorum::Message::BYTES_MAX + KEY_BYTES + relay::PASSED_BYTES <= BULK_FRAME_BYTES_MAX, "it must fit");
const _: () = assert!(SMALL_CALL_BYTES_MAX <= CONTROL_FRAME_BYTES_MAX, "a small call must fit into its lane");

impl Lane {
    const fn number(self) -> u8 {
        match self {
            Self::Control => 0,
            Self::Bulk => 1,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Control),
            1 => Some(Self::Bulk),
            _ => None,
        }
    }

    const fn limits(self) -> LaneLimits {
        match self {
            Self::Control => CONTROL,
            Self::Bulk => BULK,
        }
    }
}

/// A member as this node knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// `host:port` of its `listen.peer`; resolved anew at each attempt.
    pub address: String,
    /// Where it may be otherwise, tried in turn with the address.
    pub other_address: Option<String>,
    /// Its disk, once the metadata knows it. Another disk under its id is refused then.
    pub disk: Option<DiskId>,
}

/// Who may be spoken to. This node itself may be among them; it is skipped.
pub type Members = BTreeMap<NodeId, Member>;

/// How links are protected.
#[derive(Clone, Debug)]
pub enum Security {
    /// Not at all: for loopback, or a network that is trusted.
    Plain,
    /// Both sides prove who they are. New connections follow every change.
    Tls {
        tls: watch::Receiver<Arc<Tls>>,
        /// Where newcomers are given certificates; `None` on nodes that cannot.
        authority: Option<Arc<dyn Authority>>,
    },
}

impl Security {
    fn tls(&self) -> Option<Arc<Tls>> {
        match self {
            Self::Plain => None,
            Self::Tls { tls, .. } => Some(Arc::clone(&tls.borrow())),
        }
    }
}

/// Ids that the cluster had before, with what nodes that still have one are told.
pub type Former = BTreeMap<ClusterId, String>;

/// What [`start`] needs.
#[derive(Debug)]
pub struct PeersConfig {
    pub node: NodeId,
    /// This node's disk.
    pub disk: DiskId,
    /// This node's cluster; `None` until it is formed or joined.
    pub cluster: watch::Receiver<Option<ClusterId>>,
    pub former: watch::Receiver<Arc<Former>>,
    pub listen: SocketAddr,
    pub security: Security,
    /// Links follow every change.
    pub members: watch::Receiver<Arc<Members>>,
}

/// Why there are no links at all.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    #[error("listen.peer {0}: {1}; is another process using it?")]
    Listen(SocketAddr, std::io::Error),
    #[error("the peer threads: {0}")]
    Threads(std::io::Error),
}

/// A message for a group, as it came from a peer. As long as it lives it takes room of what may be received from
/// that peer: keep it until the message has been worked on.
#[derive(Debug)]
pub struct GroupFrame {
    pub from: NodeId,
    pub lane: Lane,
    pub group: GroupKey,
    pub message: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl GroupFrame {
    /// One that came from nowhere: for tests without sockets.
    #[cfg(test)]
    pub fn local(from: NodeId, lane: Lane, group: GroupKey, message: Bytes) -> Self {
        Self { from, lane, group, message, _room: None }
    }
}

/// What arrives. Nothing here may block, except that `call` may await.
#[async_trait::async_trait]
pub trait Inbound: Send + Sync + 'static {
    /// Frames of one peer and lane come in order.
    fn group(&self, frame: GroupFrame);

    /// Answers a call; runs on the runtime [`start`] was called in, beside others. An `Err` reaches the caller as
    /// [`CallError::Failed`].
    async fn call(&self, from: NodeId, kind: u8, body: Bytes) -> Result<Bytes, String>;

    /// A node asks to be made a member; its certificate, if there are any, is for that node. The answer is what it must
    /// know. Runs as `call` does.
    async fn enter(&self, node: NodeId, body: Bytes) -> Result<Bytes, Refusal>;

    /// Events of one peer come in order. Must not call the [`PeersHandle`] back from within.
    fn link(&self, peer: NodeId, event: LinkEvent);
}

/// What happened to a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// Frames can be sent. `restarted`: it is another instance than the one that was connected before, so what that
    /// one kept in memory is gone.
    Up { instance: Uuid, restarted: bool },
    /// Nothing was heard for this long. It may be dead, stopped, or cut off.
    Silent { quiet_ms: u64 },
    /// Heard again after [`LinkEvent::Silent`].
    Heard,
    /// The bulk connection broke; what was on its way there is lost. The link itself is up.
    Interrupted { reason: String },
    /// The link broke; what was on its way is lost, open calls have failed. Or the way over another node has ended.
    Down { reason: String },
    /// No link is up, and frames and calls go through this node, which has links to both. Ends with `Up`, `Heard` or `Down`.
    Relayed { by: NodeId },
    /// This node refused the peer, or the peer this node, for this reason; both are told. Repeated only when the
    /// reason changes. A second process under a connected peer's id is told of in this way too: the link stays up.
    Refused { reason: String },
    /// Nobody has been refused under this node id for five seconds, or the link has come up.
    RefusalOver,
}

/// Why a frame was not taken. It is dropped: a group hears `report_unreachable`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    #[error("node {0} is not a member")]
    Unknown(NodeId),
    #[error("node {0} is not connected")]
    NotConnected(NodeId),
    #[error("{bytes} bytes wait for node {node}, who takes them too slowly")]
    Full { node: NodeId, bytes: usize },
    #[error("a frame of {bytes} bytes is larger than the {max} bytes of its lane")]
    TooLarge { bytes: usize, max: usize },
}

/// Why a call has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    /// Not sent: it had no effect.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The peer has too many calls of ours under way; it had no effect.
    #[error("node {0} is busy with too many calls: retry")]
    Busy(NodeId),
    /// The link broke meanwhile: the outcome is unknown.
    #[error("the link to node {0} broke before it answered; the outcome is unknown")]
    Lost(NodeId),
    /// The outcome is unknown.
    #[error("node {node} did not answer within {waited_ms} ms; the outcome is unknown")]
    Timeout { node: NodeId, waited_ms: u64 },
    /// The peer's own words.
    #[error("node {node}: {reason}")]
    Failed { node: NodeId, reason: String },
}

/// How a link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    Up,
    /// Connected, and nothing heard for half a second.
    Silent,
    Down,
    Refused,
}

/// A link as `cluster status` shows it. Counts are of both lanes, since the start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkStatus {
    pub node: NodeId,
    pub address: String,
    pub state: LinkState,
    /// How long it has been so.
    pub since_ms: u64,
    /// Why it is down or refused.
    pub reason: Option<String>,
    pub instance: Option<Uuid>,
    pub disk: Option<DiskId>,
    /// Smoothed round trip of the control lane, in microseconds.
    pub round_trip_us: Option<u64>,
    pub last_heard_ms: Option<u64>,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Waiting to be sent, in the control lane and in the bulk lane.
    pub queued_bytes: [usize; 2],
    /// Frames dropped because the queue was full.
    pub dropped_frames: u64,
    /// Times the link came up.
    pub connects: u64,
    /// Who passes on what this node and the other have to say to each other, while they have no link.
    pub relayed_by: Option<NodeId>,
    /// Frames and calls that this node passed on to the other for a third.
    pub passed_on: u64,
}

/// The links. Cheap to clone; they end with [`PeersHandle::close`] or with the last handle.
#[derive(Clone, Debug)]
pub struct PeersHandle(Arc<Links>);

impl PeersHandle {
    /// Queues a message for a group on another node. Never blocks.
    ///
    /// # Errors
    /// The frame is dropped; see [`SendError`].
    pub fn send(&self, to: NodeId, lane: Lane, group: GroupKey, message: Bytes) -> Result<(), SendError> {
        let by = self.0.relays.by(to);
        let peer = self.0.peer(by.unwrap_or(to)).ok_or(SendError::Unknown(to))?;
        let frame = match by {
            None => Frame::Group { group, message },
            Some(_) => relay::pass(self.0.local.node, to, group, &message),
        };
        push(&peer, lane, frame)
    }

    /// True while half of what may wait to be sent to `to` on the bulk lane does.
    #[must_use]
    pub fn is_crowded(&self, to: NodeId) -> bool {
        let queued = self.0.peer(to).map_or(0, |peer| peer.lane(Lane::Bulk).queue.load().0);
        queued > BULK.queue_bytes_max / 2
    }

    /// Asks another node; waits for the answer no longer than `patience`. Calls have no order among themselves.
    ///
    /// # Errors
    /// [`CallError`] says whether the call may have had an effect.
    pub async fn call(&self, to: NodeId, kind: u8, body: Bytes, patience: Duration) -> Result<Bytes, CallError> {
        let by = self.0.relays.by(to);
        let peer = self.0.peer(by.unwrap_or(to)).ok_or(SendError::Unknown(to))?;
        match by {
            None => direct_call(&peer, kind, body, patience).await,
            Some(_) => relay::call(&peer, (self.0.local.node, to), kind, &body, patience).await,
        }
    }

    /// Through whom a node is reached that no link is up to; `None`: over its link, or not at all.
    pub fn relayed_by(&self, to: NodeId) -> Option<NodeId> {
        self.0.relays.by(to)
    }

    /// Every member but this one, by id.
    pub fn links(&self) -> Vec<LinkStatus> {
        let mut links: Vec<LinkStatus> = self.0.peers().values().map(|peer| peer.status()).collect();
        for link in &mut links {
            link.relayed_by = self.0.relays.by(link.node);
            link.passed_on = self.0.relays.passed_on(link.node);
        }
        links
    }

    #[cfg(test)]
    pub fn is_up(&self, node: NodeId) -> bool {
        self.0.peer(node).is_some_and(|peer| peer.is_up())
    }

    /// Where peers connect; the port is the real one if 0 was asked for.
    #[cfg(test)]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Chosen at this start.
    #[cfg(test)]
    pub fn instance(&self) -> Uuid {
        self.0.local.instance
    }

    /// Ends all links, telling the peers, so that they need not find out.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

async fn direct_call(peer: &Peer, kind: u8, body: Bytes, patience: Duration) -> Result<Bytes, CallError> {
    let to = peer.node;
    let mut waiting = peer.calls.wait().ok_or(CallError::Busy(to))?;
    let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    let frame = Frame::Request { id: waiting.id, patience_ms, kind, body };
    let lane = if frame.payload_bytes() <= SMALL_CALL_BYTES_MAX { Lane::Control } else { Lane::Bulk };
    push(peer, lane, frame)?;
    let answer = tokio::time::timeout(patience, waiting.answer());
    let timeout = CallError::Timeout { node: to, waited_ms: patience_ms.into() };
    let (status, body) = answer.await.map_err(|_| timeout)?.ok_or(CallError::Lost(to))?;
    match status {
        Status::Done => Ok(body),
        Status::Failed => Err(CallError::Failed { node: to, reason: hello::printable(&body) }),
        Status::Busy => Err(CallError::Busy(to)),
        Status::TooLarge => {
            let reason = format!("its answer is larger than {BULK_FRAME_BYTES_MAX} bytes");
            Err(CallError::Failed { node: to, reason })
        }
    }
}

fn push(peer: &Peer, lane: Lane, frame: Frame) -> Result<(), SendError> {
    let (bytes, max) = (frame.payload_bytes(), lane.limits().frame_bytes_max);
    if bytes > max {
        return Err(SendError::TooLarge { bytes, max });
    }
    peer.lane(lane).queue.push(frame).map_err(|error| match error {
        PushError::Closed => SendError::NotConnected(peer.node),
        PushError::Full { bytes } => SendError::Full { node: peer.node, bytes },
    })
}

/// Listens and begins to dial. Must be called within a tokio runtime, where calls are answered; the links themselves
/// run on threads of their own, so that heartbeats do not wait behind requests.
///
/// # Errors
/// [`PeersError`] if the address cannot be used.
pub fn start(config: PeersConfig, inbound: Arc<dyn Inbound>) -> Result<PeersHandle, PeersError> {
    Links::start(config, inbound).map(|links| PeersHandle(Arc::new(links)))
}
