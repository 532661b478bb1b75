//! `/health/*`: for process managers (`live`), load balancers (`ready`) and rolling restarts (`cluster`).

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use store::calendar::format_iso;

use super::context::Context;
use crate::node::findings::Severity;
use crate::node::{Finding, Node};

pub fn routes(context: Context) -> Router {
    Router::new()
        // Depends on nothing: the process answers.
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .route("/health/cluster", get(cluster))
        .with_state(context)
}

/// How the node is, and why.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub findings: Vec<Finding>,
    /// Why it is not ready. Empty: it is.
    pub reasons: Vec<String>,
}

impl Verdict {
    pub fn of(node: &Node) -> Self {
        let findings = node.findings();
        let mut reasons: Vec<String> = node
            .tables_behind()
            .iter()
            .map(|table| format!("table {table} still reads the log's tail after the start"))
            .collect();
        let critical = findings.iter().filter(|finding| finding.severity == Severity::Critical);
        reasons.extend(critical.map(|finding| format!("{}: {}", finding.code, finding.title)));
        Self { findings, reasons }
    }

    /// `red`: someone must act; `yellow`: something is off, or the node still starts; `green`.
    pub fn colour(&self) -> &'static str {
        if self.findings.iter().any(|finding| finding.severity == Severity::Critical) {
            "red"
        } else if self.findings.is_empty() && self.reasons.is_empty() {
            "green"
        } else {
            "yellow"
        }
    }

    pub fn sentence(&self) -> String {
        match (self.findings.as_slice(), self.reasons.as_slice()) {
            ([], []) => "healthy: nothing is wrong".to_owned(),
            ([], [first, ..]) => format!("starting: {first}"),
            ([worst], _) => worst.title.clone(),
            ([worst, rest @ ..], _) => format!("{}; and {} more", worst.title, rest.len()),
        }
    }
}

/// A finding as every surface shows it.
pub fn finding(finding: &Finding) -> Value {
    json!({
        "code": finding.code,
        "severity": finding.severity,
        "title": finding.title,
        "since": format_iso(finding.since),
        "impact": finding.impact,
        "cause": finding.cause,
        "action": finding.action,
    })
}

async fn ready(State(context): State<Context>) -> Response {
    let verdict = Verdict::of(&context.node);
    if verdict.reasons.is_empty() {
        return Json(json!({"ready": true})).into_response();
    }
    let body = json!({
        "ready": false,
        "reasons": verdict.reasons,
        "findings": verdict.findings.iter().map(finding).collect::<Vec<_>>(),
    });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

async fn cluster(State(context): State<Context>) -> Json<Value> {
    let verdict = Verdict::of(&context.node);
    let view = super::cluster::view(&context.node);
    Json(json!({
        "status": verdict.colour(),
        "verdict": verdict.sentence(),
        "nodes": view["nodes"].as_array().map_or(1, Vec::len),
        "safe_to_restart_next": view["safe_to_restart_next"],
        "why": view["why"],
        "master": view["master"],
        "partitions": view["partitions"],
        "findings": verdict.findings.iter().map(finding).collect::<Vec<_>>(),
    }))
}
