//! Druid's Kafka supervisor spec, read with the JSON path of everything that is refused.

use std::collections::BTreeSet;

use base::Timestamp;
use serde_json::Value;

use super::place::Place;
use super::{
    DimensionSpec, DimensionType, Dimensions, Discover, InputFormat, LIVE_REPLICAS_DEFAULT, LIVE_REPLICAS_MAX, Lines,
    MetricSpec, RECORD_TIME_COLUMN, ROWS_PER_SEGMENT_MAX, Rejection, SpecError, TableSpec, TimestampSpec, Tuning,
};
use crate::calendar::parse_iso;
use crate::granularity::{Granularity, Period};
use crate::rows::timestamp::TimestampFormat;
use crate::schema::MetricKind;

const DATA_SCHEMA: [&str; 7] =
    ["dataSource", "timestampSpec", "dimensionsSpec", "metricsSpec", "granularitySpec", "transformSpec", "parser"];
const TIMESTAMP: [&str; 3] = ["column", "format", "missingValue"];
const DIMENSIONS: [&str; 6] = [
    "dimensions",
    "dimensionExclusions",
    "spatialDimensions",
    "includeAllDimensions",
    "useSchemaDiscovery",
    "forceSegmentSortByTime",
];
const GRANULARITY: [&str; 5] = ["type", "segmentGranularity", "queryGranularity", "rollup", "intervals"];
const INPUT_FORMAT: [&str; 11] = [
    "type",
    "columns",
    "delimiter",
    "listDelimiter",
    "skipHeaderRows",
    "findColumnsFromHeader",
    "hasHeaderRow",
    "flattenSpec",
    "featureSpec",
    "keepNullColumns",
    "tryParseNumbers",
];
const IO: [&str; 22] = [
    "type",
    "topic",
    "topicPattern",
    "inputFormat",
    "inputSource",
    "consumerProperties",
    "pollTimeout",
    "replicas",
    "taskCount",
    "taskDuration",
    "startDelay",
    "period",
    "useEarliestOffset",
    "completionTimeout",
    "lateMessageRejectionPeriod",
    "lateMessageRejectionStartDateTime",
    "earlyMessageRejectionPeriod",
    "autoScalerConfig",
    "configOverrides",
    "idleConfig",
    "stopTaskCount",
    "appendToExisting",
];
/// What Druid calls the record's own timestamp.
const KAFKA_TIMESTAMP: &str = "kafka.timestamp";
/// Druid's default `taskDuration`.
const TASK_DURATION_MS: u64 = 60 * 60 * 1_000;

/// Reads Druid's Kafka supervisor spec, or a native batch spec, whose `dataSchema` has the same shape and whose
/// topic is then named after the table. `consumerProperties` are ignored: the topic is one of Seawall's own.
///
/// # Errors
/// With the JSON path, what is wrong there and what to do.
pub fn from_supervisor(json: &Value) -> Result<TableSpec, SpecError> {
    let root = Place::root(json);
    root.object()?;
    let streaming = match root.opt_text("type")?.unwrap_or("kafka") {
        "kafka" => true,
        "index_parallel" | "index" => false,
        other => {
            let fix = "use kafka and produce the records to a topic of Seawall";
            return Err(root.get("type").refuse(format!("{other:?} ingestion is not supported"), fix));
        }
    };
    let spec = root.some("spec").unwrap_or(root);
    let schema = spec.get("dataSchema");
    schema.object()?;
    schema.check_spelling(&DATA_SCHEMA)?;
    refuse_transforms(&schema.get("transformSpec"))?;
    let parse = parse_spec(&schema)?;
    let name = schema.get("dataSource").text()?.to_owned();
    let io = spec.get("ioConfig");
    io.check_spelling(&IO)?;
    let (query_granularity, segment_granularity, rollup) = granularities(&schema.get("granularitySpec"))?;
    let metrics = metrics(&schema.get("metricsSpec"))?;
    let of_parse =
        |key: &str| schema.some(key).or_else(|| parse.as_ref()?.some(key)).unwrap_or_else(|| schema.get(key));
    let table = TableSpec {
        topic: if streaming { topic(&io)? } else { name.clone() },
        name,
        input_format: match (io.some("inputFormat"), &parse) {
            (Some(format), _) => input_format(&format, "type")?,
            (None, Some(parse)) => input_format(parse, "format")?,
            (None, None) => return Err(io.get("inputFormat").expected("an input format, as {\"type\": \"json\"}")),
        },
        timestamp: timestamp(&of_parse("timestampSpec"))?,
        dimensions: dimensions(&of_parse("dimensionsSpec"))?,
        metrics,
        query_granularity,
        segment_granularity,
        rollup,
        late_message_rejection: late(&io)?,
        early_message_rejection: early(&io)?,
        use_earliest_offset: !streaming || io.flag("useEarliestOffset", false)?,
        live_replicas: live_replicas(&io)?,
        tuning: tuning(&spec.get("tuningConfig"), &io, streaming)?,
    };
    table.check()?;
    Ok(table)
}

/// The `parseSpec` of the older form.
fn parse_spec<'a>(schema: &Place<'a>) -> Result<Option<Place<'a>>, SpecError> {
    let Some(parser) = schema.some("parser") else { return Ok(None) };
    match parser.opt_text("type")?.unwrap_or("string") {
        "string" | "hadoopyString" => {}
        other => {
            let fix = "use the input format json, csv or tsv";
            return Err(parser.get("type").refuse(format!("{other:?} is not supported"), fix));
        }
    }
    let parse = parser.get("parseSpec");
    parse.object()?;
    Ok(Some(parse))
}

fn refuse_transforms(spec: &Place<'_>) -> Result<(), SpecError> {
    if spec.value.is_null() {
        return Ok(());
    }
    if let Some(first) = spec.get("transforms").items()?.first() {
        let name = first.opt_text("name")?.unwrap_or("");
        let fix = "compute it in the query, or before producing; transforms come in a later release";
        return Err(first.refuse(format!("transform {name:?} is not supported"), fix));
    }
    if let Some(filter) = spec.some("filter") {
        let fix = "filter in the query, or before producing; ingestion filters come in a later release";
        return Err(filter.refuse("a filter at ingestion is not supported", fix));
    }
    Ok(())
}

fn topic(io: &Place<'_>) -> Result<String, SpecError> {
    if let Some(kind) = io.opt_text("type")?
        && kind != "kafka"
    {
        return Err(io.get("type").refuse(format!("{kind:?} is not supported"), "use kafka"));
    }
    if let Some(pattern) = io.some("topicPattern") {
        return Err(pattern.refuse("reading several topics into one table is not supported", "name one topic"));
    }
    Ok(io.get("topic").text()?.to_owned())
}

fn input_format(format: &Place<'_>, type_key: &str) -> Result<InputFormat, SpecError> {
    format.object()?;
    format.check_spelling(&INPUT_FORMAT)?;
    match format.get(type_key).text()? {
        "json" | "jsonLowercase" => {
            check_flatten(&format.get("flattenSpec"))?;
            let features = format.get("featureSpec");
            let on = features.value.as_object().and_then(|all| all.iter().find(|(_, on)| on.as_bool() == Some(true)));
            if let Some((feature, _)) = on {
                let fix = "produce strict JSON";
                return Err(features.get(feature).refuse("JSON parser features are not supported", fix));
            }
            Ok(InputFormat::Json {})
        }
        "csv" => Ok(InputFormat::Csv(lines(format)?)),
        "tsv" | "delimited" => Ok(InputFormat::Tsv(lines(format)?)),
        "kafka" => {
            for part in ["headerFormat", "keyFormat"] {
                if let Some(place) = format.some(part) {
                    let fix = "put what the table needs into the record's value";
                    return Err(place.refuse("columns from record headers and keys are not supported", fix));
                }
            }
            let column = format.opt_text("timestampColumnName")?.unwrap_or(KAFKA_TIMESTAMP);
            if column != KAFKA_TIMESTAMP {
                let fix = format!("leave it out and use {KAFKA_TIMESTAMP} as the timestampSpec's column");
                return Err(format.get("timestampColumnName").refuse("another name is not supported", fix));
            }
            let value = format.get("valueFormat");
            if value.get("type").value.as_str() == Some("kafka") {
                return Err(value.refuse("a kafka format inside a kafka format", "use json, csv or tsv"));
            }
            input_format(&value, "type")
        }
        other => {
            let fix = "use json, csv or tsv; other formats come in a later release";
            Err(format.get(type_key).refuse(format!("input format {other:?} is not supported"), fix))
        }
    }
}

fn lines(format: &Place<'_>) -> Result<Lines, SpecError> {
    let columns = format.get("columns").items()?;
    let columns = columns.iter().map(|name| name.text().map(str::to_owned)).collect::<Result<Vec<_>, _>>()?;
    if format.flag("tryParseNumbers", false)? {
        let fix = "declare the dimensions with their types";
        return Err(format.get("tryParseNumbers").refuse("guessing numbers in text is not supported", fix));
    }
    let skip = format.whole("skipHeaderRows")?.unwrap_or(0);
    Ok(Lines {
        columns,
        delimiter: format.opt_text("delimiter")?.map(str::to_owned),
        list_delimiter: format.opt_text("listDelimiter")?.map(str::to_owned),
        skip_header_rows: usize::try_from(skip).unwrap_or(usize::MAX),
        find_columns_from_header: format.flag("findColumnsFromHeader", false)? || format.flag("hasHeaderRow", false)?,
    })
}

/// Fields that take a root field as it is are what happens anyway; every other is refused.
fn check_flatten(flatten: &Place<'_>) -> Result<(), SpecError> {
    if flatten.value.is_null() {
        return Ok(());
    }
    let fix = "read nested values with JSON_VALUE in the query; flattenSpec comes in a later release";
    if !flatten.flag("useFieldDiscovery", true)? {
        return Err(flatten.get("useFieldDiscovery").refuse("false is not supported", fix));
    }
    for field in flatten.get("fields").items()? {
        let Some(kind) = field.opt_text("type")? else { continue };
        let name = field.get("name").text()?;
        let expr = field.opt_text("expr")?.unwrap_or(name);
        let same = match kind {
            "root" => expr == name,
            "path" => expr.strip_prefix("$.") == Some(name),
            "jq" => expr.strip_prefix('.') == Some(name),
            _ => false,
        };
        if !same {
            return Err(field.refuse(format!("flattening {expr:?} into {name:?} is not supported"), fix));
        }
    }
    Ok(())
}

fn timestamp(spec: &Place<'_>) -> Result<TimestampSpec, SpecError> {
    spec.object()?;
    spec.check_spelling(&TIMESTAMP)?;
    let column = spec.opt_text("column")?.unwrap_or("timestamp");
    let column = if column == KAFKA_TIMESTAMP { RECORD_TIME_COLUMN } else { column };
    let format = match spec.opt_text("format")? {
        None => TimestampFormat::Auto,
        Some(text) => text.parse().map_err(|_| {
            let fix = "use auto, iso, millis, posix, micro, nano, ruby or a Joda pattern as yyyy-MM-dd HH:mm:ss";
            spec.get("format").refuse(format!("{text:?} is no timestamp format"), fix)
        })?,
    };
    let missing_value = spec.some("missingValue").map(|place| time(&place)).transpose()?;
    Ok(TimestampSpec { columns: vec![column.to_owned()], format, missing_value })
}

/// A time as ISO-8601 text or milliseconds.
fn time(place: &Place<'_>) -> Result<Timestamp, SpecError> {
    match place.value {
        Value::Number(number) => number.as_i64().map(Timestamp).ok_or_else(|| place.expected("milliseconds")),
        _ => parse_iso(place.text()?).map_err(|error| place.refuse(error.to_string(), "use ISO-8601")),
    }
}

fn dimensions(spec: &Place<'_>) -> Result<Dimensions, SpecError> {
    if spec.value.is_null() {
        return Ok(Dimensions { discover: Discover::Strings, ..Dimensions::default() });
    }
    spec.object()?;
    spec.check_spelling(&DIMENSIONS)?;
    if let Some(spatial) = spec.get("spatialDimensions").items()?.first() {
        return Err(spatial.refuse("spatial dimensions are not supported", "store the coordinates as two doubles"));
    }
    if !spec.flag("forceSegmentSortByTime", true)? {
        let fix = "leave it out: segments are sorted by time";
        return Err(spec.get("forceSegmentSortByTime").refuse("false is not supported", fix));
    }
    // Druid lets __time stand in the list for its place in the order.
    let declared = spec.get("dimensions").items()?;
    let declared = declared.iter().map(dimension).collect::<Result<Vec<_>, _>>()?;
    let declared: Vec<DimensionSpec> =
        declared.into_iter().filter(|dimension| dimension.name != crate::schema::TIME_COLUMN).collect();
    let discover = if spec.flag("useSchemaDiscovery", false)? {
        Discover::Typed
    } else if declared.is_empty() || spec.flag("includeAllDimensions", false)? {
        Discover::Strings
    } else {
        Discover::No
    };
    let exclusions = spec.get("dimensionExclusions").items()?;
    let exclusions =
        exclusions.iter().map(|name| name.text().map(str::to_owned)).collect::<Result<BTreeSet<_>, _>>()?;
    Ok(Dimensions { declared, discover, exclusions })
}

fn dimension(place: &Place<'_>) -> Result<DimensionSpec, SpecError> {
    if let Some(name) = place.value.as_str() {
        return Ok(DimensionSpec { name: name.to_owned(), kind: DimensionType::String });
    }
    place.object()?;
    let name = place.get("name").text()?.to_owned();
    let kind = match place.opt_text("type")?.unwrap_or("string").to_ascii_lowercase().as_str() {
        "string" => match place.opt_text("multiValueHandling")?.map(str::to_ascii_uppercase).as_deref() {
            None => DimensionType::String,
            Some("ARRAY") => DimensionType::ArrayString,
            Some(other) => {
                let fix = "use ARRAY: values keep their order";
                let problem = format!("multi-value handling {other:?} is not supported");
                return Err(place.get("multiValueHandling").refuse(problem, fix));
            }
        },
        "long" => DimensionType::Long,
        "double" => DimensionType::Double,
        "float" => DimensionType::Float,
        "json" | "nested" => DimensionType::Json,
        "auto" => match place.opt_text("castToType")?.map(str::to_ascii_uppercase).as_deref() {
            None => DimensionType::Auto,
            Some("STRING") => DimensionType::String,
            Some("LONG") => DimensionType::Long,
            Some("DOUBLE") => DimensionType::Double,
            Some("FLOAT") => DimensionType::Float,
            Some("ARRAY<STRING>") => DimensionType::ArrayString,
            Some("ARRAY<LONG>") => DimensionType::ArrayLong,
            Some("ARRAY<DOUBLE>" | "ARRAY<FLOAT>") => DimensionType::ArrayDouble,
            Some("COMPLEX<JSON>") => DimensionType::Json,
            Some(other) => {
                let fix = "use STRING, LONG, DOUBLE or an ARRAY of one of them";
                return Err(place.get("castToType").refuse(format!("{other:?} is not supported"), fix));
            }
        },
        other => {
            let fix = "use string, long, double, float, json or auto";
            return Err(place.get("type").refuse(format!("dimension type {other:?} is not supported"), fix));
        }
    };
    Ok(DimensionSpec { name, kind })
}

fn metrics(spec: &Place<'_>) -> Result<Vec<MetricSpec>, SpecError> {
    spec.items()?.iter().map(metric).collect()
}

fn metric(place: &Place<'_>) -> Result<MetricSpec, SpecError> {
    let name = place.get("name").text()?.to_owned();
    let kind = match place.get("type").text()? {
        "count" => return Ok(MetricSpec { name, kind: MetricKind::Count, field: None }),
        "longSum" => MetricKind::LongSum,
        "longMin" => MetricKind::LongMin,
        "longMax" => MetricKind::LongMax,
        "doubleSum" | "floatSum" => MetricKind::DoubleSum,
        "doubleMin" | "floatMin" => MetricKind::DoubleMin,
        "doubleMax" | "floatMax" => MetricKind::DoubleMax,
        other => {
            let fix = "use count, longSum, longMin, longMax, doubleSum, doubleMin or doubleMax; \
                       first, last and sketches come in a later release";
            return Err(place.get("type").refuse(format!("metric {name:?} of type {other:?} is not supported"), fix));
        }
    };
    if let Some(expression) = place.some("expression") {
        let fix = "name a field in fieldName";
        return Err(expression.refuse("a metric over an expression is not supported", fix));
    }
    Ok(MetricSpec { name, kind, field: Some(place.get("fieldName").text()?.to_owned()) })
}

fn granularities(spec: &Place<'_>) -> Result<(Granularity, Granularity, bool), SpecError> {
    if spec.value.is_null() {
        return Ok((Granularity::None, Granularity::DAY, true));
    }
    spec.object()?;
    spec.check_spelling(&GRANULARITY)?;
    if let Some(kind) = spec.opt_text("type")?
        && kind != "uniform"
    {
        return Err(spec.get("type").refuse(format!("{kind:?} is not supported"), "use uniform"));
    }
    let query = granularity(spec, "queryGranularity")?.unwrap_or(Granularity::None);
    let segment = granularity(spec, "segmentGranularity")?.unwrap_or(Granularity::DAY);
    if segment == Granularity::None {
        let fix = "use hour, day, month or a period";
        return Err(spec.get("segmentGranularity").refuse("none would make a time chunk per millisecond", fix));
    }
    Ok((query, segment, spec.flag("rollup", true)?))
}

fn granularity(spec: &Place<'_>, key: &str) -> Result<Option<Granularity>, SpecError> {
    let Some(place) = spec.some(key) else { return Ok(None) };
    // Read by hand: the error says what is wrong with the zone or the period, not that no variant fits.
    crate::granularity::read_json(place.value)
        .map(Some)
        .map_err(|error| place.refuse(error.to_string(), "see Druid's granularities"))
}

fn late(io: &Place<'_>) -> Result<Option<Rejection>, SpecError> {
    let period = period_ms(io, "lateMessageRejectionPeriod")?;
    let start = io.some("lateMessageRejectionStartDateTime").map(|place| time(&place)).transpose()?;
    match (period, start) {
        (Some(_), Some(_)) => {
            let fix = "keep one of lateMessageRejectionPeriod and lateMessageRejectionStartDateTime";
            Err(io.get("lateMessageRejectionPeriod").refuse("two rules for late messages", fix))
        }
        (Some(period), None) => Ok(Some(Rejection::PeriodMs(period))),
        (None, start) => Ok(start.map(Rejection::At)),
    }
}

/// Druid counts the period from the end of the task; here from now plus the task's duration.
fn early(io: &Place<'_>) -> Result<Option<Rejection>, SpecError> {
    let Some(period) = period_ms(io, "earlyMessageRejectionPeriod")? else { return Ok(None) };
    let task = period_ms(io, "taskDuration")?.unwrap_or(TASK_DURATION_MS.cast_signed());
    Ok(Some(Rejection::PeriodMs(period.saturating_add(task))))
}

fn period_ms(parent: &Place<'_>, key: &str) -> Result<Option<i64>, SpecError> {
    let Some(place) = parent.some(key) else { return Ok(None) };
    let period: Period = place
        .text()?
        .parse()
        .map_err(|error: crate::calendar::CalendarError| place.refuse(error.to_string(), "use PT1H"))?;
    let millis = period.approximate_ms();
    if millis < 0 {
        return Err(place.refuse("the period is negative", "use a period as PT1H"));
    }
    Ok(Some(millis))
}

/// Druid's replicas of a task are what keeps the newest rows there. Its default, 1, is raised to ours.
fn live_replicas(io: &Place<'_>) -> Result<u32, SpecError> {
    let asked = io.whole("replicas")?.unwrap_or(0);
    let most = u32::try_from(asked).unwrap_or(LIVE_REPLICAS_MAX).min(LIVE_REPLICAS_MAX);
    Ok(most.max(LIVE_REPLICAS_DEFAULT))
}

fn tuning(spec: &Place<'_>, io: &Place<'_>, streaming: bool) -> Result<Tuning, SpecError> {
    let mut tuning = Tuning::default();
    if !streaming {
        return Ok(tuning);
    }
    if let Some(rows) = spec.whole("maxRowsPerSegment")? {
        tuning.rows_per_segment_max = rows.clamp(1, ROWS_PER_SEGMENT_MAX);
    }
    for (parent, key) in [(io, "taskDuration"), (spec, "intermediateHandoffPeriod")] {
        if let Some(millis) = period_ms(parent, key)? {
            tuning.live_age_ms_max = tuning.live_age_ms_max.min(millis.unsigned_abs().max(1_000));
        }
    }
    Ok(tuning)
}
