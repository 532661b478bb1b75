use super::*;

const PLACE: Place = Place { offset: Offset(0x0102), index: LogIndex(0x0304) };

#[test]
fn a_note_has_the_bytes_that_were_drawn() {
    let note = Note::encode(NoteKind::Membership, PLACE, Term(7), b"ab");
    let mut drawn = Vec::new();
    drawn.extend([0, 0, 0, 0, 0, 0, 1, 2]); // offset
    drawn.extend([0, 0, 0, 37]); // length
    drawn.extend([0, 0, 0, 7]); // term
    drawn.extend([0x4e]);
    drawn.extend(crc32c(&note[21..]).to_be_bytes());
    drawn.extend([1, 2]); // version, kind
    drawn.extend([0, 0, 0, 0, 0, 0, 1, 2]); // offset
    drawn.extend([0, 0, 0, 0, 0, 0, 3, 4]); // index
    drawn.extend([0, 0, 0, 0, 0, 0, 0, 7]); // term
    drawn.extend(b"ab");
    assert_eq!(note[..], drawn);
    assert_eq!(crc32c(&note[21..]), 0xcbc6_05a4);
    let Ok(Frame::Note(read)) = Frame::check(&note) else { panic!("not a note") };
    assert_eq!(
        (read.kind, read.offset, read.index, read.term),
        (NoteKind::Membership, PLACE.offset, PLACE.index, Term(7))
    );
    assert_eq!(read.payload(&note), b"ab");
    assert_eq!(Frame::peek_size(&note[..PEEK_BYTES]), Ok(note.len()));
}

#[test]
fn no_flipped_bit_of_a_note_passes_for_one_that_belongs_there() {
    let note = Note::encode(NoteKind::Empty, PLACE, Term(7), b"");
    for bit in 0..note.len() * 8 {
        let mut bytes = note.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let follows = Frame::check(&bytes).and_then(|frame| frame.follow(PLACE, Term(7)));
        // The leader epoch is under no checksum and says the same as the term.
        assert!(follows.is_err() || (12..16).contains(&(bit / 8)), "bit {bit}: {follows:?}");
    }
    for len in 0..note.len() {
        assert!(Frame::check(&note[..len]).is_err());
    }
}

#[test]
fn a_frame_belongs_to_one_place_only() {
    let note = Frame::check(&Note::encode(NoteKind::Empty, PLACE, Term(7), b"")).unwrap();
    let next = Place { offset: PLACE.offset, index: PLACE.index.next() };
    assert_eq!(note.follow(PLACE, Term(7)), Ok(next));
    assert!(note.follow(PLACE, Term(8)).is_err());
    assert!(note.follow(next, Term(7)).is_err());
    assert!(note.follow(Place { offset: Offset(1), ..PLACE }, Term(7)).is_err());
}

#[test]
fn lengths_are_bounded_before_they_are_believed() {
    let mut bytes = Note::encode(NoteKind::Empty, PLACE, Term(7), b"").to_vec();
    for length in [0_u32, 34, u32::try_from(NOTE_BYTES_MAX).unwrap() + 36, u32::MAX] {
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        assert!(matches!(Frame::peek_size(&bytes), Err(FrameError::Batch(BatchError::Length(_)))), "{length}");
    }
    bytes[16] = 1;
    assert!(matches!(Frame::check(&bytes), Err(FrameError::Batch(_))));
}
