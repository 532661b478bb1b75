//! The common subset of Joda-Time's parse patterns, in English.
//!
//! ```text
//! y Y u year     M month (3 or more letters: its name)   d day   D day of year   E day of week
//! H k hour 0-23, 1-24   h K hour 1-12, 0-11   a AM or PM   m minute   s second   S fraction
//! Z offset or zone id   z zone name   'text' itself   '' a quote
//! ```
//! As in Joda, a number takes as many digits as there are, unless another number follows at once: then as
//! many as its letters. A two-digit year of `yy` is one of 1946 to 2045.

use crate::calendar::{Civil, DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Zone, days_in_month};
use base::Timestamp;

/// A compiled pattern.
#[derive(Clone, PartialEq, Debug)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Debug)]
enum Part {
    Literal(String),
    /// A number of at most `digits` digits.
    Number {
        field: Field,
        digits: usize,
    },
    TwoDigitYear,
    MonthName,
    DayName,
    HalfDay,
    Fraction {
        digits: usize,
    },
    Zone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Year,
    Month,
    Day,
    DayOfYear,
    Hour,
    ClockHour,
    HalfHour,
    HalfClockHour,
    Minute,
    Second,
}

/// The longest pattern accepted, in bytes.
const PATTERN_BYTES_MAX: usize = 256;
const YEAR_DIGITS_MAX: usize = 9;

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

impl Pattern {
    /// None if a letter is not supported or a quote is not closed.
    #[must_use]
    pub fn compile(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            return None;
        }
        let chars: Vec<char> = text.chars().collect();
        let mut parts: Vec<Part> = Vec::new();
        let mut at = 0;
        while at < chars.len() {
            let c = chars[at];
            if c == '\'' {
                let (literal, next) = quoted(&chars, at)?;
                push_literal(&mut parts, &literal);
                at = next;
            } else if c.is_ascii_alphabetic() {
                let count = chars[at..].iter().take_while(|other| **other == c).count();
                parts.push(Part::of(c, count)?);
                at += count;
            } else {
                push_literal(&mut parts, c.encode_utf8(&mut [0; 4]));
                at += 1;
            }
        }
        let reads_time = parts.iter().any(|part| !matches!(part, Part::Literal(_) | Part::DayName | Part::Zone));
        let pattern = Self { text: text.to_owned(), parts: fix_widths(parts) };
        reads_time.then_some(pattern)
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The time a text names; none if it does not fit the pattern to its end.
    #[must_use]
    pub fn parse(&self, text: &str) -> Option<Timestamp> {
        let mut rest = text;
        let mut fields = Fields::default();
        for part in &self.parts {
            rest = part.read(rest, &mut fields)?;
        }
        rest.is_empty().then(|| fields.timestamp())?
    }
}

/// The literal that starts with the quote at `at`, and where it ends.
fn quoted(chars: &[char], at: usize) -> Option<(String, usize)> {
    if chars.get(at + 1) == Some(&'\'') {
        return Some(("'".to_owned(), at + 2));
    }
    let mut literal = String::new();
    let mut at = at + 1;
    loop {
        match (*chars.get(at)?, chars.get(at + 1)) {
            ('\'', Some('\'')) => {
                literal.push('\'');
                at += 2;
            }
            ('\'', _) => return Some((literal, at + 1)),
            (c, _) => {
                literal.push(c);
                at += 1;
            }
        }
    }
}

fn push_literal(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        Some(Part::Literal(literal)) => literal.push_str(text),
        _ => parts.push(Part::Literal(text.to_owned())),
    }
}

/// A number that no other number follows may be longer than its letters.
fn fix_widths(mut parts: Vec<Part>) -> Vec<Part> {
    for at in 0..parts.len() {
        let follows =
            matches!(parts.get(at + 1), Some(Part::Number { .. } | Part::TwoDigitYear | Part::Fraction { .. }));
        if let Part::Number { field, digits } = &mut parts[at]
            && !follows
        {
            *digits = match field {
                Field::Year => YEAR_DIGITS_MAX,
                Field::DayOfYear => 3,
                _ => 2,
            };
        }
    }
    parts
}

impl Part {
    fn of(letter: char, count: usize) -> Option<Self> {
        let number = |field| Some(Self::Number { field, digits: count });
        match letter {
            'y' | 'Y' if count == 2 => Some(Self::TwoDigitYear),
            'y' | 'Y' | 'u' => number(Field::Year),
            'M' | 'L' if count >= 3 => Some(Self::MonthName),
            'M' | 'L' => number(Field::Month),
            'd' => number(Field::Day),
            'D' => number(Field::DayOfYear),
            'E' => Some(Self::DayName),
            'H' => number(Field::Hour),
            'k' => number(Field::ClockHour),
            'K' => number(Field::HalfHour),
            'h' => number(Field::HalfClockHour),
            'm' => number(Field::Minute),
            's' => number(Field::Second),
            'S' => Some(Self::Fraction { digits: count.max(3) }),
            'a' => Some(Self::HalfDay),
            'Z' | 'z' => Some(Self::Zone),
            _ => None,
        }
    }

    /// Reads its piece off the front of `text`.
    fn read<'a>(&self, text: &'a str, fields: &mut Fields) -> Option<&'a str> {
        match self {
            Self::Literal(literal) => text.strip_prefix(literal.as_str()),
            Self::Number { field, digits } => {
                let signed = matches!(field, Field::Year) && text.starts_with(['-', '+']);
                let (value, rest) = number(&text[usize::from(signed)..], *digits)?;
                fields.set(*field, if signed && text.starts_with('-') { -value } else { value })?;
                Some(rest)
            }
            Self::TwoDigitYear => {
                let (value, rest) = number(text, YEAR_DIGITS_MAX.min(digits_of(text)))?;
                let two = text.len() - rest.len() == 2;
                fields.year = match value {
                    _ if !two => value,
                    0..=45 => 2_000 + value,
                    _ => 1_900 + value,
                };
                Some(rest)
            }
            Self::MonthName => {
                let (index, rest) = name(text, &MONTHS)?;
                fields.month = u32::try_from(index).ok()? + 1;
                Some(rest)
            }
            Self::DayName => name(text, &WEEKDAYS).map(|(_, rest)| rest),
            Self::HalfDay => {
                let half = text.get(..2)?;
                fields.afternoon = Some(half.eq_ignore_ascii_case("pm"));
                (half.eq_ignore_ascii_case("am") || half.eq_ignore_ascii_case("pm")).then(|| &text[2..])
            }
            Self::Fraction { digits } => {
                let count = digits_of(text).min(*digits).min(18);
                let (value, _) = number(text, count)?;
                let scale = 10_i64.checked_pow(u32::try_from(count).ok()?)?;
                // Cut to milliseconds; i128 because 18 digits times a thousand do not fit.
                fields.millis = i64::try_from(i128::from(value) * 1_000 / i128::from(scale)).ok()?;
                Some(&text[digits_of(text).min(*digits)..])
            }
            Self::Zone => {
                let end =
                    text.find(|c: char| !(c.is_ascii_alphanumeric() || "+-:/_".contains(c))).unwrap_or(text.len());
                fields.zone = super::zone_by_name(&text[..end])?;
                Some(&text[end..])
            }
        }
    }
}

fn digits_of(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn number(text: &str, digits_max: usize) -> Option<(i64, &str)> {
    let end = digits_of(text).min(digits_max);
    let value = text[..end].parse().ok()?;
    Some((value, &text[end..]))
}

/// The index of the name that `text` starts with, whole or its first three letters.
fn name<'a>(text: &'a str, names: &[&str]) -> Option<(usize, &'a str)> {
    for width in [usize::MAX, 3] {
        for (index, name) in names.iter().enumerate() {
            let width = width.min(name.len());
            if text.get(..width).is_some_and(|start| start.eq_ignore_ascii_case(&name[..width])) {
                return Some((index, &text[width..]));
            }
        }
    }
    None
}

/// What a text named so far; missing fields are those of 1970-01-01T00:00.
#[derive(Clone, Copy)]
struct Fields {
    year: i64,
    month: u32,
    day: u32,
    day_of_year: Option<i64>,
    hour: i64,
    half_hour: Option<i64>,
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    millis: i64,
    zone: Zone,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            year: 1970,
            month: 1,
            day: 1,
            day_of_year: None,
            hour: 0,
            half_hour: None,
            afternoon: None,
            minute: 0,
            second: 0,
            millis: 0,
            zone: Zone::Utc,
        }
    }
}

impl Fields {
    fn set(&mut self, field: Field, value: i64) -> Option<()> {
        let within = |low: i64, high: i64| (low..=high).contains(&value).then_some(value);
        match field {
            Field::Year => self.year = value,
            Field::Month => self.month = u32::try_from(within(1, 12)?).ok()?,
            Field::Day => self.day = u32::try_from(within(1, 31)?).ok()?,
            Field::DayOfYear => self.day_of_year = Some(within(1, 366)?),
            Field::Hour => self.hour = within(0, 23)?,
            Field::ClockHour => self.hour = within(1, 24)? % 24,
            Field::HalfHour => self.half_hour = Some(within(0, 11)?),
            Field::HalfClockHour => self.half_hour = Some(within(1, 12)? % 12),
            Field::Minute => self.minute = within(0, 59)?,
            Field::Second => self.second = within(0, 59)?,
        }
        Some(())
    }

    fn timestamp(&self) -> Option<Timestamp> {
        if self.day > days_in_month(self.year, self.month) {
            return None;
        }
        let days = match self.day_of_year {
            Some(day) if day > 337 + i64::from(days_in_month(self.year, 2)) => return None,
            Some(day) => Civil { year: self.year, month: 1, day: 1 }.days() + day - 1,
            None => Civil { year: self.year, month: self.month, day: self.day }.days(),
        };
        let hour = match self.half_hour {
            Some(half) => half + if self.afternoon == Some(true) { 12 } else { 0 },
            None => self.hour,
        };
        let of_day = hour * HOUR_MS + self.minute * MINUTE_MS + self.second * SECOND_MS + self.millis;
        Some(Timestamp(self.zone.to_utc(days.checked_mul(DAY_MS)?.checked_add(of_day)?)))
    }
}
