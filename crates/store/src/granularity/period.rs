//! ISO-8601 periods: a length of time on the calendar.

use std::fmt;
use std::str::FromStr;

use base::Timestamp;

use crate::calendar::{CalendarError, Civil, DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Zone, clip};

/// An ISO-8601 period. All parts have one sign or are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Period {
    /// Years and months.
    pub(super) months: i64,
    /// Weeks and days.
    pub(super) days: i64,
    /// Hours and smaller.
    pub(super) millis: i64,
    /// True if it was written in weeks only: one week is then a calendar week.
    pub(super) weeks: bool,
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
