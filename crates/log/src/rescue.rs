//! Republishing: batches of lost+found are appended to their partition again, each once, whoever tries and however often.
//!
//! ```text
//! Rescue::new(file) -> look (what of it is in the log already?) -> take_next -> append_rescued at the leader -> appended ...
//!                      -> fates -> the file is written anew
//! ```
//! A batch that was lost has a name on all replicas: the term and offset that it had. Its new batch carries that name
//! as producer id and epoch, with sequence 0, so that the log's own memory of producers lets it in once, even if two replicas
//! that had it try side by side. That memory does not last; the log does: before anything is appended, all that was
//! committed since the batches were cut off is read. A later epoch shuts out earlier ones, so they go in order; one that
//! was left out before is appended under a second name of its own, after another look at all that stood before the
//! refusal: its first name can no longer get in.
//!
//! What always holds: nothing is republished that is part of a transaction, that the log holds at its old place, that its
//! producer has sent again, or of which the log where that would be seen is gone; records keep their keys, values, times and
//! order. They do not keep their producer's id and sequence: its later batches have gone on from another one.
//!
//! Deliberately not here: who leads, and how a batch gets there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base::batch::{self, BatchHeader};
use base::disk::Disk;
use base::records::{self, BatchBuilder, RecordError};
use base::{NodeId, Offset, ProducerEpoch, ProducerId, Timestamp};
use bytes::{Bytes, BytesMut};

use crate::frame::epoch_of;
use crate::limits::{RESCUE_READ_BYTES, RESCUE_SEARCH_BYTES_MAX, RESCUE_WAIT_MS};
use crate::lost::{Acked, LostBatch, LostFound, LostState, read_batch};
use crate::{ReadError, ReadLimit, Reader};

/// Headers that every republished record has beside its own: where it was lost. Numbers in decimal.
pub const RESCUED_FROM_NODE: &str = "x-rescued-from-node";
pub const RESCUED_FROM_TERM: &str = "x-rescued-from-term";
pub const RESCUED_FROM_OFFSET: &str = "x-rescued-from-offset";

/// Producer ids from here on are those of republished batches; no producer is given one.
const RESCUERS_FROM: i64 = 1 << 62;
/// Bits of an offset that are told by the epoch.
const EPOCH_BITS: u32 = 15;

/// True for the producer ids of republished batches.
#[must_use]
pub const fn is_rescuer(producer: ProducerId) -> bool {
    producer.0 >= RESCUERS_FROM
}

/// A producer and its epoch.
type Name = (ProducerId, ProducerEpoch);

/// Under which name a lost batch is appended again: no two have the same for terms below 2^29 and offsets below 2^47. Few
/// producers have to be remembered so.
fn name_of(batch: &LostBatch) -> Name {
    let term = i64::try_from(batch.term.0 & 0x1fff_ffff).unwrap_or(0);
    let block = (batch.base_offset.0 >> EPOCH_BITS) & 0xffff_ffff;
    let epoch = i16::try_from(batch.base_offset.0 & 0x7fff).unwrap_or(0);
    (ProducerId(RESCUERS_FROM | (term << 32) | block), ProducerEpoch(epoch))
}

/// Under which if a later one shut that out: likewise for terms below 2^20 and offsets below 2^41.
fn second_name_of(batch: &LostBatch) -> Name {
    let term = i64::try_from(batch.term.0 & 0xf_ffff).unwrap_or(0);
    let offset = batch.base_offset.0 & ((1 << 41) - 1);
    (ProducerId(RESCUERS_FROM | 1 << 61 | term << 41 | offset), ProducerEpoch(0))
}

/// What a batch is known by when its producer sends it again: checksum, size, times, records.
type Content = (u32, usize, Timestamp, Timestamp, i32);
/// A batch of an idempotent producer.
type Sent = (ProducerId, ProducerEpoch, i32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// To be appended, unless it is found.
    Wanted,
    /// As `Wanted`; a later one was appended before it.
    ShutOut,
    /// Not to be appended; if it is found, that is noted.
    Stays,
    Known(LostState),
}

impl Fate {
    fn is_wanted(&self) -> bool {
        matches!(self, Self::Wanted | Self::ShutOut)
    }
}

/// The republishing of one file of lost+found.
pub struct Rescue {
    node: NodeId,
    found: LostFound,
    disk: Arc<dyn Disk>,
    reader: Reader,
    fates: Vec<Fate>,
    names: BTreeMap<Name, usize>,
    contents: BTreeMap<Content, usize>,
    sent: BTreeMap<Sent, usize>,
    /// The batches were read themselves.
    is_prepared: bool,
    /// The log below was looked at.
    looked: Offset,
    looked_bytes: u64,
}

impl Rescue {
    pub(crate) fn new(node: NodeId, found: LostFound, by_hand: bool, disk: Arc<dyn Disk>, reader: Reader) -> Self {
        let fate = |batch: &LostBatch| match batch.state {
            LostState::Kept if by_hand && !batch.transactional => Fate::Wanted,
            LostState::Kept if is_republished(batch) => Fate::Wanted,
            LostState::Kept => Fate::Stays,
            state => Fate::Known(state),
        };
        let fates = found.batches.iter().map(fate).collect();
        let batches = || found.batches.iter().enumerate();
        let first = batches().map(|(at, batch)| (name_of(batch), at));
        let names = first.chain(batches().map(|(at, batch)| (second_name_of(batch), at))).collect();
        let looked = found.batches.first().map_or(Offset::ZERO, |first| first.base_offset);
        Self {
            node,
            found,
            disk,
            reader,
            fates,
            names,
            contents: BTreeMap::new(),
            sent: BTreeMap::new(),
            is_prepared: false,
            looked,
            looked_bytes: 0,
        }
    }

    /// The policy `republish` has something to do with it now.
    pub(crate) fn is_due(found: &LostFound, wall: Timestamp) -> bool {
        let mut wanted = found.batches.iter().filter(|batch| is_republished(batch)).peekable();
        let may_be_sent_again = wall.0.saturating_sub(found.saved_at.0) < RESCUE_WAIT_MS;
        wanted.peek().is_some() && !(may_be_sent_again && wanted.any(|batch| batch.acked == Acked::Unknown))
    }

    #[must_use]
    pub const fn found(&self) -> &LostFound {
        &self.found
    }

    /// Of the batches that would be appended only those stay so.
    pub fn only(&mut self, wanted: impl Fn(&LostBatch) -> bool) {
        for (fate, batch) in self.fates.iter_mut().zip(&self.found.batches) {
            if fate.is_wanted() && !wanted(batch) {
                *fate = Fate::Stays;
            }
        }
    }

    /// Looks on in the log here, a piece at a time, up to `until`: how far the leader's log goes. True: so far
    /// it was looked at; false: more is to be read, or has to arrive first. Blocks.
    ///
    /// # Errors
    /// The log cannot be read there; nothing is to be appended.
    pub fn look(&mut self, until: Offset) -> Result<bool, ReadError> {
        self.prepare();
        if self.looked >= until || !self.fates.iter().any(Fate::is_wanted) {
            return Ok(true);
        }
        if self.looked < self.reader.start() || self.looked_bytes > RESCUE_SEARCH_BYTES_MAX {
            // What is not seen may be there.
            self.only(|_| false);
            return Ok(true);
        }
        if self.looked > self.reader.committed() {
            return Ok(false);
        }
        let fetched = self.reader.read(self.looked, RESCUE_READ_BYTES, ReadLimit::Committed)?;
        self.looked_bytes += fetched.bytes.len() as u64;
        for (header, _) in batch::split(&fetched.bytes).map_while(Result::ok) {
            self.see(&header);
        }
        self.looked = fetched.next;
        Ok(self.looked >= until)
    }

    /// The next batches to be appended in one go, up to `bytes_max` but at least one, and their places in the file: after all
    /// was looked at. `None`: there are no more. Blocks.
    pub fn take_next(&mut self, bytes_max: usize) -> Option<(Vec<usize>, Bytes)> {
        let (mut places, mut group) = (Vec::new(), BytesMut::new());
        for at in 0..self.fates.len() {
            if !self.fates[at].is_wanted() {
                continue;
            }
            let batch = &self.found.batches[at];
            let name = if self.fates[at] == Fate::ShutOut { second_name_of(batch) } else { name_of(batch) };
            let bytes = read_batch(self.disk.as_ref(), &self.found.path, batch).ok();
            let Some(bytes) = bytes.and_then(|bytes| republished(&bytes, batch, name, self.node).ok()) else {
                // Damaged, or too large with what is added: somebody may look at it.
                self.fates[at] = Fate::Stays;
                continue;
            };
            if !places.is_empty() && group.len() + bytes.len() > bytes_max {
                break;
            }
            places.push(at);
            group.extend_from_slice(&bytes);
        }
        (!places.is_empty()).then(|| (places, group.freeze()))
    }

    /// They were appended, and are committed.
    pub fn appended(&mut self, places: &[usize]) {
        for at in places {
            self.fates[*at] = Fate::Known(LostState::Republished);
        }
    }

    /// One that was appended alone was refused with `FencedEpoch`: a later one was appended before. Look again, up to where the log that
    /// refused it went then or later, before anything else is appended.
    pub fn shut_out(&mut self, at: usize) {
        self.fates[at] = if self.fates[at] == Fate::Wanted { Fate::ShutOut } else { Fate::Stays };
    }

    /// What became of the batches, by their place in the file, as far as it is new.
    #[must_use]
    pub fn fates(&self) -> Vec<(usize, LostState)> {
        let known = self.fates.iter().zip(&self.found.batches).enumerate();
        let news = known.filter_map(|(at, (fate, batch))| match fate {
            Fate::Known(state) if *state != batch.state => Some((at, *state)),
            _ => None,
        });
        news.collect()
    }

    /// Reads by what the batches would be known if they were sent again.
    fn prepare(&mut self) {
        if std::mem::replace(&mut self.is_prepared, true) {
            return;
        }
        for (at, batch) in self.found.batches.iter().enumerate() {
            if matches!(self.fates[at], Fate::Known(_)) {
                continue;
            }
            let bytes = read_batch(self.disk.as_ref(), &self.found.path, batch);
            let Ok(Ok(header)) = bytes.map(|bytes| BatchHeader::check(&bytes)) else {
                self.fates[at] = Fate::Stays;
                continue;
            };
            self.contents.insert(content_of(&header), at);
            if header.producer_id != ProducerId::NONE {
                self.sent.insert(sent_of(&header), at);
            }
        }
    }

    /// A batch of the log.
    fn see(&mut self, header: &BatchHeader) {
        let again = self.contents.get(&content_of(header)).or_else(|| self.sent.get(&sent_of(header)));
        let mut returned = again.copied();
        let at_its_place = self.found.batches.binary_search_by_key(&header.base_offset, |batch| batch.base_offset).ok();
        if let Some(at) = at_its_place
            && epoch_of(self.found.batches[at].term) == header.leader_epoch
        {
            returned = Some(at);
        }
        let republished = self.names.get(&(header.producer_id, header.producer_epoch));
        let (at, state) = match (republished, returned) {
            (Some(at), _) => (*at, LostState::Republished),
            (None, Some(at)) => (at, LostState::Returned),
            (None, None) => return,
        };
        if !matches!(self.fates[at], Fate::Known(_)) {
            self.fates[at] = Fate::Known(state);
        }
    }
}

impl fmt::Debug for Rescue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rescue({}, looked to {})", self.found.path, self.looked)
    }
}

impl LostBatch {
    /// It is one that the policy `republish` appends again: acknowledged, or perhaps so. An idempotent producer asks
    /// for all replicas: what was lost had not been acknowledged to it, and it sends it again by itself.
    #[must_use]
    pub fn is_republished(&self) -> bool {
        is_republished(self)
    }
}

fn is_republished(batch: &LostBatch) -> bool {
    let was_told = match batch.acked {
        Acked::Yes => true,
        Acked::Unknown => batch.producer == ProducerId::NONE,
        Acked::No => false,
    };
    batch.state == LostState::Kept && !batch.transactional && was_told
}

fn content_of(header: &BatchHeader) -> Content {
    (header.crc, header.size_bytes, header.base_timestamp, header.max_timestamp, header.record_count)
}

fn sent_of(header: &BatchHeader) -> Sent {
    (header.producer_id, header.producer_epoch, header.base_sequence)
}

/// The batch as it is appended again.
fn republished(bytes: &Bytes, batch: &LostBatch, (producer, epoch): Name, node: NodeId) -> Result<Bytes, RecordError> {
    let decoded = records::decode_shared(bytes)?;
    let mut builder = BatchBuilder::new(decoded.header().codec).producer(producer, epoch, 0);
    let (node, term) = (node.to_string(), batch.term.to_string());
    for record in decoded.iter() {
        let record = record?;
        let offset = record.offset.to_string();
        let mut headers: Vec<(&[u8], Option<&[u8]>)> =
            record.headers.iter().map(|header| (header.key, header.value)).collect();
        headers.push((RESCUED_FROM_NODE.as_bytes(), Some(node.as_bytes())));
        headers.push((RESCUED_FROM_TERM.as_bytes(), Some(term.as_bytes())));
        headers.push((RESCUED_FROM_OFFSET.as_bytes(), Some(offset.as_bytes())));
        builder.push_record(record.timestamp, record.key, record.value, headers.into_iter());
    }
    builder.build()
}

#[cfg(test)]
mod tests;
