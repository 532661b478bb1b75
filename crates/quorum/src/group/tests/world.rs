//! Groups in memory, a network of queues, disks that sync when told, and commands over them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{LogIndex, NodeId, Term, Tick};
use bytes::Bytes;

use crate::{
    Entry, Group, GroupConfig, HardState, Initial, Members, Message, Payload, Ready, Role, Snapshot, Storage,
    StorageError,
};

/// What a log holds.
#[derive(Clone, Debug)]
pub struct State {
    pub hard_state: HardState,
    pub snapshot: Snapshot,
    pub entries: Vec<Entry>,
}

impl State {
    fn put(&mut self, write: Write) {
        match write {
            Write::HardState(state) => self.hard_state = state,
            Write::Entry(entry) => {
                let at = usize::try_from(entry.index.0 - self.snapshot.index.0 - 1).unwrap();
                self.entries.truncate(at);
                assert_eq!(self.entries.len(), at, "a gap before {}", entry.index);
                self.entries.push(entry);
            }
            Write::Snapshot(snapshot) => {
                self.entries.clear();
                self.snapshot = snapshot;
            }
        }
    }
}

/// A write that is not synced.
#[derive(Clone, Debug)]
enum Write {
    HardState(HardState),
    Entry(Entry),
    Snapshot(Snapshot),
}

/// A log in memory: what is written, and what a crash leaves of it.
#[derive(Clone, Debug)]
pub struct MemLog {
    pub state: State,
    durable: State,
    /// From `durable` to `state`.
    unsynced: Vec<Write>,
    /// False for a log that does not keep the commit index, as a partition's.
    pub keeps_commit: bool,
    reads: Cell<usize>,
    damage: Option<String>,
}

impl MemLog {
    pub fn new(voters: &[u32], learners: &[u32]) -> Self {
        let nodes = |ids: &[u32]| ids.iter().map(|id| NodeId(*id)).collect::<Vec<_>>();
        let snapshot = Snapshot {
            index: LogIndex(0),
            term: Term(0),
            members: Members::new(&nodes(voters), &nodes(learners)),
            data: Bytes::new(),
        };
        Self::of(State { hard_state: HardState::default(), snapshot, entries: Vec::new() })
    }

    fn of(state: State) -> Self {
        let (durable, reads) = (state.clone(), Cell::new(0));
        Self { state, durable, unsynced: Vec::new(), keeps_commit: true, reads, damage: None }
    }

    pub fn write(&mut self, ready: &Ready) {
        let snapshot = ready.snapshot.iter().cloned().map(Write::Snapshot);
        let entries = ready.entries.iter().cloned().map(Write::Entry);
        for write in snapshot.chain(entries).chain(ready.hard_state.map(Write::HardState)) {
            self.state.put(write.clone());
            self.unsynced.push(write);
        }
    }

    pub fn sync(&mut self) {
        self.unsynced.drain(..).for_each(|write| self.durable.put(write));
    }

    pub fn reads(&self) -> usize {
        self.reads.get()
    }

    /// As if the commit index had never been written.
    pub fn forget_commit(&mut self) {
        self.state.hard_state.commit = LogIndex(0);
    }

    pub fn damage(&mut self, what: &str) {
        self.damage = Some(what.to_owned());
    }

    /// What a restart finds if of the writes that were not synced the first `kept` survive.
    pub fn crashed(&self, kept: usize) -> Self {
        let mut state = self.durable.clone();
        self.unsynced.iter().take(kept).for_each(|write| state.put(write.clone()));
        Self { damage: self.damage.clone(), keeps_commit: self.keeps_commit, ..Self::of(state) }
    }

    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    pub fn compact(&mut self, index: LogIndex, data: Bytes) {
        self.sync();
        let term = self.term_of(index).unwrap();
        let members = self.members_at(index);
        let dropped = usize::try_from(index.0 - self.state.snapshot.index.0).unwrap();
        self.state.entries.drain(..dropped);
        self.state.snapshot = Snapshot { index, term, members, data };
        self.durable = self.state.clone();
    }

    fn members_at(&self, index: LogIndex) -> Members {
        let entries = self.state.entries.iter().take_while(|entry| entry.index <= index);
        entries.fold(self.state.snapshot.members.clone(), |members, entry| match &entry.payload {
            Payload::Membership(payload) => members.after(payload).unwrap_or(members),
            _ => members,
        })
    }

    /// What is committed for sure: the snapshot, and all membership entries but the last.
    fn surely_committed(&self) -> LogIndex {
        let mut changes =
            self.state.entries.iter().rev().filter(|entry| matches!(entry.payload, Payload::Membership(_)));
        changes.nth(1).map_or(self.state.snapshot.index, |entry| entry.index)
    }

    pub fn at(&self, index: LogIndex) -> Option<&Entry> {
        let position = index.0.checked_sub(self.state.snapshot.index.0 + 1)?;
        self.state.entries.get(usize::try_from(position).unwrap())
    }
}

impl Storage for MemLog {
    fn initial(&self) -> Initial {
        let Snapshot { index, members, .. } = &self.state.snapshot;
        let mut hard_state = self.state.hard_state;
        hard_state.commit = if self.keeps_commit { hard_state.commit } else { LogIndex(0) };
        hard_state.commit = hard_state.commit.max(self.surely_committed());
        Initial { hard_state, members: members.clone(), applied: *index }
    }

    fn first_index(&self) -> LogIndex {
        self.state.snapshot.index.next()
    }

    fn last_index(&self) -> LogIndex {
        self.state.snapshot.index.plus(self.state.entries.len() as u64)
    }

    fn term_of(&self, index: LogIndex) -> Result<Term, StorageError> {
        if index == self.state.snapshot.index {
            return Ok(self.state.snapshot.term);
        }
        if index < self.state.snapshot.index {
            return Err(StorageError::Compacted);
        }
        self.at(index).map(|entry| entry.term).ok_or(StorageError::Unavailable)
    }

    fn entries(&self, from: LogIndex, to: LogIndex, bytes_max: u64) -> Result<Vec<Entry>, StorageError> {
        self.reads.set(self.reads.get() + 1);
        if let Some(what) = &self.damage {
            return Err(StorageError::Corrupt(what.clone()));
        }
        if from <= self.state.snapshot.index {
            return Err(StorageError::Compacted);
        }
        let mut bytes = 0;
        let range = (from.0..to.0).map(|index| self.at(LogIndex(index)).unwrap().clone());
        Ok(range
            .take_while(|entry| {
                let first = bytes == 0;
                bytes += entry.payload.bytes().len() as u64 + 1;
                first || bytes <= bytes_max
            })
            .collect())
    }

    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        Ok(self.state.snapshot.clone())
    }
}

/// A node: its group, what it applied, and which readies wait for a sync.
pub struct Node {
    pub group: Group<MemLog>,
    pub applied: Vec<(LogIndex, Bytes)>,
    /// Ready numbers written, with the messages to send once they are synced.
    unsynced: VecDeque<(u64, Vec<Message>)>,
    pub holds: bool,
}

/// Everything.
#[derive(Default)]
pub struct World {
    pub nodes: BTreeMap<u32, Node>,
    pub wire: VecDeque<Message>,
    pub lost: BTreeSet<u32>,
    pub now: Tick,
    trace: Option<Vec<String>>,
}

impl World {
    pub fn command(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u32>().unwrap();
        match words[0] {
            "ready" => self.ready_text(number(1)),
            "status" => self.status_text(number(1)),
            "settle" => self.traced(Self::settle),
            "ticks" => self.traced(|world| world.run(number(1))),
            "show" => self.nodes.iter().map(|(id, node)| format!("{id}: {}", node.text())).collect(),
            "lease" => {
                let valid = self.nodes[&number(1)].group.lease_valid(self.now);
                vec![if valid { "valid" } else { "none" }.to_owned()]
            }
            "propose" | "members" | "transfer" => self.ask(&words),
            _ => {
                self.happen(&words);
                vec![]
            }
        }
    }

    /// Asks a group for something that it may refuse.
    fn ask(&mut self, words: &[&str]) -> Vec<String> {
        let ids = |word: &str| -> Vec<NodeId> {
            word.split(',').filter(|id| !id.is_empty()).map(|id| NodeId(id.parse().unwrap())).collect()
        };
        let group = &mut self.nodes.get_mut(&words[1].parse().unwrap()).unwrap().group;
        let outcome = match words[0] {
            "propose" => {
                let data = Bytes::copy_from_slice(words[2].as_bytes());
                group.propose(data).map_err(|error| error.to_string())
            }
            "members" => {
                let (voters, learners) = (ids(words[2]), ids(words.get(3).unwrap_or(&"")));
                group.propose_membership(&voters, &learners).map_err(|error| error.to_string())
            }
            _ => {
                let outcome = group.transfer_leadership(NodeId(words[2].parse().unwrap()));
                return outcome.err().map(|error| error.to_string()).into_iter().collect();
            }
        };
        vec![outcome.map_or_else(|error| error, |(term, index)| format!("at term {term} index {index}"))]
    }

    /// Makes something happen.
    fn happen(&mut self, words: &[&str]) {
        let number = |at: usize| words[at].parse::<u32>().unwrap();
        match words[0] {
            "open" => {
                let (voters, learners) = (number(1), number(3));
                let learners: Vec<u32> = (voters + 1..=voters + learners).collect();
                self.open(&(1..=voters).collect::<Vec<_>>(), &learners, 8);
            }
            "campaign" => self.nodes.get_mut(&number(1)).unwrap().group.campaign(),
            "gone" => self.nodes.get_mut(&number(1)).unwrap().group.hint_leader_gone(self.now),
            "later" => self.now.0 += u64::from(number(1)),
            "sync" => self.sync(number(1)),
            "hold" => self.nodes.get_mut(&number(1)).unwrap().holds = true,
            "lose" => drop(self.lost.insert(number(1))),
            "heal" => self.lost.clear(),
            "crash" => self.crash(number(1)),
            "compact" => {
                let node = self.nodes.get_mut(&number(1)).unwrap();
                let (index, _) = *node.applied.last().unwrap();
                node.group.storage_mut().compact(index, joined(&node.applied));
            }
            other => panic!("no command {other}"),
        }
    }

    pub fn open(&mut self, voters: &[u32], learners: &[u32], seed: u64) {
        for id in voters.iter().chain(learners) {
            let log = MemLog::new(voters, learners);
            self.nodes.insert(*id, Node::open(*id, seed, log));
        }
    }

    /// The node loses what it did not sync, and starts again.
    pub fn crash(&mut self, id: u32) {
        let node = self.nodes.remove(&id).unwrap();
        let log = node.group.storage().crashed(0);
        let data = log.state.snapshot.data.clone();
        let index = log.state.snapshot.index;
        let mut node = Node::open(id, 8, log);
        if index > LogIndex(0) {
            node.applied.push((index, data));
        }
        self.nodes.insert(id, node);
    }

    /// Handles readies and delivers messages until nothing moves.
    pub fn settle(&mut self) {
        loop {
            let mut moved = false;
            for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                moved |= self.pump(id);
            }
            while let Some(message) = self.wire.pop_front() {
                moved = true;
                self.deliver(message);
            }
            if !moved {
                return;
            }
        }
    }

    pub fn deliver(&mut self, message: Message) {
        let gone = self.lost.contains(&message.from().0) || self.lost.contains(&message.to().0);
        if !gone {
            if let Some(trace) = &mut self.trace {
                trace.push(message.to_string());
            }
            let message = Message::decode(message.encode()).unwrap();
            let _dropped = self.nodes.get_mut(&message.to().0).unwrap().group.step(self.now, message);
        }
    }

    /// Handles one node's readies; true if there were any.
    pub fn pump(&mut self, id: u32) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        let mut moved = false;
        while let Some(ready) = node.group.ready() {
            moved = true;
            self.wire.extend(node.take(ready));
            if !node.holds {
                self.wire.extend(node.sync());
            }
        }
        moved
    }

    pub fn sync(&mut self, id: u32) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.holds = false;
        self.wire.extend(node.sync());
    }

    fn run(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.now.0 += 25;
            for node in self.nodes.values_mut() {
                node.group.tick(self.now);
            }
            self.settle();
        }
    }

    fn status_text(&self, id: u32) -> Vec<String> {
        let node = &self.nodes[&id];
        let status = node.group.status();
        let mut text = vec![format!("{}; lease {} ms", status.members, status.lease_left_ms)];
        text.extend(status.peers.iter().map(|peer| {
            let heard = peer.last_heard.map_or("never".to_owned(), |at| format!("at {at}"));
            let paused = if peer.paused { ", paused" } else { "" };
            format!("{}: matched {}, heard {heard}{paused}", peer.node, peer.matched)
        }));
        text
    }

    fn traced(&mut self, work: impl FnOnce(&mut Self)) -> Vec<String> {
        self.trace = Some(Vec::new());
        work(self);
        self.trace.take().unwrap()
    }

    /// Writes one ready without syncing it and says what was in it.
    fn ready_text(&mut self, id: u32) -> Vec<String> {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(ready) = node.group.ready() else { return vec!["nothing".to_owned()] };
        let mut text = Vec::new();
        if let Some(state) = ready.hard_state {
            let vote = state.vote.map_or("none".to_owned(), |node| node.to_string());
            text.push(format!("hard state: term {} vote {vote} commit {}", state.term, state.commit));
        }
        text.extend(ready.entries.iter().map(|entry| format!("write {}", entry_text(entry))));
        text.push(format!("must sync: {}", ready.must_sync));
        text.extend(ready.messages.iter().map(|message| format!("send {message}")));
        text.extend(ready.messages_after_persist.iter().map(|message| format!("send after sync {message}")));
        text.extend(ready.committed.iter().map(|entry| format!("committed {}", entry_text(entry))));
        let sent = node.take(ready);
        self.wire.extend(sent);
        text
    }
}

impl Node {
    fn open(id: u32, seed: u64, log: MemLog) -> Self {
        let config = GroupConfig {
            node: NodeId(id),
            election_ticks: 10,
            heartbeat_ticks: 2,
            seed,
            uncommitted_bytes_max: 1 << 20,
            inflight_messages_max: 16,
            ..GroupConfig::standard(NodeId(id), seed)
        };
        let group = Group::open(config, log).unwrap();
        Self { group, applied: Vec::new(), unsynced: VecDeque::new(), holds: false }
    }

    fn take(&mut self, ready: Ready) -> Vec<Message> {
        self.group.storage_mut().write(&ready);
        self.group.written(ready.number);
        if let Some(snapshot) = ready.snapshot {
            self.applied = vec![(snapshot.index, snapshot.data)];
        }
        for entry in ready.committed {
            if let Payload::Membership(_) = entry.payload {
                self.group.apply_membership(&entry).unwrap();
            }
            self.group.applied(entry.index);
            if let Payload::Data(data) = entry.payload {
                self.applied.push((entry.index, data));
            }
        }
        self.unsynced.push_back((ready.number, ready.messages_after_persist));
        ready.messages
    }

    fn sync(&mut self) -> Vec<Message> {
        self.group.storage_mut().sync();
        let mut messages = Vec::new();
        while let Some((number, after)) = self.unsynced.pop_front() {
            self.group.persisted(number);
            messages.extend(after);
        }
        messages
    }

    fn text(&self) -> String {
        let role = match self.group.role() {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
        };
        let leader = self.group.leader().map_or("nobody".to_owned(), |node| node.to_string());
        let data = joined(&self.applied);
        let data = String::from_utf8_lossy(&data);
        let (term, commit) = (self.group.term(), self.group.commit_index());
        let last = self.group.storage().last_index();
        format!("{role} term {term} leader {leader} last {last} committed {commit} applied [{data}]")
    }
}

fn entry_text(entry: &Entry) -> String {
    let data = match &entry.payload {
        Payload::Empty => "empty".to_owned(),
        Payload::Data(data) => String::from_utf8_lossy(data).into_owned(),
        Payload::Membership(_) => "membership".to_owned(),
    };
    format!("{}/{} {data}", entry.term, entry.index)
}

pub fn joined(applied: &[(LogIndex, Bytes)]) -> Bytes {
    applied.iter().map(|(_, data)| &data[..]).collect::<Vec<_>>().join(&b' ').into()
}
