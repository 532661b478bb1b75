//! One partition's committed batches -> rows, rejections and dead letters.
//!
//! ```text
//! Ingestor::new(spec, &schema, partition), then seek(published offset)
//! push_batch(wall, batch)  in offset order; a batch that begins before the last one ended goes back: see there
//! take_rows()              after every few batches, until None: rows with the offsets they stand for
//! schema()                 widened by what was read; the caller makes it the table's before it queries the rows
//! ```
//! What always holds: every offset of the batches given is in exactly one range that `take_rows` returns,
//! in order, whatever became of its records. A record that cannot be read is counted and kept with its
//! reason and a sample; good records around it, and good rows before a bad one in the same record, are
//! taken. The same batches at the same wall times give the same rows.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use base::batch::BatchHeader;
use base::records::{Decoded, Record};
use base::{Offset, PartitionIndex, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::calendar::clip;
use crate::granularity::Granularity;
use crate::rows::{Reader, Table, TimeError, TooManyColumns};
use crate::schema::{SchemaError, TableSchema, conform};
use crate::seal::roll_up;
use crate::spec::{Rejection, TableSpec};

/// Largest record read; a larger one goes to the dead letters.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// Rows are finished when their records have this many bytes, so that no column passes Arrow's 2 GiB.
const PENDING_BYTES_MAX: usize = 256 << 20;
/// How much of a dead record is kept.
pub const SAMPLE_BYTES_MAX: usize = 1_024;
/// How many dead letters an ingestor keeps, newest first to stay.
pub const DEAD_LETTERS_MAX: usize = 100;

const _: () = assert!((RECORD_BYTES_MAX + PENDING_BYTES_MAX) * 6 < i32::MAX as usize, "escaped text must fit a column");

/// `[from, to)` of one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OffsetRange {
    pub from: Offset,
    pub to: Offset,
}

/// Why a row was not taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    NotUtf8,
    Malformed,
    TimestampMissing,
    TimestampUnreadable,
    TooManyColumns,
    TooLarge,
}

/// A row that could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    pub offset: Offset,
    pub reason: DeadReason,
    /// For people: what was wrong, and where.
    pub detail: String,
    /// The start of the record, at most [`SAMPLE_BYTES_MAX`].
    pub sample: Bytes,
}

/// What became of one batch's rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BatchOutcome {
    pub accepted: u64,
    /// Older than the table takes.
    pub filtered_late: u64,
    /// Newer than the table takes.
    pub filtered_early: u64,
    /// Records without a value, or without a row in it.
    pub empty: u64,
    pub unparseable: u64,
    /// At most [`DEAD_LETTERS_MAX`]; `unparseable` counts all.
    pub dead: Vec<DeadLetter>,
}

/// Counts since the ingestor was made, in the words of Druid's supervisor stats.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IngestStats {
    /// Rows taken without a flaw.
    pub processed: u64,
    /// Rows taken with a value that did not fit its column and became null.
    pub processed_with_error: u64,
    /// Of all records.
    pub processed_bytes: u64,
    pub unparseable: u64,
    /// Late, early or empty.
    pub thrown_away: u64,
}

/// Reads one partition of a table's topic.
#[derive(Debug)]
pub struct Ingestor {
    spec: Arc<TableSpec>,
    partition: PartitionIndex,
    reader: Reader,
    table: Table,
    position: Position,
    /// Finished before they grew too large.
    finished: VecDeque<(RecordBatch, OffsetRange)>,
    pending_bytes: usize,
    stats: IngestStats,
    dead: VecDeque<DeadLetter>,
}

/// Which offsets were read and not taken.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    /// Records below are skipped.
    floor: Offset,
    from: Option<Offset>,
    next: Option<Offset>,
}

impl Ingestor {
    /// `schema` is the table's so far; [`TableSpec::initial_schema`] for a new table.
    #[must_use]
    pub fn new(spec: Arc<TableSpec>, schema: &TableSchema, partition: PartitionIndex) -> Self {
        let mut reader = Reader::new(&spec.input_format);
        let table = Table::new(&spec, schema, &mut reader);
        Self {
            spec,
            partition,
            reader,
            table,
            position: Position::default(),
            finished: VecDeque::new(),
            pending_bytes: 0,
            stats: IngestStats::default(),
            dead: VecDeque::new(),
        }
    }

    #[must_use]
    pub const fn partition(&self) -> PartitionIndex {
        self.partition
    }

    /// Goes to `offset`, the first that the table does not have: rows that were not taken are dropped, records
    /// below it will be skipped, and the next range begins with it even if its record is gone. Free of cost where
    /// the ingestor already is.
    pub fn seek(&mut self, offset: Offset) {
        if self.position.from != Some(offset) || self.position.next != Some(offset) {
            self.discard();
        }
        self.position = Position { floor: offset, from: Some(offset), next: Some(offset) };
    }

    fn discard(&mut self) {
        self.finished.clear();
        self.pending_bytes = 0;
        // The rows are not wanted, whether they make columns or not.
        drop(self.table.finish());
        self.position = Position { from: None, next: None, ..self.position };
    }

    /// The first offset that was not read.
    #[must_use]
    pub const fn next_offset(&self) -> Option<Offset> {
        self.position.next
    }

    /// Reads one batch. `wall` is what late and early are measured by. A batch that begins before the last one
    /// ended means that the caller goes back, after a failure of its own: rows that were not taken are dropped,
    /// and this batch is read as if for the first time.
    pub fn push_batch(&mut self, wall: Timestamp, decoded: &Decoded) -> BatchOutcome {
        let header = *decoded.header();
        let mut outcome = BatchOutcome::default();
        self.begin(header.base_offset);
        if !header.is_control() {
            for record in decoded {
                match record {
                    Ok(record) => self.push_record(wall, &record, &mut outcome),
                    Err(error) => {
                        self.bury(&mut outcome, header.base_offset, DeadReason::Malformed, &error.to_string(), &[]);
                        break;
                    }
                }
            }
        }
        self.end(header.next_offset(), &outcome);
        outcome
    }

    /// Takes note of a batch that gives no rows: its offsets count.
    pub fn skip_batch(&mut self, header: &BatchHeader) -> BatchOutcome {
        let outcome = BatchOutcome::default();
        self.begin(header.base_offset);
        self.end(header.next_offset(), &outcome);
        outcome
    }

    /// Takes note of a batch whose records could not be decoded at all: its offsets count, `why` is kept.
    pub fn push_undecodable(&mut self, header: &BatchHeader, why: &str) -> BatchOutcome {
        let mut outcome = BatchOutcome::default();
        self.begin(header.base_offset);
        self.bury(&mut outcome, header.base_offset, DeadReason::Malformed, why, &[]);
        outcome.unparseable = u64::try_from(header.record_count).unwrap_or(1);
        self.end(header.next_offset(), &outcome);
        outcome
    }

    fn begin(&mut self, base: Offset) {
        if self.position.next.is_some_and(|next| base < next) {
            self.discard();
        }
        let from = base.max(self.position.floor);
        self.position.from.get_or_insert(from);
    }

    fn end(&mut self, next: Offset, outcome: &BatchOutcome) {
        self.position.next = Some(next.max(self.position.floor));
        self.stats.unparseable += outcome.unparseable;
        self.stats.thrown_away += outcome.filtered_late + outcome.filtered_early + outcome.empty;
    }

    fn push_record(&mut self, wall: Timestamp, record: &Record<'_>, outcome: &mut BatchOutcome) {
        if record.offset < self.position.floor {
            return;
        }
        let Some(value) = record.value.filter(|value| !value.is_empty()) else {
            outcome.empty += 1;
            return;
        };
        self.stats.processed_bytes += value.len() as u64;
        if value.len() > RECORD_BYTES_MAX {
            let detail = format!("a record of {} bytes is larger than {RECORD_BYTES_MAX}", value.len());
            return self.bury(outcome, record.offset, DeadReason::TooLarge, &detail, value);
        }
        let text = match std::str::from_utf8(value) {
            Ok(text) => text,
            Err(error) => {
                let detail = format!("byte {} is not UTF-8", error.valid_up_to());
                return self.bury(outcome, record.offset, DeadReason::NotUtf8, &detail, value);
            }
        };
        if let Err((reason, detail)) = self.push_rows(wall, record, text, outcome) {
            self.bury(outcome, record.offset, reason, &detail, value);
        }
        self.pending_bytes += value.len();
        if self.pending_bytes >= PENDING_BYTES_MAX {
            self.position.next = Some(record.offset.next());
            self.finish_rows();
        }
    }

    /// Every row of a record; the error is what its remaining rows died of.
    fn push_rows(
        &mut self,
        wall: Timestamp,
        record: &Record<'_>,
        text: &str,
        outcome: &mut BatchOutcome,
    ) -> Result<(), (DeadReason, String)> {
        let malformed = |error: crate::rows::RowError| (DeadReason::Malformed, error.to_string());
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut at = self.reader.begin(text).map_err(malformed)?;
        let mut rows = 0;
        while self.reader.next(text, &mut at).map_err(malformed)? {
            rows += 1;
            if let Err((reason, detail)) = self.push_row(wall, record, text, outcome) {
                self.bury(outcome, record.offset, reason, &detail, record.value.unwrap_or_default());
            }
        }
        outcome.empty += u64::from(rows == 0);
        Ok(())
    }

    fn push_row(
        &mut self,
        wall: Timestamp,
        record: &Record<'_>,
        text: &str,
        outcome: &mut BatchOutcome,
    ) -> Result<(), (DeadReason, String)> {
        let row = self.reader.row();
        let (time, slot) =
            self.table.time_of(row, row.texts(text), record.timestamp).map_err(|error| self.no_time(error))?;
        if is_late(self.spec.late_message_rejection, wall, time) {
            outcome.filtered_late += 1;
            return Ok(());
        }
        if is_early(self.spec.early_message_rejection, wall, time) {
            outcome.filtered_early += 1;
            return Ok(());
        }
        let time = match self.spec.query_granularity {
            Granularity::None => time,
            // A granularity coarser than the time chunk must not move the row out of its chunk.
            granularity => granularity.floor(time).max(self.spec.segment_granularity.floor(time)),
        };
        let unreadable = self.table.append(time, slot, &self.reader, text).map_err(|TooManyColumns| {
            let detail = "the row would add a column past the limit, or one without a usable name";
            (DeadReason::TooManyColumns, detail.to_owned())
        })?;
        outcome.accepted += 1;
        self.stats.processed += u64::from(unreadable == 0);
        self.stats.processed_with_error += u64::from(unreadable > 0);
        Ok(())
    }

    fn no_time(&self, error: TimeError) -> (DeadReason, String) {
        let columns = self.spec.timestamp.columns.join(", ");
        match error {
            TimeError::Missing => (DeadReason::TimestampMissing, format!("no time in {columns}")),
            TimeError::Unreadable => {
                let format = &self.spec.timestamp.format;
                (DeadReason::TimestampUnreadable, format!("{columns} holds no time of the format {format}"))
            }
        }
    }

    fn bury(&mut self, outcome: &mut BatchOutcome, offset: Offset, reason: DeadReason, detail: &str, value: &[u8]) {
        outcome.unparseable += 1;
        let sample = Bytes::copy_from_slice(&value[..value.len().min(SAMPLE_BYTES_MAX)]);
        let letter = DeadLetter { offset, reason, detail: clip(detail), sample };
        if outcome.dead.len() < DEAD_LETTERS_MAX {
            outcome.dead.push(letter.clone());
        }
        if self.dead.len() == DEAD_LETTERS_MAX {
            self.dead.pop_front();
        }
        self.dead.push_back(letter);
    }

    /// Rows read so far with the offsets they stand for; none if every offset read was taken. The batch has
    /// no rows if none of the records made one: the offsets count all the same. Call until it returns None.
    pub fn take_rows(&mut self) -> Option<(RecordBatch, OffsetRange)> {
        if self.finished.is_empty() {
            self.finish_rows();
        }
        self.finished.pop_front()
    }

    fn finish_rows(&mut self) {
        let (Some(from), Some(to)) = (self.position.from, self.position.next) else { return };
        if from == to {
            return;
        }
        self.pending_bytes = 0;
        self.position.from = Some(to);
        // Sizes are bounded by PENDING_BYTES_MAX, so columns always fit; a fault of ours stops the node.
        let batch = self.table.finish().and_then(|batch| {
            let rolled_up = if self.spec.rollup { roll_up(&batch, &self.spec) } else { return Ok(batch) };
            rolled_up.map_err(|error| ArrowError::ComputeError(error.to_string()))
        });
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => panic!("rows of offsets {from} to {to} do not make columns: {error}"),
        };
        self.finished.push_back((batch, OffsetRange { from, to }));
    }

    /// The table's schema as far as this partition knows: what it was made with, widened by what it read.
    #[must_use]
    pub fn schema(&self) -> Arc<TableSchema> {
        Arc::clone(self.table.schema())
    }

    /// Takes over columns and wider types that other partitions found.
    pub fn adopt_schema(&mut self, schema: &TableSchema) {
        self.table.adopt(&self.spec, schema, &mut self.reader);
    }

    /// A batch taken earlier, in the schema of now.
    ///
    /// # Errors
    /// As [`conform`].
    pub fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch, SchemaError> {
        conform(batch, self.table.schema())
    }

    #[must_use]
    pub const fn stats(&self) -> &IngestStats {
        &self.stats
    }

    /// The newest dead letters, oldest first.
    pub fn dead_letters(&self) -> impl Iterator<Item = &DeadLetter> {
        self.dead.iter()
    }
}

fn is_late(rejection: Option<Rejection>, wall: Timestamp, time: Timestamp) -> bool {
    match rejection {
        None => false,
        Some(Rejection::PeriodMs(period)) => time.0 < wall.0.saturating_sub(period),
        Some(Rejection::At(bound)) => time < bound,
    }
}

fn is_early(rejection: Option<Rejection>, wall: Timestamp, time: Timestamp) -> bool {
    match rejection {
        None => false,
        Some(Rejection::PeriodMs(period)) => time.0 > wall.0.saturating_add(period),
        Some(Rejection::At(bound)) => time >= bound,
    }
}

#[cfg(test)]
mod tests;
