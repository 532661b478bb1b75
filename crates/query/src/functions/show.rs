//! Numbers for people, addresses, and STRING_FORMAT.

use std::net::Ipv4Addr;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use super::scalar::{
    Constants, Scalar, all_text, answer, array_arg, as_given, returns_boolean, returns_long, returns_text,
};

/// Widest field and most digits of STRING_FORMAT.
const WIDTH_MAX: usize = 1_000;

pub fn functions() -> Vec<Scalar> {
    vec![
        Scalar::new("human_readable_binary_byte_format", longs, returns_text, |args| sized(args, &BINARY)),
        Scalar::new("human_readable_decimal_byte_format", longs, returns_text, |args| sized(args, &DECIMAL_BYTES)),
        Scalar::new("human_readable_decimal_format", longs, returns_text, |args| sized(args, &DECIMAL)),
        Scalar::new("ipv4_parse", all_text, returns_long, ipv4_parse),
        Scalar::new("ipv4_stringify", all_text, returns_text, ipv4_stringify),
        Scalar::new("ipv4_match", all_text, returns_boolean, ipv4_match),
        Scalar::new("string_format", as_given, returns_text, string_format),
    ]
}

fn longs(types: &[DataType]) -> Result<Vec<DataType>> {
    Ok(vec![DataType::Int64; types.len()])
}

/// A system of prefixes: its step, and the words from one on.
struct Units {
    step: f64,
    words: [&'static str; 7],
}

const BINARY: Units = Units { step: 1024.0, words: [" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"] };
const DECIMAL_BYTES: Units = Units { step: 1000.0, words: [" B", " KB", " MB", " GB", " TB", " PB", " EB"] };
const DECIMAL: Units = Units { step: 1000.0, words: ["", " K", " M", " G", " T", " P", " E"] };

fn sized(args: &ScalarFunctionArgs, units: &Units) -> Result<ColumnarValue> {
    let values = array_arg(args, 0)?;
    let digits = match args.args.get(1) {
        Some(_) => {
            let digits = array_arg(args, 1)?;
            let digits = digits.as_primitive::<Int64Type>();
            if digits.is_empty() || digits.is_null(0) {
                2
            } else {
                usize::try_from(digits.value(0).clamp(0, 3)).unwrap_or(2)
            }
        }
        None => 2,
    };
    let texts: StringArray = values
        .as_primitive::<Int64Type>()
        .iter()
        .map(|value| {
            #[expect(clippy::cast_precision_loss, reason = "shown with at most three digits")]
            let mut size = value? as f64;
            let mut word = 0;
            while size.abs() >= units.step && word + 1 < units.words.len() {
                size /= units.step;
                word += 1;
            }
            let digits = if word == 0 { 0 } else { digits };
            Some(format!("{size:.digits$}{}", units.words.get(word).copied().unwrap_or_default()))
        })
        .collect();
    answer(args, Arc::new(texts) as ArrayRef)
}

fn address(text: &str) -> Option<u32> {
    text.parse::<Ipv4Addr>().map(u32::from).ok().or_else(|| text.parse().ok())
}

fn ipv4_parse(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let texts = array_arg(args, 0)?;
    let longs: Int64Array = texts.as_string::<i32>().iter().map(|text| address(text?).map(i64::from)).collect();
    answer(args, Arc::new(longs) as ArrayRef)
}

fn ipv4_stringify(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let texts = array_arg(args, 0)?;
    let texts: StringArray = texts
        .as_string::<i32>()
        .iter()
        .map(|text| address(text?).map(|found| Ipv4Addr::from(found).to_string()))
        .collect();
    answer(args, Arc::new(texts) as ArrayRef)
}

fn ipv4_match(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let subnet = Constants(args).needed(1, "the subnet")?;
    let (base, bits) = subnet.split_once('/').unwrap_or((&subnet, "32"));
    let (Some(base), Ok(bits @ 0..=32)) = (address(base), bits.parse::<u32>()) else {
        return exec_err!("{subnet} is no subnet; write it as 10.0.0.0/8");
    };
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    let texts = array_arg(args, 0)?;
    let inside: BooleanArray =
        texts.as_string::<i32>().iter().map(|text| Some(address(text?)? & mask == base & mask)).collect();
    answer(args, Arc::new(inside) as ArrayRef)
}

/// `%s`, `%d`, `%x`, `%f` with width, `-`, `0` and digits, as in Java.
fn string_format(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let pattern = Constants(args).text(0)?;
    let Some(pattern) = pattern else { return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None))) };
    let values: Vec<ArrayRef> = (1..args.args.len()).map(|at| array_arg(args, at)).collect::<Result<_>>()?;
    let texts: Vec<ArrayRef> = values.iter().map(|array| Ok(cast(array, &DataType::Utf8)?)).collect::<Result<_>>()?;
    let rows = if super::scalar::all_constant(args) { 1 } else { args.number_rows };
    let out: Vec<String> = (0..rows)
        .map(|row| {
            let cell = |at: usize| {
                texts
                    .get(at)
                    .map(|text| text.as_string::<i32>())
                    .filter(|text| text.is_valid(row))
                    .map(|text| text.value(row))
            };
            format_row(&pattern, cell)
        })
        .collect();
    answer(args, Arc::new(StringArray::from(out)) as ArrayRef)
}

fn format_row<'a>(pattern: &str, cell: impl Fn(usize) -> Option<&'a str>) -> String {
    let mut out = String::new();
    let mut next = 0;
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(rest.get(..at).unwrap_or_default());
        let spec = rest.get(at + 1..).unwrap_or_default();
        let end = spec.find(|c: char| c.is_ascii_alphabetic() || c == '%').unwrap_or(spec.len());
        let flags = spec.get(..end).unwrap_or_default();
        match spec.get(end..=end) {
            Some("%") => out.push('%'),
            Some("n") => out.push('\n'),
            Some(letter) => {
                out.push_str(&padded(letter, flags, cell(next)));
                next += 1;
            }
            None => {}
        }
        rest = spec.get(end + 1..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

fn padded(letter: &str, flags: &str, value: Option<&str>) -> String {
    let (width, digits) = flags.split_once('.').unwrap_or((flags, ""));
    let left = width.starts_with('-');
    let zero = width.starts_with('0');
    let width: usize = width.trim_start_matches('-').parse().unwrap_or(0).min(WIDTH_MAX);
    let text = match (letter, value) {
        (_, None) => "null".to_owned(),
        ("f", Some(value)) => {
            let digits: usize = digits.parse().unwrap_or(6).min(WIDTH_MAX);
            value.parse::<f64>().map_or_else(|_| value.to_owned(), |value| format!("{value:.digits$}"))
        }
        ("x", Some(value)) => value.parse::<i64>().map_or_else(|_| value.to_owned(), |value| format!("{value:x}")),
        ("S", Some(value)) => value.to_uppercase(),
        (_, Some(value)) => value.to_owned(),
    };
    match (left, zero) {
        (true, _) => format!("{text:<width$}"),
        (false, true) => format!("{text:0>width$}"),
        (false, false) => format!("{text:>width$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_java() {
        let cells = ["a", "7", "1.5"];
        let cell = |at: usize| cells.get(at).copied();
        assert_eq!(format_row("%s-%03d|%.2f|%5s%%", cell), "a-007|1.50| null%");
        assert_eq!(format_row("%-3s|", cell), "a  |");
        assert_eq!(format_row("none", cell), "none");
        assert_eq!(format_row("%", cell), "");
    }
}
