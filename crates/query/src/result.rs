//! What goes out: columns with the types of every world, and a stream of batches.

use std::fmt;
use std::pin::Pin;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use futures::Stream;
use store::calendar::Zone;

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
