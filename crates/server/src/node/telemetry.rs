//! The node's own request log and metrics, as tables like any other: streamed through the node's own log.
//!
//! Best effort by intent: a request never waits for its record. The queue is bounded; what does not fit is
//! counted and the count is itself a metric.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::batch::Codec;
use base::records::BatchBuilder;
use base::{PartitionIndex, Tick, Timestamp, TopicPartition};
use serde_json::{Value, json};
use store::spec::TableSpec;
use tokio::sync::mpsc;

use super::{Acks, Node, NodeError, time};

pub const REQUESTS: &str = "seawall_requests";
pub const METRICS: &str = "seawall_metrics";
/// Records waiting to be written.
const QUEUE_MAX: usize = 8_192;
/// Records in one batch.
const BATCH_MAX: usize = 1_024;
/// How long records gather before they are written.
const LINGER: Duration = Duration::from_millis(200);
const PATIENCE_MS: u64 = 5_000;
/// Longest statement kept in a record, in bytes.
const SQL_BYTES_MAX: usize = 4_096;

/// One request that an edge has answered.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    pub protocol: &'static str,
    pub query_id: String,
    pub identity: String,
    pub sql: String,
    pub duration_ms: u64,
    pub rows: u64,
    /// Empty: it went well.
    pub error: String,
}

/// Where edges leave their records.
#[derive(Debug)]
pub struct Telemetry {
    queue: mpsc::Sender<RequestRecord>,
    inbox: Mutex<Option<mpsc::Receiver<RequestRecord>>>,
    enabled: bool,
    dropped: AtomicU64,
}

impl Telemetry {
    pub fn new(enabled: bool) -> Self {
        let (queue, inbox) = mpsc::channel(QUEUE_MAX);
        Self { queue, inbox: Mutex::new(Some(inbox)), enabled, dropped: AtomicU64::new(0) }
    }

    /// Notes a request. Never waits.
    pub fn request(&self, record: RequestRecord) {
        if self.enabled && self.queue.try_send(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that found the queue full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Starts what the configuration asks for; runs until the node ends.
pub fn start(node: &Arc<Node>) {
    let inbox = node.telemetry.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let (true, Some(inbox)) = (node.config.telemetry.request_log, inbox) {
        tokio::spawn(requests(Arc::clone(node), inbox));
    }
    if node.config.telemetry.metrics {
        tokio::spawn(metrics(Arc::clone(node)));
    }
}

async fn requests(node: Arc<Node>, mut inbox: mpsc::Receiver<RequestRecord>) {
    let Some(partition) = table(&node, REQUESTS).await else { return };
    let mut records = Vec::with_capacity(BATCH_MAX);
    while inbox.recv_many(&mut records, BATCH_MAX).await > 0 {
        let now = time::wall();
        let rows = records.drain(..).map(|record: RequestRecord| {
            json!({
                "__time": now.0,
                "protocol": record.protocol,
                "query_id": record.query_id,
                "identity": record.identity,
                "sql": cut(&record.sql),
                "duration_ms": record.duration_ms,
                "rows": record.rows,
                "error": record.error,
            })
        });
        write(&node, partition, now, rows.collect()).await;
        tokio::time::sleep(LINGER).await;
    }
}

async fn metrics(node: Arc<Node>) {
    let Some(partition) = table(&node, METRICS).await else { return };
    let mut ticker = tokio::time::interval(node.config.telemetry.metrics_interval.max(LINGER));
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticker.tick().await;
        let now = time::wall();
        write(&node, partition, now, readings(&node, now)).await;
    }
}

/// One row a figure: metric, value, and what it is about.
fn readings(node: &Node, now: Timestamp) -> Vec<Value> {
    let row = |metric: &str, subject: &str, value: u64| json!({"__time": now.0, "metric": metric, "subject": subject, "value": value});
    let mut rows = vec![
        row("process_resident_bytes", "", resident_bytes()),
        row("uptime_ms", "", node.uptime_ms()),
        row("queries_running", "", node.query.running().len() as u64),
        row("findings_open", "", node.findings().len() as u64),
        row("telemetry_dropped_total", "", node.telemetry.dropped()),
        row("live_bytes", "", node.tables.live_bytes()),
    ];
    for table in node.tables() {
        let lag = table.partitions.iter().map(|place| place.committed.0.saturating_sub(place.next.0)).sum::<i64>();
        rows.push(row("table_rows_ingested_total", &table.name, table.counters.rows));
        rows.push(row("table_live_rows", &table.name, table.live_rows));
        rows.push(row("table_segments", &table.name, table.segments as u64));
        rows.push(row("table_lag_records", &table.name, u64::try_from(lag).unwrap_or(0)));
    }
    rows
}

async fn table(node: &Node, name: &str) -> Option<TopicPartition> {
    let created: Result<(), NodeError> = match node.state().table_named(name) {
        Some(_) => Ok(()),
        None => node.create_table(TableSpec::discover(name, name)).await,
    };
    if let Err(error) = created {
        tracing::warn!(table = name, %error, "the node's own table cannot be made; it goes on without");
        return None;
    }
    let topic = node.state().topic_named(name)?.id;
    Some(TopicPartition { topic, partition: PartitionIndex(0) })
}

async fn write(node: &Node, partition: TopicPartition, now: Timestamp, rows: Vec<Value>) {
    let mut builder = BatchBuilder::new(Codec::None);
    for row in rows {
        builder.push(now, None, Some(row.to_string().as_bytes()), &[]);
    }
    let Ok(batch) = builder.build() else { return };
    let deadline = Tick(time::now().0 + PATIENCE_MS);
    if let Err(error) = node.append(partition, batch, Acks::Leader, deadline).await {
        tracing::debug!(%error, "the node's own records were not written");
    }
}

fn cut(sql: &str) -> &str {
    let mut end = sql.len().min(SQL_BYTES_MAX);
    while !sql.is_char_boundary(end) {
        end -= 1;
    }
    &sql[..end]
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1_024
}
