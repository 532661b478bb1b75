//! A client against a whole node: what each API answers, in every version it is told to speak.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base::batch::Codec;
use base::records::{BatchBuilder, decode};
use base::{Offset, Timestamp};
use bytes::Bytes;
use client::{Acks, Connection, EARLIEST, LATEST};
use kafka::api::APIS;
use kafka::msg::{self, BrokerId, TopicName};
use kafka::{ApiKey, ErrorCode, StrBytes};

use crate::edge::testing::Served;

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `work` on a connection to a fresh node.
fn with_node(work: impl FnOnce(SocketAddr) + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let served = Served::start().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(super::super::serve(std::sync::Arc::clone(&served.node), listener, std::future::pending()));
        tokio::task::spawn_blocking(move || work(address)).await.unwrap();
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
}

fn connect(address: SocketAddr) -> Connection {
    Connection::connect(&address.to_string(), "test", PATIENCE).unwrap()
}

fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// `count` records, a second apart from `first_ms` on.
fn batch(codec: Codec, first_ms: i64, count: i64) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for i in 0..count {
        builder.push(Timestamp(first_ms + i * 1000), None, Some(format!("value {i}").as_bytes()), &[]);
    }
    builder.build().unwrap()
}

fn base_offsets(batches: &Bytes) -> Vec<i64> {
    base::batch::split(batches).map(|part| part.unwrap().0.base_offset.0).collect()
}

#[test]
fn a_fetch_gives_whole_batches_from_wherever_it_begins() {
    with_node(|address| {
        let mut wire = connect(address);
        wire.topic("events", true).unwrap();
        for (i, codec) in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].into_iter().enumerate() {
            let first = i64::try_from(i).unwrap() * 10_000;
            let at = wire.produce("events", 0, batch(codec, first, 10), Acks::All).unwrap();
            assert_eq!(at, Offset(first / 1000));
        }
        let all = wire.fetch("events", 0, Offset(0), 1 << 20, 0).unwrap();
        assert_eq!(base_offsets(&all.batches), [0, 10, 20, 30, 40]);
        assert_eq!((all.high_watermark, all.log_start), (Offset(50), Offset(0)));
        let middle = wire.fetch("events", 0, Offset(25), 1 << 20, 0).unwrap();
        assert_eq!(base_offsets(&middle.batches), [20, 30, 40], "the batch that contains the offset comes whole");
        let small = wire.fetch("events", 0, Offset(11), 1, 0).unwrap();
        assert_eq!(base_offsets(&small.batches), [10], "one batch comes, however few bytes are asked for");
        assert_eq!(decode(&small.batches).unwrap().iter().count(), 10);
        assert!(wire.fetch("events", 0, Offset(50), 1 << 20, 0).unwrap().batches.is_empty());
        let beyond = wire.fetch("events", 0, Offset(51), 1 << 20, 0).unwrap_err().to_string();
        assert!(beyond.contains("OFFSET_OUT_OF_RANGE") || beyond.contains('1'), "{beyond}");
        assert_eq!(wire.list_offset("events", 0, EARLIEST).unwrap(), Offset(0));
        assert_eq!(wire.list_offset("events", 0, LATEST).unwrap(), Offset(50));
        assert_eq!(wire.list_offset("events", 0, Timestamp(12_500)).unwrap(), Offset(13));
        assert_eq!(wire.list_offset("events", 0, Timestamp(-3)).unwrap(), Offset(49));
        assert_eq!(wire.list_offset("events", 0, Timestamp(999_999)).unwrap(), Offset(-1));
    });
}

#[test]
fn a_fetch_waits_for_records_and_no_longer_than_asked() {
    with_node(|address| {
        let mut wire = connect(address);
        wire.topic("quiet", true).unwrap();
        let began = Instant::now();
        assert!(wire.fetch("quiet", 0, Offset(0), 1 << 20, 300).unwrap().batches.is_empty());
        assert!(began.elapsed() >= Duration::from_millis(290), "answered after {:?}", began.elapsed());
        let producer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            connect(address).produce("quiet", 0, batch(Codec::None, 0, 1), Acks::Leader).unwrap();
        });
        let began = Instant::now();
        let fetched = wire.fetch("quiet", 0, Offset(0), 1 << 20, 15_000).unwrap();
        assert_eq!(base_offsets(&fetched.batches), [0]);
        assert!(began.elapsed() < Duration::from_secs(10), "woke after {:?}", began.elapsed());
        producer.join().unwrap();
    });
}

fn produce(topic: &str, partition: i32, acks: i16, records: Option<Bytes>) -> msg::ProduceRequest {
    use msg::produce_request::{PartitionProduceData, TopicProduceData};
    let data = PartitionProduceData::default().with_index(partition).with_records(records);
    let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    msg::ProduceRequest::default().with_acks(acks).with_timeout_ms(5000).with_topic_data(vec![topic])
}

/// The code and message of the one partition asked for.
fn refused(wire: &mut Connection, request: &msg::ProduceRequest) -> (i16, String) {
    let answer: msg::ProduceResponse = wire.call(msg::ApiKey::Produce, 9, request).unwrap();
    let partition = &answer.responses[0].partition_responses[0];
    (partition.error_code, partition.error_message.as_ref().map(|text| text.to_string()).unwrap_or_default())
}

#[test]
fn a_refused_produce_says_why_and_what_next() {
    with_node(|address| {
        let mut wire = connect(address);
        wire.topic("events", true).unwrap();
        let good = batch(Codec::None, 0, 3);
        let mut corrupt = good.to_vec();
        *corrupt.last_mut().unwrap() ^= 1;
        let mut old_format = good.to_vec();
        old_format[16] = 1;
        let large = {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.push(Timestamp(0), None, Some(&vec![7; 2 << 20]), &[]);
            builder.build().unwrap()
        };
        let cases = [
            (produce("absent", 0, -1, Some(good.clone())), ErrorCode::UnknownTopicOrPartition),
            (produce("events", 1, -1, Some(good.clone())), ErrorCode::UnknownTopicOrPartition),
            (produce("events", -1, -1, Some(good.clone())), ErrorCode::UnknownTopicOrPartition),
            (produce("events", 0, 2, Some(good.clone())), ErrorCode::InvalidRequiredAcks),
            (produce("events", 0, -1, None), ErrorCode::InvalidRecord),
            (produce("events", 0, -1, Some(Bytes::from_static(b"nonsense"))), ErrorCode::CorruptMessage),
            (produce("events", 0, -1, Some(corrupt.into())), ErrorCode::CorruptMessage),
            (produce("events", 0, -1, Some(old_format.into())), ErrorCode::UnsupportedForMessageFormat),
            (produce("events", 0, -1, Some(large)), ErrorCode::MessageTooLarge),
            (
                produce("events", 0, 1, Some(good.clone())).with_transactional_id(Some(text("t").into())),
                ErrorCode::InvalidRequiredAcks,
            ),
        ];
        for (request, code) in cases {
            let (number, message) = refused(&mut wire, &request);
            assert_eq!(ErrorCode::of(number), Some(code), "{message}");
            assert!(!message.is_empty(), "{code} without a word");
        }
        assert_eq!(refused(&mut wire, &produce("events", 0, -1, Some(good))).0, 0, "the connection is still good");
        assert_eq!(wire.list_offset("events", 0, LATEST).unwrap(), Offset(3));
    });
}

#[test]
fn an_idempotent_producer_may_repeat_itself() {
    with_node(|address| {
        let mut wire = connect(address);
        wire.topic("events", true).unwrap();
        let (id, epoch) = wire.init_producer_id().unwrap();
        let send = |sequence: i32| {
            let mut builder = BatchBuilder::new(Codec::None).producer(id, epoch, sequence);
            builder.push(Timestamp(0), None, Some(b"once"), &[]);
            produce("events", 0, -1, Some(builder.build().unwrap()))
        };
        for sequence in [0, 1, 1, 0] {
            let (code, message) = refused(&mut wire, &send(sequence));
            assert_eq!(code, 0, "{message}");
        }
        assert_eq!(wire.list_offset("events", 0, LATEST).unwrap(), Offset(2));
        let (code, _) = refused(&mut wire, &send(7));
        assert_eq!(ErrorCode::of(code), Some(ErrorCode::OutOfOrderSequenceNumber));
        let request = msg::InitProducerIdRequest::default().with_transactional_id(Some(text("t").into()));
        let answer: msg::InitProducerIdResponse = wire.call(msg::ApiKey::InitProducerId, 4, &request).unwrap();
        assert_eq!(ErrorCode::of(answer.error_code), Some(ErrorCode::InvalidTransactionTimeout));
    });
}

/// Sends a request of one API in one version and answers its top-level error code, or that of the first thing asked for.
#[expect(clippy::too_many_lines, reason = "one arm an API, each a line or two")]
fn ask(wire: &mut Connection, api: ApiKey, version: i16) -> i16 {
    macro_rules! call {
        ($request:expr => $response:ident, $code:expr) => {{
            let number = msg::ApiKey::try_from(api.number()).unwrap();
            let request = $request;
            let answer: msg::$response = wire.call(number, version, &request).unwrap();
            let code: fn(&msg::$response) -> i16 = $code;
            code(&answer)
        }};
    }
    let group = msg::GroupId(text("nobody"));
    match api {
        ApiKey::Produce => call!(produce("all", 0, -1, Some(batch(Codec::None, 0, 1))) => ProduceResponse, |answer| {
            answer.responses[0].partition_responses[0].error_code
        }),
        ApiKey::Fetch => call!(fetch_request(wire, version) => FetchResponse, |answer| {
            assert_eq!(answer.session_id, 0);
            answer.responses[0].partitions[0].error_code
        }),
        ApiKey::ListOffsets => call!(list_offsets_request() => ListOffsetsResponse, |answer| {
            answer.topics[0].partitions[0].error_code
        }),
        ApiKey::Metadata => call!(metadata_request(version) => MetadataResponse, |answer| answer.topics[0].error_code),
        ApiKey::ApiVersions => call!(
            api_versions_request(version) => ApiVersionsResponse, |answer| answer.error_code
        ),
        ApiKey::FindCoordinator if version >= 4 => call!(
            msg::FindCoordinatorRequest::default().with_coordinator_keys(vec![text("nobody")])
                => FindCoordinatorResponse, |answer| answer.coordinators[0].error_code
        ),
        ApiKey::FindCoordinator => call!(
            msg::FindCoordinatorRequest::default().with_key(text("nobody"))
                => FindCoordinatorResponse, |answer| answer.error_code
        ),
        ApiKey::Heartbeat => call!(
            msg::HeartbeatRequest::default().with_group_id(group).with_member_id(text("x"))
                => HeartbeatResponse, |answer| i16::from(answer.error_code != ErrorCode::UnknownMemberId.number())
        ),
        ApiKey::ListGroups => {
            call!(msg::ListGroupsRequest::default() => ListGroupsResponse, |answer| answer.error_code)
        }
        ApiKey::DescribeGroups => call!(
            msg::DescribeGroupsRequest::default().with_groups(vec![group])
                => DescribeGroupsResponse, |answer| i16::from(answer.groups.len() != 1)
        ),
        ApiKey::InitProducerId => call!(
            msg::InitProducerIdRequest::default().with_transactional_id(None)
                => InitProducerIdResponse, |answer| answer.error_code
        ),
        ApiKey::DescribeCluster => call!(
            msg::DescribeClusterRequest::default() => DescribeClusterResponse, |answer| answer.error_code
        ),
        ApiKey::DescribeTopicPartitions => call!(
            msg::DescribeTopicPartitionsRequest::default()
                .with_response_partition_limit(10)
                .with_topics(vec![described("all")]) => DescribeTopicPartitionsResponse, |answer| answer.topics[0].error_code
        ),
        ApiKey::DescribeProducers => call!(
            msg::DescribeProducersRequest::default().with_topics(vec![
                msg::describe_producers_request::TopicRequest::default()
                    .with_name(name("all"))
                    .with_partition_indexes(vec![0])
            ]) => DescribeProducersResponse, |answer| answer.topics[0].partitions[0].error_code
        ),
        ApiKey::DescribeLogDirs => call!(
            msg::DescribeLogDirsRequest::default().with_topics(None)
                => DescribeLogDirsResponse, |answer| answer.results[0].error_code
        ),
        ApiKey::OffsetForLeaderEpoch => call!(epoch_request() => OffsetForLeaderEpochResponse, |answer| {
            answer.topics[0].partitions[0].error_code
        }),
        ApiKey::DeleteRecords => call!(delete_records_request() => DeleteRecordsResponse, |answer| {
            answer.topics[0].partitions[0].error_code
        }),
        ApiKey::CreateTopics => call!(create_topics_request(version) => CreateTopicsResponse, |answer| {
            answer.topics[0].error_code
        }),
        ApiKey::DeleteTopics => call!(delete_topics_request(version) => DeleteTopicsResponse, |answer| {
            i16::from(answer.responses[0].error_code != ErrorCode::UnknownTopicOrPartition.number())
        }),
        ApiKey::CreatePartitions => call!(create_partitions_request() => CreatePartitionsResponse, |answer| {
            i16::from(answer.results[0].error_code != ErrorCode::InvalidPartitions.number())
        }),
        ApiKey::DescribeConfigs => call!(describe_configs_request() => DescribeConfigsResponse, |answer| {
            assert!(answer.results[0].configs.iter().any(|config| &*config.name == "retention.ms"));
            answer.results[0].error_code
        }),
        ApiKey::AlterConfigs => call!(
            msg::AlterConfigsRequest::default().with_resources(vec![
                msg::alter_configs_request::AlterConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text("all")),
            ]) => AlterConfigsResponse, |answer| answer.responses[0].error_code
        ),
        ApiKey::AlterPartitionReassignments => call!(
            msg::AlterPartitionReassignmentsRequest::default() => AlterPartitionReassignmentsResponse,
            |answer| answer.error_code
        ),
        ApiKey::ElectLeaders => call!(
            msg::ElectLeadersRequest::default().with_topic_partitions(None).with_timeout_ms(1_000)
                => ElectLeadersResponse, |answer| answer.error_code
        ),
        ApiKey::ListPartitionReassignments => call!(
            msg::ListPartitionReassignmentsRequest::default().with_topics(None)
                => ListPartitionReassignmentsResponse, |answer| answer.error_code
        ),
        ApiKey::IncrementalAlterConfigs => call!(incremental_request() => IncrementalAlterConfigsResponse, |answer| {
            answer.responses[0].error_code
        }),
        ApiKey::DescribeTransactions => call!(
            msg::DescribeTransactionsRequest::default().with_transactional_ids(vec![text("nobody").into()])
                => DescribeTransactionsResponse,
            |answer| i16::from(
                answer.transaction_states[0].error_code != ErrorCode::TransactionalIdNotFound.number()
            )
        ),
        ApiKey::ListTransactions => {
            call!(msg::ListTransactionsRequest::default() => ListTransactionsResponse, |answer| answer.error_code)
        }
        // Have tests of their own, with members and producers.
        ApiKey::AddPartitionsToTxn
        | ApiKey::AddOffsetsToTxn
        | ApiKey::EndTxn
        | ApiKey::TxnOffsetCommit
        | ApiKey::JoinGroup
        | ApiKey::SyncGroup
        | ApiKey::LeaveGroup
        | ApiKey::OffsetCommit
        | ApiKey::OffsetFetch
        | ApiKey::DeleteGroups
        | ApiKey::OffsetDelete => 0,
    }
}

fn api_versions_request(version: i16) -> msg::ApiVersionsRequest {
    let request = msg::ApiVersionsRequest::default();
    if version < 3 {
        return request;
    }
    request.with_client_software_name(text("test")).with_client_software_version(text("1"))
}

fn metadata_request(version: i16) -> msg::MetadataRequest {
    let topic = msg::metadata_request::MetadataRequestTopic::default().with_name(Some(name("all")));
    let request = msg::MetadataRequest::default().with_topics(Some(vec![topic]));
    if version < 4 { request.with_allow_auto_topic_creation(true) } else { request }
}

fn fetch_request(wire: &mut Connection, version: i16) -> msg::FetchRequest {
    use msg::fetch_request::{FetchPartition, FetchTopic};
    let topic = msg::metadata_request::MetadataRequestTopic::default().with_name(Some(name("all")));
    let request = msg::MetadataRequest::default().with_topics(Some(vec![topic]));
    let answer: msg::MetadataResponse = wire.call(msg::ApiKey::Metadata, 12, &request).unwrap();
    let partition = FetchPartition::default().with_current_leader_epoch(-1).with_partition_max_bytes(1000);
    let mut topic = FetchTopic::default().with_partitions(vec![partition]);
    if version >= 13 {
        topic.topic_id = answer.topics[0].topic_id;
    } else {
        topic.topic = name("all");
    }
    let request = msg::FetchRequest::default().with_min_bytes(1).with_max_bytes(1000).with_topics(vec![topic]);
    if version >= 7 { request.with_session_epoch(0) } else { request }
}

fn list_offsets_request() -> msg::ListOffsetsRequest {
    use msg::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let partition = ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(-1);
    let topic = ListOffsetsTopic::default().with_name(name("all")).with_partitions(vec![partition]);
    msg::ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
}

fn epoch_request() -> msg::OffsetForLeaderEpochRequest {
    use msg::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
    let partition = OffsetForLeaderPartition::default().with_current_leader_epoch(-1).with_leader_epoch(1);
    let topic = OffsetForLeaderTopic::default().with_topic(name("all")).with_partitions(vec![partition]);
    msg::OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
}

fn delete_records_request() -> msg::DeleteRecordsRequest {
    use msg::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    let partition = DeleteRecordsPartition::default().with_offset(0);
    let topic = DeleteRecordsTopic::default().with_name(name("all")).with_partitions(vec![partition]);
    msg::DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000)
}

fn create_topics_request(version: i16) -> msg::CreateTopicsRequest {
    let topic = msg::create_topics_request::CreatableTopic::default()
        .with_name(name(&format!("created-{version}")))
        .with_num_partitions(2)
        .with_replication_factor(1);
    msg::CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000)
}

fn delete_topics_request(version: i16) -> msg::DeleteTopicsRequest {
    let request = msg::DeleteTopicsRequest::default().with_timeout_ms(5000);
    if version < 6 {
        return request.with_topic_names(vec![name("absent")]);
    }
    let topic = msg::delete_topics_request::DeleteTopicState::default().with_name(Some(name("absent")));
    request.with_topics(vec![topic])
}

fn create_partitions_request() -> msg::CreatePartitionsRequest {
    let topic = msg::create_partitions_request::CreatePartitionsTopic::default()
        .with_name(name("all"))
        .with_count(1)
        .with_assignments(None);
    msg::CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000)
}

fn describe_configs_request() -> msg::DescribeConfigsRequest {
    let topic = msg::describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("all"))
        .with_configuration_keys(None);
    msg::DescribeConfigsRequest::default().with_resources(vec![topic]).with_include_synonyms(true)
}

fn incremental_request() -> msg::IncrementalAlterConfigsRequest {
    use msg::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("1000")));
    let topic = AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("all"));
    msg::IncrementalAlterConfigsRequest::default().with_resources(vec![topic.with_configs(vec![config])])
}

#[test]
fn every_api_answers_in_every_version_it_advertises() {
    with_node(|address| {
        let mut wire = connect(address);
        wire.topic("all", true).unwrap();
        for api in APIS {
            // The generated messages begin at version 3 of Produce.
            let lowest = if api.key == ApiKey::Produce { 3 } else { api.min };
            for version in lowest..=api.max {
                assert_eq!(ask(&mut wire, api.key, version), 0, "{} version {version}", api.key.name());
            }
        }
    });
}

/// Before batches v2 there is nothing to answer but an error, in the old shape.
#[test]
fn old_produce_versions_are_refused_in_their_own_shape() {
    use std::io::{Read, Write};
    with_node(|address| {
        connect(address).topic("events", true).unwrap();
        for (version, answer_bytes) in
            [(0_u8, 4 + 4 + 8 + 4 + 14), (1, 4 + 4 + 8 + 4 + 14 + 4), (2, 4 + 4 + 8 + 4 + 22 + 4)]
        {
            let mut frame = vec![0, 0, 0, version, 0, 0, 0, 5, 0xff, 0xff];
            frame.extend_from_slice(&[0xff, 0xff, 0, 0, 1, 0, 0, 0, 0, 1, 0, 6]);
            frame.extend_from_slice(b"events");
            frame.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 9, 9]);
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(&u32::try_from(frame.len()).unwrap().to_be_bytes()).unwrap();
            stream.write_all(&frame).unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
            assert_eq!(answer.len(), answer_bytes, "version {version}");
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer[24..26], 35_i16.to_be_bytes(), "version {version}: {answer:?}");
        }
    });
}

fn described(topic: &str) -> msg::describe_topic_partitions_request::TopicRequest {
    msg::describe_topic_partitions_request::TopicRequest::default().with_name(name(topic))
}

/// Everything there is to be told, so many partitions a request: `topic/partition`, and how many requests it took.
fn described_in_pieces(wire: &mut Connection, topics: &[&str], limit: i32) -> (Vec<String>, usize) {
    let (mut told, mut requests, mut cursor) = (Vec::new(), 0, None);
    loop {
        let request = msg::DescribeTopicPartitionsRequest::default()
            .with_topics(topics.iter().map(|topic| described(topic)).collect())
            .with_response_partition_limit(limit)
            .with_cursor(cursor.take());
        let answer: msg::DescribeTopicPartitionsResponse =
            wire.call(msg::ApiKey::DescribeTopicPartitions, 0, &request).unwrap();
        requests += 1;
        for topic in &answer.topics {
            let name = topic.name.as_ref().unwrap();
            if topic.error_code != 0 {
                told.push(format!("{} error {}", **name, topic.error_code));
            }
            for partition in &topic.partitions {
                assert_eq!((partition.error_code, partition.leader_id.0), (0, 1));
                assert_eq!(
                    (&partition.replica_nodes[..], &partition.isr_nodes[..]),
                    (&[BrokerId(1)][..], &[BrokerId(1)][..])
                );
                // Null would be allowed; Kafka's own admin client fails on it.
                let none = Some(Vec::new());
                assert_eq!((&partition.eligible_leader_replicas, &partition.last_known_elr), (&none, &none));
                told.push(format!("{}/{}", **name, partition.partition_index));
            }
        }
        let Some(next) = answer.next_cursor else { return (told, requests) };
        cursor = Some(
            msg::describe_topic_partitions_request::Cursor::default()
                .with_topic_name(next.topic_name)
                .with_partition_index(next.partition_index),
        );
    }
}

#[test]
fn topics_are_described_a_few_partitions_at_a_time() {
    with_node(|address| {
        let mut wire = connect(address);
        for (topic, partitions) in [("a", 3), ("b", 1), ("c", 4)] {
            let spec =
                client::TopicSpec { name: topic.to_owned(), partitions: Some(partitions), config: Default::default() };
            wire.create_topic(&spec).unwrap();
        }
        let all = ["a/0", "a/1", "a/2", "b/0", "c/0", "c/1", "c/2", "c/3"];
        for (limit, requests) in [(1, 8), (2, 4), (3, 3), (4, 2), (100, 1), (i32::MAX, 1)] {
            // The order of the question does not matter, and who is named twice is told once.
            let told = described_in_pieces(&mut wire, &["c", "a", "b", "a"], limit);
            assert_eq!(told, (all.map(str::to_owned).to_vec(), requests), "limit {limit}");
        }
        let (told, _) = described_in_pieces(&mut wire, &[], 2);
        let own: Vec<&String> = told.iter().filter(|told| !told.starts_with('_')).collect();
        assert_eq!(own, all);
        let (told, _) = described_in_pieces(&mut wire, &["a", "nowhere", "not a name"], 2);
        let unknown = (ErrorCode::UnknownTopicOrPartition.number(), ErrorCode::InvalidTopic.number());
        let errors = [format!("not a name error {}", unknown.1), format!("nowhere error {}", unknown.0)];
        assert_eq!(told[..3], all[..3]);
        assert_eq!(told[3..], errors);
    });
}
