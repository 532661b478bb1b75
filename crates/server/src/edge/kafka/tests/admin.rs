//! What administrators ask of three nodes: leaders where they belong, records deleted everywhere, more partitions.

use base::Offset;
use client::{Acks, Connection, EARLIEST};
use kafka::ErrorCode;
use kafka::msg;

use super::cluster::{batch, connect, create, metadata, name, place, produce_somehow};
use crate::edge::testing::Cluster;

/// The error code of each partition that is told of.
fn elect(wire: &mut Connection, kind: i8, of: Option<(&str, &[i32])>) -> Vec<(i32, ErrorCode)> {
    use msg::elect_leaders_request::TopicPartitions;
    let asked = of.map(|(topic, partitions)| {
        vec![TopicPartitions::default().with_topic(name(topic)).with_partitions(partitions.to_vec())]
    });
    let request = msg::ElectLeadersRequest::default()
        .with_election_type(kind)
        .with_topic_partitions(asked)
        .with_timeout_ms(10_000);
    let answer: msg::ElectLeadersResponse = wire.call(msg::ApiKey::ElectLeaders, 2, &request).unwrap();
    assert_eq!(answer.error_code, 0);
    let results = answer.replica_election_results.iter().filter(|topic| &**topic.topic == "t");
    let code = |number| ErrorCode::of(number).unwrap();
    results.flat_map(|t| &t.partition_result).map(|one| (one.partition_id, code(one.error_code))).collect()
}

#[test]
fn partitions_are_given_back_to_their_preferred_leaders() {
    let cluster = Cluster::start(3);
    assert_eq!(create(&mut connect(&cluster, 1), "t", -1, -1, &[&[2, 1, 3]]).0, 0);
    let place = place(&cluster, 1, "t", 0);
    cluster.until("the preferred one leads", |cluster| cluster.leader(place) == 2);
    produce_somehow(&cluster, "t", "before");
    for asked_at in [1, 2, 3] {
        // Away from it, by its own word.
        cluster.until("another one leads", |cluster| {
            cluster.node(2).logs().transfer(place, base::NodeId(3));
            cluster.ids().iter().all(|id| cluster.node(*id).leader_of(place).is_some_and(|(node, _)| node.0 == 3))
        });
        let mut wire = connect(&cluster, asked_at);
        cluster.until("it is up to date", |cluster| cluster.node(asked_at).behind(place).is_empty());
        // Another node may not know yet that the one asked to hand over has begun to lead.
        cluster.until("it is led by the first of its replicas", |_| {
            elect(&mut connect(&cluster, asked_at), 0, Some(("t", &[0]))) == [(0, ErrorCode::None)]
                || cluster.leader(place) == 2
        });
        cluster.until("it leads", |cluster| {
            cluster.ids().iter().all(|id| cluster.node(*id).leader_of(place).is_some_and(|(node, _)| node.0 == 2))
        });
        assert_eq!(elect(&mut wire, 0, Some(("t", &[0]))), [(0, ErrorCode::ElectionNotNeeded)]);
        assert_eq!(elect(&mut wire, 0, None), [], "nothing was to be done");
        assert_eq!(elect(&mut wire, 1, Some(("t", &[0]))), [(0, ErrorCode::ElectionNotNeeded)], "it has a leader");
        assert_eq!(elect(&mut wire, 0, Some(("t", &[7]))), [(7, ErrorCode::UnknownTopicOrPartition)]);
    }
    produce_somehow(&cluster, "t", "after");
}

#[test]
fn a_preferred_leader_that_is_down_is_not_waited_for() {
    let mut cluster = Cluster::start(3);
    assert_eq!(create(&mut connect(&cluster, 1), "t", -1, -1, &[&[3, 1, 2]]).0, 0);
    let place = place(&cluster, 1, "t", 0);
    cluster.until("the preferred one leads", |cluster| cluster.leader(place) == 3);
    cluster.kill(3);
    cluster.until("another one leads", |cluster| {
        [1, 2].iter().all(|id| cluster.node(*id).leader_of(place).is_some_and(|(node, _)| node.0 != 3))
    });
    let begun = std::time::Instant::now();
    let mut wire = connect(&cluster, 1);
    assert_eq!(elect(&mut wire, 0, Some(("t", &[0]))), [(0, ErrorCode::PreferredLeaderNotAvailable)]);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    let partition = &metadata(&mut wire, "t").topics[0].partitions[0];
    let ids = |nodes: &[msg::BrokerId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    assert_eq!(ids(&partition.offline_replicas), [3]);
    assert!(!ids(&partition.isr_nodes).contains(&3));
}

#[test]
fn deleted_records_stay_deleted_under_another_leader() {
    use msg::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    let mut cluster = Cluster::start(3);
    assert_eq!(create(&mut connect(&cluster, 1), "t", 1, 3, &[]).0, 0);
    let place = place(&cluster, 1, "t", 0);
    for number in 0..10 {
        produce_somehow(&cluster, "t", &format!("number {number}"));
    }
    let leader = cluster.leader(place);
    let delete = |wire: &mut Connection, before: i64| {
        let partition = DeleteRecordsPartition::default().with_offset(before);
        let topic = DeleteRecordsTopic::default().with_name(name("t")).with_partitions(vec![partition]);
        let request = msg::DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let answer: msg::DeleteRecordsResponse = wire.call(msg::ApiKey::DeleteRecords, 2, &request).unwrap();
        let deleted = &answer.topics[0].partitions[0];
        (ErrorCode::of(deleted.error_code).unwrap(), deleted.low_watermark)
    };
    let mut wire = connect(&cluster, leader);
    assert_eq!(delete(&mut wire, 999), (ErrorCode::OffsetOutOfRange, -1));
    assert_eq!(delete(&mut wire, 4), (ErrorCode::None, 4), "told when it is so");
    assert_eq!(delete(&mut wire, 2), (ErrorCode::None, 4));
    let other = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    assert_eq!(delete(&mut connect(&cluster, other), 5).0, ErrorCode::NotLeaderOrFollower);
    drop(wire);
    cluster.kill(leader);
    produce_somehow(&cluster, "t", "after");
    let next = cluster.leader(place);
    let mut wire = connect(&cluster, next);
    assert_eq!(wire.list_offset("t", 0, EARLIEST).unwrap(), Offset(4));
    assert_eq!(delete(&mut wire, -1).0, ErrorCode::None, "all that is committed");
    assert!(wire.list_offset("t", 0, EARLIEST).unwrap() >= Offset(11));
}

#[test]
fn partitions_are_added_on_all_nodes_and_served() {
    use msg::create_partitions_request::CreatePartitionsTopic;
    let cluster = Cluster::start(3);
    assert_eq!(create(&mut connect(&cluster, 1), "t", 1, 3, &[]).0, 0);
    let add = |wire: &mut Connection, total: i32| {
        let topic = CreatePartitionsTopic::default().with_name(name("t")).with_count(total).with_assignments(None);
        let request = msg::CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let answer: msg::CreatePartitionsResponse = wire.call(msg::ApiKey::CreatePartitions, 3, &request).unwrap();
        ErrorCode::of(answer.results[0].error_code).unwrap()
    };
    let mut wire = connect(&cluster, 2);
    assert_eq!(add(&mut wire, 1), ErrorCode::InvalidPartitions);
    assert_eq!(add(&mut wire, 6), ErrorCode::None);
    cluster.until("every node knows a leader of each", |cluster| {
        cluster.ids().iter().all(|id| {
            let told = metadata(&mut connect(cluster, *id), "t");
            let partitions = &told.topics[0].partitions;
            partitions.len() == 6 && partitions.iter().all(|one| one.leader_id.0 > 0 && one.replica_nodes.len() == 3)
        })
    });
    for partition in 0..6 {
        let place = place(&cluster, 3, "t", partition);
        let mut wire = connect(&cluster, cluster.leader(place));
        assert!(wire.produce("t", partition, batch("x"), Acks::All).is_ok(), "partition {partition}");
    }
}
