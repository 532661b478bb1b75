//! Bits of old files that flip while the replicas run: mended in place from another replica's copy, with no election, no
//! vote given up, and nobody served what was never written.

use std::collections::BTreeMap;

use base::{NodeId, Offset};
use log::{Message, PartitionConfig};

use super::cluster::Cluster;

/// Bits between two that are tried.
const STEP: u64 = 37;
const LONG: u64 = 3_000;

/// Twenty records in files of about four, which are all read again every second.
fn written(seed: u64) -> (Cluster, u32) {
    let config = PartitionConfig {
        retention_ms: None,
        file_bytes_max: 400,
        index_step_bytes: 1,
        scrub_interval_ms: Some(500),
        ..PartitionConfig::default()
    };
    let mut cluster = Cluster::new(3, seed, config, 4 << 20);
    let leader = cluster.elect();
    for at in 0..20 {
        cluster.put(leader, &[&format!("value {at:04}")]);
    }
    cluster.all_have(Offset(20));
    cluster.pass(300);
    (cluster, leader)
}

/// The log files of a node but the newest, which takes appends.
fn old_files(cluster: &Cluster, node: u32) -> BTreeMap<String, Vec<u8>> {
    let all = cluster.replicas[&node].disk.dump().into_iter();
    let mut files: BTreeMap<String, Vec<u8>> = all.filter(|(path, _)| path.ends_with(".log")).collect();
    files.pop_last();
    files
}

fn mended(cluster: &mut Cluster, node: u32) -> u64 {
    cluster.partition(node).unwrap().status().mended
}

#[test]
fn every_flipped_bit_of_an_old_file_is_mended_in_place() {
    let (mut cluster, leader) = written(21);
    let term = cluster.partition(leader).unwrap().term();
    for node in [leader, leader % 3 + 1] {
        let good = old_files(&cluster, node);
        assert!(good.len() >= 3, "{:?}", good.keys());
        for (path, bytes) in &good {
            for bit in (0..bytes.len() as u64 * 8).step_by(STEP as usize) {
                let before = mended(&mut cluster, node);
                cluster.replicas[&node].disk.flip_bit(path, bit);
                cluster.until("mended", |cluster| mended(cluster, node) > before);
                assert!(old_files(&cluster, node) == good, "{path} bit {bit}");
                let status = cluster.partition(node).unwrap().status();
                assert!(status.unreadable.is_empty() && !status.damaged, "{path} bit {bit}: {status:?}");
            }
        }
    }
    assert_eq!(cluster.partition(leader).unwrap().term(), term, "nobody was elected");
    assert_eq!(cluster.leases(), [leader]);
    assert_eq!(cluster.findings, Vec::<String>::new());
}

#[test]
fn a_leader_mends_what_a_returning_follower_needs() {
    let (mut cluster, leader) = written(22);
    let away = leader % 3 + 1;
    cluster.stop(away, false);
    for at in 20..40 {
        cluster.put(leader, &[&format!("value {at:04}")]);
    }
    cluster.pass(100);
    let good = old_files(&cluster, leader);
    for (path, bytes) in &good {
        cluster.replicas[&leader].disk.flip_bit(path, bytes.len() as u64 * 4);
    }
    cluster.start(away).unwrap();
    cluster.all_have(Offset(40));
    assert_eq!(cluster.values(away), (0..40).map(|at| format!("value {at:04}")).collect::<Vec<_>>());
    cluster.until("all mended", |cluster| mended(cluster, leader) >= good.len() as u64);
    assert!(good.iter().all(|(path, bytes)| old_files(&cluster, leader).get(path) == Some(bytes)));
}

#[test]
fn damage_at_two_replicas_is_mended_by_the_third_and_a_crash_in_between_harms_nothing() {
    let (mut cluster, leader) = written(23);
    let good = old_files(&cluster, leader);
    for round in 0..30 {
        let nodes = [leader, leader % 3 + 1];
        for node in nodes {
            for (path, bytes) in &old_files(&cluster, node) {
                cluster.replicas[&node].disk.flip_bit(path, (round * 101 + 7) % (bytes.len() as u64 * 8));
            }
        }
        let disk = &cluster.replicas[&nodes[1]].disk;
        disk.crash_at(disk.ops() + round % 5);
        for _ in 0..200 {
            for node in cluster.step() {
                cluster.stop(node, round % 2 == 0);
                cluster.start(node).unwrap();
            }
        }
        for node in nodes {
            cluster.replicas[&node].disk.crash_at(u64::MAX);
        }
        cluster.until("all good", |cluster| {
            nodes.iter().all(|node| {
                let whole = |p: &mut log::Partition| !p.status().damaged && p.committed() == Offset(20);
                cluster.partition(*node).is_some_and(whole)
                    && old_files(cluster, *node).iter().all(|(path, bytes)| good.get(path).is_none_or(|b| b == bytes))
            })
        });
    }
    assert!((1..=3).all(|node| cluster.values(node).len() == 20));
}

#[test]
fn copies_that_do_not_fit_are_not_written() {
    let (mut cluster, leader) = written(24);
    let follower = leader % 3 + 1;
    let good = old_files(&cluster, follower);
    let (path, bytes) = good.first_key_value().unwrap();
    // Nobody may answer: only the liar does.
    cluster.isolate(follower);
    cluster.replicas[&follower].disk.flip_bit(path, bytes.len() as u64 * 4);
    let mut asked = None;
    for _ in 0..LONG {
        cluster.now += 25;
        let now = base::Tick(cluster.now);
        let partition = cluster.partition(follower).unwrap();
        if let Some(job) = partition.care_job(now) {
            partition.cared(job.run());
        }
        let question = partition.take_messages().into_iter().find(|message| message.copies().is_some());
        if let Some(question) = question {
            asked = Some(question);
            break;
        }
    }
    let question = asked.unwrap();
    let Some(quorum::Copies::Wanted { term, first, .. }) = question.copies() else { panic!("{question}") };
    let entry = |index, term, payload| quorum::Entry { index, term, payload };
    let data = |bytes: &[u8]| quorum::Payload::Data(bytes::Bytes::copy_from_slice(bytes));
    let lies = [
        vec![],
        vec![entry(first, term, quorum::Payload::Empty)],
        vec![entry(first, term, data(b"rubbish"))],
        vec![entry(first, base::Term(term.0 + 1), data(bytes))],
        vec![entry(first.next(), term, data(bytes))],
        vec![entry(first, term, data(&crate::world::batch(&["other"])))],
    ];
    let now = base::Tick(cluster.now);
    for lie in lies {
        for from in [question.to(), NodeId(9)] {
            let message = Message::copies_given(from, NodeId(follower), lie.clone());
            cluster.partition(follower).unwrap().step(now, message).unwrap();
            let partition = cluster.partition(follower).unwrap();
            if let Some(job) = partition.care_job(now) {
                partition.cared(job.run());
            }
            assert_eq!(mended(&mut cluster, follower), 0);
        }
    }
    cluster.net.cut.clear();
    cluster.until("mended by who tells the truth", |cluster| mended(cluster, follower) > 0);
    assert!(old_files(&cluster, follower) == good);
}
