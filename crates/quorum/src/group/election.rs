//! When to ask for votes, when to give none, and how leadership is handed over.

use base::{NodeId, Term, Tick};
use raft::eraftpb::MessageType;
use raft::{CAMPAIGN_TRANSFER, ProgressState, SnapshotStatus, StateRole};

use super::check::{is_handed_over, raft_id};
use super::{Group, mix};
use crate::{Members, Message, Storage, TransferError};

/// A candidate whose question stays without an answer asks again after so many ticks ..
const ASK_AGAIN_TICKS: usize = 3;
/// .. and so many times; then at every timeout. Voters may only be bound by their promise a little longer.
const ASK_AGAIN_MAX: u32 = 4;
/// Election timeouts after which a snapshot that nobody confirmed is taken for lost, twice as many after each
/// time ..
const SNAPSHOT_TIMEOUTS: u32 = 8;
/// .. up to so many times: a large one may take long.
const SNAPSHOT_DOUBLINGS_MAX: u32 = 6;

impl<S: Storage> Group<S> {
    /// Asks for votes now instead of waiting for the timeout; a voter that has promised its leader not to asks
    /// when the promise ends. A sole voter does this once, at its start.
    pub fn campaign(&mut self) {
        self.assert_no_pending();
        let raft = &self.node.raft;
        let waits = raft.state == StateRole::Leader || !raft.promotable();
        if self.fault().is_some() || waits {
            return;
        }
        if !self.may_campaign() || (self.promise.holds(self.now) && !self.is_sole_voter()) {
            return self.hurry(0);
        }
        // The only error is a full log, and a campaign writes none.
        let _always_taken = self.node.campaign();
        self.react();
    }

    /// One tick has passed; it is `now`.
    pub fn tick(&mut self, now: Tick) {
        self.advance(now);
        self.assert_no_pending();
        if self.fault().is_some() {
            return;
        }
        self.promise.tick();
        self.keep_pace();
        self.hold_back();
        self.idle_ticks = self.idle_ticks.saturating_add(1);
        let may_campaign = self.may_campaign();
        let raft = &mut self.node.raft;
        if raft.state == StateRole::PreCandidate
            && self.ask_again_left > 0
            && raft.election_elapsed + 1 >= ASK_AGAIN_TICKS
        {
            self.ask_again_left -= 1;
            raft.election_elapsed = raft.randomized_election_timeout();
        }
        if !may_campaign && raft.state != StateRole::Leader {
            raft.election_elapsed = raft.election_elapsed.min(raft.randomized_election_timeout().saturating_sub(2));
        }
        self.node.tick();
        self.react();
        if self.node.raft.state == StateRole::Leader {
            self.forget_lost_snapshots();
            self.renew_term_after_failed_transfer();
            self.leave_joint();
        }
    }

    /// The connection to the leader is gone, probably with the leader: asks for votes as soon as the promise
    /// ends, one voter after the other, instead of waiting for the timeout.
    pub fn hint_leader_gone(&mut self, now: Tick) {
        self.advance(now);
        self.assert_no_pending();
        if self.node.raft.state == StateRole::Follower && self.node.raft.promotable() {
            self.hurry(2 * self.rank());
        }
    }

    /// Hands leadership to a voter, as soon as it has the whole log; until then, or for an election timeout,
    /// nothing can be proposed. The lease ends at once.
    ///
    /// # Errors
    /// Nothing was done.
    pub fn transfer_leadership(&mut self, to: NodeId) -> Result<(), TransferError> {
        self.assert_no_pending();
        if let Some(fault) = self.fault() {
            return Err(TransferError::Stopped(fault.clone()));
        }
        if self.node.raft.state != StateRole::Leader {
            return Err(TransferError::NotLeader { leader: self.leader() });
        }
        if !self.members.is_voter(to) {
            return Err(TransferError::NotVoter { node: to });
        }
        self.node.transfer_leader(raft_id(to));
        Ok(())
    }

    /// True if a message asks for a vote that this voter has promised not to give. A request of an older term
    /// is answered all the same: its sender must learn the term.
    pub(super) fn refuses_vote(&self, message: &Message) -> bool {
        let term = self.node.raft.term;
        let asks = match message.0.get_msg_type() {
            MessageType::MsgRequestVote => message.0.term >= term,
            MessageType::MsgRequestPreVote => message.0.term > term,
            _ => false,
        };
        asks && !is_handed_over(message) && self.promise.holds(self.now)
    }

    /// False while a snapshot is being installed, and for a sole voter whose log is not durable: `raft` would
    /// abort on an election then.
    pub(super) fn may_campaign(&self) -> bool {
        let log = &self.node.raft.raft_log;
        let durable = log.persisted == log.last_index() || !self.is_sole_voter();
        durable && log.applied() + 1 >= log.first_index()
    }

    /// After anything that may have changed term or role.
    pub(super) fn react(&mut self) {
        let leads = self.node.raft.state == StateRole::Leader;
        if leads && !self.led {
            // The lease starts with the first answers.
            self.node.raft.ping();
            self.contest.decided(self.node.raft.term);
        }
        self.led = leads;
        self.draw_timeout();
    }

    /// Replaces the timeout that `raft` drew from the thread's generator by one that follows from the seed,
    /// the term and the voter's place in the list: no two voters ask at once, who is first differs from group
    /// to group and term to term, and nobody asks before the others' promises end.
    pub(super) fn draw_timeout(&mut self) {
        let raft = &self.node.raft;
        let patient = raft.state == StateRole::Follower && raft.leader_id != 0;
        // Who asks already does not wait longer for the answers.
        let timeout = if patient {
            self.first_timeout() * self.pace.stretch(&self.config) as usize
        } else {
            self.timeout_of_contest()
        };
        self.node.raft.set_randomized_election_timeout(timeout);
    }

    /// In ticks, of who has no leader.
    pub(super) fn timeout_of_contest(&self) -> usize {
        self.first_timeout() * self.contest.patience(self.node.raft.term) as usize
    }

    fn first_timeout(&self) -> usize {
        let ticks = self.config.election_ticks as usize;
        ticks + 1 + (2 * self.rank()) % (ticks - 1)
    }

    /// This voter's turn in an election of this term, from 0.
    pub(super) fn rank(&self) -> usize {
        self.rank_of(self.config.node)
    }

    /// A voter's turn in an election of this term.
    pub(super) fn rank_of(&self, voter: NodeId) -> usize {
        let Members { voters, outgoing, .. } = &self.members;
        let others = outgoing.iter().filter(|node| !voters.contains(node));
        let all = voters.iter().chain(others);
        let count = all.clone().count().max(1);
        let below = all.filter(|node| **node < voter).count();
        let first = mix(self.config.seed ^ mix(self.node.raft.term)) % count as u64;
        (below + usize::try_from(first).unwrap_or(0)) % count
    }

    /// Shortens the wait for the timeout to what the promise leaves of it, and `more_ticks`.
    fn hurry(&mut self, more_ticks: usize) {
        let left = self.promise.ticks_left(&self.config, self.now) as usize;
        let left = left.saturating_add(more_ticks).max(1);
        let raft = &mut self.node.raft;
        let elapsed = raft.randomized_election_timeout().saturating_sub(left);
        raft.election_elapsed = raft.election_elapsed.max(elapsed);
    }

    fn is_sole_voter(&self) -> bool {
        self.members.sole_voter() == Some(self.config.node)
    }

    /// A leader that told somebody to take over has no lease for the rest of its term. If nobody did, it
    /// starts another.
    fn renew_term_after_failed_transfer(&mut self) {
        let raft = &mut self.node.raft;
        if self.handed_over == Some(Term(raft.term)) && raft.lead_transferee.is_none() && raft.promotable() {
            raft.become_follower(raft.term, 0);
            raft.campaign(CAMPAIGN_TRANSFER);
            self.react();
        }
    }

    /// A snapshot may be lost on its way; without an answer `raft` would wait for ever.
    fn forget_lost_snapshots(&mut self) {
        let mut lost = Vec::new();
        for (id, progress) in self.node.raft.prs().iter() {
            let Some(peer) = self.peers.get_mut(crate::message::node(*id)) else { continue };
            match progress.state {
                ProgressState::Snapshot => peer.snapshot_ticks += 1,
                ProgressState::Probe => peer.snapshot_ticks = 0,
                ProgressState::Replicate => (peer.snapshot_ticks, peer.snapshots_lost) = (0, 0),
            }
            let ticks_max = self.config.election_ticks.saturating_mul(SNAPSHOT_TIMEOUTS << peer.snapshots_lost);
            if peer.snapshot_ticks >= ticks_max {
                peer.snapshot_ticks = 0;
                peer.snapshots_lost = SNAPSHOT_DOUBLINGS_MAX.min(peer.snapshots_lost + 1);
                lost.push(*id);
            }
        }
        for id in lost {
            self.node.report_snapshot(id, SnapshotStatus::Failure);
        }
    }

    pub(super) fn heard_leader(&mut self) {
        self.promise.make(&self.config, self.now);
        self.pace.heard_leader();
        self.contest.decided(self.node.raft.term);
        self.ask_again_left = ASK_AGAIN_MAX;
    }

    pub(super) fn advance(&mut self, now: Tick) {
        self.now = self.now.max(now);
    }
}
