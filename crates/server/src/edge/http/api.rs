//! Our own API under `/api/v1`: tables, topics, and the whole node at a glance. Errors are problem+json.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base::{Offset, PartitionIndex, TopicPartition};
use control::Topic;
use serde_json::{Map, Value, json};
use store::calendar::format_iso;
use store::spec::TableSpec;

use super::body;
use super::context::Context;
use super::error::{Fault, Problem, Refusal};
use super::health::{self, Verdict};
use crate::node::tables::{PartitionStatus, TableStatus};

/// Statements of running queries are shown up to this many characters.
const SQL_CHARS_SHOWN: usize = 1_000;

pub fn routes(context: Context) -> Router {
    Router::new()
        .route("/api/v1/tables", get(tables).post(create_table))
        .route("/api/v1/tables/{name}", get(table).delete(drop_table))
        .route("/api/v1/tables/{name}/suspend", post(suspend))
        .route("/api/v1/tables/{name}/resume", post(resume))
        .route("/api/v1/topics", get(topics))
        .route("/api/v1/queries", get(queries))
        .route("/api/v1/status", get(status))
        .with_state(context)
}

type Answer = Result<Response, Problem>;

async fn tables(State(context): State<Context>) -> Json<Value> {
    Json(context.node.tables().iter().map(|table| summary(table).into()).collect::<Vec<Value>>().into())
}

fn summary(table: &TableStatus) -> Map<String, Value> {
    let now = crate::node::time::wall();
    let lag: i64 = table.partitions.iter().map(lag_of).sum();
    let mut object = Map::new();
    object.insert("name".into(), table.name.clone().into());
    object.insert("topic".into(), table.topic.clone().into());
    object.insert("rows".into(), table.segment_rows.saturating_add(table.live_rows).into());
    object.insert("live_rows".into(), table.live_rows.into());
    object.insert("live_bytes".into(), table.live_bytes.into());
    object.insert("segments".into(), table.segments.into());
    object.insert("missing_segments".into(), table.missing_segments.into());
    object.insert("segment_rows".into(), table.segment_rows.into());
    object.insert("segment_bytes".into(), table.segment_bytes.into());
    object.insert("newest".into(), table.newest.map(format_iso).into());
    object.insert("freshness_ms".into(), table.newest.map(|newest| now.0.saturating_sub(newest.0)).into());
    object.insert("lag_records".into(), lag.into());
    object.insert("suspended".into(), table.suspended.into());
    object.insert("trouble".into(), table.trouble.clone().into());
    object.insert("created".into(), format_iso(table.created).into());
    object.insert("ingested".into(), ingested(table));
    object
}

fn lag_of(partition: &PartitionStatus) -> i64 {
    (partition.committed.0 - partition.next.0).max(0)
}

fn ingested(table: &TableStatus) -> Value {
    let counters = table.counters;
    json!({
        "rows": counters.rows,
        "bytes": counters.bytes,
        "unparseable": counters.unparseable,
        "thrown_away": counters.thrown_away,
        "rows_per_second": table.rates.get("1m").map_or(0.0, |rates| rates.processed),
    })
}

fn known(context: &Context, name: &str) -> Result<TableStatus, Problem> {
    context
        .node
        .table(name)
        .ok_or_else(|| Problem(Refusal::new(Fault::NotFound, format!("table {name} does not exist"))))
}

fn detail(context: &Context, name: &str) -> Result<Value, Problem> {
    let table = known(context, name)?;
    let mut object = summary(&table);
    let partition = |p: &PartitionStatus| {
        json!({
            "partition": p.partition.0,
            "next": p.next.0,
            "published": p.published.0,
            "committed": p.committed.0,
            "lag_records": lag_of(p),
        })
    };
    object.insert("partitions".into(), table.partitions.iter().map(partition).collect());
    let dead = |letter: &crate::node::tables::DeadLetterSample| {
        json!({
            "partition": letter.partition.0,
            "offset": letter.offset.0,
            "reason": letter.reason,
            "sample": letter.sample,
        })
    };
    object.insert("dead_letters".into(), table.dead_letters.iter().map(dead).collect());
    object.insert("columns".into(), serde_json::to_value(table.schema.columns()).unwrap_or(Value::Null));
    let spec = serde_json::from_str(&table.spec.to_json()).unwrap_or(Value::Null);
    object.insert("spec".into(), spec);
    Ok(object.into())
}

async fn table(State(context): State<Context>, Path(name): Path<String>) -> Answer {
    Ok(Json(detail(&context, &name)?).into_response())
}

/// A whole spec, or `{"name": ..., "topic": ...}` to discover the columns.
async fn create_table(State(context): State<Context>, body: Body) -> Answer {
    let posted: Value = body::read_json(body).await?;
    let Some(object) = posted.as_object() else {
        return Err(Refusal::invalid(
            "the body is not an object: send a table spec, or {\"name\": ..., \"topic\": ...}",
        )
        .into());
    };
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let spec = match (object.len(), text("name"), text("topic")) {
        (1, Some(name), None) => TableSpec::discover(name, name),
        (2, Some(name), Some(topic)) => TableSpec::discover(name, topic),
        _ => TableSpec::from_json(&posted.to_string()).map_err(|error| Refusal::invalid(error.to_string()))?,
    };
    let name = spec.name.clone();
    if context.node.table(&name).is_some() {
        let message = format!("table {name} exists; drop it first, or choose another name");
        return Err(Refusal::new(Fault::Conflict, message).into());
    }
    context.node.create_table(spec).await?;
    Ok((StatusCode::CREATED, Json(detail(&context, &name)?)).into_response())
}

async fn drop_table(State(context): State<Context>, Path(name): Path<String>) -> Answer {
    known(&context, &name)?;
    context.node.drop_table(&name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn set_suspended(context: &Context, name: &str, suspended: bool) -> Answer {
    known(context, name)?;
    context.node.set_suspended(name, suspended).await?;
    Ok(Json(detail(context, name)?).into_response())
}

async fn suspend(State(context): State<Context>, Path(name): Path<String>) -> Answer {
    set_suspended(&context, &name, true).await
}

async fn resume(State(context): State<Context>, Path(name): Path<String>) -> Answer {
    set_suspended(&context, &name, false).await
}

async fn topics(State(context): State<Context>) -> Json<Value> {
    Json(context.node.state().topics.values().map(|topic| topic_summary(&context, topic)).collect())
}

fn topic_summary(context: &Context, topic: &Topic) -> Value {
    let mut records = 0;
    let mut bytes = 0;
    let mut partitions = Vec::new();
    for index in 0..topic.partitions {
        let at = TopicPartition { topic: topic.id, partition: PartitionIndex(index) };
        let (start, committed, size) = context.node.reader(at).map_or((Offset::ZERO, Offset::ZERO, 0), |reader| {
            (reader.start(), reader.committed(), reader.size_bytes())
        });
        records += committed.0 - start.0;
        bytes += size;
        partitions.push(json!({"partition": index, "start": start.0, "committed": committed.0, "size_bytes": size}));
    }
    json!({
        "name": topic.name,
        "id": topic.id.to_string(),
        "internal": topic.internal,
        "created": format_iso(topic.created),
        "records": records,
        "size_bytes": bytes,
        "config": topic.overrides,
        "tables": context.node.state().readers_of(topic.id).map(|table| table.name.clone()).collect::<Vec<_>>(),
        "partitions": partitions,
    })
}

fn running(context: &Context) -> Value {
    let running = context.node.query().running();
    let query = |info: &query::QueryInfo| {
        json!({
            "query_id": info.query_id,
            "sql": info.sql.chars().take(SQL_CHARS_SHOWN).collect::<String>(),
            "identity": info.identity,
            "state": format!("{:?}", info.state).to_lowercase(),
            "elapsed_ms": info.elapsed_ms,
            "rows": info.rows,
        })
    };
    running.iter().map(query).collect()
}

async fn queries(State(context): State<Context>) -> Json<Value> {
    Json(running(&context))
}

/// Everything the page and `seawall status` show.
async fn status(State(context): State<Context>) -> Json<Value> {
    let node = &context.node;
    let config = node.config();
    let verdict = Verdict::of(node);
    let state = node.state();
    let visible = state.topics.values().filter(|topic| !topic.internal);
    let topics: Vec<Value> = visible.map(|topic| topic_summary(&context, topic)).collect();
    let tables: Vec<Value> = node.tables().iter().map(|table| summary(table).into()).collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "cluster": config.cluster.name,
        "cluster_id": state.cluster.map(|id| id.to_string()),
        "node": config.node.id,
        "now": format_iso(crate::node::time::wall()),
        "uptime_ms": node.uptime_ms(),
        "status": verdict.colour(),
        "verdict": verdict.sentence(),
        "ready": verdict.reasons.is_empty(),
        "reasons": verdict.reasons,
        "findings": verdict.findings.iter().map(health::finding).collect::<Vec<_>>(),
        "tables": tables,
        "topics": topics,
        "queries": running(&context),
        "memory_bytes": super::process::memory().resident_bytes,
        "listen": {
            "kafka": context.bootstrap.as_ref(),
            "http": context.host.as_ref(),
            "postgres": config.listen.postgres.to_string(),
        },
    }))
}
