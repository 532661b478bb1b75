//! What is wrong right now, in one shape for health, the page, the shell and logs.

use std::collections::BTreeMap;
use std::sync::Mutex;

use base::Timestamp;
use serde::Serialize;

/// How much it matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Warning,
    /// Someone must act.
    Critical,
}

/// One thing that is wrong: what, since when, who is hurt, why, what to do.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Finding {
    /// Stable: `disk-full`, `log-stopped`.
    pub code: &'static str,
    pub severity: Severity,
    pub title: String,
    pub since: Timestamp,
    /// What does not work meanwhile: `ingest`, `query`, `log`, `publish`.
    pub impact: Vec<&'static str>,
    pub cause: String,
    pub action: String,
}

/// Most findings kept at once; further ones are counted only in the log.
const FINDINGS_MAX: usize = 256;

/// The findings of a node, by code and subject.
#[derive(Debug, Default)]
pub struct Findings {
    open: Mutex<BTreeMap<(&'static str, String), Finding>>,
}

impl Findings {
    /// Opens a finding about `subject`, or refreshes it and keeps its `since`.
    pub fn raise(&self, subject: &str, finding: Finding) {
        let mut open = self.lock();
        let key = (finding.code, subject.to_owned());
        if let Some(before) = open.get_mut(&key) {
            let since = before.since;
            *before = Finding { since, ..finding };
            return;
        }
        tracing::warn!(code = finding.code, subject, cause = %finding.cause, action = %finding.action, "{}", finding.title);
        if open.len() < FINDINGS_MAX {
            open.insert(key, finding);
        }
    }

    /// Closes the finding about `subject`, if it is open.
    pub fn clear(&self, code: &'static str, subject: &str) {
        if self.lock().remove(&(code, subject.to_owned())).is_some() {
            tracing::info!(code, subject, "recovered");
        }
    }

    /// Worst first, then oldest.
    pub fn list(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = self.lock().values().cloned().collect();
        all.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.since));
        all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(&'static str, String), Finding>> {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
