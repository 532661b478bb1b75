//! Values as text and text as values, the way Druid (and so Java and Jackson) writes and reads them.

use std::fmt::Write as _;

/// Appends a double as Java prints it: shortest digits that read back, `1.0`, `1.0E10`, `1.0E-5`.
pub fn push_double(out: &mut String, value: f64) {
    if !value.is_finite() {
        out.push_str(if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        });
        return;
    }
    let magnitude = value.abs();
    let mark = out.len();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        // Writing to a string cannot fail.
        let _ = write!(out, "{value}");
        if !out[mark..].contains('.') {
            out.push_str(".0");
        }
        return;
    }
    let _ = write!(out, "{value:E}");
    if !out[mark..].contains('.')
        && let Some(exponent) = out[mark..].find('E')
    {
        out.insert_str(mark + exponent, ".0");
    }
}

/// Appends a long.
pub fn push_long(out: &mut String, value: i64) {
    let _ = write!(out, "{value}");
}

/// Appends text as a JSON string.
pub fn push_json_text(out: &mut String, text: &str) {
    out.push('"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1F => "",
            _ => continue,
        };
        out.push_str(&text[from..at]);
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
        from = at + 1;
    }
    out.push_str(&text[from..]);
    out.push('"');
}

/// Appends a double as a JSON number; null if it is none.
pub fn push_json_double(out: &mut String, value: f64) {
    if value.is_finite() {
        push_double(out, value);
    } else {
        out.push_str("null");
    }
}

/// The long that text holds exactly: `12`, `+12`, `12.0`, `1e3`. None for `1.9`, as Druid's long dimensions.
#[must_use]
pub fn long_of_text(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(value) = text.parse() {
        return Some(value);
    }
    let value: f64 = text.parse().ok()?;
    exact_long(value)
}

/// The long that a double is, if it is one.
#[must_use]
pub fn exact_long(value: f64) -> Option<i64> {
    let long = long_of_double(value)?;
    #[expect(clippy::cast_precision_loss, reason = "compared with the double it came from")]
    let back = long as f64;
    (back == value).then_some(long)
}

/// A double without its fraction; none beyond the range of a long.
#[must_use]
pub fn long_of_double(value: f64) -> Option<i64> {
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked, dropping the fraction is meant")]
    (-BOUND..BOUND).contains(&value).then_some(value as i64)
}

/// The double that text holds.
#[must_use]
pub fn double_of_text(text: &str) -> Option<f64> {
    let text = text.trim();
    // Rust reads more words than Java does; only the digits and Java's own words count.
    if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) && !text.ends_with(char::is_alphabetic) {
        return text.parse().ok();
    }
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" | "+Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// A metric's number in text: commas and a plus sign are dropped, as Druid does.
#[must_use]
pub fn metric_text(text: &str) -> std::borrow::Cow<'_, str> {
    let text = text.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    if text.contains(',') { text.replace(',', "").into() } else { text.into() }
}

#[cfg(test)]
mod tests;
