//! What the query context says. `SET` before the statement wins; keys are Druid's; unknown ones are ignored.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Map, Value};
use store::calendar::Zone;

use crate::catalog::Consistency;
use crate::error::QueryError;
use crate::limits::QueryLimits;
use crate::request::{Dialect, QueryRequest};
use crate::statement::Session;

/// The context of one query, read.
#[derive(Clone, Debug)]
pub struct QueryContext {
    pub session: Session,
    pub query_id: Option<String>,
    pub timeout_ms: u64,
    /// Rows the answer is cut at, if the caller wants that.
    pub outer_limit: Option<usize>,
    /// Context key `consistency`: `leader` (default) or `local`.
    pub consistency: Consistency,
}

impl QueryContext {
    /// # Errors
    /// If a key that is ours has a value that makes no sense.
    pub fn read(
        request: &QueryRequest,
        settings: &Map<String, Value>,
        limits: &QueryLimits,
    ) -> Result<Self, QueryError> {
        let mut merged = request.context.clone();
        merged.extend(settings.clone());
        let get = |key: &str| merged.get(key).filter(|value| !value.is_null());
        let zone_name = match (get("sqlTimeZone"), request.dialect) {
            (Some(zone), _) => text(zone),
            (None, Dialect::Postgres) => postgres_zone(&merged),
            (None, Dialect::Druid) => "UTC".to_owned(),
        };
        let zone = Zone::parse(&zone_name).map_err(|error| QueryError::validation(error.to_string()))?;
        let timeout_ms = match get("timeout").or_else(|| get("statement_timeout")) {
            Some(value) => whole("timeout", value)?,
            None => limits.timeout_ms_default,
        };
        // 0 is Druid's word for no timeout of its own.
        let timeout_ms = if timeout_ms == 0 { limits.timeout_ms_max } else { timeout_ms.min(limits.timeout_ms_max) };
        let outer_limit = get("sqlOuterLimit").map(|value| whole("sqlOuterLimit", value)).transpose()?;
        let outer_limit =
            outer_limit.filter(|limit| *limit > 0).map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let query_id = request
            .query_id
            .clone()
            .or_else(|| get("sqlQueryId").or_else(|| get("queryId")).map(text))
            .filter(|id| !id.is_empty());
        let consistency = get("consistency").map_or(Ok(Consistency::default()), consistency_of)?;
        let now_ms = match get("sqlCurrentTimestamp").and_then(Value::as_str) {
            Some(time) => {
                store::calendar::parse_iso_in(time, zone)
                    .map_err(|error| QueryError::validation(format!("sqlCurrentTimestamp: {error}")))?
                    .0
            }
            None => now(),
        };
        let session = Session {
            dialect: request.dialect,
            zone,
            zone_name,
            now_ms,
            identity: request.identity.clone(),
            settings: merged.iter().map(|(key, value)| (key.to_ascii_lowercase(), text(value))).collect(),
        };
        Ok(Self { session, query_id, timeout_ms, outer_limit, consistency })
    }
}

/// PostgreSQL's `TimeZone` setting, whatever the case of its name.
fn postgres_zone(context: &Map<String, Value>) -> String {
    let folded: BTreeMap<String, &Value> =
        context.iter().map(|(key, value)| (key.to_ascii_lowercase(), value)).collect();
    folded.get("timezone").map_or_else(|| "UTC".to_owned(), |zone| text(zone))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn consistency_of(value: &Value) -> Result<Consistency, QueryError> {
    match text(value).to_ascii_lowercase().as_str() {
        "leader" => Ok(Consistency::Leader),
        "local" => Ok(Consistency::Local),
        other => Err(QueryError::validation(format!("context consistency is '{other}', expected leader or local"))),
    }
}

fn whole(key: &str, value: &Value) -> Result<u64, QueryError> {
    let number = match value {
        Value::String(text) => text.trim_end_matches("ms").trim().parse().ok(),
        other => other.as_u64(),
    };
    number.ok_or_else(|| QueryError::validation(format!("context {key} is {value}, expected a whole number from 0")))
}

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}
