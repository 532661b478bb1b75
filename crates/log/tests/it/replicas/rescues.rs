//! lost+found is republished while whoever does it, and whoever leads, dies or is cut off in the middle: each batch is in
//! the log once in the end.

use std::collections::BTreeMap;

use base::batch::Codec;
use base::records::{self, BatchBuilder};
use base::{Offset, ProducerEpoch, ProducerId, Tick, Timestamp};
use bytes::Bytes;
use log::{Acked, AppendError, LostPolicy, LostState, PartitionConfig, ReadLimit, Rescue, Role};

use super::cluster::{Cluster, batches};
use super::{Random, values_of};
use crate::world::{batch, batch_at, batch_of};

const SEEDS: u64 = 120;
const ROUNDS: u64 = 4;
const ROOMY: u64 = 8 << 20;
const PATIENCE: usize = 400;

fn cluster(seed: u64, policy: LostPolicy) -> Cluster {
    let config = PartitionConfig {
        retention_ms: None,
        file_bytes_max: 600,
        index_step_bytes: 1,
        lost_policy: policy,
        ..PartitionConfig::default()
    };
    Cluster::new(3, seed, config, ROOMY)
}

/// What one leader wrote alone and told, round by round.
struct World {
    cluster: Cluster,
    random: Random,
    told: Vec<Vec<String>>,
    untold: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let random = Random(seed.wrapping_mul(0x51_7cc1_b727));
        Self { cluster: cluster(seed, LostPolicy::Republish), random, told: Vec::new(), untold: Vec::new() }
    }

    /// The leader is cut off, tells producers what nobody else gets, and comes back.
    fn lose(&mut self, round: u64) -> u32 {
        let cluster = &mut self.cluster;
        let old = cluster.elect();
        cluster.put(old, &[&format!("before {round}")]);
        cluster.isolate(old);
        let mut told = Vec::new();
        for number in 0..1 + self.random.below(6) {
            let values: Vec<String> =
                (0..1 + self.random.below(3)).map(|at| format!("lost {round}.{number}.{at}")).collect();
            let texts: Vec<&str> = values.iter().map(String::as_str).collect();
            let Some(Ok(appended)) = cluster.append(old, batch_at(1_000 * i64::try_from(round).unwrap(), &texts))
            else {
                break;
            };
            if self.random.below(6) == 0 {
                self.untold.extend(values);
            } else {
                cluster.partition(old).unwrap().note_acked(appended.base_offset, appended.next_offset);
                told.extend(values);
            }
            cluster.pass(self.random.below(3));
        }
        self.told.push(told);
        if self.random.below(4) == 0 {
            // Then nobody knows any more whom it told; all that reached the disk may have been.
            cluster.pass(60);
            cluster.stop(old, false);
            cluster.start(old).unwrap();
        }
        cluster.until("another leader", |cluster| cluster.leases().first().is_some_and(|leader| *leader != old));
        let new = cluster.leases()[0];
        let instead = cluster.put(new, &[&format!("instead {round}")]);
        cluster.net.cut.clear();
        cluster.all_have(instead.next());
        old
    }

    /// Tries to republish one file of a node's lost+found. Something goes wrong on the way, unless `calm`.
    fn attempt(&mut self, node: u32, calm: bool) -> Option<()> {
        let wall = self.cluster.wall();
        let partition = self.cluster.partition(node)?;
        let found = partition.lost_due(wall).into_iter().next()?;
        let mut rescue = partition.rescue(&found.path, found.saved_at, false)?;
        assert!(self.look(&mut rescue)?);
        loop {
            let bytes_max = [1, 250, 10_000][usize::try_from(self.random.below(3)).unwrap()];
            let Some((places, group)) = rescue.take_next(bytes_max) else { break };
            let leader = self.cluster.leader()?;
            let (now, wall) = (Tick(self.cluster.now), self.cluster.wall());
            let appended = match self.cluster.partition(leader)?.append_rescued(now, wall, group) {
                Ok(appended) => appended,
                Err(AppendError::FencedEpoch { .. }) => panic!("in order nothing is shut out"),
                Err(_) => return None,
            };
            let fault = if calm { 9 } else { self.random.below(10) };
            match fault {
                // The answer is lost.
                0 => return None,
                1 | 2 => {
                    let who = if fault == 1 { node } else { leader };
                    self.cluster.pass(self.random.below(20));
                    self.cluster.stop(who, self.random.below(2) == 0);
                    self.cluster.start(who).unwrap();
                    return None;
                }
                3 => {
                    self.cluster.isolate(leader);
                    self.cluster.pass(300 + self.random.below(300));
                    self.cluster.net.cut.clear();
                    return None;
                }
                _ => {}
            }
            let is_there = (0..PATIENCE).any(|_| {
                drop(self.cluster.step());
                let partition = self.cluster.partition(leader).unwrap();
                partition.committed() >= appended.next_offset && partition.term() == appended.term
            });
            if !is_there {
                return None;
            }
            rescue.appended(&places);
        }
        let fates = rescue.fates();
        let job = self.cluster.partition(node)?.settle_job(&found.path, found.saved_at, &fates)?;
        if !calm && self.random.below(5) == 0 {
            self.cluster.stop(node, true);
            self.cluster.start(node).unwrap();
            return None;
        }
        let done = job.run();
        if !calm && self.random.below(5) == 0 {
            self.cluster.stop(node, self.random.below(2) == 0);
            self.cluster.start(node).unwrap();
            return None;
        }
        self.cluster.partition(node)?.settled(done).unwrap();
        Some(())
    }

    fn look(&mut self, rescue: &mut Rescue) -> Option<bool> {
        for _ in 0..PATIENCE {
            let leader = self.cluster.leader()?;
            let until = self.cluster.partition(leader)?.end();
            if rescue.look(until).unwrap() {
                return Some(true);
            }
            drop(self.cluster.step());
        }
        None
    }

    fn go(mut self) {
        for round in 0..ROUNDS {
            let old = self.lose(round);
            for _ in 0..self.random.below(4) {
                let _either_way = self.attempt(old, false);
                self.cluster.pass(self.random.below(50));
            }
            self.cluster.elect();
        }
        // Late enough for those of which nobody knows.
        self.cluster.now += 31_000;
        self.cluster.pass(100);
        for _ in 0..200 {
            self.cluster.elect();
            let wall = self.cluster.wall();
            let due = (1..=3).find(|node| !self.cluster.partition(*node).unwrap().lost_due(wall).is_empty());
            let Some(node) = due else { return self.check() };
            let _either_way = self.attempt(node, true);
        }
        panic!("it does not end");
    }

    fn check(mut self) {
        let leader = self.cluster.elect();
        let end = self.cluster.partition(leader).unwrap().end();
        self.cluster.all_have(end);
        let values = self.cluster.values(leader);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        values.iter().for_each(|value| *counts.entry(value).or_default() += 1);
        assert!(counts.values().all(|count| *count == 1), "{values:#?}");
        for told in &self.told {
            let places = told.iter().map(|value| values.iter().position(|there| there == value));
            let places: Vec<usize> = places.map(|place| place.expect("told, and not there")).collect();
            assert!(places.is_sorted(), "{told:?} in {values:#?}");
        }
        for node in 1..=3 {
            for found in self.cluster.partition(node).unwrap().lost_and_found() {
                // An idempotent producer, and a rescue is one, sends again what it was not told of.
                let is_settled = |batch: &log::LostBatch| match batch.acked {
                    Acked::No => true,
                    Acked::Unknown => batch.producer != ProducerId::NONE,
                    Acked::Yes => false,
                };
                let open = found.batches.iter().filter(|batch| batch.state == LostState::Kept);
                assert!(open.clone().all(is_settled), "{open:?}", open = open.collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn whatever_happens_each_is_there_once() {
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| World::new(seed).go());
        assert!(run.is_ok(), "seed {seed}");
    }
}

#[test]
#[ignore = "many minutes: for a night, or after a change of rescue"]
fn whatever_happens_each_is_there_once_in_many_more_worlds() {
    super::many().for_each(|seed| World::new(seed).go());
}

/// One leader loses these batches, all told; who it was.
fn lose(cluster: &mut Cluster, lost: &[Bytes]) -> u32 {
    let old = cluster.elect();
    cluster.put(old, &["before"]);
    cluster.isolate(old);
    for batch in lost {
        let appended = cluster.append(old, batch.clone()).unwrap().unwrap();
        cluster.partition(old).unwrap().note_acked(appended.base_offset, appended.next_offset);
    }
    cluster.until("another leader", |cluster| cluster.leases().first().is_some_and(|leader| *leader != old));
    let new = cluster.leases()[0];
    let instead = cluster.put(new, &["instead"]);
    cluster.net.cut.clear();
    cluster.all_have(instead.next());
    old
}

/// Republishes what is wanted of the one file there is, as far as `only` says; what became of the batches.
fn republish(cluster: &mut Cluster, node: u32, by_hand: bool, only: &[i64]) -> Vec<LostState> {
    let found = cluster.partition(node).unwrap().lost_and_found().remove(0);
    let mut rescue = cluster.partition(node).unwrap().rescue(&found.path, found.saved_at, by_hand).unwrap();
    rescue.only(|batch| only.is_empty() || only.contains(&batch.base_offset.0));
    let leader = cluster.elect();
    'again: loop {
        let until = cluster.partition(leader).unwrap().end();
        cluster.all_have(until);
        while !rescue.look(until).unwrap() {}
        while let Some((places, group)) = rescue.take_next(1) {
            let (now, wall) = (Tick(cluster.now), cluster.wall());
            match cluster.partition(leader).unwrap().append_rescued(now, wall, group) {
                Ok(appended) => cluster.all_have(appended.next_offset),
                Err(AppendError::FencedEpoch { .. }) => {
                    rescue.shut_out(places[0]);
                    continue 'again;
                }
                Err(error) => panic!("{error}"),
            }
            rescue.appended(&places);
        }
        break;
    }
    let partition = cluster.partition(node).unwrap();
    let job = partition.settle_job(&found.path, found.saved_at, &rescue.fates()).unwrap();
    assert!(partition.settle_job(&found.path, found.saved_at, &[]).is_none(), "one at a time");
    let done = job.run();
    partition.settled(done).unwrap();
    cluster.stop(node, true);
    cluster.start(node).unwrap();
    let found = cluster.partition(node).unwrap().lost_and_found().remove(0);
    found.batches.iter().map(|batch| batch.state).collect()
}

#[test]
fn one_that_was_left_out_can_follow_later() {
    use LostState::{Kept, Republished};
    let mut cluster = cluster(1, LostPolicy::Keep);
    let old = lose(&mut cluster, &[batch(&["a"]), batch(&["b"]), batch(&["c"])]);
    assert!(cluster.partition(old).unwrap().lost_due(Timestamp(i64::MAX)).is_empty(), "the policy is to keep");
    assert_eq!(republish(&mut cluster, old, true, &[2]), [Kept, Republished, Kept]);
    assert_eq!(republish(&mut cluster, old, true, &[]), [Republished; 3]);
    assert_eq!(republish(&mut cluster, old, true, &[]), [Republished; 3]);
    let leader = cluster.elect();
    assert_eq!(cluster.values(leader), ["before", "instead", "b", "a", "c"]);
}

#[test]
fn what_comes_back_says_where_it_was_and_keeps_its_time() {
    let mut cluster = cluster(2, LostPolicy::Republish);
    let mut builder = BatchBuilder::new(Codec::Zstd);
    builder.push(Timestamp(77), Some(b"key"), Some(b"a"), &[("own", Some(b"1"))]);
    builder.push(Timestamp(78), None, None, &[]);
    let old = lose(&mut cluster, &[builder.build().unwrap()]);
    republish(&mut cluster, old, false, &[]);
    cluster.all_have(Offset(4));
    let reader = cluster.reader(old).unwrap();
    let found = batches(&reader, Offset(2), ReadLimit::Committed).unwrap();
    let decoded = records::decode(&found[0].1).unwrap();
    assert!(log::is_rescuer(decoded.header().producer_id) && decoded.header().codec == Codec::Zstd);
    let told: Vec<String> = decoded
        .iter()
        .map(|record| {
            let record = record.unwrap();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let header = |header: records::Header<'_>| format!("{}={}", text(header.key), text(header.value.unwrap()));
            let headers: Vec<String> = record.headers.iter().map(header).collect();
            format!(
                "{:?} {:?} {} {}",
                record.key.map(text),
                record.value.map(text),
                record.timestamp,
                headers.join(" ")
            )
        })
        .collect();
    let term = cluster.partition(old).unwrap().lost_and_found()[0].batches[0].term;
    let from = |offset| format!("x-rescued-from-node={old} x-rescued-from-term={term} x-rescued-from-offset={offset}");
    assert_eq!(told[0], format!("Some(\"key\") Some(\"a\") {} own=1 {}", Timestamp(77), from(1)));
    assert_eq!(told[1], format!("None None {} {}", Timestamp(78), from(2)));
    // Nobody else may write under such an id.
    let leader = cluster.elect();
    let refused = cluster.append(leader, batch_of(decoded.header().producer_id.0, 0, 0, &["x"])).unwrap();
    assert!(matches!(refused, Err(AppendError::Unsupported(_))), "{refused:?}");
}

#[test]
fn what_its_producer_sent_again_stays_as_it_is() {
    let mut cluster = cluster(3, LostPolicy::Republish);
    let idempotent = batch_of(7, 0, 0, &["d"]);
    let old = lose(&mut cluster, &[batch(&["a"]), batch(&["b"]), idempotent.clone()]);
    let leader = cluster.elect();
    let appended = cluster.append(leader, batch(&["b"])).unwrap().unwrap();
    cluster.all_have(appended.next_offset);
    let appended = cluster.append(leader, idempotent).unwrap().unwrap();
    cluster.all_have(appended.next_offset);
    use LostState::{Republished, Returned};
    assert_eq!(republish(&mut cluster, old, false, &[]), [Republished, Returned, Returned]);
    assert_eq!(cluster.values(leader), ["before", "instead", "b", "d", "a"]);
    // Its bytes are still there, those of the other are not.
    let found = cluster.partition(old).unwrap().lost_and_found().remove(0);
    let sizes: Vec<bool> = found.batches.iter().map(|batch| batch.size_bytes > 0).collect();
    assert_eq!(sizes, [false, true, true]);
    assert_eq!(values_of(&cluster.partition(old).unwrap().read_lost(&found, &found.batches[1]).unwrap()), ["b"]);
}

#[test]
fn what_may_still_come_back_is_not_touched() {
    let mut cluster = cluster(4, LostPolicy::Republish);
    let old = cluster.elect();
    cluster.put(old, &["before"]);
    cluster.isolate(old);
    let appended = cluster.append(old, batch(&["alone"])).unwrap().unwrap();
    cluster.partition(old).unwrap().note_acked(appended.base_offset, appended.next_offset);
    cluster.until("another leader", |cluster| cluster.leases().first().is_some_and(|leader| *leader != old));
    let new = cluster.leases()[0];
    cluster.put(new, &["instead"]);
    cluster.net.cut.clear();
    let is_saved = |cluster: &mut Cluster| !cluster.partition(old).unwrap().lost_and_found().is_empty();
    cluster.until("it is saved", is_saved);
    let partition = cluster.partition(old).unwrap();
    let found = partition.lost_and_found().remove(0);
    let is_open = partition.committed() < Offset(2);
    assert_eq!(partition.rescue(&found.path, found.saved_at, true).is_none(), is_open);
    assert_eq!(partition.settle_job(&found.path, found.saved_at, &[]).is_none(), is_open);
}

#[test]
fn what_a_policy_drops_is_told_and_counted() {
    let mut cluster = cluster(5, LostPolicy::Drop);
    let old = lose(&mut cluster, &[batch(&["a"]), batch(&["b"])]);
    let partition = cluster.partition(old).unwrap();
    let found = partition.lost_and_found().remove(0);
    assert!(found.batches.iter().all(|batch| batch.state == LostState::Dropped && batch.size_bytes == 0));
    assert_eq!((partition.status().lost_batches, partition.status().lost_dropped), (0, 2));
    assert!(partition.lost_due(Timestamp(i64::MAX)).is_empty());
    cluster.stop(old, true);
    cluster.start(old).unwrap();
    let partition = cluster.partition(old).unwrap();
    assert_eq!((partition.lost_and_found(), partition.status().lost_dropped), (vec![found], 2));
    assert_ne!(partition.role(), Role::Leader);
    // A week later nobody asks.
    cluster.now += 8 * 24 * 3600 * 1000;
    cluster.stop(old, true);
    cluster.start(old).unwrap();
    assert!(cluster.partition(old).unwrap().lost_and_found().is_empty());
}

#[test]
fn what_belongs_to_a_transaction_stays() {
    let mut cluster = cluster(6, LostPolicy::Republish);
    let old = cluster.elect();
    let (producer, epoch) = (ProducerId(9), ProducerEpoch(0));
    let now = Tick(cluster.now);
    let partition = cluster.partition(old).unwrap();
    let verification = partition.verify_begin(now, producer, epoch);
    assert!(partition.verified(now, verification));
    let mut builder = BatchBuilder::new(Codec::None).producer(producer, epoch, 0).transactional();
    builder.push(Timestamp(1), None, Some(b"part"), &[]);
    let old = lose(&mut cluster, &[builder.build().unwrap(), batch(&["a"])]);
    assert_eq!(republish(&mut cluster, old, true, &[]), [LostState::Kept, LostState::Republished]);
    let leader = cluster.elect();
    assert_eq!(cluster.values(leader), ["before", "instead", "a"]);
}
