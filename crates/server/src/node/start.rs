//! From a data folder to a node that serves: links, metadata, partitions, groups, tables, queries, in this order.
//!
//! A node alone is done with everything when it serves. One of several waits for nobody: it serves what it knows
//! to be committed, and the rest follows when enough nodes can talk.

use std::sync::{Arc, Mutex};

use base::NodeId;
use base::disk::Disk;
use query::{QueryLimits, QueryService};
use tokio::sync::Semaphore;

use super::groups::Groups;
use super::history::History;
use super::hosting::Hosting;
use super::identity::{DataDir, IdentityError, claim};
use super::joining::{self, JoinError};
use super::leaders::Leaders;
use super::mastery;
use super::membership::{self, Known};
use super::query_threads::QueryThreads;
use super::refound::{self, RefoundFailure};
use super::router::Router;
use super::tables::{Deps, NodeCatalog, Tables, TablesConfig};
use super::telemetry::Telemetry;
use super::transactions::{self, Transactions};
use super::{Findings, Node, NodeError, clocks, duties, leftovers, moves, stored, telemetry, time, watch};
use crate::config::Config;
use crate::shell::deep::DeepStorage;
use crate::shell::disk::RealDisk;
use crate::shell::logs::{self, LogsConfig, LogsHandle};
use crate::shell::meta::{self, MetaError, MetaHandle, MetaOpenError};
use crate::shell::outbox::{Nowhere, Outbox};
use crate::shell::peers::{self, PeersConfig, PeersError, PeersHandle};
use crate::shell::security::{self, SecurityError};

/// Why the node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Meta(#[from] MetaOpenError),
    #[error(transparent)]
    Disk(#[from] base::disk::DiskError),
    #[error("hard states: {0}")]
    HardState(#[from] quorum::JournalError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Peers(#[from] PeersError),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error("what is left to do of beginning the cluster anew: {0}")]
    Refound(#[from] RefoundFailure),
    #[error("the certificates: {0}")]
    Security(#[from] SecurityError),
    #[error("{0}: {1}")]
    Io(&'static str, std::io::Error),
}

/// Opens everything. The data folder is held as long as the returned [`DataDir`] lives.
pub async fn start(config: Arc<Config>) -> Result<(Arc<Node>, DataDir), StartError> {
    let node = NodeId(config.node.id);
    let data = claim(&config.node.data_dir, node)?;
    let findings = Arc::new(Findings::default());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&data.path)?);
    let router = Arc::new(Router::new(Arc::clone(&findings)));
    let voters = first_voters(&config, &data).await?;
    let known = Known::new(&config);
    let peers = start_peers(&config, &data, &known, &router)?;
    let outbox = outbox_of(peers.as_ref());
    let meta = meta::start(meta::Start {
        disk: Arc::clone(&disk),
        dir: "control".into(),
        node,
        voters,
        findings: Arc::clone(&findings),
        outbox: Arc::clone(&outbox),
        peers: peers.clone(),
    })?;
    answer_others(&router, &meta);
    refound::finish(&data.path, node, &meta.state())?;
    membership::follow(&config, data.identity.disk, &meta, known, &findings);
    form(&config, &data, &meta, &findings).await?;
    let (logs, log_disk) = start_logs(&config, &data, &disk, &findings, outbox)?;
    router.serve_logs(&logs);
    let hosting = Hosting::start(&config, &meta, &logs, &*log_disk).await?;
    let leaders = Leaders::start(&logs, peers.as_ref(), &router);
    leaders.balance(node, &meta, router.links());
    let (groups, transactions) = coordinators(&config, &meta, &hosting, &logs, &leaders, peers.as_ref(), &router).await;
    let tables = Tables::start(
        &router,
        Deps {
            node,
            config: tables_config(&config, &data),
            meta: meta.clone(),
            logs: logs.clone(),
            peers: peers.clone(),
            deep: DeepStorage::folder(&config.deep_storage_dir())
                .map_err(|error| StartError::Io("deep storage", error))?,
            findings: Arc::clone(&findings),
            leaders: Arc::clone(&leaders),
            history: History::start(node, &data.path, &router, peers.as_ref()),
            workers: Arc::new(Semaphore::new(threads(config.store.threads))),
        },
    )
    .await;
    let (query, query_threads) = start_queries(&config, &tables)?;
    let node = Node {
        telemetry: Telemetry::new(config.telemetry.request_log),
        config,
        meta,
        logs,
        hosting,
        peers,
        links: router.links(),
        router,
        leaders,
        groups,
        transactions,
        tables,
        query,
        query_threads,
        findings,
        producer_ids: tokio::sync::Mutex::default(),
        spool: std::sync::OnceLock::new(),
        started: time::now(),
    };
    Ok((begun(node, log_disk), data))
}

/// What other nodes ask of the metadata is answered from now on.
fn answer_others(router: &Router, meta: &MetaHandle) {
    router.serve_meta(meta);
    mastery::serve(router, meta);
    joining::serve(router, meta);
}

/// With what goes on in the background.
fn begun(node: Node, log_disk: Arc<dyn Disk>) -> Arc<Node> {
    let node = Arc::new(node);
    work(&node, log_disk);
    node
}

/// What this node coordinates when it leads the internal topics.
async fn coordinators(
    config: &Arc<Config>,
    meta: &MetaHandle,
    hosting: &Hosting,
    logs: &LogsHandle,
    leaders: &Arc<Leaders>,
    peers: Option<&PeersHandle>,
    router: &Router,
) -> (Groups, Transactions) {
    let groups = Groups::start(config, meta, hosting, logs).await;
    let transactions = transactions::Start { config, meta, hosting, logs, leaders, peers, router, groups: &groups };
    let transactions = Transactions::start(transactions).await;
    (groups, transactions)
}

/// What goes on beside the requests, until the node ends.
fn work(node: &Arc<Node>, log_disk: Arc<dyn Disk>) {
    telemetry::start(node);
    moves::start(node);
    duties::start(node);
    leftovers::start(node, log_disk);
    clocks::serve(&node.router);
    clocks::start(node);
    stored::serve(node);
    watch::start(node);
}

/// The links to the other nodes, if there are any.
fn start_peers(
    config: &Config,
    data: &DataDir,
    known: &Known,
    router: &Arc<Router>,
) -> Result<Option<PeersHandle>, StartError> {
    if !config.has_links() {
        return Ok(None);
    }
    let peers = PeersConfig {
        node: NodeId(config.node.id),
        disk: data.identity.disk,
        cluster: known.cluster.subscribe(),
        former: known.former.subscribe(),
        listen: config.listen.peer,
        security: security::of(&config.security_dir(), NodeId(config.node.id), time::wall)?,
        members: known.members.subscribe(),
    };
    Ok(Some(peers::start(peers, Arc::clone(router) as Arc<dyn peers::Inbound>)?))
}

fn outbox_of(peers: Option<&PeersHandle>) -> Arc<dyn Outbox> {
    match peers {
        Some(peers) => Arc::new(peers.clone()),
        None => Arc::new(Nowhere),
    }
}

/// The threads of the partitions and the disk that they write to.
fn start_logs(
    config: &Config,
    data: &DataDir,
    disk: &Arc<dyn Disk>,
    findings: &Arc<Findings>,
    outbox: Arc<dyn Outbox>,
) -> Result<(LogsHandle, Arc<dyn Disk>), StartError> {
    disk.create_dir_all("log")?;
    let log_disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&data.path.join("log"))?);
    let hard = Arc::new(Mutex::new(quorum::HardStates::open(Arc::clone(disk), "hard-state")?));
    let started = logs::start(logs::Start {
        disk: Arc::clone(&log_disk),
        hard,
        config: LogsConfig {
            node: NodeId(config.node.id),
            flush_interval_ms: millis(config.log.flush_interval),
            reserve_bytes: config.log.disk_reserve_bytes.0,
            bytes_max: config.log.bytes_max.map(|bytes| bytes.0),
        },
        findings: Arc::clone(findings),
        outbox,
    });
    Ok((started.map_err(|error| StartError::Io("the log's threads", error))?, log_disk))
}

fn tables_config(config: &Config, data: &DataDir) -> TablesConfig {
    TablesConfig {
        segment_rows_max: config.store.segment_rows_max,
        segment_age_ms_max: millis(config.store.segment_age_max),
        live_bytes_max: config.store.live_bytes_max.0,
        segments_dir: data.path.join("segments"),
    }
}

/// Who votes in group 0 at its first entry: the founders, as they know themselves or as a newcomer is told.
async fn first_voters(config: &Config, data: &DataDir) -> Result<Vec<NodeId>, StartError> {
    if config.cluster.join.0.is_empty() || joining::has_metadata(&data.path) {
        return Ok(membership::founders(config));
    }
    let security = security::of(&config.security_dir(), NodeId(config.node.id), time::wall)?;
    let entered = joining::ask(config, data.identity.disk, &security).await?;
    tracing::info!(cluster = %entered.cluster, "this node is a member of the cluster now");
    Ok(entered.first_voters)
}

/// A node alone forms its cluster before it serves; one that joined waits for the metadata, a while.
async fn form(
    config: &Arc<Config>,
    data: &DataDir,
    meta: &MetaHandle,
    findings: &Arc<Findings>,
) -> Result<(), StartError> {
    if meta.master().is_active {
        match membership::introduce(config, data.identity.disk, meta).await {
            // Told by a finding when it is tried again.
            Ok(()) | Err(MetaError::Refused(_)) => {}
            Err(error) => return Err(NodeError::from(error).into()),
        }
    }
    membership::introduce_later(config, data.identity.disk, meta, findings);
    joining::informed(config, meta).await;
    Ok(())
}

/// The query room over the node's tables, and the threads it runs on.
fn start_queries(config: &Config, tables: &Arc<Tables>) -> Result<(QueryService, QueryThreads), StartError> {
    let catalog = NodeCatalog { tables: Arc::clone(tables), address: config.listen.http, started: time::wall() };
    let limits = query_limits(config);
    let threads = QueryThreads::start(limits.threads).map_err(|error| StartError::Io("the query threads", error))?;
    Ok((QueryService::new(Arc::new(catalog), limits), threads))
}

fn query_limits(config: &Config) -> QueryLimits {
    let memory_bytes = usize::try_from(config.query.memory_bytes.0).unwrap_or(usize::MAX);
    QueryLimits {
        memory_bytes,
        query_memory_bytes: memory_bytes,
        timeout_ms_default: millis(config.query.timeout_default),
        timeout_ms_max: millis(config.query.timeout_max),
        concurrent_max: usize::try_from(config.query.concurrent_max).unwrap_or(usize::MAX),
        threads: match config.query.threads {
            0 => cores(),
            threads => usize::try_from(threads).unwrap_or(1),
        },
    }
}

/// 0 means one for every two cores.
fn threads(configured: u32) -> usize {
    match configured {
        0 => cores().div_ceil(2),
        threads => usize::try_from(threads).unwrap_or(1),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
