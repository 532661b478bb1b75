//! `topic ls | create | describe | delete | produce | consume | lost`.

mod consume;
mod lost;
mod produce;

use clap::{Args, Subcommand};
use client::TopicSpec;
use serde_json::Value;

use super::failure::Failure;
use super::output::{FormatArgs, confirm, say};
use super::remote::KafkaArgs;

#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// List the topics
    Ls(List),
    /// Create a topic
    Create(Create),
    /// Show a topic's partitions, or its settings
    Describe(Describe),
    /// Delete topics and their records
    Delete(Delete),
    /// Send lines as records
    Produce(produce::Produce),
    /// Print records
    Consume(consume::Consume),
    /// Look after what leaders that were cut off or killed had not passed on
    #[command(subcommand)]
    Lost(lost::LostCommand),
}

#[derive(Debug, Args)]
pub struct List {
    /// Show internal topics too
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, Args)]
pub struct Create {
    name: String,
    /// How many partitions [default: the server's log.default_partitions]
    #[arg(long, short)]
    partitions: Option<i32>,
    /// A setting, such as retention.ms=86400000
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    config: Vec<(String, String)>,
    #[command(flatten)]
    kafka: KafkaArgs,
}

#[derive(Debug, Args)]
pub struct Describe {
    name: String,
    /// Show the settings instead of the partitions
    #[arg(long)]
    config: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, Args)]
pub struct Delete {
    #[arg(required = true)]
    names: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
}

pub fn run(command: &TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Ls(args) => list(args),
        TopicCommand::Create(args) => create(args),
        TopicCommand::Describe(args) => describe(args),
        TopicCommand::Delete(args) => delete(args),
        TopicCommand::Produce(args) => produce::run(args),
        TopicCommand::Consume(args) => consume::run(args),
        TopicCommand::Lost(command) => lost::run(command),
    }
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write key=value")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn list(args: &List) -> Result<(), Failure> {
    let topics = args.kafka.connect()?.any(client::Connection::topics)?;
    let shown = topics.into_iter().filter(|topic| args.internal || !topic.internal);
    let rows: Vec<Vec<Value>> =
        shown.map(|topic| vec![topic.name.into(), topic.partitions.into(), topic.internal.into()]).collect();
    args.format.show(&["name", "partitions", "internal"], &rows)
}

fn create(args: &Create) -> Result<(), Failure> {
    let spec = TopicSpec {
        name: args.name.clone(),
        partitions: args.partitions,
        config: args.config.iter().cloned().collect(),
    };
    args.kafka.connect()?.any(|node| node.create_topic(&spec))?;
    say(&format!("created {}", args.name));
    Ok(())
}

fn describe(args: &Describe) -> Result<(), Failure> {
    let mut nodes = args.kafka.connect()?;
    let topic = nodes.any(|node| node.topic(&args.name, false))?;
    if args.config {
        let origin = |is_default: bool| if is_default { "default" } else { "topic" };
        let settings = nodes.any(|node| node.topic_settings(&args.name))?;
        let rows: Vec<Vec<Value>> = settings
            .into_iter()
            .map(|setting| vec![setting.name.into(), setting.value.into(), origin(setting.is_default).into()])
            .collect();
        return args.format.show(&["key", "value", "origin"], &rows);
    }
    let view = nodes.any(|node| node.view(Some(&args.name)))?;
    let mut rows = Vec::new();
    for partition in 0..topic.partitions {
        let mut at = |time| nodes.leader(&args.name, partition, |node| node.list_offset(&args.name, partition, time));
        let (start, end) = (at(client::EARLIEST)?.0, at(client::LATEST)?.0);
        let mut row = vec![partition.into(), start.into(), end.into(), (end - start).into()];
        row.extend(placed(view.partitions.get(&partition)));
        rows.push(row);
    }
    let columns =
        ["partition", "start", "end", "records", "leader", "epoch", "replicas", "in_sync", "under_replicated"];
    args.format.show(&columns, &rows)
}

/// Who leads a partition, where its replicas are, and which of them are up to date.
fn placed(view: Option<&client::PartitionView>) -> Vec<Value> {
    let Some(view) = view else { return vec![Value::Null; 5] };
    let nodes = |nodes: &[i32]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    vec![
        view.leader.into(),
        view.epoch.into(),
        nodes(&view.replicas).into(),
        nodes(&view.in_sync).into(),
        (view.in_sync.len() < view.replicas.len()).into(),
    ]
}

fn delete(args: &Delete) -> Result<(), Failure> {
    confirm(&format!("Delete {} and all records?", args.names.join(", ")), args.yes)?;
    let mut nodes = args.kafka.connect()?;
    for name in &args.names {
        nodes.any(|node| node.delete_topic(name))?;
        say(&format!("deleted {name}"));
    }
    Ok(())
}
