//! The engine against a row-by-row evaluator, on random tables, filters, keys and aggregates.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow_schema::DataType;
use bytes::Bytes;

use super::*;
use crate::dictionary::TableDictionary;
use crate::interval::Interval;
use crate::schema::{ColumnType, TableSchema, conform};
use crate::segment::Segment;
use crate::segment::tests::{Random, random_batch, random_schema};
use crate::sketch::{K_MAX, Share};
use crate::snapshot::{SnapshotSegment, TableSnapshot};

mod aggregates;
mod naive;
mod scans;

/// A value of a row.
#[derive(Clone, PartialEq, PartialOrd, Debug)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    Long(i64),
    Double(f64),
    Text(String),
    List(String),
}

/// A snapshot and the same rows, cell by cell in the schema's order.
pub(super) struct Table {
    pub(super) snapshot: TableSnapshot,
    pub(super) rows: Vec<Vec<Cell>>,
}

pub(super) fn cells(array: &ArrayRef) -> Vec<Cell> {
    let cell = |row: usize| match array.data_type() {
        _ if array.is_null(row) => Cell::Null,
        DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row).to_owned()),
        DataType::Int64 => Cell::Long(array.as_primitive::<Int64Type>().value(row)),
        DataType::Timestamp(..) => Cell::Long(array.as_primitive::<TimestampMillisecondType>().value(row)),
        DataType::Float64 => Cell::Double(array.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
        _ => Cell::List(format!("{:?}", array.slice(row, 1))),
    };
    (0..array.len()).map(cell).collect()
}

pub(super) fn rows_of(batch: &RecordBatch) -> Vec<Vec<Cell>> {
    let columns: Vec<Vec<Cell>> = batch.columns().iter().map(cells).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
}

/// A batch whose columns are narrower than the table's, or missing.
fn narrow(batch: &RecordBatch) -> RecordBatch {
    let schema = batch.schema();
    let at = |name| schema.index_of(name).unwrap();
    let rows = batch.num_rows();
    let longs: ArrayRef =
        Arc::new((0..rows).map(|row| (row % 3 > 0).then(|| i64::try_from(row % 7).unwrap())).collect::<Int64Array>());
    RecordBatch::try_from_iter_with_nullable([
        ("__time", Arc::clone(batch.column(at("__time"))), false),
        ("few", Arc::clone(&longs), true),
        ("double", longs, true),
        ("flag", Arc::clone(batch.column(at("flag"))), true),
        ("unique", Arc::clone(batch.column(at("unique"))), true),
    ])
    .unwrap()
}

/// A table of segments of the given rows: sealed, live and narrow ones in turn.
pub(super) fn table(seed: u64, sizes: &[usize], words: usize) -> Table {
    let schema: TableSchema = random_schema();
    let dictionary = Arc::new(TableDictionary::new());
    let (mut segments, mut rows) = (Vec::new(), Vec::new());
    for (number, size) in sizes.iter().enumerate() {
        let batch = random_batch(seed + number as u64, *size, words);
        let (segment, live, batch) = match number % 4 {
            1 => (Segment::from_batch(&batch, &dictionary).unwrap(), true, batch),
            3 => {
                let batch = narrow(&batch);
                let file = Segment::encode(&batch).unwrap();
                (Segment::open(Bytes::from(file), &dictionary).unwrap(), false, batch)
            }
            _ => {
                let file = Segment::encode(&batch).unwrap();
                (Segment::open(Bytes::from(file), &dictionary).unwrap(), false, batch)
            }
        };
        rows.extend(rows_of(&conform(&batch, &schema).unwrap()));
        segments.push(SnapshotSegment {
            id: format!("s{number}"),
            interval: Interval::ETERNITY,
            rows: *size as u64,
            segment: Arc::new(segment),
            live,
        });
    }
    let snapshot = TableSnapshot { table: Arc::from("t"), schema: Arc::new(schema), dictionary, segments };
    Table { snapshot, rows }
}

pub(super) fn column_at(name: &str) -> usize {
    random_schema().index_of(name).unwrap()
}

pub(super) fn type_of(name: &str) -> ColumnType {
    random_schema().column(name).unwrap().ty
}
