//! `/metrics` in OpenMetrics text: read from the node when it is asked for, plus what this edge counts itself.
//!
//! What always holds: base units; fewer than 300 series whatever the node holds (tables past a bound are in totals only).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base::{PartitionIndex, TopicPartition};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::limits::METRICS_TABLES_MAX;
use super::process;
use crate::node::findings::Severity;
use crate::node::tables::TableStatus;
use crate::node::{Node, time};

/// Upper bounds of the duration buckets, in seconds.
const DURATION_BUCKETS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0, 300.0];
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What this edge counts.
#[derive(Debug)]
pub struct Counted {
    /// Answers by the first digit of their status: 1xx to 5xx.
    answers: [AtomicU64; 5],
    sql_seconds: Histogram,
}

impl Counted {
    pub fn new() -> Self {
        Self { answers: Default::default(), sql_seconds: Histogram::new(DURATION_BUCKETS) }
    }

    fn count(&self, response: &Response) {
        let class = usize::from(response.status().as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.answers.get(class) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts answers, and how long it took until a query's answer began.
pub async fn count(State(counted): State<Arc<Counted>>, request: Request, next: Next) -> Response {
    let is_sql = request.uri().path().starts_with("/druid/v2/sql");
    let began = std::time::Instant::now();
    let response = next.run(request).await;
    counted.count(&response);
    if is_sql {
        counted.sql_seconds.observe(began.elapsed().as_secs_f64());
    }
    response
}

/// The registry `/metrics` writes out.
pub fn registry(node: &Arc<Node>, counted: &Arc<Counted>) -> Registry {
    let mut registry = Registry::with_prefix("seawall");
    let help = "time until the answer to a SQL request began";
    registry.register_with_unit("http_sql_first_byte", help, Unit::Seconds, counted.sql_seconds.clone());
    registry.register_collector(Box::new(NodeCollector { node: Arc::clone(node), counted: Arc::clone(counted) }));
    registry
}

pub async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

struct NodeCollector {
    node: Arc<Node>,
    counted: Arc<Counted>,
}

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

/// One family of series: the same name, one label.
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    unit: Option<Unit>,
    label: &'a str,
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.process(&mut encoder)?;
        self.log(&mut encoder)?;
        let tables = self.node.tables();
        self.totals(&mut encoder, &tables)?;
        per_table(&mut encoder, &tables[..tables.len().min(METRICS_TABLES_MAX)])
    }
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count_of(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Counts stay far below what a double holds exactly.
fn as_number(value: u64) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>, value: i64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: f64,
) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, unit, counter.metric_type())?)
}

impl NodeCollector {
    fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let version = Family { name: "build", help: "what runs", unit: None, label: "version" };
        gauges(encoder, &version, &[(env!("CARGO_PKG_VERSION"), 1)])?;
        let memory = process::memory();
        let seconds = Some(&Unit::Seconds);
        let up_ms = u32::try_from(self.node.uptime_ms() / 1_000).unwrap_or(u32::MAX);
        gauge(encoder, "uptime", "time since the node began to serve", seconds, up_ms.into())?;
        gauge(encoder, "memory", "resident memory", Some(&Unit::Bytes), whole(memory.resident_bytes))?;
        gauge(encoder, "open_files", "open file descriptors", None, whole(process::open_files()))?;
        gauge(encoder, "threads", "threads of the process", None, whole(process::threads()))?;
        counter(encoder, "cpu", "time all threads worked", seconds, process::cpu_seconds())?;
        let answers = Family { name: "http_answers", help: "answers by class of status", unit: None, label: "status" };
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        let values: Vec<_> =
            classes.iter().zip(&self.counted.answers).map(|(class, n)| (*class, n.load(Ordering::Relaxed))).collect();
        counters(encoder, &answers, &values)?;
        let findings = self.node.findings();
        let open = |severity| count_of(findings.iter().filter(|finding| finding.severity == severity).count());
        let family = Family { name: "findings", help: "what is wrong now", unit: None, label: "severity" };
        gauges(encoder, &family, &[("warning", open(Severity::Warning)), ("critical", open(Severity::Critical))])
    }

    fn log(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let state = self.node.state();
        let (mut partitions, mut records, mut bytes) = (0, 0, 0);
        for topic in state.topics.values() {
            for index in 0..topic.partitions {
                partitions += 1;
                let at = TopicPartition { topic: topic.id, partition: PartitionIndex(index) };
                if let Some(reader) = self.node.reader(at) {
                    records += reader.committed().0 - reader.start().0;
                    bytes += reader.size_bytes();
                }
            }
        }
        gauge(encoder, "log_topics", "topics", None, count_of(state.topics.len()))?;
        gauge(encoder, "log_partitions", "partitions of all topics", None, partitions)?;
        gauge(encoder, "log_records", "committed records that are kept", None, records)?;
        gauge(encoder, "log_size", "size of all log files", Some(&Unit::Bytes), whole(bytes))?;
        let rounds = self.node.logs().rounds();
        let (slow, longest_ms) = (rounds.slow.load(Ordering::Relaxed), rounds.longest_ms.load(Ordering::Relaxed));
        let help = "rounds of the log's thread of 50 ms or more: replication stood still for them";
        counter(encoder, "log_slow_rounds", help, None, as_number(slow))?;
        let slow_seconds = as_number(rounds.slow_ms.load(Ordering::Relaxed)) / 1_000.0;
        counter(encoder, "log_slow_rounds_time", "time spent in them", Some(&Unit::Seconds), slow_seconds)?;
        gauge(encoder, "log_longest_round_ms", "the longest round of the log's thread", None, whole(longest_ms))
    }

    fn totals(&self, encoder: &mut DescriptorEncoder<'_>, tables: &[TableStatus]) -> fmt::Result {
        let running = self.node.query().running().len();
        gauge(encoder, "queries_running", "queries that run or wait", None, count_of(running))?;
        gauge(encoder, "tables", "tables", None, count_of(tables.len()))?;
        let sum = |value: fn(&TableStatus) -> u64| whole(tables.iter().map(value).sum());
        let bytes = Some(&Unit::Bytes);
        gauge(encoder, "rows_live", "rows in memory, not sealed yet", None, sum(|table| table.live_rows))?;
        gauge(encoder, "rows_sealed", "rows in segments", None, sum(|table| table.segment_rows))?;
        gauge(encoder, "live_size", "memory of live rows", bytes, sum(|table| table.live_bytes))?;
        gauge(encoder, "segments_size", "size of all segments", bytes, sum(|table| table.segment_bytes))
    }
}

fn lag(table: &TableStatus) -> i64 {
    table.partitions.iter().map(|partition| (partition.committed.0 - partition.next.0).max(0)).sum()
}

fn freshness_seconds(table: &TableStatus) -> i64 {
    table.newest.map_or(0, |newest| time::wall().0.saturating_sub(newest.0).max(0) / 1_000)
}

fn per_table(encoder: &mut DescriptorEncoder<'_>, tables: &[TableStatus]) -> fmt::Result {
    let family = |name, help, unit| Family { name, help, unit, label: "table" };
    let gauge_of = |value: &dyn Fn(&TableStatus) -> i64| -> Vec<(&str, i64)> {
        tables.iter().map(|table| (table.name.as_str(), value(table))).collect()
    };
    gauges(encoder, &family("table_rows_live", "rows in memory", None), &gauge_of(&|t| whole(t.live_rows)))?;
    gauges(encoder, &family("table_rows_sealed", "rows in segments", None), &gauge_of(&|t| whole(t.segment_rows)))?;
    gauges(encoder, &family("table_segments", "segments", None), &gauge_of(&|t| count_of(t.segments)))?;
    let size = family("table_segments_size", "size of the segments", Some(Unit::Bytes));
    gauges(encoder, &size, &gauge_of(&|t| whole(t.segment_bytes)))?;
    let behind = family("table_lag_records", "committed records that are not queryable yet", None);
    gauges(encoder, &behind, &gauge_of(&lag))?;
    let fresh = family("table_freshness", "age of the newest event time", Some(Unit::Seconds));
    gauges(encoder, &fresh, &gauge_of(&freshness_seconds))?;
    let counter_of = |value: fn(&TableStatus) -> u64| -> Vec<(&str, u64)> {
        tables.iter().map(|table| (table.name.as_str(), value(table))).collect()
    };
    counters(encoder, &family("table_ingested_rows", "rows taken in", None), &counter_of(|t| t.counters.rows))?;
    let bad = family("table_unparseable_records", "records that became no row", None);
    counters(encoder, &bad, &counter_of(|t| t.counters.unparseable))?;
    let late = family("table_thrown_away_rows", "rows too late or too early", None);
    counters(encoder, &late, &counter_of(|t| t.counters.thrown_away))
}

fn gauges(encoder: &mut DescriptorEncoder<'_>, family: &Family<'_>, values: &[(&str, i64)]) -> fmt::Result {
    let kind = ConstGauge::new(0_i64).metric_type();
    let mut metric = encoder.encode_descriptor(family.name, family.help, family.unit.as_ref(), kind)?;
    for (value, number) in values {
        let label = [(family.label, *value)];
        ConstGauge::new(*number).encode(metric.encode_family(&label)?)?;
    }
    Ok(())
}

fn counters(encoder: &mut DescriptorEncoder<'_>, family: &Family<'_>, values: &[(&str, u64)]) -> fmt::Result {
    let kind = ConstCounter::new(0_u64).metric_type();
    let mut metric = encoder.encode_descriptor(family.name, family.help, family.unit.as_ref(), kind)?;
    for (value, number) in values {
        let label = [(family.label, *value)];
        ConstCounter::new(*number).encode(metric.encode_family(&label)?)?;
    }
    Ok(())
}
