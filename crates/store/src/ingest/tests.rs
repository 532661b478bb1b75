use base::Term;
use base::batch::{Codec, assign};
use base::records::{BatchBuilder, decode};

use super::*;
use crate::rows::text::push_long;
use crate::schema::MetricKind;
use crate::spec::{InputFormat, Lines, MetricSpec};

const WALL: Timestamp = Timestamp(1_000_000);

fn batch(base: i64, values: &[Option<&[u8]>]) -> Decoded {
    let mut builder = BatchBuilder::new(Codec::None);
    for value in values {
        builder.push(Timestamp(42), None, *value, &[]);
    }
    let mut bytes = builder.build().expect("a batch").to_vec();
    assign(&mut bytes, Offset(base), Term(1));
    decode(&bytes).expect("a good batch")
}

fn texts(base: i64, values: &[&str]) -> Decoded {
    batch(base, &values.iter().map(|value| Some(value.as_bytes())).collect::<Vec<_>>())
}

fn ingestor(spec: TableSpec) -> Ingestor {
    let schema = spec.initial_schema();
    Ingestor::new(Arc::new(spec), &schema, PartitionIndex(3))
}

fn range(from: i64, to: i64) -> OffsetRange {
    OffsetRange { from: Offset(from), to: Offset(to) }
}

#[test]
fn bad_rows_are_kept_with_their_reason_and_good_ones_around_them_are_taken() {
    let mut spec = TableSpec::discover("t", "t");
    spec.timestamp.columns = vec!["time".to_owned()];
    let mut ingestor = ingestor(spec);
    let long = format!("{{\"time\":\"{}\"}}", "x".repeat(5_000));
    let values: [Option<&[u8]>; 9] = [
        Some(br#"{"time":1,"a":"x"}"#),
        Some(br#"{"time":1,"a":}"#),
        Some(b"{\"time\":1,\"a\":\"\xff\"}"),
        Some(br#"{"a":"no time"}"#),
        None,
        Some(b""),
        Some(long.as_bytes()),
        Some(br#"{"time":2} {"time":3}{"time":4,"a":1} oops {"time":5}"#),
        Some(b" \n "),
    ];
    let outcome = ingestor.push_batch(WALL, &batch(10, &values));
    assert_eq!((outcome.accepted, outcome.empty, outcome.unparseable), (4, 3, 5));
    let dead: Vec<(i64, DeadReason, usize)> =
        outcome.dead.iter().map(|letter| (letter.offset.0, letter.reason, letter.sample.len())).collect();
    let expected = [
        (11, DeadReason::Malformed, 15),
        (12, DeadReason::NotUtf8, 18),
        (13, DeadReason::TimestampMissing, 15),
        (16, DeadReason::TimestampUnreadable, SAMPLE_BYTES_MAX),
        (17, DeadReason::Malformed, 53),
    ];
    assert_eq!(dead, expected);
    assert_eq!(outcome.dead[0].detail, "expected a value at byte 14");
    let (rows, offsets) = ingestor.take_rows().expect("rows");
    assert_eq!((rows.num_rows(), offsets), (4, range(10, 19)));
    assert!(ingestor.take_rows().is_none());
    let stats = ingestor.stats();
    assert_eq!((stats.processed, stats.unparseable, stats.thrown_away), (4, 5, 3));
    assert_eq!(ingestor.dead_letters().count(), 5);
}

#[test]
fn dead_letters_are_bounded() {
    let mut ingestor = ingestor(TableSpec::discover("t", "t"));
    for base in 0..5 {
        let outcome = ingestor.push_batch(WALL, &texts(base * 80, &["nope"; 80]));
        assert_eq!((outcome.unparseable, outcome.dead.len()), (80, 80));
    }
    let kept: Vec<i64> = ingestor.dead_letters().map(|letter| letter.offset.0).collect();
    assert_eq!((kept.len(), kept[0], kept[99]), (DEAD_LETTERS_MAX, 300, 399), "the newest stay");
    let (rows, offsets) = ingestor.take_rows().expect("offsets count without rows");
    assert_eq!((rows.num_rows(), offsets), (0, range(0, 400)));
}

#[test]
fn late_and_early_rows_are_counted_and_dropped() {
    let mut spec = TableSpec::discover("t", "t");
    spec.late_message_rejection = Some(Rejection::PeriodMs(1_000));
    spec.early_message_rejection = Some(Rejection::PeriodMs(10));
    let mut bounds = ingestor(spec.clone());
    let rows = [999_000, 998_999, 1_000_010, 1_000_011, 1_000_000].map(|time| format!("{{\"time\":{time}}}"));
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let outcome = bounds.push_batch(WALL, &texts(0, &rows));
    assert_eq!((outcome.accepted, outcome.filtered_late, outcome.filtered_early), (3, 1, 1));
    spec.late_message_rejection = Some(Rejection::At(Timestamp(999_000)));
    spec.early_message_rejection = Some(Rejection::At(Timestamp(1_000_000)));
    let outcome = ingestor(spec).push_batch(WALL, &texts(0, &rows));
    assert_eq!((outcome.accepted, outcome.filtered_late, outcome.filtered_early), (1, 1, 3));
}

#[test]
fn every_offset_is_in_one_range() {
    let mut ingestor = ingestor(TableSpec::discover("t", "t"));
    ingestor.seek(Offset(12));
    let outcome = ingestor.push_batch(WALL, &texts(10, &["{\"a\":10}", "{\"a\":11}", "{\"a\":12}"]));
    assert_eq!(outcome.accepted, 1, "records below the published offset are there already");
    assert_eq!(ingestor.take_rows().map(|(rows, offsets)| (rows.num_rows(), offsets)), Some((1, range(12, 13))));
    ingestor.push_batch(WALL, &texts(13, &["{}"]));
    ingestor.push_batch(WALL, &texts(14, &["{}", "{}"]));
    // A gap, as compaction or deleted records leave one: the next batch begins further on.
    ingestor.push_batch(WALL, &texts(20, &["{}"]));
    assert_eq!(ingestor.take_rows().map(|(rows, offsets)| (rows.num_rows(), offsets)), Some((4, range(13, 21))));
    let header = *texts(21, &["{}", "{}"]).header();
    assert_eq!(ingestor.push_undecodable(&header, "zstd says no").unparseable, 2);
    assert_eq!(ingestor.take_rows().map(|(rows, offsets)| (rows.num_rows(), offsets)), Some((0, range(21, 23))));
}

#[test]
fn after_a_seek_ranges_follow_what_the_table_has() {
    let mut ingestor = ingestor(TableSpec::discover("t", "t"));
    ingestor.seek(Offset(5));
    // Offsets 5 to 9 are gone from the log: they still count.
    ingestor.push_batch(WALL, &texts(10, &["{\"a\":1}", "{\"a\":2}"]));
    assert_eq!(ingestor.take_rows().map(|(rows, offsets)| (rows.num_rows(), offsets)), Some((2, range(5, 12))));
    ingestor.seek(Offset(12));
    assert!(ingestor.take_rows().is_none());
    ingestor.push_batch(WALL, &texts(12, &["{\"a\":3}"]));
    // The caller could not keep the rows, and comes back to the middle of a batch.
    ingestor.seek(Offset(11));
    ingestor.push_batch(WALL, &texts(10, &["{\"a\":1}", "{\"a\":2}"]));
    ingestor.push_batch(WALL, &texts(12, &["{\"a\":3}"]));
    assert_eq!(ingestor.take_rows().map(|(rows, offsets)| (rows.num_rows(), offsets)), Some((2, range(11, 13))));
}

#[test]
fn going_back_reads_again_without_a_row_twice() {
    let mut ingestor = ingestor(TableSpec::discover("t", "t"));
    ingestor.push_batch(WALL, &texts(0, &["{\"a\":1}", "{\"a\":2}"]));
    // The caller failed before it took the rows, and begins again.
    ingestor.push_batch(WALL, &texts(0, &["{\"a\":1}", "{\"a\":2}"]));
    assert_eq!(ingestor.take_rows().map(|(rows, offsets)| (rows.num_rows(), offsets)), Some((2, range(0, 2))));
    // It failed after it took them.
    ingestor.push_batch(WALL, &texts(0, &["{\"a\":1}", "{\"a\":2}"]));
    assert_eq!(ingestor.take_rows().map(|(rows, offsets)| (rows.num_rows(), offsets)), Some((2, range(0, 2))));
}

#[test]
fn rows_are_rolled_up_and_their_time_is_cut() {
    let mut spec = TableSpec::discover("t", "t");
    spec.rollup = true;
    spec.query_granularity = Granularity::MINUTE;
    spec.metrics = vec![
        MetricSpec { name: "count".to_owned(), kind: MetricKind::Count, field: None },
        MetricSpec { name: "sum".to_owned(), kind: MetricKind::LongSum, field: Some("n".to_owned()) },
    ];
    let mut ingestor = ingestor(spec);
    let row = |time: i64, key: &str, n: i64| {
        let mut text = format!("{{\"time\":{time},\"k\":\"{key}\",\"n\":");
        push_long(&mut text, n);
        text.push('}');
        text
    };
    let rows = [row(1, "a", 5), row(59_999, "a", 6), row(60_000, "a", 7), row(2, "b", 8)];
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    assert_eq!(ingestor.push_batch(WALL, &texts(0, &rows)).accepted, 4);
    let (rows, _) = ingestor.take_rows().expect("rows");
    assert_eq!(rows.num_rows(), 3);
    let names: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["__time", "count", "sum", "k"], "n is no column of its own");
    let sums = rows.column(2).as_any().downcast_ref::<arrow_array::Int64Array>().expect("longs");
    assert_eq!(sums.values().as_ref(), [11, 7, 8]);
}

#[test]
fn a_granularity_coarser_than_the_chunk_stays_in_it() {
    let mut spec = TableSpec::discover("t", "t");
    spec.query_granularity = Granularity::All;
    let mut ingestor = ingestor(spec);
    ingestor.push_batch(WALL, &texts(0, &["{\"time\":\"2015-09-12T13:00\"}"]));
    let (rows, _) = ingestor.take_rows().expect("rows");
    let time =
        rows.column(0).as_any().downcast_ref::<arrow_array::TimestampMillisecondArray>().expect("times").value(0);
    assert_eq!(crate::calendar::format_iso(Timestamp(time)), "2015-09-12T00:00:00.000Z");
}

#[test]
fn csv_records_and_a_byte_order_mark() {
    let mut spec = TableSpec::discover("t", "t");
    let columns = ["time", "a", "b"].map(str::to_owned).to_vec();
    spec.input_format = InputFormat::Csv(Lines { columns, ..Lines::default() });
    let mut csv = ingestor(spec);
    let outcome = csv.push_batch(WALL, &texts(0, &["1,x,2\n2,\"y\n\",", "\u{feff}3,z,1", "4,\"open"]));
    assert_eq!((outcome.accepted, outcome.unparseable), (3, 1));
    let mut json = ingestor(TableSpec::discover("t", "t"));
    assert_eq!(json.push_batch(WALL, &texts(0, &["\u{feff}{\"a\":1}"])).accepted, 1);
}

/// Any bytes: nothing panics, every record is accounted for.
#[test]
fn random_records_never_panic() {
    let mut state = 7_u64;
    let mut random = move |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % bound
    };
    let pieces: [&[u8]; 16] = [
        b"{",
        b"}",
        b"\"time\":",
        b"\"a\":",
        b"1",
        b",",
        b"[",
        b"]",
        b"\"x\"",
        b"null",
        b"-0.5e3",
        b"\"2015-09-12\"",
        b"\xff",
        b"\n",
        b"\"",
        b"{\"k\":[1]}",
    ];
    let columns = ["time", "a"].map(str::to_owned).to_vec();
    let mut csv = TableSpec::discover("t", "t");
    csv.input_format = InputFormat::Csv(Lines { columns, ..Lines::default() });
    let mut ingestors = [ingestor(TableSpec::discover("t", "t")), ingestor(csv)];
    for round in 0..2_000 {
        let records: Vec<Vec<u8>> =
            (0..5).map(|_| (0..random(12)).flat_map(|_| pieces[random(pieces.len())].to_vec()).collect()).collect();
        let records: Vec<Option<&[u8]>> = records.iter().map(|record| Some(&record[..])).collect();
        for ingestor in &mut ingestors {
            let outcome = ingestor.push_batch(WALL, &batch(round * 5, &records));
            assert!(outcome.accepted + outcome.empty + outcome.unparseable >= 5);
            let (rows, _) = ingestor.take_rows().expect("offsets");
            assert_eq!(rows.num_rows() as u64, outcome.accepted);
        }
    }
}
