//! CSV and TSV lines -> cells.
//!
//! CSV as RFC 4180: a quoted field may hold commas, line breaks and doubled quotes; text after a closing
//! quote is kept. TSV: no quotes, the delimiter always separates. Lines end with LF or CRLF; empty lines
//! are no rows. A field that is empty and not quoted is null; fewer fields than columns leave the rest
//! missing; more are ignored.

use super::cell::{Cell, Kinds, Row, Span};
use super::fields::Fields;
use super::text::push_json_text;
use crate::spec::Lines;

/// Druid's default list delimiter.
const LIST_DELIMITER: &str = "\u{1}";

/// How lines are cut into fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LineFormat {
    quotes: bool,
    delimiter: String,
    list_delimiter: String,
    skip_header_rows: usize,
    header: bool,
    /// Slots of the fields in order; of the current record if it has a header.
    slots: Vec<Option<usize>>,
}

/// A quote that is not closed before the record's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenQuote {
    pub at: usize,
}

impl LineFormat {
    #[must_use]
    pub fn new(lines: &Lines, csv: bool, fields: &mut Fields) -> Self {
        let delimiter = if csv { Some(",") } else { lines.delimiter.as_deref() };
        let slots = if lines.find_columns_from_header {
            Vec::new()
        } else {
            lines.columns.iter().map(|name| fields.intern(name)).collect()
        };
        Self {
            quotes: csv,
            delimiter: delimiter.unwrap_or("\t").to_owned(),
            list_delimiter: lines.list_delimiter.as_deref().unwrap_or(LIST_DELIMITER).to_owned(),
            skip_header_rows: lines.skip_header_rows,
            header: lines.find_columns_from_header,
            slots,
        }
    }

    /// Passes the header lines at the start of a record; returns where the rows begin.
    ///
    /// # Errors
    /// If a quote of the header is not closed.
    pub fn begin(&mut self, text: &str, fields: &mut Fields) -> Result<usize, OpenQuote> {
        let mut at = 0;
        for _ in 0..self.skip_header_rows {
            if at >= text.len() {
                break;
            }
            at = self.each_field(text, at, |_, _, _| {})?;
        }
        if self.header {
            let mut names: Vec<String> = Vec::new();
            at = self.each_field(text, at, |_, field, _| names.push(field.trim().to_owned()))?;
            self.slots = names.iter().map(|name| fields.intern(name)).collect();
        }
        Ok(at)
    }

    /// Reads the line at `at` into `row`; returns where the next begins.
    ///
    /// # Errors
    /// If a quote is not closed.
    pub fn read(&self, text: &str, at: usize, row: &mut Row) -> Result<usize, OpenQuote> {
        let mut cells: Vec<(usize, Cell)> = Vec::new();
        let scratch = &mut row.scratch;
        let end = self.each_field(text, at, |index, field, place| {
            if let Some(slot) = self.slots.get(index).copied().flatten() {
                cells.push((slot, self.cell(field, place, scratch)));
            }
        })?;
        for (slot, cell) in cells {
            row.put(slot, cell);
        }
        Ok(end)
    }

    fn cell(&self, field: &str, place: Place, scratch: &mut String) -> Cell {
        let begin = scratch.len();
        if field.contains(&*self.list_delimiter) {
            for (index, value) in field.split(&*self.list_delimiter).enumerate() {
                scratch.push(if index == 0 { '[' } else { ',' });
                push_json_text(scratch, value);
            }
            scratch.push(']');
            return Span::of_scratch(begin, scratch.len()).map_or(Cell::Null, |span| Cell::Array(span, Kinds::TEXT));
        }
        let span = match place {
            Place::Plain(_) if field.is_empty() => return Cell::Null,
            Place::Plain(start) => Span::of_input(start, start + field.len()),
            Place::Quoted => {
                scratch.push_str(field);
                Span::of_scratch(begin, scratch.len())
            }
        };
        span.map_or(Cell::Null, Cell::Text)
    }

    /// Calls `each` with the index, the text and the place of every field of the line at `at`.
    fn each_field(&self, text: &str, at: usize, mut each: impl FnMut(usize, &str, Place)) -> Result<usize, OpenQuote> {
        let mut at = at;
        let mut line_end = end_of_line(text, at);
        for index in 0.. {
            if self.quotes && text[at..].starts_with('"') {
                let (field, end) = quoted(text, at, &self.delimiter)?;
                each(index, &field, Place::Quoted);
                at = end;
                if at > line_end {
                    line_end = end_of_line(text, at);
                }
            } else {
                let field = until(&text[at..line_end], &self.delimiter);
                each(
                    index,
                    field.strip_suffix('\r').filter(|_| at + field.len() == line_end).unwrap_or(field),
                    Place::Plain(at),
                );
                at += field.len();
            }
            if text[at..].starts_with(&*self.delimiter) {
                at += self.delimiter.len();
            } else {
                break;
            }
        }
        Ok(at + usize::from(text[at..].starts_with('\n')))
    }
}

#[derive(Clone, Copy)]
enum Place {
    /// As it is in the record, from this byte.
    Plain(usize),
    Quoted,
}

/// The field that starts with the quote at `at`, and where its delimiter or line end is.
fn quoted(text: &str, at: usize, delimiter: &str) -> Result<(String, usize), OpenQuote> {
    let mut field = String::new();
    let mut from = at + 1;
    loop {
        let quote = text[from..].find('"').ok_or(OpenQuote { at })? + from;
        field.push_str(&text[from..quote]);
        from = quote + 1;
        if !text[from..].starts_with('"') {
            break;
        }
        field.push('"');
        from += 1;
    }
    let line_end = end_of_line(text, from);
    let tail = until(&text[from..line_end], delimiter);
    let end = from + tail.len();
    field.push_str(tail.strip_suffix('\r').filter(|_| end == line_end).unwrap_or(tail));
    Ok((field, end))
}

fn end_of_line(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |end| at + end)
}

/// The text before the first delimiter.
fn until<'a>(text: &'a str, delimiter: &str) -> &'a str {
    &text[..text.find(delimiter).unwrap_or(text.len())]
}

#[cfg(test)]
mod tests;
