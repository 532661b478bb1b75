//! Plays seeds: one, the list that failed before, or fresh ones.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::node::Bug;
use crate::plan::Plan;
use crate::trace::Violation;
use crate::world::{Outcome, World};

/// Seeds that once failed, run before all others. A line is a number; `#` and what follows says what it found.
const SEEDS: &str = include_str!("../seeds.txt");

/// Plays one seed.
#[must_use]
pub fn play(seed: u64, bug: Bug, recording: bool) -> Outcome {
    play_plan(Plan::of(seed, bug), recording)
}

/// Plays a plan. A panic of a room is a violation too.
#[must_use]
pub fn play_plan(plan: Plan, recording: bool) -> Outcome {
    let seed = plan.seed;
    catch_unwind(AssertUnwindSafe(|| World::new(plan, recording).run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Outcome {
            seed,
            violation: Some(Violation { promise: "no panic", what: text.unwrap_or_default() }),
            hash: 0,
            events: 0,
            healed_ms: None,
            summary: String::new(),
            tail: Vec::new(),
        }
    })
}

/// The seeds of `seeds.txt`.
#[must_use]
pub fn known_seeds() -> Vec<u64> {
    let lines = SEEDS.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter_map(|line| line.parse().ok()).collect()
}
