//! The owner thread's loop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::disk::DiskError;
use base::{LogIndex, NodeId, Term, Tick};
use bytes::Bytes;
use control::{Applied, Command, Refused, State};
use quorum::{
    Entry, Group, GroupConfig, Journal, JournalError, MembershipError, Message, Payload, ProposeError, QuorumError,
    Ready, Role, Snapshot, Storage, SyncDone, SyncJob,
};
use tokio::sync::{Semaphore, watch};

use super::{
    DRAIN_MAX, Failed, Input, MasterStatus, MetaError, MetaHandle, MetaOpenError, OUTCOMES_MAX, PROPOSALS_MAX,
    SNAPSHOT_BYTES, SNAPSHOT_ENTRIES, Start, UNCOMMITTED_BYTES_MAX, Waiter,
};
use crate::node::findings::{Finding, Findings, Severity};
use crate::node::time;
use crate::shell::outbox::{CONTROL, LATE_MS, Outbox, Ticker, post};
use crate::shell::peers::GroupFrame;
use crate::shell::thread::spawn_owner;

/// How often waiters that nobody waits for any more are let go.
const SWEEP_MS: u64 = 1_000;

/// Opens group 0, recovers its state and starts its thread. A sole voter leads when this returns; of several
/// one is elected when a majority can talk.
pub fn start(start: Start) -> Result<MetaHandle, MetaOpenError> {
    let (journal, recovered) = Journal::open(start.disk, &start.dir, &start.voters)?;
    let state = match &recovered.snapshot {
        Some(snapshot) => State::restore(&snapshot.data)?,
        None => State::default(),
    };
    if recovered.truncated_bytes > 0 {
        tracing::info!(bytes = recovered.truncated_bytes, "metadata: cut off a torn tail that was never acknowledged");
    }
    let seed = u64::from(start.node.0);
    let standard = GroupConfig::standard(start.node, seed);
    let tick_ms = standard.tick_ms;
    let config = GroupConfig { uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX, ..standard };
    let snapshot_at = journal.snapshot_index();
    let snapshot_bytes = recovered.snapshot.map_or(0, |snapshot| snapshot.data.len() as u64);
    let mut group = Group::open(config, journal)?;
    let voters = group.members().voters;
    if voters == [start.node] {
        group.campaign();
    }
    let (published, signal) = watch::channel(Arc::new(state.clone()));
    let now = time::now();
    let status = MasterStatus { leaderless_since: Some(now), ..MasterStatus::default() };
    let (master, master_signal) = watch::channel(Arc::new(status));
    let (inputs, inbox) = mpsc::channel();
    let (syncs, sync_inbox) = mpsc::channel();
    let mut owner = Owner {
        node: start.node,
        group,
        state,
        published,
        master,
        outbox: start.outbox,
        connected: BTreeSet::new(),
        active_term: None,
        waiting: BTreeMap::new(),
        outcomes: VecDeque::new(),
        seen: snapshot_at,
        answers: Vec::new(),
        stalled: None,
        stopped: None,
        unpersisted: VecDeque::new(),
        written: 0,
        durable: 0,
        syncs,
        is_syncing: false,
        unreachable: Vec::new(),
        snapshot_at,
        snapshot_bytes,
        findings: start.findings,
        ticker: Ticker::new(tick_ms, now),
        swept: now,
    };
    let inputs = Arc::new(inputs);
    let done = Arc::downgrade(&inputs);
    spawn_owner("control-flush", move || sync_loop(&sync_inbox, &done))?;
    owner.turn();
    owner.settle(&inbox);
    if owner.stalled.is_some() {
        return Err(MetaError::DiskFull.into());
    }
    if let Some(cause) = owner.stopped {
        return Err(MetaError::Stopped(cause).into());
    }
    spawn_owner("control", move || owner.run(&inbox))?;
    let places = Arc::new(Semaphore::new(PROPOSALS_MAX));
    Ok(MetaHandle { inputs, state: signal, master: master_signal, places, peers: start.peers })
}

/// Makes the journal durable while its owner hears and speaks: a slow disk makes changes slow, and leaders keep their
/// leaderships.
fn sync_loop(jobs: &mpsc::Receiver<(u64, SyncJob)>, done: &Weak<mpsc::Sender<Input>>) {
    while let Ok((written, job)) = jobs.recv() {
        let synced = Input::Synced(written, job.run());
        let Some(Ok(())) = done.upgrade().map(|owner| owner.send(synced)) else { return };
    }
}

/// A ready that was written.
struct Unpersisted {
    number: u64,
    must_sync: bool,
    /// To be sent once it is durable.
    messages: Vec<Message>,
}

struct Owner {
    node: NodeId,
    group: Group<Journal>,
    state: State,
    published: watch::Sender<Arc<State>>,
    master: watch::Sender<Arc<MasterStatus>>,
    outbox: Arc<dyn Outbox>,
    /// Nodes that a link to is up.
    connected: BTreeSet<NodeId>,
    /// The term in which an entry of this node as leader took effect here.
    active_term: Option<Term>,
    /// Who waits for the entry of a term at an index.
    waiting: BTreeMap<LogIndex, Vec<(Term, Waiter)>>,
    /// What the last commands came to, oldest first.
    outcomes: VecDeque<(LogIndex, Term, Result<Applied, Refused>)>,
    /// The last entry that took effect here, whatever it carried.
    seen: LogIndex,
    /// Answers to give once the state that shows them is published.
    answers: Vec<(Waiter, Result<Applied, Failed>)>,
    /// What there was no room to write. The group stands still until there is.
    stalled: Option<Ready>,
    stopped: Option<String>,
    /// Readies not known to be durable, oldest first.
    unpersisted: VecDeque<Unpersisted>,
    /// The last ready that was written, and the last that is durable.
    written: u64,
    durable: u64,
    /// To the thread that syncs, one job at a time: what is written meanwhile shares the next one.
    syncs: mpsc::Sender<(u64, SyncJob)>,
    is_syncing: bool,
    /// Nodes to which a message could not be sent; the group is told between two readies.
    unreachable: Vec<NodeId>,
    /// Where the last snapshot was taken, or tried.
    snapshot_at: LogIndex,
    /// Size of the journal after it.
    snapshot_bytes: u64,
    findings: Arc<Findings>,
    ticker: Ticker,
    swept: Tick,
}

impl Owner {
    fn run(mut self, inbox: &mpsc::Receiver<Input>) {
        loop {
            let wait = Duration::from_millis(self.ticker.wait_ms(time::now()).max(1));
            let mut next = match inbox.recv_timeout(wait) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let (begun, late_ms) = (time::now(), self.ticker.late_ms(time::now()));
            let mut taken = 0;
            while let Some(input) = next {
                if let Input::Close(done) = input {
                    self.turn();
                    self.settle(inbox);
                    let _nobody_waits = done.send(());
                    return;
                }
                self.take(input);
                taken += 1;
                next = if taken < DRAIN_MAX { inbox.try_recv().ok() } else { None };
            }
            self.tick();
            self.turn();
            let busy_ms = time::now().since(begun);
            if busy_ms >= LATE_MS || late_ms >= LATE_MS {
                tracing::warn!(busy_ms, late_ms, inputs = taken, "metadata: the thread was slow");
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Propose(data, waiter) => match self.propose(data) {
                Ok((term, index)) => self.waiting.entry(index).or_default().push((term, waiter)),
                Err(MetaError::Propose(ProposeError::NotLeader { leader })) => {
                    waiter.answer(Err(Failed::NotLeader(leader)));
                }
                Err(error) => waiter.answer(Err(Failed::Error(error))),
            },
            Input::Offer(data, reply) => drop(reply.send(self.propose(data))),
            Input::Await(term, index, waiter) => self.await_entry(term, index, waiter),
            Input::Message(frame) => self.message(&frame),
            Input::Link(node, is_connected) => self.link(node, is_connected),
            Input::Transfer(node) => self.transfer(node),
            Input::SetMembers { voters, learners, reply } => {
                let changed = if self.is_running() {
                    self.group.propose_membership(&voters, &learners).map(drop)
                } else {
                    Err(MembershipError::Pending)
                };
                drop(reply.send(changed));
            }
            Input::Status(reply) => drop(reply.send(self.group.status())),
            Input::Backup(reply) => {
                let term = self.group.storage().term_of(self.state.applied).unwrap_or(self.group.term());
                drop(reply.send((Arc::new(self.state.clone()), term, self.group.members().voters)));
            }
            Input::Synced(written, done) => self.synced(written, done),
            Input::Close(_) => unreachable!("the loop takes it"),
        }
    }

    /// False while the group may not be touched: there was no room for what it wants written, or it stopped.
    fn is_running(&self) -> bool {
        self.stopped.is_none() && self.stalled.is_none()
    }

    fn propose(&mut self, data: Bytes) -> Result<(Term, LogIndex), MetaError> {
        if let Some(cause) = &self.stopped {
            return Err(MetaError::Stopped(cause.clone()));
        }
        if self.stalled.is_some() {
            return Err(MetaError::DiskFull);
        }
        Ok(self.group.propose(data)?)
    }

    fn transfer(&mut self, to: NodeId) {
        if self.is_running()
            && let Err(error) = self.group.transfer_leadership(to)
        {
            tracing::info!(%to, %error, "metadata: the leadership stays");
        }
    }

    /// Answers what was proposed elsewhere when it has taken effect here, or never will.
    fn await_entry(&mut self, term: Term, index: LogIndex, waiter: Waiter) {
        if index > self.seen {
            return self.waiting.entry(index).or_default().push((term, waiter));
        }
        let found = self.outcomes.binary_search_by_key(&index, |(at, ..)| *at);
        waiter.answer(match found.ok().and_then(|at| self.outcomes.get(at)) {
            Some((_, found, result)) if *found == term => result.clone().map_err(refused),
            Some(_) => Err(Failed::Replaced),
            None if self.outcomes.front().is_some_and(|(oldest, ..)| *oldest < index) => Err(Failed::Replaced),
            None => Err(Failed::Unknown),
        });
    }

    fn message(&mut self, frame: &GroupFrame) {
        if !self.is_running() {
            return;
        }
        let message = match Message::decode(frame.message.clone()) {
            Ok(message) if message.from() == frame.from => message,
            Ok(_) => {
                return tracing::warn!(from = %frame.from, "metadata: a message in another node's name was dropped");
            }
            Err(error) => return tracing::warn!(from = %frame.from, %error, "metadata: a message was dropped"),
        };
        match self.group.step(time::now(), message) {
            Ok(()) => {}
            Err(error @ QuorumError::LostEntries { .. }) => self.stop(&error.to_string()),
            Err(error) => tracing::debug!(%error, "metadata: a message was dropped"),
        }
        // A message may leave something to write: what comes next must not find the group in between.
        self.turn();
    }

    fn link(&mut self, node: NodeId, is_connected: bool) {
        if is_connected {
            self.connected.insert(node);
        } else {
            self.connected.remove(&node);
            if self.is_running() {
                self.group.report_unreachable(node);
                if self.group.leader() == Some(node) {
                    self.group.hint_leader_gone(time::now());
                }
            }
        }
        self.publish_master();
    }

    fn tick(&mut self) {
        let now = time::now();
        if self.ticker.is_due(now) && self.is_running() {
            self.group.tick(now);
        }
        if now.since(self.swept) >= SWEEP_MS {
            self.swept = now;
            for waiters in self.waiting.values_mut() {
                waiters.retain(|(_, waiter)| !waiter.reply.is_closed());
            }
            self.waiting.retain(|_, waiters| !waiters.is_empty());
        }
    }

    /// Sends, writes, applies, publishes and answers until the group has nothing more to do, or waits for the disk.
    fn turn(&mut self) {
        self.obey();
        while let Some(job) = self.next_sync() {
            if let Some(job) = job {
                self.is_syncing = self.syncs.send((self.written, job)).is_ok();
                break;
            }
            // A new file that has all of it was made meanwhile.
            self.durable = self.written;
            self.persist();
            self.obey();
        }
        self.publish_master();
    }

    fn obey(&mut self) {
        while self.stopped.is_none() {
            let Some(mut ready) = self.stalled.take().or_else(|| self.group.ready()) else { break };
            self.post(std::mem::take(&mut ready.messages));
            if let Some(snapshot) = &ready.snapshot
                && let Err(error) = self.restore(&snapshot.clone())
            {
                return self.stop(&format!("the active master's snapshot: {error}"));
            }
            if let Err(error) = self.write(&mut ready) {
                match error {
                    JournalError::Disk(DiskError::Full { path }) => return self.stall(ready, &path),
                    error => return self.stop(&error.to_string()),
                }
            }
            self.persist();
            self.report_unreachable();
            self.apply(&ready.committed);
        }
        if let Some(fault) = self.group.fault() {
            return self.stop(&fault.to_string());
        }
        self.snapshot();
    }

    /// What the thread that syncs is to do, if it is free and something waits for it; within, none if all is durable.
    fn next_sync(&mut self) -> Option<Option<SyncJob>> {
        let waits = self.unpersisted.iter().any(|ready| ready.must_sync && ready.number > self.durable);
        if self.is_syncing || self.stopped.is_some() || !waits {
            return None;
        }
        match self.group.storage_mut().sync_job() {
            Ok(job) => Some(job),
            Err(error) => {
                self.stop(&error.to_string());
                None
            }
        }
    }

    fn synced(&mut self, written: u64, done: SyncDone) {
        self.is_syncing = false;
        if self.stopped.is_some() {
            return;
        }
        if let Err(error) = self.group.storage_mut().synced(done) {
            return self.stop(&error.to_string());
        }
        self.durable = self.durable.max(written);
        self.persist();
        self.turn();
    }

    /// Waits for the disk: at the start and at the end.
    fn settle(&mut self, inbox: &mpsc::Receiver<Input>) {
        while self.is_syncing {
            match inbox.recv() {
                Ok(Input::Synced(written, done)) => self.synced(written, done),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Tells the group what is durable, and says what was to be said only then.
    fn persist(&mut self) {
        if self.stalled.is_some() {
            return;
        }
        let durable = self.durable;
        let is_durable = |front: &mut Unpersisted| !front.must_sync || front.number <= durable;
        let mut last = None;
        while let Some(ready) = self.unpersisted.pop_front_if(is_durable) {
            last = Some(ready.number);
            self.post(ready.messages);
        }
        if let Some(last) = last {
            self.group.persisted(last);
        }
    }

    fn post(&mut self, messages: Vec<Message>) {
        for message in messages {
            if !post(&*self.outbox, CONTROL, &message) {
                self.unreachable.push(message.to());
            }
        }
    }

    /// Between two readies: the group is told of nothing while one is out.
    fn report_unreachable(&mut self) {
        for node in std::mem::take(&mut self.unreachable) {
            self.group.report_unreachable(node);
        }
    }

    fn write(&mut self, ready: &mut Ready) -> Result<(), JournalError> {
        if let Some(snapshot) = &ready.snapshot {
            self.group.storage_mut().install(snapshot.clone())?;
        }
        self.group.storage_mut().append(&ready.entries, ready.hard_state.as_ref())?;
        self.findings.clear("control-full", "control");
        self.group.written(ready.number);
        self.written = ready.number;
        let messages = std::mem::take(&mut ready.messages_after_persist);
        self.unpersisted.push_back(Unpersisted { number: ready.number, must_sync: ready.must_sync, messages });
        if let Some(snapshot) = ready.snapshot.take() {
            // Rare, and the state it brings must not be told before it is durable.
            self.group.storage_mut().sync()?;
            self.durable = self.written;
            self.persist();
            self.group.applied(snapshot.index);
            (self.snapshot_at, self.snapshot_bytes) = (snapshot.index, self.group.storage().len_bytes());
            self.publish();
        }
        Ok(())
    }

    /// The state is the leader's snapshot; what came of the entries that it skips is not known here.
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), control::CodecError> {
        self.state = State::restore(&snapshot.data)?;
        tracing::info!(index = %snapshot.index, bytes = snapshot.data.len(), "metadata: caught up by a snapshot");
        self.seen = snapshot.index;
        self.outcomes.clear();
        let later = self.waiting.split_off(&snapshot.index.next());
        for (_, waiter) in std::mem::replace(&mut self.waiting, later).into_values().flatten() {
            self.answers.push((waiter, Err(Failed::Unknown)));
        }
        Ok(())
    }

    fn apply(&mut self, committed: &[Entry]) {
        let Some(last) = committed.last() else { return };
        for entry in committed {
            let result = match &entry.payload {
                Payload::Empty => None,
                Payload::Membership(_) => {
                    // One that makes no sense changes nothing, on every node alike.
                    if let Err(error) = self.group.apply_membership(entry) {
                        tracing::error!(index = %entry.index, %error, "metadata: a change of the members is void");
                    }
                    None
                }
                Payload::Data(data) => match Command::decode(data) {
                    Ok(command) => Some(self.state.apply(entry.index, &command)),
                    // Written by a newer release and committed: whoever cannot follow must not guess, nor go on.
                    Err(error) => {
                        self.publish();
                        return self.stop(&format!("the command at index {} is unknown: {error}", entry.index));
                    }
                },
            };
            self.took_effect(entry, result);
        }
        self.group.applied(last.index);
        if self.group.role() == Role::Leader && last.term == self.group.term() {
            self.active_term = Some(last.term);
        }
        self.publish();
    }

    /// Finds who waited for the entry, and who waited for one that can no longer come.
    fn took_effect(&mut self, entry: &Entry, result: Option<Result<Applied, Refused>>) {
        self.seen = entry.index;
        for (term, waiter) in self.waiting.remove(&entry.index).into_iter().flatten() {
            let answer = match &result {
                Some(result) if term == entry.term => result.clone().map_err(refused),
                _ => Err(Failed::Replaced),
            };
            self.answers.push((waiter, answer));
        }
        if let Some(result) = result {
            if self.outcomes.len() == OUTCOMES_MAX {
                self.outcomes.pop_front();
            }
            self.outcomes.push_back((entry.index, entry.term, result));
        } else {
            // A leader's first entry: nothing of an earlier term comes after it.
            for waiters in self.waiting.values_mut() {
                let (gone, stay) = std::mem::take(waiters).into_iter().partition(|(term, _)| *term < entry.term);
                *waiters = stay;
                let gone: Vec<(Term, Waiter)> = gone;
                self.answers.extend(gone.into_iter().map(|(_, waiter)| (waiter, Err(Failed::Replaced))));
            }
        }
    }

    /// First the state, then the answers that it shows.
    fn publish(&mut self) {
        self.published.send_replace(Arc::new(self.state.clone()));
        for (waiter, result) in self.answers.drain(..) {
            waiter.answer(result);
        }
    }

    /// Tells who leads, if that has changed.
    fn publish_master(&mut self) {
        let (term, leader) = (self.group.term(), self.group.leader());
        let leads = self.group.role() == Role::Leader && self.stopped.is_none();
        let quorum::Members { voters, learners, .. } = self.group.members();
        let absent = |node: &NodeId| *node != self.node && !self.connected.contains(node);
        let missing: Vec<NodeId> = voters.iter().copied().filter(absent).collect();
        let is_active = leads && self.active_term == Some(term);
        self.master.send_if_modified(|before| {
            let leaderless_since =
                if leader.is_some() { None } else { before.leaderless_since.or_else(|| Some(time::now())) };
            let after = MasterStatus { term, leader, is_active, voters, learners, missing, leaderless_since };
            let changed = after != **before;
            if changed {
                if after.leader != before.leader {
                    tracing::info!(%term, leader = after.leader.map_or(0, |node| node.0), "metadata: the leader changed");
                }
                *before = Arc::new(after);
            }
            changed
        });
    }

    fn snapshot(&mut self) {
        let applied = self.state.applied;
        let grown = self.group.storage().len_bytes().saturating_sub(self.snapshot_bytes);
        let due = applied.0.saturating_sub(self.snapshot_at.0) >= SNAPSHOT_ENTRIES || grown >= SNAPSHOT_BYTES;
        if self.stopped.is_some() || !due || applied <= self.group.storage().snapshot_index() {
            return;
        }
        let Ok(term) = self.group.storage().term_of(applied) else { return };
        let saved = self.group.storage_mut().save_snapshot(applied, term, self.state.snapshot());
        match saved {
            Ok(()) => tracing::debug!(index = %applied, "metadata: snapshot taken"),
            // Tried again after as many commands as usual; the journal goes on meanwhile.
            Err(JournalError::Disk(DiskError::Full { .. })) => tracing::warn!("metadata: no room for a snapshot"),
            Err(error) => return self.stop(&error.to_string()),
        }
        self.snapshot_at = applied;
        self.snapshot_bytes = self.group.storage().len_bytes();
    }

    /// Nothing is written until there is room; the next turn tries again.
    fn stall(&mut self, ready: Ready, path: &str) {
        self.stalled = Some(ready);
        self.findings.raise(
            "control",
            Finding {
                code: "control-full",
                severity: Severity::Critical,
                title: "metadata cannot be changed: the disk is full".into(),
                since: time::wall(),
                impact: vec!["publish", "admin"],
                cause: format!("{path}: no space left"),
                action: "free space or enlarge the disk; changes resume by themselves".into(),
            },
        );
        self.answer_all(&MetaError::DiskFull);
    }

    fn stop(&mut self, cause: &str) {
        self.findings.raise(
            "control",
            Finding {
                code: "control-stopped",
                severity: Severity::Critical,
                title: "metadata cannot be changed: no topics, tables or segments are added".into(),
                since: time::wall(),
                impact: vec!["publish", "admin"],
                cause: cause.to_owned(),
                action: "check the disk of node.data_dir; then restart the node".into(),
            },
        );
        self.stopped = Some(cause.to_owned());
        self.answer_all(&MetaError::Stopped(cause.to_owned()));
        self.publish_master();
    }

    fn answer_all(&mut self, error: &MetaError) {
        for (_, waiter) in std::mem::take(&mut self.waiting).into_values().flatten() {
            waiter.answer(Err(Failed::Error(error.clone())));
        }
    }
}

fn refused(refused: Refused) -> Failed {
    Failed::Error(MetaError::Refused(refused))
}
