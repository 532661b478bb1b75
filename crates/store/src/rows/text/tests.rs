use super::*;

fn double(value: f64) -> String {
    let mut out = String::new();
    push_double(&mut out, value);
    out
}

#[test]
fn doubles_print_as_java_prints_them() {
    let cases = [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (0.1, "0.1"),
        (0.001, "0.001"),
        (0.0001, "1.0E-4"),
        (1.234e-5, "1.234E-5"),
        (9_999_999.0, "9999999.0"),
        (1e7, "1.0E7"),
        (-1.5e300, "-1.5E300"),
        (f64::NAN, "NaN"),
        (f64::NEG_INFINITY, "-Infinity"),
    ];
    for (value, expected) in cases {
        assert_eq!(double(value), expected);
    }
}

#[test]
fn numbers_in_text() {
    let longs = [
        ("12", Some(12)),
        ("+12", Some(12)),
        (" 12 ", Some(12)),
        ("12.0", Some(12)),
        ("1e3", Some(1_000)),
        ("1.9", None),
        ("", None),
        ("abc", None),
        ("9223372036854775807", Some(i64::MAX)),
        ("9223372036854775808", None),
        ("NaN", None),
        ("inf", None),
    ];
    for (text, expected) in longs {
        assert_eq!(long_of_text(text), expected, "{text}");
    }
    let doubles = [
        ("1.5", Some(1.5)),
        ("-.5", Some(-0.5)),
        ("1e3", Some(1e3)),
        ("infinity", None),
        ("nan", None),
        ("-inf", None),
        ("", None),
    ];
    for (text, expected) in doubles {
        assert_eq!(double_of_text(text), expected, "{text}");
    }
    assert_eq!(double_of_text("Infinity"), Some(f64::INFINITY));
    assert_eq!(metric_text(" +1,234.5 "), "1234.5");
    assert_eq!(long_of_double(1.9), Some(1));
    assert_eq!(long_of_double(-1.9), Some(-1));
    assert_eq!(long_of_double(1e19), None);
}

#[test]
fn json_text_reads_back() {
    for text in ["", "plain", "quote \" back \\ slash", "\u{0}\u{1f}\n\r\t", "é한글🦀"] {
        let mut out = String::new();
        push_json_text(&mut out, text);
        let back: String = serde_json::from_str(&out).expect("valid JSON");
        assert_eq!(back, text);
    }
}
