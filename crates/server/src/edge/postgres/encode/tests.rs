use arrow::array::{Array, ArrayRef, ListArray, StringArray};
use arrow::datatypes::Int64Type;
use bytes::BytesMut;
use store::calendar::Zone;

use super::{Encoding, write_field, write_numeric, write_text};
use crate::edge::cells::{Cell, Cells};
use crate::edge::postgres::types::{PgType, Scalar};

fn scalar(scalar: Scalar) -> PgType {
    PgType { scalar, array: false }
}

fn text_in(cell: &Cell<'_>, kind: Scalar, zone: &str) -> String {
    let mut out = Vec::new();
    write_text(&mut out, cell, scalar(kind), Zone::parse(zone).expect("zone")).expect("in range");
    String::from_utf8(out).expect("utf-8")
}

fn text(cell: &Cell<'_>, kind: Scalar) -> String {
    text_in(cell, kind, "UTC")
}

fn binary(cell: &Cell<'_>, pg: PgType) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_field(&mut out, cell, Encoding { pg, binary: true }, Zone::Utc).expect("in range");
    out.to_vec()
}

#[test]
fn doubles_are_spelled_as_postgresql_does() {
    let cases = [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (1.5, "1.5"),
        (100_000.0, "100000"),
        (123_456.789, "123456.789"),
        (1e14, "100000000000000"),
        (1e15, "1e+15"),
        (1.234_567_890_123_456_8e17, "1.2345678901234568e+17"),
        (0.0001, "0.0001"),
        (0.000_015, "1.5e-05"),
        (-1e-300, "-1e-300"),
        (f64::INFINITY, "Infinity"),
        (f64::NAN, "NaN"),
    ];
    for (value, expected) in cases {
        assert_eq!(text(&Cell::Double(value), Scalar::Float8), expected);
    }
    assert_eq!(text(&Cell::Float(0.1), Scalar::Float4), "0.1");
}

#[test]
fn moments_are_spelled_as_postgresql_does() {
    let at = Cell::Timestamp { micros: 1_442_018_818_771_000 };
    assert_eq!(text(&at, Scalar::Timestamp), "2015-09-12 00:46:58.771");
    assert_eq!(text_in(&at, Scalar::Timestamp, "Asia/Seoul"), "2015-09-12 09:46:58.771");
    assert_eq!(text_in(&at, Scalar::TimestampTz, "Asia/Seoul"), "2015-09-12 09:46:58.771+09");
    assert_eq!(text_in(&at, Scalar::TimestampTz, "+05:30"), "2015-09-12 06:16:58.771+05:30");
    assert_eq!(text(&Cell::Timestamp { micros: 0 }, Scalar::TimestampTz), "1970-01-01 00:00:00+00");
    assert_eq!(text(&Cell::Timestamp { micros: -1 }, Scalar::Timestamp), "1969-12-31 23:59:59.999999");
    assert_eq!(text(&Cell::Date { days: 10_957 }, Scalar::Date), "2000-01-01");
    assert_eq!(text(&Cell::Date { days: -719_163 }, Scalar::Date), "0001-12-31 BC");
    let ancient = Cell::Timestamp { micros: -719_163 * 86_400_000_000 };
    assert_eq!(text(&ancient, Scalar::Timestamp), "0001-12-31 00:00:00 BC");
}

#[test]
fn other_text() {
    assert_eq!(text(&Cell::Boolean(true), Scalar::Bool), "t");
    assert_eq!(text(&Cell::Long(-5), Scalar::Int8), "-5");
    assert_eq!(text(&Cell::Binary(&[0, 255]), Scalar::Bytea), "\\x00ff");
    let mut out = Vec::new();
    let error =
        write_text(&mut out, &Cell::BigUnsigned(u64::MAX), scalar(Scalar::Int8), Zone::Utc).expect_err("too big");
    assert_eq!(error.to_string(), "18446744073709551615 is out of range for type int8");
}

fn words() -> ArrayRef {
    let mut builder = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
    builder.append_value([Some("a"), None, Some("b c"), Some("q\"\\"), Some(""), Some("null")]);
    std::sync::Arc::new(builder.finish())
}

#[test]
fn arrays_as_text() {
    let words = words();
    let cells = Cells::new(words.as_ref());
    let mut out = Vec::new();
    write_text(&mut out, &cells.cell(0), PgType { scalar: Scalar::Text, array: true }, Zone::Utc).expect("text");
    assert_eq!(String::from_utf8(out).expect("utf-8"), r#"{a,NULL,"b c","q\"\\","","null"}"#);
}

#[test]
fn binary_scalars() {
    assert_eq!(binary(&Cell::Null, PgType::TEXT), [0xff, 0xff, 0xff, 0xff]);
    assert_eq!(binary(&Cell::Long(258), scalar(Scalar::Int8)), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(binary(&Cell::Long(-2), scalar(Scalar::Int2)), [0, 0, 0, 2, 0xff, 0xfe]);
    assert_eq!(binary(&Cell::Boolean(true), scalar(Scalar::Bool)), [0, 0, 0, 1, 1]);
    assert_eq!(binary(&Cell::Text("hi"), PgType::TEXT), [0, 0, 0, 2, b'h', b'i']);
    assert_eq!(binary(&Cell::Double(1.0), scalar(Scalar::Float8)), [0, 0, 0, 8, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(binary(&Cell::Date { days: 10_958 }, scalar(Scalar::Date)), [0, 0, 0, 4, 0, 0, 0, 1]);
    let second_after = Cell::Timestamp { micros: 946_684_801_000_000 };
    assert_eq!(binary(&second_after, scalar(Scalar::Timestamp)), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40]);
    let too_big = write_field(
        &mut BytesMut::new(),
        &Cell::Long(70_000),
        Encoding { pg: scalar(Scalar::Int2), binary: true },
        Zone::Utc,
    );
    assert!(too_big.is_err());
}

#[test]
fn binary_arrays() {
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(7), None]), Some(vec![])]);
    let cells = Cells::new(&lists);
    let pg = PgType { scalar: Scalar::Int8, array: true };
    let expected: Vec<u8> = [
        [0, 0, 0, 36].as_slice(),
        &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 0, 1],
        &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff],
    ]
    .concat();
    assert_eq!(binary(&cells.cell(0), pg), expected);
    assert_eq!(binary(&cells.cell(1), pg), [0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20]);
}

#[test]
fn binary_numerics() {
    let numeric = |text: &str| {
        let mut out = BytesMut::new();
        write_numeric(&mut out, text);
        out.to_vec()
    };
    assert_eq!(numeric("0"), [0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(numeric("0.00"), [0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(numeric("10.50"), [0, 2, 0, 0, 0, 0, 0, 2, 0, 10, 0x13, 0x88]);
    assert_eq!(numeric("-12345"), [0, 2, 0, 1, 0x40, 0, 0, 0, 0, 1, 0x09, 0x29]);
    assert_eq!(numeric("0.0001"), [0, 1, 0xff, 0xff, 0, 0, 0, 4, 0, 1]);
    assert_eq!(numeric("10000"), [0, 1, 0, 1, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn what_a_column_is_described_as() {
    let column = |druid_type: &str, array: &ArrayRef| query::ResultColumn {
        name: "c".into(),
        druid_type: druid_type.into(),
        sql_type: "X".into(),
        arrow: array.data_type().clone(),
    };
    let text: ArrayRef = std::sync::Arc::new(StringArray::from(vec!["x"]));
    assert_eq!(PgType::of_column(&column("STRING", &text)).oid(), 25);
    assert_eq!(PgType::of_column(&column("COMPLEX<json>", &text)).oid(), 114);
    assert_eq!(PgType::of_column(&column("ARRAY<STRING>", &words())).oid(), 1_009);
    assert_eq!(PgType::from_oid(0), None);
    assert_eq!(PgType::from_oid(20), Some(scalar(Scalar::Int8)));
    assert_eq!(PgType::from_oid(4_000_000), None);
}
