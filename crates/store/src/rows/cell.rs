//! What one field of one row holds, before a column gives it a type.
//!
//! Cells are plain numbers: text is a range of the record's bytes, or of the row's own scratch where it had
//! to be unescaped or compacted. So a row is reused for every record and reading allocates nothing.

use crate::schema::ColumnType;

/// Set in [`Span::start`] if the text is in the scratch.
const SCRATCH: u32 = 1 << 31;
/// Longest record text: spans have 31 bits.
pub const TEXT_BYTES_MAX: usize = (1 << 31) - 1;

/// A range of text: of the record or of the scratch. Always on character boundaries of the text it was made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    start: u32,
    len: u32,
}

/// Which kinds of elements an array has: a set of the constants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kinds(u8);

impl Kinds {
    pub const NULL: Self = Self(1);
    pub const BOOL: Self = Self(2);
    pub const LONG: Self = Self(4);
    pub const DOUBLE: Self = Self(8);
    pub const TEXT: Self = Self(16);
    pub const NESTED: Self = Self(32);

    pub const fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The narrowest type that holds an array of these. An empty one is an array of longs.
    #[must_use]
    pub const fn column_type(self) -> ColumnType {
        if self.has(Self::NESTED) {
            ColumnType::Json
        } else if self.has(Self::TEXT) {
            ColumnType::ArrayString
        } else if self.has(Self::DOUBLE) {
            ColumnType::ArrayDouble
        } else {
            ColumnType::ArrayLong
        }
    }
}

/// One field's value.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Cell {
    /// The row has no such field.
    #[default]
    Missing,
    Null,
    Bool(bool),
    Long(i64),
    /// Always finite.
    Double(f64),
    /// The digits of a number that no i64 and no finite f64 holds.
    Number(Span),
    Text(Span),
    /// Compact JSON text.
    Array(Span, Kinds),
    /// Compact JSON text.
    Object(Span),
}

impl Cell {
    #[must_use]
    pub const fn is_null(self) -> bool {
        matches!(self, Self::Missing | Self::Null)
    }

    /// The narrowest type of a column that holds it; none for a null.
    #[must_use]
    pub const fn column_type(self) -> Option<ColumnType> {
        match self {
            Self::Missing | Self::Null => None,
            Self::Bool(_) | Self::Long(_) => Some(ColumnType::Long),
            Self::Double(_) => Some(ColumnType::Double),
            Self::Number(_) | Self::Text(_) => Some(ColumnType::String),
            Self::Array(_, kinds) => Some(kinds.column_type()),
            Self::Object(_) => Some(ColumnType::Json),
        }
    }
}

/// The cells of one row by field slot, and the text made for them.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub(super) cells: Vec<Cell>,
    pub(super) scratch: String,
    /// A field had no slot because there are too many.
    pub(super) overflow: bool,
}

/// A row's texts: what a [`Span`] of it means.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    pub input: &'a str,
    pub scratch: &'a str,
}

impl<'a> Texts<'a> {
    /// The text of a span; empty if the span is of other texts.
    #[must_use]
    pub fn get(&self, span: Span) -> &'a str {
        let start = (span.start & !SCRATCH) as usize;
        let text = if span.start & SCRATCH == 0 { self.input } else { self.scratch };
        text.get(start..start + span.len as usize).unwrap_or("")
    }
}

impl Span {
    /// None past [`TEXT_BYTES_MAX`].
    pub(super) fn of_input(start: usize, end: usize) -> Option<Self> {
        (end <= TEXT_BYTES_MAX).then_some(())?;
        Some(Self { start: u32::try_from(start).ok()?, len: u32::try_from(end - start).ok()? })
    }

    pub(super) fn of_scratch(start: usize, end: usize) -> Option<Self> {
        let span = Self::of_input(start, end)?;
        Some(Self { start: span.start | SCRATCH, len: span.len })
    }
}

impl Row {
    /// Forgets the last row; there are `slots` fields now.
    pub(super) fn clear(&mut self, slots: usize) {
        self.cells.clear();
        self.cells.resize(slots, Cell::Missing);
        self.scratch.clear();
        self.overflow = false;
    }

    pub(super) fn put(&mut self, slot: usize, cell: Cell) {
        if slot >= self.cells.len() {
            self.cells.resize(slot + 1, Cell::Missing);
        }
        self.cells[slot] = cell;
    }

    /// The cell of a slot.
    #[must_use]
    pub fn cell(&self, slot: usize) -> Cell {
        self.cells.get(slot).copied().unwrap_or_default()
    }

    #[must_use]
    pub fn texts<'a>(&'a self, input: &'a str) -> Texts<'a> {
        Texts { input, scratch: &self.scratch }
    }
}
