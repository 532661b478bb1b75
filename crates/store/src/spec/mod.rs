//! What a table is made from: where its records come from, how they are read, and how they are kept.
//!
//! Two ways in, one type: our own JSON ([`TableSpec`] by serde, checked by [`TableSpec::check`]) and
//! Druid's Kafka supervisor spec ([`from_supervisor`]; a native batch spec's `dataSchema` has the same
//! shape and is read too, its topic being named after the table). Nothing is half supported: what a spec
//! asks for and Seawall does not do is refused with its JSON path and the reason; fields that mean nothing
//! here are ignored as Druid ignores them, but a likely misspelling of a known field is an error.
//!
//! ```text
//! { "name": "wikipedia", "topic": "wikipedia",
//!   "input_format": { "type": "json" },
//!   "timestamp": { "columns": ["time", "__record_time"], "format": "auto" },
//!   "dimensions": { "declared": [ {"name": "page", "type": "string"} ], "discover": "typed", "exclusions": [] },
//!   "metrics": [ {"name": "count", "kind": "count"}, {"name": "added", "kind": "long_sum", "field": "added"} ],
//!   "query_granularity": "minute", "segment_granularity": "day", "rollup": true,
//!   "late_message_rejection": { "period_ms": 86400000 },
//!   "live_replicas": 2,
//!   "tuning": { "rows_per_segment_max": 1000000 } }
//! ```
//! Only `name` and `topic` must be there. Limits: a declared string dimension that receives an array of
//! several values keeps its JSON text, unless it was declared with `multiValueHandling` or as
//! `array_string`; a `float` is kept as a double rounded to float precision; Druid's transforms, filters,
//! flattenSpec and sketches are not supported yet.

use std::collections::BTreeSet;

use base::Timestamp;
use serde::{Deserialize, Serialize};

use crate::granularity::Granularity;
use crate::rows::timestamp::TimestampFormat;
use crate::schema::{COLUMN_NAME_BYTES_MAX, COLUMNS_MAX, ColumnDef, ColumnType, MetricKind, TIME_COLUMN, TableSchema};

mod place;
mod supervisor;

pub use supervisor::from_supervisor;

/// A timestamp "column" that stands for the Kafka record's own timestamp.
pub const RECORD_TIME_COLUMN: &str = "__record_time";
/// Longest table name in bytes.
pub const TABLE_NAME_BYTES_MAX: usize = 255;
/// Most rows a segment may be asked to hold.
pub const ROWS_PER_SEGMENT_MAX: u64 = 10_000_000;
/// Most bytes of live rows a segment may be asked to hold; one column's strings must stay below 2 GiB.
pub const BYTES_PER_SEGMENT_MAX: u64 = 1 << 30;

/// Replicas that keep live rows unless the spec says otherwise.
pub const LIVE_REPLICAS_DEFAULT: u32 = 2;
/// More replicas than this a partition never has.
pub const LIVE_REPLICAS_MAX: u32 = 7;

/// Everything a table is made from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    pub name: String,
    /// The topic whose records become rows.
    pub topic: String,
    #[serde(default)]
    pub input_format: InputFormat,
    #[serde(default)]
    pub timestamp: TimestampSpec,
    #[serde(default)]
    pub dimensions: Dimensions,
    #[serde(default)]
    pub metrics: Vec<MetricSpec>,
    /// `__time` is cut to this.
    #[serde(default = "no_granularity")]
    pub query_granularity: Granularity,
    /// The time chunk: no segment spans two.
    #[serde(default = "day_granularity")]
    pub segment_granularity: Granularity,
    /// Rows that agree in `__time` and all dimensions become one.
    #[serde(default)]
    pub rollup: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_message_rejection: Option<Rejection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_message_rejection: Option<Rejection>,
    /// True: a new table begins with the topic's oldest record; false: with the next one.
    #[serde(default = "yes")]
    pub use_earliest_offset: bool,
    /// How many replicas of a partition keep its newest rows in memory, ready for queries: the leader and the first of the
    /// others. With 1 the newest rows are read again from the log when a leader dies.
    #[serde(default = "two", skip_serializing_if = "is_two")]
    pub live_replicas: u32,
    #[serde(default)]
    pub tuning: Tuning,
}

fn two() -> u32 {
    LIVE_REPLICAS_DEFAULT
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_two(count: &u32) -> bool {
    *count == LIVE_REPLICAS_DEFAULT
}

fn yes() -> bool {
    true
}

fn no_granularity() -> Granularity {
    Granularity::None
}

fn day_granularity() -> Granularity {
    Granularity::DAY
}

/// How a record's bytes are read. A record may hold several rows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum InputFormat {
    /// JSON objects, one after another.
    Json {},
    /// Comma-separated lines, quoted as RFC 4180 says.
    Csv(Lines),
    /// Lines separated by a delimiter (a tab by default); quotes mean nothing.
    Tsv(Lines),
}

impl Default for InputFormat {
    fn default() -> Self {
        Self::Json {}
    }
}

/// What CSV and TSV have in common.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lines {
    /// Names of the fields in order; empty if the header names them.
    pub columns: Vec<String>,
    /// TSV only: the separator if it is not a tab.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<String>,
    /// Splits one field into several values; Druid's default is the byte 0x01.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list_delimiter: Option<String>,
    /// Lines to skip at the start of every record.
    pub skip_header_rows: usize,
    /// True: the first line (after the skipped ones) of every record names the fields.
    pub find_columns_from_header: bool,
}

/// Where `__time` comes from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimestampSpec {
    /// Fields tried in order; the first that holds a readable time is taken. [`RECORD_TIME_COLUMN`] is the
    /// record's own timestamp.
    pub columns: Vec<String>,
    pub format: TimestampFormat,
    /// Taken when every field is missing or null. Without it such a row goes to the dead letters.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_iso")]
    pub missing_value: Option<Timestamp>,
}

impl Default for TimestampSpec {
    fn default() -> Self {
        let columns = [TIME_COLUMN, "timestamp", "time", RECORD_TIME_COLUMN];
        Self { columns: columns.map(str::to_owned).to_vec(), format: TimestampFormat::default(), missing_value: None }
    }
}

mod optional_iso {
    use base::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::calendar::{format_iso, parse_iso};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_str(&format_iso(*time)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.map(|text| parse_iso(&text).map_err(serde::de::Error::custom)).transpose()
    }
}

/// Which fields become columns.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dimensions {
    pub declared: Vec<DimensionSpec>,
    pub discover: Discover,
    /// Fields that are never discovered.
    pub exclusions: BTreeSet<String>,
}

impl Default for Dimensions {
    fn default() -> Self {
        Self { declared: Vec::new(), discover: Discover::Typed, exclusions: BTreeSet::new() }
    }
}

/// What happens with a field that is not declared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discover {
    /// It is ignored.
    #[default]
    No,
    /// It becomes a column of the narrowest type that holds its values (Druid's `useSchemaDiscovery`).
    /// Booleans are longs 1 and 0, as in Druid. A field without any value that is not null is no column yet.
    Typed,
    /// It becomes a string column if it is a string, number or boolean (Druid's schemaless string dimensions).
    Strings,
}

/// A declared dimension.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DimensionSpec {
    pub name: String,
    #[serde(rename = "type", default)]
    pub kind: DimensionType,
}

/// What a declared dimension holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DimensionType {
    /// As if discovered: a column from its first value on.
    Auto,
    #[default]
    String,
    Long,
    Double,
    /// A double rounded to float precision.
    Float,
    Boolean,
    Timestamp,
    ArrayString,
    ArrayLong,
    ArrayDouble,
    Json,
}

impl DimensionType {
    /// The column's type; none for `auto` until a value says.
    #[must_use]
    pub const fn column_type(self) -> Option<ColumnType> {
        Some(match self {
            Self::Auto => return None,
            Self::String => ColumnType::String,
            Self::Long => ColumnType::Long,
            Self::Double | Self::Float => ColumnType::Double,
            Self::Boolean => ColumnType::Boolean,
            Self::Timestamp => ColumnType::Timestamp,
            Self::ArrayString => ColumnType::ArrayString,
            Self::ArrayLong => ColumnType::ArrayLong,
            Self::ArrayDouble => ColumnType::ArrayDouble,
            Self::Json => ColumnType::Json,
        })
    }
}

/// A metric: computed per row, and added up by rollup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricSpec {
    pub name: String,
    pub kind: MetricKind,
    /// The field it reads; none for `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// Rows outside are counted and dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Rejection {
    /// Further than this from the wall clock when the record is read.
    PeriodMs(i64),
    /// Before (late) or not before (early) this time.
    At(Timestamp),
}

/// When live rows become a segment, and how large one gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tuning {
    /// Live rows of a partition are sealed when there are this many.
    pub rows_per_segment_max: u64,
    /// Or when they take this much memory.
    pub bytes_per_segment_max: u64,
    /// Or when the oldest has been live for this long.
    pub live_age_ms_max: u64,
    /// Or when a time chunk is over and its oldest row has been live for this long.
    pub chunk_grace_ms: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            rows_per_segment_max: 1_000_000,
            bytes_per_segment_max: 512 << 20,
            live_age_ms_max: 10 * 60 * 1_000,
            chunk_grace_ms: 60 * 1_000,
        }
    }
}

/// Why a spec is refused: where in it, what is wrong, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{path}: {problem}; {fix}")]
pub struct SpecError {
    /// The JSON path, as `spec.dataSchema.timestampSpec.format`.
    pub path: String,
    pub problem: String,
    pub fix: String,
}

impl SpecError {
    pub(crate) fn new(path: impl Into<String>, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into(), fix: fix.into() }
    }
}

impl TableSpec {
    /// A table that discovers everything: `__time` from the field `__time`, `timestamp` or `time`, else the
    /// record's own timestamp; every other field a column.
    #[must_use]
    pub fn discover(name: impl Into<String>, topic: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            topic: topic.into(),
            input_format: InputFormat::default(),
            timestamp: TimestampSpec::default(),
            dimensions: Dimensions::default(),
            metrics: Vec::new(),
            query_granularity: Granularity::None,
            segment_granularity: Granularity::DAY,
            rollup: false,
            late_message_rejection: None,
            early_message_rejection: None,
            use_earliest_offset: true,
            live_replicas: LIVE_REPLICAS_DEFAULT,
            tuning: Tuning::default(),
        }
    }

    /// Reads and checks our own JSON form.
    ///
    /// # Errors
    /// With the place and the fix, if it is no spec or [`TableSpec::check`] refuses it.
    pub fn from_json(json: &str) -> Result<Self, SpecError> {
        let spec: Self = serde_json::from_str(json).map_err(|error| {
            let at = format!("line {} column {}", error.line(), error.column());
            SpecError::new(at, error.to_string(), "see the table spec's fields in the documentation")
        })?;
        spec.check()?;
        Ok(spec)
    }

    /// The JSON form that [`TableSpec::from_json`] reads.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A spec has string keys and finite numbers only, so this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// # Errors
    /// If the spec contradicts itself or passes a bound.
    pub fn check(&self) -> Result<(), SpecError> {
        check_name("name", &self.name)?;
        if self.topic.is_empty() {
            return Err(SpecError::new("topic", "is empty", "name the topic to read"));
        }
        self.check_columns()?;
        self.check_lines()?;
        self.check_times()?;
        if !(1..=LIVE_REPLICAS_MAX).contains(&self.live_replicas) {
            let problem = format!("{} replicas are not between 1 and {LIVE_REPLICAS_MAX}", self.live_replicas);
            return Err(SpecError::new("live_replicas", problem, "2 is the default; the leader is one of them"));
        }
        let Tuning { rows_per_segment_max: rows, bytes_per_segment_max: bytes, .. } = self.tuning;
        if !(1..=ROWS_PER_SEGMENT_MAX).contains(&rows) {
            let problem = format!("{rows} rows are not between 1 and {ROWS_PER_SEGMENT_MAX}");
            return Err(SpecError::new("tuning.rows_per_segment_max", problem, "5000000 is a good upper size"));
        }
        if !(1..=BYTES_PER_SEGMENT_MAX).contains(&bytes) {
            let problem = format!("{bytes} bytes are not between 1 and {BYTES_PER_SEGMENT_MAX}");
            return Err(SpecError::new("tuning.bytes_per_segment_max", problem, "536870912 is the default"));
        }
        Ok(())
    }

    fn check_columns(&self) -> Result<(), SpecError> {
        let dimensions = self.dimensions.declared.iter().map(|dimension| ("dimensions.declared", &dimension.name));
        let metrics = self.metrics.iter().map(|metric| ("metrics", &metric.name));
        let mut seen = BTreeSet::new();
        for (path, name) in dimensions.chain(metrics) {
            if name.is_empty() || name.len() > COLUMN_NAME_BYTES_MAX {
                let problem = format!("a column name of {} bytes", name.len());
                return Err(SpecError::new(path, problem, format!("use 1 to {COLUMN_NAME_BYTES_MAX} bytes")));
            }
            if name == TIME_COLUMN || name == RECORD_TIME_COLUMN {
                let fix = "leave it out: __time is always there and comes from the timestamp";
                return Err(SpecError::new(path, format!("{name:?} is a reserved name"), fix));
            }
            if !seen.insert(name) {
                let fix = "give every dimension and metric its own name";
                return Err(SpecError::new(path, format!("{name:?} is there twice"), fix));
            }
        }
        if seen.len() >= COLUMNS_MAX {
            let problem = format!("{} columns are more than {COLUMNS_MAX}", seen.len());
            return Err(SpecError::new("dimensions.declared", problem, "declare fewer"));
        }
        for metric in &self.metrics {
            if (metric.kind == MetricKind::Count) == metric.field.is_some() {
                let problem = format!("{:?}: a count reads no field, every other metric reads one", metric.name);
                return Err(SpecError::new("metrics", problem, "add or remove its field"));
            }
        }
        Ok(())
    }

    fn check_lines(&self) -> Result<(), SpecError> {
        let (InputFormat::Csv(lines) | InputFormat::Tsv(lines)) = &self.input_format else { return Ok(()) };
        if lines.columns.is_empty() && !lines.find_columns_from_header {
            let fix = "list the names, or set findColumnsFromHeader if every record starts with a header line";
            return Err(SpecError::new("input_format.columns", "no column is named", fix));
        }
        if lines.columns.len() > COLUMNS_MAX {
            let problem = format!("{} columns are more than {COLUMNS_MAX}", lines.columns.len());
            return Err(SpecError::new("input_format.columns", problem, "name fewer"));
        }
        let mut seen = BTreeSet::new();
        if let Some(name) = lines.columns.iter().find(|name| !seen.insert(name.as_str())) {
            let problem = format!("{name:?} is there twice");
            return Err(SpecError::new("input_format.columns", problem, "give every field its own name"));
        }
        for (path, delimiter) in [("delimiter", &lines.delimiter), ("list_delimiter", &lines.list_delimiter)] {
            if delimiter.as_ref().is_some_and(|text| text.is_empty() || text.contains(['\n', '\r', '"'])) {
                let path = format!("input_format.{path}");
                return Err(SpecError::new(path, "is empty, a quote or a line break", "use another text, as \\t or |"));
            }
        }
        if matches!(self.input_format, InputFormat::Csv(_)) && lines.delimiter.as_deref().is_some_and(|d| d != ",") {
            let fix = "use the tsv format with a delimiter";
            return Err(SpecError::new("input_format.delimiter", "csv is separated by commas", fix));
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), SpecError> {
        if self.timestamp.columns.is_empty() && self.timestamp.missing_value.is_none() {
            let fix = format!("name a field, or {RECORD_TIME_COLUMN} for the record's own timestamp");
            return Err(SpecError::new("timestamp.columns", "no field gives the time", fix));
        }
        if self.segment_granularity == Granularity::None {
            let fix = "use hour, day, month or a period as P1D";
            return Err(SpecError::new("segment_granularity", "none would make a time chunk per millisecond", fix));
        }
        for (path, rejection) in [
            ("late_message_rejection", self.late_message_rejection),
            ("early_message_rejection", self.early_message_rejection),
        ] {
            if let Some(Rejection::PeriodMs(period)) = rejection
                && period < 0
            {
                return Err(SpecError::new(path, format!("{period} ms is negative"), "use a period as PT1H"));
            }
        }
        Ok(())
    }

    /// The columns that are known before the first record: `__time`, declared dimensions that are not
    /// `auto`, metrics.
    #[must_use]
    pub fn initial_schema(&self) -> TableSchema {
        let dimensions = self
            .dimensions
            .declared
            .iter()
            .filter_map(|dimension| Some(ColumnDef::dimension(&dimension.name, dimension.kind.column_type()?)));
        let metrics = self.metrics.iter().map(|metric| ColumnDef::metric(&metric.name, metric.kind));
        let columns = std::iter::once(ColumnDef::time()).chain(dimensions).chain(metrics).collect();
        // Only a spec that `check` refuses has no schema; then no column is declared.
        TableSchema::new(columns).unwrap_or_else(|_| TableSchema::empty())
    }
}

/// Table names as Druid has them: not empty, no slash, no leading dot, no white space but the blank.
fn check_name(path: &str, name: &str) -> Result<(), SpecError> {
    let bad = |problem: &str| {
        let fix = "use letters, digits, dots, underscores and hyphens";
        Err(SpecError::new(path, format!("{:?} {problem}", crate::calendar::clip(name)), fix))
    };
    if name.is_empty() || name.len() > TABLE_NAME_BYTES_MAX {
        return bad("is empty or longer than 255 bytes");
    }
    if name.starts_with('.') {
        return bad("starts with a dot");
    }
    if name.chars().any(|c| c == '/' || c == '\\' || c.is_control() || (c.is_whitespace() && c != ' ')) {
        return bad("has a slash, a control character or white space in it");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
