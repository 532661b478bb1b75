//! Time in SQL text: units to periods, `INTERVAL`s to periods, `TIMESTAMP '...'` to milliseconds.

use datafusion::sql::sqlparser::ast::{DateTimeField, Expr, Interval};
use store::calendar::{Zone, parse_iso_in};

use super::ast::{as_number, as_text};
use crate::error::QueryError;

/// The ISO-8601 period of a unit's name, in any case: `HOUR` is `PT1H`.
pub fn period_of_unit(unit: &str) -> Option<&'static str> {
    Some(match unit.trim().to_ascii_uppercase().trim_end_matches('S') {
        "MILLISECOND" => "PT0.001S",
        "SECOND" => "PT1S",
        "MINUTE" => "PT1M",
        "HOUR" => "PT1H",
        "DAY" => "P1D",
        "WEEK" => "P1W",
        "MONTH" => "P1M",
        "QUARTER" => "P3M",
        "YEAR" => "P1Y",
        "DECADE" => "P10Y",
        "CENTURY" => "P100Y",
        "MILLENNIUM" => "P1000Y",
        _ => return None,
    })
}

/// The unit of `FLOOR(x TO unit)`, `EXTRACT(unit FROM x)` as Druid writes it.
pub fn unit_name(field: &DateTimeField) -> String {
    match field {
        DateTimeField::Week(_) => "WEEK".to_owned(),
        DateTimeField::Custom(ident) => ident.value.trim_matches('\'').to_ascii_uppercase(),
        other => other.to_string().to_ascii_uppercase(),
    }
}

/// `TIMESTAMP '...'`: milliseconds since 1970 UTC; text without an offset is in `zone`.
pub fn timestamp_literal(text: &str, zone: Zone) -> Result<i64, QueryError> {
    parse_iso_in(text.trim(), zone).map(|time| time.0).map_err(|_| {
        QueryError::validation(format!("illegal TIMESTAMP literal '{text}': write it as '2015-09-12 00:46:58'"))
    })
}

/// An interval as a period and how often: `INTERVAL '2' DAY` is `P1D` twice.
pub struct Shift {
    pub period: String,
    pub count: Expr,
}

/// Reads an interval; `None` if its form is not one of ours (the planner may still know it).
pub fn shift_of(interval: &Interval) -> Option<Shift> {
    let once =
        |period: String, negative: bool| Shift { period, count: super::ast::number(if negative { -1 } else { 1 }) };
    match (&interval.leading_field, &interval.last_field) {
        (Some(unit), None) => {
            let period = period_of_unit(&unit_name(unit))?.to_owned();
            let count = match as_text(&interval.value) {
                Some(text) => match text.trim().parse::<i64>() {
                    Ok(count) => super::ast::number(count),
                    Err(_) => return fraction(text, unit).map(|(period, negative)| once(period, negative)),
                },
                None => as_number(&interval.value).map_or_else(|| interval.value.as_ref().clone(), super::ast::number),
            };
            Some(Shift { period, count })
        }
        (Some(from), Some(to)) => {
            let text = as_text(&interval.value)?;
            range(text, &unit_name(from), &unit_name(to)).map(|(period, negative)| once(period, negative))
        }
        (None, _) => words(as_text(&interval.value)?).map(|(period, negative)| once(period, negative)),
    }
}

/// `INTERVAL '1.5' SECOND`.
fn fraction(text: &str, unit: &DateTimeField) -> Option<(String, bool)> {
    let (digits, negative) = sign(text);
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    (plain && unit_name(unit).starts_with("SECOND")).then(|| (format!("PT{digits}S"), negative))
}

fn sign(text: &str) -> (&str, bool) {
    let text = text.trim();
    text.strip_prefix('-').map_or((text.strip_prefix('+').unwrap_or(text), false), |rest| (rest, true))
}

/// `'1-2' YEAR TO MONTH`, `'1 02:03:04' DAY TO SECOND` and what lies between.
fn range(text: &str, from: &str, to: &str) -> Option<(String, bool)> {
    const UNITS: [(&str, char); 6] =
        [("YEAR", 'Y'), ("MONTH", 'M'), ("DAY", 'D'), ("HOUR", 'H'), ("MINUTE", 'M'), ("SECOND", 'S')];
    let place = |unit: &str| UNITS.iter().position(|(name, _)| *name == unit.trim_end_matches('S'));
    let (first, last) = (place(from)?, place(to)?);
    let (digits, negative) = sign(text);
    let parts: Vec<&str> = digits.split([' ', '-', ':', 'T']).filter(|part| !part.is_empty()).collect();
    if first > last || parts.len() != last - first + 1 {
        return None;
    }
    let (mut date, mut time) = (String::new(), String::new());
    for (part, (unit, letter)) in parts.iter().zip(UNITS.get(first..=last)?) {
        let number = part.chars().all(|c| c.is_ascii_digit() || (c == '.' && *unit == "SECOND"));
        if !number {
            return None;
        }
        let target = if place(unit)? < 3 { &mut date } else { &mut time };
        target.push_str(part);
        target.push(*letter);
    }
    Some((period(&date, &time)?, negative))
}

/// PostgreSQL's `'1 day 2 hours'`, and an ISO period.
fn words(text: &str) -> Option<(String, bool)> {
    let (text, negative) = sign(text);
    if text.starts_with('P') {
        return Some((text.to_owned(), negative));
    }
    let (mut date, mut time) = (String::new(), String::new());
    let mut parts = text.split_whitespace();
    while let Some(number) = parts.next() {
        let count: i64 = number.parse().ok().filter(|count: &i64| *count >= 0)?;
        match parts.next()?.to_ascii_lowercase().trim_end_matches('s') {
            "year" => date.push_str(&format!("{count}Y")),
            "month" | "mon" => date.push_str(&format!("{count}M")),
            "week" => date.push_str(&format!("{}D", count.checked_mul(7)?)),
            "day" => date.push_str(&format!("{count}D")),
            "hour" => time.push_str(&format!("{count}H")),
            "minute" | "min" => time.push_str(&format!("{count}M")),
            "second" | "sec" => time.push_str(&format!("{count}S")),
            _ => return None,
        }
    }
    Some((period(&date, &time)?, negative))
}

fn period(date: &str, time: &str) -> Option<String> {
    match (date.is_empty(), time.is_empty()) {
        (true, true) => None,
        (_, true) => Some(format!("P{date}")),
        (_, false) => Some(format!("P{date}T{time}")),
    }
}
