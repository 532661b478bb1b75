//! Transactional producers against three whole nodes, message by message: what is visible when, what is refused with which code,
//! and what becomes of a decided transaction when its coordinator dies.

use std::time::{Duration, Instant};

use base::batch::Codec;
use base::records::{BatchBuilder, decode};
use base::{Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicPartition};
use bytes::Bytes;
use client::Connection;
use kafka::msg::{self, TopicName};
use kafka::{ErrorCode, StrBytes};

use crate::edge::testing::Cluster;
use crate::node::groups::TOPIC as GROUPS;
use crate::node::time;
use crate::node::transactions::TOPIC as TRANSACTIONS;

const PATIENCE: Duration = Duration::from_secs(20);

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn connect(cluster: &Cluster, id: u32) -> Connection {
    Connection::connect(&format!("127.0.0.1:{}", cluster.ports(id).kafka), "test", PATIENCE).unwrap()
}

fn leader(cluster: &Cluster, topic: &str, partition: i32) -> u32 {
    let id = |cluster: &Cluster| cluster.node(cluster.ids()[0]).state().topic_named(topic).map(|topic| topic.id);
    cluster.until("the topic is known", |cluster| id(cluster).is_some());
    cluster.leader(TopicPartition { topic: id(cluster).unwrap(), partition: PartitionIndex(partition) })
}

/// As `Cluster::until`, for what changes something.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Producer(i64, i16);

/// Tries as long as producers are to try.
fn begin(cluster: &Cluster, id: &str) -> Producer {
    let began = Instant::now();
    loop {
        let mut wire = connect(cluster, leader(cluster, TRANSACTIONS, 0));
        let request = msg::InitProducerIdRequest::default()
            .with_transactional_id(Some(text(id).into()))
            .with_transaction_timeout_ms(60_000);
        let answer: msg::InitProducerIdResponse = wire.call(msg::ApiKey::InitProducerId, 4, &request).unwrap();
        match ErrorCode::of(answer.error_code).unwrap() {
            ErrorCode::None => return Producer(answer.producer_id.0, answer.producer_epoch),
            ErrorCode::ConcurrentTransactions
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable => {}
            other => panic!("{other}"),
        }
        assert!(began.elapsed() < PATIENCE, "the producer cannot begin");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn add(wire: &mut Connection, version: i16, id: &str, producer: Producer, partitions: &[i32]) -> Vec<ErrorCode> {
    let topic = msg::add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
        .with_name(TopicName(text("t")))
        .with_partitions(partitions.to_vec());
    let request = msg::AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(text(id).into())
        .with_v3_and_below_producer_id(producer.0.into())
        .with_v3_and_below_producer_epoch(producer.1)
        .with_v3_and_below_topics(vec![topic]);
    let answer: msg::AddPartitionsToTxnResponse =
        wire.call(msg::ApiKey::AddPartitionsToTxn, version, &request).unwrap();
    let results = &answer.results_by_topic_v3_and_below[0].results_by_partition;
    results.iter().map(|result| ErrorCode::of(result.partition_error_code).unwrap()).collect()
}

fn end(wire: &mut Connection, id: &str, producer: Producer, commit: bool) -> ErrorCode {
    let request = msg::EndTxnRequest::default()
        .with_transactional_id(text(id).into())
        .with_producer_id(producer.0.into())
        .with_producer_epoch(producer.1)
        .with_committed(commit);
    let answer: msg::EndTxnResponse = wire.call(msg::ApiKey::EndTxn, 3, &request).unwrap();
    ErrorCode::of(answer.error_code).unwrap()
}

fn batch(producer: Producer, sequence: i32, value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None)
        .producer(ProducerId(producer.0), ProducerEpoch(producer.1), sequence)
        .transactional();
    // Of now: retention would take older ones.
    builder.push(time::wall(), None, Some(value.as_bytes()), &[]);
    builder.build().unwrap()
}

fn produce(cluster: &Cluster, id: &str, partition: i32, records: Bytes) -> ErrorCode {
    use msg::produce_request::{PartitionProduceData, TopicProduceData};
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(TopicName(text("t"))).with_partition_data(vec![data]);
    let request = msg::ProduceRequest::default()
        .with_transactional_id(Some(text(id).into()))
        .with_acks(-1)
        .with_timeout_ms(5_000)
        .with_topic_data(vec![topic]);
    let mut wire = connect(cluster, leader(cluster, "t", partition));
    let answer: msg::ProduceResponse = wire.call(msg::ApiKey::Produce, 9, &request).unwrap();
    ErrorCode::of(answer.responses[0].partition_responses[0].error_code).unwrap()
}

/// What a consumer of committed transactions finds in a partition.
fn committed(cluster: &Cluster, partition: i32) -> Vec<String> {
    let mut wire = connect(cluster, leader(cluster, "t", partition));
    let (mut from, mut values) = (Offset::ZERO, Vec::new());
    // An answer may end where a file of the log does.
    while let Some(next) = fetch_committed(&mut wire, partition, from, &mut values) {
        from = next;
    }
    values
}

/// Where to go on. `None`: nothing is there yet.
fn fetch_committed(wire: &mut Connection, partition: i32, from: Offset, values: &mut Vec<String>) -> Option<Offset> {
    use msg::fetch_request::{FetchPartition, FetchTopic};
    let asked = FetchPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(from.0)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(TopicName(text("t"))).with_partitions(vec![asked]);
    let request = msg::FetchRequest::default()
        .with_min_bytes(0)
        .with_max_bytes(1 << 20)
        .with_isolation_level(1)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let answer: msg::FetchResponse = wire.call(msg::ApiKey::Fetch, 11, &request).unwrap();
    let found = &answer.responses[0].partitions[0];
    assert_eq!(found.error_code, 0);
    let aborted = found.aborted_transactions.clone().unwrap_or_default();
    let mut next = None;
    for batch in base::batch::split(&found.records.clone().unwrap_or_default()) {
        let (header, bytes) = batch.unwrap();
        next = Some(header.next_offset());
        let is_aborted = |aborted: &msg::fetch_response::AbortedTransaction| {
            aborted.producer_id.0 == header.producer_id.0 && Offset(aborted.first_offset) <= header.base_offset
        };
        // Good enough here: no producer commits after it aborted in the same partition.
        if header.is_control() || aborted.iter().any(is_aborted) {
            continue;
        }
        let decoded = decode(&bytes).unwrap();
        values.extend(decoded.iter().map(|it| String::from_utf8(it.unwrap().value.unwrap().to_vec()).unwrap()));
    }
    next
}

fn make_topic(cluster: &Cluster) {
    cluster.run(1, async { cluster.node(1).create_topic("t", 3, std::collections::BTreeMap::new()).await }).unwrap();
    for partition in 0..3 {
        leader(cluster, "t", partition);
    }
}

#[test]
fn a_transaction_is_visible_when_it_is_committed_and_refusals_are_those_that_producers_know() {
    let cluster = Cluster::start(3);
    make_topic(&cluster);
    let me = begin(&cluster, "a");
    assert_eq!(me.1, 0);
    let mut wire = connect(&cluster, leader(&cluster, TRANSACTIONS, 0));
    assert_eq!(produce(&cluster, "a", 0, batch(me, 0, "early")), ErrorCode::InvalidTxnState);
    let partly = [ErrorCode::OperationNotAttempted, ErrorCode::UnknownTopicOrPartition];
    assert_eq!(add(&mut wire, 3, "a", me, &[0, 9]), partly);
    assert_eq!(end(&mut wire, "a", me, true), ErrorCode::InvalidTxnState);
    assert_eq!(add(&mut wire, 3, "a", me, &[0, 1]), [ErrorCode::None; 2]);
    assert_eq!(produce(&cluster, "a", 2, batch(me, 0, "not added")), ErrorCode::InvalidTxnState);
    for partition in [0, 1] {
        assert_eq!(produce(&cluster, "a", partition, batch(me, 0, "first")), ErrorCode::None);
        assert!(committed(&cluster, partition).is_empty(), "it is not committed");
    }
    assert_eq!(end(&mut wire, "a", me, true), ErrorCode::None);
    cluster.until("both partitions have it", |cluster| {
        [0, 1].iter().all(|partition| committed(cluster, *partition) == ["first"])
    });
    assert_eq!(end(&mut wire, "a", me, true), ErrorCode::None, "asked again");
    assert_eq!(end(&mut wire, "a", me, false), ErrorCode::InvalidTxnState);
    // Another process comes: what the first has begun is aborted, and it is fenced, in each version's words.
    assert_eq!(add(&mut wire, 3, "a", me, &[0]), [ErrorCode::None]);
    assert_eq!(produce(&cluster, "a", 0, batch(me, 1, "aborted")), ErrorCode::None);
    let other = begin(&cluster, "a");
    assert_eq!((other.0, other.1), (me.0, 2));
    assert_eq!(add(&mut wire, 1, "a", me, &[0]), [ErrorCode::InvalidProducerEpoch]);
    assert_eq!(add(&mut wire, 2, "a", me, &[0]), [ErrorCode::ProducerFenced]);
    assert_eq!(end(&mut wire, "a", me, true), ErrorCode::ProducerFenced);
    assert_eq!(produce(&cluster, "a", 0, batch(me, 2, "zombie")), ErrorCode::InvalidProducerEpoch);
    assert_eq!(end(&mut wire, "a", Producer(999, 0), true), ErrorCode::InvalidProducerIdMapping);
    cluster.until("the abort is everywhere", |cluster| committed(cluster, 0) == ["first"]);
}

#[test]
fn what_was_decided_is_finished_by_the_next_coordinator() {
    let mut cluster = Cluster::start(3);
    make_topic(&cluster);
    for round in 0..3 {
        let id = format!("b{round}");
        let me = begin(&cluster, &id);
        let coordinator = leader(&cluster, TRANSACTIONS, 0);
        let mut wire = connect(&cluster, coordinator);
        assert_eq!(add(&mut wire, 3, &id, me, &[0, 1, 2]), [ErrorCode::None; 3]);
        let value = format!("round {round}");
        for partition in 0..3 {
            assert_eq!(produce(&cluster, &id, partition, batch(me, 0, &value)), ErrorCode::None);
        }
        assert_eq!(end(&mut wire, &id, me, true), ErrorCode::None);
        cluster.kill(coordinator);
        cluster.until("every partition has it", |cluster| {
            (0..3).all(|partition| committed(cluster, partition).contains(&value))
        });
        let again = begin(&cluster, &id);
        assert_eq!((again.0, again.1), (me.0, 1), "nothing was left to abort");
        cluster.begin(coordinator);
        cluster.until("it is back", |cluster| cluster.ids().len() == 3);
    }
}

#[test]
fn offsets_in_a_transaction_are_not_told_before_it_is_committed() {
    let cluster = Cluster::start(3);
    make_topic(&cluster);
    let me = begin(&cluster, "c");
    let mut transactions = connect(&cluster, leader(&cluster, TRANSACTIONS, 0));
    let mut groups = connect(&cluster, leader(&cluster, GROUPS, 0));
    let commit = |wire: &mut Connection, offset: i64| {
        use msg::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
        let partition = TxnOffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic =
            TxnOffsetCommitRequestTopic::default().with_name(TopicName(text("t"))).with_partitions(vec![partition]);
        let request = msg::TxnOffsetCommitRequest::default()
            .with_transactional_id(text("c").into())
            .with_group_id(text("g").into())
            .with_producer_id(me.0.into())
            .with_producer_epoch(me.1)
            .with_generation_id(-1)
            .with_topics(vec![topic]);
        let answer: msg::TxnOffsetCommitResponse = wire.call(msg::ApiKey::TxnOffsetCommit, 3, &request).unwrap();
        ErrorCode::of(answer.topics[0].partitions[0].error_code).unwrap()
    };
    let fetch = |wire: &mut Connection, stable: bool| {
        use msg::offset_fetch_request::OffsetFetchRequestTopic;
        let topic = OffsetFetchRequestTopic::default().with_name(TopicName(text("t"))).with_partition_indexes(vec![0]);
        let request = msg::OffsetFetchRequest::default()
            .with_group_id(text("g").into())
            .with_topics(Some(vec![topic]))
            .with_require_stable(stable);
        let answer: msg::OffsetFetchResponse = wire.call(msg::ApiKey::OffsetFetch, 7, &request).unwrap();
        let found = &answer.topics[0].partitions[0];
        (found.committed_offset, ErrorCode::of(found.error_code).unwrap())
    };
    let add_group = |wire: &mut Connection| {
        let request = msg::AddOffsetsToTxnRequest::default()
            .with_transactional_id(text("c").into())
            .with_producer_id(me.0.into())
            .with_producer_epoch(me.1)
            .with_group_id(text("g").into());
        let answer: msg::AddOffsetsToTxnResponse = wire.call(msg::ApiKey::AddOffsetsToTxn, 3, &request).unwrap();
        ErrorCode::of(answer.error_code).unwrap()
    };
    assert_eq!(commit(&mut groups, 5), ErrorCode::InvalidTxnState, "the group was not added");
    for (commits, offset, before, after) in [(true, 5, -1, 5), (false, 9, 5, 5)] {
        until("the last one is complete", || add_group(&mut transactions) == ErrorCode::None);
        assert_eq!(commit(&mut groups, offset), ErrorCode::None);
        assert_eq!(fetch(&mut groups, true), (-1, ErrorCode::UnstableOffsetCommit));
        assert_eq!(fetch(&mut groups, false), (before, ErrorCode::None));
        assert_eq!(end(&mut transactions, "c", me, commits), ErrorCode::None);
        until("the end is there", || fetch(&mut groups, true) == (after, ErrorCode::None));
    }
}
