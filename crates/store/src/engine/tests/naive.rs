//! SQL's rules, one row at a time.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// `None` is unknown.
pub(super) fn test(filter: &Filter, row: &[Cell]) -> Option<bool> {
    let cell = |column: &str| &row[column_at(column)];
    match filter {
        Filter::True => Some(true),
        Filter::False => Some(false),
        Filter::Unknown => None,
        Filter::Not(inner) => test(inner, row).map(|value| !value),
        Filter::And(parts) => {
            let results: Vec<_> = parts.iter().map(|part| test(part, row)).collect();
            if results.contains(&Some(false)) {
                Some(false)
            } else if results.contains(&None) {
                None
            } else {
                Some(true)
            }
        }
        Filter::Or(parts) => {
            let results: Vec<_> = parts.iter().map(|part| test(part, row)).collect();
            if results.contains(&Some(true)) {
                Some(true)
            } else if results.contains(&None) {
                None
            } else {
                Some(false)
            }
        }
        Filter::IsNull(column) => Some(*cell(column) == Cell::Null),
        Filter::Compare { column, comparison, value } => {
            let order = compare(cell(column), value)?;
            Some(match comparison {
                Comparison::Equal => order.is_eq(),
                Comparison::NotEqual => order.is_ne(),
                Comparison::Less => order.is_lt(),
                Comparison::LessOrEqual => order.is_le(),
                Comparison::Greater => order.is_gt(),
                Comparison::GreaterOrEqual => order.is_ge(),
            })
        }
        Filter::In { column, values, null_in_list } => {
            if *cell(column) == Cell::Null {
                return None;
            }
            let found = values.iter().any(|value| compare(cell(column), value).is_some_and(std::cmp::Ordering::is_eq));
            if found {
                Some(true)
            } else if *null_in_list {
                None
            } else {
                Some(false)
            }
        }
        Filter::Matches { column, test } => match cell(column) {
            Cell::Text(text) => Some((test.0)(text)),
            _ => None,
        },
        Filter::Contains { column, text: part } => match cell(column) {
            Cell::Text(text) => Some(text.contains(&**part)),
            _ => None,
        },
        Filter::MatchesLong { column, test } => match cell(column) {
            Cell::Long(value) => Some((test.0)(*value)),
            Cell::Bool(value) => Some((test.0)(i64::from(*value))),
            _ => None,
        },
    }
}

#[expect(clippy::cast_precision_loss, reason = "as SQL compares them")]
fn compare(cell: &Cell, value: &Value) -> Option<std::cmp::Ordering> {
    match (cell, value) {
        (Cell::Text(a), Value::String(b)) => Some(a.as_str().cmp(b)),
        (Cell::Long(a), Value::Long(b)) => Some(a.cmp(b)),
        (Cell::Long(a), Value::Double(b)) => (*a as f64).partial_cmp(b),
        (Cell::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Cell::Double(a), Value::Long(b)) => a.partial_cmp(&(*b as f64)),
        (Cell::Bool(a), Value::Boolean(b)) => Some(a.cmp(b)),
        (Cell::Null, _) => None,
        other => panic!("compare {other:?}"),
    }
}

fn key(kind: &KeyKind, row: &[Cell]) -> Cell {
    match kind {
        KeyKind::Column(column) => row[column_at(column)].clone(),
        KeyKind::TimeFloor { column, floor } => match row[column_at(column)] {
            Cell::Long(value) => Cell::Long((floor.0)(value).0),
            _ => Cell::Null,
        },
        KeyKind::StringMap { column, map } => {
            let text = match &row[column_at(column)] {
                Cell::Text(text) => Some(text.as_str()),
                _ => None,
            };
            (map.0)(text).map_or(Cell::Null, Cell::Text)
        }
        KeyKind::LongMap { column, map } => match row[column_at(column)] {
            Cell::Long(value) => (map.0)(value).map_or(Cell::Null, Cell::Long),
            _ => Cell::Null,
        },
    }
}

#[expect(clippy::cast_precision_loss, reason = "an average is a double")]
fn aggregate(what: &Aggregate, rows: &[&Vec<Cell>]) -> Cell {
    let selected = rows.iter().filter(|row| what.filter.as_ref().is_none_or(|filter| test(filter, row) == Some(true)));
    let values = |column: &str| -> Vec<Cell> {
        let at = column_at(column);
        selected.clone().map(|row| row[at].clone()).filter(|cell| *cell != Cell::Null).collect()
    };
    let count = |count: usize| Cell::Long(i64::try_from(count).unwrap());
    let sum = |values: &[Cell]| {
        values.iter().fold(Cell::Null, |sum, value| match (sum, value) {
            (Cell::Null, value) => value.clone(),
            (Cell::Long(a), Cell::Long(b)) => Cell::Long(a.wrapping_add(*b)),
            (Cell::Double(a), Cell::Double(b)) => Cell::Double(a + b),
            other => panic!("sum {other:?}"),
        })
    };
    match &what.function {
        Function::Count => count(selected.count()),
        Function::CountColumn(column) => count(values(column).len()),
        Function::Sum(column) => sum(&values(column)),
        Function::Min(column) => {
            values(column).into_iter().reduce(|a, b| if b < a { b } else { a }).unwrap_or(Cell::Null)
        }
        Function::Max(column) => {
            values(column).into_iter().reduce(|a, b| if b > a { b } else { a }).unwrap_or(Cell::Null)
        }
        Function::Average(column) => {
            let values = values(column);
            match sum(&values) {
                Cell::Long(sum) => Cell::Double(sum as f64 / values.len() as f64),
                Cell::Double(sum) => Cell::Double(sum / values.len() as f64),
                _ => Cell::Null,
            }
        }
        Function::CountDistinct(column) => {
            let distinct: BTreeSet<String> = values(column).iter().map(|cell| format!("{cell:?}")).collect();
            count(distinct.len())
        }
        // Of so few values a sketch is exact.
        Function::Quantile { column, share, .. } => {
            let mut values = values(column);
            values.sort_by(|a, b| a.partial_cmp(b).unwrap());
            let at = SHARES.iter().find(|(of, _)| Share::new(*of) == Some(*share)).unwrap().1(values.len());
            match values.get(at.saturating_sub(1)) {
                None => Cell::Null,
                Some(Cell::Long(value)) => Cell::Double(*value as f64),
                Some(value) => value.clone(),
            }
        }
    }
}

type CountedFrom1 = fn(usize) -> usize;

/// Shares that are asked for, and which value of so many that is, counted from 1.
pub(super) const SHARES: [(f64, CountedFrom1); 4] =
    [(0.0, |_| 1), (0.5, |count| count.div_ceil(2)), (0.75, |count| (count * 3).div_ceil(4)), (1.0, |count| count)];

/// The rows of the answer, sorted.
pub(super) fn answer(query: &AggregateQuery, rows: &[Vec<Cell>]) -> Vec<Vec<Cell>> {
    let selected = rows.iter().filter(|row| query.filter.as_ref().is_none_or(|f| test(f, row) == Some(true)));
    let mut groups: BTreeMap<String, (Vec<Cell>, Vec<&Vec<Cell>>)> = BTreeMap::new();
    if query.keys.is_empty() {
        groups.insert(String::new(), (Vec::new(), Vec::new()));
    }
    for row in selected {
        let keys: Vec<Cell> = query.keys.iter().map(|k| key(&k.kind, row)).collect();
        let name = if keys.is_empty() { String::new() } else { format!("{keys:?}") };
        groups.entry(name).or_insert_with(|| (keys, Vec::new())).1.push(row);
    }
    let mut answer: Vec<Vec<Cell>> = groups
        .into_values()
        .map(|(mut keys, rows)| {
            keys.extend(query.aggregates.iter().map(|what| aggregate(what, &rows)));
            keys
        })
        .collect();
    sort(&mut answer);
    answer
}

pub(super) fn sort(rows: &mut [Vec<Cell>]) {
    rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
}
