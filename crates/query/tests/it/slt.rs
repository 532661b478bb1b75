//! Runs `testdata/*.slt`: statements and their answers as text.
//!
//! ```text
//! query [postgres] [names] [sorted] [contains] [zone=..]    error [postgres] part of the message
//! SELECT ...                                               SELECT ...
//! ----
//! cell | cell
//! ```

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
    TimestampMillisecondArray,
};
use query::{Dialect, QueryService};
use store::schema::{ColumnDef, ColumnType, TableSchema};

use crate::common::{MemoryCatalog, ask, request};

const HOUR: i64 = 3_600_000;

/// Eight rows over two days of 2000 (946684800000 is 2000-01-01), with NULL in every column that may be.
fn small_table() -> (TableSchema, Vec<RecordBatch>) {
    let schema = TableSchema::new(vec![
        ColumnDef::time(),
        ColumnDef::dimension("city", ColumnType::String),
        ColumnDef::dimension("user", ColumnType::String),
        ColumnDef::dimension("n", ColumnType::Long),
        ColumnDef::dimension("d", ColumnType::Double),
        ColumnDef::dimension("b", ColumnType::Boolean),
        ColumnDef::dimension("tags", ColumnType::ArrayString),
        ColumnDef::dimension("seen", ColumnType::Timestamp),
        ColumnDef::dimension("Mixed Case", ColumnType::String),
    ])
    .unwrap();
    let start = 946_684_800_000;
    let times = [0, 1, 1, 5, 23, 24, 30, 47].map(|hour| start + hour * HOUR);
    let mut tags = ListBuilder::new(StringBuilder::new());
    for row in [&["x", "y"][..], &["x"], &[], &["z"], &["y", "z"], &["x"], &["w"], &["x", "x"]] {
        row.iter().for_each(|tag| tags.values().append_value(tag));
        tags.append(!row.is_empty());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from(times.to_vec())),
        Arc::new(StringArray::from(vec![
            Some("Seoul"),
            Some("Busan"),
            None,
            Some("Seoul"),
            Some(""),
            Some("Busan"),
            Some("Seoul"),
            Some("Jeju"),
        ])),
        Arc::new(StringArray::from(vec!["a", "b", "a", "c", "b", "a", "d", "a"])),
        Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(3), None, Some(5), Some(6), Some(-7), Some(8)])),
        Arc::new(Float64Array::from(vec![
            Some(0.5),
            None,
            Some(1.5),
            Some(2.5),
            Some(-1.0),
            Some(0.0),
            Some(10.25),
            Some(3.0),
        ])),
        Arc::new(BooleanArray::from(vec![
            Some(true),
            Some(false),
            None,
            Some(true),
            Some(false),
            Some(true),
            Some(true),
            Some(false),
        ])),
        Arc::new(tags.finish()),
        Arc::new(TimestampMillisecondArray::from(vec![
            Some(start),
            None,
            Some(start + HOUR),
            Some(start),
            Some(start),
            None,
            Some(start + 2 * HOUR),
            Some(start),
        ])),
        Arc::new(StringArray::from(vec!["one", "two", "three", "four", "five", "six", "seven", "eight"])),
    ];
    let batch = RecordBatch::try_new(schema.arrow(), columns).unwrap();
    (schema, vec![batch.slice(0, 5), batch.slice(5, 3)])
}

/// `t` and a table like it without rows.
pub fn small_catalog() -> MemoryCatalog {
    let mut catalog = MemoryCatalog::default();
    let (schema, batches) = small_table();
    catalog.add("t", schema.clone(), &batches);
    catalog.add("empty", schema, &[]);
    catalog
}

struct Case {
    place: String,
    head: Vec<String>,
    sql: String,
    expected: Vec<String>,
}

fn cases(file: &str, text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let head = line.split(' ').map(str::to_owned).collect();
        let mut sql = Vec::new();
        let mut expected = Vec::new();
        let mut answer = false;
        while let Some((_, line)) = lines.next_if(|(_, line)| !line.is_empty()) {
            match (line, answer) {
                ("----", _) => answer = true,
                (line, true) => expected.push(line.trim_end().to_owned()),
                (line, false) => sql.push(line),
            }
        }
        cases.push(Case { place: format!("{file}:{}", number + 1), head, sql: sql.join("\n"), expected });
    }
    cases
}

async fn run(service: &QueryService, case: &Case) -> Result<(), String> {
    let has = |word: &str| case.head.iter().any(|found| found == word);
    let dialect = if has("postgres") { Dialect::Postgres } else { Dialect::Druid };
    let mut request = request(&case.sql, dialect);
    if let Some(zone) = case.head.iter().find_map(|word| word.strip_prefix("zone=")) {
        request.context.insert("sqlTimeZone".into(), zone.into());
    }
    request.context.insert("sqlCurrentTimestamp".into(), "2000-01-03T00:00:00Z".into());
    let answer = ask(service, request).await;
    if case.head[0] == "error" {
        let wanted = case.head[1..].iter().filter(|word| *word != "postgres").cloned().collect::<Vec<_>>().join(" ");
        return match answer {
            Ok(_) => Err("an answer came where an error was expected".into()),
            Err(error) if error.to_string().contains(&wanted) => Ok(()),
            Err(error) => Err(format!("error: {error}\nexpected: {wanted}")),
        };
    }
    let answer = answer.map_err(|error| format!("error: {error:?}"))?;
    let mut found: Vec<String> = answer
        .rows
        .iter()
        .map(|row| {
            let cells: Vec<&str> = row.iter().map(|cell| cell.as_deref().unwrap_or("NULL")).collect();
            cells.join(" | ").trim_end().to_owned()
        })
        .collect();
    if has("contains") {
        let text = found.join("\n");
        return match case.expected.iter().find(|part| !text.contains(part.as_str())) {
            Some(part) => Err(format!("no {part:?} in:\n{text}")),
            None => Ok(()),
        };
    }
    let mut expected = case.expected.clone();
    if has("sorted") {
        found.sort();
        expected.sort();
    }
    if has("names") {
        found.insert(0, answer.names.join(" | "));
    }
    if found == expected { Ok(()) } else { Err(format!("found:\n{}", found.join("\n"))) }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_cases() {
    let service = small_catalog().service();
    let mut wrong = Vec::new();
    let mut count = 0;
    let mut files: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "slt")) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for case in cases(&name, &std::fs::read_to_string(file).unwrap()) {
            count += 1;
            if let Err(why) = run(&service, &case).await {
                wrong.push(format!("{}\n{}\n{why}\n", case.place, case.sql));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} cases:\n\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 0, "no case was found");
}
