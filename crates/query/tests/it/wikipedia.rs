//! Druid's own tutorial data and cases: every `wikipedia` case of `druid-expected.json` that is not native. The data
//! is found through SEAWALL_TEST_DATA or `../shared/data` beside the repository; without it the tests say so.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::batch::Codec;
use base::records::BatchBuilder;
use base::{PartitionIndex, Timestamp};
use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use query::{Dialect, QueryService};
use serde_json::{Value, json};
use store::ingest::Ingestor;
use store::spec::from_supervisor;

use crate::common::{Answer, MemoryCatalog, Part, ask, request};

const ROWS: usize = 39_244;
/// Cases of the file that are of this table and not native.
const CASES: usize = 32;

pub fn data() -> Option<PathBuf> {
    let given = std::env::var_os("SEAWALL_TEST_DATA").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let found = given.or(Some(beside)).filter(|path| path.join("druid-expected.json").exists());
    if found.is_none() {
        println!("skipped: no test data; set SEAWALL_TEST_DATA to the folder with druid-expected.json");
    }
    found
}

/// The tutorial's supervisor spec, with the types that its HTTP example shows.
fn spec() -> Value {
    let mut dimensions: Vec<Value> = [
        "channel",
        "cityName",
        "comment",
        "countryIsoCode",
        "countryName",
        "isAnonymous",
        "isMinor",
        "isNew",
        "isRobot",
        "isUnpatrolled",
    ]
    .map(|name| json!(name))
    .to_vec();
    dimensions.push(json!({"name": "metroCode", "type": "long"}));
    dimensions.extend(["namespace", "page", "regionIsoCode", "regionName", "user"].map(|name| json!(name)));
    dimensions.extend(["delta", "added", "deleted"].map(|name| json!({"name": name, "type": "long"})));
    json!({
        "type": "kafka",
        "spec": {
            "dataSchema": {
                "dataSource": "wikipedia",
                "timestampSpec": {"column": "time", "format": "auto"},
                "dimensionsSpec": {"dimensions": dimensions},
                "granularitySpec": {"segmentGranularity": "DAY", "queryGranularity": "NONE", "rollup": false}
            },
            "ioConfig": {"topic": "wikipedia", "inputFormat": {"type": "json"}}
        }
    })
}

/// The rows as the ingestor makes them of Kafka batches.
fn rows(data: &Path) -> (Arc<store::schema::TableSchema>, Vec<RecordBatch>) {
    let file = std::fs::File::open(data.join("wikiticker-2015-09-12-sampled.json.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let spec = Arc::new(from_supervisor(&spec()).unwrap());
    let mut ingestor = Ingestor::new(Arc::clone(&spec), &spec.initial_schema(), PartitionIndex(0));
    let lines: Vec<&str> = text.lines().collect();
    let mut batches = Vec::new();
    for chunk in lines.chunks(5_000) {
        let mut builder = BatchBuilder::new(Codec::Lz4);
        for line in chunk {
            builder.push(Timestamp(0), None, Some(line.as_bytes()), &[]);
        }
        let mut batch = builder.build().unwrap().to_vec();
        // What a leader does: the batch gets its place in the partition.
        let base: usize = batches.iter().map(RecordBatch::num_rows).sum();
        batch[..8].copy_from_slice(&(base as i64).to_be_bytes());
        let decoded = base::records::decode(&batch).unwrap();
        let outcome = ingestor.push_batch(Timestamp(1_442_102_400_000), &decoded);
        assert_eq!(outcome.accepted as usize, chunk.len(), "{outcome:?}");
        while let Some((rows, _)) = ingestor.take_rows() {
            batches.push(rows);
        }
    }
    (ingestor.schema(), batches)
}

fn service(data: &Path) -> QueryService {
    let (schema, batches) = rows(data);
    let mut catalog = MemoryCatalog::default();
    // Both kinds of segment: the first batches as a column file, the others as live rows.
    let parts = batches.iter().enumerate().map(|(at, rows)| match at {
        0..4 => Part::File(Bytes::from(store::segment::Segment::encode(rows).unwrap())),
        _ => Part::Live(rows.clone()),
    });
    catalog.add_parts("wikipedia", schema.as_ref().clone(), parts.collect());
    catalog.alias("compaction-tutorial", "wikipedia");
    catalog.service()
}

/// Cells are display strings: NULL and '' are alike, numbers are compared as numbers, times as milliseconds.
fn same(expected: &Value, found: Option<&str>) -> bool {
    let found = found.unwrap_or("");
    match expected {
        Value::Null => found.is_empty(),
        Value::String(text) if text.is_empty() => found.is_empty(),
        Value::Number(number) => {
            let wanted = number.as_f64().unwrap();
            let as_time =
                store::calendar::parse_iso(found).ok().filter(|_| found.contains('T')).map(|time| time.0 as f64);
            let value = as_time.or_else(|| found.parse().ok());
            value.is_some_and(|value| (value - wanted).abs() <= 1e-9 * wanted.abs().max(1.0))
        }
        Value::String(text) => {
            text == found
                || matches!((store::calendar::parse_iso(text), store::calendar::parse_iso(found)), (Ok(a), Ok(b)) if a == b)
        }
        Value::Array(items) => {
            let items: Vec<String> =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
            found == format!("[{}]", items.join(", "))
        }
        other => serde_json::to_string(other).is_ok_and(|text| text == found),
    }
}

fn row_matches(expected: &Value, found: &[Option<String>]) -> bool {
    let expected = expected.as_array().unwrap();
    expected.len() == found.len()
        && expected.iter().zip(found).all(|(expected, found)| same(expected, found.as_deref()))
}

/// Every expected row is found once, in order if the query says an order.
fn compare(expected: &[Value], answer: &Answer, ordered: bool) -> Result<(), String> {
    if expected.len() != answer.rows.len() {
        return Err(format!("{} rows, expected {}: {:?}", answer.rows.len(), expected.len(), answer.rows.first()));
    }
    if ordered {
        return match expected.iter().zip(&answer.rows).find(|(expected, found)| !row_matches(expected, found)) {
            Some((expected, found)) => Err(format!("row {found:?}, expected {expected}")),
            None => Ok(()),
        };
    }
    let mut left: Vec<&Vec<Option<String>>> = answer.rows.iter().collect();
    for row in expected {
        let Some(at) = left.iter().position(|found| row_matches(row, found)) else {
            return Err(format!("no row {row} among {:?}", left.iter().take(3).collect::<Vec<_>>()));
        };
        left.swap_remove(at);
    }
    Ok(())
}

async fn run_case(service: &QueryService, case: &Value, dialect: Dialect) -> Result<(), String> {
    let http = case["kind"] == "sql-http";
    let sql = if http { &case["query"]["query"] } else { &case["query"] }.as_str().unwrap();
    let mut request = request(sql, dialect);
    let context = if http { &case["query"]["context"] } else { &case["context"] };
    request.context = context.as_object().cloned().unwrap_or_default();
    let answer = ask(service, request).await.map_err(|error| error.to_string())?;
    if case["kind"].as_str().unwrap().starts_with("explain") {
        // The plan's text is Druid's own; ours has to be one, and about the table.
        let text = format!("{:?}", answer.rows);
        return if text.contains("wikipedia") { Ok(()) } else { Err(format!("no plan of the table: {text}")) };
    }
    if http {
        return compare_http(case, &answer);
    }
    if let (Some(columns), Dialect::Druid) = (case["columns"].as_array(), dialect) {
        let columns: Vec<&str> = columns.iter().map(|name| name.as_str().unwrap()).collect();
        if answer.names != columns {
            return Err(format!("columns {:?}, expected {columns:?}", answer.names));
        }
    }
    let ordered = case["ordered"] == json!(true) || sql.trim_end().to_lowercase().ends_with("order by 1 desc, 2 desc");
    compare(case["expected_rows"].as_array().unwrap(), &answer, ordered)
}

/// Objects by column name; with headers the first one names the types.
fn compare_http(case: &Value, answer: &Answer) -> Result<(), String> {
    let mut expected = case["expected_response"].as_array().unwrap().clone();
    let stream = answer.stream.as_ref().unwrap();
    if case["query"]["header"] == json!(true) {
        let header = expected.remove(0);
        for (column, (name, types)) in stream.columns.iter().zip(header.as_object().unwrap()) {
            let found = json!({"type": column.druid_type, "sqlType": column.sql_type});
            if &column.name != name || &found != types {
                return Err(format!("column {} is {found}, expected {name} {types}", column.name));
            }
        }
    }
    let rows: Vec<Value> =
        expected.iter().map(|row| Value::Array(row.as_object().unwrap().values().cloned().collect())).collect();
    compare(&rows, answer, true)
}

#[tokio::test(flavor = "multi_thread")]
async fn druid_cases() {
    let Some(data) = data() else { return };
    let service = service(&data);
    let text = std::fs::read_to_string(data.join("druid-expected.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let is_ours = |case: &&Value| case["dataset"] == "wikipedia" && case["kind"] != "native";
    let cases: Vec<&Value> = all["cases"].as_array().unwrap().iter().filter(is_ours).collect();
    assert_eq!(cases.len(), CASES, "the file has other cases than it had");
    for dialect in [Dialect::Druid, Dialect::Postgres] {
        let mut wrong = Vec::new();
        for case in &cases {
            // PostgreSQL has no EXPLAIN PLAN FOR columns and no headers, but the same rows.
            if let Err(why) = run_case(&service, case, dialect).await {
                wrong.push(format!("{} {}: {why}", case["id"], case["query"]));
            }
        }
        assert!(wrong.is_empty(), "{dialect:?}: {} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    }
    let count = ask(&service, request("SELECT COUNT(*) FROM wikipedia", Dialect::Druid)).await.unwrap();
    assert_eq!(count.rows, [[Some(ROWS.to_string())]]);
}
