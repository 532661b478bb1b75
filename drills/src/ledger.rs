//! Producers that remember what was acknowledged.
//!
//! Every record carries an id that no other has: producer and number. A batch whose answer did not come is sent
//! again, with its own producer id and sequence, until it is acknowledged: so in the end every number below
//! `acknowledged` must be there once, and nothing else.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use base::Timestamp;
use base::batch::Codec;
use base::records::BatchBuilder;
use base::{ProducerEpoch, ProducerId};
use bytes::Bytes;
use client::{Acks, Connection};

use crate::random::Random;

/// One producer at work.
pub struct Producer {
    pub number: u64,
    /// Records acknowledged so far: numbers `0..acknowledged`.
    pub acknowledged: Arc<AtomicU64>,
    /// Answers that did not come, so that the batch was sent again.
    pub retries: Arc<AtomicU64>,
    failure: Arc<Mutex<Option<String>>>,
    thread: JoinHandle<()>,
}

/// What a producer is to do.
pub struct Assignment {
    pub number: u64,
    pub topic: String,
    pub partitions: i32,
    pub address: String,
    pub acks: Acks,
    /// Rest between two batches.
    pub pause_ms: u64,
    pub stop: Arc<AtomicBool>,
}

impl Producer {
    /// Starts producing until told to stop.
    pub fn start(assignment: &Assignment) -> Self {
        let Assignment { number, acks, pause_ms, .. } = *assignment;
        let stop = Arc::clone(&assignment.stop);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let retries = Arc::new(AtomicU64::new(0));
        let failure = Arc::new(Mutex::new(None));
        let mut work = Work {
            number,
            topic: assignment.topic.clone(),
            partition: i32::try_from(number).unwrap_or(0) % assignment.partitions,
            address: assignment.address.clone(),
            acks,
            acknowledged: Arc::clone(&acknowledged),
            retries: Arc::clone(&retries),
            random: Random(number),
            identity: None,
            sequence: 0,
            connection: None,
        };
        let told = Arc::clone(&failure);
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Err(cause) = work.produce_one() {
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
                    return;
                }
                std::thread::sleep(Duration::from_millis(pause_ms));
            }
        });
        Self { number, acknowledged, retries, failure, thread }
    }

    /// Waits for its end; an error if the server refused what it must not refuse.
    pub fn join(self) -> Result<(u64, u64), String> {
        self.thread.join().map_err(|_| "a producer panicked".to_owned())?;
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(cause) => Err(cause),
            None => Ok((self.number, self.acknowledged.load(Ordering::SeqCst))),
        }
    }
}

struct Work {
    number: u64,
    topic: String,
    partition: i32,
    address: String,
    acks: Acks,
    acknowledged: Arc<AtomicU64>,
    retries: Arc<AtomicU64>,
    random: Random,
    identity: Option<(ProducerId, ProducerEpoch)>,
    sequence: i32,
    connection: Option<Connection>,
}

impl Work {
    /// One batch, sent until it is acknowledged.
    fn produce_one(&mut self) -> Result<(), String> {
        let from = self.acknowledged.load(Ordering::SeqCst);
        let records = self.random.between(1, 200);
        let identity = self.identity()?;
        let batch = batch(self.number, from, records, identity, self.sequence)?;
        loop {
            match self.send(batch.clone()) {
                Ok(()) => {
                    self.acknowledged.store(from + records, Ordering::SeqCst);
                    self.sequence = self.sequence.wrapping_add(i32::try_from(records).unwrap_or(0)) & i32::MAX;
                    return Ok(());
                }
                Err(client::ClientError::Refused { code, what, .. }) if !is_retriable(code) => {
                    return Err(format!("producer {}: {what}: error {code} at record {from}", self.number));
                }
                Err(_) => {
                    self.retries.fetch_add(1, Ordering::Relaxed);
                    self.connection = None;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    fn send(&mut self, batch: Bytes) -> Result<(), client::ClientError> {
        let (topic, partition, acks) = (self.topic.clone(), self.partition, self.acks);
        self.connected()?.produce(&topic, partition, batch, acks).map(drop)
    }

    fn connected(&mut self) -> Result<&mut Connection, client::ClientError> {
        if self.connection.is_none() {
            self.connection = Some(Connection::connect(&self.address, "ledger", Duration::from_secs(10))?);
        }
        let connection = self.connection.as_mut();
        Ok(connection.unwrap_or_else(|| unreachable!("connected above")))
    }

    fn identity(&mut self) -> Result<(ProducerId, ProducerEpoch), String> {
        for _ in 0..2_000 {
            if let Some(identity) = self.identity {
                return Ok(identity);
            }
            match self.connected().and_then(Connection::init_producer_id) {
                Ok(identity) => self.identity = Some(identity),
                Err(_) => {
                    self.connection = None;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        Err("no producer id within 40 s".into())
    }
}

/// Timeouts, not (yet) the leader, not enough replicas, storage: the client's library would try again.
fn is_retriable(code: i16) -> bool {
    matches!(code, 3 | 5 | 6 | 7 | 13 | 19 | 20 | 56)
}

fn batch(
    producer: u64,
    from: u64,
    records: u64,
    identity: (ProducerId, ProducerEpoch),
    sequence: i32,
) -> Result<Bytes, String> {
    let mut builder = BatchBuilder::new(Codec::None).producer(identity.0, identity.1, sequence);
    for number in from..from + records {
        // Event time spreads over several time chunks.
        let time = 1_700_000_000_000 + i64::try_from(number % 4 * 86_400_000 + number).unwrap_or(0);
        let json =
            format!(r#"{{"__time":{time},"producer":"p{producer}","number":{number},"id":"{producer}-{number}"}}"#);
        builder.push(Timestamp(time), None, Some(json.as_bytes()), &[]);
    }
    builder.build().map_err(|error| error.to_string())
}
