//! What a query needs of a table, from wherever it is: published segments, live rows kept here, and live rows borrowed from
//! the replicas that keep them.
//!
//! What always holds: an answer counts every row that was acknowledged before the query began, or says that it may not, and
//! why; rows of a partition that cannot be had are an error that names the partition and the nodes, never left out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Offset, PartitionIndex, TopicPartition};
use query::Consistency;
use store::snapshot::TableSnapshot;

use super::runtime::TableRuntime;
use super::{Deps, Tables, borrow, freshness};
use crate::node::findings::{Finding, Severity};
use crate::node::time;

/// Longest wait for rows that are elsewhere, within the query's own time.
const PATIENCE: Duration = Duration::from_secs(8);
/// Longest wait for leaders to tell how far they are; an election is over by then.
const LEADERS: Duration = Duration::from_secs(2);
/// Longest wait for rows that are committed and not taken in yet.
const TAKING_IN: Duration = Duration::from_secs(2);
/// A replica that could ask nobody keeps the rows itself for this long.
const ALONE_MS: u64 = 60_000;
const POLL: Duration = Duration::from_millis(10);
const MAY_LAG: &str = "answers-may-lag";

/// A table as a query sees it, and what is to be said about that.
pub struct Gathered {
    pub snapshot: TableSnapshot,
    pub warnings: Vec<String>,
}

/// # Errors
/// Rows that belong into the answer cannot be had; which, and from whom.
pub async fn gather(
    table: &Arc<TableRuntime>,
    consistency: Consistency,
    patience: Duration,
    deps: &Arc<Deps>,
) -> Result<Gathered, String> {
    let deadline = Instant::now() + patience.min(PATIENCE);
    let all = partitions(table, deps, deadline).await;
    let wants_all = consistency == Consistency::Leader && !table.is_paused();
    let goals = if wants_all { goals(table, &all, deps, deadline).await } else { BTreeMap::new() };
    let untold: Vec<PartitionIndex> = all.iter().filter(|index| !goals.contains_key(index)).copied().collect();
    let mut warnings = Vec::new();
    if wants_all {
        warnings.extend(note_untold(table, &untold, deps));
    }
    loop {
        let reached = all.iter().map(|index| reach(table, *index, goals.get(index).copied(), deps, deadline));
        let reached = futures::future::join_all(reached).await;
        let mut floors = BTreeMap::new();
        for (index, reached) in all.iter().zip(reached) {
            let (floor, warning) = reached.map_err(|cause| not_here(table, *index, deps, &cause))?;
            floors.insert(*index, floor);
            warnings.extend(warning);
        }
        if let Some(snapshot) = fixed(table, &floors)? {
            warnings.sort();
            warnings.dedup();
            return Ok(Gathered { snapshot, warnings });
        }
        // Rows were forgotten between the two: once more.
        if Instant::now() >= deadline {
            return Err(format!("the live rows of table {} did not stay here long enough; run it again", table.name));
        }
    }
}

/// The snapshot, if everything that was reached is still there.
fn fixed(table: &TableRuntime, floors: &BTreeMap<PartitionIndex, Offset>) -> Result<Option<TableSnapshot>, String> {
    let core = table.core();
    if let Some(missing) = table.missing_of(&core) {
        return Err(missing);
    }
    let whole = floors.iter().all(|(index, floor)| core.partitions.get(index).is_some_and(|at| at.next >= *floor));
    Ok(whole.then(|| table.snapshot_of(&core)))
}

/// The table's partitions. A new one has its place here in a moment.
async fn partitions(table: &TableRuntime, deps: &Deps, deadline: Instant) -> Vec<PartitionIndex> {
    loop {
        let state = deps.meta.state();
        let known = state.topics.get(&table.topic).map_or(0, |topic| topic.partitions);
        let all: Vec<PartitionIndex> = (0..known).map(PartitionIndex).collect();
        let is_open = all.iter().all(|index| table.core().partitions.contains_key(index));
        if is_open || Instant::now() >= deadline {
            return all;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How far each partition is committed at its leader, of those whose leader can be reached.
async fn goals(
    table: &TableRuntime,
    all: &[PartitionIndex],
    deps: &Deps,
    deadline: Instant,
) -> BTreeMap<PartitionIndex, Offset> {
    let is_known_to_lag = table.core().lags;
    let until = deadline.min(Instant::now() + LEADERS);
    let mut goals = BTreeMap::new();
    loop {
        let open = all.iter().filter(|index| !goals.contains_key(*index));
        let open: Vec<TopicPartition> = open.map(|index| table.at(*index)).collect();
        let told = freshness::committed_now(&open, deps).await;
        goals.extend(told.into_iter().map(|(at, offset)| (at.partition, offset)));
        // Who waited in vain just now does not make every query wait.
        if goals.len() == all.len() || is_known_to_lag || Instant::now() + POLL >= until {
            return goals;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Brings the live rows of a partition here, as far as `goal`, or as far as is known. Returns how far that is, and what is
/// to be said about it.
async fn reach(
    table: &Arc<TableRuntime>,
    index: PartitionIndex,
    goal: Option<Offset>,
    deps: &Arc<Deps>,
    deadline: Instant,
) -> Result<(Offset, Option<String>), String> {
    let (kept, rebuilding) = {
        let core = table.core();
        let place = core.partitions.get(&index).ok_or("the partition is not open here yet")?;
        (place.keeps, place.rebuilding)
    };
    if kept && rebuilding.is_none() {
        let until = deadline.min(Instant::now() + TAKING_IN);
        let next = wait_for(table, index, goal.unwrap_or(Offset::ZERO), until).await;
        let lags = goal.filter(|goal| next < *goal);
        let warning = lags.map(|goal| {
            format!("partition {index} is committed up to offset {goal} and taken in up to {next} only: newer rows are missing")
        });
        return Ok((next, warning));
    }
    let borrowed = borrow::borrow(table, index, goal.max(rebuilding), deps, deadline_of_others(deps, deadline)).await;
    let Err(cause) = borrowed else { return Ok((next_of(table, index), None)) };
    if borrow::are_segments_awaited(table, index, deps) {
        return Err(cause);
    }
    // Nobody gives them: this replica has the log.
    let Some(committed) = freshness::readable_end(&deps.logs, table.at(index)) else { return Err(cause) };
    table.keep_alone(index, ALONE_MS);
    let committed = goal.map_or(committed, |goal| goal.min(committed));
    let next = wait_for(table, index, committed, deadline).await;
    if next < committed {
        return Err(format!("{cause}; this node reads its log again and is at offset {next} of {committed}"));
    }
    let lags = goal.is_none_or(|goal| next < goal);
    let warning = format!("the newest rows of partition {index} are those this node knew of: {cause}");
    Ok((next, lags.then_some(warning)))
}

/// Others are not waited for so long that the own log cannot be read any more.
fn deadline_of_others(deps: &Deps, deadline: Instant) -> Instant {
    if deps.peers.is_none() {
        return Instant::now();
    }
    let left = deadline.saturating_duration_since(Instant::now());
    Instant::now() + left * 3 / 4
}

fn next_of(table: &TableRuntime, index: PartitionIndex) -> Offset {
    table.core().partitions.get(&index).map_or(Offset::ZERO, |place| place.next)
}

/// Waits until the rows below `goal` are here, no longer than until `deadline`. Returns how far they are.
async fn wait_for(table: &TableRuntime, index: PartitionIndex, goal: Offset, deadline: Instant) -> Offset {
    let mut moves = table.moves();
    loop {
        moves.borrow_and_update();
        let next = next_of(table, index);
        let left = deadline.saturating_duration_since(Instant::now());
        if next >= goal || tokio::time::timeout(left, moves.changed()).await.is_err() {
            return next;
        }
    }
}

fn not_here(table: &TableRuntime, index: PartitionIndex, deps: &Deps, cause: &str) -> String {
    let state = deps.meta.state();
    let replicas: Vec<String> = state.replicas(table.at(index)).iter().map(ToString::to_string).collect();
    let (name, replicas) = (&table.name, replicas.join(", "));
    format!(
        "the newest rows of table {name}, partition {index}, cannot be had from its replicas, node {replicas}: {cause}"
    )
}

/// Says, or takes back, that answers may miss what was acknowledged lately.
fn note_untold(table: &TableRuntime, untold: &[PartitionIndex], deps: &Deps) -> Option<String> {
    table.core().lags = !untold.is_empty();
    let Some(first) = untold.first() else {
        deps.findings.clear(MAY_LAG, &table.name);
        return None;
    };
    let many = match untold.len() {
        1 => format!("the leader of partition {first}"),
        count => format!("the leaders of {count} partitions, {first} the first,"),
    };
    let warning = format!("{many} cannot be reached from this node: rows acknowledged lately may be missing");
    deps.findings.raise(
        &table.name,
        Finding {
            code: MAY_LAG,
            severity: Severity::Warning,
            title: format!("answers of this node over table {} may miss the newest rows", table.name),
            since: time::wall(),
            impact: vec!["query"],
            cause: warning.clone(),
            action: "mend the links of this node, or ask another one; it is over by itself when leaders can be reached"
                .into(),
        },
    );
    Some(warning)
}

/// Looks whether what lagged still does, so that the finding goes without another query.
pub async fn look_again(tables: &Tables) {
    for table in tables.all() {
        if !table.core().lags {
            continue;
        }
        let all: Vec<PartitionIndex> = table.core().partitions.keys().copied().collect();
        let told = goals(&table, &all, tables.deps(), Instant::now()).await;
        if told.len() == all.len() {
            note_untold(&table, &[], tables.deps());
        }
    }
}
