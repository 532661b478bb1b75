//! What a person is told: how much waits, since when the cluster cannot be reached, what was set aside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::{Offset, TopicPartition};

use super::Options;
use crate::node::findings::{Finding, Severity};
use crate::node::{Node, time};

/// A cluster that does not answer for this long is a finding.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the log says how it stands while it waits.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Counters of one forwarder.
pub struct Status {
    to: String,
    spool_bytes: u64,
    /// The first offset of each partition that the cluster does not have.
    from: Mutex<BTreeMap<TopicPartition, Offset>>,
    trouble: Mutex<Trouble>,
    passed_on: AtomicU64,
}

#[derive(Default)]
struct Trouble {
    since: Option<Instant>,
    told: Option<Instant>,
    is_raised: bool,
}

impl Status {
    pub fn new(options: &Options) -> Self {
        Self {
            to: options.to.join(","),
            spool_bytes: options.spool_bytes,
            from: Mutex::default(),
            trouble: Mutex::default(),
            passed_on: AtomicU64::new(0),
        }
    }

    pub fn is_at(&self, partition: TopicPartition, from: Offset) {
        self.from.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, from);
    }

    pub fn passed_on(&self, records: i32) {
        self.passed_on.fetch_add(u64::try_from(records).unwrap_or(0), Ordering::Relaxed);
    }

    /// Records that were passed on by this process.
    #[cfg(test)]
    pub fn count(&self) -> u64 {
        self.passed_on.load(Ordering::Relaxed)
    }

    /// True if nothing waits.
    pub fn is_empty(&self, node: &Node) -> bool {
        self.waiting(node) == 0
    }

    /// Records that wait.
    pub fn waiting(&self, node: &Node) -> i64 {
        let from = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        let state = node.state();
        let topics = state.topics.values().filter(|topic| !topic.internal);
        let partitions = topics.flat_map(|topic| {
            (0..topic.partitions)
                .map(|index| TopicPartition { topic: topic.id, partition: base::PartitionIndex(index) })
        });
        partitions
            .filter_map(|partition| {
                let reader = node.reader(partition)?;
                let from = from.get(&partition).copied().unwrap_or_else(|| reader.start());
                Some(reader.end().0.saturating_sub(from.0).max(0))
            })
            .sum()
    }

    /// The cluster took something.
    pub fn well(&self, node: &Node) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.is_raised {
            node.all_findings().clear("forward-waiting", "cluster");
        }
        *trouble = Trouble::default();
    }

    /// The cluster took nothing, for this reason.
    pub fn ill(&self, node: &Node, cause: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *trouble.since.get_or_insert_with(Instant::now);
        let is_due = trouble.told.is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if since.elapsed() < PATIENCE || !is_due {
            return;
        }
        trouble.told = Some(Instant::now());
        trouble.is_raised = true;
        drop(trouble);
        let waiting = self.waiting(node);
        node.all_findings().raise(
            "cluster",
            Finding {
                code: "forward-waiting",
                severity: Severity::Warning,
                title: format!("{waiting} records wait in the spool: {} does not take them", self.to),
                since: time::wall(),
                impact: vec!["forward"],
                cause: cause.to_owned(),
                action: format!(
                    "nothing is lost; they are sent when it can be reached. The spool refuses further records at {} \
                     bytes (--spool-bytes)",
                    self.spool_bytes
                ),
            },
        );
    }
}
