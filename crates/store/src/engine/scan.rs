//! Rows as Arrow batches: filter first, then only the rows that are left.

use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Schema, SchemaRef};

use super::columns::{Scratch, Selection, Slot, SlotId, SlotNames, View};
use super::error::EngineError;
use super::filter::{Leaves, Node, SegmentFilter, Verdict};
use super::mask;
use super::query::{Cancel, Filter, Limits, ScanQuery};
use super::units::{self, Unit};
use crate::schema::TIME_COLUMN;
use crate::segment::arrow::{ArrayWriter, field_of};
use crate::segment::bitmap::{Mask, mask_of};
use crate::segment::column::Data;
use crate::segment::packing::BLOCK_ROWS;
use crate::snapshot::TableSnapshot;

/// Rows of a batch, unless fewer are left.
pub const BATCH_ROWS: usize = 8_192;
/// A batch is handed out before it is full when it holds this much.
const BATCH_BYTES: usize = 16 << 20;

/// A planned scan over one snapshot. Shared by all threads that work on it.
#[derive(Debug)]
pub struct Scan {
    slots: Vec<Slot>,
    views: Vec<Option<View>>,
    leaves: Leaves,
    filter: Node,
    bound: Vec<Option<SegmentFilter>>,
    projection: Vec<SlotId>,
    time: SlotId,
    limit: usize,
    reverse: bool,
    cancel: Cancel,
    schema: SchemaRef,
}

/// The rows of one unit, in batches of at most [`BATCH_ROWS`].
#[derive(Debug)]
pub struct Cursor {
    scan: Arc<Scan>,
    unit: Unit,
    /// Blocks done.
    done: usize,
    /// Rows still wanted.
    wanted: usize,
    scratch: Scratch,
    selection: Selection,
}

impl Scan {
    /// Checks the query against the snapshot and prunes segments. Touches the columns it needs for the first time,
    /// where nobody has yet.
    ///
    /// # Errors
    /// A filter the engine does not do, a column the table lacks, a damaged segment.
    pub fn plan(snapshot: &TableSnapshot, query: &ScanQuery, limits: &Limits) -> Result<Self, EngineError> {
        let mut names = SlotNames::new(&snapshot.schema);
        let mut leaves = Leaves::default();
        let filter = leaves.plan(query.filter.as_ref().unwrap_or(&Filter::True), &mut names)?;
        let projection = query.projection.iter().map(|name| Ok(names.slot(name)?.0));
        let projection = projection.collect::<Result<Vec<_>, EngineError>>()?;
        let (time, _) = names.slot(TIME_COLUMN)?;
        let ranges = leaves.ranges(&filter);
        let (slots, views) =
            names.open(snapshot, |segment, columns| units::keep(segment, columns, &ranges, &filter))?;
        leaves.settle(&slots, &views);
        let bound = views.iter().map(|view| view.as_ref().map(|view| leaves.bind(&slots, view))).collect();
        let field = |slot: &SlotId| field_of(&slots[slot.0].name, slots[slot.0].ty, 0);
        let schema = Arc::new(Schema::new(projection.iter().map(field).collect::<Vec<_>>()));
        Ok(Self {
            slots,
            views,
            leaves,
            filter,
            bound,
            projection,
            time,
            limit: query.limit.unwrap_or(usize::MAX),
            reverse: query.reverse,
            cancel: limits.cancel.clone(),
            schema,
        })
    }

    /// The projection's columns with the table's types.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The work, cut into pieces of about `rows_per_unit` rows; segments that cannot match are left out.
    #[must_use]
    pub fn units(&self, rows_per_unit: usize) -> Vec<Unit> {
        units::cut(&self.views, rows_per_unit)
    }

    /// Starts on one unit.
    #[must_use]
    pub fn open(self: &Arc<Self>, unit: Unit) -> Cursor {
        let scratch = Scratch::new(self.slots.len());
        Cursor { scan: Arc::clone(self), unit, done: 0, wanted: self.limit, scratch, selection: Selection::new() }
    }

    /// The rows of a block that the filter selects.
    fn select(&self, at: (usize, usize), scratch: &mut Scratch) -> Result<Mask, EngineError> {
        let (segment, block) = at;
        let view = self.views.get(segment).and_then(Option::as_ref);
        let Some((view, bound)) = view.zip(self.bound.get(segment).and_then(Option::as_ref)) else {
            return Ok([0; 16]);
        };
        let all = mask_of(view.block_rows(block));
        match self.leaves.verdict(&self.filter, bound, view, block) {
            Verdict::No => Ok([0; 16]),
            Verdict::Yes => Ok(all),
            Verdict::Maybe => self.leaves.evaluate(&self.filter, bound, view, scratch, block, &all),
        }
    }

    /// The scan's `limit` newest (or oldest) rows by `__time` of the whole snapshot, in that order; among equal times
    /// in no particular order. Segments and blocks that are out of the running are not read.
    ///
    /// # Errors
    /// As [`Cursor`]'s, and a scan without a limit.
    pub fn by_time(&self, newest_first: bool) -> Result<RecordBatch, EngineError> {
        if self.limit == usize::MAX {
            return Err(EngineError::Unsupported("rows in order of time without a limit".to_owned()));
        }
        let mut order: Vec<usize> = (0..self.views.len()).filter(|at| self.views[*at].is_some()).collect();
        let edge = |at: &usize| {
            let range = self.views[*at].as_ref().and_then(|view| view.segment.time_range()).unwrap_or((0, 0));
            if newest_first { range.1.wrapping_neg() } else { range.0 }
        };
        order.sort_by_key(edge);
        let mut best = Best { heap: BinaryHeap::new(), limit: self.limit, newest_first };
        let mut scratch = Scratch::new(self.slots.len());
        for segment in order {
            self.best_of(segment, &mut best, &mut scratch)?;
        }
        self.gather(best)
    }

    fn best_of(&self, segment: usize, best: &mut Best, scratch: &mut Scratch) -> Result<(), EngineError> {
        let Some(view) = self.views.get(segment).and_then(Option::as_ref) else { return Ok(()) };
        let Some(Data::Longs(times)) = view.column(self.time).map(|column| &column.data) else { return Ok(()) };
        scratch.reset();
        for number in 0..view.blocks() {
            let block = if best.newest_first { view.blocks() - 1 - number } else { number };
            let Some(zone) = times.blocks.get(block) else { continue };
            if !best.has_room(if best.newest_first { zone.max } else { zone.min }) {
                if view.segment.is_sorted_by_time() {
                    break;
                }
                continue;
            }
            if self.cancel.is_cancelled() {
                return Err(EngineError::Cancelled);
            }
            let selected = self.select((segment, block), scratch)?;
            mask::for_each(&selected, |row| {
                best.offer(times.get(block * BLOCK_ROWS + row), segment, block * BLOCK_ROWS + row);
            });
        }
        Ok(())
    }

    /// The rows found, in order.
    fn gather(&self, best: Best) -> Result<RecordBatch, EngineError> {
        let mut rows = best.heap.into_vec();
        rows.sort_unstable();
        let mut writers = self.writers();
        for (_, segment, row) in &rows {
            let Some(view) = self.views.get(*segment).and_then(Option::as_ref) else { continue };
            let place = u16::try_from(row % BLOCK_ROWS).unwrap_or(0);
            self.write(view, row / BLOCK_ROWS, &[place], &mut writers)?;
        }
        self.batch(writers, rows.len())
    }

    fn writers(&self) -> Vec<ArrayWriter> {
        self.projection.iter().map(|slot| ArrayWriter::new(self.slots[slot.0].ty)).collect()
    }

    fn write(&self, view: &View, block: usize, rows: &[u16], to: &mut [ArrayWriter]) -> Result<(), EngineError> {
        for (slot, writer) in self.projection.iter().zip(to) {
            let written = match view.column(*slot) {
                Some(column) => writer.append(column, block, rows),
                None => writer.append_nulls(rows.len()),
            };
            written.map_err(|error| view.corrupt(error))?;
        }
        Ok(())
    }

    fn batch(&self, writers: Vec<ArrayWriter>, rows: usize) -> Result<RecordBatch, EngineError> {
        let arrays = writers.into_iter().map(ArrayWriter::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema(), arrays, &options)
            .map_err(|error| EngineError::Internal(error.to_string()))
    }
}

/// The best rows so far: the worst of them on top. A row's rank is its time, negated when the newest are wanted.
struct Best {
    heap: BinaryHeap<(i64, usize, usize)>,
    limit: usize,
    newest_first: bool,
}

impl Best {
    fn rank(&self, time: i64) -> i64 {
        if self.newest_first { time.checked_neg().unwrap_or(i64::MAX) } else { time }
    }

    fn has_room(&self, time: i64) -> bool {
        let full = self.heap.len() >= self.limit;
        self.limit > 0 && (!full || self.heap.peek().is_some_and(|worst| self.rank(time) < worst.0))
    }

    fn offer(&mut self, time: i64, segment: usize, row: usize) {
        if self.has_room(time) {
            if self.heap.len() >= self.limit {
                self.heap.pop();
            }
            self.heap.push((self.rank(time), segment, row));
        }
    }
}

impl Cursor {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        let scan = Arc::clone(&self.scan);
        let Some(view) = scan.views.get(self.unit.segment).and_then(Option::as_ref) else { return Ok(None) };
        let mut writers = scan.writers();
        let mut rows = 0;
        while self.done < self.unit.blocks.len() && self.wanted > 0 {
            if scan.cancel.is_cancelled() {
                return Err(EngineError::Cancelled);
            }
            let number = if scan.reverse { self.unit.blocks.len() - 1 - self.done } else { self.done };
            let block = self.unit.blocks.start + number;
            let selected = scan.select((self.unit.segment, block), &mut self.scratch)?;
            self.selection.set(selected, view.block_rows(block));
            self.done += 1;
            if self.selection.count == 0 {
                continue;
            }
            let mut places = self.selection.rows().to_vec();
            if scan.reverse {
                places.reverse();
            }
            places.truncate(self.wanted);
            scan.write(view, block, &places, &mut writers)?;
            self.wanted -= places.len();
            rows += places.len();
            let bytes: usize = writers.iter().map(ArrayWriter::size_bytes).sum();
            if rows > BATCH_ROWS - BLOCK_ROWS || bytes > BATCH_BYTES {
                break;
            }
        }
        if rows == 0 { Ok(None) } else { scan.batch(writers, rows).map(Some) }
    }
}

impl Iterator for Cursor {
    type Item = Result<RecordBatch, EngineError>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_batch().transpose();
        if matches!(next, Some(Err(_))) {
            self.wanted = 0;
        }
        next
    }
}
