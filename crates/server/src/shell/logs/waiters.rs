//! Who waits for an offset to become durable, in offset order, each with a deadline.

use std::collections::VecDeque;

use base::{Offset, Tick};
use log::Appended;

use super::{LogsError, Reply};

/// The acks=all waiters of one partition.
#[derive(Default)]
pub(super) struct Waiters {
    waiting: VecDeque<(Appended, Tick, Reply<Appended>)>,
}

impl Waiters {
    pub fn push(&mut self, appended: Appended, deadline: Tick, reply: Reply<Appended>) {
        self.waiting.push_back((appended, deadline, reply));
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Answers everyone whose records are below `committed`. A duplicate may stand before a lower offset that is
    /// already durable, so all are looked at, not only the front.
    pub fn release(&mut self, committed: Offset) {
        let waiting = std::mem::take(&mut self.waiting);
        for (appended, deadline, reply) in waiting {
            if appended.next_offset <= committed {
                answer(reply, Ok(appended));
            } else {
                self.waiting.push_back((appended, deadline, reply));
            }
        }
    }

    /// Answers everyone whose time is up.
    pub fn expire(&mut self, now: Tick) {
        if self.waiting.iter().all(|(_, deadline, _)| *deadline > now) {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        for (appended, deadline, reply) in waiting {
            if deadline <= now {
                answer(reply, Err(LogsError::Timeout));
            } else {
                self.waiting.push_back((appended, deadline, reply));
            }
        }
    }

    /// Answers everyone with `error`.
    pub fn fail(&mut self, error: &LogsError) {
        for (_, _, reply) in self.waiting.drain(..) {
            answer(reply, Err(error.clone()));
        }
    }
}

/// Sends an answer; whoever asked may have gone.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T, LogsError>) {
    drop(reply.send(result));
}
