//! A table's columns: names, types, roles; how they widen; and the Arrow types at the seam.
//!
//! ```text
//! String      Utf8                      ArrayString  List<Utf8>
//! Long        Int64                     ArrayLong    List<Int64>
//! Double      Float64                   ArrayDouble  List<Float64>
//! Boolean     Boolean                   Json         Utf8, field metadata seawall.type = json
//! Timestamp   Timestamp(ms, no zone)    __time       Timestamp(ms, no zone), never null, always first
//! ```
//! Column names are case-sensitive and unique. A schema only widens, by [`ColumnType::widen`]; a segment
//! may hold a narrower type than its table has by now, or lack a column: [`conform`] brings a batch to
//! the table's schema. Deliberately not here: how values are parsed (`rows`) and stored (`segment`).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

/// The time column of every table.
pub const TIME_COLUMN: &str = "__time";
/// Most columns of one table. A record that would add more goes to the dead letters.
pub const COLUMNS_MAX: usize = 4_000;
/// Longest column name in bytes.
pub const COLUMN_NAME_BYTES_MAX: usize = 1_024;
/// The Arrow field metadata key that tells JSON text from other strings.
pub const TYPE_METADATA_KEY: &str = "seawall.type";
/// Its value for [`ColumnType::Json`].
pub const TYPE_METADATA_JSON: &str = "json";

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    String,
    Long,
    Double,
    Boolean,
    /// Milliseconds since 1970-01-01 UTC.
    Timestamp,
    ArrayString,
    ArrayLong,
    ArrayDouble,
    /// Compact JSON text; a JSON null is a null of the column.
    Json,
}

/// How values of a metric column add up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// How many records; never null.
    Count,
    LongSum,
    LongMin,
    LongMax,
    DoubleSum,
    DoubleMin,
    DoubleMax,
}

/// What a column is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnRole {
    Time,
    Dimension,
    Metric(MetricKind),
}

/// One column.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ColumnDef {
    pub name: String,
    #[serde(rename = "type")]
    pub ty: ColumnType,
    pub role: ColumnRole,
}

/// A table's columns. The first is `__time`; names are unique.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TableSchema {
    columns: Vec<ColumnDef>,
}

/// Why columns are no schema, or a batch does not fit one.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("the first column must be __time of type timestamp, found {found}; put it first")]
    NoTime { found: String },
    #[error("column {name:?} is there twice; rename one of them")]
    Duplicate { name: String },
    #[error("{count} columns are more than {COLUMNS_MAX}; declare the dimensions or exclude some")]
    TooMany { count: usize },
    #[error("column name of {bytes} bytes is longer than {COLUMN_NAME_BYTES_MAX}")]
    NameTooLong { bytes: usize },
    #[error("column {name:?} has the Arrow type {found}, which no column type of a table has")]
    ArrowType { name: String, found: String },
    #[error("column {name:?}: {source}")]
    Cast { name: String, source: ArrowError },
}

impl ColumnType {
    /// The Arrow type at the seam.
    #[must_use]
    pub fn arrow(self) -> DataType {
        let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
        match self {
            Self::String | Self::Json => DataType::Utf8,
            Self::Long => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Boolean => DataType::Boolean,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, None),
            Self::ArrayString => list(DataType::Utf8),
            Self::ArrayLong => list(DataType::Int64),
            Self::ArrayDouble => list(DataType::Float64),
        }
    }

    /// The narrowest type that holds every value of both. Symmetric.
    #[must_use]
    pub fn widen(self, other: Self) -> Self {
        use ColumnType::{ArrayDouble, ArrayLong, ArrayString, Boolean, Double, Json, Long, String, Timestamp};
        if self == other {
            return self;
        }
        match (self, other) {
            (Json, _) | (_, Json) => Json,
            (a, b) if a.is_array() || b.is_array() => match a.element().widen(b.element()) {
                Long | Boolean => ArrayLong,
                Double => ArrayDouble,
                String | Timestamp | Json | ArrayString | ArrayLong | ArrayDouble => ArrayString,
            },
            (Long, Double) | (Double, Long) | (Boolean, Double) | (Double, Boolean) => Double,
            (Long, Boolean) | (Boolean, Long) => Long,
            _ => String,
        }
    }

    /// True for the three array types.
    #[must_use]
    pub const fn is_array(self) -> bool {
        matches!(self, Self::ArrayString | Self::ArrayLong | Self::ArrayDouble)
    }

    /// The type of an array's elements; of any other type, itself.
    #[must_use]
    pub const fn element(self) -> Self {
        match self {
            Self::ArrayString => Self::String,
            Self::ArrayLong => Self::Long,
            Self::ArrayDouble => Self::Double,
            other => other,
        }
    }

    /// Druid's native name: what `typesHeader` says.
    #[must_use]
    pub const fn druid_name(self) -> &'static str {
        match self {
            Self::String => "STRING",
            Self::Long | Self::Boolean | Self::Timestamp => "LONG",
            Self::Double => "DOUBLE",
            Self::ArrayString => "ARRAY<STRING>",
            Self::ArrayLong => "ARRAY<LONG>",
            Self::ArrayDouble => "ARRAY<DOUBLE>",
            Self::Json => "COMPLEX<json>",
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "string",
            Self::Long => "long",
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
            Self::ArrayString => "array_string",
            Self::ArrayLong => "array_long",
            Self::ArrayDouble => "array_double",
            Self::Json => "json",
        })
    }
}

impl MetricKind {
    /// The type of the column that holds it.
    #[must_use]
    pub const fn column_type(self) -> ColumnType {
        match self {
            Self::Count | Self::LongSum | Self::LongMin | Self::LongMax => ColumnType::Long,
            Self::DoubleSum | Self::DoubleMin | Self::DoubleMax => ColumnType::Double,
        }
    }
}

impl ColumnDef {
    #[must_use]
    pub fn time() -> Self {
        Self { name: TIME_COLUMN.to_owned(), ty: ColumnType::Timestamp, role: ColumnRole::Time }
    }

    #[must_use]
    pub fn dimension(name: impl Into<String>, ty: ColumnType) -> Self {
        Self { name: name.into(), ty, role: ColumnRole::Dimension }
    }

    #[must_use]
    pub fn metric(name: impl Into<String>, kind: MetricKind) -> Self {
        Self { name: name.into(), ty: kind.column_type(), role: ColumnRole::Metric(kind) }
    }

    fn field(&self) -> Field {
        let field = Field::new(&self.name, self.ty.arrow(), self.role != ColumnRole::Time);
        match self.ty {
            ColumnType::Json => {
                field.with_metadata(HashMap::from([(TYPE_METADATA_KEY.to_owned(), TYPE_METADATA_JSON.to_owned())]))
            }
            _ => field,
        }
    }
}

impl TableSchema {
    /// # Errors
    /// If the first column is not `__time`, a name is there twice or too long, or there are too many.
    pub fn new(columns: Vec<ColumnDef>) -> Result<Self, SchemaError> {
        match columns.first() {
            Some(first) if *first == ColumnDef::time() => {}
            first => {
                let found = first.map_or_else(|| "no column".to_owned(), |first| format!("{:?}", first.name));
                return Err(SchemaError::NoTime { found });
            }
        }
        if columns.len() > COLUMNS_MAX {
            return Err(SchemaError::TooMany { count: columns.len() });
        }
        let mut names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        if let Some(name) = names.iter().find(|name| name.len() > COLUMN_NAME_BYTES_MAX) {
            return Err(SchemaError::NameTooLong { bytes: name.len() });
        }
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(SchemaError::Duplicate { name: pair[0].to_owned() });
        }
        Ok(Self { columns })
    }

    /// The schema of a table with no column but `__time`.
    #[must_use]
    pub fn empty() -> Self {
        Self { columns: vec![ColumnDef::time()] }
    }

    #[must_use]
    pub fn columns(&self) -> &[ColumnDef] {
        &self.columns
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Never true: `__time` is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    #[must_use]
    pub fn column(&self, name: &str) -> Option<&ColumnDef> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The same columns as Arrow has them at the seam.
    #[must_use]
    pub fn arrow(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(ColumnDef::field).collect::<Fields>()))
    }

    /// Reads an Arrow schema back. Roles are lost: every column but `__time` becomes a dimension.
    ///
    /// # Errors
    /// If a type is none of a table's, or as [`TableSchema::new`].
    pub fn from_arrow(schema: &Schema) -> Result<Self, SchemaError> {
        let columns = schema
            .fields()
            .iter()
            .map(|field| {
                let ty = type_of(field)?;
                if field.name() == TIME_COLUMN && ty == ColumnType::Timestamp {
                    return Ok(ColumnDef::time());
                }
                Ok(ColumnDef::dimension(field.name(), ty))
            })
            .collect::<Result<_, SchemaError>>()?;
        Self::new(columns)
    }

    /// Every column of both: those of `self` in their order, widened, then what only `other` has. A column
    /// keeps the role it has in `self`; a metric keeps its type.
    ///
    /// # Errors
    /// If there would be too many columns.
    pub fn merge(&self, other: &Self) -> Result<Self, SchemaError> {
        let mut columns = self.columns.clone();
        for column in &other.columns {
            match self.index_of(&column.name) {
                Some(at) if columns[at].role == ColumnRole::Dimension => {
                    columns[at].ty = columns[at].ty.widen(column.ty);
                }
                Some(_) => {}
                None => columns.push(column.clone()),
            }
        }
        Self::new(columns)
    }
}

impl<'de> Deserialize<'de> for TableSchema {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Plain {
            columns: Vec<ColumnDef>,
        }
        let plain = Plain::deserialize(deserializer)?;
        Self::new(plain.columns).map_err(serde::de::Error::custom)
    }
}

/// Brings a batch to `schema`: columns in its order, casts to its types, nulls where the batch has none.
/// Columns that `schema` lacks are dropped. Without a difference, nothing is copied.
///
/// # Errors
/// If a column cannot be cast; the table's schema is then not one that this batch's widened to.
pub fn conform(batch: &RecordBatch, schema: &TableSchema) -> Result<RecordBatch, SchemaError> {
    let arrow = schema.arrow();
    let columns = arrow
        .fields()
        .iter()
        .zip(schema.columns())
        .map(|(field, column)| match batch.column_by_name(field.name()) {
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            Some(array) if same_type(batch, field) => Ok(Arc::clone(array)),
            Some(array) => widen_to(batch, array, column),
        })
        .collect::<Result<Vec<ArrayRef>, SchemaError>>()?;
    RecordBatch::try_new(arrow, columns).map_err(|source| SchemaError::Cast { name: TIME_COLUMN.to_owned(), source })
}

/// JSON and strings have one Arrow type and differ in their metadata.
fn same_type(batch: &RecordBatch, field: &Field) -> bool {
    let schema = batch.schema();
    let json = |field: &Field| field.metadata().get(TYPE_METADATA_KEY).is_some_and(|ty| ty == TYPE_METADATA_JSON);
    schema
        .field_with_name(field.name())
        .is_ok_and(|has| has.data_type() == field.data_type() && json(has) == json(field))
}

fn widen_to(batch: &RecordBatch, array: &ArrayRef, column: &ColumnDef) -> Result<ArrayRef, SchemaError> {
    let schema = batch.schema();
    let field = schema.field_with_name(&column.name);
    let cast = |source| SchemaError::Cast { name: column.name.clone(), source };
    let from = type_of(field.map_err(cast)?)?;
    widen_array(array, from, column.ty).map_err(cast)
}

fn type_of(field: &Field) -> Result<ColumnType, SchemaError> {
    let unknown = || SchemaError::ArrowType { name: field.name().clone(), found: field.data_type().to_string() };
    Ok(match field.data_type() {
        DataType::Utf8 if field.metadata().get(TYPE_METADATA_KEY).is_some_and(|ty| ty == TYPE_METADATA_JSON) => {
            ColumnType::Json
        }
        DataType::Utf8 => ColumnType::String,
        DataType::Int64 => ColumnType::Long,
        DataType::Float64 => ColumnType::Double,
        DataType::Boolean => ColumnType::Boolean,
        DataType::Timestamp(TimeUnit::Millisecond, None) => ColumnType::Timestamp,
        DataType::List(item) => match item.data_type() {
            DataType::Utf8 => ColumnType::ArrayString,
            DataType::Int64 => ColumnType::ArrayLong,
            DataType::Float64 => ColumnType::ArrayDouble,
            _ => return Err(unknown()),
        },
        _ => return Err(unknown()),
    })
}

mod widen;

pub use widen::widen_array;

#[cfg(test)]
mod tests;
