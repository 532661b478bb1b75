//! What Druid's tools ask a cluster before they query it: who it is, which tables there are, whether all is loaded.
//!
//! Only what is real is answered; a path of Druid's that is not here is 404.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::schema::ColumnRole;

use super::context::Context;
use super::error::{DruidError, Fault, Refusal};
use super::process;
use crate::config::KEYS;

/// The Druid whose surface this is, and us: some tools read the number.
const VERSION: &str = concat!("37.0.0-seawall.", env!("CARGO_PKG_VERSION"));
const TIER: &str = "_default_tier";
/// Parts of a setting's name that make its value a secret.
const SECRETS: [&str; 5] = ["password", "secret", "token", "key", "credential"];

pub fn routes(context: Context) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/status/health", get(async || Json(true)))
        .route("/status/properties", get(properties))
        .route("/status/selfDiscovered", get(async || ()))
        .route("/status/selfDiscovered/status", get(async || Json(json!({"selfDiscovered": true}))))
        .route("/druid/v2/datasources", get(datasources))
        .route("/druid/v2/datasources/{name}", get(columns))
        .route("/druid/v2/datasources/{name}/dimensions", get(dimensions))
        .route("/druid/v2/datasources/{name}/metrics", get(metrics))
        .route("/druid/coordinator/v1/datasources", get(coordinator_datasources))
        .route("/druid/coordinator/v1/metadata/datasources", get(datasources))
        .route("/druid/coordinator/v1/loadstatus", get(load_status))
        .route("/druid/coordinator/v1/leader", get(leader))
        .route("/druid/coordinator/v1/isLeader", get(async || Json(json!({"leader": true}))))
        .route("/druid/indexer/v1/leader", get(leader))
        .route("/druid/indexer/v1/isLeader", get(async || Json(json!({"leader": true}))))
        .route("/druid/broker/v1/loadstatus", get(broker_load_status))
        .route("/druid/broker/v1/readiness", get(readiness))
        .route("/druid/historical/v1/loadstatus", get(historical_load_status))
        .route("/druid/historical/v1/readiness", get(readiness))
        .with_state(context)
}

async fn status() -> Json<Value> {
    let memory = process::memory();
    Json(json!({
        "version": VERSION,
        "modules": [],
        "memory": {
            "maxMemory": memory.machine_bytes,
            "totalMemory": memory.machine_bytes,
            "freeMemory": memory.machine_bytes.saturating_sub(memory.resident_bytes),
            "usedMemory": memory.resident_bytes,
            "directMemory": 0,
        },
    }))
}

async fn properties(State(context): State<Context>) -> Json<Value> {
    let shown = KEYS.iter().map(|key| {
        let secret = SECRETS.iter().any(|part| key.name.contains(part));
        let value = if secret { "<redacted>".to_owned() } else { key.show(context.node.config()) };
        (format!("seawall.{}", key.name), Value::String(value))
    });
    Json(shown.collect::<Map<_, _>>().into())
}

async fn datasources(State(context): State<Context>) -> Json<Value> {
    Json(context.node.tables().into_iter().map(|table| Value::String(table.name)).collect())
}

/// A table's column names by role; `__time` is neither.
fn columns_of(context: &Context, name: &str) -> Result<(Vec<String>, Vec<String>), DruidError> {
    let table = context
        .node
        .table(name)
        .ok_or_else(|| Refusal::new(Fault::NotFound, format!("datasource {name} does not exist")))?;
    let (mut dimensions, mut metrics) = (Vec::new(), Vec::new());
    for column in table.schema.columns() {
        match column.role {
            ColumnRole::Time => {}
            ColumnRole::Dimension => dimensions.push(column.name.clone()),
            ColumnRole::Metric(_) => metrics.push(column.name.clone()),
        }
    }
    Ok((dimensions, metrics))
}

async fn columns(State(context): State<Context>, Path(name): Path<String>) -> Result<Json<Value>, DruidError> {
    let (dimensions, metrics) = columns_of(&context, &name)?;
    Ok(Json(json!({"dimensions": dimensions, "metrics": metrics})))
}

async fn dimensions(State(context): State<Context>, Path(name): Path<String>) -> Result<Json<Vec<String>>, DruidError> {
    Ok(Json(columns_of(&context, &name)?.0))
}

async fn metrics(State(context): State<Context>, Path(name): Path<String>) -> Result<Json<Vec<String>>, DruidError> {
    Ok(Json(columns_of(&context, &name)?.1))
}

#[derive(Deserialize)]
struct Shape {
    simple: Option<String>,
    full: Option<String>,
}

async fn coordinator_datasources(State(context): State<Context>, Query(shape): Query<Shape>) -> Json<Value> {
    let tables = context.node.tables();
    if shape.simple.is_none() && shape.full.is_none() {
        return Json(tables.into_iter().map(|table| Value::String(table.name)).collect());
    }
    let properties = |segments: usize, bytes: u64, rows: u64| json!({"count": segments, "size": bytes, "replicatedSize": bytes, "rows": rows});
    let simple = tables.into_iter().map(|table| {
        let segments = properties(table.segments, table.segment_bytes, table.segment_rows);
        json!({"name": table.name, "properties": {"tiers": {TIER: {"segmentCount": table.segments, "size": table.segment_bytes}}, "segments": segments}})
    });
    Json(simple.collect())
}

/// Per table: segments that should be loaded, and those that are.
fn loaded(context: &Context) -> Vec<(String, usize, usize)> {
    let tables = context.node.tables().into_iter();
    tables.map(|table| (table.name, table.segments, table.segments - table.missing_segments)).collect()
}

async fn load_status(State(context): State<Context>, Query(shape): Query<Shape>) -> Json<Value> {
    let loaded = loaded(&context);
    if shape.full.is_some() {
        let missing: Map<String, Value> =
            loaded.into_iter().map(|(name, all, there)| (name, (all - there).into())).collect();
        return Json(json!({TIER: missing}));
    }
    let value = |all: usize, there: usize| -> Value {
        match (shape.simple.is_some(), all) {
            (true, _) => (all - there).into(),
            (false, 0) => 100.0.into(),
            (false, _) => percent(all, there).into(),
        }
    };
    Json(loaded.into_iter().map(|(name, all, there)| (name, value(all, there))).collect::<Map<_, _>>().into())
}

/// Rounded down to a tenth, so that 100 means all.
fn percent(all: usize, there: usize) -> f64 {
    let tenths = u32::try_from(there.saturating_mul(1_000) / all.max(1)).unwrap_or(1_000);
    f64::from(tenths) / 10.0
}

async fn leader(State(context): State<Context>) -> String {
    format!("http://{}", context.host)
}

async fn broker_load_status(State(context): State<Context>) -> Json<Value> {
    Json(json!({"inventoryInitialized": context.node.tables_behind().is_empty()}))
}

async fn historical_load_status(State(context): State<Context>) -> Json<Value> {
    Json(json!({"cacheInitialized": context.node.tables_behind().is_empty()}))
}

async fn readiness(State(context): State<Context>) -> Response {
    if context.node.tables_behind().is_empty() {
        return ().into_response();
    }
    axum::http::StatusCode::SERVICE_UNAVAILABLE.into_response()
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn only_all_is_a_hundred() {
        assert_eq!([percent(3, 3), percent(3, 2), percent(10_000, 9_999)], [100.0, 66.6, 99.9]);
    }
}
