//! The thread that owns group 0: commands in, the cluster's state out.
//!
//! ```text
//! MetaHandle --Command--> owner thread: propose -> journal -> fsync -> committed -> State::apply -> answer
//!     |                                                 (a thread of its own: see below)
//!     |                       ^  |                                                       |
//!     | not the leader        |  +--- messages ---> peers                watch: Arc<State> for everyone
//!     +-- call: offer --> the leader's owner: proposed at (term, index)
//!     +-- await (term, index) here: answered when this node has applied it
//! ```
//!
//! Syncing is another thread's, so that a slow disk makes changes slow and takes no leadership: heartbeats go on.
//! Proposals that arrive while one fsync is under way share the next one. Each is answered when its command
//! has been committed and applied **here**, and the state that shows it is published before that: whoever
//! asked reads its own writes, also on a node that does not lead. The leader only says where it put the
//! command; what came of it every node finds out by itself, so an answer survives the leader's death.
//!
//! What always holds: a command that was answered is durable on a majority. A full disk refuses commands
//! until there is room. A journal that fails otherwise stops the thread: proposals are answered with the
//! reason from then on, the last state stays readable, and everything that needs no metadata change goes on.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use base::disk::Disk;
use base::{LogIndex, NodeId, Term, Tick};
use bytes::Bytes;
use control::{Applied, Command, Refused, State};
use quorum::{Journal, JournalError, MembershipError, ProposeError, QuorumError, SyncDone};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::outbox::Outbox;
use super::peers::{GroupFrame, PeersHandle};
use crate::node::findings::Findings;
use crate::node::time;

mod forward;
mod owner;
#[cfg(test)]
mod tests;

pub use forward::answer;
pub use owner::start;

/// Proposals waiting for the thread or for their answer.
const PROPOSALS_MAX: usize = 4_096;
/// Proposals put into one journal write.
const DRAIN_MAX: usize = 256;
/// Largest encoded command.
const COMMAND_BYTES_MAX: usize = 8 << 20;
/// Bytes proposed and not yet committed. More than one drain may hold, so that only a stalled disk meets it.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Applied commands after which a snapshot is taken and the journal shortened ..
const SNAPSHOT_ENTRIES: u64 = 4_096;
/// .. or bytes by which the journal has grown.
const SNAPSHOT_BYTES: u64 = 16 << 20;
/// Outcomes kept for those who ask after the fact.
const OUTCOMES_MAX: usize = 8_192;
/// Longest wait for an answer.
pub const PROPOSE_MS_MAX: u64 = 5_000;
/// A majority that has been out of reach for this long is not waited for.
const MISSING_MS_MAX: u64 = 1_000;
/// Between two tries to find the leader.
const RETRY: Duration = Duration::from_millis(20);

const _: () = assert!(COMMAND_BYTES_MAX < Journal::ENTRY_BYTES_MAX, "a command must fit into a journal entry");

/// Why the control plane did not do what it was asked.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum MetaError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error("the nodes that have the metadata: {0}")]
    Members(#[from] MembershipError),
    #[error("a metadata change of {bytes} bytes is larger than the {COMMAND_BYTES_MAX} bytes allowed: split it")]
    TooLarge { bytes: usize },
    /// A change that was being written may still take effect.
    #[error("the disk is full: metadata can be changed again when there is room")]
    DiskFull,
    /// Nothing was changed. Ask again.
    #[error("{}", no_leader(.missing, *.voters))]
    NoLeader { missing: Vec<NodeId>, voters: usize },
    /// It may still take effect.
    #[error("the change was not confirmed within {waited_ms} ms; it may still take effect: look, then ask again")]
    Timeout { waited_ms: u64 },
    #[error("metadata cannot be changed: {0}")]
    Stopped(String),
}

fn no_leader(missing: &[NodeId], voters: usize) -> String {
    let named = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if missing.len() > voters.saturating_sub(1) / 2 {
        format!(
            "metadata cannot be changed now: {} of the {voters} nodes that vote are out of reach (node {named}); it \
             resumes by itself when a majority can talk",
            missing.len()
        )
    } else {
        "metadata cannot be changed now: an active master is being elected; ask again".to_owned()
    }
}

/// Why group 0 could not be opened. The node does not start.
#[derive(Debug, thiserror::Error)]
pub enum MetaOpenError {
    #[error("the metadata journal: {0}")]
    Journal(#[from] JournalError),
    #[error("the metadata group: {0}")]
    Quorum(#[from] QuorumError),
    #[error("the metadata state: {0}")]
    State(#[from] control::CodecError),
    #[error("the metadata: {0}")]
    Meta(#[from] MetaError),
    #[error("the metadata thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Who leads group 0, as far as this node knows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MasterStatus {
    pub term: Term,
    pub leader: Option<NodeId>,
    /// This node leads and has applied everything that was decided before it did: it is the active master.
    pub is_active: bool,
    pub voters: Vec<NodeId>,
    /// Nodes that follow and have no vote.
    pub learners: Vec<NodeId>,
    /// Voters that this node has no connection to.
    pub missing: Vec<NodeId>,
    /// Since when there is no leader.
    pub leaderless_since: Option<Tick>,
}

impl MasterStatus {
    /// Enough voters can be reached to elect someone.
    pub fn has_majority(&self) -> bool {
        self.missing.len() <= self.voters.len().saturating_sub(1) / 2
    }
}

enum Input {
    /// To be proposed here, if this node leads.
    Propose(Bytes, Waiter),
    /// As `Propose`, for another node: answered as soon as it has a place.
    Offer(Bytes, oneshot::Sender<Result<(Term, LogIndex), MetaError>>),
    /// What came of what was proposed elsewhere.
    Await(Term, LogIndex, Waiter),
    Message(GroupFrame),
    Link(NodeId, bool),
    Transfer(NodeId),
    SetMembers {
        voters: Vec<NodeId>,
        learners: Vec<NodeId>,
        reply: oneshot::Sender<Result<(), MembershipError>>,
    },
    Status(oneshot::Sender<quorum::GroupStatus>),
    /// The state, the term of its last entry, and who votes.
    Backup(oneshot::Sender<(Arc<State>, Term, Vec<NodeId>)>),
    /// The journal up to that ready was synced, or not.
    Synced(u64, SyncDone),
    Close(oneshot::Sender<()>),
}

/// Who proposed, and the place that the proposal takes until it is answered.
struct Waiter {
    reply: oneshot::Sender<Result<Applied, Failed>>,
    _place: Option<Arc<OwnedSemaphorePermit>>,
}

/// Why a proposal did not get through here.
#[derive(Clone, Debug)]
enum Failed {
    /// Another entry took its place: it will never take effect.
    Replaced,
    NotLeader(Option<NodeId>),
    /// This node skipped the entry by a snapshot.
    Unknown,
    Error(MetaError),
}

impl Waiter {
    /// Whoever asked may have gone.
    fn answer(self, result: Result<Applied, Failed>) {
        drop(self.reply.send(result));
    }
}

/// What [`start`] needs.
pub struct Start {
    pub disk: Arc<dyn Disk>,
    pub dir: String,
    pub node: NodeId,
    /// The voters of the group's first entry. Of a group that is there already its own journal says who votes.
    pub voters: Vec<NodeId>,
    pub findings: Arc<Findings>,
    pub outbox: Arc<dyn Outbox>,
    /// For proposals that belong to the leader. `None`: alone.
    pub peers: Option<PeersHandle>,
}

/// Group 0 as the rest of the server sees it.
#[derive(Clone)]
pub struct MetaHandle {
    inputs: Arc<mpsc::Sender<Input>>,
    state: watch::Receiver<Arc<State>>,
    master: watch::Receiver<Arc<MasterStatus>>,
    places: Arc<Semaphore>,
    peers: Option<PeersHandle>,
}

impl MetaHandle {
    /// The state after the last applied command.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// Changes with every applied command.
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    /// Who leads group 0.
    pub fn master(&self) -> Arc<MasterStatus> {
        Arc::clone(&self.master.borrow())
    }

    /// Changes with the leadership of group 0 and with who can be reached. Duties that only one node may
    /// have run while `is_active` holds, with its term as their fence.
    pub fn watch_master(&self) -> watch::Receiver<Arc<MasterStatus>> {
        self.master.clone()
    }

    /// Answers when the command has been committed and applied here, within [`PROPOSE_MS_MAX`].
    ///
    /// # Errors
    /// After `Timeout` it may still take effect; otherwise nothing was changed.
    pub async fn propose(&self, command: Command) -> Result<Applied, MetaError> {
        let data = command.encode();
        if data.len() > COMMAND_BYTES_MAX {
            return Err(MetaError::TooLarge { bytes: data.len() });
        }
        let deadline = time::now().plus(PROPOSE_MS_MAX);
        let mut attempt = forward::Attempt::new(command, data);
        let asked = tokio::time::timeout(Duration::from_millis(PROPOSE_MS_MAX), attempt.run(self, deadline)).await;
        match asked {
            Ok(answer) => answer,
            Err(_) if attempt.may_have_been_proposed => Err(MetaError::Timeout { waited_ms: PROPOSE_MS_MAX }),
            Err(_) => Err(self.no_leader()),
        }
    }

    /// Proposes here for another node; answers where the command stands, before it is decided.
    pub async fn offer(&self, data: Bytes) -> Result<(Term, LogIndex), MetaError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Input::Offer(data, reply))?;
        answer.await.map_err(|_| gone())?
    }

    /// A message from another member.
    pub fn step(&self, frame: GroupFrame) {
        drop(self.tell(Input::Message(frame)));
    }

    /// The connection to a node came or went.
    pub fn link(&self, node: NodeId, is_connected: bool) {
        drop(self.tell(Input::Link(node, is_connected)));
    }

    /// Asks `node` to lead. Takes effect if this node leads and `node` is up to date; watch for it.
    pub fn transfer_leadership(&self, node: NodeId) {
        drop(self.tell(Input::Transfer(node)));
    }

    /// Asks the group to have other members. Done when [`MetaHandle::status`] says so.
    ///
    /// # Errors
    /// Nothing was begun: this node does not lead, or another change is under way.
    pub async fn set_members(&self, voters: Vec<NodeId>, learners: Vec<NodeId>) -> Result<(), MetaError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Input::SetMembers { voters, learners, reply })?;
        Ok(answer.await.map_err(|_| gone())??)
    }

    /// Who holds what of group 0, as this node knows it. `None`: the thread has ended.
    pub async fn status(&self) -> Option<quorum::GroupStatus> {
        let (reply, answer) = oneshot::channel();
        self.tell(Input::Status(reply)).ok()?;
        answer.await.ok()
    }

    /// The state as of its last entry, that entry's term, and who votes: all of one moment. `None`: the thread has ended.
    pub async fn backup(&self) -> Option<(Arc<State>, Term, Vec<NodeId>)> {
        let (reply, answer) = oneshot::channel();
        self.tell(Input::Backup(reply)).ok()?;
        answer.await.ok()
    }

    /// Ends the thread after what it is doing.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.tell(Input::Close(reply)).is_ok() {
            drop(done.await);
        }
    }

    fn tell(&self, input: Input) -> Result<(), MetaError> {
        self.inputs.send(input).map_err(|_| gone())
    }

    fn no_leader(&self) -> MetaError {
        let master = self.master();
        MetaError::NoLeader { missing: master.missing.clone(), voters: master.voters.len() }
    }
}

fn gone() -> MetaError {
    MetaError::Stopped("its thread has ended".into())
}
