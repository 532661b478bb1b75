//! Parameters from a Bind message, in text or binary, as values a query takes.

use base::Timestamp;
use bytes::{Buf, Bytes};
use query::Parameter;
use serde_json::{Number, Value};
use store::calendar::{DAY_MS, format_iso};

use super::types::{PgType, Scalar};

const EPOCH_MS: i64 = 946_684_800_000;
const MICROS_PER_MILLI: i64 = 1_000;
/// Arrays of parameters have one dimension.
const DIMENSIONS_MAX: i32 = 1;

/// A parameter whose bytes are not a value of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parameter ${number}: {cause}")]
pub struct BadParameter {
    pub number: usize,
    pub cause: String,
}

/// The value of parameter `number` (from 1). `bytes` is `None` for NULL.
///
/// # Errors
/// [`BadParameter`], saying what is wrong with it.
pub fn decode(number: usize, bytes: Option<&Bytes>, pg: PgType, binary: bool) -> Result<Parameter, BadParameter> {
    let value = match bytes {
        None => Ok(Value::Null),
        Some(bytes) if binary => from_binary(bytes.clone(), pg),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => from_text(text, pg),
            Err(error) => Err(format!("not UTF-8 at byte {}", error.valid_up_to())),
        },
    };
    let value = value.map_err(|cause| BadParameter { number, cause })?;
    Ok(Parameter { sql_type: pg.sql_name().to_owned(), value })
}

fn from_text(text: &str, pg: PgType) -> Result<Value, String> {
    if pg.array {
        return array_from_text(text, pg.scalar);
    }
    let invalid = || format!("invalid input syntax for type {}: {text:?}", pg.scalar.element_type().name());
    match pg.scalar {
        Scalar::Bool => match text.trim().to_ascii_lowercase().as_str() {
            "t" | "true" | "yes" | "on" | "1" => Ok(Value::Bool(true)),
            "f" | "false" | "no" | "off" | "0" => Ok(Value::Bool(false)),
            _ => Err(invalid()),
        },
        Scalar::Int2 | Scalar::Int4 | Scalar::Int8 => {
            text.trim().parse::<i64>().map(Value::from).map_err(|_| invalid())
        }
        Scalar::Float4 | Scalar::Float8 | Scalar::Numeric => {
            text.trim().parse::<f64>().map(double).map_err(|_| invalid())
        }
        Scalar::Bytea => Err("bytea is not offered as a parameter".to_owned()),
        Scalar::Text | Scalar::Json | Scalar::Date | Scalar::Timestamp | Scalar::TimestampTz => {
            Ok(Value::String(text.to_owned()))
        }
    }
}

/// JSON has no number for these: they go by name.
fn double(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number)
}

/// `{1,NULL,"a b"}`.
fn array_from_text(text: &str, scalar: Scalar) -> Result<Value, String> {
    let malformed = || format!("malformed array literal: {text:?}");
    let inner = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(malformed)?;
    let mut values = Vec::new();
    let mut characters = inner.chars().peekable();
    if inner.trim().is_empty() {
        return Ok(Value::Array(values));
    }
    loop {
        let mut element = String::new();
        let mut quoted = false;
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.next_if_eq(&'"').is_some() {
            quoted = true;
            loop {
                match characters.next().ok_or_else(malformed)? {
                    '"' => break,
                    '\\' => element.push(characters.next().ok_or_else(malformed)?),
                    other => element.push(other),
                }
            }
            while characters.next_if(|c| c.is_whitespace()).is_some() {}
        } else {
            while let Some(other) = characters.next_if(|c| *c != ',') {
                match other {
                    '{' | '}' | '"' => return Err(malformed()),
                    '\\' => element.push(characters.next().ok_or_else(malformed)?),
                    plain => element.push(plain),
                }
            }
            element.truncate(element.trim_end().len());
        }
        values.push(if !quoted && element.eq_ignore_ascii_case("null") {
            Value::Null
        } else {
            from_text(&element, PgType { scalar, array: false })?
        });
        match characters.next() {
            None => return Ok(Value::Array(values)),
            Some(',') => {}
            Some(_) => return Err(malformed()),
        }
    }
}

fn exact<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
    bytes.try_into().map_err(|_| format!("{} bytes where {N} are expected", bytes.len()))
}

fn from_binary(bytes: Bytes, pg: PgType) -> Result<Value, String> {
    if pg.array {
        return array_from_binary(bytes, pg.scalar);
    }
    Ok(match pg.scalar {
        Scalar::Bool => Value::Bool(exact::<1>(&bytes)? != [0]),
        Scalar::Int2 => Value::from(i16::from_be_bytes(exact(&bytes)?)),
        Scalar::Int4 => Value::from(i32::from_be_bytes(exact(&bytes)?)),
        Scalar::Int8 => Value::from(i64::from_be_bytes(exact(&bytes)?)),
        Scalar::Float4 => double(f64::from(f32::from_be_bytes(exact(&bytes)?))),
        Scalar::Float8 => double(f64::from_be_bytes(exact(&bytes)?)),
        Scalar::Numeric => numeric(bytes)?,
        Scalar::Date => {
            let days = i64::from(i32::from_be_bytes(exact(&bytes)?));
            reading(days.saturating_mul(DAY_MS).saturating_add(EPOCH_MS))
        }
        Scalar::Timestamp => reading(since_epoch(i64::from_be_bytes(exact(&bytes)?))),
        Scalar::TimestampTz => Value::String(format_iso(Timestamp(since_epoch(i64::from_be_bytes(exact(&bytes)?))))),
        Scalar::Bytea => return Err("bytea is not offered as a parameter".to_owned()),
        Scalar::Text | Scalar::Json => Value::String(
            String::from_utf8(bytes.to_vec())
                .map_err(|error| format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()))?,
        ),
    })
}

/// Microseconds since 2000 as milliseconds since 1970.
fn since_epoch(micros: i64) -> i64 {
    micros.div_euclid(MICROS_PER_MILLI).saturating_add(EPOCH_MS)
}

/// A clock's reading, without a zone: the query takes it in the session's, as it does with text.
fn reading(millis: i64) -> Value {
    Value::String(format_iso(Timestamp(millis)).trim_end_matches('Z').to_owned())
}

/// Groups of four decimal digits; the value as the nearest double.
fn numeric(mut bytes: Bytes) -> Result<Value, String> {
    let short = || "a numeric that ends too early".to_owned();
    if bytes.len() < 8 {
        return Err(short());
    }
    let groups = bytes.get_u16();
    let weight = i32::from(bytes.get_i16());
    let sign = bytes.get_u16();
    let _scale = bytes.get_u16();
    match sign {
        0 | 0x4000 => {}
        0xc000 => return Ok(double(f64::NAN)),
        0xd000 => return Ok(double(f64::INFINITY)),
        0xf000 => return Ok(double(f64::NEG_INFINITY)),
        other => return Err(format!("a numeric with the sign {other:#x}")),
    }
    if bytes.len() != usize::from(groups) * 2 {
        return Err(short());
    }
    let mut digits = String::new();
    for _ in 0..groups {
        digits.push_str(&format!("{:04}", bytes.get_u16()));
    }
    let text = format!("{}{digits}e{}", if sign == 0 { "0" } else { "-0" }, (weight - i32::from(groups) + 1) * 4);
    text.parse::<f64>().map(double).map_err(|_| "a numeric that is no number".to_owned())
}

fn array_from_binary(mut bytes: Bytes, scalar: Scalar) -> Result<Value, String> {
    let short = || "an array that ends too early".to_owned();
    if bytes.len() < 12 {
        return Err(short());
    }
    let dimensions = bytes.get_i32();
    let _has_nulls = bytes.get_i32();
    let _element = bytes.get_u32();
    if dimensions == 0 {
        return Ok(Value::Array(Vec::new()));
    }
    if dimensions != DIMENSIONS_MAX || bytes.len() < 8 {
        return Err(format!("an array of {dimensions} dimensions; one is offered"));
    }
    let length = bytes.get_i32();
    let _lower = bytes.get_i32();
    // Each element has at least its length of four bytes, so this cannot allocate more than was sent.
    let count =
        usize::try_from(length).ok().filter(|count| count.saturating_mul(4) <= bytes.len()).ok_or_else(short)?;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        if bytes.len() < 4 {
            return Err(short());
        }
        let size = bytes.get_i32();
        if size == -1 {
            values.push(Value::Null);
            continue;
        }
        let size = usize::try_from(size).ok().filter(|size| *size <= bytes.len()).ok_or_else(short)?;
        values.push(from_binary(bytes.split_to(size), PgType { scalar, array: false })?);
    }
    Ok(Value::Array(values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(text: &'static str, pg: PgType) -> Result<Value, BadParameter> {
        decode(1, Some(&Bytes::from_static(text.as_bytes())), pg, false).map(|parameter| parameter.value)
    }

    fn binary(bytes: &[u8], pg: PgType) -> Result<Value, BadParameter> {
        decode(1, Some(&Bytes::copy_from_slice(bytes)), pg, true).map(|parameter| parameter.value)
    }

    fn scalar(scalar: Scalar) -> PgType {
        PgType { scalar, array: false }
    }

    #[test]
    fn text_values() {
        assert_eq!(text("42", scalar(Scalar::Int8)), Ok(json!(42)));
        assert_eq!(text("on", scalar(Scalar::Bool)), Ok(json!(true)));
        assert_eq!(text("1e3", scalar(Scalar::Numeric)), Ok(json!(1000.0)));
        assert_eq!(text("2015-09-12", scalar(Scalar::Date)), Ok(json!("2015-09-12")));
        let error = text("4x", scalar(Scalar::Int4)).expect_err("not a number");
        assert_eq!(error.to_string(), "parameter $1: invalid input syntax for type int4: \"4x\"");
        assert_eq!(decode(1, None, PgType::TEXT, false).expect("null").value, Value::Null);
    }

    #[test]
    fn text_arrays() {
        let words = PgType { scalar: Scalar::Text, array: true };
        assert_eq!(text(r#"{a, "b,\"c" ,NULL,"NULL",""}"#, words), Ok(json!(["a", "b,\"c", null, "NULL", ""])));
        assert_eq!(text("{}", words), Ok(json!([])));
        assert_eq!(text("{1,2}", PgType { scalar: Scalar::Int8, array: true }), Ok(json!([1, 2])));
        for bad in ["", "{", "{\"a}", "{{1}}", "{\"a\"b}"] {
            assert!(text(bad, words).is_err(), "{bad}");
        }
    }

    #[test]
    fn binary_values() {
        assert_eq!(binary(&[0, 0, 1, 0], scalar(Scalar::Int4)), Ok(json!(256)));
        assert_eq!(binary(&[1], scalar(Scalar::Bool)), Ok(json!(true)));
        assert_eq!(binary(&1.5_f64.to_be_bytes(), scalar(Scalar::Float8)), Ok(json!(1.5)));
        assert_eq!(
            binary(&1_000_000_i64.to_be_bytes(), scalar(Scalar::Timestamp)),
            Ok(json!("2000-01-01T00:00:01.000"))
        );
        assert_eq!(
            binary(&1_000_000_i64.to_be_bytes(), scalar(Scalar::TimestampTz)),
            Ok(json!("2000-01-01T00:00:01.000Z"))
        );
        assert_eq!(binary(&[0, 2, 0, 0, 0x40, 0, 0, 2, 0, 10, 0x13, 0x88], scalar(Scalar::Numeric)), Ok(json!(-10.5)));
        assert!(binary(&[1, 2], scalar(Scalar::Int8)).is_err());
        assert!(binary(&[0xff], PgType::TEXT).is_err());
        let list = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9];
        let longs = PgType { scalar: Scalar::Int8, array: true };
        assert_eq!(binary(&list, longs), Ok(json!([9])));
        for cut in 0..list.len() {
            assert!(binary(&list[..cut], longs).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_count_larger_than_the_message_is_refused() {
        let list = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1];
        assert!(binary(&list, PgType { scalar: Scalar::Int8, array: true }).is_err());
    }
}
