//! How many records a second the log takes, and how long a batch waits for its acknowledgement.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use base::Timestamp;
use base::batch::Codec;
use base::records::BatchBuilder;
use bytes::Bytes;
use client::Acks;
use serde_json::{Value, json};

use super::Options;
use crate::server::Server;
use crate::{Common, Failure, table};

const TOPIC: &str = "produce";
const PARTITIONS: i32 = 4;
/// Bytes of records in one batch, as a busy producer with a short linger fills it.
const BATCH_BYTES: usize = 64 << 10;
const IN_FLIGHT_MAX: usize = 5;

pub fn run(common: &Common, options: &Options) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for (acks, name) in [(Acks::Leader, "1"), (Acks::All, "all")] {
        for record_bytes in [100, 1_024] {
            rows.push(measure(common, options, acks, name, record_bytes)?);
        }
    }
    let columns = [
        "acks",
        "record_bytes",
        "records_per_s",
        "mb_per_s",
        "p50_ms",
        "p99_ms",
        "p999_ms",
        "server_cpu_s",
        "memory_mib",
    ];
    table::print(&options.format, &columns, &rows);
    Ok(())
}

fn measure(
    common: &Common,
    options: &Options,
    acks: Acks,
    name: &str,
    record_bytes: usize,
) -> Result<Vec<Value>, Failure> {
    let mut server = Server::new(common, &[])?;
    server.start()?;
    let topic = client::TopicSpec { name: TOPIC.into(), partitions: Some(PARTITIONS), config: [].into() };
    server.connect()?.create_topic(&topic).map_err(|error| error.to_string())?;
    let (batch, records) = batch(record_bytes)?;
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let begun = Instant::now();
    let producers: Vec<_> = (0..PARTITIONS)
        .map(|partition| {
            let (connection, batch) = (server.connect(), batch.clone());
            std::thread::spawn(move || producer(connection?, partition, &batch, acks, deadline))
        })
        .collect();
    let mut waits = Vec::new();
    for producer in producers {
        waits.extend(producer.join().map_err(|_| "a producer panicked".to_owned())??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    waits.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    let rate = (waits.len() * records) as f64 / seconds;
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    let megabytes = rate * record_bytes as f64 / 1e6;
    Ok(vec![
        json!(name),
        json!(record_bytes),
        json!(rate.round()),
        table::rounded(megabytes),
        table::rounded(table::percentile(&waits, 0.5)),
        table::rounded(table::percentile(&waits, 0.99)),
        table::rounded(table::percentile(&waits, 0.999)),
        table::rounded(server.cpu_seconds()),
        json!(server.memory_bytes() >> 20),
    ])
}

fn producer(
    mut connection: client::Connection,
    partition: i32,
    batch: &Bytes,
    acks: Acks,
    deadline: Instant,
) -> Result<Vec<f64>, Failure> {
    let told = |error: client::ClientError| error.to_string();
    let (mut waits, mut sent) = (Vec::new(), VecDeque::new());
    while Instant::now() < deadline || !sent.is_empty() {
        if Instant::now() < deadline && sent.len() < IN_FLIGHT_MAX {
            sent.push_back(Instant::now());
            connection.send_produce(TOPIC, partition, batch.clone(), acks).map_err(told)?;
            continue;
        }
        connection.receive_produced().map_err(told)?;
        if let Some(at) = sent.pop_front() {
            waits.push(at.elapsed().as_secs_f64() * 1_000.0);
        }
    }
    Ok(waits)
}

fn batch(record_bytes: usize) -> Result<(Bytes, usize), Failure> {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = vec![b'x'; record_bytes];
    let records = BATCH_BYTES / record_bytes;
    for _ in 0..records {
        builder.push(Timestamp(0), None, Some(&value), &[]);
    }
    Ok((builder.build().map_err(|error| error.to_string())?, records))
}
