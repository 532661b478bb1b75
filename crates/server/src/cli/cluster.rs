//! `cluster`: its nodes and who leads, asked of any node.

use clap::Subcommand;
use serde_json::{Value, json};

use super::failure::{Code, Failure};
use super::output::{Format, FormatArgs, say, stdout};
use super::remote::HttpArgs;
use super::{certificates, recovery};

/// Between two looks at how far it is.
const PROGRESS: std::time::Duration = std::time::Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// The active master, the partitions, and whether a node may be restarted now
    Status(ViewArgs),
    /// Every node: whether it is up, what it leads, where it is reached
    Members(ViewArgs),
    /// Make a node the active master; requests go on meanwhile
    TransferLeader(TransferArgs),
    /// Move everything a node holds to others; it stays a member and gets nothing new
    Drain(EmptyArgs),
    /// Let a node that was drained be used again
    Undrain(NodeArgs),
    /// Drain a node and let it leave the cluster for good
    Decommission(EmptyArgs),
    /// Let a node go that will not come back: what it held is made anew on others
    Remove(EmptyArgs),
    /// Write the metadata of a running cluster into a file: topics, tables, segments, nodes; not the records
    Backup(recovery::BackupArgs),
    /// Begin the metadata of a stopped node, or of an empty folder, anew with a backup
    Restore(recovery::RestoreArgs),
    /// After most nodes were lost: which votes are missing, what they alone may have, and what to do
    Recover(recovery::RecoverArgs),
    /// Make a new cluster's certificate authority, the first node's certificate and a join token
    Init(certificates::InitArgs),
    /// Make a join token, where the authority is
    Token(certificates::TokenArgs),
    /// Get a node's certificate with a token, before it is started for the first time
    Join(certificates::JoinArgs),
}

#[derive(Debug, clap::Args)]
pub struct ViewArgs {
    #[command(flatten)]
    pub http: HttpArgs,
    #[command(flatten)]
    pub format: FormatArgs,
}

#[derive(Debug, clap::Args)]
pub struct TransferArgs {
    /// The node's number
    node: u32,
    #[command(flatten)]
    http: HttpArgs,
}

#[derive(Debug, clap::Args)]
pub struct NodeArgs {
    /// The node's number
    node: u32,
    #[command(flatten)]
    http: HttpArgs,
}

#[derive(Debug, clap::Args)]
pub struct EmptyArgs {
    #[command(flatten)]
    of: NodeArgs,
    /// Return when the cluster has taken the order, not when it is carried out
    #[arg(long)]
    no_wait: bool,
}

pub fn run(command: &ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Status(args) => status(args),
        ClusterCommand::Members(args) => members(args),
        ClusterCommand::TransferLeader(args) => {
            transfer(&args.http, args.node)?;
            say(&format!("node {} is the active master", args.node));
            Ok(())
        }
        ClusterCommand::Drain(args) => empty(args, "drain"),
        ClusterCommand::Undrain(args) => {
            order(&args.http, args.node, "undrain")?;
            say(&format!("node {} may be given replicas again", args.node));
            Ok(())
        }
        ClusterCommand::Decommission(args) => empty(args, "decommission"),
        ClusterCommand::Remove(args) => empty(args, "remove"),
        ClusterCommand::Backup(args) => recovery::backup(args),
        ClusterCommand::Restore(args) => recovery::restore(args),
        ClusterCommand::Recover(args) => recovery::recover(args),
        ClusterCommand::Init(args) => certificates::init(args),
        ClusterCommand::Token(args) => certificates::token(args),
        ClusterCommand::Join(args) => certificates::join(args),
    }
}

/// What a node knows of its cluster.
pub fn view(http: &HttpArgs) -> Result<Value, Failure> {
    http.connect()?.get("/api/v1/cluster")
}

/// Makes a node the active master.
pub fn transfer(http: &HttpArgs, node: u32) -> Result<(), Failure> {
    http.connect()?.post("/api/v1/cluster/transfer-leader", &json!({"to": node})).map(drop)
}

fn order(http: &HttpArgs, node: u32, verb: &str) -> Result<(), Failure> {
    http.connect()?.post(&format!("/api/v1/cluster/{verb}"), &json!({"node": node})).map(drop)
}

/// Gives the order and tells how far it is, until it is carried out.
fn empty(args: &EmptyArgs, verb: &str) -> Result<(), Failure> {
    let EmptyArgs { of: NodeArgs { node, http }, no_wait } = args;
    order(http, *node, verb)?;
    if *no_wait {
        say(&format!("node {node}: {verb} is under way; `seawall cluster members` tells how far"));
        return Ok(());
    }
    let mut said = String::new();
    loop {
        let cluster = view(http)?;
        let found = cluster["nodes"].as_array().into_iter().flatten().find(|member| member["node"] == *node);
        let Some(member) = found else {
            say(&format!("node {node} has left the cluster: it can be switched off"));
            return Ok(());
        };
        if member["replicas_left"].is_null() {
            return Err(Failure::new(Code::Conflict, format!("node {node}: somebody else called it off")));
        }
        let (left, to_delete) = (member["replicas_left"].as_u64(), member["to_delete"].as_u64());
        if verb == "drain" && left == Some(0) && to_delete == Some(0) {
            say(&format!("node {node} holds nothing: it can be stopped; `undrain` lets it be used again"));
            return Ok(());
        }
        let line = progress(member);
        if line != said {
            say(&format!("node {node}: {line}"));
            said = line;
        }
        std::thread::sleep(PROGRESS);
    }
}

/// How far a node that is being emptied has come.
fn progress(member: &Value) -> String {
    let mut line = format!("{} replicas left", member["replicas_left"]);
    if let Some(bytes) = member["bytes_left"].as_u64() {
        line += &format!(", {} MiB", bytes.div_ceil(1 << 20));
    }
    if member["to_delete"].as_u64().is_some_and(|count| count > 0) {
        line += &format!(", {} moved and still to be deleted there", member["to_delete"]);
    }
    if member["replicas_left"] == 0 && member["vote"] == "voter" {
        line += ", and a vote on the metadata";
    }
    if let Some(blocked) = member["blocked"].as_str() {
        line += &format!("; it cannot go on: {blocked}");
    }
    line
}

fn status(args: &ViewArgs) -> Result<(), Failure> {
    let cluster = view(&args.http)?;
    let has_master = !cluster["master"]["node"].is_null();
    match args.format.format {
        None | Some(Format::Table) => stdout(for_people(&cluster).as_bytes())?,
        Some(Format::Json) => {
            stdout(format!("{}\n", serde_json::to_string_pretty(&cluster).unwrap_or_default()).as_bytes())?;
        }
        Some(Format::Ndjson) => stdout(format!("{cluster}\n").as_bytes())?,
        Some(Format::Csv | Format::Tsv) => {
            let columns = ["cluster_id", "node", "safe_to_restart_next", "why"];
            args.format.show(&columns, &[columns.map(|column| cluster[column].clone()).to_vec()])?;
        }
    }
    if has_master { Ok(()) } else { Err(Failure::new(Code::Unhealthy, "no active master")) }
}

fn for_people(cluster: &Value) -> String {
    let master = &cluster["master"];
    let led = match master["node"].as_u64() {
        Some(node) => format!("active master: node {node}, term {}", master["term"]),
        None => format!(
            "no active master for {} ms; votes out of reach: {}; produce, fetch and queries of what is placed go on",
            master["leaderless_for_ms"], master["missing"]
        ),
    };
    let partitions = &cluster["partitions"];
    let mut lines = vec![
        format!(
            "cluster {} as node {} sees it",
            cluster["cluster_id"].as_str().unwrap_or("not formed"),
            cluster["node"]
        ),
        led,
        format!(
            "{} partitions, {} without a leader, {} with replicas out of reach, {} under-replicated",
            partitions["total"],
            partitions["without_leader"],
            partitions["with_replicas_out_of_reach"],
            partitions["under_replicated"]
        ),
    ];
    for node in cluster["nodes"].as_array().into_iter().flatten() {
        lines.push(format!(
            "node {}  {}  {}  leads {} of {} replicas",
            node["node"],
            node["state"].as_str().unwrap_or_default(),
            if node["up"] == json!(true) { "up" } else { "out of reach" },
            node["leads"],
            node["replicas"]
        ));
        if !node["replicas_left"].is_null() {
            lines.push(format!("        {}: {}", node["mode"].as_str().unwrap_or_default(), progress(node)));
        }
    }
    for act in cluster["refoundings"].as_array().into_iter().flatten().filter(|act| act["acknowledged"].is_null()) {
        lines.push(format!(
            "{} {} (`seawall cluster recover --acknowledge` when all is well)",
            act["at"].as_str().unwrap_or_default(),
            act["text"].as_str().unwrap_or_default()
        ));
    }
    let safe = if cluster["safe_to_restart_next"] == json!(true) { "yes" } else { "no" };
    lines.push(format!("safe to restart a node: {safe}, {}", cluster["why"].as_str().unwrap_or_default()));
    lines.join("\n") + "\n"
}

/// What cannot decide, asked of a node that runs.
pub fn plan(args: &ViewArgs) -> Result<(), Failure> {
    let found = args.http.connect()?.get("/api/v1/cluster/recovery")?;
    let groups = found["groups"].as_array().cloned().unwrap_or_default();
    match args.format.format {
        None | Some(Format::Table) => stdout(plan_for_people(&found).as_bytes())?,
        Some(_) => {
            let columns = ["group", "voters", "missing", "needed", "here"];
            let row = |group: &Value| columns.map(|column| group[column].clone()).to_vec();
            args.format.show(&columns, &groups.iter().map(row).collect::<Vec<_>>())?;
        }
    }
    if groups.is_empty() { Ok(()) } else { Err(Failure::new(Code::Unhealthy, "")) }
}

fn plan_for_people(found: &Value) -> String {
    let groups = found["groups"].as_array().cloned().unwrap_or_default();
    if groups.is_empty() {
        return "nothing to recover: every group has the votes that it needs, as this node sees it\n".into();
    }
    let mut lines = vec![format!("{} groups cannot decide, as node {} sees it", found["undecided"], found["node"])];
    for group in &groups {
        let missing = list(&group["missing"]);
        let name = group["group"].as_str().unwrap_or_default();
        let here = match (name, group["here"].as_u64()) {
            ("metadata", Some(index)) => format!("this node has it up to entry {index}"),
            (_, Some(offset)) => format!("this node serves it up to offset {offset}"),
            (_, None) => "this node has no copy".into(),
        };
        lines.push(format!(
            "{name}: votes of node {missing} are missing, {} of them needed; {here}; what was acknowledged after that only \
             the missing ones may have",
            group["needed"]
        ));
    }
    let mut nodes: Vec<u64> = groups
        .iter()
        .flat_map(|group| group["missing"].as_array().cloned().unwrap_or_default())
        .filter_map(|id| id.as_u64())
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    let nodes = nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    lines.push(format!(
        "do this: start node {nodes} with the data folders they had (seawall serve -c FILE), or mend the links to them; \
         everything resumes by itself, nothing else is to be done. Only if a majority of disks is gone for good: stop the nodes \
         that are left, and look at `seawall cluster recover --plan --data-dir DIR` there; what only the others had is lost"
    ));
    lines.join("\n") + "\n"
}

fn list(numbers: &Value) -> String {
    numbers.as_array().into_iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn members(args: &ViewArgs) -> Result<(), Failure> {
    let cluster = view(&args.http)?;
    let columns = [
        "node",
        "state",
        "vote",
        "up",
        "mode",
        "zone",
        "version",
        "leads",
        "replicas",
        "replicas_left",
        "bytes_left",
        "blocked",
        "kafka",
        "http",
        "postgres",
        "peer",
    ];
    let nodes = cluster["nodes"].as_array().cloned().unwrap_or_default();
    let rows: Vec<Vec<Value>> = nodes.iter().map(|node| columns.map(|column| node[column].clone()).to_vec()).collect();
    args.format.show(&columns, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_the_missing_and_the_next_step() {
        let lost = json!({"node": 1, "undecided": 1, "groups": [
            {"group": "t-0", "voters": [1, 2, 3], "missing": [2, 3], "needed": 1, "here": 17},
        ]});
        let text = plan_for_people(&lost);
        assert!(
            text.contains("t-0: votes of node 2, 3 are missing, 1 of them needed; this node serves it up to offset 17")
        );
        assert!(text.contains("do this: start node 2, 3 with the data folders they had"), "{text}");
        assert!(plan_for_people(&json!({"groups": []})).starts_with("nothing to recover"));
    }

    #[test]
    fn people_are_told_which_votes_are_missing() {
        let cluster = json!({
            "cluster_id": "c", "node": 1,
            "master": {"node": null, "term": 4, "leaderless_for_ms": 1200, "missing": [2, 3]},
            "nodes": [{"node": 1, "state": "backup", "up": true, "leads": 0, "replicas": 5}],
            "partitions": {"total": 5, "without_leader": 5, "with_replicas_out_of_reach": 5},
            "safe_to_restart_next": false, "why": "node 2, 3 cannot be reached",
        });
        let text = for_people(&cluster);
        assert!(text.contains("no active master for 1200 ms; votes out of reach: [2,3]"), "{text}");
        assert!(text.contains("node 1  backup  up  leads 0 of 5 replicas"), "{text}");
    }
}
