//! One Raft group.

use std::fmt;

use base::{LogIndex, NodeId, Term, Tick};
use bytes::Bytes;
use raft::eraftpb::{self, MessageType};
use raft::{RawNode, StateRole};

use crate::message::node;
use crate::storage::{Adapter, from_conf_state, from_raft_entry, from_raft_hard_state, from_raft_snapshot};
use crate::{
    Entry, GroupStatus, HardState, Members, MembersError, MembershipError, Message, ProposeError, QuorumError, Ready,
    Role, Storage, StorageError, TransferError,
};

/// Committed entries handed out by one [`Ready`] stop after this many bytes; the next ready goes on.
const COMMITTED_BYTES_PER_READY_MAX: u64 = 16 << 20;
/// Entries in one message stop after this many bytes.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

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
            inflight_messages_max: 256,
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
    /// The latest time the owner gave.
    now: Tick,
}

impl<S: Storage> Group<S> {
    /// Opens a group on what `storage` holds, as a follower (or learner) that has heard of no leader.
    pub fn open(config: GroupConfig, storage: S) -> Result<Self, QuorumError> {
        let applied = check(&config, &storage)?;
        let HardState { term, vote, .. } = storage.initial().hard_state;
        let raft_config = raft::Config {
            id: u64::from(config.node.0),
            election_tick: config.election_ticks as usize,
            heartbeat_tick: config.heartbeat_ticks as usize,
            min_election_tick: config.election_ticks as usize,
            max_election_tick: 2 * config.election_ticks as usize,
            applied: applied.0,
            check_quorum: true,
            pre_vote: true,
            max_size_per_msg: MESSAGE_BYTES_MAX.min(config.uncommitted_bytes_max),
            max_inflight_msgs: config.inflight_messages_max,
            max_uncommitted_size: config.uncommitted_bytes_max,
            max_committed_size_per_ready: COMMITTED_BYTES_PER_READY_MAX,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&raft_config, Adapter::new(storage), &logger)
            .map_err(|error| QuorumError::Config(error.to_string()))?;
        let mut group = Self { node, config, pending: None, vote: (term, vote), vote_unpersisted: None, now: Tick(0) };
        group.draw_timeout();
        Ok(group)
    }

    /// Asks for votes now instead of waiting for the timeout. A sole voter does this once, at its start.
    pub fn campaign(&mut self) {
        self.assert_no_pending();
        if self.fault().is_none() {
            // The only error is a full log, and a campaign writes none.
            let _always_taken = self.node.campaign();
            self.draw_timeout();
        }
    }

    /// One tick has passed; it is `now`.
    pub fn tick(&mut self, now: Tick) {
        self.now = self.now.max(now);
        self.assert_no_pending();
        if self.fault().is_none() {
            self.node.tick();
            self.draw_timeout();
        }
    }

    /// Takes a message from another member. An error means that it was dropped.
    pub fn step(&mut self, now: Tick, message: Message) -> Result<(), QuorumError> {
        self.now = self.now.max(now);
        self.assert_no_pending();
        self.check_running()?;
        self.check_message(&message)?;
        let from = message.from();
        let outcome = self.node.step(message.0);
        self.draw_timeout();
        outcome.map_err(|error| QuorumError::BadMessage { from, what: error.to_string() })
    }

    /// Proposes an entry; returns where it stands. It is decided when [`Ready::committed`] has an entry of
    /// this term at this index; an entry of another term there means it was replaced and never will be.
    pub fn propose(&mut self, data: Bytes) -> Result<(Term, LogIndex), ProposeError> {
        assert!(!data.is_empty(), "a proposal carries at least one byte: an empty entry is a leader's first");
        self.assert_no_pending();
        if let Some(fault) = self.fault() {
            return Err(ProposeError::Stopped(fault.clone()));
        }
        if self.node.raft.state != StateRole::Leader || self.node.raft.lead_transferee.is_some() {
            return Err(ProposeError::NotLeader { leader: self.leader().filter(|leader| *leader != self.config.node) });
        }
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
    }

    /// The committed entries up to `index` have taken effect.
    pub fn applied(&mut self, index: LogIndex) {
        self.assert_no_pending();
        self.node.advance_apply_to(index.0);
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
    /// before it is committed. A sole voter that leads always may. With more voters the answer is `false`:
    /// the lease measured from heartbeats comes with replication.
    #[must_use]
    pub fn lease_valid(&self, _now: Tick) -> bool {
        self.role() == Role::Leader && self.node.raft.prs().is_singleton()
    }

    /// Proposes other members; returns where the entry stands. Voters change through a joint phase, which the
    /// leader ends by itself; [`Group::members`] tells.
    pub fn propose_membership(
        &mut self,
        _voters: &[NodeId],
        _learners: &[NodeId],
    ) -> Result<(Term, LogIndex), MembershipError> {
        Err(MembershipError::Pending)
    }

    /// Makes a committed membership entry so; returns the members from here on. To be called for every
    /// [`crate::Payload::Membership`] of [`Ready::committed`], in order, before [`Group::applied`] of it.
    ///
    /// # Errors
    /// The entry makes no sense and changes nothing, on every node alike: log it and go on.
    pub fn apply_membership(&mut self, _entry: &Entry) -> Result<Members, MembersError> {
        Ok(self.members())
    }

    /// The members in force here.
    #[must_use]
    pub fn members(&self) -> Members {
        from_conf_state(&self.node.raft.prs().conf().to_conf_state())
    }

    /// Hands leadership to a voter, as soon as it has the whole log; until then, or for an election timeout,
    /// nothing can be proposed. The lease ends at once.
    pub fn transfer_leadership(&mut self, _to: NodeId) -> Result<(), TransferError> {
        Ok(())
    }

    /// The connection to the leader is gone: waits no longer than it must before asking for votes.
    pub fn hint_leader_gone(&mut self, now: Tick) {
        self.now = self.now.max(now);
    }

    /// What was sent to `node` may be lost.
    pub fn report_unreachable(&mut self, node: NodeId) {
        self.assert_no_pending();
        self.node.report_unreachable(u64::from(node.0));
    }

    /// A snapshot sent to `node` arrived there, or did not.
    pub fn report_snapshot(&mut self, node: NodeId, ok: bool) {
        self.assert_no_pending();
        let status = if ok { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
        self.node.report_snapshot(u64::from(node.0), status);
    }

    /// The group as it stands, for people.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        GroupStatus {
            role: self.role(),
            term: self.term(),
            leader: self.leader(),
            commit: self.commit_index(),
            last: LogIndex(self.node.raft.raft_log.last_index()),
            members: self.members(),
            peers: Vec::new(),
            lease_left_ms: 0,
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
        let snapshot = (!raft_ready.snapshot().is_empty()).then(|| from_raft_snapshot(raft_ready.snapshot()));
        let adapter = self.node.mut_store();
        if snapshot.is_some() {
            adapter.forget_all();
        }
        adapter.remember(&entries);
        if let Some(last) = committed.last() {
            adapter.forget(last.index);
        }
        let own = |messages: Vec<eraftpb::Message>| messages.into_iter().map(Message).collect::<Vec<_>>();
        let mut messages = own(raft_ready.take_messages());
        let mut messages_after_persist = own(raft_ready.take_persisted_messages());
        let hard_state = raft_ready.hs().map(from_raft_hard_state);
        if let Some(HardState { term, vote, .. }) = hard_state.filter(|state| (state.term, state.vote) != self.vote) {
            self.vote = (term, vote);
            self.vote_unpersisted = Some(raft_ready.number());
        }
        if self.vote_unpersisted.is_some() {
            // A sole voter leads before its vote is durable. Its learners must not hear of a term that a
            // crash would let it use again for other entries.
            messages_after_persist.append(&mut messages);
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

    /// Replaces the timeout that `raft` drew from the thread's generator by one that follows from the seed,
    /// the node and the term. A collision between two nodes costs one term: the next draws differ.
    fn draw_timeout(&mut self) {
        let mixed = mix(self.config.seed ^ mix(u64::from(self.config.node.0)) ^ mix(self.node.raft.term << 32));
        let ticks = u64::from(self.config.election_ticks);
        let timeout = ticks + mixed % ticks;
        let timeout = usize::try_from(timeout).unwrap_or(self.config.election_ticks as usize);
        self.node.raft.set_randomized_election_timeout(timeout);
    }

    fn check_running(&self) -> Result<(), QuorumError> {
        self.fault().map_or(Ok(()), |fault| Err(QuorumError::Stopped(fault.clone())))
    }

    /// Refuses what `raft` takes for granted and would abort on.
    fn check_message(&self, message: &Message) -> Result<(), QuorumError> {
        let m = &message.0;
        let bad = |what: &str| Err(QuorumError::BadMessage { from: message.from(), what: what.to_owned() });
        let own = u64::from(self.config.node.0);
        if m.to != own || m.from == own || m.from == 0 || m.from > u64::from(u32::MAX) {
            return bad("it is not for this node");
        }
        if m.get_msg_type() == MessageType::MsgPropose {
            return bad("proposals are not forwarded");
        }
        if m.term == 0 {
            return bad("it has no term");
        }
        let gapless = m.entries.iter().zip(m.index + 1..).all(|(entry, index)| entry.index == index);
        if !gapless || m.entries.iter().any(|entry| entry.term == 0 || entry.term > m.term) {
            return bad("its entries do not follow one another");
        }
        let last = self.node.raft.raft_log.last_index();
        if m.get_msg_type() == MessageType::MsgHeartbeat && m.term >= self.node.raft.term && m.commit > last {
            let (commit, last) = (LogIndex(m.commit), LogIndex(last));
            return Err(QuorumError::LostEntries { from: message.from(), commit, last });
        }
        Ok(())
    }

    fn assert_no_pending(&self) {
        let number = self.pending.as_ref().map(raft::Ready::number);
        assert_eq!(number, None, "a ready was handed out and not reported as written");
    }
}

impl<S: Storage> fmt::Debug for Group<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (role, term, commit) = (self.role(), self.term(), self.commit_index());
        write!(f, "Group(node {}, {role:?}, term {term}, committed {commit})", self.config.node)
    }
}

/// Refuses configurations and storages that `raft` would abort on; returns the applied index.
fn check<S: Storage>(config: &GroupConfig, storage: &S) -> Result<LogIndex, QuorumError> {
    let initial = storage.initial();
    let ticks_ok = config.heartbeat_ticks > 0 && config.election_ticks > config.heartbeat_ticks;
    if config.node.0 == 0 || !ticks_ok || config.inflight_messages_max == 0 || config.uncommitted_bytes_max == 0 {
        return Err(QuorumError::Config(format!("node, ticks and bounds must be above zero: {config:?}")));
    }
    let promise_ms = u64::from(config.election_ticks - 1) * config.tick_ms;
    if config.tick_ms == 0 || config.lease_ms.saturating_mul(100) >= promise_ms.saturating_mul(95) {
        return Err(QuorumError::Config(format!(
            "a lease of {} ms must stay below 95 % of the {promise_ms} ms that a voter's promise holds",
            config.lease_ms
        )));
    }
    initial.members.check().map_err(|error| QuorumError::Config(error.to_string()))?;
    let (first, last) = (storage.first_index(), storage.last_index());
    let (commit, applied) = (initial.hard_state.commit, initial.applied);
    if first == LogIndex::ZERO || last.next() < first {
        return Err(QuorumError::Inconsistent(format!("the log starts at {first} and ends at {last}")));
    }
    if commit > last || commit.next() < first {
        return Err(QuorumError::Inconsistent(format!("{commit} is committed but the log is {first}..={last}")));
    }
    if applied > commit || applied.next() < first {
        return Err(QuorumError::Inconsistent(format!("{applied} applied, {commit} committed, log from {first}")));
    }
    Ok(applied)
}

/// The SplitMix64 finalizer: spreads a number over all bits.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
