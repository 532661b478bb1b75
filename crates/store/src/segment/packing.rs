//! FastLanes bit-packing of u32 in blocks of 1,024: the width is a number at run time, a constant in the kernel.

use fastlanes::BitPacking;

/// Rows of a block. Everything in a segment counts in these.
pub const BLOCK_ROWS: usize = 1_024;

/// u32 words a packed block of `width` bits takes.
pub(crate) const fn block_words(width: u8) -> usize {
    32 * width as usize
}

/// Bits that numbers up to `greatest` need.
pub(crate) fn width_of(greatest: u32) -> u8 {
    u8::try_from(u32::BITS - greatest.leading_zeros()).unwrap_or(32)
}

macro_rules! by_width {
    ($width:expr, $w:ident => $body:block, $fallback:block) => {
        by_width!(@ $width, $w, $body, $fallback,
            1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32)
    };
    (@ $width:expr, $w:ident, $body:block, $fallback:block, $($n:literal)*) => {
        match $width {
            $($n => { const $w: usize = $n; $body })*
            _ => $fallback,
        }
    };
}

/// Unpacks one block. A width of 0 gives zeros. `packed` has exactly [`block_words`] words, else zeros are given.
#[inline]
pub(crate) fn unpack(width: u8, packed: &[u32], out: &mut [u32; BLOCK_ROWS]) {
    by_width!(width, W => {
        if let Ok(packed) = <&[u32; 32 * W]>::try_from(packed) {
            u32::unpack::<W, { 32 * W }>(packed, out);
            return;
        }
    }, {});
    out.fill(0);
}

/// Unpacks the row at `index` of a block. Out of range gives 0.
#[inline]
pub(crate) fn unpack_one(width: u8, packed: &[u32], index: usize) -> u32 {
    if index >= BLOCK_ROWS {
        return 0;
    }
    by_width!(width, W => {
        if let Ok(packed) = <&[u32; 32 * W]>::try_from(packed) {
            return u32::unpack_single::<W, { 32 * W }>(packed, index);
        }
    }, {});
    0
}

/// Packs one block onto the end of `out`. Every value must fit `width` bits.
pub(crate) fn pack(width: u8, values: &[u32; BLOCK_ROWS], out: &mut Vec<u32>) {
    let start = out.len();
    out.resize(start + block_words(width), 0);
    by_width!(width, W => {
        if let Ok(words) = <&mut [u32; 32 * W]>::try_from(&mut out[start..]) {
            u32::pack::<W, { 32 * W }>(values, words);
        }
    }, {});
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_comes_back() {
        for width in 0..=32_u8 {
            let mask = u32::MAX.checked_shr(32 - u32::from(width)).unwrap_or(0);
            let mut values = [0; BLOCK_ROWS];
            for (i, value) in values.iter_mut().enumerate() {
                *value = u32::try_from(i).unwrap().wrapping_mul(0x9e37_79b9) & mask;
            }
            let mut packed = vec![7; 3];
            pack(width, &values, &mut packed);
            assert_eq!(packed.len(), 3 + block_words(width));
            let mut back = [1; BLOCK_ROWS];
            unpack(width, &packed[3..], &mut back);
            assert_eq!(back, values);
            assert!((0..BLOCK_ROWS).all(|i| unpack_one(width, &packed[3..], i) == values[i]));
            assert_eq!(width_of(mask), width);
        }
    }

    #[test]
    fn a_wrong_length_gives_zeros() {
        let mut out = [1; BLOCK_ROWS];
        unpack(5, &[0; 3], &mut out);
        assert_eq!(out, [0; BLOCK_ROWS]);
        assert_eq!(unpack_one(40, &[], 5), 0);
    }
}
