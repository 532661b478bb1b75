//! What a query asks of the node it runs on: tables, their snapshots, and the rows of `sys` tables.

use std::sync::Arc;

use base::Timestamp;
use store::snapshot::TableSnapshot;

/// The node's tables, as the query room sees them. Cheap to call; never blocks on a disk or a peer.
pub trait Catalog: Send + Sync {
    /// Names of all tables that can be queried.
    fn tables(&self) -> Vec<Arc<str>>;
    /// Everything a query needs of `table`, fixed at this moment: published segments and live rows above them.
    fn snapshot(&self, table: &str) -> Option<TableSnapshot>;
    /// Why `table` cannot be answered fully right now, in words for a person: a published segment is not open
    /// here. A query over it fails with this instead of leaving rows out.
    fn unavailable(&self, _table: &str) -> Option<String> {
        None
    }
    /// The rows of `sys.segments`.
    fn segments(&self) -> Vec<SegmentRow> {
        Vec::new()
    }
    /// The rows of `sys.servers`.
    fn servers(&self) -> Vec<ServerRow> {
        Vec::new()
    }
}

/// One row of `sys.segments`: a segment of a table, published or live.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentRow {
    pub segment_id: String,
    pub table: Arc<str>,
    pub start: Timestamp,
    pub end: Timestamp,
    pub size_bytes: u64,
    pub version: String,
    pub partition_num: i64,
    pub replicas: i64,
    pub rows: u64,
    pub is_published: bool,
    pub is_available: bool,
    pub is_realtime: bool,
    pub is_overshadowed: bool,
}

/// One row of `sys.servers`: a node and what it serves.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerRow {
    /// `host:port`, the key of the table.
    pub server: String,
    pub host: String,
    pub plaintext_port: i64,
    pub tls_port: i64,
    /// Druid's word for what the node does: `broker`, `historical`, `coordinator`, ...
    pub server_type: String,
    pub tier: Option<String>,
    pub current_size_bytes: u64,
    pub max_size_bytes: u64,
    pub is_leader: Option<bool>,
    pub start_time: Timestamp,
    pub version: String,
}
