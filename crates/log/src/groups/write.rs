//! Writes that are out, and what each is for.

use std::collections::BTreeMap;

use base::{ProducerEpoch, ProducerId, Tick};
use bytes::Bytes;

use super::coordinator::{Ticket, WriteId};
use super::limits::WRITE_MS_MAX;
use super::record::Place;
use super::request::{Committed, Response};

/// Who waits for a write, and what is answered after it.
#[derive(Debug)]
pub struct Reply {
    pub ticket: Ticket,
    pub done: Response,
    pub failed: Response,
}

/// What becomes true when a write is durable.
#[derive(Debug)]
pub enum What {
    /// A group has these offsets.
    Offsets { group: String, offsets: Vec<(Place, Committed)> },
    /// A group has these offsets of a transaction.
    Pending { group: String, producer: ProducerId, epoch: ProducerEpoch, offsets: Vec<(Place, Committed)> },
    /// A transaction's offsets are the group's, or gone.
    End { group: String, producer: ProducerId, commit: bool, mark: (u64, u64) },
    /// A group's record is this one. If it is the assignment that members wait for, they are answered.
    Group { group: String, record: Bytes },
    /// These offsets and groups are gone.
    Removal { offsets: Vec<(String, Place)>, groups: Vec<String> },
}

#[derive(Debug)]
pub struct Write {
    pub what: What,
    /// Taken when the requester has been answered.
    pub reply: Option<Reply>,
    deadline: Tick,
}

/// The writes that are out, in the order they were made; their deadlines ascend with them.
#[derive(Debug, Default)]
pub struct Writes {
    last: u64,
    open: BTreeMap<WriteId, Write>,
    /// Deadlines at or below this write have passed.
    late: WriteId,
}

impl Writes {
    pub fn open(&mut self, now: Tick, what: What, reply: Option<Reply>) -> WriteId {
        self.last += 1;
        let id = WriteId(self.last);
        self.open.insert(id, Write { what, reply, deadline: now.plus(WRITE_MS_MAX) });
        id
    }

    pub fn close(&mut self, id: WriteId) -> Option<Write> {
        self.open.remove(&id)
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// The next write whose deadline has passed and that has not been returned here before.
    pub fn pop_late(&mut self, now: Tick) -> Option<(WriteId, &mut Write)> {
        let (id, write) = self.open.range_mut(self.late.next()..).next()?;
        if write.deadline > now {
            return None;
        }
        self.late = *id;
        Some((*id, write))
    }

    pub fn next_deadline(&self) -> Option<Tick> {
        self.open.range(self.late.next()..).next().map(|(_, write)| write.deadline)
    }
}
