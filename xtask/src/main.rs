//! The developer's commands: `cargo xtask check | test | ci | sim | bench`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

mod bench;
mod check;
mod ci;
mod run;
mod sim;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "developer commands of Seawall")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The house rules, in seconds: arrows between rooms, homes of crates, file sizes, formatting.
    Check,
    /// Everything that is tested without a peer: unit, integration, SQL, and a real server process.
    Test {
        /// Only the rooms that do not need DataFusion; seconds after the first build.
        #[arg(long)]
        quick: bool,
    },
    /// What CI runs: check, clippy with warnings as errors, test.
    Ci,
    /// Whole clusters under one seed, with faults: the seeds that failed before, then fresh ones.
    Sim(sim::Options),
    /// Measures the release build: produce, ingest, query, or all.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Check => check::check(),
        Command::Test { quick } => ci::test(quick),
        Command::Ci => ci::ci(),
        Command::Sim(options) => sim::sim(&options),
        Command::Bench(options) => bench::bench(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
