//! Numbers as text. Doubles are spelled as Druid's JSON spells them: the shortest digits that read back the same,
//! always with a fraction, an upper-case exponent outside of 1e-3..1e7.

use std::io::Write;

const PLAIN_MIN: f64 = 1e-3;
const PLAIN_MAX: f64 = 1e7;

/// Appends an integer.
pub fn write_long(out: &mut Vec<u8>, value: i64) {
    // A write into a `Vec` cannot fail.
    let _ = write!(out, "{value}");
}

/// Appends a finite double: `1.0`, `0.001`, `1.0E7`, `1.2345E-5`. For others see [`non_finite`].
pub fn write_double(out: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    if magnitude == 0.0 || (PLAIN_MIN..PLAIN_MAX).contains(&magnitude) {
        let _ = write!(out, "{value:?}");
    } else {
        write_scientific(out, &format!("{value:e}"));
    }
}

/// As [`write_double`], with the fewer digits a float needs.
pub fn write_float(out: &mut Vec<u8>, value: f32) {
    let magnitude = f64::from(value.abs());
    if magnitude == 0.0 || (PLAIN_MIN..PLAIN_MAX).contains(&magnitude) {
        let _ = write!(out, "{value:?}");
    } else {
        write_scientific(out, &format!("{value:e}"));
    }
}

/// `12e6` in Rust's spelling is `1.2E7` in Druid's: one digit before the point and at least one after.
fn write_scientific(out: &mut Vec<u8>, rust: &str) {
    let (digits, exponent) = rust.split_once('e').unwrap_or((rust, "0"));
    out.extend_from_slice(digits.as_bytes());
    if !digits.contains('.') {
        out.extend_from_slice(b".0");
    }
    out.push(b'E');
    out.extend_from_slice(exponent.as_bytes());
}

/// The name of a double that JSON has no number for.
pub fn non_finite(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(value: f64) -> String {
        let mut out = Vec::new();
        write_double(&mut out, value);
        String::from_utf8(out).expect("ascii")
    }

    #[test]
    fn doubles_are_spelled_as_druid_does() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1.0 / 3.0, "0.3333333333333333"),
            (0.001, "0.001"),
            (0.000_999, "9.99E-4"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (12_345_678.9, "1.23456789E7"),
            (-1e10, "-1.0E10"),
            (f64::MAX, "1.7976931348623157E308"),
            (5e-324, "5.0E-324"),
            (123_456_789_012.345, "1.23456789012345E11"),
        ];
        for (value, text) in cases {
            assert_eq!(double(value), text);
        }
    }

    #[test]
    fn floats_keep_their_own_digits() {
        let mut out = Vec::new();
        write_float(&mut out, 0.1);
        out.push(b' ');
        write_float(&mut out, 16_777_216.0);
        assert_eq!(String::from_utf8(out).expect("ascii"), "0.1 1.6777216E7");
    }

    #[test]
    fn what_is_no_number_has_a_name() {
        assert_eq!(non_finite(f64::NAN), Some("NaN"));
        assert_eq!(non_finite(f64::NEG_INFINITY), Some("-Infinity"));
        assert_eq!(non_finite(1.0), None);
    }
}
