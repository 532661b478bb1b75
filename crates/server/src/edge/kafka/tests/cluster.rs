//! Clients against three whole nodes: what each is told, by whom it is served, and what becomes of it when one dies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use base::batch::Codec;
use base::records::{BatchBuilder, decode};
use base::{Offset, PartitionIndex, Timestamp, TopicPartition};
use bytes::Bytes;
use client::{Acks, Connection, EARLIEST, LATEST};
use kafka::msg::{self, BrokerId, TopicName};
use kafka::{ErrorCode, StrBytes};

use crate::edge::kafka::limits::{COORDINATOR_WAIT_MS_MAX, NAMED_AFTER_LOSS};
use crate::edge::testing::Cluster;

const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn connect(cluster: &Cluster, id: u32) -> Connection {
    Connection::connect(&format!("127.0.0.1:{}", cluster.ports(id).kafka), "test", PATIENCE).unwrap()
}

pub(super) fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

pub(super) fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(Timestamp(1_000), None, Some(value.as_bytes()), &[]);
    builder.build().unwrap()
}

fn values(batches: &Bytes) -> Vec<String> {
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap_or_default().to_vec()).unwrap();
    decode(batches).unwrap().iter().map(|record| text(record.unwrap().value)).collect()
}

/// Creates a topic over the Kafka port; answers each partition's error code.
pub(super) fn create(
    wire: &mut Connection,
    topic: &str,
    partitions: i32,
    factor: i16,
    lists: &[&[i32]],
) -> (i16, String) {
    use msg::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
    let assignments = (0..).zip(lists).map(|(index, list)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(list.iter().copied().map(BrokerId).collect())
    });
    let topic = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(factor)
        .with_assignments(assignments.collect());
    let request = msg::CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    let answer: msg::CreateTopicsResponse = wire.call(msg::ApiKey::CreateTopics, 5, &request).unwrap();
    let created = &answer.topics[0];
    (created.error_code, created.error_message.as_ref().map(ToString::to_string).unwrap_or_default())
}

pub(super) fn metadata(wire: &mut Connection, topic: &str) -> msg::MetadataResponse {
    let asked = msg::metadata_request::MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = msg::MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false);
    wire.call(msg::ApiKey::Metadata, 12, &request).unwrap()
}

pub(super) fn place(cluster: &Cluster, id: u32, topic: &str, partition: i32) -> TopicPartition {
    let state = cluster.node(id).state();
    TopicPartition { topic: state.topic_named(topic).unwrap().id, partition: PartitionIndex(partition) }
}

fn produce_request(topic: &str, partition: i32, acks: i16, records: Bytes) -> msg::ProduceRequest {
    use msg::produce_request::{PartitionProduceData, TopicProduceData};
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    msg::ProduceRequest::default().with_acks(acks).with_timeout_ms(5_000).with_topic_data(vec![topic])
}

fn fetch_request(cluster: &Cluster, topic: &str, from: i64, rack: &str) -> msg::FetchRequest {
    use msg::fetch_request::{FetchPartition, FetchTopic};
    let id = cluster.ids()[0];
    let partition = FetchPartition::default()
        .with_current_leader_epoch(-1)
        .with_fetch_offset(from)
        .with_partition_max_bytes(1 << 20);
    let topic =
        FetchTopic::default().with_topic_id(place(cluster, id, topic, 0).topic.0).with_partitions(vec![partition]);
    msg::FetchRequest::default()
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_max_wait_ms(2_000)
        .with_session_epoch(-1)
        .with_rack_id(StrBytes::from_string(rack.to_owned()))
        .with_topics(vec![topic])
}

/// As a client does: asks whoever it can who leads, writes there, and begins anew if that fails. How long it took.
pub(super) fn produce_somehow(cluster: &Cluster, topic: &str, value: &str) -> Duration {
    let begun = Instant::now();
    loop {
        for id in cluster.ids() {
            let asked = metadata(&mut connect(cluster, id), topic);
            let leader = asked.topics[0].partitions.first().map_or(-1, |partition| partition.leader_id.0);
            let Some(leader) = cluster.ids().into_iter().find(|id| i32::try_from(*id) == Ok(leader)) else { continue };
            if connect(cluster, leader).produce(topic, 0, batch(value), Acks::All).is_ok() {
                return begun.elapsed();
            }
        }
        assert!(begun.elapsed() < PATIENCE, "nobody takes {value}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn every_node_tells_the_same_of_the_cluster() {
    let cluster = Cluster::start(3);
    assert_eq!(create(&mut connect(&cluster, 2), "t", 6, 3, &[]).0, 0);
    cluster.until("all nodes know all leaders", |cluster| {
        cluster.ids().iter().all(|id| {
            let node = cluster.node(*id);
            let known = node.state().topic_named("t").is_some();
            known && (0..6).all(|index| node.leader_of(place(cluster, *id, "t", index)).is_some())
        })
    });
    // A leader believes of nobody that it keeps up before it has shown it.
    cluster.until("all replicas are in sync, as every node says", |cluster| {
        cluster.ids().iter().all(|id| {
            let answer = metadata(&mut connect(cluster, *id), "t");
            answer.topics[0].partitions.iter().all(|one| one.isr_nodes.len() == 3)
        })
    });
    let mut told = Vec::new();
    for id in cluster.ids() {
        let answer = metadata(&mut connect(&cluster, id), "t");
        let brokers: BTreeMap<i32, (String, i32)> =
            answer.brokers.iter().map(|node| (node.node_id.0, (node.host.to_string(), node.port))).collect();
        let expected: BTreeMap<i32, (String, i32)> = cluster
            .ids()
            .into_iter()
            .map(|id| (i32::try_from(id).unwrap(), ("127.0.0.1".to_owned(), i32::from(cluster.ports(id).kafka))))
            .collect();
        assert_eq!(brokers, expected, "as node {id} has it");
        let partitions = &answer.topics[0].partitions;
        assert!(partitions.iter().all(|one| one.replica_nodes.len() == 3));
        let leaders: Vec<(i32, i32)> = partitions.iter().map(|one| (one.leader_id.0, one.leader_epoch)).collect();
        told.push((leaders, answer.controller_id.0));
    }
    let (leaders, controller) = &told[0];
    assert!(told.iter().all(|other| other == &told[0]), "{told:?}");
    assert!(leaders.iter().all(|(leader, epoch)| (1..=3).contains(leader) && *epoch > 0), "{leaders:?}");
    let distinct: BTreeSet<i32> = leaders.iter().map(|(leader, _)| *leader).collect();
    assert_eq!(distinct.len(), 3, "leaders are spread: {leaders:?}");
    assert!((1..=3).contains(controller));
}

#[test]
fn whoever_does_not_lead_says_who_does() {
    let cluster = Cluster::start(3);
    assert_eq!(create(&mut connect(&cluster, 1), "t", 1, 3, &[]).0, 0);
    let place = place(&cluster, 1, "t", 0);
    let leader = cluster.leader(place);
    let expected = i32::try_from(leader).unwrap();
    produce_somehow(&cluster, "t", "first");
    let other = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.until("the other has heard", |cluster| {
        cluster.node(other).leader_of(place).is_some_and(|(node, _)| node.0 == leader)
    });
    let mut wire = connect(&cluster, other);
    let answer: msg::ProduceResponse =
        wire.call(msg::ApiKey::Produce, 11, &produce_request("t", 0, -1, batch("x"))).unwrap();
    let refused = &answer.responses[0].partition_responses[0];
    assert_eq!(ErrorCode::of(refused.error_code), Some(ErrorCode::NotLeaderOrFollower));
    assert_eq!(refused.current_leader.leader_id.0, expected);
    assert_eq!(answer.node_endpoints[0].port, i32::from(cluster.ports(leader).kafka));

    let answer: msg::FetchResponse = wire.call(msg::ApiKey::Fetch, 16, &fetch_request(&cluster, "t", 0, "")).unwrap();
    let refused = &answer.responses[0].partitions[0];
    assert_eq!(ErrorCode::of(refused.error_code), Some(ErrorCode::NotLeaderOrFollower));
    assert_eq!(refused.current_leader.leader_id.0, expected);
    assert_eq!(answer.node_endpoints[0].node_id.0, expected);

    let error = wire.list_offset("t", 0, LATEST).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotLeaderOrFollower.number()));
    assert_eq!(connect(&cluster, leader).list_offset("t", 0, LATEST).unwrap(), Offset(1));
}

#[test]
fn epochs_of_other_leaderships_are_refused() {
    use msg::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    use msg::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
    let cluster = Cluster::start(3);
    assert_eq!(create(&mut connect(&cluster, 1), "t", 1, 3, &[]).0, 0);
    let leader = cluster.leader(place(&cluster, 1, "t", 0));
    produce_somehow(&cluster, "t", "first");
    let mut wire = connect(&cluster, leader);
    let epoch = metadata(&mut wire, "t").topics[0].partitions[0].leader_epoch;
    let cases = [
        (epoch, ErrorCode::None),
        (epoch - 1, ErrorCode::FencedLeaderEpoch),
        (epoch + 1, ErrorCode::UnknownLeaderEpoch),
    ];
    for (believed, code) in cases {
        let mut request = fetch_request(&cluster, "t", 0, "");
        request.topics[0].partitions[0].current_leader_epoch = believed;
        let answer: msg::FetchResponse = wire.call(msg::ApiKey::Fetch, 16, &request).unwrap();
        assert_eq!(ErrorCode::of(answer.responses[0].partitions[0].error_code), Some(code), "fetch at {believed}");

        let partition = ListOffsetsPartition::default().with_current_leader_epoch(believed).with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![partition]);
        let request = msg::ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let answer: msg::ListOffsetsResponse = wire.call(msg::ApiKey::ListOffsets, 5, &request).unwrap();
        assert_eq!(ErrorCode::of(answer.topics[0].partitions[0].error_code), Some(code), "list at {believed}");

        let partition =
            OffsetForLeaderPartition::default().with_current_leader_epoch(believed).with_leader_epoch(epoch);
        let topic = OffsetForLeaderTopic::default().with_topic(name("t")).with_partitions(vec![partition]);
        let request =
            msg::OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let answer: msg::OffsetForLeaderEpochResponse =
            wire.call(msg::ApiKey::OffsetForLeaderEpoch, 4, &request).unwrap();
        let answered = &answer.topics[0].partitions[0];
        assert_eq!(ErrorCode::of(answered.error_code), Some(code), "epoch end at {believed}");
        if code == ErrorCode::None {
            assert_eq!((answered.leader_epoch, answered.end_offset), (epoch, 1));
        }
    }
}

#[test]
fn a_topics_copies_are_where_they_were_asked_for_or_it_is_refused() {
    let cluster = Cluster::start(3);
    let mut wire = connect(&cluster, 3);
    let refused = [
        (create(&mut wire, "two", 1, 2, &[]), ErrorCode::InvalidReplicationFactor, "a majority of 2 is 2"),
        (create(&mut wire, "five", 1, 5, &[]), ErrorCode::InvalidReplicationFactor, "needs 5 nodes"),
        (create(&mut wire, "none", 1, 0, &[]), ErrorCode::InvalidReplicationFactor, "use 1, 3 or 5"),
        (create(&mut wire, "pair", -1, -1, &[&[1, 2]]), ErrorCode::InvalidReplicationFactor, "a majority of 2 is 2"),
        (
            create(&mut wire, "far", -1, -1, &[&[1, 2, 9]]),
            ErrorCode::InvalidReplicaAssignment,
            "node 9 is not a member",
        ),
        (create(&mut wire, "twice", -1, -1, &[&[1, 1, 2]]), ErrorCode::InvalidReplicaAssignment, "names node 1 twice"),
        (create(&mut wire, "odd", -1, -1, &[&[-1, 1, 2]]), ErrorCode::InvalidReplicaAssignment, "is positive"),
    ];
    for ((code, said), expected, words) in refused {
        assert_eq!(ErrorCode::of(code), Some(expected), "{said}");
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(create(&mut wire, "assigned", -1, -1, &[&[3, 1, 2], &[2, 3, 1]]).0, 0);
    assert_eq!(create(&mut wire, "single", -1, -1, &[&[2]]).0, 0);
    let answer = metadata(&mut wire, "assigned");
    let replicas: Vec<Vec<i32>> = answer.topics[0]
        .partitions
        .iter()
        .map(|partition| partition.replica_nodes.iter().map(|node| node.0).collect())
        .collect();
    assert_eq!(replicas, [[3, 1, 2], [2, 3, 1]]);
    let leaders: Vec<i32> = answer.topics[0].partitions.iter().map(|partition| partition.leader_id.0).collect();
    assert_eq!(leaders, [3, 2], "the first of each list leads");
    cluster.until("node 2 has its only copy", |cluster| {
        cluster.node(2).state().topic_named("single").is_some() && cluster.node(2).leads(place(cluster, 2, "single", 0))
    });
    assert_eq!(connect(&cluster, 2).produce("single", 0, batch("x"), Acks::All).unwrap(), Offset(0));
    assert!(cluster.node(1).reader(place(&cluster, 1, "single", 0)).is_none(), "node 1 has no copy of it");
    let elsewhere = connect(&cluster, 1).produce("single", 0, batch("x"), Acks::All).unwrap_err();
    assert_eq!(elsewhere.code(), Some(ErrorCode::NotLeaderOrFollower.number()));
}

#[test]
fn a_consumer_reads_in_its_own_zone_and_only_what_is_committed() {
    let cluster = Cluster::start_with(3, |config| config.cluster.zone = Some(format!("zone-{}", config.node.id)));
    assert_eq!(create(&mut connect(&cluster, 1), "t", 1, 3, &[]).0, 0);
    let place = place(&cluster, 1, "t", 0);
    let leader = cluster.leader(place);
    produce_somehow(&cluster, "t", "first");
    let near = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let zone = format!("zone-{near}");
    let ask = |id: u32, from: i64| -> msg::FetchResponse {
        connect(&cluster, id).call(msg::ApiKey::Fetch, 16, &fetch_request(&cluster, "t", from, &zone)).unwrap()
    };
    let sent_on = ask(leader, 0);
    let partition = &sent_on.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.preferred_read_replica.0), (0, i32::try_from(near).unwrap()));
    assert!(partition.records.as_ref().is_none_or(Bytes::is_empty));
    cluster.until("the copy has the record", |cluster| {
        cluster.node(near).reader(place).is_some_and(|reader| reader.committed() == Offset(1))
    });
    let read = ask(near, 0);
    let partition = &read.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.high_watermark), (0, 1));
    assert_eq!(values(partition.records.as_ref().unwrap()), ["first"]);
    let ahead = ask(near, 5);
    let code = ahead.responses[0].partitions[0].error_code;
    assert_eq!(
        ErrorCode::of(code),
        Some(ErrorCode::OffsetNotAvailable),
        "a copy cannot know that there is no such offset"
    );
    let beyond = connect(&cluster, leader).fetch("t", 0, Offset(5), 1 << 20, 0).unwrap_err();
    assert_eq!(beyond.code(), Some(ErrorCode::OffsetOutOfRange.number()));
}

#[test]
fn with_most_copies_gone_writes_are_refused_at_once_and_reads_go_on() {
    let mut cluster = Cluster::start(3);
    assert_eq!(create(&mut connect(&cluster, 1), "t", 1, 3, &[]).0, 0);
    let place = place(&cluster, 1, "t", 0);
    produce_somehow(&cluster, "t", "before");
    let leader = cluster.leader(place);
    for id in cluster.ids().into_iter().filter(|id| *id != leader) {
        cluster.kill(id);
    }
    cluster.until("the loss is noticed", |cluster| {
        let begun = Instant::now();
        let refused = connect(cluster, leader).produce("t", 0, batch("x"), Acks::All).expect_err("no majority");
        assert!(begun.elapsed() < Duration::from_secs(6), "answered after {:?}", begun.elapsed());
        refused.code() == Some(ErrorCode::NotEnoughReplicas.number())
    });
    let mut wire = connect(&cluster, leader);
    for _ in 0..20 {
        let begun = Instant::now();
        let refused = wire.produce("t", 0, batch("x"), Acks::All).unwrap_err();
        let code = refused.code().and_then(ErrorCode::of);
        assert!(matches!(code, Some(ErrorCode::NotEnoughReplicas | ErrorCode::NotLeaderOrFollower)), "{refused}");
        assert!(begun.elapsed() < Duration::from_millis(500), "at once, not after {:?}", begun.elapsed());
    }
    let told = metadata(&mut wire, "t");
    assert_eq!(told.topics[0].partitions[0].leader_id.0, i32::try_from(leader).unwrap(), "where it can be read");
    assert_eq!(told.brokers.len(), 3, "a client shall know whom else to ask");
    assert_eq!(values(&wire.fetch("t", 0, Offset(0), 1 << 20, 0).unwrap().batches)[..1], ["before"]);
    assert_eq!(wire.list_offset("t", 0, EARLIEST).unwrap(), Offset(0));
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.begin(id);
    }
    let resumed = produce_somehow(&cluster, "t", "after");
    assert!(resumed < Duration::from_secs(10), "{resumed:?}");
}

#[test]
fn a_topic_may_ask_for_more_copies_than_a_majority() {
    let mut cluster = Cluster::start(3);
    let mut wire = connect(&cluster, 1);
    assert_eq!(create(&mut wire, "t", 1, 3, &[]).0, 0);
    let config = BTreeMap::from([("min.insync.replicas".to_owned(), "3".to_owned())]);
    cluster.run(1, cluster.node(1).set_topic_config("t", config)).unwrap();
    let place = place(&cluster, 1, "t", 0);
    let leader = cluster.leader(place);
    cluster.until("the leader knows", |cluster| {
        cluster.node(leader).state().topic_named("t").is_some_and(|topic| topic.config().min_insync_replicas == 3)
    });
    produce_somehow(&cluster, "t", "by all three");
    let other = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.kill(other);
    cluster.until("the loss is noticed", |cluster| {
        let refused = connect(cluster, leader).produce("t", 0, batch("x"), Acks::All).expect_err("a copy is gone");
        refused.code() == Some(ErrorCode::NotEnoughReplicas.number())
    });
    let mut wire = connect(&cluster, leader);
    wire.produce("t", 0, batch("acks=1 does not ask for copies"), Acks::Leader).unwrap();
    cluster.begin(other);
    produce_somehow(&cluster, "t", "again by all three");
}

#[test]
fn copies_are_moved_to_another_node_while_records_come_in() {
    let cluster = Cluster::start(4);
    assert_eq!(create(&mut connect(&cluster, 1), "t", -1, -1, &[&[1, 2, 3]]).0, 0);
    let place = place(&cluster, 1, "t", 0);
    let mut sent = 0;
    let mut send = |count: i64| {
        for _ in 0..count {
            produce_somehow(&cluster, "t", &format!("number {sent}"));
            sent += 1;
        }
        sent
    };
    send(5);
    let target = vec![base::NodeId(4), base::NodeId(2), base::NodeId(3)];
    let moved = |wire: &mut Connection, replicas: Option<&[i32]>| {
        use msg::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
        let replicas = replicas.map(|ids| ids.iter().copied().map(BrokerId).collect());
        let partition = ReassignablePartition::default().with_replicas(replicas);
        let topic = ReassignableTopic::default().with_name(name("t")).with_partitions(vec![partition]);
        let request = msg::AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
        let answer: msg::AlterPartitionReassignmentsResponse =
            wire.call(msg::ApiKey::AlterPartitionReassignments, 0, &request).unwrap();
        ErrorCode::of(answer.responses[0].partitions[0].error_code).unwrap()
    };
    let mut admin = connect(&cluster, 3);
    assert_eq!(moved(&mut admin, None), ErrorCode::NoReassignmentInProgress);
    assert_eq!(moved(&mut admin, Some(&[2, 3])), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(moved(&mut admin, Some(&[2, 3, 9])), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(moved(&mut admin, Some(&[4, 2, 3])), ErrorCode::None);
    let request = msg::ListPartitionReassignmentsRequest::default().with_topics(None);
    let listed: msg::ListPartitionReassignmentsResponse =
        admin.call(msg::ApiKey::ListPartitionReassignments, 0, &request).unwrap();
    for moving in listed.topics.iter().flat_map(|topic| &topic.partitions) {
        let ids = |nodes: &[BrokerId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
        assert_eq!((ids(&moving.adding_replicas), ids(&moving.removing_replicas)), (vec![4], vec![1]));
    }
    let sent = send(10);
    cluster.until("the copies are where they shall be", |cluster| {
        let state = cluster.node(4).state();
        state.replicas(place) == target && state.topics[&place.topic].targets.is_empty()
    });
    let leader = cluster.leader(place);
    assert_ne!(leader, 1, "who has no vote does not lead");
    cluster.until("the new copy has everything", |cluster| {
        cluster.node(4).reader(place).is_some_and(|reader| reader.committed() >= Offset(sent))
    });
    let (mut wire, mut there) = (connect(&cluster, leader), Vec::new());
    while i64::try_from(there.len()).unwrap() < sent {
        // A fetch ends where a leadership ended.
        let from = Offset(i64::try_from(there.len()).unwrap());
        let fetched = wire.fetch("t", 0, from, 1 << 20, 1_000).unwrap();
        assert!(!fetched.batches.is_empty(), "nothing at {from} of {sent}");
        there.extend(values(&fetched.batches));
    }
    for number in 0..sent {
        assert!(there.contains(&format!("number {number}")), "number {number} is lost");
    }
    let told = metadata(&mut connect(&cluster, 2), "t");
    let replicas: Vec<i32> = told.topics[0].partitions[0].replica_nodes.iter().map(|node| node.0).collect();
    assert_eq!(replicas, [4, 2, 3]);
}

#[test]
fn a_node_that_was_lost_is_named_for_a_while_and_nobody_is_sent_to_it() {
    let mut cluster = Cluster::start(3);
    assert_eq!(create(&mut connect(&cluster, 1), "t", 3, 3, &[]).0, 0);
    let named = |cluster: &Cluster, asked: u32| {
        let brokers = metadata(&mut connect(cluster, asked), "t").brokers;
        brokers.iter().map(|broker| broker.node_id.0).collect::<Vec<_>>()
    };
    let lost = coordinator(&cluster);
    let wire_id = i32::try_from(lost).unwrap();
    let rest: Vec<u32> = cluster.ids().into_iter().filter(|id| *id != lost).collect();
    let killed = Instant::now();
    cluster.kill(lost);
    cluster.until("another node coordinates and leads", |cluster| {
        rest.iter().all(|id| {
            let mut wire = connect(cluster, *id);
            let answer = metadata(&mut wire, "t");
            let names = answer.brokers.iter().any(|broker| broker.node_id.0 == wire_id);
            assert!(names || killed.elapsed() >= NAMED_AFTER_LOSS, "node {id} forgot node {lost} at once");
            let asked = Instant::now();
            let (code, node) = find_coordinator(&mut wire);
            let waited = asked.elapsed() >= Duration::from_millis(COORDINATOR_WAIT_MS_MAX - 10);
            assert!(code == 0 || waited, "refused at once while one is elected: clients ask a few times only");
            let is_led = answer.topics[0].partitions.iter().all(|one| ![-1, wire_id].contains(&one.leader_id.0));
            code == 0 && node != wire_id && is_led
        })
    });
    let told = metadata(&mut connect(&cluster, rest[0]), "t");
    assert!(told.topics[0].partitions.iter().all(|one| one.offline_replicas == [BrokerId(wire_id)]));
    cluster.until("it is named no more", |cluster| rest.iter().all(|id| named(cluster, *id).len() == 2));
    assert!(killed.elapsed() >= NAMED_AFTER_LOSS, "after {:?}", killed.elapsed());
    cluster.begin(lost);
    cluster.until("it is named again", |cluster| rest.iter().all(|id| named(cluster, *id).len() == 3));
}

fn find_coordinator(wire: &mut Connection) -> (i16, i32) {
    let request = msg::FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("g"));
    let answer: msg::FindCoordinatorResponse = wire.call(msg::ApiKey::FindCoordinator, 3, &request).unwrap();
    (answer.error_code, answer.node_id.0)
}

fn commit(wire: &mut Connection, offset: i64) -> i16 {
    use msg::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    let request = msg::OffsetCommitRequest::default()
        .with_group_id(msg::GroupId(StrBytes::from_static_str("g")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let answer: msg::OffsetCommitResponse = wire.call(msg::ApiKey::OffsetCommit, 8, &request).unwrap();
    answer.topics[0].partitions[0].error_code
}

fn committed(wire: &mut Connection) -> Result<i64, i16> {
    let request = msg::OffsetFetchRequest::default()
        .with_group_id(msg::GroupId(StrBytes::from_static_str("g")))
        .with_topics(None);
    let answer: msg::OffsetFetchResponse = wire.call(msg::ApiKey::OffsetFetch, 7, &request).unwrap();
    if answer.error_code != 0 {
        return Err(answer.error_code);
    }
    Ok(answer.topics.first().map_or(-1, |topic| topic.partitions[0].committed_offset))
}

/// The node that coordinates, as any node tells, asked until it answers.
fn coordinator(cluster: &Cluster) -> u32 {
    let found = std::cell::Cell::new(0);
    cluster.until("somebody coordinates", |cluster| {
        cluster.ids().into_iter().any(|asked| {
            let (code, node) = find_coordinator(&mut connect(cluster, asked));
            let Ok(node) = u32::try_from(node) else { return false };
            found.set(node);
            code == 0 && cluster.ids().contains(&node) && committed(&mut connect(cluster, node)).is_ok()
        })
    });
    found.get()
}

#[test]
fn groups_move_to_another_coordinator_with_what_they_have_committed() {
    let mut cluster = Cluster::start(3);
    assert_eq!(create(&mut connect(&cluster, 1), "t", 1, 3, &[]).0, 0);
    for round in 1..=3 {
        let first = coordinator(&cluster);
        for other in cluster.ids().into_iter().filter(|id| *id != first) {
            // A node that has just begun may not have heard who coordinates.
            cluster.until("every node knows who coordinates", |cluster| {
                let answer = committed(&mut connect(cluster, other));
                answer.map_err(|code| ErrorCode::of(code).unwrap()) != Err(ErrorCode::CoordinatorNotAvailable)
            });
            let mut wire = connect(&cluster, other);
            let refused = committed(&mut wire).map_err(|code| ErrorCode::of(code).unwrap());
            assert_eq!(refused, Err(ErrorCode::NotCoordinator), "node {other}");
            assert_eq!(ErrorCode::of(commit(&mut wire, 9)), Some(ErrorCode::NotCoordinator));
            assert!(wire.groups().unwrap().is_empty(), "it has none of its own");
        }
        let mut wire = connect(&cluster, first);
        assert_eq!(commit(&mut wire, 10 * round), 0);
        assert_eq!(wire.groups().unwrap().len(), 1);
        cluster.kill(first);
        let second = coordinator(&cluster);
        assert_ne!(first, second);
        assert_eq!(committed(&mut connect(&cluster, second)), Ok(10 * round), "round {round}");
        assert_eq!(commit(&mut connect(&cluster, second), 10 * round + 1), 0);
        cluster.begin(first);
    }
    let last = coordinator(&cluster);
    assert_eq!(committed(&mut connect(&cluster, last)), Ok(31));
    connect(&cluster, 1).delete_topic("t").unwrap();
    cluster.until("what was read of a deleted topic is forgotten", |cluster| {
        committed(&mut connect(cluster, last)) == Ok(-1)
    });
}
