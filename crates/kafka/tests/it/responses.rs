//! Produce and Fetch answers are written by hand; the generated decoder must read them in every version.

use bytes::{Buf, Bytes};
use kafka::fetch::{AbortedTransaction, FetchedPartition, FetchedTopic, TopicRef};
use kafka::produce::{ProducedPartition, ProducedTopic};
use kafka::{
    ApiKey, ErrorCode, FetchResponse, LeaderHint, NodeEndpoint, ProduceResponse, RequestHeader, Response, msg,
};
use kafka_protocol::protocol::Decodable;
use uuid::Uuid;

fn encode(response: Response, api: ApiKey, version: i16) -> (Vec<Bytes>, Bytes) {
    let header = RequestHeader { api, version, correlation_id: 9, client_id: None };
    let chunks = response.encode(&header).unwrap();
    let mut bytes = Bytes::from(chunks.concat());
    assert_eq!(usize::try_from(bytes.get_i32()).unwrap(), bytes.remaining());
    assert_eq!(bytes.get_i32(), 9);
    if api.is_flexible(version) {
        assert_eq!(bytes.get_u8(), 0);
    }
    (chunks, bytes)
}

fn endpoints() -> Vec<NodeEndpoint> {
    let endpoint = |node, host: &str, port, rack: Option<&str>| NodeEndpoint {
        node,
        host: host.to_owned(),
        port,
        rack: rack.map(str::to_owned),
    };
    vec![endpoint(7, "a", 9092, Some("east")), endpoint(8, "b", 9093, None)]
}

#[test]
fn produce_answers_are_read_back() {
    for version in 0..=11 {
        let good = ProducedPartition {
            index: 1,
            error: ErrorCode::None,
            base_offset: 500,
            log_append_time_ms: -1,
            log_start_offset: 3,
            error_message: None,
            leader: None,
        };
        let bad = ProducedPartition::refused(2, ErrorCode::MessageTooLarge, Some("too large".to_owned()));
        let mut elsewhere = ProducedPartition::refused(3, ErrorCode::NotLeaderOrFollower, None);
        elsewhere.leader = Some(LeaderHint { node: 7, epoch: 40 });
        let topic = ProducedTopic { name: "events".to_owned(), partitions: vec![good, bad, elsewhere] };
        let response = ProduceResponse { topics: vec![topic], throttle_time_ms: 0, endpoints: endpoints() };
        let (_, mut body) = encode(Response::Produce(response), ApiKey::Produce, version);
        if version < 3 {
            let expected =
                4 + 2 + 6 + 4 + 3 * (4 + 2 + 8 + if version >= 2 { 8 } else { 0 }) + if version >= 1 { 4 } else { 0 };
            assert_eq!(body.len(), expected, "version {version}");
            continue;
        }
        let read = msg::ProduceResponse::decode(&mut body, version).unwrap();
        assert!(body.is_empty());
        let partitions = &read.responses[0].partition_responses;
        assert_eq!((partitions[0].base_offset, partitions[0].error_code), (500, 0));
        assert_eq!((partitions[1].index, partitions[1].error_code), (2, 10));
        if version >= 8 {
            assert_eq!(partitions[1].error_message.as_deref(), Some("too large"));
        }
        let hint = &partitions[2].current_leader;
        if version < 10 {
            assert_eq!((hint.leader_id.0, read.node_endpoints.len()), (-1, 0));
            continue;
        }
        assert_eq!((hint.leader_id.0, hint.leader_epoch), (7, 40));
        assert_eq!(partitions[0].current_leader.leader_id.0, -1);
        let told = read.node_endpoints.iter().map(|at| (at.node_id.0, &*at.host, at.port, at.rack.as_deref()));
        assert_eq!(told.collect::<Vec<_>>(), [(7, "a", 9092, Some("east")), (8, "b", 9093, None)]);
    }
}

#[test]
fn fetch_answers_are_read_back_and_large_records_are_not_copied() {
    let records = Bytes::from(vec![7_u8; 100_000]);
    for version in 4..=17 {
        let full = FetchedPartition {
            index: 0,
            error: ErrorCode::None,
            high_watermark: 10,
            last_stable_offset: 9,
            log_start_offset: 2,
            aborted: vec![AbortedTransaction { producer_id: 4000, first_offset: 6 }],
            records: records.clone(),
            preferred_read_replica: 3,
            leader: None,
        };
        let empty = FetchedPartition::refused(1, ErrorCode::OffsetOutOfRange);
        let mut elsewhere = FetchedPartition::refused(2, ErrorCode::NotLeaderOrFollower);
        elsewhere.leader = Some(LeaderHint { node: 8, epoch: 5 });
        let id = Uuid::from_u128(77);
        let topic = if version >= 13 { TopicRef::Id(id) } else { TopicRef::Name("events".to_owned()) };
        let topic = FetchedTopic { topic, partitions: vec![full, empty, elsewhere] };
        let response =
            FetchResponse { throttle_time_ms: 0, error: ErrorCode::None, topics: vec![topic], endpoints: endpoints() };
        let (chunks, mut body) = encode(Response::Fetch(response), ApiKey::Fetch, version);
        assert!(chunks.iter().any(|chunk| chunk.as_ptr() == records.as_ptr()), "the records were copied");
        let read = msg::FetchResponse::decode(&mut body, version).unwrap();
        assert!(body.is_empty());
        assert_eq!(read.session_id, 0);
        let topic = &read.responses[0];
        if version >= 13 {
            assert_eq!(topic.topic_id, id);
        } else {
            assert_eq!(&**topic.topic, "events");
        }
        assert_eq!(topic.partitions[0].records.as_ref(), Some(&records));
        assert_eq!((topic.partitions[0].high_watermark, topic.partitions[0].last_stable_offset), (10, 9));
        let aborted = topic.partitions[0].aborted_transactions.as_deref().unwrap();
        assert_eq!(aborted.iter().map(|one| (one.producer_id.0, one.first_offset)).collect::<Vec<_>>(), [(4000, 6)]);
        assert_eq!((topic.partitions[1].error_code, topic.partitions[1].high_watermark), (1, -1));
        assert_eq!(topic.partitions[1].records.as_deref(), Some(&b""[..]));
        let preferred: Vec<i32> = topic.partitions.iter().map(|part| part.preferred_read_replica.0).collect();
        assert_eq!(preferred, if version >= 11 { [3, -1, -1] } else { [-1, -1, -1] });
        let hint = &topic.partitions[2].current_leader;
        assert_eq!((hint.leader_id.0, hint.leader_epoch), if version >= 12 { (8, 5) } else { (-1, -1) });
        let told: Vec<_> = read.node_endpoints.iter().map(|at| (at.node_id.0, &*at.host, at.port)).collect();
        assert_eq!(told, if version >= 16 { vec![(7, "a", 9092), (8, "b", 9093)] } else { Vec::new() });
    }
}
