//! What happens to records when nodes and links fail.

use std::time::Duration;

use base::Offset;
use client::Acks;

use super::bounds::{LEASE_MAX, NO_STALL, STALL_MAX, nothing_lost, nothing_missing, write_gap, write_gap_at_most};
use super::disk;
use crate::Failure;
use crate::trial::{Evidence, Outcome, RECOVERY_PATIENCE, Setup, Stage, TOPIC, Trial};

/// Records before the fault and after it, as in the founding runs of 100,000.
const BEFORE: u64 = 30_000;
const AFTER: u64 = 30_000;
/// What a producer with acks=0 may have had under way, in time before the kill and after it.
const IN_FLIGHT: Duration = Duration::from_millis(500);
/// How long a node stays cut off.
const CUT: Duration = Duration::from_secs(10);

/// Kills the leader, lets the rest go on, starts it again and waits until it has caught up.
fn kill_leader(trial: &mut Trial<'_>) -> Result<Duration, Failure> {
    trial.flow(BEFORE)?;
    let leader = trial.leader()?;
    let at = trial.fault(&format!("SIGKILL to node {leader}, the leader"));
    trial.cluster.kill(leader)?;
    trial.recovered(at);
    trial.watch(Duration::from_millis(500));
    trial.flow(AFTER)?;
    trial.say(&format!("node {leader} is started again"));
    trial.cluster.spawn(leader)?;
    trial.await_in_sync(0);
    trial.flow(AFTER / 3)?;
    Ok(at)
}

pub fn no_acks_leader_killed(stage: &Stage) -> Result<Outcome, Failure> {
    let mut trial = Trial::start(stage, &Setup::three(Acks::None))?;
    let killed = kill_leader(&mut trial)?;
    trial.finish(|trial, evidence| {
        let sent_at = |(producer, number): &(u32, u64)| {
            let tally = evidence.tallies.iter().find(|tally| tally.producer == *producer)?;
            tally.acks.iter().find(|ack| ack.from <= *number && *number < ack.to).map(|ack| ack.sent)
        };
        let is_in_flight = |sent: Duration| sent + IN_FLIGHT >= killed && sent <= killed + IN_FLIGHT;
        let early = evidence.counts.lost_ids.iter().filter(|id| !sent_at(id).is_some_and(is_in_flight)).count();
        let lost = evidence.counts.lost;
        trial.say(&format!("the client believes {} are sent; {lost} of them are lost", evidence.counts.acknowledged));
        trial.promise(early == 0, || format!("{early} of {lost} lost records were not in flight when the leader died"));
        write_gap_at_most(trial, evidence.write_gap, STALL_MAX);
    })
}

pub fn leader_acks_leader_killed(stage: &Stage) -> Result<Outcome, Failure> {
    let mut trial = Trial::start(stage, &Setup::three(Acks::Leader))?;
    kill_leader(&mut trial)?;
    trial.finish(|trial, evidence| {
        nothing_lost(trial, evidence);
        write_gap_at_most(trial, evidence.write_gap, STALL_MAX);
    })
}

pub fn all_acks_leader_killed(stage: &Stage) -> Result<Outcome, Failure> {
    let mut trial = Trial::start(stage, &Setup::three(Acks::All).with_table())?;
    kill_leader(&mut trial)?;
    trial.finish(|trial, evidence| {
        nothing_missing(trial, evidence);
        write_gap_at_most(trial, evidence.write_gap, STALL_MAX);
    })
}

pub fn leader_acks_leader_isolated(stage: &Stage) -> Result<Outcome, Failure> {
    leader_isolated(stage, Acks::Leader)
}

pub fn all_acks_leader_isolated(stage: &Stage) -> Result<Outcome, Failure> {
    leader_isolated(stage, Acks::All)
}

fn leader_isolated(stage: &Stage, acks: Acks) -> Result<Outcome, Failure> {
    let mut trial = Trial::start(stage, &Setup::three(acks))?;
    trial.flow(BEFORE)?;
    let leader = trial.leader()?;
    let address = trial.cluster.node(leader)?.kafka.to_string();
    let cut = trial.fault(&format!("node {leader}, the leader, is cut from all peers; clients reach it"));
    trial.cluster.isolate(leader);
    says_why(&mut trial, leader, cut);
    trial.recovered(cut);
    trial.watch(CUT.saturating_sub(trial.clock.now().saturating_sub(cut)));
    let healed = trial.fault("healed");
    trial.cluster.links.heal_all();
    trial.flow(AFTER)?;
    trial.await_in_sync(0);
    let ended = trial.clock.now();
    trial.finish(|trial, evidence| {
        nothing_lost(trial, evidence);
        if acks == Acks::All {
            nothing_missing(trial, evidence);
        }
        write_gap_at_most(trial, write_gap(evidence, cut, healed), STALL_MAX);
        stops_acknowledging(trial, evidence, &address, (cut, healed));
        let second = write_gap(evidence, healed, ended);
        trial.promise(second <= NO_STALL, || format!("a second outage of {} ms at the heal", second.as_millis()));
    })
}

/// The cut node shows a finding within a second.
fn says_why(trial: &mut Trial<'_>, node: u32, since: Duration) {
    let limit = Duration::from_secs(1);
    loop {
        let health = trial.cluster.health(node);
        let codes: Vec<String> = health.as_ref().map_or_else(
            |_| Vec::new(),
            |health| {
                let findings = health["findings"].as_array().into_iter().flatten();
                findings.filter_map(|finding| finding["code"].as_str()).map(str::to_owned).collect()
            },
        );
        let after = trial.clock.now().saturating_sub(since);
        if let Some(code) = codes.first() {
            trial.say(&format!("node {node} says {code} {} ms after the cut", after.as_millis()));
            codes.iter().for_each(|code| trial.found(code));
            return;
        }
        if after > limit {
            trial.promise(false, || format!("node {node} shows no finding within {} ms of the cut", limit.as_millis()));
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn stops_acknowledging(trial: &mut Trial<'_>, evidence: &Evidence, address: &str, (cut, healed): (Duration, Duration)) {
    let acks = evidence.tallies.iter().flat_map(|tally| &tally.acks);
    let last = acks.filter(|ack| ack.by == address && ack.at > cut && ack.at < healed).map(|ack| ack.at).max();
    let after = last.map_or(Duration::ZERO, |at| at - cut);
    trial.say(&format!("the cut leader's last acknowledgement came {} ms after the cut", after.as_millis()));
    trial.promise(after <= LEASE_MAX, || {
        format!("the cut leader still acknowledged {} ms after the cut", after.as_millis())
    });
}

pub fn leader_acks_cut_from_control(stage: &Stage) -> Result<Outcome, Failure> {
    cut_from_control(stage, Acks::Leader)
}

pub fn all_acks_cut_from_control(stage: &Stage) -> Result<Outcome, Failure> {
    cut_from_control(stage, Acks::All)
}

fn cut_from_control(stage: &Stage, acks: Acks) -> Result<Outcome, Failure> {
    let mut setup = Setup::three(acks);
    // Three partitions, so that one of them is led by a node that is not the active master.
    setup.plan.partitions = 3;
    let mut trial = Trial::start(stage, &setup)?;
    trial.flow(BEFORE)?;
    let master = trial.master()?;
    let leaders: Vec<u32> =
        (0..3).map(|p| trial.cluster.await_leader(TOPIC, p, RECOVERY_PATIENCE)).collect::<Result<_, _>>()?;
    let leader = leaders.iter().copied().find(|leader| *leader != master);
    let leader = leader.ok_or_else(|| format!("node {master} leads everything: {leaders:?}"))?;
    let cut = trial.fault(&format!("node {leader}, a leader, is cut from node {master}, the active master"));
    trial.cluster.links.cut(leader, master);
    trial.watch(CUT);
    trial.recovered(cut);
    trial.fault("healed");
    trial.cluster.links.heal_all();
    trial.flow(AFTER)?;
    trial.finish(|trial, evidence| {
        nothing_missing(trial, evidence);
        write_gap_at_most(trial, evidence.write_gap, NO_STALL);
    })
}

pub fn two_of_three_down(stage: &Stage) -> Result<Outcome, Failure> {
    const NOT_ENOUGH_REPLICAS: i16 = 19;
    let mut setup = Setup::three(Acks::All);
    setup.config.push(("min.insync.replicas", "2"));
    let mut trial = Trial::start(stage, &setup)?;
    trial.flow(BEFORE)?;
    let leader = trial.leader()?;
    let down = trial.cluster.others(leader);
    let at = trial.fault(&format!("SIGKILL to nodes {down:?}; node {leader}, the leader, is left"));
    for id in &down {
        trial.cluster.kill(*id)?;
    }
    trial.watch(Duration::from_secs(3));
    let begun = trial.clock.now();
    let read = trial
        .cluster
        .connect(leader, Duration::from_secs(2))
        .and_then(|mut node| node.fetch(TOPIC, 0, Offset(0), 1, 0).map_err(|error| error.to_string()));
    let took = trial.clock.now().saturating_sub(begun);
    trial.promise(read.as_ref().is_ok_and(|fetched| !fetched.batches.is_empty()), || {
        format!("committed data is not readable at the node that is left: {read:?}")
    });
    trial.say(&format!("a read at the node that is left took {} ms", took.as_millis()));
    let refusals = trial.load.refusals();
    trial.say(&format!("refusals by code: {refusals:?}"));
    trial.promise(refusals.contains_key(&NOT_ENOUGH_REPLICAS), || {
        format!("producers never heard NOT_ENOUGH_REPLICAS (19), but {refusals:?}")
    });
    let back = trial.fault(&format!("nodes {down:?} are started again"));
    for id in &down {
        trial.cluster.spawn(*id)?;
    }
    trial.recovered(back);
    trial.flow(AFTER)?;
    trial.finish(|trial, evidence| {
        nothing_missing(trial, evidence);
        let slow = evidence.tallies.iter().map(|tally| tally.longest_answer).max().unwrap_or_default();
        trial.promise(slow.0 <= STALL_MAX, || {
            let after = slow.1.saturating_sub(at);
            format!(
                "a request sent {} ms after the loss was answered after {} ms",
                after.as_millis(),
                slow.0.as_millis()
            )
        });
        let gap = evidence.read_gap;
        trial.promise(gap <= STALL_MAX, || format!("committed data could not be read for {} ms", gap.as_millis()));
    })
}

pub fn all_killed_and_torn(stage: &Stage) -> Result<Outcome, Failure> {
    const SERVING_WITHIN: Duration = Duration::from_secs(10);
    let mut trial = Trial::start(stage, &Setup::three(Acks::All).with_table())?;
    trial.flow(BEFORE)?;
    trial.fault("SIGKILL to all three");
    for id in trial.cluster.ids() {
        trial.cluster.kill(id)?;
    }
    let torn = disk::tear_all(&trial.cluster)?;
    trial.promise(torn >= 3, || format!("only {torn} log files were found to tear"));
    let back = trial.fault(&format!("{torn} logs have a torn write at their end; all three are started"));
    for id in trial.cluster.ids() {
        trial.cluster.spawn(id)?;
    }
    let after = trial.recovered(back);
    trial.promise(after.is_some_and(|after| after <= SERVING_WITHIN), || {
        format!("serving after {after:?}, {SERVING_WITHIN:?} are promised")
    });
    trial.flow(AFTER)?;
    trial.finish(nothing_missing)
}

pub fn leader_paused(stage: &Stage) -> Result<Outcome, Failure> {
    const PAUSE: Duration = Duration::from_secs(5);
    let mut trial = Trial::start(stage, &Setup::three(Acks::Leader))?;
    trial.flow(BEFORE)?;
    let leader = trial.leader()?;
    let address = trial.cluster.node(leader)?.kafka.to_string();
    let paused = trial.fault(&format!("SIGSTOP to node {leader}, the leader"));
    trial.cluster.pause(leader)?;
    let next = trial.cluster.await_leader(TOPIC, 0, RECOVERY_PATIENCE)?;
    let after = trial.clock.now().saturating_sub(paused);
    trial.say(&format!("node {next} leads {} ms after", after.as_millis()));
    trial.promise(after <= STALL_MAX, || format!("no new leader for {} ms", after.as_millis()));
    trial.watch(PAUSE.saturating_sub(trial.clock.now().saturating_sub(paused)));
    let woken = trial.fault(&format!("SIGCONT to node {leader}"));
    trial.cluster.resume(leader)?;
    trial.recovered(woken);
    trial.flow(AFTER)?;
    trial.await_in_sync(0);
    trial.finish(|trial, evidence| {
        nothing_lost(trial, evidence);
        let counts = &evidence.counts;
        let is_missing = |id| counts.rescued_ids.contains(&id) || counts.lost_ids.contains(&id);
        let mut wrong = 0;
        for tally in &evidence.tallies {
            let late = tally.acks.iter().filter(|ack| ack.by == address && ack.at >= woken);
            wrong +=
                late.flat_map(|ack| ack.from..ack.to).filter(|number| is_missing((tally.producer, *number))).count();
        }
        trial.promise(wrong == 0, || format!("{wrong} records were acknowledged after it woke and are not kept"));
    })
}

pub fn flipped_bit(stage: &Stage) -> Result<Outcome, Failure> {
    let mut trial = Trial::start(stage, &Setup::three(Acks::All))?;
    trial.flow(BEFORE)?;
    let leader = trial.leader()?;
    let damaged = trial.cluster.others(leader).first().copied().ok_or("there is no follower")?;
    trial.fault(&format!("node {damaged}, a follower, is killed; one bit of its log is flipped; it is started"));
    trial.cluster.kill(damaged)?;
    let place = disk::flip_bit(&trial.cluster.node(damaged)?.data_dir())?;
    trial.say(&place);
    trial.cluster.spawn(damaged)?;
    let begun = trial.clock.now();
    // It has to start and look at its log before it can say anything about it.
    trial.watch(Duration::from_secs(3));
    let mut repaired = false;
    while !repaired && trial.clock.now().saturating_sub(begun) < RECOVERY_PATIENCE {
        trial.watch(Duration::from_millis(100));
        let view = trial.cluster.view_of(leader, Some(TOPIC));
        let partition = view.ok().and_then(|view| view.partitions.get(&0).cloned());
        let leads = partition.as_ref().and_then(|partition| partition.leader);
        let id = i32::try_from(damaged).unwrap_or(-1);
        trial.promise(leads != Some(id), || "the damaged replica leads".to_owned());
        // What is being fetched again says so in its folder until it is whole.
        let is_marked = disk::has_file(&trial.cluster.node(damaged)?.data_dir(), "damaged");
        repaired = !is_marked && partition.is_some_and(|partition| partition.in_sync.contains(&id));
    }
    trial.promise(repaired, || "the damaged replica did not get in sync again".to_owned());
    let shown = trial.findings_so_far().iter().any(|code| code.contains("damage") || code.contains("corrupt"));
    trial.promise(shown, || "no finding told of the damage".to_owned());
    trial.say(&format!("in sync again after {} ms", trial.clock.now().saturating_sub(begun).as_millis()));
    // Now it may be asked to lead: of the two that are left one must.
    let at = trial.fault(&format!("SIGKILL to node {leader}, the leader"));
    trial.cluster.kill(leader)?;
    trial.recovered(at);
    trial.flow(AFTER)?;
    trial.cluster.spawn(leader)?;
    trial.await_in_sync(0);
    trial.finish(nothing_missing)
}

pub fn in_flight_when_leader_dies(stage: &Stage) -> Result<Outcome, Failure> {
    let mut trial = Trial::start(stage, &Setup::three(Acks::All))?;
    trial.flow(BEFORE)?;
    let leader = trial.leader()?;
    let at = trial.fault(&format!("node {leader}, the leader, is cut: writes wait in it; it is killed 100 ms later"));
    trial.cluster.isolate(leader);
    std::thread::sleep(Duration::from_millis(100));
    trial.cluster.kill(leader)?;
    trial.cluster.links.heal_all();
    trial.recovered(at);
    trial.flow(AFTER)?;
    trial.cluster.spawn(leader)?;
    trial.await_in_sync(0);
    trial.finish(|trial, evidence| {
        nothing_missing(trial, evidence);
        let longest = evidence.tallies.iter().map(|tally| tally.longest_answer.0).max().unwrap_or_default();
        trial.say(&format!("the longest wait for an answer or a failure was {} ms", longest.as_millis()));
        trial.promise(longest <= STALL_MAX, || format!("a request was left hanging for {} ms", longest.as_millis()));
        write_gap_at_most(trial, evidence.write_gap, STALL_MAX);
    })
}
