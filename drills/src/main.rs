//! The binary `drills`: every drill and every bench, for developers. People have `seawall drill`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use drills::report::{self, Row};
use drills::{Common, Failure, Options, bench, catalogue, kill, play, print_rows, restart};

#[derive(Parser)]
#[command(about = "drills and benches against real seawall processes")]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The drills there are, and what each promises
    Ls(Format),
    /// Run drills: names, beginnings such as log-, or all
    Run(Run),
    /// What earlier runs gave, a line a drill
    Report(Format),
    /// A cluster for real client libraries, whose leaders are killed in turn; commanded over stdin
    Play(play::Options),
    /// SIGKILL at random moments under produce, ingestion, sealing and queries: one node
    Kill(kill::Options),
    /// SIGKILL with many rows on disk, then the time to the first right answer: one node
    Restart(restart::Options),
    /// Measures produce, ingest or query
    Bench(bench::Options),
}

#[derive(Args)]
struct Format {
    /// table or json
    #[arg(long, default_value = "table")]
    format: String,
}

#[derive(Args)]
struct Run {
    #[arg(required = true)]
    names: Vec<String>,
    /// Run each so many times, and summarise
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Long waits at their full length
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    format: Format,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Ls(format) => {
            list(format);
            Ok(())
        }
        Command::Run(options) => run(&cli.common, options),
        Command::Report(format) => {
            print_rows(
                &format.format,
                &report::SUMMARY_COLUMNS,
                &report::summary(&report::recorded(&report::record_path())),
            );
            Ok(())
        }
        Command::Play(options) => play::run(&cli.common, options),
        Command::Kill(options) => kill::run(&cli.common, options),
        Command::Restart(options) => restart::run(&cli.common, options),
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

fn list(format: &Format) {
    let rows: Vec<_> = catalogue()
        .iter()
        .map(|drill| [drill.name, drill.what, drill.promise].map(serde_json::Value::from).to_vec())
        .collect();
    print_rows(&format.format, &["name", "what", "promise"], &rows);
}

fn run(common: &Common, run: &Run) -> Result<(), Failure> {
    let options = Options {
        names: run.names.clone(),
        repeat: run.repeat,
        seed: run.seed,
        full: run.full,
        binary: common.binary()?,
        folder: common.folder.clone().unwrap_or_else(Options::temporary_folder),
        keep: common.keep,
        talk: |text| eprintln!("{text}"),
    };
    let as_rows = |row: &Row| {
        if run.format.format == "json" {
            print_rows("json", &report::COLUMNS, &[row.cells()]);
        }
    };
    let rows = drills::run(&options, as_rows)?;
    if run.format.format != "json" {
        print_rows("table", &report::COLUMNS, &rows.iter().map(Row::cells).collect::<Vec<_>>());
    }
    if run.repeat > 1 {
        print_rows(&run.format.format, &report::SUMMARY_COLUMNS, &report::summary(&rows));
    }
    let failed = rows.iter().filter(|row| !row.passed).count();
    if failed == 0 { Ok(()) } else { Err(format!("{failed} of {} runs have not passed", rows.len())) }
}
