//! `ingest FILE --table T`: a file's rows through the Kafka port into a table.
//!
//! Nothing here takes a short cut: lines become records of the table's topic, are acknowledged when durable, and become rows
//! by the table's own spec. A table that is absent is created, its columns discovered.

mod reader;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base::batch::Codec;
use clap::{Args, ValueEnum};
use client::Acks;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use store::spec::{InputFormat, Lines, TableSpec};

use super::failure::{Code, Failure};
use super::output::say;
use super::producer::Producer;
use super::remote::{Http, HttpArgs, KafkaArgs, segment};
use reader::{Input, Separated};

/// Longest wait for the last row to be queryable.
const QUERYABLE: Duration = Duration::from_secs(120);
/// Between two looks at how far the table is.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub struct Ingest {
    /// The file, plain or gzip; - for stdin
    file: PathBuf,
    /// The table its rows go into; created if it is absent
    #[arg(long, short)]
    table: String,
    /// The topic of a table that is created [default: the table's name]
    #[arg(long)]
    topic: Option<String>,
    /// What the file holds [default: by its name, else json: one object a line]
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
    /// The column that holds the time, for a table that is created [default: __time, timestamp or time]
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// Leave out so many records at the start, for a run that was interrupted
    #[arg(long, default_value_t = 0)]
    skip: u64,
    /// Do not wait until the rows are queryable
    #[arg(long)]
    no_wait: bool,
    /// Fail if any record became no row
    #[arg(long)]
    strict: bool,
    /// The server's Kafka address
    #[arg(long, short = 'b', value_name = "HOST:PORT", env = "SEAWALL_BOOTSTRAP", default_value = "127.0.0.1:9092")]
    bootstrap: String,
    #[command(flatten)]
    http: HttpArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum FileFormat {
    /// One JSON object a line
    Json,
    /// Comma-separated with a header
    Csv,
    /// Tab-separated with a header
    Tsv,
}

impl FileFormat {
    fn of(path: &Path) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.').map(|(_, end)| end) {
            Some("csv") => Self::Csv,
            Some("tsv") => Self::Tsv,
            _ => Self::Json,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
        }
    }
}

/// How a line of the file becomes a record.
enum Convert {
    AsItIs,
    /// The table reads JSON, the file has columns.
    ToJson(Separated),
}

pub fn run(args: &Ingest) -> Result<(), Failure> {
    let begun = Instant::now();
    let format = args.format.unwrap_or_else(|| FileFormat::of(&args.file));
    let mut input = Input::open(&args.file, format)?;
    let http = args.http.connect()?;
    let (table, convert) = table(args, &http, &input, format)?;
    let topic = table["topic"].as_str().unwrap_or(&args.table).to_owned();
    let kafka = KafkaArgs::new(&args.bootstrap);
    let mut producer = Producer::new(kafka.connect()?, &topic, Acks::All, Codec::Lz4)?;
    let bar = bar(&input);
    let sent = send(args, &mut input, &convert, &mut producer, &bar);
    bar.finish_and_clear();
    let count = producer.acknowledged();
    if let Err(failure) = sent {
        let again = count + args.skip;
        say(&format!("{count} records are safe; to go on after them: --skip {again}"));
        return Err(failure);
    }
    let seconds = begun.elapsed().as_secs_f64();
    say(&format!("{count} records in {seconds:.1} s, {:.0} a second, all durable", rate(count, seconds)));
    if args.no_wait {
        return Ok(());
    }
    await_rows(args, &http, &producer, &table)
}

#[expect(clippy::cast_precision_loss, reason = "shown to people without a fraction")]
fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(0.001)
}

fn path_of(table: &str) -> String {
    format!("/api/v1/tables/{}", segment(table))
}

/// The table as the server tells it, created if it is absent.
fn table(args: &Ingest, http: &Http, input: &Input, format: FileFormat) -> Result<(Value, Convert), Failure> {
    let found = match http.get(&path_of(&args.table)) {
        Err(failure) if failure.code == Code::NotFound => None,
        other => Some(other?),
    };
    let separated = input.separated();
    let Some(found) = found else {
        let mut spec = TableSpec::discover(&args.table, args.topic.as_ref().unwrap_or(&args.table));
        if let Some(separated) = separated {
            let lines = Lines { columns: separated.columns.clone(), ..Lines::default() };
            spec.input_format =
                if format == FileFormat::Csv { InputFormat::Csv(lines) } else { InputFormat::Tsv(lines) };
        }
        if let Some(column) = &args.time {
            spec.timestamp.columns = vec![column.clone()];
        } else if !input.columns().iter().any(|column| spec.timestamp.columns.contains(column)) {
            let known = input.columns().join(", ");
            say(&format!(
                "no column is named __time, timestamp or time, so rows get the time they are sent; or say --time with one of {known}"
            ));
        }
        let spec: Value = serde_json::from_str(&spec.to_json()).unwrap_or_default();
        let created = http.post("/api/v1/tables", &spec)?;
        say(&format!("created table {}, reading topic {}", args.table, created["topic"].as_str().unwrap_or_default()));
        return Ok((created, Convert::AsItIs));
    };
    let reads = &found["spec"]["input_format"];
    let kind = reads["type"].as_str().unwrap_or("json");
    match separated {
        None if kind == "json" => Ok((found, Convert::AsItIs)),
        Some(separated) if kind == "json" => Ok((found, Convert::ToJson(separated.clone()))),
        Some(separated) if kind == format.name() && reads["columns"] == json!(separated.columns) => {
            Ok((found, Convert::AsItIs))
        }
        _ => {
            let columns =
                if reads["columns"].is_array() { format!(" with columns {}", reads["columns"]) } else { String::new() };
            let message = format!("table {} reads {kind}{columns}, the file has {}", args.table, input.describe());
            Err(Failure::new(Code::Conflict, message))
        }
    }
}

fn bar(input: &Input) -> ProgressBar {
    let (bar, template) = match input.bytes_total {
        Some(total) => {
            (ProgressBar::new(total), "{bar:30} {percent:>3}%  {binary_bytes}/{binary_total_bytes}  {msg}  {eta} left")
        }
        None => (ProgressBar::no_length(), "{spinner} {binary_bytes}  {msg}  {elapsed}"),
    };
    // indicatif draws nothing if stderr is no terminal.
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn send(
    args: &Ingest,
    input: &mut Input,
    convert: &Convert,
    producer: &mut Producer,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let (mut record, mut count) = (Vec::new(), 0_u64);
    while input.next(&mut record)? {
        count += 1;
        if count <= args.skip {
            continue;
        }
        match convert {
            Convert::AsItIs => producer.push(None, None, &record)?,
            Convert::ToJson(separated) => producer.push(None, None, separated.to_json(&record).as_bytes())?,
        }
        if count.is_multiple_of(1_000) {
            bar.set_position(input.bytes_read());
            let acknowledged = producer.acknowledged();
            let per_second = rate(acknowledged, begun.elapsed().as_secs_f64());
            bar.set_message(format!("{acknowledged} records, {per_second:.0}/s"));
        }
    }
    producer.finish()
}

/// Waits until the table has read what was sent, and says what of it became no row.
fn await_rows(args: &Ingest, http: &Http, producer: &Producer, before: &Value) -> Result<(), Failure> {
    let begun = Instant::now();
    let table = loop {
        let table = http.get(&path_of(&args.table))?;
        let next = |partition: i32| {
            let all = table["partitions"].as_array().into_iter().flatten();
            all.filter(|it| it["partition"] == json!(partition)).find_map(|it| it["next"].as_i64()).unwrap_or(0)
        };
        if producer.ends().iter().all(|(partition, end)| next(*partition) >= end.0) {
            break table;
        }
        let trouble = table["trouble"].as_str().map(|trouble| format!(": {trouble}")).unwrap_or_default();
        if table["suspended"] == json!(true) {
            say(&format!("table {} is suspended: the rows come when it is resumed", args.table));
            return Ok(());
        }
        if begun.elapsed() > QUERYABLE {
            let seconds = QUERYABLE.as_secs();
            let message = format!("table {} has not read all of it within {seconds} s{trouble}", args.table);
            return Err(Failure::new(Code::Timeout, message));
        }
        std::thread::sleep(LOOK);
    };
    say(&format!("queryable in table {}: {} rows in all", args.table, table["rows"]));
    let since = |key: &str| {
        let count = |table: &Value| table["ingested"][key].as_u64().unwrap_or(0);
        count(&table).saturating_sub(count(before))
    };
    let (unparseable, thrown_away) = (since("unparseable"), since("thrown_away"));
    if unparseable + thrown_away == 0 {
        return Ok(());
    }
    say(&format!("{unparseable} records could not be read as rows, {thrown_away} were too early or too late"));
    if let Some(letter) = table["dead_letters"].as_array().and_then(|all| all.last()) {
        say(&format!("for one, offset {}: {}", letter["offset"], letter["reason"].as_str().unwrap_or_default()));
    }
    if args.strict { Err(Failure::new(Code::Failure, "not every record became a row")) } else { Ok(()) }
}
