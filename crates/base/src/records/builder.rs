//! Builds a valid batch v2: what a producer would send.

use bytes::Bytes;

use super::varint::put_varlong;
use super::{RecordError, compress};
use crate::batch::{Codec, HEADER_BYTES, MAGIC, PREFIX_BYTES};
use crate::checksum::crc32c;
use crate::limits::{BATCH_BYTES_MAX, BATCH_DECOMPRESSED_BYTES_MAX};
use crate::{ProducerEpoch, ProducerId, Timestamp};

const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// A batch being built. Records get the offset deltas 0, 1, 2..; the base offset is 0 until a leader assigns one.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    /// Beside the codec's bits.
    flags: i16,
    base_timestamp: Option<Timestamp>,
    max_timestamp: Timestamp,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    base_sequence: i32,
    count: i32,
    records: Vec<u8>,
    scratch: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch of a producer that is not idempotent.
    #[must_use]
    pub const fn new(codec: Codec) -> Self {
        Self {
            codec,
            flags: 0,
            base_timestamp: None,
            max_timestamp: Timestamp(i64::MIN),
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch(-1),
            base_sequence: -1,
            count: 0,
            records: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// A control batch: what a broker says of a producer's transaction.
    #[must_use]
    pub(crate) const fn control(id: ProducerId, epoch: ProducerEpoch) -> Self {
        let mut batch = Self::new(Codec::None).producer(id, epoch, -1);
        batch.flags = TRANSACTIONAL | CONTROL;
        batch
    }

    /// Makes it part of its producer's transaction.
    #[must_use]
    pub const fn transactional(mut self) -> Self {
        self.flags |= TRANSACTIONAL;
        self
    }

    /// Makes it the batch of an idempotent producer; `base_sequence` is the first record's.
    #[must_use]
    pub const fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Appends a record. Headers are pairs of key and value; a `None` value of the record is a tombstone.
    pub fn push(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> &mut Self {
        self.push_record(timestamp, key, value, headers.iter().map(|(key, value)| (key.as_bytes(), *value)))
    }

    /// As [`BatchBuilder::push`], for headers as they were read.
    pub fn push_record<'a>(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> &mut Self {
        let base = *self.base_timestamp.get_or_insert(timestamp);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let record = &mut self.scratch;
        record.clear();
        record.push(0);
        put_varlong(record, timestamp.0.saturating_sub(base.0));
        put_varlong(record, i64::from(self.count));
        put_bytes(record, key);
        put_bytes(record, value);
        put_length(record, headers.len());
        for (key, value) in headers {
            put_bytes(record, Some(key));
            put_bytes(record, value);
        }
        put_length(&mut self.records, self.scratch.len());
        self.records.extend_from_slice(&self.scratch);
        self.count += 1;
        self
    }

    #[must_use]
    pub const fn record_count(&self) -> i32 {
        self.count
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch if it were not compressed. Compare with a bound before pushing more.
    #[must_use]
    pub const fn plain_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The batch's bytes.
    ///
    /// # Errors
    /// No record was pushed, or the batch is larger than a batch may be.
    pub fn build(self) -> Result<Bytes, RecordError> {
        let Some(base_timestamp) = self.base_timestamp else { return Err(RecordError::Empty) };
        if self.records.len() > BATCH_DECOMPRESSED_BYTES_MAX {
            return Err(RecordError::BatchTooLarge { size: self.records.len(), limit: BATCH_DECOMPRESSED_BYTES_MAX });
        }
        let body = match self.codec {
            Codec::None => self.records,
            codec => compress::compress(codec, &self.records)?,
        };
        let size = HEADER_BYTES + body.len();
        let length = i32::try_from(size - PREFIX_BYTES)
            .ok()
            .filter(|_| size <= BATCH_BYTES_MAX)
            .ok_or(RecordError::BatchTooLarge { size, limit: BATCH_BYTES_MAX })?;
        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(&0_i64.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        out.extend_from_slice(&MAGIC.to_be_bytes());
        let crc_at = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.codec.attribute_bits() | self.flags).to_be_bytes());
        out.extend_from_slice(&(self.count - 1).to_be_bytes());
        out.extend_from_slice(&base_timestamp.0.to_be_bytes());
        out.extend_from_slice(&self.max_timestamp.0.to_be_bytes());
        out.extend_from_slice(&self.producer_id.0.to_be_bytes());
        out.extend_from_slice(&self.producer_epoch.0.to_be_bytes());
        out.extend_from_slice(&self.base_sequence.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&body);
        let crc = crc32c(&out[crc_at + 4..]);
        out[crc_at..crc_at + 4].copy_from_slice(&crc.to_be_bytes());
        Ok(out.into())
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    put_varlong(out, i64::try_from(length).unwrap_or(i64::MAX));
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varlong(out, -1),
        Some(bytes) => {
            put_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
    }
}
