//! What followers lack, read beside the owner.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use base::TopicPartition;
use log::{ReadDone, ReadJob};

use super::owner::Owner;
use super::{Command, READS_MAX};
use crate::node::time;
use crate::shell::thread::spawn_owner;

type Job = (TopicPartition, ReadJob);

/// Reads that wait and how many are under way.
pub(super) struct Reads {
    jobs: mpsc::Sender<Job>,
    /// Bounded by the replicas: each partition asks once for each place a follower stands at.
    waiting: VecDeque<Job>,
    under_way: usize,
}

impl Reads {
    /// Starts the threads that read. They end with the owner.
    pub fn start(done: &mpsc::Sender<Command>) -> std::io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..READS_MAX {
            let (inbox, done) = (Arc::clone(&inbox), done.clone());
            spawn_owner("log-read", move || read_loop(&inbox, &done))?;
        }
        Ok(Self { jobs, waiting: VecDeque::new(), under_way: 0 })
    }
}

fn read_loop(inbox: &Mutex<mpsc::Receiver<Job>>, done: &mpsc::Sender<Command>) {
    loop {
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((partition, job)) = job else { return };
        if done.send(Command::Read(partition, job.run())).is_err() {
            return;
        }
    }
}

impl Owner {
    /// Notes what a partition wants to have read.
    pub(super) fn want_reads(&mut self, id: TopicPartition) {
        if let Some(slot) = self.partitions.get_mut(&id) {
            let reads = slot.partition.take_reads();
            self.reads.waiting.extend(reads.into_iter().map(|read| (id, read)));
        }
    }

    /// Hands reads out, as long as there is room for what they give. The others wait their turn.
    pub(super) fn start_reads(&mut self) {
        for _ in 0..self.reads.waiting.len() {
            if self.reads.under_way >= READS_MAX {
                return;
            }
            let Some((id, job)) = self.reads.waiting.pop_front() else { return };
            if !self.partitions.contains_key(&id) {
                continue;
            }
            if job.followers().iter().any(|node| self.outbox.is_crowded(*node)) {
                self.reads.waiting.push_back((id, job));
                continue;
            }
            self.reads.under_way += usize::from(self.reads.jobs.send((id, job)).is_ok());
        }
    }

    pub(super) fn read(&mut self, id: TopicPartition, done: ReadDone) {
        self.reads.under_way = self.reads.under_way.saturating_sub(1);
        self.awaken(id);
        let Some(slot) = self.partitions.get_mut(&id) else { return };
        slot.partition.read_done(time::now(), done);
        self.touch(id);
    }
}
