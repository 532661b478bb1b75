//! What a query asks of the node it runs on: tables, their snapshots, and the rows of `sys` tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use futures::future::BoxFuture;
use store::snapshot::TableSnapshot;

use crate::error::QueryError;

/// Which rows an answer must count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Consistency {
    /// All that was acknowledged before the query began, as long as whoever knows that can be reached.
    #[default]
    Leader,
    /// What the node knows of without asking: quicker, and it may lag.
    Local,
}

/// The one system table whose rows are fetched from other nodes for a statement.
pub const LOST_BATCHES: &str = "sys.lost_batches";

/// One row of it: a record batch that a replica had written and another leader's records have replaced.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LostRow {
    pub topic: String,
    pub partition: i64,
    /// The node that keeps it.
    pub node: i64,
    pub path: String,
    pub saved_at: Timestamp,
    pub term: i64,
    pub replaced_by_term: i64,
    pub base_offset: i64,
    pub last_offset: i64,
    pub records: i64,
    /// -1: the producer was not idempotent.
    pub producer_id: i64,
    /// `yes`, `no` or `unknown`.
    pub acknowledged: String,
    /// `kept`, `waiting` (to be republished), `republished`, `returned` or `dropped`.
    pub state: String,
    pub size_bytes: i64,
}

/// The tables a statement names, fixed at one moment.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    pub snapshots: BTreeMap<String, TableSnapshot>,
    /// What the caller should know of the answer, in words for a person.
    pub warnings: Vec<String>,
    /// The rows of [`LOST_BATCHES`], if that was among the tables.
    pub lost: Vec<LostRow>,
}

/// The node's tables, as the query room sees them. Cheap to call, and only [`Catalog::prepare`] waits for anything.
pub trait Catalog: Send + Sync {
    /// Names of all tables that can be queried.
    fn tables(&self) -> Vec<Arc<str>>;
    /// What is here of `table`, fixed at this moment: published segments and live rows above them.
    fn snapshot(&self, table: &str) -> Option<TableSnapshot>;
    /// Why `table` cannot be answered fully right now, in words for a person: a published segment is not open
    /// here. A query over it fails with this instead of leaving rows out.
    fn unavailable(&self, _table: &str) -> Option<String> {
        None
    }
    /// Everything a query needs of `tables`, wherever it is; of names that are no tables nothing. Waits no longer than
    /// `patience`.
    ///
    /// # Errors
    /// `Unavailable` if rows that belong into the answer cannot be had.
    fn prepare(
        &self,
        tables: Vec<String>,
        _consistency: Consistency,
        _patience: Duration,
    ) -> BoxFuture<'_, Result<Prepared, QueryError>> {
        Box::pin(async move {
            let mut prepared = Prepared::default();
            for table in tables {
                if let Some(cause) = self.unavailable(&table) {
                    return Err(QueryError::unavailable(cause));
                }
                if let Some(snapshot) = self.snapshot(&table) {
                    prepared.snapshots.insert(table, snapshot);
                }
            }
            Ok(prepared)
        })
    }
    /// The number of the node asked, where there are several.
    fn node(&self) -> Option<i64> {
        None
    }
    /// Queries that are over, on any node, the oldest first: `sys.queries` shows them with those that run.
    fn past_queries(&self) -> Vec<PastRow> {
        Vec::new()
    }
    /// The rows of `sys.tasks`: background work that is over, on any node.
    fn past_tasks(&self) -> Vec<PastRow> {
        Vec::new()
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

/// A query or a task that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastRow {
    /// The node that ran it.
    pub node: i64,
    pub id: String,
    /// The statement, or the table worked for.
    pub subject: String,
    pub identity: String,
    pub began: Timestamp,
    pub duration_ms: u64,
    pub rows: u64,
    /// Empty: it went well.
    pub error: String,
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
