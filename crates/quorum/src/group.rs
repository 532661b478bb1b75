//! One Raft group.

use std::fmt;

use base::{LogIndex, NodeId, Term, Tick};
use bytes::Bytes;
use raft::eraftpb::{self, MessageType};
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};

use crate::message::codec::{context_of, is_between_members, sent_ms_of};
use crate::message::node;
use crate::storage::{Adapter, from_conf_state, from_raft_entry, from_raft_hard_state, from_raft_snapshot};
use crate::{
    GroupStatus, HardState, Members, Message, PeerStatus, ProposeError, QuorumError, Ready, Role, Storage, StorageError,
};

mod check;
mod contest;
mod election;
mod membership;
pub(crate) mod pace;
mod promise;
mod quiet;
mod reading;

use check::{check_open, raft_id};
use contest::{Contest, Turn};
use pace::Pace;
use promise::{Peers, Promise};
pub use reading::Read;

/// Committed entries handed out by one [`Ready`] stop after this many bytes; the next ready goes on.
const COMMITTED_BYTES_PER_READY_MAX: u64 = 16 << 20;
/// Entries in one message stop after this many bytes.
const MESSAGE_BYTES_MAX: u64 = 256 << 10;

/// An append that finds out how far a follower is goes out again after so many heartbeats without an answer.
const PROBE_AGAIN_HEARTBEATS: u64 = 4;

/// How a group behaves. Who votes is the storage's to say: [`crate::Initial`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupConfig {
    pub node: NodeId,
    /// A follower asks for votes after hearing nothing for this many ticks, up to twice as many by chance.
    pub election_ticks: u32,
    /// A leader speaks every so many ticks.
    pub heartbeat_ticks: u32,
    /// What chance is drawn from.
    pub seed: u64,
    /// A leader takes no proposal while this many bytes wait to be committed; one always fits.
    pub uncommitted_bytes_max: u64,
    /// Appends under way to one follower.
    pub inflight_messages_max: usize,
    /// The owner calls [`Group::tick`] once per so many milliseconds of real time, and after a stall does not
    /// catch up.
    pub tick_ms: u64,
    /// How long a leader may act alone after a majority heard from it. Shorter than a voter's promise, which
    /// is `election_ticks - 1` ticks, by more than clocks may drift apart in that time: 5 %.
    pub lease_ms: u64,
}

impl GroupConfig {
    /// What every group of a node uses, if nothing speaks against it: a lost leader is replaced after 250 to
    /// 500 ms.
    #[must_use]
    pub const fn standard(node: NodeId, seed: u64) -> Self {
        Self {
            node,
            election_ticks: 10,
            heartbeat_ticks: 1,
            seed,
            uncommitted_bytes_max: 64 << 20,
            // Each batch of a producer counts as one. What is read for a follower that comes back is bounded in bytes.
            inflight_messages_max: 32,
            tick_ms: 25,
            lease_ms: 200,
        }
    }
}

/// One Raft group; see the crate's documentation for the order of calls.
pub struct Group<S: Storage> {
    node: RawNode<Adapter<S>>,
    config: GroupConfig,
    /// Handed out by `ready` and not yet `written`.
    pending: Option<raft::Ready>,
    /// The term and vote last handed out to be written.
    vote: (Term, Option<NodeId>),
    /// The ready that carried them, until it is persisted.
    vote_unpersisted: Option<u64>,
    /// Index of a snapshot handed out, and the ready that carried it, until it is persisted.
    snapshot_unpersisted: Option<(u64, LogIndex)>,
    /// The latest time the owner gave.
    now: Tick,
    members: Members,
    peers: Peers,
    promise: Promise,
    /// It was leader when the group was last looked at.
    led: bool,
    /// The term in which this leader told another member to take over.
    handed_over: Option<Term>,
    ask_again_left: u32,
    /// Ticks since anything was last handed out to be written or applied.
    idle_ticks: u32,
    /// Given to the caller to be read and not yet brought back.
    reading: Vec<Read>,
    pace: Pace,
    contest: Contest,
}

impl<S: Storage> Group<S> {
    /// Opens a group on what `storage` holds, as a follower (or learner) that has heard of no leader.
    pub fn open(config: GroupConfig, storage: S) -> Result<Self, QuorumError> {
        let applied = check_open(&config, &storage)?;
        let crate::Initial { hard_state: HardState { term, vote, .. }, members, .. } = storage.initial();
        let raft_config = raft::Config {
            id: u64::from(config.node.0),
            election_tick: config.election_ticks as usize,
            heartbeat_tick: config.heartbeat_ticks as usize,
            min_election_tick: config.election_ticks as usize,
            max_election_tick: (pace::STRETCH_MAX.max(contest::PATIENCE_MAX) * 2 * config.election_ticks) as usize,
            applied: applied.0,
            check_quorum: true,
            pre_vote: true,
            max_size_per_msg: MESSAGE_BYTES_MAX.min(config.uncommitted_bytes_max),
            max_inflight_msgs: config.inflight_messages_max,
            max_uncommitted_size: config.uncommitted_bytes_max,
            max_committed_size_per_ready: COMMITTED_BYTES_PER_READY_MAX,
            // `raft` would join entries onto an empty append of another place; see `joins`.
            batch_append: false,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&raft_config, Adapter::new(storage), &logger)
            .map_err(|error| QuorumError::Config(error.to_string()))?;
        let silent = term > Term::ZERO && members.sole_voter() != Some(config.node);
        let promise = if silent { Promise::unknown(&config) } else { Promise::default() };
        let mut group = Self {
            node,
            config,
            pending: None,
            vote: (term, vote),
            vote_unpersisted: None,
            snapshot_unpersisted: None,
            now: Tick(0),
            members,
            peers: Peers::default(),
            promise,
            led: false,
            handed_over: None,
            ask_again_left: 0,
            idle_ticks: 0,
            reading: Vec::new(),
            pace: Pace::default(),
            contest: Contest::new(term.0),
        };
        group.draw_timeout();
        Ok(group)
    }

    /// Takes a message from another member. An error means that it was dropped.
    pub fn step(&mut self, now: Tick, message: Message) -> Result<(), QuorumError> {
        self.advance(now);
        self.assert_no_pending();
        self.check_running()?;
        self.check_message(&message)?;
        let from = message.from();
        let last_heard = self.peers.get(from).map(|peer| peer.last_heard);
        self.peers.heard(from, self.now);
        if self.refuses_vote(&message) {
            return Ok(());
        }
        let turn = self.turn(&message);
        if turn == Turn::Stand {
            self.took_turn(turn);
            return Ok(());
        }
        let mut m = message.0;
        let (kind, current) = (m.get_msg_type(), m.term >= self.node.raft.term);
        if kind == MessageType::MsgHeartbeatResponse {
            let sent = sent_ms_of(&m.take_context()).map(Tick);
            if let Some(sent) = sent {
                self.measure_answer(from, sent.min(self.now));
            }
            if self.node.raft.state == StateRole::Leader && m.term == self.node.raft.term {
                // No answer to what was not asked yet.
                self.peers.acked(from, self.term(), sent.unwrap_or_default().min(self.now));
            }
        }
        if kind == MessageType::MsgHeartbeatResponse {
            self.read_on(from);
        }
        if kind == MessageType::MsgHeartbeatResponse && self.waits_for_probe(from) {
            self.react();
            return Ok(());
        }
        let speaks = matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat);
        // One that this node left for its silence, and that lives.
        let is_left = m.term < self.node.raft.term && !self.led;
        if speaks && (is_left || self.leader() == Some(from)) {
            self.measure_silence(last_heard);
        }
        let members = (kind == MessageType::MsgSnapshot).then(|| self.come_aboard(&mut m));
        let outcome = self.node.step(m);
        self.took_turn(turn);
        if matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot) && current {
            self.heard_leader();
        }
        if let Some(members) = members.filter(|_| self.node.snap().is_some()) {
            self.peers.retain(&members);
            self.members = members;
        }
        self.react();
        outcome.map_err(|error| QuorumError::BadMessage { from, what: error.to_string() })
    }

    /// Proposes an entry; returns where it stands. It is decided when [`Ready::committed`] has an entry of
    /// this term at this index; an entry of another term there means it was replaced and never will be.
    pub fn propose(&mut self, data: Bytes) -> Result<(Term, LogIndex), ProposeError> {
        assert!(!data.is_empty(), "a proposal carries at least one byte: an empty entry is a leader's first");
        self.assert_no_pending();
        self.check_leads()?;
        let entry = eraftpb::Entry { data, ..eraftpb::Entry::default() };
        let message = eraftpb::Message {
            msg_type: MessageType::MsgPropose,
            from: self.node.raft.id,
            entries: vec![entry].into(),
            ..eraftpb::Message::default()
        };
        self.node
            .raft
            .step(message)
            .map_err(|_| ProposeError::Busy { uncommitted_bytes: self.node.raft.uncommitted_size() })?;
        Ok((self.term(), LogIndex(self.node.raft.raft_log.last_index())))
    }

    /// True if [`Group::propose`] would take so many bytes now: for who writes before he proposes.
    ///
    /// # Errors
    /// As [`Group::propose`].
    pub fn can_propose(&self, bytes: usize) -> Result<(), ProposeError> {
        self.check_leads()?;
        let uncommitted_bytes = self.node.raft.uncommitted_size();
        let bytes_max = usize::try_from(self.config.uncommitted_bytes_max).unwrap_or(usize::MAX);
        if uncommitted_bytes > 0 && uncommitted_bytes.saturating_add(bytes) > bytes_max {
            return Err(ProposeError::Busy { uncommitted_bytes });
        }
        Ok(())
    }

    /// What is to be done next, if anything. Call again after [`Group::written`], until it gives nothing.
    pub fn ready(&mut self) -> Option<Ready> {
        self.assert_no_pending();
        if self.fault().is_some() || !self.node.has_ready() {
            return None;
        }
        let mut raft_ready = self.node.ready();
        let committed = raft_ready.take_committed_entries();
        if self.fault().is_some() {
            return None;
        }
        let ready = self.hand_out(&mut raft_ready, &committed);
        self.pending = Some(raft_ready);
        Some(ready)
    }

    /// The entries and hard state of ready `number` are readable in the storage (and not yet durable).
    pub fn written(&mut self, number: u64) {
        let pending = self.pending.take();
        assert_eq!(pending.as_ref().map(raft::Ready::number), Some(number), "written() names the ready before it");
        if let Some(raft_ready) = pending {
            self.node.advance_append_async(raft_ready);
        }
    }

    /// Everything up to ready `number` survives a crash.
    pub fn persisted(&mut self, number: u64) {
        self.assert_no_pending();
        self.vote_unpersisted = self.vote_unpersisted.filter(|carrier| *carrier > number);
        self.node.on_persist_ready(number);
        if let Some((_, index)) = self.snapshot_unpersisted.take_if(|(carrier, _)| *carrier <= number)
            && self.node.raft.raft_log.applied() < index.0
        {
            self.node.advance_apply_to(index.0);
        }
    }

    /// The committed entries up to `index` have taken effect. Of a snapshot, [`Group::persisted`] knows itself.
    pub fn applied(&mut self, index: LogIndex) {
        self.assert_no_pending();
        let log = &self.node.raft.raft_log;
        let in_snapshot = self.snapshot_unpersisted.is_some_and(|(_, snapshot)| index <= snapshot);
        if index.0 > log.applied() && !in_snapshot {
            let decided = log.committed.min(log.persisted);
            assert!(index.0 <= decided, "{index} cannot have taken effect: only {decided} is decided and durable");
            self.node.advance_apply_to(index.0);
        }
    }

    #[must_use]
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower if self.node.raft.promotable() => Role::Follower,
            StateRole::Follower => Role::Learner,
        }
    }

    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    /// Who leads, as far as this node has heard.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        Some(self.node.raft.leader_id).filter(|id| *id != 0).map(node)
    }

    /// Everything up to here is decided.
    #[must_use]
    pub fn commit_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.committed)
    }

    /// True while no other node can have been elected, so that what is written here may be acknowledged
    /// before it is committed: a majority answered heartbeats that were sent less than `lease_ms` ago, and
    /// promised with it to elect nobody for longer than that. A sole voter that leads always may.
    #[must_use]
    pub fn lease_valid(&self, now: Tick) -> bool {
        self.lease_left_ms(now) > 0
    }

    fn lease_left_ms(&self, now: Tick) -> u64 {
        let raft = &self.node.raft;
        let (now, term) = (self.now.max(now), self.term());
        let handing_over = raft.lead_transferee.is_some() || self.handed_over == Some(term);
        if raft.state != StateRole::Leader || handing_over {
            return 0;
        }
        let end = self.peers.lease_end(&self.members, &self.config, term, now);
        end.map_or(0, |end| end.since(now))
    }

    /// What was sent to `node` may be lost. At any time.
    pub fn report_unreachable(&mut self, node: NodeId) {
        self.node.report_unreachable(raft_id(node));
    }

    /// A snapshot sent to `node` arrived there, or did not. At any time.
    pub fn report_snapshot(&mut self, node: NodeId, ok: bool) {
        let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(raft_id(node), status);
    }

    /// The group as it stands, for people.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        let leads = self.role() == Role::Leader;
        let peer = |node: NodeId| {
            let progress = self.node.raft.prs().get(raft_id(node)).filter(|_| leads);
            PeerStatus {
                node,
                matched: LogIndex(progress.map_or(0, |progress| progress.matched)),
                last_heard: self.peers.get(node).map(|peer| peer.last_heard),
                paused: progress.is_some_and(raft::Progress::is_paused),
            }
        };
        GroupStatus {
            role: self.role(),
            term: self.term(),
            leader: self.leader(),
            commit: self.commit_index(),
            last: LogIndex(self.node.raft.raft_log.last_index()),
            members: self.members.clone(),
            peers: self.members.all().into_iter().filter(|node| *node != self.config.node).map(peer).collect(),
            lease_left_ms: self.lease_left_ms(self.now),
            patience: self.pace.stretch(&self.config),
        }
    }

    /// Why the group stands still, if it does.
    #[must_use]
    pub fn fault(&self) -> Option<&StorageError> {
        self.node.store().fault()
    }

    #[must_use]
    pub fn storage(&self) -> &S {
        &self.node.store().storage
    }

    /// For writing what [`Group::ready`] asked for. Anything else breaks the group.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.node.mut_store().storage
    }

    fn hand_out(&mut self, raft_ready: &mut raft::Ready, committed: &[eraftpb::Entry]) -> Ready {
        let entries = raft_ready.take_entries();
        let snapshot = (!raft_ready.snapshot().is_empty()).then(|| {
            let snapshot = from_raft_snapshot(raft_ready.snapshot());
            crate::Snapshot { members: self.members.clone(), ..snapshot }
        });
        let adapter = self.node.mut_store();
        if snapshot.is_some() {
            adapter.forget_all();
        }
        adapter.remember(&entries);
        if let Some(last) = committed.last() {
            adapter.forget(last.index);
        }
        if !entries.is_empty() || !committed.is_empty() || snapshot.is_some() {
            self.idle_ticks = 0;
        }
        if let Some(snapshot) = &snapshot {
            self.snapshot_unpersisted = Some((raft_ready.number(), snapshot.index));
        }
        let mut messages = self.outgoing(raft_ready.take_messages());
        let mut messages_after_persist = self.outgoing(raft_ready.take_persisted_messages());
        let hard_state = raft_ready.hs().map(from_raft_hard_state);
        if let Some(HardState { term, vote, .. }) = hard_state.filter(|state| (state.term, state.vote) != self.vote) {
            self.vote = (term, vote);
            self.vote_unpersisted = Some(raft_ready.number());
        }
        if self.vote_unpersisted.is_some() {
            // A sole voter leads before its vote is durable. Its learners must not hear of a term that a
            // crash would let it use again for other entries.
            messages_after_persist.append(&mut messages);
        } else {
            // They promise time and a term, and the term is durable. The leader's lease waits for them.
            let is_answer = |message: &mut Message| message.0.get_msg_type() == MessageType::MsgHeartbeatResponse;
            messages.extend(messages_after_persist.extract_if(.., is_answer));
        }
        Ready {
            number: raft_ready.number(),
            hard_state,
            entries: entries.iter().map(from_raft_entry).collect(),
            must_sync: raft_ready.must_sync(),
            snapshot,
            messages,
            messages_after_persist,
            committed: committed.iter().map(from_raft_entry).collect(),
        }
    }

    /// A snapshot may be older than the entry that lets this node in. `raft` would pass over it for ever, so
    /// it is told that this node is a learner; returns the members as they are.
    fn come_aboard(&self, m: &mut eraftpb::Message) -> Members {
        let metadata = m.mut_snapshot().mut_metadata();
        let members = from_conf_state(metadata.get_conf_state());
        if !members.contains(self.config.node) {
            metadata.mut_conf_state().mut_learners().push(raft_id(self.config.node));
        }
        members
    }

    /// True if an append is on its way to a follower whose log is not known yet. `raft` would send it again at
    /// every heartbeat, however long the follower's disk takes; here that waits for a few heartbeats.
    fn waits_for_probe(&mut self, from: NodeId) -> bool {
        let wait_ms = PROBE_AGAIN_HEARTBEATS * u64::from(self.config.heartbeat_ticks) * self.config.tick_ms;
        let sent = self.peers.get(from).and_then(|peer| peer.append_sent);
        let recent = sent.is_some_and(|(term, at)| term == self.term() && self.now.since(at) < wait_ms);
        let progress = self.node.raft.mut_prs().get_mut(raft_id(from));
        let probed = progress.filter(|progress| recent && progress.state == ProgressState::Probe && progress.paused);
        probed.map(|progress| progress.recent_active = true).is_some()
    }

    /// Stamps heartbeats with the time, and takes note of what else must be remembered.
    fn outgoing(&mut self, messages: Vec<eraftpb::Message>) -> Vec<Message> {
        let mut out = Vec::with_capacity(messages.len());
        for mut m in messages {
            match m.get_msg_type() {
                MessageType::MsgHeartbeat => m.context = context_of(self.now.0),
                MessageType::MsgTimeoutNow => self.handed_over = Some(Term(m.term)),
                MessageType::MsgAppend => {
                    if let Some(peer) = self.peers.get_mut(node(m.to)) {
                        peer.append_sent = Some((Term(m.term), self.now));
                    }
                }
                kind if !is_between_members(kind) => continue,
                _ => {}
            }
            joins(&mut out, m);
        }
        out
    }

    fn check_running(&self) -> Result<(), QuorumError> {
        self.fault().map_or(Ok(()), |fault| Err(QuorumError::Stopped(fault.clone())))
    }

    fn assert_no_pending(&self) {
        let number = self.pending.as_ref().map(raft::Ready::number);
        assert_eq!(number, None, "a ready was handed out and not reported as written");
    }
}

/// Adds a message to those that go out with it. What is proposed between two readies goes out as one append: one that
/// follows where another to the same member ends becomes a part of it.
fn joins(out: &mut Vec<Message>, mut m: eraftpb::Message) {
    let is_append = |m: &eraftpb::Message| m.get_msg_type() == MessageType::MsgAppend;
    if is_append(&m)
        && let Some(Message(before)) =
            out.iter_mut().rev().find(|Message(before)| before.to == m.to && is_append(before))
    {
        let (end, end_term) =
            before.entries.last().map_or((before.index, before.log_term), |last| (last.index, last.term));
        let bytes: usize = before.entries.iter().chain(&m.entries).map(|entry| entry.data.len()).sum();
        let follows = before.term == m.term && (end, end_term) == (m.index, m.log_term);
        if follows && (m.entries.is_empty() || bytes as u64 <= MESSAGE_BYTES_MAX) {
            before.commit = before.commit.max(m.commit);
            before.mut_entries().extend(m.take_entries());
            return;
        }
    }
    out.push(Message(m));
}

impl<S: Storage> fmt::Debug for Group<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (role, term, commit) = (self.role(), self.term(), self.commit_index());
        write!(f, "Group(node {}, {role:?}, term {term}, committed {commit})", self.config.node)
    }
}

/// The SplitMix64 finalizer: spreads a number over all bits.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
