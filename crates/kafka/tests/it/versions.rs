//! ApiVersions and its quirks: the first thing any client sends.

use bytes::{BufMut, Bytes, BytesMut};
use kafka::api::APIS;
use kafka::frame::{FrameError, check_head, check_length};
use kafka::response::api_versions;
use kafka::{ApiKey, ErrorCode, Request, msg, parse};
use kafka_protocol::protocol::Decodable;

fn frame(key: i16, version: i16, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(key);
    out.put_i16(version);
    out.put_i32(1);
    out.put_i16(-1);
    out.put_slice(body);
    out.freeze()
}

/// `ApiVersions` version 3 as librdkafka 2 sends it: header v2, whose client id is not compact.
#[test]
fn librdkafkas_first_request_is_understood() {
    let mut body = vec![0, 18, 0, 3, 0, 0, 0, 1, 0, 7];
    body.extend_from_slice(b"rdkafka\0\x0blibrdkafka\x062.5.0\0");
    let (header, request) = parse(&body.into()).unwrap();
    assert_eq!(header.client_id.as_deref(), Some("rdkafka"));
    let Request::ApiVersions(request) = request else { panic!("{request:?}") };
    assert_eq!(&*request.client_software_name, "librdkafka");
    assert_eq!(&*request.client_software_version, "2.5.0");
}

/// Metadata version 12 for all topics as librdkafka 2.16 sends it: a null list, and then three bytes of a placeholder it forgot to
/// take back. Kafka ignores what follows a body; so must we, or `list_topics` never works.
#[test]
fn librdkafkas_request_for_all_topics_is_understood() {
    let bytes = hex("0003000c00000003000772646b61666b610000000000010000");
    let (_, request) = parse(&bytes).unwrap();
    let Request::Metadata(request) = request else { panic!("{request:?}") };
    assert_eq!(request.topics, None);
}

fn hex(text: &str) -> Bytes {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn the_response_header_never_has_tags_and_the_body_lists_every_row() {
    for version in 0..=4 {
        let (header, _) =
            parse(&frame(18, version, if version >= 3 { &[0, 2, b'a', 2, b'b', 0] } else { &[] })).unwrap();
        let bytes: Bytes = api_versions(ErrorCode::None).encode(&header).unwrap().concat().into();
        let mut body = bytes.slice(8..);
        let response = msg::ApiVersionsResponse::decode(&mut body, version).unwrap();
        assert!(body.is_empty(), "version {version} leaves {} bytes", body.len());
        assert_eq!(response.api_keys.len(), APIS.len());
    }
}

#[test]
fn an_unknown_version_is_answered_in_version_zero_with_the_ranges() {
    let (header, request) = parse(&frame(18, 99, b"\0whatever the future holds")).unwrap();
    assert_eq!(request, Request::ApiVersionsOfUnknownVersion);
    let bytes: Bytes = api_versions(ErrorCode::UnsupportedVersion).encode(&header).unwrap().concat().into();
    let response = msg::ApiVersionsResponse::decode(&mut bytes.slice(8..), 0).unwrap();
    assert_eq!(response.error_code, 35);
    assert!(response.api_keys.iter().any(|row| row.api_key == 18 && row.max_version == 4));
}

/// KAFKA-18659: without this librdkafka sends everything uncompressed and says nothing.
#[test]
fn produce_is_advertised_from_version_zero() {
    let row = ApiKey::Produce.api();
    assert_eq!((row.advertised_min, row.max), (0, 11));
}

#[test]
fn what_is_not_spoken_is_named() {
    assert_eq!(parse(&frame(71, 0, b"")), Err(FrameError::UnknownApi(71)));
    let error = parse(&frame(3, 13, b"\0")).unwrap_err();
    assert_eq!(error.to_string(), "Metadata version 13 is not spoken here; ApiVersions tells which are");
    assert!(parse(&frame(3, -1, b"")).is_err());
}

#[test]
fn frame_lengths_are_bounded_before_anything_is_read() {
    assert_eq!(check_length([0, 0, 1, 0]), Ok(256));
    for length in [-1, 0, 7, i32::MAX] {
        assert!(check_length(length.to_be_bytes()).is_err(), "{length}");
    }
    // "GET " as a length: an HTTP client on the wrong port.
    assert!(check_length(*b"GET ").unwrap_err().to_string().contains("Kafka client"));
    let large = 64 << 20;
    assert_eq!(check_head(large, [0, 0, 0, 9, 0, 0, 0, 0]), Ok(ApiKey::Produce));
    assert!(matches!(check_head(large, [0, 3, 0, 9, 0, 0, 0, 0]), Err(FrameError::Length { .. })));
    assert_eq!(check_head(100, [0x7f, 0xff, 0, 9, 0, 0, 0, 0]), Err(FrameError::UnknownApi(0x7fff)));
}

#[test]
fn error_codes_have_kafkas_numbers() {
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::of(code.number()), Some(*code));
    }
    assert_eq!(ErrorCode::of(35), Some(ErrorCode::UnsupportedVersion));
    assert_eq!(ErrorCode::of(1234), None);
    assert_eq!(ErrorCode::UnknownTopicId.number(), 100);
    assert_eq!(ErrorCode::InvalidTopic.to_string(), "INVALID_TOPIC_EXCEPTION");
}
