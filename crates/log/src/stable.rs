//! Transactions as the batches of a log tell of them: which are open, which ended, which were aborted.
//!
//! ```text
//! data of a producer's transaction .. more of it .. marker        open: from the first data to the marker
//!         first                                      last
//! ```
//! What always holds: all of it follows from the log's bytes, from any place on: a transaction that began before
//! that place and ended after it counts from its first batch that is there. So every replica says the same. What is
//! stable never contains a transaction whose end may still be taken back.
//!
//! Deliberately not here: who may write (`producers`, `verification`), and what the coordinator knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::batch::BatchHeader;
use base::marker::EndMarker;
use base::{Offset, ProducerEpoch, ProducerId, Timestamp};
use bytes::{Buf, BufMut, BytesMut};

/// What consumers have to leave out: the records of `producer` from `first` on, up to its next marker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct AbortedTransaction {
    pub first: Offset,
    pub producer: ProducerId,
}

/// Goes through the batches of a read in order and tells which of them no consumer of committed transactions sees.
#[derive(Clone, Debug)]
pub struct LeftOut {
    /// By where they begin.
    coming: VecDeque<AbortedTransaction>,
    running: BTreeSet<ProducerId>,
}

impl LeftOut {
    /// For the batches that came with `aborted`.
    #[must_use]
    pub fn new(aborted: &[AbortedTransaction]) -> Self {
        Self { coming: aborted.iter().copied().collect(), running: BTreeSet::new() }
    }

    /// True of markers, and of what was aborted.
    pub fn leaves_out(&mut self, header: &BatchHeader) -> bool {
        while let Some(begun) = self.coming.pop_front_if(|next| next.first <= header.last_offset()) {
            self.running.insert(begun.producer);
        }
        if header.is_control() {
            self.running.remove(&header.producer_id);
            return true;
        }
        header.is_transactional() && self.running.contains(&header.producer_id)
    }
}

/// An open transaction of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenTransaction {
    pub producer: ProducerId,
    pub epoch: ProducerEpoch,
    pub first: Offset,
    /// When this replica saw its first batch; after a restart it may be later.
    pub since: Timestamp,
}

/// An aborted transaction with what a search needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Aborted {
    pub producer: ProducerId,
    pub first: Offset,
    /// Of its marker.
    pub last: Offset,
    /// Whatever is aborted after it begins here or later.
    pub floor: Offset,
}

pub(crate) const ABORTED_BYTES: usize = 32;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Transactions {
    open: BTreeMap<ProducerId, Open>,
    /// The same, by where they begin.
    firsts: BTreeSet<(Offset, ProducerId)>,
    /// By rising marker; those whose marker is known to be decided are forgotten.
    ended: VecDeque<Ended>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Open {
    epoch: ProducerEpoch,
    first: Offset,
    since: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ended {
    first: Offset,
    last: Offset,
}

const COUNTS_BYTES: usize = 8;
const OPEN_BYTES: usize = 28;
const ENDED_BYTES: usize = 16;

impl Transactions {
    /// A batch was written; its header has its offsets. Tells of the transaction that it aborts.
    pub fn record(&mut self, header: &BatchHeader, marker: Option<&EndMarker>, wall: Timestamp) -> Option<Aborted> {
        let producer = header.producer_id;
        if let Some(marker) = marker {
            let open = self.open.remove(&producer)?;
            self.firsts.remove(&(open.first, producer));
            let last = header.base_offset;
            self.ended.push_back(Ended { first: open.first, last });
            let floor = self.firsts.first().map_or(last.next(), |(first, _)| *first);
            return (!marker.commit).then_some(Aborted { producer, first: open.first, last, floor });
        }
        if header.is_transactional() && !header.is_control() && producer.0 >= 0 {
            let new = Open { epoch: header.producer_epoch, first: header.base_offset, since: wall };
            let open = self.open.entry(producer).or_insert(new);
            open.epoch = header.producer_epoch;
            self.firsts.insert((open.first, producer));
        }
        None
    }

    /// Markers below `offset` stay for ever.
    pub fn decided(&mut self, offset: Offset) {
        while self.ended.pop_front_if(|ended| ended.last < offset).is_some() {}
    }

    /// Where the earliest transaction begins whose end is not committed, if `committed` is the first offset that
    /// is not.
    pub fn first_unstable(&self, committed: Offset) -> Option<Offset> {
        let open = self.firsts.first().map(|(first, _)| *first);
        let ended = self.ended.iter().filter(|ended| ended.last >= committed).map(|ended| ended.first);
        ended.chain(open).min()
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn is_open(&self, producer: ProducerId) -> bool {
        self.open.contains_key(&producer)
    }

    /// True if the transaction is open in this incarnation of the producer.
    pub fn is_open_in(&self, producer: ProducerId, epoch: ProducerEpoch) -> bool {
        self.open.get(&producer).is_some_and(|open| open.epoch == epoch)
    }

    pub fn first_of(&self, producer: ProducerId) -> Option<Offset> {
        self.open.get(&producer).map(|open| open.first)
    }

    /// By where they begin.
    pub fn list(&self) -> impl Iterator<Item = OpenTransaction> + '_ {
        self.firsts.iter().filter_map(|(first, producer)| {
            let open = self.open.get(producer)?;
            Some(OpenTransaction { producer: *producer, epoch: open.epoch, first: *first, since: open.since })
        })
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.ended.is_empty()
    }

    /// The last part of a `.producers` file of version 2.
    pub fn encode(&self, bytes: &mut BytesMut) {
        bytes.put_u32(u32::try_from(self.open.len()).unwrap_or(u32::MAX));
        bytes.put_u32(u32::try_from(self.ended.len()).unwrap_or(u32::MAX));
        for (producer, open) in &self.open {
            bytes.put_i64(producer.0);
            bytes.put_i16(open.epoch.0);
            bytes.put_u16(0);
            bytes.put_i64(open.first.0);
            bytes.put_i64(open.since.0);
        }
        for ended in &self.ended {
            bytes.put_i64(ended.first.0);
            bytes.put_i64(ended.last.0);
        }
    }

    /// `None` if the bytes are not as long as they say.
    pub fn decode(mut rest: &[u8]) -> Option<Self> {
        if rest.len() < COUNTS_BYTES {
            return None;
        }
        let open = usize::try_from(rest.get_u32()).ok()?;
        let ended = usize::try_from(rest.get_u32()).ok()?;
        let bytes = open.checked_mul(OPEN_BYTES)?.checked_add(ended.checked_mul(ENDED_BYTES)?)?;
        if rest.len() != bytes {
            return None;
        }
        let mut all = Self::default();
        for _ in 0..open {
            let producer = ProducerId(rest.get_i64());
            let epoch = ProducerEpoch(rest.get_i16());
            rest.advance(2);
            let open = Open { epoch, first: Offset(rest.get_i64()), since: Timestamp(rest.get_i64()) };
            all.firsts.insert((open.first, producer));
            all.open.insert(producer, open);
        }
        for _ in 0..ended {
            all.ended.push_back(Ended { first: Offset(rest.get_i64()), last: Offset(rest.get_i64()) });
        }
        Some(all)
    }
}

impl Aborted {
    pub fn encode(&self, bytes: &mut BytesMut) {
        bytes.put_i64(self.producer.0);
        bytes.put_i64(self.first.0);
        bytes.put_i64(self.last.0);
        bytes.put_i64(self.floor.0);
    }

    /// Of [`ABORTED_BYTES`] bytes.
    pub fn decode(mut bytes: &[u8]) -> Self {
        Self {
            producer: ProducerId(bytes.get_i64()),
            first: Offset(bytes.get_i64()),
            last: Offset(bytes.get_i64()),
            floor: Offset(bytes.get_i64()),
        }
    }
}

/// Of a file's aborted transactions, by rising marker, those with records in `[from, to)`; into `found`. True if
/// none after them can have any.
pub(crate) fn overlapping(aborted: &[Aborted], from: Offset, to: Offset, found: &mut Vec<AbortedTransaction>) -> bool {
    let at = aborted.partition_point(|one| one.last < from);
    for one in &aborted[at..] {
        if one.first < to {
            found.push(AbortedTransaction { first: one.first, producer: one.producer });
        }
        if one.floor >= to {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
