//! What happened, as a hash that is always kept and as lines if someone wants to read them.

use std::collections::VecDeque;
use std::fmt;

use crate::random::mix;
use crate::time::At;

/// Lines kept when recording.
const LINES_MAX: usize = 400_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    #[must_use]
    pub fn new(recording: bool) -> Self {
        Self { hash: 0, events: 0, lines: recording.then(VecDeque::new) }
    }

    /// Counts an event into the hash; the line is made only if someone reads it.
    pub fn event(&mut self, at: At, facts: &[u64], line: impl FnOnce() -> String) {
        self.events += 1;
        let mut hash = mix(self.hash ^ at.0);
        for fact in facts {
            hash = mix(hash ^ fact);
        }
        self.hash = hash;
        self.note(at, line);
    }

    /// A line that is not part of the hash.
    pub fn note(&mut self, at: At, line: impl FnOnce() -> String) {
        let Some(lines) = &mut self.lines else { return };
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(format!("{:>7}.{:03} {}", at.0 / 1_000, at.0 % 1_000, line()));
    }

    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The newest lines, oldest first.
    #[must_use]
    pub fn tail(&self, count: usize) -> Vec<String> {
        let Some(lines) = &self.lines else { return Vec::new() };
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }
}

/// The first promise that was not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which promise, in a word or two: failing seeds are grouped by it.
    pub promise: &'static str,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}
