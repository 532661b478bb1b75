//! Real seawall processes: killed and counted, or measured. They are touched through their ports only.
//!
//! ```text
//! server   one process in a folder of its own: start, kill, stop, sizes
//! http     the few requests the drills make
//! ledger   what was acknowledged, so that it can be looked for afterwards
//! disk     a full disk and a failed fsync under a real process
//! kill     SIGKILL at random moments under load; nothing acknowledged may be missing
//! bench/   produce, ingest and query, with percentiles
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

mod bench;
mod disk;
mod http;
mod kill;
mod ledger;
mod random;
mod restart;
mod server;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Anything that went wrong, in words.
pub type Failure = String;

#[derive(Parser)]
#[command(about = "drills and benches against real seawall processes")]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every drill needs.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// The binary; default: beside this program
    #[arg(long, global = true)]
    seawall: Option<PathBuf>,
    /// Where the server keeps its data; default: a new folder below the system's temporary folder
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
    /// Do not remove the folder at the end
    #[arg(long, global = true)]
    keep: bool,
}

#[derive(Subcommand)]
enum Command {
    /// SIGKILL at random moments under produce, ingestion, sealing and queries
    Kill(kill::Options),
    /// SIGKILL with many rows on disk, then the time to the first right answer
    Restart(restart::Options),
    /// A disk that fills up, and one that fails to sync
    Disk(disk::Options),
    /// Measures produce, ingest or query
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Kill(options) => kill::run(&cli.common, options),
        Command::Restart(options) => restart::run(&cli.common, options),
        Command::Disk(options) => disk::run(&cli.common, options),
        Command::Bench(options) => bench::run(&cli.common, options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("drills: {failure}");
            ExitCode::FAILURE
        }
    }
}
