//! `topic lost ls | republish | drop`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::failure::{Code, Failure};
use crate::cli::output::{FormatArgs, confirm, say};
use crate::cli::remote::HttpArgs;

#[derive(Debug, Subcommand)]
pub enum LostCommand {
    /// List the batches in lost+found on all nodes
    Ls(List),
    /// Append kept batches to their partition again, each once; those of transactions stay
    Republish(Which),
    /// Give kept batches up for good
    Drop(Which),
}

#[derive(Debug, Args)]
pub struct List {
    /// Of this topic only
    topic: Option<String>,
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, Args)]
pub struct Which {
    topic: String,
    /// Of this partition only
    #[arg(long, short)]
    partition: Option<i32>,
    /// Of this node's lost+found only
    #[arg(long)]
    node: Option<u32>,
    /// Only the batch that began at this offset, as `ls` shows it
    #[arg(long)]
    offset: Option<i64>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    http: HttpArgs,
}

pub fn run(command: &LostCommand) -> Result<(), Failure> {
    match command {
        LostCommand::Ls(args) => list(args),
        LostCommand::Republish(which) => act(which, "republish", "republished"),
        LostCommand::Drop(which) => act(which, "drop", "dropped"),
    }
}

fn list(args: &List) -> Result<(), Failure> {
    let lost = args.http.connect()?.get("/api/v1/lost")?;
    warn(&lost["warnings"]);
    const COLUMNS: [&str; 9] =
        ["topic", "partition", "node", "base_offset", "last_offset", "records", "acknowledged", "state", "size_bytes"];
    let batches = lost["batches"].as_array().cloned().unwrap_or_default();
    let is_meant = |batch: &&Value| args.topic.as_ref().is_none_or(|topic| batch["topic"] == topic.as_str());
    let row = |batch: &Value| COLUMNS.iter().map(|column| batch[*column].clone()).collect();
    let rows: Vec<Vec<Value>> = batches.iter().filter(is_meant).map(row).collect();
    args.format.show(&COLUMNS, &rows)
}

fn act(which: &Which, verb: &str, done: &str) -> Result<(), Failure> {
    if verb == "drop" {
        confirm(&format!("Give up lost batches of {} for good?", which.topic), which.yes)?;
    }
    let body = json!({
        "topic": which.topic,
        "partition": which.partition,
        "node": which.node,
        "offset": which.offset,
    });
    let told = which.http.connect()?.post(&format!("/api/v1/lost/{verb}"), &body)?;
    let there = told["there"].as_u64().filter(|there| *there > 0);
    let there = there.map(|there| format!(", {there} were in the log already")).unwrap_or_default();
    say(&format!("{done} {} batches{there}; {} stay as they are", told["done"], told["kept"]));
    warn(&told["trouble"]);
    let is_good = told["trouble"].as_array().is_none_or(Vec::is_empty);
    if is_good { Ok(()) } else { Err(Failure::new(Code::Failure, "not all could be done: try again")) }
}

fn warn(lines: &Value) {
    for line in lines.as_array().into_iter().flatten().filter_map(Value::as_str) {
        say(line);
    }
}
