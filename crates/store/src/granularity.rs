//! Time buckets as Druid cuts them: none, all, or a period in a zone from an origin.
//!
//! Buckets of one unit start where the calendar says (a week on Monday, an hour on the local hour).
//! Buckets of several units (`P3D`, `PT6H`, `P2W`) are counted from the origin, by default 1970-01-01T00:00
//! of the zone, so `P2W` starts on Thursdays. Hours and smaller are counted in elapsed time, days and
//! larger on the calendar, as Joda-Time does. A period that mixes units (`P1DT12H`) is elapsed time in a
//! zone of fixed offset, else walked from the origin.

use std::fmt;
use std::str::FromStr;

use base::Timestamp;
use serde::{Deserialize, Serialize};

use crate::calendar::{
    CalendarError, Civil, DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Zone, clip, format_iso, parse_iso_in,
};
use crate::interval::Interval;

/// Most steps that a compound period is walked from its origin before the elapsed-time estimate is taken as it is.
const COMPOUND_STEPS_MAX: i64 = 64;

/// An ISO-8601 period. All parts have one sign or are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Period {
    /// Years and months.
    months: i64,
    /// Weeks and days.
    days: i64,
    /// Hours and smaller.
    millis: i64,
    /// True if it was written in weeks only: one week is then a calendar week.
    weeks: bool,
}

/// How time is cut into buckets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Granularity {
    /// Every millisecond its own bucket: no truncation.
    None,
    /// One bucket, [`Interval::ETERNITY`].
    All,
    Period(PeriodGranularity),
}

/// Buckets of one period. Never of an empty or negative one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PeriodGranularity {
    period: Period,
    zone: Zone,
    /// None: the calendar's own starts, or 1970-01-01T00:00 of the zone for several units.
    origin: Option<Timestamp>,
}

impl Period {
    pub const SECOND: Self = Self::of_millis(SECOND_MS);
    pub const MINUTE: Self = Self::of_millis(MINUTE_MS);
    pub const HOUR: Self = Self::of_millis(HOUR_MS);
    pub const DAY: Self = Self { months: 0, days: 1, millis: 0, weeks: false };
    pub const WEEK: Self = Self { months: 0, days: 7, millis: 0, weeks: true };
    pub const MONTH: Self = Self::of_months(1);
    pub const QUARTER: Self = Self::of_months(3);
    pub const YEAR: Self = Self::of_months(12);

    #[must_use]
    pub const fn of_millis(millis: i64) -> Self {
        Self { months: 0, days: 0, millis, weeks: false }
    }

    #[must_use]
    pub const fn of_months(months: i64) -> Self {
        Self { months, days: 0, millis: 0, weeks: false }
    }

    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.months == 0 && self.days == 0 && self.millis == 0
    }

    /// `count` periods later on the calendar of `zone` (earlier if negative). Saturates.
    #[must_use]
    pub fn shift(&self, time: Timestamp, zone: Zone, count: i64) -> Timestamp {
        let mut utc = time.0;
        let months = self.months.saturating_mul(count);
        let days = self.days.saturating_mul(count);
        if months != 0 || days != 0 {
            let local = zone.to_local(utc);
            let date = Civil::from_days(local.div_euclid(DAY_MS)).plus_months(months);
            let day = date.days().saturating_add(days);
            let moved = day.saturating_mul(DAY_MS).saturating_add(local.rem_euclid(DAY_MS));
            utc = zone.to_utc(moved);
        }
        Timestamp(utc.saturating_add(self.millis.saturating_mul(count)))
    }

    /// Its length if that is the same everywhere: no months, and days only if they count as 24 hours.
    #[must_use]
    pub fn fixed_ms(&self) -> Option<i64> {
        (self.months == 0).then(|| self.days.saturating_mul(DAY_MS).saturating_add(self.millis))
    }

    /// About how long it is, a month being 30 days. For bounds and estimates only.
    #[must_use]
    pub fn approximate_ms(&self) -> i64 {
        self.months.saturating_mul(30).saturating_add(self.days).saturating_mul(DAY_MS).saturating_add(self.millis)
    }
}

impl FromStr for Period {
    type Err = CalendarError;

    /// `P1Y2M3W4DT5H6M7.8S`, any part missing. A fraction is allowed for seconds only.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_period(text).ok_or_else(|| CalendarError::Period { text: clip(text) })
    }
}

fn parse_period(text: &str) -> Option<Period> {
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let mut rest = rest.strip_prefix('P')?;
    let mut period = Period::default();
    let (mut in_time, mut parts, mut weeks_only) = (false, 0, true);
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('T') {
            if in_time || time.is_empty() {
                return None;
            }
            in_time = true;
            rest = time;
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, unit) = (&rest[..end], rest.as_bytes()[end]);
        rest = &rest[end + 1..];
        parts += 1;
        weeks_only &= unit == b'W';
        if in_time && unit == b'S' {
            period.millis = period.millis.checked_add(seconds_to_ms(number)?)?;
            continue;
        }
        let value: i64 = number.parse().ok()?;
        match (in_time, unit) {
            (false, b'Y') => period.months = period.months.checked_add(value.checked_mul(12)?)?,
            (false, b'M') => period.months = period.months.checked_add(value)?,
            (false, b'W') => period.days = period.days.checked_add(value.checked_mul(7)?)?,
            (false, b'D') => period.days = period.days.checked_add(value)?,
            (true, b'H') => period.millis = period.millis.checked_add(value.checked_mul(HOUR_MS)?)?,
            (true, b'M') => period.millis = period.millis.checked_add(value.checked_mul(MINUTE_MS)?)?,
            _ => return None,
        }
    }
    if parts == 0 {
        return None;
    }
    let period = Period {
        months: period.months.checked_mul(sign)?,
        days: period.days.checked_mul(sign)?,
        millis: period.millis.checked_mul(sign)?,
        weeks: weeks_only,
    };
    let values = [period.months, period.days, period.millis];
    (values.iter().all(|value| *value >= 0) || values.iter().all(|value| *value <= 0)).then_some(period)
}

fn seconds_to_ms(number: &str) -> Option<i64> {
    let (whole, fraction) = number.split_once(['.', ',']).unwrap_or((number, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    let whole: i64 = whole.parse().ok()?;
    whole.checked_mul(SECOND_MS)?.checked_add(if whole < 0 { -millis } else { millis })
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("PT0S");
        }
        f.write_str("P")?;
        let (years, months) = (self.months / 12, self.months % 12);
        let (weeks, days) = if self.weeks { (self.days / 7, 0) } else { (0, self.days) };
        for (value, unit) in [(years, "Y"), (months, "M"), (weeks, "W"), (days, "D")] {
            if value != 0 {
                write!(f, "{value}{unit}")?;
            }
        }
        if self.millis == 0 {
            return Ok(());
        }
        f.write_str("T")?;
        let (hours, minutes) = (self.millis / HOUR_MS, self.millis / MINUTE_MS % 60);
        let (seconds, millis) = (self.millis / SECOND_MS % 60, self.millis % SECOND_MS);
        if hours != 0 {
            write!(f, "{hours}H")?;
        }
        if minutes != 0 {
            write!(f, "{minutes}M")?;
        }
        match (seconds, millis) {
            (0, 0) => Ok(()),
            (_, 0) => write!(f, "{seconds}S"),
            _ => {
                let sign = if self.millis < 0 && seconds == 0 { "-" } else { "" };
                write!(f, "{sign}{seconds}.{:03}S", millis.abs())
            }
        }
    }
}

impl PeriodGranularity {
    /// # Errors
    /// [`CalendarError::Granularity`] if the period is empty or negative.
    pub fn new(period: Period, zone: Zone, origin: Option<Timestamp>) -> Result<Self, CalendarError> {
        if period.is_zero() || period.months < 0 || period.days < 0 || period.millis < 0 {
            return Err(CalendarError::Granularity { text: period.to_string() });
        }
        Ok(Self { period, zone, origin })
    }

    #[must_use]
    pub const fn period(&self) -> Period {
        self.period
    }

    #[must_use]
    pub const fn zone(&self) -> Zone {
        self.zone
    }

    #[must_use]
    pub const fn origin(&self) -> Option<Timestamp> {
        self.origin
    }

    /// The bucket's start, in local time where the calendar counts.
    fn floor(&self, time: i64) -> i64 {
        let Period { months, days, millis, weeks } = self.period;
        match (months > 0, days > 0, millis > 0) {
            (true, false, false) => self.floor_months(time, months),
            (false, true, false) => self.floor_days(time, days, weeks),
            (false, false, true) => self.floor_millis(time, millis),
            _ => self.floor_compound(time),
        }
    }

    fn floor_months(&self, time: i64, months: i64) -> i64 {
        let origin = self.origin.map_or(0, |origin| self.zone.to_local(origin.0));
        let start = Civil::from_days(origin.div_euclid(DAY_MS));
        let of_day = origin.rem_euclid(DAY_MS);
        let local = self.zone.to_local(time);
        let date = Civil::from_days(local.div_euclid(DAY_MS));
        let between = (date.year - start.year) * 12 + i64::from(date.month) - i64::from(start.month);
        let steps = between.div_euclid(months);
        let at = |steps: i64| start.plus_months(steps.saturating_mul(months)).millis().saturating_add(of_day);
        let local_start = if at(steps) > local { at(steps - 1) } else { at(steps) };
        self.zone.to_utc(local_start)
    }

    fn floor_days(&self, time: i64, days: i64, weeks: bool) -> i64 {
        const MONDAY: i64 = -3 * DAY_MS;
        let local = self.zone.to_local(time);
        let origin = match self.origin {
            Some(origin) => self.zone.to_local(origin.0),
            None if weeks && days == 7 => MONDAY,
            None => 0,
        };
        let step = days.saturating_mul(DAY_MS);
        self.zone.to_utc(local.saturating_sub(local.saturating_sub(origin).rem_euclid(step)))
    }

    fn floor_millis(&self, time: i64, millis: i64) -> i64 {
        let single = matches!(millis, SECOND_MS | MINUTE_MS | HOUR_MS);
        match self.origin {
            None if single => {
                let offset = self.zone.offset_ms(time);
                let local = time.saturating_add(offset);
                local.saturating_sub(local.rem_euclid(millis)).saturating_sub(offset)
            }
            origin => {
                let origin = origin.map_or_else(|| self.zone.to_utc(0), |origin| origin.0);
                time.saturating_sub(time.saturating_sub(origin).rem_euclid(millis))
            }
        }
    }

    fn floor_compound(&self, time: i64) -> i64 {
        let origin = self.origin.map_or_else(|| self.zone.to_utc(0), |origin| origin.0);
        let fixed_zone = !matches!(self.zone, Zone::Named(_));
        if let (Some(millis), true) = (self.period.fixed_ms(), fixed_zone) {
            return time.saturating_sub(time.saturating_sub(origin).rem_euclid(millis));
        }
        let at = |count: i64| self.period.shift(Timestamp(origin), self.zone, count).0;
        let mut count = time.saturating_sub(origin).div_euclid(self.period.approximate_ms().max(1));
        for _ in 0..COMPOUND_STEPS_MAX {
            let off = time.saturating_sub(at(count));
            if off < 0 {
                count += off.div_euclid(self.period.approximate_ms().max(1)).min(-1);
            } else if time >= at(count + 1) {
                count += (off / self.period.approximate_ms().max(1)).max(1);
            } else {
                break;
            }
            // Estimates overshoot by less than they correct; single steps end the walk.
        }
        at(count)
    }
}

impl Granularity {
    pub const SECOND: Self = Self::utc(Period::SECOND);
    pub const MINUTE: Self = Self::utc(Period::MINUTE);
    pub const HOUR: Self = Self::utc(Period::HOUR);
    pub const DAY: Self = Self::utc(Period::DAY);
    pub const WEEK: Self = Self::utc(Period::WEEK);
    pub const MONTH: Self = Self::utc(Period::MONTH);
    pub const QUARTER: Self = Self::utc(Period::QUARTER);
    pub const YEAR: Self = Self::utc(Period::YEAR);

    const fn utc(period: Period) -> Self {
        Self::Period(PeriodGranularity { period, zone: Zone::Utc, origin: None })
    }

    /// Buckets of a period in a zone, counted from `origin` if one is given.
    ///
    /// # Errors
    /// [`CalendarError::Granularity`] if the period is empty or negative.
    pub fn period(period: Period, zone: Zone, origin: Option<Timestamp>) -> Result<Self, CalendarError> {
        PeriodGranularity::new(period, zone, origin).map(Self::Period)
    }

    /// The start of the bucket that `time` is in.
    #[must_use]
    pub fn floor(&self, time: Timestamp) -> Timestamp {
        match self {
            Self::None => time,
            Self::All => Interval::ETERNITY.start(),
            Self::Period(granularity) => Timestamp(granularity.floor(time.0)),
        }
    }

    /// The first bucket start that is not before `time`.
    #[must_use]
    pub fn ceil(&self, time: Timestamp) -> Timestamp {
        let floor = self.floor(time);
        if floor == time { time } else { self.next(floor) }
    }

    /// The start of the bucket after the one that starts at `start`.
    #[must_use]
    pub fn next(&self, start: Timestamp) -> Timestamp {
        match self {
            Self::None => start.next(),
            Self::All => Interval::ETERNITY.end(),
            Self::Period(granularity) => {
                let next = granularity.period.shift(start, granularity.zone, 1);
                // Across a clock change the calendar step may land beside a start: only starts are returned.
                let floor = Timestamp(granularity.floor(next.0));
                if floor > start { floor } else { next }
            }
        }
    }

    /// The bucket that `time` is in.
    #[must_use]
    pub fn bucket(&self, time: Timestamp) -> Interval {
        let start = self.floor(time);
        Interval::new(start, self.next(start)).unwrap_or(Interval::ETERNITY)
    }

    /// The buckets that touch an interval, in order. Endless intervals give as many as are taken.
    pub fn buckets(&self, interval: Interval) -> impl Iterator<Item = Interval> + use<> {
        let granularity = *self;
        let mut at = granularity.floor(interval.start());
        std::iter::from_fn(move || {
            if at >= interval.end() {
                return None;
            }
            let end = granularity.next(at);
            let bucket = Interval::new(at, end).filter(|bucket| !bucket.is_empty())?;
            at = end;
            Some(bucket)
        })
    }

    /// `(step, origin)` in milliseconds if every bucket is `step` long and one starts at `origin`: then the
    /// floor is `time - (time - origin).rem_euclid(step)`.
    #[must_use]
    pub fn fixed(&self) -> Option<(i64, i64)> {
        let Self::Period(granularity) = self else { return None };
        if matches!(granularity.zone, Zone::Named(_)) && granularity.period.days > 0 {
            return None;
        }
        let step = granularity.period.fixed_ms()?;
        let single = matches!(step, SECOND_MS | MINUTE_MS | HOUR_MS);
        if matches!(granularity.zone, Zone::Named(_)) && single && granularity.origin.is_none() {
            return None;
        }
        Some((step, granularity.floor(0)))
    }

    /// Druid's name if it has one in UTC: `day`, `fifteen_minute`.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        match self {
            Self::None => Some("none"),
            Self::All => Some("all"),
            Self::Period(PeriodGranularity { period, zone: Zone::Utc, origin: None }) => {
                NAMES.iter().find(|(_, known)| known == period).map(|(name, _)| *name)
            }
            Self::Period(_) => None,
        }
    }
}

const NAMES: [(&str, Period); 14] = [
    ("second", Period::SECOND),
    ("minute", Period::MINUTE),
    ("five_minute", Period::of_millis(5 * MINUTE_MS)),
    ("ten_minute", Period::of_millis(10 * MINUTE_MS)),
    ("fifteen_minute", Period::of_millis(15 * MINUTE_MS)),
    ("thirty_minute", Period::of_millis(30 * MINUTE_MS)),
    ("hour", Period::HOUR),
    ("six_hour", Period::of_millis(6 * HOUR_MS)),
    ("eight_hour", Period::of_millis(8 * HOUR_MS)),
    ("day", Period::DAY),
    ("week", Period::WEEK),
    ("month", Period::MONTH),
    ("quarter", Period::QUARTER),
    ("year", Period::YEAR),
];

impl FromStr for Granularity {
    type Err = CalendarError;

    /// A name (any case) or a period (`PT5M`), in UTC.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "none" => return Ok(Self::None),
            "all" => return Ok(Self::All),
            _ => {}
        }
        if let Some((_, period)) = NAMES.iter().find(|(name, _)| *name == lower) {
            return Ok(Self::utc(*period));
        }
        let error = || CalendarError::Granularity { text: clip(text) };
        let period: Period = text.parse().map_err(|_| error())?;
        Self::period(period, Zone::Utc, None)
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self) {
            (Some(name), _) => f.write_str(name),
            (None, Self::Period(granularity)) => {
                granularity.period.fmt(f)?;
                if granularity.zone != Zone::Utc {
                    write!(f, " in {}", granularity.zone)?;
                }
                granularity.origin.map_or(Ok(()), |origin| write!(f, " from {}", format_iso(origin)))
            }
            (None, _) => Ok(()),
        }
    }
}

/// Druid's JSON: a name, or `{"type": "period" | "duration" | <name>, ...}`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Json {
    Text(String),
    Object {
        #[serde(rename = "type")]
        kind: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        period: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration: Option<i64>,
        #[serde(default, rename = "timeZone", skip_serializing_if = "Option::is_none")]
        time_zone: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<String>,
    },
}

impl Serialize for Granularity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = match (self.name(), self) {
            (None, Self::Period(granularity)) => Json::Object {
                kind: "period".to_owned(),
                period: Some(granularity.period.to_string()),
                duration: None,
                time_zone: Some(granularity.zone.to_string()),
                origin: granularity.origin.map(format_iso),
            },
            (name, _) => Json::Text(name.unwrap_or("none").to_owned()),
        };
        json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Granularity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Json::deserialize(deserializer)?.read().map_err(serde::de::Error::custom)
    }
}

/// Reads Druid's JSON; the error names the part that is wrong.
pub(crate) fn read_json(json: &serde_json::Value) -> Result<Granularity, CalendarError> {
    let error = || CalendarError::Granularity { text: clip(&json.to_string()) };
    serde_json::from_value::<Json>(json.clone()).map_err(|_| error())?.read()
}

impl Json {
    fn read(self) -> Result<Granularity, CalendarError> {
        let (kind, period, duration, time_zone, origin) = match self {
            Self::Text(text) => return text.parse(),
            Self::Object { kind, period, duration, time_zone, origin } => (kind, period, duration, time_zone, origin),
        };
        let zone = time_zone.map_or(Ok(Zone::Utc), |zone| Zone::parse(&zone))?;
        let origin = origin.map(|origin| parse_iso_in(&origin, zone)).transpose()?;
        let missing = || CalendarError::Granularity { text: kind.clone() };
        match kind.as_str() {
            "period" => Granularity::period(period.ok_or_else(missing)?.parse()?, zone, origin),
            "duration" => {
                let origin = origin.unwrap_or(Timestamp(0));
                Granularity::period(Period::of_millis(duration.ok_or_else(missing)?), Zone::Utc, Some(origin))
            }
            name => name.parse(),
        }
    }
}

#[cfg(test)]
mod tests;
