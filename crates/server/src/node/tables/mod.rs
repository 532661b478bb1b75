//! The tables of this node: rows on their way from the log to segments, and what queries see of them.
//!
//! ```text
//! log --committed--> reader (one task a partition): decode, rows --> live chunks      queryable
//!                                                                      | seal: time chunks, Parquet, column file
//!                                       deep storage, durable <--------+
//!                                       PublishSegments, committed
//!                                       live rows out, segments in, under one lock    queryable, once
//! ```
//!
//! What always holds: a row is in the live rows or in a published segment, never in both and never in
//! neither, in every snapshot; a partition is sealed by one task at a time; live memory has a bound, at which
//! the largest partition is sealed early and readers wait. A partition's live rows are kept by its leader and a few more
//! replicas (`live_replicas`); the other nodes borrow them for their queries (`gather`, `borrow`).

mod borrow;
mod catalog;
#[cfg(test)]
mod cluster_tests;
mod follow;
mod freshness;
mod gather;
mod load;
mod reader;
mod runtime;
mod seal;
mod status;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base::{NodeId, PartitionIndex, TopicId, TopicPartition};
use control::{State, Table, TableId, TableMode};
use tokio::sync::Semaphore;

use crate::node::findings::{Finding, Findings, Severity};
use crate::node::history::History;
use crate::node::leaders::Leaders;
use crate::node::router::Router;
use crate::node::time;
use crate::node::{lost, rescue};
use crate::shell::deep::DeepStorage;
use crate::shell::logs::LogsHandle;
use crate::shell::meta::MetaHandle;
use crate::shell::peers::PeersHandle;

pub use catalog::NodeCatalog;
pub use runtime::TableRuntime;
pub use status::{DeadLetterSample, IngestRates, PartitionStatus, TableStatus};

/// Between looks at whether a suspended table is sealed.
const SEALED_POLL: Duration = Duration::from_millis(20);

/// Rows that were borrowed from another node go when no query needed them for this long.
const BORROWED_MS: u64 = 60_000;
/// The same while memory for live rows is short.
const BORROWED_MS_SHORT: u64 = 2_000;

/// Bounds of all tables together, from the configuration.
#[derive(Clone, Debug)]
pub struct TablesConfig {
    pub segment_rows_max: u64,
    pub segment_age_ms_max: u64,
    pub live_bytes_max: u64,
    /// Where column files are kept.
    pub segments_dir: PathBuf,
}

/// What every table's tasks work with.
pub struct Deps {
    pub node: NodeId,
    pub config: TablesConfig,
    pub meta: MetaHandle,
    pub logs: LogsHandle,
    /// `None`: the node is alone.
    pub peers: Option<PeersHandle>,
    pub deep: DeepStorage,
    pub findings: Arc<Findings>,
    pub leaders: Arc<Leaders>,
    pub history: Arc<History>,
    /// One permit per thread that may parse, seal or load at the same time.
    pub workers: Arc<Semaphore>,
}

/// Every table of the node.
pub struct Tables {
    deps: Arc<Deps>,
    running: RwLock<BTreeMap<TableId, Arc<TableRuntime>>>,
}

impl Tables {
    /// Opens the tables there are and follows the metadata from then on. Returns when the segments of the tables
    /// that exist now are loaded; their live rows catch up in the background.
    pub async fn start(router: &Router, deps: Deps) -> Arc<Self> {
        let own = Arc::new(Self { deps: Arc::new(deps), running: RwLock::default() });
        own.serve(router);
        let mut changes = own.deps.meta.watch();
        let state = Arc::clone(&changes.borrow_and_update());
        own.reconcile(&state, true).await;
        let tables = Arc::clone(&own);
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let state = Arc::clone(&changes.borrow_and_update());
                tables.reconcile(&state, false).await;
            }
        });
        let tables = Arc::clone(&own);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                tables.all().iter().for_each(|table| table.measure());
                tables.forget_borrowed();
                tables.relieve_memory();
                gather::look_again(&tables).await;
            }
        });
        own
    }

    pub fn all(&self) -> Vec<Arc<TableRuntime>> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub fn named(&self, name: &str) -> Option<Arc<TableRuntime>> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        running.values().find(|table| &*table.name == name).cloned()
    }

    /// Waits until every table holds what was committed when the node started. False: not within `patience`.
    pub async fn caught_up(&self, patience: Duration) -> bool {
        let all = async {
            for table in self.all() {
                table.caught_up().await;
            }
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }

    /// Tables whose live rows have not caught up yet, for messages.
    pub fn behind(&self) -> Vec<String> {
        self.all().iter().filter(|table| !table.is_caught_up()).map(|table| table.name.to_string()).collect()
    }

    /// Waits until what this node has read of a table that was suspended is published, so that nothing queryable vanishes
    /// at a restart. False: not within `patience`.
    pub async fn sealed(&self, table: &TableRuntime, patience: Duration) -> bool {
        let sealed = async {
            while !(table.is_paused() && table.is_sealed(&self.deps)) {
                tokio::time::sleep(SEALED_POLL).await;
            }
        };
        tokio::time::timeout(patience, sealed).await.is_ok()
    }

    /// Makes what runs agree with `state`: new tables begin, dropped ones end, modes and partitions follow.
    async fn reconcile(&self, state: &State, at_start: bool) {
        let known: Vec<TableId> = self.all().iter().map(|table| table.id).collect();
        for id in known.iter().filter(|id| !state.tables.contains_key(id)) {
            let gone = self.running.write().unwrap_or_else(PoisonError::into_inner).remove(id);
            if let Some(table) = gone {
                table.stop();
                load::remove_files(&table, &self.deps).await;
            }
        }
        for table in state.tables.values() {
            let begins_again = self.end_if_changed(table).await;
            // What was sealed while the old one ended is in the newest state, not in the one at hand.
            let newest = self.deps.meta.state();
            let table = newest.tables.get(&table.id).unwrap_or(table);
            let catches_up = at_start || begins_again;
            match self.runtime(table.id).filter(|_| !begins_again) {
                Some(running) => running.set_paused(table.mode == TableMode::Suspended),
                None => self.begin(table, state, catches_up).await,
            }
            if let (Some(running), Some(topic)) = (self.runtime(table.id), state.topics.get(&table.topic)) {
                for index in (0..topic.partitions).map(PartitionIndex) {
                    let is_hosted = self.is_hosted(state, at(table.topic, index));
                    running.begin_partition(index, table, catches_up, is_hosted, &self.deps);
                }
                running.news.notify_one();
            }
        }
        self.set_floors(state);
    }

    /// True if this node has a replica of the partition.
    pub fn is_hosted(&self, state: &State, partition: TopicPartition) -> bool {
        let replicas = state.replicas(partition);
        replicas.is_empty() || replicas.contains(&self.deps.node)
    }

    /// Ends a table whose spec is no longer the one it runs by; true if it did. It begins again from its published
    /// offsets, and its queries wait until it has caught up.
    async fn end_if_changed(&self, table: &Table) -> bool {
        let Some(running) = self.runtime(table.id).filter(|running| running.spec_text != table.spec) else {
            return false;
        };
        running.stop();
        running.seals_ended().await;
        true
    }

    pub(super) fn runtime(&self, id: TableId) -> Option<Arc<TableRuntime>> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    async fn begin(&self, table: &Table, state: &State, at_start: bool) {
        match TableRuntime::new(table, state) {
            Ok(runtime) => {
                let runtime = Arc::new(runtime);
                if at_start || !table.segments.is_empty() {
                    load::load_segments(&runtime, table, &self.deps).await;
                }
                tokio::spawn(follow::run(Arc::clone(&runtime), Arc::clone(&self.deps)));
                self.running.write().unwrap_or_else(PoisonError::into_inner).insert(table.id, runtime);
            }
            Err(cause) => self.deps.findings.raise(
                &table.name,
                Finding {
                    code: "table-unreadable",
                    severity: Severity::Critical,
                    title: format!("table {} cannot be opened", table.name),
                    since: time::wall(),
                    impact: vec!["ingest", "query"],
                    cause,
                    action: "run the release that made the table, or drop it and create it again".into(),
                },
            ),
        }
    }

    /// The log keeps, per partition, what some table has not published yet.
    fn set_floors(&self, state: &State) {
        let mut floors: BTreeMap<TopicPartition, base::Offset> = BTreeMap::new();
        for table in state.tables.values() {
            let partitions = state.topics.get(&table.topic).map_or(0, |topic| topic.partitions);
            for partition in (0..partitions).map(PartitionIndex) {
                let published = table.published(partition);
                let floor = floors.entry(at(table.topic, partition)).or_insert(published);
                *floor = (*floor).min(published);
            }
        }
        for topic in state.topics.values() {
            for partition in (0..topic.partitions).map(PartitionIndex) {
                let key = at(topic.id, partition);
                self.deps.logs.set_floor(key, floors.get(&key).copied());
            }
        }
    }

    /// Borrowed rows that nobody asked for lately make room, sooner while memory is short.
    fn forget_borrowed(&self) {
        let is_short = self.live_bytes() > self.deps.config.live_bytes_max / 2;
        let idle_ms = if is_short { BORROWED_MS_SHORT } else { BORROWED_MS };
        self.all().iter().for_each(|table| table.forget_borrowed(idle_ms));
    }

    /// Answers other nodes that ask for live rows kept here, how far partitions led here are committed, and what was lost.
    fn serve(self: &Arc<Self>, router: &Router) {
        freshness::serve(router, &self.deps.logs);
        borrow::serve(router, self);
        lost::serve(router, self);
        rescue::start(router, &self.deps);
    }

    /// Above the bound of live memory the partition with the most rows is sealed early.
    fn relieve_memory(&self) {
        let tables = self.all();
        let held: u64 = tables.iter().map(|table| table.live_bytes()).sum();
        if held <= self.deps.config.live_bytes_max / 2 {
            return;
        }
        let largest = tables.iter().filter_map(|table| table.largest_partition(&self.deps).map(|found| (found, table)));
        if let Some(((_, partition), table)) = largest.max_by_key(|((rows, _), _)| *rows) {
            seal::spawn(table, partition, &self.deps);
        }
    }

    /// Live rows of all tables, in bytes.
    pub fn live_bytes(&self) -> u64 {
        self.all().iter().map(|table| table.live_bytes()).sum()
    }

    pub fn deps(&self) -> &Arc<Deps> {
        &self.deps
    }
}

fn at(topic: TopicId, partition: PartitionIndex) -> TopicPartition {
    TopicPartition { topic, partition }
}
