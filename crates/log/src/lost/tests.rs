use super::*;

fn batch(at: i64, acked: Acked, position: u64) -> LostBatch {
    LostBatch {
        term: Term(3),
        base_offset: Offset(at),
        next_offset: Offset(at + 2),
        records: 2,
        producer: ProducerId(-1),
        acked,
        transactional: at % 2 == 1,
        state: if at == 12 { LostState::Returned } else { LostState::Kept },
        position,
        size_bytes: 70,
    }
}

fn found() -> LostFound {
    LostFound {
        path: "p/lost+found/x.lost".to_owned(),
        saved_at: Timestamp(1234),
        replaced_by: Term(5),
        dropped_batches: 7,
        size_bytes: 164 + 140,
        batches: vec![batch(10, Acked::Yes, 164), batch(12, Acked::Unknown, 234)],
    }
}

#[test]
fn a_manifest_is_read_as_it_was_written_and_any_flipped_bit_is_noticed() {
    let bytes = encode(&found());
    assert_eq!(bytes.len(), 164);
    assert_eq!(decode(&bytes, &found().path, found().size_bytes), Some(found()));
    assert_eq!(decode(&bytes, "x", found().size_bytes - 1), None, "a batch past the end");
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode(&damaged, "x", 1000), None);
    }
}

#[test]
fn what_was_acknowledged_is_known_by_range() {
    let header = |base: i64| {
        let mut builder = base::records::BatchBuilder::new(base::batch::Codec::None);
        builder.push(Timestamp(1), None, None, &[]);
        let mut bytes = builder.build().unwrap().to_vec();
        base::batch::assign(&mut bytes, Offset(base), Term(1));
        BatchHeader::check(&bytes).unwrap()
    };
    let mut acked = AckedRanges::unknown_below(Offset(5));
    acked.note(Offset(7), Offset(8));
    acked.note(Offset(8), Offset(9));
    acked.note(Offset(11), Offset(12));
    let told = |acked: &AckedRanges| (4..13).map(|at| acked.of(&header(at))).collect::<Vec<_>>();
    use Acked::{No, Unknown, Yes};
    assert_eq!(told(&acked), [Unknown, No, No, Yes, Yes, No, No, Yes, No]);
    acked.forget_below(Offset(9));
    assert_eq!(told(&acked), [Unknown, No, No, No, No, No, No, Yes, No]);
    acked.forget_from(Offset(4));
    assert_eq!(told(&acked), [No; 9]);
    for at in 0..2 * i64::try_from(ACKED_RANGES_MAX).unwrap() {
        acked.note(Offset(2 * at), Offset(2 * at + 1));
    }
    assert_eq!(acked.ranges.len(), ACKED_RANGES_MAX);
}
