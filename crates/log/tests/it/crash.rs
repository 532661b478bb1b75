//! Crashes at every operation of seeded workloads, of either kind, and again while recovering.
//!
//! A case is a line `seed crash-at kind crash-at-in-recovery`; the lines of `crash-cases.txt` are run first,
//! for ever. A failure prints the line to add there.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use base::disk::DiskError;
use base::disk::memory::MemDisk;
use base::records;
use base::{Offset, Tick};
use bytes::Bytes;
use log::{AppendError, OpenError, PartitionConfig, ReadLimit, Reader};

use crate::world::{World, batch, batch_of};

const SEEDS: u64 = 120;
const STEPS: u64 = 24;
const PRODUCERS: usize = 3;
const ROOMY: u64 = 1 << 20;

#[derive(Clone, Copy, Debug)]
struct Case {
    seed: u64,
    /// Operation of the disk at which the process dies.
    at: u64,
    kind: Kind,
    /// Operation of the recovery at which it dies again.
    again: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    PowerLoss,
    Kill,
    /// A kill, a recovery, perhaps another batch, and then a power loss.
    KillThenPowerLoss,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::PowerLoss => "power",
            Kind::Kill => "kill",
            Kind::KillThenPowerLoss => "kill+power",
        };
        let again = self.again.map_or("-".to_owned(), |again| again.to_string());
        write!(f, "{} {} {kind} {again}", self.seed, self.at)
    }
}

fn parse(line: &str) -> Case {
    let words: Vec<&str> = line.split_whitespace().collect();
    let kind = match words[2] {
        "power" => Kind::PowerLoss,
        "kill" => Kind::Kill,
        "kill+power" => Kind::KillThenPowerLoss,
        other => panic!("{line}: {other}"),
    };
    Case { seed: words[0].parse().unwrap(), at: words[1].parse().unwrap(), kind, again: words[3].parse().ok() }
}

#[test]
fn kept_cases_stay_good() {
    for line in include_str!("crash-cases.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        check(parse(line));
    }
}

#[test]
fn nothing_committed_is_lost_wherever_it_crashes() {
    let cases = crash_all(0..SEEDS);
    assert!(cases > 1000, "{cases} cases");
}

#[test]
#[ignore = "a minute or two: for a night, or after a change of recovery"]
fn nothing_committed_is_lost_in_many_more_worlds() {
    crash_all(SEEDS..SEEDS + 4000);
}

/// Runs crashes of these seeds; returns how many.
fn crash_all(seeds: std::ops::Range<u64>) -> usize {
    let mut cases = 0;
    for seed in seeds {
        let whole = Run::new(seed, None).go();
        let mut random = Random(seed ^ 0xabcd);
        // All operations for some seeds, a few of them for the others.
        let step = if seed.is_multiple_of(20) { 1 } else { 1 + random.below(20) };
        let mut at = random.below(step);
        while at <= whole.disk.ops() {
            let kind = [Kind::PowerLoss, Kind::Kill, Kind::KillThenPowerLoss][random.below(3) as usize];
            let again = (random.below(3) == 0).then(|| random.below(12));
            check(Case { seed, at, kind, again });
            cases += 1;
            at += step;
        }
    }
    cases
}

fn check(case: Case) {
    let outcome = catch_unwind(AssertUnwindSafe(|| survive(case)));
    if let Err(panic) = outcome {
        println!("failed: add to crash-cases.txt:\n{case}");
        std::panic::resume_unwind(panic);
    }
}

/// What the world outside the process knows.
#[derive(Default)]
struct Known {
    /// What was sent to each offset, answered or not.
    sent: BTreeMap<Offset, Vec<String>>,
    /// Appends that were answered, as (offset after them).
    answered: Offset,
    /// The highest committed offset anyone was told.
    committed: Offset,
    /// The start that is durable, and the furthest anyone asked for.
    start: Offset,
    start_asked: Offset,
    /// Batches of idempotent producers that are not known to be committed, in order.
    unsure: Vec<Vec<(Bytes, Offset)>>,
    next_value: u64,
    sequences: Vec<i32>,
}

struct Run {
    random: Random,
    disk: MemDisk,
    known: Known,
    config: PartitionConfig,
    now: Tick,
}

fn config(seed: u64) -> PartitionConfig {
    PartitionConfig {
        retention_ms: None,
        retention_bytes: seed.is_multiple_of(2).then_some(700),
        file_bytes_max: 300 + seed % 7 * 100,
        file_age_ms_max: 1000,
        index_step_bytes: 1 + seed % 3 * 100,
        ..PartitionConfig::default()
    }
}

impl Run {
    fn new(seed: u64, crash_at: Option<u64>) -> Self {
        // On some the disk fills up on the way.
        let capacity_bytes = if seed.is_multiple_of(4) { 5000 + seed % 9 * 500 } else { ROOMY };
        let disk = MemDisk::new(seed, capacity_bytes);
        if let Some(at) = crash_at {
            disk.crash_at(at);
        }
        let known = Known { unsure: vec![Vec::new(); PRODUCERS], sequences: vec![0; PRODUCERS], ..Known::default() };
        Self { random: Random(seed), disk, known, config: config(seed), now: Tick(1000) }
    }

    /// Runs the workload to its end or the crash.
    fn go(mut self) -> Self {
        let mut world: Option<World> = None;
        for _ in 0..STEPS {
            let mut open = match world.take() {
                Some(world) => world,
                None => match World::open(self.disk.clone(), self.config.clone()) {
                    Ok(world) => world,
                    Err(error) => {
                        let full = matches!(error, OpenError::Disk(DiskError::Full { .. }));
                        assert!(self.disk.is_dead() || full, "{error}");
                        return self;
                    }
                },
            };
            open.now = self.now;
            let kept = self.step(open);
            if self.disk.is_dead() {
                return self;
            }
            world = kept;
        }
        self
    }

    /// One step of the workload; the world is gone if it was closed.
    fn step(&mut self, mut world: World) -> Option<World> {
        match self.random.below(16) {
            0..7 => self.append(&mut world),
            7..11 => self.flush(&mut world),
            11 => {
                // A flush under way while more is written.
                if let Some(job) = world.partition.flush_job() {
                    let up_to = self.known.answered;
                    self.append(&mut world);
                    if let Ok(committed) = world.partition.flushed(job.run()) {
                        assert!(committed >= up_to);
                        self.committed(committed, world.partition.start());
                    }
                }
            }
            12 => {
                self.now = Tick(self.now.0 + 600);
                world.partition.tick(self.now, world.wall);
            }
            13 => {
                world.partition.trim(self.now, world.wall);
                self.known.start_asked = self.known.start_asked.max(world.partition.start());
            }
            14 => {
                let span = world.partition.committed().0 - world.partition.start().0;
                let before = world.partition.start().plus(span / 2);
                if world.partition.delete_before(before).is_ok() {
                    self.known.start_asked = self.known.start_asked.max(world.partition.start());
                }
            }
            _ => {
                let end = world.partition.end();
                let start = world.partition.start();
                if world.partition.close().is_ok() {
                    self.committed(end, start);
                }
                return None;
            }
        }
        Some(world)
    }

    fn append(&mut self, world: &mut World) {
        let count = 1 + self.random.below(3);
        let values: Vec<String> = (0..count)
            .map(|_| {
                self.known.next_value += 1;
                format!("value {} {}", self.known.next_value, "x".repeat(self.random.below(120) as usize))
            })
            .collect();
        let text: Vec<&str> = values.iter().map(String::as_str).collect();
        let producer = self.random.below(PRODUCERS as u64 + 1) as usize;
        let sequence = self.known.sequences.get(producer).copied();
        let bytes = sequence.map_or_else(|| batch(&text), |sequence| batch_of(producer as i64, 0, sequence, &text));
        let end = world.partition.end();
        let outcome = world.append(bytes.clone());
        if outcome == Err(AppendError::DiskFull) {
            assert!(values_at(world, end).is_none(), "a refused append left something");
            return;
        }
        self.known.sent.insert(end, values);
        if sequence.is_some() {
            self.known.sequences[producer] += count as i32;
            self.known.unsure[producer].push((bytes, end));
        }
        match outcome {
            Ok(appended) => {
                assert_eq!(appended.base_offset, end);
                self.known.answered = appended.next_offset;
            }
            Err(error) => assert!(self.disk.is_dead(), "{error}"),
        }
    }

    fn flush(&mut self, world: &mut World) {
        while let Some(job) = world.partition.flush_job() {
            let start = world.partition.start();
            match world.partition.flushed(job.run()) {
                Ok(committed) => self.committed(committed, start),
                Err(error) => {
                    assert!(self.disk.is_dead(), "{error}");
                    return;
                }
            }
        }
    }

    fn committed(&mut self, committed: Offset, start: Offset) {
        assert!(committed >= self.known.committed);
        self.known.committed = committed;
        self.known.start = self.known.start.max(start);
        for unsure in &mut self.known.unsure {
            unsure.retain(|(_, offset)| *offset >= committed);
        }
    }
}

fn survive(case: Case) {
    let run = Run::new(case.seed, Some(case.at)).go();
    let mut known = run.known;
    let mut all_kept = case.kind == Kind::Kill;
    let mut disk = match case.kind {
        Kind::PowerLoss => run.disk.crash(),
        Kind::Kill | Kind::KillThenPowerLoss => run.disk.kill(),
    };
    disk.set_capacity(ROOMY);
    if let Some(at) = case.again {
        disk.crash_at(at);
        let opened = World::open(disk.clone(), run.config.clone());
        assert!(opened.is_ok() || disk.is_dead(), "{:?}", opened.map(|world| world.recovery));
        drop(opened);
        disk = if case.kind == Kind::PowerLoss { disk.crash() } else { disk.kill() };
    }
    if case.kind == Kind::KillThenPowerLoss {
        let mut world = World::open(disk.clone(), run.config.clone()).unwrap();
        if case.at.is_multiple_of(2) {
            known.sent.split_off(&world.partition.end());
            let last = world.append(batch(&["between the crashes"])).unwrap();
            known.sent.insert(last.base_offset, vec!["between the crashes".to_owned()]);
            world.flush().unwrap();
        }
        // What a restarted process calls committed is committed.
        let committed = world.partition.committed();
        known.committed = known.committed.max(committed);
        disk = disk.crash();
        all_kept = false;
    }
    if std::env::var("DUMP").is_ok() {
        for (path, bytes) in disk.dump() {
            println!("{path} {}", bytes.len());
            if path.ends_with(".log") {
                for at in base::batch::split(&Bytes::from(bytes.clone())) {
                    println!("   {:?}", at.map(|(h, _)| (h.base_offset, h.producer_id, h.base_sequence)));
                }
            }
            if path.ends_with(".producers") || path.ends_with("mark") {
                println!("   {bytes:?}");
            }
        }
        println!("{:?}", known.unsure);
    }
    let mut world = World::open(disk, run.config.clone()).unwrap();
    assert_eq!(world.recovery.findings, Vec::<String>::new());
    check_content(&world, &known);
    if all_kept {
        assert!(world.partition.end() >= known.answered, "a kill lost what was written");
    }
    retry(&mut world, &mut known);
    known.sent.split_off(&world.partition.end());
    let last = world.append(batch(&["after the crash"])).unwrap();
    world.flush().unwrap();
    known.sent.insert(last.base_offset, vec!["after the crash".to_owned()]);
    known.committed = world.partition.end();
    check_content(&world, &known);
    let disk = world.disk.clone();
    world.partition.close().unwrap();
    check_content(&World::open(disk.crash(), run.config).unwrap(), &known);
}

/// Everything below what was committed is there; nothing is there that was not sent to its place.
fn check_content(world: &World, known: &Known) {
    let (start, end) = (world.partition.start(), world.partition.end());
    assert!(start >= known.start && start <= known.start_asked.max(known.start), "start {start}");
    assert!(end >= known.committed, "the log ends at {end}, {} was committed", known.committed);
    assert_eq!(world.partition.committed(), end);
    let found = read(&world.reader());
    let mut at = start;
    for (offset, value) in found {
        assert_eq!(offset, at, "a gap");
        let (base, values) = known.sent.range(..=offset).next_back().unwrap();
        let sent = usize::try_from(offset.0 - base.0).ok().and_then(|delta| values.get(delta));
        assert_eq!(sent, Some(&value), "another payload at {offset}");
        at = at.next();
    }
    assert_eq!(at, end, "all of it can be read");
}

fn values_at(world: &World, offset: Offset) -> Option<Bytes> {
    let fetched = world.reader().read(offset, 1, ReadLimit::End).ok()?;
    (!fetched.bytes.is_empty()).then_some(fetched.bytes)
}

fn read(reader: &Reader) -> Vec<(Offset, String)> {
    let mut found = Vec::new();
    let mut at = reader.start();
    loop {
        let fetched = reader.read(at, 500, ReadLimit::Committed).unwrap();
        if fetched.bytes.is_empty() {
            return found;
        }
        for batch in base::batch::split(&fetched.bytes) {
            let (_, bytes) = batch.unwrap();
            for record in records::decode(&bytes).unwrap().iter().map(Result::unwrap) {
                if record.offset >= reader.start() {
                    found.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
                }
            }
        }
        at = fetched.next;
    }
}

/// Producers send again what they have no answer for; each value ends up in the log once.
fn retry(world: &mut World, known: &mut Known) {
    for unsure in std::mem::take(&mut known.unsure) {
        let from = unsure.len().saturating_sub(5);
        for (bytes, offset) in &unsure[from..] {
            let end = world.partition.end();
            match world.append(bytes.clone()) {
                Ok(appended) if appended.duplicate => assert_eq!(appended.base_offset, *offset),
                Ok(appended) => {
                    assert_eq!(appended.base_offset, end);
                    let values = records::decode(bytes).unwrap();
                    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
                    let values = values.iter().map(|record| text(record.unwrap().value)).collect();
                    // What was sent to here and after was never committed and is gone.
                    known.sent.split_off(&end);
                    known.sent.insert(end, values);
                }
                // More than five were under way, which no client does: the first of them is missing.
                Err(AppendError::OutOfOrderSequence { .. }) if from > 0 => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    world.flush().unwrap();
    let mut values: Vec<_> = read(&world.reader()).into_iter().map(|(_, value)| value).collect();
    let count = values.len();
    values.sort();
    values.dedup();
    assert_eq!(values.len(), count, "a batch is in the log twice");
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[test]
fn the_same_case_goes_the_same_way() {
    for seed in 0..5 {
        let image = || Run::new(seed, Some(40)).go().disk.crash().dump();
        assert!(image() == image());
    }
}
