//! A table as the Druid supervisor it would be: the spec people post, given back.

use base::Timestamp;
use serde_json::{Map, Value, json};
use store::calendar::format_iso;
use store::schema::MetricKind;
use store::spec::{
    DimensionType, Discover, InputFormat, Lines, MetricSpec, RECORD_TIME_COLUMN, Rejection, TableSpec, TimestampSpec,
};

/// Druid's name of the record's own timestamp.
const KAFKA_TIMESTAMP: &str = "kafka.timestamp";
/// Druid's default task duration, which it adds to an early rejection period.
const TASK_DURATION_MS: i64 = 3_600_000;

/// `{"type":"kafka","spec":{...},"context":null,"suspended":...}`.
pub fn supervisor_spec(table: &TableSpec, bootstrap: &str, suspended: bool) -> Value {
    json!({
        "type": "kafka",
        "spec": {
            "dataSchema": data_schema(table),
            "ioConfig": io_config(table, bootstrap),
            "tuningConfig": tuning_config(table),
        },
        "context": null,
        "suspended": suspended,
    })
}

fn data_schema(table: &TableSpec) -> Value {
    json!({
        "dataSource": table.name,
        "timestampSpec": timestamp(&table.timestamp),
        "dimensionsSpec": {
            "dimensions": table.dimensions.declared.iter().map(|dimension| {
                json!({"type": dimension_type(dimension.kind), "name": dimension.name})
            }).collect::<Vec<_>>(),
            "dimensionExclusions": table.dimensions.exclusions,
            "includeAllDimensions": table.dimensions.discover != Discover::No && !table.dimensions.declared.is_empty(),
            "useSchemaDiscovery": table.dimensions.discover == Discover::Typed,
        },
        "metricsSpec": table.metrics.iter().map(metric).collect::<Vec<_>>(),
        "granularitySpec": {
            "type": "uniform",
            "segmentGranularity": table.segment_granularity,
            "queryGranularity": table.query_granularity,
            "rollup": table.rollup,
            "intervals": [],
        },
        "transformSpec": {"filter": null, "transforms": []},
    })
}

fn timestamp(spec: &TimestampSpec) -> Value {
    let column = spec.columns.first().map_or("timestamp", String::as_str);
    json!({
        "column": if column == RECORD_TIME_COLUMN { KAFKA_TIMESTAMP } else { column },
        "format": spec.format.to_string(),
        "missingValue": spec.missing_value.map(format_iso),
    })
}

fn dimension_type(kind: DimensionType) -> &'static str {
    match kind {
        DimensionType::String => "string",
        DimensionType::Long => "long",
        DimensionType::Double => "double",
        DimensionType::Float => "float",
        DimensionType::Json => "json",
        DimensionType::Auto
        | DimensionType::Boolean
        | DimensionType::Timestamp
        | DimensionType::ArrayString
        | DimensionType::ArrayLong
        | DimensionType::ArrayDouble => "auto",
    }
}

fn metric(metric: &MetricSpec) -> Value {
    let kind = match metric.kind {
        MetricKind::Count => "count",
        MetricKind::LongSum => "longSum",
        MetricKind::LongMin => "longMin",
        MetricKind::LongMax => "longMax",
        MetricKind::DoubleSum => "doubleSum",
        MetricKind::DoubleMin => "doubleMin",
        MetricKind::DoubleMax => "doubleMax",
    };
    let mut object = Map::new();
    object.insert("type".into(), kind.into());
    object.insert("name".into(), metric.name.clone().into());
    if let Some(field) = &metric.field {
        object.insert("fieldName".into(), field.clone().into());
    }
    Value::Object(object)
}

fn io_config(table: &TableSpec, bootstrap: &str) -> Value {
    let mut object = Map::new();
    object.insert("topic".into(), table.topic.clone().into());
    object.insert("inputFormat".into(), input_format(&table.input_format));
    object.insert("replicas".into(), table.live_replicas.into());
    object.insert("taskCount".into(), 1.into());
    object.insert("taskDuration".into(), "PT3600S".into());
    object.insert("consumerProperties".into(), json!({"bootstrap.servers": bootstrap}));
    object.insert("useEarliestOffset".into(), table.use_earliest_offset.into());
    let rejection = |rejection: Rejection, less_ms: i64| match rejection {
        Rejection::PeriodMs(millis) => ("Period", format!("PT{}S", (millis - less_ms).max(0) / 1_000)),
        Rejection::At(Timestamp(at)) => ("StartDateTime", format_iso(Timestamp(at))),
    };
    if let Some(late) = table.late_message_rejection {
        let (kind, value) = rejection(late, 0);
        object.insert(format!("lateMessageRejection{kind}"), value.into());
    }
    if let Some(early) = table.early_message_rejection {
        let (kind, value) = rejection(early, TASK_DURATION_MS);
        object.insert(format!("earlyMessageRejection{kind}"), value.into());
    }
    object.insert("stream".into(), table.topic.clone().into());
    object.insert("type".into(), "kafka".into());
    Value::Object(object)
}

fn input_format(format: &InputFormat) -> Value {
    let delimited = |kind: &str, lines: &Lines| {
        json!({
            "type": kind,
            "columns": lines.columns,
            "delimiter": lines.delimiter,
            "listDelimiter": lines.list_delimiter,
            "findColumnsFromHeader": lines.find_columns_from_header,
            "skipHeaderRows": lines.skip_header_rows,
        })
    };
    match format {
        InputFormat::Json {} => json!({"type": "json"}),
        InputFormat::Csv(lines) => delimited("csv", lines),
        InputFormat::Tsv(lines) => delimited("tsv", lines),
    }
}

fn tuning_config(table: &TableSpec) -> Value {
    json!({
        "type": "kafka",
        "maxRowsPerSegment": table.tuning.rows_per_segment_max,
        "intermediateHandoffPeriod": format!("PT{}S", table.tuning.live_age_ms_max / 1_000),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::spec::from_supervisor;

    fn posted() -> Value {
        json!({
            "type": "kafka",
            "spec": {
                "dataSchema": {
                    "dataSource": "edits",
                    "timestampSpec": {"column": "kafka.timestamp", "format": "millis"},
                    "dimensionsSpec": {"dimensions": ["page", {"type": "long", "name": "added"}], "dimensionExclusions": ["x"]},
                    "metricsSpec": [{"type": "count", "name": "n"}, {"type": "longSum", "name": "s", "fieldName": "added"}],
                    "granularitySpec": {
                        "type": "uniform", "segmentGranularity": "HOUR", "queryGranularity": {"type": "period", "period": "PT5M"},
                        "rollup": true
                    }
                },
                "ioConfig": {
                    "topic": "wiki", "inputFormat": {"type": "csv", "columns": ["a", "b"]}, "useEarliestOffset": true,
                    "lateMessageRejectionPeriod": "PT1H", "earlyMessageRejectionPeriod": "PT2H"
                },
                "tuningConfig": {"type": "kafka", "maxRowsPerSegment": 1000}
            }
        })
    }

    #[test]
    fn what_is_given_back_makes_the_same_table() {
        let table = from_supervisor(&posted()).expect("valid");
        let given = supervisor_spec(&table, "127.0.0.1:9092", false);
        assert_eq!(from_supervisor(&given).expect("valid too"), table);
        assert_eq!(given["spec"]["ioConfig"]["consumerProperties"]["bootstrap.servers"], "127.0.0.1:9092");
        assert_eq!(given["suspended"], false);
    }

    #[test]
    fn a_discovered_table_is_one_again() {
        let table = TableSpec::discover("t", "topic");
        let given = from_supervisor(&supervisor_spec(&table, "h:1", true)).expect("valid");
        assert_eq!(given.dimensions, table.dimensions);
        assert_eq!(given.timestamp.columns, ["__time"], "Druid's spec has room for one column");
    }
}
