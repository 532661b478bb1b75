//! The HTTP edge: Druid's SQL and supervisor paths, our own API, health, metrics and the page at `/`.
//!
//! ```text
//! server  connections, bounds        sql         POST /druid/v2/sql, DELETE to cancel
//! body    bounded bodies             supervisor  /druid/indexer/v1/supervisor
//! render  rows in five formats       druid       /status, datasources, coordinator
//! error   refusals as answers        api, health, metrics, page   our own
//! ```
//! What always holds: every wait has a bound (see [`limits`]); a body is read only up to a bound; an answer is produced
//! only as fast as its client takes it. Deliberately not here: authentication and TLS, so that a listener that is not on
//! loopback is refused elsewhere; any decision about the product.

pub mod body;
pub mod error;
pub mod limits;
pub mod render;
pub mod server;
pub mod sql;
