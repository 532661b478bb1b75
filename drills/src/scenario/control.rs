//! What happens to the cluster itself when nodes and links fail.

use std::time::{Duration, Instant};

use client::{Acks, TopicSpec};

use super::bounds::{NO_STALL, STALL_MAX, nothing_missing, write_gap_at_most};
use crate::cluster::{Cluster, START_PATIENCE, Spec};
use crate::trial::{Outcome, RECOVERY_PATIENCE, Setup, Stage, TOPIC, Trial};
use crate::{Failure, http};

const BEFORE: u64 = 20_000;
const AFTER: u64 = 20_000;
/// How long a cut lasts when it is not at full length.
const CUT: Duration = Duration::from_secs(10);
/// Longest wait for one attempt at a metadata write.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Creates a topic through each node in turn until one takes it; returns how long after `since` that was.
fn metadata_write(trial: &mut Trial<'_>, name: &str, nodes: &[u32], since: Duration) -> Result<Duration, Failure> {
    let topic = TopicSpec { name: name.to_owned(), partitions: Some(1), config: std::collections::BTreeMap::new() };
    let mut failure = "no node to ask".to_owned();
    while trial.clock.now().saturating_sub(since) < RECOVERY_PATIENCE {
        for id in nodes {
            let made = trial
                .cluster
                .connect(*id, ATTEMPT)
                .and_then(|mut node| node.create_topic(&topic).map_err(|error| error.to_string()));
            match made {
                Ok(()) => {
                    let after = trial.clock.now().saturating_sub(since);
                    trial.say(&format!("node {id} took a metadata write {} ms after", after.as_millis()));
                    return Ok(after);
                }
                // An earlier attempt was done and its answer lost.
                Err(cause) if cause.contains("TopicAlreadyExists") || cause.contains("already exists") => {
                    return Ok(trial.clock.now().saturating_sub(since));
                }
                Err(cause) => failure = format!("node {id}: {cause}"),
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("no metadata write within {} s: {failure}", RECOVERY_PATIENCE.as_secs()))
}

pub fn master_killed(stage: &Stage) -> Result<Outcome, Failure> {
    let mut trial = Trial::start(stage, &Setup::three(Acks::All).with_table())?;
    trial.flow(BEFORE)?;
    let master = trial.master()?;
    let left = trial.cluster.others(master);
    let told = format!("SELECT 'asked of node {master}'");
    crate::http::sql(trial.cluster.node(master)?.http, &told, ATTEMPT)?;
    // Told to the others soon, not at once.
    std::thread::sleep(Duration::from_millis(500));
    let at = trial.fault(&format!("SIGKILL to node {master}, the active master"));
    trial.cluster.kill(master)?;
    let written = metadata_write(&mut trial, "after-the-master", &left, at)?;
    trial.promise(written <= STALL_MAX, || format!("no metadata write for {} ms", written.as_millis()));
    trial.recovered(at);
    trial.watch(Duration::from_millis(500));
    trial.flow(AFTER)?;
    let next = trial.master()?;
    let kept = format!("SELECT COUNT(*) FROM sys.queries WHERE node = {master} AND sql LIKE 'SELECT ''asked of node%'");
    for id in &left {
        let kept = crate::http::count(trial.cluster.node(*id)?.http, &kept, ATTEMPT)?;
        trial.promise(kept >= 1, || {
            format!("node {id} does not know what was asked of node {master} before it was killed")
        });
    }
    trial.say(&format!("node {next} is the active master; node {master} is started again"));
    trial.cluster.spawn(master)?;
    trial.await_in_sync(0);
    trial.flow(AFTER)?;
    let mut outcome = trial.finish(|trial, evidence| {
        nothing_missing(trial, evidence);
        write_gap_at_most(trial, evidence.write_gap, STALL_MAX);
        let refused = evidence.asked.as_ref().map_or(0, |asked| asked.refused);
        let last = evidence.asked.as_ref().and_then(|asked| asked.last_failure.clone()).unwrap_or_default();
        trial.promise(refused == 0, || format!("{refused} queries were answered with an error, the last: {last}"));
    })?;
    // What nobody could write is the longer of the two.
    let gap = u64::try_from(written.as_millis()).unwrap_or(u64::MAX);
    outcome.row.write_gap_ms = outcome.row.write_gap_ms.max(Some(gap));
    Ok(outcome)
}

/// Runs the binary's own `haadmin` against one node; what it printed, or what it said as it failed.
fn haadmin(trial: &Trial<'_>, at: u32, arguments: &[&str]) -> Result<Result<String, String>, Failure> {
    let url = format!("http://{}", trial.cluster.node(at)?.http);
    let mut command = std::process::Command::new(&trial.stage.binary);
    command.arg("haadmin").args(arguments).env("SEAWALL_URL", &url);
    let output = command.output().map_err(|error| format!("haadmin {arguments:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

/// The nodes that call themselves active, as haadmin prints it.
fn active(trial: &Trial<'_>, at: u32) -> Result<Vec<u32>, Failure> {
    let mut active = Vec::new();
    for id in trial.cluster.ids() {
        if haadmin(trial, at, &["-getState", &id.to_string()])? == Ok("active".to_owned()) {
            active.push(id);
        }
    }
    Ok(active)
}

pub fn haadmin_verbs(stage: &Stage) -> Result<Outcome, Failure> {
    let mut trial = Trial::start(stage, &Setup::three(Acks::All).with_table())?;
    trial.flow(BEFORE)?;
    let master = trial.master()?;
    let others = trial.cluster.others(master);
    let (asked, next) = (others[0], others[others.len() - 1]);
    let found = active(&trial, asked)?;
    trial.promise(found == [master], || format!("-getState calls {found:?} active, clients are told node {master}"));
    let at = trial.fault(&format!("haadmin -transitionToActive {next}"));
    let done = haadmin(&trial, asked, &["-transitionToActive", &next.to_string()])?;
    trial.promise(done.is_ok(), || format!("-transitionToActive {next}: {done:?}"));
    let written = metadata_write(&mut trial, "after-the-transition", &[asked], at)?;
    trial.promise(written <= STALL_MAX, || format!("no metadata write for {} ms", written.as_millis()));
    let found = active(&trial, asked)?;
    trial.promise(found == [next], || format!("after -transitionToActive {next} active are {found:?}"));
    trial.fault(&format!("haadmin -transitionToBackup {next}"));
    let done = haadmin(&trial, asked, &["-transitionToBackup", &next.to_string()])?;
    trial.promise(done.is_ok(), || format!("-transitionToBackup {next}: {done:?}"));
    std::thread::sleep(Duration::from_millis(500));
    let found = active(&trial, asked)?;
    trial.promise(found.len() == 1 && found != [next], || {
        format!("after -transitionToBackup {next} active are {found:?}")
    });
    let folder = trial.cluster.node(asked)?.data_dir().display().to_string();
    let refused = haadmin(&trial, asked, &["-formatHA", "--data-dir", &folder])?;
    trial.promise(refused.is_err(), || "-formatHA was done on a node that runs".to_owned());
    trial.flow(AFTER)?;
    trial.finish(|trial, evidence| {
        nothing_missing(trial, evidence);
        write_gap_at_most(trial, evidence.write_gap, NO_STALL);
        let refused = evidence.asked.as_ref().map_or(0, |asked| asked.refused);
        trial.promise(refused == 0, || format!("{refused} queries were answered with an error"));
    })
}

/// Every node answers on both ports, and its health is not green: it says what it waits for.
pub fn ports_say_why(trial: &mut Trial<'_>, patience: Duration) {
    for id in trial.cluster.running() {
        let begun = trial.clock.now();
        loop {
            let kafka = trial.cluster.view_of(id, None).map(drop);
            let health = trial.cluster.health(id);
            let verdict = health.as_ref().map_or_else(Clone::clone, |health| health["verdict"].to_string());
            let says = health.as_ref().is_ok_and(|health| health["findings"].as_array().is_some_and(|f| !f.is_empty()));
            if kafka.is_ok() && says {
                trial.say(&format!("node {id} answers and says {verdict}"));
                break;
            }
            if trial.clock.now().saturating_sub(begun) > patience {
                trial.promise(false, || format!("node {id} while cut off: Kafka port {kafka:?}, health {verdict}"));
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    trial.watch(Duration::from_millis(1));
}

pub fn all_isolated(stage: &Stage) -> Result<Outcome, Failure> {
    let cut = if stage.full { Duration::from_secs(600) } else { Duration::from_secs(20) };
    let mut trial = Trial::start(stage, &Setup::three(Acks::All))?;
    trial.flow(BEFORE)?;
    let at = trial.fault("every node is cut from every other");
    trial.cluster.isolate_all();
    std::thread::sleep(Duration::from_secs(1));
    ports_say_why(&mut trial, Duration::from_secs(3));
    trial.watch(cut.saturating_sub(trial.clock.now().saturating_sub(at)));
    let healed = trial.fault("healed");
    trial.cluster.links.heal_all();
    let after = trial.recovered(healed);
    trial.promise(after.is_some_and(|after| after <= STALL_MAX), || format!("serving {after:?} after the heal"));
    let written = metadata_write(&mut trial, "after-the-cut", &[1, 2, 3], healed)?;
    trial.promise(written <= STALL_MAX, || format!("no metadata write for {} ms after the heal", written.as_millis()));
    trial.flow(AFTER)?;
    let mut outcome = trial.finish(nothing_missing)?;
    // Without a majority nobody can write: what counts is the time from the heal.
    outcome.row.write_gap_ms = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    Ok(outcome)
}

pub fn partial_partitions(stage: &Stage) -> Result<Outcome, Failure> {
    let one_link = one_link_cut(stage)?;
    let hub = hub_only(&Stage { folder: stage.folder.join("hub"), ..stage.clone() })?;
    Ok(Outcome::both(one_link, hub))
}

/// The epoch of partition 0 as its leader says.
fn epoch(trial: &Trial<'_>) -> Result<i32, Failure> {
    let leader = trial.leader()?;
    let view = trial.cluster.view_of(leader, Some(TOPIC))?;
    view.partitions.get(&0).map(|partition| partition.epoch).ok_or_else(|| "the leader lost its partition".to_owned())
}

/// Every node knows a leader to send clients to, and answers SQL.
fn every_node_serves(trial: &mut Trial<'_>) {
    for id in trial.cluster.running() {
        let view = trial.cluster.view_of(id, Some(TOPIC));
        let leader = view.as_ref().ok().and_then(|view| view.partitions.get(&0)?.leader);
        trial.promise(leader.is_some(), || format!("node {id} sends clients nowhere: {view:?}"));
        let Ok(address) = trial.cluster.node(id).map(|node| node.http) else { continue };
        let counted = http::count(address, &format!("SELECT COUNT(*) FROM {TOPIC}"), Duration::from_secs(5));
        trial.promise(counted.is_ok(), || format!("node {id} does not answer SQL: {counted:?}"));
    }
}

fn one_link_cut(stage: &Stage) -> Result<Outcome, Failure> {
    let mut trial = Trial::start(stage, &Setup::three(Acks::All).with_table())?;
    trial.flow(BEFORE)?;
    let leader = trial.leader()?;
    let other = trial.cluster.others(leader).first().copied().unwrap_or(leader);
    let before = epoch(&trial)?;
    let at = trial.fault(&format!("the link between node {leader}, the leader, and node {other} is cut"));
    trial.cluster.links.cut(leader, other);
    trial.watch(CUT);
    every_node_serves(&mut trial);
    trial.recovered(at);
    let healed = trial.fault("healed");
    trial.cluster.links.heal_all();
    trial.watch(Duration::from_secs(3));
    trial.recovered(healed);
    let after = epoch(&trial)?;
    trial.promise(after == before, || format!("the leader changed {} times", after - before));
    trial.finish(|trial, evidence| {
        nothing_missing(trial, evidence);
        write_gap_at_most(trial, evidence.write_gap, NO_STALL);
    })
}

fn hub_only(stage: &Stage) -> Result<Outcome, Failure> {
    let mut setup = Setup::three(Acks::All).with_table();
    setup.spec = Spec::of(5);
    let mut trial = Trial::start(stage, &setup)?;
    trial.flow(BEFORE)?;
    let leader = trial.leader()?;
    let replicas = trial.cluster.view_of(leader, Some(TOPIC))?.partitions.get(&0).map(|p| p.replicas.clone());
    let replicas: Vec<u32> = replicas.unwrap_or_default().into_iter().filter_map(|id| u32::try_from(id).ok()).collect();
    let hub = replicas.iter().copied().find(|id| *id != leader).ok_or("the partition has one replica")?;
    let at = trial.fault(&format!("only links to node {hub}, not the leader, are left"));
    for one in trial.cluster.others(hub) {
        for other in trial.cluster.others(hub) {
            trial.cluster.links.cut(one, other);
        }
    }
    trial.recovered(at);
    trial.watch(CUT / 2);
    let during = epoch(&trial)?;
    every_node_serves(&mut trial);
    trial.watch(CUT / 2);
    let later = epoch(&trial)?;
    trial.promise(during == later, || format!("leaders flap: epoch {during}, then {later}"));
    let healed = trial.fault("healed");
    trial.cluster.links.heal_all();
    trial.watch(Duration::from_secs(3));
    trial.recovered(healed);
    let ended = trial.clock.now();
    trial.finish(|trial, evidence| {
        nothing_missing(trial, evidence);
        write_gap_at_most(trial, evidence.write_gap, STALL_MAX);
        let second = super::bounds::write_gap(evidence, healed, ended);
        trial.promise(second <= NO_STALL, || format!("an outage of {} ms at the heal", second.as_millis()));
    })
}

pub fn no_master(stage: &Stage) -> Result<Outcome, Failure> {
    let pause = if stage.full { Duration::from_secs(300) } else { Duration::from_secs(20) };
    let mut setup = Setup::three(Acks::All).with_table();
    setup.spec = Spec::of(5);
    let mut trial = Trial::start(stage, &setup)?;
    trial.flow(BEFORE)?;
    let leader = trial.leader()?;
    let view = trial.cluster.view_of(leader, Some(TOPIC))?;
    let replicas = view.partitions.get(&0).map(|partition| partition.replicas.clone()).unwrap_or_default();
    let is_replica = |id: &u32| i32::try_from(*id).is_ok_and(|id| replicas.contains(&id));
    let mut down: Vec<u32> = trial.cluster.ids().into_iter().filter(|id| !is_replica(id)).collect();
    down.extend(trial.cluster.ids().into_iter().filter(|id| is_replica(id) && *id != leader).take(1));
    if down.len() != 3 {
        return Err(format!(
            "the partition's replicas are {replicas:?}: killing {down:?} would not leave what is drilled"
        ));
    }
    let at = trial.fault(&format!("SIGKILL to nodes {down:?}: two of five are left, and two of the partition's three"));
    for id in &down {
        trial.cluster.kill(*id)?;
    }
    trial.watch(pause);
    trial.recovered(at);
    every_node_serves(&mut trial);
    let shown = !trial.findings_so_far().is_empty();
    trial.promise(shown, || "no finding tells what is stopped".to_owned());
    trial.end_window();
    let back = trial.fault(&format!("nodes {down:?} are started again"));
    for id in &down {
        trial.cluster.spawn(*id)?;
    }
    let ids = trial.cluster.ids();
    let written = metadata_write(&mut trial, "after-the-loss", &ids, back)?;
    trial.promise(written <= Duration::from_secs(10), || format!("no metadata write for {} ms", written.as_millis()));
    trial.await_in_sync(0);
    trial.recovered(back);
    trial.finish(|trial, evidence| {
        nothing_missing(trial, evidence);
        write_gap_at_most(trial, evidence.write_gap, STALL_MAX);
    })
}

/// What a node says of itself: its health if it answers, and its log.
fn own_words(cluster: &Cluster, id: u32) -> String {
    let health = cluster.health(id).map(|health| health.to_string()).unwrap_or_default();
    format!("{health}\n{}", cluster.log_tail(id, 200))
}

fn cluster_id(cluster: &Cluster, id: u32) -> Result<String, Failure> {
    let begun = Instant::now();
    loop {
        // A node that has just been started may not have heard yet which cluster was formed.
        match cluster.view_of(id, None).map(|view| view.cluster_id) {
            Ok(Some(named)) => return Ok(named),
            other if begun.elapsed() > START_PATIENCE => {
                return Err(format!("node {id} names no cluster: {other:?}"));
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

pub fn foreign_data(stage: &Stage) -> Result<Outcome, Failure> {
    let mut trial = Trial::start(stage, &Setup::three(Acks::All))?;
    let ours = cluster_id(&trial.cluster, 1)?;
    let other_folder = stage.folder.join("other");
    let mut other = Cluster::new(&stage.binary, &other_folder, &Spec::of(3))?;
    other.start()?;
    let theirs = cluster_id(&other, 1)?;
    let foreign = other.node(3)?.data_dir();
    drop(other);
    trial.flow(BEFORE)?;
    let leader = trial.leader()?;
    let node = trial.cluster.others(leader).last().copied().unwrap_or(3);
    trial.fault(&format!("node {node} is stopped and started with a folder of cluster {theirs}"));
    trial.cluster.terminate(node, Duration::from_secs(10))?;
    let own = trial.cluster.node(node)?.data_dir();
    let aside = own.with_extension("aside");
    let told = |error: std::io::Error| format!("{}: {error}", own.display());
    std::fs::rename(&own, &aside).and_then(|()| std::fs::rename(&foreign, &own)).map_err(told)?;
    trial.cluster.spawn(node)?;
    let begun = trial.clock.now();
    let patience = Duration::from_secs(15);
    let mut named = false;
    while !named && trial.clock.now().saturating_sub(begun) < patience {
        trial.watch(Duration::from_millis(200));
        let words = own_words(&trial.cluster, node);
        let others: String = trial.cluster.others(node).into_iter().map(|id| own_words(&trial.cluster, id)).collect();
        named = [words, others].iter().any(|words| words.contains(&ours) && words.contains(&theirs));
    }
    trial.promise(named, || format!("nobody named both {ours} and {theirs} within {} s", patience.as_secs()));
    trial.flow(AFTER)?;
    trial.fault(&format!("node {node} gets its own folder back"));
    trial.cluster.kill(node)?;
    std::fs::rename(&own, own.with_extension("foreign")).and_then(|()| std::fs::rename(&aside, &own)).map_err(told)?;
    trial.cluster.spawn(node)?;
    trial.await_in_sync(0);
    trial.flow(AFTER)?;
    trial.finish(|trial, evidence| {
        nothing_missing(trial, evidence);
        write_gap_at_most(trial, evidence.write_gap, STALL_MAX);
    })
}

pub fn nothing_waits_in_silence(stage: &Stage) -> Result<Outcome, Failure> {
    /// What each request below asks for, and what it may take more on a busy machine.
    const DEADLINE: Duration = Duration::from_secs(5);
    const SLACK: Duration = Duration::from_secs(2);
    let mut trial = Trial::start(stage, &Setup::three(Acks::All).with_table())?;
    trial.flow(BEFORE)?;
    trial.fault("every node is cut from every other");
    trial.cluster.isolate_all();
    std::thread::sleep(Duration::from_secs(1));
    for id in trial.cluster.ids() {
        type Ask = dyn Fn(&mut client::Connection) -> Result<(), client::ClientError>;
        let topic =
            TopicSpec { name: format!("never-{id}"), partitions: None, config: std::collections::BTreeMap::new() };
        let asks: [(&str, Box<Ask>); 3] = [
            ("create a topic", Box::new(move |node| node.create_topic(&topic))),
            ("a producer id", Box::new(|node| node.init_producer_id().map(drop))),
            ("a group's offsets", Box::new(|node| node.group_offsets("nobody").map(drop))),
        ];
        for (what, ask) in &asks {
            let begun = trial.clock.now();
            // The connection waits longer than what is asked for, so that a hang shows as one.
            let answer = trial.cluster.connect(id, DEADLINE + SLACK * 2).map(|mut node| ask(&mut node));
            let took = trial.clock.now().saturating_sub(begun);
            let answered = matches!(&answer, Ok(Ok(()) | Err(client::ClientError::Refused { .. })));
            trial.promise(answered && took <= DEADLINE + SLACK, || {
                format!("node {id}: {what}: {answer:?} after {} ms", took.as_millis())
            });
        }
    }
    for id in trial.cluster.ids() {
        let address = trial.cluster.node(id)?.http;
        let begun = trial.clock.now();
        let counted = http::count(address, &format!("SELECT COUNT(*) FROM {TOPIC}"), DEADLINE + SLACK);
        let took = trial.clock.now().saturating_sub(begun);
        trial.promise(counted.is_ok(), || format!("node {id}: SQL: {counted:?} after {} ms", took.as_millis()));
    }
    trial.watch(Duration::from_millis(10));
    let healed = trial.fault("healed");
    trial.cluster.links.heal_all();
    let after = trial.recovered(healed);
    trial.promise(after.is_some_and(|after| after <= STALL_MAX), || format!("serving {after:?} after the heal"));
    trial.flow(AFTER)?;
    let mut outcome = trial.finish(|trial, evidence| {
        nothing_missing(trial, evidence);
        let longest = evidence.tallies.iter().map(|tally| tally.longest_answer.0).max().unwrap_or_default();
        trial.promise(longest <= STALL_MAX, || format!("a produce request hung for {} ms", longest.as_millis()));
    })?;
    outcome.row.write_gap_ms = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    Ok(outcome)
}
