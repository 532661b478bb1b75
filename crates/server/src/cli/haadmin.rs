//! `haadmin`: the active master's duties in Tajo's spelling. An address is a node's HTTP address, or its number.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde_json::Value;

use super::cluster::{transfer, view};
use super::failure::{Code, Failure};
use super::output::{say, stdout};
use super::remote::HttpArgs;

const VERBS: [&str; 4] = ["-getState", "-transitionToActive", "-transitionToBackup", "-formatHA"];

/// Tajo wrote its verbs with one dash; [`with_two_dashes`] comes before this.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("verb").required(true))]
pub struct HaadminArgs {
    /// Print `active` or `backup` for a node, or for every node
    #[arg(long = "getState", group = "verb", num_args = 0..=1, default_missing_value = "", value_name = "ADDRESS")]
    get_state: Option<String>,
    /// Make a node the active master
    #[arg(long = "transitionToActive", group = "verb", value_name = "ADDRESS")]
    to_active: Option<String>,
    /// Make a node a backup master: its duties go to another one
    #[arg(long = "transitionToBackup", group = "verb", value_name = "ADDRESS")]
    to_backup: Option<String>,
    /// Forget a stopped node's place in its cluster, so that it can be started in a new one (refused while it runs)
    #[arg(long = "formatHA", group = "verb")]
    format_ha: bool,
    /// The folder that -formatHA is about
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    http: HttpArgs,
}

/// Tajo's verbs as this program's argument parser has them.
pub fn with_two_dashes(argument: OsString) -> OsString {
    let is_verb = argument.to_str().is_some_and(|text| VERBS.contains(&text));
    if is_verb { OsString::from(format!("-{}", argument.to_string_lossy())) } else { argument }
}

pub fn run(args: &HaadminArgs) -> Result<(), Failure> {
    if args.format_ha {
        return format_ha(args.data_dir.as_deref());
    }
    let cluster = view(&args.http)?;
    let nodes = cluster["nodes"].as_array().cloned().unwrap_or_default();
    if let Some(address) = &args.get_state {
        return get_state(&nodes, address);
    }
    if let Some(address) = &args.to_active {
        let node = find(&nodes, address)?;
        transfer(&args.http, node)?;
        say(&format!("node {node} is the active master"));
        return Ok(());
    }
    let address = args.to_backup.as_deref().unwrap_or_default();
    let node = find(&nodes, address)?;
    if cluster["master"]["node"].as_u64() != Some(u64::from(node)) {
        say(&format!("node {node} is a backup master already"));
        return Ok(());
    }
    let is_other = |other: &&Value| other["node"] != node && other["up"] == true;
    let Some(to) = nodes.iter().find(is_other).and_then(number) else {
        return Err(Failure::new(Code::Conflict, "no other node can be reached: nobody could take over"));
    };
    transfer(&args.http, to)?;
    say(&format!("node {node} is a backup master; node {to} is the active one"));
    Ok(())
}

fn get_state(nodes: &[Value], address: &str) -> Result<(), Failure> {
    let state = |node: &Value| node["state"].as_str().unwrap_or("unknown").to_owned();
    if address.is_empty() {
        let lines = nodes.iter().map(|node| format!("{}\t{}\t{}\n", node["node"], text(&node["http"]), state(node)));
        return stdout(lines.collect::<String>().as_bytes());
    }
    let wanted = find(nodes, address)?;
    let found = nodes.iter().find(|node| node["node"] == wanted).map_or("unknown".into(), state);
    stdout(format!("{found}\n").as_bytes())
}

/// A node by its number or by any of its addresses.
fn find(nodes: &[Value], address: &str) -> Result<u32, Failure> {
    let address = address.trim_start_matches("http://").trim_end_matches('/');
    let ports = ["http", "kafka", "postgres", "peer"];
    let is_it = |node: &&Value| {
        number(node).is_some_and(|number| number.to_string() == address)
            || ports.iter().any(|port| node[*port].as_str() == Some(address))
    };
    let known = || nodes.iter().map(|node| format!("{} ({})", node["node"], text(&node["http"]))).collect::<Vec<_>>();
    let unknown = || Failure::new(Code::NotFound, format!("no node is {address}; there are {}", known().join(", ")));
    nodes.iter().find(is_it).and_then(number).ok_or_else(unknown)
}

fn number(node: &Value) -> Option<u32> {
    node["node"].as_u64().and_then(|node| u32::try_from(node).ok())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("not registered")
}

/// Sets a stopped node's control journal aside. Its log stays as it is: nothing is deleted.
fn format_ha(data_dir: Option<&std::path::Path>) -> Result<(), Failure> {
    let Some(folder) = data_dir else {
        return Err(Failure::usage("-formatHA needs --data-dir DIR: the folder of the stopped node"));
    };
    crate::node::set_control_aside(folder)
        .map_err(|error| Failure::new(Code::Conflict, error))
        .map(|to| say(&format!("the node's control data is in {} now; it starts without a cluster", to.display())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_found_by_its_number_and_by_its_addresses() {
        let nodes =
            [json!({"node": 1, "http": "127.0.0.1:1"}), json!({"node": 2, "http": "127.0.0.1:2", "kafka": "k:9"})];
        for address in ["2", "127.0.0.1:2", "http://127.0.0.1:2/", "k:9"] {
            assert_eq!(find(&nodes, address).map_err(|error| error.message).unwrap(), 2);
        }
        assert!(find(&nodes, "3").unwrap_err().message.contains("1 (127.0.0.1:1)"));
    }
}
