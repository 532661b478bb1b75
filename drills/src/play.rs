//! A cluster to play with: for real client libraries, which bring their own load and count for themselves.
//!
//! One JSON object a line on stdout tells what happens; lines on stdin command it:
//!
//! ```text
//! -> {"event":"ready","bootstrap":[..],"http":[..],"postgres":[..]}
//! <- go                         leaders are killed from now on
//! -> {"event":"killed","node":2,"at_ms":..}  {"event":"started","node":2,"at_ms":..}
//! -> {"event":"over"}           all nodes run again and nothing more happens
//! <- (end of input)             everything ends
//! ```

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use client::TopicSpec;
use serde_json::{Value, json};

use crate::cluster::{Cluster, START_PATIENCE, Spec};
use crate::load::Clock;
use crate::run::Options as RunOptions;
use crate::{Common, Failure};

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[arg(long, default_value_t = 3)]
    nodes: u32,
    /// Topics as name:partitions
    #[arg(long = "topic", required = true)]
    topics: Vec<String>,
    /// Also a table over each topic
    #[arg(long)]
    tables: bool,
    /// Seconds from one kill to the next
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// Milliseconds until the killed node is started again
    #[arg(long, default_value_t = 3_000)]
    down_ms: u64,
    /// Seconds during which leaders are killed
    #[arg(long, default_value_t = 300)]
    seconds: u64,
}

pub fn run(common: &Common, options: &Options) -> Result<(), Failure> {
    let folder = common.folder.clone().unwrap_or_else(RunOptions::temporary_folder);
    let mut cluster = Cluster::new(&common.binary()?, &folder, &Spec::of(options.nodes))?;
    cluster.start()?;
    let topics = options.topics.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    for (topic, partitions) in &topics {
        let config = std::collections::BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
        cluster.create_topic(&TopicSpec { name: topic.clone(), partitions: Some(*partitions), config })?;
        if options.tables {
            cluster.create_table(topic)?;
        }
        for partition in 0..*partitions {
            cluster.await_leader(topic, partition, START_PATIENCE)?;
        }
    }
    let addresses = |pick: fn(&crate::cluster::Node) -> String| -> Vec<String> {
        cluster.ids().into_iter().filter_map(|id| cluster.node(id).ok().map(pick)).collect()
    };
    tell(&json!({
        "event": "ready",
        "bootstrap": cluster.bootstrap(),
        "http": addresses(|node| node.http.to_string()),
        "postgres": addresses(|node| node.postgres.to_string()),
    }));
    let mut lines = std::io::stdin().lock().lines();
    if lines.next().is_some_and(|line| line.is_ok_and(|line| line.trim() == "go")) {
        kill_leaders(&mut cluster, options, &topics)?;
        tell(&json!({"event": "over"}));
        for _ in lines {}
    }
    drop(cluster);
    if !common.keep {
        drop(std::fs::remove_dir_all::<PathBuf>(folder));
    }
    Ok(())
}

/// In turn the leader of every partition of every topic.
fn kill_leaders(cluster: &mut Cluster, options: &Options, topics: &[(String, i32)]) -> Result<(), Failure> {
    let places: Vec<(&str, i32)> = topics
        .iter()
        .flat_map(|(topic, count)| (0..*count).map(move |partition| (topic.as_str(), partition)))
        .collect();
    let clock = Clock::start();
    let ms = || u64::try_from(clock.now().as_millis()).unwrap_or(u64::MAX);
    for (round, (topic, partition)) in (0_u64..).zip(places.iter().cycle()) {
        let due = Duration::from_secs(options.every.saturating_mul(round));
        if due >= Duration::from_secs(options.seconds) {
            break;
        }
        std::thread::sleep(due.saturating_sub(clock.now()));
        let leader = cluster.await_leader(topic, *partition, START_PATIENCE)?;
        cluster.kill(leader)?;
        tell(&json!({"event": "killed", "node": leader, "led": format!("{topic}-{partition}"), "at_ms": ms()}));
        std::thread::sleep(Duration::from_millis(options.down_ms));
        cluster.spawn(leader)?;
        tell(&json!({"event": "started", "node": leader, "at_ms": ms()}));
    }
    Ok(())
}

fn parse(text: &str) -> Result<(String, i32), Failure> {
    let wrong = || format!("{text}: write name:partitions");
    let (name, partitions) = text.split_once(':').ok_or_else(wrong)?;
    Ok((name.to_owned(), partitions.parse().map_err(|_| wrong())?))
}

fn tell(event: &Value) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{event}").and_then(|()| out.flush()));
}
