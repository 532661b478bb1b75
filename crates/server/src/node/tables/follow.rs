//! What the metadata says is published takes the place of live rows: on the node that sealed it and on every other.
//!
//! What always holds: the new segments come in and the live rows they replace go out under one lock; nothing goes out
//! before all that replaces it is open here. While a segment cannot be had, the live rows stay and answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Offset, PartitionIndex, Timestamp};
use control::{SegmentId, Table};
use store::live::LiveChunk;
use store::schema::TableSchema;

use super::Deps;
use super::load::load;
use super::runtime::{Core, Loaded, TableRuntime};
use crate::node::findings::{Finding, Severity};
use crate::node::time;

const BEHIND: &str = "segments-behind";

/// Between tries to fetch a segment that another node published.
const RETRY: Duration = Duration::from_secs(2);

/// Follows until the table ends: one task a table, however often the metadata changes. What failed is tried again.
pub async fn run(table: Arc<TableRuntime>, deps: Arc<Deps>) {
    let mut stop = table.stop_signal();
    let subject = table.name.to_string();
    while !*stop.borrow_and_update() {
        let failed = follow_once(&table, &deps).await.err().or(fetch_missing(&table, &deps).await.err());
        let is_well = failed.is_none();
        match failed {
            None => deps.findings.clear(BEHIND, &subject),
            Some(cause) => deps.findings.raise(&subject, behind(&table.name, cause)),
        }
        tokio::select! {
            _ = stop.changed() => {}
            () = table.news.notified(), if is_well => {}
            // While it fails, every change of the metadata would be one more try.
            () = tokio::time::sleep(RETRY), if !is_well => {}
        }
    }
    deps.findings.clear(BEHIND, &subject);
}

/// Tries again to open what could not be opened when the table began: queries fail as long as something is missing.
async fn fetch_missing(table: &Arc<TableRuntime>, deps: &Arc<Deps>) -> Result<(), String> {
    let _one_at_a_time = table.following.lock().await;
    let missing: Vec<SegmentId> = table.core().missing.keys().copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let Some(known) = deps.meta.state().tables.get(&table.id).cloned() else { return Ok(()) };
    let mut failed = None;
    for id in missing {
        let loaded = match known.segments.get(&id) {
            Some(segment) => load(table, segment, deps).await.map(Some),
            None => Ok(None),
        };
        match loaded {
            Ok(loaded) => {
                let mut core = table.core();
                core.missing.remove(&id);
                if let Some(loaded) = loaded {
                    note_newest(&mut core, &loaded);
                    core.segments.insert(id, loaded);
                }
                deps.findings.clear(super::load::MISSING, &format!("{}/{id}", table.name));
            }
            // The others are most likely not to be had either; they come with the next try.
            Err(cause) => {
                failed = Some(format!("segment {id}: {cause}"));
                break;
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

fn note_newest(core: &mut Core, loaded: &Loaded) {
    if let Some((_, greatest)) = loaded.segment.time_range() {
        core.newest = core.newest.max(Some(Timestamp(greatest)));
    }
}

/// Brings a table up to what is published now; at once if nothing is new.
pub async fn follow_once(table: &Arc<TableRuntime>, deps: &Arc<Deps>) -> Result<(), String> {
    let _one_at_a_time = table.following.lock().await;
    let Some(known) = deps.meta.state().tables.get(&table.id).cloned() else { return Ok(()) };
    adopt_schema(table, &known);
    let (new, ahead) = news(table, &known);
    if new.is_empty() && ahead.is_empty() {
        return Ok(());
    }
    let opened = match open(table, &known, &new, deps).await {
        Ok(opened) => opened,
        Err(cause) => {
            table.core().behind_cause = Some(cause.clone());
            return Err(cause);
        }
    };
    let rests = cut(table, &ahead).await?;
    swap(table, opened, &ahead, rests);
    Ok(())
}

/// Columns that another node discovered.
fn adopt_schema(table: &TableRuntime, known: &Table) {
    let mut core = table.core();
    let Ok(schema) = serde_json::from_str::<TableSchema>(&known.schema) else { return };
    if schema != *core.schema
        && let Ok(merged) = core.schema.merge(&schema)
    {
        core.schema = Arc::new(merged);
    }
}

/// Segments that are published and not open here, and the partitions that are published further than here.
fn news(table: &TableRuntime, known: &Table) -> (Vec<SegmentId>, BTreeMap<PartitionIndex, Offset>) {
    let core = table.core();
    let held = |id: &SegmentId| core.segments.contains_key(id) || core.missing.contains_key(id);
    let new = if known.segments.keys().all(&held) {
        Vec::new()
    } else {
        known.visible_segments().iter().map(|segment| segment.id).filter(|id| !held(id)).collect()
    };
    let ahead = core.partitions.iter().filter_map(|(index, place)| {
        let published = known.published(*index);
        (published > place.published).then_some((*index, published))
    });
    (new, ahead.collect())
}

async fn open(
    table: &Arc<TableRuntime>,
    known: &Table,
    new: &[SegmentId],
    deps: &Arc<Deps>,
) -> Result<Vec<(SegmentId, Loaded)>, String> {
    let mut opened = Vec::with_capacity(new.len());
    let mut loading = tokio::task::JoinSet::new();
    for id in new {
        let sealed_here = table.core().sealed.remove(id);
        if let Some(sealed) = sealed_here {
            opened.push((*id, sealed));
        } else if let Some(segment) = known.segments.get(id).cloned() {
            let (table, deps) = (Arc::clone(table), Arc::clone(deps));
            loading.spawn(async move {
                let loaded = load(&table, &segment, &deps).await;
                loaded.map(|loaded| (segment.id, loaded)).map_err(|cause| format!("segment {}: {cause}", segment.id))
            });
        }
    }
    let mut failed = None;
    while let Some(joined) = loading.join_next().await {
        match joined.map_err(|error| error.to_string()).flatten() {
            Ok(loaded) => opened.push(loaded),
            Err(cause) => failed = Some(cause),
        }
    }
    let Some(cause) = failed else { return Ok(opened) };
    // What is open is kept for the next try; it is not queryable until all of it is.
    table.core().sealed.extend(opened);
    Err(cause)
}

/// The parts of live chunks that reach beyond what is published.
async fn cut(
    table: &Arc<TableRuntime>,
    ahead: &BTreeMap<PartitionIndex, Offset>,
) -> Result<BTreeMap<PartitionIndex, Rest>, String> {
    let straddling: Vec<(LiveChunk, Offset)> = {
        let mut core = table.core();
        let chunks = ahead.iter().filter_map(|(index, to)| Some((core.live.straddling(*index, *to)?, *to)));
        chunks.collect()
    };
    let dictionary = Arc::clone(&table.dictionary);
    let work = move || {
        let cut = straddling.into_iter().map(|(chunk, to)| match chunk.after(to, &dictionary) {
            Ok(rest) => (chunk.partition, Rest::Cut(rest)),
            Err(error) => {
                tracing::info!(%error, "live rows are read again");
                (chunk.partition, Rest::ReadAgain)
            }
        });
        cut.collect()
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

/// What is to be done with the chunk of live rows that straddles the published offset.
enum Rest {
    Cut(LiveChunk),
    /// It cannot be cut: its rows come again from the log.
    ReadAgain,
}

fn swap(
    table: &TableRuntime,
    opened: Vec<(SegmentId, Loaded)>,
    ahead: &BTreeMap<PartitionIndex, Offset>,
    mut rests: BTreeMap<PartitionIndex, Rest>,
) {
    let mut guard = table.core();
    let core = &mut *guard;
    core.behind_cause = None;
    opened.iter().for_each(|(_, loaded)| note_newest(core, loaded));
    core.segments.extend(opened);
    for (index, to) in ahead {
        match rests.remove(index) {
            Some(Rest::ReadAgain) => {
                core.live.forget(*index);
                if let Some(place) = core.partitions.get_mut(index) {
                    place.next = *to;
                }
            }
            Some(Rest::Cut(rest)) => core.live.drop_below(*index, *to, Some(rest)),
            None => core.live.drop_below(*index, *to, None),
        }
        settle(core, *index, *to);
        table.note_progress(core, *index);
    }
    table.wake_readers();
}

/// The partition is published up to `to`; what is live of it came in about now.
fn settle(core: &mut Core, index: PartitionIndex, to: Offset) {
    let live = core.live.snapshot();
    let own = live.iter().filter(|chunk| chunk.partition == index);
    let earliest = own.filter_map(|chunk| chunk.segment.time_range()).map(|(least, _)| Timestamp(least)).min();
    if let Some(place) = core.partitions.get_mut(&index) {
        place.published = to;
        place.next = place.next.max(to);
        // At most a little older.
        place.live_since = (place.next > to).then(time::now);
        place.earliest = earliest;
    }
}

fn behind(table: &str, cause: String) -> Finding {
    Finding {
        code: BEHIND,
        severity: Severity::Warning,
        title: format!("published segments of table {table} cannot be fetched; its live rows answer meanwhile"),
        since: time::wall(),
        impact: vec!["query"],
        cause,
        action: "make deep_storage.url readable from this node; it is tried again".into(),
    }
}
