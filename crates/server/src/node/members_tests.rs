//! Nodes join, are emptied, leave and are lost, while records come in: none is lost, and nothing is left behind.

use std::collections::BTreeMap;

use base::{NodeId, PartitionIndex, TopicPartition};
use control::NodeMode;

use super::cluster_tests::{append, committed, create_topic, read};
use crate::edge::testing::Cluster;

fn voters(cluster: &Cluster, at: u32) -> Vec<u32> {
    cluster.node(at).master().voters.iter().map(|id| id.0).collect()
}

fn is_learner(cluster: &Cluster, at: u32, id: u32) -> bool {
    cluster.node(at).master().learners.contains(&NodeId(id))
}

fn replicas(cluster: &Cluster, at: u32, topic: TopicPartition) -> Vec<u32> {
    let mut all: Vec<u32> = cluster.node(at).state().replicas(topic).iter().map(|id| id.0).collect();
    all.sort_unstable();
    all
}

/// No copy of the topic's partition in the node's folder.
fn has_folder(cluster: &Cluster, id: u32, topic: TopicPartition) -> bool {
    let log = cluster.node(id).config().node.data_dir.join("log");
    log.join(topic.topic.to_string()).join(topic.partition.to_string()).exists()
}

/// The test's records are of 1970: no age is too old.
fn create_kept_topic(cluster: &Cluster, partitions: i32) -> TopicPartition {
    let overrides = [("retention.ms".to_owned(), "-1".to_owned())].into();
    let topic = cluster.run(1, cluster.node(1).create_topic("t", partitions, overrides)).expect("topic");
    TopicPartition { topic: topic.id, partition: PartitionIndex(0) }
}

/// What is there, without what a client wrote twice because it was not answered.
fn unique(cluster: &Cluster, id: u32, topic: TopicPartition) -> Vec<String> {
    let mut all = read(cluster, id, topic);
    all.dedup();
    all
}

fn order(cluster: &Cluster, at: u32, id: u32, mode: NodeMode) -> Result<(), String> {
    cluster.run(at, cluster.node(at).set_node_mode(NodeId(id), mode)).map_err(|error| error.to_string())
}

#[test]
fn a_fourth_joins_one_is_decommissioned_and_one_is_lost() {
    let mut cluster = Cluster::start_with(3, |config| config.cluster.moves_max = 8);
    let topic = create_kept_topic(&cluster, 4);
    let mut values = Vec::new();
    let mut write = |cluster: &Cluster, count: usize| {
        for _ in 0..count {
            values.push(format!("number {}", values.len()));
            append(cluster, topic, values.last().expect("one"));
        }
        values.clone()
    };
    write(&cluster, 50);
    let told = order(&cluster, 2, 3, NodeMode::Leaving).expect_err("nowhere to go");
    assert!(told.contains("3 copies, and without node 3 there are 2 nodes") && told.contains("cluster.join"), "{told}");

    cluster.join(4);
    assert!(cluster.node(4).state().topic_named("t").is_some(), "it does not serve before it knows what there is");
    cluster.until("the fourth follows the metadata", |cluster| is_learner(cluster, 1, 4) && is_learner(cluster, 4, 4));
    assert_eq!(voters(&cluster, 4), [1, 2, 3], "three votes are enough");
    create_topic(&cluster, 4, "by-4", 1);
    write(&cluster, 20);

    order(&cluster, 4, 3, NodeMode::Leaving).expect("taken");
    write(&cluster, 50);
    cluster.until("it has left", |cluster| !cluster.node(1).state().is_member(NodeId(3)));
    cluster.until("another votes in its place", |cluster| voters(cluster, 1) == [1, 2, 4]);
    cluster.until("no one knows it", |cluster| !is_learner(cluster, 1, 3));
    assert_eq!(replicas(&cluster, 1, topic), [1, 2, 4]);
    assert!(!has_folder(&cluster, 3, topic), "what it had is deleted");
    cluster
        .until("it is told", |cluster| cluster.node(3).findings().iter().any(|finding| finding.code == "node-removed"));
    cluster.kill(3);
    let all = write(&cluster, 20);
    cluster.until("the fourth has everything", |cluster| unique(cluster, 4, topic) == all);

    // The number is used up.
    let refused = cluster.try_join(3, "again").map(drop).expect_err("used up");
    assert!(refused.contains("was removed from the cluster"), "{refused}");
    cluster.join(5);
    cluster.kill(2);
    write(&cluster, 10);
    let told = order(&cluster, 1, 4, NodeMode::Gone).expect_err("it is up");
    assert!(told.contains("node 4 is up"), "{told}");
    cluster.until("it is missed", |cluster| !cluster.node(1).is_up(NodeId(2)));
    order(&cluster, 1, 2, NodeMode::Gone).expect("taken");
    cluster.until("it is gone", |cluster| !cluster.node(1).state().is_member(NodeId(2)));
    cluster.until("another votes in its place", |cluster| voters(cluster, 5) == [1, 4, 5]);
    assert_eq!(replicas(&cluster, 1, topic), [1, 4, 5]);
    let all = write(&cluster, 10);
    cluster.until("the fifth has everything", |cluster| unique(cluster, 5, topic) == all);
    // Everybody starts again, and none of the first three but one is there.
    for id in cluster.ids() {
        cluster.kill(id);
    }
    for id in [4, 5, 1] {
        cluster.begin(id);
    }
    let all = write(&cluster, 5);
    cluster.until("all have everything", |cluster| [1, 4, 5].iter().all(|id| unique(cluster, *id, topic) == all));
}

#[test]
fn masters_and_leaders_are_killed_while_a_node_is_emptied() {
    let mut cluster = Cluster::start_with(3, |config| config.cluster.moves_max = 2);
    let topic = create_kept_topic(&cluster, 6);
    let mut values = Vec::new();
    let mut write = |cluster: &Cluster, count: usize| {
        for _ in 0..count {
            values.push(format!("number {}", values.len()));
            append(cluster, topic, values.last().expect("one"));
        }
        values.clone()
    };
    write(&cluster, 20);
    cluster.join(4);
    cluster.join(5);
    order(&cluster, 1, 2, NodeMode::Draining).expect("taken");
    for _ in 0..3 {
        let master = cluster.master();
        if master != 2 {
            cluster.kill(master);
            write(&cluster, 5);
            cluster.begin(master);
        }
    }
    cluster.until("it is empty", |cluster| {
        let progress = cluster.node(4).progress();
        progress.get(&NodeId(2)).is_some_and(|progress| progress.replicas_left == 0 && progress.to_delete == 0)
    });
    assert!(!has_folder(&cluster, 2, topic));
    let all = write(&cluster, 5);
    let holders = replicas(&cluster, 4, topic);
    cluster.until("all have everything", |cluster| holders.iter().all(|id| unique(cluster, *id, topic) == all));
    order(&cluster, 4, 2, NodeMode::Active).expect("taken");
    let placed = create_topic(&cluster, 4, "new", 6).topic;
    let on_two = |index| replicas(&cluster, 4, TopicPartition { topic: placed, partition: PartitionIndex(index) });
    assert!((0..6).any(|index| on_two(index).contains(&2)), "it is used again");
    assert!(committed(&cluster, holders[0], topic).0 >= 0);
}

#[test]
fn one_founder_becomes_three_voters() {
    let mut cluster = Cluster::start(1);
    let node = cluster.node(1);
    let topic = cluster.run(1, node.create_topic("t", 1, BTreeMap::new())).expect("topic");
    let topic = TopicPartition { topic: topic.id, partition: PartitionIndex(0) };
    append(&cluster, topic, "alone");
    cluster.join(2);
    cluster.until("the second follows", |cluster| is_learner(cluster, 2, 2));
    assert_eq!(voters(&cluster, 1), [1], "two voters are worse than one");
    cluster.join(3);
    cluster.until("three vote", |cluster| (1..=3).all(|id| voters(cluster, id) == [1, 2, 3]));
    append(&cluster, topic, "together");
    drop(node);
    cluster.kill(2);
    create_topic(&cluster, 3, "u", 1);
}
