//! The records of the internal topic, as drawn in docs/formats/transaction-state.md.

use std::collections::BTreeSet;

use base::{PartitionIndex, ProducerEpoch, ProducerId, Timestamp, TopicId, TopicPartition};
use bytes::Bytes;
use uuid::Uuid;

use super::request::{Producer, Target, TransactionState};
use crate::fields::{Damaged, Reading, put_len32, put_ms, put_string};

const KEY: i16 = 1;
const VALUE: i16 = 1;
const PARTITION: u8 = 0;
const GROUP: u8 = 1;

/// The durable part of a transactional id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    pub producer: Producer,
    /// What the producer was before its epoch was raised at its own request: that request may come again.
    pub previous: Option<Producer>,
    pub timeout_ms: u64,
    pub state: TransactionState,
    /// When the transaction under way began.
    pub started: Option<Timestamp>,
    pub updated: Timestamp,
    /// Empty unless ongoing or prepared.
    pub targets: BTreeSet<Target>,
}

pub fn encode_key(id: &str) -> Bytes {
    let mut out = Vec::new();
    out.extend(KEY.to_be_bytes());
    put_string(&mut out, id);
    out.into()
}

/// `None`: a kind this version does not know.
pub fn decode_key(bytes: &[u8]) -> Result<Option<String>, Damaged> {
    let mut read = Reading(bytes);
    if read.i16()? != KEY {
        return Ok(None);
    }
    let id = read.string()?;
    read.end()?;
    Ok(Some(id))
}

fn put_producer(out: &mut Vec<u8>, producer: Option<Producer>) {
    out.extend(producer.map_or(-1, |producer| producer.id.0).to_be_bytes());
    out.extend(producer.map_or(-1, |producer| producer.epoch.0).to_be_bytes());
}

impl Known {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        out.extend(VALUE.to_be_bytes());
        put_producer(&mut out, Some(self.producer));
        put_producer(&mut out, self.previous);
        put_ms(&mut out, self.timeout_ms);
        out.push(self.state.number());
        out.extend(self.started.map_or(-1, |started| started.0).to_be_bytes());
        out.extend(self.updated.0.to_be_bytes());
        put_len32(&mut out, self.targets.len());
        for target in &self.targets {
            match target {
                Target::Partition(place) => {
                    out.push(PARTITION);
                    out.extend(place.topic.0.as_bytes());
                    out.extend(place.partition.0.to_be_bytes());
                }
                Target::Group(group) => {
                    out.push(GROUP);
                    put_string(&mut out, group);
                }
            }
        }
        out.into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut read = Reading(bytes);
        read.version(VALUE)?;
        let producer = read_producer(&mut read)?;
        let previous = read_producer(&mut read)?;
        let timeout_ms = read.ms()?;
        let [state] = read.array()?;
        let (started, updated) = (read.i64()?, read.i64()?);
        let mut known = Self {
            producer,
            previous: (previous.id.0 >= 0).then_some(previous),
            timeout_ms,
            state: TransactionState::of_number(state).ok_or(Damaged("its state is unknown"))?,
            started: (started >= 0).then_some(Timestamp(started)),
            updated: Timestamp(updated),
            targets: BTreeSet::new(),
        };
        if producer.id.0 < 0 || producer.epoch.0 < 0 {
            return Err(Damaged("its producer is negative"));
        }
        let count = read.i32()?;
        for _ in 0..count {
            let target = match read.array()? {
                [PARTITION] => {
                    let topic = TopicId(Uuid::from_bytes(read.array()?));
                    Target::Partition(TopicPartition { topic, partition: PartitionIndex(read.i32()?) })
                }
                [GROUP] => Target::Group(read.string()?),
                _ => return Err(Damaged("a target's kind is unknown")),
            };
            known.targets.insert(target);
        }
        read.end()?;
        Ok(known)
    }
}

fn read_producer(read: &mut Reading<'_>) -> Result<Producer, Damaged> {
    let id = ProducerId(read.i64()?);
    Ok(Producer { id, epoch: ProducerEpoch(read.i16()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_the_bytes_that_were_drawn_and_no_cut_or_flip_panics() {
        let place = TopicPartition { topic: TopicId(Uuid::from_u128(7)), partition: PartitionIndex(3) };
        let known = Known {
            producer: Producer { id: ProducerId(258), epoch: ProducerEpoch(2) },
            previous: None,
            timeout_ms: 60_000,
            state: TransactionState::PrepareCommit,
            started: Some(Timestamp(5)),
            updated: Timestamp(6),
            targets: [Target::Partition(place), Target::Group("g".into())].into(),
        };
        let bytes = known.encode();
        let drawn = [
            &b"\0\x01\0\0\0\0\0\0\x01\x02\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\xea\x60\x02"[..],
            b"\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06\0\0\0\x02",
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\x03\x01\0\x01g",
        ];
        assert_eq!(&bytes[..], drawn.concat());
        assert_eq!(Known::decode(&bytes), Ok(known));
        assert_eq!(&encode_key("t")[..], b"\0\x01\0\x01t");
        assert_eq!(decode_key(b"\0\x01\0\x01t"), Ok(Some("t".into())));
        assert_eq!(decode_key(b"\0\x09whatever"), Ok(None));
        for at in 0..bytes.len() {
            assert!(Known::decode(&bytes[..at]).is_err());
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << bit;
                let _ = Known::decode(&flipped);
            }
        }
    }
}
