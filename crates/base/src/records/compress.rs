//! The four codecs as Kafka clients write them, both ways, with a bound on what comes out.

use std::io::{Read, Write};

use bytes::Bytes;

use super::RecordError;
use crate::batch::Codec;
use crate::limits::BATCH_DECOMPRESSED_BYTES_MAX;

/// What the xerial framing of snappy starts with; two 32-bit versions follow, then blocks behind their length.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// Input bytes of one block of xerial snappy, as the Java client cuts them.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;
/// No snappy stream grows by more: a two-byte tag copies 64 bytes at most.
const SNAPPY_RATIO_MAX: usize = 64;
/// Largest window of a zstd frame that is decoded: 2^27 bytes, zstd's own default and within the bound above.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Most lz4 frames one after another: each costs a block buffer, so a batch of empty ones would burn time.
const LZ4_FRAMES_MAX: usize = 1024;
/// First allocation for what comes out; it grows with what really comes.
const FIRST_BYTES_MAX: usize = 1 << 20;

/// Decompresses a batch's records.
///
/// # Errors
/// [`RecordError::Decompress`] for a broken stream, [`RecordError::TooLarge`] beyond the bound.
pub(super) fn decompress(codec: Codec, body: &[u8]) -> Result<Bytes, RecordError> {
    decompress_bounded(codec, body, BATCH_DECOMPRESSED_BYTES_MAX)
}

pub(super) fn decompress_bounded(codec: Codec, body: &[u8], limit: usize) -> Result<Bytes, RecordError> {
    let mut out = Vec::with_capacity(body.len().saturating_mul(3).min(FIRST_BYTES_MAX).min(limit));
    match codec {
        Codec::None => {
            grow(&mut out, body.len(), limit)?;
            out.extend_from_slice(body);
        }
        Codec::Gzip => read_bounded(codec, flate2::read::MultiGzDecoder::new(body), &mut out, limit)?,
        Codec::Snappy => snappy(body, &mut out, limit)?,
        Codec::Lz4 => lz4(body, &mut out, limit)?,
        Codec::Zstd => {
            let mut reader = zstd::stream::read::Decoder::with_buffer(body).map_err(|error| broken(codec, &error))?;
            reader.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|error| broken(codec, &error))?;
            read_bounded(codec, reader, &mut out, limit)?;
        }
    }
    Ok(out.into())
}

/// Compresses a batch's records at the codec's usual level.
pub(super) fn compress(codec: Codec, body: &[u8]) -> Result<Vec<u8>, RecordError> {
    let result = match codec {
        Codec::None => Ok(body.to_vec()),
        Codec::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(body).and_then(|()| writer.finish())
        }
        Codec::Snappy => return xerial(body),
        Codec::Lz4 => {
            let mut writer = lz4_flex::frame::FrameEncoder::new(Vec::new());
            writer.write_all(body).and_then(|()| writer.finish().map_err(std::io::Error::other))
        }
        Codec::Zstd => zstd::stream::encode_all(body, zstd::DEFAULT_COMPRESSION_LEVEL),
    };
    result.map_err(|error| broken(codec, &error))
}

fn read_bounded(codec: Codec, reader: impl Read, out: &mut Vec<u8>, limit: usize) -> Result<(), RecordError> {
    let room = (limit + 1).saturating_sub(out.len());
    let room = u64::try_from(room).unwrap_or(u64::MAX);
    reader.take(room).read_to_end(out).map_err(|error| broken(codec, &error))?;
    if out.len() > limit { Err(RecordError::TooLarge { limit }) } else { Ok(()) }
}

/// A decoder stops at the end of a frame; frames may follow one another.
fn lz4(body: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), RecordError> {
    let mut rest = body;
    for _ in 0..LZ4_FRAMES_MAX {
        let before = rest.len();
        read_bounded(Codec::Lz4, lz4_flex::frame::FrameDecoder::new(&mut rest), out, limit)?;
        if rest.is_empty() {
            return Ok(());
        }
        if rest.len() == before {
            return Err(broken(Codec::Lz4, &"no frame where one should start"));
        }
    }
    Err(broken(Codec::Lz4, &"too many frames"))
}

fn snappy(body: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), RecordError> {
    if !body.starts_with(&XERIAL_MAGIC) {
        return snappy_block(body, out, limit);
    }
    let cut_off = || broken(Codec::Snappy, &"a block is cut off");
    let mut rest = body.get(XERIAL_HEADER_BYTES..).ok_or_else(cut_off)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (block, after) = after.split_at_checked(length).ok_or_else(cut_off)?;
        snappy_block(block, out, limit)?;
        rest = after;
    }
    Ok(())
}

fn snappy_block(block: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), RecordError> {
    let claimed = snap::raw::decompress_len(block).map_err(|error| broken(Codec::Snappy, &error))?;
    if claimed > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(broken(Codec::Snappy, &"a block claims more than it can hold"));
    }
    let start = out.len();
    grow(out, claimed, limit)?;
    out.resize(start + claimed, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(|error| broken(Codec::Snappy, &error))?;
    out.truncate(start + written);
    Ok(())
}

/// The framing the Java client writes and every client reads.
fn xerial(body: &[u8]) -> Result<Vec<u8>, RecordError> {
    let mut out = Vec::with_capacity(XERIAL_HEADER_BYTES + body.len() / 2);
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&1_u32.to_be_bytes());
    out.extend_from_slice(&1_u32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for chunk in body.chunks(XERIAL_BLOCK_BYTES) {
        let block = encoder.compress_vec(chunk).map_err(|error| broken(Codec::Snappy, &error))?;
        let length = u32::try_from(block.len()).map_err(|error| broken(Codec::Snappy, &error))?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&block);
    }
    Ok(out)
}

fn grow(out: &mut Vec<u8>, count: usize, limit: usize) -> Result<(), RecordError> {
    if out.len().saturating_add(count) > limit {
        return Err(RecordError::TooLarge { limit });
    }
    out.reserve(count);
    Ok(())
}

fn broken(codec: Codec, cause: &dyn std::fmt::Display) -> RecordError {
    RecordError::Decompress { codec, cause: cause.to_string() }
}
