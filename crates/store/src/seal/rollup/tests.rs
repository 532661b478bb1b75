use arrow_cast::display::array_value_to_string;
use base::records::{BatchBuilder, decode};
use base::{PartitionIndex, batch::Codec};

use super::*;
use crate::ingest::Ingestor;
use crate::spec::from_supervisor;

/// The rows of a batch as text.
fn show(batch: &RecordBatch) -> Vec<String> {
    let value = |column: &ArrayRef, row| array_value_to_string(column, row).expect("text");
    (0..batch.num_rows())
        .map(|row| batch.columns().iter().map(|column| value(column, row)).collect::<Vec<_>>().join(" "))
        .collect()
}

fn read(spec: &TableSpec, rows: &[&str]) -> RecordBatch {
    let spec = Arc::new(TableSpec { rollup: false, ..spec.clone() });
    let mut ingestor = Ingestor::new(Arc::clone(&spec), &spec.initial_schema(), PartitionIndex(0));
    let mut builder = BatchBuilder::new(Codec::None);
    for row in rows {
        builder.push(Timestamp(0), None, Some(row.as_bytes()), &[]);
    }
    ingestor.push_batch(Timestamp(0), &decode(&builder.build().expect("a batch")).expect("a batch"));
    ingestor.take_rows().expect("rows").0
}

fn tutorial() -> TableSpec {
    let json = serde_json::json!({
        "dataSchema": {
            "dataSource": "rollup-tutorial",
            "timestampSpec": { "column": "timestamp", "format": "iso" },
            "dimensionsSpec": { "dimensions": ["srcIP", "dstIP"] },
            "metricsSpec": [
                { "type": "count", "name": "count" },
                { "type": "longSum", "name": "packets", "fieldName": "packets" },
                { "type": "longSum", "name": "bytes", "fieldName": "bytes" }
            ],
            "granularitySpec": { "segmentGranularity": "day", "queryGranularity": "minute", "rollup": true }
        },
        "ioConfig": { "topic": "t", "inputFormat": { "type": "json" } }
    });
    from_supervisor(&json).expect("a spec")
}

/// The data and the answer of Druid's rollup tutorial.
#[test]
fn the_rollup_tutorial() {
    let rows = [
        r#"{"timestamp":"2018-01-01T01:01:35Z","srcIP":"1.1.1.1","dstIP":"2.2.2.2","packets":20,"bytes":9024}"#,
        r#"{"timestamp":"2018-01-02T21:33:14Z","srcIP":"7.7.7.7","dstIP":"8.8.8.8","packets":38,"bytes":6289}"#,
        r#"{"timestamp":"2018-01-01T01:01:51Z","srcIP":"1.1.1.1","dstIP":"2.2.2.2","packets":255,"bytes":21133}"#,
        r#"{"timestamp":"2018-01-01T01:01:59Z","srcIP":"1.1.1.1","dstIP":"2.2.2.2","packets":11,"bytes":5780}"#,
        r#"{"timestamp":"2018-01-01T01:02:14Z","srcIP":"1.1.1.1","dstIP":"2.2.2.2","packets":38,"bytes":6289}"#,
        r#"{"timestamp":"2018-01-01T01:02:29Z","srcIP":"1.1.1.1","dstIP":"2.2.2.2","packets":377,"bytes":359971}"#,
        r#"{"timestamp":"2018-01-01T01:03:29Z","srcIP":"1.1.1.1","dstIP":"2.2.2.2","packets":49,"bytes":10204}"#,
        r#"{"timestamp":"2018-01-02T21:33:45Z","srcIP":"7.7.7.7","dstIP":"8.8.8.8","packets":123,"bytes":93999}"#,
        r#"{"timestamp":"2018-01-02T21:35:45Z","srcIP":"7.7.7.7","dstIP":"8.8.8.8","packets":12,"bytes":2818}"#,
    ];
    let spec = tutorial();
    let chunks = split_by_chunk(&read(&spec, &rows), &spec).expect("chunks");
    let shown: Vec<(String, Vec<String>)> = chunks
        .iter()
        .map(|(interval, rows)| (interval.to_string(), show(&sort_and_roll_up(rows, &spec).expect("rolls up"))))
        .collect();
    let expected = [
        (
            "2018-01-01T00:00:00.000Z/2018-01-02T00:00:00.000Z",
            &[
                "2018-01-01T01:01:00 1.1.1.1 2.2.2.2 3 286 35937",
                "2018-01-01T01:02:00 1.1.1.1 2.2.2.2 2 415 366260",
                "2018-01-01T01:03:00 1.1.1.1 2.2.2.2 1 49 10204",
            ][..],
        ),
        (
            "2018-01-02T00:00:00.000Z/2018-01-03T00:00:00.000Z",
            &["2018-01-02T21:33:00 7.7.7.7 8.8.8.8 2 161 100288", "2018-01-02T21:35:00 7.7.7.7 8.8.8.8 1 12 2818"],
        ),
    ];
    let expected: Vec<(String, Vec<String>)> = expected
        .iter()
        .map(|(interval, rows)| ((*interval).to_owned(), rows.iter().map(|row| (*row).to_owned()).collect()))
        .collect();
    assert_eq!(shown, expected);
}

#[test]
fn rows_are_sorted_by_time_then_dimensions_nulls_first() {
    let spec = TableSpec::discover("t", "t");
    let rows = [
        r#"{"time":2,"a":"x","l":[2],"d":1.5,"b":true}"#,
        r#"{"time":1,"a":"b","l":[1,2]}"#,
        r#"{"time":1,"a":"b","l":[1]}"#,
        r#"{"time":1,"a":"b"}"#,
        r#"{"time":1,"a":"","l":[]}"#,
        r#"{"time":1,"l":[9]}"#,
    ];
    let sorted = sort_and_roll_up(&read(&spec, &rows), &spec).expect("sorts");
    let column =
        |name: &str| {
            let column = sorted.column_by_name(name).expect("a column");
            (0..sorted.num_rows())
                .map(|row| {
                    if column.is_null(row) { "-".to_owned() } else { array_value_to_string(column, row).expect("text") }
                })
                .collect::<Vec<_>>()
                .join("|")
        };
    assert_eq!(column("a"), "-||b|b|b|x");
    assert_eq!(column("l"), "[9]|[]|-|[1]|[1, 2]|[2]");
}

#[test]
fn metrics_leave_nulls_out_and_equal_rows_of_every_type_are_one() {
    let mut spec = TableSpec::discover("t", "t");
    spec.rollup = true;
    let metric =
        |name: &str, kind| crate::spec::MetricSpec { name: name.to_owned(), kind, field: Some("n".to_owned()) };
    spec.metrics = vec![
        metric("min", MetricKind::LongMin),
        metric("max", MetricKind::DoubleMax),
        metric("sum", MetricKind::DoubleSum),
    ];
    let rows = [
        r#"{"time":1,"s":"x","d":0.5,"l":[1,null],"j":{"k":1},"n":3}"#,
        r#"{"time":1,"s":"x","d":0.5,"l":[1,null],"j":{"k":1}}"#,
        r#"{"time":1,"s":"x","d":0.5,"l":[1,null],"j":{"k":1},"n":"-2.5"}"#,
        r#"{"time":1,"s":"x","d":0.5,"l":[1],"j":{"k":1}}"#,
        r#"{"time":1,"s":null,"d":0.5,"l":[1],"j":{"k":1}}"#,
    ];
    let rolled = sort_and_roll_up(&read(&spec, &rows), &spec).expect("rolls up");
    let expected = [
        "1970-01-01T00:00:00.001     0.5 [1] {\"k\":1}",
        "1970-01-01T00:00:00.001    x 0.5 [1] {\"k\":1}",
        "1970-01-01T00:00:00.001 -2 3.0 0.5 x 0.5 [1, ] {\"k\":1}",
    ];
    assert_eq!(show(&rolled), expected);
    let again = sort_and_roll_up(&rolled, &spec).expect("rolls up");
    assert_eq!(again, rolled, "rolling up twice changes nothing");
}

#[test]
fn an_empty_batch_has_no_chunks() {
    let spec = tutorial();
    let empty = RecordBatch::new_empty(spec.initial_schema().arrow());
    assert!(split_by_chunk(&empty, &spec).expect("chunks").is_empty());
    assert_eq!(sort_and_roll_up(&empty, &spec).expect("sorts").num_rows(), 0);
    let bare = RecordBatch::new_empty(Arc::new(arrow_schema::Schema::empty()));
    assert!(matches!(split_by_chunk(&bare, &spec), Err(SealError::NoTime)));
}
