//! Answers on stdout: rows as a table for people, as JSON, CSV or TSV for programs. Talk goes to stderr.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde_json::{Map, Value};

use super::failure::{Code, Failure};

/// How rows are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// Columns for people; the default on a terminal
    Table,
    /// One JSON array of objects
    Json,
    /// One JSON object a line
    Ndjson,
    /// Comma-separated, with a header
    Csv,
    /// Tab-separated, with a header; the default where stdout is not a terminal
    Tsv,
}

/// Options of every command that shows rows.
#[derive(Clone, Debug, clap::Args)]
pub struct FormatArgs {
    /// How to show the answer [default: table on a terminal, tsv elsewhere]
    #[arg(long, value_enum, env = "SEAWALL_FORMAT")]
    pub format: Option<Format>,
}

impl FormatArgs {
    pub fn chosen(&self) -> Format {
        self.format.unwrap_or_else(|| if std::io::stdout().is_terminal() { Format::Table } else { Format::Tsv })
    }

    /// Shows rows; every row has the columns' cells in their order.
    pub fn show(&self, columns: &[&str], rows: &[Vec<Value>]) -> Result<(), Failure> {
        write(self.chosen(), columns, rows)
    }
}

/// Writes to stdout; a reader that has gone away (`| head`) is the end, not an error to complain about.
pub fn stdout(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::new(Code::Enough, ""),
        _ => error.into(),
    })
}

/// Says something to the person; never part of the answer.
pub fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

fn write(format: Format, columns: &[&str], rows: &[Vec<Value>]) -> Result<(), Failure> {
    let text = match format {
        Format::Table => table(columns, rows),
        Format::Json => {
            let rows: Vec<Value> = rows.iter().map(|row| object(columns, row)).collect();
            let text = serde_json::to_string_pretty(&rows).unwrap_or_default();
            format!("{text}\n")
        }
        Format::Ndjson => rows.iter().map(|row| format!("{}\n", object(columns, row))).collect(),
        Format::Csv => separated(columns, rows, csv_field, ","),
        Format::Tsv => separated(columns, rows, tsv_field, "\t"),
    };
    stdout(text.as_bytes())
}

fn object(columns: &[&str], row: &[Value]) -> Value {
    let cells = columns.iter().zip(row).map(|(name, cell)| ((*name).to_owned(), cell.clone()));
    Value::Object(cells.collect::<Map<_, _>>())
}

fn table(columns: &[&str], rows: &[Vec<Value>]) -> String {
    if rows.is_empty() {
        say("nothing to show");
        return String::new();
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(columns.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(plain));
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if rows.iter().all(|row| row.get(at).is_some_and(Value::is_number)) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    format!("{}\n", table.trim_fmt())
}

/// A cell without JSON's quotes; nothing for null.
fn plain(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn separated(columns: &[&str], rows: &[Vec<Value>], field: fn(&str) -> String, separator: &str) -> String {
    let line = |cells: Vec<String>| format!("{}\n", cells.join(separator));
    let header = line(columns.iter().map(|name| field(name)).collect());
    let rows = rows.iter().map(|row| line(row.iter().map(|cell| field(&plain(cell))).collect()));
    std::iter::once(header).chain(rows).collect()
}

fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// What would break a line is written as in JSON.
fn tsv_field(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

/// Asks before something that cannot be undone. Without a terminal there is nobody to ask.
pub fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::usage(format!("{question} Say --yes: there is no terminal to ask on")));
    }
    drop(write!(std::io::stderr(), "{question} [y/N] "));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(Code::Failure, "nothing was changed"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_would_break_a_line_are_quoted_or_escaped() {
        let rows = vec![vec![json!("a,b"), json!("say \"x\"")], vec![json!("c\td"), Value::Null]];
        assert_eq!(separated(&["k", "v"], &rows, csv_field, ","), "k,v\n\"a,b\",\"say \"\"x\"\"\"\nc\td,\n");
        assert_eq!(separated(&["k", "v"], &rows, tsv_field, "\t"), "k\tv\na,b\tsay \"x\"\nc\\td\t\n");
    }

    #[test]
    fn a_table_has_its_numbers_on_the_right() {
        let rows = vec![vec![json!("events"), json!(12)], vec![json!("e"), json!(3)]];
        assert_eq!(table(&["name", "n"], &rows), "NAME     N\nevents  12\ne        3\n");
    }
}
