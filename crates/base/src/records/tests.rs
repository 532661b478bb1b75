use super::*;
use crate::batch::{self, Codec};
use crate::checksum::crc32c;
use crate::{ProducerEpoch, ProducerId, Term};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn sample(codec: Codec, count: i64) -> Bytes {
    let mut builder = BatchBuilder::new(codec).producer(ProducerId(7), ProducerEpoch(1), 5);
    for i in 0..count {
        let value = format!("{{\"n\":{i},\"text\":\"the same words again and again\"}}");
        let key = i.to_string();
        let headers: [(&str, Option<&[u8]>); 3] = [("a", Some(b"1")), ("a", None), ("b", Some(b""))];
        builder.push(Timestamp(1_000 - i), (i % 2 == 0).then_some(key.as_bytes()), Some(value.as_bytes()), &headers);
    }
    builder.build().unwrap()
}

/// Changes a batch and repairs its checksum, so that the change itself is what is met.
fn forge(batch: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = batch.to_vec();
    change(&mut bytes);
    let length = i32::try_from(bytes.len() - batch::PREFIX_BYTES).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn with_body(codec: Codec, count: i32, body: &[u8]) -> Vec<u8> {
    forge(&sample(Codec::None, 1), |bytes| {
        bytes.truncate(HEADER_BYTES);
        bytes[21..23].copy_from_slice(&codec.attribute_bits().to_be_bytes());
        bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        bytes.extend_from_slice(body);
    })
}

fn read_all(batch: &[u8]) -> Result<usize, RecordError> {
    let decoded = decode(batch)?;
    let mut count = 0;
    for record in &decoded {
        let record = record?;
        assert_eq!(record.headers.iter().count(), record.headers.len());
        count += 1;
    }
    Ok(count)
}

#[test]
fn every_codec_gives_back_what_was_pushed() {
    for codec in CODECS {
        let mut bytes = sample(codec, 1000).to_vec();
        batch::assign(&mut bytes, Offset(500), Term(3));
        let bytes = Bytes::from(bytes);
        for decoded in [decode(&bytes).unwrap(), decode_shared(&bytes).unwrap()] {
            assert_eq!(decoded.header().codec, codec);
            assert_eq!(decoded.header().base_sequence, 5);
            assert_eq!(decoded.header().max_timestamp, Timestamp(1_000));
            let records: Vec<_> = decoded.iter().map(Result::unwrap).collect();
            assert_eq!(records.len(), 1000, "{codec:?}");
            let record = records[10];
            assert_eq!(record.offset, Offset(510));
            assert_eq!(record.timestamp, Timestamp(990));
            assert_eq!(record.key, Some(&b"10"[..]));
            assert!(record.value.unwrap().starts_with(b"{\"n\":10,"));
            assert_eq!(records[11].key, None);
            let headers: Vec<_> = record.headers.iter().collect();
            assert_eq!(headers.len(), 3);
            assert_eq!((headers[0].key, headers[0].value), (&b"a"[..], Some(&b"1"[..])));
            assert_eq!((headers[1].key, headers[1].value), (&b"a"[..], None));
            assert_eq!(record.headers.last("a").unwrap().value, None);
            assert_eq!(record.headers.last("c"), None);
        }
    }
}

#[test]
fn tombstones_and_empty_values_differ() {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(Timestamp(-5), Some(b"k"), None, &[]).push(Timestamp(9), Some(b""), Some(b""), &[]);
    assert_eq!(builder.record_count(), 2);
    let decoded = decode(&builder.build().unwrap()).unwrap();
    let records: Vec<_> = decoded.iter().map(Result::unwrap).collect();
    assert_eq!((records[0].value, records[0].timestamp), (None, Timestamp(-5)));
    assert_eq!((records[1].key, records[1].value), (Some(&b""[..]), Some(&b""[..])));
    assert!(records[0].headers.is_empty());
}

#[test]
fn log_append_time_replaces_the_producers_time() {
    let bytes = forge(&sample(Codec::None, 3), |bytes| {
        bytes[22] |= 0x08;
        bytes[35..43].copy_from_slice(&77_777_i64.to_be_bytes());
    });
    let decoded = decode(&bytes).unwrap();
    assert!(decoded.iter().all(|record| record.unwrap().timestamp == Timestamp(77_777)));
}

#[test]
fn an_empty_builder_refuses() {
    assert_eq!(BatchBuilder::new(Codec::Zstd).build(), Err(RecordError::Empty));
}

#[test]
fn snappy_is_read_with_and_without_xerial_framing() {
    let plain = sample(Codec::None, 50);
    let raw = snap::raw::Encoder::new().compress_vec(&plain[HEADER_BYTES..]).unwrap();
    assert_eq!(read_all(&with_body(Codec::Snappy, 50, &raw)), Ok(50));
    assert!(sample(Codec::Snappy, 1)[HEADER_BYTES..].starts_with(b"\x82SNAPPY\0"));
}

#[test]
fn lz4_frames_of_other_writers_are_read() {
    use std::io::Write;
    let plain = sample(Codec::None, 3000);
    let body = &plain[HEADER_BYTES..];
    let linked = lz4_flex::frame::FrameInfo::new()
        .block_mode(lz4_flex::frame::BlockMode::Linked)
        .block_size(lz4_flex::frame::BlockSize::Max64KB)
        .content_checksum(true)
        .block_checksums(true)
        .content_size(Some(body.len() as u64));
    let mut writer = lz4_flex::frame::FrameEncoder::with_frame_info(linked, Vec::new());
    writer.write_all(body).unwrap();
    let frame = writer.finish().unwrap();
    assert_eq!(read_all(&with_body(Codec::Lz4, 3000, &frame)), Ok(3000));

    let (first, second) = body.split_at(body.len() / 2);
    let mut frames = lz4_flex::frame::FrameEncoder::new(Vec::new());
    frames.write_all(first).unwrap();
    let mut two = frames.finish().unwrap();
    let mut frames = lz4_flex::frame::FrameEncoder::new(Vec::new());
    frames.write_all(second).unwrap();
    two.extend(frames.finish().unwrap());
    assert_eq!(read_all(&with_body(Codec::Lz4, 3000, &two)), Ok(3000));
}

#[test]
fn zstd_without_content_size_and_in_two_frames_is_read() {
    use std::io::Write;
    let plain = sample(Codec::None, 100);
    let (first, second) = plain[HEADER_BYTES..].split_at(100);
    let mut body = Vec::new();
    for part in [first, second] {
        let mut writer = zstd::stream::write::Encoder::new(&mut body, 3).unwrap();
        writer.write_all(part).unwrap();
        writer.flush().unwrap();
        writer.finish().unwrap();
    }
    assert_eq!(read_all(&with_body(Codec::Zstd, 100, &body)), Ok(100));
}

#[test]
fn gzip_members_one_after_another_are_read() {
    let plain = sample(Codec::None, 100);
    let (first, second) = plain[HEADER_BYTES..].split_at(100);
    let mut body = compress::compress(Codec::Gzip, first).unwrap();
    body.extend(compress::compress(Codec::Gzip, second).unwrap());
    assert_eq!(read_all(&with_body(Codec::Gzip, 100, &body)), Ok(100));
}

#[test]
fn a_compression_bomb_is_refused_at_the_bound() {
    let zeros = vec![0_u8; 4 << 20];
    for codec in CODECS {
        let body = compress::compress(codec, &zeros).unwrap();
        let limit = 1 << 20;
        let refused = compress::decompress_bounded(codec, &body, limit);
        assert_eq!(refused, Err(RecordError::TooLarge { limit }), "{codec:?}");
        assert_eq!(compress::decompress_bounded(codec, &body, zeros.len()).unwrap().len(), zeros.len(), "{codec:?}");
    }
}

#[test]
fn the_real_bound_stops_a_real_bomb() {
    use std::io::Write;
    let mut writer = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    let zeros = vec![0_u8; 1 << 20];
    for _ in 0..=(crate::limits::BATCH_DECOMPRESSED_BYTES_MAX >> 20) {
        writer.write_all(&zeros).unwrap();
    }
    let bomb = with_body(Codec::Zstd, 1, &writer.finish().unwrap());
    assert!(bomb.len() < 100_000);
    assert!(matches!(decode(&bomb), Err(RecordError::TooLarge { .. })));
}

#[test]
fn a_snappy_block_that_claims_gigabytes_allocates_nothing() {
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    assert!(matches!(read_all(&with_body(Codec::Snappy, 1, &claim)), Err(RecordError::Decompress { .. })));
}

#[test]
fn malformed_records_are_named() {
    // length, attributes, timestamp delta, offset delta, key, value, header count
    let good = [12, 0, 0, 0, 1, 1, 0];
    assert_eq!(read_all(&with_body(Codec::None, 1, &good)), Ok(1));
    let cases: [(&[u8], &str); 8] = [
        (&[13, 0, 0, 0, 1, 1, 0], "negative"),
        (&[14, 0, 0, 0, 1, 1, 0], "past the end"),
        (&[12, 0, 0, 2, 1, 1, 0], "its offset"),
        (&[12, 0, 0, 0, 3, 1, 0], "below -1"),
        (&[12, 0, 0, 0, 9, 1, 0], "below -1"),
        (&[12, 0, 0, 0, 1, 1, 1], "header count is negative"),
        (&[12, 0, 0, 0, 1, 1, 2], "more headers"),
        (&[14, 0, 0, 0, 1, 1, 0, 0], "left over"),
    ];
    for (body, what) in cases {
        let error = read_all(&with_body(Codec::None, 1, body)).unwrap_err();
        assert!(error.to_string().contains(what), "{body:?}: {error} should say {what}");
    }
    let long = [0xff_u8; 12];
    assert!(read_all(&with_body(Codec::None, 1, &long)).unwrap_err().to_string().contains("number"));
    assert_eq!(read_all(&with_body(Codec::None, 1, &[good, good].concat())), Err(RecordError::Trailing(7)));
    let too_few = read_all(&with_body(Codec::None, 2, &good));
    assert_eq!(too_few, Err(RecordError::CountTooHigh { count: 2, body_bytes: 7 }));
}

#[test]
fn a_changed_byte_is_found_by_the_checksum() {
    let mut bytes = sample(Codec::None, 3).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    assert!(matches!(decode(&bytes), Err(RecordError::Batch(BatchError::Checksum { .. }))));
}

/// Every cut and many flips of a batch, checksum repaired: an error or a result, never a panic.
#[test]
fn hostile_bodies_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for codec in CODECS {
        let batch = sample(codec, 8);
        for cut in HEADER_BYTES..batch.len() {
            let _ = read_all(&forge(&batch, |bytes| bytes.truncate(cut)));
        }
        for _ in 0..2000 {
            let _ = read_all(&forge(&batch, |bytes| {
                for _ in 0..=random() % 4 {
                    let at = 21 + usize::try_from(random()).unwrap() % (bytes.len() - 21);
                    bytes[at] = random().to_le_bytes()[0];
                }
            }));
        }
    }
}
