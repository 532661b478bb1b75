//! `cluster backup`, `restore`, `recover`: the metadata kept, and begun anew when most of it is gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::{NodeId, TopicPartition};
use control::backup::BYTES_MAX;
use control::{Backup, Fate, State, Survey};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::calendar::format_iso;

use super::cluster::{self, ViewArgs};
use super::failure::{Code, Failure};
use super::output::{say, stdout};
use super::remote::HttpArgs;
use crate::node::refound::{self, Done, Prospect, Recover, RefoundFailure, Restore};

/// Partitions named one by one.
const NAMED_MAX: usize = 20;
/// A survey larger than this is some other file.
const SURVEY_BYTES_MAX: u64 = 256 << 20;

#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// The file; it gets its name when it is whole
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Take the place of a file that is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    http: HttpArgs,
}

#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// What `cluster backup` wrote, or `refounding/ID.backup` in the data folder of the node that began anew
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The stopped node's data folder, or an empty one
    #[arg(long, visible_alias = "data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Whose an empty folder shall be
    #[arg(long, value_name = "NUMBER")]
    node_id: Option<u32>,
    /// Nodes that will not come back, separated by commas
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    lost: Vec<u32>,
    /// Set metadata aside that is in the folder
    #[arg(long)]
    replace: bool,
    /// .. also if it is that of another cluster
    #[arg(long, requires = "replace")]
    other_cluster: bool,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["plan", "apply", "survey", "acknowledge"])))]
pub struct RecoverArgs {
    /// Say what is missing and what to do, as a node that runs sees it, or with --data-dir a stopped one; changes nothing
    #[arg(long)]
    plan: bool,
    /// Begin the cluster anew on a stopped node, with what it has, when a majority of disks is gone for good
    #[arg(long, requires_all = ["data_dir", "lost", "yes"])]
    apply: bool,
    /// Write down what copies a stopped node has, for another one's plan
    #[arg(long, value_name = "FILE", requires = "data_dir")]
    survey: Option<PathBuf>,
    /// What recovering or restoring cost has been seen: status speaks of it no more
    #[arg(long)]
    acknowledge: bool,
    /// The stopped node's data folder
    #[arg(long, visible_alias = "data", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Nodes that will not come back, separated by commas
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    lost: Vec<u32>,
    /// What --survey wrote on another node that is left; may be repeated
    #[arg(long = "with", value_name = "FILE")]
    with: Vec<PathBuf>,
    /// The cluster's id, typed: what only the lost nodes had is given up
    #[arg(long, value_name = "CLUSTER")]
    yes: Option<String>,
    #[command(flatten)]
    view: ViewArgs,
}

/// What `--survey` writes. JSON.
#[derive(Debug, Serialize, Deserialize)]
struct SurveyFile {
    node: NodeId,
    copies: Vec<(TopicPartition, control::Found)>,
}

pub fn backup(args: &BackupArgs) -> Result<(), Failure> {
    if !args.force && args.to.exists() {
        let text = format!("{} exists: name another file, or --force to replace it", args.to.display());
        return Err(Failure::new(Code::Conflict, text));
    }
    let bytes = args.http.connect()?.bytes("/api/v1/cluster/backup", BYTES_MAX)?;
    let Backup { head, state } = Backup::decode(&bytes)
        .map_err(|error| Failure::new(Code::Failure, format!("what the node sent cannot be used: {error}")))?;
    refound::write(&args.to, &bytes, args.force)?;
    say(&format!(
        "{}: cluster {} up to entry {} of term {}, {} topics, {} tables, {} nodes, as node {} had it at {}; the records \
         are not in it",
        args.to.display(),
        head.cluster,
        head.index,
        head.term,
        state.topics.len(),
        state.tables.len(),
        state.nodes.len(),
        head.taken_by,
        format_iso(head.taken)
    ));
    Ok(())
}

pub fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let backup = refound::read(&args.from)?;
    let told = Restore {
        node: args.node_id.map(NodeId),
        lost: args.lost.iter().copied().map(NodeId).collect(),
        replace: args.replace,
        other_cluster: args.other_cluster,
    };
    let done = refound::restore(&args.data_dir, &backup, &told)?;
    say(&format!(
        "node {} begins with cluster {} up to entry {}, of {}",
        done.node,
        backup.head.cluster,
        backup.head.index,
        format_iso(backup.head.taken)
    ));
    tell_done(&done, backup.head.founding.is_none());
    Ok(())
}

pub fn recover(args: &RecoverArgs) -> Result<(), Failure> {
    if args.acknowledge {
        let answer = args.view.http.connect()?.post("/api/v1/cluster/acknowledge", &json!({}))?;
        say(&format!("acknowledged: {}", answer["acknowledged"]));
        return Ok(());
    }
    let Some(folder) = &args.data_dir else { return cluster::plan(&args.view) };
    if let Some(to) = &args.survey {
        return survey(folder, to);
    }
    let surveys = args.with.iter().map(|path| read_survey(path)).collect::<Result<BTreeMap<NodeId, Survey>, _>>()?;
    let told = Recover { lost: args.lost.iter().copied().map(NodeId).collect(), surveys };
    if args.plan {
        let prospect = refound::prospect(folder, &told)?;
        return stdout(plan_for_people(&prospect, folder).as_bytes());
    }
    let prospect = refound::prospect(folder, &told)?;
    say(plan_for_people(&prospect, folder).trim_end());
    let done = refound::recover(folder, &told, args.yes.as_deref().unwrap_or_default())?;
    say(&format!("done: the cluster begins anew on node {}", done.node));
    tell_done(&done, true);
    Ok(())
}

fn survey(folder: &Path, to: &Path) -> Result<(), Failure> {
    let (node, found, troubles) = refound::survey_for_others(folder)?;
    troubles.iter().for_each(|trouble| say(trouble));
    let count = found.len();
    let file = SurveyFile { node, copies: found.into_iter().collect() };
    let bytes = serde_json::to_vec(&file).map_err(|error| Failure::new(Code::Failure, error.to_string()))?;
    refound::write(to, &bytes, true)?;
    say(&format!(
        "{}: node {node} has {count} copies; take it to the other node that is left, for --with. Leave this node stopped",
        to.display()
    ));
    Ok(())
}

fn read_survey(path: &Path) -> Result<(NodeId, Survey), Failure> {
    let wrong = |cause: String| Failure::usage(format!("{}: {cause}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if length > SURVEY_BYTES_MAX {
        return Err(wrong(format!("{length} bytes are not a survey")));
    }
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let file: SurveyFile = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    Ok((file.node, file.copies.into_iter().collect()))
}

/// What to do next, where the rest is, and what is missing.
fn tell_done(done: &Done, is_seed: bool) {
    done.troubles.iter().for_each(|trouble| say(trouble));
    if let Some(aside) = &done.aside {
        say(&format!("the metadata that was there is kept in {}", aside.display()));
    }
    for line in fate_lines(&done.fates, &done.state) {
        say(&line);
    }
    let others: Vec<String> = done
        .state
        .nodes
        .values()
        .filter(|node| node.id != done.node && !node.mode.leaves())
        .map(|node| node.id.to_string())
        .collect();
    if is_seed && !others.is_empty() {
        say(&format!(
            "on node {}, stopped: `seawall cluster restore --replace --from FILE --data-dir DIR` with a copy of {}; \
             without it this node does not speak with them",
            others.join(", "),
            done.founding.display()
        ));
    }
    say(&format!("start node {} as ever (seawall serve)", done.node));
}

fn plan_for_people(prospect: &Prospect, folder: &Path) -> String {
    let Prospect { node, metadata, fates, troubles, lost } = prospect;
    let list = |nodes: &mut dyn Iterator<Item = NodeId>| nodes.map(|id| id.to_string()).collect::<Vec<_>>().join(", ");
    let cluster = metadata.state.cluster.map_or_else(|| "not formed".to_owned(), |cluster| cluster.to_string());
    let names = list(&mut lost.iter().copied());
    let mut lines = vec![
        format!(
            "cluster {cluster}, as node {node} has it on its disk: metadata up to entry {} of term {}, decided up to {} for \
             sure; votes have node {}",
            metadata.index,
            metadata.term,
            metadata.committed,
            list(&mut metadata.members.voters.iter().copied())
        ),
        format!(
            "without node {names} it can begin anew here: what only they knew of topics, tables, segments and nodes after \
             entry {} is forgotten",
            metadata.index
        ),
    ];
    lines.extend(troubles.iter().cloned());
    lines.extend(fate_lines(fates, &metadata.state));
    lines.push(format!(
        "if one of node {names} can still be started with its disk, do that instead. If not: seawall cluster recover --apply \
         --data-dir {} --lost {} --yes {cluster}",
        folder.display(),
        names.replace(", ", ",")
    ));
    lines.join("\n") + "\n"
}

/// Partitions by what becomes of them; those that lose something are named.
fn fate_lines(fates: &BTreeMap<TopicPartition, Fate>, state: &State) -> Vec<String> {
    let name = |at: &TopicPartition| {
        let topic = state.topics.get(&at.topic).map_or_else(|| at.topic.to_string(), |topic| topic.name.clone());
        format!("{topic}-{}", at.partition)
    };
    let mut lines = Vec::new();
    let mut losses = Vec::new();
    let (mut kept, mut forced, mut empty) = (0, 0, 0);
    for (at, fate) in fates {
        match fate {
            Fate::Kept | Fate::Alone { .. } => kept += 1,
            Fate::Forced { on, committed, end } => {
                forced += 1;
                losses.push(format!(
                    "{}: goes on from the copy of node {on}, which ends at offset {end}; up to {committed} it is what was \
                     acknowledged, after {end} records may be lost",
                    name(at)
                ));
            }
            Fate::Empty => {
                empty += 1;
                losses.push(format!("{}: no copy is left, it begins empty", name(at)));
            }
        }
    }
    if !fates.is_empty() {
        lines.push(format!(
            "{} partitions: {kept} as they were, {forced} go on from one copy, {empty} begin empty",
            fates.len()
        ));
    }
    let more = losses.len().saturating_sub(NAMED_MAX);
    losses.truncate(NAMED_MAX);
    lines.extend(losses);
    if more > 0 {
        lines.push(format!(".. and {more} more"));
    }
    lines
}

impl From<RefoundFailure> for Failure {
    fn from(error: RefoundFailure) -> Self {
        let code = match &error {
            RefoundFailure::Refused(_) | RefoundFailure::Refound(_) | RefoundFailure::Identity(_) => Code::Conflict,
            _ => Code::Failure,
        };
        Self::new(code, error.to_string())
    }
}
