//! The thread that owns group 0: commands in, the cluster's state out.
//!
//! ```text
//! MetaHandle --Command--> owner thread: propose -> journal -> fsync -> committed -> State::apply -> answer
//!                                                                                        |
//!                                                                     watch: Arc<State> for everyone
//! ```
//!
//! Proposals that arrive while one fsync is under way share the next one. Each is answered when its command
//! has been committed and applied, and the state that shows it is published before that.
//!
//! What always holds: a command that was answered is in the journal, durably. A full disk refuses commands
//! until there is room. A journal that fails otherwise stops the thread: proposals are answered with the
//! reason from then on, the last state stays readable, and everything that needs no metadata change goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use base::disk::{Disk, DiskError};
use base::{LogIndex, NodeId};
use bytes::Bytes;
use control::{Applied, Command, Refused, State};
use quorum::{Entry, Group, GroupConfig, Journal, JournalError, Payload, ProposeError, QuorumError, Ready, Storage};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::thread::spawn_owner;
use crate::node::findings::{Finding, Findings, Severity};
use crate::node::time;

#[cfg(test)]
mod tests;

/// Proposals waiting for the thread or for their answer.
const PROPOSALS_MAX: usize = 4_096;
/// Proposals put into one journal write.
const DRAIN_MAX: usize = 256;
/// Largest encoded command.
const COMMAND_BYTES_MAX: usize = 8 << 20;
/// Bytes proposed and not yet committed. More than one drain may hold, so that only a stalled disk meets it.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Applied commands after which a snapshot is taken and the journal shortened ..
const SNAPSHOT_ENTRIES: u64 = 4_096;
/// .. or bytes by which the journal has grown.
const SNAPSHOT_BYTES: u64 = 16 << 20;
const TICK_MS: u64 = 100;
const ELECTION_TICKS: u32 = 10;
const HEARTBEAT_TICKS: u32 = 2;
const INFLIGHT_MESSAGES_MAX: usize = 256;

const _: () = assert!(COMMAND_BYTES_MAX < Journal::ENTRY_BYTES_MAX, "a command must fit into a journal entry");

/// Why the control plane did not do what it was asked.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum MetaError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error("a metadata change of {bytes} bytes is larger than the {COMMAND_BYTES_MAX} bytes allowed: split it")]
    TooLarge { bytes: usize },
    /// A change that was being written may still take effect.
    #[error("the disk is full: metadata can be changed again when there is room")]
    DiskFull,
    #[error("metadata cannot be changed: {0}")]
    Stopped(String),
}

/// Why group 0 could not be opened. The node does not start.
#[derive(Debug, thiserror::Error)]
pub enum MetaOpenError {
    #[error("the metadata journal: {0}")]
    Journal(#[from] JournalError),
    #[error("the metadata group: {0}")]
    Quorum(#[from] QuorumError),
    #[error("the metadata state: {0}")]
    State(#[from] control::CodecError),
    #[error("the metadata: {0}")]
    Meta(#[from] MetaError),
    #[error("the metadata thread: {0}")]
    Thread(#[from] std::io::Error),
}

enum Input {
    Propose(Bytes, Waiter),
    Close(oneshot::Sender<()>),
}

/// Who proposed, and the place that the proposal takes until it is answered.
struct Waiter {
    reply: oneshot::Sender<Result<Applied, MetaError>>,
    _place: OwnedSemaphorePermit,
}

impl Waiter {
    /// Whoever asked may have gone.
    fn answer(self, result: Result<Applied, MetaError>) {
        drop(self.reply.send(result));
    }
}

/// Group 0 as the rest of the server sees it.
#[derive(Clone)]
pub struct MetaHandle {
    inputs: mpsc::Sender<Input>,
    state: watch::Receiver<Arc<State>>,
    places: Arc<Semaphore>,
}

impl MetaHandle {
    /// The state after the last applied command.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// Changes with every applied command.
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    /// Answers when the command has been committed and applied here.
    pub async fn propose(&self, command: Command) -> Result<Applied, MetaError> {
        let gone = || MetaError::Stopped("its thread has ended".into());
        let data = command.encode();
        if data.len() > COMMAND_BYTES_MAX {
            return Err(MetaError::TooLarge { bytes: data.len() });
        }
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| gone())?;
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::Propose(data, Waiter { reply, _place: place })).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Ends the thread after what it is doing.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.inputs.send(Input::Close(reply)).is_ok() {
            drop(done.await);
        }
    }
}

/// Opens group 0 in `dir` of `disk`, recovers its state, becomes its leader and starts its thread.
pub fn start(
    disk: Arc<dyn Disk>,
    dir: &str,
    node: NodeId,
    findings: Arc<Findings>,
) -> Result<MetaHandle, MetaOpenError> {
    let (journal, recovered) = Journal::open(disk, dir, &[node])?;
    let state = match &recovered.snapshot {
        Some(snapshot) => State::restore(&snapshot.data)?,
        None => State::default(),
    };
    if recovered.truncated_bytes > 0 {
        tracing::info!(bytes = recovered.truncated_bytes, "metadata: cut off a torn tail that was never acknowledged");
    }
    let config = GroupConfig {
        node,
        election_ticks: ELECTION_TICKS,
        heartbeat_ticks: HEARTBEAT_TICKS,
        seed: u64::from(node.0),
        uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
        inflight_messages_max: INFLIGHT_MESSAGES_MAX,
    };
    let snapshot_at = journal.snapshot_index();
    let snapshot_bytes = recovered.snapshot.map_or(0, |snapshot| snapshot.data.len() as u64);
    let mut group = Group::open(config, journal)?;
    group.campaign();
    let (published, signal) = watch::channel(Arc::new(state.clone()));
    let (inputs, inbox) = mpsc::channel();
    let mut owner = Owner {
        group,
        state,
        published,
        waiting: BTreeMap::new(),
        answers: Vec::new(),
        stalled: None,
        stopped: None,
        snapshot_at,
        snapshot_bytes,
        findings,
    };
    owner.turn();
    if owner.stalled.is_some() {
        return Err(MetaError::DiskFull.into());
    }
    if let Some(cause) = owner.stopped {
        return Err(MetaError::Stopped(cause).into());
    }
    spawn_owner("control", move || owner.run(&inbox))?;
    Ok(MetaHandle { inputs, state: signal, places: Arc::new(Semaphore::new(PROPOSALS_MAX)) })
}

struct Owner {
    group: Group<Journal>,
    state: State,
    published: watch::Sender<Arc<State>>,
    /// Who waits for the entry at an index.
    waiting: BTreeMap<LogIndex, Waiter>,
    /// Answers to give once the state that shows them is published.
    answers: Vec<(Waiter, Result<Applied, MetaError>)>,
    /// What there was no room to write. The group stands still until there is.
    stalled: Option<Ready>,
    stopped: Option<String>,
    /// Where the last snapshot was taken, or tried.
    snapshot_at: LogIndex,
    /// Size of the journal after it.
    snapshot_bytes: u64,
    findings: Arc<Findings>,
}

impl Owner {
    fn run(mut self, inbox: &mpsc::Receiver<Input>) {
        loop {
            let mut next = match inbox.recv_timeout(Duration::from_millis(TICK_MS)) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => {
                    if self.stalled.is_none() {
                        self.group.tick();
                    }
                    None
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut taken = 0;
            while let Some(input) = next {
                match input {
                    Input::Propose(data, waiter) => self.propose(data, waiter),
                    Input::Close(done) => {
                        self.turn();
                        let _nobody_waits = done.send(());
                        return;
                    }
                }
                taken += 1;
                next = if taken < DRAIN_MAX { inbox.try_recv().ok() } else { None };
            }
            self.turn();
        }
    }

    fn propose(&mut self, data: Bytes, waiter: Waiter) {
        if let Some(cause) = &self.stopped {
            return waiter.answer(Err(MetaError::Stopped(cause.clone())));
        }
        if self.stalled.is_some() {
            return waiter.answer(Err(MetaError::DiskFull));
        }
        match self.group.propose(data) {
            Ok((_, index)) => {
                self.waiting.insert(index, waiter);
            }
            Err(error) => waiter.answer(Err(error.into())),
        }
    }

    /// Writes, syncs, applies, publishes and answers until the group has nothing more to do.
    fn turn(&mut self) {
        while self.stopped.is_none() {
            let Some(ready) = self.stalled.take().or_else(|| self.group.ready()) else { break };
            match self.persist(&ready) {
                Ok(()) => self.apply(&ready.committed),
                Err(JournalError::Disk(DiskError::Full { path })) => return self.stall(ready, &path),
                Err(error) => return self.stop(&error.to_string()),
            }
        }
        if let Some(fault) = self.group.fault() {
            return self.stop(&fault.to_string());
        }
        self.snapshot();
    }

    fn persist(&mut self, ready: &Ready) -> Result<(), JournalError> {
        self.group.storage_mut().append(&ready.entries, ready.hard_state.as_ref())?;
        self.findings.clear("control-full", "control");
        self.group.written(ready.number);
        if ready.must_sync {
            self.group.storage_mut().sync()?;
        }
        self.group.persisted(ready.number);
        Ok(())
    }

    fn apply(&mut self, committed: &[Entry]) {
        let Some(last) = committed.last() else { return };
        for entry in committed {
            let Payload::Data(data) = &entry.payload else { continue };
            let result = match Command::decode(data) {
                Ok(command) => self.state.apply(entry.index, &command).map_err(MetaError::from),
                // Written by a newer release and committed: whoever cannot follow must not guess, nor go on.
                Err(error) => {
                    self.publish();
                    return self.stop(&format!("the command at index {} is unknown: {error}", entry.index));
                }
            };
            if let Some(waiter) = self.waiting.remove(&entry.index) {
                self.answers.push((waiter, result));
            }
        }
        self.group.applied(last.index);
        self.publish();
    }

    /// First the state, then the answers that it shows.
    fn publish(&mut self) {
        self.published.send_replace(Arc::new(self.state.clone()));
        for (waiter, result) in self.answers.drain(..) {
            waiter.answer(result);
        }
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
    }

    fn answer_all(&mut self, error: &MetaError) {
        for (_, waiter) in std::mem::take(&mut self.waiting) {
            waiter.answer(Err(error.clone()));
        }
    }
}
