//! Records' bytes -> cells -> column buffers.
//!
//! ```text
//! Reader   one record's text -> rows, one after another, each into the same reused Row of cells
//! Table    rows -> one growing column per schema column; discovers and widens on the way
//! ```
//! No row makes a tree or allocates for itself; the names of fields are found by where they were in the row
//! before. Nothing here panics on what a record holds. Deliberately not here: offsets, rejections, dead
//! letters (`ingest`), rollup (`seal`).

mod cell;
mod column;
mod fields;
mod json;
mod lines;
mod table;
pub mod text;
pub mod timestamp;

pub use cell::{Cell, Kinds, Row, Span, Texts};
pub use fields::FIELDS_MAX;
pub use json::DEPTH_MAX;
pub use table::{Table, TimeError, TooManyColumns};

use crate::spec::InputFormat;
use fields::Fields;
use lines::LineFormat;

/// Why the rest of a record cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct RowError {
    pub at: usize,
    pub what: &'static str,
}

/// Reads records of one input format.
#[derive(Debug)]
pub struct Reader {
    format: Format,
    fields: Fields,
    row: Row,
}

#[derive(Debug)]
enum Format {
    Json,
    Lines(LineFormat),
}

impl Reader {
    #[must_use]
    pub fn new(format: &InputFormat) -> Self {
        let mut fields = Fields::default();
        let format = match format {
            InputFormat::Json {} => Format::Json,
            InputFormat::Csv(lines) => Format::Lines(LineFormat::new(lines, true, &mut fields)),
            InputFormat::Tsv(lines) => Format::Lines(LineFormat::new(lines, false, &mut fields)),
        };
        Self { format, fields, row: Row::default() }
    }

    /// Where the first row of a record begins.
    ///
    /// # Errors
    /// If its header line cannot be read.
    pub fn begin(&mut self, text: &str) -> Result<usize, RowError> {
        match &mut self.format {
            Format::Json => Ok(0),
            Format::Lines(lines) => lines.begin(text, &mut self.fields).map_err(open_quote),
        }
    }

    /// Reads the row at `at`, which moves behind it. False: there is none left.
    ///
    /// # Errors
    /// If it cannot be read; then nothing after it can.
    pub fn next(&mut self, text: &str, at: &mut usize) -> Result<bool, RowError> {
        *at = match &self.format {
            Format::Json => json::skip_space(text, *at),
            Format::Lines(_) => skip_empty_lines(text, *at),
        };
        if *at >= text.len() {
            return Ok(false);
        }
        self.row.clear(self.fields.len());
        *at = match &self.format {
            Format::Json => json::read_object(text, *at, &mut self.fields, &mut self.row)
                .map_err(|error| RowError { at: error.at, what: error.what })?,
            Format::Lines(lines) => lines.read(text, *at, &mut self.row).map_err(open_quote)?,
        };
        Ok(true)
    }

    /// The row read last.
    #[must_use]
    pub const fn row(&self) -> &Row {
        &self.row
    }
}

fn open_quote(error: lines::OpenQuote) -> RowError {
    RowError { at: error.at, what: "a quote is not closed" }
}

fn skip_empty_lines(text: &str, mut at: usize) -> usize {
    while let Some(b'\n' | b'\r') = text.as_bytes().get(at) {
        at += 1;
    }
    at
}
