//! The thread that owns group 0: commands in, the cluster's state out.
//!
//! Proposals that arrive while one fsync is under way share the next one. Each is answered when its command
//! has been committed and applied. The state is published as an `Arc` through a watch, so that readers never wait.
//!
//! A journal that fails stops the thread: proposals are answered with the reason from then on, the last state
//! stays readable, and everything that needs no metadata change goes on.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::disk::Disk;
use base::{LogIndex, NodeId};
use control::{Applied, Command, Refused, State};
use quorum::{Entry, Group, GroupConfig, Journal, JournalError, Payload, ProposeError, QuorumError, Ready};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::node::findings::{Finding, Findings, Severity};
use crate::node::time;

#[cfg(test)]
mod tests;

/// Proposals waiting for the thread.
const PROPOSALS_MAX: usize = 4_096;
/// Proposals put into one journal write.
const DRAIN_MAX: usize = 256;
/// Applied commands after which a snapshot is taken and the journal shortened.
const SNAPSHOT_ENTRIES: u64 = 4_096;
const TICK_MS: u64 = 100;

/// Why the control plane did not do what it was asked.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum MetaError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Propose(#[from] ProposeError),
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
    #[error("the metadata thread: {0}")]
    Thread(#[from] std::io::Error),
}

type Reply = oneshot::Sender<Result<Applied, MetaError>>;

enum Input {
    Propose(Command, Reply),
    Close(oneshot::Sender<()>),
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
        let place = self.places.acquire().await.map_err(|_| gone())?;
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::Propose(command, reply)).map_err(|_| gone())?;
        let answer = answer.await.map_err(|_| gone())?;
        drop(place);
        answer
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
        election_ticks: 10,
        heartbeat_ticks: 2,
        seed: u64::from(node.0),
        uncommitted_bytes_max: 64 << 20,
        inflight_messages_max: 256,
    };
    let mut group = Group::open(config, journal)?;
    group.campaign();
    let (published, signal) = watch::channel(Arc::new(state.clone()));
    let (inputs, inbox) = mpsc::channel();
    let mut owner = Owner {
        snapshot_at: state.applied,
        group,
        state,
        published,
        pending: BTreeMap::new(),
        stopped: None,
        findings,
    };
    owner.turn();
    if let Some(cause) = &owner.stopped {
        return Err(MetaOpenError::Thread(std::io::Error::other(cause.clone())));
    }
    std::thread::Builder::new().name("control".into()).spawn(move || owner.run(&inbox))?;
    Ok(MetaHandle { inputs, state: signal, places: Arc::new(Semaphore::new(PROPOSALS_MAX)) })
}

struct Owner {
    group: Group<Journal>,
    state: State,
    published: watch::Sender<Arc<State>>,
    pending: BTreeMap<LogIndex, Reply>,
    snapshot_at: LogIndex,
    stopped: Option<String>,
    findings: Arc<Findings>,
}

impl Owner {
    fn run(mut self, inbox: &mpsc::Receiver<Input>) {
        loop {
            let mut next = match inbox.recv_timeout(Duration::from_millis(TICK_MS)) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => {
                    self.group.tick();
                    None
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut taken = 0;
            while let Some(input) = next {
                match input {
                    Input::Propose(command, reply) => self.propose(&command, reply),
                    Input::Close(done) => {
                        self.turn();
                        drop(done.send(()));
                        return;
                    }
                }
                taken += 1;
                next = if taken < DRAIN_MAX { inbox.try_recv().ok() } else { None };
            }
            self.turn();
        }
    }

    fn propose(&mut self, command: &Command, reply: Reply) {
        if let Some(cause) = &self.stopped {
            drop(reply.send(Err(MetaError::Stopped(cause.clone()))));
            return;
        }
        match self.group.propose(command.encode()) {
            Ok((_, index)) => {
                self.pending.insert(index, reply);
            }
            Err(error) => drop(reply.send(Err(error.into()))),
        }
    }

    /// Writes, syncs, applies and answers until the group has nothing more to do.
    fn turn(&mut self) {
        while self.stopped.is_none() {
            let Some(ready) = self.group.ready() else { break };
            if let Err(error) = self.persist(&ready) {
                self.stop(&error.to_string());
                return;
            }
            for entry in &ready.committed {
                self.apply(entry);
            }
            if let Some(last) = ready.committed.last() {
                self.group.applied(last.index);
                self.published.send_replace(Arc::new(self.state.clone()));
            }
        }
        self.snapshot();
    }

    fn persist(&mut self, ready: &Ready) -> Result<(), JournalError> {
        self.group.storage_mut().append(&ready.entries, ready.hard_state.as_ref())?;
        self.group.written(ready.number);
        if ready.must_sync {
            self.group.storage_mut().sync()?;
        }
        self.group.persisted(ready.number);
        Ok(())
    }

    fn apply(&mut self, entry: &Entry) {
        let reply = self.pending.remove(&entry.index);
        let Payload::Data(data) = &entry.payload else { return };
        if entry.index <= self.state.applied {
            return;
        }
        let result = match Command::decode(data) {
            Ok(command) => self.state.apply(entry.index, &command).map_err(MetaError::from),
            // Written by a newer release and committed: a node that cannot follow must not guess.
            Err(error) => {
                self.stop(&format!("the command at index {} cannot be read: {error}", entry.index));
                Err(MetaError::Stopped(error.to_string()))
            }
        };
        if let Some(reply) = reply {
            drop(reply.send(result));
        }
    }

    fn snapshot(&mut self) {
        let applied = self.state.applied;
        if self.stopped.is_some() || applied.0.saturating_sub(self.snapshot_at.0) < SNAPSHOT_ENTRIES {
            return;
        }
        let Ok(term) = quorum::Storage::term_of(self.group.storage(), applied) else { return };
        let saved = self.group.storage_mut().save_snapshot(applied, term, self.state.snapshot());
        match saved {
            Ok(()) => self.snapshot_at = applied,
            Err(error) => self.stop(&error.to_string()),
        }
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
        for (_, reply) in std::mem::take(&mut self.pending) {
            drop(reply.send(Err(MetaError::Stopped(cause.to_owned()))));
        }
    }
}

/// Hard states of the node's partition groups, shared by its owner threads.
pub type SharedHardStates = Arc<Mutex<quorum::HardStates>>;

/// Locks them; a poisoned lock only means that another thread ended while it held it.
pub fn lock(hard: &SharedHardStates) -> std::sync::MutexGuard<'_, quorum::HardStates> {
    hard.lock().unwrap_or_else(PoisonError::into_inner)
}
