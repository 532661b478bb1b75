//! One leader a term; no two leases at once; terms only grow.

use std::collections::BTreeMap;

use base::{NodeId, Term};
use quorum::Role;

use super::broken;
use crate::node::GroupName;
use crate::trace::Violation;

/// A group as one node has it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    pub node: NodeId,
    pub life: u64,
    pub role: Role,
    pub term: Term,
    /// By this node's own clock, now.
    pub lease: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Elections {
    leaders: BTreeMap<(GroupName, Term), NodeId>,
    terms: BTreeMap<(GroupName, NodeId), (u64, Term)>,
    /// The highest term in which a node's vote has left it: any later life of it knows that term.
    voted: BTreeMap<(GroupName, NodeId), Term>,
    pub count: u64,
}

impl Elections {
    /// `view` is of the node that just did something, `others` of the rest that run. True if `view` became
    /// leader with this step.
    pub fn observe(&mut self, group: GroupName, view: View, others: &[View]) -> Result<bool, Violation> {
        let node = view.node;
        let seen = self.terms.entry((group, node)).or_insert((view.life, view.term));
        if seen.0 == view.life && view.term < seen.1 {
            return broken(
                "term goes back",
                format!("{group:?}: node {node} went from term {} to {}", seen.1, view.term),
            );
        }
        *seen = (view.life, view.term);
        if let Some(voted) = self.voted.get(&(group, node)).filter(|voted| **voted > view.term) {
            return broken(
                "durable votes",
                format!("{group:?}: node {node} voted in {voted} and knows of {} only", view.term),
            );
        }
        let mut elected = false;
        if view.role == Role::Leader {
            match self.leaders.get(&(group, view.term)) {
                None => {
                    self.leaders.insert((group, view.term), node);
                    self.count += 1;
                    elected = true;
                }
                Some(first) if *first != node => {
                    return broken(
                        "election safety",
                        format!("{group:?}: {first} and {node} lead in term {}", view.term),
                    );
                }
                Some(_) => {}
            }
            if let Some(old) = others.iter().find(|other| elected && other.lease && other.term < view.term) {
                let (holder, term) = (old.node, old.term);
                return broken(
                    "lease",
                    format!(
                        "{group:?}: {node} was elected in term {} while {holder} has its lease of {term}",
                        view.term
                    ),
                );
            }
        }
        if view.lease
            && let Some(other) = others.iter().find(|other| other.lease)
        {
            return broken("lease", format!("{group:?}: {view:?} and {other:?} have a lease at once"));
        }
        Ok(elected)
    }

    /// A node gives its vote away.
    pub fn voted(&mut self, group: GroupName, node: NodeId, term: Term) {
        let highest = self.voted.entry((group, node)).or_default();
        *highest = (*highest).max(term);
    }

    /// True if someone leads this group in a later term than `term`.
    #[must_use]
    pub fn later_leader(&self, group: GroupName, term: Term) -> Option<(Term, NodeId)> {
        let range = (group, Term(term.0 + 1))..=(group, Term(u64::MAX));
        self.leaders.range(range).next().map(|((_, term), node)| (*term, *node))
    }
}
