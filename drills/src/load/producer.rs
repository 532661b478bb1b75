//! One producer: a thread that sends batch after batch, each until it is acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{ProducerEpoch, ProducerId};
use bytes::Bytes;
use client::{Acks, ClientError, Cluster};

use super::record::batch;
use super::{Ack, Clock, Plan, Tally};

/// Rest before the second attempt; each further one waits so much longer, up to the bound.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(60);
/// DUPLICATE_SEQUENCE_NUMBER: it is there already.
const DUPLICATE: i16 = 46;

pub struct Worker {
    number: u32,
    plan: Plan,
    clock: Clock,
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    cluster: Cluster,
    partition: i32,
    identity: Option<(ProducerId, ProducerEpoch)>,
    next: u64,
}

/// How an attempt ended.
enum Attempt {
    Acknowledged { by: String, sent: Duration },
    TryAgain,
    Fatal(String),
}

impl Worker {
    pub fn new(
        number: u32,
        bootstrap: &[String],
        plan: &Plan,
        clock: Clock,
        tally: &Arc<Mutex<Tally>>,
        stop: &Arc<AtomicBool>,
    ) -> Self {
        let index = usize::try_from(number).unwrap_or(0);
        let client_id = format!("drill-producer-{number}");
        Self {
            number,
            plan: plan.clone(),
            clock,
            tally: Arc::clone(tally),
            stop: Arc::clone(stop),
            cluster: Cluster::new(bootstrap.to_vec(), &client_id, plan.patience).starting_at(index),
            partition: i32::try_from(number).unwrap_or(0) % plan.partitions.max(1),
            identity: None,
            next: 0,
        }
    }

    pub fn run(mut self) {
        let mut due = self.clock.now();
        while !self.stop.load(Ordering::Relaxed) && (!self.plan.idempotent || self.identify()) {
            if !self.one_batch() {
                return;
            }
            due = (due + self.plan.pace).max(self.clock.now().saturating_sub(self.plan.pace));
            std::thread::sleep(due.saturating_sub(self.clock.now()));
        }
    }

    fn note<T>(&self, note: impl FnOnce(&mut Tally) -> T) -> T {
        note(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A producer id, asked for until there is one. False: told to stop meanwhile.
    fn identify(&mut self) -> bool {
        while self.identity.is_none() {
            let given = self.cluster.any().and_then(client::Connection::init_producer_id);
            match given {
                Ok(identity) => self.identity = Some(identity),
                Err(error) => {
                    self.failed(&error);
                    self.cluster.close_all();
                    std::thread::sleep(RETRY_PAUSE);
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return self.identity.is_some();
            }
        }
        true
    }

    /// Sends the next batch until it is acknowledged. False: the producer cannot go on.
    fn one_batch(&mut self) -> bool {
        let (from, to) = (self.next, self.next + u64::from(self.plan.batch_records));
        // Sequence numbers go round after 2^31 - 1.
        let sequence = i32::try_from(from & 0x7fff_ffff).unwrap_or(0);
        let identity = self.identity.map(|(id, epoch)| (id, epoch, sequence));
        let bytes = match batch(self.number, from, self.plan.batch_records, identity) {
            Ok(bytes) => bytes,
            Err(cause) => {
                self.note(|tally| tally.fatal = Some(cause));
                return false;
            }
        };
        let first_sent = self.clock.now();
        let (mut unclear, mut pause) = (false, RETRY_PAUSE);
        loop {
            self.note(|tally| tally.produced = to);
            match self.attempt(bytes.clone()) {
                Attempt::Acknowledged { by, sent } => {
                    let at = self.clock.now();
                    self.note(|tally| tally.acks.push(Ack { from, to, first_sent, sent, at, by, again: unclear }));
                    self.next = to;
                    return true;
                }
                Attempt::TryAgain => unclear = true,
                Attempt::Fatal(cause) => {
                    let cause = format!("producer {} at record {from}: {cause}", self.number);
                    self.note(|tally| tally.fatal = Some(cause));
                    return false;
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause + RETRY_PAUSE).min(RETRY_PAUSE_MAX);
        }
    }

    fn attempt(&mut self, bytes: Bytes) -> Attempt {
        let (topic, partition, acks) = (self.plan.topic.clone(), self.partition, self.plan.acks);
        let connection = match self.cluster.leader(&topic, partition) {
            Ok(connection) => connection,
            Err(error) => return self.refused(&error),
        };
        if acks == Acks::None && connection.is_closed() {
            self.cluster.forget(&topic, partition);
            return Attempt::TryAgain;
        }
        let sent = self.clock.now();
        let done = connection.produce(&topic, partition, bytes, acks);
        let took = self.clock.now().saturating_sub(sent);
        self.note(|tally| tally.longest_answer = tally.longest_answer.max((took, sent)));
        let by = self.cluster.leader_address(&topic, partition).unwrap_or_default().to_owned();
        match done {
            Ok(_) => Attempt::Acknowledged { by, sent },
            Err(ClientError::Refused { code: DUPLICATE, .. }) if self.plan.idempotent => {
                Attempt::Acknowledged { by, sent }
            }
            Err(error) => {
                let outcome = self.refused(&error);
                if self.plan.stubborn {
                    self.cluster.close(&by);
                } else {
                    self.cluster.forget(&topic, partition);
                }
                outcome
            }
        }
    }

    fn refused(&self, error: &ClientError) -> Attempt {
        self.failed(error);
        if error.is_retriable() { Attempt::TryAgain } else { Attempt::Fatal(error.to_string()) }
    }

    fn failed(&self, error: &ClientError) {
        let code = error.code().unwrap_or(0);
        self.note(|tally| {
            *tally.refusals.entry(code).or_default() += 1;
            tally.last_failure = Some(error.to_string());
        });
    }
}
