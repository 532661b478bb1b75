//! `seawall serve`: the configuration is read and checked, then the node runs in this process until it is told to stop.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::failure::Code;
use super::output::say;
use crate::config::{ConfigFlags, load};

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    flags: ConfigFlags,
}

pub fn run(args: &ServeArgs) -> ExitCode {
    let loaded = match load(&args.flags.sources()) {
        Ok(loaded) => loaded,
        Err(error) => {
            say(&format!("seawall: {error}"));
            return ExitCode::from(Code::Usage as u8);
        }
    };
    if let Err(error) = log_to_stderr(&loaded.config.telemetry.log) {
        say(&format!("seawall: telemetry.log ({:?}): {error}", loaded.config.telemetry.log));
        return ExitCode::from(Code::Usage as u8);
    }
    for note in &loaded.notes {
        tracing::warn!("{note}");
    }
    raise_open_files();
    crate::node::serve(loaded.config)
}

/// As many open files as may be: every partition has one, and another while it is written to.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        tracing::warn!(?current, ?maximum, "the limit of open files could not be raised: set ulimit -n");
    }
}

/// What the node says while it runs. Colours only for people, and not for those who set `NO_COLOR`.
pub fn log_to_stderr(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let has_colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(has_colour)
        .with_target(false)
        .with_writer(std::io::stderr)
        .try_init()
        .map_err(|error| error.to_string())
}
