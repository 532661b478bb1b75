//! What the owner does when its disk lets it down, and how it says so.

use base::{Tick, TopicPartition};
use log::{AppendError, Stopped};

use super::LogsError;
use super::owner::{Owner, partition_dir};
use crate::node::findings::{Finding, Severity};
use crate::node::time;

/// Longer than the longest timeout a transaction may have (15 minutes), and the time its end may take.
const TRANSACTION_MS_MAX: i64 = 20 * 60_000;
/// A partition that takes no writes.
pub(super) const STOPPED: &str = "partition-stopped";

impl Owner {
    /// A write failed: this partition is out, the others go on.
    pub(super) fn partition_stopped(&mut self, id: TopicPartition, stopped: &Stopped) {
        self.findings.raise(
            &partition_dir(id),
            Finding {
                code: STOPPED,
                severity: Severity::Critical,
                title: format!("partition {id} takes no writes; what it holds is served"),
                since: time::wall(),
                impact: vec!["log", "ingest"],
                cause: stopped.to_string(),
                action: "check the disk (dmesg, smartctl); then restart the node".into(),
            },
        );
        // Whoever takes no write stands for nothing, and has to be replaced.
        self.awaken(id);
        if let Some(slot) = self.partitions.get_mut(&id) {
            slot.waiters.fail(&LogsError::Append(AppendError::Stopped(stopped.clone())));
        }
        self.touch(id);
    }

    /// A transaction open for longer than any may be: its coordinator should have aborted it.
    pub(super) fn look_at_transactions(&mut self) {
        let wall = time::wall();
        for (id, slot) in &mut self.partitions {
            let oldest = slot.partition.oldest_transaction();
            let hanging = oldest.filter(|open| wall.0.saturating_sub(open.since.0) > TRANSACTION_MS_MAX);
            let subject = partition_dir(*id);
            let Some(open) = hanging else {
                if std::mem::take(&mut slot.hangs) {
                    self.findings.clear("transaction-hangs", &subject);
                }
                continue;
            };
            slot.hangs = true;
            let (producer, first) = (open.producer, open.first);
            self.findings.raise(
                &subject,
                Finding {
                    code: "transaction-hangs",
                    severity: Severity::Warning,
                    title: format!("a transaction of producer {producer} in partition {id} does not end"),
                    since: open.since,
                    impact: vec!["ingest", "query"],
                    cause: format!(
                        "it began at offset {first}; consumers of committed transactions and tables wait there, and no file from there on is removed"
                    ),
                    action: "look at the coordinator of its transactional id (kafka-transactions.sh describe, find-hanging)"
                        .into(),
                },
            );
        }
    }

    /// A failed fsync: the whole disk is out, for good.
    pub(super) fn stop(&mut self, stopped: Stopped) {
        self.findings.raise(
            "log",
            Finding {
                code: "log-stopped",
                severity: Severity::Critical,
                title: "the log takes no writes: its disk failed to sync".into(),
                since: time::wall(),
                impact: vec!["log", "ingest"],
                cause: stopped.to_string(),
                action: "check the disk (dmesg, smartctl); replace it if it is bad; then restart the node".into(),
            },
        );
        self.fall_silent();
        let error = LogsError::Append(AppendError::Stopped(stopped.clone()));
        self.partitions.values_mut().for_each(|slot| slot.waiters.fail(&error));
        // The other replicas find out by this one's silence; whoever asks here is sent to them.
        let ids: Vec<TopicPartition> = self.partitions.keys().copied().collect();
        ids.into_iter().for_each(|id| self.touch(id));
        self.stopped = Some(stopped);
    }

    pub(super) fn check_space(&mut self, now: Tick) {
        self.checked_space = now;
        if let Some(bytes_max) = self.config.bytes_max {
            self.check_bytes(bytes_max);
        }
        let Ok(free) = self.disk.free_bytes() else { return };
        self.open.free_bytes.store(free, std::sync::atomic::Ordering::Relaxed);
        let reserve = self.config.reserve_bytes;
        if free < reserve {
            self.full = true;
            self.findings.raise(
                "log",
                Finding {
                    code: "disk-full",
                    severity: Severity::Critical,
                    title: "produce is refused: the disk is almost full".into(),
                    since: time::wall(),
                    impact: vec!["log", "ingest"],
                    cause: format!("{free} bytes are free, {reserve} are kept in reserve (log.disk_reserve_bytes)"),
                    action: "free space or enlarge the disk; writes resume by themselves".into(),
                },
            );
        } else if self.full && free > reserve.saturating_add(reserve / 2) {
            self.full = false;
            self.findings.clear("disk-full", "log");
        }
    }

    /// The log's own bound. Room for a tenth must be there before writes are taken again.
    fn check_bytes(&mut self, bytes_max: u64) {
        let bytes: u64 = self.partitions.values().map(|slot| slot.partition.reader().size_bytes()).sum();
        if bytes > bytes_max {
            self.over = true;
            self.findings.raise(
                "log-bytes",
                Finding {
                    code: "log-full",
                    severity: Severity::Critical,
                    title: "produce is refused: the log has the size that it may have".into(),
                    since: time::wall(),
                    impact: vec!["log", "ingest"],
                    cause: format!("{bytes} bytes in all partitions, {bytes_max} are allowed (log.bytes_max)"),
                    action: "wait until records are passed on or deleted, or raise the bound".into(),
                },
            );
        } else if self.over && bytes <= bytes_max - bytes_max / 10 {
            self.over = false;
            self.findings.clear("log-full", "log-bytes");
        }
    }
}

pub(super) fn broken_finding(dir: &str, error: &log::OpenError) -> Finding {
    Finding {
        code: "partition-damaged",
        severity: Severity::Critical,
        title: format!("partition {dir} is not served: its log is damaged"),
        since: time::wall(),
        impact: vec!["log", "ingest"],
        cause: error.to_string(),
        action: "restore the partition's folder from a copy, or delete the topic; the other partitions are served"
            .into(),
    }
}
