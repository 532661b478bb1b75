//! Candidates that stay out of each other's way where messages and disks are slow.
//!
//! Voters ask one after the other, two ticks apart. Where an answer takes longer than that, as when thousands of groups elect
//! at once or a disk takes 200 ms for an fsync, two candidates would find out about each other only when both have voted for
//! themselves; and a timeout that is shorter than an election takes ends every one of them, for ever. So:
//!
//! - Who would vote for somebody who asks lets that one go first.
//! - Of two who ask at once with equal logs, the one whose turn is first is not moved, and the other one steps back.
//! - The time in which a node's own vote is on its way to its disk does not count.
//! - Each term that brought no leader makes everybody more patient.
//!
//! What always holds: only *when* somebody asks is decided here, never who gets a vote; a voter defers `DEFERENCE_MAX`
//! times without a leader, so that a candidate that is heard and hears nobody holds nobody up for long; no timeout grows past
//! `PATIENCE_MAX` times.

use raft::StateRole;
use raft::eraftpb::MessageType;

use super::Group;
use crate::{Message, Storage};

/// Times that a voter lets another one go first, or stands where it is, until it hears a leader.
const DEFERENCE_MAX: u32 = 8;
/// A timeout is at most so many times as long after terms without a leader.
pub(super) const PATIENCE_MAX: u32 = 4;

/// What a group remembers of the elections since it had a leader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contest {
    /// The last term known to have had a leader.
    led: u64,
    deference_left: u32,
    /// Until somebody who was let go first must have been elected.
    ticks_left: u32,
}

impl Contest {
    /// Of a group that starts at `term`.
    pub(super) const fn new(term: u64) -> Self {
        Self { led: term, deference_left: DEFERENCE_MAX, ticks_left: 0 }
    }

    /// Somebody leads in `term`.
    pub(super) fn decided(&mut self, term: u64) {
        *self = Self::new(term);
    }

    /// How many times a timeout of `term` is to be waited: twice as long after each term in vain.
    pub(super) fn patience(&self, term: u64) -> u32 {
        let in_vain = term.saturating_sub(self.led).saturating_sub(1);
        if in_vain >= u64::from(PATIENCE_MAX.ilog2()) { PATIENCE_MAX } else { 1 << in_vain }
    }
}

/// What to do with a question whether one would be voted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// Nothing but to answer.
    Answer,
    /// To answer, and to let the other one go first.
    Defer,
    /// This node asks already, and first: no answer.
    Stand,
}

impl<S: Storage> Group<S> {
    /// Whose turn it is, when a vote is asked for.
    pub(super) fn turn(&self, message: &Message) -> Turn {
        let (m, raft) = (&message.0, &self.node.raft);
        let has_leader = raft.leader_id != 0 && raft.election_elapsed < raft.election_timeout();
        let asks = m.get_msg_type() == MessageType::MsgRequestPreVote && m.term > raft.term && !has_leader;
        let log = &raft.raft_log;
        let (own, theirs) = ((log.last_term(), log.last_index()), (m.log_term, m.index));
        if !asks || theirs < own || self.contest.deference_left == 0 {
            return Turn::Answer;
        }
        let is_first = m.term == raft.term + 1 && self.rank_of(self.config.node) < self.rank_of(message.from());
        match raft.state {
            StateRole::Candidate if theirs == own => Turn::Stand,
            StateRole::Candidate | StateRole::Leader => Turn::Answer,
            StateRole::PreCandidate if theirs == own && is_first => Turn::Stand,
            StateRole::PreCandidate | StateRole::Follower => Turn::Defer,
        }
    }

    /// This node has let another one go first, or stood where it was.
    pub(super) fn took_turn(&mut self, turn: Turn) {
        if turn == Turn::Answer {
            return;
        }
        self.contest.deference_left = self.contest.deference_left.saturating_sub(1);
        if turn == Turn::Defer {
            let raft = &mut self.node.raft;
            if raft.state != StateRole::Follower {
                raft.become_follower(raft.term, 0);
            }
            self.contest.ticks_left = u32::try_from(self.timeout_of_contest()).unwrap_or(u32::MAX);
        }
    }

    /// Before a tick is counted: somebody else goes first, or a vote is not durable and cannot be told to anybody.
    pub(super) fn hold_back(&mut self) {
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader {
            return;
        }
        if self.vote_unpersisted.is_some() {
            raft.election_elapsed = 0;
        }
        if self.contest.ticks_left > 0 {
            self.contest.ticks_left -= 1;
            raft.election_elapsed = raft.election_elapsed.min(raft.randomized_election_timeout().saturating_sub(2));
        }
    }
}
