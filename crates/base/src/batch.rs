//! Kafka record batch v2: the 61-byte header, validated; the body stays opaque bytes.
//!
//! ```text
//! offset  width  field                     in CRC
//!      0      8  base offset               no      the leader assigns it
//!      8      4  batch length              no      bytes after this field
//!     12      4  partition leader epoch    no      the leader assigns it
//!     16      1  magic = 2                 no
//!     17      4  CRC-32C of bytes 21..     -
//!     21      2  attributes                yes     0-2 codec, 3 log append time, 4 transactional, 5 control, 6 delete horizon
//!     23      4  last offset delta         yes
//!     27      8  base timestamp            yes
//!     35      8  max timestamp             yes
//!     43      8  producer id               yes
//!     51      2  producer epoch            yes
//!     53      4  base sequence             yes
//!     57      4  record count              yes
//!     61      -  records                   yes
//! ```
//! All big-endian. The bytes a client sent are the bytes on disk, to followers and to consumers: only
//! the two fields outside the CRC are ever written by us ([`assign`]).

use bytes::Bytes;

use crate::checksum::crc32c;
use crate::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use crate::{Offset, ProducerEpoch, ProducerId, Term, Timestamp};

/// Bytes of the header, up to the first record.
pub const HEADER_BYTES: usize = 61;
/// Bytes before the `batch length` field ends: what `batch length` does not count.
pub const PREFIX_BYTES: usize = 12;
/// The only record format accepted.
pub const MAGIC: i8 = 2;

const CRC_FROM: usize = 21;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// A batch's header. Its lengths, counts and magic are consistent with each other and with the bytes it
/// was parsed from; the CRC has been compared only by [`BatchHeader::check`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Whole batch in bytes, header and prefix included.
    pub size_bytes: usize,
    pub leader_epoch: i32,
    pub crc: u32,
    pub attributes: i16,
    pub codec: Codec,
    pub last_offset_delta: i32,
    pub base_timestamp: Timestamp,
    pub max_timestamp: Timestamp,
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    pub base_sequence: i32,
    pub record_count: i32,
}

/// What is wrong with a batch. Each names what was found.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    /// More bytes are needed: the batch is cut off. At the end of a file this is a torn tail.
    #[error("batch is cut off: {have} bytes are there, {need} are needed")]
    Truncated { have: usize, need: usize },
    #[error("batch length {0} is impossible: a batch has at least 61 and at most 16777216 bytes")]
    Length(i64),
    #[error("record format {0} is not supported: only format 2 (Kafka 0.11 and later) is; upgrade the client")]
    Magic(i8),
    #[error("checksum mismatch: the batch says {expected:#010x}, its bytes give {actual:#010x}")]
    Checksum { expected: u32, actual: u32 },
    #[error("compression codec {0} is unknown")]
    Codec(i16),
    #[error("record count {count} and last offset delta {last_offset_delta} do not fit together")]
    Count { count: i32, last_offset_delta: i32 },
    #[error("base offset {0} is negative")]
    BaseOffset(i64),
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may hold more than one batch or part of one.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] if the batch does not end within `bytes`; any other variant but
    /// `Checksum` if a field is impossible.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let size_bytes = Self::peek_size(bytes)?;
        let magic = i8::from_be_bytes([byte(bytes, 16)?]);
        if magic != MAGIC {
            return Err(BatchError::Magic(magic));
        }
        if bytes.len() < size_bytes {
            return Err(BatchError::Truncated { have: bytes.len(), need: size_bytes });
        }
        let base_offset = i64::from_be_bytes(field(bytes, 0)?);
        if base_offset < 0 {
            return Err(BatchError::BaseOffset(base_offset));
        }
        let attributes = i16::from_be_bytes(field(bytes, 21)?);
        let last_offset_delta = i32::from_be_bytes(field(bytes, 23)?);
        let record_count = i32::from_be_bytes(field(bytes, 57)?);
        let sane = record_count > 0
            && last_offset_delta >= record_count - 1
            && usize::try_from(record_count).is_ok_and(|count| count <= BATCH_RECORDS_MAX);
        if !sane {
            return Err(BatchError::Count { count: record_count, last_offset_delta });
        }
        Ok(Self {
            base_offset: Offset(base_offset),
            size_bytes,
            leader_epoch: i32::from_be_bytes(field(bytes, 12)?),
            crc: u32::from_be_bytes(field(bytes, 17)?),
            attributes,
            codec: Codec::of_attributes(attributes)?,
            last_offset_delta,
            base_timestamp: Timestamp(i64::from_be_bytes(field(bytes, 27)?)),
            max_timestamp: Timestamp(i64::from_be_bytes(field(bytes, 35)?)),
            producer_id: ProducerId(i64::from_be_bytes(field(bytes, 43)?)),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(bytes, 51)?)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)?),
            record_count,
        })
    }

    /// As [`BatchHeader::parse`], and compares the checksum with the batch's bytes.
    ///
    /// # Errors
    /// As `parse`, and [`BatchError::Checksum`].
    pub fn check(bytes: &[u8]) -> Result<Self, BatchError> {
        let header = Self::parse(bytes)?;
        let actual = crc32c(&bytes[CRC_FROM..header.size_bytes]);
        if actual != header.crc {
            return Err(BatchError::Checksum { expected: header.crc, actual });
        }
        Ok(header)
    }

    /// The whole batch's size, read from its first 12 bytes alone.
    ///
    /// # Errors
    /// `Truncated` below 12 bytes, `Length` for a size no batch can have.
    pub fn peek_size(bytes: &[u8]) -> Result<usize, BatchError> {
        let length = i32::from_be_bytes(field(bytes, 8)?);
        usize::try_from(length)
            .ok()
            .map(|length| length.saturating_add(PREFIX_BYTES))
            .filter(|size| (HEADER_BYTES..=BATCH_BYTES_MAX).contains(size))
            .ok_or(BatchError::Length(i64::from(length)))
    }

    /// The offset of the last record.
    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as i64)
    }

    /// The offset after the last record.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }

    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    /// A control batch holds transaction markers, no data of a client's.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }

    /// True if records carry the time of the append instead of the producer's.
    #[must_use]
    pub const fn is_log_append_time(&self) -> bool {
        self.attributes & 0x08 != 0
    }
}

impl Codec {
    fn of_attributes(attributes: i16) -> Result<Self, BatchError> {
        match attributes & 0x07 {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            other => Err(BatchError::Codec(other)),
        }
    }

    /// The three bits of the attributes.
    #[must_use]
    pub const fn attribute_bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }
}

/// Writes the two fields that are the leader's to choose. Neither is under the CRC.
///
/// # Panics
/// If `batch` is shorter than a header: it must have been parsed before.
pub fn assign(batch: &mut [u8], base_offset: Offset, term: Term) {
    assert!(batch.len() >= HEADER_BYTES, "batch of {} bytes has no header", batch.len());
    batch[0..8].copy_from_slice(&base_offset.0.to_be_bytes());
    let epoch = i32::try_from(term.0).unwrap_or(i32::MAX);
    batch[12..16].copy_from_slice(&epoch.to_be_bytes());
}

/// The batches that lie one after another in `bytes`, each with its header; stops at the first error.
pub fn split(bytes: &Bytes) -> impl Iterator<Item = Result<(BatchHeader, Bytes), BatchError>> + '_ {
    let mut position = 0;
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed || position >= bytes.len() {
            return None;
        }
        match BatchHeader::parse(&bytes[position..]) {
            Ok(header) => {
                let batch = bytes.slice(position..position + header.size_bytes);
                position += header.size_bytes;
                Some(Ok((header, batch)))
            }
            Err(error) => {
                failed = true;
                Some(Err(error))
            }
        }
    })
}

fn byte(bytes: &[u8], at: usize) -> Result<u8, BatchError> {
    bytes.get(at).copied().ok_or(BatchError::Truncated { have: bytes.len(), need: HEADER_BYTES })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], BatchError> {
    bytes
        .get(at..at + N)
        .and_then(|slice| slice.try_into().ok())
        .ok_or(BatchError::Truncated { have: bytes.len(), need: HEADER_BYTES })
}
