//! Values as PostgreSQL sends them, in text and in binary.
//!
//! What always holds: a value is encoded by the type its column was described with, and one that does not fit it is an
//! error (22003), never another value.

use bytes::{BufMut, BytesMut};
use store::calendar::{DAY_MS, SECOND_MS, Zone};

use super::types::{PgType, Scalar};
use crate::edge::cells::{Cell, ListCell};
use crate::edge::http::render::json;
use crate::edge::http::render::number::{non_finite, write_long};
use crate::edge::http::render::time::{write_clock, write_date, write_padded};

/// 2000-01-01, where PostgreSQL counts from.
const EPOCH_DAYS: i64 = 10_957;
const MICROS_PER_MILLI: i64 = 1_000;
const MICROS_PER_DAY: i64 = DAY_MS * MICROS_PER_MILLI;
/// Exponents from which on PostgreSQL shows a double in scientific notation.
const SCIENTIFIC_FROM: i32 = 15;
const SCIENTIFIC_BELOW: i32 = -4;

/// A value that does not fit its column's type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value} is out of range for type {name}")]
pub struct OutOfRange {
    value: String,
    name: String,
}

fn out_of_range(cell: &Cell<'_>, scalar: Scalar) -> OutOfRange {
    let value = match cell {
        Cell::Long(value) => value.to_string(),
        Cell::BigUnsigned(value) => value.to_string(),
        other => format!("{other:?}"),
    };
    OutOfRange { value, name: scalar.element_type().name().to_owned() }
}

/// How one column is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    pub pg: PgType,
    pub binary: bool,
}

/// Appends a field of a data row: its length and its bytes, or -1 for null.
///
/// # Errors
/// [`OutOfRange`]; the buffer then holds half a field and must be thrown away.
pub fn write_field(out: &mut BytesMut, cell: &Cell<'_>, encoding: Encoding, zone: Zone) -> Result<(), OutOfRange> {
    if *cell == Cell::Null {
        out.put_i32(-1);
        return Ok(());
    }
    let length_at = out.len();
    out.put_i32(0);
    if encoding.binary {
        write_binary(out, cell, encoding.pg, zone)?;
    } else {
        let mut text = Vec::new();
        write_text(&mut text, cell, encoding.pg, zone)?;
        out.put_slice(&text);
    }
    set_length(out, length_at);
    Ok(())
}

fn set_length(out: &mut BytesMut, length_at: usize) {
    // A field comes from a batch in memory that is far below 2 GiB; a larger one could not be framed at all.
    let length = i32::try_from(out.len() - length_at - 4).unwrap_or(i32::MAX);
    out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a value that is not null as text.
///
/// # Errors
/// [`OutOfRange`].
pub fn write_text(out: &mut Vec<u8>, cell: &Cell<'_>, pg: PgType, zone: Zone) -> Result<(), OutOfRange> {
    match cell {
        Cell::List(list) if pg.array => return write_text_array(out, *list, pg, zone),
        Cell::List(_) | Cell::Struct(_) => json::write_cell(out, cell, zone),
        Cell::Null => {}
        Cell::Boolean(value) => out.push(if *value { b't' } else { b'f' }),
        Cell::Long(value) => write_long(out, *value),
        Cell::BigUnsigned(value) if pg.scalar == Scalar::Numeric => out.extend_from_slice(value.to_string().as_bytes()),
        Cell::BigUnsigned(_) => return Err(out_of_range(cell, pg.scalar)),
        Cell::Double(value) => write_double(out, *value, &format!("{value:e}")),
        Cell::Float(value) => write_double(out, f64::from(*value), &format!("{value:e}")),
        Cell::Text(text) => out.extend_from_slice(text.as_bytes()),
        Cell::Rendered { text, .. } => out.extend_from_slice(text.as_bytes()),
        Cell::Binary(bytes) => {
            out.extend_from_slice(b"\\x");
            for byte in *bytes {
                out.extend_from_slice(format!("{byte:02x}").as_bytes());
            }
        }
        Cell::Timestamp { micros } => write_timestamp(out, *micros, pg.scalar == Scalar::TimestampTz, zone),
        Cell::Date { days } => write_day(out, *days),
    }
    Ok(())
}

/// `2015-09-12`; a year before the first is counted back and marked.
fn write_day(out: &mut Vec<u8>, days: i64) {
    let year = store::calendar::Civil::from_days(days).year;
    if year > 0 {
        write_date(out, days);
        return;
    }
    let mut text = Vec::new();
    write_date(&mut text, days);
    let month_and_day = text.len() - "-09-12".len();
    write_padded(out, 1 - year, 4);
    out.extend_from_slice(&text[month_and_day..]);
    out.extend_from_slice(b" BC");
}

/// `2015-09-12 00:46:58.771`, with `+09` or `+05:30` behind it when the type has a zone. Shown on the zone's clock.
fn write_timestamp(out: &mut Vec<u8>, micros: i64, with_offset: bool, zone: Zone) {
    let offset_ms = zone.offset_ms(micros.div_euclid(MICROS_PER_MILLI));
    let local = micros.saturating_add(offset_ms * MICROS_PER_MILLI);
    let days = local.div_euclid(MICROS_PER_DAY);
    let before_christ = store::calendar::Civil::from_days(days).year <= 0;
    let mut day = Vec::new();
    write_day(&mut day, days);
    let bare = if before_christ { day.len() - " BC".len() } else { day.len() };
    out.extend_from_slice(&day[..bare]);
    out.push(b' ');
    let of_day = local.rem_euclid(MICROS_PER_DAY);
    write_clock(out, of_day / MICROS_PER_MILLI);
    let fraction = of_day % (SECOND_MS * MICROS_PER_MILLI);
    if fraction != 0 {
        out.push(b'.');
        write_padded(out, fraction, 6);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    if with_offset {
        let minutes = offset_ms.abs() / 60_000;
        out.push(if offset_ms < 0 { b'-' } else { b'+' });
        write_padded(out, minutes / 60, 2);
        if minutes % 60 != 0 {
            out.push(b':');
            write_padded(out, minutes % 60, 2);
        }
    }
    if before_christ {
        out.extend_from_slice(b" BC");
    }
}

/// The shortest digits that read back the same, laid out as PostgreSQL does: `100000`, `1e+15`, `1.5e-07`.
fn write_double(out: &mut Vec<u8>, value: f64, scientific: &str) {
    if let Some(name) = non_finite(value) {
        out.extend_from_slice(name.as_bytes());
        return;
    }
    let (digits, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (SCIENTIFIC_BELOW..SCIENTIFIC_FROM).contains(&exponent) {
        write_plain(out, digits, exponent);
    } else {
        out.extend_from_slice(digits.as_bytes());
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        write_padded(out, i64::from(exponent.abs()), 2);
    }
}

/// Scientific digits (`1.5`, exponent 3) without an exponent (`1500`).
fn write_plain(out: &mut Vec<u8>, digits: &str, exponent: i32) {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    out.extend_from_slice(sign.as_bytes());
    let significant: Vec<u8> = digits.bytes().filter(|byte| *byte != b'.').collect();
    let zeros = usize::try_from(-exponent).unwrap_or(0);
    if zeros > 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', zeros - 1));
        out.extend_from_slice(&significant);
        return;
    }
    let whole = usize::try_from(exponent).unwrap_or(0) + 1;
    if significant.len() <= whole {
        out.extend_from_slice(&significant);
        out.extend(std::iter::repeat_n(b'0', whole - significant.len()));
    } else {
        out.extend_from_slice(&significant[..whole]);
        out.push(b'.');
        out.extend_from_slice(&significant[whole..]);
    }
}

/// `{1,NULL,"a b"}`: quoted where the text would be read as something else.
fn write_text_array(out: &mut Vec<u8>, list: ListCell<'_>, pg: PgType, zone: Zone) -> Result<(), OutOfRange> {
    let element_type = PgType { scalar: pg.scalar, array: false };
    out.push(b'{');
    let mut text = Vec::new();
    for (position, element) in list.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        if element == Cell::Null {
            out.extend_from_slice(b"NULL");
            continue;
        }
        text.clear();
        write_text(&mut text, &element, element_type, zone)?;
        let special = |byte: &u8| matches!(byte, b'{' | b'}' | b',' | b'"' | b'\\') || byte.is_ascii_whitespace();
        if !text.is_empty() && !text.iter().any(special) && !text.eq_ignore_ascii_case(b"null") {
            out.extend_from_slice(&text);
            continue;
        }
        out.push(b'"');
        for byte in &text {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.push(b'"');
    }
    out.push(b'}');
    Ok(())
}

/// Appends a value that is not null in binary.
///
/// # Errors
/// [`OutOfRange`].
fn write_binary(out: &mut BytesMut, cell: &Cell<'_>, pg: PgType, zone: Zone) -> Result<(), OutOfRange> {
    if let (true, Cell::List(list)) = (pg.array, cell) {
        return write_binary_array(out, *list, pg, zone);
    }
    let wrong = || out_of_range(cell, pg.scalar);
    match (pg.scalar, cell) {
        (Scalar::Bool, Cell::Boolean(value)) => out.put_u8(u8::from(*value)),
        (Scalar::Int2, Cell::Long(value)) => out.put_i16(i16::try_from(*value).map_err(|_| wrong())?),
        (Scalar::Int4, Cell::Long(value)) => out.put_i32(i32::try_from(*value).map_err(|_| wrong())?),
        (Scalar::Int8, Cell::Long(value)) => out.put_i64(*value),
        (Scalar::Float4, Cell::Float(value)) => out.put_f32(*value),
        (Scalar::Float8, Cell::Double(value)) => out.put_f64(*value),
        (Scalar::Date, Cell::Date { days }) => {
            out.put_i32(i32::try_from(*days - EPOCH_DAYS).map_err(|_| wrong())?);
        }
        (Scalar::Timestamp | Scalar::TimestampTz, Cell::Timestamp { micros }) => {
            let offset_ms =
                if pg.scalar == Scalar::Timestamp { zone.offset_ms(micros.div_euclid(MICROS_PER_MILLI)) } else { 0 };
            let local = micros.saturating_add(offset_ms * MICROS_PER_MILLI);
            out.put_i64(local.saturating_sub(EPOCH_DAYS * MICROS_PER_DAY));
        }
        (Scalar::Bytea, Cell::Binary(bytes)) => out.put_slice(bytes),
        (Scalar::Numeric, _) => {
            let mut text = Vec::new();
            write_text(&mut text, cell, pg, zone)?;
            write_numeric(out, &String::from_utf8_lossy(&text));
        }
        (Scalar::Text | Scalar::Json, _) => {
            let mut text = Vec::new();
            write_text(&mut text, cell, pg, zone)?;
            out.put_slice(&text);
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

/// One dimension from index 1: count of dimensions, has nulls, element type, length, lower bound, elements.
fn write_binary_array(out: &mut BytesMut, list: ListCell<'_>, pg: PgType, zone: Zone) -> Result<(), OutOfRange> {
    let element = Encoding { pg: PgType { scalar: pg.scalar, array: false }, binary: true };
    let length = list.len();
    out.put_i32(i32::from(length > 0));
    out.put_i32(i32::from(list.iter().any(|cell| cell == Cell::Null)));
    out.put_u32(pg.scalar.element_type().oid());
    if length > 0 {
        out.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
        out.put_i32(1);
        for cell in list.iter() {
            write_field(out, &cell, element, zone)?;
        }
    }
    Ok(())
}

/// A decimal as groups of four digits in base 10,000: count, weight of the first, sign, digits after the point, groups.
fn write_numeric(out: &mut BytesMut, text: &str) {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let padded_whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let padded_fraction = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let group =
        |bytes: &[u8]| bytes.iter().fold(0_i16, |value, byte| value * 10 + i16::from(byte.wrapping_sub(b'0') % 10));
    let mut groups: Vec<i16> = padded_whole.as_bytes().chunks(4).map(group).collect();
    let mut weight = i16::try_from(groups.len()).unwrap_or(i16::MAX) - 1;
    groups.extend(padded_fraction.as_bytes().chunks(4).map(group));
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let leading = groups.iter().take_while(|value| **value == 0).count();
    groups.drain(..leading);
    weight -= i16::try_from(leading).unwrap_or(0);
    let zero = groups.is_empty();
    out.put_i16(i16::try_from(groups.len()).unwrap_or(i16::MAX));
    out.put_i16(if zero { 0 } else { weight });
    out.put_u16(if negative && !zero { 0x4000 } else { 0 });
    out.put_i16(i16::try_from(fraction.len()).unwrap_or(i16::MAX));
    for value in groups {
        out.put_i16(value);
    }
}

#[cfg(test)]
mod tests;
