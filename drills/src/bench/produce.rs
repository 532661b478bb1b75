//! How many records a second the log takes, and how long a batch waits for its acknowledgement: on one node, on several,
//! or, with the same load, on a peer that speaks the same protocol.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base::Timestamp;
use base::batch::Codec;
use base::records::BatchBuilder;
use bytes::Bytes;
use client::{Acks, TopicSpec};
use serde_json::{Value, json};

use super::Options;
use crate::cluster::{Cluster, Spec};
use crate::server::PATIENCE;
use crate::{Common, Failure, table, usage};

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

/// What is measured: processes of ours that end with it, or ones that run already.
struct Target {
    bootstrap: Vec<String>,
    pids: Vec<u32>,
    _cluster: Option<(Cluster, Folder)>,
}

/// Removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

impl Target {
    fn start(common: &Common, options: &Options) -> Result<Self, Failure> {
        if !options.bootstrap.is_empty() {
            return Ok(Self { bootstrap: options.bootstrap.clone(), pids: options.pids.clone(), _cluster: None });
        }
        let folder = common.folder.clone().unwrap_or_else(std::env::temp_dir);
        let folder = Folder(folder.join(format!("seawall-bench-{}", std::process::id())));
        let mut spec = Spec::of(options.nodes.unwrap_or(1));
        spec.settings.push(("log.disk_reserve_bytes", "1GiB".to_owned()));
        let mut cluster = Cluster::new(&common.binary()?, &folder.0, &spec)?;
        cluster.start()?;
        let pids = cluster.ids().into_iter().filter_map(|id| cluster.node(id).ok()?.pid()).collect();
        Ok(Self { bootstrap: cluster.bootstrap(), pids, _cluster: Some((cluster, folder)) })
    }

    fn cpu_seconds(&self) -> f64 {
        self.pids.iter().map(|pid| usage::cpu_seconds(*pid)).sum()
    }

    fn memory_bytes(&self) -> u64 {
        self.pids.iter().map(|pid| usage::memory_bytes(*pid)).sum()
    }

    fn clients(&self) -> client::Cluster {
        client::Cluster::new(self.bootstrap.clone(), "bench", PATIENCE)
    }

    /// A new topic whose partitions all have leaders.
    fn create(&self, topic: &str) -> Result<(), Failure> {
        let spec = TopicSpec { name: topic.into(), partitions: Some(PARTITIONS), config: [].into() };
        let mut clients = self.clients();
        let begun = Instant::now();
        loop {
            // Kafka takes it at its controller only, which any broker passes it on to.
            let created = clients.any().and_then(|node| node.create_topic(&spec));
            let led = created.map(drop).or_else(|error| if error.code() == Some(36) { Ok(()) } else { Err(error) });
            let led =
                led.and_then(|()| (0..PARTITIONS).try_for_each(|partition| clients.leader(topic, partition).map(drop)));
            match led {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() > PATIENCE => return Err(error.to_string()),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

fn measure(
    common: &Common,
    options: &Options,
    acks: Acks,
    name: &str,
    record_bytes: usize,
) -> Result<Vec<Value>, Failure> {
    let target = Target::start(common, options)?;
    let topic = format!("produce-{name}-{record_bytes}-{}", std::process::id());
    target.create(&topic)?;
    let (batch, records) = batch(record_bytes)?;
    let cpu_before = target.cpu_seconds();
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let begun = Instant::now();
    let producers: Vec<_> = (0..PARTITIONS)
        .map(|partition| {
            let (clients, topic, batch) = (target.clients(), topic.clone(), batch.clone());
            std::thread::spawn(move || producer(clients, &topic, partition, &batch, acks, deadline))
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
        table::rounded(target.cpu_seconds() - cpu_before),
        json!(target.memory_bytes() >> 20),
    ])
}

fn producer(
    mut clients: client::Cluster,
    topic: &str,
    partition: i32,
    batch: &Bytes,
    acks: Acks,
    deadline: Instant,
) -> Result<Vec<f64>, Failure> {
    let told = |error: client::ClientError| error.to_string();
    // Another node may hear a little later who leads.
    let begun = Instant::now();
    while let Err(error) = clients.leader(topic, partition).map(drop) {
        if begun.elapsed() > PATIENCE {
            return Err(told(error));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let connection = clients.leader(topic, partition).map_err(told)?;
    let (mut waits, mut sent) = (Vec::new(), VecDeque::new());
    while Instant::now() < deadline || !sent.is_empty() {
        if Instant::now() < deadline && sent.len() < IN_FLIGHT_MAX {
            sent.push_back(Instant::now());
            connection.send_produce(topic, partition, batch.clone(), acks).map_err(told)?;
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
