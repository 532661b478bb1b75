//! One row a drill, the same for people, programs and the record that `drill report` reads.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::Failure;

/// The columns of a row, in order.
pub const COLUMNS: [&str; 11] = [
    "name",
    "passed",
    "produced",
    "acknowledged",
    "readable",
    "lost",
    "rescued",
    "write_gap_ms",
    "read_gap_ms",
    "recovered_by_itself",
    "finding",
];
/// The columns of a summary of several runs.
pub const SUMMARY_COLUMNS: [&str; 10] = [
    "name",
    "runs",
    "passed",
    "acknowledged",
    "lost",
    "rescued",
    "write_gap_ms_p50",
    "write_gap_ms_max",
    "read_gap_ms_p50",
    "read_gap_ms_max",
];
/// Rows kept in the record; older ones are dropped.
const RECORDED_MAX: usize = 2_000;

/// How one run of one drill went.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Row {
    pub name: String,
    pub passed: bool,
    pub produced: u64,
    pub acknowledged: u64,
    pub readable: u64,
    /// Acknowledged, and neither readable nor in lost+found.
    pub lost: u64,
    /// Acknowledged, not readable, but in lost+found.
    pub rescued: u64,
    /// The longest time one producer went without an acknowledgement around the faults. `None`: not measured by this drill.
    pub write_gap_ms: Option<u64>,
    /// The longest time without a successful read around the faults.
    pub read_gap_ms: Option<u64>,
    pub recovered_by_itself: bool,
    /// Codes of the findings the cluster showed meanwhile.
    pub finding: String,
}

impl Row {
    #[must_use]
    pub fn cells(&self) -> Vec<Value> {
        vec![
            json!(self.name),
            json!(self.passed),
            json!(self.produced),
            json!(self.acknowledged),
            json!(self.readable),
            json!(self.lost),
            json!(self.rescued),
            json!(self.write_gap_ms),
            json!(self.read_gap_ms),
            json!(self.recovered_by_itself),
            json!(self.finding),
        ]
    }

    fn to_json(&self) -> Value {
        let cells = COLUMNS.iter().map(|name| (*name).to_owned()).zip(self.cells());
        Value::Object(cells.collect::<Map<_, _>>())
    }

    fn of_json(value: &Value) -> Option<Self> {
        let number = |name: &str| value[name].as_u64();
        Some(Self {
            name: value["name"].as_str()?.to_owned(),
            passed: value["passed"].as_bool()?,
            produced: number("produced")?,
            acknowledged: number("acknowledged")?,
            readable: number("readable")?,
            lost: number("lost")?,
            rescued: number("rescued")?,
            write_gap_ms: number("write_gap_ms"),
            read_gap_ms: number("read_gap_ms"),
            recovered_by_itself: value["recovered_by_itself"].as_bool()?,
            finding: value["finding"].as_str()?.to_owned(),
        })
    }
}

/// One row a name, over all its runs, in order of first mention.
#[must_use]
pub fn summary(rows: &[Row]) -> Vec<Vec<Value>> {
    let mut names: Vec<&str> = Vec::new();
    let mut by_name: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let runs = by_name.entry(&row.name).or_default();
        if runs.is_empty() {
            names.push(&row.name);
        }
        runs.push(row);
    }
    names.into_iter().filter_map(|name| by_name.get(name).map(|runs| summary_of(name, runs))).collect()
}

fn summary_of(name: &str, runs: &[&Row]) -> Vec<Value> {
    let sum = |figure: fn(&Row) -> u64| runs.iter().map(|row| figure(row)).sum::<u64>();
    let sorted = |figure: fn(&Row) -> Option<u64>| {
        let mut figures: Vec<u64> = runs.iter().filter_map(|row| figure(row)).collect();
        figures.sort_unstable();
        figures
    };
    let (writes, reads) = (sorted(|row| row.write_gap_ms), sorted(|row| row.read_gap_ms));
    vec![
        json!(name),
        json!(runs.len()),
        json!(runs.iter().filter(|row| row.passed).count()),
        json!(sum(|row| row.acknowledged)),
        json!(sum(|row| row.lost)),
        json!(sum(|row| row.rescued)),
        json!(median(&writes)),
        json!(writes.last()),
        json!(median(&reads)),
        json!(reads.last()),
    ]
}

/// The middle one, the higher of two.
fn median(sorted: &[u64]) -> Option<u64> {
    sorted.get(sorted.len() / 2).copied()
}

/// Where rows are kept between runs.
#[must_use]
pub fn record_path() -> PathBuf {
    std::env::temp_dir().join("seawall-drills.ndjson")
}

/// Adds a row to the record.
///
/// # Errors
/// The file cannot be written.
pub fn keep(path: &Path, row: &Row) -> Result<(), Failure> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let before = recorded(path);
    if before.len() >= RECORDED_MAX {
        let text: String = before[before.len() / 2..].iter().map(|row| format!("{}\n", row.to_json())).collect();
        fs::write(path, text).map_err(told)?;
    }
    let mut file = File::options().create(true).append(true).open(path).map_err(told)?;
    file.write_all(format!("{}\n", row.to_json()).as_bytes()).map_err(told)
}

/// The rows of the record, oldest first; lines that are none are passed over.
#[must_use]
pub fn recorded(path: &Path) -> Vec<Row> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| Row::of_json(&serde_json::from_str(line).ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, passed: bool, gap: Option<u64>) -> Row {
        Row { name: name.into(), passed, acknowledged: 10, lost: 1, write_gap_ms: gap, ..Row::default() }
    }

    #[test]
    fn a_summary_has_each_name_once_with_its_median_and_maximum() {
        let rows = [row("b", true, Some(5)), row("a", true, None), row("b", false, Some(900)), row("b", true, Some(7))];
        let lines = summary(&rows);
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[0][..8],
            [json!("b"), json!(3), json!(2), json!(30), json!(3), json!(0), json!(7), json!(900)]
        );
        assert_eq!(lines[1][6], Value::Null);
    }

    #[test]
    fn rows_are_read_back_as_they_were_kept() {
        let path = std::env::temp_dir().join(format!("seawall-report-{}.ndjson", std::process::id()));
        let rows = vec![row("a", true, Some(3)), row("b", false, None)];
        rows.iter().for_each(|row| keep(&path, row).unwrap());
        fs::write(&path, format!("{}not a row\n", fs::read_to_string(&path).unwrap())).unwrap();
        assert_eq!(recorded(&path), rows);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn every_cell_has_its_column() {
        assert_eq!(Row::default().cells().len(), COLUMNS.len());
        assert_eq!(summary(&[Row::default()])[0].len(), SUMMARY_COLUMNS.len());
    }
}
