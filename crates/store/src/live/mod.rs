//! Rows that are committed but not yet sealed: queryable chunks per partition.
//!
//! ```text
//! push ->  chunk chunk chunk | chunk  chunk  ->  snapshot (cheap), take (for sealing), drop_below (published)
//!          '--- taken -------'  small ones are merged, each row about log2(chunks) times
//! ```
//! Always holds: a partition's chunks cover its offsets without gap or overlap from `start` to `next`; merging
//! never crosses what was taken, so what is published can be dropped whole. Chunks per partition stay below about
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
    /// chunks are merged on the way. An empty batch moves the end only.
    ///
    /// # Errors
    /// If the offsets leave a gap or overlap, or a column has a type no table column has; nothing is added then.
    pub fn push(
        &mut self,
        partition: PartitionIndex,
        offsets: Range<Offset>,
        rows: &RecordBatch,
    ) -> Result<(), LiveError> {
        let expected = self.next_offset(partition).unwrap_or(offsets.start);
        if offsets.start != expected || offsets.end < offsets.start {
            return Err(LiveError::Gap { partition, found: offsets.start, expected });
        }
        let segment = Segment::from_batch(rows, &self.dictionary)?;
        let held = self.partitions.entry(partition).or_insert_with(|| Partition::new(offsets.start));
        held.next = offsets.end;
        if segment.rows() > 0 {
            held.chunks.push(LiveChunk { partition, offsets, segment: Arc::new(segment) });
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

    /// Forgets the rows below `offset`: they are published. It must be the end of an earlier `take`.
    pub fn drop_below(&mut self, partition: PartitionIndex, offset: Offset) {
        if let Some(held) = self.partitions.get_mut(&partition) {
            held.chunks.retain(|chunk| chunk.offsets.end > offset);
            held.start = held.start.max(offset.min(held.next));
        }
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
            let merged = LiveChunk {
                partition: before.partition,
                offsets: before.offsets.start..last.offsets.end,
                segment: Arc::new(segment),
            };
            self.chunks.truncate(self.chunks.len() - 2);
            self.chunks.push(merged);
        }
        Ok(())
    }
}
