//! Frames that real clients sent, kept as they came over the wire.

use bytes::Bytes;
use kafka::{ApiKey, Request, parse};

const REQUESTS: &str = include_str!("../../testdata/requests.txt");

fn requests() -> impl Iterator<Item = (&'static str, i16, i16, Bytes)> {
    REQUESTS.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap();
        let (client, key, version) = (word(), word().parse().unwrap(), word().parse().unwrap());
        let digits = word().as_bytes().chunks(2);
        let bytes = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        (client, key, version, bytes)
    })
}

#[test]
fn every_request_of_a_real_client_is_understood() {
    let mut count = 0;
    for (client, key, version, bytes) in requests() {
        let (header, _) = parse(&bytes).unwrap_or_else(|error| panic!("{client} {key} v{version}: {error}"));
        assert_eq!((header.api.number(), header.version), (key, version));
        assert!(header.client_id.is_some(), "{client} {key} v{version} names itself");
        count += 1;
    }
    assert!(count >= 50, "only {count} requests are kept");
}

#[test]
fn the_records_of_real_producers_are_batches_that_decode() {
    for (client, key, version, bytes) in requests() {
        let Ok((_, Request::Produce(request))) = parse(&bytes) else { continue };
        assert_eq!(key, ApiKey::Produce.number());
        let records = request.topics[0].partitions[0].records.as_ref().unwrap();
        let decoded = base::records::decode(records).unwrap_or_else(|error| panic!("{client} v{version}: {error}"));
        let record = decoded.iter().next().unwrap().unwrap();
        assert!(record.value.unwrap().starts_with(b"v"), "{client} v{version}");
    }
}

#[test]
fn what_they_ask_for_is_what_is_read() {
    let mut seen = 0;
    for (client, _, version, bytes) in requests() {
        let at = format!("{client} v{version}");
        match parse(&bytes).unwrap().1 {
            Request::Fetch(request) => {
                assert!(request.max_bytes > 0 && request.replica_id < 0, "{at}");
                assert_eq!(request.session_id, 0, "{at}");
                seen += 1;
            }
            Request::JoinGroup(request) => {
                assert!(request.group_id.starts_with("golden"), "{at}");
                assert_eq!(&*request.protocol_type, "consumer", "{at}");
                assert!(!request.protocols.is_empty(), "{at}");
                seen += 1;
            }
            Request::OffsetCommit(request) => {
                let partition = &request.topics[0].partitions[0];
                assert!(request.topics[0].name.starts_with("golden") && partition.committed_offset >= 0, "{at}");
                seen += 1;
            }
            Request::InitProducerId(request) => {
                assert!(request.transactional_id.is_none(), "{at}");
                seen += 1;
            }
            _ => {}
        }
    }
    assert!(seen >= 12, "only {seen} of them were looked at");
}
