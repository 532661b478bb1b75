//! Changing the members: proposed by the leader, in force when applied.
//!
//! Voters change through a joint phase, in which both majorities decide; the leader ends it by itself as soon
//! as it is applied. A leader that will have no vote hands over first, so that nobody leads a group it does
//! not belong to.

use base::{LogIndex, NodeId, Term};
use raft::StateRole;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry as RaftEntry, EntryType,
};

use super::Group;
use super::check::raft_id;
use crate::members::Change;
use crate::storage::from_conf_state;
use crate::{Entry, Members, MembersError, MembershipError, Payload, ProposeError, Storage};

impl<S: Storage> Group<S> {
    /// Proposes other members; returns where the entry stands. [`Group::members`] tells when it is through:
    /// they are the new ones and not joint.
    ///
    /// # Errors
    /// Nothing was proposed.
    pub fn propose_membership(
        &mut self,
        voters: &[NodeId],
        learners: &[NodeId],
    ) -> Result<(Term, LogIndex), MembershipError> {
        self.assert_no_pending();
        self.check_leads()?;
        let wanted = Members::new(voters, learners);
        wanted.check()?;
        if self.members.is_joint() || !self.may_change() {
            return Err(MembershipError::Pending);
        }
        let Members { voters, learners, .. } = wanted;
        Ok(self.append_change(&Change::To { voters, learners })?)
    }

    /// Makes a committed membership entry so; returns the members from here on. To be called for every
    /// [`Payload::Membership`] of [`crate::Ready::committed`], in order, before [`Group::applied`] of it.
    ///
    /// # Errors
    /// The entry makes no sense and changes nothing, on every node alike: log it and go on.
    pub fn apply_membership(&mut self, entry: &Entry) -> Result<Members, MembersError> {
        self.assert_no_pending();
        let Payload::Membership(payload) = &entry.payload else { return Ok(self.members()) };
        let before = self.members.clone();
        let after = before.after(payload)?;
        for change in steps(&before, &after) {
            let applied = self.node.raft.apply_conf_change(&change);
            assert!(applied.is_ok(), "{before} could not become {after}: {applied:?}");
        }
        let mut understood = from_conf_state(&self.node.raft.prs().conf().to_conf_state());
        // This node may have come aboard with a snapshot before it was let in.
        understood.learners.retain(|node| *node != self.config.node || after.contains(*node));
        assert_eq!(understood, after, "raft understood {before} differently");
        self.peers.retain(&after);
        self.members = after.clone();
        let raft = &mut self.node.raft;
        if !raft.promotable() && raft.state != StateRole::Follower {
            raft.become_follower(raft.term, 0);
        }
        self.react();
        Ok(after)
    }

    /// The members in force here.
    #[must_use]
    pub fn members(&self) -> Members {
        self.members.clone()
    }

    /// Ends a joint phase; a leader without a vote in the new half hands over to one that has.
    pub(super) fn leave_joint(&mut self) {
        let members = &self.members;
        if !members.is_joint() || !self.may_change() || self.check_leads().is_err() {
            return;
        }
        if members.voters.contains(&self.config.node) {
            // Refused only while too much waits to be committed; the next tick tries again.
            let _tried_again = self.append_change(&Change::Leave);
            return;
        }
        let matched = |node: &&NodeId| {
            let progress = self.node.raft.prs().get(raft_id(**node));
            progress.map(|progress| (progress.recent_active, progress.matched))
        };
        if let Some(best) = members.voters.iter().max_by_key(matched).copied() {
            self.node.transfer_leader(raft_id(best));
        }
    }

    pub(super) fn check_leads(&self) -> Result<(), ProposeError> {
        if let Some(fault) = self.fault() {
            return Err(ProposeError::Stopped(fault.clone()));
        }
        if self.node.raft.state != StateRole::Leader || self.node.raft.lead_transferee.is_some() {
            return Err(ProposeError::NotLeader { leader: self.leader().filter(|leader| *leader != self.config.node) });
        }
        Ok(())
    }

    /// One change at a time, and none before this leader knows all that earlier ones committed.
    fn may_change(&self) -> bool {
        !self.node.raft.has_pending_conf() && self.node.raft.commit_to_current_term()
    }

    fn append_change(&mut self, change: &Change) -> Result<(Term, LogIndex), ProposeError> {
        let mut entry = RaftEntry { data: change.encode(), ..RaftEntry::default() };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        let raft = &mut self.node.raft;
        if !raft.append_entry(&mut [entry]) {
            return Err(ProposeError::Busy { uncommitted_bytes: raft.uncommitted_size() });
        }
        let last = raft.raft_log.last_index();
        raft.pending_conf_index = last;
        raft.bcast_append();
        Ok((self.term(), LogIndex(last)))
    }
}

/// The changes that `raft` calls for what turns `before` into `after`.
fn steps(before: &Members, after: &Members) -> Vec<ConfChangeV2> {
    let mut joint = ConfChangeV2::default();
    if before.is_joint() {
        return vec![joint];
    }
    let change = |node: &NodeId, change_type| {
        let mut change = ConfChangeSingle { node_id: raft_id(*node), ..ConfChangeSingle::default() };
        change.set_change_type(change_type);
        change
    };
    let learners = after.learners.iter().chain(&after.learners_next);
    let gone = before.voters.iter().chain(&before.learners);
    let stays = |node: &&NodeId| after.voters.contains(node) || learners.clone().any(|learner| learner == *node);
    let changes: Vec<_> = gone
        .filter(|node| !stays(node))
        .map(|node| change(node, ConfChangeType::RemoveNode))
        .chain(
            after
                .voters
                .iter()
                .filter(|node| !before.voters.contains(node))
                .map(|node| change(node, ConfChangeType::AddNode)),
        )
        .chain(
            learners
                .clone()
                .filter(|node| !before.learners.contains(node))
                .map(|node| change(node, ConfChangeType::AddLearnerNode)),
        )
        .collect();
    if after.is_joint() {
        joint.set_transition(ConfChangeTransition::Explicit);
        joint.set_changes(changes.into());
        return vec![joint];
    }
    let single = |change| {
        let mut single = ConfChangeV2::default();
        single.set_changes(vec![change].into());
        single
    };
    changes.into_iter().map(single).collect()
}
