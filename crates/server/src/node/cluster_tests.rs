//! Three whole nodes: what one is told all know, and none of them is missed.

use std::collections::BTreeMap;
use std::time::Duration;

use base::batch::Codec;
use base::records::{BatchBuilder, decode};
use base::{Offset, PartitionIndex, Timestamp, TopicPartition};
use bytes::Bytes;
use log::ReadLimit;

use super::{Acks, NodeError, time};
use crate::edge::testing::Cluster;

fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(Timestamp(1_000), None, Some(value.as_bytes()), &[]);
    builder.build().expect("batch")
}

pub fn create_topic(cluster: &Cluster, by: u32, name: &str, partitions: i32) -> TopicPartition {
    let node = cluster.node(by);
    let topic = cluster.run(by, node.create_topic(name, partitions, BTreeMap::new())).expect("topic");
    TopicPartition { topic: topic.id, partition: PartitionIndex(0) }
}

/// Appends with acks=all to whoever leads, until it is acknowledged; how long that took.
pub fn append(cluster: &Cluster, partition: TopicPartition, value: &str) -> u64 {
    let begun = time::now();
    loop {
        let leader = cluster.leader(partition);
        let node = cluster.node(leader);
        match cluster.run(leader, node.append(partition, batch(value), Acks::All, time::now().plus(2_000))) {
            Ok(_) => return time::now().since(begun),
            Err(error) => assert!(time::now().since(begun) < 20_000, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn read(cluster: &Cluster, id: u32, partition: TopicPartition) -> Vec<String> {
    let reader = cluster.node(id).reader(partition).expect("a replica");
    let (mut values, mut at) = (Vec::new(), reader.start());
    loop {
        let fetched = reader.read(at, 1 << 20, ReadLimit::Committed).expect("reads");
        for (_, bytes) in base::batch::split(&fetched.bytes).flatten() {
            for record in decode(&bytes).expect("decodes").iter() {
                values.push(String::from_utf8_lossy(record.expect("record").value.expect("value")).into_owned());
            }
        }
        if fetched.bytes.is_empty() {
            return values;
        }
        at = fetched.next;
    }
}

pub fn committed(cluster: &Cluster, id: u32, partition: TopicPartition) -> Offset {
    cluster.node(id).reader(partition).map_or(Offset::ZERO, |reader| reader.committed())
}

#[test]
fn whoever_is_asked_answers_and_reads_what_it_wrote() {
    let cluster = Cluster::start(3);
    let cluster_ids: Vec<_> = cluster.ids().iter().map(|id| cluster.node(*id).state().cluster).collect();
    assert!(cluster_ids[0].is_some() && cluster_ids.iter().all(|id| *id == cluster_ids[0]));
    for id in cluster.ids() {
        let topic = create_topic(&cluster, id, &format!("by-{id}"), 3);
        assert!(cluster.node(id).state().topics.contains_key(&topic.topic));
        append(&cluster, topic, "a record");
    }
    let error = cluster.run(2, cluster.node(2).create_topic("by-1", 1, BTreeMap::new())).expect_err("it exists");
    assert!(matches!(error, NodeError::Refused(control::Refused::TopicExists { .. })), "{error}");
    cluster.until("all know all topics", |cluster| {
        cluster
            .ids()
            .iter()
            .all(|id| (1..=3).all(|by| cluster.node(*id).state().topic_named(&format!("by-{by}")).is_some()))
    });
    cluster.until("all have the records", |cluster| {
        let topics = cluster.node(1).state().topics.values().map(|topic| topic.id).collect::<Vec<_>>();
        let at = |topic| TopicPartition { topic, partition: PartitionIndex(0) };
        let named = topics.into_iter().map(at).filter(|at| !cluster.node(1).state().topics[&at.topic].internal);
        named.into_iter().all(|at| cluster.ids().iter().all(|id| committed(cluster, *id, at) == Offset(1)))
    });
}

#[test]
fn a_killed_leader_is_not_missed() {
    let mut cluster = Cluster::start(3);
    let topic = create_topic(&cluster, 1, "t", 1);
    let (mut values, mut gaps) = (Vec::new(), Vec::new());
    for round in 0..3 {
        for number in 0..20 {
            values.push(format!("round {round} number {number}"));
            append(&cluster, topic, values.last().expect("one"));
        }
        let leader = cluster.leader(topic);
        cluster.kill(leader);
        values.push(format!("round {round} after the leader"));
        gaps.push(append(&cluster, topic, values.last().expect("one")));
        cluster.begin(leader);
    }
    let there = read(&cluster, cluster.leader(topic), topic);
    for value in &values {
        assert!(there.contains(value), "{value} is lost");
    }
    let end = committed(&cluster, cluster.leader(topic), topic);
    cluster.until("all caught up", |cluster| cluster.ids().iter().all(|id| committed(cluster, *id, topic) >= end));
    assert!(gaps.iter().all(|gap| *gap < 2_500), "{gaps:?} ms");
}

#[test]
fn a_killed_master_is_not_missed() {
    let mut cluster = Cluster::start(3);
    for round in 0..3 {
        let master = cluster.master();
        cluster.kill(master);
        let by = cluster.ids()[0];
        create_topic(&cluster, by, &format!("t{round}"), 1);
        cluster.begin(master);
        let name = format!("t{round}");
        cluster.until("the old master knows", |cluster| cluster.node(master).state().topic_named(&name).is_some());
    }
}

#[test]
fn everyone_is_killed_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3);
    let topic = create_topic(&cluster, 2, "t", 2);
    let values: Vec<String> = (0..50).map(|number| format!("number {number}")).collect();
    for value in &values {
        append(&cluster, topic, value);
    }
    for id in cluster.ids() {
        cluster.kill(id);
    }
    cluster.begin(3);
    // Alone it says why, at once, and serves what it knows to be committed.
    let refused = cluster.run(3, cluster.node(3).create_topic("u", 1, BTreeMap::new())).expect_err("no majority");
    assert!(refused.to_string().contains("2 of the 3 nodes that vote are out of reach (node 1, 2)"), "{refused}");
    cluster.until("the replica is open", |cluster| cluster.node(3).reader(topic).is_some());
    let refused = cluster.run(3, cluster.node(3).append(topic, batch("x"), Acks::All, time::now().plus(5_000)));
    assert!(matches!(refused, Err(NodeError::NotEnoughReplicas(_))), "{refused:?}");
    let there = read(&cluster, 3, topic);
    assert!(there.len() + 1 >= values.len() && there == values[..there.len()], "{} of {}", there.len(), values.len());
    cluster.begin(1);
    append(&cluster, topic, "again");
    cluster.begin(2);
    create_topic(&cluster, 2, "u", 1);
    let there = read(&cluster, cluster.leader(topic), topic);
    assert_eq!(there[..values.len()], values[..]);
}
