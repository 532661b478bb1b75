//! Bounds of this edge.

use std::time::Duration;

/// How long a client may take from connecting to the end of its startup.
pub const STARTUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest startup packet, as PostgreSQL.
pub const STARTUP_BYTES_MAX: usize = 10_000;
/// Largest message of a session.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// How long a write may make no progress before the session is given up.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the rest of a message may take once its first byte is here.
pub const MESSAGE_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long sessions may finish what they do after the node was told to stop.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements of one session.
pub const STATEMENTS_MAX: usize = 4_096;
/// Open portals of one session, cursors included. Each may hold a running query.
pub const PORTALS_MAX: usize = 64;
/// Statements of one simple query.
pub const STATEMENTS_PER_QUERY_MAX: usize = 1_000;
/// Settings a session may have set.
pub const SETTINGS_MAX: usize = 256;
/// Bytes of rows buffered before they go to the socket.
pub const FLUSH_BYTES: usize = 64 << 10;
/// Longest message of an error; the rest is cut off.
pub const ERROR_BYTES_MAX: usize = 8 << 10;

const _: () =
    assert!(query::limits::SQL_BYTES_MAX < MESSAGE_BYTES_MAX, "the longest statement must fit into a message");
