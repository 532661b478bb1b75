//! Runs the simulator, built for speed and with every assertion on. docs/simulator.md says what it is.

use clap::Args;

use crate::run::{cargo, run};

/// Seeds that CI plays, from 1 on.
const CI_SEEDS: u64 = 500;

/// For so long CI plays fresh ones after them.
const CI_FRESH: &str = "3m";

#[derive(Args, Default)]
pub struct Options {
    /// Plays this seed only and prints the end of its trace
    #[arg(long)]
    seed: Option<u64>,
    /// Plays fresh seeds for this long: 60s, 10m, 1h
    #[arg(long = "for", value_name = "DURATION")]
    lasts: Option<String>,
    /// Plays this many fresh seeds
    #[arg(long)]
    count: Option<u64>,
    /// The first fresh seed; otherwise it follows from the time
    #[arg(long)]
    from: Option<u64>,
    /// Lines of the trace to print with --seed
    #[arg(long)]
    trace: Option<u64>,
    /// Plants a bug, to see it caught: VoteForgotten, SyncLies, LeaseIgnored, AckUncommitted, VoteUnsynced,
    /// NeverMended
    #[arg(long)]
    bug: Option<String>,
}

pub fn sim(options: &Options) -> Result<(), String> {
    let mut arguments: Vec<String> =
        ["run", "--quiet", "--locked", "--profile", "sim", "-p", "seawall-sim", "--"].map(str::to_owned).to_vec();
    let numbers =
        [("--seed", options.seed), ("--count", options.count), ("--from", options.from), ("--trace", options.trace)];
    for (name, number) in numbers {
        arguments.extend(number.into_iter().flat_map(|number| [name.to_owned(), number.to_string()]));
    }
    for (name, text) in [("--for", &options.lasts), ("--bug", &options.bug)] {
        arguments.extend(text.iter().flat_map(|text| [name.to_owned(), text.clone()]));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(&cargo(), &arguments, &[])
}

/// What CI plays: the same seeds every time, then fresh ones. A fresh one that fails may be older than the change; it is
/// kept in `crates/sim/seeds.txt` and mended all the same.
pub fn ci() -> Result<(), String> {
    sim(&Options { count: Some(CI_SEEDS), from: Some(1), ..Options::default() })?;
    sim(&Options { lasts: Some(CI_FRESH.to_owned()), ..Options::default() })
}
