//! The HTTP edge: Druid's SQL and supervisor paths, our own API, health, metrics and the page at `/`.
//!
//! ```text
//! server  connections, bounds        sql         POST /druid/v2/sql, DELETE to cancel
//! guard   what every request passes  supervisor  /druid/indexer/v1/supervisor, spec
//! body    bounded bodies             druid       /status, datasources, coordinator
//! render  rows in five formats       api, health, metrics, page   our own
//! error   refusals as answers
//! ```
//! What always holds: every wait has a bound (see [`limits`]); a body is read only up to a bound; an answer is produced
//! only as fast as its client takes it. Deliberately not here: authentication and TLS, so that a listener that is not on
//! loopback is refused elsewhere; any decision about the product.

pub mod api;
pub mod body;
mod cluster;
pub mod context;
pub mod druid;
pub mod error;
pub mod guard;
pub mod health;
pub mod limits;
mod lost;
pub mod metrics;
pub mod page;
pub mod process;
pub mod render;
pub mod server;
pub mod spec;
pub mod sql;
pub mod supervisor;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::edge::queries::Queries;
use crate::node::Node;
use context::Context;
use guard::Policy;
use metrics::Counted;
use sql::SqlState;

/// Serves HTTP clients until `stop` is done.
pub async fn serve(node: Arc<Node>, listener: TcpListener, stop: impl Future<Output = ()>) {
    let connections_max = usize::try_from(node.config().listen.connections_max).unwrap_or(usize::MAX);
    let address = listener.local_addr().unwrap_or(node.config().listen.http);
    let policy = Policy { loopback: address.ip().is_loopback() };
    let context = Context::new(&node, address.to_string());
    server::serve(listener, router(&context, policy), connections_max, stop).await;
}

fn router(context: &Context, policy: Policy) -> Router {
    let counted = Arc::new(Counted::new());
    let registry = Arc::new(metrics::registry(&context.node, &counted));
    let sql = SqlState { queries: Queries::of(&context.node, "http"), host: Arc::clone(&context.host) };
    Router::new()
        .route("/", get(page::page))
        .merge(Router::new().route("/metrics", get(metrics::metrics)).with_state(registry))
        .merge(sql::routes(sql))
        .merge(supervisor::routes(context.clone()))
        .merge(druid::routes(context.clone()))
        .merge(api::routes(context.clone()))
        .merge(cluster::routes(context.clone()))
        .merge(lost::routes(context.clone()))
        .merge(health::routes(context.clone()))
        .fallback(guard::not_found)
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(from_fn_with_state(policy, guard::guard))
        .layer(from_fn_with_state(counted, metrics::count))
        .layer(map_response(never_sniffed))
}

/// A browser takes an answer for what it says it is, and for nothing else.
async fn never_sniffed(mut response: Response) -> Response {
    let nosniff = axum::http::HeaderValue::from_static("nosniff");
    response.headers_mut().insert(axum::http::header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

#[cfg(test)]
mod tests;
