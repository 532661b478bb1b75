//! Replicas of one partition, each on a disk in memory, and a network that loses, doubles, turns around and
//! delays what it carries. Time is a number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use base::disk::memory::MemDisk;
use base::disk::{Disk, DiskError};
use base::{NodeId, Offset, Tick, Timestamp};
use bytes::Bytes;
use log::{
    AppendError, Appended, FlushDone, FlushJob, Message, OpenError, Partition, PartitionConfig, ReadDone, ReadError,
    ReadLimit, Reader, Role, Seats,
};

use super::Random;
use crate::world::{DIR, id};

pub const TICK_MS: u64 = 25;
const WALL: i64 = 1_700_000_000_000;

/// One process, if it runs, and its disk.
pub struct Replica {
    pub node: NodeId,
    pub disk: MemDisk,
    pub partition: Option<Partition>,
    /// Taken and not run yet, or run and not told.
    job: Option<Out>,
    /// Reads for followers: when each is brought back.
    reads: Vec<(u64, ReadDone)>,
    /// Everything below is durable, as far as this process was told.
    pub durable: Offset,
    /// Grows with each start.
    pub life: u64,
    pub ticked: u64,
    /// What readers were told last.
    pub seen: Offset,
}

struct Out {
    due: u64,
    end: Offset,
    work: Work,
}

enum Work {
    Job(Box<FlushJob>),
    Done(Result<FlushDone, DiskError>),
}

pub struct Cluster {
    pub now: u64,
    pub seats: Seats,
    pub config: PartitionConfig,
    pub replicas: BTreeMap<u32, Replica>,
    pub net: Net,
    pub random: Random,
    pub findings: Vec<String>,
    /// Of those that start from now on: they read for followers elsewhere.
    pub reads_apart: bool,
    /// Bytes that were read so.
    pub bytes_read_apart: usize,
}

/// What is on its way, by arrival.
pub struct Net {
    wire: BTreeMap<(u64, u64), Message>,
    sent: u64,
    /// One way.
    pub cut: BTreeSet<(u32, u32)>,
    /// In 100.
    pub loss: u64,
    pub doubled: u64,
    pub delay_ms_max: u64,
}

impl Net {
    fn send(&mut self, now: u64, message: Message, random: &mut Random) {
        let copies = 1 + u64::from(random.below(100) < self.doubled);
        for _ in 0..copies {
            if random.below(100) < self.loss {
                continue;
            }
            let due = now + 1 + random.below(self.delay_ms_max);
            self.sent += 1;
            self.wire.insert((due, self.sent), message.clone());
        }
    }
}

impl Cluster {
    pub fn new(nodes: u32, seed: u64, config: PartitionConfig, capacity_bytes: u64) -> Self {
        let random = Random(seed);
        let voters: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        let seats = Seats { voters, learners: Vec::new() };
        let net = Net { wire: BTreeMap::new(), sent: 0, cut: BTreeSet::new(), loss: 0, doubled: 0, delay_ms_max: 5 };
        let mut cluster = Self {
            now: 1000,
            seats,
            config,
            replicas: BTreeMap::new(),
            net,
            random,
            findings: Vec::new(),
            reads_apart: !seed.is_multiple_of(4),
            bytes_read_apart: 0,
        };
        for node in 1..=nodes {
            let disk = MemDisk::new(seed.wrapping_mul(31) + u64::from(node), capacity_bytes);
            let replica = Replica {
                node: NodeId(node),
                disk,
                partition: None,
                job: None,
                reads: Vec::new(),
                durable: Offset(0),
                life: 0,
                ticked: 0,
                seen: Offset(0),
            };
            cluster.replicas.insert(node, replica);
            cluster.start(node).unwrap();
        }
        cluster
    }

    pub fn start(&mut self, node: u32) -> Result<(), OpenError> {
        let (now, wall) = (Tick(self.now), self.wall());
        let (seats, config) = (self.seats.clone(), self.config.clone());
        let replica = self.replicas.get_mut(&node).unwrap();
        replica.disk.heal();
        let disk: Arc<dyn Disk> = Arc::new(replica.disk.clone());
        let hard =
            quorum::HardStates::open(Arc::clone(&disk), "hard").map_err(|error| OpenError::Group(error.to_string()))?;
        let hard = Arc::new(Mutex::new(hard));
        let (mut partition, recovery) = Partition::open(id(), DIR, config, NodeId(node), seats, disk, hard, now, wall)?;
        self.findings.extend(recovery.findings);
        if self.reads_apart {
            partition.read_apart();
        }
        replica.durable = partition.end();
        replica.seen = partition.committed();
        replica.partition = Some(partition);
        replica.life += 1;
        replica.ticked = self.now;
        Ok(())
    }

    /// The process dies. `power`: the machine too.
    pub fn stop(&mut self, node: u32, power: bool) {
        let replica = self.replicas.get_mut(&node).unwrap();
        replica.partition = None;
        replica.job = None;
        replica.reads.clear();
        replica.disk = if power { replica.disk.crash() } else { replica.disk.kill() };
    }

    pub fn wall(&self) -> Timestamp {
        Timestamp(WALL + self.now as i64)
    }

    pub fn running(&self) -> Vec<u32> {
        self.replicas.iter().filter(|(_, replica)| replica.partition.is_some()).map(|(node, _)| *node).collect()
    }

    pub fn partition(&mut self, node: u32) -> Option<&mut Partition> {
        self.replicas.get_mut(&node)?.partition.as_mut()
    }

    pub fn reader(&self, node: u32) -> Option<Reader> {
        self.replicas[&node].partition.as_ref().map(Partition::reader)
    }

    pub fn leader(&self) -> Option<u32> {
        let leads = |replica: &&Replica| replica.partition.as_ref().is_some_and(|p| p.role() == Role::Leader);
        let mut leaders: Vec<&Replica> = self.replicas.values().filter(leads).collect();
        leaders.sort_by_key(|replica| replica.partition.as_ref().map(Partition::term));
        leaders.last().map(|replica| replica.node.0)
    }

    /// Who may answer acks=1 now.
    pub fn leases(&self) -> Vec<u32> {
        let now = Tick(self.now);
        let valid = |replica: &&Replica| replica.partition.as_ref().is_some_and(|p| p.lease_valid(now));
        self.replicas.values().filter(valid).map(|replica| replica.node.0).collect()
    }

    pub fn append(&mut self, node: u32, batches: Bytes) -> Option<Result<Appended, AppendError>> {
        let (now, wall) = (Tick(self.now), self.wall());
        let outcome = self.partition(node)?.append(now, wall, batches);
        Some(outcome)
    }

    /// A few milliseconds pass: ticks, messages, disks. Gives the nodes whose disk failed.
    pub fn step(&mut self) -> Vec<u32> {
        self.now += 1 + self.random.below(4);
        self.deliver();
        let mut failed = Vec::new();
        for node in self.running() {
            if self.turn(node).is_err() {
                failed.push(node);
            }
        }
        failed
    }

    fn deliver(&mut self) {
        let later = self.net.wire.split_off(&(self.now + 1, 0));
        let trace = std::env::var("TRACE").is_ok();
        for (_, message) in std::mem::replace(&mut self.net.wire, later) {
            let (from, to) = (message.from().0, message.to().0);
            if self.net.cut.contains(&(from, to)) {
                continue;
            }
            let now = Tick(self.now);
            if let Some(partition) = self.partition(to) {
                let text = trace.then(|| message.to_string());
                // Whatever was dropped is sent again.
                let outcome = partition.step(now, message);
                if let Some(text) = text {
                    println!("{now} {text}: {outcome:?} {partition:?}");
                }
            }
        }
    }

    fn turn(&mut self, node: u32) -> Result<(), ()> {
        let (now, wall) = (self.now, self.wall());
        let hold = self.random.below(20);
        let replica = self.replicas.get_mut(&node).unwrap();
        let partition = replica.partition.as_mut().unwrap();
        if now - replica.ticked >= TICK_MS {
            replica.ticked = now;
            partition.tick(Tick(now), wall);
        }
        if let Some(job) = partition.care_job(Tick(now)) {
            partition.cared(job.run());
        }
        if let Some(out) = replica.job.take_if(|out| out.due <= now) {
            match out.work {
                Work::Job(job) => {
                    let done = job.run();
                    replica.job = Some(Out { due: now + hold / 2, end: out.end, work: Work::Done(done) });
                }
                Work::Done(done) => {
                    partition.flushed(done).map_err(|_| ())?;
                    replica.durable = replica.durable.max(out.end);
                }
            }
        }
        if replica.job.is_none()
            && partition.needs_flush()
            && let Some(job) = partition.flush_job()
        {
            replica.durable = replica.durable.min(partition.end());
            replica.job = Some(Out { due: now + hold, end: partition.end(), work: Work::Job(Box::new(job)) });
        }
        for (due, done) in std::mem::take(&mut replica.reads) {
            if due <= now {
                partition.read_done(Tick(now), done);
            } else {
                replica.reads.push((due, done));
            }
        }
        let messages = partition.take_messages();
        for job in partition.take_reads() {
            let done = job.run();
            self.bytes_read_apart += done.bytes();
            replica.reads.push((now + hold / 2, done));
        }
        if partition.stopped().is_some() || replica.disk.is_dead() {
            return Err(());
        }
        for message in messages {
            if !self.net.cut.contains(&(message.from().0, message.to().0)) {
                self.net.send(now, message, &mut self.random);
            }
        }
        Ok(())
    }
}

/// The batches a reader has from `from` to the limit.
pub fn batches(reader: &Reader, from: Offset, limit: ReadLimit) -> Result<Vec<(Offset, Bytes)>, ReadError> {
    let mut found = Vec::new();
    let mut at = from.max(reader.start());
    loop {
        let fetched = reader.read(at, 4096, limit)?;
        if fetched.bytes.is_empty() {
            return Ok(found);
        }
        for batch in base::batch::split(&fetched.bytes) {
            let (header, bytes) = batch.unwrap();
            found.push((header.base_offset, bytes));
        }
        at = fetched.next;
    }
}
