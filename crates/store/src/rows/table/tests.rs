use arrow_cast::display::array_value_to_string;

use super::*;
use crate::spec::DimensionSpec;

/// Reads JSON rows; the columns with their types and values, one line a column.
fn read(spec: &TableSpec, rows: &[&str]) -> Vec<String> {
    let mut reader = Reader::new(&spec.input_format);
    let mut table = Table::new(spec, &spec.initial_schema(), &mut reader);
    for text in rows {
        let mut at = 0;
        assert_eq!(reader.next(text, &mut at), Ok(true), "{text}");
        let (time, slot) =
            table.time_of(reader.row(), reader.row().texts(text), Timestamp(99)).expect("every row has a time");
        table.append(time, slot, &reader, text).expect("there is room");
    }
    show(&mut table)
}

fn show(table: &mut Table) -> Vec<String> {
    let batch = table.finish().expect("a batch");
    let columns = table.schema().columns().iter().zip(batch.columns());
    columns
        .skip(1)
        .map(|(column, array)| {
            let value = |row| {
                if array.is_null(row) { "-".to_owned() } else { array_value_to_string(array, row).expect("text") }
            };
            let values: Vec<String> = (0..array.len()).map(value).collect();
            format!("{} {}: {}", column.name, column.ty, values.join(" "))
        })
        .collect()
}

fn spec(discover: Discover, declared: &[(&str, DimensionType)]) -> TableSpec {
    let mut spec = TableSpec::discover("t", "t");
    spec.dimensions.discover = discover;
    spec.dimensions.declared =
        declared.iter().map(|(name, kind)| DimensionSpec { name: (*name).to_owned(), kind: *kind }).collect();
    spec
}

#[test]
fn discovery_finds_and_widens_columns() {
    let rows = [
        r#"{"time":1,"a":1,"n":null}"#,
        r#"{"time":2,"a":2.5,"b":true}"#,
        r#"{"time":3,"a":"x","c":[1]}"#,
        r#"{"time":4,"b":7,"c":"y","d":{"k":1}}"#,
        r#"{"d":3,"c":null}"#,
    ];
    let expected =
        ["a string: 1.0 2.5 x - -", "b long: - 1 - 7 -", "c array_string: - - [1] [y] -", "d json: - - - {\"k\":1} 3"];
    assert_eq!(read(&spec(Discover::Typed, &[]), &rows), expected);
}

#[test]
fn discovery_of_strings_takes_no_objects() {
    let rows = [r#"{"time":1,"a":1,"o":{"x":1}}"#, r#"{"time":2,"a":"x","l":["p","q"],"b":true}"#];
    let expected = ["a string: 1 x", "l string: - [\"p\",\"q\"]", "b string: - true"];
    assert_eq!(read(&spec(Discover::Strings, &[]), &rows), expected);
}

#[test]
fn without_discovery_only_declared_columns_are_there() {
    let declared = [
        ("a", DimensionType::String),
        ("x", DimensionType::Auto),
        ("b", DimensionType::Long),
        ("never", DimensionType::Auto),
    ];
    let rows = [r#"{"time":1,"zzz":1,"a":1}"#, r#"{"time":2,"b":"7","x":1}"#, r#"{"time":3,"x":"s","b":{}}"#];
    let expected = ["a string: 1 - -", "b long: - 7 -", "x string: - 1 s"];
    assert_eq!(read(&spec(Discover::No, &declared), &rows), expected, "auto columns come with their first value");
}

#[test]
fn the_time_is_the_first_readable_candidate() {
    let spec = spec(Discover::Typed, &[]);
    // `time` gives way to `timestamp`, then to the record's own; a field that gave no time is a column.
    let rows = [r#"{"timestamp":"2015","time":"noon"}"#, r#"{"time":"noon"}"#, r#"{"__time":5}"#];
    assert_eq!(read(&spec, &rows), ["time string: noon noon -"]);
    let mut strict = spec.clone();
    strict.timestamp.columns = vec!["time".to_owned()];
    let mut reader = Reader::new(&strict.input_format);
    let table = Table::new(&strict, &strict.initial_schema(), &mut reader);
    for (text, expected) in [
        (r#"{"time":"noon"}"#, Err(TimeError::Unreadable)),
        (r#"{"time":null}"#, Err(TimeError::Missing)),
        (r#"{"time":[1]}"#, Err(TimeError::Unreadable)),
        (r#"{"time":9223372036854775807}"#, Err(TimeError::Unreadable)),
        (r#"{"time":12}"#, Ok(Timestamp(12))),
    ] {
        let mut at = 0;
        assert_eq!(reader.next(text, &mut at), Ok(true));
        let time = table.time_of(reader.row(), reader.row().texts(text), Timestamp(0)).map(|(time, _)| time);
        assert_eq!(time, expected, "{text}");
    }
}

#[test]
fn columns_are_bounded() {
    let spec = spec(Discover::Typed, &[]);
    let mut reader = Reader::new(&spec.input_format);
    let mut table = Table::new(&spec, &spec.initial_schema(), &mut reader);
    let mut push = |text: &str| {
        let mut at = 0;
        assert_eq!(reader.next(text, &mut at), Ok(true));
        table.append(Timestamp(0), None, &reader, text)
    };
    let many = |from: usize, to: usize| {
        let fields: Vec<String> = (from..to).map(|n| format!("\"f{n}\":{n}")).collect();
        format!("{{{}}}", fields.join(","))
    };
    assert_eq!(push(&many(0, COLUMNS_MAX - 1)), Ok(0));
    assert_eq!(push(&many(5_000, 5_001)), Err(TooManyColumns));
    assert_eq!(push(&many(6_000, 16_000)), Err(TooManyColumns), "more names than are remembered");
    assert_eq!(push(&many(0, 10)), Ok(0), "rows of known columns are still taken");
    assert_eq!(push(&format!("{{\"{}\":1}}", "x".repeat(2_000))), Err(TooManyColumns));
    assert_eq!(table.rows(), 2);
    assert_eq!(table.finish().expect("a batch").num_columns(), COLUMNS_MAX);
}

#[test]
fn adopting_a_schema_keeps_the_rows() {
    let spec = spec(Discover::Typed, &[]);
    let mut reader = Reader::new(&spec.input_format);
    let mut table = Table::new(&spec, &spec.initial_schema(), &mut reader);
    let push = |table: &mut Table, reader: &mut Reader, text: &str| {
        let mut at = 0;
        assert_eq!(reader.next(text, &mut at), Ok(true));
        table.append(Timestamp(0), None, reader, text).expect("there is room");
    };
    push(&mut table, &mut reader, r#"{"a":1,"later":null}"#);
    let theirs = [("later", ColumnType::Long), ("a", ColumnType::String), ("b", ColumnType::Json)];
    let theirs = theirs.map(|(name, ty)| ColumnDef::dimension(name, ty));
    let theirs = TableSchema::new(std::iter::once(ColumnDef::time()).chain(theirs).collect()).expect("a schema");
    table.adopt(&spec, &theirs, &mut reader);
    push(&mut table, &mut reader, r#"{"later":2,"b":[1]}"#);
    assert_eq!(show(&mut table), ["a string: 1 -", "later long: - 2", "b json: - [1]"]);
}
