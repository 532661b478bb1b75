//! The records inside a batch: decoded with every length checked and decompression bounded; and a builder
//! of batches.
//!
//! ```text
//! record = varint length, then in that many bytes:
//!          i8 attributes (unused), varlong timestamp delta, varint offset delta,
//!          varint key length (-1 none), key, varint value length (-1 none), value,
//!          varint header count, headers { varint key length, key, varint value length (-1 none), value }
//! ```
//! Varints are zigzag. Records lie one after another behind the header, compressed as a whole.
//!
//! What always holds: [`decode`] has compared the checksum, and allocates at most
//! [`limits::BATCH_DECOMPRESSED_BYTES_MAX`](crate::limits::BATCH_DECOMPRESSED_BYTES_MAX); a record that an iterator yields lies
//! wholly inside the body. Headers keep their order and duplicate keys. Never used to re-encode what a client sent: those bytes
//! are kept as they are.

use bytes::Bytes;

use crate::batch::{BatchError, BatchHeader, Codec, HEADER_BYTES};
use crate::{Offset, Timestamp};

mod builder;
mod compress;
#[cfg(test)]
mod tests;
mod varint;

pub use builder::BatchBuilder;
use varint::Cursor;

/// Bytes of the smallest record: its length, attributes, two deltas, no key, no value, no headers.
const RECORD_BYTES_MIN: usize = 7;

/// Why a batch's records cannot be read. None of them is worth a retry: the bytes are wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("records do not decompress as {codec:?}: {cause}")]
    Decompress { codec: Codec, cause: String },
    /// Refused before it was decompressed further.
    #[error("records decompress to more than {limit} bytes; produce smaller batches")]
    TooLarge { limit: usize },
    #[error("the header says {count} records, {body_bytes} bytes cannot hold them")]
    CountTooHigh { count: i32, body_bytes: usize },
    /// The record at this place in the batch; those before it were good.
    #[error("record {index} of the batch is malformed: {what}")]
    Malformed { index: i32, what: &'static str },
    #[error("{0} bytes are left over after the last record of the batch")]
    Trailing(usize),
    /// From the builder only.
    #[error("a batch needs at least one record")]
    Empty,
    /// From the builder only: split the records over more batches.
    #[error("the batch would have {size} bytes, more than {limit}")]
    BatchTooLarge { size: usize, limit: usize },
}

/// One record; its bytes are borrowed from the [`Decoded`] batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    pub offset: Offset,
    /// The producer's time, or that of the append where the topic is set so.
    pub timestamp: Timestamp,
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// A record's headers: counted and checked, read by iterating.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Headers<'a> {
    count: usize,
    raw: &'a [u8],
}

/// One header. Kafka wants the key to be UTF-8; that is not checked here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

/// A batch whose records can be read: owns the decompressed body.
#[derive(Clone, Debug)]
pub struct Decoded {
    header: BatchHeader,
    body: Bytes,
}

/// Decodes the one whole batch at the start of `batch`; bytes after it are ignored.
///
/// # Errors
/// The batch is cut off, its checksum differs, its codec's stream is broken or too large, or it cannot hold the records it claims.
pub fn decode(batch: &[u8]) -> Result<Decoded, RecordError> {
    let header = BatchHeader::check(batch)?;
    let body = &batch[HEADER_BYTES..header.size_bytes];
    let body = match header.codec {
        Codec::None => Bytes::copy_from_slice(body),
        codec => compress::decompress(codec, body)?,
    };
    Decoded::new(header, body)
}

/// As [`decode`], without copying the body of a batch that is not compressed.
///
/// # Errors
/// As `decode`.
pub fn decode_shared(batch: &Bytes) -> Result<Decoded, RecordError> {
    let header = BatchHeader::check(batch)?;
    let body = batch.slice(HEADER_BYTES..header.size_bytes);
    let body = match header.codec {
        Codec::None => body,
        codec => compress::decompress(codec, &body)?,
    };
    Decoded::new(header, body)
}

impl Decoded {
    fn new(header: BatchHeader, body: Bytes) -> Result<Self, RecordError> {
        let fits = usize::try_from(header.record_count).is_ok_and(|count| count <= body.len() / RECORD_BYTES_MIN);
        if !fits {
            return Err(RecordError::CountTooHigh { count: header.record_count, body_bytes: body.len() });
        }
        Ok(Self { header, body })
    }

    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Bytes of all records, decompressed.
    #[must_use]
    pub const fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// The records in order. Ends after the first error; yields exactly the header's count otherwise.
    #[must_use]
    pub fn iter(&self) -> Records<'_> {
        Records { header: &self.header, rest: Cursor::new(&self.body), index: 0, last_delta: -1, ended: false }
    }
}

impl<'a> IntoIterator for &'a Decoded {
    type Item = Result<Record<'a>, RecordError>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.iter()
    }
}

/// Iterator over a batch's records.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    header: &'a BatchHeader,
    rest: Cursor<'a>,
    index: i32,
    last_delta: i32,
    ended: bool,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.index == self.header.record_count {
            self.ended = true;
            let left = self.rest.remaining();
            return (left > 0).then_some(Err(RecordError::Trailing(left)));
        }
        let record = self.record().map_err(|what| RecordError::Malformed { index: self.index, what });
        self.index += 1;
        self.ended = record.is_err();
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Result<Record<'a>, &'static str> {
        let length = usize::try_from(self.rest.varint()?).map_err(|_| "its length is negative")?;
        let mut record = Cursor::new(self.rest.take(length)?);
        record.take(1)?;
        let timestamp_delta = record.varlong()?;
        let offset_delta = record.varint()?;
        if offset_delta <= self.last_delta || offset_delta > self.header.last_offset_delta {
            return Err("its offset is not after the one before and within the batch");
        }
        let key = record.nullable_bytes()?;
        let value = record.nullable_bytes()?;
        let headers = Headers::check(&mut record)?;
        if record.remaining() > 0 {
            return Err("bytes are left over after its headers");
        }
        self.last_delta = offset_delta;
        let timestamp = if self.header.is_log_append_time() {
            self.header.max_timestamp
        } else {
            self.header.base_timestamp.plus(timestamp_delta)
        };
        let offset = self.header.base_offset.plus(i64::from(offset_delta));
        Ok(Record { offset, timestamp, key, value, headers })
    }
}

impl<'a> Headers<'a> {
    /// Walks the headers once, so that iterating cannot fail later.
    fn check(record: &mut Cursor<'a>) -> Result<Self, &'static str> {
        let count = usize::try_from(record.varint()?).map_err(|_| "its header count is negative")?;
        if count > record.remaining() / 2 {
            return Err("it claims more headers than it has bytes");
        }
        let raw = record.rest();
        for _ in 0..count {
            record.nullable_bytes()?.ok_or("a header has no key")?;
            record.nullable_bytes()?;
        }
        let raw = &raw[..raw.len() - record.remaining()];
        Ok(Self { count, raw })
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The headers in the order they were sent, duplicates included.
    pub fn iter(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let mut cursor = Cursor::new(self.raw);
        (0..self.count).map_while(move |_| {
            let key = cursor.nullable_bytes().ok()??;
            let value = cursor.nullable_bytes().ok()?;
            Some(Header { key, value })
        })
    }

    /// The value of the last header of this name, as Kafka's `lastHeader`.
    #[must_use]
    pub fn last(&self, key: &str) -> Option<Header<'a>> {
        self.iter().filter(|header| header.key == key.as_bytes()).last()
    }
}
