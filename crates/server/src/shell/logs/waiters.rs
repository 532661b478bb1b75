//! Who waits for an offset to become durable, in offset order, each with a deadline.

use std::collections::VecDeque;

use base::{Offset, Tick};
use log::Appended;

use super::{LogsError, Reply};

/// What a waiter waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Until {
    Committed,
    /// That the leader knows that it still leads.
    Lease,
}

struct Waiter {
    appended: Appended,
    until: Until,
    deadline: Tick,
    reply: Reply<Appended>,
}

/// The waiters of one partition.
#[derive(Default)]
pub(super) struct Waiters {
    waiting: VecDeque<Waiter>,
}

impl Waiters {
    pub fn push(&mut self, appended: Appended, until: Until, deadline: Tick, reply: Reply<Appended>) {
        self.waiting.push_back(Waiter { appended, until, deadline, reply });
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn wants_lease(&self) -> bool {
        self.waiting.iter().any(|waiter| waiter.until == Until::Lease)
    }

    /// Answers everyone whose records are below `committed`. A duplicate may stand before a lower offset that is
    /// already durable, so all are looked at, not only the front.
    pub fn release(&mut self, committed: Offset) {
        self.answer_those(|waiter| (waiter.appended.next_offset <= committed).then_some(Ok(waiter.appended)));
    }

    /// Answers everyone who waits for the lease: it is valid now. Returns what they were told, each `[from, to)`.
    pub fn release_leased(&mut self) -> Vec<(Offset, Offset)> {
        let mut told = Vec::new();
        self.answer_those(|waiter| {
            (waiter.until == Until::Lease).then(|| {
                told.push((waiter.appended.base_offset, waiter.appended.next_offset));
                Ok(waiter.appended)
            })
        });
        told
    }

    /// Answers with `error` everyone whose records reach beyond `from`.
    pub fn fail_from(&mut self, from: Offset, error: &LogsError) {
        self.answer_those(|waiter| (waiter.appended.next_offset > from).then(|| Err(error.clone())));
    }

    /// Answers everyone whose time is up.
    pub fn expire(&mut self, now: Tick) {
        self.answer_those(|waiter| (waiter.deadline <= now).then_some(Err(LogsError::Timeout)));
    }

    /// Answers everyone with `error`.
    pub fn fail(&mut self, error: &LogsError) {
        self.answer_those(|_| Some(Err(error.clone())));
    }

    fn answer_those(&mut self, mut judge: impl FnMut(&Waiter) -> Option<Result<Appended, LogsError>>) {
        let mut at = 0;
        while let Some(waiter) = self.waiting.get(at) {
            match judge(waiter) {
                None => at += 1,
                Some(result) => {
                    if let Some(waiter) = self.waiting.remove(at) {
                        answer(waiter.reply, result);
                    }
                }
            }
        }
    }
}

/// Sends an answer; whoever asked may have gone.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T, LogsError>) {
    drop(reply.send(result));
}
