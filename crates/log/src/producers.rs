//! What is remembered of idempotent producers, so that a batch sent again is not written again.
//!
//! As Kafka does it: per producer id the last five batches, which is what a client may have in flight. A
//! batch equal to one of them is a duplicate and gets its old offsets; otherwise its sequence must follow
//! the last one (after 2147483647 comes 0). A producer not remembered may start at any sequence if any was ever
//! forgotten here: it may be one of those. While none was, it begins with 0, so that a batch that overtook the first
//! one does not take its place. What always holds: at most `producers_max` are remembered.

use std::collections::BTreeMap;

use base::batch::BatchHeader;
use base::checksum::crc32c;
use base::marker::EndMarker;
use base::{LogIndex, Offset, ProducerEpoch, ProducerId, Timestamp};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::AppendError;
use crate::limits::PRODUCER_BATCHES_MAX;
use crate::stable::{Aborted, Transactions};

const MAGIC: &[u8; 4] = b"SWPR";
/// As long as there is nothing of transactions.
const VERSION_PLAIN: u16 = 1;
const VERSION: u16 = 2;
/// A flag: all who ever wrote are there. Absent in files of earlier versions.
const NONE_FORGOTTEN: u16 = 1;
const HEADER_BYTES: usize = 28;
const PRODUCER_BYTES: usize = 20;
const BATCH_BYTES: usize = 20;
/// No coordinator has written a marker.
const NO_COORDINATOR: i32 = -1;

/// All producers of a partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Producers {
    by_id: BTreeMap<ProducerId, Producer>,
    pub transactions: Transactions,
    /// Some producer that wrote here may not be among them.
    forgot: bool,
}

/// What a partition knows of a producer: DescribeProducers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerSeen {
    pub producer: ProducerId,
    pub epoch: ProducerEpoch,
    /// -1 if it has written nothing in this epoch.
    pub last_sequence: i32,
    pub last_timestamp: Timestamp,
    /// Where its open transaction begins.
    pub txn_start: Option<Offset>,
    /// Of its last marker; -1 if there was none.
    pub coordinator_epoch: i32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Producer {
    epoch: ProducerEpoch,
    last_append: Timestamp,
    /// Of the coordinator that wrote its last marker.
    coordinator_epoch: i32,
    /// Oldest first, at most [`PRODUCER_BATCHES_MAX`].
    batches: Vec<Remembered>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Remembered {
    base_sequence: i32,
    last_sequence: i32,
    base_offset: Offset,
    last_offset_delta: i32,
}

/// What a batch is to its producer's history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    New,
    /// Written before, at these offsets.
    Duplicate {
        base_offset: Offset,
        next_offset: Offset,
    },
}

/// A position of the log to which producers are accounted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SnapshotPlace {
    pub next_offset: Offset,
    pub last_index: LogIndex,
}

impl Producers {
    /// What was read before is not known: of a log whose first part is gone.
    pub fn of_the_rest(is_trimmed: bool) -> Self {
        Self { forgot: is_trimmed, ..Self::default() }
    }

    /// Compares a batch with what is remembered of its producer.
    pub fn check(&self, header: &BatchHeader) -> Result<Verdict, AppendError> {
        if header.producer_id == ProducerId::NONE {
            return Ok(Verdict::New);
        }
        if header.producer_id.0 < 0 || header.producer_epoch.0 < 0 || header.base_sequence < 0 {
            return Err(AppendError::Unsupported("a producer's id, epoch and sequence must not be negative"));
        }
        let Some(producer) = self.by_id.get(&header.producer_id) else {
            let (producer, found) = (header.producer_id, header.base_sequence);
            let is_first = found == 0 || self.forgot;
            let refused = || AppendError::OutOfOrderSequence { producer, expected: 0, found };
            return is_first.then_some(Verdict::New).ok_or_else(refused);
        };
        if header.producer_epoch < producer.epoch {
            let (producer, current) = (header.producer_id, producer.epoch);
            return Err(AppendError::FencedEpoch { producer, current, found: header.producer_epoch });
        }
        let last_sequence = last_sequence_of(header);
        let expected = if header.producer_epoch > producer.epoch {
            0
        } else {
            let mut batches = producer.batches.iter();
            let same = batches.find(|b| (b.base_sequence, b.last_sequence) == (header.base_sequence, last_sequence));
            if let Some(&Remembered { base_offset, last_offset_delta, .. }) = same {
                let next_offset = base_offset.plus(i64::from(last_offset_delta) + 1);
                return Ok(Verdict::Duplicate { base_offset, next_offset });
            }
            producer.batches.last().map_or(0, |last| sequence_after(last.last_sequence, 1))
        };
        if header.base_sequence != expected {
            let (producer, found) = (header.producer_id, header.base_sequence);
            return Err(AppendError::OutOfOrderSequence { producer, expected, found });
        }
        Ok(Verdict::New)
    }

    /// Refuses a marker of a producer that was fenced since, or of a coordinator that was replaced.
    pub fn check_marker(&self, marker: &EndMarker) -> Result<(), AppendError> {
        if marker.producer.0 < 0 || marker.epoch.0 < 0 {
            return Err(AppendError::Unsupported("a marker's producer and epoch must not be negative"));
        }
        let Some(known) = self.by_id.get(&marker.producer) else { return Ok(()) };
        if marker.coordinator_epoch < known.coordinator_epoch {
            let (current, found) = (known.coordinator_epoch, marker.coordinator_epoch);
            return Err(AppendError::FencedCoordinator { producer: marker.producer, current, found });
        }
        if marker.epoch < known.epoch {
            let (producer, current) = (marker.producer, known.epoch);
            return Err(AppendError::FencedEpoch { producer, current, found: marker.epoch });
        }
        Ok(())
    }

    /// True if a marker would say nothing new: what it ends has ended, by the same coordinator.
    pub fn is_ended(&self, marker: &EndMarker) -> bool {
        let known = self.by_id.get(&marker.producer);
        !self.transactions.is_open(marker.producer)
            && known
                .is_some_and(|known| (known.epoch, known.coordinator_epoch) == (marker.epoch, marker.coordinator_epoch))
    }

    /// Remembers a batch that was written; its header has its offsets. Tells of the transaction that it aborts.
    pub fn record(
        &mut self,
        header: &BatchHeader,
        marker: Option<&EndMarker>,
        wall: Timestamp,
        producers_max: usize,
    ) -> Option<Aborted> {
        let aborted = self.transactions.record(header, marker, wall);
        self.remember(header, marker, wall, producers_max);
        aborted
    }

    fn remember(&mut self, header: &BatchHeader, marker: Option<&EndMarker>, wall: Timestamp, producers_max: usize) {
        if header.producer_id.0 < 0 || header.producer_epoch.0 < 0 || (header.is_control() && marker.is_none()) {
            return;
        }
        let producer = self.by_id.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            last_append: wall,
            coordinator_epoch: NO_COORDINATOR,
            batches: Vec::with_capacity(1),
        });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        if let Some(marker) = marker {
            producer.last_append = wall;
            producer.coordinator_epoch = producer.coordinator_epoch.max(marker.coordinator_epoch);
            return self.bound(producers_max, header.producer_id);
        }
        if producer.batches.len() == PRODUCER_BATCHES_MAX {
            producer.batches.remove(0);
        }
        producer.last_append = wall;
        producer.batches.push(Remembered {
            base_sequence: header.base_sequence,
            last_sequence: last_sequence_of(header),
            base_offset: header.base_offset,
            last_offset_delta: header.last_offset_delta,
        });
        self.bound(producers_max, header.producer_id);
    }

    /// Forgets producers silent for longer than `expiry_ms`.
    pub fn expire(&mut self, wall: Timestamp, expiry_ms: u64) {
        let oldest = wall.0.saturating_sub(i64::try_from(expiry_ms).unwrap_or(i64::MAX));
        let transactions = &self.transactions;
        let before = self.by_id.len();
        self.by_id.retain(|id, producer| producer.last_append.0 >= oldest || transactions.is_open(*id));
        self.forgot |= self.by_id.len() < before;
    }

    /// Past the bound, forgets those silent longest; an eighth at once, so that it costs little on average.
    fn bound(&mut self, producers_max: usize, keep: ProducerId) {
        if self.by_id.len() <= producers_max.max(1) {
            return;
        }
        let silent = self.by_id.iter().map(|(id, producer)| (producer.last_append, *id));
        let may_go = |id: ProducerId| id != keep && !self.transactions.is_open(id);
        let mut silent: Vec<(Timestamp, ProducerId)> = silent.filter(|(_, id)| may_go(*id)).collect();
        let count = (silent.len() / 8).max(1).min(silent.len());
        if count < silent.len() {
            silent.select_nth_unstable(count);
        }
        for (_, id) in &silent[..count] {
            self.by_id.remove(id);
            self.forgot = true;
        }
    }

    pub fn list(&self) -> impl Iterator<Item = ProducerSeen> + '_ {
        self.by_id.iter().map(|(id, producer)| ProducerSeen {
            producer: *id,
            epoch: producer.epoch,
            last_sequence: producer.batches.last().map_or(-1, |last| last.last_sequence),
            last_timestamp: producer.last_append,
            txn_start: self.transactions.first_of(*id),
            coordinator_epoch: producer.coordinator_epoch,
        })
    }

    /// The `.producers` file.
    pub fn encode(&self, place: SnapshotPlace) -> Bytes {
        let no_marker =
            |producer: &Producer| producer.coordinator_epoch == NO_COORDINATOR && !producer.batches.is_empty();
        let is_plain = self.transactions.is_empty() && self.by_id.values().all(no_marker);
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + self.by_id.len() * (PRODUCER_BYTES + BATCH_BYTES) + 4);
        bytes.put_slice(MAGIC);
        bytes.put_u16(if is_plain { VERSION_PLAIN } else { VERSION });
        bytes.put_u16(if self.forgot { 0 } else { NONE_FORGOTTEN });
        bytes.put_i64(place.next_offset.0);
        bytes.put_u64(place.last_index.0);
        bytes.put_u32(u32::try_from(self.by_id.len()).unwrap_or(u32::MAX));
        for (id, producer) in &self.by_id {
            bytes.put_i64(id.0);
            bytes.put_i16(producer.epoch.0);
            bytes.put_u8(u8::try_from(producer.batches.len()).unwrap_or(u8::MAX));
            bytes.put_u8(0);
            bytes.put_i64(producer.last_append.0);
            if !is_plain {
                bytes.put_i32(producer.coordinator_epoch);
            }
            for batch in &producer.batches {
                bytes.put_i32(batch.base_sequence);
                bytes.put_i32(batch.last_sequence);
                bytes.put_i64(batch.base_offset.0);
                bytes.put_i32(batch.last_offset_delta);
            }
        }
        if !is_plain {
            self.transactions.encode(&mut bytes);
        }
        bytes.put_u32(crc32c(&bytes));
        bytes.freeze()
    }

    /// Reads a `.producers` file. `None` if it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<(Self, SnapshotPlace)> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if body.len() < HEADER_BYTES || crc32c(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let is_plain = body[4..6] == VERSION_PLAIN.to_be_bytes();
        if body[0..4] != *MAGIC || (!is_plain && body[4..6] != VERSION.to_be_bytes()) {
            return None;
        }
        let mut rest = &body[6..];
        let forgot = rest.get_u16() & NONE_FORGOTTEN == 0;
        let place = SnapshotPlace { next_offset: Offset(rest.get_i64()), last_index: LogIndex(rest.get_u64()) };
        let count = rest.get_u32();
        let mut producers = Self { forgot, ..Self::default() };
        for _ in 0..count {
            let (id, producer) = decode_producer(&mut rest, is_plain)?;
            producers.by_id.insert(id, producer);
        }
        if is_plain {
            return rest.is_empty().then_some((producers, place));
        }
        producers.transactions = Transactions::decode(rest)?;
        Some((producers, place))
    }
}

fn decode_producer(rest: &mut &[u8], is_plain: bool) -> Option<(ProducerId, Producer)> {
    let (more_bytes, batches_min) = if is_plain { (0, 1) } else { (size_of::<i32>(), 0) };
    if rest.len() < PRODUCER_BYTES + more_bytes {
        return None;
    }
    let id = ProducerId(rest.get_i64());
    let epoch = ProducerEpoch(rest.get_i16());
    let count = usize::from(rest.get_u8());
    rest.advance(1);
    let last_append = Timestamp(rest.get_i64());
    let coordinator_epoch = if is_plain { NO_COORDINATOR } else { rest.get_i32() };
    if !(batches_min..=PRODUCER_BATCHES_MAX).contains(&count) || rest.len() < count * BATCH_BYTES {
        return None;
    }
    let batches = (0..count)
        .map(|_| Remembered {
            base_sequence: rest.get_i32(),
            last_sequence: rest.get_i32(),
            base_offset: Offset(rest.get_i64()),
            last_offset_delta: rest.get_i32(),
        })
        .collect();
    Some((id, Producer { epoch, last_append, coordinator_epoch, batches }))
}

/// The sequence of the last record of a batch.
fn last_sequence_of(header: &BatchHeader) -> i32 {
    sequence_after(header.base_sequence, header.last_offset_delta)
}

/// The sequence `count` after `sequence`; both not negative. Sequences wrap from `i32::MAX` to 0.
fn sequence_after(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

#[cfg(test)]
mod tests;
