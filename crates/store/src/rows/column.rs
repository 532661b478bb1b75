//! One column being filled: a builder of its type, and the pieces that were finished before it widened.

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder};
use arrow_array::{Array, ArrayRef, TimestampMillisecondArray, new_null_array};
use arrow_schema::ArrowError;

use super::cell::{Cell, Texts};
use super::json::each_element;
use super::text::{
    double_of_text, exact_long, long_of_double, long_of_text, metric_text, push_double, push_json_double,
    push_json_text, push_long,
};
use super::timestamp::TimestampFormat;
use crate::schema::{ColumnType, widen_array};

/// How strictly a column reads what does not have its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// As Druid's dimensions: text must hold the number exactly.
    Dimension,
    /// As [`Reading::Dimension`], rounded to float precision.
    Float,
    /// As Druid's metrics: text may have commas and a fraction to cut.
    Metric,
}

/// A value did not fit its column's type; a null was stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreadable;

#[derive(Debug)]
enum Builder {
    /// Also of JSON.
    Text(StringBuilder),
    Long(Int64Builder),
    /// Milliseconds.
    Timestamp(Int64Builder),
    Double(Float64Builder),
    Boolean(BooleanBuilder),
    Texts(ListBuilder<StringBuilder>),
    Longs(ListBuilder<Int64Builder>),
    Doubles(ListBuilder<Float64Builder>),
}

/// A column being filled.
#[derive(Debug)]
pub struct Column {
    ty: ColumnType,
    reading: Reading,
    builder: Builder,
    /// Finished values of this type, before those of the builder.
    pieces: Vec<ArrayRef>,
    rows: usize,
    text: String,
}

impl Column {
    /// A column that already has `rows` nulls.
    #[must_use]
    pub fn new(ty: ColumnType, reading: Reading, rows: usize) -> Self {
        let pieces = if rows == 0 { Vec::new() } else { vec![new_null_array(&ty.arrow(), rows)] };
        Self { ty, reading, builder: Builder::of(ty), pieces, rows, text: String::new() }
    }

    #[must_use]
    pub const fn column_type(&self) -> ColumnType {
        self.ty
    }

    /// Makes room for values of another type.
    ///
    /// # Errors
    /// If `ty` is not wider.
    pub fn widen(&mut self, ty: ColumnType) -> Result<(), ArrowError> {
        if ty == self.ty {
            return Ok(());
        }
        // What is there stays there if it cannot be widened.
        self.pieces.push(self.builder.finish());
        let wider = self.pieces.iter().map(|piece| widen_array(piece, self.ty, ty)).collect::<Result<_, _>>();
        self.pieces = wider?;
        self.ty = ty;
        self.builder = Builder::of(ty);
        Ok(())
    }

    /// All values so far; the column is empty after.
    ///
    /// # Errors
    /// If the pieces are too large for one array.
    pub fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let last = self.builder.finish();
        self.rows = 0;
        if self.pieces.is_empty() {
            return Ok(last);
        }
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.push(last);
        let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
        arrow_select::concat::concat(&pieces)
    }

    /// Appends a long to a long column: a count.
    pub fn push_long(&mut self, value: i64) {
        match &mut self.builder {
            Builder::Long(builder) => builder.append_value(value),
            other => other.push_null(),
        }
        self.rows += 1;
    }

    /// Appends a cell, converted to the column's type.
    ///
    /// # Errors
    /// If it cannot be; a null was appended.
    #[inline]
    pub fn push(&mut self, cell: Cell, texts: Texts<'_>) -> Result<(), Unreadable> {
        self.rows += 1;
        match (&mut self.builder, cell) {
            (builder, Cell::Missing | Cell::Null) => {
                builder.push_null();
                Ok(())
            }
            (Builder::Text(builder), Cell::Text(span)) if self.ty == ColumnType::String => {
                builder.append_value(texts.get(span));
                Ok(())
            }
            (Builder::Long(builder), Cell::Long(value)) => {
                builder.append_value(value);
                Ok(())
            }
            (_, cell) => self.push_converted(cell, texts),
        }
    }

    fn push_converted(&mut self, cell: Cell, texts: Texts<'_>) -> Result<(), Unreadable> {
        let pushed = match &mut self.builder {
            Builder::Text(builder) => {
                self.text.clear();
                let there = match self.ty {
                    ColumnType::Json => json_of(cell, texts, &mut self.text),
                    _ => text_of(cell, texts, &mut self.text),
                };
                if there {
                    builder.append_value(&self.text);
                } else {
                    builder.append_null();
                }
                return Ok(());
            }
            Builder::Long(builder) => long_of(cell, texts, self.reading).map(|value| builder.append_value(value)),
            Builder::Timestamp(builder) => time_of(cell, texts).map(|value| builder.append_value(value)),
            Builder::Double(builder) => double_of(cell, texts, self.reading).map(|value| builder.append_value(value)),
            Builder::Boolean(builder) => boolean_of(cell, texts).map(|value| builder.append_value(value)),
            Builder::Texts(_) | Builder::Longs(_) | Builder::Doubles(_) => return self.push_list(cell, texts),
        };
        if pushed.is_none() {
            self.builder.push_null();
        }
        pushed.ok_or(Unreadable)
    }

    /// Every element of an array, or one value as an array of itself.
    fn push_list(&mut self, cell: Cell, texts: Texts<'_>) -> Result<(), Unreadable> {
        let mut good = true;
        let Self { builder, text, reading, .. } = self;
        let mut one = |cell: Cell, texts: Texts<'_>| {
            good &= cell.is_null() | builder.push_element(cell, texts, *reading, text);
        };
        match cell {
            Cell::Array(span, _) => {
                let array = texts.get(span);
                let mut scratch = String::new();
                each_element(array, &mut scratch, |cell, scratch| one(cell, Texts { input: array, scratch }));
            }
            cell => one(cell, texts),
        }
        match &mut self.builder {
            Builder::Texts(list) => list.append(true),
            Builder::Longs(list) => list.append(true),
            Builder::Doubles(list) => list.append(true),
            _ => {}
        }
        if good { Ok(()) } else { Err(Unreadable) }
    }
}

impl Builder {
    fn of(ty: ColumnType) -> Self {
        match ty {
            ColumnType::String | ColumnType::Json => Self::Text(StringBuilder::new()),
            ColumnType::Long => Self::Long(Int64Builder::new()),
            ColumnType::Timestamp => Self::Timestamp(Int64Builder::new()),
            ColumnType::Double => Self::Double(Float64Builder::new()),
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::new()),
            ColumnType::ArrayString => Self::Texts(ListBuilder::new(StringBuilder::new())),
            ColumnType::ArrayLong => Self::Longs(ListBuilder::new(Int64Builder::new())),
            ColumnType::ArrayDouble => Self::Doubles(ListBuilder::new(Float64Builder::new())),
        }
    }

    #[inline]
    fn push_null(&mut self) {
        match self {
            Self::Text(builder) => builder.append_null(),
            Self::Long(builder) | Self::Timestamp(builder) => builder.append_null(),
            Self::Double(builder) => builder.append_null(),
            Self::Boolean(builder) => builder.append_null(),
            Self::Texts(builder) => builder.append(false),
            Self::Longs(builder) => builder.append(false),
            Self::Doubles(builder) => builder.append(false),
        }
    }

    /// Appends one element to the list that is open; false if it was unreadable. Nulls are elements too.
    fn push_element(&mut self, cell: Cell, texts: Texts<'_>, reading: Reading, text: &mut String) -> bool {
        match self {
            Self::Texts(builder) => {
                text.clear();
                let there = text_of(cell, texts, text);
                builder.values().append_option(there.then_some(&*text));
                true
            }
            Self::Longs(builder) => {
                let value = long_of(cell, texts, reading);
                builder.values().append_option(value);
                value.is_some()
            }
            Self::Doubles(builder) => {
                let value = double_of(cell, texts, reading);
                builder.values().append_option(value);
                value.is_some()
            }
            _ => false,
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Long(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => {
                let times: TimestampMillisecondArray = builder.finish().reinterpret_cast();
                Arc::new(times)
            }
            Self::Double(builder) => Arc::new(builder.finish()),
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Texts(builder) => Arc::new(builder.finish()),
            Self::Longs(builder) => Arc::new(builder.finish()),
            Self::Doubles(builder) => Arc::new(builder.finish()),
        }
    }
}

/// A cell as a string column has it; false for a null. Several values of an array stay JSON text.
fn text_of(cell: Cell, texts: Texts<'_>, out: &mut String) -> bool {
    match cell {
        Cell::Missing | Cell::Null => return false,
        Cell::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        Cell::Long(value) => push_long(out, value),
        Cell::Double(value) => push_double(out, value),
        Cell::Number(span) | Cell::Text(span) | Cell::Object(span) => out.push_str(texts.get(span)),
        Cell::Array(span, _) => return text_of_array(texts.get(span), out),
    }
    true
}

/// Druid's multi-value strings: no value is a null, one value is itself.
fn text_of_array(array: &str, out: &mut String) -> bool {
    let (mut count, mut there) = (0, false);
    let mut scratch = String::new();
    each_element(array, &mut scratch, |cell, scratch| {
        if count == 0 {
            there = match cell {
                Cell::Array(span, _) => {
                    out.push_str(Texts { input: array, scratch }.get(span));
                    true
                }
                cell => text_of(cell, Texts { input: array, scratch }, out),
            };
        }
        count += 1;
    });
    if count > 1 {
        out.clear();
        out.push_str(array);
        return true;
    }
    there
}

/// A cell as JSON text; false for a null.
fn json_of(cell: Cell, texts: Texts<'_>, out: &mut String) -> bool {
    match cell {
        Cell::Text(span) => push_json_text(out, texts.get(span)),
        Cell::Array(span, _) => out.push_str(texts.get(span)),
        Cell::Double(value) => push_json_double(out, value),
        other => return text_of(other, texts, out),
    }
    true
}

fn long_of(cell: Cell, texts: Texts<'_>, reading: Reading) -> Option<i64> {
    match cell {
        Cell::Long(value) => Some(value),
        Cell::Bool(value) => Some(i64::from(value)),
        Cell::Double(value) => long_of_double(value),
        Cell::Text(span) if reading == Reading::Metric => {
            let text = metric_text(texts.get(span));
            text.parse().ok().or_else(|| long_of_double(double_of_text(&text)?))
        }
        Cell::Text(span) => long_of_text(texts.get(span)),
        Cell::Array(span, _) => only(texts.get(span), |cell, texts| long_of(cell, texts, reading)),
        Cell::Number(_) | Cell::Object(_) | Cell::Missing | Cell::Null => None,
    }
}

fn double_of(cell: Cell, texts: Texts<'_>, reading: Reading) -> Option<f64> {
    let value = match cell {
        Cell::Double(value) => Some(value),
        #[expect(clippy::cast_precision_loss, reason = "a double column holds the nearest double")]
        Cell::Long(value) => Some(value as f64),
        Cell::Bool(value) => Some(f64::from(u8::from(value))),
        Cell::Text(span) if reading == Reading::Metric => double_of_text(&metric_text(texts.get(span))),
        Cell::Text(span) | Cell::Number(span) => double_of_text(texts.get(span)),
        Cell::Array(span, _) => only(texts.get(span), |cell, texts| double_of(cell, texts, reading)),
        Cell::Object(_) | Cell::Missing | Cell::Null => None,
    }?;
    #[expect(clippy::cast_possible_truncation, reason = "rounding to float precision is meant")]
    let rounded = f64::from(value as f32);
    Some(if reading == Reading::Float { rounded } else { value })
}

fn boolean_of(cell: Cell, texts: Texts<'_>) -> Option<bool> {
    match cell {
        Cell::Bool(value) => Some(value),
        Cell::Long(value) => Some(value != 0),
        Cell::Double(value) => exact_long(value).map(|value| value != 0),
        Cell::Text(span) => {
            let text = texts.get(span).trim();
            if text.eq_ignore_ascii_case("true") || text == "1" {
                Some(true)
            } else {
                (text.eq_ignore_ascii_case("false") || text == "0").then_some(false)
            }
        }
        _ => None,
    }
}

fn time_of(cell: Cell, texts: Texts<'_>) -> Option<i64> {
    match cell {
        Cell::Long(value) => Some(value),
        Cell::Double(value) => long_of_double(value),
        Cell::Text(span) => TimestampFormat::Auto.read_text(texts.get(span)).map(|time| time.0),
        _ => None,
    }
}

/// The value of an array's only element, if it has but one.
fn only<T>(array: &str, read: impl Fn(Cell, Texts<'_>) -> Option<T>) -> Option<T> {
    let (mut count, mut value) = (0, None);
    let mut scratch = String::new();
    each_element(array, &mut scratch, |cell, scratch| {
        count += 1;
        if !matches!(cell, Cell::Array(..)) {
            value = read(cell, Texts { input: array, scratch });
        }
    });
    if count == 1 { value } else { None }
}

#[cfg(test)]
mod tests;
