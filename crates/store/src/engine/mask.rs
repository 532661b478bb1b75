//! Making masks of a block from a test of its rows.

use crate::segment::bitmap::Mask;
use crate::segment::packing::BLOCK_ROWS;

#[inline]
pub(super) fn is_set(mask: &Mask, row: usize) -> bool {
    mask[row / 64] >> (row % 64) & 1 == 1
}

/// A mask from a byte (0 or 1) a row: eight bytes are gathered into eight bits by one multiplication.
pub(super) fn of_bytes(bytes: &[u8; BLOCK_ROWS]) -> Mask {
    let mut mask = [0; 16];
    for (word, bytes) in mask.iter_mut().zip(bytes.as_chunks::<64>().0) {
        for (number, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
            let bits = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            *word |= bits << (number * 8);
        }
    }
    mask
}

/// A mask from a test of a value a row; written so that simple tests become vector code.
#[inline]
pub(super) fn of_values<T: Copy>(values: &[T; BLOCK_ROWS], test: impl Fn(T) -> bool) -> Mask {
    let mut bytes = [0_u8; BLOCK_ROWS];
    for (byte, value) in bytes.iter_mut().zip(values) {
        *byte = u8::from(test(*value));
    }
    of_bytes(&bytes)
}

/// Calls `each` with every row of the mask.
#[inline]
pub(super) fn for_each(mask: &Mask, mut each: impl FnMut(usize)) {
    for (number, word) in mask.iter().enumerate() {
        let mut word = *word;
        while word != 0 {
            each(number * 64 + word.trailing_zeros() as usize);
            word &= word - 1;
        }
    }
}

/// Takes the rows out that do not pass.
#[inline]
pub(super) fn keep(mask: &mut Mask, test: impl Fn(usize) -> bool) {
    for (number, word) in mask.iter_mut().enumerate() {
        let mut left = *word;
        while left != 0 {
            let bit = left.trailing_zeros() as usize;
            if !test(number * 64 + bit) {
                *word &= !(1 << bit);
            }
            left &= left - 1;
        }
    }
}

pub(super) fn and(a: &Mask, b: &Mask) -> Mask {
    std::array::from_fn(|word| a[word] & b[word])
}

pub(super) fn and_not(a: &Mask, b: &Mask) -> Mask {
    std::array::from_fn(|word| a[word] & !b[word])
}

pub(super) fn or(a: &Mask, b: &Mask) -> Mask {
    std::array::from_fn(|word| a[word] | b[word])
}

pub(super) fn is_empty(mask: &Mask) -> bool {
    mask.iter().all(|word| *word == 0)
}
