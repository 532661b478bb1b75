//! `cluster`: its nodes and who leads, asked of any node.

use clap::Subcommand;
use serde_json::{Value, json};

use super::certificates;
use super::failure::{Code, Failure};
use super::output::{Format, FormatArgs, say, stdout};
use super::remote::HttpArgs;

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// The active master, the partitions, and whether a node may be restarted now
    Status(ViewArgs),
    /// Every node: whether it is up, what it leads, where it is reached
    Members(ViewArgs),
    /// Make a node the active master; requests go on meanwhile
    TransferLeader(TransferArgs),
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
    http: HttpArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, clap::Args)]
pub struct TransferArgs {
    /// The node's number
    node: u32,
    #[command(flatten)]
    http: HttpArgs,
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
    }
    let safe = if cluster["safe_to_restart_next"] == json!(true) { "yes" } else { "no" };
    lines.push(format!("safe to restart a node: {safe}, {}", cluster["why"].as_str().unwrap_or_default()));
    lines.join("\n") + "\n"
}

fn members(args: &ViewArgs) -> Result<(), Failure> {
    let cluster = view(&args.http)?;
    let columns =
        ["node", "state", "up", "mode", "zone", "version", "leads", "replicas", "kafka", "http", "postgres", "peer"];
    let nodes = cluster["nodes"].as_array().cloned().unwrap_or_default();
    let rows: Vec<Vec<Value>> = nodes.iter().map(|node| columns.map(|column| node[column].clone()).to_vec()).collect();
    args.format.show(&columns, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

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
