//! Two live segments become one, column by column, without a look at their strings.

use std::sync::Arc;

use super::Segment;
use super::bitmap::Bitmap;
use super::codes::{Codes, Packing, Remap};
use super::column::{Column, Data};
use super::longs::Longs;
use super::packing::BLOCK_ROWS;
use super::plain::{Plain, PlainValues};
use crate::schema::ColumnType;

impl Segment {
    /// The rows of `self` followed by those of `other`; `None` if the two have not the same columns, or a column
    /// differs in how its values lie. The caller then goes through Arrow.
    pub(crate) fn append(&self, other: &Self) -> Option<Self> {
        if self.file.is_some() || other.file.is_some() || self.columns.len() != other.columns.len() {
            return None;
        }
        let pairs = self.columns.iter().zip(&other.columns);
        let columns = pairs.map(|(left, right)| append(left, right)).collect::<Option<Vec<_>>>()?;
        Some(Self::of_columns(self.rows + other.rows, columns))
    }
}

fn append(left: &Column, right: &Column) -> Option<Column> {
    if left.name != right.name || left.ty != right.ty {
        return None;
    }
    let rows = left.rows + right.rows;
    let nulls = left.nulls + right.nulls;
    let coded = matches!(left.data, Data::Codes(_));
    let validity = (nulls > 0 && !coded).then(|| {
        let row = |at: usize| match at.checked_sub(left.rows) {
            None => left.validity.as_ref().is_none_or(|bits| bits.get(at)),
            Some(at) => right.validity.as_ref().is_none_or(|bits| bits.get(at)),
        };
        Bitmap::from_rows(rows, row)
    });
    let data = match (&left.data, &right.data) {
        (Data::Codes(a), Data::Codes(b)) => Data::Codes(codes(left, a, right, b)?),
        (Data::Longs(a), Data::Longs(b)) => {
            let mut values = longs(left, a);
            values.append(&mut longs(right, b));
            Data::Longs(Longs::pack(&values, validity.as_ref()))
        }
        (Data::Doubles(a), Data::Doubles(b)) => Data::Doubles(a.iter().chain(b.iter()).copied().collect()),
        (Data::Booleans(a), Data::Booleans(b)) => Data::Booleans(Bitmap::from_rows(rows, |at| {
            at.checked_sub(left.rows).map_or_else(|| a.get(at), |at| b.get(at))
        })),
        (Data::Plain(a), Data::Plain(b)) => Data::Plain(plain(left, a, right, b)?),
        _ => return None,
    };
    Some(Column::new(&left.name, left.ty, rows, nulls, validity, data))
}

fn longs(column: &Column, longs: &Longs) -> Vec<i64> {
    let (mut all, mut values) = (Vec::with_capacity(column.rows), [0; BLOCK_ROWS]);
    for block in 0..longs.blocks.len() {
        longs.decode(block, &mut values);
        all.extend_from_slice(&values[..column.block_rows(block)]);
    }
    all
}

fn codes(left: &Column, a: &Codes, right: &Column, b: &Codes) -> Option<Codes> {
    let identity = |codes: &Codes| matches!(codes.remap, Remap::Identity);
    if !identity(a) || !identity(b) || !Arc::ptr_eq(&a.dictionary, &b.dictionary) {
        return None;
    }
    let (mut all, mut values) = (Vec::with_capacity(left.rows + right.rows), [0; BLOCK_ROWS]);
    for (column, codes) in [(left, a), (right, b)] {
        for block in 0..column.rows.div_ceil(BLOCK_ROWS) {
            codes.packing.decode(block, &mut values);
            all.extend_from_slice(&values[..column.block_rows(block)]);
        }
    }
    let entries = a.entries.max(b.entries);
    let packing = Packing::pack(&all, entries);
    Some(Codes { packing, entries, remap: Remap::Identity, dictionary: Arc::clone(&a.dictionary), postings: None })
}

fn plain(left: &Column, a: &Plain, right: &Column, b: &Plain) -> Option<Plain> {
    let text = matches!(left.ty, ColumnType::String | ColumnType::Json);
    let (mut packer, mut values) = (Plain::packer(false), PlainValues::default());
    for (column, plain) in [(left, a), (right, b)] {
        for block in 0..column.rows.div_ceil(BLOCK_ROWS) {
            let rows = column.block_rows(block);
            plain.decode(block, rows, text, &mut values).ok()?;
            for row in 0..rows {
                packer.push(if text { values.text(row).as_bytes() } else { values.get(row) });
            }
        }
    }
    Some(packer.finish())
}
