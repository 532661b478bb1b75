//! `seawall sql`: statements over HTTP, from the command line, a file, standard input, or typed into a shell.
//!
//! ```text
//! http      requests to a node, the lines of an answer as they come     show     rows in the chosen format
//! run       one statement: progress, Ctrl-C cancels it on the node      shell    the interactive loop, complete: names
//! ```
//! What always holds: rows go to stdout and everything else to stderr; an answer that was cut off is a failure, never a
//! shorter answer; Ctrl-C stops the query that runs and, in the shell, nothing else.

mod complete;
pub mod http;
mod run;
mod shell;
mod show;

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::failure::{Code, Failure};
use super::output::{self, FormatArgs};
use crate::edge::postgres::statements::split;
use http::{Http, HttpArgs};
use run::{Outcome, Runner};

/// Largest file of statements.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// What a process killed by Ctrl-C exits with.
const INTERRUPTED: u8 = 130;

/// Options of `seawall sql`.
#[derive(Args, Clone, Debug)]
pub struct SqlArgs {
    /// Run these statements and exit
    #[arg(short = 'c', long = "command", value_name = "SQL", conflicts_with = "file")]
    command: Option<String>,
    /// Run the statements of a file and exit; - is standard input
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Time zone of timestamps, as Asia/Seoul
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// Say how long each statement took
    #[arg(long)]
    timing: bool,
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// Runs the command.
pub fn run(args: &SqlArgs) -> ExitCode {
    match begin(args) {
        Ok(code) => code,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::say(&format!("seawall: {}", failure.message));
            }
            failure.exit_code()
        }
    }
}

fn begin(args: &SqlArgs) -> Result<ExitCode, Failure> {
    let http = Http::new(&args.http)?;
    let mut runner = Runner::new(http, args.format.chosen())?;
    runner.timing = args.timing;
    runner.set("sqlTimeZone", args.timezone.as_deref());
    let text = match (&args.command, &args.file) {
        (Some(command), _) => command.clone(),
        (None, Some(file)) => read(file)?,
        (None, None) if std::io::stdin().is_terminal() => return shell::shell(runner).map(|()| ExitCode::SUCCESS),
        (None, None) => read(&PathBuf::from("-"))?,
    };
    for statement in split(&text) {
        if let Outcome::Interrupted = runner.run(statement)? {
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &PathBuf) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| Failure::new(Code::Failure, format!("{}: {error}", file.display()));
    let mut text = String::new();
    let source: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(unreadable)?)
    };
    let bytes = source.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("{}: more than {FILE_BYTES_MAX} bytes", file.display())));
    }
    Ok(text)
}
