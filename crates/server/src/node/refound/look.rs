//! What a stopped node's folder says: its metadata, and its copies of partitions. Nothing is changed.

use std::path::Path;
use std::sync::{Arc, Mutex};

use base::disk::memory::MemDisk;
use base::disk::{Disk, DiskError};
use base::{LogIndex, NodeId, Offset, PartitionIndex, Term, TopicId, TopicPartition};
use control::{Command, Found, State, Survey};
use log::{Partition, PartitionConfig, Seats};
use quorum::{Journal, Members, Payload, Storage};
use uuid::Uuid;

use super::RefoundFailure;
use super::looking::LookingDisk;
use crate::node::time;
use crate::shell::disk::RealDisk;

/// Room for hard states that are not there.
const NO_HARD_STATES_BYTES: u64 = 1 << 20;

/// Group 0 as a stopped node has it.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// After everything that the journal holds, decided or not.
    pub state: State,
    pub members: Members,
    /// Of the last entry.
    pub index: LogIndex,
    pub term: Term,
    /// Known to be decided.
    pub committed: LogIndex,
}

/// `None`: there is none, or it is that of a node that never was in a cluster.
pub fn metadata(folder: &Path, node: NodeId) -> Result<Option<Metadata>, RefoundFailure> {
    let disk = looking(folder)?;
    let entries = match disk.list("control") {
        Err(DiskError::NotFound { .. }) => return Ok(None),
        entries => entries?,
    };
    if !entries.iter().any(|entry| entry.name.ends_with(".journal")) {
        return Ok(None);
    }
    let (journal, recovered) = Journal::open(disk, "control", &[node])?;
    let mut state = match &recovered.snapshot {
        Some(snapshot) => State::restore(&snapshot.data)?,
        None => State::default(),
    };
    let initial = journal.initial();
    let (mut members, mut term) = (initial.members, initial.hard_state.term);
    let (first, last) = (journal.first_index(), journal.last_index());
    let entries = if first > last { Vec::new() } else { journal.entries(first, last.next(), u64::MAX)? };
    for entry in entries {
        term = term.max(entry.term);
        match &entry.payload {
            Payload::Data(data) => drop(state.apply(entry.index, &Command::decode(data)?)),
            Payload::Membership(change) => members = members.after(change).unwrap_or(members),
            Payload::Empty => {}
        }
    }
    Ok(Some(Metadata { state, members, index: last, term, committed: initial.hard_state.commit }))
}

/// The copies that lie in the folder; those that cannot be opened come with the reason.
pub fn survey(folder: &Path, node: NodeId) -> Result<(Survey, Vec<String>), RefoundFailure> {
    let (mut survey, mut troubles) = (Survey::new(), Vec::new());
    if !folder.join("log").exists() {
        return Ok((survey, troubles));
    }
    let disk = looking(&folder.join("log"))?;
    let hard = if folder.join("hard-state").exists() {
        quorum::HardStates::open(looking(folder)?, "hard-state")?
    } else {
        quorum::HardStates::open(Arc::new(MemDisk::new(0, NO_HARD_STATES_BYTES)), "hard-state")?
    };
    let hard = Arc::new(Mutex::new(hard));
    for (at, dir, last_term) in copies(&*disk)? {
        let opened = Partition::open(
            at,
            &dir,
            PartitionConfig::default(),
            node,
            Seats::alone(node),
            Arc::clone(&disk),
            Arc::clone(&hard),
            time::now(),
            time::wall(),
        );
        let found = match opened {
            Ok((partition, _)) => {
                let members = partition.members();
                Found {
                    term: last_term,
                    end: partition.end(),
                    committed: partition.committed(),
                    voters: if members.is_joint() { Vec::new() } else { members.voters.clone() },
                    is_readable: true,
                }
            }
            Err(error) => {
                troubles.push(format!("log/{dir}: {error}"));
                let (end, voters) = (Offset::ZERO, Vec::new());
                Found { term: Term::ZERO, end, committed: end, voters, is_readable: false }
            }
        };
        survey.insert(at, found);
    }
    Ok((survey, troubles))
}

/// Folders of partitions with a log in them, and the term of its last file that is not empty.
fn copies(disk: &dyn Disk) -> Result<Vec<(TopicPartition, String, Term)>, DiskError> {
    let mut found = Vec::new();
    for topic in disk.list("")?.into_iter().filter(|entry| entry.is_dir) {
        let Ok(id) = Uuid::parse_str(&topic.name) else { continue };
        for partition in disk.list(&topic.name)?.into_iter().filter(|entry| entry.is_dir) {
            let Ok(index) = partition.name.parse() else { continue };
            let dir = format!("{}/{}", topic.name, partition.name);
            let files = disk.list(&dir)?;
            let terms = files.iter().filter(|file| file.len_bytes > 0).filter_map(|file| {
                let term = file.name.strip_suffix(".log")?.rsplit('-').next()?;
                term.parse().ok().map(Term)
            });
            let at = TopicPartition { topic: TopicId(id), partition: PartitionIndex(index) };
            if files.iter().any(|file| file.name.ends_with(".log")) {
                found.push((at, dir, terms.max().unwrap_or(Term::ZERO)));
            }
        }
    }
    Ok(found)
}

fn looking(folder: &Path) -> Result<Arc<dyn Disk>, RefoundFailure> {
    Ok(Arc::new(LookingDisk(Arc::new(RealDisk::open(folder)?))))
}
