//! Fills a table with generated edits through the Kafka port.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::Timestamp;
use base::batch::Codec;
use base::records::BatchBuilder;
use bytes::Bytes;
use client::edits::Edits;
use client::{Acks, Connection};

use crate::server::{PATIENCE, Server};
use crate::{Failure, http};

pub const TOPIC: &str = "edits";
/// Edits in one batch.
const BATCH_ROWS: u64 = 2_000;
/// Batches under way at a time.
const IN_FLIGHT_MAX: i32 = 8;
/// The first edit's time: 2026-01-01.
pub const FROM_MS: i64 = 1_767_225_600_000;
const DAY_MS: i64 = 86_400_000;

/// Produces `rows` edits spread evenly over `days`, in order of time. Returns the plain JSON bytes.
pub fn load(server: &Server, rows: u64, days: i64) -> Result<u64, Failure> {
    let sent_bytes = AtomicU64::new(0);
    let mut connection = server.connect()?;
    let mut edits = Edits::new(42);
    let span_ms = i128::from(days * DAY_MS);
    let mut sent = 0;
    while sent < rows {
        let count = BATCH_ROWS.min(rows - sent);
        let (batch, bytes) = batch(&mut edits, count, |index| {
            let at = span_ms * i128::from(sent + index) / i128::from(rows);
            FROM_MS + i64::try_from(at).unwrap_or(0)
        })?;
        sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        send(&mut connection, batch)?;
        sent += count;
    }
    while connection.in_flight() > 0 {
        connection.receive_produced().map_err(|error| error.to_string())?;
    }
    Ok(sent_bytes.into_inner())
}

fn send(connection: &mut Connection, batch: Bytes) -> Result<(), Failure> {
    let told = |error: client::ClientError| error.to_string();
    connection.send_produce(TOPIC, 0, batch, Acks::All).map_err(told)?;
    if connection.in_flight() >= IN_FLIGHT_MAX {
        connection.receive_produced().map_err(told)?;
    }
    Ok(())
}

/// One LZ4 batch of edits and the size of its JSON.
pub fn batch(edits: &mut Edits, count: u64, time_ms: impl Fn(u64) -> i64) -> Result<(Bytes, u64), Failure> {
    let mut builder = BatchBuilder::new(Codec::Lz4);
    let (mut json, mut bytes) = (String::with_capacity(512), 0);
    for index in 0..count {
        json.clear();
        let time = time_ms(index);
        edits.write(time, &mut json);
        bytes += json.len() as u64;
        builder.push(Timestamp(time), None, Some(json.as_bytes()), &[]);
    }
    Ok((builder.build().map_err(|error| error.to_string())?, bytes))
}

/// Waits until SQL counts `rows`; returns how long that took.
pub fn await_rows(server: &Server, rows: u64, patience: Duration) -> Result<Duration, Failure> {
    let begun = Instant::now();
    loop {
        let counted = http::count(server.http, &format!("SELECT COUNT(*) FROM {TOPIC}"), PATIENCE)?;
        if counted >= rows {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > patience {
            return Err(format!("SQL counts {counted} of {rows} rows after {} s", patience.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
