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

mod period;

pub use period::Period;

/// Most steps that a compound period is walked from its origin before the elapsed-time estimate is taken as it is.
const COMPOUND_STEPS_MAX: i64 = 64;

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
