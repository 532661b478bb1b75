//! The control plane of a stopped node formed anew, from a backup or from what is left on it (`control::refounding` decides).
//!
//! ```text
//! hold the folder -> look (metadata, copies) -> refound -> refounding/<id>.backup -> copy control/ aside
//!     -> one rename puts the new journal in its place: that is the act -> the partitions' part of it -> <id>.done
//! ```
//! A power loss before the rename leaves the node as it was; after it, the next start does what was left to do, before it
//! opens a partition. All of it can be begun again.
//!
//! What always holds: nothing is deleted; what is put out of the way lies beside it, under a name with the id of the act.
//! A folder that a process holds is refused. Every node that goes on with the new cluster begins with the same file,
//! `refounding/<id>.backup` of the first one, so two nodes that were made to begin by themselves never take each other for
//! members of one cluster.

mod look;
mod looking;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::disk::{Disk, DiskError};
use base::{LogIndex, NodeId, Term, TopicPartition};
use control::backup::{BYTES_MAX, Head};
use control::refounding::{Plan, Source};
use control::{Backup, BackupError, CodecError, Fate, Founding, RefoundError, State, Survey, refound};
use quorum::{Journal, JournalError, Members, Snapshot, StorageError};
use uuid::Uuid;

use super::findings::{Finding, Findings, Severity};
use super::identity::{self, DataDir, Held, IdentityError};
use super::time;
use crate::shell::disk::RealDisk;
use crate::shell::security;

pub use look::{Metadata, metadata, survey};

/// Within a data folder: what its control planes began with.
const FOLDER: &str = "refounding";
const FINDING: &str = "cluster-refounded";

/// Why nothing was begun, or what a second try takes up again.
#[derive(Debug, thiserror::Error)]
pub enum RefoundFailure {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{0}: {1}")]
    Backup(PathBuf, BackupError),
    #[error(transparent)]
    Refound(#[from] RefoundError),
    #[error("the metadata journal: {0}")]
    Journal(#[from] JournalError),
    #[error("the metadata journal: {0}")]
    Storage(#[from] StorageError),
    #[error("the metadata: {0}")]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
    /// With what to do.
    #[error("{0}")]
    Refused(String),
}

fn refuse<T>(why: impl Into<String>) -> Result<T, RefoundFailure> {
    Err(RefoundFailure::Refused(why.into()))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> RefoundFailure {
    let path = path.to_owned();
    move |error| RefoundFailure::Io(path, error)
}

/// What `cluster restore` was told.
#[derive(Clone, Default, Debug)]
pub struct Restore {
    /// Of a folder that no node has used yet.
    pub node: Option<NodeId>,
    pub lost: BTreeSet<NodeId>,
    /// Metadata that is there is set aside.
    pub replace: bool,
    /// .. also if it is another cluster's.
    pub other_cluster: bool,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Done {
    pub node: NodeId,
    /// What the other nodes that go on begin with.
    pub founding: PathBuf,
    /// Where the metadata is that was there.
    pub aside: Option<PathBuf>,
    pub state: State,
    /// Empty for a node that follows.
    pub fates: BTreeMap<TopicPartition, Fate>,
    pub troubles: Vec<String>,
}

/// Reads a backup.
pub fn read(path: &Path) -> Result<Backup, RefoundFailure> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io(path))?;
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(io(path))?;
    Backup::decode(&bytes).map_err(|error| RefoundFailure::Backup(path.to_owned(), error))
}

/// Writes a file whole: under another name, synced, then renamed. One that is there stays unless told otherwise.
pub fn write(path: &Path, bytes: &[u8], replace: bool) -> Result<(), RefoundFailure> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let unfinished = path.with_file_name(name);
    let mut file = File::create(&unfinished).map_err(io(&unfinished))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io(&unfinished))?;
    if replace {
        fs::rename(&unfinished, path).map_err(io(path))?;
    } else {
        // Unlike a rename this never takes the place of another file.
        let linked = fs::hard_link(&unfinished, path);
        drop(fs::remove_file(&unfinished));
        match linked {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return refuse(format!("{} exists: name another file, or --force to replace it", path.display()));
            }
            linked => linked.map_err(io(path))?,
        }
    }
    sync_folder_of(path)
}

fn sync_folder_of(path: &Path) -> Result<(), RefoundFailure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))
}

/// Makes a stopped node begin with a backup, or with what another one began with.
pub fn restore(folder: &Path, backup: &Backup, told: &Restore) -> Result<Done, RefoundFailure> {
    let held = identity::hold(folder)?;
    let Some(node) = held.identity.map(|identity| identity.node).or(told.node) else {
        return refuse(format!("{} is no node's folder yet: say whose it shall be with --node-id", folder.display()));
    };
    if told.node.is_some_and(|told| told != node) {
        return refuse(format!("{} belongs to node {node}: leave out --node-id", folder.display()));
    }
    check_folder(&held, node, backup, told)?;
    if let Some(founding) = &backup.head.founding {
        return follow(held, node, backup, founding, told);
    }
    let (found, troubles) = survey(folder, node)?;
    let data = held.claim(node)?;
    let from = From { source: Source::Backup, state: &backup.state, index: backup.head.index, term: backup.head.term };
    let surveys = [(node, found)].into();
    let (founding, fates) = begin_with(&data, &from, &told.lost, &surveys)?;
    Ok(Done { troubles, fates, ..commit(&data, node, &founding)? })
}

/// The folder has no metadata, or that of the same cluster and it may be set aside.
fn check_folder(held: &Held, node: NodeId, backup: &Backup, told: &Restore) -> Result<(), RefoundFailure> {
    let (folder, cluster) = (&held.path, backup.head.cluster);
    let certified = security::cluster(&security::folder(folder)).ok();
    if let Some(other) = certified.filter(|other| *other != cluster) {
        return refuse(format!(
            "the backup is of cluster {cluster}, and the certificate in {} of cluster {other}: nodes would not speak with \
             this one",
            security::folder(folder).display()
        ));
    }
    let there = match metadata(folder, node) {
        Ok(None) => return Ok(()),
        Ok(Some(there)) => there,
        Err(error) if told.replace => {
            tracing::warn!(%error, "the metadata that is there cannot be read");
            return Ok(());
        }
        Err(error) => {
            return refuse(format!(
                "{} has metadata that cannot be read ({error}): --replace sets it aside",
                folder.display()
            ));
        }
    };
    if let Some(other) = there.state.cluster.filter(|other| *other != cluster && !told.other_cluster) {
        return refuse(format!(
            "{} is of cluster {other}, and the backup of cluster {cluster}: is it the right one? --other-cluster and \
             --replace use it all the same",
            folder.display()
        ));
    }
    if told.replace {
        return Ok(());
    }
    refuse(format!(
        "{} is not empty: it has metadata up to entry {} ({} topics, {} tables), and the backup up to entry {}: --replace \
         sets it aside and begins with the backup",
        folder.display(),
        there.index,
        there.state.topics.len(),
        there.state.tables.len(),
        backup.head.index
    ))
}

/// Another node began the cluster anew; this one goes on with it.
fn follow(
    held: Held,
    node: NodeId,
    backup: &Backup,
    founding: &Founding,
    told: &Restore,
) -> Result<Done, RefoundFailure> {
    if !told.lost.is_empty() {
        return refuse("who is lost was said where the cluster was begun anew: leave out --lost here");
    }
    let known = backup.state.nodes.get(&node);
    let disk = held.identity.map(|identity| identity.disk);
    if known.is_none_or(|known| Some(known.disk) != disk || known.mode.leaves()) {
        return refuse(format!(
            "this file is for nodes that went on with the cluster that node {} began anew, with the disks they had, and \
             node {node} is none of them: let it join with an empty folder and a node.id that was never used \
             (cluster.join)",
            founding.seed
        ));
    }
    if let Some(there) = metadata(&held.path, node).ok().flatten()
        && there.state.refoundings.iter().any(|done| done.id == founding.id)
    {
        return refuse(format!("node {node} has begun with this file before: start it"));
    }
    let data = held.claim(node)?;
    commit(&data, node, backup)
}

/// A state and where it is from.
struct From<'a> {
    source: Source,
    state: &'a State,
    index: LogIndex,
    term: Term,
}

/// What the new cluster begins with. Nothing is changed.
fn begin_with(
    data: &DataDir,
    from: &From<'_>,
    lost: &BTreeSet<NodeId>,
    surveys: &BTreeMap<NodeId, Survey>,
) -> Result<(Backup, BTreeMap<TopicPartition, Fate>), RefoundFailure> {
    let (id, at, seed) = (Uuid::new_v4(), time::wall(), data.identity.node);
    let (source, term) = (from.source, from.term);
    let plan = Plan { id, source, at, seed, disk: data.identity.disk, term, lost, surveys };
    // Entries without a command are counted too: what follows must come after them.
    let mut state = from.state.clone();
    state.applied = from.index.max(state.applied);
    let (state, fates) = refound(&state, &plan)?;
    let forced = fates.iter().filter_map(|(at, fate)| match fate {
        Fate::Forced { on, .. } => Some((*at, *on)),
        _ => None,
    });
    let empty = fates.iter().filter(|(_, fate)| **fate == Fate::Empty).map(|(at, _)| *at).collect();
    let founding = Founding { id, seed, forced: forced.collect(), empty };
    let Some(cluster) = state.cluster else { return Err(RefoundError::NotFormed.into()) };
    let head = Head {
        cluster,
        index: state.applied,
        term: Term(term.0 + 1),
        taken: at,
        taken_by: seed,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        voters: vec![seed],
        founding: Some(founding),
    };
    Ok((Backup { head, state }, fates))
}

/// The act. Can be done again with the same file.
fn commit(data: &DataDir, node: NodeId, founding: &Backup) -> Result<Done, RefoundFailure> {
    let Some(Founding { id, .. }) = &founding.head.founding else {
        return refuse("this is a backup and not what a cluster begins anew with");
    };
    let folder = data.path.join(FOLDER);
    fs::create_dir_all(&folder).map_err(io(&folder))?;
    sync_folder_of(&folder)?;
    let path = folder.join(format!("{id}.backup"));
    write(&path, &founding.encode(), true)?;
    let aside = copy_aside(&data.path, *id)?;
    let disk = RealDisk::open(&data.path)?;
    let snapshot = Snapshot {
        index: founding.head.index,
        term: founding.head.term,
        members: Members::new(&founding.head.voters, &[]),
        data: founding.state.snapshot(),
    };
    Journal::replace(&disk, "control", &snapshot)?;
    finish(&data.path, node, &founding.state)?;
    let state = founding.state.clone();
    Ok(Done { node, founding: path, aside, state, fates: BTreeMap::new(), troubles: Vec::new() })
}

/// The next start removes journals that were replaced.
fn copy_aside(data: &Path, id: Uuid) -> Result<Option<PathBuf>, RefoundFailure> {
    let (from, to) = (data.join("control"), data.join(format!("control-before-{id}")));
    let entries = match fs::read_dir(&from) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(io(&from))?,
    };
    if to.exists() {
        return Ok(Some(to));
    }
    let unfinished = to.with_extension("part");
    fs::create_dir_all(&unfinished).map_err(io(&unfinished))?;
    let mut count = 0;
    for entry in entries {
        let path = entry.map_err(io(&from))?.path();
        let Some(name) = path.file_name().filter(|_| path.is_file()) else { continue };
        let copy = unfinished.join(name);
        fs::copy(&path, &copy).map_err(io(&copy))?;
        File::open(&copy).and_then(|file| file.sync_all()).map_err(io(&copy))?;
        count += 1;
    }
    if count == 0 {
        drop(fs::remove_dir(&unfinished));
        return Ok(None);
    }
    fs::rename(&unfinished, &to).map_err(io(&to))?;
    sync_folder_of(&to)?;
    Ok(Some(to))
}

/// Does what an act still owes to the partitions of this node. Before any of them is opened.
pub fn finish(data: &Path, node: NodeId, state: &State) -> Result<(), RefoundFailure> {
    for act in &state.refoundings {
        let path = data.join(FOLDER).join(format!("{}.backup", act.id));
        let done = path.with_extension("done");
        if !path.exists() || done.exists() {
            continue;
        }
        let Some(founding) = read(&path)?.head.founding else { continue };
        partitions(data, node, &founding)?;
        write(&done, b"", true)?;
    }
    Ok(())
}

fn partitions(data: &Path, node: NodeId, founding: &Founding) -> Result<(), RefoundFailure> {
    for (at, on) in &founding.forced {
        if *on == node {
            // A log without this file is that of a node that decides alone: docs/formats/log-file.md.
            let members = folder_of(data, *at).join("members");
            rename(&members, &members.with_file_name(format!("members-before-{}", founding.id)))?;
        } else {
            set_aside(data, *at, founding.id)?;
        }
    }
    if founding.seed != node || founding.empty.is_empty() {
        return Ok(());
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(data)?);
    let mut hard = quorum::HardStates::open(disk, "hard-state")?;
    for at in &founding.empty {
        set_aside(data, *at, founding.id)?;
        // Else a log that is not there is a loss to be repaired by others.
        hard.remove(log::group_key(*at))?;
    }
    Ok(hard.sync()?)
}

fn folder_of(data: &Path, at: TopicPartition) -> PathBuf {
    data.join("log").join(at.topic.to_string()).join(at.partition.to_string())
}

fn set_aside(data: &Path, at: TopicPartition, id: Uuid) -> Result<(), RefoundFailure> {
    let aside = data.join(format!("log-before-{id}"));
    let from = folder_of(data, at);
    if from.exists() {
        fs::create_dir_all(&aside).map_err(io(&aside))?;
        rename(&from, &aside.join(at.to_string()))?;
        sync_folder_of(&aside.join("."))?;
    }
    Ok(())
}

/// Durably; done already is fine.
fn rename(from: &Path, to: &Path) -> Result<(), RefoundFailure> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(RefoundFailure::Io(from.to_owned(), error)),
        Ok(()) => sync_folder_of(to).and_then(|()| sync_folder_of(from)),
    }
}

/// What `cluster recover` was told.
#[derive(Clone, Default, Debug)]
pub struct Recover {
    pub lost: BTreeSet<NodeId>,
    /// Of the other nodes that are left.
    pub surveys: BTreeMap<NodeId, Survey>,
}

/// What recovering would do, and what it knows.
#[derive(Clone, Debug)]
pub struct Prospect {
    pub node: NodeId,
    pub metadata: Metadata,
    pub fates: BTreeMap<TopicPartition, Fate>,
    pub troubles: Vec<String>,
    /// Those that are named as lost, or all the others.
    pub lost: BTreeSet<NodeId>,
}

/// What [`recover`] would do on a stopped node. Nothing is changed.
pub fn prospect(folder: &Path, told: &Recover) -> Result<Prospect, RefoundFailure> {
    let data = hold_node(folder)?;
    look(&data, told).map(|(prospect, _)| prospect)
}

fn hold_node(folder: &Path) -> Result<DataDir, RefoundFailure> {
    if !folder.join("node.json").exists() {
        return refuse(format!("{} is no node's data folder: there is no node.json in it", folder.display()));
    }
    let held = identity::hold(folder)?;
    let Some(identity) = held.identity else { return refuse("the folder belongs to no node") };
    Ok(held.claim(identity.node)?)
}

fn look(data: &DataDir, told: &Recover) -> Result<(Prospect, Backup), RefoundFailure> {
    let node = data.identity.node;
    let Some(metadata) = metadata(&data.path, node)? else {
        return refuse(format!(
            "{} has no metadata: if there is a backup, `seawall cluster restore` begins with it",
            data.path.display()
        ));
    };
    let lost = if told.lost.is_empty() {
        metadata.state.members().filter(|member| *member != node && !told.surveys.contains_key(member)).collect()
    } else {
        told.lost.clone()
    };
    let (found, troubles) = survey(&data.path, node)?;
    let mut surveys = told.surveys.clone();
    surveys.insert(node, found);
    let (source, state) = (Source::Survivor, &metadata.state);
    let from = From { source, state, index: metadata.index, term: metadata.term };
    let (founding, fates) = begin_with(data, &from, &lost, &surveys)?;
    let voters = &metadata.members.voters;
    let left = voters.iter().filter(|voter| !lost.contains(voter)).count();
    let decides = |fate: &Fate| matches!(fate, Fate::Kept | Fate::Alone { .. });
    if 2 * left > voters.len() && fates.values().all(decides) {
        return refuse(format!(
            "{left} of the {} nodes that vote on the metadata are left, which is a majority, and of every partition one is \
             left too: start them, and nothing is lost",
            voters.len()
        ));
    }
    Ok((Prospect { node, metadata, fates, troubles, lost }, founding))
}

/// Begins the cluster anew on a stopped node, with what it has, without those that are named as lost.
pub fn recover(folder: &Path, told: &Recover, confirmed: &str) -> Result<Done, RefoundFailure> {
    let data = hold_node(folder)?;
    let (prospect, founding) = look(&data, told)?;
    let cluster = founding.head.cluster.to_string();
    if confirmed != cluster {
        return refuse(format!(
            "this cannot be undone: read `seawall cluster recover --plan --data-dir {}` first, then say --yes {cluster}",
            folder.display()
        ));
    }
    if told.lost.is_empty() {
        return refuse("name the nodes that are lost for good with --lost: nothing is taken for lost by itself");
    }
    let done = commit(&data, prospect.node, &founding)?;
    Ok(Done { fates: prospect.fates, troubles: prospect.troubles, ..done })
}

/// The folder's copies, for another node's plan.
pub fn survey_for_others(folder: &Path) -> Result<(NodeId, Survey, Vec<String>), RefoundFailure> {
    let data = hold_node(folder)?;
    let (found, troubles) = survey(&data.path, data.identity.node)?;
    Ok((data.identity.node, found, troubles))
}

/// Speaks of the last act until somebody has acknowledged it.
pub fn tell(state: &State, findings: &Findings) {
    let Some(act) = state.refoundings.last() else { return };
    if act.acknowledged.is_some() {
        return findings.clear(FINDING, "cluster");
    }
    findings.raise(
        "cluster",
        Finding {
            code: FINDING,
            severity: Severity::Warning,
            title: in_words(act),
            since: act.at,
            impact: vec!["durability"],
            cause: format!(
                "somebody began the control plane anew on node {}, with what was known up to entry {}",
                act.seed, act.index
            ),
            action: format!(
                "look at what is missing (`seawall cluster status`), start nodes until every partition has its copies \
                 again, take a backup, then say `seawall cluster recover --acknowledge`; never start {} with the old data \
                 folder",
                if act.lost.is_empty() { "a node that was left out".to_owned() } else { format!("node {}", numbers(&act.lost)) }
            ),
        },
    );
}

/// One line for people.
pub fn in_words(act: &control::Refounding) -> String {
    let from = match act.source {
        Source::Backup => "from a backup",
        Source::Survivor => "from what one node had",
    };
    let without = if act.lost.is_empty() { String::new() } else { format!(", without node {}", numbers(&act.lost)) };
    format!(
        "the cluster was begun anew {from}{without}: {} partitions begin empty, {} go on from one copy and may lack \
         acknowledged records",
        act.empty_count, act.forced_count
    )
}

fn numbers(nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
