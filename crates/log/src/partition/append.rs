//! Appending: what is checked, and in which order it is done.
//!
//! The bytes are written before they are proposed: a full disk then refuses the append, and the group never
//! holds an entry that cannot be written.

use base::batch::{self, BatchError, BatchHeader};
use base::checksum::crc32c;
use base::marker::EndMarker;
use base::{LogIndex, Offset, ProducerId, Term, Tick, Timestamp};
use bytes::{Bytes, BytesMut};
use quorum::ProposeError;

use super::Partition;
use crate::frame::Place;
use crate::producers::Verdict;
use crate::storage::{Now, Written};
use crate::{AppendError, TimestampType, rescue};

/// What an append gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    pub base_offset: Offset,
    /// The offset after the last record: all is durable once `committed` reaches it.
    pub next_offset: Offset,
    /// The leadership it was written under: once it is over, an uncommitted record may be replaced.
    pub term: Term,
    /// Set if the topic's records carry the append's time.
    pub log_append_time: Option<Timestamp>,
    pub log_start_offset: Offset,
    /// All of it was there already; its offsets are given again. It may still wait to be committed.
    pub duplicate: bool,
}

/// Who gave a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Giver {
    Producer,
    /// It lay in lost+found.
    Rescue,
}

impl Partition {
    /// Takes the batches of one producer request: validates them, gives them offsets, writes them. They are
    /// durable once [`Partition::committed`] reaches `next_offset`, which takes a flush.
    ///
    /// # Errors
    /// See [`AppendError`]. Of several batches, those before the refused one are kept.
    pub fn append(&mut self, now: Tick, wall: Timestamp, batches: Bytes) -> Result<Appended, AppendError> {
        self.append_from(now, wall, batches, Giver::Producer)
    }

    /// As [`Partition::append`], for a batch that a [`crate::Rescue`] gave: it may be larger than the topic allows, because
    /// its records say now where they were.
    ///
    /// # Errors
    /// As `append`; `FencedEpoch` if a batch that was lost after it is in the log again.
    pub fn append_rescued(&mut self, now: Tick, wall: Timestamp, batch: Bytes) -> Result<Appended, AppendError> {
        self.append_from(now, wall, batch, Giver::Rescue)
    }

    fn append_from(
        &mut self,
        now: Tick,
        wall: Timestamp,
        batches: Bytes,
        from: Giver,
    ) -> Result<Appended, AppendError> {
        self.check_running()?;
        self.now = Now { tick: now, wall };
        if !self.is_alone() {
            // What a follower remembers of a producer says nothing to that producer.
            self.lead()?;
        }
        let headers = self.validate(&batches, from)?;
        let log_append_time = matches!(self.config.timestamp_type, TimestampType::LogAppendTime).then_some(wall);
        let mut appended: Option<Appended> = None;
        let mut rest = batches;
        for header in headers {
            let bytes = rest.split_to(header.size_bytes);
            let (base_offset, next_offset, duplicate) = match self.judge(self.producers.check(&header))? {
                Verdict::Duplicate { base_offset, next_offset } => (base_offset, next_offset, true),
                Verdict::New => {
                    self.judge(self.check_transaction(&header))?;
                    let (base_offset, next_offset) = self.append_one(header, bytes, log_append_time)?;
                    (base_offset, next_offset, false)
                }
            };
            let log_start_offset = self.start();
            let term = self.group.term();
            let one = Appended { base_offset, next_offset, term, log_append_time, log_start_offset, duplicate };
            let first = appended.get_or_insert(one);
            first.next_offset = first.next_offset.max(next_offset);
            first.duplicate &= duplicate;
        }
        appended.ok_or(AppendError::Invalid(BatchError::Truncated { have: 0, need: batch::HEADER_BYTES }))
    }

    /// A leader that may have been replaced does not judge: it may lack what the producer wrote elsewhere.
    pub(super) fn judge<T>(&self, verdict: Result<T, AppendError>) -> Result<T, AppendError> {
        verdict.map_err(|error| {
            if self.is_alone() || self.lease_valid(self.now.tick) {
                return error;
            }
            AppendError::NotLeader { leader: None }
        })
    }

    /// The headers of `batches`, each of which may be appended as far as its bytes can tell.
    fn validate(&self, batches: &Bytes, from: Giver) -> Result<Vec<BatchHeader>, AppendError> {
        let mut headers = Vec::with_capacity(1);
        let mut rest = &batches[..];
        while !rest.is_empty() {
            let header = BatchHeader::check(rest)?;
            if rescue::is_rescuer(header.producer_id) != (from == Giver::Rescue) {
                return Err(AppendError::Unsupported("this producer id is not given to producers"));
            }
            if from == Giver::Producer && header.size_bytes > self.config.batch_bytes_max {
                return Err(AppendError::TooLarge { bytes: header.size_bytes, bytes_max: self.config.batch_bytes_max });
            }
            if header.is_control() {
                return Err(AppendError::Unsupported("a control batch is the broker's to write"));
            }
            if header.is_transactional() && header.producer_id == ProducerId::NONE {
                return Err(AppendError::Unsupported("a transaction needs a producer id"));
            }
            if header.is_log_append_time() {
                return Err(AppendError::Unsupported("the append time is the broker's to set"));
            }
            let BatchHeader { record_count: count, last_offset_delta, .. } = header;
            if last_offset_delta != count - 1 {
                return Err(BatchError::Count { count, last_offset_delta }.into());
            }
            rest = &rest[header.size_bytes..];
            headers.push(header);
        }
        Ok(headers)
    }

    /// Writes and proposes one batch that is new.
    pub(super) fn append_one(
        &mut self,
        mut header: BatchHeader,
        bytes: Bytes,
        log_append_time: Option<Timestamp>,
    ) -> Result<(Offset, Offset), AppendError> {
        self.lead()?;
        let (now, term) = (self.now, self.group.term());
        let Place { offset, index } = self.storage().end;
        // Copied once, unless the caller gave all of a buffer away.
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        batch::assign(&mut bytes, offset, term);
        header.base_offset = offset;
        if let Some(time) = log_append_time {
            stamp(&mut bytes, time);
            header.max_timestamp = time;
        }
        let next = Place { offset: header.next_offset(), index: index.next() };
        let bytes = bytes.freeze();
        let marker = EndMarker::decode(&header, &bytes);
        self.write_and_propose(bytes, next, Some(header.max_timestamp), term, now)?;
        self.remember(&header, marker.as_ref());
        Ok((offset, next.offset))
    }

    /// Writes a frame and proposes it: a frame that the group refuses is taken back. `next` is the place
    /// after it.
    pub(super) fn write_and_propose(
        &mut self,
        bytes: Bytes,
        next: Place,
        max_timestamp: Option<Timestamp>,
        term: Term,
        now: Now,
    ) -> Result<(), AppendError> {
        let size_bytes = bytes.len();
        // A refusal found out after the write costs a sync on this thread.
        if let Err(error) = self.group.can_propose(size_bytes) {
            return Err(self.refused(error));
        }
        let storage = self.group.storage_mut();
        let span = next.offset.0 - storage.end.offset.0;
        let written = storage.write(&bytes, term, span, now, &self.config);
        self.fit(written)?;
        let place = (term, LogIndex(next.index.0 - 1));
        match self.group.propose(bytes) {
            Ok(proposed) if proposed == place => {}
            Ok(proposed) => {
                // Our own fault. Entries that are not where the group takes them to be must not get further.
                return Err(self.stop(format!("written as entry {place:?}, proposed as {proposed:?}")).into());
            }
            Err(error) => {
                let taken_back = self.group.storage_mut().take_back();
                self.fit(taken_back)?;
                return Err(self.refused(error));
            }
        }
        self.group.storage_mut().count(&Written { size_bytes, next, max_timestamp }, term, now, &self.config);
        self.pending.push_back((LogIndex(next.index.0 - 1), next.offset));
        Ok(())
    }

    fn refused(&mut self, error: ProposeError) -> AppendError {
        match error {
            ProposeError::NotLeader { leader } => AppendError::NotLeader { leader },
            ProposeError::Busy { uncommitted_bytes } => {
                AppendError::Busy { uncommitted_bytes: uncommitted_bytes as u64 }
            }
            ProposeError::Stopped(fault) => AppendError::Stopped(self.stop(fault.to_string())),
        }
    }
}

/// Makes the records of a batch carry the append's time, as Kafka does: a flag and the max timestamp.
fn stamp(batch: &mut [u8], time: Timestamp) {
    let attributes = i16::from_be_bytes([batch[21], batch[22]]) | 0x08;
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    batch[35..43].copy_from_slice(&time.0.to_be_bytes());
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}
