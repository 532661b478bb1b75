//! Group 0: one history. What is committed never changes, every new leader has all of it, logs that agree on
//! an entry's term agree on the entry, and every node's state after the same command is the same.

use std::collections::BTreeMap;

use base::{LogIndex, NodeId, Offset, PartitionIndex, Term};
use control::{State, TableId};
use quorum::{Entry, Payload, Storage};

use super::broken;
use crate::node::Meta;
use crate::random::mix;
use crate::trace::Violation;

/// States are compared at every so many-th command: encoding them is dear.
const STATE_EVERY: u64 = 7;

/// See the module.
#[derive(Debug, Default)]
pub struct ControlFacts {
    committed: BTreeMap<LogIndex, (Term, u64)>,
    written: BTreeMap<(LogIndex, Term), u64>,
    states: BTreeMap<LogIndex, u64>,
    seen: BTreeMap<NodeId, Seen>,
    published: BTreeMap<(NodeId, TableId, PartitionIndex), (u64, Offset)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    life: u64,
    commit: LogIndex,
    last: LogIndex,
    last_term: Term,
    applied: LogIndex,
}

impl ControlFacts {
    /// Commands and other entries known to be committed.
    #[must_use]
    pub fn committed_count(&self) -> usize {
        self.committed.len()
    }

    /// The last index known to be committed.
    #[must_use]
    pub fn last_committed(&self) -> LogIndex {
        self.committed.last_key_value().map_or(LogIndex::ZERO, |(index, _)| *index)
    }

    pub fn observe(&mut self, node: NodeId, life: u64, meta: &Meta, elected: bool) -> Result<(), Violation> {
        let log = meta.group.storage();
        let (commit, last) = (meta.group.commit_index(), log.last_index());
        let last_term = log.term_of(last).unwrap_or_default();
        let mut seen = self.seen.get(&node).copied().filter(|seen| seen.life == life).unwrap_or_default();
        seen.life = life;
        if commit < seen.commit {
            return broken("commit goes back", format!("control: node {node} went from {} to {commit}", seen.commit));
        }
        if (last, last_term) != (seen.last, seen.last_term) {
            self.log_matching(node, meta, seen.commit)?;
            (seen.last, seen.last_term) = (last, last_term);
        }
        // What is committed and finds no room on the disk is not in its log yet: other entries may still lie there.
        if commit > seen.commit && !meta.is_stalled() {
            self.committed_agrees(node, meta, seen.commit, commit)?;
            seen.commit = commit;
        }
        if elected {
            self.complete(node, meta)?;
        }
        if meta.state.applied > seen.applied {
            seen.applied = meta.state.applied;
            self.state_agrees(node, meta)?;
            self.published_grows(node, life, &meta.state)?;
        }
        self.seen.insert(node, seen);
        Ok(())
    }

    fn log_matching(&mut self, node: NodeId, meta: &Meta, from: LogIndex) -> Result<(), Violation> {
        for entry in entries(meta, from.next(), meta.group.storage().last_index().next()) {
            let hash = hash(&entry);
            let first = *self.written.entry((entry.index, entry.term)).or_insert(hash);
            if first != hash {
                let (index, term) = (entry.index, entry.term);
                return broken(
                    "log matching",
                    format!("control: node {node} has another entry {index} of term {term}"),
                );
            }
        }
        Ok(())
    }

    fn committed_agrees(&mut self, node: NodeId, meta: &Meta, from: LogIndex, to: LogIndex) -> Result<(), Violation> {
        for entry in entries(meta, from.next(), to.next()) {
            let found = (entry.term, hash(&entry));
            let first = *self.committed.entry(entry.index).or_insert(found);
            if first != found {
                let (index, term) = (entry.index, entry.term);
                let what =
                    format!("control: node {node} has term {term} committed at {index}, first seen was {}", first.0);
                return broken("committed never changes", what);
            }
        }
        Ok(())
    }

    fn complete(&self, node: NodeId, meta: &Meta) -> Result<(), Violation> {
        let log = meta.group.storage();
        let last = self.last_committed();
        if log.last_index() < last {
            let what = format!("control: new leader {node} ends at {}, committed is {last}", log.last_index());
            return broken("leader completeness", what);
        }
        for (index, (term, _)) in self.committed.range(log.first_index()..) {
            if log.term_of(*index) != Ok(*term) {
                let found = log.term_of(*index);
                let what = format!("control: new leader {node} has {found:?} at {index}, committed is term {term}");
                return broken("leader completeness", what);
            }
        }
        Ok(())
    }

    fn published_grows(&mut self, node: NodeId, life: u64, state: &State) -> Result<(), Violation> {
        for (id, table) in &state.tables {
            for (partition, now) in &table.published {
                let before = self.published.insert((node, *id, *partition), (life, *now));
                if let Some((_, before)) = before.filter(|(known, before)| *known == life && before > now) {
                    return broken("published grows", format!("node {node}: {partition} went from {before} to {now}"));
                }
            }
        }
        Ok(())
    }

    fn state_agrees(&mut self, node: NodeId, meta: &Meta) -> Result<(), Violation> {
        let at = meta.state.applied;
        if !at.0.is_multiple_of(STATE_EVERY) {
            return Ok(());
        }
        let hash = bytes_hash(&meta.state.snapshot());
        let first = *self.states.entry(at).or_insert(hash);
        if first == hash {
            return Ok(());
        }
        broken("state machine safety", format!("control: node {node} has another state after command {at}"))
    }
}

/// The published ranges of every partition of every table follow one another from zero.
pub(crate) fn published_is_gapless(state: &State) -> Result<(), Violation> {
    for table in state.tables.values() {
        let mut ranges: BTreeMap<PartitionIndex, Vec<(Offset, Offset)>> = BTreeMap::new();
        for segment in table.segments.values() {
            ranges.entry(segment.partition).or_default().push((segment.from, segment.to));
        }
        for (partition, mut ranges) in ranges {
            ranges.sort_unstable();
            let mut at = Offset::ZERO;
            for (from, to) in ranges {
                if from != at {
                    let what = format!("partition {partition}: a segment from {from} follows one to {at}");
                    return broken("published gapless", what);
                }
                at = to;
            }
            if at != table.published(partition) {
                let published = table.published(partition);
                return broken(
                    "published gapless",
                    format!("partition {partition}: {published} published, segments to {at}"),
                );
            }
        }
    }
    Ok(())
}

fn entries(meta: &Meta, from: LogIndex, to: LogIndex) -> Vec<Entry> {
    let log = meta.group.storage();
    let (from, to) = (from.max(log.first_index()), to.min(log.last_index().next()));
    if from >= to { Vec::new() } else { log.entries(from, to, u64::MAX).unwrap_or_default() }
}

fn hash(entry: &Entry) -> u64 {
    let kind = match entry.payload {
        Payload::Empty => 0,
        Payload::Data(_) => 1,
        Payload::Membership(_) => 2,
    };
    mix(kind) ^ bytes_hash(entry.payload.bytes())
}

/// Not for keeping: only to compare within one run.
pub(crate) fn bytes_hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(eight)).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }
    for byte in chunks.remainder() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    mix(hash)
}
