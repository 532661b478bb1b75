//! Sealing: a partition's live rows become segments, durable in deep storage, published by one command.
//!
//! The crash at any point leaves either the rows in the log above the published offset (read again) or the
//! segments published (opened again). A file that reached deep storage but was not published is an orphan: it is
//! never read, and harmless.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Offset, PartitionIndex, Term, Timestamp};
use bytes::Bytes;
use control::{Command, NewSegment, SegmentId};
use store::seal::{self, Manifest};
use store::segment::Segment;
use uuid::Uuid;

use super::Deps;
use super::follow::follow_once;
use super::load::{column_file, write_and_open};
use super::runtime::{Loaded, TableRuntime};
use crate::node::findings::{Finding, Severity};
use crate::node::history::{self, Entry, Kind};
use crate::node::time;

/// Pauses between tries while deep storage refuses.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// One sealed time chunk, not yet published.
struct Piece {
    new: NewSegment,
    parquet: Bytes,
    column_file: Vec<u8>,
}

/// Seals a partition in the background, unless it is being sealed already.
pub fn spawn(table: &Arc<TableRuntime>, partition: PartitionIndex, deps: &Arc<Deps>) {
    let (table, deps) = (Arc::clone(table), Arc::clone(deps));
    let begun = begin(&table, partition);
    if !begun {
        return;
    }
    tokio::spawn(async move {
        let begun = Instant::now();
        let from = table.core().partitions.get(&partition).map_or(Offset::ZERO, |place| place.published);
        let result = sealed(&table, partition, &deps).await;
        end(&table, partition);
        note(&table, partition, from, begun, &result, &deps);
        report(&table, partition, &deps, result);
    });
}

/// One line of the history of tasks.
fn note(
    table: &TableRuntime,
    partition: PartitionIndex,
    from: Offset,
    begun: Instant,
    result: &Result<(), String>,
    deps: &Deps,
) {
    let published = table.core().partitions.get(&partition).map_or(from, |place| place.published);
    deps.history.note(Entry {
        sequence: 0,
        node: 0,
        kind: Kind::Task,
        id: format!("seal_{}_{partition}_{from}", table.name),
        subject: table.name.to_string(),
        identity: String::new(),
        began: history::began(begun.elapsed()),
        duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        rows: u64::try_from(published.0 - from.0).unwrap_or(0),
        error: result.as_ref().err().cloned().unwrap_or_default(),
    });
}

fn begin(table: &TableRuntime, partition: PartitionIndex) -> bool {
    let mut core = table.core();
    let place = core.partitions.get_mut(&partition).filter(|place| !place.sealing);
    place.map(|place| place.sealing = true).is_some()
}

fn end(table: &TableRuntime, partition: PartitionIndex) {
    if let Some(place) = table.core().partitions.get_mut(&partition) {
        place.sealing = false;
    }
}

fn report(table: &TableRuntime, partition: PartitionIndex, deps: &Deps, result: Result<(), String>) {
    let subject = format!("{}/{partition}", table.name);
    match result {
        Ok(()) => deps.findings.clear("seal-failed", &subject),
        Err(cause) => deps.findings.raise(
            &subject,
            Finding {
                code: "seal-failed",
                severity: Severity::Warning,
                title: format!("live rows of table {}, partition {partition}, are not sealed", table.name),
                since: time::wall(),
                impact: vec!["publish"],
                cause,
                action: "see the cause; it is tried again, and the log keeps the rows until then".into(),
            },
        ),
    }
}

async fn sealed(table: &Arc<TableRuntime>, partition: PartitionIndex, deps: &Arc<Deps>) -> Result<(), String> {
    let Some((from, to, pieces)) = cut(table, partition, deps).await? else { return Ok(()) };
    for piece in &pieces {
        upload(table, partition, piece, deps).await?;
    }
    let (opened, new) = open_pieces(table, pieces, deps).await?;
    publish(table, partition, (from, to), opened, new, deps).await
}

/// Takes the live rows and makes the files of their time chunks.
async fn cut(
    table: &Arc<TableRuntime>,
    partition: PartitionIndex,
    deps: &Arc<Deps>,
) -> Result<Option<(Offset, Offset, Vec<Piece>)>, String> {
    let worker = Arc::clone(&deps.workers).acquire_owned().await.map_err(|error| error.to_string())?;
    let table = Arc::clone(table);
    let work = move || {
        let done = cut_blocking(&table, partition);
        drop(worker);
        done
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

fn cut_blocking(
    table: &TableRuntime,
    partition: PartitionIndex,
) -> Result<Option<(Offset, Offset, Vec<Piece>)>, String> {
    let (published, next, taken) = {
        let mut core = table.core();
        let Some(place) = core.partitions.get(&partition).cloned() else { return Ok(None) };
        if place.next <= place.published {
            return Ok(None);
        }
        (place.published, place.next, core.live.take(partition))
    };
    // Nothing but refused rows: the offset moves on without a segment.
    let Some(taken) = taken else { return Ok(Some((published, next, Vec::new()))) };
    let to = taken.offsets.end;
    let Some(rows) = taken.rows().map_err(|error| error.to_string())? else {
        return Ok(Some((published, to, Vec::new())));
    };
    let created = time::wall();
    let pieces = seal::split_by_chunk(&rows, &table.spec)
        .map_err(|error| error.to_string())?
        .into_iter()
        .map(|(interval, rows)| piece(table, partition, (published, to), interval, &rows, created));
    Ok(Some((published, to, pieces.collect::<Result<Vec<_>, String>>()?)))
}

fn piece(
    table: &TableRuntime,
    partition: PartitionIndex,
    (from, to): (Offset, Offset),
    interval: store::interval::Interval,
    rows: &arrow::record_batch::RecordBatch,
    created: Timestamp,
) -> Result<Piece, String> {
    let id = SegmentId(Uuid::new_v4());
    let rows = seal::sort_and_roll_up(rows, &table.spec).map_err(|error| error.to_string())?;
    let manifest = Manifest {
        segment: id.to_string(),
        table: table.name.to_string(),
        partition,
        from,
        to,
        interval,
        rows: rows.num_rows() as u64,
        created,
    };
    let parquet = seal::to_parquet(&rows, &manifest).map_err(|error| error.to_string())?;
    let column_file = Segment::encode(&rows).map_err(|error| error.to_string())?;
    let new = NewSegment {
        id,
        interval: control::Interval { start: interval.start, end: interval.end },
        rows: rows.num_rows() as u64,
        size_bytes: parquet.len() as u64,
        checksum: base::checksum::crc32c(&parquet),
        path: deep_key(table, id),
    };
    Ok(Piece { new, parquet, column_file })
}

/// Where a segment's Parquet file lies in deep storage.
pub fn deep_key(table: &TableRuntime, id: SegmentId) -> String {
    format!("{}/{}/{id}.parquet", table.name, table.id)
}

/// Puts one piece into deep storage, again and again while that refuses: the rows wait, queryable.
async fn upload(table: &TableRuntime, partition: PartitionIndex, piece: &Piece, deps: &Deps) -> Result<(), String> {
    let mut stop = table.stop_signal();
    let mut pause = RETRY_FIRST;
    while !*stop.borrow_and_update() {
        match deps.deep.put(&piece.new.path, piece.parquet.clone()).await {
            Ok(()) => {
                deps.findings.clear("deep-storage-down", &table.name);
                return Ok(());
            }
            Err(error) => deps.findings.raise(
                &table.name,
                Finding {
                    code: "deep-storage-down",
                    severity: Severity::Critical,
                    title: "sealed segments cannot be stored: they wait in memory and the log is kept".into(),
                    since: time::wall(),
                    impact: vec!["publish"],
                    cause: format!("table {}, partition {partition}: {error}", table.name),
                    action: "make deep_storage.url writable again; nothing else needs to be done".into(),
                },
            ),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
    Err("the table was dropped".into())
}

async fn open_pieces(
    table: &Arc<TableRuntime>,
    pieces: Vec<Piece>,
    deps: &Arc<Deps>,
) -> Result<(Vec<(SegmentId, Loaded)>, Vec<NewSegment>), String> {
    let (table, deps) = (Arc::clone(table), Arc::clone(deps));
    let work = move || {
        let mut opened = Vec::with_capacity(pieces.len());
        let mut new = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let path = column_file(&deps, &table, piece.new.id);
            let segment = write_and_open(&path, &piece.column_file, &table.dictionary)?;
            // Before queries see it, rather than by the first of them.
            segment.warm().map_err(|error| format!("{}: {error}", path.display()))?;
            let interval = store::interval::Interval { start: piece.new.interval.start, end: piece.new.interval.end };
            opened.push((piece.new.id, Loaded { rows: piece.new.rows, segment: Arc::new(segment), interval }));
            new.push(piece.new);
        }
        Ok((opened, new))
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Publishes; what was opened takes the place of the live rows like anything that was published.
async fn publish(
    table: &Arc<TableRuntime>,
    partition: PartitionIndex,
    (from, to): (Offset, Offset),
    opened: Vec<(SegmentId, Loaded)>,
    new: Vec<NewSegment>,
    deps: &Arc<Deps>,
) -> Result<(), String> {
    save_schema(table, deps).await?;
    let Some(term) = term_of(table, partition, deps) else {
        discard(table, opened.iter().map(|(id, _)| *id), deps);
        return Err("another node leads the partition now; it seals these rows".into());
    };
    let ids: Vec<SegmentId> = opened.iter().map(|(id, _)| *id).collect();
    table.core().sealed.extend(opened);
    let published = time::wall();
    let command = Command::PublishSegments { table: table.id, partition, from, to, term, segments: new, published };
    let outcome = deps.meta.propose(command).await;
    if outcome.is_ok() {
        if let Err(cause) = follow_once(table, deps).await {
            // The table's follower tries again and says so if it lasts.
            tracing::info!(table = %table.name, %partition, %cause, "what was published is brought in later");
            table.news.notify_one();
        }
        return Ok(());
    }
    // It may still take effect if its outcome is unknown: then the segments are fetched like those of any other node.
    let unpublished: Vec<SegmentId> = {
        let mut core = table.core();
        ids.into_iter().filter(|id| core.sealed.remove(id).is_some()).collect()
    };
    discard(table, unpublished.into_iter(), deps);
    match outcome {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Removes the column files of segments that were not published.
fn discard(table: &TableRuntime, ids: impl Iterator<Item = SegmentId>, deps: &Deps) {
    for id in ids {
        drop(std::fs::remove_file(column_file(deps, table, id)));
    }
}

/// The term in which this node leads the partition; it fences the publication. `None`: another node leads.
fn term_of(table: &TableRuntime, partition: PartitionIndex, deps: &Deps) -> Option<Term> {
    let leadership = deps.logs.leadership(table.at(partition))?;
    let leadership = *leadership.borrow();
    leadership.is_mine.then_some(leadership.term)
}

/// Discovered columns are in the metadata before a segment that has them.
async fn save_schema(table: &TableRuntime, deps: &Deps) -> Result<(), String> {
    let schema = {
        let core = table.core();
        serde_json::to_string(&*core.schema).map_err(|error| error.to_string())?
    };
    let known = deps.meta.state().tables.get(&table.id).is_some_and(|known| known.schema == schema);
    if known {
        return Ok(());
    }
    let command = Command::SetTableSchema { id: table.id, schema };
    deps.meta.propose(command).await.map(drop).map_err(|error| error.to_string())
}
