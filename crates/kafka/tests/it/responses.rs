//! Produce and Fetch answers are written by hand; the generated decoder must read them in every version.

use bytes::{Buf, Bytes};
use kafka::fetch::{FetchedPartition, FetchedTopic, TopicRef};
use kafka::produce::{ProducedPartition, ProducedTopic};
use kafka::{ApiKey, ErrorCode, FetchResponse, ProduceResponse, RequestHeader, Response, msg};
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
        };
        let bad = ProducedPartition::refused(2, ErrorCode::MessageTooLarge, Some("too large".to_owned()));
        let topic = ProducedTopic { name: "events".to_owned(), partitions: vec![good, bad] };
        let response = ProduceResponse { topics: vec![topic], throttle_time_ms: 0 };
        let (_, mut body) = encode(Response::Produce(response), ApiKey::Produce, version);
        if version < 3 {
            let expected =
                4 + 2 + 6 + 4 + 2 * (4 + 2 + 8 + if version >= 2 { 8 } else { 0 }) + if version >= 1 { 4 } else { 0 };
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
            last_stable_offset: 10,
            log_start_offset: 2,
            records: records.clone(),
        };
        let empty = FetchedPartition::refused(1, ErrorCode::OffsetOutOfRange);
        let id = Uuid::from_u128(77);
        let topic = if version >= 13 { TopicRef::Id(id) } else { TopicRef::Name("events".to_owned()) };
        let topic = FetchedTopic { topic, partitions: vec![full, empty] };
        let response = FetchResponse { throttle_time_ms: 0, error: ErrorCode::None, topics: vec![topic] };
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
        assert_eq!((topic.partitions[0].high_watermark, topic.partitions[0].last_stable_offset), (10, 10));
        assert_eq!((topic.partitions[1].error_code, topic.partitions[1].high_watermark), (1, -1));
        assert_eq!(topic.partitions[1].records.as_deref(), Some(&b""[..]));
    }
}
