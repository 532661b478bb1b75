use serde_json::{Map, Value};

use super::*;
use crate::rows::Texts;

/// The object as serde_json has it, built from our cells.
fn read(text: &str) -> std::result::Result<(Map<String, Value>, usize), JsonError> {
    let (mut fields, mut row) = (Fields::default(), Row::default());
    row.clear(0);
    let end = read_object(text, 0, &mut fields, &mut row)?;
    let texts = row.texts(text);
    let mut object = Map::new();
    for slot in 0..fields.len() {
        if let Some(value) = value_of(row.cell(slot), texts) {
            object.insert(fields.name(slot).to_owned(), value);
        }
    }
    Ok((object, end))
}

fn value_of(cell: Cell, texts: Texts<'_>) -> Option<Value> {
    Some(match cell {
        Cell::Missing => return None,
        Cell::Null => Value::Null,
        Cell::Bool(value) => value.into(),
        Cell::Long(value) => value.into(),
        Cell::Double(value) => value.into(),
        Cell::Text(span) => texts.get(span).into(),
        Cell::Number(span) | Cell::Array(span, _) | Cell::Object(span) => {
            let text = texts.get(span);
            match serde_json::from_str(text) {
                Ok(value) => value,
                // A tree has no place for a number beyond f64; we keep its digits.
                Err(error) if error.to_string().contains("out of range") => Value::Null,
                Err(error) => panic!("{text}: {error}"),
            }
        }
    })
}

const GOOD: &[&str] = &[
    "{}",
    " { } ",
    r#"{"a":1,"b":-2.5,"c":"x","d":true,"e":false,"f":null}"#,
    r#"{ "a" : [ 1 , 2.5 , "x y" , null , { "b" : [ ] } ] , "o" : { "k" : "v\"w" } }"#,
    r#"{"esc":"\"\\\/\b\f\n\r\t\u00e9\ud83e\udd80","k\u0065y":1}"#,
    r#"{"a":1,"a":2}"#,
    r#"{"":0}"#,
    r#"{"n":[0,-0,1e3,1E+3,1.5e-3,9223372036854775807,-9223372036854775808]}"#,
    r#"{"n":9223372036854775807,"m":-9223372036854775808,"k":123456789012345678}"#,
    r#"{"한":"글 é 🦀 and a longer text that passes several words of eight bytes"}"#,
    r#"{"q":"exactly8","r":"seven77","s":"123456789 \\ 123456789 \" 123456789"}"#,
];

#[test]
fn cells_are_what_a_tree_would_be() {
    for text in GOOD {
        let (object, end) = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let tree: Map<String, Value> = serde_json::from_str(text).expect("good JSON");
        assert_eq!(object, tree, "{text}");
        assert_eq!(end, text.trim_end().len(), "{text}");
    }
}

#[test]
fn bad_json_is_refused_with_its_place() {
    let cases = [
        ("", 0),
        ("[]", 0),
        ("null", 0),
        ("{", 1),
        (r#"{"a"}"#, 4),
        (r#"{"a":}"#, 5),
        (r#"{"a":1,}"#, 7),
        (r#"{"a":1 "b":2}"#, 7),
        (r#"{a:1}"#, 1),
        (r#"{'a':1}"#, 1),
        (r#"{"a":01}"#, 7),
        (r#"{"a":-}"#, 6),
        (r#"{"a":1.}"#, 7),
        (r#"{"a":1e}"#, 7),
        (r#"{"a":.5}"#, 5),
        (r#"{"a":+1}"#, 5),
        (r#"{"a":tru}"#, 5),
        (r#"{"a":NaN}"#, 5),
        ("{\"a\":\"x\ny\"}", 7),
        (r#"{"a":"\x"}"#, 7),
        (r#"{"a":"\u12"}"#, 8),
        (r#"{"a":"\u12é4"}"#, 8),
        (r#"{"a":"open}"#, 11),
        (r#"{"a":[1,]}"#, 8),
        (r#"{"a":[1"#, 7),
        (r#"{"a":{"b":1]}"#, 11),
        (r#"{"a":{"b" 1}}"#, 10),
    ];
    for (text, at) in cases {
        let error = read(text).expect_err(text);
        assert_eq!(error.at, at, "{text}: {error}");
    }
}

#[test]
fn numbers_too_large_keep_their_digits() {
    let (mut fields, mut row) = (Fields::default(), Row::default());
    let text = r#"{"a":18446744073709551616,"b":1e999,"c":-9223372036854775809,"d":1e300}"#;
    row.clear(0);
    read_object(text, 0, &mut fields, &mut row).expect("good JSON");
    let texts = row.texts(text);
    let number = |slot| match row.cell(slot) {
        Cell::Number(span) => texts.get(span),
        other => panic!("{other:?}"),
    };
    assert_eq!((number(0), number(1), number(2)), ("18446744073709551616", "1e999", "-9223372036854775809"));
    assert_eq!(row.cell(3), Cell::Double(1e300));
}

#[test]
fn nested_values_lose_their_white_space_and_nothing_else() {
    let text = r#"{"a": [ 1.50 , "x , \" [ y" , { "b" : null } ], "o":{"k" :"v"}, "p":{"k":"v"}}"#;
    let (mut fields, mut row) = (Fields::default(), Row::default());
    row.clear(0);
    read_object(text, 0, &mut fields, &mut row).expect("good JSON");
    let texts = row.texts(text);
    let nested = (0..3).map(|slot| match row.cell(slot) {
        Cell::Array(span, _) | Cell::Object(span) => texts.get(span),
        other => panic!("{other:?}"),
    });
    assert_eq!(nested.collect::<Vec<_>>(), [r#"[1.50,"x , \" [ y",{"b":null}]"#, r#"{"k":"v"}"#, r#"{"k":"v"}"#]);
}

#[test]
fn half_a_surrogate_pair_is_a_replacement_character() {
    let (object, _) = read(r#"{"a":"\ud83ex","b":"\udd80","c":"\ud83e\u0041"}"#).expect("read");
    let texts: Vec<&str> = object.values().filter_map(Value::as_str).collect();
    assert_eq!(texts, ["\u{fffd}x", "\u{fffd}", "\u{fffd}A"]);
}

#[test]
fn nesting_is_bounded() {
    let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(&deep(DEPTH_MAX - 1)).is_ok());
    let error = read(&deep(DEPTH_MAX)).expect_err("too deep");
    assert_eq!(error.what, "values are nested too deep");
    assert!(read(&"{\"a\":".repeat(100_000)).is_err());
}

#[test]
fn arrays_know_their_kinds() {
    let (mut fields, mut row) = (Fields::default(), Row::default());
    let cases = [
        ("[]", crate::schema::ColumnType::ArrayLong),
        ("[1,null,true]", crate::schema::ColumnType::ArrayLong),
        ("[1,2.5]", crate::schema::ColumnType::ArrayDouble),
        (r#"["a",1]"#, crate::schema::ColumnType::ArrayString),
        ("[[1]]", crate::schema::ColumnType::Json),
        (r#"[{"a":"b"}]"#, crate::schema::ColumnType::Json),
    ];
    for (array, expected) in cases {
        let text = format!("{{\"a\": {array}}}");
        row.clear(fields.len());
        read_object(&text, 0, &mut fields, &mut row).expect("good JSON");
        assert_eq!(row.cell(0).column_type(), Some(expected), "{array}");
    }
}

/// A tiny generator: good texts with bytes changed, dropped and doubled. What a tree refuses, we refuse; what
/// it takes, we take with the same values.
#[test]
fn agrees_with_a_tree_on_mutations() {
    let mut state = 0x5EA_u64;
    let mut random = move |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % bound
    };
    let (mut taken, mut refused) = (0, 0);
    for round in 0..60_000 {
        let mut bytes = GOOD[round % GOOD.len()].as_bytes().to_vec();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = b"{}[]\",:\\0123456789.eE+-tfnu \n\x01ab"[random(32)],
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, bytes[at]),
                _ => bytes.truncate(at.max(1)),
            }
            if bytes.is_empty() {
                bytes.push(b'{');
            }
        }
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let tree = serde_json::from_str::<Map<String, Value>>(&text);
        let ours = read(&text).ok().filter(|(_, end)| skip_space(&text, *end) == text.len());
        match (tree, ours) {
            (Ok(tree), Some((object, _))) => {
                assert_eq!(object, tree, "{text}");
                taken += 1;
            }
            (Err(_), None) => refused += 1,
            // A tree has no number beyond f64, we keep its digits; it refuses half surrogates, we replace them.
            (Err(error), Some(_)) if error.to_string().contains("out of range") => {}
            (Err(error), Some(_))
                if error.to_string().contains("surrogate") || error.to_string().contains("hex escape") => {}
            (tree, ours) => panic!("{text}: tree {tree:?}, ours {ours:?}"),
        }
    }
    assert!(taken > 1_000 && refused > 1_000, "{taken} taken, {refused} refused");
}
