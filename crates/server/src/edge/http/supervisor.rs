//! `/druid/indexer/v1/supervisor`: streaming tables as Druid's supervisors.
//!
//! A table is its own supervisor: its id is the table's name. What differs from Druid and is said so in the answers:
//! offsets cannot be reset, because they move together with the segments they are in; `terminate` ends the reading and
//! keeps the rows, as Druid does, but the table stays in the list as suspended (drop it with DELETE /api/v1/tables/NAME).

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, body::Body};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::calendar::format_iso;

use super::body;
use super::context::Context;
use super::error::{DruidError, Fault, Refusal};
use super::spec::supervisor_spec;
use crate::node::tables::{IngestRates, TableStatus};

const ROOT: &str = "/druid/indexer/v1/supervisor";

pub fn routes(context: Context) -> Router {
    let at = |rest: &str| format!("{ROOT}{rest}");
    Router::new()
        .route(ROOT, post(submit).get(list))
        .route(&at("/"), post(submit).get(list))
        .route(&at("/history"), get(all_histories))
        .route(&at("/suspendAll"), post(suspend_all))
        .route(&at("/resumeAll"), post(resume_all))
        .route(&at("/terminateAll"), post(terminate_all))
        .route(&at("/{id}"), get(spec))
        .route(&at("/{id}/status"), get(status))
        .route(&at("/{id}/health"), get(health))
        .route(&at("/{id}/stats"), get(stats))
        .route(&at("/{id}/history"), get(history))
        .route(&at("/{id}/parseErrors"), get(parse_errors))
        .route(&at("/{id}/suspend"), post(suspend))
        .route(&at("/{id}/resume"), post(resume))
        .route(&at("/{id}/terminate"), post(terminate))
        .route(&at("/{id}/shutdown"), post(terminate))
        .route(&at("/{id}/reset"), post(reset))
        .route(&at("/{id}/resetOffsets"), post(reset))
        .route(&at("/{id}/taskGroups/handoff"), post(reset))
        .with_state(context)
}

type Answer = Result<Response, DruidError>;

async fn submit(State(context): State<Context>, body: Body) -> Answer {
    let posted: Value = body::read_json(body).await?;
    let table = store::spec::from_supervisor(&posted).map_err(|error| Refusal::invalid(error.to_string()))?;
    let name = table.name.clone();
    context.node.create_table(table).await?;
    if posted.get("suspended").and_then(Value::as_bool) == Some(true) {
        context.node.set_suspended(&name, true).await?;
    }
    Ok(Json(json!({"id": name})).into_response())
}

#[derive(Deserialize)]
struct ListOptions {
    full: Option<String>,
    state: Option<String>,
}

async fn list(State(context): State<Context>, Query(options): Query<ListOptions>) -> Json<Value> {
    let tables = context.node.tables();
    let with_spec = options.full.is_some();
    let with_state = with_spec || options.state.is_some_and(|state| !state.eq_ignore_ascii_case("false"));
    Json(if with_state {
        tables.iter().map(|table| summary(&context, table, with_spec)).collect()
    } else {
        tables.into_iter().map(|table| Value::String(table.name)).collect()
    })
}

fn summary(context: &Context, table: &TableStatus, with_spec: bool) -> Value {
    let mut object = Map::new();
    let (state, detail) = state_of(table);
    object.insert("id".into(), table.name.clone().into());
    object.insert("state".into(), state.into());
    object.insert("detailedState".into(), detail.into());
    object.insert("healthy".into(), table.trouble.is_none().into());
    if with_spec {
        object.insert("spec".into(), spec_of(context, table));
    }
    object.insert("suspended".into(), table.suspended.into());
    Value::Object(object)
}

/// Druid's words: what it is, and in detail.
fn state_of(table: &TableStatus) -> (&'static str, &'static str) {
    match (table.suspended, &table.trouble) {
        (true, _) => ("SUSPENDED", "SUSPENDED"),
        (false, Some(_)) => ("UNHEALTHY_SUPERVISOR", "UNHEALTHY_SUPERVISOR"),
        (false, None) => ("RUNNING", "RUNNING"),
    }
}

fn spec_of(context: &Context, table: &TableStatus) -> Value {
    supervisor_spec(&table.spec, &context.bootstrap, table.suspended)
}

fn table_of(context: &Context, id: &str) -> Result<TableStatus, DruidError> {
    context.node.table(id).ok_or_else(|| DruidError(Refusal::new(Fault::NotFound, format!("[{id}] does not exist"))))
}

async fn spec(State(context): State<Context>, Path(id): Path<String>) -> Answer {
    let table = table_of(&context, &id)?;
    Ok(Json(spec_of(&context, &table)).into_response())
}

async fn status(State(context): State<Context>, Path(id): Path<String>) -> Answer {
    let table = table_of(&context, &id)?;
    let now = format_iso(crate::node::time::wall());
    Ok(Json(json!({"id": id, "generationTime": now, "payload": payload(&table, &now)})).into_response())
}

fn payload(table: &TableStatus, now: &str) -> Value {
    let per_partition = |value: &dyn Fn(&crate::node::tables::PartitionStatus) -> i64| -> Value {
        table.partitions.iter().map(|p| (p.partition.to_string(), Value::from(value(p)))).collect::<Map<_, _>>().into()
    };
    let lag = |p: &crate::node::tables::PartitionStatus| (p.committed.0 - p.next.0).max(0);
    let lags = per_partition(&lag);
    let (state, detail) = state_of(table);
    let active = json!({
        "id": task_id(table),
        "startingOffsets": per_partition(&|p| p.published.0),
        "startTime": format_iso(table.created),
        "remainingSeconds": null,
        "type": "ACTIVE",
        "currentOffsets": per_partition(&|p| p.next.0),
        "lag": lags,
    });
    let errors: Vec<Value> = table
        .trouble
        .iter()
        .map(|cause| json!({"timestamp": now, "exceptionClass": "Trouble", "message": cause, "streamException": true}))
        .collect();
    json!({
        "dataSource": table.name,
        "stream": table.topic,
        "partitions": table.partitions.len(),
        "replicas": table.spec.live_replicas,
        "durationSeconds": 3600,
        "activeTasks": if table.suspended { Vec::new() } else { vec![active] },
        "publishingTasks": [],
        "latestOffsets": per_partition(&|p| p.committed.0),
        "minimumLag": lags,
        "aggregateLag": table.partitions.iter().map(lag).sum::<i64>(),
        "offsetsLastUpdated": now,
        "suspended": table.suspended,
        "healthy": table.trouble.is_none(),
        "state": state,
        "detailedState": detail,
        "recentErrors": errors,
    })
}

/// The name of the one task that reads a table's topic.
fn task_id(table: &TableStatus) -> String {
    format!("index_kafka_{}", table.name)
}

async fn health(State(context): State<Context>, Path(id): Path<String>) -> Answer {
    let table = table_of(&context, &id)?;
    let healthy = table.trouble.is_none();
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(json!({"healthy": healthy}))).into_response())
}

async fn stats(State(context): State<Context>, Path(id): Path<String>) -> Answer {
    let table = table_of(&context, &id)?;
    let average = |rates: &IngestRates| {
        json!({
            "processed": rates.processed,
            "processedBytes": rates.processed_bytes,
            "unparseable": rates.unparseable,
            "thrownAway": rates.thrown_away,
            "processedWithError": 0.0,
        })
    };
    let averages: Map<String, Value> =
        table.rates.iter().map(|(span, rates)| ((*span).to_owned(), average(rates))).collect();
    let totals = json!({
        "processed": table.counters.rows,
        "processedBytes": table.counters.bytes,
        "processedWithError": 0,
        "thrownAway": table.counters.thrown_away,
        "unparseable": table.counters.unparseable,
    });
    let task = json!({"movingAverages": {"buildSegments": averages}, "totals": {"buildSegments": totals}});
    let mut tasks = Map::new();
    tasks.insert(task_id(&table), task);
    Ok(Json(json!({"0": tasks})).into_response())
}

async fn parse_errors(State(context): State<Context>, Path(id): Path<String>) -> Answer {
    let table = table_of(&context, &id)?;
    let errors: Vec<Value> = table
        .dead_letters
        .iter()
        .map(|dead| {
            json!({
                "errorType": "unparseable",
                "details": [dead.reason],
                "input": dead.sample,
                "partition": dead.partition.0,
                "offset": dead.offset.0,
            })
        })
        .collect();
    Ok(Json(Value::from(errors)).into_response())
}

/// Only the spec as it is now is known: earlier ones are not kept.
fn versions(context: &Context, table: &TableStatus) -> Value {
    json!([{"spec": spec_of(context, table), "version": format_iso(table.created)}])
}

async fn history(State(context): State<Context>, Path(id): Path<String>) -> Answer {
    let table = table_of(&context, &id)?;
    Ok(Json(versions(&context, &table)).into_response())
}

async fn all_histories(State(context): State<Context>) -> Json<Value> {
    let all = context.node.tables();
    Json(all.iter().map(|table| (table.name.clone(), versions(&context, table))).collect::<Map<_, _>>().into())
}

async fn set_suspended(context: &Context, id: &str, suspended: bool) -> Answer {
    let table = table_of(context, id)?;
    if table.suspended == suspended {
        let already = if suspended { "suspended" } else { "running" };
        return Err(Refusal::invalid(format!("[{id}] is already {already}")).into());
    }
    context.node.set_suspended(id, suspended).await?;
    Ok(Json(supervisor_spec(&table.spec, &context.bootstrap, suspended)).into_response())
}

async fn suspend(State(context): State<Context>, Path(id): Path<String>) -> Answer {
    set_suspended(&context, &id, true).await
}

async fn resume(State(context): State<Context>, Path(id): Path<String>) -> Answer {
    set_suspended(&context, &id, false).await
}

async fn terminate(State(context): State<Context>, Path(id): Path<String>) -> Answer {
    if !table_of(&context, &id)?.suspended {
        context.node.set_suspended(&id, true).await?;
    }
    Ok(Json(json!({"id": id})).into_response())
}

async fn every(context: &Context, suspended: bool) -> Answer {
    for table in context.node.tables().iter().filter(|table| table.suspended != suspended) {
        context.node.set_suspended(&table.name, suspended).await?;
    }
    Ok(Json(json!({"status": "success"})).into_response())
}

async fn suspend_all(State(context): State<Context>) -> Answer {
    every(&context, true).await
}

async fn resume_all(State(context): State<Context>) -> Answer {
    every(&context, false).await
}

async fn terminate_all(State(context): State<Context>) -> Answer {
    every(&context, true).await
}

async fn reset(State(context): State<Context>, Path(id): Path<String>) -> Answer {
    table_of(&context, &id)?;
    Err(Refusal::new(
        Fault::Unsupported,
        format!(
            "[{id}]: a table's offsets move together with its segments, so that no row is missed or counted twice, and \
             cannot be reset; to read the topic again, create another table on it"
        ),
    )
    .into())
}
