//! Time patterns as TIME_FORMAT and TIME_PARSE take them: letters by width, the rest literal (`yyyy-MM-dd'T'HH`).

use store::calendar::{Civil, DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Zone, days_in_month};

use super::time::{week_day, week_of, year_start};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/// Widest field of a pattern.
const WIDTH_MAX: usize = 32;

/// A pattern, ready to write and read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Field(char, usize),
    Literal(String),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("time pattern: letter {0:?} has no meaning; put it in single quotes if it is text")]
    Letter(char),
    #[error("time pattern: a quote is not closed")]
    Quote,
    #[error("time pattern: {0:?} is repeated more than {WIDTH_MAX} times")]
    Width(char),
}

impl Pattern {
    /// # Errors
    /// If a letter has no meaning or a quote is not closed.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut parts = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(first) = chars.next() {
            if first == '\'' {
                parts.push(Part::Literal(quoted(&mut chars)?));
            } else if first.is_ascii_alphabetic() {
                let mut width = 1;
                while chars.next_if_eq(&first).is_some() {
                    width += 1;
                }
                if !"GCxwyYMdDeEaKhHkmsSzZ".contains(first) {
                    return Err(PatternError::Letter(first));
                }
                if width > WIDTH_MAX {
                    return Err(PatternError::Width(first));
                }
                parts.push(Part::Field(first, width));
            } else {
                parts.push(Part::Literal(first.to_string()));
            }
        }
        Ok(Self { parts })
    }

    /// Appends a time in a zone.
    pub fn write(&self, utc_ms: i64, zone: Zone, out: &mut String) {
        let time = Local::of(utc_ms, zone);
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Field(letter, width) => time.write(*letter, *width, out),
            }
        }
    }

    /// Reads a time; `None` if the text does not follow the pattern.
    pub fn read(&self, text: &str, zone: Zone) -> Option<i64> {
        let mut fields = Fields { zone, ..Fields::default() };
        let mut rest = text.trim();
        for (at, part) in self.parts.iter().enumerate() {
            rest = match part {
                Part::Literal(literal) => rest.strip_prefix(literal.as_str())?,
                Part::Field(letter, width) => {
                    let next_is_number =
                        matches!(self.parts.get(at + 1), Some(Part::Field(next, width)) if is_number(*next, *width));
                    fields.read(*letter, *width, next_is_number, rest)?
                }
            };
        }
        if rest.is_empty() { fields.utc() } else { None }
    }
}

fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, PatternError> {
    let mut literal = String::new();
    if chars.next_if_eq(&'\'').is_some() {
        return Ok("'".to_owned());
    }
    loop {
        match chars.next() {
            Some('\'') if chars.next_if_eq(&'\'').is_some() => literal.push('\''),
            Some('\'') => return Ok(literal),
            Some(other) => literal.push(other),
            None => return Err(PatternError::Quote),
        }
    }
}

fn is_number(letter: char, width: usize) -> bool {
    "CxwyYdDeKhHkmsS".contains(letter) || (letter == 'M' && width <= 2)
}

/// A time as a clock on the wall shows it.
struct Local {
    date: Civil,
    days: i64,
    of_day: i64,
    offset_ms: i64,
    zone: Zone,
}

impl Local {
    fn of(utc_ms: i64, zone: Zone) -> Self {
        let local = zone.to_local(utc_ms);
        let days = local.div_euclid(DAY_MS);
        let of_day = local.rem_euclid(DAY_MS);
        Self { date: Civil::from_days(days), days, of_day, offset_ms: zone.offset_ms(utc_ms), zone }
    }

    fn write(&self, letter: char, width: usize, out: &mut String) {
        let hour = self.of_day / HOUR_MS;
        let number = |value: i64| format!("{value:0width$}");
        let text = match letter {
            'G' => if self.date.year > 0 { "AD" } else { "BC" }.to_owned(),
            'C' => number(self.date.year.div_euclid(100)),
            'y' | 'Y' | 'x' => {
                let year = if letter == 'x' { week_of(self.days).0 } else { self.date.year };
                if width == 2 { format!("{:02}", year.rem_euclid(100)) } else { number(year) }
            }
            'M' => match width {
                1 | 2 => number(i64::from(self.date.month)),
                3 => month_name(self.date.month).chars().take(3).collect(),
                _ => month_name(self.date.month).to_owned(),
            },
            'd' => number(i64::from(self.date.day)),
            'D' => number(self.days - year_start(self.date.year) + 1),
            'w' => number(week_of(self.days).1),
            'e' => number(week_day(self.days)),
            'E' if width > 3 => day_name(self.days).to_owned(),
            'E' => day_name(self.days).chars().take(3).collect(),
            'a' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'H' => number(hour),
            'k' => number(if hour == 0 { 24 } else { hour }),
            'K' => number(hour % 12),
            'h' => number(if hour % 12 == 0 { 12 } else { hour % 12 }),
            'm' => number(self.of_day % HOUR_MS / MINUTE_MS),
            's' => number(self.of_day % MINUTE_MS / SECOND_MS),
            'S' => format!("{:03}", self.of_day % SECOND_MS)
                .chars()
                .chain("0".repeat(WIDTH_MAX).chars())
                .take(width)
                .collect(),
            'z' => zone_name(self.zone),
            'Z' if width >= 3 => zone_name(self.zone),
            'Z' => offset_text(self.offset_ms, width == 2),
            _ => String::new(),
        };
        out.push_str(&text);
    }
}

fn month_name(month: u32) -> &'static str {
    usize::try_from(month).ok().and_then(|month| MONTHS.get(month.wrapping_sub(1))).copied().unwrap_or_default()
}

fn day_name(days: i64) -> &'static str {
    usize::try_from(week_day(days) - 1).ok().and_then(|day| DAYS.get(day)).copied().unwrap_or_default()
}

fn zone_name(zone: Zone) -> String {
    match zone {
        Zone::Utc => "UTC".to_owned(),
        Zone::Fixed(seconds) => offset_text(i64::from(seconds) * SECOND_MS, true),
        Zone::Named(name) => name.to_string(),
    }
}

fn offset_text(offset_ms: i64, colon: bool) -> String {
    let sign = if offset_ms < 0 { '-' } else { '+' };
    let minutes = offset_ms.abs() / MINUTE_MS;
    let colon = if colon { ":" } else { "" };
    format!("{sign}{:02}{colon}{:02}", minutes / 60, minutes % 60)
}

/// What reading has found so far.
#[derive(Default)]
struct Fields {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    hour: i64,
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    millis: i64,
    offset_ms: Option<i64>,
    zone: Zone,
}

impl Fields {
    /// Takes one field off the text's front and returns the rest.
    fn read<'a>(&mut self, letter: char, width: usize, next_is_number: bool, text: &'a str) -> Option<&'a str> {
        match letter {
            'M' if width >= 3 => {
                let (at, rest) = named(text, &MONTHS)?;
                self.month = Some(i64::try_from(at).ok()? + 1);
                return Some(rest);
            }
            'E' => return named(text, &DAYS).map(|(_, rest)| rest),
            'a' => {
                let (word, rest) = text.split_at_checked(2)?;
                self.afternoon = Some(word.eq_ignore_ascii_case("pm"));
                return Some(rest);
            }
            'z' | 'Z' => return self.read_zone(text),
            'G' => return text.strip_prefix("AD"),
            _ => {}
        }
        // Without a number behind it a field takes what digits there are; with one, just its width.
        let longest = if next_is_number { width } else { 19 };
        let negative = letter == 'y' && text.starts_with('-');
        let digits_from = usize::from(negative);
        let digits: &str = text.get(digits_from..)?;
        let end = digits.bytes().take(longest).take_while(u8::is_ascii_digit).count();
        let (digits, rest) = digits.split_at(end);
        let value: i64 = digits.parse().ok()?;
        match letter {
            'y' | 'Y' | 'x' => {
                let value = if width == 2 && end == 2 { pivot(value) } else { value };
                self.year = Some(if negative { -value } else { value });
            }
            'M' => self.month = Some(value),
            'd' => self.day = Some(value),
            'D' => self.day_of_year = Some(value),
            'H' => self.hour = value,
            'k' => self.hour = value % 24,
            'K' => self.hour = value,
            'h' => self.hour = value % 12,
            'm' => self.minute = value,
            's' => self.second = value,
            'S' => self.millis = format!("{digits}000").get(..3)?.parse().ok()?,
            _ => {}
        }
        Some(rest)
    }

    fn read_zone<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        if let Some(rest) = text.strip_prefix('Z') {
            self.offset_ms = Some(0);
            return Some(rest);
        }
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "+-:/_".contains(c))).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        self.zone = Zone::parse(name).ok()?;
        Some(rest)
    }

    fn utc(self) -> Option<i64> {
        let year = self.year.unwrap_or(1970);
        let days = match self.day_of_year {
            Some(day) if (1..=366).contains(&day) => year_start(year) + day - 1,
            Some(_) => return None,
            None => {
                let month = u32::try_from(self.month.unwrap_or(1)).ok().filter(|month| (1..=12).contains(month))?;
                let day = u32::try_from(self.day.unwrap_or(1)).ok()?;
                (1..=days_in_month(year, month)).contains(&day).then(|| Civil { year, month, day }.days())?
            }
        };
        let hour = if self.afternoon == Some(true) { self.hour % 12 + 12 } else { self.hour };
        let valid = (0..24).contains(&hour) && (0..60).contains(&self.minute) && (0..60).contains(&self.second);
        if !valid {
            return None;
        }
        let of_day = hour * HOUR_MS + self.minute * MINUTE_MS + self.second * SECOND_MS + self.millis;
        let local = days.checked_mul(DAY_MS)?.checked_add(of_day)?;
        Some(match self.offset_ms {
            Some(offset) => local - offset,
            None => self.zone.to_utc(local),
        })
    }
}

/// Two digits are the year nearest to 2000.
fn pivot(value: i64) -> i64 {
    if value < 50 { 2000 + value } else { 1900 + value }
}

/// A name of the list, whole or by its first three letters, in any case.
fn named<'a>(text: &'a str, names: &[&str]) -> Option<(usize, &'a str)> {
    let starts = |name: &str| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    for (at, name) in names.iter().enumerate() {
        if starts(name) {
            return Some((at, text.get(name.len()..)?));
        }
        let short = name.get(..3)?;
        if starts(short) {
            return Some((at, text.get(3..)?));
        }
    }
    None
}
