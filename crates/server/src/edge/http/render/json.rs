//! One cell as JSON.

use super::number::{non_finite, write_double, write_float, write_long};
use super::time::write_iso_millis;
use crate::edge::cells::Cell;
use store::calendar::{DAY_MS, Zone};

/// Appends `cell` as a JSON value. Timestamps and dates are ISO strings in `zone`; a double without a JSON number is its
/// name as a string; binary is base64.
pub fn write_cell(out: &mut Vec<u8>, cell: &Cell<'_>, zone: Zone) {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Cell::Long(value) => write_long(out, *value),
        Cell::BigUnsigned(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Cell::Double(value) => match non_finite(*value) {
            Some(name) => write_string(out, name),
            None => write_double(out, *value),
        },
        Cell::Float(value) => match non_finite(f64::from(*value)) {
            Some(name) => write_string(out, name),
            None => write_float(out, *value),
        },
        Cell::Text(text) => write_string(out, text),
        Cell::Rendered { text, number: true } if is_json_number(text) => out.extend_from_slice(text.as_bytes()),
        Cell::Rendered { text, .. } => write_string(out, text),
        Cell::Binary(bytes) => {
            out.push(b'"');
            write_base64(out, bytes);
            out.push(b'"');
        }
        Cell::Timestamp { .. } | Cell::Date { .. } => {
            out.push(b'"');
            write_moment(out, cell, zone);
            out.push(b'"');
        }
        Cell::List(list) => {
            out.push(b'[');
            for (position, element) in list.iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                write_cell(out, &element, zone);
            }
            out.push(b']');
        }
        Cell::Struct(fields) => {
            out.push(b'{');
            for (position, (name, value)) in fields.iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                write_string(out, name);
                out.push(b':');
                write_cell(out, &value, zone);
            }
            out.push(b'}');
        }
    }
}

/// Appends a timestamp, or the start of a date, as ISO text. Writes nothing for any other cell.
pub fn write_moment(out: &mut Vec<u8>, cell: &Cell<'_>, zone: Zone) {
    match cell {
        Cell::Timestamp { micros } => write_iso_millis(out, micros.div_euclid(1_000), zone),
        Cell::Date { days } => write_iso_millis(out, zone.to_utc(days.saturating_mul(DAY_MS)), zone),
        _ => {}
    }
}

/// A decimal's text is a JSON number unless it starts with a point or a plus.
fn is_json_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit()) && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// Appends a JSON string, quotes included.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut clean_from = 0;
    for (position, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[clean_from..position]);
        clean_from = position + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            control => out.extend_from_slice(format!("\\u{control:04X}").as_bytes()),
        }
    }
    out.extend_from_slice(&bytes[clean_from..]);
    out.push(b'"');
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends RFC 4648 base64 with padding.
pub fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.chunks(3) {
        let group = u32::from(chunk[0]) << 16
            | u32::from(chunk.get(1).copied().unwrap_or(0)) << 8
            | u32::from(chunk.get(2).copied().unwrap_or(0));
        for position in 0..4 {
            if position <= chunk.len() {
                let index = usize::try_from(group >> (18 - 6 * position) & 0x3f).unwrap_or(0);
                out.push(BASE64[index]);
            } else {
                out.push(b'=');
            }
        }
    }
}
