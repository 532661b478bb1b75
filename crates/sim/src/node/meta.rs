//! Group 0 on one node, driven in the order that `quorum` documents: write, sync, send what promises
//! durability, apply. A sync takes time; until it is done the owner takes nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::disk::{Disk, DiskError};
use base::{LogIndex, NodeId, Term, Tick};
use bytes::Bytes;
use control::{Applied, Command, State};
use quorum::{Entry, Group, Journal, JournalError, Message, Payload, ProposeError, Ready, Role, Snapshot, Storage};

use super::{Bug, Effects, GroupName, ProposeFailure, Reply, SyncOf, Ticket};

const DIR: &str = "control";
/// Applied commands after which a snapshot is taken; small, so that runs see many.
const SNAPSHOT_ENTRIES: u64 = 40;
/// Inputs that wait for a sync; more are lost, as in a full queue.
const INBOX_MAX: usize = 2_000;

/// See the module.
pub struct Meta {
    pub group: Group<Journal>,
    pub state: State,
    waiting: BTreeMap<LogIndex, (Term, Ticket)>,
    stalled: Option<Ready>,
    syncing: Option<Syncing>,
    inbox: VecDeque<Input>,
    /// Why it takes nothing any more.
    pub stopped: Option<String>,
    snapshot_at: LogIndex,
    /// A snapshot that took effect and that the group has not been told of.
    installed: Option<LogIndex>,
    bug: Bug,
}

struct Syncing {
    number: u64,
    after: Vec<Message>,
    committed: Vec<Entry>,
}

enum Input {
    Step(Message),
    Propose(Ticket, Bytes),
    LeaderGone(NodeId),
}

impl Meta {
    pub fn open(disk: Arc<dyn Disk>, node: NodeId, voters: &[NodeId], seed: u64, bug: Bug) -> Result<Self, String> {
        let (journal, recovered) = Journal::open(disk, DIR, voters).map_err(|error| error.to_string())?;
        let state = match &recovered.snapshot {
            Some(snapshot) => State::restore(&snapshot.data).map_err(|error| error.to_string())?,
            None => State::default(),
        };
        let snapshot_at = journal.snapshot_index();
        let group = Group::open(super::group_config(node, seed), journal).map_err(|error| error.to_string())?;
        Ok(Self {
            group,
            state,
            waiting: BTreeMap::new(),
            stalled: None,
            syncing: None,
            inbox: VecDeque::new(),
            stopped: None,
            snapshot_at,
            installed: None,
            bug,
        })
    }

    /// True while what was handed out to be written finds no room on the disk.
    pub const fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// True while inputs wait.
    const fn busy(&self) -> bool {
        self.syncing.is_some() || self.stalled.is_some() || self.stopped.is_some()
    }

    /// A tick that falls into a stall is not made up for.
    pub fn tick(&mut self, now: Tick, fx: &mut Effects) {
        if self.stalled.is_some() && self.syncing.is_none() && self.stopped.is_none() {
            self.turn(fx);
        }
        if !self.busy() {
            self.group.tick(now);
            self.turn(fx);
        }
    }

    pub fn step(&mut self, now: Tick, message: Message, fx: &mut Effects) {
        self.take(now, Input::Step(message), fx);
    }

    pub fn unreachable(&mut self, peer: NodeId) {
        if !self.busy() {
            self.group.report_unreachable(peer);
        }
    }

    pub fn propose(&mut self, now: Tick, ticket: Ticket, command: &Command, fx: &mut Effects) {
        self.take(now, Input::Propose(ticket, command.encode()), fx);
    }

    pub fn transfer(&mut self, to: NodeId, fx: &mut Effects) {
        if !self.busy() && self.group.role() == Role::Leader {
            let _refused_is_fine = self.group.transfer_leadership(to);
            self.turn(fx);
        }
    }

    /// Other voters; everybody else learns. Nothing if it does not lead or a change is under way.
    pub fn change_members(&mut self, voters: &[NodeId], learners: &[NodeId], fx: &mut Effects) {
        if !self.busy() && self.group.role() == Role::Leader {
            let _pending_is_fine = self.group.propose_membership(voters, learners);
            self.turn(fx);
        }
    }

    pub fn leader_gone(&mut self, now: Tick, node: NodeId, fx: &mut Effects) {
        self.take(now, Input::LeaderGone(node), fx);
    }

    /// The sync that was begun is to be done now.
    pub fn synced(&mut self, now: Tick, fx: &mut Effects) {
        let Some(syncing) = self.syncing.take() else { return };
        if let Err(error) = self.group.storage_mut().sync() {
            return self.stop(&error.to_string(), fx);
        }
        self.persisted(syncing, fx);
        self.turn(fx);
        while !self.busy()
            && let Some(input) = self.inbox.pop_front()
        {
            self.input(now, input, fx);
            self.turn(fx);
        }
    }

    fn take(&mut self, now: Tick, input: Input, fx: &mut Effects) {
        if self.stopped.is_some() {
            if let Input::Propose(ticket, _) = input {
                fx.reply(ticket, Reply::Proposed(Err(ProposeFailure::Stopped)));
            }
        } else if self.busy() {
            if self.inbox.len() < INBOX_MAX {
                self.inbox.push_back(input);
            }
        } else {
            self.input(now, input, fx);
            self.turn(fx);
        }
    }

    fn input(&mut self, now: Tick, input: Input, fx: &mut Effects) {
        match input {
            Input::Step(message) => {
                if let Err(error) = self.group.step(now, message) {
                    fx.refused(GroupName::Control, error);
                }
            }
            Input::Propose(ticket, data) => match self.group.propose(data) {
                Ok((term, index)) => {
                    if let Some((_, before)) = self.waiting.insert(index, (term, ticket)) {
                        fx.reply(before, Reply::Proposed(Err(ProposeFailure::Unknown)));
                    }
                }
                Err(ProposeError::NotLeader { leader }) => {
                    fx.reply(ticket, Reply::Proposed(Err(ProposeFailure::NotLeader(leader))));
                }
                Err(ProposeError::Busy { .. }) => fx.reply(ticket, Reply::Proposed(Err(ProposeFailure::Busy))),
                Err(ProposeError::Stopped(_)) => fx.reply(ticket, Reply::Proposed(Err(ProposeFailure::Stopped))),
            },
            Input::LeaderGone(node) => {
                if self.group.leader() == Some(node) {
                    self.group.hint_leader_gone(now);
                }
            }
        }
    }

    /// Does what the group asks for until it asks for nothing or a sync is under way.
    fn turn(&mut self, fx: &mut Effects) {
        while self.syncing.is_none() && self.stopped.is_none() {
            let Some(mut ready) = self.stalled.take().or_else(|| self.group.ready()) else { break };
            match self.write(&ready) {
                Ok(()) => {}
                Err(JournalError::Disk(DiskError::Full { .. })) => {
                    self.stalled = Some(ready);
                    break;
                }
                Err(error) => return self.stop(&error.to_string(), fx),
            }
            fx.send_all(GroupName::Control, std::mem::take(&mut ready.messages));
            self.group.written(ready.number);
            let mut syncing =
                Syncing { number: ready.number, after: ready.messages_after_persist, committed: ready.committed };
            if self.bug == Bug::VoteForgotten {
                // The planted bug: what promises durability leaves before it is durable.
                fx.send_all(GroupName::Control, std::mem::take(&mut syncing.after));
            }
            if ready.must_sync {
                self.syncing = Some(syncing);
                fx.syncs.push(SyncOf::Control);
            } else {
                self.persisted(syncing, fx);
            }
        }
        if let Some(fault) = self.group.fault() {
            let fault = fault.to_string();
            return self.stop(&fault, fx);
        }
        if self.group.role() != Role::Leader {
            self.give_up(fx);
        }
        fx.touch(GroupName::Control);
        self.snapshot(fx);
    }

    fn write(&mut self, ready: &Ready) -> Result<(), JournalError> {
        if let Some(snapshot) = &ready.snapshot {
            self.install(snapshot)?;
        }
        let hard_state = ready.hard_state.as_ref().filter(|_| self.bug != Bug::VoteForgotten);
        self.group.storage_mut().append(&ready.entries, hard_state)
    }

    fn install(&mut self, snapshot: &Snapshot) -> Result<(), JournalError> {
        self.group.storage_mut().install(snapshot.clone())?;
        match State::restore(&snapshot.data) {
            Ok(state) => {
                self.state = state;
                self.snapshot_at = snapshot.index;
                self.installed = Some(snapshot.index);
            }
            Err(error) => self.stopped = Some(format!("the snapshot cannot be read: {error}")),
        }
        Ok(())
    }

    fn persisted(&mut self, syncing: Syncing, fx: &mut Effects) {
        self.group.persisted(syncing.number);
        fx.send_all(GroupName::Control, syncing.after);
        if let Some(index) = self.installed.take() {
            self.group.applied(index);
            fx.applied = true;
        }
        self.apply(&syncing.committed, fx);
    }

    fn apply(&mut self, committed: &[Entry], fx: &mut Effects) {
        let Some(last) = committed.last() else { return };
        for entry in committed {
            match &entry.payload {
                Payload::Data(data) => self.apply_command(entry, data, fx),
                Payload::Membership(_) => {
                    if let Err(error) = self.group.apply_membership(entry) {
                        return self.stop(&format!("the membership at {} was refused: {error}", entry.index), fx);
                    }
                }
                Payload::Empty => {}
            }
        }
        self.group.applied(last.index);
        fx.applied = true;
    }

    fn apply_command(&mut self, entry: &Entry, data: &Bytes, fx: &mut Effects) {
        let result: Result<Applied, ProposeFailure> = match Command::decode(data) {
            Ok(command) => self.state.apply(entry.index, &command).map_err(ProposeFailure::Refused),
            Err(error) => return self.stop(&format!("the command at {} is unknown: {error}", entry.index), fx),
        };
        if let Some((term, ticket)) = self.waiting.remove(&entry.index) {
            let result = if term == entry.term { result } else { Err(ProposeFailure::Unknown) };
            fx.reply(ticket, Reply::Proposed(result));
        }
    }

    fn snapshot(&mut self, fx: &mut Effects) {
        let applied = self.state.applied;
        let due = applied.0.saturating_sub(self.snapshot_at.0) >= SNAPSHOT_ENTRIES;
        if !due || self.syncing.is_some() || self.stopped.is_some() || applied <= self.group.storage().snapshot_index()
        {
            return;
        }
        let Ok(term) = self.group.storage().term_of(applied) else { return };
        match self.group.storage_mut().save_snapshot(applied, term, self.state.snapshot()) {
            Ok(()) | Err(JournalError::Disk(DiskError::Full { .. })) => self.snapshot_at = applied,
            Err(error) => self.stop(&error.to_string(), fx),
        }
    }

    /// Who proposed here may find out from the next leader what became of it.
    fn give_up(&mut self, fx: &mut Effects) {
        for (_, (_, ticket)) in std::mem::take(&mut self.waiting) {
            fx.reply(ticket, Reply::Proposed(Err(ProposeFailure::Unknown)));
        }
    }

    fn stop(&mut self, cause: &str, fx: &mut Effects) {
        self.stopped = Some(cause.to_owned());
        self.give_up(fx);
    }
}
