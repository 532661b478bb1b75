//! Rows for people and for programs, from the same cells.

use serde_json::{Map, Value};

/// Prints rows under their columns' names: aligned text, or one JSON object a row.
pub fn print(format: &str, columns: &[&str], rows: &[Vec<Value>]) {
    if format == "json" {
        for row in rows {
            let object: Map<String, Value> =
                columns.iter().map(|name| (*name).to_owned()).zip(row.iter().cloned()).collect();
            println!("{}", Value::Object(object));
        }
        return;
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(text).collect()).collect();
    let width = |at: usize| {
        let widest = cells.iter().filter_map(|row| row.get(at)).map(String::len).max().unwrap_or(0);
        widest.max(columns[at].len())
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |row: &[String]| {
        let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        println!("{}", padded.join("  "));
    };
    line(&columns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    cells.iter().for_each(|row| line(row));
}

/// A figure with one decimal.
pub fn rounded(figure: f64) -> Value {
    Value::from((figure * 10.0).round() / 10.0)
}

/// The value below which `share` of the sorted figures lie.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of a list"
    )]
    let at = ((sorted.len() as f64 - 1.0).max(0.0) * share).round() as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}
