//! Values of any length that are not worth a dictionary: one compressed block for 1,024 rows.

use arrow_buffer::Buffer;

use super::error::FormatError;
use super::packing::BLOCK_ROWS;

/// LZ4 cannot do better than this; a claim above it is a lie, and nothing is allocated for it.
const RATIO_MAX: u64 = 256;
/// Blocks above this are stored as they are: LZ4 counts in 31 bits.
const COMPRESS_BYTES_MAX: usize = 1 << 30;

/// Where one block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PlainBlock {
    pub(crate) start: u64,
    pub(crate) stored: u64,
    pub(crate) unpacked: u64,
}

/// A column of byte strings. What a null row holds is empty.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(crate) blocks: Vec<PlainBlock>,
    pub(crate) data: Buffer,
}

/// One block's values, unpacked.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlainValues {
    /// A block of text is here, checked to be UTF-8 and to be cut between characters ..
    text: String,
    /// .. and a block of anything else is here.
    bytes: Vec<u8>,
    /// Where each value ends.
    ends: Vec<usize>,
}

impl PlainValues {
    fn span(&self, index: usize) -> std::ops::Range<usize> {
        let Some(end) = self.ends.get(index) else { return 0..0 };
        index.checked_sub(1).map_or(0, |before| self.ends[before])..*end
    }

    /// The value of a column that is not text.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &[u8] {
        self.bytes.get(self.span(index)).unwrap_or(&[])
    }

    /// The value of a column of text.
    #[inline]
    pub(crate) fn text(&self, index: usize) -> &str {
        self.text.get(self.span(index)).unwrap_or("")
    }
}

impl Plain {
    /// Packs values; compressed for a file, as they are for live rows, which are merged again soon.
    pub(crate) fn pack<'a>(compress: bool, values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut packer = Self::packer(compress);
        for value in values {
            packer.push(value);
        }
        packer.finish()
    }

    pub(crate) fn packer(compress: bool) -> Packer {
        Packer { compress, ..Packer::default() }
    }

    /// Unpacks a block of `rows` rows; as text when `text`.
    pub(crate) fn decode(
        &self,
        number: usize,
        rows: usize,
        text: bool,
        out: &mut PlainValues,
    ) -> Result<(), FormatError> {
        let damaged = |what: &str| FormatError::Structure(format!("plain block {number}: {what}"));
        let block = self.blocks.get(number).ok_or_else(|| damaged("is not there"))?;
        let stored = self.stored(block).ok_or_else(|| damaged("reaches past its section"))?;
        let mut bytes = if out.text.capacity() > out.bytes.capacity() {
            std::mem::take(&mut out.text).into_bytes()
        } else {
            std::mem::take(&mut out.bytes)
        };
        bytes.clear();
        if block.stored == block.unpacked {
            bytes.extend_from_slice(stored);
        } else {
            let len = block.checked_unpacked().ok_or_else(|| damaged("claims too many bytes"))?;
            bytes.resize(len, 0);
            let filled = lz4_flex::block::decompress_into(stored, &mut bytes);
            if filled.ok() != Some(len) {
                return Err(damaged("is not the LZ4 block it claims to be"));
            }
        }
        let split = bytes.len().checked_sub(rows * 4).ok_or_else(|| damaged("is shorter than its lengths"))?;
        out.ends.clear();
        let mut end = 0;
        for length in bytes[split..].as_chunks::<4>().0 {
            end += u32::from_le_bytes(*length) as usize;
            out.ends.push(end);
        }
        if end != split {
            return Err(damaged("does not end where its last value ends"));
        }
        bytes.truncate(split);
        if text {
            out.text = String::from_utf8(bytes).map_err(|_| damaged("holds a string that is not UTF-8"))?;
            if !out.ends.iter().all(|end| out.text.is_char_boundary(*end)) {
                return Err(damaged("cuts a string inside a character"));
            }
        } else {
            out.bytes = bytes;
        }
        Ok(())
    }

    fn stored(&self, block: &PlainBlock) -> Option<&[u8]> {
        let start = usize::try_from(block.start).ok()?;
        let end = start.checked_add(usize::try_from(block.stored).ok()?)?;
        self.data.as_slice().get(start..end)
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<PlainBlock>() + self.data.len()
    }
}

impl PlainBlock {
    /// The unpacked length, if it can be true.
    fn checked_unpacked(&self) -> Option<usize> {
        let possible = self.stored.saturating_mul(RATIO_MAX).saturating_add(64);
        usize::try_from(self.unpacked).ok().filter(|_| self.unpacked <= possible)
    }
}

/// Packs values one after another.
#[derive(Default)]
pub(crate) struct Packer {
    compress: bool,
    blocks: Vec<PlainBlock>,
    data: Vec<u8>,
    lengths: Vec<u8>,
    values: Vec<u8>,
    scratch: Vec<u8>,
}

impl Packer {
    pub(crate) fn push(&mut self, value: &[u8]) {
        // A value comes from a record of at most 16 MiB, so its length fits; the longest a u32 can say is kept.
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.lengths.extend_from_slice(&length.to_le_bytes());
        self.values.extend_from_slice(&value[..length as usize]);
        if self.lengths.len() == 4 * BLOCK_ROWS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.lengths.is_empty() {
            return;
        }
        self.values.append(&mut self.lengths);
        let unpacked = self.values.len();
        let start = self.data.len() as u64;
        let packed = if self.compress && unpacked <= COMPRESS_BYTES_MAX {
            self.scratch.resize(lz4_flex::block::get_maximum_output_size(unpacked), 0);
            lz4_flex::block::compress_into(&self.values, &mut self.scratch).ok()
        } else {
            None
        };
        match packed.filter(|packed| *packed < unpacked) {
            Some(packed) => self.data.extend_from_slice(&self.scratch[..packed]),
            None => self.data.extend_from_slice(&self.values),
        }
        let stored = self.data.len() as u64 - start;
        self.blocks.push(PlainBlock { start, stored, unpacked: unpacked as u64 });
        self.values.clear();
    }

    pub(crate) fn finish(mut self) -> Plain {
        self.flush();
        Plain { blocks: self.blocks, data: self.data.into() }
    }
}
