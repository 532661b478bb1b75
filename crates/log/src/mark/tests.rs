use base::disk::memory::MemDisk;

use super::*;

const MARK: Mark = Mark {
    sequence: 3,
    flushed_index: LogIndex(4),
    flushed_offset: Offset(5),
    start: Offset(6),
    trimmed_index: LogIndex(7),
    trimmed_term: Term(8),
    committed_index: LogIndex(3),
    committed_offset: Offset(4),
    seeded_index: LogIndex(9),
    repair_term: Term(10),
};

#[test]
fn a_slot_has_the_bytes_that_were_drawn() {
    let slot = MARK.encode();
    let mut drawn = b"SWMK\0\x02\0\0".to_vec();
    for number in [3, 4, 5, 6, 7, 8, 3, 4, 9, 10_u64] {
        drawn.extend(number.to_be_bytes());
    }
    drawn.extend([0; 4]);
    drawn.extend(crc32c(&drawn).to_be_bytes());
    assert_eq!(slot[..], drawn, "{:x?}", &slot[88..]);
    assert_eq!(Mark::decode(&slot), Some(MARK));
    for bit in 0..slot.len() * 8 {
        let mut bytes = slot;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Mark::decode(&bytes), None);
    }
}

/// A slot as the first version wrote it: whoever wrote it was alone, so what was durable was decided.
#[test]
fn a_slot_of_the_first_version_is_read() {
    let mut slot = b"SWMK\0\x01\0\0".to_vec();
    for number in 3..=8_u64 {
        slot.extend(number.to_be_bytes());
    }
    slot.extend([0; 4]);
    slot.extend(0xc083_52f4_u32.to_be_bytes());
    let expected = Mark {
        committed_index: LogIndex(4),
        committed_offset: Offset(5),
        seeded_index: LogIndex(0),
        repair_term: Term(0),
        ..MARK
    };
    assert_eq!(Mark::decode(&slot), Some(expected));
    slot.extend([7; 32]);
    assert_eq!(Mark::decode(&slot), Some(expected), "what an earlier slot left behind it does not count");
}

#[test]
fn the_newer_of_two_slots_counts_and_either_will_do() {
    let disk = MemDisk::new(1, 1 << 20);
    disk.create_dir_all("d").unwrap();
    let file = Mark::NEW.create(&disk, "d").unwrap();
    assert_eq!(Mark::read(file.as_ref()), Ok(Some((Mark::NEW, Slot::A))));
    MARK.write(file.as_ref(), Slot::B).unwrap();
    assert_eq!(Mark::read(file.as_ref()), Ok(Some((MARK, Slot::B))));
    let next = Mark { sequence: 4, start: Offset(9), ..MARK };
    next.write(file.as_ref(), Slot::A).unwrap();
    assert_eq!(Mark::read(file.as_ref()), Ok(Some((next, Slot::A))));
    file.write_at(Slot::A.position(), &[0; 64]).unwrap();
    assert_eq!(Mark::read(file.as_ref()), Ok(Some((MARK, Slot::B))));
    file.write_at(Slot::B.position(), b"torn").unwrap();
    assert_eq!(Mark::read(file.as_ref()), Ok(None));
    assert_eq!(file.len_bytes(), 4192);
}
