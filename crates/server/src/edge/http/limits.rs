//! Bounds of this edge.

use std::time::Duration;

/// Request line and headers together.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
pub const HEADERS_MAX: usize = 100;
/// How long a client may take to send its headers; also how long a kept connection may be idle.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest request body.
pub const BODY_BYTES_MAX: usize = 16 << 20;
/// How long a client may take to send its body.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a write to a client may make no progress before the connection, and the query behind it, is given up.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an answer that is not a query may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long open connections may finish after the node was told to stop.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of rows rendered before they are handed to the connection.
pub const CHUNK_BYTES: usize = 64 << 10;
/// Rows rendered between two looks at the chunk's size.
pub const CHUNK_ROWS: usize = 256;
/// Tables that get series of their own in /metrics; the others are counted in the totals.
pub const METRICS_TABLES_MAX: usize = 20;

const _: () = assert!(query::limits::SQL_BYTES_MAX <= BODY_BYTES_MAX, "the longest statement must fit into a body");
const _: () = assert!(METRICS_TABLES_MAX * 9 + 40 < 300, "a node exposes fewer than 300 series");
