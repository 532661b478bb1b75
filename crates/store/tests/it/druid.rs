use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array as _, RecordBatch};
use arrow_cast::display::array_value_to_string;
use base::batch::{Codec, assign};
use base::records::{BatchBuilder, decode};
use base::{Offset, PartitionIndex, Term, Timestamp};
use serde_json::Value;
use store::ingest::{BatchOutcome, Ingestor};
use store::seal::{Manifest, read_parquet, sort_and_roll_up, split_by_chunk, to_parquet};
use store::spec::{TableSpec, from_supervisor};

use crate::data;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&data::read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads records in batches of a thousand through a spec: the rows, and what became of all.
fn ingest(spec: &TableSpec, records: &[Vec<u8>]) -> (Vec<RecordBatch>, BatchOutcome) {
    let spec = Arc::new(spec.clone());
    let mut ingestor = Ingestor::new(Arc::clone(&spec), &spec.initial_schema(), PartitionIndex(0));
    let (mut rows, mut total, mut base) = (Vec::new(), BatchOutcome::default(), 0);
    for chunk in records.chunks(1_000) {
        let mut builder = BatchBuilder::new(Codec::None);
        for record in chunk {
            builder.push(Timestamp(0), None, Some(record), &[]);
        }
        let mut bytes = builder.build().expect("a batch").to_vec();
        assign(&mut bytes, Offset(base), Term(1));
        base += i64::try_from(chunk.len()).expect("small");
        let outcome = ingestor.push_batch(Timestamp(1_700_000_000_000), &decode(&bytes).expect("a good batch"));
        total.accepted += outcome.accepted;
        total.unparseable += outcome.unparseable;
        total.empty += outcome.empty;
        total.dead.extend(outcome.dead);
        while let Some((batch, _)) = ingestor.take_rows() {
            rows.push(batch);
        }
    }
    let schema = ingestor.schema();
    let rows = rows.iter().map(|batch| store::schema::conform(batch, &schema).expect("widens"));
    (rows.collect(), total)
}

fn one(batches: &[RecordBatch]) -> RecordBatch {
    arrow_select::concat::concat_batches(batches[0].schema_ref(), batches).expect("one batch")
}

#[test]
fn wikiticker_is_read_whole_declared_and_discovered() {
    let Some(folder) = data::folder() else { return };
    let lines = data::lines(&folder.join("wikiticker-2015-09-12-sampled.json.gz"));
    assert_eq!(lines.len(), 39_244);
    let declared =
        from_supervisor(&json(&folder.join("druid-tutorial/wikipedia-kafka-supervisor.json"))).expect("a spec");
    for (spec, robot, metro) in
        [(declared, "Utf8", "Utf8"), (TableSpec::discover("wikipedia", "wikipedia"), "Int64", "Int64")]
    {
        let (batches, outcome) = ingest(&spec, &lines);
        assert_eq!((outcome.accepted, outcome.unparseable), (39_244, 0), "{:?}", outcome.dead.first());
        let rows = one(&batches);
        assert_eq!((rows.num_rows(), rows.num_columns()), (39_244, 20));
        let ty = |name: &str| rows.column_by_name(name).expect("a column").data_type().to_string();
        assert_eq!(
            (ty("isRobot"), ty("metroCode"), ty("added")),
            (robot.to_owned(), metro.to_owned(), "Int64".to_owned())
        );
        let first = ["page", "user", "added", "isRobot", "cityName"].map(|name| {
            let column = rows.column_by_name(name).expect("a column");
            if column.is_null(0) { "-".to_owned() } else { array_value_to_string(column, 0).expect("text") }
        });
        let robot = if robot == "Utf8" { "false" } else { "0" };
        assert_eq!(first, ["Talk:Oswald Tilghman", "GELongstreet", "36", robot, "-"]);
        seal_and_read_back(&spec, &rows);
    }
}

fn seal_and_read_back(spec: &TableSpec, rows: &RecordBatch) {
    let chunks = split_by_chunk(rows, spec).expect("chunks");
    assert_eq!(chunks.len(), 1);
    let (interval, rows) = &chunks[0];
    assert_eq!(interval.to_string(), "2015-09-12T00:00:00.000Z/2015-09-13T00:00:00.000Z");
    let rows = sort_and_roll_up(rows, spec).expect("sorts");
    let manifest = Manifest {
        segment: "s".to_owned(),
        table: spec.name.clone(),
        partition: PartitionIndex(0),
        from: Offset(0),
        to: Offset(39_244),
        interval: *interval,
        rows: 39_244,
        created: Timestamp(0),
    };
    let file = to_parquet(&rows, &manifest).expect("written");
    println!("{} rows in {} bytes of Parquet", rows.num_rows(), file.len());
    // For opening it by hand with other readers.
    if let Some(path) = std::env::var_os("SEAWALL_TEST_PARQUET") {
        std::fs::write(path, &file).expect("written");
    }
    assert_eq!(read_parquet(&file).expect("read"), (manifest, rows));
}

/// Every ingestion spec of Druid's own SQL tests is converted, or refused for a thing that it names.
#[test]
fn every_spec_of_the_conformance_tests_is_converted_or_refused_with_the_reason() {
    let Some(folder) = data::folder() else { return };
    let (mut converted, mut refused) = (0, 0);
    for path in data::json_files(&folder.join("druid-oracle/qatests"), "ingest") {
        let json = json(&path);
        match from_supervisor(&json) {
            Err(error) => {
                let text = error.to_string();
                let known = ["transformSpec.transforms[0]: transform", "flattenSpec.fields[", "metricsSpec["];
                assert!(known.iter().any(|known| text.contains(known)), "{}: {text}", path.display());
                refused += 1;
            }
            Ok(spec) => {
                read_its_data(&path, &json, &spec);
                converted += 1;
            }
        }
    }
    println!("{converted} specs converted, {refused} refused");
    assert!(converted >= 20 && converted + refused >= 49, "{converted} converted, {refused} refused");
}

fn read_its_data(path: &Path, json: &Value, spec: &TableSpec) {
    let source = &json["spec"]["ioConfig"]["inputSource"];
    let lines = match source["data"].as_str() {
        Some(inline) => inline.lines().map(|line| line.as_bytes().to_vec()).collect(),
        None => {
            let file = source["filter"].as_str().expect("a file name");
            let beside = path.parent().expect("a folder").join("data").join(file);
            let above = path.parent().expect("a folder").join("../data").join(file);
            let denorm = path.parent().expect("a folder").join("../denorm/data").join(file);
            let found = [beside, above, denorm].into_iter().find(|path| path.is_file());
            data::lines(&found.unwrap_or_else(|| panic!("{}: {file} is not there", path.display())))
        }
    };
    let (_, outcome) = ingest(spec, &lines);
    assert_eq!(outcome.unparseable, 0, "{}: {:?}", path.display(), outcome.dead.first());
    assert_eq!(outcome.accepted, lines.len() as u64, "{}", path.display());
}

/// Druid's three-row files are the same rows in every format.
#[test]
fn json_csv_and_tsv_give_the_same_rows() {
    let Some(folder) = data::folder() else { return };
    let folder = folder.join("druid-integration-tests");
    let columns = [
        "timestamp",
        "page",
        "language",
        "user",
        "unpatrolled",
        "newPage",
        "robot",
        "anonymous",
        "namespace",
        "continent",
        "country",
        "region",
        "city",
        "added",
        "deleted",
        "delta",
    ];
    let mut shown = Vec::new();
    for format in ["json", "csv", "tsv"] {
        let template =
            String::from_utf8(data::read(&folder.join("stream/data/supervisor_spec_template.json"))).expect("text");
        let input = if format == "json" {
            serde_json::json!({ "type": "json" })
        } else {
            serde_json::json!({ "type": format, "columns": columns })
        };
        let spec = template
            .replace("%%STREAM_TYPE%%", "kafka")
            .replace("%%DATASOURCE%%", "wiki")
            .replace("%%PARSER%%", "null")
            .replace("%%TOPIC_KEY%%", "topic")
            .replace("%%TOPIC_VALUE%%", "wiki")
            .replace("%%STREAM_PROPERTIES_KEY%%", "consumerProperties")
            .replace("%%STREAM_PROPERTIES_VALUE%%", "{}")
            .replace("%%USE_EARLIEST_KEY%%", "useEarliestOffset")
            .replace("%%INPUT_FORMAT%%", &input.to_string());
        let spec = from_supervisor(&serde_json::from_str(&spec).expect("JSON")).expect("a spec");
        assert!(spec.rollup, "Druid rolls up unless told otherwise");
        let mut records = Vec::new();
        for file in 1..=3 {
            let path = folder.join(format!("data/batch_index/{format}/wikipedia_index_data{file}.{format}"));
            let skip = usize::from(format != "json");
            records.extend(data::lines(&path).into_iter().skip(skip));
        }
        let (batches, outcome) = ingest(&spec, &records);
        assert_eq!(outcome.unparseable, 0, "{format}: {:?}", outcome.dead.first());
        let rows = sort_and_roll_up(&one(&batches), &spec).expect("rolls up");
        let column = |name: &str| {
            let column = rows.column_by_name(name).expect("a column");
            (0..rows.num_rows())
                .map(|row| array_value_to_string(column, row).expect("text").to_lowercase())
                .collect::<Vec<_>>()
        };
        shown.push((format, ["page", "user", "robot", "added", "delta", "count"].map(column)));
    }
    assert_eq!(shown[0].1, shown[1].1, "json and csv");
    assert_eq!(shown[0].1, shown[2].1, "json and tsv");
}
