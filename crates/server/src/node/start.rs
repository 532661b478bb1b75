//! From a data folder to a node that serves: metadata, partitions, groups, tables, queries, in this order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base::disk::Disk;
use base::{ClusterId, NodeId, TopicId};
use control::{Command, State};
use query::{QueryLimits, QueryService};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::identity::{DataDir, IdentityError, claim};
use super::query_threads::QueryThreads;
use super::tables::{Deps, NodeCatalog, Tables, TablesConfig};
use super::telemetry::Telemetry;
use super::{Findings, Node, NodeError, groups, telemetry, time, topics};
use crate::config::Config;
use crate::shell::deep::DeepStorage;
use crate::shell::disk::RealDisk;
use crate::shell::logs::{self, LogsConfig, LogsHandle};
use crate::shell::meta::{self, MetaOpenError};

/// Most partitions opened at the same time at a start.
const OPENING_MAX: usize = 64;

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
    #[error("{0}: {1}")]
    Io(&'static str, std::io::Error),
}

/// Opens everything. The data folder is held as long as the returned [`DataDir`] lives.
pub async fn start(config: Arc<Config>) -> Result<(Arc<Node>, DataDir), StartError> {
    let node = NodeId(config.node.id);
    let data = claim(&config.node.data_dir, node)?;
    let findings = Arc::new(Findings::default());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&data.path)?);
    let meta = meta::start(Arc::clone(&disk), "control", node, Arc::clone(&findings))?;
    if meta.state().cluster.is_none() {
        let cluster = ClusterId(Uuid::new_v4());
        meta.propose(Command::FormCluster { cluster, formed: time::wall(), founders: vec![node] }).await.map_err(NodeError::from)?;
    }
    disk.create_dir_all("log")?;
    let log_disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&data.path.join("log"))?);
    let hard = Arc::new(Mutex::new(quorum::HardStates::open(Arc::clone(&disk), "hard-state")?));
    let logs_config = LogsConfig {
        node,
        flush_interval_ms: millis(config.log.flush_interval),
        reserve_bytes: config.log.disk_reserve_bytes.0,
    };
    let started = logs::start(logs::Start {
        disk: Arc::clone(&log_disk),
        hard,
        config: logs_config,
        findings: Arc::clone(&findings),
    });
    let logs = started.map_err(|error| StartError::Io("the log's threads", error))?;
    open_partitions(&meta.state(), &logs, &config, &*log_disk).await?;
    let groups = groups::Groups::start(&config, meta.clone(), logs.clone()).await?;
    let deep =
        DeepStorage::folder(&config.deep_storage_dir()).map_err(|error| StartError::Io("deep storage", error))?;
    let threads = threads(config.store.threads);
    let tables = Arc::new(Tables::new(Deps {
        config: TablesConfig {
            segment_rows_max: config.store.segment_rows_max,
            segment_age_ms_max: millis(config.store.segment_age_max),
            live_bytes_max: config.store.live_bytes_max.0,
            segments_dir: data.path.join("segments"),
        },
        meta: meta.clone(),
        logs: logs.clone(),
        deep,
        findings: Arc::clone(&findings),
        workers: Arc::new(Semaphore::new(threads)),
    }));
    tables.start().await;
    let catalog = NodeCatalog { tables: Arc::clone(&tables), address: config.listen.http, started: time::wall() };
    let limits = query_limits(&config);
    let query_threads =
        QueryThreads::start(limits.threads).map_err(|error| StartError::Io("the query threads", error))?;
    let query = QueryService::new(Arc::new(catalog), limits);
    let telemetry = Telemetry::new(config.telemetry.request_log);
    let node = Node {
        telemetry,
        config,
        meta,
        logs,
        groups,
        tables,
        query,
        query_threads,
        findings,
        producer_ids: tokio::sync::Mutex::default(),
        started: time::now(),
    };
    let node = Arc::new(node);
    telemetry::start(&node);
    Ok((node, data))
}

/// Opens what the metadata lists, removes what has a tombstone, leaves alone what nobody knows.
async fn open_partitions(state: &State, logs: &LogsHandle, config: &Config, disk: &dyn Disk) -> Result<(), StartError> {
    let mut by_name: BTreeMap<String, TopicId> = BTreeMap::new();
    by_name.extend(state.topics.keys().chain(state.tombstones.keys()).map(|id| (id.to_string(), *id)));
    for entry in disk.list("")?.into_iter().filter(|entry| entry.is_dir) {
        match by_name.get(&entry.name) {
            Some(id) if state.tombstones.contains_key(id) => disk.remove_dir_all(&entry.name)?,
            Some(_) => {}
            None => tracing::warn!(
                folder = %entry.name,
                "the log holds a topic that the metadata does not know; it is left alone, not deleted"
            ),
        }
    }
    let topics: Vec<_> = state.topics.values().cloned().collect();
    let opening = topics.iter().map(|topic| async move {
        if let Err(error) = topics::open_topic(logs, topic, config).await {
            tracing::error!(topic = %topic.name, %error, "a topic is not served");
        }
    });
    futures::stream::StreamExt::collect::<Vec<()>>(futures::stream::StreamExt::buffer_unordered(
        futures::stream::iter(opening),
        OPENING_MAX,
    ))
    .await;
    Ok(())
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
