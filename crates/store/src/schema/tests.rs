use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{Float64Array, Int64Array, TimestampMillisecondArray};

use super::*;

const ALL: [ColumnType; 9] = [
    ColumnType::String,
    ColumnType::Long,
    ColumnType::Double,
    ColumnType::Boolean,
    ColumnType::Timestamp,
    ColumnType::ArrayString,
    ColumnType::ArrayLong,
    ColumnType::ArrayDouble,
    ColumnType::Json,
];

fn schema(columns: &[(&str, ColumnType)]) -> TableSchema {
    let columns = columns.iter().map(|(name, ty)| ColumnDef::dimension(*name, *ty));
    TableSchema::new(std::iter::once(ColumnDef::time()).chain(columns).collect()).expect("a schema")
}

#[test]
fn widening_has_one_answer_whatever_the_order() {
    for a in ALL {
        assert_eq!(a.widen(a), a);
        for b in ALL {
            let wide = a.widen(b);
            assert_eq!(wide, b.widen(a), "{a} {b}");
            assert_eq!(wide.widen(a), wide, "{a} {b}");
            assert_eq!(wide.widen(b), wide, "{a} {b}");
            for c in ALL {
                assert_eq!(a.widen(b).widen(c), a.widen(b.widen(c)), "{a} {b} {c}");
            }
        }
    }
}

/// What `widen` promises, arrays keep.
#[test]
fn every_widening_of_types_is_one_of_arrays() {
    for a in ALL {
        for b in ALL {
            let wide = a.widen(b);
            let array = new_null_array(&a.arrow(), 3);
            let widened = widen_array(&array, a, wide).unwrap_or_else(|error| panic!("{a} to {wide}: {error}"));
            assert_eq!((widened.data_type(), widened.null_count()), (&wide.arrow(), 3), "{a} to {wide}");
        }
    }
}

#[test]
fn conform_widens_reorders_and_fills() {
    let narrow = schema(&[("n", ColumnType::Long), ("d", ColumnType::Double)]);
    let batch = RecordBatch::try_new(
        narrow.arrow(),
        vec![
            Arc::new(TimestampMillisecondArray::from(vec![1, 2])),
            Arc::new(Int64Array::from(vec![Some(7), None])),
            Arc::new(Float64Array::from(vec![1e10, 0.5])),
        ],
    )
    .expect("a batch");
    let wide = schema(&[("new", ColumnType::ArrayLong), ("d", ColumnType::String), ("n", ColumnType::Json)]);
    let got = conform(&batch, &wide).expect("conforms");
    assert_eq!(got.schema(), wide.arrow());
    assert_eq!(got.column(1).null_count(), 2);
    assert_eq!(got.column(2).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("1.0E10"), Some("0.5")]);
    assert_eq!(got.column(3).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("7"), None]);
    // A string becomes JSON text in quotes although both are strings to Arrow.
    let strings = conform(&batch, &schema(&[("d", ColumnType::String)])).expect("conforms");
    let json = conform(&strings, &schema(&[("d", ColumnType::Json)])).expect("conforms");
    assert_eq!(json.column(1).as_string::<i32>().value(1), "\"0.5\"");
    assert!(conform(&got, &narrow).is_err(), "narrower is refused");
}

#[test]
fn a_schema_is_checked() {
    let time = ColumnDef::time;
    let column = |name: &str| ColumnDef::dimension(name, ColumnType::Long);
    assert!(matches!(TableSchema::new(vec![]), Err(SchemaError::NoTime { .. })));
    assert!(matches!(TableSchema::new(vec![column("a"), time()]), Err(SchemaError::NoTime { .. })));
    assert!(matches!(TableSchema::new(vec![time(), column("a"), column("a")]), Err(SchemaError::Duplicate { .. })));
    assert!(TableSchema::new(vec![time(), column("a"), column("A")]).is_ok(), "names are case-sensitive");
    let many = std::iter::once(time()).chain((0..COLUMNS_MAX).map(|n| column(&n.to_string()))).collect();
    assert!(matches!(TableSchema::new(many), Err(SchemaError::TooMany { .. })));
    let json = serde_json::to_string(&schema(&[("a", ColumnType::ArrayString)])).expect("JSON");
    assert_eq!(
        serde_json::from_str::<TableSchema>(&json).expect("a schema"),
        schema(&[("a", ColumnType::ArrayString)])
    );
    assert!(serde_json::from_str::<TableSchema>(r#"{"columns":[]}"#).is_err());
}

#[test]
fn merging_keeps_order_roles_and_metrics() {
    let metric = ColumnDef::metric("m", MetricKind::LongSum);
    let ours = TableSchema::new(vec![ColumnDef::time(), ColumnDef::dimension("a", ColumnType::Long), metric.clone()])
        .expect("a schema");
    let theirs = schema(&[("m", ColumnType::String), ("b", ColumnType::Json), ("a", ColumnType::String)]);
    let merged = ours.merge(&theirs).expect("merges");
    let expected = [
        ColumnDef::time(),
        ColumnDef::dimension("a", ColumnType::String),
        metric,
        ColumnDef::dimension("b", ColumnType::Json),
    ];
    assert_eq!(merged.columns(), expected);
    assert_eq!(TableSchema::from_arrow(&theirs.arrow()).expect("reads back"), theirs);
}
