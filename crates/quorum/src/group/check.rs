//! What is refused at the door because `raft` takes it for granted and would abort on it.

use base::{LogIndex, NodeId};
use raft::eraftpb::MessageType;
use raft::{CAMPAIGN_TRANSFER, StateRole};

use super::{Group, GroupConfig};
use crate::message::codec::{NUMBER_MAX, is_between_members};
use crate::storage::from_conf_state;
use crate::{Message, QuorumError, Storage};

type Checked = Result<(), &'static str>;

impl GroupConfig {
    /// How long a voter that took a heartbeat votes for nobody else.
    pub(super) const fn promise_ms(&self) -> u64 {
        (self.election_ticks as u64 - 1) * self.tick_ms
    }

    fn check(&self) -> Result<(), QuorumError> {
        let ticks_ok = self.heartbeat_ticks > 0 && self.election_ticks > self.heartbeat_ticks + 1 && self.tick_ms > 0;
        if self.node.0 == 0 || !ticks_ok || self.inflight_messages_max == 0 || self.uncommitted_bytes_max == 0 {
            return Err(QuorumError::Config(format!("node, ticks and bounds must be above zero: {self:?}")));
        }
        if self.lease_ms.saturating_mul(100) >= self.promise_ms().saturating_mul(95) {
            let (lease, promise) = (self.lease_ms, self.promise_ms());
            let why = format!(
                "a lease of {lease} ms is too long: a voter's promise holds {promise} ms; stay below 95 % of it"
            );
            return Err(QuorumError::Config(why));
        }
        Ok(())
    }
}

/// Refuses configurations and storages that `raft` would abort on; returns the applied index.
pub(super) fn check_open<S: Storage>(config: &GroupConfig, storage: &S) -> Result<LogIndex, QuorumError> {
    config.check()?;
    let initial = storage.initial();
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

/// A candidate that the leader itself asked to take over.
pub(super) fn is_handed_over(message: &Message) -> bool {
    message.0.context[..] == *CAMPAIGN_TRANSFER
}

impl<S: Storage> Group<S> {
    pub(super) fn check_message(&self, message: &Message) -> Result<(), QuorumError> {
        self.check_lost_entries(message)?;
        let checked = self.check_form(message).and_then(|()| self.check_sense(message));
        checked.map_err(|what| QuorumError::BadMessage { from: message.from(), what: what.to_owned() })
    }

    fn check_lost_entries(&self, message: &Message) -> Result<(), QuorumError> {
        let m = &message.0;
        let last = self.node.raft.raft_log.last_index();
        let asked = m.get_msg_type() == MessageType::MsgHeartbeat && m.to == self.node.raft.id;
        if asked && m.term >= self.node.raft.term && m.commit > last {
            let (commit, last) = (LogIndex(m.commit), LogIndex(last));
            return Err(QuorumError::LostEntries { from: message.from(), commit, last });
        }
        Ok(())
    }

    /// What no member would ever send.
    fn check_form(&self, message: &Message) -> Checked {
        let m = &message.0;
        let kind = m.get_msg_type();
        let own = self.node.raft.id;
        if m.to != own || m.from == own || m.from == 0 || m.from > u64::from(u32::MAX) {
            return Err("it is not for this node");
        }
        if !is_between_members(kind) {
            return Err("members do not send such messages");
        }
        let numbers = [m.term, m.log_term, m.index, m.commit, m.commit_term, m.reject_hint];
        if m.term == 0
            || m.term >= NUMBER_MAX / 2
            || m.request_snapshot != 0
            || numbers.iter().any(|number| *number >= NUMBER_MAX)
        {
            return Err("its numbers make no sense");
        }
        if kind == MessageType::MsgAppend && (m.index == 0) != (m.log_term == 0) {
            // The term of an index past the end reads as 0 in `raft`, which would match.
            return Err("the entry before it makes no sense");
        }
        let mut before = m.log_term;
        for (entry, index) in m.entries.iter().zip(m.index + 1..) {
            if entry.index != index || entry.term < before.max(1) || entry.term > m.term {
                return Err("its entries do not follow one another");
            }
            before = entry.term;
        }
        if !m.entries.is_empty() && kind != MessageType::MsgAppend {
            return Err("it carries entries but is no append");
        }
        if kind == MessageType::MsgSnapshot {
            let metadata = m.get_snapshot().get_metadata();
            let members_ok = from_conf_state(metadata.get_conf_state()).check().is_ok();
            if !members_ok || metadata.index == 0 || metadata.index >= NUMBER_MAX / 2 || metadata.term == 0 {
                return Err("its snapshot makes no sense");
            }
        }
        Ok(())
    }

    /// What no member would send to this one as it stands. Of older terms everything may still be under way;
    /// `raft` passes over it.
    fn check_sense(&self, message: &Message) -> Checked {
        let m = &message.0;
        let raft = &self.node.raft;
        if m.term < raft.term {
            return Ok(());
        }
        let same_term = m.term == raft.term;
        match m.get_msg_type() {
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot => {
                if same_term && raft.leader_id != 0 && raft.leader_id != m.from {
                    return Err("another node leads in this term");
                }
                self.check_history(message)
            }
            MessageType::MsgAppendResponse if same_term && raft.state == StateRole::Leader => {
                let last = raft.raft_log.last_index();
                if m.index > last || m.reject_hint > m.index {
                    return Err("it answers for entries this leader never had");
                }
                Ok(())
            }
            MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => {
                // Nobody can have seen the request before this log is durable; a leader must have all of it so.
                let asked = matches!(raft.state, StateRole::Candidate | StateRole::PreCandidate);
                if asked && raft.raft_log.persisted != raft.raft_log.last_index() {
                    return Err("it answers a request that was never sent");
                }
                Ok(())
            }
            MessageType::MsgTimeoutNow if !same_term || raft.leader_id != m.from => Err("only the leader hands over"),
            MessageType::MsgTimeoutNow if !self.may_campaign() => Err("a snapshot is being installed"),
            _ => Ok(()),
        }
    }

    /// Whoever leads has everything that is committed here.
    fn check_history(&self, message: &Message) -> Checked {
        let m = &message.0;
        let (index, term) = match m.get_msg_type() {
            MessageType::MsgAppend => (m.index, m.log_term),
            MessageType::MsgSnapshot => {
                let metadata = m.get_snapshot().get_metadata();
                if metadata.term > m.term {
                    return Err("its snapshot is of a later term");
                }
                (metadata.index, metadata.term)
            }
            _ => return Ok(()),
        };
        let log = &self.node.raft.raft_log;
        let Ok(committed_term) = log.term(log.committed) else { return Err("this log cannot be read now") };
        if (index == log.committed && term != committed_term) || (index > log.committed && term < committed_term) {
            return Err("it contradicts what is committed here");
        }
        Ok(())
    }
}

/// Nodes whose ids do not fit are refused at the door.
pub(super) fn raft_id(node: NodeId) -> u64 {
    u64::from(node.0)
}
