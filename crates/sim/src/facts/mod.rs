//! What must always hold, checked after every step of a node against what all nodes ever showed.

mod control;
mod elections;
mod groups;
mod partitions;
mod whole;

pub use control::ControlFacts;
pub use elections::{Elections, View};
pub use groups::GroupFacts;
pub use partitions::PartitionFacts;

use std::collections::{BTreeMap, BTreeSet};

use base::TopicId;

use crate::trace::Violation;

/// Everything known for sure. The first promise broken ends the run.
#[derive(Debug, Default)]
pub struct Facts {
    pub violation: Option<Violation>,
    pub elections: Elections,
    pub control: ControlFacts,
    pub partitions: PartitionFacts,
    pub groups: GroupFacts,
    pub control_ids: ProducerIds,
    /// Topics acknowledged as made (true) or deleted (false), besides those every run has.
    pub topics: BTreeMap<TopicId, bool>,
    /// Topics with a committed tombstone: nothing is promised of them any more.
    pub deleted: BTreeSet<TopicId>,
}

/// Blocks of producer ids: no id is given twice.
#[derive(Debug, Default)]
pub struct ProducerIds(BTreeSet<i64>);

impl ProducerIds {
    /// A block that begins with `first` was given to someone.
    pub fn given(&mut self, first: i64) -> Result<(), String> {
        if self.0.insert(first) { Ok(()) } else { Err(format!("the block from {first} was given twice")) }
    }
}

impl Facts {
    /// Takes note of a broken promise; the first counts.
    pub fn broken(&mut self, promise: &'static str, what: String) {
        self.violation.get_or_insert(Violation { promise, what });
    }

    pub fn check(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.violation.get_or_insert(violation);
        }
    }
}

/// A broken promise, as a result.
pub(crate) fn broken<T>(promise: &'static str, what: String) -> Result<T, Violation> {
    Err(Violation { promise, what })
}
