//! What may follow what: pure decisions about one transactional id, from what is durable of it.

use std::collections::BTreeSet;

use base::{ProducerEpoch, ProducerId, Timestamp};

use super::error::TransactionError;
use super::limits::{GROUPS_MAX, PARTITIONS_MAX};
use super::record::Known;
use super::request::{Producer, Target, TransactionState as State};

/// The highest epoch is only for fencing: a producer gets a new id instead.
const EPOCH_MAX: i16 = i16::MAX - 1;

/// What a request leads to.
#[derive(Debug)]
pub enum Decision {
    /// It is so already.
    Nothing,
    /// This becomes durable, then the requester is answered.
    Write(Known),
    /// The transaction under way is aborted first; the requester is told to come again.
    Fence(Known),
}

/// What a producer gets that begins under a transactional id: see the producer of what is written or, if nothing is, of `known`.
pub fn init(
    known: Option<&Known>,
    wall: Timestamp,
    timeout_ms: u64,
    expected: Option<Producer>,
    fresh: ProducerId,
) -> Result<Decision, TransactionError> {
    let new = |producer, previous| Known {
        producer,
        previous,
        timeout_ms,
        state: State::Empty,
        started: None,
        updated: wall,
        targets: BTreeSet::new(),
    };
    let first = Producer { id: fresh, epoch: ProducerEpoch(0) };
    let Some(known) = known else { return Ok(Decision::Write(new(first, None))) };
    let is_retried = expected.is_some() && expected == known.previous;
    if let Some(asked) = expected
        && asked != known.producer
        && !is_retried
    {
        return Err(fenced(known, asked));
    }
    match known.state {
        State::PrepareCommit | State::PrepareAbort => Err(TransactionError::Concurrent),
        State::Ongoing => Ok(Decision::Fence(fence(known, wall))),
        _ if is_retried => Ok(Decision::Nothing),
        _ if known.producer.epoch.0 >= EPOCH_MAX => Ok(Decision::Write(new(first, expected))),
        _ => {
            let producer = Producer { epoch: ProducerEpoch(known.producer.epoch.0 + 1), ..known.producer };
            Ok(Decision::Write(new(producer, expected)))
        }
    }
}

/// An abort by the coordinator itself, under a higher epoch.
pub fn fence(known: &Known, wall: Timestamp) -> Known {
    let epoch = ProducerEpoch(known.producer.epoch.0.saturating_add(1));
    let producer = Producer { epoch, ..known.producer };
    Known { producer, previous: None, state: State::PrepareAbort, updated: wall, ..known.clone() }
}

/// More targets for the transaction, which begins if none is under way.
pub fn add(
    known: &Known,
    wall: Timestamp,
    producer: Producer,
    targets: Vec<Target>,
) -> Result<Decision, TransactionError> {
    check_producer(known, producer)?;
    let mut next = match known.state {
        State::PrepareCommit | State::PrepareAbort => return Err(TransactionError::Concurrent),
        State::Ongoing => known.clone(),
        _ => Known { state: State::Ongoing, started: Some(wall), targets: BTreeSet::new(), ..known.clone() },
    };
    let before = next.targets.len();
    next.targets.extend(targets);
    let groups = next.targets.iter().filter(|target| matches!(target, Target::Group(_))).count();
    if groups > GROUPS_MAX {
        return Err(TransactionError::TooLarge { what: "the groups", max: GROUPS_MAX });
    }
    if next.targets.len() - groups > PARTITIONS_MAX {
        return Err(TransactionError::TooLarge { what: "the partitions", max: PARTITIONS_MAX });
    }
    if known.state == State::Ongoing && next.targets.len() == before {
        return Ok(Decision::Nothing);
    }
    next.updated = wall;
    Ok(Decision::Write(next))
}

/// The producer commits or aborts.
pub fn end(known: &Known, wall: Timestamp, producer: Producer, commit: bool) -> Result<Decision, TransactionError> {
    check_producer(known, producer)?;
    match (known.state, commit) {
        (State::Ongoing, _) => {
            let state = if commit { State::PrepareCommit } else { State::PrepareAbort };
            Ok(Decision::Write(Known { state, updated: wall, ..known.clone() }))
        }
        (State::CompleteCommit, true) | (State::CompleteAbort, false) => Ok(Decision::Nothing),
        (State::PrepareCommit, true) | (State::PrepareAbort, false) => Err(TransactionError::Concurrent),
        (state, _) => Err(TransactionError::InvalidState(state)),
    }
}

/// Every target knows the outcome.
pub fn complete(known: &Known, wall: Timestamp) -> Known {
    let state = if known.state == State::PrepareCommit { State::CompleteCommit } else { State::CompleteAbort };
    Known { state, started: None, updated: wall, targets: BTreeSet::new(), ..known.clone() }
}

/// Whether what a producer sends to these targets belongs to a transaction under way. `ends`: its end is being written.
pub fn verify(known: &Known, ends: bool, producer: Producer, targets: &[Target]) -> Result<(), TransactionError> {
    check_producer(known, producer)?;
    match known.state {
        State::Ongoing if ends => Err(TransactionError::Concurrent),
        State::PrepareCommit | State::PrepareAbort => Err(TransactionError::Concurrent),
        State::Ongoing if targets.iter().all(|target| known.targets.contains(target)) => Ok(()),
        state => Err(TransactionError::InvalidState(state)),
    }
}

fn check_producer(known: &Known, asked: Producer) -> Result<(), TransactionError> {
    if asked.id != known.producer.id {
        return Err(TransactionError::UnknownProducer);
    }
    if asked.epoch == known.producer.epoch { Ok(()) } else { Err(fenced(known, asked)) }
}

const fn fenced(known: &Known, asked: Producer) -> TransactionError {
    TransactionError::Fenced { asked: asked.epoch.0, current: known.producer.epoch.0 }
}
