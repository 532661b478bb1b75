//! Dates on the proleptic Gregorian calendar, ISO-8601 text, time zones. Milliseconds since 1970-01-01 UTC.
//!
//! Own arithmetic in i64, because Druid's eternity (about the year ±146 million) is beyond what date
//! libraries hold, and because it is the inner loop of ingestion. Days to civil dates and back: Howard
//! Hinnant, "chrono-Compatible Low-Level Date Algorithms". Zone rules come from `chrono-tz`.

use std::fmt;

use base::Timestamp;
use chrono::{DateTime, LocalResult, NaiveDateTime, Offset as _, TimeZone as _};
use chrono_tz::Tz;

pub const SECOND_MS: i64 = 1_000;
pub const MINUTE_MS: i64 = 60 * SECOND_MS;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
pub const DAY_MS: i64 = 24 * HOUR_MS;
/// Timestamps beyond this, either way, are clamped before they meet a named zone's rules.
const ZONE_RULES_MS_MAX: i64 = 200_000 * 365 * DAY_MS;

/// A calendar date.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Civil {
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
}

/// A time zone: UTC, a fixed offset, or a name of the IANA database.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Zone {
    #[default]
    Utc,
    /// Seconds east of UTC.
    Fixed(i32),
    Named(Tz),
}

/// Text that is no date, time, zone, period or interval.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CalendarError {
    #[error("{text:?} is no ISO-8601 time; write it as 2015-09-12T00:46:58.771Z")]
    Time { text: String },
    #[error("time zone {text:?} is unknown; use an IANA name as Asia/Seoul, or an offset as +09:00")]
    Zone { text: String },
    #[error("{text:?} is no ISO-8601 period; write it as P1D or PT1H")]
    Period { text: String },
    #[error("{text:?} is no interval; write it as 2015-09-12/2015-09-13 or 2015-09-12/P1D")]
    Interval { text: String },
    #[error(
        "granularity {text:?} is unknown; use none, all, second, minute, hour, day, week, month, quarter, year or a period as PT5M"
    )]
    Granularity { text: String },
}

impl Civil {
    /// The date that is `days` after 1970-01-01.
    #[must_use]
    pub const fn from_days(days: i64) -> Self {
        let shifted = days.saturating_add(719_468);
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1..=12 and 1..=31")]
        Self { year, month: month as u32, day: day as u32 }
    }

    /// Days since 1970-01-01. Years beyond ±10^9 saturate.
    #[must_use]
    pub const fn days(self) -> i64 {
        let year = clamp(self.year, 1_000_000_000) - if self.month <= 2 { 1 } else { 0 };
        let month = self.month as i64;
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + self.day as i64 - 1;
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
    }

    /// Midnight of that day, as if in UTC.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.days().saturating_mul(DAY_MS)
    }

    /// The same day `months` later; the last day of that month if it has no such day.
    #[must_use]
    pub fn plus_months(self, months: i64) -> Self {
        let total = self.year.saturating_mul(12).saturating_add(i64::from(self.month) - 1).saturating_add(months);
        let year = total.div_euclid(12);
        let month = u32::try_from(total.rem_euclid(12)).unwrap_or(0) + 1;
        Self { year, month, day: self.day.min(days_in_month(year, month)) }
    }
}

const fn clamp(value: i64, bound: i64) -> i64 {
    if value > bound {
        bound
    } else if value < -bound {
        -bound
    } else {
        value
    }
}

/// How many days a month has.
#[must_use]
pub const fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Zone {
    /// `UTC`, `Z`, an offset (`+09:00`, `-0330`, `+9`) or an IANA name. Case-sensitive as the database is.
    ///
    /// # Errors
    /// [`CalendarError::Zone`] if it is none of these.
    pub fn parse(text: &str) -> Result<Self, CalendarError> {
        let error = || CalendarError::Zone { text: text.to_owned() };
        match text {
            "UTC" | "Z" | "Etc/UTC" | "GMT" | "UT" | "Zulu" => return Ok(Self::Utc),
            _ => {}
        }
        if text.starts_with(['+', '-']) {
            return match parse_offset(text.as_bytes()) {
                Some((0, rest)) if rest == text.len() => Ok(Self::Utc),
                Some((seconds, rest)) if rest == text.len() => Ok(Self::Fixed(seconds)),
                _ => Err(error()),
            };
        }
        text.parse::<Tz>().map(Self::Named).map_err(|_| error())
    }

    /// Milliseconds to add to UTC to get local time at that instant.
    #[must_use]
    pub fn offset_ms(self, utc_ms: i64) -> i64 {
        match self {
            Self::Utc => 0,
            Self::Fixed(seconds) => i64::from(seconds) * SECOND_MS,
            Self::Named(tz) => {
                let Some(time) = DateTime::from_timestamp_millis(clamp(utc_ms, ZONE_RULES_MS_MAX)) else { return 0 };
                i64::from(tz.offset_from_utc_datetime(&time.naive_utc()).fix().local_minus_utc()) * SECOND_MS
            }
        }
    }

    /// Local milliseconds (a clock's reading, counted as if in UTC) of an instant.
    #[must_use]
    pub fn to_local(self, utc_ms: i64) -> i64 {
        utc_ms.saturating_add(self.offset_ms(utc_ms))
    }

    /// The instant of a clock's reading. A reading that occurs twice is the earlier; one that a forward
    /// jump skips is moved on by the jump.
    #[must_use]
    pub fn to_utc(self, local_ms: i64) -> i64 {
        match self {
            Self::Utc => local_ms,
            Self::Fixed(seconds) => local_ms.saturating_sub(i64::from(seconds) * SECOND_MS),
            Self::Named(tz) => {
                let local: Option<NaiveDateTime> =
                    DateTime::from_timestamp_millis(clamp(local_ms, ZONE_RULES_MS_MAX)).map(|time| time.naive_utc());
                let offset = local.and_then(|local| match tz.offset_from_local_datetime(&local) {
                    LocalResult::Single(offset) | LocalResult::Ambiguous(offset, _) => Some(offset.fix()),
                    LocalResult::None => None,
                });
                match offset {
                    Some(offset) => local_ms.saturating_sub(i64::from(offset.local_minus_utc()) * SECOND_MS),
                    None => local_ms.saturating_sub(self.offset_ms(local_ms.saturating_sub(DAY_MS))),
                }
            }
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utc => f.write_str("UTC"),
            Self::Named(tz) => f.write_str(tz.name()),
            Self::Fixed(seconds) => {
                let sign = if *seconds < 0 { '-' } else { '+' };
                let minutes = seconds.unsigned_abs() / 60;
                write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        }
    }
}

/// `2015-09-12T00:46:58.771Z`: as Druid prints a time in UTC.
#[must_use]
pub fn format_iso(time: Timestamp) -> String {
    format_iso_in(time, Zone::Utc)
}

/// As [`format_iso`], in a zone: `2015-09-11T17:46:58.771-07:00`.
#[must_use]
pub fn format_iso_in(time: Timestamp, zone: Zone) -> String {
    let offset_ms = zone.offset_ms(time.0);
    let local = time.0.saturating_add(offset_ms);
    let date = Civil::from_days(local.div_euclid(DAY_MS));
    let of_day = local.rem_euclid(DAY_MS);
    let sign = if date.year < 0 { "-" } else { "" };
    let mut text = format!(
        "{sign}{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}",
        date.year.unsigned_abs(),
        date.month,
        date.day,
        of_day / HOUR_MS,
        of_day / MINUTE_MS % 60,
        of_day / SECOND_MS % 60,
        of_day % SECOND_MS
    );
    if offset_ms == 0 {
        text.push('Z');
    } else {
        text.push_str(&Zone::Fixed(i32::try_from(offset_ms / SECOND_MS).unwrap_or(0)).to_string());
    }
    text
}

/// Reads ISO-8601 as Druid does: a date of any precision (`2015`, `2015-09`, `2015-09-12`, `2015-W37-6`,
/// `2015-255`), then `T` or a space and a time of any precision, a fraction of up to nine digits (cut to
/// milliseconds), then `Z` or an offset. Without one, the time is in `zone`.
///
/// # Errors
/// [`CalendarError::Time`].
pub fn parse_iso_in(text: &str, zone: Zone) -> Result<Timestamp, CalendarError> {
    iso(text.as_bytes(), zone).map(Timestamp).ok_or_else(|| CalendarError::Time { text: clip(text) })
}

/// As [`parse_iso_in`] with UTC.
///
/// # Errors
/// [`CalendarError::Time`].
pub fn parse_iso(text: &str) -> Result<Timestamp, CalendarError> {
    parse_iso_in(text, Zone::Utc)
}

/// The start of a text for an error: at most 80 bytes.
pub(crate) fn clip(text: &str) -> String {
    let mut end = text.len().min(80);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A number of exactly `digits` digits at `at`.
fn fixed(bytes: &[u8], at: usize, digits: usize) -> Option<i64> {
    let mut value = 0_i64;
    for byte in bytes.get(at..at + digits)? {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(byte - b'0');
    }
    Some(value)
}

/// How many digits start at `at`.
fn digits_at(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..).map_or(0, |rest| rest.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

fn iso(bytes: &[u8], zone: Zone) -> Option<i64> {
    let (days, mut at) = iso_date(bytes)?;
    let mut of_day = 0;
    if matches!(bytes.get(at), Some(b'T' | b't' | b' ')) {
        let (time, end) = iso_time(bytes, at + 1)?;
        of_day = time;
        at = end;
    }
    let local = days.checked_mul(DAY_MS)?.checked_add(of_day)?;
    match bytes.get(at..)? {
        [] => Some(zone.to_utc(local)),
        [b'Z' | b'z'] => Some(local),
        rest => {
            let rest = rest.strip_prefix(b" ").unwrap_or(rest);
            match parse_offset(rest) {
                Some((seconds, used)) if used == rest.len() => Some(local - i64::from(seconds) * SECOND_MS),
                _ if matches!(rest, b"UTC" | b"Z") => Some(local),
                _ => None,
            }
        }
    }
}

/// Days since 1970-01-01, and where the date ends.
fn iso_date(bytes: &[u8]) -> Option<(i64, usize)> {
    let (negative, start) = match bytes.first()? {
        b'-' => (true, 1),
        b'+' => (false, 1),
        _ => (false, 0),
    };
    let width = digits_at(bytes, start);
    if !(4..=9).contains(&width) {
        return None;
    }
    let year = fixed(bytes, start, width)?;
    let year = if negative { -year } else { year };
    let mut at = start + width;
    let jan_first = Civil { year, month: 1, day: 1 }.days();
    if bytes.get(at) != Some(&b'-') {
        return Some((jan_first, at));
    }
    at += 1;
    if bytes.get(at) == Some(&b'W') {
        return iso_week_date(bytes, at + 1, year);
    }
    if digits_at(bytes, at) == 3 {
        let day = fixed(bytes, at, 3)?;
        let last = 337 + i64::from(days_in_month(year, 2));
        return (1..=last).contains(&day).then_some((jan_first + day - 1, at + 3));
    }
    let width = digits_at(bytes, at).min(2);
    let month = u32::try_from(fixed(bytes, at, width)?).ok().filter(|month| (1..=12).contains(month))?;
    at += width;
    if bytes.get(at) != Some(&b'-') {
        return Some((Civil { year, month, day: 1 }.days(), at));
    }
    let width = digits_at(bytes, at + 1).min(2);
    let day = u32::try_from(fixed(bytes, at + 1, width)?).ok()?;
    (1..=days_in_month(year, month)).contains(&day).then(|| (Civil { year, month, day }.days(), at + 1 + width))
}

/// `37` or `37-6` after the `W`.
fn iso_week_date(bytes: &[u8], at: usize, year: i64) -> Option<(i64, usize)> {
    let week = fixed(bytes, at, 2).filter(|week| (1..=53).contains(week))?;
    let fourth = Civil { year, month: 1, day: 4 }.days();
    let monday = fourth - (fourth + 3).rem_euclid(7) + (week - 1) * 7;
    if bytes.get(at + 2) == Some(&b'-') {
        let day = fixed(bytes, at + 3, 1).filter(|day| (1..=7).contains(day))?;
        return Some((monday + day - 1, at + 4));
    }
    Some((monday, at + 2))
}

/// Milliseconds of the day, and where the time ends.
fn iso_time(bytes: &[u8], mut at: usize) -> Option<(i64, usize)> {
    let units = [HOUR_MS, MINUTE_MS, SECOND_MS];
    let bounds = [24, 59, 59];
    let mut total = 0;
    for (place, (unit, bound)) in units.into_iter().zip(bounds).enumerate() {
        if place > 0 {
            if bytes.get(at) != Some(&b':') {
                break;
            }
            at += 1;
        }
        let width = digits_at(bytes, at).min(2);
        if width == 0 {
            return None;
        }
        let value = fixed(bytes, at, width).filter(|value| *value <= bound)?;
        total += value * unit;
        at += width;
        if matches!(bytes.get(at), Some(b'.' | b',')) {
            let width = digits_at(bytes, at + 1);
            if !(1..=18).contains(&width) {
                return None;
            }
            let fraction = fixed(bytes, at + 1, width.min(9))?;
            let scale = 10_i64.pow(u32::try_from(width.min(9)).ok()?);
            total += fraction * unit / scale;
            at += 1 + width;
            break;
        }
    }
    (total <= DAY_MS).then_some((total, at))
}

/// `+09:00`, `-0330`, `+09`, `+9`, `+09:00:30`: seconds east of UTC, and how many bytes it took.
fn parse_offset(bytes: &[u8]) -> Option<(i32, usize)> {
    let sign = match bytes.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let mut at = 1;
    let width = digits_at(bytes, at).min(2);
    if width == 0 {
        return None;
    }
    let mut total = fixed(bytes, at, width).filter(|hours| *hours <= 23)? * 3_600;
    at += width;
    for unit in [60, 1] {
        let colon = usize::from(bytes.get(at) == Some(&b':'));
        if digits_at(bytes, at + colon) < 2 {
            break;
        }
        total += fixed(bytes, at + colon, 2).filter(|value| *value <= 59)? * unit;
        at += colon + 2;
    }
    Some((sign * i32::try_from(total).ok()?, at))
}

#[cfg(test)]
mod tests;
