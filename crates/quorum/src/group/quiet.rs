//! A group that has nothing to do sleeps: nobody ticks it, and the beats of the node pair stand for its
//! heartbeats ([`crate::Liveness`]). Here is when it may, and how it goes on as if it had never slept.

use base::{LogIndex, NodeId, Tick};
use raft::StateRole;

use super::check::raft_id;
use super::{Group, Promise};
use crate::liveness::{Quiet, Slept};
use crate::{Role, Storage};

/// A leader lets its group sleep after so many ticks without anything to write or decide.
const IDLE_TICKS: u32 = 20;

impl<S: Storage> Group<S> {
    /// Where the group stands, if it may sleep under this leader: everything is decided, written and known to
    /// every member that can be reached, for a while now, and the lease holds.
    #[must_use]
    pub fn may_sleep(&self) -> Option<Quiet> {
        let raft = &self.node.raft;
        let leads = raft.state == StateRole::Leader && raft.lead_transferee.is_none();
        let idle = self.idle_ticks >= IDLE_TICKS && !self.members.is_joint() && !raft.has_pending_conf();
        let quiet = self.quiet().filter(|_| leads && idle && raft.commit_to_current_term())?;
        let reach_ms = 2 * u64::from(self.config.election_ticks) * self.config.tick_ms;
        let knows_all = |node: &NodeId| {
            let heard = self.peers.get(*node).is_some_and(|peer| self.now.since(peer.last_heard) < reach_ms);
            let progress = raft.prs().get(raft_id(*node));
            let last = quiet.last.0;
            !heard || progress.is_some_and(|progress| progress.matched == last && progress.committed_index >= last)
        };
        let others = self.members.all().into_iter().filter(|node| *node != self.config.node);
        (self.lease_valid(self.now) && others.into_iter().all(|node| knows_all(&node))).then_some(quiet)
    }

    /// True if this member follows `leader` at exactly this place and has nothing to do.
    #[must_use]
    pub fn may_follow(&self, leader: NodeId, quiet: Quiet) -> bool {
        let follows = matches!(self.role(), Role::Follower | Role::Learner) && self.leader() == Some(leader);
        follows && self.quiet() == Some(quiet)
    }

    /// Goes on after a sleep, with what the beats said meanwhile. To be called before anything else then.
    pub fn wake(&mut self, now: Tick, slept: &Slept) {
        self.advance(now);
        self.assert_no_pending();
        self.idle_ticks = 0;
        self.pace.rested();
        if let Some((heard, ticks)) = slept.heard {
            // It fell asleep with a beat that came after all it promised before.
            self.promise = Promise::made(&self.config, heard, ticks);
            let raft = &mut self.node.raft;
            let ticks = usize::try_from(ticks).unwrap_or(usize::MAX);
            raft.election_elapsed = ticks.min(raft.randomized_election_timeout() - 1);
            if let Some(leader) = self.leader() {
                self.peers.heard(leader, heard);
            }
        }
        self.credit(now, &slept.answered);
        if self.fault().is_none() && self.node.raft.state == StateRole::Leader {
            self.node.raft.election_elapsed = 0;
            self.node.raft.ping();
        }
    }

    /// Counts answered beats for the lease, without waking: who answered, and when the beat was sent.
    pub fn credit(&mut self, now: Tick, answered: &[(NodeId, Tick)]) {
        self.advance(now);
        let recent_ms = u64::from(self.config.election_ticks) * self.config.tick_ms;
        if self.node.raft.state != StateRole::Leader {
            return;
        }
        for (node, sent) in answered {
            let sent = (*sent).min(self.now);
            self.peers.acked(*node, self.term(), sent);
            if self.now.since(sent) < recent_ms
                && let Some(progress) = self.node.raft.mut_prs().get_mut(raft_id(*node))
            {
                progress.recent_active = true;
            }
        }
    }

    /// The place where all that is here is durable, decided and applied, and nothing waits to be handed out.
    fn quiet(&self) -> Option<Quiet> {
        let log = &self.node.raft.raft_log;
        let last = log.last_index();
        let settled = log.committed == last && log.persisted == last && log.applied() == last;
        let idle = self.pending.is_none() && self.vote_unpersisted.is_none() && self.fault().is_none();
        (settled && idle && !self.node.has_ready()).then_some(Quiet { term: self.term(), last: LogIndex(last) })
    }
}
