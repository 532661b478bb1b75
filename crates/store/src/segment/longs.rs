//! Integers: frame of reference per block, bit-packed, with a directory that is also the zone map.

use arrow_buffer::ScalarBuffer;

use super::bitmap::{Bitmap, Mask};
use super::packing::{self, BLOCK_ROWS};

/// A width that means: the block's values are there as they are.
pub(crate) const WIDTH_RAW: u8 = 64;

/// One block: its least and greatest value, and where its words are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LongBlock {
    pub(crate) min: i64,
    pub(crate) max: i64,
    pub(crate) start: u32,
    pub(crate) width: u8,
}

impl LongBlock {
    /// Words the block takes.
    pub(crate) fn words(&self) -> usize {
        if self.width == WIDTH_RAW { 2 * BLOCK_ROWS } else { packing::block_words(self.width) }
    }
}

/// A column of integers or times.
#[derive(Clone, Debug)]
pub(crate) struct Longs {
    pub(crate) blocks: Vec<LongBlock>,
    pub(crate) words: ScalarBuffer<u32>,
}

impl Longs {
    /// Packs values; rows that `validity` leaves out take the block's least value.
    pub(crate) fn pack(values: &[i64], validity: Option<&Bitmap>) -> Self {
        let mut blocks = Vec::with_capacity(values.len().div_ceil(BLOCK_ROWS));
        let mut words: Vec<u32> = Vec::new();
        let mut offsets = [0_u32; BLOCK_ROWS];
        for (number, block) in values.chunks(BLOCK_ROWS).enumerate() {
            let mask = validity.map(|validity| validity.block(number));
            let (min, max) = bounds(block, mask.as_ref());
            let start = u32::try_from(words.len()).unwrap_or(u32::MAX);
            let range = max.wrapping_sub(min).cast_unsigned();
            let mut full = [min; BLOCK_ROWS];
            full[..block.len()].copy_from_slice(block);
            if let Some(mask) = &mask {
                for (row, value) in full.iter_mut().enumerate() {
                    if mask[row / 64] >> (row % 64) & 1 == 0 {
                        *value = min;
                    }
                }
            }
            let width = if let Ok(range) = u32::try_from(range) {
                for (offset, value) in offsets.iter_mut().zip(&full) {
                    *offset = low(value.wrapping_sub(min));
                }
                let width = packing::width_of(range);
                packing::pack(width, &offsets, &mut words);
                width
            } else {
                words.extend(full.iter().flat_map(|value| [low(*value), low(*value >> 32)]));
                WIDTH_RAW
            };
            blocks.push(LongBlock { min, max, start, width });
        }
        Self { blocks, words: words.into() }
    }

    fn block_words(&self, block: &LongBlock) -> &[u32] {
        let start = block.start as usize;
        self.words.get(start..start + block.words()).unwrap_or(&[])
    }

    /// Offsets of the block's values from the returned base, or `None` when the block is not packed.
    #[inline]
    pub(crate) fn offsets(&self, number: usize, out: &mut [u32; BLOCK_ROWS]) -> Option<i64> {
        let block = self.blocks.get(number)?;
        if block.width == WIDTH_RAW {
            return None;
        }
        packing::unpack(block.width, self.block_words(block), out);
        Some(block.min)
    }

    /// The block's values; the rows past the last are anything.
    pub(crate) fn decode(&self, number: usize, out: &mut [i64; BLOCK_ROWS]) {
        let mut offsets = [0; BLOCK_ROWS];
        if let Some(base) = self.offsets(number, &mut offsets) {
            for (value, offset) in out.iter_mut().zip(&offsets) {
                *value = base.wrapping_add(i64::from(*offset));
            }
        } else if let Some(block) = self.blocks.get(number) {
            let words = self.block_words(block);
            for (value, pair) in out.iter_mut().zip(words.chunks_exact(2)) {
                *value = join(pair[0], pair[1]);
            }
        } else {
            out.fill(0);
        }
    }

    /// One row's value.
    #[inline]
    pub(crate) fn get(&self, row: usize) -> i64 {
        let Some(block) = self.blocks.get(row / BLOCK_ROWS) else { return 0 };
        let (words, row) = (self.block_words(block), row % BLOCK_ROWS);
        if block.width == WIDTH_RAW {
            return words.get(2 * row..2 * row + 2).map_or(0, |pair| join(pair[0], pair[1]));
        }
        block.min.wrapping_add(i64::from(packing::unpack_one(block.width, words, row)))
    }

    /// Least and greatest of all blocks; `None` without rows.
    pub(crate) fn range(&self) -> Option<(i64, i64)> {
        let first = self.blocks.first()?;
        let fold = |(min, max): (i64, i64), block: &LongBlock| (min.min(block.min), max.max(block.max));
        Some(self.blocks.iter().fold((first.min, first.max), fold))
    }

    /// True if the first `rows` values never fall.
    pub(crate) fn is_sorted(&self, rows: usize) -> bool {
        let (mut last, mut values) = (i64::MIN, [0; BLOCK_ROWS]);
        for number in 0..self.blocks.len() {
            self.decode(number, &mut values);
            let there = rows.saturating_sub(number * BLOCK_ROWS).min(BLOCK_ROWS);
            let Some(greatest) = values[..there].last() else { return true };
            if last > values[0] || !values[..there].is_sorted() {
                return false;
            }
            last = *greatest;
        }
        true
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<LongBlock>() + self.words.len() * 4
    }
}

fn bounds(block: &[i64], mask: Option<&Mask>) -> (i64, i64) {
    let Some(mask) = mask else {
        let min = block.iter().copied().min();
        return min.zip(block.iter().copied().max()).unwrap_or((0, 0));
    };
    let mut bounds = None;
    for (row, value) in block.iter().enumerate() {
        if mask[row / 64] >> (row % 64) & 1 == 1 {
            let (min, max) = bounds.unwrap_or((*value, *value));
            bounds = Some((min.min(*value), max.max(*value)));
        }
    }
    bounds.unwrap_or((0, 0))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low 32 bits are what is wanted")]
const fn low(value: i64) -> u32 {
    value as u32
}

fn join(low: u32, high: u32) -> i64 {
    (u64::from(high) << 32 | u64::from(low)).cast_signed()
}
