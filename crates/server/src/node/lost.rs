//! What is in lost+found on all nodes: the rows of `sys.lost_batches`.
//!
//! What always holds: a node that cannot be asked is named, never passed over in silence.

use std::sync::Arc;
use std::time::Duration;

use base::{NodeId, Timestamp, TopicPartition};
use bytes::Bytes;
use control::topic::LostPolicy;
use log::{Acked, LostFound, LostState};
use query::LostRow;
use serde::{Deserialize, Serialize};

use super::router::Router;
use super::tables::{Deps, Tables};
use crate::shell::calls;

/// Rows of one node; the newest count.
const ROWS_MAX: usize = 10_000;
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Longest wait for one node.
const CALL: Duration = Duration::from_secs(3);

/// A row on its way between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    topic: String,
    partition: i32,
    path: String,
    saved_at: i64,
    replaced_by: u64,
    term: u64,
    base_offset: i64,
    next_offset: i64,
    records: u32,
    producer: i64,
    acked: String,
    state: String,
    size_bytes: u32,
}

/// Answers other nodes that ask what was lost here.
pub fn serve(router: &Router, tables: &Arc<Tables>) {
    let tables = Arc::downgrade(tables);
    router.on(calls::LOST, move |_, _| {
        let tables = tables.upgrade();
        async move {
            let tables = tables.ok_or_else(|| "the node is ending".to_owned())?;
            let told = here(tables.deps()).await;
            serde_json::to_vec(&told).map(Bytes::from).map_err(|error| error.to_string())
        }
    });
}

/// What all nodes have, and which of them could not be asked.
pub async fn everywhere(tables: &Tables, patience: Duration) -> (Vec<LostRow>, Vec<String>) {
    let deps = tables.deps();
    let members: Vec<NodeId> = deps.meta.state().members().collect();
    let others = members.into_iter().filter(|node| *node != deps.node);
    let asked = others.map(|node| async move { (node, ask(node, deps, patience.min(CALL)).await) });
    let (own, asked) = futures::future::join(here(deps), futures::future::join_all(asked)).await;
    let mut rows: Vec<LostRow> = own.into_iter().map(|told| row(deps.node, told)).collect();
    let mut warnings = Vec::new();
    for (node, told) in asked {
        match told {
            Ok(told) => rows.extend(told.into_iter().map(|told| row(node, told))),
            Err(cause) => warnings.push(format!("what node {node} has in lost+found is not listed: {cause}")),
        }
    }
    rows.sort_by(|left, right| {
        let key = |row: &LostRow| (row.topic.clone(), row.partition, row.base_offset, row.node, row.saved_at);
        key(left).cmp(&key(right))
    });
    (rows, warnings)
}

async fn ask(node: NodeId, deps: &Deps, patience: Duration) -> Result<Vec<Told>, String> {
    let peers = deps.peers.as_ref().ok_or("there are no other nodes")?;
    let answer = peers.call(node, calls::LOST, Bytes::new(), patience).await.map_err(|error| error.to_string())?;
    if answer.len() > ANSWER_BYTES_MAX {
        return Err(format!("its answer has {} bytes, more than {ANSWER_BYTES_MAX}", answer.len()));
    }
    serde_json::from_slice(&answer).map_err(|error| error.to_string())
}

async fn here(deps: &Deps) -> Vec<Told> {
    let mut told = Vec::new();
    for partition in deps.logs.open_here() {
        // One that is being closed has nothing to say.
        for found in deps.logs.lost(partition).await.unwrap_or_default().iter().rev() {
            told.extend(rows_of(partition, found, deps));
            if told.len() >= ROWS_MAX {
                told.truncate(ROWS_MAX);
                return told;
            }
        }
    }
    told
}

fn rows_of(at: TopicPartition, found: &LostFound, deps: &Deps) -> Vec<Told> {
    let state = deps.meta.state();
    let topic = state.topics.get(&at.topic).map_or_else(|| at.topic.0.to_string(), |topic| topic.name.clone());
    let policy = state.topics.get(&at.topic).map(|topic| topic.config().lost_policy);
    let row = |batch: &log::LostBatch| Told {
        topic: topic.clone(),
        partition: at.partition.0,
        path: found.path.clone(),
        saved_at: found.saved_at.0,
        replaced_by: found.replaced_by.0,
        term: batch.term.0,
        base_offset: batch.base_offset.0,
        next_offset: batch.next_offset.0,
        records: batch.records,
        producer: batch.producer.0,
        acked: match batch.acked {
            Acked::Yes => "yes".to_owned(),
            Acked::No => "no".to_owned(),
            Acked::Unknown => "unknown".to_owned(),
        },
        state: match batch.state {
            LostState::Kept if policy == Some(LostPolicy::Republish) && batch.is_republished() => "waiting",
            LostState::Kept => "kept",
            LostState::Republished => "republished",
            LostState::Returned => "returned",
            LostState::Dropped => "dropped",
        }
        .to_owned(),
        size_bytes: batch.size_bytes,
    };
    found.batches.iter().map(row).collect()
}

fn row(node: NodeId, told: Told) -> LostRow {
    let long = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    LostRow {
        topic: told.topic,
        partition: told.partition.into(),
        node: node.0.into(),
        path: told.path,
        saved_at: Timestamp(told.saved_at),
        term: long(told.term),
        replaced_by_term: long(told.replaced_by),
        base_offset: told.base_offset,
        last_offset: told.next_offset.saturating_sub(1),
        records: told.records.into(),
        producer_id: told.producer,
        acknowledged: told.acked,
        state: told.state,
        size_bytes: told.size_bytes.into(),
    }
}
