use base::ProducerId;

use super::*;
use crate::stable::Aborted;
use base::Term;

const NAME: FileName = FileName { base_offset: Offset(100), base_index: LogIndex(50), term: Term(3) };
const SUMMARY: Summary = Summary {
    bytes: 900,
    next_offset: Offset(130),
    next_index: LogIndex(60),
    max_timestamp: Timestamp(77),
    last_append: Timestamp(99),
};

fn entry(offset: u32, index: u32, position: u32, time: i64) -> IndexEntry {
    IndexEntry { offset, index, position, max_before: Timestamp(time) }
}

fn index() -> SparseIndex {
    let mut index = SparseIndex::default();
    for number in 1..9 {
        index.note(200, entry(number * 3, number, number * 100, i64::from(number) * 10));
    }
    index
}

#[test]
fn one_entry_a_step() {
    let expected = [entry(6, 2, 200, 20), entry(12, 4, 400, 40), entry(18, 6, 600, 60), entry(24, 8, 800, 80)];
    assert_eq!(index().entries, expected);
}

#[test]
fn it_says_where_to_look() {
    let index = index();
    assert_eq!(index.position_of_offset(5), (0, 0));
    assert_eq!(index.position_of_offset(6), (200, 6));
    assert_eq!(index.position_of_offset(1000), (800, 24));
    assert_eq!(index.before_offset(13), (400, Timestamp(40)));
    assert_eq!(index.before_offset(0), (0, Timestamp(-1)));
    assert_eq!(index.position_of_index(7), (600, 6));
    assert_eq!(index.position_of_time(Timestamp(20)), 0, "a batch at 20 may be before entry 2");
    assert_eq!(index.position_of_time(Timestamp(21)), 200);
}

#[test]
fn the_file_has_the_bytes_that_were_drawn() {
    let mut small = SparseIndex::default();
    small.note(1, entry(1, 2, 3, 4));
    let bytes = small.encode(NAME, SUMMARY, Some(&[]));
    let mut drawn = b"SWIX\0\x01\0\0".to_vec();
    for number in [100_u64, 50, 3, 900, 130, 60, 77, 99] {
        drawn.extend(number.to_be_bytes());
    }
    drawn.extend([0, 0, 0, 1]);
    drawn.extend(0x4ecf_40b2_u32.to_be_bytes());
    for number in [1_u32, 2, 3, 0, 0, 4] {
        drawn.extend(number.to_be_bytes());
    }
    drawn.extend(0xa0d4_f60d_u32.to_be_bytes());
    assert_eq!(bytes[..], drawn, "{bytes:x?}");
    let read = SparseIndex::decode(&bytes, NAME).unwrap();
    assert_eq!((read.index, read.summary, read.aborted), (small, SUMMARY, Some(Vec::new())));
}

#[test]
fn what_does_not_fit_is_no_index() {
    let one = |last| Aborted { producer: ProducerId(7), first: Offset(1), last: Offset(last), floor: Offset(2) };
    for aborted in [Some(vec![]), Some(vec![one(5)]), Some(vec![one(5), one(9)]), None] {
        damage_is_seen(&index().encode(NAME, SUMMARY, aborted.as_deref()), &aborted);
    }
    let bytes = index().encode(NAME, SUMMARY, Some(&[one(9), one(5)]));
    assert!(SparseIndex::decode(&bytes, NAME).is_none(), "out of order");
}

fn damage_is_seen(bytes: &[u8], aborted: &AbortedList) {
    assert_eq!(SparseIndex::decode(bytes, NAME).unwrap().aborted, *aborted);
    assert!(SparseIndex::decode(bytes, FileName { term: Term(4), ..NAME }).is_none());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // Bytes 6 and 7 are under the checksum as well.
        assert!(SparseIndex::decode(&flipped, NAME).is_none(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(SparseIndex::decode(&bytes[..len], NAME).is_none());
    }
}

#[test]
fn names_are_read_back() {
    let name = format!("{NAME}.log");
    assert_eq!(name, "00000000000000000100-00000000000000000050-0000000003.log");
    assert_eq!(FileName::parse(&name), Some(NAME));
    for bad in [
        "1-2-3.log",
        "x",
        "00000000000000000000-00000000000000000000-0000000001.log",
        "00000000000000000000-00000000000000000001-0000000000.log",
        "00000000000000000100-00000000000000000050-0000000003.idx",
        "+0000000000000000100-00000000000000000050-0000000003.log",
        "99999999999999999999-00000000000000000050-0000000003.log",
        "00000000000000000100-00000000000000000050-0000000003-1.log",
    ] {
        assert_eq!(FileName::parse(bad), None, "{bad}");
    }
}
