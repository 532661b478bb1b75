//! TIME_FLOOR and its family. Times are milliseconds UTC; the zone is an argument, filled in from the session.

use std::sync::Arc;

use base::Timestamp;
use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, StringArray, StringBuilder};
use datafusion::arrow::array::{TimestampMillisecondArray, cast::as_string_array};
use datafusion::arrow::datatypes::{DataType, Int64Type, TimestampMillisecondType};
use datafusion::common::{DataFusionError, Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};
use store::calendar::{Civil, DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Zone, parse_iso_in};
use store::granularity::{Granularity, Period};
use store::interval::Interval;

use super::joda::Pattern;
use super::scalar::{
    Constants, MILLIS, Scalar, all_text, answer, array_arg, returns_boolean, returns_long, returns_text, returns_time,
    time_then_text, time_type,
};

pub fn functions() -> Vec<Scalar> {
    vec![
        Scalar::new("time_floor", time_then_text, returns_time, |args| bucketed(args, Granularity::floor)),
        Scalar::new("time_ceil", time_then_text, returns_time, |args| bucketed(args, Granularity::ceil)),
        Scalar::new("time_shift", shift_types, returns_time, time_shift),
        Scalar::new("time_extract", time_then_text, returns_long, time_extract),
        Scalar::new("time_parse", all_text, returns_time, time_parse),
        Scalar::new("time_format", time_then_text, returns_text, time_format),
        Scalar::new("time_in_interval", time_then_text, returns_boolean, time_in_interval),
        Scalar::new("timestamp_diff", diff_types, returns_long, timestamp_diff),
        Scalar::new("millis_to_timestamp", |_| Ok(vec![DataType::Int64]), returns_time, millis_to_timestamp),
        Scalar::new("timestamp_to_millis", |_| Ok(vec![MILLIS]), returns_long, timestamp_to_millis),
    ]
}

fn external(error: impl std::fmt::Display) -> DataFusionError {
    DataFusionError::Execution(error.to_string())
}

/// A zone by name; NULL is UTC.
pub fn zone_of(text: Option<String>) -> Result<Zone> {
    text.map_or(Ok(Zone::Utc), |text| Zone::parse(&text).map_err(external))
}

/// The buckets that `period`, `origin` and `zone` of a TIME_FLOOR describe.
///
/// # Errors
/// If one of them cannot be read.
pub fn granularity_of(period: &str, origin: Option<&str>, zone: Option<String>) -> Result<Granularity> {
    let zone = zone_of(zone)?;
    let origin = origin.map(|text| parse_iso_in(text, zone).map_err(external)).transpose()?;
    let period: Period = period.parse().map_err(external)?;
    Granularity::period(period, zone, origin).map_err(external)
}

fn bucketed(args: &ScalarFunctionArgs, cut: fn(&Granularity, Timestamp) -> Timestamp) -> Result<ColumnarValue> {
    let constants = Constants(args);
    let period = constants.needed(1, "the period")?;
    let granularity = granularity_of(&period, constants.text(2)?.as_deref(), constants.text(3)?)?;
    let times = array_arg(args, 0)?;
    let times = times.as_primitive::<TimestampMillisecondType>();
    let cut_all: TimestampMillisecondArray = times.unary(|time| cut(&granularity, Timestamp(time)).0);
    answer(args, Arc::new(cut_all))
}

fn shift_types(types: &[DataType]) -> Result<Vec<DataType>> {
    let [time, _, _, _] = types else { return plan_err!("TIME_SHIFT takes a time, a period and a step") };
    Ok(vec![time_type(time)?, DataType::Utf8, DataType::Int64, DataType::Utf8])
}

fn time_shift(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let constants = Constants(args);
    let period: Period = constants.needed(1, "the period")?.parse().map_err(external)?;
    let zone = zone_of(constants.text(3)?)?;
    let (times, steps) = (array_arg(args, 0)?, array_arg(args, 2)?);
    let (times, steps) = (times.as_primitive::<TimestampMillisecondType>(), steps.as_primitive::<Int64Type>());
    let shifted: TimestampMillisecondArray =
        times.iter().zip(steps).map(|(time, step)| Some(period.shift(Timestamp(time?), zone, step?).0)).collect();
    answer(args, Arc::new(shifted))
}

/// What TIME_EXTRACT and EXTRACT can take out of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Epoch,
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    DayOfWeek,
    DayOfWeekFromSunday,
    DayOfYear,
    Week,
    WeekYear,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
}

impl Unit {
    /// By its name in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.trim().to_ascii_uppercase().as_str() {
            "EPOCH" => Self::Epoch,
            "MICROSECOND" => Self::Microsecond,
            "MILLISECOND" => Self::Millisecond,
            "SECOND" => Self::Second,
            "MINUTE" => Self::Minute,
            "HOUR" => Self::Hour,
            "DAY" => Self::Day,
            // Monday is 1 for both, as in Druid; PostgreSQL's Sunday is 0 under its own short name.
            "DAYOFWEEK" | "ISODOW" => Self::DayOfWeek,
            "DOW" => Self::DayOfWeek,
            "PGDOW" => Self::DayOfWeekFromSunday,
            "DAYOFYEAR" | "DOY" => Self::DayOfYear,
            "WEEK" | "ISOWEEK" => Self::Week,
            "ISOYEAR" => Self::WeekYear,
            "MONTH" => Self::Month,
            "QUARTER" => Self::Quarter,
            "YEAR" => Self::Year,
            "DECADE" => Self::Decade,
            "CENTURY" => Self::Century,
            "MILLENNIUM" | "MILLENIUM" => Self::Millennium,
            _ => return None,
        })
    }

    /// Takes the unit out of a time.
    pub fn extract(self, utc_ms: i64, zone: Zone) -> i64 {
        let local = zone.to_local(utc_ms);
        let days = local.div_euclid(DAY_MS);
        let of_day = local.rem_euclid(DAY_MS);
        let date = || Civil::from_days(days);
        match self {
            Self::Epoch => utc_ms.div_euclid(SECOND_MS),
            Self::Microsecond => of_day.rem_euclid(SECOND_MS) * 1_000,
            Self::Millisecond => of_day.rem_euclid(SECOND_MS),
            Self::Second => of_day.rem_euclid(MINUTE_MS) / SECOND_MS,
            Self::Minute => of_day.rem_euclid(HOUR_MS) / MINUTE_MS,
            Self::Hour => of_day / HOUR_MS,
            Self::Day => i64::from(date().day),
            Self::DayOfWeek => week_day(days),
            Self::DayOfWeekFromSunday => week_day(days) % 7,
            Self::DayOfYear => days - year_start(date().year) + 1,
            Self::Week => week_of(days).1,
            Self::WeekYear => week_of(days).0,
            Self::Month => i64::from(date().month),
            Self::Quarter => i64::from(date().month.div_ceil(3)),
            Self::Year => date().year,
            Self::Decade => date().year.div_euclid(10),
            Self::Century => (date().year - 1).div_euclid(100) + 1,
            Self::Millennium => (date().year - 1).div_euclid(1000) + 1,
        }
    }
}

/// Days since 1970 of a year's first day.
pub fn year_start(year: i64) -> i64 {
    Civil { year, month: 1, day: 1 }.days()
}

/// Monday is 1. 1970-01-01 was a Thursday.
pub fn week_day(days: i64) -> i64 {
    (days + 3).rem_euclid(7) + 1
}

/// ISO-8601 week year and week: a week belongs to the year of its Thursday.
pub fn week_of(days: i64) -> (i64, i64) {
    let thursday = days + 4 - week_day(days);
    let year = Civil::from_days(thursday).year;
    (year, (thursday - year_start(year)) / 7 + 1)
}

fn time_extract(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let constants = Constants(args);
    let name = constants.needed(1, "the unit")?;
    let Some(unit) = Unit::parse(&name) else {
        return exec_err!(
            "{name} is no unit to extract; use EPOCH, SECOND, MINUTE, HOUR, DAY, DOW, DOY, WEEK, MONTH, QUARTER or YEAR"
        );
    };
    let zone = zone_of(constants.text(2)?)?;
    let times = array_arg(args, 0)?;
    let times = times.as_primitive::<TimestampMillisecondType>();
    let values: Int64Array = times.unary(|time| unit.extract(time, zone));
    answer(args, Arc::new(values))
}

fn time_parse(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let constants = Constants(args);
    let pattern = constants.text(1)?.map(|text| Pattern::parse(&text)).transpose().map_err(external)?;
    let zone = zone_of(constants.text(2)?)?;
    let texts = array_arg(args, 0)?;
    let times: TimestampMillisecondArray = as_string_array(&texts)
        .iter()
        .map(|text| match &pattern {
            Some(pattern) => pattern.read(text?, zone),
            None => parse_iso_in(text?.trim(), zone).ok().map(|time| time.0),
        })
        .collect();
    answer(args, Arc::new(times))
}

fn time_format(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let constants = Constants(args);
    let pattern = constants.text(1)?.map(|text| Pattern::parse(&text)).transpose().map_err(external)?;
    let zone = zone_of(constants.text(2)?)?;
    let times = array_arg(args, 0)?;
    let times = times.as_primitive::<TimestampMillisecondType>();
    let mut out = StringBuilder::with_capacity(times.len(), times.len() * 24);
    let mut text = String::new();
    for time in times {
        match (time, &pattern) {
            (None, _) => out.append_null(),
            (Some(time), None) => out.append_value(store::calendar::format_iso_in(Timestamp(time), zone)),
            (Some(time), Some(pattern)) => {
                text.clear();
                pattern.write(time, zone, &mut text);
                out.append_value(&text);
            }
        }
    }
    answer(args, Arc::new(out.finish()))
}

fn time_in_interval(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let constants = Constants(args);
    let interval = interval_in(&constants.needed(1, "the interval")?, zone_of(constants.text(2)?)?)?;
    let times = array_arg(args, 0)?;
    let times = times.as_primitive::<TimestampMillisecondType>();
    let inside: BooleanArray = times.iter().map(|time| Some(interval.contains(Timestamp(time?)))).collect();
    answer(args, Arc::new(inside))
}

/// `start/end` with times in `zone`; a period on either side as [`Interval::parse`] has it.
pub fn interval_in(text: &str, zone: Zone) -> Result<Interval> {
    if let (Some((start, end)), false) = (text.split_once('/'), zone == Zone::Utc)
        && let (Ok(start), Ok(end)) = (parse_iso_in(start, zone), parse_iso_in(end, zone))
    {
        return Interval::new(start, end).ok_or_else(|| external(format!("interval {text} ends before it starts")));
    }
    Interval::parse(text).map_err(external)
}

fn diff_types(types: &[DataType]) -> Result<Vec<DataType>> {
    let [_, start, end, _] = types else { return plan_err!("TIMESTAMPDIFF takes a unit and two times") };
    Ok(vec![DataType::Utf8, time_type(start)?, time_type(end)?, DataType::Utf8])
}

/// Whole units from one time to another; towards zero.
fn timestamp_diff(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let constants = Constants(args);
    let unit = constants.needed(0, "the unit")?;
    let period: Period = crate::statement::period_of_unit(&unit).unwrap_or_default().parse().map_err(external)?;
    let zone = zone_of(constants.text(3)?)?;
    let (starts, ends) = (array_arg(args, 1)?, array_arg(args, 2)?);
    let values: Int64Array = starts
        .as_primitive::<TimestampMillisecondType>()
        .iter()
        .zip(ends.as_primitive::<TimestampMillisecondType>())
        .map(|(start, end)| Some(whole_periods(&period, zone, start?, end?)))
        .collect();
    answer(args, Arc::new(values))
}

fn whole_periods(period: &Period, zone: Zone, start: i64, end: i64) -> i64 {
    if let Some(length) = period.fixed_ms() {
        return end.saturating_sub(start) / length.max(1);
    }
    let mut count = end.saturating_sub(start) / period.approximate_ms().max(1);
    let at = |count| period.shift(Timestamp(start), zone, count).0;
    // The estimate is off by at most a few per cent; step until it fits.
    if end >= start {
        while at(count) > end {
            count -= 1;
        }
        while at(count + 1) <= end {
            count += 1;
        }
    } else {
        while at(count) < end {
            count += 1;
        }
        while at(count - 1) >= end {
            count -= 1;
        }
    }
    count
}

fn millis_to_timestamp(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let values = array_arg(args, 0)?;
    let times: TimestampMillisecondArray = values.as_primitive::<Int64Type>().reinterpret_cast();
    answer(args, Arc::new(times))
}

fn timestamp_to_millis(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let times = array_arg(args, 0)?;
    let values: Int64Array = times.as_primitive::<TimestampMillisecondType>().reinterpret_cast();
    answer(args, Arc::new(values))
}

/// Texts read as times in a zone; what is no time is NULL.
pub fn parse_all(texts: &StringArray, zone: Zone) -> ArrayRef {
    let times: TimestampMillisecondArray =
        texts.iter().map(|text| parse_iso_in(text?.trim(), zone).ok().map(|time| time.0)).collect();
    Arc::new(times)
}
