//! One group among liars: whatever arrives, it goes on. `raft` aborts the process on many of these messages.
//!
//! Only that is checked. Whoever lies within a group can make it forget; the transport lets in members only.

use base::{LogIndex, NodeId, Tick};
use bytes::Bytes;
use raft::CAMPAIGN_TRANSFER;
use raft::eraftpb::{Entry as RaftEntry, EntryType, Message as RaftMessage, Snapshot as RaftSnapshot};

use super::cruel::Random;
use super::world::MemLog;
use super::*;
use crate::members::Change;
use crate::message::codec::context_of;
use crate::storage::to_conf_state;

const SEEDS: u64 = 400;
const STEPS: u64 = 250;
const KINDS: [MessageType; 15] = [
    MessageType::MsgAppend,
    MessageType::MsgAppend,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgAppendResponse,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
];

struct Victim {
    group: Group<MemLog>,
    random: Random,
    unsynced: Vec<u64>,
    taken: usize,
}

impl Victim {
    fn near(&mut self, number: u64) -> u64 {
        match self.random.below(12) {
            0 => self.random.below(5),
            1 => u64::MAX - self.random.below(3),
            2 => (1 << 62) - 1 - self.random.below(3),
            _ => (number + self.random.below(4)).saturating_sub(self.random.below(4)),
        }
    }

    fn forge(&mut self) -> RaftMessage {
        let raft = &self.group.node.raft;
        let (term, last, committed) = (raft.term, raft.raft_log.last_index(), raft.raft_log.committed);
        let kind = KINDS[usize::try_from(self.random.below(15)).unwrap()];
        let place = if self.random.chance(50) { last } else { committed };
        let index = self.near(place);
        let right_term = self.group.node.raft.raft_log.term(index).unwrap_or(0);
        let mut m = RaftMessage {
            from: if self.random.chance(70) { 1 } else { self.random.below(5) },
            to: if self.random.chance(98) { 2 } else { 3 },
            term: if self.random.chance(70) { term.max(1) } else { self.near(term) },
            index,
            log_term: if self.random.chance(70) { right_term } else { self.near(term) },
            commit: self.near(last),
            commit_term: if self.random.chance(70) { right_term } else { self.near(term) },
            reject_hint: self.near(last),
            reject: self.random.chance(40),
            ..RaftMessage::default()
        };
        m.set_msg_type(kind);
        match kind {
            MessageType::MsgAppend => {
                let count = self.random.below(4);
                let entries: Vec<_> =
                    (1..=count).map(|at| self.entry(index.wrapping_add(at), m.log_term, m.term)).collect();
                m.entries = entries.into();
            }
            MessageType::MsgRequestVote if self.random.chance(20) => m.context = Bytes::from_static(CAMPAIGN_TRANSFER),
            MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse => {
                m.context = context_of(self.random.below(9_000))
            }
            MessageType::MsgSnapshot => m.set_snapshot(self.snapshot(index, m.log_term)),
            _ => {}
        }
        m
    }

    fn entry(&mut self, index: u64, from: u64, to: u64) -> RaftEntry {
        let term = if self.random.chance(50) { from } else { to };
        let mut entry = RaftEntry { index, term, ..RaftEntry::default() };
        match self.random.below(8) {
            0 => {}
            1 => {
                entry.set_entry_type(EntryType::EntryConfChangeV2);
                let (voters, learners) = (self.nodes(), self.nodes());
                let change = if self.random.chance(40) { Change::Leave } else { Change::To { voters, learners } };
                entry.data = change.encode();
            }
            _ => entry.data = Bytes::from_static(b"forged"),
        }
        entry
    }

    fn nodes(&mut self) -> Vec<NodeId> {
        (1..6).filter(|_| self.random.chance(50)).map(NodeId).collect()
    }

    fn snapshot(&mut self, index: u64, term: u64) -> RaftSnapshot {
        let mut snapshot = RaftSnapshot { data: Bytes::from_static(b"forged"), ..RaftSnapshot::default() };
        let (voters, learners, outgoing) = (self.nodes(), self.nodes(), self.nodes());
        let outgoing = if self.random.chance(70) { Vec::new() } else { outgoing };
        let learners = if self.random.chance(70) { Vec::new() } else { learners };
        let members = Members { voters, learners, outgoing, ..Members::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.set_conf_state(to_conf_state(&members));
        snapshot
    }

    fn step(&mut self, step: u64) {
        let now = Tick(step * 9);
        match self.random.below(20) {
            0..5 => self.group.tick(now),
            5 => drop(self.group.propose(Bytes::from_static(b"x"))),
            6 if self.random.chance(30) => self.group.campaign(),
            7 => self.group.hint_leader_gone(now),
            8 => drop(self.group.propose_membership(&[NodeId(2), NodeId(3)], &[])),
            9 => drop(self.group.transfer_leadership(NodeId(1))),
            10 => self.sync(),
            11 => self.group.report_snapshot(NodeId(1), step.is_multiple_of(2)),
            12 if self.unsynced.is_empty() => {
                let applied = LogIndex(self.group.node.raft.raft_log.applied());
                if applied > self.group.storage().state.snapshot.index {
                    self.group.storage_mut().compact(applied, Bytes::from_static(b"state"));
                }
            }
            _ => {
                let forged = self.forge();
                self.taken += usize::from(self.group.step(now, Message(forged)).is_ok());
            }
        }
        self.pump();
    }

    fn sync(&mut self) {
        self.group.storage_mut().sync();
        for number in std::mem::take(&mut self.unsynced) {
            self.group.persisted(number);
        }
    }

    fn pump(&mut self) {
        while let Some(ready) = self.group.ready() {
            self.group.storage_mut().write(&ready);
            self.group.written(ready.number);
            for entry in &ready.committed {
                let _makes_no_sense = self.group.apply_membership(entry);
                self.group.applied(entry.index);
            }
            self.unsynced.push(ready.number);
            for message in ready.messages.iter().chain(&ready.messages_after_persist) {
                assert_eq!(Message::decode(message.encode()).unwrap(), *message);
            }
        }
        if self.random.chance(60) {
            self.sync();
        }
    }
}

#[test]
fn lies_do_not_stop_the_process() {
    let mut taken = 0;
    for seed in 0..SEEDS {
        let mut log = MemLog::new(&[1, 2, 3], &[]);
        log.keeps_commit = seed % 2 == 0;
        let group = Group::open(GroupConfig::standard(NodeId(2), seed), log).unwrap();
        let mut victim = Victim { group, random: Random(seed << 20), unsynced: Vec::new(), taken: 0 };
        (0..STEPS).for_each(|step| victim.step(step));
        taken += victim.taken;
    }
    assert!(taken > 100 * usize::try_from(SEEDS).unwrap() / 4, "too few lies were taken: {taken}");
}
