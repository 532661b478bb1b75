//! Rows that are committed but not yet sealed: queryable chunks per partition.
//!
//! ```text
//! push ->  chunk chunk chunk | chunk  chunk  ->  snapshot (cheap), take (for sealing), drop_below (published)
//!          '--- taken -------'  small ones are merged, each row about log2(chunks) times
//! ```
//! Always holds: a partition's chunks cover its offsets without gap or overlap from `start` to `next`; merging
//! never crosses what was taken, so what is published can be dropped whole. What another node took ends where it
//! likes: the chunk that holds that end is cut by the row ends it was pushed with. Chunks per partition stay below about
//! rows / [`CHUNK_ROWS_MAX`] + 2 log2 of that bound. Deliberately not here: when to seal, how old rows are (`seal`, the caller).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use base::{Offset, PartitionIndex};

use crate::dictionary::TableDictionary;
use crate::schema::{SchemaError, TableSchema, conform};
use crate::segment::{FormatError, Segment, SegmentError};

#[cfg(test)]
mod tests;

/// Chunks are not merged beyond this.
pub const CHUNK_ROWS_MAX: usize = 256 << 10;

/// The live rows of one table.
#[derive(Debug)]
pub struct LiveTable {
    dictionary: Arc<TableDictionary>,
    partitions: BTreeMap<PartitionIndex, Partition>,
}

#[derive(Debug)]
struct Partition {
    /// The first offset that is not dropped.
    start: Offset,
    /// The first offset not pushed yet.
    next: Offset,
    /// Offsets below this were taken: their chunks are merged with no later one.
    taken: Offset,
    chunks: Vec<LiveChunk>,
}

/// One chunk of live rows: which offsets of which partition it covers.
#[derive(Clone, Debug)]
pub struct LiveChunk {
    pub partition: PartitionIndex,
    pub offsets: Range<Offset>,
    pub segment: Arc<Segment>,
    /// Where the chunk may be cut, rising.
    pub ends: Arc<[RowEnd]>,
}

/// The first `rows` rows of a chunk, or of what is pushed, are those of the offsets below `offset`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowEnd {
    pub offset: Offset,
    pub rows: usize,
}

/// Rows of a chunk for another node.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The first offset that is not in it.
    pub to: Offset,
    pub rows: RecordBatch,
    /// Where the rows may be cut, before their end, counted from the piece's first row.
    pub ends: Vec<RowEnd>,
}

/// Rows taken for sealing. They stay queryable until [`LiveTable::drop_below`]. Cheap to take; the work is
/// [`Taken::rows`], which needs no lock on the table.
#[derive(Clone, Debug)]
pub struct Taken {
    pub partition: PartitionIndex,
    /// All offsets up to here, also those that gave no row.
    pub offsets: Range<Offset>,
    pub chunks: Vec<LiveChunk>,
}

/// Why rows were not taken into the live table, or could not be taken out.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The rows do not follow what is there. Read the partition again from `expected`.
    #[error("partition {partition}: rows start at offset {found}, the live table expects {expected}")]
    Gap { partition: PartitionIndex, found: Offset, expected: Offset },
    /// Forget the partition and read it again from `offset`.
    #[error("partition {partition}: its live rows cannot be cut at offset {offset}")]
    NoEnd { partition: PartitionIndex, offset: Offset },
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

impl Taken {
    /// Rows of all chunks.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.segment.rows()).sum()
    }

    /// The rows in order of arrival as one batch of the widest schema among the chunks; `None` without rows.
    ///
    /// # Errors
    /// If chunks have types that do not widen into one another.
    pub fn rows(&self) -> Result<Option<RecordBatch>, LiveError> {
        let batches = self.chunks.iter().map(|chunk| chunk.segment.to_batch(None));
        concat(&batches.collect::<Result<Vec<_>, _>>()?)
    }
}

impl LiveChunk {
    /// The part of the chunk from `offset` on, without rows if there are none. Work for outside the table's lock.
    ///
    /// # Errors
    /// The chunk has no row end at `offset` ([`LiveError::NoEnd`]), or its rows cannot be encoded again.
    pub fn after(&self, offset: Offset, dictionary: &TableDictionary) -> Result<Self, LiveError> {
        let (later, skipped) = self.place_of(offset)?;
        let rows = self.segment.to_batch(None)?;
        let rest = rows.slice(skipped, rows.num_rows() - skipped);
        let segment = Segment::from_batch(&rest, dictionary)?;
        let ends = self.ends[later..].iter().map(|end| RowEnd { rows: end.rows - skipped, ..*end });
        let ends = ends.collect();
        Ok(Self { partition: self.partition, offsets: offset..self.offsets.end, segment: Arc::new(segment), ends })
    }

    /// Up to about `rows_max` rows from `offset` on, with where they end: what [`LiveTable::push`] takes. At least up to the
    /// next row end, however many that are. Work for outside the table's lock.
    ///
    /// # Errors
    /// As [`LiveChunk::after`].
    pub fn piece(&self, offset: Offset, rows_max: usize) -> Result<Piece, LiveError> {
        let offset = offset.max(self.offsets.start);
        let (later, skipped) = if offset == self.offsets.start { (0, 0) } else { self.place_of(offset)? };
        let rows = self.segment.to_batch(None)?;
        let whole = rows.num_rows() - skipped <= rows_max;
        let fits = self.ends[later..].partition_point(|end| end.rows - skipped <= rows_max).max(1);
        let last = self.ends.get(later + fits - 1).filter(|_| !whole);
        let (to, until) = last.map_or((self.offsets.end, rows.num_rows()), |end| (end.offset, end.rows));
        let ends = self.ends[later..].iter().filter(|end| end.offset < to);
        let ends = ends.map(|end| RowEnd { rows: end.rows - skipped, ..*end }).collect();
        Ok(Piece { to, rows: rows.slice(skipped, until - skipped), ends })
    }

    /// The first row end behind `offset`, and the rows below `offset`.
    fn place_of(&self, offset: Offset) -> Result<(usize, usize), LiveError> {
        let later = self.ends.partition_point(|end| end.offset <= offset);
        let skipped = later.checked_sub(1).map_or(0, |before| self.ends[before].rows);
        let is_end = later.checked_sub(1).is_some_and(|before| self.ends[before].offset == offset);
        if !is_end && self.ends.get(later).is_none_or(|next| next.rows != skipped) {
            return Err(LiveError::NoEnd { partition: self.partition, offset });
        }
        Ok((later, skipped))
    }
}

/// One batch of the widest schema.
fn concat(batches: &[RecordBatch]) -> Result<Option<RecordBatch>, LiveError> {
    let Some((first, rest)) = batches.split_first() else { return Ok(None) };
    if rest.iter().all(|batch| batch.schema_ref() == first.schema_ref()) {
        return concat_same(first, batches).map(Some);
    }
    let mut schema = TableSchema::from_arrow(first.schema_ref())?;
    for batch in rest {
        schema = schema.merge(&TableSchema::from_arrow(batch.schema_ref())?)?;
    }
    let batches = batches.iter().map(|batch| conform(batch, &schema)).collect::<Result<Vec<_>, _>>()?;
    concat_same(&batches[0], &batches).map(Some)
}

fn concat_same(first: &RecordBatch, batches: &[RecordBatch]) -> Result<RecordBatch, LiveError> {
    concat_batches(first.schema_ref(), batches)
        .map_err(|error| LiveError::Format(FormatError::Structure(error.to_string())))
}

impl LiveTable {
    #[must_use]
    pub fn new(dictionary: Arc<TableDictionary>) -> Self {
        Self { dictionary, partitions: BTreeMap::new() }
    }

    /// The dictionary its strings have their ids from.
    #[must_use]
    pub fn dictionary(&self) -> &Arc<TableDictionary> {
        &self.dictionary
    }

    /// Adds the rows of offsets `[start, end)` of a partition; they must follow what was pushed before. Small
    /// chunks are merged on the way. An empty batch moves the end only. `ends` says where, before its end, these rows
    /// may be cut ([`LiveTable::straddling`]); rising, and none of it is needed where only this table seals.
    ///
    /// # Errors
    /// If the offsets leave a gap or overlap, or a column has a type no table column has; nothing is added then.
    pub fn push(
        &mut self,
        partition: PartitionIndex,
        offsets: Range<Offset>,
        rows: &RecordBatch,
        ends: &[RowEnd],
    ) -> Result<(), LiveError> {
        let expected = self.next_offset(partition).unwrap_or(offsets.start);
        if offsets.start != expected || offsets.end < offsets.start {
            return Err(LiveError::Gap { partition, found: offsets.start, expected });
        }
        let segment = Segment::from_batch(rows, &self.dictionary)?;
        let held = self.partitions.entry(partition).or_insert_with(|| Partition::new(offsets.start));
        held.next = offsets.end;
        if segment.rows() > 0 {
            let ends = ends.iter().filter(|end| offsets.contains(&end.offset) && end.rows <= segment.rows());
            let ends = ends.copied().collect();
            held.chunks.push(LiveChunk { partition, offsets, segment: Arc::new(segment), ends });
            held.merge(&self.dictionary)?;
        }
        Ok(())
    }

    /// The chunks there are; cheap.
    #[must_use]
    pub fn snapshot(&self) -> Vec<LiveChunk> {
        self.partitions.values().flat_map(|partition| &partition.chunks).cloned().collect()
    }

    /// All of a partition pushed so far. `None` when there is nothing new to publish; without rows when records came
    /// but none became a row.
    pub fn take(&mut self, partition: PartitionIndex) -> Option<Taken> {
        let held = self.partitions.get_mut(&partition)?;
        if held.next == held.start {
            return None;
        }
        held.taken = held.next;
        Some(Taken { partition, offsets: held.start..held.next, chunks: held.chunks.clone() })
    }

    /// The chunk that holds rows on both sides of `offset`, if there is one: to be cut by [`LiveChunk::after`] and given
    /// to [`LiveTable::drop_below`]. It stays as it is until then.
    pub fn straddling(&mut self, partition: PartitionIndex, offset: Offset) -> Option<LiveChunk> {
        let held = self.partitions.get_mut(&partition)?;
        let straddling = held.chunks.iter().find(|chunk| chunk.offsets.start < offset && offset < chunk.offsets.end);
        let straddling = straddling.cloned()?;
        held.taken = held.next;
        Some(straddling)
    }

    /// Forgets the rows below `offset`: they are published. It must be the end of an earlier `take`, or `rest` is what
    /// remains of the chunk that straddles it. Offsets never pushed count as pushed, without rows.
    pub fn drop_below(&mut self, partition: PartitionIndex, offset: Offset, rest: Option<LiveChunk>) {
        let Some(held) = self.partitions.get_mut(&partition) else { return };
        if let Some(rest) = rest {
            let straddles = |chunk: &LiveChunk| chunk.offsets.start < offset && chunk.offsets.end == rest.offsets.end;
            if let Some(chunk) = held.chunks.iter_mut().find(|chunk| straddles(chunk)) {
                *chunk = rest;
            }
        }
        held.chunks.retain(|chunk| chunk.offsets.end > offset && chunk.segment.rows() > 0);
        held.start = held.start.max(offset);
        held.next = held.next.max(offset);
        held.taken = held.taken.max(offset);
    }

    /// The chunk that holds the first rows at or after `offset`.
    #[must_use]
    pub fn chunk_from(&self, partition: PartitionIndex, offset: Offset) -> Option<LiveChunk> {
        let held = self.partitions.get(&partition)?;
        held.chunks.iter().find(|chunk| chunk.offsets.end > offset).cloned()
    }

    /// Forgets a partition, so that its next push may start anywhere.
    pub fn forget(&mut self, partition: PartitionIndex) {
        self.partitions.remove(&partition);
    }

    /// The partitions that were pushed to.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionIndex> + '_ {
        self.partitions.keys().copied()
    }

    /// Rows held, all partitions.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.partitions.keys().map(|partition| self.partition_rows(*partition)).sum()
    }

    /// Memory held, without the dictionary.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.partitions.keys().map(|partition| self.partition_memory_bytes(*partition)).sum()
    }

    /// Rows held of one partition.
    #[must_use]
    pub fn partition_rows(&self, partition: PartitionIndex) -> u64 {
        let chunks = self.partitions.get(&partition).map_or(&[][..], |held| &held.chunks);
        chunks.iter().map(|chunk| chunk.segment.rows() as u64).sum()
    }

    /// Memory held of one partition, without the dictionary.
    #[must_use]
    pub fn partition_memory_bytes(&self, partition: PartitionIndex) -> usize {
        let chunks = self.partitions.get(&partition).map_or(&[][..], |held| &held.chunks);
        chunks.iter().map(|chunk| chunk.segment.memory_bytes()).sum()
    }

    /// Where the next push of this partition must start; `None` before its first.
    #[must_use]
    pub fn next_offset(&self, partition: PartitionIndex) -> Option<Offset> {
        self.partitions.get(&partition).map(|held| held.next)
    }

    /// The same rows with the ids of a new dictionary (its next generation).
    ///
    /// # Errors
    /// As [`Segment::rebase`]; the table is unchanged then.
    pub fn rebase(&mut self, dictionary: Arc<TableDictionary>) -> Result<(), LiveError> {
        let mut moved = Vec::new();
        for chunk in self.partitions.values().flat_map(|held| &held.chunks) {
            moved.push(Arc::new(chunk.segment.rebase(&dictionary)?));
        }
        let chunks = self.partitions.values_mut().flat_map(|held| &mut held.chunks);
        chunks.zip(moved).for_each(|(chunk, segment)| chunk.segment = segment);
        self.dictionary = dictionary;
        Ok(())
    }
}

impl Partition {
    fn new(start: Offset) -> Self {
        Self { start, next: start, taken: start, chunks: Vec::new() }
    }

    /// Merges the last chunks while the one before is less than twice as large.
    fn merge(&mut self, dictionary: &TableDictionary) -> Result<(), LiveError> {
        while let [.., before, last] = self.chunks.as_slice() {
            let (left, right) = (before.segment.rows(), last.segment.rows());
            let apart = before.offsets.end <= self.taken && self.taken <= last.offsets.start;
            if apart || left >= 2 * right || left + right > CHUNK_ROWS_MAX {
                break;
            }
            let segment = match before.segment.append(&last.segment) {
                Some(segment) => segment,
                None => {
                    let batches = [before.segment.to_batch(None)?, last.segment.to_batch(None)?];
                    let Some(batch) = concat(&batches)? else { break };
                    Segment::from_batch(&batch, dictionary)?
                }
            };
            // Between the two there may be offsets without rows.
            let seam = [before.offsets.end, last.offsets.start].map(|offset| RowEnd { offset, rows: left });
            let shifted = last.ends.iter().map(|end| RowEnd { rows: end.rows + left, ..*end });
            let merged = LiveChunk {
                partition: before.partition,
                offsets: before.offsets.start..last.offsets.end,
                segment: Arc::new(segment),
                ends: before.ends.iter().copied().chain(seam).chain(shifted).collect(),
            };
            self.chunks.truncate(self.chunks.len() - 2);
            self.chunks.push(merged);
        }
        Ok(())
    }
}
