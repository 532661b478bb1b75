//! One node: topics, tables, groups and queries composed over the shell's threads.
//!
//! ```text
//! edges --> Node --+-- shell::meta   group 0: commands in, Arc<State> out
//!                  +-- shell::logs   partitions: append, flush, acks
//!                  +-- groups        consumer groups over an internal topic
//!                  +-- tables        ingest -> live rows -> seal -> deep storage -> publish -> load
//!                  +-- query         SQL over the tables' snapshots
//! ```

mod clocks;
pub mod cluster;
#[cfg(test)]
mod cluster_tests;
mod coordination;
pub mod duties;
pub mod error;
pub mod findings;
mod forecast;
pub mod groups;
pub mod history;
pub mod hosting;
mod identity;
mod joining;
pub mod leaders;
mod leftovers;
mod lost;
mod mastery;
#[cfg(test)]
mod members_tests;
mod membership;
mod moves;
pub mod query_threads;
pub mod recovery;
pub mod refound;
mod rescue;
mod router;
mod serve;
mod spool;
pub mod start;
mod stored;
pub mod tables;
pub mod telemetry;
pub mod time;
pub mod topics;
pub mod transactions;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{NodeId, Offset, ProducerEpoch, ProducerId, Term, Tick, TopicPartition};
use bytes::Bytes;
use control::{Applied, Command, State, TableId, TableMode, Topic};
use log::transactions::{Producer, Target, TransactionError};
use store::spec::TableSpec;
use uuid::Uuid;

use crate::config::Config;
use crate::shell::logs::LogsHandle;
use crate::shell::meta::{MasterStatus, MetaHandle};
use crate::shell::peers::PeersHandle;
use leaders::Leaders;
pub use rescue::{Act as LostAct, Done as LostDone, Which as LostWhich};
use router::Router;
use tables::{TableStatus, Tables};

pub use error::NodeError;
pub use findings::{Finding, Findings};
pub use identity::DataDir;
pub use identity::set_control_aside;
pub use serve::serve;
pub use spool::Spool;

/// When a producer is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    /// Not at all.
    None,
    /// When the leader has written it.
    Leader,
    /// When a majority has it durably.
    All,
}

/// Longest wait for a new table to begin on this node.
const TABLE_BEGINS: Duration = Duration::from_secs(10);
/// Longest wait for the rows of a suspended table to be sealed; it goes on in the background after that.
const TABLE_SEALED: Duration = Duration::from_secs(30);
/// Between two looks whether records are deleted.
const DELETED_POLL: Duration = Duration::from_millis(2);
/// Longest wait of a query for tables that still catch up after a restart.
const CATCH_UP: Duration = Duration::from_secs(30);

/// A node that serves. Shared by every edge as `Arc<Node>`.
pub struct Node {
    config: Arc<Config>,
    meta: MetaHandle,
    logs: LogsHandle,
    hosting: hosting::Hosting,
    /// `None`: the node is alone.
    peers: Option<PeersHandle>,
    router: Arc<Router>,
    leaders: Arc<Leaders>,
    /// Which nodes a link to is up.
    links: tokio::sync::watch::Receiver<BTreeMap<NodeId, bool>>,
    groups: groups::Groups,
    transactions: transactions::Transactions,
    tables: Arc<Tables>,
    query: query::QueryService,
    query_threads: query_threads::QueryThreads,
    findings: Arc<Findings>,
    producer_ids: tokio::sync::Mutex<topics::ProducerIds>,
    telemetry: telemetry::Telemetry,
    /// Set if records here only wait to be passed on.
    spool: std::sync::OnceLock<Spool>,
    started: Tick,
}

impl Node {
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The metadata as of the last applied command. Cheap.
    pub fn state(&self) -> Arc<State> {
        self.meta.state()
    }

    /// This node's number.
    pub fn id(&self) -> NodeId {
        NodeId(self.config.node.id)
    }

    /// Who leads group 0: the active master.
    pub fn master(&self) -> Arc<MasterStatus> {
        self.meta.master()
    }

    /// Group 0's thread.
    pub fn meta(&self) -> &MetaHandle {
        &self.meta
    }

    /// The partitions' threads.
    pub fn logs(&self) -> &LogsHandle {
        &self.logs
    }

    /// The links to the other nodes. `None`: the node is alone.
    pub fn peers(&self) -> Option<&PeersHandle> {
        self.peers.as_ref()
    }

    /// Where other nodes' calls are answered.
    #[cfg(test)]
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// Who leads a partition, and since which term, as far as this node knows.
    pub fn leader_of(&self, partition: TopicPartition) -> Option<(NodeId, Term)> {
        self.leaders.leader_of(partition)
    }

    /// The replicas of a partition that do not keep up with its leader, as that one says.
    pub fn behind(&self, partition: TopicPartition) -> crate::shell::logs::Behind {
        self.leader_of(partition).map(|(leader, _)| self.leaders.behind(partition, leader)).unwrap_or_default()
    }

    /// Proposes to group 0; answers when the command has been committed and applied here.
    pub async fn propose(&self, command: Command) -> Result<Applied, NodeError> {
        Ok(self.meta.propose(command).await?)
    }

    /// Appends record batches to a partition; answers as `acks` says. `deadline` is on [`time::now`]'s clock.
    pub async fn append(
        &self,
        partition: TopicPartition,
        batches: Bytes,
        acks: Acks,
        deadline: Tick,
    ) -> Result<log::Appended, NodeError> {
        Ok(self.logs.append(partition, batches, acks, deadline).await?)
    }

    /// Reads beside the log's thread. `None`: no such partition on this node.
    pub fn reader(&self, partition: TopicPartition) -> Option<log::Reader> {
        self.logs.reader(partition)
    }

    /// Changes when the partition's committed offset does: what a waiting fetch waits on.
    pub fn committed_signal(&self, partition: TopicPartition) -> Option<tokio::sync::watch::Receiver<Offset>> {
        self.logs.committed(partition)
    }

    /// As [`Node::committed_signal`], for what readers of committed transactions see.
    pub fn stable_signal(&self, partition: TopicPartition) -> Option<tokio::sync::watch::Receiver<Offset>> {
        self.logs.stable(partition)
    }

    /// DeleteRecords: forgets everything below `before`; answers the new start, once a majority has agreed.
    ///
    /// # Errors
    /// [`NodeError::Timeout`] if they have not by `deadline`; it may still happen.
    pub async fn delete_records(
        &self,
        partition: TopicPartition,
        before: Offset,
        deadline: Tick,
    ) -> Result<Offset, NodeError> {
        let begun = time::now();
        let mut start = self.logs.delete_before(partition, before).await?;
        while start < before {
            if time::now() >= deadline {
                let waited_ms = time::now().since(begun);
                return Err(NodeError::Timeout { what: "the other replicas to delete the records too", waited_ms });
            }
            tokio::time::sleep(DELETED_POLL).await;
            let reader = self.reader(partition).ok_or(NodeError::UnknownPartition(partition.to_string()))?;
            start = reader.start();
        }
        Ok(start)
    }

    /// A producer id for an idempotent producer, with epoch zero.
    pub async fn init_producer_id(&self) -> Result<(ProducerId, ProducerEpoch), NodeError> {
        let mut block = self.producer_ids.lock().await;
        Ok((block.next(&self.meta).await?, ProducerEpoch(0)))
    }

    /// One consumer-group request.
    pub async fn group(&self, request: log::groups::Request) -> log::groups::Response {
        self.groups.request(request).await
    }

    /// A producer begins under a transactional id, at its coordinator.
    pub async fn init_transactional(
        &self,
        id: String,
        timeout_ms: i64,
        expected: Option<Producer>,
    ) -> Result<Producer, TransactionError> {
        let fresh = self.producer_ids.lock().await.next(&self.meta).await.map_err(|error| {
            tracing::warn!(%error, "no producer id could be given");
            TransactionError::NotAvailable
        })?;
        let request = log::transactions::Request::Init { id, timeout_ms, expected, fresh };
        match self.transactions.request(request).await {
            log::transactions::Response::Init(result) => result,
            _ => Err(TransactionError::NotAvailable),
        }
    }

    /// One transactional request, at its coordinator.
    pub async fn transaction(&self, request: log::transactions::Request) -> log::transactions::Response {
        self.transactions.request(request).await
    }

    /// Whether all targets belong to a transaction of the producer that is under way, wherever it is coordinated.
    pub async fn verify_transaction(
        &self,
        id: &str,
        producer: Producer,
        targets: Vec<Target>,
    ) -> Result<(), TransactionError> {
        self.transactions.verify(id, producer, targets).await
    }

    /// The query room. Wait for [`Node::ready_for_queries`] first.
    pub fn query(&self) -> &query::QueryService {
        &self.query
    }

    /// Where queries run. Not where sockets are served.
    pub fn query_threads(&self) -> &tokio::runtime::Handle {
        self.query_threads.handle()
    }

    /// Waits until every table holds what was committed when the node started, so that no answer misses rows.
    ///
    /// # Errors
    /// [`NodeError::Timeout`] if they do not within 30 seconds.
    pub async fn ready_for_queries(&self) -> Result<(), NodeError> {
        if self.tables.caught_up(CATCH_UP).await {
            return Ok(());
        }
        let waited_ms = u64::try_from(CATCH_UP.as_millis()).unwrap_or(u64::MAX);
        Err(NodeError::Timeout { what: "reading the log's tail after the restart", waited_ms })
    }

    /// Tables that still catch up after the start. Empty: queries are answered at once.
    pub fn tables_behind(&self) -> Vec<String> {
        self.tables.behind()
    }

    /// Creates a streaming table and its topic if that is absent; a table of that name gets the new spec.
    pub async fn create_table(&self, spec: TableSpec) -> Result<(), NodeError> {
        spec.check().map_err(|error| NodeError::Invalid(error.to_string()))?;
        let topic = self.topic_for_table(&spec.topic).await?;
        if let Some(table) = self.state().table_named(&spec.name).cloned() {
            if table.topic != topic.id {
                return Err(NodeError::Invalid(format!(
                    "table {} reads another topic; drop it before it is made to read {}",
                    spec.name, spec.topic
                )));
            }
            return self.propose(Command::SetTableSpec { id: table.id, spec: spec.to_json() }).await.map(drop);
        }
        let schema =
            serde_json::to_string(&spec.initial_schema()).map_err(|error| NodeError::Internal(error.to_string()))?;
        let id = TableId(Uuid::new_v4());
        let begin = if spec.use_earliest_offset { BTreeMap::new() } else { self.ends_of(&topic) };
        self.propose(Command::CreateTable {
            id,
            name: spec.name.clone(),
            topic: topic.id,
            spec: spec.to_json(),
            schema,
            begin,
            created: time::wall(),
        })
        .await?;
        self.await_table(|tables| tables.all().iter().any(|table| table.id == id)).await
    }

    /// Drops a table and its segments; the topic stays.
    pub async fn drop_table(&self, name: &str) -> Result<(), NodeError> {
        let table = self.state().table_named(name).cloned().ok_or_else(|| NodeError::UnknownTable(name.into()))?;
        self.propose(Command::DropTable { id: table.id }).await?;
        self.await_table(|tables| tables.all().iter().all(|running| running.id != table.id)).await
    }

    /// Stops (or starts again) a table's reading. What it has stays queryable.
    pub async fn set_suspended(&self, name: &str, suspended: bool) -> Result<(), NodeError> {
        let unknown = || NodeError::UnknownTable(name.into());
        let table = self.tables.named(name).ok_or_else(unknown)?;
        let mode = if suspended { TableMode::Suspended } else { TableMode::Running };
        self.propose(Command::SetTableMode { id: table.id, mode }).await?;
        if suspended && !self.tables.sealed(&table, TABLE_SEALED).await {
            let waited_ms = u64::try_from(TABLE_SEALED.as_millis()).unwrap_or(u64::MAX);
            return Err(NodeError::Timeout { what: "sealing what the suspended table has read", waited_ms });
        }
        Ok(())
    }

    /// Every table with its counters.
    /// What is in lost+found on all nodes, and which of them could not be asked.
    pub async fn lost_batches(&self, patience: Duration) -> (Vec<query::LostRow>, Vec<String>) {
        lost::everywhere(&self.tables, patience).await
    }

    /// Republishes or drops batches of lost+found, on whichever nodes they are.
    pub async fn act_on_lost(&self, act: LostAct, which: &LostWhich, patience: Duration) -> LostDone {
        rescue::by_hand(&self.tables, act, which, patience).await
    }

    pub fn tables(&self) -> Vec<TableStatus> {
        self.tables.all().iter().map(|table| table.status(self.tables.deps())).collect()
    }

    pub fn table(&self, name: &str) -> Option<TableStatus> {
        self.tables.named(name).map(|table| table.status(self.tables.deps()))
    }

    /// Where edges leave a record of each request.
    pub fn telemetry(&self) -> &telemetry::Telemetry {
        &self.telemetry
    }

    /// What queries and tasks there were, here and on the other nodes.
    pub fn history(&self) -> &history::History {
        &self.tables.deps().history
    }

    /// Where findings are raised.
    pub fn all_findings(&self) -> &Findings {
        &self.findings
    }

    /// What is wrong right now, worst first. Empty: all is well.
    pub fn findings(&self) -> Vec<Finding> {
        self.findings.list()
    }

    /// Memory of the rows that are in no published segment, of the table that has most: the bound is each table's.
    fn live_bytes_of_fullest(&self) -> u64 {
        self.tables.all().iter().map(|table| table.live_bytes()).max().unwrap_or(0)
    }

    /// Milliseconds since this node began to serve.
    pub fn uptime_ms(&self) -> u64 {
        time::now().since(self.started)
    }

    /// Flushes and ends what has threads of its own.
    pub async fn close(&self) {
        let up = self.links.borrow().clone();
        self.leaders.hand_over(self.id(), &self.meta, &up).await;
        if let Err(error) = self.logs.close().await {
            tracing::error!(%error, "the log did not close cleanly; the next start recovers it");
        }
        self.meta.close().await;
        if let Some(peers) = &self.peers {
            peers.close().await;
        }
        self.router.end();
    }

    async fn await_table(&self, done: impl Fn(&Tables) -> bool) -> Result<(), NodeError> {
        let waited = tokio::time::timeout(TABLE_BEGINS, async {
            while !done(&self.tables) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let waited_ms = u64::try_from(TABLE_BEGINS.as_millis()).unwrap_or(u64::MAX);
        waited.await.map_err(|_| NodeError::Timeout { what: "the table's change on this node", waited_ms })
    }

    fn ends_of(&self, topic: &Topic) -> BTreeMap<base::PartitionIndex, Offset> {
        let partitions = (0..topic.partitions).map(base::PartitionIndex);
        let end = |partition| self.reader(TopicPartition { topic: topic.id, partition }).map(|reader| reader.end());
        partitions.filter_map(|partition| Some((partition, end(partition)?))).collect()
    }
}
