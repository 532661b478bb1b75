//! `seawall forward`: a spool beside the program that makes events.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::failure::Code;
use super::output::say;
use crate::config::{ByteSize, Value};
use crate::forward::{self, Options, Tail};

#[derive(Debug, Args)]
pub struct ForwardArgs {
    /// The cluster: one or more host:port, separated by commas
    #[arg(long, value_name = "HOST:PORT,..", value_delimiter = ',', required = true)]
    to: Vec<String>,
    /// Folder in which records wait; one process at a time uses it
    #[arg(long, value_name = "DIR", default_value = "seawall-spool")]
    spool: PathBuf,
    /// Bytes that may wait; above this producers are told to try again
    #[arg(long, value_name = "SIZE", default_value = "10GiB", value_parser = ByteSize::parse)]
    spool_bytes: ByteSize,
    /// Where Kafka clients on this machine connect
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9092")]
    kafka: SocketAddr,
    /// Serve health, metrics and findings over HTTP
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// Follow a file: each line becomes a record of the topic; may be given more than once
    #[arg(long = "tail", value_name = "TOPIC=FILE", value_parser = tail)]
    tails: Vec<Tail>,
    /// Take lines from stdin into this topic; the command ends when all of them have been passed on
    #[arg(long, value_name = "TOPIC")]
    stdin: Option<String>,
    /// Accept addresses other machines can reach although nothing is encrypted
    #[arg(long)]
    insecure: bool,
    /// What is written to stderr: error, warn, info, debug
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

fn tail(text: &str) -> Result<Tail, String> {
    let (topic, path) = text.split_once('=').ok_or("needs TOPIC=FILE")?;
    control::topic::check_name(topic).map_err(|error| error.to_string())?;
    if path.is_empty() {
        return Err("names no file after the =".to_owned());
    }
    Ok(Tail { topic: topic.to_owned(), path: PathBuf::from(path) })
}

pub fn run(args: ForwardArgs) -> ExitCode {
    if let Err(cause) = check(&args) {
        say(&format!("seawall: {cause}"));
        return ExitCode::from(Code::Usage as u8);
    }
    if let Err(error) = super::serve::log_to_stderr(&args.log) {
        say(&format!("seawall: --log ({:?}): {error}", args.log));
        return ExitCode::from(Code::Usage as u8);
    }
    forward::forward(Options {
        to: args.to,
        spool: args.spool,
        spool_bytes: args.spool_bytes.0,
        kafka: args.kafka,
        http: args.http,
        tails: args.tails,
        stdin: args.stdin,
        insecure: args.insecure,
    })
}

fn check(args: &ForwardArgs) -> Result<(), String> {
    for (flag, address) in [("--kafka", Some(args.kafka)), ("--http", args.http)] {
        if let Some(address) = address.filter(|address| !address.ip().is_loopback() && !args.insecure) {
            return Err(format!(
                "{flag} {address} can be reached from other machines, and nothing is encrypted: listen on 127.0.0.1, or \
                 say --insecure if the network around it is trusted"
            ));
        }
    }
    if let Some(wrong) = args.to.iter().find(|address| !address.contains(':')) {
        return Err(format!("--to {wrong}: needs host:port"));
    }
    if args.to.contains(&args.kafka.to_string()) {
        return Err(format!("--to {} is the address of --kafka: it would forward to itself", args.kafka));
    }
    let paths: std::collections::BTreeSet<_> = args.tails.iter().map(|tail| &tail.path).collect();
    if paths.len() != args.tails.len() {
        return Err("--tail names a file twice: its lines would be there twice".to_owned());
    }
    Ok(())
}
