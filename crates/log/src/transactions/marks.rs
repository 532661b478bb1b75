//! Marks that have to reach their targets: which are due, which are under way, when to try again.

use std::collections::{BTreeMap, BTreeSet};

use base::Tick;

use super::limits::{MARKS_OUT_MAX, RETRY_MS_MAX, RETRY_MS_MIN};
use super::request::{Producer, Target};

/// Names an attempt until its outcome is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MarkId(pub u64);

/// The outcome of a transaction for one of its targets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    pub target: Target,
    /// The epoch may be higher than the one the transaction was written under: lower ones are fenced from now on.
    pub producer: Producer,
    pub commit: bool,
    /// Grows with every transaction of this coordinator, from [`super::TransactionsConfig::rounds_after`] on.
    pub round: u64,
}

/// Waits before the next attempt; doubles with every failure.
pub const fn backoff_ms(failures: u32) -> u64 {
    let doubled = RETRY_MS_MIN << (if failures > 10 { 10 } else { failures });
    if doubled > RETRY_MS_MAX { RETRY_MS_MAX } else { doubled }
}

/// The marks of all transactions.
#[derive(Debug, Default)]
pub struct Marks {
    last: u64,
    waiting: BTreeMap<(String, Target), Waiting>,
    /// (when, of whom) for each that waits.
    due: BTreeSet<(Tick, String, Target)>,
    out: BTreeMap<MarkId, (String, Waiting, Target)>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    at: Tick,
    failures: u32,
    round: u64,
}

impl Marks {
    pub fn add(&mut self, now: Tick, id: &str, target: Target, round: u64) {
        self.wait(id.to_owned(), target, Waiting { at: now, failures: 0, round });
    }

    fn wait(&mut self, id: String, target: Target, waiting: Waiting) {
        self.due.insert((waiting.at, id.clone(), target.clone()));
        self.waiting.insert((id, target), waiting);
    }

    /// The next that is due, if there is room.
    pub fn pop(&mut self, now: Tick) -> Option<(MarkId, String, Target, u64)> {
        if self.out.len() >= MARKS_OUT_MAX || self.due.first()?.0 > now {
            return None;
        }
        let (_, id, target) = self.due.pop_first()?;
        let waiting = self.waiting.remove(&(id.clone(), target.clone()))?;
        self.last += 1;
        let mark = MarkId(self.last);
        self.out.insert(mark, (id.clone(), waiting, target.clone()));
        Some((mark, id, target, waiting.round))
    }

    /// An attempt succeeded: of whom, and where.
    pub fn done(&mut self, mark: MarkId) -> Option<(String, Target)> {
        self.out.remove(&mark).map(|(id, _, target)| (id, target))
    }

    /// An attempt failed: it is made again.
    pub fn failed(&mut self, now: Tick, mark: MarkId) {
        if let Some((id, Waiting { failures, round, .. }, target)) = self.out.remove(&mark) {
            let at = now.plus(backoff_ms(failures));
            self.wait(id, target, Waiting { at, failures: failures.saturating_add(1), round });
        }
    }

    pub fn next_deadline(&self) -> Option<Tick> {
        if self.out.len() >= MARKS_OUT_MAX { None } else { self.due.first().map(|(at, ..)| *at) }
    }

    /// Those that have not reached their targets.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.out.len()
    }
}
