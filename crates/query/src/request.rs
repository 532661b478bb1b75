//! What comes in: a statement, its parameters and its context.

use serde_json::{Map, Value};

/// Whose SQL the text is. The difference is small: catalog tables, parameters, functions, `SHOW`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dialect {
    #[default]
    Druid,
    Postgres,
}

/// The value of one `?` or `$n`.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// SQL type name: `VARCHAR`, `BIGINT`, `DOUBLE`, `TIMESTAMP`, `BOOLEAN`, `ARRAY`, ... Upper or lower case.
    pub sql_type: String,
    /// The value; `TIMESTAMP` and `DATE` as ISO 8601 text or epoch milliseconds.
    pub value: Value,
}

/// One query as an edge received it.
#[derive(Clone, Debug, Default)]
pub struct QueryRequest {
    pub sql: String,
    pub parameters: Vec<Parameter>,
    /// Query context; `SET k = v;` before the statement wins over it. Unknown keys are ignored.
    /// PostgreSQL sessions pass their settings here too (see [`crate::StatementTag::Set`]).
    pub context: Map<String, Value>,
    pub dialect: Dialect,
    /// Who asks; shown in `sys.queries` and returned by `CURRENT_USER`.
    pub identity: String,
    /// The id to run under; else `sqlQueryId` / `queryId` of the context; else one is made.
    pub query_id: Option<String>,
}
