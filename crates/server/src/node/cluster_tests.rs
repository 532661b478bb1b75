//! Three whole nodes: what one is told all know, and none of them is missed.

use std::collections::BTreeMap;
use std::time::Duration;

use base::batch::Codec;
use base::records::{BatchBuilder, decode};
use base::{Offset, PartitionIndex, Timestamp, TopicPartition};
use bytes::Bytes;
use log::ReadLimit;

use super::{Acks, LostAct, LostWhich, NodeError, time};
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

/// What lies in lost+found on all nodes, once the one that is asked has heard all of them.
fn states_of_lost(cluster: &Cluster, by: u32) -> Vec<String> {
    let ask = || cluster.run(by, cluster.node(by).lost_batches(Duration::from_secs(3)));
    cluster.until("all are connected", |_| ask().1.is_empty());
    ask().0.into_iter().map(|row| format!("{} {}", row.base_offset, row.state)).collect()
}

/// The leader writes `values` alone, one batch each, and is killed; another one writes `instead`; the old one is back and has
/// lost them. Who it was.
fn lose(cluster: &mut Cluster, topic: TopicPartition, values: &[&str], instead: &str) -> u32 {
    append(cluster, topic, "before");
    let old = (0..5).find_map(|_| write_alone(cluster, topic, values)).expect("a leader that wrote alone");
    append(cluster, topic, instead);
    cluster.begin(old);
    cluster.until("the old leader is back", |cluster| {
        let end = committed(cluster, cluster.leader(topic), topic);
        committed(cluster, old, topic) >= end
    });
    cluster.ids().into_iter().for_each(|id| drop(states_of_lost(cluster, id)));
    old
}

/// The others are killed, the leader writes and is killed, the others are back. None: it gave up leading before it wrote.
fn write_alone(cluster: &mut Cluster, topic: TopicPartition, values: &[&str]) -> Option<u32> {
    let old = cluster.leader(topic);
    let others: Vec<u32> = cluster.ids().into_iter().filter(|id| *id != old).collect();
    others.iter().for_each(|id| cluster.kill(*id));
    let before = cluster.node(old).reader(topic).expect("a replica").end();
    for value in values {
        let deadline = time::now().plus(50);
        // Without the others nobody is told that it is written, but it is.
        drop(cluster.run(old, cluster.node(old).append(topic, batch(value), Acks::Leader, deadline)));
    }
    let wrote = cluster.node(old).reader(topic).expect("a replica").end() > before;
    cluster.kill(old);
    others.iter().for_each(|id| cluster.begin(*id));
    if wrote {
        return Some(old);
    }
    cluster.begin(old);
    None
}

#[test]
fn what_was_lost_is_republished_once_or_dropped_by_hand() {
    let mut cluster = Cluster::start(3);
    let topic = create_topic(&cluster, 1, "t", 1);
    let old = lose(&mut cluster, topic, &["lost 1", "lost 2", "lost 3"], "instead");
    let kept = states_of_lost(&cluster, 1);
    assert!(kept.len() >= 2 && kept.iter().all(|state| state.ends_with(" kept")), "{kept:?}");
    let which = |offset| LostWhich { topic: "t".to_owned(), offset, ..LostWhich::default() };
    let patience = Duration::from_secs(3);
    let by = cluster.ids().into_iter().find(|id| *id != old).expect("another");
    let node = cluster.node(by);
    // The second first, then the rest, then all again.
    let done = cluster.run(by, node.act_on_lost(LostAct::Republish, &which(Some(2)), patience));
    assert_eq!((done.done, done.kept, done.trouble), (1, 0, Vec::new()));
    let done = cluster.run(by, node.act_on_lost(LostAct::Republish, &which(None), patience));
    assert_eq!((done.done, done.kept, done.trouble), (kept.len() as u64 - 1, 0, Vec::new()));
    let done = cluster.run(by, node.act_on_lost(LostAct::Republish, &which(None), patience));
    assert_eq!((done.done, done.there, done.kept, done.trouble), (0, 0, 0, Vec::new()));
    drop(node);
    let mut there = read(&cluster, cluster.leader(topic), topic);
    there.sort();
    let mut expected = vec!["before", "instead", "lost 1", "lost 2", "lost 3"];
    expected.truncate(2 + kept.len());
    assert_eq!(there, expected);
    assert!(states_of_lost(&cluster, by).iter().all(|state| state.ends_with(" republished")));
    // What was dropped is told and counted, also after a restart.
    let topic = create_topic(&cluster, 1, "u", 1);
    let old = lose(&mut cluster, topic, &["lost"], "instead");
    let drop_it = LostWhich { topic: "u".to_owned(), ..LostWhich::default() };
    let done = cluster.run(old, cluster.node(old).act_on_lost(LostAct::Drop, &drop_it, patience));
    assert_eq!((done.done, done.trouble), (1, Vec::new()));
    cluster.kill(old);
    cluster.begin(old);
    cluster.until("its replica is open", |cluster| cluster.node(old).reader(topic).is_some());
    let status = cluster.run(old, cluster.node(old).logs().status(topic)).expect("status").replica;
    assert_eq!((status.lost_batches, status.lost_dropped), (0, 1));
    assert!(states_of_lost(&cluster, 1).contains(&"1 dropped".to_owned()));
}

#[test]
fn policies_act_by_themselves() {
    let mut cluster = Cluster::start(3);
    let topics: Vec<TopicPartition> = ["drop", "keep"]
        .iter()
        .map(|policy| {
            let config = BTreeMap::from([("lost.batches.policy".to_owned(), (*policy).to_owned())]);
            let topic = cluster.run(1, cluster.node(1).create_topic(policy, 1, config)).expect("topic");
            TopicPartition { topic: topic.id, partition: PartitionIndex(0) }
        })
        .collect();
    let wrong = BTreeMap::from([("lost.batches.policy".to_owned(), "forget".to_owned())]);
    let refused = cluster.run(1, cluster.node(1).create_topic("wrong", 1, wrong)).expect_err("no such policy");
    assert!(refused.to_string().contains("use keep or republish or drop"), "{refused}");
    for topic in &topics {
        lose(&mut cluster, *topic, &["lost"], "instead");
    }
    cluster.until("the policies were followed", |cluster| states_of_lost(cluster, 1) == ["1 dropped", "1 kept"]);
    // Another policy is for what lies there too.
    let config = BTreeMap::from([("lost.batches.policy".to_owned(), "drop".to_owned())]);
    cluster.run(1, cluster.node(1).set_topic_config("keep", config)).expect("altered");
    cluster.until("it was given up", |cluster| states_of_lost(cluster, 1) == ["1 dropped", "1 dropped"]);
}
