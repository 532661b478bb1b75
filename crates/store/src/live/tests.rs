use std::sync::Arc;

use super::*;
use crate::segment::tests::random_batch;

const P: PartitionIndex = PartitionIndex(0);

fn offsets(from: i64, to: i64) -> Range<Offset> {
    Offset(from)..Offset(to)
}

#[test]
fn small_chunks_are_merged_and_nothing_is_lost() {
    let mut live = LiveTable::new(Arc::new(TableDictionary::new()));
    let (mut all, mut at) = (Vec::new(), 0);
    for seed in 0..300 {
        let batch = random_batch(seed, 10, 50);
        live.push(P, offsets(at, at + 10), &batch, &[]).unwrap();
        all.push(batch);
        at += 10;
        assert!(live.snapshot().len() <= 12, "{} chunks", live.snapshot().len());
    }
    let mut from = Offset(0);
    for chunk in live.snapshot() {
        assert_eq!(chunk.offsets.start, from);
        from = chunk.offsets.end;
    }
    assert_eq!(live.rows(), 3_000);
    assert!(live.memory_bytes() > 0);
    let taken = live.take(P).unwrap();
    assert_eq!(taken.offsets, offsets(0, 3_000));
    assert_eq!(taken.rows().unwrap().unwrap(), concat(&all).unwrap().unwrap());
}

#[test]
fn taken_rows_stay_until_dropped_and_are_not_merged_with_later_ones() {
    let mut live = LiveTable::new(Arc::new(TableDictionary::new()));
    live.push(P, offsets(0, 10), &random_batch(1, 10, 5), &[]).unwrap();
    let taken = live.take(P).unwrap();
    live.push(P, offsets(10, 20), &random_batch(2, 10, 5), &[]).unwrap();
    live.push(P, offsets(20, 25), &random_batch(3, 0, 5), &[]).unwrap();
    assert_eq!(live.rows(), 20);
    assert_eq!(live.snapshot().len(), 2);
    live.drop_below(P, taken.offsets.end, None);
    assert_eq!(live.partition_rows(P), 10);
    let again = live.take(P).unwrap();
    assert_eq!(again.offsets, offsets(10, 25));
    live.drop_below(P, Offset(25), None);
    assert_eq!(live.rows(), 0);
    assert!(live.take(P).is_none());
    live.push(P, offsets(25, 30), &random_batch(3, 0, 5), &[]).unwrap();
    let nothing = live.take(P).unwrap();
    assert_eq!((nothing.row_count(), nothing.offsets.clone()), (0, offsets(25, 30)));
    assert!(nothing.rows().unwrap().is_none());
}

#[test]
fn a_gap_or_an_overlap_is_refused() {
    let mut live = LiveTable::new(Arc::new(TableDictionary::new()));
    let batch = random_batch(1, 10, 5);
    live.push(P, offsets(5, 15), &batch, &[]).unwrap();
    for from in [14, 16] {
        let error = live.push(P, offsets(from, 30), &batch, &[]).unwrap_err();
        assert!(matches!(error, LiveError::Gap { expected: Offset(15), .. }), "{error}");
    }
    live.push(PartitionIndex(1), offsets(100, 110), &batch, &[]).unwrap();
    assert_eq!(live.rows(), 20);
    live.forget(P);
    assert_eq!(live.rows(), 10);
}

#[test]
fn a_wider_schema_and_a_new_column_join_what_is_there() {
    let mut live = LiveTable::new(Arc::new(TableDictionary::new()));
    let batch = random_batch(1, 10, 5);
    let narrow = batch.project(&[0, 1, 4]).unwrap();
    live.push(P, offsets(0, 10), &narrow, &[]).unwrap();
    live.push(P, offsets(10, 20), &batch.project(&[0, 4, 6]).unwrap(), &[]).unwrap();
    assert_eq!(live.snapshot().len(), 1);
    let rows = live.take(P).unwrap().rows().unwrap().unwrap();
    assert_eq!(rows.num_rows(), 20);
    assert_eq!(rows.num_columns(), 4);
    assert_eq!(rows.column_by_name("word").unwrap().null_count(), 10 + narrow.column(1).null_count());
}

/// What another node sealed ends within chunks that were merged here.
#[test]
fn a_chunk_is_cut_where_another_node_ended() {
    let mut live = LiveTable::new(Arc::new(TableDictionary::new()));
    let mut all = Vec::new();
    for at in 0..8_i64 {
        let batch = random_batch(u64::try_from(at).unwrap(), 10, 50);
        let ends = [RowEnd { offset: Offset(at * 20 + 5), rows: 4 }, RowEnd { offset: Offset(at * 20 + 9), rows: 4 }];
        live.push(P, offsets(at * 20, at * 20 + 15), &batch, &ends).unwrap();
        live.push(P, offsets(at * 20 + 15, at * 20 + 20), &random_batch(1, 0, 5), &[]).unwrap();
        all.push(batch);
    }
    let whole = concat(&all).unwrap().unwrap();
    assert_eq!(live.snapshot().len(), 1, "everything is merged");
    // Row ends, offsets without rows, and the seams between pushes; then past the end.
    for (offset, rows) in [(5, 4), (7, 4), (20, 10), (38, 20), (40, 20), (65, 34), (149, 74), (155, 80)] {
        let straddling = live.straddling(P, Offset(offset));
        let rest = straddling.map(|chunk| chunk.after(Offset(offset), live.dictionary()).unwrap());
        live.drop_below(P, Offset(offset), rest);
        let left = live.take(P).unwrap();
        assert_eq!(left.offsets, offsets(offset, 160));
        assert_eq!(left.row_count(), 80 - rows, "cut at {offset}");
        if let Some(found) = left.rows().unwrap() {
            assert_eq!(found, whole.slice(rows, 80 - rows), "cut at {offset}");
        }
    }
    live.drop_below(P, Offset(200), None);
    assert_eq!((live.rows(), live.next_offset(P)), (0, Some(Offset(200))));
}

/// Another node takes the rows piece by piece: the same rows, cut at the same places, whatever the size of a piece.
#[test]
fn pieces_make_the_same_table_elsewhere() {
    let mut live = LiveTable::new(Arc::new(TableDictionary::new()));
    for at in 0..24_i64 {
        let batch = random_batch(u64::try_from(at).unwrap(), 10, 50);
        let ends = [RowEnd { offset: Offset(at * 20 + 5), rows: 4 }, RowEnd { offset: Offset(at * 20 + 9), rows: 4 }];
        live.push(P, offsets(at * 20, at * 20 + 15), &batch, &ends).unwrap();
        live.push(P, offsets(at * 20 + 15, at * 20 + 20), &random_batch(1, 0, 5), &[]).unwrap();
    }
    let rows = live.take(P).unwrap().rows().unwrap().unwrap();
    for rows_max in [1, 4, 7, 33, 1_000] {
        for begin in [0, 5, 20, 105] {
            let mut there = LiveTable::new(Arc::new(TableDictionary::new()));
            let mut at = Offset(begin);
            while let Some(chunk) = live.chunk_from(P, at) {
                let piece = chunk.piece(at, rows_max).unwrap();
                assert!(piece.to > at && piece.rows.num_rows() <= rows_max.max(10), "at {at} by {rows_max}");
                there.push(P, at..piece.to, &piece.rows, &piece.ends).unwrap();
                at = piece.to;
            }
            let taken = there.take(P).unwrap().rows().unwrap().unwrap();
            let skipped = rows.num_rows() - taken.num_rows();
            assert_eq!(taken, rows.slice(skipped, taken.num_rows()), "from {begin} by {rows_max}");
            for cut in [125, 127, 240, 349] {
                let rest = there.straddling(P, Offset(cut)).map(|chunk| chunk.after(Offset(cut), there.dictionary()));
                assert!(rest.is_none_or(|rest| rest.is_ok()), "cut at {cut}, from {begin} by {rows_max}");
            }
        }
    }
}

#[test]
fn a_chunk_is_not_cut_within_a_batch() {
    let mut live = LiveTable::new(Arc::new(TableDictionary::new()));
    let ends = [RowEnd { offset: Offset(10), rows: 6 }];
    live.push(P, offsets(0, 20), &random_batch(1, 12, 5), &ends).unwrap();
    for within in [3, 15] {
        let chunk = live.straddling(P, Offset(within)).unwrap();
        let error = chunk.after(Offset(within), live.dictionary()).unwrap_err();
        assert!(matches!(error, LiveError::NoEnd { offset, .. } if offset == Offset(within)), "{error}");
    }
}

#[test]
fn a_new_generation_has_the_same_rows() {
    let mut live = LiveTable::new(Arc::new(TableDictionary::new()));
    live.push(P, offsets(0, 100), &random_batch(1, 100, 50), &[]).unwrap();
    let before = live.take(P).unwrap().rows().unwrap().unwrap();
    live.rebase(Arc::new(TableDictionary::new())).unwrap();
    assert_eq!(live.take(P).unwrap().rows().unwrap().unwrap(), before);
}
