//! The promised figures, once.

use std::time::Duration;

use crate::trial::{Evidence, Trial};

/// Longest time a producer may go without an acknowledgement when a leader is lost.
pub const STALL_MAX: Duration = Duration::from_millis(2_000);
/// What counts as no stall at all on a busy machine.
pub const NO_STALL: Duration = Duration::from_millis(500);
/// A leader that lost its majority acknowledges nothing after this.
pub const LEASE_MAX: Duration = Duration::from_millis(500);

/// Nothing acknowledged is lost.
pub fn nothing_lost(trial: &mut Trial<'_>, evidence: &Evidence) {
    let counts = &evidence.counts;
    trial.promise(counts.lost == 0, || format!("{} acknowledged records are lost", counts.lost));
}

/// Nothing acknowledged is lost, nor only rescued.
pub fn nothing_missing(trial: &mut Trial<'_>, evidence: &Evidence) {
    nothing_lost(trial, evidence);
    let rescued = evidence.counts.rescued;
    trial.promise(rescued == 0, || format!("{rescued} acknowledged records are only in lost+found"));
}

pub fn write_gap_at_most(trial: &mut Trial<'_>, gap: Duration, most: Duration) {
    trial.promise(gap <= most, || {
        format!("a producer went {} ms without an acknowledgement, {} are promised", gap.as_millis(), most.as_millis())
    });
}

/// The longest write gap of any producer within `from..until`.
pub fn write_gap(evidence: &Evidence, from: Duration, until: Duration) -> Duration {
    evidence.tallies.iter().map(|tally| tally.write_gap(from, until)).max().unwrap_or_default()
}
