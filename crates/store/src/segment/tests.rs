use std::sync::Arc;

use arrow_array::builder::{Float64Builder, Int64Builder, ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};

use super::*;
use crate::schema::{ColumnDef, ColumnType, TableSchema};

/// A small generator of test rows: SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// The columns of [`random_batch`].
pub(crate) fn random_schema() -> TableSchema {
    let dimension = ColumnDef::dimension;
    TableSchema::new(vec![
        ColumnDef::time(),
        dimension("word", ColumnType::String),
        dimension("few", ColumnType::String),
        dimension("unique", ColumnType::String),
        dimension("long", ColumnType::Long),
        dimension("wide", ColumnType::Long),
        dimension("double", ColumnType::Double),
        dimension("flag", ColumnType::Boolean),
        dimension("none", ColumnType::Long),
        dimension("nothing", ColumnType::String),
        dimension("at", ColumnType::Timestamp),
        dimension("strings", ColumnType::ArrayString),
        dimension("longs", ColumnType::ArrayLong),
        dimension("doubles", ColumnType::ArrayDouble),
        dimension("json", ColumnType::Json),
    ])
    .unwrap()
}

/// Sorted by time; "word" has up to `words` distinct values, also the empty one; every column but time has nulls.
pub(crate) fn random_batch(seed: u64, rows: usize, words: usize) -> RecordBatch {
    let random = &mut Random(seed);
    let mut time = 1_442_016_000_000_i64;
    let times: TimestampMillisecondArray = (0..rows)
        .map(|_| {
            time += i64::try_from(random.below(5_000)).unwrap();
            Some(time)
        })
        .collect();
    let word = |random: &mut Random, words: usize| match random.below(words) {
        0 => String::new(),
        n => format!("wörd {n}"),
    };
    let long = |random: &mut Random| i64::try_from(random.below(2_000)).unwrap() - 1_000;
    let mut strings = ListBuilder::new(StringBuilder::new());
    let mut longs = ListBuilder::new(Int64Builder::new());
    let mut doubles = ListBuilder::new(Float64Builder::new());
    for _ in 0..rows {
        for _ in 0..random.below(3) {
            strings.values().append_option((!random.chance(20)).then(|| word(random, 20)));
            longs.values().append_option((!random.chance(20)).then(|| long(random)));
            doubles.values().append_option((!random.chance(20)).then_some(0.25));
        }
        let valid = !random.chance(20);
        strings.append(valid);
        longs.append(valid);
        doubles.append(true);
    }
    macro_rules! column {
        ($array:ty, $percent:expr, $value:expr) => {
            Arc::new((0..rows).map(|_| (!random.chance($percent)).then(|| $value(&mut *random))).collect::<$array>())
                as ArrayRef
        };
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(times),
        column!(StringArray, 5, |r: &mut Random| word(r, words)),
        column!(StringArray, 30, |r: &mut Random| ["a", "b", "c", "quite a long one, really"][r.below(4)].to_owned()),
        column!(StringArray, 5, |r: &mut Random| format!("{:x}", r.next())),
        column!(Int64Array, 10, long),
        column!(Int64Array, 10, |r: &mut Random| r.next().cast_signed()),
        column!(Float64Array, 10, |r: &mut Random| f64::from(u32::try_from(r.below(4_000)).unwrap()) / 8.0 - 100.0),
        column!(BooleanArray, 10, |r: &mut Random| r.chance(50)),
        column!(Int64Array, 100, long),
        column!(StringArray, 100, |r: &mut Random| word(r, 3)),
        column!(TimestampMillisecondArray, 50, |r: &mut Random| 1_000_000 + i64::try_from(r.below(1 << 40)).unwrap()),
        Arc::new(strings.finish()),
        Arc::new(longs.finish()),
        Arc::new(doubles.finish()),
        column!(StringArray, 10, |r: &mut Random| format!("{{\"a\":{}}}", r.below(10))),
    ];
    RecordBatch::try_new(random_schema().arrow(), columns).unwrap()
}

const ROWS: [usize; 9] = [0, 1, 2, 255, 1_023, 1_024, 1_025, 3_000, 10_000];
const WORDS: [usize; 7] = [1, 2, 255, 256, 257, 1_500, 70_000];

#[test]
fn what_goes_in_comes_out_of_memory_and_of_the_file() {
    for (seed, rows) in ROWS.into_iter().enumerate() {
        let words_of_size = match rows {
            1_025 => &WORDS[..],
            _ if rows < 1_024 => &WORDS[1..2],
            _ => &WORDS[4..],
        };
        for words in words_of_size {
            let words = *words;
            let batch = random_batch(seed as u64, rows, words);
            let dictionary = TableDictionary::new();
            let live = Segment::from_batch(&batch, &dictionary).unwrap();
            assert_eq!(live.to_batch(None).unwrap(), batch, "live, {rows} rows, {words} words");
            let file = Segment::encode(&batch).unwrap();
            let segment = Segment::open(Bytes::from(file), &dictionary).unwrap();
            assert_eq!(segment.to_batch(None).unwrap(), batch, "file, {rows} rows, {words} words");
            assert_eq!(segment.time_range(), live.time_range());
            assert!(rows == 0 || segment.is_sorted_by_time() && live.is_sorted_by_time());
            let moved = segment.rebase(&TableDictionary::new()).unwrap();
            assert_eq!(moved.to_batch(Some(&["word"])).unwrap().column(0), batch.column(1));
        }
    }
}

#[test]
fn a_large_dictionary_and_many_blocks() {
    let batch = random_batch(3, 160_000, 70_000);
    let dictionary = TableDictionary::new();
    let file = Segment::encode(&batch).unwrap();
    let segment = Segment::open(Bytes::from(file), &dictionary).unwrap();
    let word = segment.column("word").unwrap();
    assert!(word.distinct().unwrap() > 60_000, "{:?}", word.distinct());
    assert!(segment.column("unique").unwrap().distinct().is_none());
    assert_eq!(segment.to_batch(None).unwrap(), batch);
    let Data::Codes(codes) = &word.data else { panic!("coded") };
    assert_eq!(
        codes.search("wörd 777").map(|code| codes.dictionary.strings().get(codes.id(code)).map(str::to_owned)),
        Ok(Some("wörd 777".to_owned()))
    );
    assert!(codes.search("wörd 777x").is_err());
    let postings = codes.postings.as_ref().unwrap();
    let of_null: usize = postings.of(0).len();
    assert_eq!(of_null, word.nulls());
}

#[test]
fn appended_live_segments_are_the_rows_of_both() {
    let dictionary = TableDictionary::new();
    for (left, right) in [(0, 5), (5, 0), (1_000, 30), (1_024, 1_024), (2_000, 3_000)] {
        let (a, b) = (random_batch(1, left, 300), random_batch(2, right, 300));
        let both = arrow_select::concat::concat_batches(&a.schema(), [&a, &b]).unwrap();
        let (a, b) = (Segment::from_batch(&a, &dictionary).unwrap(), Segment::from_batch(&b, &dictionary).unwrap());
        let merged = a.append(&b).unwrap();
        assert_eq!(merged.rows(), left + right);
        assert_eq!(merged.to_batch(None).unwrap(), both);
    }
}

#[test]
fn a_file_cut_short_is_refused_at_every_length() {
    let file = Segment::encode(&random_batch(7, 40, 10)).unwrap();
    for length in 0..file.len() {
        let opened = Segment::open(Bytes::copy_from_slice(&file[..length]), &TableDictionary::new());
        assert!(opened.is_err(), "cut to {length} of {}", file.len());
    }
}

/// Either the damage is found, or it was in the padding and the rows are the same.
fn damaged(file: Vec<u8>, batch: &RecordBatch, what: &str) -> bool {
    let Ok(segment) = Segment::open(Bytes::from(file), &TableDictionary::new()) else { return true };
    match segment.to_batch(None) {
        Ok(back) => {
            assert_eq!(&back, batch, "{what}");
            false
        }
        Err(_) => true,
    }
}

#[test]
fn every_flipped_bit_is_found_or_harmless() {
    let batch = random_batch(9, 30, 12);
    let file = Segment::encode(&batch).unwrap();
    let mut found = 0;
    let (mut tried, head) = (0, 2_500);
    for at in (0..head).chain((head..file.len()).step_by(11)) {
        tried += 1;
        let mut bad = file.clone();
        bad[at] ^= 1 << (at % 8);
        found += usize::from(damaged(bad, &batch, &format!("byte {at}")));
    }
    assert!(found > tried / 4, "{found} of {tried}");
}

/// With its checksums made right again, a damaged file may hold other rows, but never panics, never hangs, and
/// never has another number of rows.
#[test]
fn a_lie_with_right_checksums_never_panics() {
    let batch = random_batch(11, 300, 400);
    let file = Segment::encode(&batch).unwrap();
    let head = format::read(&file).unwrap();
    let random = &mut Random(5);
    for round in 0..1_200 {
        let mut bad = file.clone();
        for _ in 0..=random.below(3) {
            let at = if round % 3 == 0 { random.below(3_000.min(bad.len())) } else { random.below(bad.len()) };
            bad[at] = match random.below(4) {
                0 => 0xff,
                1 => 0,
                _ => u8::try_from(random.below(256)).unwrap(),
            };
        }
        fix_checksums(&mut bad, &head);
        let Ok(segment) = Segment::open(Bytes::from(bad), &TableDictionary::new()) else { continue };
        for column in segment.columns() {
            if let Ok(array) = arrow::whole(column) {
                assert_eq!(array.len(), segment.rows());
            }
        }
    }
}

/// Writes right checksums over the sections the sound file had, and over the head.
fn fix_checksums(file: &mut [u8], sound: &format::Head) {
    let count: usize = sound.columns.iter().map(|column| column.sections.len()).sum();
    let mut entry = format::HEADER_BYTES + sound.columns.len() * format::COLUMN_BYTES;
    for section in sound.columns.iter().flat_map(|column| &column.sections) {
        let crc = base::checksum::crc32c(&file[section.start..section.start + section.len]);
        file[entry + 4..entry + 8].copy_from_slice(&crc.to_le_bytes());
        entry += format::SECTION_BYTES;
    }
    let names: usize = sound.columns.iter().map(|column| column.name.len()).sum();
    let end = format::HEADER_BYTES + sound.columns.len() * format::COLUMN_BYTES + count * format::SECTION_BYTES + names;
    let crc = base::checksum::crc32c(&file[16..end]);
    file[12..16].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_piece_of_a_buffer_at_an_odd_address_opens_too() {
    let batch = random_batch(2, 100, 10);
    let mut file = vec![0];
    file.extend(Segment::encode(&batch).unwrap());
    let segment = Segment::open(Bytes::from(file).slice(1..), &TableDictionary::new()).unwrap();
    assert_eq!(segment.to_batch(None).unwrap(), batch);
}

#[test]
fn a_type_without_a_column_is_refused_by_name() {
    let array: ArrayRef = Arc::new(arrow_array::UInt8Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("odd", array)]).unwrap();
    let error = Segment::encode(&batch).unwrap_err().to_string();
    assert_eq!(error, "column \"odd\" has type UInt8, which a segment cannot hold");
}

#[test]
fn a_parquet_file_becomes_the_same_rows() {
    use ::parquet::arrow::ArrowWriter;
    use ::parquet::file::properties::WriterProperties;
    for (rows, words, fallback) in [(0, 1, false), (1, 1, false), (3_000, 200, false), (20_000, 4_000, true)] {
        let batch = random_batch(5, rows, words);
        let limit = if fallback { 5_000 } else { 1 << 30 };
        let properties = WriterProperties::builder().set_dictionary_page_size_limit(limit).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        let parquet = Bytes::from(writer.into_inner().unwrap());
        let file = Segment::from_parquet(parquet).unwrap();
        assert_eq!(file, Segment::encode(&batch).unwrap(), "{rows} rows");
        let segment = Segment::open(Bytes::from(file), &TableDictionary::new()).unwrap();
        assert_eq!(segment.to_batch(None).unwrap(), batch, "{rows} rows");
    }
    assert!(matches!(Segment::from_parquet(Bytes::from_static(b"PAR1PAR1")), Err(SegmentError::Parquet(_))));
}

fn sealed(batch: &RecordBatch) -> Bytes {
    use base::{Offset, PartitionIndex, Timestamp};
    let manifest = crate::seal::Manifest {
        segment: "s".to_owned(),
        table: "t".to_owned(),
        partition: PartitionIndex(0),
        from: Offset(0),
        to: Offset(1),
        interval: crate::interval::Interval::ETERNITY,
        rows: batch.num_rows() as u64,
        created: Timestamp(0),
    };
    crate::seal::to_parquet(batch, &manifest).unwrap()
}

#[test]
fn a_sealed_segment_becomes_the_same_rows() {
    for rows in [0, 1, 1_025, 30_000] {
        let batch = random_batch(6, rows, 900);
        let file = Segment::from_parquet(sealed(&batch)).unwrap();
        let segment = Segment::open(Bytes::from(file), &TableDictionary::new()).unwrap();
        assert_eq!(segment.to_batch(None).unwrap(), batch, "{rows} rows");
    }
}

#[test]
fn a_damaged_sealed_segment_is_refused_or_read_but_never_panics() {
    let parquet = sealed(&random_batch(6, 50, 9));
    let random = &mut Random(1);
    for _ in 0..400 {
        let mut bad = parquet.to_vec();
        let at = random.below(bad.len());
        bad[at] ^= 1 << random.below(8);
        let _ = Segment::from_parquet(Bytes::from(bad));
    }
}
