//! Bits of a column in whole blocks: 16 words for 1,024 rows; bits past the last row are 0.

use arrow_array::{Array, BooleanArray};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};

use super::packing::BLOCK_ROWS;

/// Words of one block.
pub(crate) const BLOCK_WORDS: usize = BLOCK_ROWS / 64;

/// One bit a row of a block.
pub(crate) type Mask = [u64; BLOCK_WORDS];

/// The mask of a block's first `rows` rows.
pub(crate) fn mask_of(rows: usize) -> Mask {
    std::array::from_fn(|word| {
        let there = rows.saturating_sub(word * 64);
        if there >= 64 { u64::MAX } else { (1 << there) - 1 }
    })
}

/// Rows in a mask.
pub(crate) fn count(mask: &Mask) -> usize {
    mask.iter().map(|word| word.count_ones() as usize).sum()
}

/// One bit a row.
#[derive(Clone, Debug)]
pub(crate) struct Bitmap {
    words: ScalarBuffer<u64>,
}

impl Bitmap {
    pub(crate) fn new(words: ScalarBuffer<u64>) -> Self {
        Self { words }
    }

    pub(crate) fn from_bits(bits: &BooleanBuffer) -> Self {
        let mut words = vec![0_u64; bits.len().div_ceil(BLOCK_ROWS) * BLOCK_WORDS];
        for index in bits.set_indices() {
            words[index / 64] |= 1 << (index % 64);
        }
        Self { words: words.into() }
    }

    /// A bit for each row.
    pub(crate) fn from_rows(rows: usize, row: impl Fn(usize) -> bool) -> Self {
        let mut words = vec![0_u64; rows.div_ceil(BLOCK_ROWS) * BLOCK_WORDS];
        for at in 0..rows {
            words[at / 64] |= u64::from(row(at)) << (at % 64);
        }
        Self { words: words.into() }
    }

    /// The validity of an array that has nulls.
    pub(crate) fn from_nulls(nulls: Option<&NullBuffer>) -> Option<Self> {
        nulls.filter(|nulls| nulls.null_count() > 0).map(|nulls| Self::from_bits(nulls.inner()))
    }

    /// The true rows of a boolean array; null rows are 0.
    pub(crate) fn from_booleans(array: &BooleanArray) -> Self {
        match array.nulls() {
            Some(nulls) => Self::from_bits(&(array.values() & nulls.inner())),
            None => Self::from_bits(array.values()),
        }
    }

    #[inline]
    pub(crate) fn get(&self, row: usize) -> bool {
        self.words.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// The block's bits; zeros past the end.
    #[inline]
    pub(crate) fn block(&self, block: usize) -> Mask {
        let words = self.words.get(block * BLOCK_WORDS..(block + 1) * BLOCK_WORDS);
        words.and_then(|words| words.try_into().ok()).unwrap_or([0; BLOCK_WORDS])
    }

    /// Bits set among the first `rows`; `None` if one is set past them.
    pub(crate) fn count(&self, rows: usize) -> Option<usize> {
        let mut total = 0;
        for number in 0..self.words.len() / BLOCK_WORDS {
            let (block, there) = (self.block(number), mask_of(rows.saturating_sub(number * BLOCK_ROWS)));
            if block.iter().zip(there).any(|(word, there)| word & !there != 0) {
                return None;
            }
            total += count(&block);
        }
        Some(total)
    }

    /// The words' bytes, little-endian as the machine is.
    pub(crate) fn buffer(&self) -> Buffer {
        self.words.inner().clone()
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }
}
