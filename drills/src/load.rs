//! Producers that account for every record: what was sent, what was acknowledged, when and by whom.
//!
//! ```text
//! record    producer number + a number counting from 0: an id that no other record has
//! producer  one thread, one partition, one batch in flight; sends a batch again until it is acknowledged
//! tally     what one producer knows; `verdict` compares all of them with what is there in the end
//! ```
//! What always holds: numbers are sent in order and a number is never skipped, so an idempotent producer's records must
//! be there in order, once each; a producer that is not idempotent may leave a batch twice, never a gap.

mod producer;
mod record;
mod tally;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use client::Acks;

pub use record::{Id, id_of};
pub use tally::{Ack, Tally, longest_gap};

use crate::Failure;

/// One beginning of time for everything a drill measures.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    #[must_use]
    pub fn now(self) -> Duration {
        self.0.elapsed()
    }
}

/// What the producers are to do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub topic: String,
    /// Producer n writes to partition n modulo this.
    pub partitions: i32,
    pub producers: u32,
    pub acks: Acks,
    /// With a producer id and sequence numbers.
    pub idempotent: bool,
    pub batch_records: u32,
    /// From one batch to the next; a batch that took longer is followed at once.
    pub pace: Duration,
    /// Bounds each wait for an answer.
    pub patience: Duration,
    /// Keep asking the leader first found, whatever it answers: how a client that knows nothing else behaves.
    pub stubborn: bool,
}

impl Plan {
    /// Ten producers, 20 records each 20 ms: 10,000 records a second.
    #[must_use]
    pub fn standard(topic: &str, partitions: i32, acks: Acks) -> Self {
        Self {
            topic: topic.to_owned(),
            partitions,
            producers: 10,
            acks,
            idempotent: acks == Acks::All,
            batch_records: 20,
            pace: Duration::from_millis(20),
            patience: Duration::from_secs(10),
            stubborn: false,
        }
    }
}

/// Producers at work.
#[derive(Debug)]
pub struct Load {
    clock: Clock,
    stop: Arc<AtomicBool>,
    tallies: Vec<Arc<Mutex<Tally>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts them all.
    #[must_use]
    pub fn start(bootstrap: &[String], plan: &Plan, clock: Clock) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Self { clock, stop: Arc::clone(&stop), tallies: Vec::new(), threads: Vec::new() };
        for number in 0..plan.producers {
            let tally = Arc::new(Mutex::new(Tally::new(number, plan)));
            let worker = producer::Worker::new(number, bootstrap, plan, clock, &tally, &stop);
            load.tallies.push(tally);
            load.threads.push(std::thread::spawn(move || worker.run()));
        }
        load
    }

    fn each<T>(&self, look: impl Fn(&Tally) -> T) -> Vec<T> {
        self.tallies.iter().map(|tally| look(&tally.lock().unwrap_or_else(PoisonError::into_inner))).collect()
    }

    /// Records acknowledged so far, by all.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.each(Tally::acknowledged).into_iter().sum()
    }

    /// Records sent so far, by all.
    #[must_use]
    pub fn produced(&self) -> u64 {
        self.each(|tally| tally.produced).into_iter().sum()
    }

    /// Waits until so many records are acknowledged.
    ///
    /// # Errors
    /// Not within the patience, or a producer gave up.
    pub fn await_acknowledged(&self, records: u64, patience: Duration) -> Result<(), Failure> {
        let begun = self.clock.now();
        loop {
            if self.acknowledged() >= records {
                return Ok(());
            }
            self.check()?;
            if self.clock.now().saturating_sub(begun) > patience {
                let (have, last) = (self.acknowledged(), self.last_failure());
                return Err(format!("{have} of {records} records acknowledged within {} s{last}", patience.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until every producer has an acknowledgement of something sent after `from`. Returns when the last of them had it.
    ///
    /// # Errors
    /// Not within the patience, or a producer gave up.
    pub fn await_all_flow(&self, from: Duration, patience: Duration) -> Result<Duration, Failure> {
        let begun = self.clock.now();
        loop {
            let first = self.each(|tally| tally.first_ack_of_sent_after(from));
            if first.iter().all(Option::is_some) {
                return Ok(first.into_iter().flatten().max().unwrap_or_default());
            }
            self.check()?;
            if self.clock.now().saturating_sub(begun) > patience {
                let stuck = first.iter().filter(|ack| ack.is_none()).count();
                let last = self.last_failure();
                return Err(format!("{stuck} producers got no acknowledgement within {} s{last}", patience.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// An error if a producer met an answer that must never come.
    ///
    /// # Errors
    /// That answer.
    pub fn check(&self) -> Result<(), Failure> {
        self.each(|tally| tally.fatal.clone()).into_iter().flatten().next().map_or(Ok(()), Err)
    }

    fn last_failure(&self) -> String {
        let failures = self.each(|tally| tally.last_failure.clone());
        failures.into_iter().flatten().next().map(|cause| format!("; last: {cause}")).unwrap_or_default()
    }

    /// The refusals so far: Kafka's error code and how often, and failed connections under 0.
    #[must_use]
    pub fn refusals(&self) -> std::collections::BTreeMap<i16, u64> {
        let mut all = std::collections::BTreeMap::new();
        for (code, count) in self.each(|tally| tally.refusals.clone()).into_iter().flatten() {
            *all.entry(code).or_default() += count;
        }
        all
    }

    /// Stops all; each may finish the batch in flight within the grace. What is not acknowledged by then never counts as it.
    #[must_use]
    pub fn stop(mut self, grace: Duration) -> Vec<Tally> {
        self.stop.store(true, Ordering::SeqCst);
        let begun = self.clock.now();
        while self.clock.now().saturating_sub(begun) < grace && !self.threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(2));
        }
        // Who is stuck now stays behind with its socket; its patience ends it.
        self.threads.clear();
        self.each(Clone::clone)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
pub mod testing {
    //! Tallies and batches for the tests of other modules.

    use super::*;

    pub fn tally(producer: u32, acks: Acks) -> Tally {
        Tally::new(producer, &Plan::standard("t", 1, acks))
    }

    pub fn batch(producer: u32, from: u64, count: u32) -> bytes::Bytes {
        record::batch(producer, from, count, None).unwrap()
    }
}
