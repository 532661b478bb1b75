//! Druid's own SQL conformance cases, as many as there are tables for. Slow, so only with SEAWALL_ORACLE set: it
//! prints how many give Druid's rows, and why the others do not. Nothing is asserted but that most do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::batch::Codec;
use base::records::BatchBuilder;
use base::{PartitionIndex, Timestamp};
use datafusion::arrow::array::RecordBatch;
use query::Dialect;
use serde_json::{Value, json};
use store::ingest::Ingestor;
use store::schema::TableSchema;
use store::spec::from_supervisor;

use crate::common::{MemoryCatalog, ask, request};
use crate::wikipedia::data;

/// Tables and where their batch spec is.
const TABLES: [(&str, &str); 15] = [
    ("test_win", "qaWin/ingest.json"),
    ("test_sql", "qaSql/ingest.json"),
    ("test_agg_funcs", "qaAggFuncs/ingest.json"),
    ("test_array", "qaArray/ops_funcs/ingest.json"),
    ("test_unnest", "qaUnnest/array/ingest.json"),
    ("customer", "qaTpch/ingest_customer.json"),
    ("lineitem", "qaTpch/ingest_lineitem.json"),
    ("nation", "qaTpch/ingest_nation.json"),
    ("orders", "qaTpch/ingest_orders.json"),
    ("part", "qaTpch/ingest_part.json"),
    ("partsupp", "qaTpch/ingest_partsupp.json"),
    ("region", "qaTpch/ingest_region.json"),
    ("supplier", "qaTpch/ingest_supplier.json"),
    ("ssb_norm_lineorder", "qaSsb/norm/ingest.lineorder.json"),
    ("ssb_denorm", "qaSsb/denorm/ingest.ssb_denorm.json"),
];

/// A case that takes longer counts as wrong.
const CASE_TIMEOUT: Duration = Duration::from_secs(20);

fn load(base: &Path, path: &str) -> Result<(TableSchema, Vec<RecordBatch>), String> {
    let file = base.join(path);
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let spec: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let io = &spec["spec"]["ioConfig"];
    let rows = match io["inputSource"]["data"].as_str() {
        Some(data) => data.to_owned(),
        None => {
            let filter = io["inputSource"]["filter"].as_str().unwrap_or_default();
            let mut text = String::new();
            let file =
                std::fs::File::open(file.parent().unwrap().join("data").join(filter)).map_err(|e| e.to_string())?;
            flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).map_err(|e| e.to_string())?;
            text
        }
    };
    let mut schema = spec["spec"]["dataSchema"].clone();
    schema["granularitySpec"] = json!({"rollup": false, "queryGranularity": "none", "segmentGranularity": "day"});
    let kafka = json!({
        "type": "kafka",
        "spec": {"dataSchema": schema, "ioConfig": {"topic": "t", "inputFormat": io["inputFormat"]}}
    });
    let spec = Arc::new(from_supervisor(&kafka).map_err(|error| error.to_string())?);
    let mut ingestor = Ingestor::new(Arc::clone(&spec), &spec.initial_schema(), PartitionIndex(0));
    let mut batches: Vec<RecordBatch> = Vec::new();
    let mut offset = 0i64;
    for chunk in rows.lines().collect::<Vec<_>>().chunks(5_000) {
        let mut builder = BatchBuilder::new(Codec::None);
        for line in chunk {
            builder.push(Timestamp(0), None, Some(line.as_bytes()), &[]);
        }
        let mut batch = builder.build().unwrap().to_vec();
        batch[..8].copy_from_slice(&offset.to_be_bytes());
        offset += chunk.len() as i64;
        ingestor.push_batch(Timestamp(1_442_102_400_000), &base::records::decode(&batch).unwrap());
        while let Some((rows, _)) = ingestor.take_rows() {
            batches.push(rows);
        }
    }
    let schema = ingestor.schema().as_ref().clone();
    let batches = batches.iter().map(|rows| store::schema::conform(rows, &schema).unwrap()).collect();
    Ok((schema, batches))
}

/// A cell as both sides can write it.
fn plain(text: &str) -> String {
    if let Ok(number) = text.parse::<f64>() {
        return format!("{:.6e}", number + 0.0);
    }
    if let Some(time) = store::calendar::parse_iso(text).ok().filter(|_| text.len() >= 19) {
        return store::calendar::format_iso(time);
    }
    if let Ok(Value::Array(items)) = serde_json::from_str::<Value>(text) {
        let items: Vec<String> =
            items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
        return format!("[{}]", items.join(", "));
    }
    text.to_owned()
}

fn rows_of(case: &Value) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = case["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row.as_array().unwrap().iter().map(|cell| plain(cell.as_str().unwrap_or_default())).collect())
        .collect();
    rows.sort();
    rows
}

#[expect(clippy::too_many_lines, reason = "one measure, told from start to end")]
#[tokio::test(flavor = "multi_thread")]
async fn conformance_cases() {
    if std::env::var_os("SEAWALL_ORACLE").is_none() {
        println!("skipped: set SEAWALL_ORACLE to run Druid's conformance cases");
        return;
    }
    let Some(data) = data() else { return };
    let base = data.join("druid-oracle/qatests");
    let mut catalog = MemoryCatalog::default();
    let mut loaded = BTreeSet::new();
    for (name, path) in TABLES {
        match load(&base, path) {
            Ok((schema, batches)) => {
                println!("{name}: {} rows", batches.iter().map(RecordBatch::num_rows).sum::<usize>());
                catalog.add(name, schema, &batches);
                loaded.insert(name);
            }
            Err(why) => println!("{name} is left out: {why}"),
        }
    }
    let service = catalog.service();
    let file = std::fs::File::open(data.join("druid-oracle/quidem-ok-sample.jsonl.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let mut seen = BTreeSet::new();
    let mut score: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut reasons: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let sql = case["sql"].as_str().unwrap();
        let Some(table) = loaded.iter().find(|table| sql.contains(**table)) else { continue };
        if !seen.insert(sql.to_owned()) {
            continue;
        }
        let mut asked = request(sql, Dialect::Druid);
        asked.context = case["context"].as_object().cloned().unwrap_or_default();
        let answer = tokio::time::timeout(CASE_TIMEOUT, ask(&service, asked)).await;
        let why = match answer {
            Err(_) => Some("timeout".to_owned()),
            Ok(Err(error)) => Some(error.to_string().chars().take(70).collect()),
            Ok(Ok(answer)) => {
                let mut found: Vec<Vec<String>> = answer
                    .rows
                    .iter()
                    .map(|row| row.iter().map(|cell| plain(cell.as_deref().unwrap_or_default())).collect())
                    .collect();
                found.sort();
                let expected = rows_of(&case);
                (found != expected).then(|| {
                    let at = found.iter().zip(&expected).position(|(a, b)| a != b);
                    let pair = at.map(|at| format!("{:?} expected {:?}", found[at], expected[at]));
                    format!("other rows\u{1}{} of {} {}", found.len(), expected.len(), pair.unwrap_or_default())
                })
            }
        };
        let (passed, all) = score.entry(table).or_default();
        *all += 1;
        match why {
            None => *passed += 1,
            Some(why) => {
                let (short, detail) = why.split_once('\u{1}').unwrap_or((&why, ""));
                if short == "other rows" {
                    println!(
                        "## {} | {}",
                        sql.replace('\n', " ").chars().take(600).collect::<String>(),
                        detail.chars().take(400).collect::<String>()
                    );
                }
                let entry =
                    reasons.entry(short.to_owned()).or_insert((0, sql.replace('\n', " ").chars().take(300).collect()));
                entry.0 += 1;
            }
        }
    }
    let mut worst: Vec<_> = reasons.into_iter().collect();
    worst.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    for (why, (count, example)) in worst.iter().take(40) {
        println!("{count:5} {why}\n      {example}");
    }
    let (passed, all) = score.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    println!("{score:?}\n{passed} of {all} cases");
    assert!(passed * 2 > all, "{passed} of {all} cases");
}
