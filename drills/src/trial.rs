//! One run of one drill: a cluster under load, faults, and what came of it.
//!
//! ```text
//! start -> (load flows) -> fault .. heal -> recovered -> finish: everything is read back and compared
//! ```
//! What always holds: a promise that is not met is written down and the run goes on, so that one row tells all; a run
//! that cannot go on (no leader, no acknowledgement) is a row that has not passed, not a crash.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use client::{Acks, TopicSpec};

use crate::cluster::{Cluster, START_PATIENCE, Spec};
use crate::front::Front;
use crate::load::{Clock, Load, Plan, Tally};
use crate::report::Row;
use crate::verdict::{self, Counts};
use crate::watch::{self, Asker, Leaders, Probe, Tail};
use crate::{Failure, http};

/// The topic and table of every drill.
pub const TOPIC: &str = "drill";
/// Longest wait for the service to come back, before it counts as not come back by itself.
pub const RECOVERY_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether all processes are still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for a node that came back to catch up.
const IN_SYNC_PATIENCE: Duration = Duration::from_secs(30);
const READ_BACK_PATIENCE: Duration = Duration::from_secs(120);
const SQL_PATIENCE: Duration = Duration::from_secs(30);
/// What producers get to finish the batch in flight.
const GRACE: Duration = Duration::from_secs(12);

/// Where and how a drill runs.
#[derive(Clone, Debug)]
pub struct Stage {
    pub name: &'static str,
    pub binary: PathBuf,
    pub folder: PathBuf,
    /// Everything random follows from it.
    pub seed: u64,
    /// Long waits at their full length instead of shortened.
    pub full: bool,
    /// Says what happens, on stderr.
    pub talk: fn(&str),
}

/// What the cluster is and what is produced.
#[derive(Clone, Debug)]
pub struct Setup {
    pub spec: Spec,
    pub plan: Plan,
    /// Settings of the topic.
    pub config: Vec<(&'static str, &'static str)>,
    /// Also a table over the topic, and SQL asked all the time.
    pub table: bool,
    /// Producers write to a `seawall forward`, which reaches the cluster over the clients' links.
    pub front: bool,
}

impl Setup {
    /// Three nodes, one partition on all of them.
    #[must_use]
    pub fn three(acks: Acks) -> Self {
        Self { spec: Spec::of(3), plan: Plan::standard(TOPIC, 1, acks), config: Vec::new(), table: false, front: false }
    }

    #[must_use]
    pub const fn with_table(mut self) -> Self {
        self.table = true;
        self
    }
}

/// A running drill.
#[derive(Debug)]
pub struct Trial<'a> {
    pub stage: &'a Stage,
    pub clock: Clock,
    pub cluster: Cluster,
    pub load: Load,
    pub front: Option<Front>,
    plan: Plan,
    probe: Probe,
    leaders: Leaders,
    tails: Vec<Tail>,
    asker: Option<Asker>,
    /// When the first fault began.
    fault: Option<Duration>,
    /// Until when gaps count; `None`: to the end.
    window_end: Option<Duration>,
    findings: BTreeSet<String>,
    broken: Vec<String>,
    recovered: Option<bool>,
}

/// What a finished drill knows.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub row: Row,
    /// Why it has not passed; empty: it has.
    pub broken: Vec<String>,
}

impl Outcome {
    /// Of two parts of one drill: sums, the longer gaps, passed if both have.
    #[must_use]
    pub fn both(one: Self, other: Self) -> Self {
        let (mut row, second) = (one.row, other.row);
        row.passed &= second.passed;
        row.produced += second.produced;
        row.acknowledged += second.acknowledged;
        row.readable += second.readable;
        row.lost += second.lost;
        row.rescued += second.rescued;
        row.write_gap_ms = row.write_gap_ms.max(second.write_gap_ms);
        row.read_gap_ms = row.read_gap_ms.max(second.read_gap_ms);
        row.recovered_by_itself &= second.recovered_by_itself;
        let codes: BTreeSet<&str> =
            row.finding.split(',').chain(second.finding.split(',')).filter(|code| !code.is_empty()).collect();
        row.finding = codes.into_iter().collect::<Vec<_>>().join(",");
        Self { row, broken: one.broken.into_iter().chain(other.broken).collect() }
    }
}

/// Everything there is to judge.
#[derive(Debug)]
pub struct Evidence {
    pub counts: Counts,
    pub tallies: Vec<Tally>,
    pub write_gap: Duration,
    pub read_gap: Duration,
    pub asked: Option<watch::Asked>,
}

impl<'a> Trial<'a> {
    /// A cluster is started, topic and table are made, and load flows from every producer.
    pub fn start(stage: &'a Stage, setup: &Setup) -> Result<Self, Failure> {
        let clock = Clock::start();
        let mut cluster = Cluster::new(&stage.binary, &stage.folder, &setup.spec)?;
        cluster.start()?;
        let said = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let mut config: std::collections::BTreeMap<_, _> = setup.config.iter().map(said).collect();
        // The records' own times are old: retention must not take them before they are compared.
        config.insert("retention.ms".to_owned(), "-1".to_owned());
        let partitions = setup.plan.partitions;
        cluster.create_topic(&TopicSpec { name: TOPIC.into(), partitions: Some(partitions), config })?;
        if setup.table {
            cluster.create_table(TOPIC)?;
        }
        for partition in 0..partitions {
            cluster.await_leader(TOPIC, partition, START_PATIENCE)?;
        }
        let bootstrap = cluster.bootstrap();
        let front = if setup.front {
            let mut front = Front::new(&stage.binary, &stage.folder.join("forward"), bootstrap.clone())?;
            front.start()?;
            front.ensure(TOPIC)?;
            Some(front)
        } else {
            None
        };
        let produce_to = front.as_ref().map_or_else(|| bootstrap.clone(), |front| vec![front.kafka.to_string()]);
        let load = Load::start(&produce_to, &setup.plan, clock);
        load.await_all_flow(Duration::ZERO, START_PATIENCE)?;
        let leaders = Leaders::start(&bootstrap, TOPIC, 0, clock);
        let probe = Probe::start(&bootstrap, TOPIC, 0, clock);
        let tails = (0..partitions).map(|partition| Tail::start(&bootstrap, TOPIC, partition)).collect();
        let addresses = cluster.ids().into_iter().filter_map(|id| Some(cluster.node(id).ok()?.http)).collect();
        let asker = setup.table.then(|| Asker::start(addresses, TOPIC, clock));
        Ok(Self {
            stage,
            clock,
            cluster,
            load,
            front,
            plan: setup.plan.clone(),
            probe,
            leaders,
            tails,
            asker,
            fault: None,
            window_end: None,
            findings: BTreeSet::new(),
            broken: Vec::new(),
            recovered: None,
        })
    }

    pub fn say(&self, text: &str) {
        (self.stage.talk)(&format!("{} {:7.3} s  {text}", self.stage.name, self.clock.now().as_secs_f64()));
    }

    /// Lets the load flow until so many more records are acknowledged.
    pub fn flow(&mut self, records: u64) -> Result<(), Failure> {
        let (begun, due) = (self.clock.now(), self.load.acknowledged() + records);
        loop {
            let Err(failure) = self.load.await_acknowledged(due, LOOK_EVERY) else { return Ok(()) };
            self.check_processes()?;
            if self.clock.now().saturating_sub(begun) > RECOVERY_PATIENCE {
                return Err(failure);
            }
        }
    }

    /// A process that ended although nobody ended it is what a run cannot go on from.
    fn check_processes(&mut self) -> Result<(), Failure> {
        self.cluster.fallen().map_or(Ok(()), Err)
    }

    pub fn leader(&self) -> Result<u32, Failure> {
        self.cluster.await_leader(TOPIC, 0, RECOVERY_PATIENCE)
    }

    pub fn master(&self) -> Result<u32, Failure> {
        self.cluster.await_master(RECOVERY_PATIENCE)
    }

    /// Says what is done now; gaps count from the first fault on. Returns the time.
    pub fn fault(&mut self, what: &str) -> Duration {
        self.say(what);
        let now = self.clock.now();
        self.fault.get_or_insert(now);
        now
    }

    /// Gaps after now do not count any more.
    pub fn end_window(&mut self) {
        self.window_end = Some(self.clock.now());
    }

    /// Lets time pass while findings are collected.
    pub fn watch(&mut self, pause: Duration) {
        let until = self.clock.now() + pause;
        while self.clock.now() < until {
            self.findings.extend(self.cluster.findings());
            std::thread::sleep(Duration::from_millis(50).min(until.saturating_sub(self.clock.now())));
        }
    }

    /// Waits until every replica of a partition is in sync. A wait that ends in vain is a promise that was not met.
    pub fn await_in_sync(&mut self, partition: i32) {
        let begun = self.clock.now();
        loop {
            let views = self.cluster.running().into_iter().filter_map(|id| self.cluster.view_of(id, Some(TOPIC)).ok());
            let seen: Vec<_> = views.filter_map(|view| view.partitions.get(&partition).cloned()).collect();
            let is_whole = |p: &client::PartitionView| p.in_sync.len() >= p.replicas.len() && p.leader.is_some();
            if seen.iter().any(is_whole) {
                return;
            }
            if self.clock.now().saturating_sub(begun) > IN_SYNC_PATIENCE {
                self.promise(false, || format!("partition {partition} is not in sync again: {seen:?}"));
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Codes of the findings seen so far.
    #[must_use]
    pub const fn findings_so_far(&self) -> &BTreeSet<String> {
        &self.findings
    }

    pub fn found(&mut self, code: &str) {
        self.findings.insert(code.to_owned());
    }

    /// Writes down a promise that was not met.
    pub fn promise(&mut self, is_kept: bool, otherwise: impl FnOnce() -> String) {
        if !is_kept {
            let broken = otherwise();
            self.say(&format!("NOT KEPT: {broken}"));
            self.broken.push(broken);
        }
    }

    /// Waits until every producer is acknowledged again for something it sent after `from`, without touching anything.
    /// Returns how long after `from` that was; `None`: not within the patience.
    pub fn recovered(&mut self, from: Duration) -> Option<Duration> {
        let begun = self.clock.now();
        let outcome = loop {
            match self.load.await_all_flow(from, LOOK_EVERY) {
                Ok(at) => break Ok(at),
                Err(failure) => {
                    if let Err(fallen) = self.check_processes() {
                        break Err(fallen);
                    }
                    if self.clock.now().saturating_sub(begun) > RECOVERY_PATIENCE {
                        break Err(failure);
                    }
                }
            }
        };
        match outcome {
            Ok(at) => {
                self.recovered = Some(self.recovered.unwrap_or(true));
                let after = at.saturating_sub(from);
                self.say(&format!("every producer is acknowledged again {} ms after", after.as_millis()));
                Some(after)
            }
            Err(failure) => {
                self.recovered = Some(false);
                self.promise(false, || format!("not recovered: {failure}"));
                None
            }
        }
    }

    /// Stops the load, reads everything back and judges what holds for every drill; `judge` adds the drill's own promise.
    pub fn finish(mut self, judge: impl FnOnce(&mut Self, &Evidence)) -> Result<Outcome, Failure> {
        let until = self.window_end.unwrap_or_else(|| self.clock.now());
        self.findings.extend(self.cluster.findings());
        if let Err(fallen) = self.check_processes() {
            self.promise(false, || fallen);
        }
        let asked = self.asker.take().map(|asker| asker.asked());
        let load = std::mem::replace(
            &mut self.load,
            Load::start(&[], &Plan { producers: 0, ..self.plan.clone() }, self.clock),
        );
        let tallies = load.stop(GRACE);
        self.await_passed_on();
        let bootstrap = self.cluster.bootstrap();
        let mut read = Vec::new();
        for partition in 0..self.plan.partitions {
            match watch::read_all(&bootstrap, TOPIC, partition, READ_BACK_PATIENCE) {
                Ok(records) => read.push(records),
                Err(failure) => {
                    read.push(std::collections::BTreeMap::new());
                    self.promise(false, || failure);
                }
            }
        }
        let counts = verdict::compare(&tallies, &read, &verdict::lost_and_found(&self.stage.folder));
        let from = self.fault.unwrap_or(until);
        let write_gap = tallies.iter().map(|tally| tally.write_gap(from, until)).max().unwrap_or_default();
        let read_gap = self.probe.read_gap(from, until);
        self.say(&format!("partition 0 was led by {}", self.leaders.in_words()));
        if let Some(worst) = tallies.iter().max_by_key(|tally| tally.write_gap(from, until)) {
            let (answer, sent) = worst.longest_answer;
            self.say(&format!(
                "the longest write gap, {} ms, ended at {:.3} s (producer {}; its longest answer took {} ms, asked at {:.3} s)",
                write_gap.as_millis(),
                worst.write_gap_end(from, until).as_secs_f64(),
                worst.producer,
                answer.as_millis(),
                sent.as_secs_f64()
            ));
        }
        let evidence = Evidence { counts, tallies, write_gap, read_gap, asked };
        self.judge_records(&evidence, &read);
        if self.asker_was_there(&evidence) {
            self.judge_sql(evidence.counts.readable + evidence.counts.twice, evidence.counts.readable);
        }
        judge(&mut self, &evidence);
        Ok(self.outcome(&evidence))
    }

    /// Waits until what stands in front has passed everything on: all that it took, less what was set aside.
    fn await_passed_on(&mut self) {
        let Some(front) = self.front.take() else { return };
        let begun = self.clock.now();
        for partition in 0..self.plan.partitions {
            loop {
                let aside = if partition == 0 { i64::try_from(front.dead_letters()).unwrap_or(0) } else { 0 };
                let taken = front.end(TOPIC, partition).map(|end| end - aside);
                let there = watch::end_of(&self.cluster.bootstrap(), TOPIC, partition);
                if let (Ok(taken), Ok(there)) = (&taken, &there)
                    && taken == there
                {
                    break;
                }
                if self.clock.now().saturating_sub(begun) > RECOVERY_PATIENCE {
                    self.promise(false, || format!("not passed on: forward took {taken:?}, the cluster has {there:?}"));
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let took = self.clock.now().saturating_sub(begun);
        self.say(&format!("everything was passed on {} ms after the last record", took.as_millis()));
        self.front = Some(front);
    }

    const fn asker_was_there(&self, evidence: &Evidence) -> bool {
        evidence.asked.is_some()
    }

    /// What holds at every level of acknowledgement: order, no duplicate under idempotence, nothing invented, and an offset
    /// that was read keeps its record.
    fn judge_records(&mut self, evidence: &Evidence, read: &[std::collections::BTreeMap<i64, crate::load::Id>]) {
        let counts = &evidence.counts;
        self.promise(counts.twice_idempotent == 0, || {
            format!("{} records of idempotent producers are there twice", counts.twice_idempotent)
        });
        self.promise(counts.out_of_order == 0, || {
            format!("{} records are out of their producer's order", counts.out_of_order)
        });
        self.promise(counts.invented == 0, || format!("{} records were read that nobody sent", counts.invented));
        if counts.lost > 0 {
            self.say(&format!("lost: {}", Counts::examples(&counts.lost_ids)));
        }
        for tally in &evidence.tallies {
            if let Some(fatal) = tally.fatal.clone() {
                self.promise(false, || fatal);
            }
        }
        let seen: Vec<_> = self.tails.iter().map(Tail::seen).collect();
        for (partition, (seen, now)) in seen.into_iter().zip(read).enumerate() {
            if let Some(wrong) = seen.wrong {
                self.promise(false, || wrong);
            }
            if let Some(wrong) = verdict::contradiction(partition, &seen.records, now) {
                self.promise(false, || wrong);
            }
        }
    }

    /// Every running node comes to count exactly the rows that a consumer reads.
    fn judge_sql(&mut self, rows: u64, ids: u64) {
        for id in self.cluster.running() {
            let Ok(address) = self.cluster.node(id).map(|node| node.http) else { continue };
            let query = format!("SELECT COUNT(*), COUNT(DISTINCT id) FROM {TOPIC}");
            let begun = self.clock.now();
            let answer = loop {
                let answer = http::sql(address, &query, SQL_PATIENCE);
                let counted = answer.as_ref().ok().and_then(|rows| {
                    let row = rows.first()?;
                    Some((row.first()?.as_u64()?, row.get(1)?.as_u64()?))
                });
                if counted == Some((rows, ids)) || self.clock.now().saturating_sub(begun) > SQL_PATIENCE {
                    break counted.ok_or_else(|| answer.err().unwrap_or_default());
                }
                std::thread::sleep(Duration::from_millis(100));
            };
            self.promise(answer == Ok((rows, ids)), || match answer {
                Ok((all, distinct)) => {
                    format!("SQL at node {id} counts {all} rows and {distinct} ids; a consumer reads {rows} and {ids}")
                }
                Err(failure) => format!("SQL at node {id}: {failure}"),
            });
        }
    }

    fn outcome(self, evidence: &Evidence) -> Outcome {
        let counts = &evidence.counts;
        let ms = |gap: Duration| u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        let row = Row {
            name: self.stage.name.to_owned(),
            passed: self.broken.is_empty(),
            produced: counts.produced,
            acknowledged: counts.acknowledged,
            readable: counts.readable,
            lost: counts.lost,
            rescued: counts.rescued,
            write_gap_ms: self.fault.map(|_| ms(evidence.write_gap)),
            read_gap_ms: self.fault.map(|_| ms(evidence.read_gap)),
            recovered_by_itself: self.recovered.unwrap_or(true),
            finding: self.findings.into_iter().collect::<Vec<_>>().join(","),
        };
        Outcome { row, broken: self.broken }
    }
}
