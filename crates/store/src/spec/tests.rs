use serde_json::{Value, json};

use super::*;

fn supervisor() -> Value {
    json!({
        "type": "kafka",
        "spec": {
            "dataSchema": {
                "dataSource": "wikipedia",
                "timestampSpec": { "column": "time", "format": "auto" },
                "dimensionsSpec": { "dimensions": ["page", { "name": "added", "type": "long" }] },
                "metricsSpec": [],
                "granularitySpec": { "segmentGranularity": "DAY", "queryGranularity": "NONE", "rollup": false }
            },
            "tuningConfig": { "type": "kafka" },
            "ioConfig": { "topic": "wiki", "inputFormat": { "type": "json" } }
        }
    })
}

/// The supervisor with one value put at a path (of keys, with dots).
fn with(path: &str, value: Value) -> Value {
    let mut json = supervisor();
    let mut place = &mut json["spec"];
    for key in path.split('.') {
        place = &mut place[key];
    }
    *place = value;
    json
}

#[test]
fn a_supervisor_spec_is_read() {
    let spec = from_supervisor(&supervisor()).expect("a spec");
    assert_eq!((spec.name.as_str(), spec.topic.as_str()), ("wikipedia", "wiki"));
    assert_eq!(spec.timestamp.columns, ["time"]);
    assert_eq!(spec.dimensions.discover, Discover::No);
    assert!(!spec.use_earliest_offset && !spec.rollup);
    let names: Vec<String> =
        spec.initial_schema().columns().iter().map(|column| format!("{} {}", column.name, column.ty)).collect();
    assert_eq!(names, ["__time timestamp", "page string", "added long"]);
    assert_eq!(TableSpec::from_json(&spec.to_json()), Ok(spec.clone()));
    // The form without `spec` around, and what Druid's defaults are.
    let bare = json!({
        "type": "kafka",
        "dataSchema": { "dataSource": "t", "timestampSpec": {} },
        "ioConfig": { "topic": "t", "inputFormat": { "type": "json" }, "useEarliestOffset": true }
    });
    let bare = from_supervisor(&bare).expect("a spec");
    assert_eq!(bare.timestamp.columns, ["timestamp"]);
    assert_eq!(bare.dimensions.discover, Discover::Strings);
    assert!(bare.rollup && bare.use_earliest_offset);
    assert_eq!(bare.segment_granularity, Granularity::DAY);
}

#[test]
fn what_is_supported_is_converted() {
    let convert =
        |path: &str, value: Value| from_supervisor(&with(path, value)).unwrap_or_else(|error| panic!("{error}"));
    let late = convert("ioConfig.lateMessageRejectionPeriod", json!("PT1H"));
    assert_eq!(late.late_message_rejection, Some(Rejection::PeriodMs(3_600_000)));
    let early = convert("ioConfig.earlyMessageRejectionPeriod", json!("PT1H"));
    assert_eq!(early.early_message_rejection, Some(Rejection::PeriodMs(7_200_000)), "from the end of the task's hour");
    let start = convert("ioConfig.lateMessageRejectionStartDateTime", json!("1970-01-01T00:00:01Z"));
    assert_eq!(start.late_message_rejection, Some(Rejection::At(Timestamp(1_000))));
    let tuned = convert("tuningConfig", json!({ "maxRowsPerSegment": 7, "intermediateHandoffPeriod": "PT1M" }));
    assert_eq!((tuned.tuning.rows_per_segment_max, tuned.tuning.live_age_ms_max), (7, 60_000));
    let kafka = json!({ "type": "kafka", "valueFormat": { "type": "csv", "columns": ["a"] } });
    assert!(matches!(convert("ioConfig.inputFormat", kafka).input_format, InputFormat::Csv(_)));
    let record =
        convert("dataSchema.timestampSpec", json!({ "column": "kafka.timestamp", "missingValue": "2010-01-01" }));
    assert_eq!(record.timestamp.columns, [RECORD_TIME_COLUMN]);
    let flat = json!({ "type": "json", "flattenSpec": { "fields": [{ "type": "jq", "name": "c", "expr": ".c" }] } });
    assert_eq!(convert("ioConfig.inputFormat", flat).input_format, InputFormat::Json {});
    let discovery =
        convert("dataSchema.dimensionsSpec", json!({ "useSchemaDiscovery": true, "dimensionExclusions": ["x"] }));
    assert_eq!(discovery.dimensions.discover, Discover::Typed);
    let types = json!([
        { "name": "a", "type": "auto", "castToType": "ARRAY<STRING>" },
        { "name": "b", "multiValueHandling": "ARRAY" },
        { "name": "c", "type": "float", "createBitmapIndex": true },
        "__time"
    ]);
    let kinds: Vec<DimensionType> =
        convert("dataSchema.dimensionsSpec.dimensions", types).dimensions.declared.iter().map(|d| d.kind).collect();
    assert_eq!(kinds, [DimensionType::ArrayString, DimensionType::ArrayString, DimensionType::Float]);
    let zone = json!({ "type": "period", "period": "P1D", "timeZone": "Asia/Seoul" });
    assert_eq!(
        convert("dataSchema.granularitySpec.segmentGranularity", zone).segment_granularity.to_string(),
        "P1D in Asia/Seoul"
    );
    // A late window larger than the time chunk is nothing special here: rows go to the chunk of their time.
    assert!(convert("ioConfig.lateMessageRejectionPeriod", json!("P30D")).late_message_rejection.is_some());
    convert("ioConfig.noSuchField", json!(1));
}

#[test]
fn what_is_not_supported_is_refused_with_its_path() {
    for (path, value, expected) in unsupported() {
        let error = from_supervisor(&with(path, value.clone())).expect_err(path).to_string();
        assert!(error.contains(expected), "{path} = {value}:\n  {error}\n  lacks {expected}");
    }
    let kinesis = json!({ "type": "kinesis" });
    assert!(
        from_supervisor(&kinesis).expect_err("refused").to_string().contains("\"kinesis\" ingestion is not supported")
    );
    for no_spec in [json!(null), json!([]), json!("x"), json!({})] {
        assert!(from_supervisor(&no_spec).is_err());
    }
}

#[test]
fn our_own_json_has_defaults_and_names_what_is_wrong() {
    let spec = TableSpec::from_json(r#"{"name":"t","topic":"t"}"#).expect("a spec");
    assert_eq!(spec, TableSpec::discover("t", "t"));
    assert_eq!(TableSpec::from_json(&spec.to_json()), Ok(spec));
    let cases = [
        (r#"{"name":"t"}"#, "missing field `topic`"),
        (r#"{"name":"t","topic":"t","rolup":true}"#, "unknown field `rolup`"),
        (r#"{"name":"","topic":"t"}"#, "is empty"),
        (r#"{"name":".t","topic":"t"}"#, "starts with a dot"),
        (r#"{"name":"t","topic":""}"#, "topic: is empty"),
        (r#"{"name":"t","topic":"t","timestamp":{"format":"qq"}}"#, "timestamp format \"qq\" is unknown"),
        (r#"{"name":"t","topic":"t","timestamp":{"columns":[]}}"#, "no field gives the time"),
        (r#"{"name":"t","topic":"t","segment_granularity":"none"}"#, "time chunk per millisecond"),
        (r#"{"name":"t","topic":"t","metrics":[{"name":"c","kind":"count","field":"x"}]}"#, "a count reads no field"),
        (r#"{"name":"t","topic":"t","tuning":{"rows_per_segment_max":0}}"#, "0 rows"),
        (r#"{"name":"t","topic":"t","input_format":{"type":"csv","columns":["a","a"]}}"#, "\"a\" is there twice"),
        (
            r#"{"name":"t","topic":"t","input_format":{"type":"csv","columns":["a"],"delimiter":"|"}}"#,
            "csv is separated by commas",
        ),
    ];
    for (json, expected) in cases {
        let error = TableSpec::from_json(json).expect_err(json).to_string();
        assert!(error.contains(expected), "{json}: {error}");
    }
}

/// A path in the supervisor's spec, a value there, and a part of what is said about it.
#[expect(clippy::too_many_lines, reason = "a table")]
fn unsupported() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("dataSchema", json!(null), "spec.dataSchema: is missing; give an object"),
        ("dataSchema.dataSource", json!(7), "spec.dataSchema.dataSource: 7 is not a string"),
        ("dataSchema.dataSource", json!("a/b"), "name: \"a/b\" has a slash"),
        (
            "dataSchema.timestampSpec.format",
            json!("yyyy-'"),
            "spec.dataSchema.timestampSpec.format: \"yyyy-'\" is no timestamp format; use auto",
        ),
        (
            "dataSchema.timestampSpec.missingValue",
            json!("soon"),
            "spec.dataSchema.timestampSpec.missingValue: \"soon\" is no ISO-8601 time",
        ),
        (
            "dataSchema.timestampSpec",
            json!({ "colum": "time" }),
            "spec.dataSchema.timestampSpec.colum: is an unknown field; did you mean \"column\"?",
        ),
        ("dataSchema.granularitySpec", json!({ "queryGranularty": "day" }), "did you mean \"queryGranularity\"?"),
        ("dataSchema.granularitySpec.type", json!("arbitrary"), "\"arbitrary\" is not supported; use uniform"),
        ("dataSchema.granularitySpec.segmentGranularity", json!("none"), "segmentGranularity: none would make"),
        ("dataSchema.granularitySpec.queryGranularity", json!("fortnight"), "granularity \"fortnight\" is unknown"),
        (
            "dataSchema.granularitySpec.segmentGranularity",
            json!({ "type": "period", "period": "P1D", "timeZone": "Asia/Soul" }),
            "segmentGranularity: time zone \"Asia/Soul\" is unknown",
        ),
        ("dataSchema.dimensionsSpec.dimensions", json!(["a", "a"]), "\"a\" is there twice"),
        (
            "dataSchema.dimensionsSpec.dimensions",
            json!([{ "name": "a", "type": "geo" }]),
            "spec.dataSchema.dimensionsSpec.dimensions[0].type: dimension type \"geo\" is not supported",
        ),
        (
            "dataSchema.dimensionsSpec.dimensions",
            json!([{ "name": "a", "multiValueHandling": "SORTED_SET" }]),
            "dimensions[0].multiValueHandling",
        ),
        (
            "dataSchema.dimensionsSpec.spatialDimensions",
            json!([{ "dimName": "a" }]),
            "spatial dimensions are not supported",
        ),
        (
            "dataSchema.metricsSpec",
            json!([{ "name": "u", "type": "thetaSketch", "fieldName": "user" }]),
            "spec.dataSchema.metricsSpec[0].type: metric \"u\" of type \"thetaSketch\" is not supported",
        ),
        (
            "dataSchema.metricsSpec",
            json!([{ "name": "u", "type": "stringLast", "fieldName": "user" }]),
            "\"stringLast\" is not supported",
        ),
        ("dataSchema.metricsSpec", json!([{ "name": "u", "type": "longSum" }]), "metricsSpec[0].fieldName: is missing"),
        ("dataSchema.metricsSpec", json!([{ "name": "__time", "type": "count" }]), "\"__time\" is a reserved name"),
        (
            "dataSchema.transformSpec",
            json!({ "transforms": [{ "type": "expression", "name": "x", "expression": "1" }] }),
            "spec.dataSchema.transformSpec.transforms[0]: transform \"x\" is not supported",
        ),
        ("dataSchema.transformSpec", json!({ "filter": { "type": "true" } }), "transformSpec.filter"),
        ("ioConfig.inputFormat", json!(null), "spec.ioConfig.inputFormat: is missing; give an input format"),
        (
            "ioConfig.inputFormat",
            json!({ "type": "protobuf" }),
            "input format \"protobuf\" is not supported; use json, csv or tsv",
        ),
        ("ioConfig.inputFormat", json!({ "type": "csv" }), "input_format.columns: no column is named"),
        ("ioConfig.inputFormat", json!({ "type": "tsv", "columns": ["a"], "delimiter": "" }), "input_format.delimiter"),
        (
            "ioConfig.inputFormat",
            json!({ "type": "json", "flattenSpec": { "fields": [{ "type": "path", "name": "c", "expr": "$.a.b" }] } }),
            "flattening \"$.a.b\" into \"c\" is not supported",
        ),
        (
            "ioConfig.inputFormat",
            json!({ "type": "kafka", "keyFormat": {}, "valueFormat": { "type": "json" } }),
            "inputFormat.keyFormat",
        ),
        ("ioConfig.topicPattern", json!("a.*"), "spec.ioConfig.topicPattern: reading several topics"),
        ("ioConfig.topic", json!(null), "spec.ioConfig.topic: is missing; give a string"),
        (
            "ioConfig",
            json!({ "topik": "t", "inputFormat": { "type": "json" } }),
            "spec.ioConfig.topik: is an unknown field; did you mean \"topic\"?",
        ),
        ("ioConfig.lateMessageRejectionPeriod", json!("1h"), "\"1h\" is no ISO-8601 period"),
        ("ioConfig.lateMessageRejectionPeriod", json!("-PT1H"), "the period is negative"),
        ("tuningConfig.maxRowsPerSegment", json!("many"), "spec.tuningConfig.maxRowsPerSegment"),
    ]
}
