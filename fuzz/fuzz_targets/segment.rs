//! A column file after anything happened to its bytes: it is refused, or every row of it can be read.
//!
//! A good file is written once. Each input changes bytes of it and mends the checksums, so that the checks behind them are met too.

#![no_main]

use std::sync::{Arc, OnceLock};

use arrow_array::{
    BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, builder::Int64Builder,
    builder::ListBuilder, builder::StringBuilder,
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use base::checksum::{crc32c, crc32c_append};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use store::dictionary::TableDictionary;
use store::segment::Segment;

const ROWS: i64 = 1500;
const HEADER_BYTES: usize = 64;
const COLUMN_BYTES: usize = 48;
const SECTION_BYTES: usize = 32;

fn good() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| Segment::encode(&rows()).expect("rows of every type"))
}

fn rows() -> RecordBatch {
    let mut longs = ListBuilder::new(Int64Builder::new());
    let mut texts = ListBuilder::new(StringBuilder::new());
    for row in 0..ROWS {
        longs.values().append_value(row);
        longs.append(row % 3 != 0);
        texts.values().append_value(format!("t{}", row % 7));
        texts.append(true);
    }
    let arrays: Vec<(&str, DataType, arrow_array::ArrayRef)> = vec![
        (
            "__time",
            DataType::Timestamp(TimeUnit::Millisecond, None),
            Arc::new(TimestampMillisecondArray::from_iter_values(0..ROWS)),
        ),
        (
            "few",
            DataType::Utf8,
            Arc::new((0..ROWS).map(|row| (row % 5 != 0).then(|| format!("f{}", row % 9))).collect::<StringArray>()),
        ),
        (
            "many",
            DataType::Utf8,
            Arc::new((0..ROWS).map(|row| Some(format!("m{}", row * 7919 % 997))).collect::<StringArray>()),
        ),
        (
            "long",
            DataType::Int64,
            Arc::new((0..ROWS).map(|row| (row % 4 != 0).then_some(row * 3)).collect::<Int64Array>()),
        ),
        (
            "wide",
            DataType::Int64,
            Arc::new((0..ROWS).map(|row| Some(row.wrapping_mul(0x0123_4567_89ab_cdef))).collect::<Int64Array>()),
        ),
        (
            "double",
            DataType::Float64,
            Arc::new((0..ROWS).map(|row| (row % 6 != 0).then_some(row as f64 / 7.0)).collect::<Float64Array>()),
        ),
        ("flag", DataType::Boolean, Arc::new((0..ROWS).map(|row| Some(row % 2 == 0)).collect::<BooleanArray>())),
        ("longs", DataType::List(Arc::new(Field::new("item", DataType::Int64, true))), Arc::new(longs.finish())),
        ("texts", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), Arc::new(texts.finish())),
    ];
    let fields: Vec<Field> = arrays.iter().map(|(name, kind, _)| Field::new(*name, kind.clone(), true)).collect();
    let columns = arrays.into_iter().map(|(_, _, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns of one length")
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let mut bytes = if mode & 1 == 0 { good().to_vec() } else { data.to_vec() };
    if mode & 1 == 0 {
        for change in data.chunks_exact(5) {
            let at = usize::try_from(u32::from_be_bytes([0, change[0], change[1], change[2]])).unwrap_or(0);
            // Half of the changes go to header and directory, where a byte means most.
            let bound = if change[3] & 1 == 0 { bytes.len().min(2048) } else { bytes.len() };
            let at = at % bound;
            bytes[at] = change[4];
        }
        if mode & 2 != 0 {
            bytes.truncate(bytes.len() - usize::from(*mode));
        }
    }
    if mode & 4 == 0 {
        mend(&mut bytes);
    }
    let dictionary = TableDictionary::new();
    let Ok(segment) = Segment::open(Bytes::from(bytes), &dictionary) else { return };
    let warm = segment.warm();
    if let Ok(batch) = segment.to_batch(None) {
        assert_eq!(batch.num_rows(), segment.rows());
        assert!(warm.is_ok(), "rows were read although a column is damaged");
    }
});

/// Writes the checksums of the sections and then of the directory anew, as far as their places lead.
fn mend(bytes: &mut [u8]) {
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).map_or(0, |four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]) as usize)
    };
    let long = |bytes: &[u8], at: usize| word(bytes, at).saturating_add(word(bytes, at + 4).saturating_mul(1 << 32));
    let (columns, sections, names) = (word(bytes, 32), word(bytes, 36), word(bytes, 56));
    let first = columns.saturating_mul(COLUMN_BYTES).saturating_add(HEADER_BYTES);
    for section in 0..sections.min(1000) {
        let at = first.saturating_add(section * SECTION_BYTES);
        let (start, length) = (long(bytes, at.saturating_add(8)), long(bytes, at.saturating_add(16)));
        let Some(crc) = start.checked_add(length).and_then(|end| bytes.get(start..end)).map(crc32c) else { continue };
        if let Some(field) = bytes.get_mut(at.saturating_add(4)..at.saturating_add(8)) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
    }
    let end = first.saturating_add(sections.saturating_mul(SECTION_BYTES)).saturating_add(names);
    let (Some(head), Some(directory)) = (bytes.get(16..HEADER_BYTES), bytes.get(HEADER_BYTES..end)) else { return };
    let crc = crc32c_append(crc32c(head), directory);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
}
