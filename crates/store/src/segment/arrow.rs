//! Columns -> Arrow, a block at a time and only the rows asked for.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder};
use arrow_array::{Array, ArrayRef};
use arrow_schema::Field;

use super::bitmap::Mask;
use super::column::{Column, Data};
use super::error::FormatError;
use super::lists::Decoder;
use super::packing::BLOCK_ROWS;
use super::plain::PlainValues;
use crate::schema::{ColumnType, TIME_COLUMN, TYPE_METADATA_JSON, TYPE_METADATA_KEY};

/// Few rows of a block are read one by one, more by unpacking the block.
const SINGLE_ROWS_MAX: usize = 64;

/// Grows an Arrow array of one column type.
pub(crate) struct ArrayWriter {
    ty: ColumnType,
    values: Values,
    plain: PlainValues,
}

enum Values {
    Strings(StringBuilder),
    Longs(Int64Builder),
    Times(TimestampMillisecondBuilder),
    Doubles(Float64Builder),
    Booleans(BooleanBuilder),
    Lists(Decoder),
}

fn is_set(mask: &Mask, row: u16) -> bool {
    mask[usize::from(row) / 64] >> (row % 64) & 1 == 1
}

impl ArrayWriter {
    pub(crate) fn new(ty: ColumnType) -> Self {
        let values = match ty {
            ColumnType::String | ColumnType::Json => Values::Strings(StringBuilder::new()),
            ColumnType::Long => Values::Longs(Int64Builder::new()),
            ColumnType::Timestamp => Values::Times(TimestampMillisecondBuilder::new()),
            ColumnType::Double => Values::Doubles(Float64Builder::new()),
            ColumnType::Boolean => Values::Booleans(BooleanBuilder::new()),
            ColumnType::ArrayString | ColumnType::ArrayLong | ColumnType::ArrayDouble => match Decoder::new(ty) {
                Some(decoder) => Values::Lists(decoder),
                None => Values::Strings(StringBuilder::new()),
            },
        };
        Self { ty, values, plain: PlainValues::default() }
    }

    /// Appends rows of a block, given by their place in it. The column has this writer's type and is ready.
    pub(crate) fn append(&mut self, column: &Column, block: usize, rows: &[u16]) -> Result<(), FormatError> {
        if rows.is_empty() {
            return Ok(());
        }
        match (&mut self.values, &column.data) {
            (Values::Strings(out), Data::Codes(codes)) => {
                let mut ids = [0; BLOCK_ROWS];
                codes.packing.decode(block, &mut ids);
                let strings = codes.dictionary.strings();
                rows.iter().for_each(|row| out.append_option(strings.get(codes.id(ids[usize::from(*row)]))));
            }
            (Values::Strings(out), Data::Plain(plain)) => {
                plain.decode(block, column.block_rows(block), true, &mut self.plain)?;
                let valid = column.valid(block);
                let value = |row: u16| is_set(&valid, row).then(|| self.plain.text(usize::from(row)));
                rows.iter().for_each(|row| out.append_option(value(*row)));
            }
            (Values::Lists(out), Data::Plain(plain)) => {
                plain.decode(block, column.block_rows(block), false, &mut self.plain)?;
                let valid = column.valid(block);
                for row in rows {
                    out.push(is_set(&valid, *row).then(|| self.plain.get(usize::from(*row))))?;
                }
            }
            (Values::Longs(out), Data::Longs(_)) => longs(column, block, rows, |value| out.append_option(value)),
            (Values::Times(out), Data::Longs(_)) => longs(column, block, rows, |value| out.append_option(value)),
            (Values::Doubles(out), Data::Doubles(doubles)) => {
                let valid = column.valid(block);
                for row in rows {
                    let value = doubles.get(block * BLOCK_ROWS + usize::from(*row)).copied();
                    out.append_option(value.filter(|_| is_set(&valid, *row)));
                }
            }
            (Values::Booleans(out), Data::Booleans(bits)) => {
                let (valid, bits) = (column.valid(block), bits.block(block));
                rows.iter().for_each(|row| out.append_option(is_set(&valid, *row).then(|| is_set(&bits, *row))));
            }
            _ => return Err(FormatError::Structure(format!("column {:?} is not a {}", column.name, self.ty))),
        }
        Ok(())
    }

    /// Bytes of the strings so far; other types are small.
    pub(crate) fn size_bytes(&self) -> usize {
        match &self.values {
            Values::Strings(out) => out.values_slice().len(),
            _ => 0,
        }
    }

    pub(crate) fn append_nulls(&mut self, count: usize) -> Result<(), FormatError> {
        match &mut self.values {
            Values::Strings(out) => (0..count).for_each(|_| out.append_null()),
            Values::Longs(out) => out.append_nulls(count),
            Values::Times(out) => out.append_nulls(count),
            Values::Doubles(out) => out.append_nulls(count),
            Values::Booleans(out) => out.append_nulls(count),
            Values::Lists(out) => (0..count).try_for_each(|_| out.push(None))?,
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> ArrayRef {
        match self.values {
            Values::Strings(mut out) => Arc::new(out.finish()),
            Values::Longs(mut out) => Arc::new(out.finish()),
            Values::Times(mut out) => Arc::new(out.finish()),
            Values::Doubles(mut out) => Arc::new(out.finish()),
            Values::Booleans(mut out) => Arc::new(out.finish()),
            Values::Lists(out) => out.finish(),
        }
    }
}

fn longs(column: &Column, block: usize, rows: &[u16], mut sink: impl FnMut(Option<i64>)) {
    let Data::Longs(longs) = &column.data else { return };
    let valid = column.valid(block);
    if rows.len() <= SINGLE_ROWS_MAX {
        let value = |row: u16| is_set(&valid, row).then(|| longs.get(block * BLOCK_ROWS + usize::from(row)));
        rows.iter().for_each(|row| sink(value(*row)));
        return;
    }
    let mut values = [0; BLOCK_ROWS];
    longs.decode(block, &mut values);
    rows.iter().for_each(|row| sink(is_set(&valid, *row).then(|| values[usize::from(*row)])));
}

/// The rows of a mask, ascending.
pub(crate) fn rows_of(mask: &Mask, out: &mut Vec<u16>) {
    out.clear();
    for (number, word) in mask.iter().enumerate() {
        let (mut word, first) = (*word, number * 64);
        while word != 0 {
            // A block has 1,024 rows.
            out.push(u16::try_from(first + word.trailing_zeros() as usize).unwrap_or(0));
            word &= word - 1;
        }
    }
}

/// The Arrow field of a column.
pub(crate) fn field_of(name: &str, ty: ColumnType, nulls: usize) -> Field {
    let field = Field::new(name, ty.arrow(), name != TIME_COLUMN || nulls > 0);
    match ty {
        ColumnType::Json => {
            field.with_metadata(HashMap::from([(TYPE_METADATA_KEY.to_owned(), TYPE_METADATA_JSON.to_owned())]))
        }
        _ => field,
    }
}

/// The whole column.
pub(crate) fn whole(column: &Column) -> Result<ArrayRef, FormatError> {
    column.ready()?;
    let mut writer = ArrayWriter::new(column.ty);
    let mut rows = Vec::with_capacity(BLOCK_ROWS);
    for block in 0..column.rows.div_ceil(BLOCK_ROWS) {
        rows_of(&super::bitmap::mask_of(column.block_rows(block)), &mut rows);
        writer.append(column, block, &rows)?;
    }
    let array = writer.finish();
    debug_assert_eq!(array.len(), column.rows);
    Ok(array)
}
