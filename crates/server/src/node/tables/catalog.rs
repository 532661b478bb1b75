//! The node's tables as the query room sees them.

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use futures::future::BoxFuture;
use query::{Catalog, Consistency, LOST_BATCHES, PastRow, Prepared, QueryError, SegmentRow, ServerRow};
use store::calendar::format_iso;
use store::snapshot::TableSnapshot;

use super::Tables;
use super::gather::gather;
use crate::node::history::{Entry, Kind};
use crate::node::lost;

pub struct NodeCatalog {
    pub tables: Arc<Tables>,
    /// `host:port` under which this node answers HTTP.
    pub address: std::net::SocketAddr,
    pub started: Timestamp,
}

impl NodeCatalog {
    fn past(&self, kind: Kind) -> Vec<PastRow> {
        let entries = self.tables.deps().history.list(kind).into_iter();
        let row = |entry: Entry| PastRow {
            node: entry.node.into(),
            id: entry.id,
            subject: entry.subject,
            identity: entry.identity,
            began: Timestamp(entry.began),
            duration_ms: entry.duration_ms,
            rows: entry.rows,
            error: entry.error,
        };
        entries.map(row).collect()
    }
}

impl Catalog for NodeCatalog {
    fn tables(&self) -> Vec<Arc<str>> {
        self.tables.all().iter().map(|table| Arc::clone(&table.name)).collect()
    }

    fn snapshot(&self, table: &str) -> Option<TableSnapshot> {
        self.tables.named(table).map(|table| table.snapshot())
    }

    fn unavailable(&self, table: &str) -> Option<String> {
        let table = self.tables.named(table)?;
        table.missing().or_else(|| table.is_partial())
    }

    fn prepare(
        &self,
        tables: Vec<String>,
        consistency: Consistency,
        patience: Duration,
    ) -> BoxFuture<'_, Result<Prepared, QueryError>> {
        Box::pin(async move {
            let lost = if tables.iter().any(|table| table == LOST_BATCHES) {
                Some(lost::everywhere(&self.tables, patience).await)
            } else {
                None
            };
            let named = tables.into_iter().filter_map(|name| Some((self.tables.named(&name)?, name)));
            let gathered = named.map(|(table, name)| async move {
                let gathered = gather(&table, consistency, patience, self.tables.deps()).await;
                gathered.map(|gathered| (name, gathered))
            });
            let mut prepared = Prepared::default();
            if let Some((rows, warnings)) = lost {
                (prepared.lost, prepared.warnings) = (rows, warnings);
            }
            for gathered in futures::future::join_all(gathered).await {
                let (name, gathered) = gathered.map_err(QueryError::unavailable)?;
                prepared.warnings.extend(gathered.warnings.iter().map(|warning| format!("table {name}: {warning}")));
                prepared.snapshots.insert(name, gathered.snapshot);
            }
            Ok(prepared)
        })
    }

    fn node(&self) -> Option<i64> {
        Some(self.tables.deps().node.0.into())
    }

    fn past_queries(&self) -> Vec<PastRow> {
        self.past(Kind::Query)
    }

    fn past_tasks(&self) -> Vec<PastRow> {
        self.past(Kind::Task)
    }

    fn segments(&self) -> Vec<SegmentRow> {
        let state = self.tables.deps().meta.state();
        let mut rows = Vec::new();
        for runtime in self.tables.all() {
            let name = Arc::clone(&runtime.name);
            if let Some(table) = state.tables.get(&runtime.id) {
                let visible: std::collections::BTreeSet<_> =
                    table.visible_segments().iter().map(|segment| segment.id).collect();
                let core = runtime.core();
                rows.extend(table.segments.values().map(|segment| {
                    let version = format_iso(segment.version);
                    let (start, end) = (segment.interval.start, segment.interval.end);
                    let shard = if segment.shard == 0 { String::new() } else { format!("_{}", segment.shard) };
                    let is_available = core.segments.contains_key(&segment.id);
                    SegmentRow {
                        segment_id: format!("{name}_{}_{}_{version}{shard}", format_iso(start), format_iso(end)),
                        table: Arc::clone(&name),
                        start,
                        end,
                        size_bytes: segment.size_bytes,
                        version,
                        partition_num: i64::from(segment.shard),
                        replicas: i64::from(is_available),
                        rows: segment.rows,
                        is_published: true,
                        is_available,
                        is_realtime: false,
                        is_overshadowed: !visible.contains(&segment.id),
                    }
                }));
            }
            rows.extend(runtime.snapshot().segments.into_iter().filter(|segment| segment.live).map(|segment| {
                SegmentRow {
                    segment_id: format!("{name}_{}", segment.id),
                    table: Arc::clone(&name),
                    start: segment.interval.start,
                    end: segment.interval.end,
                    size_bytes: 0,
                    version: "live".into(),
                    partition_num: 0,
                    replicas: 1,
                    rows: segment.rows,
                    is_published: false,
                    is_available: true,
                    is_realtime: true,
                    is_overshadowed: false,
                }
            }));
        }
        rows
    }

    fn servers(&self) -> Vec<ServerRow> {
        let used = self.segments().iter().filter(|row| row.is_available).map(|row| row.size_bytes).sum();
        vec![ServerRow {
            server: self.address.to_string(),
            host: self.address.ip().to_string(),
            plaintext_port: i64::from(self.address.port()),
            tls_port: -1,
            server_type: "historical".into(),
            tier: Some("_default_tier".into()),
            current_size_bytes: used,
            max_size_bytes: 0,
            is_leader: Some(true),
            start_time: self.started,
            version: env!("CARGO_PKG_VERSION").into(),
        }]
    }
}
