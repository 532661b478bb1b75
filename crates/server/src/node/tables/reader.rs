//! One task a partition: committed batches in, live rows out.
//!
//! A table has the rows that a consumer of committed transactions reads, for ever: it reads up to the first open
//! transaction, and leaves out what was aborted. So what is sealed is decided, whatever is open meanwhile.

use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use base::{Offset, PartitionIndex, Timestamp, batch, records};
use log::{LeftOut, ReadError, ReadLimit, Reader};
use store::ingest::Ingestor;
use store::live::RowEnd;

use super::runtime::{Core, TableRuntime};
use super::status::DeadLetterSample;
use super::{Deps, seal};
use crate::node::findings::{Finding, Severity};
use crate::node::time;

/// Bytes of log taken in one step: a step holds a worker for some tens of milliseconds.
const STEP_BYTES_MAX: usize = 4 << 20;
/// Between looks at the clock for sealing by age.
const IDLE: Duration = Duration::from_millis(500);
/// Pause after a step that failed.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes of a dead letter that are shown.
const SAMPLE_BYTES_MAX: usize = 256;

/// Reads until the table is dropped, the replica leaves or the node ends; rests while this replica keeps no live rows.
pub async fn run(table: &Arc<TableRuntime>, partition: PartitionIndex, deps: &Arc<Deps>) {
    let (mut stop, mut paused, mut news) = (table.stop_signal(), table.paused_signal(), table.reader_signal());
    let Some((reader, mut committed)) = opened(table, partition, deps).await else { return };
    let Some(mut leadership) = deps.logs.leadership(table.at(partition)) else { return };
    let mut ingestor = Ingestor::new(Arc::clone(&table.spec), &table.core().schema, partition);
    while !*stop.borrow_and_update() {
        leadership.borrow_and_update();
        let keeps = table.keeps(partition, deps);
        if table.seal_is_due(partition, deps) {
            seal::spawn(table, partition, deps);
        }
        let next = next_offset(table, partition);
        let rests = !keeps || table.is_published_beyond(partition, next, deps);
        // All are looked at, whatever the others say: what was not looked at would wake this at once, again and again.
        let (is_paused, end) = (*paused.borrow_and_update(), *committed.borrow_and_update());
        let idle = rests || is_paused || next >= end || is_memory_full(table, deps);
        if idle {
            tokio::select! {
                _ = stop.changed() => {}
                _ = paused.changed() => {}
                changed = committed.changed(), if !rests => if changed.is_err() { return },
                changed = leadership.changed() => if changed.is_err() { return },
                _ = news.changed() => {}
                () = tokio::time::sleep(IDLE) => {}
            }
            continue;
        }
        let Ok(worker) = Arc::clone(&deps.workers).acquire_owned().await else { return };
        // A replica that was damaged is opened again, and has another reader then.
        let step_reader = deps.logs.reader(table.at(partition)).unwrap_or_else(|| reader.clone());
        let step_table = Arc::clone(table);
        let step = tokio::task::spawn_blocking(move || {
            let result = step(&step_table, partition, &mut ingestor, &step_reader, next);
            drop(worker);
            (ingestor, result)
        });
        match step.await {
            Ok((back, result)) => {
                ingestor = back;
                if !report(table, deps, result) {
                    tokio::time::sleep(RETRY).await;
                }
            }
            Err(error) => {
                report(table, deps, Err(format!("a bug stopped the reader: {error}")));
                return;
            }
        }
    }
}

fn next_offset(table: &TableRuntime, partition: PartitionIndex) -> Offset {
    table.core().partitions.get(&partition).map_or(Offset::ZERO, |place| place.next)
}

/// The partition's reader and committed offset, once the log has opened it.
async fn opened(
    table: &TableRuntime,
    partition: PartitionIndex,
    deps: &Deps,
) -> Option<(Reader, tokio::sync::watch::Receiver<Offset>)> {
    let mut stop = table.stop_signal();
    while !*stop.borrow_and_update() {
        let at = table.at(partition);
        if let (Some(reader), Some(committed)) = (deps.logs.reader(at), deps.logs.stable(at)) {
            return Some((reader, committed));
        }
        tokio::time::sleep(IDLE / 10).await;
    }
    None
}

/// Above the bound readers wait until something was sealed; a partition without live rows may always go on.
fn is_memory_full(table: &TableRuntime, deps: &Deps) -> bool {
    table.live_bytes() > deps.config.live_bytes_max
}

/// Says in the table's status and in a finding why it does not go on; true if it does.
fn report(table: &TableRuntime, deps: &Deps, result: Result<(), String>) -> bool {
    let code = "ingest-stopped";
    match result {
        Ok(()) => {
            if table.core().trouble.take().is_some() {
                deps.findings.clear(code, &table.name);
            }
            true
        }
        Err(cause) => {
            table.core().trouble = Some(cause.clone());
            deps.findings.raise(
                &table.name,
                Finding {
                    code,
                    severity: Severity::Critical,
                    title: format!("table {} takes in no rows", table.name),
                    since: time::wall(),
                    impact: vec!["ingest"],
                    cause,
                    action: "see the cause; reading is tried again every second and goes on where it stopped".into(),
                },
            );
            false
        }
    }
}

/// Takes in the batches from `from` on, up to [`STEP_BYTES_MAX`].
fn step(
    table: &TableRuntime,
    partition: PartitionIndex,
    ingestor: &mut Ingestor,
    reader: &Reader,
    from: Offset,
) -> Result<(), String> {
    let fetched = match reader.read(from, STEP_BYTES_MAX, ReadLimit::Stable) {
        Ok(fetched) => fetched,
        // Records were deleted by hand before the table read them: go on where the log begins now.
        Err(ReadError::OutOfRange { start, .. }) if start > from => {
            tracing::warn!(table = %table.name, %partition, %from, %start, "records were deleted before they were read");
            return skip(table, partition, start);
        }
        Err(error) => return Err(error.to_string()),
    };
    if fetched.next <= from {
        return Ok(());
    }
    let wall = time::wall();
    let mut tally = Tally::default();
    // Where each batch ended, in offsets and in rows of this step: another node may seal up to any of them.
    let mut ends: Vec<RowEnd> = Vec::new();
    // A step that failed half-way is simply repeated from where it began.
    ingestor.seek(from);
    ingestor.adopt_schema(&Arc::clone(&table.core().schema));
    let mut left_out = LeftOut::new(&fetched.aborted);
    for item in batch::split(&fetched.bytes) {
        let (header, bytes) = item.map_err(|error| format!("offset {from}: {error}"))?;
        tally.bytes += bytes.len() as u64;
        let outcome = match records::decode(&bytes) {
            _ if left_out.leaves_out(&header) => ingestor.skip_batch(&header),
            Ok(decoded) => ingestor.push_batch(wall, &decoded),
            // The checksum is right and the records cannot be read: all of them are dead letters.
            Err(error) => ingestor.push_undecodable(&header, &error.to_string()),
        };
        tally.add(partition, &outcome);
        ends.push(RowEnd { offset: header.next_offset(), rows: usize::try_from(tally.rows).unwrap_or(usize::MAX) });
    }
    let mut pieces = Vec::new();
    while let Some((rows, range)) = ingestor.take_rows() {
        pieces.push((rows, range));
    }
    let mut guard = table.core();
    let core = &mut *guard;
    if core.partitions.get(&partition).is_none_or(|place| place.next != from) {
        // Published by another node, or borrowed from it, meanwhile: the next step begins behind that.
        return Ok(());
    }
    tally.book(core);
    core.schema = merged(core, ingestor)?;
    let was_empty = core.live.partition_rows(partition) == 0;
    let mut rows_before = 0;
    for (rows, range) in pieces {
        let own = ends_within(&ends, rows_before, &rows);
        rows_before += rows.num_rows();
        core.live.push(partition, range.from..range.to, &rows, &own).map_err(|error| error.to_string())?;
        if let Some((least, greatest)) = time_range(&rows) {
            core.newest = core.newest.max(Some(greatest));
            if let Some(place) = core.partitions.get_mut(&partition) {
                place.earliest = Some(place.earliest.map_or(least, |before| before.min(least)));
            }
        }
        advance(table, core, partition, range.to, was_empty);
    }
    advance_empty(table, core, partition, fetched.next)
}

/// The ends that fall into a piece of the step's rows, counted from the piece's first row.
fn ends_within(ends: &[RowEnd], rows_before: usize, rows: &RecordBatch) -> Vec<RowEnd> {
    let within = rows_before..=rows_before + rows.num_rows();
    let own = ends.iter().filter(|end| within.contains(&end.rows));
    own.map(|end| RowEnd { rows: end.rows - rows_before, ..*end }).collect()
}

fn skip(table: &TableRuntime, partition: PartitionIndex, to: Offset) -> Result<(), String> {
    let mut guard = table.core();
    advance_empty(table, &mut guard, partition, to)
}

/// Moves on to `to` over offsets that gave no rows.
fn advance_empty(table: &TableRuntime, core: &mut Core, partition: PartitionIndex, to: Offset) -> Result<(), String> {
    let next = core.partitions.get(&partition).map_or(Offset::ZERO, |place| place.next);
    if next < to {
        let none = RecordBatch::new_empty(core.schema.arrow());
        core.live.push(partition, next..to, &none, &[]).map_err(|error| error.to_string())?;
        advance(table, core, partition, to, false);
    }
    Ok(())
}

fn advance(table: &TableRuntime, core: &mut Core, partition: PartitionIndex, next: Offset, was_empty: bool) {
    if let Some(place) = core.partitions.get_mut(&partition) {
        place.next = next;
        if was_empty || place.live_since.is_none() {
            place.live_since = Some(time::now());
        }
    }
    table.note_progress(core, partition);
}

fn merged(core: &Core, ingestor: &Ingestor) -> Result<Arc<store::schema::TableSchema>, String> {
    let seen = ingestor.schema();
    if *seen == *core.schema {
        return Ok(Arc::clone(&core.schema));
    }
    core.schema.merge(&seen).map(Arc::new).map_err(|error| error.to_string())
}

pub fn time_range(rows: &RecordBatch) -> Option<(Timestamp, Timestamp)> {
    let times = rows.column_by_name(store::schema::TIME_COLUMN)?;
    let times = times.as_any().downcast_ref::<arrow::array::TimestampMillisecondArray>()?;
    Some((Timestamp(arrow::compute::min(times)?), Timestamp(arrow::compute::max(times)?)))
}

/// What one step brought, booked under the lock at its end.
#[derive(Default)]
struct Tally {
    rows: u64,
    bytes: u64,
    unparseable: u64,
    thrown_away: u64,
    dead: Vec<DeadLetterSample>,
}

impl Tally {
    fn add(&mut self, partition: PartitionIndex, outcome: &store::ingest::BatchOutcome) {
        self.rows += outcome.accepted;
        self.unparseable += outcome.unparseable;
        self.thrown_away += outcome.filtered_late + outcome.filtered_early;
        self.dead.extend(outcome.dead.iter().map(|letter| DeadLetterSample {
            partition,
            offset: letter.offset,
            reason: letter.detail.clone(),
            sample: String::from_utf8_lossy(&letter.sample[..letter.sample.len().min(SAMPLE_BYTES_MAX)]).into_owned(),
        }));
    }

    fn book(self, core: &mut Core) {
        core.counters.rows += self.rows;
        core.counters.bytes += self.bytes;
        core.counters.unparseable += self.unparseable;
        core.counters.thrown_away += self.thrown_away;
        self.dead.into_iter().for_each(|letter| TableRuntime::keep_dead_letter(core, letter));
    }
}
