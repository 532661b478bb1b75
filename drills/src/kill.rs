//! SIGKILL at random moments under produce (acks=1 and all), ingestion, sealing and queries.
//!
//! Promise: nothing acknowledged is lost, nothing is there twice, and the first answer after each restart counts at
//! least what was acknowledged before the kill.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::{Offset, batch, records};
use clap::Args;
use client::{Acks, Connection};
use serde_json::{Value, json};

use crate::ledger::{Assignment, Producer};
use crate::random::Random;
use crate::server::{PATIENCE, Server};
use crate::{Common, Failure, http, table};

#[derive(Args)]
pub struct Options {
    /// How often the server is killed
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Milliseconds each producer rests between two batches of 1 to 200 records
    #[arg(long, default_value_t = 8)]
    pause_ms: u64,
    /// Partitions of the topic
    #[arg(long, default_value_t = 2)]
    partitions: i32,
    /// table or json
    #[arg(long, default_value = "table")]
    format: String,
}

const TOPIC: &str = "ledger";
/// Small segments, sealed often, so that kills meet sealing and publishing too.
const SETTINGS: [(&str, &str); 3] = [
    ("SEAWALL_STORE_SEGMENT_ROWS_MAX", "30000"),
    ("SEAWALL_STORE_SEGMENT_AGE_MAX", "2s"),
    ("SEAWALL_LOG_FILE_BYTES", "8MiB"),
];
const PRODUCERS: u64 = 4;

pub fn run(common: &Common, options: &Options) -> Result<(), Failure> {
    let mut server = Server::new(common, &SETTINGS)?;
    server.start()?;
    // The records' times are old: retention by time must not take them before they are compared.
    let config = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
    let topic = client::TopicSpec { name: TOPIC.into(), partitions: Some(options.partitions), config };
    server.connect()?.create_topic(&topic).map_err(|error| error.to_string())?;
    server.create_table(TOPIC)?;
    let stop = Arc::new(AtomicBool::new(false));
    let producers: Vec<Producer> = (0..PRODUCERS)
        .map(|number| {
            let acks = if number % 2 == 0 { Acks::All } else { Acks::Leader };
            Producer::start(&Assignment {
                number,
                topic: TOPIC.into(),
                partitions: options.partitions,
                address: server.kafka.to_string(),
                acks,
                pause_ms: options.pause_ms,
                stop: Arc::clone(&stop),
            })
        })
        .collect();
    let queries = Queries::start(server.http, Arc::clone(&stop));
    let mut random = Random(options.seed);
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        rounds.push(one_round(&mut server, &producers, &mut random, round)?);
    }
    stop.store(true, Ordering::SeqCst);
    let retries: u64 = producers.iter().map(|producer| producer.retries.load(Ordering::Relaxed)).sum();
    let acknowledged = producers.into_iter().map(Producer::join).collect::<Result<BTreeMap<u64, u64>, String>>()?;
    let (answered, wrong) = queries.join()?;
    print_rounds(&options.format, &rounds);
    let verdict = verify(&server, options.partitions, &acknowledged)?;
    report(&options.format, &rounds, &verdict, (retries, answered))?;
    if let Some(wrong) = wrong {
        return Err(format!("a query under load went wrong: {wrong}"));
    }
    Ok(())
}

struct Round {
    number: u32,
    acknowledged_before: u64,
    counted_first: u64,
    first_answer_ms: u64,
}

/// Load for a while, SIGKILL, restart, first answer.
fn one_round(server: &mut Server, producers: &[Producer], random: &mut Random, number: u32) -> Result<Round, Failure> {
    std::thread::sleep(Duration::from_millis(random.between(100, 2_500)));
    server.kill();
    let acknowledged_before = acknowledged(producers);
    let begun = Instant::now();
    server.spawn()?;
    let counted_first = server.await_sql(&format!("SELECT COUNT(*) FROM {TOPIC}"), begun)?;
    let first_answer_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    if counted_first < acknowledged_before {
        return Err(format!(
            "round {number}: {acknowledged_before} records were acknowledged before the kill, the first answer counts {counted_first}"
        ));
    }
    Ok(Round { number, acknowledged_before, counted_first, first_answer_ms })
}

fn acknowledged(producers: &[Producer]) -> u64 {
    producers.iter().map(|producer| producer.acknowledged.load(Ordering::SeqCst)).sum()
}

/// Asks all the time; while the server is down there is no answer, which is fine. A count that goes down is not.
struct Queries {
    thread: std::thread::JoinHandle<(u64, Option<String>)>,
}

impl Queries {
    fn start(address: SocketAddr, stop: Arc<AtomicBool>) -> Self {
        let highest = AtomicU64::new(0);
        let thread = std::thread::spawn(move || {
            let mut answered = 0;
            while !stop.load(Ordering::Relaxed) {
                let query = format!("SELECT COUNT(*), COUNT(DISTINCT id) FROM {TOPIC}");
                if let Ok(rows) = http::sql(address, &query, Duration::from_secs(10)) {
                    answered += 1;
                    let cell = |at: usize| rows.first().and_then(|row| row.get(at)).and_then(Value::as_u64);
                    let (Some(all), Some(distinct)) = (cell(0), cell(1)) else {
                        return (answered, Some(format!("{query}: {rows:?}")));
                    };
                    let before = highest.fetch_max(all, Ordering::SeqCst);
                    if all != distinct || all < before {
                        return (answered, Some(format!("{all} rows, {distinct} ids, {before} rows before")));
                    }
                }
                std::thread::sleep(Duration::from_millis(30));
            }
            (answered, None)
        });
        Self { thread }
    }

    fn join(self) -> Result<(u64, Option<String>), Failure> {
        self.thread.join().map_err(|_| "the query thread panicked".to_owned())
    }
}

struct Verdict {
    acknowledged: u64,
    counted: u64,
    distinct: u64,
    read_back: u64,
    lost: u64,
    twice: u64,
    unexpected: u64,
}

/// Compares the ledger with SQL and with what a consumer reads.
fn verify(server: &Server, partitions: i32, acknowledged: &BTreeMap<u64, u64>) -> Result<Verdict, Failure> {
    let total: u64 = acknowledged.values().sum();
    let counted = settled_count(server, total)?;
    let distinct = http::count(server.http, &format!("SELECT COUNT(DISTINCT id) FROM {TOPIC}"), PATIENCE)?;
    let mut seen: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut connection = server.connect()?;
    for partition in 0..partitions {
        read_all(&mut connection, partition, &mut seen)?;
    }
    let mut verdict =
        Verdict { acknowledged: total, counted, distinct, read_back: 0, lost: 0, twice: 0, unexpected: 0 };
    for (producer, numbers) in &mut seen {
        verdict.read_back += numbers.len() as u64;
        let in_order = numbers.is_sorted();
        numbers.sort_unstable();
        let all = numbers.len();
        numbers.dedup();
        let expected = acknowledged.get(producer).copied().unwrap_or(0);
        let below = numbers.partition_point(|number| *number < expected) as u64;
        verdict.twice += (all - numbers.len()) as u64;
        verdict.lost += expected - below;
        verdict.unexpected += numbers.len() as u64 - below;
        if !in_order {
            return Err(format!("producer {producer}: its records are not in order"));
        }
    }
    verdict.lost +=
        acknowledged.iter().filter(|(producer, _)| !seen.contains_key(producer)).map(|(_, n)| n).sum::<u64>();
    Ok(verdict)
}

/// The count once it has reached `total`, or has not moved for a while.
fn settled_count(server: &Server, total: u64) -> Result<u64, Failure> {
    let begun = Instant::now();
    loop {
        let counted = http::count(server.http, &format!("SELECT COUNT(*) FROM {TOPIC}"), PATIENCE)?;
        if counted >= total || begun.elapsed() > Duration::from_secs(20) {
            return Ok(counted);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn read_all(connection: &mut Connection, partition: i32, seen: &mut BTreeMap<u64, Vec<u64>>) -> Result<(), Failure> {
    let mut next = Offset(0);
    loop {
        let fetched = connection.fetch(TOPIC, partition, next, 4 << 20, 500).map_err(|error| error.to_string())?;
        if fetched.batches.is_empty() {
            return if next >= fetched.high_watermark { Ok(()) } else { Err(format!("nothing to read at {next}")) };
        }
        for item in batch::split(&fetched.batches) {
            let (header, bytes) = match item {
                Ok(item) => item,
                Err(batch::BatchError::Truncated { .. }) => break,
                Err(error) => return Err(error.to_string()),
            };
            let decoded = records::decode(&bytes).map_err(|error| error.to_string())?;
            for record in decoded.iter() {
                let record = record.map_err(|error| error.to_string())?;
                let json: Value =
                    serde_json::from_slice(record.value.unwrap_or_default()).map_err(|e| e.to_string())?;
                let producer = json["producer"].as_str().and_then(|name| name[1..].parse().ok()).unwrap_or(u64::MAX);
                seen.entry(producer).or_default().push(json["number"].as_u64().unwrap_or(u64::MAX));
            }
            next = header.next_offset();
        }
    }
}

fn print_rounds(format: &str, rounds: &[Round]) {
    let cells: Vec<Vec<Value>> = rounds
        .iter()
        .map(|r| vec![json!(r.number), json!(r.acknowledged_before), json!(r.counted_first), json!(r.first_answer_ms)])
        .collect();
    table::print(format, &["round", "acknowledged", "counted_at_first_answer", "first_answer_ms"], &cells);
}

fn report(format: &str, rounds: &[Round], verdict: &Verdict, (retries, answered): (u64, u64)) -> Result<(), Failure> {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
    let mut waits: Vec<f64> = rounds.iter().map(|round| round.first_answer_ms as f64).collect();
    waits.sort_by(f64::total_cmp);
    let passed = verdict.lost == 0
        && verdict.twice == 0
        && verdict.unexpected == 0
        && verdict.counted == verdict.acknowledged
        && verdict.distinct == verdict.acknowledged
        && verdict.read_back == verdict.acknowledged;
    table::print(
        format,
        &[
            "kills",
            "acknowledged",
            "sql_count",
            "sql_distinct",
            "read_back",
            "lost",
            "twice",
            "unexpected",
            "retries",
            "queries",
            "first_answer_ms_p50",
            "first_answer_ms_max",
            "passed",
        ],
        &[vec![
            json!(rounds.len()),
            json!(verdict.acknowledged),
            json!(verdict.counted),
            json!(verdict.distinct),
            json!(verdict.read_back),
            json!(verdict.lost),
            json!(verdict.twice),
            json!(verdict.unexpected),
            json!(retries),
            json!(answered),
            json!(table::percentile(&waits, 0.5)),
            json!(table::percentile(&waits, 1.0)),
            json!(passed),
        ]],
    );
    if passed { Ok(()) } else { Err("the promise was not kept".into()) }
}
