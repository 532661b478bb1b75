//! `group ls | describe | delete`.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::failure::{Code, Failure};
use super::output::{FormatArgs, confirm, say};
use super::remote::KafkaArgs;

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List the consumer groups
    Ls(List),
    /// Show what a group has read of each partition, and who reads it
    Describe(Describe),
    /// Delete groups that have no members, and their offsets
    Delete(Delete),
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, Args)]
pub struct Describe {
    group: String,
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, Args)]
pub struct Delete {
    #[arg(required = true)]
    groups: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
}

pub fn run(command: &GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::Ls(args) => list(args),
        GroupCommand::Describe(args) => describe(args),
        GroupCommand::Delete(args) => delete(args),
    }
}

fn list(args: &List) -> Result<(), Failure> {
    let mut nodes = args.kafka.connect()?;
    // Every node tells those it coordinates.
    let (mut groups, mut failure, mut answered) = (Vec::new(), None, false);
    for address in nodes.addresses() {
        match nodes.at(&address, client::Connection::groups) {
            Ok(own) => {
                groups.extend(own);
                answered = true;
            }
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if !answered => return Err(error.into()),
        Some(error) => say(&format!("not every node answered: {error}")),
        None => {}
    }
    groups.sort_by(|one, other| one.group.cmp(&other.group));
    groups.dedup_by(|one, other| one.group == other.group);
    let rows: Vec<Vec<Value>> = groups
        .into_iter()
        .map(|group| vec![group.group.into(), group.state.into(), group.protocol_type.into()])
        .collect();
    args.format.show(&["group", "state", "type"], &rows)
}

fn describe(args: &Describe) -> Result<(), Failure> {
    let mut nodes = args.kafka.connect()?;
    let group = nodes.coordinator(&args.group, |node| node.describe_group(&args.group))?;
    if group.state == "Dead" {
        return Err(Failure::new(Code::NotFound, format!("group {} does not exist", args.group)));
    }
    let offsets = nodes.coordinator(&args.group, |node| node.group_offsets(&args.group))?;
    let mut places: Vec<_> = offsets.keys().cloned().collect();
    for member in &group.members {
        let assigned = member.partitions.iter();
        places.extend(assigned.flat_map(|(topic, own)| own.iter().map(|index| (topic.clone(), *index))));
    }
    places.sort();
    places.dedup();
    let mut rows = Vec::new();
    for (topic, partition) in places {
        let owns =
            |member: &&client::GroupMember| member.partitions.get(&topic).is_some_and(|own| own.contains(&partition));
        let member = group.members.iter().find(owns);
        let committed = offsets.get(&(topic.clone(), partition)).map(|offset| offset.0);
        // The topic may have been deleted meanwhile.
        let end = nodes.leader(&topic, partition.0, |node| node.list_offset(&topic, partition.0, client::LATEST));
        let end = end.ok().map(|offset| offset.0);
        let lag = committed.zip(end).map(|(committed, end)| (end - committed).max(0));
        rows.push(vec![
            topic.into(),
            partition.0.into(),
            committed.into(),
            end.into(),
            lag.into(),
            member.map(|member| member.member.clone()).into(),
            member.map(|member| member.client_id.clone()).into(),
            member.map(|member| member.client_host.clone()).into(),
        ]);
    }
    let count = group.members.len();
    let members = if count == 1 { "1 member".to_owned() } else { format!("{count} members") };
    let protocol = if group.protocol.is_empty() { String::new() } else { format!(", {}", group.protocol) };
    say(&format!("{}: {}, {members}{protocol}", group.group, group.state));
    let columns = ["topic", "partition", "committed", "end", "lag", "member", "client", "host"];
    args.format.show(&columns, &rows)
}

fn delete(args: &Delete) -> Result<(), Failure> {
    confirm(&format!("Delete {} and what they have committed?", args.groups.join(", ")), args.yes)?;
    let mut nodes = args.kafka.connect()?;
    for group in &args.groups {
        nodes.coordinator(group, |node| node.delete_group(group))?;
        say(&format!("deleted {group}"));
    }
    Ok(())
}
