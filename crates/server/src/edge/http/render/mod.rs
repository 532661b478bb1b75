//! Rows as Druid's five result formats: object, array, objectLines, arrayLines, csv.
//!
//! ```text
//! begin() -> opening bracket, header rows      rows(batch) -> rows      end() -> closing bracket, or the extra newline
//! ```
//! What always holds: the bytes of `begin`, any number of `rows`, and `end` together are one whole answer; a body without
//! what `end` writes is a truncated one, and a client can tell. Deliberately not here: when to send what.

pub mod csv;
pub mod json;
pub mod number;
pub mod time;

use arrow::array::{Array, RecordBatch};

use crate::edge::cells::{Cell, Cells};
use query::ResultColumn;
use store::calendar::Zone;

/// A shape of the answer to `POST /druid/v2/sql`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResultFormat {
    /// One JSON array of objects.
    #[default]
    Object,
    /// One JSON array of arrays.
    Array,
    /// One JSON object a line.
    ObjectLines,
    /// One JSON array a line.
    ArrayLines,
    Csv,
}

impl ResultFormat {
    /// From the request's `resultFormat`, in any case. `None`: there is no such format.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "object" => Some(Self::Object),
            "array" => Some(Self::Array),
            "objectlines" => Some(Self::ObjectLines),
            "arraylines" => Some(Self::ArrayLines),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Object | Self::Array => "application/json",
            Self::ObjectLines | Self::ArrayLines => "text/plain; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    fn is_json_document(self) -> bool {
        matches!(self, Self::Object | Self::Array)
    }
}

/// Which header rows come before the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    pub names: bool,
    pub types: bool,
    pub sql_types: bool,
}

/// Writes one result.
#[derive(Debug)]
pub struct Renderer {
    format: ResultFormat,
    header: Header,
    columns: Vec<ResultColumn>,
    /// Per column `"name":`, escaped once.
    keys: Vec<Vec<u8>>,
    zone: Zone,
    elements: u64,
    scratch: Vec<u8>,
    stringify_arrays: bool,
}

impl Renderer {
    pub fn new(format: ResultFormat, header: Header, columns: Vec<ResultColumn>, zone: Zone) -> Self {
        let keys = columns.iter().map(|column| json_key(&column.name)).collect();
        Self { format, header, columns, keys, zone, elements: 0, scratch: Vec::new(), stringify_arrays: false }
    }

    /// Arrays as one string of JSON each, which is Druid's default (`sqlStringifyArrays`).
    #[must_use]
    pub fn stringify_arrays(mut self, stringify: bool) -> Self {
        self.stringify_arrays = stringify;
        self
    }

    /// What comes before the first row.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if self.format.is_json_document() {
            out.push(b'[');
        }
        if !self.header.names {
            return;
        }
        match self.format {
            ResultFormat::Object | ResultFormat::ObjectLines => self.object_header(out),
            ResultFormat::Array | ResultFormat::ArrayLines | ResultFormat::Csv => {
                self.header_row(out, |column| &column.name);
                if self.header.types {
                    self.header_row(out, |column| &column.druid_type);
                }
                if self.header.sql_types {
                    self.header_row(out, |column| &column.sql_type);
                }
            }
        }
    }

    /// All rows of a batch.
    pub fn rows(&mut self, out: &mut Vec<u8>, batch: &RecordBatch) {
        self.rows_between(out, batch, 0, batch.num_rows());
    }

    /// The rows `[from, to)` of a batch.
    pub fn rows_between(&mut self, out: &mut Vec<u8>, batch: &RecordBatch, from: usize, to: usize) {
        let cells: Vec<Cells<'_>> =
            batch.columns().iter().map(|column| Cells::new(column.as_ref() as &dyn Array)).collect();
        for row in from..to.min(batch.num_rows()) {
            self.separator(out);
            match self.format {
                ResultFormat::Object | ResultFormat::ObjectLines => self.object_row(out, &cells, row),
                ResultFormat::Array | ResultFormat::ArrayLines => self.array_row(out, &cells, row),
                ResultFormat::Csv => self.csv_row(out, &cells, row),
            }
            self.line_end(out);
        }
    }

    /// What comes after the last row and says that it was the last.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.format.is_json_document() { b"]\n" } else { b"\n" });
    }

    fn separator(&mut self, out: &mut Vec<u8>) {
        if self.format.is_json_document() && self.elements > 0 {
            out.push(b',');
        }
        self.elements += 1;
    }

    fn line_end(&self, out: &mut Vec<u8>) {
        if !self.format.is_json_document() {
            out.push(b'\n');
        }
    }

    fn object_row(&self, out: &mut Vec<u8>, cells: &[Cells<'_>], row: usize) {
        out.push(b'{');
        for (position, (key, column)) in self.keys.iter().zip(cells).enumerate() {
            if position > 0 {
                out.push(b',');
            }
            out.extend_from_slice(key);
            self.json_cell(out, &column.cell(row));
        }
        out.push(b'}');
    }

    fn array_row(&self, out: &mut Vec<u8>, cells: &[Cells<'_>], row: usize) {
        out.push(b'[');
        for (position, column) in cells.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            self.json_cell(out, &column.cell(row));
        }
        out.push(b']');
    }

    fn json_cell(&self, out: &mut Vec<u8>, cell: &Cell<'_>) {
        if !(self.stringify_arrays && matches!(cell, Cell::List(_))) {
            return json::write_cell(out, cell, self.zone);
        }
        let mut array = Vec::new();
        json::write_cell(&mut array, cell, self.zone);
        json::write_string(out, &String::from_utf8_lossy(&array));
    }

    fn csv_row(&mut self, out: &mut Vec<u8>, cells: &[Cells<'_>], row: usize) {
        for (position, column) in cells.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            csv::write_cell(out, &column.cell(row), self.zone, &mut self.scratch);
        }
    }

    /// `{"a":null}`, or `{"a":{"type":"LONG","sqlType":"BIGINT"}}` when types are asked for.
    fn object_header(&mut self, out: &mut Vec<u8>) {
        self.separator(out);
        out.push(b'{');
        for (position, (key, column)) in self.keys.iter().zip(&self.columns).enumerate() {
            if position > 0 {
                out.push(b',');
            }
            out.extend_from_slice(key);
            self.object_header_value(out, column);
        }
        out.push(b'}');
        self.line_end(out);
    }

    fn object_header_value(&self, out: &mut Vec<u8>, column: &ResultColumn) {
        if !self.header.types && !self.header.sql_types {
            out.extend_from_slice(b"null");
            return;
        }
        out.push(b'{');
        if self.header.types {
            out.extend_from_slice(b"\"type\":");
            json::write_string(out, &column.druid_type);
        }
        if self.header.sql_types {
            out.extend_from_slice(if self.header.types { b",\"sqlType\":" } else { b"\"sqlType\":" });
            json::write_string(out, &column.sql_type);
        }
        out.push(b'}');
    }

    fn header_row(&mut self, out: &mut Vec<u8>, word: impl Fn(&ResultColumn) -> &String) {
        self.separator(out);
        let csv = self.format == ResultFormat::Csv;
        if !csv {
            out.push(b'[');
        }
        for (position, column) in self.columns.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            if csv {
                csv::write_field(out, word(column).as_bytes());
            } else {
                json::write_string(out, word(column));
            }
        }
        if !csv {
            out.push(b']');
        }
        self.line_end(out);
    }
}

fn json_key(name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 3);
    json::write_string(&mut key, name);
    key.push(b':');
    key
}

#[cfg(test)]
mod tests;
