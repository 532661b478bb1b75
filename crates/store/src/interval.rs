//! A half-open piece of time, `[start, end)`, in the form Druid writes it.

use std::fmt;

use base::Timestamp;
use serde::{Deserialize, Serialize};

use crate::calendar::{CalendarError, Zone, clip, format_iso, parse_iso};
use crate::granularity::Period;

/// `[start, end)`. Holds nothing unless `start < end`; [`Interval::new`] refuses an end before the start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Interval {
    pub start: Timestamp,
    /// The first instant that is not in it.
    pub end: Timestamp,
}

impl Interval {
    /// All of time: what Druid's granularity `all` makes one bucket.
    pub const ETERNITY: Self = Self { start: Timestamp(i64::MIN / 2), end: Timestamp(i64::MAX / 2) };

    /// None if `end` is before `start`.
    #[must_use]
    pub fn new(start: Timestamp, end: Timestamp) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    #[must_use]
    pub const fn start(&self) -> Timestamp {
        self.start
    }

    /// The first instant that is not in it.
    #[must_use]
    pub const fn end(&self) -> Timestamp {
        self.end
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    #[must_use]
    pub fn contains(&self, time: Timestamp) -> bool {
        self.start <= time && time < self.end
    }

    /// True if all of `other` is in it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// What is in both, unless that is nothing.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        (start < end).then_some(Self { start, end })
    }

    /// `start/end`, `start/period` or `period/end`. Times without an offset are UTC.
    ///
    /// # Errors
    /// [`CalendarError::Interval`] if a part is wrong or the end comes before the start.
    pub fn parse(text: &str) -> Result<Self, CalendarError> {
        let error = || CalendarError::Interval { text: clip(text) };
        let (left, right) = text.split_once('/').ok_or_else(error)?;
        let interval = if right.starts_with('P') {
            let start = parse_iso(left).map_err(|_| error())?;
            let period: Period = right.parse().map_err(|_| error())?;
            Self::new(start, period.shift(start, Zone::Utc, 1))
        } else if left.starts_with('P') {
            let end = parse_iso(right).map_err(|_| error())?;
            let period: Period = left.parse().map_err(|_| error())?;
            Self::new(period.shift(end, Zone::Utc, -1), end)
        } else {
            Self::new(parse_iso(left).map_err(|_| error())?, parse_iso(right).map_err(|_| error())?)
        };
        interval.ok_or_else(error)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", format_iso(self.start), format_iso(self.end))
    }
}

impl std::str::FromStr for Interval {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Interval {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
