//! Partitions: one history each. What is committed never changes, a new leader has all of it, what was
//! acknowledged is in it, producers' records are in it in order and once.

use std::collections::{BTreeMap, BTreeSet};

use base::batch::BatchHeader;
use base::{NodeId, Offset, ProducerEpoch, ProducerId, Term, TopicId, TopicPartition};
use bytes::Bytes;
use log::{LostBatch, ReadError, ReadLimit};

use super::broken;
use super::elections::{Elections, View};
use crate::node::{Acked, Acks, GroupName, Log, Node};
use crate::trace::Violation;

const READ_BYTES: usize = 64 << 10;

/// See the module.
#[derive(Debug, Default)]
pub struct PartitionFacts {
    by_id: BTreeMap<TopicPartition, One>,
    acked_all: u64,
    acked_one: u64,
    rescued: u64,
}

/// One partition's history.
#[derive(Debug, Default)]
struct One {
    committed: BTreeMap<Offset, Known>,
    end: Offset,
    written: BTreeMap<(Term, Offset), u32>,
    producers: BTreeMap<ProducerId, (ProducerEpoch, i32)>,
    seen: BTreeMap<NodeId, Seen>,
    /// acks=1, not yet known to be committed: by whom, and what.
    early: Vec<(NodeId, Acked)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known {
    next: Offset,
    crc: u32,
    term: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    life: u64,
    committed: Offset,
    end: Offset,
    term: Term,
}

impl PartitionFacts {
    /// Looks at what a replica shows now. `flipped`: bits of its log were, so it may refuse to be read for a while.
    pub fn observe(
        &mut self,
        tp: TopicPartition,
        view: View,
        log: &Log,
        elected: bool,
        flipped: bool,
    ) -> Result<(), Violation> {
        let one = self.by_id.entry(tp).or_default();
        let (node, reader) = (view.node, log.partition.reader());
        let (committed, end) = (reader.committed(), reader.end());
        let fresh = Seen { life: view.life, committed: reader.start(), end: Offset(-1), term: view.term };
        let mut seen = one.seen.get(&node).copied().filter(|seen| seen.life == view.life).unwrap_or(fresh);
        if committed < seen.committed {
            let what = format!("{tp}: node {node} went from {} to {committed}", seen.committed);
            return broken("commit goes back", what);
        }
        if end < committed {
            return broken("commit", format!("{tp}: node {node} ends at {end}, below its committed {committed}"));
        }
        if (committed, end, view.term) != (seen.committed, seen.end, seen.term) {
            match one.walk(tp, node, log, (seen.committed, committed), flipped) {
                Ok(true) => (seen.committed, seen.end, seen.term) = (committed, end, view.term),
                Ok(false) => {}
                Err(violation) => return Err(violation),
            }
        }
        one.seen.insert(node, seen);
        if elected && end < one.end {
            let what = format!("{tp}: new leader {node} ends at {end}, committed is {}", one.end);
            return broken("leader completeness", what);
        }
        Ok(())
    }

    /// A producer was told that its records are there.
    pub fn acked(&mut self, node: NodeId, acked: &Acked, elections: &Elections) -> Result<(), Violation> {
        let tp = acked.tp;
        let one = self.by_id.entry(tp).or_default();
        let known = one.committed.get(&acked.base);
        match acked.acks {
            Acks::All => {
                self.acked_all += 1;
                if known.is_none_or(|known| (known.crc, known.next) != (acked.crc, acked.next)) {
                    let what = format!("{tp}: node {node} acknowledged {acked:?}, committed there is {known:?}");
                    return broken("acked(all)", what);
                }
            }
            Acks::Leader => {
                self.acked_one += 1;
                if let Some((term, leader)) = elections.later_leader(GroupName::Partition(tp), acked.term) {
                    let what = format!("{tp}: node {node} acknowledged {acked:?}, but {leader} leads in {term}");
                    return broken("acked(1) by a deposed leader", what);
                }
                one.early.push((node, *acked));
            }
            Acks::None => {}
        }
        Ok(())
    }

    /// What a node had only written is lost by a loss of power or a failed sync: that much acks=1 allows.
    pub fn unsynced_lost(&mut self, node: NodeId) {
        for one in self.by_id.values_mut() {
            let committed = &one.committed;
            one.early.retain(|(by, acked)| *by != node || is_in(committed, acked));
        }
    }

    /// A consumer was given these batches.
    pub fn fetched(&self, tp: TopicPartition, from: Offset, bytes: &Bytes) -> Result<(), Violation> {
        let Some(one) = self.by_id.get(&tp) else { return Ok(()) };
        let mut at = from;
        for batch in base::batch::split(bytes) {
            let Ok((header, _)) = batch else { return broken("fetch", format!("{tp}: bytes at {at} are no batch")) };
            let known = one.committed.get(&header.base_offset);
            if known.is_none_or(|known| known.crc != header.crc) {
                let what = format!("{tp}: a consumer got a batch at {} that is not committed", header.base_offset);
                return broken("consumers see committed only", what);
            }
            if header.base_offset > at || header.next_offset() <= at {
                return broken("fetch", format!("{tp}: asked for {at}, got a batch at {}", header.base_offset));
            }
            at = header.next_offset();
        }
        Ok(())
    }

    /// The offset after all that is known to be committed.
    #[must_use]
    pub fn end(&self, tp: TopicPartition) -> Offset {
        self.by_id.get(&tp).map_or(Offset::ZERO, |one| one.end)
    }

    /// All is well again: every replica has the same bytes, and what was acknowledged early is there or in
    /// lost+found.
    pub fn finish(&mut self, nodes: &BTreeMap<u32, Node>, deleted: &BTreeSet<TopicId>) -> Result<(), Violation> {
        let partitions: Vec<TopicPartition> =
            self.by_id.keys().copied().filter(|tp| !deleted.contains(&tp.topic)).collect();
        for tp in partitions {
            let state = nodes.values().find_map(|node| Some(&node.process.as_ref()?.meta.state));
            let seats: Vec<NodeId> = state
                .and_then(|state| state.topics.get(&tp.topic))
                .map_or_else(Vec::new, |topic| topic.replicas_of(tp.partition).to_vec());
            let hosts = nodes.values().filter(|node| seats.contains(&node.id));
            let replicas: Vec<(NodeId, &Log)> =
                hosts.filter_map(|node| Some((node.id, node.process.as_ref()?.logs.get(&tp)?))).collect();
            let Some(one) = self.by_id.get_mut(&tp).filter(|_| !replicas.is_empty()) else { continue };
            for (node, log) in &replicas {
                let committed = log.partition.committed();
                if committed != one.end {
                    let what = format!("{tp}: node {node} has {committed} committed, not {}", one.end);
                    return broken("replicas are the same", what);
                }
                if !one.walk(tp, *node, log, (log.partition.start(), committed), false)? {
                    return broken("readable", format!("{tp}: node {node} cannot read what is committed"));
                }
            }
            let logs = nodes.values().filter_map(|node| node.process.as_ref()?.logs.get(&tp));
            let lost: Vec<_> = logs.flat_map(|log| log.partition.lost_and_found()).collect();
            for (node, acked) in &one.early {
                // What a node that has no replica any more had not passed on is on its disk still.
                if is_in(&one.committed, acked) || !seats.contains(node) {
                    continue;
                }
                // Whoever had a copy saved it when it was replaced. Another leader's batch may have had the same offsets.
                let batches = lost.iter().flat_map(|found| &found.batches);
                let is_it = |batch: &&LostBatch| {
                    (batch.term, batch.base_offset, batch.next_offset) == (acked.term, acked.base, acked.next)
                };
                let found: Vec<log::Acked> = batches.filter(is_it).map(|batch| batch.acked).collect();
                if found.iter().any(|told| matches!(told, log::Acked::Yes | log::Acked::Unknown)) {
                    self.rescued += 1;
                } else {
                    let what = format!("{tp}: {acked:?} of node {node} is neither readable nor rescued: {found:?}");
                    return broken("acked(1) readable or in lost+found", what);
                }
            }
        }
        Ok(())
    }

    #[must_use]
    pub fn summary(&self) -> String {
        let batches: usize = self.by_id.values().map(|one| one.committed.len()).sum();
        format!(
            "{batches} batches, {} acked(all), {} acked(1), {} rescued",
            self.acked_all, self.acked_one, self.rescued
        )
    }
}

fn is_in(committed: &BTreeMap<Offset, Known>, acked: &Acked) -> bool {
    committed.get(&acked.base).is_some_and(|known| known.crc == acked.crc)
}

impl One {
    /// Reads a replica from `from` to its end: what it has committed must be what all have, and what two
    /// have of one term must be the same. False if it cannot be read for a reason that is not its fault.
    fn walk(
        &mut self,
        tp: TopicPartition,
        node: NodeId,
        log: &Log,
        (from, committed): (Offset, Offset),
        flipped: bool,
    ) -> Result<bool, Violation> {
        let reader = log.partition.reader();
        let mut at = from;
        while at < reader.end() {
            let fetched = match reader.read(at, READ_BYTES, ReadLimit::End) {
                Ok(fetched) => fetched,
                Err(ReadError::Corrupt { path, position, reason }) => {
                    if flipped {
                        // It says so instead of giving it out, and gives what comes after it.
                        at = at.next();
                        continue;
                    }
                    return broken("readable", format!("{tp}: node {node}: {path}: byte {position}: {reason}"));
                }
                Err(ReadError::Disk(_) | ReadError::OutOfRange { .. }) => return Ok(false),
            };
            for batch in base::batch::split(&fetched.bytes) {
                let Ok((header, _)) = batch else {
                    return broken("readable", format!("{tp}: node {node}: bytes after {at} are no batch"));
                };
                self.batch(tp, node, &header, committed)?;
            }
            if fetched.next <= at {
                return broken(
                    "readable",
                    format!("{tp}: node {node} gives nothing at {at}, ends at {}", reader.end()),
                );
            }
            at = fetched.next;
        }
        Ok(true)
    }

    fn batch(
        &mut self,
        tp: TopicPartition,
        node: NodeId,
        header: &BatchHeader,
        committed: Offset,
    ) -> Result<(), Violation> {
        let (base, next) = (header.base_offset, header.next_offset());
        let term = Term(u64::try_from(header.leader_epoch).unwrap_or(0));
        let first = *self.written.entry((term, base)).or_insert(header.crc);
        if first != header.crc {
            return broken("log matching", format!("{tp}: node {node} has another batch at {base} of term {term}"));
        }
        if next > committed {
            return Ok(());
        }
        let found = Known { next, crc: header.crc, term: header.leader_epoch };
        if let Some(known) = self.committed.get(&base) {
            if *known != found {
                return broken(
                    "no offset with two payloads",
                    format!("{tp}: node {node} has {found:?} at {base}, not {known:?}"),
                );
            }
            return Ok(());
        }
        if base != self.end {
            let what = format!("{tp}: node {node} has a batch committed at {base}, known is up to {}", self.end);
            return broken("committed never changes", what);
        }
        self.committed.insert(base, found);
        self.end = next;
        self.order(tp, header)
    }

    /// An idempotent producer's sequences follow one another in the log.
    fn order(&mut self, tp: TopicPartition, header: &BatchHeader) -> Result<(), Violation> {
        if header.producer_id == ProducerId::NONE {
            return Ok(());
        }
        let id = header.producer_id;
        let expected = match self.producers.get(&id) {
            Some((epoch, next)) if *epoch == header.producer_epoch => *next,
            _ => 0,
        };
        if header.base_sequence != expected {
            let (found, at) = (header.base_sequence, header.base_offset);
            let promise = if found < expected { "no duplicate" } else { "producer order" };
            return broken(promise, format!("{tp}: producer {id} has sequence {found} at {at}, expected {expected}"));
        }
        self.producers.insert(id, (header.producer_epoch, expected + header.record_count));
        Ok(())
    }
}
