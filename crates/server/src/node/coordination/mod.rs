//! A coordinator at work, on the node whose duty it is (see [`duty`]): one task that owns it, its log, its clock.
//!
//! ```text
//! edges --queue--> task: step --Persist--> one append at a time to the internal topic
//!   ^                |   ^----- Persisted | WriteFailed ------'
//!   |                |   ^----- Tick at the next deadline
//!   +--- Respond ----+   '----- the outcome of an errand <---- Errand (what other nodes have to be told)
//! ```
//! What is written while an append is under way goes together with the next one, so that many writes share one fsync. A
//! checkpoint is appended in parts between the writes when enough has been written since the last one, then the log is trimmed
//! below it.
//!
//! What always holds: the records of the coordinator's effects reach the log in their order, and never two appends at once.
//!
//! Not here: what is coordinated. Consumer groups and transactions each are a [`Machine`].

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::batch::{BatchHeader, Codec, split};
use base::limits::BATCH_BYTES_MAX;
use base::records::{BatchBuilder, decode_shared};
use base::{Offset, Term, Tick, Timestamp, TopicPartition};
use bytes::{Bytes, BytesMut};
use control::State;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use log::AppendError;
use log::groups::{CheckpointPart, Record, Ticket, WriteId};
use log::{ReadLimit, Reader};
use tokio::sync::{mpsc, oneshot, watch};

use super::hosting::Hosting;
use super::{Acks, time};
use crate::shell::logs::{LogsError, LogsHandle};
use crate::shell::meta::MetaHandle;
use duty::{Duty, Keeper};

mod duty;

/// Requests waiting for the task.
const QUEUE_MAX: usize = 4_096;
/// Requests that wait for an answer: members waiting for a rebalance, committers for a write.
pub const WAITING_MAX: usize = 65_536;
/// A batch is closed when it has this much; a record larger than that has a batch of its own.
const BATCH_BYTES: usize = 1 << 20;
/// What goes into one append.
const APPEND_BYTES: usize = 4 << 20;
/// Longest wait for an append; below the coordinators' own bounds, so that the outcome is told rather than guessed.
const APPEND_MS_MAX: u64 = 8_000;
/// A checkpoint is due when this much has been written since the last, and at least twice what that one had.
const CHECKPOINT_AFTER_BYTES: u64 = 8 << 20;
/// Read at a time when loading.
const READ_BYTES: usize = 4 << 20;
/// How long the start of a node alone waits for its coordinators.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Longest sleep without a deadline.
const IDLE: Duration = Duration::from_secs(60);

const _: () = assert!(
    APPEND_MS_MAX < log::groups::limits::WRITE_MS_MAX && APPEND_MS_MAX < log::transactions::limits::WRITE_MS_MAX,
    "the append must end before its writers give up"
);
const _: () = assert!(APPEND_BYTES <= BATCH_BYTES_MAX, "an append is one command of the log");

/// What happens to a machine.
pub enum Input<M: Machine> {
    Request(Ticket, M::Request),
    Persisted(WriteId),
    WriteFailed(WriteId),
    /// An errand is over.
    Done(M::Outcome),
    Tick,
}

/// What a machine wants.
pub enum Effect<M: Machine> {
    Respond(Ticket, M::Response),
    Persist(WriteId, Vec<Record>),
    Errand(M::Errand),
}

/// A coordinator of the log's room: pure, its state is what its topic's records say.
pub trait Machine: Sized + Send + 'static {
    /// Its internal topic, of one partition.
    const TOPIC: &'static str;
    /// What it coordinates, as people say.
    const WHAT: &'static str;
    type Request: Send + 'static;
    type Response: Send + 'static;
    /// What is done beside writing and answering, in bounded time.
    type Errand: Send + 'static;
    type Outcome: Send + 'static;

    /// Takes over one record; the error tells what is lost.
    fn load(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String>;
    fn loaded(&mut self, now: Tick, wall: Timestamp);
    /// How much it holds, for people.
    fn len(&self) -> usize;
    fn checkpoint(&self, after: Option<&str>, bytes: usize) -> CheckpointPart;
    fn next_deadline(&self) -> Option<Tick>;
    fn step(&mut self, now: Tick, wall: Timestamp, input: Input<Self>) -> Vec<Effect<Self>>;
    /// The answer when too many wait.
    fn busy(request: &Self::Request) -> Self::Response;
    /// What to ask when a topic is gone.
    fn topic_gone(name: &str) -> Option<Self::Request>;
}

/// A future that ends in bounded time.
pub type Doing<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs an errand; the term is the one the machine coordinates in.
pub type Run<M> = Arc<dyn Fn(Term, <M as Machine>::Errand) -> Doing<<M as Machine>::Outcome> + Send + Sync>;

/// How a machine is made and how its errands are run.
pub struct Works<M: Machine> {
    pub make: Box<dyn Fn() -> M + Send + Sync>,
    pub run: Run<M>,
}

/// Why nobody was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absent {
    /// No leader is known.
    Unknown,
    /// Soon here.
    Loading,
    /// Another node coordinates.
    Elsewhere,
}

/// The way to a coordinator, wherever it is.
pub struct Desk<M: Machine> {
    duty: watch::Receiver<Duty<M>>,
}

impl<M: Machine> Clone for Desk<M> {
    fn clone(&self) -> Self {
        Self { duty: self.duty.clone() }
    }
}

struct Asked<M: Machine> {
    request: M::Request,
    answer: oneshot::Sender<M::Response>,
}

impl<M: Machine> Desk<M> {
    /// Makes the internal topic if it is absent, and coordinates whenever this node leads its partition. A node alone is
    /// waited for until it does, a while.
    pub async fn open(
        is_alone: bool,
        meta: &MetaHandle,
        hosting: &Hosting,
        logs: &LogsHandle,
        works: Works<M>,
    ) -> Self {
        let (duty, mut watched) = watch::channel(Duty::Unknown);
        let (meta, hosting, logs) = (meta.clone(), hosting.clone(), logs.clone());
        let task = tokio::spawn(Keeper { works, meta, hosting, logs, duty }.run());
        tokio::spawn(async move {
            // A node that stopped is started again and recovers; one without its coordinator would refuse for ever.
            if task.await.is_err_and(|error| error.is_panic()) {
                tracing::error!(
                    "the coordinator of {} panicked: the process ends and recovers when started again",
                    M::WHAT
                );
                std::process::abort();
            }
        });
        if is_alone {
            let here = watched.wait_for(|duty| matches!(duty, Duty::Here(_)));
            if tokio::time::timeout(START_PATIENCE, here).await.is_err() {
                tracing::error!(topic = M::TOPIC, "{} are not available yet: their partition is not served", M::WHAT);
            }
        }
        Self { duty: watched }
    }

    /// Asks the coordinator, if it is here. Every wait in it has a deadline of its own.
    ///
    /// # Errors
    /// Where to ask instead, with nothing done; after [`Absent::Elsewhere`] it may have been done if the request got to the
    /// coordinator before it ended.
    pub async fn ask(&self, request: M::Request) -> Result<M::Response, Absent> {
        let duty = self.duty.borrow().clone();
        let requests = match duty {
            Duty::Here(requests) => requests,
            Duty::Unknown => return Err(Absent::Unknown),
            Duty::Loading => return Err(Absent::Loading),
            Duty::Elsewhere => return Err(Absent::Elsewhere),
        };
        let (answer, answered) = oneshot::channel();
        if requests.send(Asked { request, answer }).await.is_err() {
            return Err(Absent::Elsewhere);
        }
        // Nobody answers: another node coordinates by now.
        answered.await.map_err(|_| Absent::Elsewhere)
    }
}

/// Never trimmed by time or size: the task trims it itself, below a checkpoint.
fn overrides() -> BTreeMap<String, String> {
    let overrides = [
        ("max.message.bytes", BATCH_BYTES_MAX.to_string()),
        ("retention.bytes", "-1".to_owned()),
        ("retention.ms", "-1".to_owned()),
        ("segment.bytes", (BATCH_BYTES_MAX + (1 << 20)).to_string()),
    ];
    overrides.map(|(key, value)| (key.to_owned(), value)).into()
}

/// Everything the internal topic holds, and how many bytes that were.
fn load<M: Machine>(reader: &Reader, mut machine: M) -> Result<(M, u64), log::ReadError> {
    let (mut from, end, mut bytes) = (reader.start(), reader.committed(), 0);
    while from < end {
        let fetched = reader.read(from, READ_BYTES, ReadLimit::Committed)?;
        if fetched.next <= from {
            break;
        }
        bytes += fetched.bytes.len() as u64;
        for (header, batch) in split(&fetched.bytes).flatten() {
            load_batch(&mut machine, &header, &batch);
        }
        from = fetched.next;
    }
    machine.loaded(time::now(), time::wall());
    tracing::debug!(count = machine.len(), bytes, "{} loaded", M::WHAT);
    Ok((machine, bytes))
}

/// What cannot be read is skipped and said: the others go on.
fn load_batch<M: Machine>(machine: &mut M, header: &BatchHeader, batch: &Bytes) {
    if header.is_control() {
        return;
    }
    let decoded = match decode_shared(batch) {
        Ok(decoded) => decoded,
        Err(error) => {
            tracing::error!(offset = %header.base_offset, %error, "records of {} are lost: their batch cannot be read", M::WHAT);
            return;
        }
    };
    for record in decoded.iter() {
        match record {
            Ok(record) => {
                let Some(key) = record.key else { continue };
                if let Err(error) = machine.load(key, record.value) {
                    tracing::error!(offset = %record.offset, %error, "a record of {} is lost", M::WHAT);
                }
            }
            Err(error) => {
                tracing::error!(offset = %header.base_offset, %error, "records of {} are lost", M::WHAT);
                return;
            }
        }
    }
}

type Writing = Doing<Written>;

/// How an append ended.
struct Written {
    of: Of,
    bytes: u64,
    result: Result<Offset, LogsError>,
}

/// What an append was for.
enum Of {
    Writes(Vec<WriteId>),
    Checkpoint { last: Option<String> },
    Trim,
}

/// A checkpoint under way.
struct Checkpoint {
    /// The log is trimmed below here when it is complete.
    first: Option<Offset>,
    last: Option<String>,
    is_complete: bool,
    bytes: u64,
}

struct Task<M: Machine> {
    machine: M,
    run: Run<M>,
    logs: LogsHandle,
    partition: TopicPartition,
    /// Under which it was loaded; nothing is written under another.
    term: Term,
    last_ticket: u64,
    waiting: BTreeMap<Ticket, oneshot::Sender<M::Response>>,
    /// As many as the machine wants at once.
    errands: FuturesUnordered<Doing<M::Outcome>>,
    writes: VecDeque<(WriteId, Vec<Record>)>,
    checkpoint: Option<Checkpoint>,
    bytes_since_checkpoint: u64,
    checkpoint_bytes: u64,
    /// The last append failed: it is said once, and once when it is over.
    is_failing: bool,
}

impl<M: Machine> Task<M> {
    /// Until nobody asks any more, or the partition has another leader.
    async fn run(mut self, mut queue: mpsc::Receiver<Asked<M>>, mut states: watch::Receiver<Arc<State>>) {
        let mut writing: Option<Writing> = None;
        let mut state = Arc::clone(&states.borrow_and_update());
        loop {
            if writing.is_none() {
                writing = self.next_write();
            }
            let now = time::now();
            let next = self.machine.next_deadline();
            let sleep = next.map_or(IDLE, |at| Duration::from_millis(at.since(now)).min(IDLE));
            tokio::select! {
                asked = queue.recv() => match asked {
                    Some(asked) => self.ask(asked),
                    None => return,
                },
                written = under_way(&mut writing) => {
                    writing = None;
                    if matches!(written.result, Err(LogsError::Append(AppendError::NotLeader { .. }))) {
                        return;
                    }
                    self.written(written);
                }
                Some(outcome) = self.errands.next() => self.step(Input::Done(outcome)),
                Ok(()) = states.changed() => {
                    let before = std::mem::replace(&mut state, Arc::clone(&states.borrow_and_update()));
                    let gone = before.topics.values().filter(|topic| !state.topics.contains_key(&topic.id));
                    gone.for_each(|topic| self.forget(&topic.name));
                }
                () = tokio::time::sleep(sleep) => self.step(Input::Tick),
            }
        }
    }

    /// A topic was deleted, on whichever node.
    fn forget(&mut self, topic: &str) {
        if let Some(request) = M::topic_gone(topic) {
            let (answer, _nobody_waits) = oneshot::channel();
            self.ask(Asked { request, answer });
        }
    }

    fn ask(&mut self, asked: Asked<M>) {
        if self.waiting.len() >= WAITING_MAX {
            drop(asked.answer.send(M::busy(&asked.request)));
            return;
        }
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.waiting.insert(ticket, asked.answer);
        self.step(Input::Request(ticket, asked.request));
    }

    fn step(&mut self, input: Input<M>) {
        for effect in self.machine.step(time::now(), time::wall(), input) {
            match effect {
                Effect::Persist(id, records) => self.writes.push_back((id, records)),
                Effect::Errand(errand) => self.errands.push((self.run)(self.term, errand)),
                Effect::Respond(ticket, response) => {
                    if let Some(answer) = self.waiting.remove(&ticket) {
                        // Nobody listens any more if the connection is gone.
                        drop(answer.send(response));
                    }
                }
            }
        }
    }

    /// The next append: parts of a checkpoint and writes by turns, so that neither waits for all of the other.
    fn next_write(&mut self) -> Option<Writing> {
        let due = CHECKPOINT_AFTER_BYTES.max(2 * self.checkpoint_bytes);
        if self.checkpoint.is_none() && self.bytes_since_checkpoint >= due {
            self.checkpoint = Some(Checkpoint { first: None, last: None, is_complete: false, bytes: 0 });
            self.bytes_since_checkpoint = 0;
            return self.checkpoint_part();
        }
        if self.writes.is_empty() {
            return self.checkpoint_part();
        }
        let (mut ids, mut records, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some((id, more)) = self.writes.pop_front() {
            bytes += more.iter().map(Record::size_bytes).sum::<usize>();
            ids.push(id);
            records.extend(more);
            if bytes >= APPEND_BYTES {
                break;
            }
        }
        Some(self.append(Of::Writes(ids), &records))
    }

    fn checkpoint_part(&mut self) -> Option<Writing> {
        let checkpoint = self.checkpoint.as_ref()?;
        if checkpoint.is_complete {
            let Some(first) = checkpoint.first else {
                self.checkpoint = None;
                return None;
            };
            let (logs, partition) = (self.logs.clone(), self.partition);
            return Some(Box::pin(async move {
                Written { of: Of::Trim, bytes: 0, result: logs.delete_before(partition, first).await }
            }));
        }
        let part = self.machine.checkpoint(checkpoint.last.as_deref(), APPEND_BYTES);
        if part.records.is_empty() {
            self.checkpoint = None;
            return None;
        }
        Some(self.append(Of::Checkpoint { last: part.last }, &part.records))
    }

    fn append(&self, of: Of, records: &[Record]) -> Writing {
        let (logs, partition, term) = (self.logs.clone(), self.partition, self.term);
        let appends = appends(records);
        Box::pin(async move {
            let appends = match appends {
                Ok(appends) => appends,
                Err(error) => {
                    tracing::error!(%error, "records of {} cannot be written", M::WHAT);
                    return Written { of, bytes: 0, result: Err(LogsError::Closed) };
                }
            };
            let bytes = appends.iter().map(|append| append.len() as u64).sum();
            let deadline = time::now().plus(APPEND_MS_MAX);
            let mut first = None;
            for append in appends {
                // Under another term what was loaded may not be what there is.
                match logs.append_in_term(partition, append, Acks::All, deadline, term).await {
                    Ok(appended) => {
                        first.get_or_insert(appended.base_offset);
                    }
                    Err(error) => return Written { of, bytes, result: Err(error) },
                }
            }
            Written { of, bytes, result: first.ok_or(LogsError::Closed) }
        })
    }

    fn written(&mut self, written: Written) {
        self.say(written.result.as_ref().err());
        match written.of {
            Of::Writes(ids) => {
                self.bytes_since_checkpoint += written.bytes;
                for id in ids {
                    let is_durable = written.result.is_ok();
                    self.step(if is_durable { Input::Persisted(id) } else { Input::WriteFailed(id) });
                }
            }
            Of::Checkpoint { last } => match (written.result, &mut self.checkpoint) {
                (Ok(first), Some(checkpoint)) => {
                    checkpoint.first.get_or_insert(first);
                    checkpoint.is_complete = last.is_none();
                    checkpoint.last = last;
                    checkpoint.bytes += written.bytes;
                }
                // The log stays as it is; the next one comes when as much has been written again.
                _ => self.checkpoint = None,
            },
            Of::Trim => {
                if let (Ok(start), Some(checkpoint)) = (written.result, self.checkpoint.take()) {
                    self.checkpoint_bytes = checkpoint.bytes;
                    tracing::debug!(%start, bytes = checkpoint.bytes, "{}: checkpoint", M::WHAT);
                }
            }
        }
    }

    fn say(&mut self, error: Option<&LogsError>) {
        match (error, self.is_failing) {
            (Some(error), false) => {
                tracing::warn!(%error, "{} cannot be written: what would change them is refused", M::WHAT);
            }
            (None, true) => tracing::info!("{} can be written again", M::WHAT),
            _ => {}
        }
        self.is_failing = error.is_some();
    }
}

async fn under_way(writing: &mut Option<Writing>) -> Written {
    match writing {
        Some(writing) => writing.await,
        None => std::future::pending().await,
    }
}

/// Records as batches, and batches as appends of bounded size.
pub(super) fn appends(records: &[Record]) -> Result<Vec<Bytes>, base::records::RecordError> {
    let wall = time::wall();
    let (mut appends, mut append) = (Vec::new(), BytesMut::new());
    let mut batch = BatchBuilder::new(Codec::Lz4);
    for (at, record) in records.iter().enumerate() {
        batch.push(wall, Some(&record.key), record.value.as_deref(), &[]);
        let next_bytes = records.get(at + 1).map_or(BATCH_BYTES, Record::size_bytes);
        if batch.plain_bytes() + next_bytes < BATCH_BYTES {
            continue;
        }
        let bytes = std::mem::replace(&mut batch, BatchBuilder::new(Codec::Lz4)).build()?;
        if append.len() + bytes.len() > APPEND_BYTES && !append.is_empty() {
            appends.push(append.split().freeze());
        }
        append.extend_from_slice(&bytes);
    }
    if !append.is_empty() {
        appends.push(append.freeze());
    }
    Ok(appends)
}
