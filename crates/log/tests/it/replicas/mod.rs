//! Three replicas under faults: crashes at any operation of their disks, power losses, full disks, failed syncs, a
//! bad network, cuts in one direction. What was acknowledged holds, and when the faults stop all replicas are
//! the same.
//!
//! A seed is a whole world. The seeds of `seeds.txt` failed once and are run first, for ever.

mod cluster;
mod mending;
mod rescues;
mod scenes;
mod tellers;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use base::disk::memory::Fault;
use base::{Offset, ProducerId, Term, Tick, records};
use bytes::Bytes;
use log::{Acked, AppendError, PartitionConfig, ReadLimit, Role};

use self::cluster::{Cluster, batches};
use self::tellers::{FIRST_ID, Tellers};
use crate::world::{batch, batch_of};

const SEEDS: u64 = 300;
const TRANSACTION_SEEDS: u64 = 90;
const STEPS: u64 = 1500;
const PRODUCERS: usize = 3;
const ROOMY: u64 = 4 << 20;
/// How long it may take until all is well again, in steps.
const HEAL_STEPS: u64 = 8000;
/// How long a producer waits for an answer.
const PATIENCE_MS: u64 = 700;

#[test]
fn kept_seeds_stay_good() {
    let lines = include_str!("seeds.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).for_each(|line| run(line.parse().unwrap()));
}

#[test]
fn what_was_acknowledged_holds_under_faults() {
    (0..SEEDS).for_each(run);
}

#[test]
fn transactions_hold_under_faults() {
    let lines = include_str!("transaction-seeds.txt").lines();
    let kept = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| line.parse().unwrap());
    kept.chain(0..TRANSACTION_SEEDS).for_each(run_with_transactions);
}

#[test]
#[ignore = "many minutes: for a night, or after a change of replication"]
fn what_was_acknowledged_holds_in_many_more_worlds() {
    many().for_each(run);
}

#[test]
#[ignore = "many minutes: for a night, or after a change of replication"]
fn transactions_hold_in_many_more_worlds() {
    many().for_each(run_with_transactions);
}

fn many() -> std::ops::Range<u64> {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let first = number("FIRST_SEED", SEEDS);
    first..first + number("SEEDS", 5000)
}

fn run(seed: u64) {
    if std::env::var("LOUD").is_ok() {
        println!("seed {seed}");
    }
    kept(seed, "seeds.txt", || World::new(seed).go());
}

fn run_with_transactions(seed: u64) {
    kept(seed, "transaction-seeds.txt", || {
        let mut world = World::new(seed);
        world.tellers = Some(Tellers::new(seed));
        world.go();
    });
}

fn kept(seed: u64, list: &str, run: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        println!("failed: add to replicas/{list}:\n{seed}");
        std::panic::resume_unwind(panic);
    }
}

/// A batch that waits for acks=all.
struct Waiting {
    producer: usize,
    node: u32,
    life: u64,
    term: Term,
    base: Offset,
    next: Offset,
    since: u64,
}

/// An idempotent producer: one batch at a time, again until it is acknowledged.
#[derive(Default)]
struct Producer {
    sequence: i32,
    batch: Option<(Bytes, Vec<String>)>,
    waits: bool,
    acknowledged: Vec<String>,
}

/// Written with acks=1.
struct Early {
    node: u32,
    life: u64,
    next: Offset,
    value: String,
}

struct World {
    seed: u64,
    cluster: Cluster,
    producers: Vec<Producer>,
    tellers: Option<Tellers>,
    waiting: Vec<Waiting>,
    early: Vec<Early>,
    /// What is committed, by base offset: never changes.
    committed: BTreeMap<Offset, Bytes>,
    leaders: BTreeMap<Term, u32>,
    /// Below this some replica removed it.
    start: Offset,
    restarts: BTreeMap<u32, u64>,
    next_value: u64,
    faults: bool,
    /// Disks that may have failed to sync: what was not durable may be gone.
    doubtful: BTreeSet<u32>,
    ever_doubtful: BTreeSet<u32>,
    /// A disk had no room for a while, so lost+found may not have had it; or a replica started anew.
    was_full: bool,
}

fn config(seed: u64) -> PartitionConfig {
    PartitionConfig {
        retention_ms: None,
        // On some the log is trimmed, so that who was away needs a snapshot.
        retention_bytes: seed.is_multiple_of(3).then_some(3000),
        file_bytes_max: 500 + seed % 7 * 300,
        file_age_ms_max: 2000,
        index_step_bytes: 1 + seed % 3 * 150,
        ..PartitionConfig::default()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut cluster = Cluster::new(3, seed, config(seed), ROOMY);
        cluster.net.loss = [0, 0, 2, 10][cluster.random.below(4) as usize];
        cluster.net.doubled = cluster.random.below(2) * 10;
        cluster.net.delay_ms_max = 2 + cluster.random.below(30);
        Self {
            seed,
            cluster,
            producers: (0..PRODUCERS).map(|_| Producer::default()).collect(),
            tellers: None,
            waiting: Vec::new(),
            early: Vec::new(),
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            start: Offset(0),
            restarts: BTreeMap::new(),
            next_value: 0,
            faults: true,
            doubtful: BTreeSet::new(),
            ever_doubtful: BTreeSet::new(),
            was_full: false,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.cluster.random.below(bound)
    }

    fn go(mut self) {
        for _ in 0..STEPS {
            self.fault();
            self.work();
            self.tell(false);
            self.step();
        }
        self.heal();
        self.check_end();
    }

    fn step(&mut self) {
        for node in self.cluster.step() {
            // A failed sync leaves the disk in doubt: only a power loss shows what is on it.
            let power = self.below(2) == 0;
            self.down(node, power);
        }
        assert!(self.cluster.leases().len() <= 1, "two leases at {}: {:?}", self.cluster.now, self.cluster.leases());
        for (node, replica) in &self.cluster.replicas {
            if let Some(partition) = replica.partition.as_ref().filter(|p| p.role() == Role::Leader) {
                let leader = *self.leaders.entry(partition.term()).or_insert(*node);
                assert_eq!(leader, *node, "two leaders of term {}", partition.term());
            }
        }
        self.look();
        self.answer();
        if let Some(tellers) = &mut self.tellers {
            tellers.answer(&mut self.cluster);
            tellers.look(&self.cluster, &self.committed);
        }
    }

    fn tell(&mut self, ending: bool) {
        if let Some(tellers) = &mut self.tellers {
            tellers.work(&mut self.cluster, ending);
        }
    }

    fn fault(&mut self) {
        let now = self.cluster.now;
        let due: Vec<u32> = self.restarts.iter().filter(|(_, at)| **at <= now).map(|(node, _)| *node).collect();
        for node in due {
            self.up(node);
        }
        if !self.faults || self.below(40) != 0 {
            return;
        }
        let running = self.cluster.running();
        if running.is_empty() {
            return;
        }
        let node = running[self.below(running.len() as u64) as usize];
        let kind = self.below(12);
        tell(|| format!("{} fault {kind} at {node}", self.cluster.now));
        match kind {
            0 => self.down(node, false),
            1 => self.down(node, true),
            2 | 3 => {
                let disk = &self.cluster.replicas[&node].disk;
                disk.crash_at(disk.ops() + self.cluster.random.below(12));
            }
            4 => {
                let after_ops = self.below(6);
                self.doubtful.insert(node);
                self.ever_doubtful.insert(node);
                self.cluster.replicas[&node].disk.fault(Fault::Sync { after_ops });
            }
            5 => {
                self.was_full = true;
                self.cluster.replicas[&node].disk.fault(Fault::Full);
            }
            6 => self.cluster.replicas.values().for_each(|replica| replica.disk.heal()),
            7 | 8 => {
                let other = 1 + self.below(3) as u32;
                self.cluster.net.cut.insert((node, other));
                if self.below(2) == 0 {
                    self.cluster.net.cut.insert((other, node));
                }
            }
            9 => {
                for other in 1..=3 {
                    self.cluster.net.cut.insert((node, other));
                    self.cluster.net.cut.insert((other, node));
                }
            }
            _ => self.cluster.net.cut.clear(),
        }
    }

    /// A process, or its machine, goes down.
    fn down(&mut self, node: u32, power: bool) {
        let replica = &self.cluster.replicas[&node];
        if replica.partition.is_none() {
            return;
        }
        let (life, durable) = (replica.life, replica.durable);
        if self.doubtful.remove(&node) || power {
            // What no one had flushed went with the machine.
            self.early.retain(|early| early.node != node || early.life < life || early.next <= durable);
        }
        tell(|| format!("{} down {node} {power} {:?}", self.cluster.now, self.cluster.replicas[&node].partition));
        self.cluster.stop(node, power);
        let at = self.cluster.now + self.below(900);
        self.restarts.insert(node, at);
    }

    fn up(&mut self, node: u32) {
        tell(|| format!("{} up {node}", self.cluster.now));
        self.restarts.remove(&node);
        if let Err(error) = self.cluster.start(node) {
            panic!("node {node} does not start: {error}");
        }
        // A leader may meet what a failed sync dropped before it hears of the failure: then it starts anew.
        let findings = std::mem::take(&mut self.cluster.findings);
        assert!(findings.is_empty() || self.ever_doubtful.contains(&node), "{findings:?}");
        self.was_full |= !findings.is_empty();
        // What it knows to be committed is.
        self.cluster.replicas.get_mut(&node).unwrap().seen = Offset(0);
    }

    fn work(&mut self) {
        match self.below(10) {
            0..4 => self.produce(),
            4..6 => self.produce_early(),
            6 => {
                let (now, wall) = (Tick(self.cluster.now), self.cluster.wall());
                for node in self.cluster.running() {
                    if let Some(partition) = self.cluster.partition(node) {
                        partition.trim(now, wall);
                    }
                }
            }
            7 if self.below(20) == 0 => {
                if let Some(leader) = self.cluster.leader()
                    && let Some(partition) = self.cluster.partition(leader)
                {
                    let span = partition.committed().0 - partition.start().0;
                    let before = partition.start().plus(span / 2);
                    let _refused = partition.delete_before(before);
                }
            }
            8 if self.below(60) == 0 => {
                let to = base::NodeId(1 + self.below(3) as u32);
                if let Some(leader) = self.cluster.leader()
                    && let Some(partition) = self.cluster.partition(leader)
                {
                    let _refused = partition.transfer_leadership(to);
                }
            }
            _ => {}
        }
    }

    /// Whom a client asks: mostly who leads, sometimes who does not.
    fn ask(&mut self) -> Option<u32> {
        let anyone = 1 + self.below(3) as u32;
        let node = if self.below(8) == 0 { Some(anyone) } else { self.cluster.leader() };
        node.filter(|node| self.cluster.replicas[node].partition.is_some())
    }

    fn values(&mut self) -> Vec<String> {
        let count = 1 + self.below(3);
        (0..count)
            .map(|_| {
                self.next_value += 1;
                format!("{} {}", self.next_value, "x".repeat(self.cluster.random.below(90) as usize))
            })
            .collect()
    }

    fn produce(&mut self) {
        let at = self.below(PRODUCERS as u64) as usize;
        let Some(node) = self.ask() else { return };
        if self.producers[at].waits {
            return;
        }
        if self.producers[at].batch.is_none() {
            let values = self.values();
            let text: Vec<&str> = values.iter().map(String::as_str).collect();
            let bytes = batch_of(at as i64, 0, self.producers[at].sequence, &text);
            self.producers[at].batch = Some((bytes, values));
        }
        let bytes = self.producers[at].batch.as_ref().map(|(bytes, _)| bytes.clone()).unwrap();
        match self.cluster.append(node, bytes).unwrap() {
            Ok(appended) => {
                let life = self.cluster.replicas[&node].life;
                let (term, base, next) = (appended.term, appended.base_offset, appended.next_offset);
                let since = self.cluster.now;
                self.producers[at].waits = true;
                self.waiting.push(Waiting { producer: at, node, life, term, base, next, since });
            }
            Err(AppendError::OutOfOrderSequence { producer, expected, found }) => {
                panic!("producer {producer} sent {found}, {expected} was expected: a committed batch was forgotten")
            }
            Err(AppendError::FencedEpoch { .. } | AppendError::Invalid(_) | AppendError::TooLarge { .. }) => panic!(),
            Err(_) => {}
        }
    }

    /// acks=1, by a producer that never asks twice.
    fn produce_early(&mut self) {
        let Some(node) = self.ask() else { return };
        let values = self.values();
        let text: Vec<&str> = values.iter().map(String::as_str).collect();
        let outcome = self.cluster.append(node, batch(&text));
        tell(|| format!("{} append {node} {outcome:?} {}", self.cluster.now, values[0]));
        let Some(Ok(appended)) = outcome else { return };
        let now = Tick(self.cluster.now);
        let life = self.cluster.replicas[&node].life;
        let partition = self.cluster.partition(node).unwrap();
        if partition.lease_valid(now) {
            partition.note_acked(appended.base_offset, appended.next_offset);
            let next = appended.next_offset;
            self.early.extend(values.into_iter().map(|value| Early { node, life, next, value }));
        }
    }

    /// Reads what each replica says is committed, and compares.
    fn look(&mut self) {
        for node in self.cluster.running() {
            let reader = self.cluster.reader(node).unwrap();
            let replica = self.cluster.replicas.get_mut(&node).unwrap();
            let committed = reader.committed();
            let from = replica.seen;
            assert!(committed >= from, "node {node}: committed went from {from} back to {committed}");
            self.start = self.start.max(reader.start());
            if committed == from {
                continue;
            }
            let mut at = from.max(reader.start());
            let found = match batches(&reader, from, ReadLimit::Committed) {
                // A failed sync dropped what was not durable here, although a majority has it.
                Err(_) if self.doubtful.contains(&node) => continue,
                found => found.unwrap(),
            };
            replica.seen = committed;
            for (base, bytes) in found {
                let known = self.committed.entry(base).or_insert_with(|| bytes.clone());
                assert_eq!(*known, bytes, "node {node}: another batch at {base}");
                let header = base::batch::BatchHeader::check(&bytes).unwrap();
                assert!(base <= at && header.next_offset() > at, "node {node}: a gap at {at}, then {base}");
                at = header.next_offset();
            }
            assert_eq!(at, committed, "node {node}: all that is committed can be read");
        }
    }

    /// Answers acks=all as an owner does.
    fn answer(&mut self) {
        let now = self.cluster.now;
        for waiting in std::mem::take(&mut self.waiting) {
            let replica = &self.cluster.replicas[&waiting.node];
            let same = replica.life == waiting.life;
            let partition = replica.partition.as_ref().filter(|_| same);
            let leads = partition.is_some_and(|p| p.role() == Role::Leader && p.term() == waiting.term);
            let committed = partition.is_some_and(|p| p.committed() >= waiting.next);
            let producer = &mut self.producers[waiting.producer];
            if leads && committed {
                producer.waits = false;
                let (bytes, values) = producer.batch.take().unwrap();
                producer.sequence += values.len() as i32;
                if let Some(kept) = self.committed.get(&waiting.base) {
                    let mut kept = kept.to_vec();
                    // But for the two fields that the leader writes, it is what was sent.
                    kept[0..8].copy_from_slice(&bytes[0..8]);
                    kept[12..16].copy_from_slice(&bytes[12..16]);
                    assert_eq!(kept, bytes, "acknowledged at {} and not there", waiting.base);
                } else {
                    // Its own disk dropped it; the majority that has it tells in the end.
                    assert!(self.doubtful.contains(&waiting.node), "acknowledged at {}, not there", waiting.base);
                }
                producer.acknowledged.extend(values);
            } else if !leads || now - waiting.since > PATIENCE_MS {
                // Asks again, the same batch.
                producer.waits = false;
            } else {
                self.waiting.push(waiting);
            }
        }
    }

    fn heal(&mut self) {
        self.faults = false;
        self.cluster.net.cut.clear();
        self.cluster.net.loss = 0;
        self.cluster.net.doubled = 0;
        self.cluster.net.delay_ms_max = 5;
        for node in 1..=3 {
            let replica = &self.cluster.replicas[&node];
            // One that was to die does it now.
            if replica.disk.is_dead() || replica.partition.as_ref().is_some_and(|p| p.stopped().is_some()) {
                self.down(node, true);
            }
            self.cluster.replicas[&node].disk.heal();
            self.cluster.replicas[&node].disk.crash_at(u64::MAX);
        }
        for step in 0..HEAL_STEPS {
            self.fault();
            if step % 4 == 0 {
                (0..PRODUCERS).for_each(|_| self.produce());
                self.tell(step > 200);
            }
            self.step();
            if step > 400 && self.is_well() {
                return;
            }
        }
        let tell = |p: &log::Partition| format!("{p:?} {:?} {:?} {:?}", p.status(), p.group_status(), p.stopped());
        let state: Vec<_> = self.cluster.replicas.values().map(|r| r.partition.as_ref().map(tell)).collect();
        panic!("not well after {HEAL_STEPS} steps: {state:#?}");
    }

    /// All run, nobody waits, all have all.
    fn is_well(&self) -> bool {
        let ends: BTreeSet<_> = self
            .cluster
            .replicas
            .values()
            .map(|replica| replica.partition.as_ref().map(|p| (p.committed(), p.end(), p.indexes())))
            .collect();
        let same = ends.len() == 1 && ends.iter().all(|end| end.is_some_and(|(committed, end, _)| committed == end));
        let told = self.tellers.as_ref().is_none_or(Tellers::is_done);
        same && told && self.producers.iter().all(|producer| !producer.waits)
    }

    fn check_end(&mut self) {
        // Every replica has the same bytes, from where all have any.
        let readers: Vec<_> = (1..=3).map(|node| self.cluster.reader(node).unwrap()).collect();
        let start = readers.iter().map(log::Reader::start).max().unwrap();
        let logs: Vec<_> = readers.iter().map(|reader| batches(reader, start, ReadLimit::Committed).unwrap()).collect();
        assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "replicas differ");
        for reader in &readers {
            for (base, bytes) in batches(reader, reader.start(), ReadLimit::Committed).unwrap() {
                assert_eq!(self.committed.get(&base), Some(&bytes), "a committed batch changed at {base}");
            }
            // Terms without records may be trimmed here and not there.
            let epochs = |reader: &log::Reader| {
                (0..=reader.leader_epoch()).map(|epoch| reader.epoch_end(epoch).1).collect::<Vec<_>>()
            };
            if reader.leader_epoch() == readers[0].leader_epoch() && self.config_keeps_all() {
                assert_eq!(epochs(reader), epochs(&readers[0]));
            }
        }
        self.check_producers();
        self.check_early();
        if let Some(tellers) = &mut self.tellers {
            tellers.check_end(&self.cluster, &self.committed);
        }
    }

    fn config_keeps_all(&self) -> bool {
        self.start == Offset(0)
    }

    /// Each producer's values are there once, in order, and all that were acknowledged.
    fn check_producers(&self) {
        let mut found: Vec<Vec<String>> = vec![Vec::new(); PRODUCERS];
        for bytes in self.committed.values() {
            let header = base::batch::BatchHeader::check(bytes).unwrap();
            if header.producer_id != ProducerId::NONE && header.producer_id.0 < FIRST_ID {
                found[usize::try_from(header.producer_id.0).unwrap()].extend(values_of(bytes));
            }
        }
        for (producer, found) in self.producers.iter().zip(found) {
            // What was trimmed before anybody looked is not known here: the model saw every commit.
            let mut expected = producer.acknowledged.clone();
            if found.len() > expected.len() {
                expected.extend(producer.batch.iter().flat_map(|(_, values)| values.clone()));
            }
            assert_eq!(found, expected, "seed {}", self.seed);
        }
    }

    /// What was acknowledged early is committed, or saved.
    fn check_early(&mut self) {
        let mut there: BTreeSet<String> = self.committed.values().flat_map(|bytes| values_of(bytes)).collect();
        for node in 1..=3 {
            let partition = self.cluster.partition(node).unwrap();
            assert!(self.was_full || partition.status().lost_dropped == 0);
            for found in partition.lost_and_found() {
                for batch in &found.batches {
                    let bytes = partition.read_lost(&found, batch).unwrap();
                    let header = base::batch::BatchHeader::check(&bytes).unwrap();
                    assert_eq!((header.base_offset, header.next_offset()), (batch.base_offset, batch.next_offset));
                    if batch.acked != Acked::No {
                        there.extend(values_of(&bytes));
                    }
                }
            }
        }
        if !self.was_full {
            for early in &self.early {
                assert!(there.contains(&early.value), "acks=1, neither there nor saved: {}", early.value);
            }
        }
    }
}

/// For whoever looks at a seed.
fn tell(what: impl FnOnce() -> String) {
    if std::env::var("TRACE").is_ok() {
        println!("{}", what());
    }
}

fn values_of(bytes: &[u8]) -> Vec<String> {
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    let decoded = records::decode(bytes).unwrap();
    decoded.iter().map(|record| text(record.unwrap().value)).collect()
}

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
