//! The unit of work: a range of blocks of one segment; and which segments a query can leave out.

use std::ops::Range;

use super::columns::{SlotId, View};
use super::filter::Node;
use crate::schema::{ColumnDef, TIME_COLUMN};
use crate::segment::column::Data;
use crate::segment::packing::BLOCK_ROWS;
use crate::snapshot::SnapshotSegment;

/// A piece of one segment of the snapshot. Idempotent: it can be run again on a fresh partial.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit {
    /// Index into the snapshot's segments.
    pub segment: usize,
    /// Blocks of 1,024 rows.
    pub blocks: Range<usize>,
    /// Rows in those blocks, before any filter.
    pub rows: usize,
}

/// The segments that are kept, cut into pieces.
pub(super) fn cut(views: &[Option<View>], rows_per_unit: usize) -> Vec<Unit> {
    let blocks_per_unit = (rows_per_unit / BLOCK_ROWS).max(1);
    let mut units = Vec::new();
    for (segment, view) in views.iter().enumerate() {
        let Some(view) = view else { continue };
        let (blocks, rows) = (view.blocks(), view.segment.rows());
        let mut from = 0;
        while from < blocks {
            let to = blocks.min(from.saturating_add(blocks_per_unit));
            units.push(Unit { segment, blocks: from..to, rows: rows.min(to * BLOCK_ROWS) - from * BLOCK_ROWS });
            from = to;
        }
    }
    units
}

/// False if no row of the segment can be selected, by what is known without touching a column.
pub(super) fn keep(
    segment: &SnapshotSegment,
    columns: &[ColumnDef],
    ranges: &[(SlotId, i64, i64)],
    filter: &Node,
) -> bool {
    if segment.segment.rows() == 0 || matches!(filter, Node::Const(false)) {
        return false;
    }
    ranges.iter().all(|(slot, low, high)| {
        let Some(def) = columns.get(slot.0) else { return true };
        let range = if def.name == TIME_COLUMN {
            segment.segment.time_range()
        } else {
            match segment.segment.column(&def.name) {
                // A column that is not there is null, and null is in no range.
                None => return false,
                Some(column) if column.ty == def.ty => match &column.data {
                    Data::Longs(longs) => longs.range(),
                    _ => return true,
                },
                Some(_) => return true,
            }
        };
        range.is_none_or(|(min, max)| min <= *high && max >= *low)
    })
}
