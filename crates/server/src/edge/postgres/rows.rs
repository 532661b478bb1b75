//! A running query on its way to a client: batches in, data rows out, up to a limit at a time.

use arrow::array::RecordBatch;
use bytes::{BufMut, BytesMut};
use futures::StreamExt;
use pgwire::messages::data::{FieldDescription, RowDescription};
use query::{QueryStream, ResultColumn, StatementTag};

use super::encode::{Encoding, write_field};
use super::failure::Failure;
use super::limits::FLUSH_BYTES;
use super::types::PgType;
use crate::edge::cells::Cells;

/// Most fields of a row the protocol can count.
const COLUMNS_MAX: usize = i16::MAX as usize;

/// A query whose rows have not all been sent.
pub struct Rows {
    stream: QueryStream,
    encodings: Vec<Encoding>,
    current: Option<(RecordBatch, usize)>,
    ended: bool,
}

/// How a fetch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// There may be more rows: the limit was reached.
    Suspended,
    Complete,
}

impl Rows {
    /// `formats` are the codes of a Bind: none is text for all, one is for all, else one per column.
    ///
    /// # Errors
    /// 08P01 when the codes do not match the columns.
    pub fn new(stream: QueryStream, formats: &[i16]) -> Result<Self, Failure> {
        let encodings = encodings(&stream.columns, formats)?;
        Ok(Self { stream, encodings, current: None, ended: false })
    }

    pub fn tag(&self) -> &StatementTag {
        &self.stream.tag
    }

    pub fn query_id(&self) -> &str {
        &self.stream.query_id
    }

    pub fn description(&self) -> RowDescription {
        describe(&self.stream.columns, &self.encodings)
    }

    /// Waits until rows are at hand or the result has ended.
    ///
    /// # Errors
    /// The query's.
    pub async fn wait(&mut self, statement: &str) -> Result<(), Failure> {
        while self.current.is_none() && !self.ended {
            match self.stream.batches.next().await {
                None => self.ended = true,
                Some(Ok(batch)) if batch.num_rows() == 0 => {}
                Some(Ok(batch)) => self.current = Some((batch, 0)),
                Some(Err(error)) => return Err(Failure::of_query(&error, statement)),
            }
        }
        Ok(())
    }

    pub fn has_ended(&self) -> bool {
        self.ended && self.current.is_none()
    }

    /// Appends rows at hand until they, `rows_max`, or [`FLUSH_BYTES`] are used up. Gives how many.
    ///
    /// # Errors
    /// 22003 for a value its column cannot hold; what was appended then ends at a whole row.
    pub fn write(&mut self, out: &mut BytesMut, rows_max: u64) -> Result<u64, Failure> {
        let Some((batch, next)) = self.current.take() else { return Ok(0) };
        let mut row = next;
        let mut written = 0;
        let cells: Vec<Cells<'_>> = batch.columns().iter().map(|column| Cells::new(column.as_ref())).collect();
        while row < batch.num_rows() && written < rows_max && out.len() < FLUSH_BYTES {
            let start = out.len();
            if let Err(failure) = self.write_row(out, &cells, row) {
                out.truncate(start);
                return Err(failure);
            }
            row += 1;
            written += 1;
        }
        drop(cells);
        if row < batch.num_rows() {
            // Columns are looked into anew at each call; a slice keeps that small.
            let rest = batch.slice(row, batch.num_rows() - row);
            self.current = Some((rest, 0));
        }
        Ok(written)
    }

    fn write_row(&self, out: &mut BytesMut, cells: &[Cells<'_>], row: usize) -> Result<(), Failure> {
        let start = out.len();
        out.put_u8(b'D');
        out.put_i32(0);
        out.put_i16(i16::try_from(cells.len()).unwrap_or(i16::MAX));
        for (column, encoding) in cells.iter().zip(&self.encodings) {
            write_field(out, &column.cell(row), *encoding, self.stream.time_zone)?;
        }
        let Ok(length) = i32::try_from(out.len() - start - 1) else {
            return Err(Failure::new("54000", "a row of more than 2 GiB cannot be sent"));
        };
        out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

fn encodings(columns: &[ResultColumn], formats: &[i16]) -> Result<Vec<Encoding>, Failure> {
    if columns.len() > COLUMNS_MAX {
        return Err(Failure::new("54011", format!("{} columns; at most {COLUMNS_MAX} can be sent", columns.len())));
    }
    if formats.len() > 1 && formats.len() != columns.len() {
        return Err(Failure::new(
            "08P01",
            format!("bind message has {} result formats but query has {} columns", formats.len(), columns.len()),
        ));
    }
    let format = |column: usize| formats.get(if formats.len() == 1 { 0 } else { column }).copied().unwrap_or(0);
    let encoding = |(position, column)| Encoding { pg: PgType::of_column(column), binary: format(position) == 1 };
    Ok(columns.iter().enumerate().map(encoding).collect())
}

fn describe(columns: &[ResultColumn], encodings: &[Encoding]) -> RowDescription {
    let field = |(column, encoding): (&ResultColumn, &Encoding)| {
        let (oid, size) = (encoding.pg.oid(), encoding.pg.size());
        FieldDescription::new(column.name.replace('\0', ""), 0, 0, oid, size, -1, i16::from(encoding.binary))
    };
    RowDescription::new(columns.iter().zip(encodings).map(field).collect())
}

/// The row description of a statement that was not bound: every column as text.
pub fn describe_unbound(columns: &[ResultColumn]) -> RowDescription {
    let as_text = |column| Encoding { pg: PgType::of_column(column), binary: false };
    describe(columns, &columns.iter().map(as_text).collect::<Vec<_>>())
}

/// The row description of one column of text.
pub fn describe_text(name: &str) -> RowDescription {
    let text = PgType::TEXT;
    RowDescription::new(vec![FieldDescription::new(name.to_owned(), 0, 0, text.oid(), text.size(), -1, 0)])
}

/// Appends a row of text.
pub fn write_text_row(out: &mut BytesMut, values: &[&str]) {
    let length: usize = values.iter().map(|value| 4 + value.len()).sum();
    out.put_u8(b'D');
    out.put_i32(i32::try_from(4 + 2 + length).unwrap_or(i32::MAX));
    out.put_i16(i16::try_from(values.len()).unwrap_or(i16::MAX));
    for value in values {
        out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
        out.put_slice(value.as_bytes());
    }
}
