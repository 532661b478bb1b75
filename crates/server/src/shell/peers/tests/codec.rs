//! Greetings and frames as bytes.

use bytes::{Buf, Bytes, BytesMut};
use uuid::Uuid;

use super::super::frame::{self, Frame, FrameError, Pieces, Status};
use super::super::hello::{self, Greeting, HEADER_BYTES, Header, Hello, Refusal, RefusalCode};
use super::super::{CONTROL_FRAME_BYTES_MAX, Lane};
use super::{cluster, disk, key};
use base::NodeId;

fn decode(bytes: &[u8]) -> Result<Greeting, Refusal> {
    let header = Header::decode(bytes.first_chunk::<HEADER_BYTES>().expect("a header"))?;
    Greeting::decode(&header, &bytes[HEADER_BYTES..])
}

fn golden() -> Hello {
    Hello {
        versions: (1, 1),
        lane: Lane::Bulk,
        node: NodeId(2),
        to: NodeId(3),
        cluster: cluster(4),
        disk: disk(5),
        instance: Uuid::from_u128(6),
    }
}

#[test]
fn a_hello_has_the_bytes_that_were_drawn() {
    let bytes = Greeting::Hello(golden()).encode();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(&hex[..24], "535770656572 0d0a 01 00 4000".replace(' ', ""), "magic, kind, zero, 64 bytes");
    let body = "0100 0100 01 000000 02000000 03000000 00000000000000000000000000000004 \
                00000000000000000000000000000005 00000000000000000000000000000006";
    assert_eq!(&hex[32..], body.replace(' ', ""));
    assert_eq!(decode(&bytes), Ok(Greeting::Hello(golden())));
}

#[test]
fn a_longer_hello_of_a_newer_release_is_understood() {
    let mut bytes = Greeting::Hello(golden()).encode();
    bytes.extend_from_slice(b"what comes later");
    bytes[10] += 16;
    seal(&mut bytes);
    assert_eq!(decode(&bytes), Ok(Greeting::Hello(golden())));
}

#[test]
fn a_version_not_spoken_is_refused_with_both_ranges() {
    let refusal = hello::common_version((7, 9)).expect_err("too new");
    assert_eq!(refusal.code, RefusalCode::Version);
    assert!(refusal.text.contains("7 to 9") && refusal.text.contains("1 to 1"), "{refusal}");
    assert_eq!(hello::common_version((0, 9)), Ok(1), "the newest that both speak");
}

#[test]
fn every_flipped_bit_of_a_hello_is_noticed() {
    let good = Greeting::Hello(golden()).encode();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // A longer length is noticed when the connection ends.
        if bytes[10..12] == good[10..12] {
            decode(&bytes).expect_err("a flipped bit");
        }
    }
}

#[test]
fn every_short_hello_is_refused() {
    for length in 0..64 {
        let mut bytes = Greeting::Hello(golden()).encode();
        bytes.truncate(HEADER_BYTES + length);
        bytes[10] = u8::try_from(length).expect("small");
        seal(&mut bytes);
        decode(&bytes).expect_err("short");
    }
}

#[test]
fn a_refusals_text_is_bounded_and_harmless() {
    let text = format!("\u{1b}[2J{}", "ö".repeat(2000));
    let bytes = Greeting::Refusal(Refusal::new(RefusalCode::Cluster, text)).encode();
    assert!(bytes.len() <= HEADER_BYTES + 2 + 1024);
    let Ok(Greeting::Refusal(refusal)) = decode(&bytes) else { panic!("a refusal") };
    assert!(refusal.text.starts_with(" [2Jöö"), "{refusal}");
}

/// Makes the checksum right again.
fn seal(bytes: &mut [u8]) {
    let checksum = base::checksum::crc32c_append(base::checksum::crc32c(&bytes[..12]), &bytes[HEADER_BYTES..]);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
}

fn all_kinds() -> Vec<Frame> {
    vec![
        Frame::Group { group: key(9), message: Bytes::from_static(b"message") },
        Frame::Group { group: key(8), message: Bytes::from(vec![1; 100_000]) },
        Frame::Group { group: key(8), message: Bytes::new() },
        Frame::Request { id: u64::MAX, patience_ms: 5, kind: 200, body: Bytes::from_static(b"body") },
        Frame::Answer { id: 1, status: Status::Done, body: Bytes::from(vec![2; 9000]) },
        Frame::Answer { id: 1, status: Status::TooLarge, body: Bytes::new() },
        Frame::Ping(42),
        Frame::Pong(43),
        Frame::Cluster(Uuid::from_u128(7)),
        Frame::Farewell("good night".to_owned()),
    ]
}

fn bytes_of(frames: Vec<Frame>) -> Vec<u8> {
    let mut pieces = Pieces::default();
    frames.into_iter().for_each(|frame| pieces.put(frame));
    pieces.finish();
    let mut bytes = Vec::new();
    while pieces.has_remaining() {
        // In odd steps, as a socket takes them.
        let step = pieces.chunk().len().min(777);
        bytes.extend_from_slice(&pieces.chunk()[..step]);
        pieces.advance(step);
    }
    bytes
}

#[test]
fn frames_arrive_as_they_were_however_they_are_cut() {
    let bytes = bytes_of(all_kinds());
    for step in [1, 7, 64, 5000, bytes.len()] {
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for part in bytes.chunks(step) {
            buffer.extend_from_slice(part);
            while let Some(frame) = frame::next(&mut buffer, CONTROL_FRAME_BYTES_MAX).expect("good frames") {
                frames.push(frame);
            }
        }
        assert_eq!(frames, all_kinds());
    }
}

#[test]
fn a_ping_has_the_bytes_that_were_drawn() {
    let bytes = bytes_of(vec![Frame::Ping(1)]);
    let checksum = base::checksum::crc32c(&[8, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0]).to_le_bytes();
    assert_eq!(bytes, [&[8, 0, 0, 0, 4], &checksum[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat());
}

#[test]
fn a_lying_length_takes_no_memory() {
    let mut buffer = BytesMut::from(&[255, 255, 255, 255, 1, 0, 0, 0, 0][..]);
    let error = frame::next(&mut buffer, 64 << 20).expect_err("4 GiB");
    assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
    let length = u32::try_from(64 << 20).expect("fits").to_le_bytes();
    let mut buffer = BytesMut::from(&[&length[..], &[1, 0, 0, 0, 0]].concat()[..]);
    assert_eq!(frame::next(&mut buffer, 64 << 20), Ok(None));
    assert!(buffer.capacity() <= 3 << 20, "{} bytes taken for a length", buffer.capacity());
}

#[test]
fn every_flipped_bit_of_a_frame_is_noticed() {
    let good = bytes_of(vec![Frame::Group { group: key(9), message: Bytes::from_static(b"message") }]);
    for bit in 0..good.len() * 8 {
        let mut bytes = BytesMut::from(&good[..]);
        bytes[bit / 8] ^= 1 << (bit % 8);
        // A larger length waits for bytes that do not come.
        if let Ok(Some(frame)) = frame::next(&mut bytes, CONTROL_FRAME_BYTES_MAX) {
            panic!("bit {bit} made {frame:?}");
        }
    }
}

#[test]
fn short_payloads_and_unknown_kinds_are_refused() {
    for kind in 0..=255u8 {
        let payload = [0u8; 3];
        let start = [3, 0, 0, 0, kind];
        let checksum = base::checksum::crc32c(&[&start[..], &payload].concat()).to_le_bytes();
        let mut bytes = BytesMut::from(&[&start[..], &checksum, &payload].concat()[..]);
        let result = frame::next(&mut bytes, CONTROL_FRAME_BYTES_MAX);
        assert_eq!(result.is_ok(), kind == 7, "kind {kind}: only a farewell may be so short");
    }
}
