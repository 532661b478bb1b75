//! Seeds that failed before, a fixed set, and fresh ones for a while; one seed twice; planted bugs.
//!
//! `SEAWALL_SIM_SECONDS` says how long fresh seeds are played (10 unless told).
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "a test says which seeds it drew")]
#![allow(clippy::disallowed_methods, reason = "how long to play is asked of the clock, and nothing else")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sim::{Bug, Outcome, runner};

/// Always played, whatever else is.
const FIXED: std::ops::RangeInclusive<u64> = 1..=10;
const FRESH_SECONDS: u64 = 10;
/// A planted bug that this many seeds do not catch is a hole in the checkers.
const CANARY_SEEDS: u64 = 60;

fn is_clean(outcome: &Outcome) {
    let Outcome { seed, violation, summary, .. } = outcome;
    assert_eq!(*violation, None, "seed {seed} ({summary}); its trace: cargo xtask sim --seed {seed}");
}

#[test]
fn seeds_that_failed_before_are_clean() {
    runner::known_seeds().into_iter().for_each(|seed| is_clean(&runner::play(seed, Bug::None, false)));
}

#[test]
fn a_fixed_set_of_seeds_is_clean() {
    FIXED.for_each(|seed| is_clean(&runner::play(seed, Bug::None, false)));
}

#[test]
fn fresh_seeds_are_clean() {
    let told = std::env::var("SEAWALL_SIM_SECONDS").ok().and_then(|text| text.parse().ok());
    let lasts = Duration::from_secs(told.unwrap_or(FRESH_SECONDS));
    let started = Instant::now();
    let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() * 1_000_000;
    let mut seed = first;
    while started.elapsed() < lasts {
        is_clean(&runner::play(seed, Bug::None, false));
        seed += 1;
    }
    eprintln!("{} fresh seeds from {first}", seed - first);
}

#[test]
fn one_seed_is_one_history() {
    for seed in [7, 77, 7_777] {
        let (first, second) = (runner::play(seed, Bug::None, false), runner::play(seed, Bug::None, true));
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
        assert_eq!(first.summary, second.summary, "seed {seed}");
        assert!(first.events > 1_000, "seed {seed} does too little: {first:?}");
    }
    assert_ne!(runner::play(1, Bug::None, false).hash, runner::play(2, Bug::None, false).hash);
}

/// Canaries: if one of these is not caught by the checker that is there for it, that checker is asleep.
fn is_caught(bug: Bug, promises: &[&str]) {
    let mut others = Vec::new();
    for seed in 1..=CANARY_SEEDS {
        match runner::play(seed, bug, false).violation {
            Some(found) if promises.contains(&found.promise) => return,
            Some(found) => others.push((seed, found)),
            None => {}
        }
    }
    panic!("{bug:?} was not caught as {promises:?} by {CANARY_SEEDS} seeds; found was {others:?}");
}

#[test]
fn a_vote_that_is_not_kept_is_caught() {
    is_caught(
        Bug::VoteForgotten,
        &[
            "election safety",
            "log matching",
            "committed never changes",
            "leader completeness",
            "durable",
            "term goes back",
            "durable votes",
        ],
    );
}

#[test]
fn an_fsync_that_lies_is_caught() {
    is_caught(
        Bug::SyncLies,
        &[
            "durable",
            "committed never changes",
            "leader completeness",
            "election safety",
            "log matching",
            "opens",
            "starts",
            "no panic",
            "no offset with two payloads",
        ],
    );
}

#[test]
fn acknowledging_without_a_lease_is_caught() {
    is_caught(Bug::LeaseIgnored, &["acked(1) by a deposed leader"]);
}

#[test]
fn acknowledging_what_is_not_committed_is_caught() {
    is_caught(Bug::AckUncommitted, &["acked(all)"]);
}

/// Mostly the votes' own file says so at the next start: what was to be durable is torn.
#[test]
fn a_vote_that_a_power_loss_takes_back_is_caught() {
    is_caught(Bug::VoteUnsynced, &["durable votes", "election safety", "starts"]);
}

#[test]
fn damage_that_nobody_mends_is_caught() {
    is_caught(Bug::NeverMended, &["heals", "readable"]);
}
