//! The demo's cluster: three processes of this binary, live data, and verbs that break it while it works.
//!
//! What always holds: every process and every link ends with the demo, and all of it is below one temporary folder.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use base::NodeId;
use base::batch::Codec;
use client::Acks;
use client::edits::Edits;
use drills::cluster::{Cluster, Spec};

use super::{BACKLOG, DemoArgs, HOUR_MS, Http, PATIENCE, QUESTIONS, STEP, TABLE, as_text, say};
use crate::cli::producer::Producer;
use crate::cli::routed::Routed;
use crate::node::time;
use crate::shell::security::{self, CertificateAuthority, SecurityError};

const HELP: &str = "\
Break it, and ask again:
  kill N    SIGKILL to node N          start N   start it again
  cut N     cut node N from the others, while clients still reach it
  heal      mend all links             status    who leads, what was acknowledged, what SQL counts
  help      this                       quit      end the demo (or Ctrl-C) and remove its folder
";

/// Runs until the time is up, `quit`, or Ctrl-C.
pub fn run(args: &DemoArgs, folder: &Path) -> Result<(), String> {
    let begun = Instant::now();
    let binary = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut spec = Spec::of(args.nodes);
    spec.settings = vec![("telemetry.log", "warn".into())];
    let mut cluster = Cluster::new(&binary, folder, &spec)?;
    certify(&cluster).map_err(|error| error.to_string())?;
    cluster.start()?;
    let topic = client::TopicSpec { name: TABLE.into(), partitions: Some(3), config: BTreeMap::new() };
    cluster.create_topic(&topic)?;
    cluster.create_table(TABLE)?;
    let (stopped, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let producing = {
        let (bootstrap, rate) = (cluster.bootstrap().join(","), args.rate);
        let (stopped, acknowledged) = (Arc::clone(&stopped), Arc::clone(&acknowledged));
        std::thread::spawn(move || produce(&bootstrap, rate, &stopped, &acknowledged))
    };
    let shown = show(&mut cluster, args, begun, &acknowledged);
    stopped.store(true, Ordering::SeqCst);
    let produced = producing.join().unwrap_or_else(|_| Err("the producer panicked".into()));
    shown.and(produced)
}

/// An authority to throw away with the demo: the nodes' links are encrypted, as a real cluster's are.
fn certify(cluster: &Cluster) -> Result<(), SecurityError> {
    let mut authority: Option<CertificateAuthority> = None;
    for id in cluster.ids() {
        let Ok(node) = cluster.node(id) else { continue };
        let dir = security::folder(&node.data_dir());
        match &authority {
            None => authority = Some(CertificateAuthority::found(&dir, NodeId(id), time::wall)?),
            Some(authority) => authority.issue(&dir, NodeId(id))?,
        }
    }
    Ok(())
}

fn show(cluster: &mut Cluster, args: &DemoArgs, begun: Instant, acknowledged: &AtomicU64) -> Result<(), String> {
    let http = Http::at(format!("http://{}", cluster.node(1)?.http))?;
    http.await_rows(BACKLOG)?;
    say(&format!(
        "{} processes, {BACKLOG} edits in through the Kafka port, on three disks, and queryable.\n",
        args.nodes
    ));
    for (question, query) in QUESTIONS {
        let asked = Instant::now();
        let rows = http.sql(query)?;
        say(&format!("{question}  ({:.1} ms)\n{}", asked.elapsed().as_secs_f64() * 1_000.0, as_text(&rows)));
    }
    say(&connect_lines(cluster)?);
    say(HELP);
    say(&format!(
        "Ready after {:.1} s. {} edits a second come in with acks=all from now on.",
        begun.elapsed().as_secs_f64(),
        args.rate
    ));
    let until = args.seconds.map(|seconds| begun + Duration::from_secs(seconds));
    let lines = lines();
    loop {
        let patience = until.map_or(PATIENCE, |until| until.saturating_duration_since(Instant::now()).min(PATIENCE));
        match lines.recv_timeout(patience) {
            Ok(Line::Typed(line)) => match obey(cluster, line.trim(), acknowledged) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(cause) => say(&cause),
            },
            Ok(Line::Interrupted) => return Ok(()),
            // Nobody types: the demo goes on until its time is up.
            Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(STEP),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Ok(());
        }
    }
}

enum Line {
    Typed(String),
    Interrupted,
}

/// What is typed, and Ctrl-C. Ends when there is no more of either.
fn lines() -> mpsc::Receiver<Line> {
    let (typed, lines) = mpsc::channel();
    let interrupted = typed.clone();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            drop(interrupted.send(Line::Interrupted));
        }
    });
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if typed.send(Line::Typed(line)).is_err() {
                return;
            }
        }
    });
    lines
}

/// Does what was typed; false for the end.
fn obey(cluster: &mut Cluster, line: &str, acknowledged: &AtomicU64) -> Result<bool, String> {
    let mut words = line.split_whitespace();
    let (verb, node) = (words.next().unwrap_or("status"), words.next());
    let node = || {
        let number = node.and_then(|text| text.parse::<u32>().ok()).filter(|id| cluster.ids().contains(id));
        number.ok_or_else(|| format!("which node? write {verb} N, with N one of {:?}", cluster.ids()))
    };
    match verb {
        "kill" => {
            let id = node()?;
            cluster.kill(id)?;
            say(&format!("node {id} is killed; ask for status"));
        }
        "start" => {
            let id = node()?;
            cluster.spawn(id)?;
            say(&format!("node {id} is started"));
        }
        "cut" => {
            let id = node()?;
            cluster.isolate(id);
            say(&format!("node {id} is cut from the others; clients still reach it"));
        }
        "heal" => {
            cluster.links.heal_all();
            say("all links are whole");
        }
        "status" => say(&status(cluster, acknowledged.load(Ordering::SeqCst))?),
        "quit" | "exit" => return Ok(false),
        _ => say(HELP),
    }
    Ok(true)
}

/// Who leads, as each node sees it, and the two numbers that must agree.
fn status(cluster: &Cluster, acknowledged: u64) -> Result<String, String> {
    let mut text = String::new();
    for id in cluster.ids() {
        let seen = cluster.running().contains(&id).then(|| cluster.health(id));
        let line = match seen {
            None => "down".to_owned(),
            Some(Err(cause)) => format!("does not answer: {cause}"),
            Some(Ok(health)) => format!(
                "{}; active master: node {}; {} of {} partitions without a leader",
                health["verdict"].as_str().unwrap_or_default(),
                health["master"]["node"],
                health["partitions"]["without_leader"],
                health["partitions"]["total"]
            ),
        };
        text.push_str(&format!("node {id}  {line}\n"));
    }
    for id in cluster.running() {
        let http = Http::at(format!("http://{}", cluster.node(id)?.http))?;
        let counted = match http.sql(&format!("SELECT COUNT(*) AS n FROM {TABLE}")) {
            Ok(rows) => rows.first().map_or_else(|| "nothing".to_owned(), |row| row["n"].to_string()),
            Err(cause) => cause,
        };
        text.push_str(&format!(
            "SQL at node {id} counts {counted}; acknowledged before it was asked: {acknowledged}\n"
        ));
    }
    Ok(text)
}

/// The backlog at once, then `rate` a second, to whoever leads.
fn produce(bootstrap: &str, rate: u64, stopped: &AtomicBool, acknowledged: &AtomicU64) -> Result<(), String> {
    let nodes = Routed::connect(bootstrap, PATIENCE).map_err(|failure| failure.message)?;
    let mut producer = Producer::new(nodes, TABLE, Acks::All, Codec::Lz4).map_err(|failure| failure.message)?;
    let mut edits = Edits::new(1);
    let mut json = String::new();
    let mut push = |producer: &mut Producer, time_ms: i64| {
        json.clear();
        edits.write(time_ms, &mut json);
        producer.push(None, None, json.as_bytes()).map_err(|failure| failure.message)
    };
    let now = time::wall().0;
    let step = HOUR_MS / i64::try_from(BACKLOG).unwrap_or(1);
    for index in 0..i64::try_from(BACKLOG).unwrap_or(0) {
        push(&mut producer, now - HOUR_MS + index * step)?;
    }
    let (paced, mut sent) = (Instant::now(), 0);
    while !stopped.load(Ordering::SeqCst) {
        producer.finish().map_err(|failure| failure.message)?;
        acknowledged.store(producer.acknowledged(), Ordering::SeqCst);
        std::thread::sleep(STEP);
        let due = u64::try_from(paced.elapsed().as_millis()).unwrap_or(0) * rate / 1_000;
        let now = time::wall().0;
        for _ in sent..due {
            push(&mut producer, now)?;
        }
        sent = due;
    }
    Ok(())
}

fn connect_lines(cluster: &Cluster) -> Result<String, String> {
    let mut text = String::from("Connect to any of them:\n");
    for id in cluster.ids() {
        let node = cluster.node(id)?;
        text.push_str(&format!(
            "  node {id}  browser http://{}/   kafka {}   psql -h {} -p {} -U seawall druid\n",
            node.http,
            node.kafka,
            node.postgres.ip(),
            node.postgres.port()
        ));
    }
    Ok(text)
}
