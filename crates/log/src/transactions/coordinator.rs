//! The one door: inputs in, effects out. Keeps all transactional ids, what is being written, and an index of deadlines.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use base::{ProducerId, Tick, Timestamp};

use super::error::TransactionError;
use super::limits::{
    EXPIRED_MAX, EXPIRY_EVERY_MS, GROUPS_MAX, ID_BYTES_MAX, PARTITIONS_MAX, TRANSACTIONS_MAX, WRITE_MS_MAX, WRITES_MAX,
};
use super::marks::{Mark, MarkId, Marks, backoff_ms};
use super::record::{Known, decode_key, encode_key};
use super::request::{
    DescribedTransaction, ListedTransaction, Producer, Request, Response, Target, TransactionState as State,
};
use super::rules::{self, Decision};
use super::{CheckpointPart, Record, Ticket, WriteId};
use crate::fields::Damaged;
use crate::groups::limits::GROUP_ID_BYTES_MAX;

/// What happens to the coordinator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    Request(Ticket, Request),
    /// The write's records are durable.
    Persisted(WriteId),
    /// The write failed, or its outcome is unknown.
    WriteFailed(WriteId),
    /// The target has taken the mark durably, or is gone for good.
    Marked(MarkId),
    /// It has not, or nobody knows.
    MarkFailed(MarkId),
    /// Time has passed.
    Tick,
}

/// What should happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    Respond(Ticket, Response),
    /// Append these records together; tell the outcome as [`Input::Persisted`] or [`Input::WriteFailed`].
    Persist(WriteId, Vec<Record>),
    /// Tell the target, once; tell the outcome as [`Input::Marked`] or [`Input::MarkFailed`].
    Mark(MarkId, Mark),
}

/// What the coordinator was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransactionsConfig {
    /// Longest transaction timeout a producer may ask for.
    pub timeout_ms_max: u64,
    /// How long an id that nobody uses is kept.
    pub expiration_ms: u64,
    /// Rounds are above it. Differs for every coordinator of one term, and grows.
    pub rounds_after: u64,
}

impl Default for TransactionsConfig {
    fn default() -> Self {
        Self { timeout_ms_max: 15 * 60_000, expiration_ms: 7 * 86_400_000, rounds_after: 0 }
    }
}

/// A record of the internal topic makes no sense. It is skipped; what it said is lost, so someone should know.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a record of the transactions' topic cannot be read: {0}")]
pub struct LoadError(#[from] Damaged);

#[derive(Debug, Default)]
struct Transaction {
    /// `None`: its first record is being written.
    known: Option<Known>,
    /// What it becomes when durable; `None` inside: it is forgotten.
    pending: Option<Option<Known>>,
    /// Prepared, and these have not taken the outcome yet.
    unmarked: BTreeSet<Target>,
    round: u64,
    /// When to abort what is under way, or to write again what failed.
    wake_at: Option<Tick>,
    failures: u32,
    scheduled: Option<Tick>,
}

impl Transaction {
    fn next_deadline(&self) -> Option<Tick> {
        self.wake_at.filter(|_| self.pending.is_none())
    }

    fn public_state(&self) -> State {
        let state = self.known.as_ref().map_or(State::Empty, |known| known.state);
        match &self.pending {
            Some(None) => State::Dead,
            Some(Some(next)) if state == State::Ongoing && self.is_fenced_by(next) => State::PrepareEpochFence,
            _ => state,
        }
    }

    fn is_fenced_by(&self, next: &Known) -> bool {
        self.known.as_ref().is_some_and(|known| known.producer.epoch < next.producer.epoch)
    }
}

#[derive(Debug)]
struct Write {
    id: String,
    reply: Option<Reply>,
    deadline: Tick,
}

#[derive(Debug)]
struct Reply {
    ticket: Ticket,
    done: Response,
    failed: Response,
}

/// See the module.
#[derive(Debug)]
pub struct Coordinator {
    config: TransactionsConfig,
    transactions: BTreeMap<String, Transaction>,
    /// (when, id) for every transaction that waits for something.
    deadlines: BTreeSet<(Tick, String)>,
    writes: BTreeMap<WriteId, Write>,
    last_write: WriteId,
    /// Deadlines at or below this write have passed.
    late: WriteId,
    marks: Marks,
    rounds: u64,
    expiry_at: Tick,
}

impl Coordinator {
    #[must_use]
    pub fn new(config: TransactionsConfig) -> Self {
        Self {
            rounds: config.rounds_after,
            config,
            transactions: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            writes: BTreeMap::new(),
            last_write: WriteId(0),
            late: WriteId(0),
            marks: Marks::default(),
            expiry_at: Tick::ZERO,
        }
    }

    /// Takes over one record of the internal topic.
    ///
    /// # Errors
    /// The record is damaged and was skipped.
    pub fn load(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), LoadError> {
        let Some(id) = decode_key(key)? else { return Ok(()) };
        match value {
            Some(value) => {
                let known = Some(Known::decode(value)?);
                self.transactions.insert(id, Transaction { known, ..Transaction::default() });
            }
            None => drop(self.transactions.remove(&id)),
        }
        Ok(())
    }

    /// All records are in: what was prepared is finished, and the clocks of those under way go on.
    pub fn loaded(&mut self, now: Tick, wall: Timestamp) {
        let ids: Vec<String> = self.transactions.keys().cloned().collect();
        for id in ids {
            self.begin_state(now, wall, &id);
        }
        self.expiry_at = now.plus(EXPIRY_EVERY_MS);
    }

    /// The durable state of the ids that follow `after`, up to about `bytes` of it. Only while no write is out. Writes may come
    /// between two parts: a part is never older than what the log has of the same ids.
    #[must_use]
    pub fn checkpoint(&self, after: Option<&str>, bytes: usize) -> CheckpointPart {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut records, mut size) = (Vec::new(), 0);
        for (id, transaction) in self.transactions.range::<str, _>((from, Bound::Unbounded)) {
            let Some(known) = &transaction.known else { continue };
            let record = Record { key: encode_key(id), value: Some(known.encode()) };
            size += record.size_bytes();
            records.push(record);
            if size >= bytes {
                return CheckpointPart { records, last: Some(id.clone()) };
            }
        }
        CheckpointPart { records, last: None }
    }

    /// Transactional ids in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.transactions.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// Targets that have not yet been told an outcome that is decided.
    #[must_use]
    pub fn unmarked(&self) -> usize {
        self.marks.len()
    }

    /// When to step with [`Input::Tick`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        let transaction = self.deadlines.first().map(|(at, _)| *at);
        let write = self.writes.range(self.late.next()..).next().map(|(_, write)| write.deadline);
        [transaction, write, self.marks.next_deadline(), Some(self.expiry_at)].into_iter().flatten().min()
    }

    /// Takes one input at a time. Whatever is overdue at `now` happens first.
    pub fn step(&mut self, now: Tick, wall: Timestamp, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        self.run_deadlines(now, wall, &mut out);
        match input {
            Input::Request(ticket, request) => self.request(now, wall, ticket, request, &mut out),
            Input::Persisted(id) => self.written(now, wall, id, true, &mut out),
            Input::WriteFailed(id) => self.written(now, wall, id, false, &mut out),
            Input::Marked(mark) => self.marked(now, wall, mark, &mut out),
            Input::MarkFailed(mark) => self.marks.failed(now, mark),
            Input::Tick => {}
        }
        self.send_marks(now, &mut out);
        out
    }

    fn run_deadlines(&mut self, now: Tick, wall: Timestamp, out: &mut Vec<Effect>) {
        while let Some((id, write)) = self.writes.range_mut(self.late.next()..).next()
            && write.deadline <= now
        {
            self.late = *id;
            if let Some(reply) = write.reply.take() {
                out.push(Effect::Respond(reply.ticket, reply.failed));
            }
        }
        while let Some((at, _)) = self.deadlines.first()
            && *at <= now
            && let Some((_, id)) = self.deadlines.pop_first()
        {
            if let Some(transaction) = self.transactions.get_mut(&id) {
                transaction.scheduled = None;
                transaction.wake_at = None;
            }
            self.wake(now, wall, &id, out);
        }
        if self.expiry_at <= now {
            self.expiry_at = now.plus(EXPIRY_EVERY_MS);
            self.expire(now, wall, out);
        }
    }

    /// A transaction's time is over, or what failed is tried again.
    fn wake(&mut self, now: Tick, wall: Timestamp, id: &str, out: &mut Vec<Effect>) {
        let Some(transaction) = self.transactions.get(id).filter(|transaction| transaction.pending.is_none()) else {
            return;
        };
        let Some(known) = &transaction.known else { return };
        match known.state {
            State::Ongoing => {
                let next = rules::fence(known, wall);
                self.write(now, id, Some(next), None, out);
            }
            State::PrepareCommit | State::PrepareAbort if transaction.unmarked.is_empty() => {
                let next = rules::complete(known, wall);
                self.write(now, id, Some(next), None, out);
            }
            _ => {}
        }
    }

    /// Files a transaction under its next deadline.
    fn schedule(&mut self, id: &str) {
        let Some(transaction) = self.transactions.get_mut(id) else { return };
        let next = transaction.next_deadline();
        if transaction.scheduled == next {
            return;
        }
        if let Some(before) = transaction.scheduled.take() {
            self.deadlines.remove(&(before, id.to_owned()));
        }
        if let Some(at) = next {
            self.deadlines.insert((at, id.to_owned()));
        }
        transaction.scheduled = next;
    }

    fn request(&mut self, now: Tick, wall: Timestamp, ticket: Ticket, request: Request, out: &mut Vec<Effect>) {
        let refused = match &request {
            Request::Init { id, .. }
            | Request::Add { id, .. }
            | Request::End { id, .. }
            | Request::Verify { id, .. }
            | Request::Describe { id } => id.is_empty() || id.len() > ID_BYTES_MAX,
            Request::List { .. } => false,
        };
        if refused {
            out.push(Effect::Respond(ticket, request.refused(TransactionError::InvalidId)));
            return;
        }
        match request {
            Request::Init { id, timeout_ms, expected, fresh } => {
                if let Err(error) = self.init(now, wall, ticket, &id, timeout_ms, expected, fresh, out) {
                    out.push(Effect::Respond(ticket, Response::Init(Err(error))));
                }
            }
            Request::Add { id, producer, targets } => {
                let decided = check_targets(&targets)
                    .and_then(|()| self.still(&id))
                    .and_then(|known| rules::add(known, wall, producer, targets));
                self.carry_out(now, &id, ticket, decided, Response::Add, out);
            }
            Request::End { id, producer, commit } => {
                let decided = self.still(&id).and_then(|known| rules::end(known, wall, producer, commit));
                self.carry_out(now, &id, ticket, decided, Response::End, out);
            }
            Request::Verify { id, producer, targets } => {
                let verified = self.verify(&id, producer, &targets);
                out.push(Effect::Respond(ticket, Response::Verify(verified)));
            }
            Request::Describe { id } => out.push(Effect::Respond(ticket, Response::Describe(self.describe(id)))),
            Request::List { states, producers, longer_than_ms } => {
                let list = self.list(wall, &states, &producers, longer_than_ms);
                out.push(Effect::Respond(ticket, Response::List(Ok(list))));
            }
        }
    }

    /// What is durable of an id that nothing is being written of.
    fn still(&self, id: &str) -> Result<&Known, TransactionError> {
        let transaction = self.transactions.get(id).ok_or(TransactionError::UnknownProducer)?;
        if transaction.pending.is_some() {
            return Err(TransactionError::Concurrent);
        }
        transaction.known.as_ref().ok_or(TransactionError::Concurrent)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one request and the present")]
    fn init(
        &mut self,
        now: Tick,
        wall: Timestamp,
        ticket: Ticket,
        id: &str,
        timeout_ms: i64,
        expected: Option<Producer>,
        fresh: ProducerId,
        out: &mut Vec<Effect>,
    ) -> Result<(), TransactionError> {
        let max_ms = self.config.timeout_ms_max;
        let in_range = u64::try_from(timeout_ms).ok().filter(|asked| (1..=max_ms).contains(asked));
        let timeout_ms = in_range.ok_or(TransactionError::InvalidTimeout { asked_ms: timeout_ms, max_ms })?;
        let known = match self.still(id) {
            Ok(known) => Some(known),
            Err(TransactionError::UnknownProducer) => None,
            Err(error) => return Err(error),
        };
        if known.is_none() && self.transactions.len() >= TRANSACTIONS_MAX {
            return Err(TransactionError::Busy { what: "transactional ids", max: TRANSACTIONS_MAX });
        }
        let current = known.map(|known| known.producer);
        match rules::init(known, wall, timeout_ms, expected, fresh)? {
            Decision::Nothing => {
                let producer = current.ok_or(TransactionError::UnknownProducer)?;
                out.push(Effect::Respond(ticket, Response::Init(Ok(producer))));
            }
            Decision::Write(next) => {
                self.transactions.entry(id.to_owned()).or_default();
                let done = Response::Init(Ok(next.producer));
                let reply = Reply { ticket, done, failed: Response::Init(Err(TransactionError::NotPersisted)) };
                self.write(now, id, Some(next), Some(reply), out);
            }
            Decision::Fence(next) => {
                self.write(now, id, Some(next), None, out);
                return Err(TransactionError::Concurrent);
            }
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        now: Tick,
        id: &str,
        ticket: Ticket,
        decided: Result<Decision, TransactionError>,
        answer: impl Fn(Result<(), TransactionError>) -> Response,
        out: &mut Vec<Effect>,
    ) {
        match decided {
            Ok(Decision::Nothing) => out.push(Effect::Respond(ticket, answer(Ok(())))),
            Ok(Decision::Write(next) | Decision::Fence(next)) => {
                let failed = answer(Err(TransactionError::NotPersisted));
                self.write(now, id, Some(next), Some(Reply { ticket, done: answer(Ok(())), failed }), out);
            }
            Err(error) => out.push(Effect::Respond(ticket, answer(Err(error)))),
        }
    }

    fn verify(&self, id: &str, producer: Producer, targets: &[Target]) -> Result<(), TransactionError> {
        let transaction = self.transactions.get(id).ok_or(TransactionError::UnknownProducer)?;
        let known = transaction.known.as_ref().ok_or(TransactionError::UnknownProducer)?;
        let ends = match &transaction.pending {
            Some(Some(next)) => next.state != State::Ongoing,
            Some(None) => true,
            None => false,
        };
        rules::verify(known, ends, producer, targets)
    }

    fn describe(&self, id: String) -> Result<DescribedTransaction, TransactionError> {
        let transaction = self.transactions.get(&id).ok_or(TransactionError::NotFound)?;
        let known = transaction.known.as_ref().ok_or(TransactionError::NotFound)?;
        let is_prepared = matches!(known.state, State::PrepareCommit | State::PrepareAbort);
        let targets = if is_prepared { &transaction.unmarked } else { &known.targets };
        let (mut partitions, mut groups) = (Vec::new(), Vec::new());
        for target in targets {
            match target {
                Target::Partition(place) => partitions.push(*place),
                Target::Group(group) => groups.push(group.clone()),
            }
        }
        Ok(DescribedTransaction {
            id,
            state: transaction.public_state(),
            producer: known.producer,
            timeout_ms: known.timeout_ms,
            started: known.started,
            partitions,
            groups,
        })
    }

    fn list(
        &self,
        wall: Timestamp,
        states: &[State],
        producers: &[ProducerId],
        longer_than_ms: Option<u64>,
    ) -> Vec<ListedTransaction> {
        let lasts = |known: &Known, ms: u64| {
            let ms = i64::try_from(ms).unwrap_or(i64::MAX);
            known.started.is_some_and(|started| wall.0.saturating_sub(started.0) > ms)
        };
        let listed = |(id, transaction): (&String, &Transaction)| {
            let (known, state) = (transaction.known.as_ref()?, transaction.public_state());
            let is_asked = (states.is_empty() || states.contains(&state))
                && (producers.is_empty() || producers.contains(&known.producer.id))
                && longer_than_ms.is_none_or(|ms| lasts(known, ms));
            is_asked.then(|| ListedTransaction { id: id.clone(), producer: known.producer.id, state })
        };
        self.transactions.iter().filter_map(listed).collect()
    }

    /// Writes what a transaction becomes; `None`: it is forgotten.
    fn write(&mut self, now: Tick, id: &str, next: Option<Known>, reply: Option<Reply>, out: &mut Vec<Effect>) {
        if self.writes.len() >= WRITES_MAX {
            if let Some(Reply { ticket, failed, .. }) = reply {
                out.push(Effect::Respond(ticket, failed));
            }
            return self.not_written(now, id);
        }
        let Some(transaction) = self.transactions.get_mut(id) else { return };
        let record = Record { key: encode_key(id), value: next.as_ref().map(Known::encode) };
        transaction.pending = Some(next);
        self.last_write = self.last_write.next();
        let write = Write { id: id.to_owned(), reply, deadline: now.plus(WRITE_MS_MAX) };
        self.writes.insert(self.last_write, write);
        out.push(Effect::Persist(self.last_write, vec![record]));
        self.schedule(id);
    }

    fn written(&mut self, now: Tick, wall: Timestamp, write: WriteId, is_durable: bool, out: &mut Vec<Effect>) {
        let Some(Write { id, reply, .. }) = self.writes.remove(&write) else { return };
        let Some(transaction) = self.transactions.get_mut(&id) else { return };
        let pending = transaction.pending.take();
        if !is_durable {
            self.not_written(now, &id);
        } else if let Some(Some(next)) = pending {
            transaction.known = Some(next);
            transaction.failures = 0;
            self.begin_state(now, wall, &id);
        } else {
            transaction.wake_at = None;
            self.schedule(&id);
            self.transactions.remove(&id);
        }
        if let Some(Reply { ticket, done, failed }) = reply {
            out.push(Effect::Respond(ticket, if is_durable { done } else { failed }));
        }
    }

    /// Nothing has changed as far as is known. What the coordinator wanted by itself it wants again a little later.
    fn not_written(&mut self, now: Tick, id: &str) {
        let Some(transaction) = self.transactions.get_mut(id) else { return };
        let Some(known) = &transaction.known else {
            self.transactions.remove(id);
            return;
        };
        let is_complete = matches!(known.state, State::PrepareCommit | State::PrepareAbort);
        // Of one under way: its own deadline stands, if that has not passed.
        if is_complete || (known.state == State::Ongoing && transaction.wake_at.is_none_or(|at| at <= now)) {
            transaction.wake_at = Some(now.plus(backoff_ms(transaction.failures)));
            transaction.failures = transaction.failures.saturating_add(1);
        }
        self.schedule(id);
    }

    /// What follows from the state that has just become durable, or was loaded.
    fn begin_state(&mut self, now: Tick, wall: Timestamp, id: &str) {
        let Some(transaction) = self.transactions.get_mut(id) else { return };
        let Some(known) = &transaction.known else { return };
        match known.state {
            State::Ongoing => {
                let since = known.started.unwrap_or(known.updated);
                let passed_ms = u64::try_from(wall.0.saturating_sub(since.0)).unwrap_or(0);
                let over = now.plus(known.timeout_ms.saturating_sub(passed_ms));
                // The clock of the wall may jump; a deadline that is known stands.
                transaction.wake_at.get_or_insert(over);
            }
            State::PrepareCommit | State::PrepareAbort => {
                self.rounds += 1;
                transaction.round = self.rounds;
                transaction.unmarked.clone_from(&known.targets);
                transaction.wake_at = known.targets.is_empty().then_some(now);
                for target in &known.targets {
                    self.marks.add(now, id, target.clone(), self.rounds);
                }
            }
            _ => transaction.wake_at = None,
        }
        self.schedule(id);
    }

    fn marked(&mut self, now: Tick, wall: Timestamp, mark: MarkId, out: &mut Vec<Effect>) {
        let Some((id, target)) = self.marks.done(mark) else { return };
        let Some(transaction) = self.transactions.get_mut(&id) else { return };
        if transaction.unmarked.remove(&target) && transaction.unmarked.is_empty() {
            self.wake(now, wall, &id, out);
        }
    }

    /// Marks that are due, as many as there is room for.
    fn send_marks(&mut self, now: Tick, out: &mut Vec<Effect>) {
        while let Some((mark, id, target, round)) = self.marks.pop(now) {
            let transaction = self.transactions.get(&id).filter(|transaction| transaction.round == round);
            let Some(known) = transaction.and_then(|transaction| transaction.known.as_ref()) else {
                self.marks.done(mark);
                continue;
            };
            let commit = known.state == State::PrepareCommit;
            out.push(Effect::Mark(mark, Mark { target, producer: known.producer, commit, round }));
        }
    }

    /// Ids that nobody has used for a long time; at most [`EXPIRED_MAX`] at once.
    fn expire(&mut self, now: Tick, wall: Timestamp, out: &mut Vec<Effect>) {
        let expiration_ms = i64::try_from(self.config.expiration_ms).unwrap_or(i64::MAX);
        let is_over = |(_, transaction): &(&String, &Transaction)| {
            let idle = |known: &Known| {
                matches!(known.state, State::Empty | State::CompleteCommit | State::CompleteAbort)
                    && known.updated.0.saturating_add(expiration_ms) <= wall.0
            };
            transaction.pending.is_none() && transaction.known.as_ref().is_some_and(idle)
        };
        let over = self.transactions.iter().filter(is_over).take(EXPIRED_MAX);
        let over: Vec<String> = over.map(|(id, _)| id.clone()).collect();
        if over.len() == EXPIRED_MAX {
            self.expiry_at = now.next();
        }
        for id in over {
            self.write(now, &id, None, None, out);
        }
    }
}

fn check_targets(targets: &[Target]) -> Result<(), TransactionError> {
    if targets.len() > PARTITIONS_MAX + GROUPS_MAX {
        return Err(TransactionError::TooLarge { what: "the partitions", max: PARTITIONS_MAX });
    }
    let is_long = |target: &Target| matches!(target, Target::Group(group) if group.len() > GROUP_ID_BYTES_MAX);
    if targets.iter().any(is_long) {
        return Err(TransactionError::TooLarge { what: "the bytes of a group's id", max: GROUP_ID_BYTES_MAX });
    }
    Ok(())
}
