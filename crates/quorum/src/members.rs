//! Who belongs to a group, and how a membership entry changes it.
//!
//! A membership entry names the members it wants, or says that the old voters may go. What it does follows
//! from the members before it and its bytes alone, so a group, a journal and a log that was read again come
//! to the same result. The bytes are drawn in docs/formats/peer-messages.md.
//!
//! What always holds: every voter and learner is named once, none is node 0, there is at least one voter.

use std::collections::BTreeSet;
use std::fmt;

use base::NodeId;
use bytes::{BufMut, Bytes, BytesMut};

/// Most voters and learners of one group, each.
pub const MEMBERS_MAX: usize = 32;

const VERSION: u8 = 1;
const CHANGE: u8 = 1;
const LEAVE: u8 = 2;

/// The members of a group. Lists are in ascending order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Members {
    /// Who decides.
    pub voters: Vec<NodeId>,
    /// The voters before the change under way; a majority of them is needed too. Empty if none is.
    pub outgoing: Vec<NodeId>,
    /// Who gets the log and has no vote.
    pub learners: Vec<NodeId>,
    /// Outgoing voters that will be learners.
    pub learners_next: Vec<NodeId>,
}

/// Why members or a membership entry make no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct MembersError(String);

impl Members {
    /// Members of a group at rest.
    #[must_use]
    pub fn new(voters: &[NodeId], learners: &[NodeId]) -> Self {
        let sorted = |nodes: &[NodeId]| {
            let mut nodes = nodes.to_vec();
            nodes.sort_unstable();
            nodes
        };
        Self { voters: sorted(voters), learners: sorted(learners), ..Self::default() }
    }

    /// A change is under way: both majorities decide.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Has a vote, in the new or the old half.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Gets the log.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.contains(&node)
    }

    /// Everybody who gets the log, once, in ascending order.
    #[must_use]
    pub fn all(&self) -> Vec<NodeId> {
        self.voters
            .iter()
            .chain(&self.outgoing)
            .chain(&self.learners)
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// The only voter, if there is one.
    #[must_use]
    pub fn sole_voter(&self) -> Option<NodeId> {
        match (&self.voters[..], self.is_joint()) {
            ([only], false) => Some(*only),
            _ => None,
        }
    }

    /// The members after a membership entry with this payload.
    ///
    /// # Errors
    /// The bytes are no membership entry, or it does not fit these members.
    pub fn after(&self, payload: &[u8]) -> Result<Self, MembersError> {
        match Change::decode(payload)? {
            Change::Leave if !self.is_joint() => Err(MembersError("no change is under way that could end".into())),
            Change::Leave => {
                let learners: Vec<_> = self.learners.iter().chain(&self.learners_next).copied().collect();
                Ok(Self::new(&self.voters, &learners))
            }
            Change::To { .. } if self.is_joint() => Err(MembersError("another change is under way".into())),
            Change::To { voters, learners } if voters == self.voters => Ok(Self::new(&voters, &learners)),
            Change::To { voters, learners } => {
                let outgoing = self.voters.clone();
                let (learners_next, learners) = learners.into_iter().partition(|node| outgoing.contains(node));
                Ok(Self { voters, outgoing, learners, learners_next })
            }
        }
    }

    /// Checks what always holds.
    pub(crate) fn check(&self) -> Result<(), MembersError> {
        let bad = |what: &str| Err(MembersError(format!("{self}: {what}")));
        if self.voters.is_empty() {
            return bad("nobody votes");
        }
        for list in [&self.voters, &self.outgoing, &self.learners, &self.learners_next] {
            if list.len() > MEMBERS_MAX || list.contains(&NodeId(0)) || !list.is_sorted_by(|a, b| a < b) {
                return bad("a list holds a node twice, node 0, or too many");
            }
        }
        if self.learners.iter().any(|node| self.is_voter(*node)) {
            return bad("a voter is a learner too");
        }
        if self.learners_next.iter().any(|node| self.voters.contains(node) || !self.outgoing.contains(node)) {
            return bad("a learner to come is no outgoing voter");
        }
        Ok(())
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        write!(f, "voters {}", names(&self.voters))?;
        for (what, nodes) in
            [("outgoing", &self.outgoing), ("learners", &self.learners), ("learners to come", &self.learners_next)]
        {
            if !nodes.is_empty() {
                write!(f, ", {what} {}", names(nodes))?;
            }
        }
        Ok(())
    }
}

/// What a membership entry asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    To {
        voters: Vec<NodeId>,
        learners: Vec<NodeId>,
    },
    /// The outgoing voters go.
    Leave,
}

impl Change {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(16);
        out.put_u8(VERSION);
        match self {
            Self::Leave => out.put_u8(LEAVE),
            Self::To { voters, learners } => {
                out.put_u8(CHANGE);
                for list in [voters, learners] {
                    out.put_u8(u8::try_from(list.len()).unwrap_or(u8::MAX));
                    list.iter().for_each(|node| out.put_u32_le(node.0));
                }
            }
        }
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MembersError> {
        let bad = |what: &str| MembersError(format!("a membership entry {what}"));
        let (head, mut rest) = bytes.split_at_checked(2).ok_or_else(|| bad("ends too early"))?;
        if head[0] != VERSION {
            return Err(MembersError(format!("membership format {}, this program reads {VERSION}", head[0])));
        }
        let change = match head[1] {
            LEAVE => Self::Leave,
            CHANGE => {
                let mut list = || {
                    let (len, tail) = rest.split_first()?;
                    let (nodes, tail) = tail.split_at_checked(usize::from(*len) * 4)?;
                    rest = tail;
                    let (nodes, _) = nodes.as_chunks::<4>();
                    Some(nodes.iter().map(|id| NodeId(u32::from_le_bytes(*id))).collect::<Vec<_>>())
                };
                let voters = list().ok_or_else(|| bad("ends too early"))?;
                let learners = list().ok_or_else(|| bad("ends too early"))?;
                let members = Members { voters, learners, ..Members::default() };
                members.check()?;
                Self::To { voters: members.voters, learners: members.learners }
            }
            other => return Err(bad(&format!("of the unknown kind {other}"))),
        };
        if rest.is_empty() { Ok(change) } else { Err(bad("goes on after its end")) }
    }
}

#[cfg(test)]
mod tests;
