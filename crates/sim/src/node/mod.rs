//! One node: a disk, clocks, and while it runs a process that owns group 0 and its replicas.
//!
//! Nothing here decides: it does for the deciding rooms what `server` does for them, in the same order.

mod coordinator;
mod effects;
mod log;
mod meta;
mod moves;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ::log::{HardStates, OpenError, Seats};
use base::disk::Disk;
use base::disk::memory::MemDisk;
use base::{NodeId, PartitionIndex, Tick, Timestamp, TopicPartition};
use quorum::{GroupConfig, Message};

use crate::disk::Lying;
use crate::facts::View;
use crate::random::{Random, mix};
use crate::time::{At, Clock};

pub use coordinator::Groups;
pub use effects::{Acked, Effects, GroupName, ProduceFailure, ProposeFailure, Reply, Request, SyncOf, Ticket};
pub use log::{Acks, Log, Waits};
pub use meta::Meta;

/// The topic that the groups' coordinator writes to.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
const HARD_DIR: &str = "hard";
const FETCH_BYTES: usize = 4 << 10;
const FLIPS_MAX: u64 = 3;

/// A mistake planted into the driver, to see that the checkers catch it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Bug {
    #[default]
    None,
    /// Group 0 answers before its vote and its entries are durable, and forgets its votes.
    VoteForgotten,
    /// Every fsync of every disk says yes and does nothing.
    SyncLies,
    /// acks=1 is answered without asking for the lease.
    LeaseIgnored,
    /// acks=all is answered as soon as the leader has written.
    AckUncommitted,
    /// A vote in a partition is answered before it is durable, and a loss of power takes it back.
    VoteUnsynced,
    /// Nobody helps a replica to mend what its disk has changed.
    NeverMended,
}

impl Bug {
    pub const ALL: [Self; 6] = [
        Self::VoteForgotten,
        Self::SyncLies,
        Self::LeaseIgnored,
        Self::AckUncommitted,
        Self::VoteUnsynced,
        Self::NeverMended,
    ];
}

/// See the module.
pub struct Node {
    pub id: NodeId,
    pub clock: Clock,
    pub disk: MemDisk,
    pub process: Option<Process>,
    /// How often it was started.
    pub life: u64,
    pub paused_until: At,
    /// How long a sync takes.
    pub sync_us: (u64, u64),
    /// A death in the middle of a disk operation is a loss of power.
    pub crash_is_power: bool,
    /// Its disk lost what was durable: by a fault of ours.
    pub was_damaged: bool,
    bug: Bug,
    seed: u64,
    founders: Vec<NodeId>,
}

/// What runs.
pub struct Process {
    node: NodeId,
    pub meta: Meta,
    pub logs: BTreeMap<TopicPartition, Log>,
    groups: Groups,
    hard: HardStates,
    /// Partitions that could not be opened, and why.
    pub failures: BTreeMap<TopicPartition, String>,
    /// Files or hard states that could not be removed.
    broken: Option<String>,
}

pub(crate) fn group_config(node: NodeId, seed: u64) -> GroupConfig {
    GroupConfig { uncommitted_bytes_max: 256 << 10, inflight_messages_max: 32, ..GroupConfig::standard(node, seed) }
}

impl Node {
    pub fn new(id: NodeId, clock: Clock, disk: MemDisk, founders: &[NodeId], seed: u64, bug: Bug) -> Self {
        Self {
            id,
            clock,
            disk,
            process: None,
            life: 0,
            paused_until: At(0),
            sync_us: (100, 900),
            crash_is_power: false,
            was_damaged: false,
            bug,
            seed,
            founders: founders.to_vec(),
        }
    }

    /// Starts the process on what the disk holds.
    pub fn start(&mut self, at: At) -> Result<(), String> {
        self.life += 1;
        let seed = mix(self.seed ^ (self.life << 32));
        let disk = self.shared_disk();
        let votes: Arc<dyn Disk> = match self.bug {
            Bug::VoteUnsynced => Arc::new(Lying { disk: self.disk.clone(), honest_syncs: 1 }),
            _ => Arc::clone(&disk),
        };
        let hard = quorum::HardStates::open(votes, HARD_DIR).map_err(|error| error.to_string())?;
        let meta = Meta::open(disk, self.id, &self.founders, seed, self.bug)?;
        let hard = Arc::new(Mutex::new(hard));
        let (logs, groups) = (BTreeMap::new(), Groups::new(seed));
        self.process =
            Some(Process { node: self.id, meta, logs, groups, hard, failures: BTreeMap::new(), broken: None });
        self.reconcile(at);
        Ok(())
    }

    /// The process ends; what is on the disk after it depends on how.
    pub fn stop(&mut self, power: bool) {
        self.process = None;
        self.disk = if power { self.disk.crash() } else { self.disk.kill() };
    }

    #[must_use]
    pub const fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// True if a part of it takes no work until the node is started again.
    #[must_use]
    pub fn stopped(&self) -> bool {
        !self.why_stopped().is_empty()
    }

    #[must_use]
    pub fn why_stopped(&self) -> String {
        let Some(process) = &self.process else { return String::new() };
        let logs = process.logs.values().filter_map(|log| log.partition.stopped().map(ToString::to_string));
        let parts = process.meta.stopped.iter().chain(&process.broken).cloned();
        parts.chain(logs).collect::<Vec<_>>().join("; ")
    }

    pub fn tick(&mut self, at: At) -> Effects {
        self.act(at, |process, now, wall, fx| {
            process.meta.tick(now, fx);
            for log in process.logs.values_mut() {
                log.tick(now, wall, fx);
            }
            process.moves(now, fx);
            process.with_groups(|groups, log| groups.tick(now, wall, log, fx));
        })
    }

    pub fn step(&mut self, at: At, group: GroupName, message: Message) -> Effects {
        self.act(at, |process, now, _, fx| match group {
            GroupName::Control => process.meta.step(now, message, fx),
            GroupName::Partition(tp) => {
                if let Some(log) = process.logs.get_mut(&tp) {
                    log.step(now, message, fx);
                }
            }
        })
    }

    pub fn synced(&mut self, at: At, what: SyncOf) -> Effects {
        self.act(at, |process, now, _, fx| match what {
            SyncOf::Control => process.meta.synced(now, fx),
            SyncOf::Partition(tp) => {
                if let Some(log) = process.logs.get_mut(&tp) {
                    log.synced(now, fx);
                }
            }
            SyncOf::Care(tp) => {
                if let Some(log) = process.logs.get_mut(&tp) {
                    log.cared(now, fx);
                }
            }
        })
    }

    pub fn request(&mut self, at: At, ticket: Ticket, request: Request) -> Effects {
        self.act(at, |process, now, wall, fx| process.request(now, wall, ticket, request, fx))
    }

    pub fn link_lost(&mut self, at: At, peer: NodeId) -> Effects {
        self.act(at, |process, now, _, fx| {
            process.meta.leader_gone(now, peer, fx);
            for log in process.logs.values_mut() {
                log.leader_gone(now, peer, fx);
            }
        })
    }

    pub fn transfer(&mut self, at: At, group: GroupName, to: NodeId) -> Effects {
        self.act(at, |process, now, _, fx| match group {
            GroupName::Control => process.meta.transfer(to, fx),
            GroupName::Partition(tp) => {
                if let Some(log) = process.logs.get_mut(&tp) {
                    log.transfer(now, to, fx);
                }
            }
        })
    }

    pub fn change_members(&mut self, at: At, voters: &[NodeId], learners: &[NodeId]) -> Effects {
        self.act(at, |process, _, _, fx| process.meta.change_members(voters, learners, fx))
    }

    /// Flips a few bits of log files that were closed long ago. False if there are none.
    pub fn flip(&mut self, random: &mut Random, alive: impl Fn(&str) -> bool) -> bool {
        let mut folders: BTreeMap<String, Vec<(String, usize)>> = BTreeMap::new();
        for (path, bytes) in self.disk.dump() {
            if let Some((folder, name)) = path.rsplit_once('/')
                && name.ends_with(".log")
                && !folder.contains("lost+found")
                && alive(folder)
            {
                folders.entry(folder.to_owned()).or_default().push((path.clone(), bytes.len()));
            }
        }
        // The newest files may not be below the mark.
        let old: Vec<(String, usize)> = folders
            .into_values()
            .flat_map(|files| files[..files.len().saturating_sub(3)].to_vec())
            .filter(|(_, len)| *len > 0)
            .collect();
        for _ in 0..random.range(1, FLIPS_MAX) {
            let Some((path, len)) = random.pick(&old) else { return false };
            self.disk.flip_bit(path, random.below(*len as u64 * 8));
        }
        self.was_damaged = true;
        true
    }

    pub fn report_unreachable(&mut self, group: GroupName, peer: NodeId) {
        let Some(process) = &mut self.process else { return };
        match group {
            GroupName::Control => process.meta.unreachable(peer),
            GroupName::Partition(tp) => {
                if let Some(log) = process.logs.get_mut(&tp) {
                    log.partition.report_unreachable(peer);
                }
            }
        }
    }

    fn act(&mut self, at: At, act: impl FnOnce(&mut Process, Tick, Timestamp, &mut Effects)) -> Effects {
        let mut fx = Effects::default();
        let (now, wall) = (self.clock.tick(at), self.clock.wall(at));
        let Some(process) = &mut self.process else { return fx };
        act(process, now, wall, &mut fx);
        if !fx.writes.is_empty() {
            process.with_groups(|groups, log| groups.written(now, wall, log, &mut fx));
        }
        if fx.applied {
            self.reconcile(at);
        }
        fx
    }

    /// Opens the partitions this node has a replica of, and deletes those with a tombstone.
    fn reconcile(&mut self, at: At) {
        let (disk, node, bug) = (self.shared_disk(), self.id, self.bug);
        let (now, wall) = (self.clock.tick(at), self.clock.wall(at));
        let Some(process) = &mut self.process else { return };
        let state = process.meta.state.clone();
        for topic in state.topics.values() {
            for partition in (0..topic.partitions).map(PartitionIndex) {
                let tp = TopicPartition { topic: topic.id, partition };
                let voters = topic.replicas_of(partition).to_vec();
                let target = topic.targets.get(&partition).map_or(&[][..], Vec::as_slice);
                let known = process.logs.contains_key(&tp) || process.failures.contains_key(&tp);
                if known || !topic.is_on(partition, node) {
                    continue;
                }
                let mut learners: Vec<NodeId> = target.iter().copied().filter(|id| !voters.contains(id)).collect();
                if !voters.contains(&node) && !learners.contains(&node) {
                    learners.push(node);
                }
                let seats = Seats { voters, learners };
                let hard = Arc::clone(&process.hard);
                match Log::open(tp, node, seats, Arc::clone(&disk), hard, now, wall, bug) {
                    Ok(log) => {
                        process.logs.insert(tp, log);
                    }
                    // Tried again when the node is started again, on a disk that works.
                    Err(OpenError::Disk(why)) => process.broken = Some(why.to_string()),
                    // The others go on; if the topic turns out to be deleted, nobody misses it.
                    Err(why) => {
                        process.failures.insert(tp, why.to_string());
                    }
                }
            }
        }
        let gone = |tp: &TopicPartition| state.tombstones.contains_key(&tp.topic);
        let known = process.logs.keys().chain(process.failures.keys());
        let deleted: Vec<TopicPartition> = known.copied().filter(gone).collect();
        for tp in deleted {
            process.logs.remove(&tp);
            process.failures.remove(&tp);
            let removed = disk.remove_dir_all(&log::folder(tp)).and_then(|()| disk.sync_dir(&tp.topic.to_string()));
            let mut hard = process.hard.lock().unwrap_or_else(PoisonError::into_inner);
            let forgotten = hard.remove(::log::group_key(tp));
            if let Err(why) = removed.map_err(|e| e.to_string()).and(forgotten.map_err(|e| e.to_string())) {
                process.broken = Some(why);
            }
        }
    }

    /// Every group this node has a part in.
    #[must_use]
    pub fn all_groups(&self) -> Vec<GroupName> {
        let Some(process) = &self.process else { return Vec::new() };
        let partitions = process.logs.keys().copied().map(GroupName::Partition);
        [GroupName::Control].into_iter().chain(partitions).collect()
    }

    /// A group as this node has it now.
    #[must_use]
    pub fn view(&self, at: At, group: GroupName) -> Option<View> {
        let process = self.process.as_ref()?;
        let now = self.clock.tick(at);
        let (node, life) = (self.id, self.life);
        match group {
            GroupName::Control => {
                let meta = &process.meta;
                let (role, term, lease) = (meta.group.role(), meta.group.term(), meta.group.lease_valid(now));
                Some(View { node, life, role, term, lease })
            }
            GroupName::Partition(tp) => {
                let partition = &process.logs.get(&tp)?.partition;
                let (role, term, lease) = (partition.role(), partition.term(), partition.lease_valid(now));
                Some(View { node, life, role, term, lease })
            }
        }
    }

    fn shared_disk(&self) -> Arc<dyn Disk> {
        match self.bug {
            Bug::SyncLies => Arc::new(Lying { disk: self.disk.clone(), honest_syncs: 0 }),
            _ => Arc::new(self.disk.clone()),
        }
    }
}

impl Process {
    fn request(&mut self, now: Tick, wall: Timestamp, ticket: Ticket, request: Request, fx: &mut Effects) {
        match request {
            Request::Propose(command) => self.meta.propose(now, ticket, &command, fx),
            Request::Produce { tp, acks, batch } => match self.logs.get_mut(&tp) {
                Some(log) => log.produce(now, wall, Waits::Client(ticket), acks, batch, fx),
                None => fx.reply(ticket, Reply::Produced(Err(ProduceFailure::NotLeader(None)))),
            },
            Request::Describe => {
                let leaders = self.logs.iter().filter_map(|(tp, log)| Some((*tp, log.partition.leader()?)));
                fx.reply(ticket, Reply::Described(Arc::new(self.meta.state.clone()), leaders.collect()));
            }
            Request::Fetch { tp, from } => {
                let read = self
                    .logs
                    .get(&tp)
                    .map(|log| log.partition.reader().read(from, FETCH_BYTES, ::log::ReadLimit::Committed));
                let fetched = match read {
                    Some(Ok(fetched)) => Ok((fetched.bytes, fetched.next)),
                    Some(Err(error)) => Err(error.to_string()),
                    None => Err("no replica here".to_owned()),
                };
                fx.reply(ticket, Reply::Fetched(fetched));
            }
            Request::Group(request) => {
                let known = self.with_groups(|groups, log| groups.request(now, wall, ticket, request, log, fx));
                if known.is_none() {
                    fx.reply(ticket, Reply::Group(None));
                }
            }
        }
    }

    /// Brings what this node leads a step nearer to where it is wanted.
    fn moves(&mut self, now: Tick, fx: &mut Effects) {
        let wanted = self.meta.state.topics.values().flat_map(|topic| {
            topic
                .targets
                .iter()
                .map(|(at, target)| (TopicPartition { topic: topic.id, partition: *at }, target.clone()))
        });
        for (tp, target) in wanted.collect::<Vec<_>>() {
            let Some(log) = self.logs.get_mut(&tp) else { continue };
            if log.bring_to(now, self.node, &target, fx) {
                fx.finished.push((tp, target));
            }
        }
    }

    /// The coordinator with the partition it writes to, if this node has a replica of that.
    fn with_groups<T>(&mut self, act: impl FnOnce(&mut Groups, &mut Log) -> T) -> Option<T> {
        let topic = self.meta.state.topic_named(OFFSETS_TOPIC)?.id;
        let log = self.logs.get_mut(&TopicPartition { topic, partition: PartitionIndex(0) })?;
        Some(act(&mut self.groups, log))
    }
}
