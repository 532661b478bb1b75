use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray,
    RecordBatch, StringArray, StringDictionaryBuilder, StructArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type};
use query::ResultColumn;

use store::calendar::Zone;

use super::{Header, Renderer, ResultFormat};

fn column(name: &str, druid_type: &str, sql_type: &str, array: &ArrayRef) -> ResultColumn {
    ResultColumn {
        name: name.to_owned(),
        druid_type: druid_type.to_owned(),
        sql_type: sql_type.to_owned(),
        arrow: array.data_type().clone(),
    }
}

fn edits() -> (RecordBatch, Vec<ResultColumn>) {
    let time: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![1_442_018_818_771, 1_442_018_820_496]));
    let page: ArrayRef = Arc::new(StringArray::from(vec![Some("a,\"b\"\nc"), None]));
    let added: ArrayRef = Arc::new(Int64Array::from(vec![Some(36), Some(-9_007_199_254_740_993)]));
    let ratio: ArrayRef = Arc::new(Float64Array::from(vec![1e10, f64::NAN]));
    let robot: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None]));
    let columns = vec![
        column("__time", "LONG", "TIMESTAMP", &time),
        column("page", "STRING", "VARCHAR", &page),
        column("added", "LONG", "BIGINT", &added),
        column("ratio", "DOUBLE", "DOUBLE", &ratio),
        column("robot", "LONG", "BOOLEAN", &robot),
    ];
    let batch =
        RecordBatch::try_from_iter(columns.iter().map(|c| c.name.clone()).zip([time, page, added, ratio, robot]))
            .expect("batch");
    (batch, columns)
}

fn render(format: ResultFormat, header: Header, zone: &str) -> String {
    let (batch, columns) = edits();
    render_batch(&batch, columns, format, header, zone)
}

fn render_batch(
    batch: &RecordBatch,
    columns: Vec<ResultColumn>,
    format: ResultFormat,
    header: Header,
    zone: &str,
) -> String {
    let mut renderer = Renderer::new(format, header, columns, Zone::parse(zone).expect("zone"));
    let mut out = Vec::new();
    renderer.begin(&mut out);
    renderer.rows(&mut out, batch);
    renderer.end(&mut out);
    String::from_utf8(out).expect("utf-8")
}

const NONE: Header = Header { names: false, types: false, sql_types: false };
const NAMES: Header = Header { names: true, types: false, sql_types: false };
const ALL: Header = Header { names: true, types: true, sql_types: true };

#[test]
fn object() {
    assert_eq!(
        render(ResultFormat::Object, NONE, "UTC"),
        concat!(
            r#"[{"__time":"2015-09-12T00:46:58.771Z","page":"a,\"b\"\nc","added":36,"ratio":1.0E10,"robot":true},"#,
            r#"{"__time":"2015-09-12T00:47:00.496Z","page":null,"added":-9007199254740993,"ratio":"NaN","robot":null}]"#,
            "\n"
        )
    );
}

#[test]
fn object_with_headers() {
    let with_names = render(ResultFormat::Object, NAMES, "UTC");
    assert!(
        with_names.starts_with(r#"[{"__time":null,"page":null,"added":null,"ratio":null,"robot":null},{"__time":"2"#)
    );
    let with_types = render(ResultFormat::ObjectLines, ALL, "UTC");
    assert!(with_types.starts_with(concat!(
        r#"{"__time":{"type":"LONG","sqlType":"TIMESTAMP"},"page":{"type":"STRING","sqlType":"VARCHAR"},"#,
        r#""added":{"type":"LONG","sqlType":"BIGINT"},"ratio":{"type":"DOUBLE","sqlType":"DOUBLE"},"#,
        r#""robot":{"type":"LONG","sqlType":"BOOLEAN"}}"#,
        "\n{\"__time\":\"2015"
    )));
}

#[test]
fn array_with_headers_in_a_zone() {
    assert_eq!(
        render(ResultFormat::Array, ALL, "America/Los_Angeles"),
        concat!(
            r#"[["__time","page","added","ratio","robot"],"#,
            r#"["LONG","STRING","LONG","DOUBLE","LONG"],"#,
            r#"["TIMESTAMP","VARCHAR","BIGINT","DOUBLE","BOOLEAN"],"#,
            r#"["2015-09-11T17:46:58.771-07:00","a,\"b\"\nc",36,1.0E10,true],"#,
            r#"["2015-09-11T17:47:00.496-07:00",null,-9007199254740993,"NaN",null]]"#,
            "\n"
        )
    );
}

#[test]
fn lines_end_with_one_extra_newline() {
    assert_eq!(
        render(ResultFormat::ArrayLines, NAMES, "UTC"),
        concat!(
            r#"["__time","page","added","ratio","robot"]"#,
            "\n",
            r#"["2015-09-12T00:46:58.771Z","a,\"b\"\nc",36,1.0E10,true]"#,
            "\n",
            r#"["2015-09-12T00:47:00.496Z",null,-9007199254740993,"NaN",null]"#,
            "\n\n"
        )
    );
}

#[test]
fn csv() {
    assert_eq!(
        render(ResultFormat::Csv, ALL, "UTC"),
        concat!(
            "__time,page,added,ratio,robot\n",
            "LONG,STRING,LONG,DOUBLE,LONG\n",
            "TIMESTAMP,VARCHAR,BIGINT,DOUBLE,BOOLEAN\n",
            "2015-09-12T00:46:58.771Z,\"a,\"\"b\"\"\nc\",36,1.0E10,true\n",
            "2015-09-12T00:47:00.496Z,,-9007199254740993,NaN,\n",
            "\n"
        )
    );
}

#[test]
fn an_empty_result_is_whole_too() {
    let (batch, columns) = edits();
    let empty = batch.slice(0, 0);
    let render = |format| render_batch(&empty, columns.clone(), format, NONE, "UTC");
    assert_eq!(render(ResultFormat::Object), "[]\n");
    assert_eq!(render(ResultFormat::Array), "[]\n");
    assert_eq!(render(ResultFormat::ObjectLines), "\n");
    assert_eq!(render(ResultFormat::Csv), "\n");
}

#[test]
fn rows_of_several_batches_join() {
    let (batch, columns) = edits();
    let mut renderer = Renderer::new(ResultFormat::Array, NONE, columns, Zone::Utc);
    let mut out = Vec::new();
    renderer.begin(&mut out);
    renderer.rows_between(&mut out, &batch, 0, 1);
    renderer.rows_between(&mut out, &batch, 1, 9);
    renderer.end(&mut out);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&out).expect("one JSON document");
    assert_eq!(rows.len(), 2);
}

#[test]
fn nested_and_rare_types() {
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None])]));
    let mut words = StringDictionaryBuilder::<Int32Type>::new();
    words.append_value("줄\u{1}\t/");
    let words: ArrayRef = Arc::new(words.finish());
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![b"Kafka".as_slice()]));
    let days: ArrayRef = Arc::new(Date32Array::from(vec![10_957]));
    let price: ArrayRef =
        Arc::new(Decimal128Array::from(vec![1_050]).with_precision_and_scale(10, 2).expect("decimal"));
    let inner: ArrayRef = Arc::new(Int64Array::from(vec![5]));
    let object: ArrayRef = Arc::new(StructArray::from(vec![(Arc::new(Field::new("x", DataType::Int64, true)), inner)]));
    let arrays = [lists, words, bytes, days, price, object];
    let columns: Vec<_> = arrays.iter().enumerate().map(|(i, a)| column(&format!("c{i}"), "T", "T", a)).collect();
    let batch = RecordBatch::try_from_iter(columns.iter().map(|c| c.name.clone()).zip(arrays)).expect("batch");
    assert_eq!(
        render_batch(&batch, columns.clone(), ResultFormat::ArrayLines, NONE, "UTC"),
        concat!(r#"[[1,null],"줄\u0001\t/","S2Fma2E=","2000-01-01T00:00:00.000Z",10.50,{"x":5}]"#, "\n\n")
    );
    assert_eq!(
        render_batch(&batch, columns, ResultFormat::Csv, NONE, "UTC"),
        "\"[1,null]\",줄\u{1}\t/,S2Fma2E=,2000-01-01T00:00:00.000Z,10.50,\"{\"\"x\"\":5}\"\n\n"
    );
}

#[test]
fn format_names_are_known_in_any_case() {
    assert_eq!(ResultFormat::parse("OBJECTLINES"), Some(ResultFormat::ObjectLines));
    assert_eq!(ResultFormat::parse("xml"), None);
}
