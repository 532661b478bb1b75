//! What is read of a text, before any table is known.

use serde_json::json;

use super::*;

#[test]
fn settings_come_off_the_front() {
    let parsed = parse("SET a = 'x'; set b = -1; SET c = TRUE;\n -- done\nSELECT 1;", Dialect::Druid).unwrap();
    assert_eq!(serde_json::Value::Object(parsed.settings), json!({"a": "x", "b": -1, "c": true}));
    assert!(matches!(parsed.body, Body::Query(_)));
    let error = parse("SET a = b + 1; SELECT 1", Dialect::Druid).unwrap_err();
    assert!(error.to_string().starts_with("expected SET name = value"), "{error}");
}

#[test]
fn parameters_are_counted_in_the_order_of_the_text() {
    assert_eq!(parse("SELECT ?, '?', \"?\" FROM t WHERE a = ? -- ?", Dialect::Druid).unwrap().parameters, 2);
    assert_eq!(parse("SELECT $2, $1, $2", Dialect::Postgres).unwrap().parameters, 2);
    assert!(parse("SELECT $999999999", Dialect::Postgres).is_err());
}

#[test]
fn explain_has_two_spellings() {
    for (sql, dialect) in [
        ("explain plan for SELECT 1", Dialect::Druid),
        ("EXPLAIN SELECT 1", Dialect::Postgres),
        ("EXPLAIN PLAN FOR SELECT 1", Dialect::Postgres),
    ] {
        assert!(matches!(parse(sql, dialect).unwrap().body, Body::Explain { analyze: false, .. }), "{sql}");
    }
    assert!(parse("EXPLAIN PLAN FOR DROP TABLE t", Dialect::Druid).is_err());
}

#[test]
fn an_error_knows_its_place() {
    for (sql, place) in [
        ("SELECT 'open", Some((1, 8))),
        ("SELECT 1\nFROM )", Some((2, 6))),
        ("SELECT 1; SELECT 2", Some((1, 11))),
        ("SELECT 1 FROM t GROUP BY )", Some((1, 26))),
    ] {
        let found = parse(sql, Dialect::Druid).unwrap_err().position.map(|place| (place.line, place.column));
        assert_eq!(found, place, "{sql}");
    }
}

#[test]
fn nothing_in_a_text_makes_it_panic() {
    let pieces = [
        "SELECT",
        "(",
        ")",
        "?",
        "'",
        "\"",
        "$1",
        ",",
        "FROM t",
        "UNNEST(a)",
        "TRIM(BOTH FROM",
        "SET x =",
        ";",
        "EXPLAIN PLAN FOR",
        "INTERVAL '1' DAY",
        "FLOOR(a TO",
        "\u{0}",
        "é",
        "--",
        "/*",
        "IS DISTINCT FROM",
        "U&'\\",
        "E'\\",
    ];
    let mut seed = 7u64;
    for _ in 0..20_000 {
        let mut sql = String::new();
        for _ in 0..8 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sql.push_str(pieces[usize::try_from(seed >> 33).unwrap() % pieces.len()]);
            sql.push(' ');
        }
        let _ = parse(&sql, Dialect::Druid);
        let _ = parse(&sql, Dialect::Postgres);
    }
}
