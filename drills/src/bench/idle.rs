//! What partitions cost that nobody writes to: processor time, memory, files and bytes between the nodes, and how long
//! many of them take to be made, to find other leaders and to be opened again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Options;
use crate::cluster::{Cluster, Spec};
use crate::{Common, Failure, table};

/// Partitions of a topic; more partitions make more topics.
const PER_TOPIC: u32 = 1_000;
/// Longest wait for all partitions to have a leader.
const PATIENCE: Duration = Duration::from_secs(300);
/// Let go by before idleness is measured: groups fall asleep, marks are written.
const CALM: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);
/// .. and so many times as long as a look takes: looking must not be what the nodes are busy with ..
const PAUSE_LOOKS: u32 = 4;
/// .. but no longer than this.
const PAUSE_MAX: Duration = Duration::from_millis(250);

pub fn run(common: &Common, options: &Options) -> Result<(), Failure> {
    let folder = common.folder.clone().unwrap_or_else(crate::Options::temporary_folder);
    let result = measure(common, options, &folder);
    if !common.keep && result.is_ok() {
        drop(std::fs::remove_dir_all(&folder));
    }
    table::print(&options.format, &["measure", "value"], &result?);
    Ok(())
}

fn measure(common: &Common, options: &Options, folder: &std::path::Path) -> Result<Vec<Vec<Value>>, Failure> {
    let mut rows: Vec<Vec<Value>> = Vec::new();
    let mut row = |name: &str, value: Value| {
        eprintln!("{name}: {value}");
        rows.push(vec![json!(name), value]);
    };
    let mut cluster = Cluster::new(&common.binary()?, folder, &Spec::of(options.nodes.unwrap_or(3)))?;
    cluster.start()?;
    let ids = cluster.ids();
    let empty: Vec<Usage> = ids.iter().map(|id| usage(&cluster, *id)).collect();

    let begun = Instant::now();
    let topics: Vec<(String, i32)> = (0..options.partitions.div_ceil(PER_TOPIC))
        .map(|number| {
            let partitions = PER_TOPIC.min(options.partitions - number * PER_TOPIC);
            (format!("idle-{number}"), i32::try_from(partitions).unwrap_or(i32::MAX))
        })
        .collect();
    for (name, partitions) in &topics {
        let topic = client::TopicSpec { name: name.clone(), partitions: Some(*partitions), config: [].into() };
        cluster.create_topic(&topic)?;
    }
    row("topics created after s", seconds(begun));
    await_leaders(&cluster, ids[0], &topics, &ids)?;
    row("all have leaders after s", seconds(begun));

    std::thread::sleep(CALM);
    let before: Vec<Usage> = ids.iter().map(|id| usage(&cluster, *id)).collect();
    let bytes_before = bytes_between(&cluster, &ids);
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs(options.seconds));
    let elapsed = begun.elapsed().as_secs_f64();
    let mut all = 0.0;
    for (at, id) in ids.iter().enumerate() {
        let now = usage(&cluster, *id);
        let cpu = (now.cpu_seconds - before[at].cpu_seconds) / elapsed;
        all += cpu;
        let kib = now.resident_kib.saturating_sub(empty[at].resident_kib);
        row(
            &format!("node {id}: cpu s/s, idle"),
            table::rounded(cpu * 1e3).as_f64().map_or(Value::Null, |ms| json!(ms / 1e3)),
        );
        row(&format!("node {id}: resident MiB"), json!(now.resident_kib / 1024));
        row(&format!("node {id}: KiB a partition"), json!(kib / u64::from(options.partitions.max(1))));
        row(&format!("node {id}: open files"), json!(now.files));
        row(&format!("node {id}: threads"), json!(now.threads));
    }
    row("all nodes: cpu s/s, idle", json!((all * 1e4).round() / 1e4));
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    let rate = (bytes_between(&cluster, &ids) - bytes_before) as f64 / elapsed;
    row("bytes/s between nodes, all", json!(rate.round()));

    let gone = ids[ids.len() - 1];
    let rest: Vec<u32> = ids.iter().copied().filter(|id| *id != gone).collect();
    let begun = Instant::now();
    cluster.kill(gone)?;
    await_leaders(&cluster, rest[0], &topics, &rest)?;
    row("killed one: all have leaders after s", seconds(begun));
    std::thread::sleep(Duration::from_secs(5));
    let begun = Instant::now();
    cluster.spawn(gone)?;
    await_leaders(&cluster, gone, &topics, &ids)?;
    row("started again: knows all leaders after s", seconds(begun));
    Ok(rows)
}

fn seconds(begun: Instant) -> Value {
    table::rounded(begun.elapsed().as_secs_f64() * 1e3).as_f64().map_or(Value::Null, |ms| json!(ms / 1e3))
}

/// Waits until `asked` names a leader among `leaders` for every partition.
fn await_leaders(cluster: &Cluster, asked: u32, topics: &[(String, i32)], leaders: &[u32]) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut left = topics.to_vec();
    while !left.is_empty() {
        let looked = Instant::now();
        left.retain(|(name, partitions)| {
            let Ok(view) = cluster.view_of(asked, Some(name)) else { return true };
            let led = view.partitions.values().filter(|partition| {
                partition.leader.and_then(|id| u32::try_from(id).ok()).is_some_and(|id| leaders.contains(&id))
            });
            led.count() < usize::try_from(*partitions).unwrap_or(0)
        });
        if begun.elapsed() > PATIENCE {
            return Err(format!("{} topics have partitions without a leader after {PATIENCE:?}", left.len()));
        }
        std::thread::sleep((looked.elapsed() * PAUSE_LOOKS).clamp(PAUSE, PAUSE_MAX));
    }
    Ok(())
}

fn bytes_between(cluster: &Cluster, ids: &[u32]) -> u64 {
    let pairs = ids.iter().flat_map(|from| ids.iter().map(move |to| (*from, *to)));
    pairs.map(|(from, to)| cluster.links.forwarded_bytes(from, to)).sum()
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    cpu_seconds: f64,
    resident_kib: u64,
    files: usize,
    threads: u64,
}

fn usage(cluster: &Cluster, id: u32) -> Usage {
    let Some(process) = cluster.node(id).ok().and_then(crate::cluster::Node::process_id) else {
        return Usage::default();
    };
    let folder = PathBuf::from(format!("/proc/{process}"));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let (stat, status) = (read("stat"), read("status"));
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let figure = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    Usage {
        cpu_seconds: (ticks(11) + ticks(12)) / 100.0,
        resident_kib: figure("VmRSS:"),
        files: std::fs::read_dir(folder.join("fd")).map_or(0, Iterator::count),
        threads: figure("Threads:"),
    }
}
