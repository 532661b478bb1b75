//! `seawall demo`: a throw-away cluster that shows the main job within seconds, and can be broken while it works.
//!
//! Three processes of this binary run below a temporary folder ([`cluster`]), or one node in this process (`--nodes 1`);
//! generated edits come in through the Kafka port, as any client's would, and the first answers are asked over HTTP.
//! Nothing here takes a short cut.

mod cluster;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base::Timestamp;
use base::batch::Codec;
use base::records::BatchBuilder;
use clap::Args;
use clap::builder::TypedValueParser;
use client::edits::Edits;
use client::{Acks, Connection};
use serde_json::{Value, json};

use crate::config::{Config, Sources, load};
use crate::node::{serve, time};

/// Options of `seawall demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Nodes: 3 processes, or 1 in this one
    #[arg(long, default_value_t = 3, value_parser = clap::builder::PossibleValuesParser::new(["1", "3", "5"]).map(|text| text.parse::<u32>().unwrap_or(1)))]
    nodes: u32,
    /// Edits produced per second
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// End after so many seconds; default: run until Ctrl-C
    #[arg(long)]
    seconds: Option<u64>,
}

const TABLE: &str = "wikipedia";
/// Edits of the last hour, produced at once so that there is something to ask.
const BACKLOG: u64 = 20_000;
const HOUR_MS: i64 = 3_600_000;
const PATIENCE: Duration = Duration::from_secs(20);
/// The producer sends this often.
const STEP: Duration = Duration::from_millis(100);

const QUESTIONS: [(&str, &str); 2] = [
    (
        "How many edits, by how many people?",
        "SELECT COUNT(*) AS edits, COUNT(DISTINCT \"user\") AS people FROM wikipedia",
    ),
    (
        "Where is most being written right now?",
        "SELECT channel, COUNT(*) AS edits, SUM(added) AS added FROM wikipedia \
         WHERE __time >= CURRENT_TIMESTAMP - INTERVAL '1' HOUR GROUP BY channel ORDER BY edits DESC LIMIT 5",
    ),
];

pub fn run(args: &DemoArgs) -> ExitCode {
    let folder = std::env::temp_dir().join(format!("seawall-demo-{}", std::process::id()));
    let done = match args.nodes {
        1 => demo(args, &folder),
        _ => cluster::run(args, &folder).map(|()| ExitCode::SUCCESS),
    };
    let code = match done {
        Ok(code) => code,
        Err(cause) => {
            let _ = writeln!(std::io::stderr(), "demo: {cause}");
            ExitCode::FAILURE
        }
    };
    drop(std::fs::remove_dir_all(&folder));
    code
}

fn demo(args: &DemoArgs, folder: &Path) -> Result<ExitCode, String> {
    let begun = Instant::now();
    let config = configure(folder)?;
    let ended = Arc::new(AtomicBool::new(false));
    let guide = {
        let (config, args, ended) = (config.clone(), args.clone(), Arc::clone(&ended));
        std::thread::spawn(move || {
            let shown = show(&config, &args, begun, &ended);
            if let Err(cause) = &shown {
                let _ = writeln!(std::io::stderr(), "demo: {cause}");
            }
            // Ends the node as Ctrl-C would: the demo's own time is up, or it cannot go on.
            if !ended.load(Ordering::SeqCst) {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT);
            }
            shown.is_ok()
        })
    };
    let code = serve(config);
    ended.store(true, Ordering::SeqCst);
    let went_well = guide.join().unwrap_or(false);
    Ok(if went_well { code } else { ExitCode::FAILURE })
}

/// The default ports where they are free, others where they are not; telemetry on.
fn configure(folder: &Path) -> Result<Config, String> {
    let flag = |name: &'static str, text: String| (name, name.to_owned(), text);
    let mut sources = Sources {
        dev: true,
        flags: vec![
            flag("node.data_dir", folder.display().to_string()),
            flag("telemetry.request_log", "true".into()),
            flag("telemetry.metrics", "true".into()),
            flag("telemetry.metrics_interval", "1s".into()),
            flag("telemetry.log", "warn".into()),
            flag("log.disk_reserve_bytes", "256MiB".into()),
        ],
        ..Sources::default()
    };
    for (name, port) in [("listen.kafka", 9092), ("listen.http", 8888), ("listen.postgres", 5433)] {
        sources.flags.push(flag(name, free_address(port)?));
    }
    load(&sources).map(|loaded| loaded.config).map_err(|error| error.to_string())
}

fn free_address(port: u16) -> Result<String, String> {
    let bound =
        std::net::TcpListener::bind(("127.0.0.1", port)).or_else(|_| std::net::TcpListener::bind(("127.0.0.1", 0)));
    let address = bound.and_then(|listener| listener.local_addr());
    address.map(|address| address.to_string()).map_err(|error| error.to_string())
}

fn show(config: &Config, args: &DemoArgs, begun: Instant, ended: &AtomicBool) -> Result<(), String> {
    let mut connection = connect(config, ended)?;
    let http = Http::at(format!("http://{}", config.listen.http))?;
    http.post("/api/v1/tables", &json!({"name": TABLE, "topic": TABLE}))?;
    let mut edits = Edits::new(1);
    let now = time::wall().0;
    let step = HOUR_MS / i64::try_from(BACKLOG).unwrap_or(1);
    produce(&mut connection, &mut edits, BACKLOG, |index| now - HOUR_MS + i64::try_from(index).unwrap_or(0) * step)?;
    http.await_rows(BACKLOG)?;
    say(&format!("{BACKLOG} edits went in through the Kafka port and are queryable.\n"));
    for (question, query) in QUESTIONS {
        let asked = Instant::now();
        let rows = http.sql(query)?;
        say(&format!("{question}  ({:.1} ms)\n{}", asked.elapsed().as_secs_f64() * 1_000.0, as_text(&rows)));
    }
    say(&connect_lines(config));
    say(&format!(
        "Ready after {:.1} s. {} edits a second come in from now on. Ctrl-C ends the demo and removes its folder.",
        begun.elapsed().as_secs_f64(),
        args.rate
    ));
    let until = args.seconds.map(|seconds| begun + Duration::from_secs(seconds));
    let (paced, mut sent) = (Instant::now(), 0);
    while !ended.load(Ordering::SeqCst) && until.is_none_or(|until| Instant::now() < until) {
        let due = u64::try_from(paced.elapsed().as_millis()).unwrap_or(0) * args.rate / 1_000;
        if due > sent {
            let now = time::wall().0;
            match produce(&mut connection, &mut edits, due - sent, |_| now) {
                Err(_) if ended.load(Ordering::SeqCst) => break,
                other => other?,
            }
            sent = due;
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}

fn connect(config: &Config, ended: &AtomicBool) -> Result<Connection, String> {
    let begun = Instant::now();
    let address = config.listen.kafka.to_string();
    loop {
        match Connection::connect(&address, "demo", PATIENCE) {
            Ok(connection) => return Ok(connection),
            Err(error) if begun.elapsed() > PATIENCE || ended.load(Ordering::SeqCst) => return Err(error.to_string()),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn produce(
    connection: &mut Connection,
    edits: &mut Edits,
    count: u64,
    time_ms: impl Fn(u64) -> i64,
) -> Result<(), String> {
    const BATCH: u64 = 2_000;
    let mut json = String::new();
    let mut sent = 0;
    while sent < count {
        let mut builder = BatchBuilder::new(Codec::Lz4);
        for index in sent..(sent + BATCH).min(count) {
            json.clear();
            edits.write(time_ms(index), &mut json);
            builder.push(Timestamp(time_ms(index)), None, Some(json.as_bytes()), &[]);
        }
        let batch = builder.build().map_err(|error| error.to_string())?;
        connection.produce(TABLE, 0, batch, Acks::All).map_err(|error| error.to_string())?;
        sent += BATCH;
    }
    Ok(())
}

/// The demo's own requests over HTTP.
struct Http {
    base: String,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Http {
    fn at(base: String) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { base, client: reqwest::Client::new(), runtime: runtime.map_err(|error| error.to_string())? })
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let request = self.client.post(format!("{}{path}", self.base)).timeout(PATIENCE).json(body);
        self.runtime.block_on(async {
            let answer = request.send().await.map_err(|error| error.to_string())?;
            let status = answer.status();
            let text = answer.text().await.map_err(|error| error.to_string())?;
            if !status.is_success() {
                return Err(format!("{path}: {status} {text}"));
            }
            Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
        })
    }

    fn await_rows(&self, wanted: u64) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let counted = self.sql(&format!("SELECT COUNT(*) AS n FROM {TABLE}"));
            if counted.as_ref().is_ok_and(|rows| rows.first().and_then(|row| row["n"].as_u64()) >= Some(wanted)) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let why = counted.err().unwrap_or_default();
                return Err(format!("the edits were not queryable within {} s {why}", PATIENCE.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn sql(&self, query: &str) -> Result<Vec<Value>, String> {
        let answer = self.post("/druid/v2/sql", &json!({"query": query}))?;
        answer.as_array().cloned().ok_or_else(|| format!("{query}: answered {answer}"))
    }
}

fn as_text(rows: &[Value]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    if let Some(first) = rows.first().and_then(Value::as_object) {
        table.set_header(first.keys());
    }
    for row in rows.iter().filter_map(Value::as_object) {
        table.add_row(row.values().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)));
    }
    format!("{table}\n")
}

fn connect_lines(config: &Config) -> String {
    let listen = &config.listen;
    let program = std::env::args().next().map_or_else(|| PathBuf::from("seawall"), PathBuf::from);
    format!(
        "Connect:\n  browser  http://{http}/\n  kafka    kcat -b {kafka} -C -t {TABLE} -o -5 -e\n  sql      \
         curl -s http://{http}/druid/v2/sql -H 'Content-Type: application/json' -d '{{\"query\":\"SELECT COUNT(*) FROM \
         {TABLE}\"}}'\n  psql     psql -h {host} -p {port} -U seawall druid\n  shell    {program} sql --url http://{http}\n",
        http = listen.http,
        kafka = listen.kafka,
        host = listen.postgres.ip(),
        port = listen.postgres.port(),
        program = program.display(),
    )
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
