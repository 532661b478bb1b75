//! Opening partitions beside the owner: it reads what was written since the last checkpoint, and makes what is new
//! durable. While it did that for one, the leaders of all others on the disk would be silent.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use base::disk::Disk;
use base::{NodeId, Offset, TopicPartition};
use log::{OpenError, Partition, PartitionConfig, Recovery, Seats};
use tokio::sync::watch;

use super::owner::{Owner, partition_dir};
use super::waiters::answer;
use super::{Command, LogsError, OPENS_MAX, Reply};
use crate::node::time;
use crate::shell::thread::spawn_owner;

/// One partition to be opened, elsewhere.
pub(super) struct OpenJob {
    pub partition: TopicPartition,
    pub config: PartitionConfig,
    pub seats: Seats,
}

/// What came of it.
pub(super) struct Opened {
    pub job: OpenJob,
    pub outcome: Result<(Partition, Recovery), OpenError>,
}

/// What happened to a partition while it was being opened.
#[derive(Default)]
pub(super) struct Pending {
    replies: Vec<Reply<watch::Receiver<Offset>>>,
    config: Option<PartitionConfig>,
    deleted: Option<Reply<()>>,
}

/// What the threads that open need.
pub(super) struct Opener {
    pub disk: Arc<dyn Disk>,
    pub hard: log::HardStates,
    pub node: NodeId,
}

impl Opener {
    /// Starts the threads. They end with the owner.
    pub fn start(self, done: &mpsc::Sender<Command>) -> std::io::Result<mpsc::Sender<OpenJob>> {
        let (jobs, inbox) = mpsc::channel::<OpenJob>();
        let (inbox, opener) = (Arc::new(Mutex::new(inbox)), Arc::new(self));
        for _ in 0..OPENS_MAX {
            let (inbox, opener, done) = (Arc::clone(&inbox), Arc::clone(&opener), done.clone());
            spawn_owner("log-open", move || {
                loop {
                    let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    if done.send(Command::Opened(Box::new(opener.open(job)))).is_err() {
                        return;
                    }
                }
            })?;
        }
        Ok(jobs)
    }

    fn open(&self, job: OpenJob) -> Opened {
        let outcome = Partition::open(
            job.partition,
            &partition_dir(job.partition),
            job.config.clone(),
            self.node,
            job.seats.clone(),
            Arc::clone(&self.disk),
            log::HardStates::clone(&self.hard),
            time::now(),
            time::wall(),
        );
        Opened { job, outcome }
    }
}

impl Owner {
    /// Answers when it is open.
    pub(super) fn open_partition(&mut self, job: OpenJob, reply: Reply<watch::Receiver<Offset>>) {
        let id = job.partition;
        if let Some(slot) = self.partitions.get(&id) {
            return answer(reply, Ok(slot.committed.subscribe()));
        }
        let is_new = !self.opening.contains_key(&id);
        self.opening.entry(id).or_default().replies.push(reply);
        if is_new && self.opens.send(job).is_err() {
            self.opening.remove(&id);
        }
    }

    /// Opens one that nobody waits for.
    pub(super) fn open_again(&mut self, job: OpenJob) {
        let id = job.partition;
        if self.opening.contains_key(&id) {
            return;
        }
        self.opening.insert(id, Pending::default());
        if self.opens.send(job).is_err() {
            self.opening.remove(&id);
        }
    }

    /// Settings that come while a partition is being opened count when it is.
    pub(super) fn configure_opening(&mut self, id: TopicPartition, config: PartitionConfig) {
        if let Some(pending) = self.opening.get_mut(&id) {
            pending.config = Some(config);
        }
    }

    /// A partition that is being opened is removed when it is; gives the reply back if there is none.
    pub(super) fn delete_opening(&mut self, id: TopicPartition, reply: Reply<()>) -> Option<Reply<()>> {
        let Some(pending) = self.opening.get_mut(&id) else { return Some(reply) };
        if let Some(before) = pending.deleted.replace(reply) {
            answer(before, Ok(()));
        }
        None
    }

    pub(super) fn opened(&mut self, opened: Opened) {
        let Opened { job, outcome } = opened;
        let id = job.partition;
        let Some(pending) = self.opening.remove(&id) else { return };
        if let Some(reply) = pending.deleted {
            drop(outcome);
            pending.replies.into_iter().for_each(|reply| answer(reply, Err(LogsError::Unknown(id))));
            return answer(reply, self.remove_files(id));
        }
        let goes_first = goes_first(&job.seats, self.config.node, &self.connected);
        let taken = self.take_opened(id, outcome, goes_first).map(|taken| self.succeed(id).unwrap_or(taken));
        if let (Some(config), Some(slot)) = (pending.config, self.partitions.get_mut(&id)) {
            slot.partition.configure(config);
        }
        pending.replies.into_iter().for_each(|reply| answer(reply, taken.clone()));
    }
}

/// True for the preferred leader of a new partition, and for the next one if a majority is in reach without it.
fn goes_first(seats: &Seats, node: NodeId, connected: &BTreeSet<NodeId>) -> bool {
    let Some(place) = seats.voters.iter().position(|voter| *voter == node) else { return false };
    let in_reach = |voters: &[NodeId]| voters.iter().filter(|voter| connected.contains(voter)).count();
    let has_majority = 2 * (in_reach(&seats.voters) + 1) > seats.voters.len();
    place == 0 || (has_majority && in_reach(&seats.voters[..place]) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_there_leads_a_new_partition() {
        let [one, two, three, four] = [1, 2, 3, 4].map(NodeId);
        let seats = Seats { voters: vec![three, one, two], learners: vec![four] };
        let goes = |node, connected: &[NodeId]| goes_first(&seats, node, &connected.iter().copied().collect());
        assert!(goes(three, &[one, two]) && !goes(one, &[two, three]) && !goes(two, &[one, three]));
        assert!(goes(one, &[two]) && !goes(two, &[one]), "the preferred one is lost");
        assert!(goes(three, &[]) && !goes(one, &[]) && !goes(two, &[]), "at the start nobody is in reach yet");
        assert!(!goes(four, &[]), "a learner never does");
    }
}
