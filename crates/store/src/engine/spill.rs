//! Rows of very many groups: scattered by their key's hash first, added up part by part when all rows are there.
//!
//! A table of millions of groups misses the cache on every row, and would be built once per thread and once more to
//! merge. So when a thread's table has grown and most rows still make a new group, its further rows are only written
//! down: key and inputs, in one of [`PARTS`] lists by the top bits of the key's hash. Each part's table is small
//! enough for the cache, and takes the rows of all threads.

use super::table::{Key, hash};

/// Lists rows are scattered to; the top bits of the hash choose.
pub(super) const PARTS: usize = 256;
/// Groups in the table before a thread thinks of writing rows down.
pub(super) const GROUPS_MIN: usize = if cfg!(test) { 64 } else { 1 << 15 };
/// States that fit the word of flags.
pub(super) const STATES_MAX: usize = 64;

/// The part of a key by its hash.
#[inline]
pub(super) fn part_of(hash: u64) -> usize {
    usize::from(hash.to_be_bytes()[0])
}

/// Rows written down: per row the key's words, then, where there are states, a word that says which states the row
/// has an input for, and a word for each state.
#[derive(Debug)]
pub(super) struct Spill {
    parts: Vec<Vec<u64>>,
    states: usize,
}

impl Spill {
    pub(super) fn new(states: usize) -> Self {
        Self { parts: vec![Vec::new(); PARTS], states }
    }

    /// Words of a row.
    pub(super) fn row_words(states: usize, key_words: usize) -> usize {
        key_words + if states == 0 { 0 } else { 1 + states }
    }

    /// Writes a block's rows down. `inputs` has one list a state, in the order of the keys.
    pub(super) fn write<const N: usize>(&mut self, keys: &[Key<N>], flags: &[u64], inputs: &[Vec<u64>]) {
        if self.states == 0 {
            for key in keys {
                self.parts[part_of(hash(key))].extend_from_slice(key);
            }
            return;
        }
        for (row, (key, flags)) in keys.iter().zip(flags).enumerate() {
            let part = &mut self.parts[part_of(hash(key))];
            part.extend_from_slice(key);
            part.push(*flags);
            part.extend(inputs.iter().map(|input| input.get(row).copied().unwrap_or(0)));
        }
    }

    /// The words of one part's rows.
    pub(super) fn part(&self, part: usize) -> &[u64] {
        &self.parts[part]
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.capacity() * 8).sum()
    }
}
