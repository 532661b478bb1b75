//! Records into batches, batches to the leaders of their partitions, several of them under way at a time. What
//! `topic produce` and `ingest` send with. Every record is counted when it is acknowledged.
//!
//! What always holds: with acks=all a record is there once, in the order in which it was pushed, also when a leader dies with
//! batches under way: they carry a producer's id, and are sent again as they were.

use std::collections::{BTreeMap, VecDeque};

use base::batch::Codec;
use base::records::BatchBuilder;
use base::{Offset, ProducerEpoch, ProducerId};
use bytes::Bytes;
use client::{Acks, ClientError};

use super::failure::{Code, Failure};
use super::output::say;
use super::routed::{Routed, is_worth_a_retry};

/// A batch is sent when it has this much.
const BATCH_BYTES: usize = 256 << 10;
/// Batches that are under way without an answer.
const IN_FLIGHT_MAX: usize = 8;

pub struct Producer {
    nodes: Routed,
    /// With acks=all.
    id: Option<(ProducerId, ProducerEpoch)>,
    /// By partition, how many records have been given to batches.
    sequences: BTreeMap<i32, i32>,
    topic: String,
    partitions: i32,
    acks: Acks,
    codec: Codec,
    batches: BTreeMap<i32, BatchBuilder>,
    /// Where records without a key go until the batch is full.
    current: i32,
    in_flight: VecDeque<Sent>,
    acknowledged: u64,
    ends: BTreeMap<i32, Offset>,
}

/// A batch under way.
struct Sent {
    partition: i32,
    count: i32,
    batch: Bytes,
    /// Of the node it was sent to.
    address: String,
}

impl Producer {
    /// The topic is created if it is absent and the server allows it.
    pub fn new(mut nodes: Routed, topic: &str, acks: Acks, codec: Codec) -> Result<Self, Failure> {
        let partitions = nodes.any(|node| node.topic(topic, true))?.partitions;
        if partitions < 1 {
            return Err(Failure::new(Code::Failure, format!("topic {topic} has no partitions")));
        }
        let id = match acks {
            Acks::All => Some(nodes.any(client::Connection::init_producer_id)?),
            Acks::Leader | Acks::None => None,
        };
        Ok(Self {
            nodes,
            id,
            sequences: BTreeMap::new(),
            topic: topic.to_owned(),
            partitions,
            acks,
            codec,
            batches: BTreeMap::new(),
            current: 0,
            in_flight: VecDeque::new(),
            acknowledged: 0,
            ends: BTreeMap::new(),
        })
    }

    /// Records that were acknowledged (sent, with acks=0).
    pub const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The offset after the last acknowledged record, by partition.
    pub const fn ends(&self) -> &BTreeMap<i32, Offset> {
        &self.ends
    }

    pub const fn partitions(&self) -> i32 {
        self.partitions
    }

    /// Takes a record; a key decides its partition as in every Kafka client, unless one is named.
    pub fn push(&mut self, partition: Option<i32>, key: Option<&[u8]>, value: &[u8]) -> Result<(), Failure> {
        let keyed = key.map(|key| partition_of(key, self.partitions));
        let partition = partition.or(keyed).unwrap_or(self.current);
        let (id, codec, next) = (self.id, self.codec, self.sequences.entry(partition).or_default());
        let batch = self.batches.entry(partition).or_insert_with(|| match id {
            Some((id, epoch)) => BatchBuilder::new(codec).producer(id, epoch, *next),
            None => BatchBuilder::new(codec),
        });
        if !batch.is_empty() && batch.plain_bytes() + value.len() > BATCH_BYTES {
            self.send(partition)?;
            return self.push(Some(partition), key, value);
        }
        batch.push(crate::node::time::wall(), key, Some(value), &[]);
        if batch.plain_bytes() >= BATCH_BYTES {
            self.send(partition)?;
        }
        Ok(())
    }

    /// Sends what has been gathered, without waiting.
    pub fn send_all(&mut self) -> Result<(), Failure> {
        let partitions: Vec<i32> = self.batches.keys().copied().collect();
        partitions.into_iter().try_for_each(|partition| self.send(partition))
    }

    /// Sends everything and waits for all answers.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.send_all()?;
        while !self.in_flight.is_empty() {
            self.receive()?;
        }
        Ok(())
    }

    fn send(&mut self, partition: i32) -> Result<(), Failure> {
        let Some(batch) = self.batches.remove(&partition) else { return Ok(()) };
        let count = batch.record_count();
        let batch = batch.build().map_err(|error| Failure::new(Code::Failure, error.to_string()))?;
        let next = self.sequences.entry(partition).or_default();
        // Sequence numbers begin again at zero after the largest one.
        *next = (*next).checked_add(count).unwrap_or_else(|| count - (i32::MAX - *next) - 1);
        if self.current == partition {
            self.current = (self.current + 1) % self.partitions;
        }
        if self.acks == Acks::None {
            self.acknowledged += u64::try_from(count).unwrap_or(0);
            let (topic, acks) = (self.topic.clone(), self.acks);
            return self
                .nodes
                .leader(&topic, partition, |node| node.send_produce(&topic, partition, batch.clone(), acks));
        }
        let (address, node) = self.nodes.open_leader(&self.topic, partition)?;
        let sent = node.send_produce(&self.topic, partition, batch.clone(), self.acks);
        self.in_flight.push_back(Sent { partition, count, batch, address });
        match sent {
            Err(error) => self.mend(&error),
            Ok(()) if self.in_flight.len() >= IN_FLIGHT_MAX => self.receive(),
            Ok(()) => Ok(()),
        }
    }

    fn receive(&mut self) -> Result<(), Failure> {
        let Some(sent) = self.in_flight.front() else { return Ok(()) };
        match self.nodes.at(&sent.address, client::Connection::receive_produced) {
            Ok(first) => {
                self.acknowledge(first);
                Ok(())
            }
            Err(error) => self.mend(&error),
        }
    }

    /// The oldest batch under way is there.
    fn acknowledge(&mut self, first: Offset) {
        let Some(Sent { partition, count, .. }) = self.in_flight.pop_front() else { return };
        self.acknowledged += u64::try_from(count).unwrap_or(0);
        self.ends.insert(partition, first.plus(i64::from(count)));
    }

    /// A leader is gone or is another by now: everything under way is sent again, one batch after the other.
    fn mend(&mut self, error: &ClientError) -> Result<(), Failure> {
        if !is_worth_a_retry(error) {
            return Err(Failure::new(Code::Failure, error.to_string()));
        }
        let partitions: Vec<i32> = self.in_flight.iter().map(|sent| sent.partition).collect();
        self.nodes.start_over(&self.topic, partitions.into_iter());
        let mut again = 0;
        while let Some(sent) = self.in_flight.front() {
            let (topic, acks, partition, batch) = (&self.topic, self.acks, sent.partition, &sent.batch);
            let first =
                self.nodes.leader(topic, partition, |node| node.produce(topic, partition, batch.clone(), acks))?;
            self.acknowledge(first);
            again += 1;
        }
        say(&format!("{error}; {again} batches were sent again and are there"));
        Ok(())
    }
}

/// The partition of a key as Kafka's own clients choose it, so that a key's records stay together whoever sends them.
fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let positive = murmur2(key) & 0x7fff_ffff;
    let partitions = u32::try_from(partitions).unwrap_or(1).max(1);
    i32::try_from(positive % partitions).unwrap_or(0)
}

/// `MurmurHash2` by Austin Appleby (public domain), with the seed Kafka's clients use.
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c ^ length;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hashed_as_kafkas_clients_do() {
        // The values of Kafka's own unit test, as unsigned numbers.
        let known: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, expected) in known {
            assert_eq!(murmur2(key.as_bytes()), expected.cast_unsigned(), "{key}");
        }
    }
}
