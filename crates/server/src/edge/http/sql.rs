//! `POST /druid/v2/sql` and `DELETE /druid/v2/sql/{id}`.
//!
//! What always holds: an error before the first row is an HTTP status with Druid's JSON; an error after it cuts the body
//! off, without the bytes that end a whole one; a client that goes away, or stops reading, stops its query.

use std::sync::Arc;

use arrow::array::RecordBatch;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use futures::StreamExt;
use query::{CancelOutcome, Dialect, QueryError, QueryRequest, QueryStream};

use super::body::{self, SqlRequest};
use super::error::{Fault, Refusal, druid_body, query_error};
use super::limits::{CHUNK_BYTES, CHUNK_ROWS};
use super::render::{Header, Renderer, ResultFormat};
use crate::edge::queries::Queries;

const QUERY_ID: HeaderName = HeaderName::from_static("x-druid-sql-query-id");
const HEADER_INCLUDED: HeaderName = HeaderName::from_static("x-druid-sql-header-included");
/// What the caller should know of the answer; may be there more than once.
const WARNING: HeaderName = HeaderName::from_static("x-seawall-warning");
/// Warnings told at most, and characters of each.
const WARNINGS_MAX: usize = 8;
const WARNING_CHARS_MAX: usize = 500;
/// Longest id a caller may choose for its query.
const QUERY_ID_BYTES_MAX: usize = 256;
/// Who asks, while there are no users.
const IDENTITY: &str = "anonymous";

/// What the SQL routes need.
#[derive(Clone)]
pub struct SqlState {
    pub queries: Queries,
    /// `host:port` as clients reach it; named in errors.
    pub host: Arc<str>,
}

pub fn routes(state: SqlState) -> Router {
    Router::new()
        .route("/druid/v2/sql", post(run))
        .route("/druid/v2/sql/", post(run))
        .route("/druid/v2/sql/{id}", delete(cancel))
        .with_state(state)
}

async fn run(State(state): State<SqlState>, headers: HeaderMap, body: Body) -> Response {
    let request = match body::read(body).await.and_then(|bytes| SqlRequest::parse(&headers, &bytes)) {
        Ok(request) => request,
        Err(refusal) => {
            let id = uuid::Uuid::new_v4().to_string();
            let answer = (refusal.fault.status(), axum::Json(druid_body(&refusal, Some(&state.host)))).into_response();
            return with_query_id(answer, &id);
        }
    };
    let query_id = query_id_of(&request);
    let response = match answer(&state, request, &query_id).await {
        Ok(response) => response,
        Err(error) => query_error(&error, Some(&state.host)),
    };
    with_query_id(response, &query_id)
}

/// The id the caller chose in the context, if it fits into a header; else a new one.
fn query_id_of(request: &SqlRequest) -> String {
    ["sqlQueryId", "queryId"]
        .iter()
        .find_map(|key| request.context.get(*key).and_then(|value| value.as_str()))
        .filter(|id| (1..=QUERY_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()))
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

fn with_query_id(mut response: Response, query_id: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(query_id) {
        response.headers_mut().insert(QUERY_ID, value);
    }
    response
}

async fn answer(state: &SqlState, request: SqlRequest, query_id: &str) -> Result<Response, QueryError> {
    let stringify_arrays = !matches!(request.context.get("sqlStringifyArrays"), Some(value) if is_false(value));
    let stream = state
        .queries
        .run(QueryRequest {
            sql: request.query,
            parameters: request.parameters,
            context: request.context,
            dialect: Dialect::Druid,
            identity: IDENTITY.to_owned(),
            query_id: Some(query_id.to_owned()),
        })
        .await?;
    stream_rows(stream, request.format, request.header, stringify_arrays).await
}

/// A context value that means no: `false`, or the word as a string.
fn is_false(value: &serde_json::Value) -> bool {
    value.as_bool() == Some(false) || value.as_str().is_some_and(|word| word.eq_ignore_ascii_case("false"))
}

/// Waits for the first rows, so that an error before them is still a status, then streams.
async fn stream_rows(
    mut stream: QueryStream,
    format: ResultFormat,
    header: Header,
    stringify_arrays: bool,
) -> Result<Response, QueryError> {
    let first = stream.batches.next().await.transpose()?;
    let columns = std::mem::take(&mut stream.columns);
    let warnings: Vec<HeaderValue> =
        stream.warnings.iter().take(WARNINGS_MAX).filter_map(|text| header_text(text)).collect();
    let renderer = Renderer::new(format, header, columns, stream.time_zone).stringify_arrays(stringify_arrays);
    let rows = Rows { renderer, phase: Phase::Begin { first }, stream };
    let chunks = futures::stream::unfold(rows, |mut rows| async move { rows.next().await.map(|chunk| (chunk, rows)) });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    for warning in warnings {
        headers.append(WARNING, warning);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if header.names {
        headers.insert(HEADER_INCLUDED, HeaderValue::from_static("yes"));
    }
    Ok(response)
}

/// A warning as a header can carry it.
fn header_text(warning: &str) -> Option<HeaderValue> {
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    HeaderValue::try_from(warning.chars().take(WARNING_CHARS_MAX).map(plain).collect::<String>()).ok()
}

/// A result on its way out, a chunk at a time.
struct Rows {
    stream: QueryStream,
    renderer: Renderer,
    phase: Phase,
}

enum Phase {
    Begin { first: Option<RecordBatch> },
    Batch { batch: RecordBatch, next_row: usize },
    Waiting,
    Done,
}

impl Rows {
    async fn next(&mut self) -> Option<Result<Bytes, QueryError>> {
        let mut out = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4);
        loop {
            match std::mem::replace(&mut self.phase, Phase::Done) {
                Phase::Begin { first } => {
                    self.renderer.begin(&mut out);
                    self.phase = match first {
                        Some(batch) => Phase::Batch { batch, next_row: 0 },
                        None => self.ended(&mut out),
                    };
                }
                Phase::Batch { batch, next_row } => self.phase = self.render(&mut out, batch, next_row),
                Phase::Waiting => match self.stream.batches.next().await {
                    Some(Ok(batch)) => self.phase = Phase::Batch { batch, next_row: 0 },
                    Some(Err(error)) => {
                        tracing::info!(query_id = %self.stream.query_id, %error, "the answer was cut off");
                        return Some(Err(error));
                    }
                    None => self.phase = self.ended(&mut out),
                },
                Phase::Done => return (!out.is_empty()).then(|| Ok(Bytes::from(out))),
            }
            let waits = matches!(self.phase, Phase::Waiting) && !out.is_empty();
            if waits || out.len() >= CHUNK_BYTES {
                return Some(Ok(Bytes::from(out)));
            }
        }
    }

    fn render(&mut self, out: &mut Vec<u8>, batch: RecordBatch, mut next_row: usize) -> Phase {
        while next_row < batch.num_rows() && out.len() < CHUNK_BYTES {
            let rows = CHUNK_ROWS.min(batch.num_rows() - next_row);
            self.renderer.rows(out, &batch.slice(next_row, rows));
            next_row += rows;
        }
        if next_row < batch.num_rows() { Phase::Batch { batch, next_row } } else { Phase::Waiting }
    }

    fn ended(&mut self, out: &mut Vec<u8>) -> Phase {
        self.renderer.end(out);
        Phase::Done
    }
}

async fn cancel(State(state): State<SqlState>, Path(id): Path<String>) -> Response {
    match state.queries.cancel(&id) {
        CancelOutcome::Cancelled => StatusCode::ACCEPTED.into_response(),
        CancelOutcome::NotFound => {
            let refusal = Refusal::new(Fault::NotFound, format!("query {id} is not running"));
            (StatusCode::NOT_FOUND, axum::Json(druid_body(&refusal, Some(&state.host)))).into_response()
        }
    }
}
