//! The commands: a tree of them, how their answers are shown, and the codes they exit with.
//!
//! ```text
//! serve, demo, forward            the node in this process
//! topic, group, ingest            over the Kafka port (--bootstrap)
//! table, status, sql, cluster,
//! haadmin                         over the HTTP port (--url)
//! drill                           processes of its own
//! config, completion, version     nothing
//! ```
//! Data goes to stdout, talk and progress to stderr. Exit codes: 0 ok, 1 failure, 2 usage, 3 cannot connect, 4 denied,
//! 5 not found, 6 conflict, 7 timeout, 10 unhealthy, 130 interrupted.

mod certificates;
mod cluster;
mod demo;
mod drill;
mod failure;
mod forward;
mod group;
mod haadmin;
mod ingest;
mod output;
mod producer;
mod recovery;
mod remote;
mod routed;
mod serve;
mod settings;
mod sql;
mod status;
mod table;
mod topic;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use failure::{Code, Failure};
use output::FormatArgs;

/// Takes events from any Kafka client and answers SQL over them.
#[derive(Debug, Parser)]
#[command(name = "seawall", version, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node
    Serve(serve::ServeArgs),
    /// Try it out: a throw-away cluster with live data, answers, lines to connect with, and ways to break it
    Demo(demo::DemoArgs),
    /// Take events beside the program that makes them, keep them on disk, and pass them on to a cluster
    Forward(forward::ForwardArgs),
    /// Ask with SQL: one statement, a file, or a shell
    Sql(sql::SqlArgs),
    /// Topics: their partitions, settings and records
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Consumer groups and what they have read
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Tables: what SQL is asked about
    #[command(subcommand)]
    Table(table::TableCommand),
    /// Put a file's rows into a table
    Ingest(ingest::Ingest),
    /// One look at a node; ends with code 10 if it is not well
    Status(status::StatusArgs),
    /// The nodes, the active master, the partitions' leaders
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// The active master in Tajo's spelling: -getState, -transitionToActive, -transitionToBackup, -formatHA
    Haadmin(haadmin::HaadminArgs),
    /// Break a throw-away cluster on purpose and count what is lost
    #[command(subcommand)]
    Drill(drill::DrillCommand),
    /// The settings of a node
    #[command(subcommand)]
    Config(settings::ConfigCommand),
    /// Print the completion script of a shell
    Completion { shell: clap_complete::Shell },
    /// Print the version
    Version(FormatArgs),
}

/// Runs the command of this process's arguments.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse_from(std::env::args_os().map(haadmin::with_two_dashes)) {
        Ok(cli) => cli,
        Err(error) => {
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { Code::Usage as u8 } else { 0 });
        }
    };
    let done = match cli.command {
        Command::Serve(args) => return serve::run(&args),
        Command::Forward(args) => return forward::run(args),
        Command::Demo(args) => {
            drop(serve::log_to_stderr("warn"));
            return demo::run(&args);
        }
        Command::Sql(args) => return sql::run(&args),
        Command::Topic(command) => topic::run(&command),
        Command::Group(command) => group::run(&command),
        Command::Table(command) => table::run(&command),
        Command::Ingest(args) => ingest::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Cluster(command) => cluster::run(&command),
        Command::Haadmin(args) => haadmin::run(&args),
        Command::Drill(command) => drill::run(&command),
        Command::Config(command) => settings::run(&command),
        Command::Completion { shell } => completion(shell),
        Command::Version(format) => version(&format),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::say(&format!("seawall: {}", failure.message));
            }
            failure.exit_code()
        }
    }
}

fn completion(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "seawall", &mut script);
    output::stdout(&script)
}

fn version(format: &FormatArgs) -> Result<(), Failure> {
    if format.format.is_none() {
        return output::stdout(format!("seawall {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
    }
    format.show(&["name", "version"], &[vec!["seawall".into(), env!("CARGO_PKG_VERSION").into()]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }
}
