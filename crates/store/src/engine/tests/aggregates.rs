use super::naive::{SHARES, answer, sort};
use super::*;

const HOUR: i64 = 3_600_000;

fn floor(every: i64) -> TimeFloor {
    TimeFloor(Arc::new(move |time| {
        let start = time.div_euclid(every) * every;
        (start, start + every)
    }))
}

fn text(random: &mut Random, column: &str) -> Value {
    let text = match column {
        "few" => ["a", "b", "c", "quite a long one, really", "zz", "3"][random.below(6)].to_owned(),
        "json" => format!("{{\"a\":{}}}", random.below(12)),
        _ => match random.below(20) {
            0 => String::new(),
            1 => "not there".to_owned(),
            n => format!("wörd {}", n * random.below(20)),
        },
    };
    Value::String(Arc::from(text))
}

fn value(random: &mut Random, column: &str) -> Value {
    match type_of(column) {
        ColumnType::String | ColumnType::Json => text(random, column),
        ColumnType::Long if column == "wide" => Value::Long(random.next().cast_signed()),
        ColumnType::Long if random.chance(20) => {
            Value::Double(f64::from(u32::try_from(random.below(1_000)).unwrap()) / 2.0)
        }
        ColumnType::Long => Value::Long(i64::try_from(random.below(2_200)).unwrap() - 1_100),
        ColumnType::Timestamp if column == "__time" => {
            Value::Long(1_442_016_000_000 + i64::try_from(random.below(20_000_000)).unwrap())
        }
        ColumnType::Timestamp => Value::Long(i64::try_from(random.below(1 << 40)).unwrap()),
        ColumnType::Double if random.chance(30) => Value::Long(i64::try_from(random.below(300)).unwrap() - 100),
        ColumnType::Double => Value::Double(f64::from(u32::try_from(random.below(4_000)).unwrap()) / 8.0 - 100.0),
        _ => Value::Boolean(random.chance(50)),
    }
}

const SIMPLE: [&str; 12] =
    ["__time", "word", "few", "unique", "long", "wide", "double", "flag", "none", "nothing", "at", "json"];

pub(super) fn filter(random: &mut Random, depth: usize) -> Filter {
    if depth > 0 && random.chance(60) {
        let parts = (0..=random.below(3)).map(|_| filter(random, depth - 1)).collect();
        return match random.below(3) {
            0 => Filter::And(parts),
            1 => Filter::Or(parts),
            _ => Filter::Not(Box::new(filter(random, depth - 1))),
        };
    }
    let column = SIMPLE[random.below(SIMPLE.len())].to_owned();
    let ty = type_of(&column);
    match random.below(10) {
        0 => [Filter::True, Filter::False, Filter::Unknown][random.below(3)].clone(),
        1 => Filter::IsNull(if random.chance(20) { "strings".to_owned() } else { column }),
        2 | 3 if ty != ColumnType::Boolean && ty != ColumnType::Long => Filter::In {
            values: (0..random.below(8))
                .map(|_| value(random, &column))
                .filter(|value| ty == ColumnType::Double || !matches!(value, Value::Double(_)))
                .collect(),
            null_in_list: random.chance(20),
            column,
        },
        4 if matches!(ty, ColumnType::String | ColumnType::Json) => {
            let digit = random.below(10).to_string();
            if random.chance(50) {
                let text = [&digit, "wörd 1", "rd", " 7", "5w", ""][random.below(6)];
                return Filter::Contains { column, text: Arc::from(text) };
            }
            Filter::Matches { column, test: StringTest(Arc::new(move |text| text.contains(&digit))) }
        }
        5 if matches!(ty, ColumnType::Long | ColumnType::Timestamp | ColumnType::Boolean) => {
            Filter::MatchesLong { column, test: LongTest(Arc::new(|value| value % 3 == 1)) }
        }
        _ => {
            use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
            let comparison = [Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual][random.below(6)];
            let value = value(random, &column);
            Filter::Compare { column, comparison, value }
        }
    }
}

fn key(random: &mut Random, number: usize) -> Key {
    let column = SIMPLE[random.below(SIMPLE.len())];
    let kind = match (random.below(6), type_of(column)) {
        (0, ColumnType::Long | ColumnType::Timestamp) => {
            let every = [HOUR, 60_000, 1_000, 24 * HOUR][random.below(4)];
            KeyKind::TimeFloor { column: column.to_owned(), floor: floor(every) }
        }
        (1, ColumnType::Long | ColumnType::Timestamp) => KeyKind::LongMap {
            column: column.to_owned(),
            map: LongMap(Arc::new(|value| (value % 5 != 0).then_some(value % 5))),
        },
        (0 | 1, ColumnType::String | ColumnType::Json) => KeyKind::StringMap {
            column: column.to_owned(),
            map: StringMap(Arc::new(|text| match text {
                None => Some("nothing".to_owned()),
                Some(text) => text.chars().last().map(|last| last.to_string()),
            })),
        },
        _ => KeyKind::Column(column.to_owned()),
    };
    Key { name: format!("k{number}"), kind }
}

fn aggregate_of(random: &mut Random, number: usize) -> Aggregate {
    let numeric = ["long", "wide", "double", "none"][random.below(4)].to_owned();
    let any = SIMPLE[random.below(SIMPLE.len())].to_owned();
    let function = match random.below(9) {
        0 => Function::Count,
        8 => Function::Quantile {
            share: Share::new(SHARES[random.below(SHARES.len())].0).unwrap(),
            column: numeric,
            k: K_MAX,
        },
        1 => Function::CountColumn(if random.chance(20) { "longs".to_owned() } else { any }),
        2 => Function::Sum(numeric),
        3 => Function::Min(if random.chance(30) { "at".to_owned() } else { numeric }),
        4 => Function::Max(numeric),
        5 => Function::Average(["long", "double", "none"][random.below(3)].to_owned()),
        _ if any == "double" => Function::CountDistinct("word".to_owned()),
        _ => Function::CountDistinct(any),
    };
    let filter = random.chance(30).then(|| filter(random, 1));
    Aggregate { name: format!("a{number}"), function, filter }
}

fn query(random: &mut Random) -> AggregateQuery {
    AggregateQuery {
        filter: random.chance(70).then(|| filter(random, 2)),
        keys: (0..random.below(4)).map(|number| key(random, number)).collect(),
        aggregates: (0..random.below(5)).map(|number| aggregate_of(random, number)).collect(),
        order: Vec::new(),
        limit: None,
    }
}

/// In pieces, on two partials that are merged.
fn run_in_pieces(snapshot: &TableSnapshot, query: &AggregateQuery, rows_per_unit: usize) -> RecordBatch {
    let plan = Aggregation::plan(snapshot, query, &Limits::default()).unwrap();
    let (mut a, mut b) = (plan.start(), plan.start());
    for (number, unit) in plan.units(rows_per_unit).iter().enumerate() {
        plan.run(unit, if number % 2 == 0 { &mut a } else { &mut b }).unwrap();
    }
    let partials = [a, b];
    let parts = plan.merge_parts(3);
    let parts = (0..parts).map(|part| plan.merge_part(&partials, part, parts).unwrap()).collect();
    let in_parts = plan.finish_parts(parts).unwrap();
    let [mut a, b] = partials;
    plan.merge(&mut a, b).unwrap();
    let merged = plan.finish(a).unwrap();
    let (mut left, mut right) = (rows_of(&in_parts), rows_of(&merged));
    if query.order.is_empty() {
        sort(&mut left);
        sort(&mut right);
    }
    assert_eq!(left, right, "{query:#?}");
    merged
}

fn check(table: &Table, query: &AggregateQuery, what: &str) {
    let batch = aggregate(&table.snapshot, query, &Limits::default()).unwrap();
    let mut found = rows_of(&batch);
    sort(&mut found);
    let expected = answer(query, &table.rows);
    assert_eq!(found, expected, "{what}: {query:#?}");
    let mut found = rows_of(&run_in_pieces(&table.snapshot, query, 2_048));
    sort(&mut found);
    assert_eq!(found, expected, "in pieces, {what}: {query:#?}");
}

#[test]
fn random_queries_on_random_tables() {
    let shapes: [(&[usize], usize); 9] = [
        (&[], 1),
        (&[0], 1),
        (&[1], 1),
        (&[1, 1, 1, 1], 2),
        (&[1_023, 1_024, 1_025, 600], 255),
        (&[3_000, 500, 2_500, 1_500], 256),
        (&[300, 2_000, 0, 10, 5_000], 257),
        (&[0, 700], 4),
        (&[4_000, 4_000], 3_000),
    ];
    for (number, (sizes, words)) in shapes.into_iter().enumerate() {
        let table = table(100 * number as u64, sizes, words);
        let random = &mut Random(number as u64 + 1);
        for round in 0..25 {
            check(&table, &query(random), &format!("table {number}, round {round}"));
        }
    }
}

#[test]
fn a_dictionary_of_seventy_thousand() {
    let table = table(5, &[150_000, 5_000, 3_000], 70_000);
    let key = |column: &str| Key { name: column.to_owned(), kind: KeyKind::Column(column.to_owned()) };
    let count = Aggregate { name: "n".to_owned(), function: Function::Count, filter: None };
    let sum = Aggregate { name: "s".to_owned(), function: Function::Sum("long".to_owned()), filter: None };
    let equal = |text: &str| Filter::Compare {
        column: "word".to_owned(),
        comparison: Comparison::Equal,
        value: Value::String(Arc::from(text)),
    };
    let like = Filter::Matches { column: "word".to_owned(), test: StringTest(Arc::new(|text| text.contains("99"))) };
    for (keys, filter) in [
        (vec![key("word")], None),
        (vec![key("word"), key("few")], None),
        (vec![key("few")], Some(equal("wörd 777"))),
        (vec![], Some(Filter::And(vec![equal("wörd 778"), Filter::Not(Box::new(Filter::IsNull("long".to_owned())))]))),
        (vec![key("few")], Some(like.clone())),
        (vec![], Some(Filter::Not(Box::new(like)))),
    ] {
        let aggregates = vec![count.clone(), sum.clone()];
        check(&table, &AggregateQuery { filter, keys, aggregates, ..AggregateQuery::default() }, "large");
    }
}

#[test]
fn the_first_groups_of_an_order() {
    let table = table(7, &[3_000, 2_000, 3_000, 400], 300);
    let random = &mut Random(3);
    for _ in 0..25 {
        let mut query = query(random);
        query.keys.push(key(random, 9));
        query.aggregates.push(aggregate_of(random, 9));
        let targets: Vec<OrderTarget> = (0..=random.below(2))
            .map(|_| match random.chance(50) {
                true => OrderTarget::Key(random.below(query.keys.len())),
                false => OrderTarget::Aggregate(random.below(query.aggregates.len())),
            })
            .collect();
        query.order = targets
            .into_iter()
            .map(|target| OrderBy { target, descending: random.chance(50), nulls_first: random.chance(50) })
            .collect();
        query.limit = Some([0, 1, 5, 100, 10_000][random.below(5)]);
        let found = rows_of(&aggregate(&table.snapshot, &query, &Limits::default()).unwrap());
        let mut expected = answer(&query, &table.rows);
        let keys = query.keys.len();
        expected.sort_by(|a, b| {
            let by = query.order.iter().map(|order| {
                let at = match order.target {
                    OrderTarget::Key(at) => at,
                    OrderTarget::Aggregate(at) => keys + at,
                };
                match (&a[at], &b[at]) {
                    (Cell::Null, Cell::Null) => std::cmp::Ordering::Equal,
                    (Cell::Null, _) if order.nulls_first => std::cmp::Ordering::Less,
                    (_, Cell::Null) if !order.nulls_first => std::cmp::Ordering::Less,
                    (Cell::Null, _) | (_, Cell::Null) => std::cmp::Ordering::Greater,
                    (a, b) if order.descending => b.partial_cmp(a).unwrap(),
                    (a, b) => a.partial_cmp(b).unwrap(),
                }
            });
            by.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
                .then_with(|| a[..keys].partial_cmp(&b[..keys]).unwrap())
        });
        expected.truncate(query.limit.unwrap());
        assert_eq!(found, expected, "{query:#?}");
        assert_eq!(rows_of(&run_in_pieces(&table.snapshot, &query, 1_024)), expected, "in pieces, {query:#?}");
    }
}

#[test]
fn sums_wrap_around() {
    let table = table(1, &[2_000], 3);
    let query = AggregateQuery {
        aggregates: vec![Aggregate { name: "s".to_owned(), function: Function::Sum("wide".to_owned()), filter: None }],
        ..AggregateQuery::default()
    };
    check(&table, &query, "wide");
}

#[test]
fn a_bound_on_memory_is_an_error_and_cancelling_stops() {
    let table = table(1, &[20_000, 20_000], 30_000);
    let key = |column: &str| Key { name: column.to_owned(), kind: KeyKind::Column(column.to_owned()) };
    let count = Aggregate { name: "n".to_owned(), function: Function::Count, filter: None };
    let query =
        AggregateQuery { keys: vec![key("unique"), key("wide")], aggregates: vec![count], ..AggregateQuery::default() };
    let limits = Limits { memory_bytes: 200_000, cancel: Cancel::default() };
    let error = aggregate(&table.snapshot, &query, &limits).unwrap_err();
    assert!(matches!(error, EngineError::Memory { limit_bytes: 200_000, .. }), "{error}");
    let limits = Limits::default();
    limits.cancel.cancel();
    assert_eq!(aggregate(&table.snapshot, &query, &limits).unwrap_err(), EngineError::Cancelled);
}

#[test]
fn what_the_engine_does_not_do_is_said() {
    let table = table(1, &[10], 3);
    let plan = |query: &AggregateQuery| Aggregation::plan(&table.snapshot, query, &Limits::default()).map(drop);
    let of = |function| AggregateQuery {
        aggregates: vec![Aggregate { name: "x".to_owned(), function, filter: None }],
        ..AggregateQuery::default()
    };
    let share = Share::new(0.5).unwrap();
    let quantile = of(Function::Quantile { column: "at".to_owned(), share, k: K_MAX });
    assert!(matches!(plan(&quantile), Err(EngineError::Unsupported(_))));
    let sum = of(Function::Sum("word".to_owned()));
    assert!(matches!(plan(&sum), Err(EngineError::Unsupported(_))));
    let missing = of(Function::Sum("nowhere".to_owned()));
    assert_eq!(plan(&missing), Err(EngineError::UnknownColumn("nowhere".to_owned())));
    let list = AggregateQuery {
        keys: vec![Key { name: "k".to_owned(), kind: KeyKind::Column("strings".to_owned()) }],
        ..AggregateQuery::default()
    };
    assert!(matches!(plan(&list), Err(EngineError::Unsupported(_))));
}

#[test]
fn segments_outside_a_time_range_are_left_out() {
    let table = table(1, &[100, 100], 3);
    let query = AggregateQuery {
        filter: Some(Filter::Compare {
            column: "__time".to_owned(),
            comparison: Comparison::Less,
            value: Value::Long(0),
        }),
        ..of_count()
    };
    let plan = Aggregation::plan(&table.snapshot, &query, &Limits::default()).unwrap();
    assert!(plan.units(usize::MAX).is_empty());
    let empty = plan.finish(plan.start()).unwrap();
    assert_eq!(rows_of(&empty), [[Cell::Long(0)]]);
}

fn of_count() -> AggregateQuery {
    AggregateQuery {
        aggregates: vec![Aggregate { name: "n".to_owned(), function: Function::Count, filter: None }],
        ..AggregateQuery::default()
    }
}
