use base::batch::Codec;

use super::*;

const PLACE: SnapshotPlace = SnapshotPlace { next_offset: Offset(9), last_index: LogIndex(8) };

fn header(producer: i64, sequence: i32, count: i32, offset: i64) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(offset),
        size_bytes: 100,
        leader_epoch: 0,
        crc: 0,
        attributes: 0,
        codec: Codec::None,
        last_offset_delta: count - 1,
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(2),
        base_sequence: sequence,
        record_count: count,
    }
}

#[test]
fn the_file_has_the_bytes_that_were_drawn() {
    // As earlier versions wrote it.
    let mut producers = Producers::of_the_rest(true);
    producers.record(&header(1, 5, 3, 6), None, Timestamp(70), 10);
    let bytes = producers.encode(PLACE);
    let mut drawn = b"SWPR\0\x01\0\0".to_vec();
    drawn.extend(9_u64.to_be_bytes());
    drawn.extend(8_u64.to_be_bytes());
    drawn.extend([0, 0, 0, 1]);
    drawn.extend(1_u64.to_be_bytes());
    drawn.extend([0, 2, 1, 0]); // epoch, batches
    drawn.extend(70_u64.to_be_bytes());
    drawn.extend([0, 0, 0, 5, 0, 0, 0, 7]); // sequences
    drawn.extend(6_u64.to_be_bytes());
    drawn.extend([0, 0, 0, 2]); // last offset delta
    drawn.extend(0x1acf_3e43_u32.to_be_bytes());
    assert_eq!(bytes[..], drawn, "{bytes:x?}");
    assert_eq!(Producers::decode(&bytes), Some((producers, PLACE)));
    assert_eq!(Producers::default().encode(PLACE)[6..8], [0, 1], "nobody was forgotten");
}

#[test]
fn what_is_damaged_is_no_snapshot() {
    let mut producers = Producers::default();
    for at in 0..20 {
        producers.record(&header(at % 3, i32::try_from(at).unwrap(), 1, at), None, Timestamp(at), 10);
    }
    let bytes = producers.encode(PLACE);
    assert_eq!(Producers::decode(&bytes), Some((producers, PLACE)));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Producers::decode(&flipped).is_none());
    }
    for len in 0..bytes.len() {
        assert!(Producers::decode(&bytes[..len]).is_none());
    }
}

#[test]
fn the_number_is_bounded_by_forgetting_the_silent() {
    let mut producers = Producers::default();
    for at in 0..1000 {
        producers.record(&header(at, 0, 1, at), None, Timestamp(at), 64);
        assert!(producers.by_id.len() <= 64);
        assert!(producers.by_id.contains_key(&ProducerId(at)));
    }
    assert!(producers.by_id.keys().all(|id| id.0 >= 1000 - 72));
    producers.record(&header(5000, 0, 1, 0), None, Timestamp(-1), 1);
    assert_eq!(
        producers.check(&header(5000, 0, 1, 0)),
        Ok(Verdict::Duplicate { base_offset: Offset(0), next_offset: Offset(1) })
    );
}

/// Two batches on their way while a leader is elected: the first is refused, the second must not take its place.
#[test]
fn an_unknown_producer_begins_with_zero_until_one_was_forgotten() {
    let mut producers = Producers::default();
    let refused = producers.check(&header(7, 3, 2, 0));
    assert!(matches!(refused, Err(AppendError::OutOfOrderSequence { expected: 0, found: 3, .. })), "{refused:?}");
    assert_eq!(producers.check(&header(7, 0, 2, 0)), Ok(Verdict::New));
    producers.record(&header(7, 0, 2, 0), None, Timestamp(5), 10);
    let (kept, _) = Producers::decode(&producers.encode(PLACE)).unwrap();
    assert!(kept.check(&header(8, 1, 1, 2)).is_err(), "a restart forgets nobody");
    producers.expire(Timestamp(4), 0);
    assert!(producers.check(&header(8, 1, 1, 2)).is_err(), "nobody was silent for so long");
    producers.expire(Timestamp(100), 10);
    assert_eq!(producers.check(&header(7, 2, 1, 2)), Ok(Verdict::New), "it may be the one that was forgotten");
    let (forgot, _) = Producers::decode(&producers.encode(PLACE)).unwrap();
    assert_eq!(forgot.check(&header(7, 2, 1, 2)), Ok(Verdict::New));
    assert_eq!(Producers::of_the_rest(true).check(&header(9, 4, 1, 2)), Ok(Verdict::New));
}

/// A file of an earlier version does not say whether anyone was forgotten.
#[test]
fn an_older_file_may_have_forgotten_someone() {
    let mut bytes = Producers::default().encode(PLACE).to_vec();
    bytes[6..8].copy_from_slice(&[0, 0]);
    let end = bytes.len() - 4;
    let crc = crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_be_bytes());
    let (producers, _) = Producers::decode(&bytes).unwrap();
    assert_eq!(producers.check(&header(7, 3, 2, 0)), Ok(Verdict::New));
}
