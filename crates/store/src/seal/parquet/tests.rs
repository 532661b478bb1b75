use ::parquet::basic::PageType;
use ::parquet::file::reader::FileReader as _;
use ::parquet::file::serialized_reader::SerializedFileReader;
use arrow_array::types::Int64Type;
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, StringArray, TimestampMillisecondArray,
};
use base::{Offset, PartitionIndex, Timestamp};

use super::*;
use crate::interval::Interval;
use crate::schema::{ColumnDef, ColumnType};

fn rows(count: usize) -> RecordBatch {
    let columns = [
        ("page", ColumnType::String),
        ("added", ColumnType::Long),
        ("delta", ColumnType::Double),
        ("robot", ColumnType::Boolean),
        ("tags", ColumnType::ArrayLong),
        ("event", ColumnType::Json),
    ];
    let columns = columns.map(|(name, ty)| ColumnDef::dimension(name, ty));
    let schema = TableSchema::new(std::iter::once(ColumnDef::time()).chain(columns).collect()).expect("a schema");
    let long = |row: usize| i64::try_from(row).expect("small");
    let arrays: Vec<ArrayRef> = vec![
        Arc::new((0..count).map(|row| Some(long(row))).collect::<TimestampMillisecondArray>()),
        Arc::new((0..count).map(|row| (row % 7 != 0).then(|| format!("page {row}"))).collect::<StringArray>()),
        Arc::new((0..count).map(|row| (row % 5 != 0).then(|| long(row) * 1_000)).collect::<Int64Array>()),
        Arc::new(
            (0..count).map(|row| Some(0.5 + f64::from(u32::try_from(row).expect("small")))).collect::<Float64Array>(),
        ),
        Arc::new((0..count).map(|row| Some(row % 2 == 0)).collect::<BooleanArray>()),
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
            (0..count).map(|row| (row % 3 != 0).then(|| vec![Some(long(row)), None])),
        )),
        Arc::new((0..count).map(|row| Some(format!("{{\"k\":{}}}", row % 3))).collect::<StringArray>()),
    ];
    RecordBatch::try_new(schema.arrow(), arrays).expect("a batch")
}

fn manifest(rows: &RecordBatch) -> Manifest {
    Manifest {
        segment: "0191d6f0-0000-7000-8000-000000000000".to_owned(),
        table: "wikipedia".to_owned(),
        partition: PartitionIndex(3),
        from: Offset(100),
        to: Offset(200),
        interval: Interval::parse("2015-09-12/P1D").expect("an interval"),
        rows: rows.num_rows() as u64,
        created: Timestamp(1_442_018_818_771),
    }
}

#[test]
fn what_is_written_is_read_back() {
    for count in [0, 1, 1_000, 50_000] {
        let rows = rows(count);
        let manifest = manifest(&rows);
        let file = to_parquet(&rows, &manifest).expect("written");
        assert_eq!(read_manifest(&file).expect("a manifest"), manifest);
        let (read, batch) = read_parquet(&file).expect("read");
        assert_eq!(read, manifest);
        assert_eq!(batch, rows);
        assert_eq!(to_parquet(&rows, &manifest).expect("written"), file, "the same rows give the same bytes");
    }
}

/// The promise that a loader relies on: one row group; string columns hold one dictionary page and no plain value.
#[test]
fn one_row_group_and_one_dictionary_page_per_string_column() {
    let rows = rows(300_000);
    let file = to_parquet(&rows, &manifest(&rows)).expect("written");
    let reader = SerializedFileReader::new(file).expect("a file");
    let metadata = reader.metadata();
    assert_eq!(metadata.num_row_groups(), 1);
    assert!(metadata.row_group(0).sorting_columns().is_some_and(|sorting| sorting[0].column_idx == 0));
    let group = reader.get_row_group(0).expect("the row group");
    for (index, column) in metadata.row_group(0).columns().iter().enumerate() {
        assert!(column.column_index_offset().is_some() && column.offset_index_offset().is_some(), "a page index");
        let name = column.column_path().string();
        let (mut dictionaries, mut plain) = (0, 0);
        let mut pages = group.get_column_page_reader(index).expect("pages");
        while let Some(page) = pages.get_next_page().expect("a page") {
            dictionaries += usize::from(page.page_type() == PageType::DICTIONARY_PAGE);
            plain += usize::from(page.page_type() == PageType::DATA_PAGE && page.encoding() == Encoding::PLAIN);
        }
        let is_text = matches!(name.as_str(), "page" | "event");
        assert_eq!(dictionaries, usize::from(is_text), "{name}");
        assert!(!is_text || plain == 0, "{name} fell back to plain values");
    }
}

#[test]
fn a_manifest_that_does_not_fit_is_refused() {
    let rows = rows(10);
    let wrong = Manifest { rows: 11, ..manifest(&rows) };
    assert!(matches!(to_parquet(&rows, &wrong), Err(SealError::Rows { manifest: 11, file: 10 })));
    let with = |json: &str| {
        let pairs = vec![KeyValue::new(MANIFEST_KEY.to_owned(), json.to_owned())];
        let properties = WriterProperties::builder().set_key_value_metadata(Some(pairs)).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).expect("a writer");
        writer.write(&rows).expect("written");
        read_manifest(&Bytes::from(writer.into_inner().expect("a file"))).expect_err("refused").to_string()
    };
    assert!(with("{\"version\":2}").contains("version 2"));
    assert!(with("{\"version\":1}").contains("missing field"));
    assert!(with("what").contains("manifest"));
    let plain = ArrowWriter::try_new(Vec::new(), rows.schema(), None).expect("a writer").into_inner().expect("a file");
    assert!(matches!(read_manifest(&Bytes::from(plain)), Err(SealError::NoManifest)));
}

/// Damaged files are refused or read as something; they never stop the process.
#[test]
fn damage_never_panics() {
    let rows = rows(200);
    let file = to_parquet(&rows, &manifest(&rows)).expect("written").to_vec();
    for length in (0..file.len()).step_by(7) {
        assert!(read_parquet(&Bytes::from(file[..length].to_vec())).is_err(), "cut to {length}");
    }
    let mut state = 11_u64;
    let mut random = move |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % bound
    };
    for _ in 0..1_500 {
        let mut damaged = file.clone();
        for _ in 0..=random(3) {
            let at = random(damaged.len());
            damaged[at] = u8::try_from(random(256)).expect("a byte");
        }
        let _ = read_parquet(&Bytes::from(damaged));
    }
}
