//! Coded strings: a small number a row, and the way from it to the table's id.

use std::sync::{Arc, OnceLock};

use arrow_buffer::{Buffer, ScalarBuffer};

use super::error::FormatError;
use super::packing::{self, BLOCK_ROWS};
use crate::dictionary::ColumnDictionary;

/// Codes up to this many bits are kept as bytes.
pub(crate) const BYTE_WIDTH_MAX: u8 = 8;

/// How the codes lie.
#[derive(Clone, Debug)]
pub(crate) enum Packing {
    Bytes(ScalarBuffer<u8>),
    Words { words: ScalarBuffer<u32>, width: u8 },
}

/// The rows of each code, for needles.
#[derive(Clone, Debug)]
pub(crate) struct Postings {
    pub(crate) starts: ScalarBuffer<u32>,
    pub(crate) rows: ScalarBuffer<u32>,
}

/// A coded string column.
#[derive(Clone, Debug)]
pub(crate) struct Codes {
    pub(crate) packing: Packing,
    /// Codes there are, null's included: every code of a sound file is below this.
    pub(crate) entries: usize,
    pub(crate) remap: Remap,
    pub(crate) dictionary: Arc<ColumnDictionary>,
    pub(crate) postings: Option<Postings>,
}

/// From code to table id.
#[derive(Clone, Debug)]
pub(crate) enum Remap {
    /// The codes are the ids (live rows).
    Identity,
    /// By the segment's own strings, which are given their ids at the first touch: one id per code, filled up with
    /// null to every code the packing can hold. Code order is string order.
    Strings { section: Buffer, ids: OnceLock<Vec<u32>> },
}

impl Packing {
    /// Packs codes; `entries` is above all of them.
    pub(crate) fn pack(codes: &[u32], entries: usize) -> Self {
        let width = packing::width_of(u32::try_from(entries.saturating_sub(1)).unwrap_or(u32::MAX));
        if width <= BYTE_WIDTH_MAX {
            let mut bytes: Vec<u8> = codes.iter().map(|code| u8::try_from(*code).unwrap_or(u8::MAX)).collect();
            bytes.resize(codes.len().div_ceil(BLOCK_ROWS) * BLOCK_ROWS, 0);
            return Self::Bytes(bytes.into());
        }
        let blocks = codes.len().div_ceil(BLOCK_ROWS);
        let mut words = Vec::with_capacity(blocks * packing::block_words(width));
        let mut block = [0; BLOCK_ROWS];
        for chunk in codes.chunks(BLOCK_ROWS) {
            block[..chunk.len()].copy_from_slice(chunk);
            block[chunk.len()..].fill(0);
            packing::pack(width, &block, &mut words);
        }
        Self::Words { words: words.into(), width }
    }

    #[inline]
    pub(crate) fn decode(&self, block: usize, out: &mut [u32; BLOCK_ROWS]) {
        match self {
            Self::Bytes(bytes) => match bytes.get(block * BLOCK_ROWS..(block + 1) * BLOCK_ROWS) {
                Some(bytes) => out.iter_mut().zip(bytes).for_each(|(code, byte)| *code = u32::from(*byte)),
                None => out.fill(0),
            },
            Self::Words { words, width } => packing::unpack(*width, block_of(words, *width, block), out),
        }
    }

    #[inline]
    pub(crate) fn get(&self, row: usize) -> u32 {
        match self {
            Self::Bytes(bytes) => bytes.get(row).copied().map_or(0, u32::from),
            Self::Words { words, width } => {
                packing::unpack_one(*width, block_of(words, *width, row / BLOCK_ROWS), row % BLOCK_ROWS)
            }
        }
    }

    /// Bits of a code, at least the 8 of a byte.
    pub(crate) fn width(&self) -> u8 {
        match self {
            Self::Bytes(_) => BYTE_WIDTH_MAX,
            Self::Words { width, .. } => *width,
        }
    }

    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Words { words, .. } => words.len() * 4,
        }
    }
}

fn block_of(words: &[u32], width: u8, block: usize) -> &[u32] {
    let len = packing::block_words(width);
    words.get(block * len..(block + 1) * len).unwrap_or(&[])
}

impl Codes {
    /// Gives the segment's strings their ids, unless it is done.
    pub(crate) fn intern(&self, column: &str) -> Result<(), FormatError> {
        let Remap::Strings { section, ids } = &self.remap else { return Ok(()) };
        if ids.get().is_none() {
            let room = 1 << self.packing.width();
            let interned = super::strings::intern(section, self.entries - 1, room, column, &self.dictionary)?;
            // Another thread may have been faster; it found the same ids.
            let _ = ids.set(interned);
        }
        Ok(())
    }

    /// Code to id, as long as the packing can hold codes; `None` when codes are ids.
    #[inline]
    pub(crate) fn ids(&self) -> Option<&[u32]> {
        match &self.remap {
            Remap::Identity => None,
            Remap::Strings { ids, .. } => Some(ids.get().map_or(&[], Vec::as_slice)),
        }
    }

    /// The table's id of a code; null for a code the dictionary does not have.
    #[inline]
    pub(crate) fn id(&self, code: u32) -> u32 {
        self.ids().map_or(code, |ids| ids.get(code as usize).copied().unwrap_or(0))
    }

    /// The code of a string whose codes are in string order, by binary search; `Err` is where it would be.
    pub(crate) fn search(&self, string: &str) -> Result<u32, u32> {
        let strings = self.dictionary.strings();
        let (mut low, mut high) = (1_u32, u32::try_from(self.entries).unwrap_or(u32::MAX).max(1));
        while low < high {
            let middle = low + (high - low) / 2;
            match strings.get(self.id(middle)).unwrap_or("").cmp(string) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// True if code order is string order.
    pub(crate) fn is_sorted(&self) -> bool {
        matches!(self.remap, Remap::Strings { .. })
    }
}

impl Postings {
    /// The rows of a code, ascending.
    pub(crate) fn of(&self, code: u32) -> &[u32] {
        let code = code as usize;
        let (start, end) = (self.starts.get(code), self.starts.get(code + 1));
        let range = start.zip(end).and_then(|(start, end)| self.rows.get(*start as usize..*end as usize));
        range.unwrap_or(&[])
    }

    /// Made from the codes of all rows.
    pub(crate) fn build(codes: &[u32], entries: usize) -> Self {
        let mut starts = vec![0_u32; entries + 1];
        for code in codes {
            starts[*code as usize + 1] += 1;
        }
        for code in 0..entries {
            starts[code + 1] += starts[code];
        }
        let mut next = starts.clone();
        let mut rows = vec![0_u32; codes.len()];
        for (row, code) in codes.iter().enumerate() {
            let at = &mut next[*code as usize];
            rows[*at as usize] = u32::try_from(row).unwrap_or(u32::MAX);
            *at += 1;
        }
        Self { starts: starts.into(), rows: rows.into() }
    }

    /// Starts ascend to the end, and rows ascend within each code below `rows`.
    pub(crate) fn is_sound(&self, rows: usize) -> bool {
        let ends = self.starts.first() == Some(&0) && self.starts.last().is_some_and(|end| *end as usize == rows);
        ends && self.rows.len() == rows
            && self.starts.is_sorted()
            && self.rows.iter().all(|row| (*row as usize) < rows)
            && self.starts.windows(2).all(|pair| {
                let of_code = self.rows.get(pair[0] as usize..pair[1] as usize).unwrap_or(&[]);
                of_code.is_sorted()
            })
    }
}
