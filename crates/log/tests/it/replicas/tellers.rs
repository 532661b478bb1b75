//! Transactional producers among the faults, and what must hold of them: what is stable never passes an open
//! transaction nor goes back, what was aborted is the same as the log tells, on every replica, and a consumer of
//! committed transactions sees each committed one once, whole and in order, and nothing else.

use std::collections::BTreeMap;

use base::batch::{BatchHeader, Codec};
use base::marker::EndMarker;
use base::records::BatchBuilder;
use base::{Offset, ProducerEpoch, ProducerId, Term, Tick, Timestamp};
use bytes::Bytes;
use log::{AppendError, Appended, LeftOut, Marker, Partition, ReadLimit, Reader, Role, Verification};

use super::cluster::Cluster;
use super::{PATIENCE_MS, Random, values_of};

/// The first producer id of these.
pub const FIRST_ID: i64 = 100;
const TELLERS: usize = 3;

/// A producer and its coordinator in one: it knows what it decided.
#[derive(Default)]
struct Teller {
    epoch: i16,
    sequence: i32,
    coordinator_epoch: i32,
    task: Option<Task>,
    waits: bool,
    /// Of the running transaction.
    values: Vec<String>,
    /// Of committed transactions.
    committed: Vec<String>,
    last_batch: Option<Bytes>,
    /// Asked for and never used: at which process.
    late: Option<(u32, u64, Verification)>,
}

#[derive(Clone)]
enum Task {
    Send(Bytes, Vec<String>),
    /// True: the epoch grows with it.
    End(bool, bool),
}

struct Waiting {
    teller: usize,
    node: u32,
    life: u64,
    term: Term,
    next: Offset,
    since: u64,
}

/// A committed batch of a transaction.
#[derive(Clone, Copy)]
struct Event {
    base: Offset,
    last: Offset,
    producer: ProducerId,
    /// Of a marker.
    commit: Option<bool>,
}

/// A transaction that was aborted, as all committed batches tell.
#[derive(Clone, Debug)]
struct Aborted {
    producer: ProducerId,
    /// First and last offset of each of its batches.
    data: Vec<(Offset, Offset)>,
    marker: Offset,
}

pub struct Tellers {
    random: Random,
    all: Vec<Teller>,
    waiting: Vec<Waiting>,
    next_value: u64,
    events: Vec<Event>,
    seen: Offset,
    /// What was stable, by node and life.
    stable: BTreeMap<(u32, u64), Offset>,
}

impl Tellers {
    pub fn new(seed: u64) -> Self {
        let all = (0..TELLERS).map(|_| Teller::default()).collect();
        let random = Random(seed ^ 0x7e11);
        Self {
            random,
            all,
            waiting: Vec::new(),
            next_value: 0,
            events: Vec::new(),
            seen: Offset(0),
            stable: BTreeMap::new(),
        }
    }

    /// Nothing runs, and nobody waits.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.all.iter().all(|teller| teller.task.is_none() && teller.values.is_empty())
    }

    /// Something to do for one of them. `ending`: what runs is ended, nothing begins.
    pub fn work(&mut self, cluster: &mut Cluster, ending: bool) {
        let at = self.random.below(TELLERS as u64) as usize;
        let anyone = 1 + self.random.below(3) as u32;
        let node = if self.random.below(8) == 0 { Some(anyone) } else { cluster.leader() };
        let Some(node) = node.filter(|node| cluster.replicas[node].partition.is_some()) else { return };
        if self.all[at].waits {
            return;
        }
        if self.all[at].task.is_none() {
            self.all[at].task = self.plan(at, ending);
        }
        let Some(task) = self.all[at].task.clone() else { return };
        let life = cluster.replicas[&node].life;
        let (now, wall) = (Tick(cluster.now), cluster.wall());
        let Some(partition) = cluster.partition(node) else { return };
        let outcome = match task {
            Task::Send(bytes, _) => self.send(at, (node, life), partition, now, wall, &bytes),
            Task::End(commit, bumps) => {
                let teller = &self.all[at];
                let epoch = ProducerEpoch(teller.epoch + i16::from(bumps));
                let coordinator_epoch = teller.coordinator_epoch;
                partition.append_marker(now, wall, Marker { producer: id(at), epoch, commit, coordinator_epoch })
            }
        };
        match outcome {
            Ok(Appended { term, next_offset: next, .. }) => {
                self.all[at].waits = true;
                self.waiting.push(Waiting { teller: at, node, life, term, next, since: cluster.now });
            }
            Err(
                error @ (AppendError::OutOfOrderSequence { .. }
                | AppendError::FencedEpoch { .. }
                | AppendError::FencedCoordinator { .. }
                | AppendError::InvalidTransaction(_)
                | AppendError::Invalid(_)),
            ) => panic!("teller {at}: {error}"),
            Err(_) => {}
        }
    }

    fn plan(&mut self, at: usize, ending: bool) -> Option<Task> {
        let is_open = !self.all[at].values.is_empty();
        if is_open && (ending || self.random.below(4) == 0) {
            let commit = self.random.below(2) == 0;
            if self.random.below(5) == 0 {
                self.all[at].coordinator_epoch += 1;
            }
            return Some(Task::End(commit, self.random.below(4) == 0));
        }
        if ending {
            return None;
        }
        let values: Vec<String> = (0..1 + self.random.below(3)).map(|_| self.value()).collect();
        let teller = &self.all[at];
        let builder = BatchBuilder::new(Codec::None).transactional();
        let mut batch = builder.producer(id(at), ProducerEpoch(teller.epoch), teller.sequence);
        for value in &values {
            batch.push(Timestamp(1_600_000_000_000), None, Some(value.as_bytes()), &[]);
        }
        Some(Task::Send(batch.build().unwrap(), values))
    }

    fn value(&mut self) -> String {
        self.next_value += 1;
        format!("t{}", self.next_value)
    }

    fn send(
        &mut self,
        at: usize,
        (node, life): (u32, u64),
        partition: &mut Partition,
        now: Tick,
        wall: Timestamp,
        bytes: &Bytes,
    ) -> Result<Appended, AppendError> {
        match partition.append(now, wall, bytes.clone()) {
            Err(AppendError::NotVerified { producer, epoch }) => {
                assert!((producer, epoch) == (id(at), ProducerEpoch(self.all[at].epoch)));
                let question = partition.verify_begin(now, producer, epoch);
                if self.random.below(6) == 0 {
                    // The answer takes long.
                    self.all[at].late = Some((node, life, question));
                    return Err(AppendError::NotVerified { producer, epoch });
                }
                assert!(partition.verified(now, question));
                partition.append(now, wall, bytes.clone())
            }
            outcome => outcome,
        }
    }

    /// Answers as an owner does.
    pub fn answer(&mut self, cluster: &mut Cluster) {
        let now = cluster.now;
        for waiting in std::mem::take(&mut self.waiting) {
            let replica = &cluster.replicas[&waiting.node];
            let partition = replica.partition.as_ref().filter(|_| replica.life == waiting.life);
            let leads = partition.is_some_and(|p| p.role() == Role::Leader && p.term() == waiting.term);
            let committed = partition.is_some_and(|p| p.committed() >= waiting.next);
            let at = waiting.teller;
            if leads && committed {
                self.all[at].waits = false;
                self.done(at, cluster, waiting.node);
            } else if !leads || now - waiting.since > PATIENCE_MS {
                self.all[at].waits = false;
            } else {
                self.waiting.push(waiting);
            }
        }
    }

    fn done(&mut self, at: usize, cluster: &mut Cluster, node: u32) {
        let teller = &mut self.all[at];
        match teller.task.take().unwrap() {
            Task::Send(bytes, values) => {
                teller.sequence += values.len() as i32;
                teller.values.extend(values);
                teller.last_batch = Some(bytes);
            }
            Task::End(commit, bumps) => {
                let values = std::mem::take(&mut teller.values);
                if commit {
                    teller.committed.extend(values);
                }
                if bumps {
                    teller.epoch += 1;
                    teller.sequence = 0;
                }
                self.knock(at, cluster, node);
            }
        }
    }

    /// What is late changes nothing: a batch of the ended transaction, a yes to a question before its end.
    fn knock(&mut self, at: usize, cluster: &mut Cluster, node: u32) {
        let (now, wall, life) = (Tick(cluster.now), cluster.wall(), cluster.replicas[&node].life);
        let Some(partition) = cluster.partition(node) else { return };
        if let Some(late) = self.all[at].late.take().filter(|late| (late.0, late.1) == (node, life)) {
            assert!(!partition.verified(now, late.2), "a yes from before the marker");
        }
        if let Some(bytes) = self.all[at].last_batch.take() {
            let end = partition.end();
            let outcome = partition.append(now, wall, bytes);
            assert!(outcome.is_err() || outcome.is_ok_and(|appended| appended.duplicate));
            assert_eq!(partition.end(), end);
        }
    }

    /// Compares what each replica says with what all committed batches tell.
    pub fn look(&mut self, cluster: &Cluster, committed: &BTreeMap<Offset, Bytes>) {
        for (base, bytes) in committed.range(self.seen..) {
            let header = BatchHeader::check(bytes).unwrap();
            let commit = EndMarker::decode(&header, bytes).map(|marker| marker.commit);
            if header.is_transactional() {
                let (last, producer) = (header.last_offset(), header.producer_id);
                self.events.push(Event { base: *base, last, producer, commit });
            }
            self.seen = header.next_offset();
        }
        for node in cluster.running() {
            let (reader, life) = (cluster.reader(node).unwrap(), cluster.replicas[&node].life);
            if reader.committed() > self.seen {
                continue;
            }
            let stable = reader.last_stable();
            let start = reader.start();
            let (expected, aborted) = self.truth(reader.committed(), Offset(0));
            // A replica that began in the middle of a transaction knows it from its first batch there, if there is one.
            let (known, _) = self.truth(reader.committed(), start);
            let is_right = stable == expected.max(start) || (expected < start && stable == known);
            assert!(is_right, "node {node}: {reader:?}, stable {stable}, not {expected} or {known}");
            let before = self.stable.insert((node, life), stable);
            assert!(before.is_none_or(|before| before <= stable), "node {node}: stable went back");
            if self.random.below(8) == 0 {
                self.compare(&reader, stable, &aborted);
            }
        }
    }

    /// What is stable and what was aborted, if `committed` is, for one who knows only of batches from `start` on.
    fn truth(&self, committed: Offset, start: Offset) -> (Offset, Vec<Aborted>) {
        let mut open: BTreeMap<ProducerId, Vec<(Offset, Offset)>> = BTreeMap::new();
        let mut aborted = Vec::new();
        let known = self.events.iter().skip_while(|event| event.base < start);
        for event in known.take_while(|event| event.base < committed) {
            match event.commit {
                None => open.entry(event.producer).or_default().push((event.base, event.last)),
                Some(commit) => {
                    let ended = open.remove(&event.producer).filter(|_| !commit);
                    let (producer, marker) = (event.producer, event.base);
                    aborted.extend(ended.map(|data| Aborted { producer, data, marker }));
                }
            }
        }
        let stable = open.values().map(|data| data[0].0).min().unwrap_or(committed);
        (stable, aborted)
    }

    fn compare(&mut self, reader: &Reader, stable: Offset, truth: &[Aborted]) {
        let start = reader.start();
        let from = start.plus(self.random.below((stable.0 - start.0 + 1).unsigned_abs()) as i64);
        let Ok(fetched) = reader.read(from, 1 + self.random.below(900) as usize, ReadLimit::Stable) else { return };
        if fetched.bytes.is_empty() {
            return assert_eq!((fetched.next, fetched.aborted.len()), (from, 0));
        }
        assert!(fetched.next <= stable);
        assert!(fetched.aborted.is_sorted());
        // A replica that began in the middle of a transaction knows it from there on.
        let is_of = |told: &log::AbortedTransaction, one: &Aborted| {
            told.producer == one.producer && (one.data[0].0..one.marker).contains(&told.first)
        };
        for one in truth {
            let mut inside = one.data.iter().filter(|(base, last)| *last >= from && *base < fetched.next);
            if let Some((base, _)) = inside.next() {
                let is_told = fetched.aborted.iter().any(|told| is_of(told, one) && told.first <= *base);
                assert!(is_told, "{one:?} is not told, read from {from} to {} of {reader:?}", fetched.next);
            }
        }
        for told in &fetched.aborted {
            let one = truth.iter().find(|one| is_of(told, one) && one.marker >= from);
            assert!(one.is_some() && told.first < fetched.next, "{told:?} is told for no reason");
            let begins = told.first == one.unwrap().data[0].0;
            assert!(begins || start > Offset(0), "{told:?} begins earlier");
        }
    }

    /// Everything was ended: a consumer of committed transactions sees them, and no others.
    pub fn check_end(&mut self, cluster: &Cluster, committed: &BTreeMap<Offset, Bytes>) {
        self.look(cluster, committed);
        for node in 1..=3 {
            let reader = cluster.reader(node).unwrap();
            assert_eq!(reader.last_stable(), reader.committed(), "a transaction hangs");
            let mut found: BTreeMap<ProducerId, Vec<String>> = BTreeMap::new();
            let mut at = reader.start();
            while at < reader.last_stable() {
                let fetched = reader.read(at, 700, ReadLimit::Stable).unwrap();
                let mut left_out = LeftOut::new(&fetched.aborted);
                for batch in base::batch::split(&fetched.bytes) {
                    let (header, bytes) = batch.unwrap();
                    if !left_out.leaves_out(&header) && header.producer_id.0 >= FIRST_ID {
                        found.entry(header.producer_id).or_default().extend(values_of(&bytes));
                    }
                }
                at = fetched.next;
            }
            for (at, teller) in self.all.iter().enumerate() {
                let found = found.remove(&id(at)).unwrap_or_default();
                // What was trimmed is not there.
                assert!(teller.committed.ends_with(&found), "node {node}: {found:?} of {:?}", teller.committed);
                assert!(found.len() == teller.committed.len() || reader.start() > Offset(0), "node {node}");
            }
        }
    }
}

fn id(at: usize) -> ProducerId {
    ProducerId(FIRST_ID + at as i64)
}
