//! The formats of Druid's `timestampSpec`.
//!
//! ```text
//! auto    digits are milliseconds, else ISO-8601, optionally followed by a blank and a zone
//! iso     ISO-8601
//! millis posix micro nano   integers of that unit      ruby   seconds with a fraction
//! other   a Joda-Time pattern, as yyyy-MM-dd HH:mm:ss.SSS
//! ```
//! A JSON number in a text format is read as its text, so `20150912` fits `yyyyMMdd`. Without an offset or
//! zone the time is UTC. Zone rules, not this room, decide about clock changes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use base::Timestamp;

use crate::calendar::{CalendarError, Zone, clip, parse_iso, parse_iso_in};

mod joda;

pub use joda::Pattern;

/// How a time is written.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum TimestampFormat {
    #[default]
    Auto,
    Iso,
    Millis,
    Posix,
    Micro,
    Nano,
    Ruby,
    Pattern(Pattern),
}

impl TimestampFormat {
    /// Reads a number. None: it is no time in this format.
    #[must_use]
    pub fn read_long(&self, value: i64) -> Option<Timestamp> {
        match self {
            Self::Auto | Self::Millis => Some(Timestamp(value)),
            Self::Posix | Self::Ruby => value.checked_mul(1_000).map(Timestamp),
            Self::Micro => Some(Timestamp(value.div_euclid(1_000))),
            Self::Nano => Some(Timestamp(value.div_euclid(1_000_000))),
            Self::Iso | Self::Pattern(_) => self.read_text(&value.to_string()),
        }
    }

    /// Reads a number with a fraction.
    #[must_use]
    pub fn read_double(&self, value: f64) -> Option<Timestamp> {
        #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
        let long = |value: f64| (value.abs() < 9e18).then_some(value.floor() as i64);
        match self {
            Self::Ruby | Self::Posix => long(value * 1_000.0).map(Timestamp),
            _ => self.read_long(long(value)?),
        }
    }

    /// Reads text.
    #[must_use]
    pub fn read_text(&self, text: &str) -> Option<Timestamp> {
        let text = unquote(text);
        match self {
            Self::Auto => read_auto(text),
            Self::Iso => parse_iso(text).ok(),
            Self::Pattern(pattern) => pattern.parse(text),
            Self::Ruby => self.read_double(text.trim().parse().ok()?),
            Self::Millis | Self::Posix | Self::Micro | Self::Nano => self.read_long(text.trim().parse().ok()?),
        }
    }
}

fn unquote(text: &str) -> &str {
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text)
}

fn read_auto(text: &str) -> Option<Timestamp> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Timestamp);
    }
    if let Ok(time) = parse_iso(text) {
        return Some(time);
    }
    let text = text.trim();
    let (time, zone) = match text.rsplit_once(' ') {
        Some((time, zone)) => (time, zone_by_name(zone)?),
        None => (text, Zone::Utc),
    };
    parse_iso_in(time, zone).ok()
}

/// An IANA name, an offset, or one of the abbreviations that mean one offset only.
pub(crate) fn zone_by_name(name: &str) -> Option<Zone> {
    const ABBREVIATIONS: [(&str, i32); 12] = [
        ("EST", -5),
        ("EDT", -4),
        ("CST", -6),
        ("CDT", -5),
        ("MST", -7),
        ("MDT", -6),
        ("PST", -8),
        ("PDT", -7),
        ("CET", 1),
        ("CEST", 2),
        ("KST", 9),
        ("JST", 9),
    ];
    if let Some((_, hours)) = ABBREVIATIONS.iter().find(|(known, _)| *known == name) {
        return Some(Zone::Fixed(hours * 3_600));
    }
    Zone::parse(name).ok()
}

impl fmt::Display for TimestampFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Iso => "iso",
            Self::Millis => "millis",
            Self::Posix => "posix",
            Self::Micro => "micro",
            Self::Nano => "nano",
            Self::Ruby => "ruby",
            Self::Pattern(pattern) => pattern.text(),
        })
    }
}

impl FromStr for TimestampFormat {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "auto" => Self::Auto,
            "iso" => Self::Iso,
            "millis" => Self::Millis,
            "posix" => Self::Posix,
            "micro" => Self::Micro,
            "nano" => Self::Nano,
            "ruby" => Self::Ruby,
            _ => Self::Pattern(Pattern::compile(text).ok_or_else(|| CalendarError::Time { text: clip(text) })?),
        })
    }
}

impl Serialize for TimestampFormat {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimestampFormat {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            serde::de::Error::custom(format!(
                "timestamp format {text:?} is unknown: use auto, iso, millis, posix, micro, nano, ruby or a Joda pattern as yyyy-MM-dd"
            ))
        })
    }
}

#[cfg(test)]
mod tests;
