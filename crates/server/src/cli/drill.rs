//! `seawall drill`: a failure game day on a throw-away cluster of this very binary. The engine is the room `drills`.

use clap::{Args, Subcommand};
use drills::report::{self, Row};
use serde_json::Value;

use super::failure::{Code, Failure};
use super::output::{Format, FormatArgs, say};

#[derive(Debug, Subcommand)]
pub enum DrillCommand {
    /// The drills there are: what happens and what is promised
    Ls(FormatArgs),
    /// Run drills on a cluster of processes on this machine; ends with code 10 if one has not passed
    Run(Run),
    /// What earlier runs on this machine gave, a line a drill
    Report(FormatArgs),
}

#[derive(Debug, Args)]
pub struct Run {
    /// Names, beginnings such as log-, or all
    #[arg(required = true)]
    names: Vec<String>,
    /// Run each so many times, and summarise
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Long waits at their full length: minutes instead of seconds
    #[arg(long)]
    full: bool,
    /// Keep the folders of all runs; those of runs that did not pass are kept anyhow
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    format: FormatArgs,
}

pub fn run(command: &DrillCommand) -> Result<(), Failure> {
    match command {
        DrillCommand::Ls(format) => {
            let row = |drill: &drills::Drill| [drill.name, drill.what, drill.promise].map(Value::from).to_vec();
            let rows: Vec<_> = drills::catalogue().iter().map(row).collect();
            format.show(&["name", "what", "promise"], &rows)
        }
        DrillCommand::Run(args) => run_drills(args),
        DrillCommand::Report(format) => {
            let rows = report::summary(&report::recorded(&report::record_path()));
            format.show(&report::SUMMARY_COLUMNS, &rows)
        }
    }
}

fn run_drills(args: &Run) -> Result<(), Failure> {
    let options = drills::Options {
        names: args.names.clone(),
        repeat: args.repeat,
        seed: args.seed,
        full: args.full,
        binary: std::env::current_exe()?,
        folder: drills::Options::temporary_folder(),
        keep: args.keep,
        talk: say,
    };
    // A row a line is shown as soon as it is there; the other formats are of all rows.
    let at_once = args.format.chosen() == Format::Ndjson;
    let mut shown = Ok(());
    let rows = drills::run(&options, |row| {
        if at_once && shown.is_ok() {
            shown = args.format.show(&report::COLUMNS, &[row.cells()]);
        }
    });
    let rows = rows.map_err(|failure| Failure::new(Code::Failure, failure))?;
    shown?;
    if !at_once {
        args.format.show(&report::COLUMNS, &rows.iter().map(Row::cells).collect::<Vec<_>>())?;
    }
    if args.repeat > 1 {
        let is_table = args.format.chosen() == Format::Table;
        // Programs that read rows do not expect a second kind of row.
        let lines = report::summary(&rows);
        if is_table {
            args.format.show(&report::SUMMARY_COLUMNS, &lines)?;
        } else {
            lines.iter().for_each(|line| say(&summary_in_words(line)));
        }
    }
    let failed = rows.iter().filter(|row| !row.passed).count();
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::new(Code::Unhealthy, format!("{failed} of {} runs have not passed", rows.len())))
}

fn summary_in_words(line: &[Value]) -> String {
    let cells = report::SUMMARY_COLUMNS.iter().zip(line).map(|(name, cell)| match cell {
        Value::String(text) => format!("{name} {text}"),
        other => format!("{name} {other}"),
    });
    cells.collect::<Vec<_>>().join(", ")
}
