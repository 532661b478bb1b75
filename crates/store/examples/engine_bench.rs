//! Times the engine's kernels on wikipedia-like events, one day a segment, and prints bytes per row.
//!
//! ```sh
//! cargo run --release -p seawall-store --example engine_bench -- [segments] [rows per segment] [threads]
//! ```
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "a program for the terminal that measures, not part of the node"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "made-up numbers and printed ratios"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use bytes::Bytes;
use store::dictionary::TableDictionary;
use store::engine::{
    Aggregate, AggregateQuery, Aggregation, Comparison, Filter, Function, Key, KeyKind, Limits, OrderBy, OrderTarget,
    Scan, ScanQuery, StringTest, TimeFloor, Value,
};
use store::interval::Interval;
use store::schema::{ColumnDef, ColumnType, TableSchema};
use store::segment::Segment;
use store::snapshot::{SnapshotSegment, TableSnapshot};

const DAY: i64 = 86_400_000;
const START: i64 = 1_761_955_200_000;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Draws ranks by Zipf's law.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(count: usize, exponent: f64) -> Self {
        let mut total = 0.0;
        let mut sums: Vec<f64> = (1..=count)
            .map(|rank| {
                total += (rank as f64).powf(-exponent);
                total
            })
            .collect();
        sums.iter_mut().for_each(|sum| *sum /= total);
        Self(sums)
    }

    fn draw(&self, random: &mut Random) -> usize {
        let at = random.unit();
        self.0.partition_point(|sum| *sum < at).min(self.0.len() - 1)
    }
}

fn schema() -> TableSchema {
    let text = |name: &str| ColumnDef::dimension(name, ColumnType::String);
    let flag = |name: &str| ColumnDef::dimension(name, ColumnType::Boolean);
    let long = |name: &str| ColumnDef::dimension(name, ColumnType::Long);
    TableSchema::new(vec![
        ColumnDef::time(),
        text("channel"),
        text("page"),
        text("user"),
        text("countryIsoCode"),
        text("cityName"),
        flag("isRobot"),
        flag("isNew"),
        long("added"),
        long("deleted"),
        long("delta"),
        text("comment"),
    ])
    .unwrap()
}

struct Events {
    pages: Zipf,
    users: Zipf,
    channels: Zipf,
}

impl Events {
    fn batch(&self, day: usize, rows: usize) -> RecordBatch {
        let random = &mut Random(day as u64 + 42);
        let step = DAY / rows as i64;
        let mut time = START + day as i64 * DAY;
        let (mut times, mut channel, mut page, mut user) = (vec![], vec![], vec![], vec![]);
        let (mut country, mut city, mut robot, mut new) = (vec![], vec![], vec![], vec![]);
        let (mut added, mut deleted, mut delta, mut comment) = (vec![], vec![], vec![], vec![]);
        for row in 0..rows {
            time = (START + day as i64 * DAY + row as i64 * step).max(time);
            times.push(time);
            let p = self.pages.draw(random);
            let mut of_page = Random(p as u64);
            channel.push(format!("#{:02}.wikipedia", self.channels.draw(&mut of_page)));
            page.push(format!("Page_{:06}_{:x}", p, of_page.next() >> 28));
            user.push(format!("User{}", self.users.draw(random)));
            country.push((random.below(100) < 9).then(|| format!("C{:03}", random.below(200))));
            city.push((random.below(100) < 6).then(|| format!("City {}", random.below(2_000))));
            robot.push(random.below(1_000) < 65);
            new.push(random.below(100) < 5);
            let more = if random.below(3) == 0 { 0 } else { (random.unit().powi(6) * 20_000.0) as i64 };
            let less = if random.below(3) > 0 { 0 } else { (random.unit().powi(6) * 8_000.0) as i64 };
            added.push(more);
            deleted.push(less);
            delta.push(more - less);
            let text = if random.below(2) == 0 { "copy edit".to_owned() } else { String::new() };
            comment.push(format!("{text} {:x} section {}", random.next() >> 20, random.below(40)));
        }
        let text = |values: Vec<String>| Arc::new(StringArray::from(values)) as ArrayRef;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from(times)),
            text(channel),
            text(page),
            text(user),
            Arc::new(StringArray::from(country)),
            Arc::new(StringArray::from(city)),
            Arc::new(BooleanArray::from(robot)),
            Arc::new(BooleanArray::from(new)),
            Arc::new(Int64Array::from(added)),
            Arc::new(Int64Array::from(deleted)),
            Arc::new(Int64Array::from(delta)),
            text(comment),
        ];
        RecordBatch::try_new(schema().arrow(), columns).unwrap()
    }
}

fn parquet(batch: &RecordBatch) -> Bytes {
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::WriterProperties;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap()))
        .set_max_row_group_row_count(None)
        .set_dictionary_page_size_limit(1 << 31)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    Bytes::from(writer.into_inner().unwrap())
}

fn key(column: &str) -> Key {
    Key { name: column.to_owned(), kind: KeyKind::Column(column.to_owned()) }
}

fn time_key(every: i64) -> Key {
    let floor = TimeFloor(Arc::new(move |time| {
        let start = time.div_euclid(every) * every;
        (start, start + every)
    }));
    Key { name: "t".to_owned(), kind: KeyKind::TimeFloor { column: "__time".to_owned(), floor } }
}

fn agg(function: Function) -> Aggregate {
    Aggregate { name: format!("{function:?}"), function, filter: None }
}

fn sum(column: &str) -> Aggregate {
    agg(Function::Sum(column.to_owned()))
}

fn equal(column: &str, value: &str) -> Filter {
    Filter::Compare { column: column.to_owned(), comparison: Comparison::Equal, value: Value::String(Arc::from(value)) }
}

fn days(from: i64, to: i64) -> Filter {
    let bound = |comparison, day| Filter::Compare {
        column: "__time".to_owned(),
        comparison,
        value: Value::Long(START + day * DAY),
    };
    Filter::And(vec![bound(Comparison::GreaterOrEqual, from), bound(Comparison::Less, to)])
}

fn top(limit: usize) -> (Vec<OrderBy>, Option<usize>) {
    (vec![OrderBy { target: OrderTarget::Aggregate(0), descending: true, nulls_first: false }], Some(limit))
}

fn queries(needle: &str) -> Vec<(&'static str, AggregateQuery)> {
    let count = || vec![agg(Function::Count)];
    let query = |filter: Option<Filter>, keys: Vec<Key>, aggregates: Vec<Aggregate>, limit: usize| {
        let (order, limit) = if limit > 0 { top(limit) } else { (Vec::new(), None) };
        AggregateQuery { filter, keys, aggregates, order, limit }
    };
    let human = Filter::Not(Box::new(Filter::Compare {
        column: "isRobot".to_owned(),
        comparison: Comparison::Equal,
        value: Value::Boolean(true),
    }));
    let like = |column: &str, part: &'static str| Filter::Matches {
        column: column.to_owned(),
        test: StringTest(Arc::new(move |text| text.contains(part))),
    };
    let country = Filter::In {
        column: "countryIsoCode".to_owned(),
        values: ["C001", "C002", "C003", "C004", "C005"].map(|code| Value::String(Arc::from(code))).to_vec(),
        null_in_list: false,
    };
    let range = Filter::Compare {
        column: "added".to_owned(),
        comparison: Comparison::GreaterOrEqual,
        value: Value::Long(10_000),
    };
    vec![
        ("Q1 count(*)", query(None, vec![], count(), 0)),
        ("Q2 sum(added) by hour, one day", query(Some(days(1, 2)), vec![time_key(3_600_000)], vec![sum("added")], 0)),
        (
            "Q3 by day, channel = X",
            query(Some(equal("channel", "#03.wikipedia")), vec![time_key(DAY)], vec![sum("added")], 0),
        ),
        ("Q4 top pages", query(None, vec![key("page")], count(), 100)),
        (
            "Q5 top pages by sum, channel, not robot, 7 days",
            query(
                Some(Filter::And(vec![equal("channel", "#01.wikipedia"), human, days(0, 7)])),
                vec![key("page")],
                vec![sum("added")],
                10,
            ),
        ),
        (
            "Q6 channel, isRobot: sum, avg",
            query(
                None,
                vec![key("channel"), key("isRobot")],
                vec![sum("added"), agg(Function::Average("delta".to_owned()))],
                0,
            ),
        ),
        ("Q7 top users", query(None, vec![key("user")], count(), 100)),
        ("Q8 distinct users", query(None, vec![], vec![agg(Function::CountDistinct("user".to_owned()))], 0)),
        ("Q9 needle page = X", query(Some(equal("page", needle)), vec![], vec![agg(Function::Count), sum("added")], 0)),
        ("Q10 country in, by city", query(Some(country), vec![key("cityName")], count(), 10)),
        ("Q11 page LIKE", query(Some(like("page", "_f1")), vec![], count(), 0)),
        ("Q12 top (page, user)", query(None, vec![key("page"), key("user")], count(), 100)),
        ("range added, sum", query(Some(range), vec![], vec![sum("added")], 0)),
        (
            "sum, min, max",
            query(
                None,
                vec![],
                vec![sum("added"), agg(Function::Min("deleted".to_owned())), agg(Function::Max("delta".to_owned()))],
                0,
            ),
        ),
        ("by minute: count, sum", query(None, vec![time_key(60_000)], vec![agg(Function::Count), sum("delta")], 0)),
        (
            "distinct users by channel",
            query(None, vec![key("channel")], vec![agg(Function::CountDistinct("user".to_owned()))], 0),
        ),
        ("comment LIKE (plain)", query(Some(like("comment", "f1f")), vec![], count(), 0)),
    ]
}

fn run(snapshot: &TableSnapshot, query: &AggregateQuery, threads: usize) -> RecordBatch {
    let limits = Limits { memory_bytes: 8 << 30, ..Limits::default() };
    let plan = Aggregation::plan(snapshot, query, &limits).unwrap();
    let units = plan.units(1 << 17);
    let next = AtomicUsize::new(0);
    let partials = std::thread::scope(|scope| {
        let work = || {
            let mut partial = plan.start();
            while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                plan.run(unit, &mut partial).unwrap();
            }
            partial
        };
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut partials = vec![work()];
        partials.extend(others.into_iter().map(|other| other.join().unwrap()));
        partials
    });
    let parts = plan.merge_parts(threads);
    if parts == 1 {
        let merged = partials.into_iter().reduce(|mut into, from| {
            plan.merge(&mut into, from).unwrap();
            into
        });
        return plan.finish(merged.unwrap()).unwrap();
    }
    let (plan, partials) = (&plan, &partials);
    let parts = std::thread::scope(|scope| {
        let merge = |part| move || plan.merge_part(partials, part, parts).unwrap();
        let others: Vec<_> = (1..parts).map(|part| scope.spawn(merge(part))).collect();
        let mut merged = vec![merge(0)()];
        merged.extend(others.into_iter().map(|other| other.join().unwrap()));
        merged
    });
    plan.finish_parts(parts).unwrap()
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Time this thread had a core: what counts on a busy machine.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}

fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

fn load(segments: usize, rows: usize, dictionary: &Arc<TableDictionary>) -> (Vec<SnapshotSegment>, RecordBatch) {
    let events =
        Events { pages: Zipf::new(500_000, 0.8), users: Zipf::new(200_000, 0.95), channels: Zipf::new(50, 1.2) };
    let (mut out, mut last) = (Vec::new(), None);
    for day in 0..segments {
        let batch = events.batch(day, rows);
        let start = cpu_ms();
        let file = Segment::encode(&batch).unwrap();
        let encoded = cpu_ms() - start;
        if day == 0 {
            let parquet = parquet(&batch);
            let start = cpu_ms();
            let from_parquet = Segment::from_parquet(parquet.clone()).unwrap();
            let loaded = cpu_ms() - start;
            let million = 1e6 / rows as f64;
            println!(
                "encode {:.0} cpu ms, from parquet {:.0} cpu ms per million rows; parquet {:.1}, column file {:.1} bytes a row",
                encoded * million,
                loaded * million,
                parquet.len() as f64 / rows as f64,
                from_parquet.len() as f64 / rows as f64,
            );
        }
        let bytes = Bytes::from(file);
        let start = Instant::now();
        let segment = Segment::open(bytes, dictionary).unwrap();
        let opened = ms(start);
        segment.warm().unwrap();
        if day == 0 || day + 1 == segments {
            println!("segment {day}: open {opened:.2} ms, warm (checksums, ids) {:.1} ms", ms(start) - opened);
        }
        out.push(SnapshotSegment {
            id: format!("day {day}"),
            interval: Interval::ETERNITY,
            rows: rows as u64,
            segment: Arc::new(segment),
            live: false,
        });
        last = Some(batch);
    }
    (out, last.unwrap())
}

fn live(batch: &RecordBatch) {
    use base::{Offset, PartitionIndex};
    let mut table = store::live::LiveTable::new(Arc::new(TableDictionary::new()));
    let start = Instant::now();
    let chunk = 1_000;
    for from in (0..batch.num_rows()).step_by(chunk) {
        let piece = batch.slice(from, chunk.min(batch.num_rows() - from));
        let to = from + piece.num_rows();
        table.push(PartitionIndex(0), Offset(from as i64)..Offset(to as i64), &piece, &[]).unwrap();
    }
    let took = ms(start);
    println!(
        "live: {:.0} rows/ms in chunks of {chunk}, {} chunks, {:.1} bytes a row, dictionary {:.1} MB",
        batch.num_rows() as f64 / took,
        table.snapshot().len(),
        table.memory_bytes() as f64 / batch.num_rows() as f64,
        table.dictionary().size_bytes() as f64 / 1e6,
    );
    let start = Instant::now();
    let rows = table.take(PartitionIndex(0)).unwrap().rows().unwrap().unwrap();
    println!("live: taken as one batch in {:.0} ms per million rows", ms(start) * 1e6 / rows.num_rows() as f64);
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>().unwrap());
    let segments = args.next().unwrap_or(6);
    let rows = args.next().unwrap_or(666_667);
    let threads = args.next().unwrap_or(2);
    // For a profiler: one query, many times.
    let only = std::env::var("ONLY").unwrap_or_default();
    let runs_wanted = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(7);
    let dictionary = Arc::new(TableDictionary::new());
    let (segments, last) = load(segments, rows, &dictionary);
    let total: u64 = segments.iter().map(|segment| segment.rows).sum();
    let file: usize = segments.iter().map(|segment| segment.segment.size_bytes()).sum();
    let heap: usize = segments.iter().map(|segment| segment.segment.memory_bytes()).sum();
    println!(
        "{total} rows, {:.1} bytes a row in files, {:.1} of memory beside; dictionary {:.1} MB",
        file as f64 / total as f64,
        heap as f64 / total as f64,
        dictionary.size_bytes() as f64 / 1e6
    );
    live(&last);
    let schema = Arc::new(schema());
    let snapshot = TableSnapshot { table: Arc::from("wikipedia"), schema, dictionary, segments };
    let needle = last.column(2).as_any().downcast_ref::<StringArray>().unwrap().value(last.num_rows() / 2).to_owned();
    // With one thread the CPU column is all of the work; with more it is the main thread's share.
    println!("{:<48} {:>9} {:>11} {:>11} {:>9}", "query", "ms", "ms/20M rows", "cpu ms/20M", "groups");
    for (name, query) in queries(&needle).into_iter().filter(|(name, _)| name.contains(&only)) {
        let (mut runs, mut cpu) = (Vec::new(), Vec::new());
        let mut groups = 0;
        for _ in 0..runs_wanted {
            let (start, cpu_start) = (Instant::now(), cpu_ms());
            groups = run(&snapshot, &query, threads).num_rows();
            runs.push(ms(start));
            cpu.push(cpu_ms() - cpu_start);
        }
        let (ms, cpu) = (median(runs), median(cpu));
        let scaled = ms * 2e7 / total as f64;
        println!("{name:<48} {ms:>9.2} {scaled:>11.1} {:>11.1} {groups:>9}", cpu * 2e7 / total as f64);
    }
    let newest = ScanQuery {
        projection: snapshot.schema.columns().iter().map(|column| column.name.clone()).collect(),
        limit: Some(100),
        ..ScanQuery::default()
    };
    let start = Instant::now();
    let rows = Scan::plan(&snapshot, &newest, &Limits::default()).unwrap().by_time(true).unwrap();
    println!("{:<48} {:>9.2} {:>11} {:>9}", "Q13 newest 100 rows", ms(start), "", rows.num_rows());
    let all = ScanQuery { projection: vec!["page".to_owned(), "added".to_owned()], ..ScanQuery::default() };
    let start = Instant::now();
    let scan = Arc::new(Scan::plan(&snapshot, &all, &Limits::default()).unwrap());
    let units = scan.units(usize::MAX).into_iter();
    let rows: usize = units.flat_map(|unit| scan.open(unit)).map(|batch| batch.unwrap().num_rows()).sum();
    println!(
        "{:<48} {:>9.2} {:>11.1} {rows:>9}",
        "scan page, added (1 thread)",
        ms(start),
        ms(start) * 2e7 / total as f64
    );
}
