//! Rows as they come, in the chosen format. All but the table are written row by row, however many there are.

use serde_json::{Map, Value};

use super::http::Column;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Format};

/// Rows a table is laid out with; the others are counted. A table has to be held until its last row is known.
pub const TABLE_ROWS_MAX: usize = 10_000;
/// Bytes written at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Writes one answer.
#[derive(Debug)]
pub struct Show {
    format: Format,
    expanded: bool,
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
    out: Vec<u8>,
    pub count: u64,
}

impl Show {
    pub fn new(format: Format, expanded: bool, columns: Vec<Column>) -> Result<Self, Failure> {
        let mut show = Self { format, expanded, columns, rows: Vec::new(), out: Vec::new(), count: 0 };
        let names: Vec<String> = show.columns.iter().map(|column| column.name.clone()).collect();
        match format {
            Format::Json => show.out.extend_from_slice(b"["),
            Format::Csv => show.line(names.iter().map(|name| csv_field(name)), ","),
            Format::Tsv => show.line(names.iter().map(|name| tsv_field(name)), "\t"),
            Format::Table | Format::Ndjson => {}
        }
        Ok(show)
    }

    pub fn row(&mut self, row: Vec<Value>) -> Result<(), Failure> {
        self.count += 1;
        match self.format {
            Format::Table if self.expanded => self.record(&row),
            Format::Table if self.rows.len() < TABLE_ROWS_MAX => self.rows.push(row),
            Format::Table => {}
            Format::Json => {
                self.out.extend_from_slice(if self.count == 1 { b"\n" } else { b",\n" });
                self.object(row);
            }
            Format::Ndjson => {
                self.object(row);
                self.out.push(b'\n');
            }
            Format::Csv => self.line(row.iter().map(|cell| csv_field(&plain(cell))), ","),
            Format::Tsv => self.line(row.iter().map(|cell| tsv_field(&plain(cell))), "\t"),
        }
        if self.out.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    /// What comes after the last row.
    pub fn end(&mut self) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.out.extend_from_slice(if self.count == 0 { b"]\n" } else { b"\n]\n" }),
            Format::Table if !self.expanded => {
                let text = table(&self.columns, &self.rows);
                self.out.extend_from_slice(text.as_bytes());
            }
            _ => {}
        }
        self.flush()?;
        let held = u64::try_from(self.rows.len()).unwrap_or(u64::MAX);
        if self.format == Format::Table && !self.expanded && held < self.count {
            output::say(&format!("{} more rows are not shown: use --format csv for all", self.count - held));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        output::stdout(&std::mem::take(&mut self.out))
    }

    fn line(&mut self, fields: impl Iterator<Item = String>, separator: &str) {
        let line = fields.collect::<Vec<_>>().join(separator);
        self.out.extend_from_slice(line.as_bytes());
        self.out.push(b'\n');
    }

    fn object(&mut self, row: Vec<Value>) {
        let names = self.columns.iter().map(|column| column.name.clone());
        let object = Value::Object(names.zip(row).collect::<Map<_, _>>());
        self.out.extend_from_slice(object.to_string().as_bytes());
    }

    /// One row as lines of name and value: `\x`.
    fn record(&mut self, row: &[Value]) {
        let width = self.columns.iter().map(|column| column.name.chars().count()).max().unwrap_or(0);
        let mut text = format!("-[ row {} ]-\n", self.count);
        for (column, cell) in self.columns.iter().zip(row) {
            text.push_str(&format!("{:width$} | {}\n", column.name, plain(cell)));
        }
        self.out.extend_from_slice(text.as_bytes());
    }
}

fn is_number(column: &Column) -> bool {
    matches!(
        column.sql_type.to_ascii_uppercase().as_str(),
        "BIGINT" | "INTEGER" | "SMALLINT" | "TINYINT" | "DOUBLE" | "FLOAT" | "REAL" | "DECIMAL"
    )
}

fn table(columns: &[Column], rows: &[Vec<Value>]) -> String {
    if columns.is_empty() {
        return String::new();
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_style(comfy_table::TableComponent::HeaderLines, '─');
    table.set_style(comfy_table::TableComponent::MiddleHeaderIntersections, '─');
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(columns.iter().map(|column| column.name.clone()));
    for row in rows {
        table.add_row(row.iter().map(|cell| if cell.is_null() { "∅".to_owned() } else { plain(cell) }));
    }
    for (column, shown) in columns.iter().zip(table.column_iter_mut()) {
        shown.set_padding((0, 2));
        if is_number(column) {
            shown.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    format!("{}\n", table.trim_fmt())
}

/// A cell without JSON's quotes; nothing for null.
pub fn plain(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// What would break a line is written as in JSON.
fn tsv_field(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn columns() -> Vec<Column> {
        let column = |name: &str, sql_type: &str| Column { name: name.into(), sql_type: sql_type.into() };
        vec![column("page", "VARCHAR"), column("n", "BIGINT")]
    }

    #[test]
    fn a_table_has_numbers_on_the_right_and_shows_nulls() {
        let text = table(&columns(), &[vec![json!("a"), json!(12)], vec![Value::Null, json!(3)]]);
        assert_eq!(text, "page    n\n───────────\na      12\n∅       3\n");
    }

    #[test]
    fn every_format_keeps_its_shape() {
        let written = |format, expanded| {
            let mut show = Show::new(format, expanded, columns()).expect("show");
            for row in [vec![json!("a,\"b\""), json!(1)], vec![Value::Null, json!(2.5)]] {
                show.row(row).expect("row");
            }
            String::from_utf8(std::mem::take(&mut show.out)).expect("utf-8")
        };
        assert_eq!(written(Format::Csv, false), "page,n\n\"a,\"\"b\"\"\",1\n,2.5\n");
        assert_eq!(written(Format::Tsv, false), "page\tn\na,\"b\"\t1\n\t2.5\n");
        assert_eq!(written(Format::Ndjson, false), "{\"page\":\"a,\\\"b\\\"\",\"n\":1}\n{\"page\":null,\"n\":2.5}\n");
        assert_eq!(written(Format::Json, false), "[\n{\"page\":\"a,\\\"b\\\"\",\"n\":1},\n{\"page\":null,\"n\":2.5}");
        assert_eq!(
            written(Format::Table, true),
            "-[ row 1 ]-\npage | a,\"b\"\nn    | 1\n-[ row 2 ]-\npage | \nn    | 2.5\n"
        );
    }
}
