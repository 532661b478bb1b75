use super::*;
use crate::rows::Reader;
use crate::spec::InputFormat;
use arrow_cast::display::array_value_to_string;

/// What a column of a type makes of one JSON value: the value as text, or `-` for a null; `!` if it did not fit.
fn push(ty: ColumnType, reading: Reading, value: &str) -> String {
    let text = format!("{{\"v\":{value}}}");
    let mut reader = Reader::new(&InputFormat::Json {});
    let mut at = 0;
    assert_eq!(reader.next(&text, &mut at), Ok(true), "{text}");
    let mut column = Column::new(ty, reading, 0);
    let pushed = column.push(reader.row().cell(0), reader.row().texts(&text));
    let array = column.finish().expect("an array");
    assert_eq!((array.len(), array.data_type()), (1, &ty.arrow()));
    let shown = if array.is_null(0) { "-".to_owned() } else { array_value_to_string(&array, 0).expect("text") };
    if pushed.is_err() { format!("{shown}!") } else { shown }
}

#[test]
fn dimensions_read_values_as_druid_does() {
    use ColumnType::{ArrayDouble, ArrayLong, ArrayString, Boolean, Double, Json, Long, String, Timestamp};
    let cases = [
        (String, "\"x\"", "x"),
        (String, "\"\"", ""),
        (String, "null", "-"),
        (String, "true", "true"),
        (String, "12", "12"),
        (String, "1.0", "1.0"),
        (String, "1e10", "1.0E10"),
        (String, "18446744073709551616", "18446744073709551616"),
        (String, "[]", "-"),
        (String, "[null]", "-"),
        (String, "[\"one\"]", "one"),
        (String, "[[1]]", "[1]"),
        (String, "[\"a\", \"b\"]", "[\"a\",\"b\"]"),
        (String, "{\"a\": 1}", "{\"a\":1}"),
        (Long, "12", "12"),
        (Long, "\"12\"", "12"),
        (Long, "\"12.0\"", "12"),
        (Long, "1.9", "1"),
        (Long, "\"1.9\"", "-!"),
        (Long, "\"\"", "-!"),
        (Long, "\"x\"", "-!"),
        (Long, "true", "1"),
        (Long, "[7]", "7"),
        (Long, "[7,8]", "-!"),
        (Long, "[[7]]", "-!"),
        (Long, "{}", "-!"),
        (Long, "1e30", "-!"),
        (Long, "9223372036854775808", "-!"),
        (Double, "12", "12.0"),
        (Double, "\"1.5\"", "1.5"),
        (Double, "\"x\"", "-!"),
        (Double, "false", "0.0"),
        (Boolean, "true", "true"),
        (Boolean, "\"False\"", "false"),
        (Boolean, "2", "true"),
        (Boolean, "\"maybe\"", "-!"),
        (Timestamp, "0", "1970-01-01T00:00:00"),
        (Timestamp, "\"2015-09-12T00:46:58.771Z\"", "2015-09-12T00:46:58.771"),
        (Timestamp, "\"soon\"", "-!"),
        (Json, "\"x\"", "\"x\""),
        (Json, "{ \"a\": [1, 2] }", "{\"a\":[1,2]}"),
        (Json, "[1, 2.50]", "[1,2.50]"),
        (Json, "true", "true"),
        (Json, "null", "-"),
        (ArrayString, "[\"a\",null,1,{\"x\":[]}]", "[a, , 1, {\"x\":[]}]"),
        (ArrayString, "\"a\"", "[a]"),
        (ArrayString, "[]", "[]"),
        (ArrayString, "[\"\\u00e9\\n\"]", "[é\n]"),
        (ArrayLong, "[1,\"2\",null,true]", "[1, 2, , 1]"),
        (ArrayLong, "[1,\"x\"]", "[1, ]!"),
        (ArrayLong, "null", "-"),
        (ArrayDouble, "[1,2.5]", "[1.0, 2.5]"),
        (ArrayDouble, "3", "[3.0]"),
    ];
    for (ty, value, expected) in cases {
        assert_eq!(push(ty, Reading::Dimension, value), expected, "{ty} {value}");
    }
}

#[test]
fn metrics_and_floats_read_numbers_their_way() {
    assert_eq!(push(ColumnType::Long, Reading::Metric, "\"1,234\""), "1234");
    assert_eq!(push(ColumnType::Long, Reading::Metric, "\" +1.9 \""), "1");
    assert_eq!(push(ColumnType::Long, Reading::Metric, "\"\""), "-!");
    assert_eq!(push(ColumnType::Double, Reading::Metric, "\"1,234.5\""), "1234.5");
    assert_eq!(push(ColumnType::Double, Reading::Float, "11.11111111"), "11.11111068725586");
}

#[test]
fn a_column_widens_with_what_it_has() {
    let texts = Texts { input: "", scratch: "" };
    let mut column = Column::new(ColumnType::Long, Reading::Dimension, 2);
    column.push(Cell::Long(7), texts).expect("fits");
    column.widen(ColumnType::Double).expect("wider");
    column.push(Cell::Double(0.5), texts).expect("fits");
    column.widen(ColumnType::ArrayDouble).expect("wider");
    column.push(Cell::Long(1), texts).expect("fits");
    column.widen(ColumnType::ArrayString).expect("wider");
    column.widen(ColumnType::Json).expect("wider");
    column.push(Cell::Bool(true), texts).expect("fits");
    assert!(column.widen(ColumnType::Long).is_err());
    let array = column.finish().expect("an array");
    let shown: Vec<String> = (0..array.len()).map(|row| array_value_to_string(&array, row).expect("text")).collect();
    assert_eq!(shown, ["", "", "[\"7.0\"]", "[\"0.5\"]", "[\"1.0\"]", "true"]);
}
