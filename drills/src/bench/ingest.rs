//! How long an event takes to become queryable at a steady rate, and how many rows a second the table takes at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base::Timestamp;
use base::batch::Codec;
use base::records::BatchBuilder;
use client::Acks;
use client::edits::Edits;
use serde_json::json;

use super::{Options, load};
use crate::server::{PATIENCE, Server};
use crate::{Common, Failure, http, table};

/// The steady part sends this often.
const STEP: Duration = Duration::from_millis(20);

pub fn run(common: &Common, options: &Options) -> Result<(), Failure> {
    steady(common, options)?;
    flat_out(common, options)
}

/// `rate` events a second; a probe sends one marked event at a time and asks until it is there.
fn steady(common: &Common, options: &Options) -> Result<(), Failure> {
    let mut server = Server::new(common, &[])?;
    server.start()?;
    server.create_table(load::TOPIC)?;
    let stop = Arc::new(AtomicBool::new(false));
    let background = {
        let (connection, stop, rate) = (server.connect()?, Arc::clone(&stop), options.rate);
        std::thread::spawn(move || pace(connection, rate, &stop))
    };
    std::thread::sleep(Duration::from_secs(2));
    let cpu_before = server.cpu_seconds();
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let mut waits = probe(&server, deadline)?;
    let cpu = (server.cpu_seconds() - cpu_before) / options.seconds.max(1).to_string().parse::<f64>().unwrap_or(1.0);
    stop.store(true, Ordering::SeqCst);
    let (sent, seconds) = background.join().map_err(|_| "the producer panicked".to_owned())??;
    waits.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = sent as f64 / seconds;
    let columns = [
        "events_per_s",
        "probes",
        "queryable_p50_ms",
        "queryable_p99_ms",
        "queryable_max_ms",
        "server_cores",
        "memory_mib",
    ];
    table::print(
        &options.format,
        &columns,
        &[vec![
            json!(rate.round()),
            json!(waits.len()),
            table::rounded(table::percentile(&waits, 0.5)),
            table::rounded(table::percentile(&waits, 0.99)),
            table::rounded(table::percentile(&waits, 1.0)),
            json!((cpu * 100.0).round() / 100.0),
            json!(server.memory_bytes() >> 20),
        ]],
    );
    Ok(())
}

fn pace(mut connection: client::Connection, rate: u64, stop: &AtomicBool) -> Result<(u64, f64), Failure> {
    let mut edits = Edits::new(7);
    let begun = Instant::now();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = u64::try_from(begun.elapsed().as_millis()).unwrap_or(0) * rate / 1_000;
        if due > sent {
            let now = now_ms();
            let (batch, _) = load::batch(&mut edits, (due - sent).min(10_000), |_| now)?;
            sent = due;
            connection.produce(load::TOPIC, 0, batch, Acks::All).map_err(|error| error.to_string())?;
        }
        std::thread::sleep(STEP);
    }
    Ok((sent, begun.elapsed().as_secs_f64()))
}

/// Milliseconds from the send of a marked event until SQL finds it.
fn probe(server: &Server, deadline: Instant) -> Result<Vec<f64>, Failure> {
    let mut connection = server.connect()?;
    let mut waits = Vec::new();
    while Instant::now() < deadline {
        let mark = format!("mark-{}", waits.len());
        let json = format!(r#"{{"__time":{},"channel":"probe","page":"{mark}"}}"#, now_ms());
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(Timestamp(now_ms()), None, Some(json.as_bytes()), &[]);
        let batch = builder.build().map_err(|error| error.to_string())?;
        let begun = Instant::now();
        connection.produce(load::TOPIC, 0, batch, Acks::All).map_err(|error| error.to_string())?;
        let query = format!("SELECT COUNT(*) FROM {} WHERE page = '{mark}'", load::TOPIC);
        while http::count(server.http, &query, PATIENCE)? == 0 {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{mark} was not queryable within {} s", PATIENCE.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        waits.push(begun.elapsed().as_secs_f64() * 1_000.0);
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(waits)
}

/// As many rows as possible; what they cost in time, memory and disk.
fn flat_out(common: &Common, options: &Options) -> Result<(), Failure> {
    let mut server = Server::new(common, &[])?;
    server.start()?;
    server.create_table(load::TOPIC)?;
    let begun = Instant::now();
    let raw_bytes = load::load(&server, options.rows, 30)?;
    let produced = begun.elapsed().as_secs_f64();
    load::await_rows(&server, options.rows, Duration::from_secs(600))?;
    let queryable = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    let rate = |seconds: f64| (options.rows as f64 / seconds).round();
    let cpu = server.cpu_seconds();
    let columns = [
        "rows",
        "produced_rows_per_s",
        "queryable_rows_per_s",
        "rows_per_cpu_s",
        "raw_mb",
        "log_mb",
        "deep_mb",
        "segments_mb",
        "memory_mib",
    ];
    let cells = vec![
        json!(options.rows),
        json!(rate(produced)),
        json!(rate(queryable)),
        json!(rate(cpu)),
        json!(raw_bytes / 1_000_000),
        json!(server.disk_bytes("log") / 1_000_000),
        json!(server.disk_bytes("deep") / 1_000_000),
        json!(server.disk_bytes("segments") / 1_000_000),
        json!(server.memory_bytes() >> 20),
    ];
    table::print(&options.format, &columns, &[cells]);
    Ok(())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(0)
}
