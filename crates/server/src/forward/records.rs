//! Records of the spool as the batches that are sent on.

use base::batch::Codec;
use base::records::{BatchBuilder, Decoded, Record, RecordError, decode_shared};
use base::{Offset, Timestamp};
use bytes::Bytes;
use log::forward::{Batch, Cut};

/// A batch that is sent is cut when it has this much.
pub const BATCH_BYTES: usize = 256 << 10;
/// What a record adds to a batch beside key, value and headers, at most.
const RECORD_HEAD_BYTES: usize = 64;

/// Decoded batches of a stretch of the spool.
pub struct Spooled {
    batches: Vec<Decoded>,
}

impl Spooled {
    /// Decodes whole batches, one after another.
    pub fn decode(mut bytes: Bytes) -> Result<Self, RecordError> {
        let mut batches = Vec::new();
        while !bytes.is_empty() {
            let batch = decode_shared(&bytes)?;
            drop(bytes.split_to(batch.header().size_bytes.min(bytes.len())));
            if !batch.header().is_control() {
                batches.push(batch);
            }
        }
        Ok(Self { batches })
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Records in `[from, to)`, in order.
    fn records(&self, from: Offset, to: Offset) -> impl Iterator<Item = Result<Record<'_>, RecordError>> {
        let touches = move |batch: &&Decoded| {
            let first = batch.header().base_offset;
            first < to && first.plus(i64::from(batch.header().last_offset_delta)) >= from
        };
        let all = self.batches.iter().filter(touches).flat_map(Decoded::iter);
        all.filter(move |record| record.as_ref().map_or(true, |record| record.offset >= from && record.offset < to))
    }

    /// Where the next batches end: at most `batches_max`, each of at most `records_max` records and about [`BATCH_BYTES`].
    pub fn cuts(&self, from: Offset, batches_max: usize, records_max: i32) -> Result<Vec<Cut>, RecordError> {
        let (mut cuts, mut bytes) = (Vec::new(), 0);
        let mut open: Option<Cut> = None;
        for record in self.records(from, Offset(i64::MAX)) {
            let record = record?;
            let size = size_of(&record);
            if let Some(cut) = open.take_if(|cut| cut.records >= records_max || bytes + size > BATCH_BYTES) {
                cuts.push(cut);
                bytes = 0;
                if cuts.len() >= batches_max {
                    return Ok(cuts);
                }
            }
            bytes += size;
            let cut = open.get_or_insert(Cut { to: record.offset, records: 0 });
            cut.to = record.offset.plus(1);
            cut.records += 1;
        }
        cuts.extend(open);
        Ok(cuts)
    }

    /// The batch as it goes out; the same bytes every time.
    pub fn build(&self, batch: &Batch) -> Result<Bytes, RecordError> {
        let codec = self.batches.first().map_or(Codec::None, |first| first.header().codec);
        let mut builder = BatchBuilder::new(codec).producer(batch.producer, batch.epoch, batch.sequence);
        for record in self.records(batch.from, batch.to) {
            push(&mut builder, &record?);
        }
        builder.build()
    }

    /// The only record in a range.
    pub fn first(&self, from: Offset, to: Offset) -> Option<Record<'_>> {
        self.records(from, to).find_map(Result::ok)
    }
}

fn push(builder: &mut BatchBuilder, record: &Record<'_>) {
    let headers: Vec<(String, Option<&[u8]>)> =
        record.headers.iter().map(|header| (String::from_utf8_lossy(header.key).into_owned(), header.value)).collect();
    let headers: Vec<(&str, Option<&[u8]>)> = headers.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    builder.push(record.timestamp, record.key, record.value, &headers);
}

fn size_of(record: &Record<'_>) -> usize {
    let field = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers: usize = record.headers.iter().map(|header| header.key.len() + field(header.value) + 10).sum();
    RECORD_HEAD_BYTES + field(record.key) + field(record.value) + headers
}

/// A batch of lines for the spool.
pub fn of_lines<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    batch: &Batch,
    now: Timestamp,
) -> Result<Bytes, RecordError> {
    let mut builder = BatchBuilder::new(Codec::Lz4).producer(batch.producer, batch.epoch, batch.sequence);
    for line in lines {
        builder.push(now, None, Some(line), &[]);
    }
    builder.build()
}
