//! `/api/v1/lost`: what is in lost+found on all nodes, and republishing or dropping it by hand.

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::body;
use super::context::Context;
use super::error::Problem;
use crate::node::{LostAct, LostDone};

/// Longest wait for other nodes to tell what they have.
const PATIENCE: Duration = Duration::from_secs(3);

pub fn routes(context: Context) -> Router {
    Router::new()
        .route("/api/v1/lost", get(list))
        .route("/api/v1/lost/republish", post(republish))
        .route("/api/v1/lost/drop", post(drop_batches))
        .with_state(context)
}

async fn list(State(context): State<Context>) -> Json<Value> {
    let (rows, warnings) = context.node.lost_batches(PATIENCE).await;
    let row = |row: &query::LostRow| {
        json!({
            "topic": row.topic,
            "partition": row.partition,
            "node": row.node,
            "saved_at": row.saved_at.0,
            "term": row.term,
            "base_offset": row.base_offset,
            "last_offset": row.last_offset,
            "records": row.records,
            "producer_id": row.producer_id,
            "acknowledged": row.acknowledged,
            "state": row.state,
            "size_bytes": row.size_bytes,
            "path": row.path,
        })
    };
    Json(json!({"batches": rows.iter().map(row).collect::<Vec<_>>(), "warnings": warnings}))
}

async fn republish(State(context): State<Context>, request: Body) -> Result<Json<LostDone>, Problem> {
    act(&context, LostAct::Republish, request).await
}

async fn drop_batches(State(context): State<Context>, request: Body) -> Result<Json<LostDone>, Problem> {
    act(&context, LostAct::Drop, request).await
}

async fn act(context: &Context, act: LostAct, request: Body) -> Result<Json<LostDone>, Problem> {
    let which = body::read_json(request).await.map_err(Problem)?;
    Ok(Json(context.node.act_on_lost(act, &which, PATIENCE).await))
}
