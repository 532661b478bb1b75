//! What goes out: columns with the types of every world, and a stream of batches.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use futures::Stream;
use store::calendar::Zone;
use store::schema::{ColumnType, TYPE_METADATA_JSON, TYPE_METADATA_KEY};

use crate::error::QueryError;

/// One column of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultColumn {
    pub name: String,
    /// Druid's native type: `LONG`, `DOUBLE`, `FLOAT`, `STRING`, `ARRAY<STRING>`, `COMPLEX<json>`, ...
    pub druid_type: String,
    /// SQL type: `TIMESTAMP`, `VARCHAR`, `BIGINT`, `VARCHAR ARRAY`, `OTHER`, ...
    pub sql_type: String,
    /// The type of the column's arrays in every batch.
    pub arrow: DataType,
}

/// What kind of statement it was; the PostgreSQL edge makes its command tag of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatementTag {
    Select,
    Explain,
    Show,
    /// The session should remember `name = value` and pass it in the context of later requests; `None` resets it.
    Set {
        name: String,
        value: Option<String>,
    },
    Begin,
    Commit,
    Rollback,
    /// Nothing but blanks and comments.
    Empty,
    /// Accepted and without effect; the word is the command tag (`DISCARD ALL`, `DEALLOCATE`, ...).
    Other(&'static str),
}

/// The batches of a running query. Dropping it stops the query.
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<RecordBatch, QueryError>> + Send>>;

/// A running query.
pub struct QueryStream {
    pub query_id: String,
    pub tag: StatementTag,
    pub columns: Vec<ResultColumn>,
    /// Schema of every batch; field `i` belongs to `columns[i]`.
    pub schema: SchemaRef,
    pub batches: BatchStream,
    /// `sqlTimeZone` of the query: timestamps are UTC in the batches and are rendered in this zone.
    pub time_zone: Zone,
    /// What the caller should know of the answer: it may miss the newest rows, and why.
    pub warnings: Vec<String>,
}

impl fmt::Debug for QueryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryStream")
            .field("query_id", &self.query_id)
            .field("tag", &self.tag)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

/// What a statement would return, without running it.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    pub tag: StatementTag,
    pub columns: Vec<ResultColumn>,
    /// Types of the parameters, in order. Text where nothing says otherwise.
    pub parameters: Vec<DataType>,
}

/// SQL's name for a column type of the store, as Druid's catalog gives it.
pub fn sql_type_of(ty: ColumnType) -> &'static str {
    match ty {
        ColumnType::String => "VARCHAR",
        ColumnType::Long => "BIGINT",
        ColumnType::Double => "DOUBLE",
        ColumnType::Boolean => "BOOLEAN",
        ColumnType::Timestamp => "TIMESTAMP",
        ColumnType::ArrayString => "VARCHAR ARRAY",
        ColumnType::ArrayLong => "BIGINT ARRAY",
        ColumnType::ArrayDouble => "DOUBLE ARRAY",
        ColumnType::Json => "COMPLEX<json>",
    }
}

/// `java.sql.Types` of a column type.
pub fn jdbc_type(ty: ColumnType) -> i32 {
    match ty {
        ColumnType::String => 12,
        ColumnType::Long => -5,
        ColumnType::Double => 8,
        ColumnType::Boolean => 16,
        ColumnType::Timestamp => 93,
        ColumnType::ArrayString | ColumnType::ArrayLong | ColumnType::ArrayDouble => 2003,
        ColumnType::Json => 1111,
    }
}

/// The types that leave this room: what any other type of a plan is turned into at the end.
pub fn outgoing(ty: &DataType) -> DataType {
    match ty {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::UInt64 | DataType::UInt32 | DataType::UInt16 | DataType::UInt8 | DataType::Int16 | DataType::Int8 => {
            DataType::Int64
        }
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            DataType::Float64
        }
        DataType::Timestamp(..) | DataType::Date64 => DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Interval(_) | DataType::Duration(_) | DataType::Time32(_) | DataType::Time64(_) => DataType::Utf8,
        DataType::Dictionary(_, value) => outgoing(value),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(Field::new_list_field(outgoing(item.data_type()), true)))
        }
        other => other.clone(),
    }
}

/// A result's column for a field of the outgoing schema.
pub fn column_of(field: &Field, name: String) -> ResultColumn {
    let json = field.metadata().get(TYPE_METADATA_KEY).is_some_and(|ty| ty == TYPE_METADATA_JSON);
    let (druid_type, sql_type) = if json {
        ("COMPLEX<json>".to_owned(), "OTHER".to_owned())
    } else {
        (druid_type(field.data_type()), sql_type(field.data_type()))
    };
    ResultColumn { name, druid_type, sql_type, arrow: field.data_type().clone() }
}

fn druid_type(ty: &DataType) -> String {
    match ty {
        DataType::Int64 | DataType::Int32 | DataType::Boolean | DataType::Timestamp(..) | DataType::Date32 => {
            "LONG".to_owned()
        }
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Utf8 => "STRING".to_owned(),
        DataType::List(item) => format!("ARRAY<{}>", druid_type(item.data_type())),
        DataType::Struct(_) | DataType::Map(..) => "COMPLEX<json>".to_owned(),
        other => format!("COMPLEX<{other}>"),
    }
}

fn sql_type(ty: &DataType) -> String {
    match ty {
        DataType::Int64 => "BIGINT",
        DataType::Int32 => "INTEGER",
        DataType::Boolean => "BOOLEAN",
        DataType::Timestamp(..) => "TIMESTAMP",
        DataType::Date32 => "DATE",
        DataType::Float64 => "DOUBLE",
        DataType::Float32 => "FLOAT",
        DataType::Utf8 => "VARCHAR",
        DataType::List(_) => "ARRAY",
        _ => "OTHER",
    }
    .to_owned()
}
