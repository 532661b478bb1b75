//! Cutting rows into time chunks, ordering them, and making one row of equal ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{ArrowPrimitiveType, Float64Type, Int64Type, TimestampMillisecondType};
use arrow_array::{ArrayRef, PrimitiveArray, RecordBatch, UInt32Array};
use arrow_schema::ArrowError;
use arrow_select::take::{take, take_record_batch};
use base::Timestamp;
use hashbrown::HashTable;

use super::key::Key;
use super::parquet::SealError;
use crate::granularity::Granularity;
use crate::interval::Interval;
use crate::schema::{MetricKind, TIME_COLUMN};
use crate::spec::TableSpec;

/// The rows of each time chunk, in order of time.
///
/// # Errors
/// If the batch has no `__time`.
pub fn split_by_chunk(rows: &RecordBatch, spec: &TableSpec) -> Result<Vec<(Interval, RecordBatch)>, SealError> {
    let times = times(rows)?;
    let mut chunks: BTreeMap<Interval, Vec<u32>> = BTreeMap::new();
    let mut last: Option<(Interval, Vec<u32>)> = None;
    for (row, time) in (0_u32..).zip(times) {
        let time = Timestamp(*time);
        if let Some((interval, chunk)) = &mut last
            && interval.contains(time)
        {
            chunk.push(row);
            continue;
        }
        if let Some((interval, chunk)) = last.take() {
            chunks.insert(interval, chunk);
        }
        let interval = chunk_of(spec.segment_granularity, time);
        let mut chunk = chunks.remove(&interval).unwrap_or_default();
        chunk.push(row);
        last = Some((interval, chunk));
    }
    chunks.extend(last);
    if chunks.len() == 1 {
        return Ok(chunks.into_keys().map(|interval| (interval, rows.clone())).collect());
    }
    chunks
        .into_iter()
        .map(|(interval, chunk)| Ok((interval, take_record_batch(rows, &UInt32Array::from(chunk))?)))
        .collect()
}

/// The chunk of a time. A time past the end of eternity is in the last chunk's place all the same.
fn chunk_of(granularity: Granularity, time: Timestamp) -> Interval {
    let chunk = granularity.bucket(time);
    if chunk.contains(time) { chunk } else { Interval { start: time, end: time.next() } }
}

/// The rows sorted by `__time`, then by the dimensions in the batch's order; if the spec rolls up, equal
/// rows are one and their metrics added up.
///
/// # Errors
/// If the batch has no `__time`, or a column of a type that no table has.
pub fn sort_and_roll_up(rows: &RecordBatch, spec: &TableSpec) -> Result<RecordBatch, SealError> {
    let rolled_up = if spec.rollup { roll_up(rows, spec)? } else { rows.clone() };
    sort(&rolled_up, spec)
}

/// The metric that a column is, if it is one.
fn metric_of(spec: &TableSpec, name: &str) -> Option<MetricKind> {
    spec.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.kind)
}

fn times(rows: &RecordBatch) -> Result<&[i64], SealError> {
    let times = rows.column_by_name(TIME_COLUMN).and_then(|times| times.as_primitive_opt::<TimestampMillisecondType>());
    times.map(|times| times.values().as_ref()).ok_or(SealError::NoTime)
}

/// The keys of `__time` and the dimensions, in the batch's order.
fn keys<'a>(rows: &'a RecordBatch, spec: &TableSpec) -> Result<Vec<Key<'a>>, SealError> {
    let schema = rows.schema_ref();
    let columns = schema.fields().iter().zip(rows.columns());
    columns
        .filter(|(field, _)| metric_of(spec, field.name()).is_none())
        .map(|(field, column)| {
            Key::of(column)
                .ok_or_else(|| SealError::Column { name: field.name().clone(), ty: field.data_type().to_string() })
        })
        .collect()
}

fn sort(rows: &RecordBatch, spec: &TableSpec) -> Result<RecordBatch, SealError> {
    let times = times(rows)?;
    let keys = keys(rows, spec)?;
    let count = u32::try_from(rows.num_rows()).map_err(|_| SealError::TooManyRows(rows.num_rows()))?;
    let mut order: Vec<u32> = (0..count).collect();
    if !times.is_sorted() {
        order.sort_by_key(|row| times[*row as usize]);
    }
    let mut moved = !times.is_sorted();
    for run in order.chunk_by_mut(|left, right| times[*left as usize] == times[*right as usize]) {
        if run.len() > 1 {
            moved = true;
            run.sort_by(|left, right| {
                let (left, right) = (*left as usize, *right as usize);
                let orders = keys.iter().map(|key| key.compare(left, right));
                orders.into_iter().find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
            });
        }
    }
    if moved { Ok(take_record_batch(rows, &UInt32Array::from(order))?) } else { Ok(rows.clone()) }
}

/// One row for all that agree in `__time` and every dimension, in the order of their first; metrics are
/// added up, nulls left out.
///
/// # Errors
/// As [`sort_and_roll_up`].
pub fn roll_up(rows: &RecordBatch, spec: &TableSpec) -> Result<RecordBatch, SealError> {
    let groups = Groups::of(&keys(rows, spec)?, rows.num_rows())?;
    if groups.first.len() == rows.num_rows() {
        return Ok(rows.clone());
    }
    let first = UInt32Array::from(groups.first.clone());
    let schema = rows.schema();
    let columns =
        schema.fields().iter().zip(rows.columns()).map(|(field, column)| match metric_of(spec, field.name()) {
            None => take(column, &first, None),
            Some(kind) => fold(column, kind, &groups),
        });
    let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}

struct Groups {
    /// The group of every row.
    of: Vec<u32>,
    /// The first row of every group.
    first: Vec<u32>,
}

impl Groups {
    fn of(keys: &[Key<'_>], rows: usize) -> Result<Self, SealError> {
        let count = u32::try_from(rows).map_err(|_| SealError::TooManyRows(rows))?;
        let mut hashes = vec![0_u64; rows];
        for key in keys {
            for (row, hash) in hashes.iter_mut().enumerate() {
                *hash = key.hash(row, *hash);
            }
        }
        let mut table: HashTable<u32> = HashTable::new();
        let mut groups = Self { of: Vec::with_capacity(rows), first: Vec::new() };
        for row in 0..count {
            let hash = hashes[row as usize];
            let first = &groups.first;
            let same = |group: &u32| {
                let other = first[*group as usize] as usize;
                hashes[other] == hash && keys.iter().all(|key| key.compare(other, row as usize).is_eq())
            };
            let group = match table.find(hash, same) {
                Some(group) => *group,
                None => {
                    let group = u32::try_from(first.len()).map_err(|_| SealError::TooManyRows(rows))?;
                    table.insert_unique(hash, group, |group| hashes[first[*group as usize] as usize]);
                    groups.first.push(row);
                    group
                }
            };
            groups.of.push(group);
        }
        Ok(groups)
    }
}

fn fold(column: &ArrayRef, kind: MetricKind, groups: &Groups) -> Result<ArrayRef, ArrowError> {
    let wrong = || ArrowError::CastError(format!("a {kind:?} column holds {}", column.data_type()));
    Ok(match kind {
        MetricKind::Count | MetricKind::LongSum => {
            Arc::new(fold_by::<Int64Type>(column.as_primitive_opt().ok_or_else(wrong)?, groups, i64::wrapping_add))
        }
        MetricKind::LongMin => {
            Arc::new(fold_by::<Int64Type>(column.as_primitive_opt().ok_or_else(wrong)?, groups, i64::min))
        }
        MetricKind::LongMax => {
            Arc::new(fold_by::<Int64Type>(column.as_primitive_opt().ok_or_else(wrong)?, groups, i64::max))
        }
        MetricKind::DoubleSum => {
            Arc::new(fold_by::<Float64Type>(column.as_primitive_opt().ok_or_else(wrong)?, groups, |a, b| a + b))
        }
        MetricKind::DoubleMin => {
            Arc::new(fold_by::<Float64Type>(column.as_primitive_opt().ok_or_else(wrong)?, groups, f64::min))
        }
        MetricKind::DoubleMax => {
            Arc::new(fold_by::<Float64Type>(column.as_primitive_opt().ok_or_else(wrong)?, groups, f64::max))
        }
    })
}

fn fold_by<T: ArrowPrimitiveType>(
    column: &PrimitiveArray<T>,
    groups: &Groups,
    add: impl Fn(T::Native, T::Native) -> T::Native,
) -> PrimitiveArray<T> {
    let mut totals: Vec<Option<T::Native>> = vec![None; groups.first.len()];
    for (value, group) in column.iter().zip(&groups.of) {
        let total = &mut totals[*group as usize];
        *total = match (*total, value) {
            (Some(total), Some(value)) => Some(add(total, value)),
            (total, value) => total.or(value),
        };
    }
    PrimitiveArray::from_iter(totals)
}

#[cfg(test)]
mod tests;
