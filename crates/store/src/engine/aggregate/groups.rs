//! How groups are numbered, and how the numbers of one partial become those of another.

use crate::engine::keys::KEY_WORDS_MAX;
use crate::engine::spill;
use crate::engine::table::{KeyTable, hash};

/// How groups are numbered.
#[derive(Debug)]
pub(in crate::engine) enum Groups {
    One,
    /// The packed key is the number.
    Dense,
    Hash1(KeyTable<1>),
    Hash2(KeyTable<2>),
    Hash4(KeyTable<4>),
    Hash8(KeyTable<8>),
}

impl Groups {
    /// Groups numbered so far, where they are numbered one after another.
    pub(in crate::engine) fn len(&self) -> Option<usize> {
        match self {
            Self::One | Self::Dense => None,
            Self::Hash1(table) => Some(table.len()),
            Self::Hash2(table) => Some(table.len()),
            Self::Hash4(table) => Some(table.len()),
            Self::Hash8(table) => Some(table.len()),
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Self::One | Self::Dense => 0,
            Self::Hash1(table) => table.size_bytes(),
            Self::Hash2(table) => table.size_bytes(),
            Self::Hash4(table) => table.size_bytes(),
            Self::Hash8(table) => table.size_bytes(),
        }
    }

    /// The packed keys of some groups, one after another, and the words of each.
    pub(in crate::engine) fn keys(&self, groups: &[u32]) -> (Vec<u64>, usize) {
        fn of<const N: usize>(table: &KeyTable<N>, groups: &[u32]) -> (Vec<u64>, usize) {
            (groups.iter().flat_map(|group| table.keys()[*group as usize]).collect(), N)
        }
        match self {
            Self::One => (vec![0; groups.len()], 1),
            Self::Dense => (groups.iter().map(|group| u64::from(*group)).collect(), 1),
            Self::Hash1(table) => of(table, groups),
            Self::Hash2(table) => of(table, groups),
            Self::Hash4(table) => of(table, groups),
            Self::Hash8(table) => of(table, groups),
        }
    }
}

/// Runs `$body` on the tables of two `Groups` of the same kind.
macro_rules! both_tables {
    ($pair:expr, ($into:ident, $from:ident) => $body:expr, $otherwise:expr) => {
        match $pair {
            (Groups::Hash1($into), Groups::Hash1($from)) => $body,
            (Groups::Hash2($into), Groups::Hash2($from)) => $body,
            (Groups::Hash4($into), Groups::Hash4($from)) => $body,
            (Groups::Hash8($into), Groups::Hash8($from)) => $body,
            _ => $otherwise,
        }
    };
}

impl Groups {
    /// Gives these groups numbers in `into`, those whose hash is wanted: pairs of the number here and there.
    pub(super) fn map_into(
        &self,
        into: &mut Self,
        count: usize,
        wanted: Option<&dyn Fn(u64) -> bool>,
    ) -> Vec<(u32, u32)> {
        fn map<const N: usize>(
            into: &mut KeyTable<N>,
            from: &KeyTable<N>,
            wanted: Option<&dyn Fn(u64) -> bool>,
        ) -> Vec<(u32, u32)> {
            let keys = (0..).zip(from.keys()).filter(|(_, key)| wanted.is_none_or(|wanted| wanted(hash(key))));
            keys.map(|(group, key)| (group, into.group(key))).collect()
        }
        // Numbered by key, so the same in both.
        let same = |count: usize| (0..u32::try_from(count).unwrap_or(u32::MAX)).map(|group| (group, group)).collect();
        both_tables!((into, self), (into, from) => map(into, from, wanted), same(count))
    }

    /// The same for some groups.
    pub(super) fn adopt_into(&self, into: &mut Self, groups: &[u32]) -> Vec<(u32, u32)> {
        fn adopt<const N: usize>(into: &mut KeyTable<N>, from: &KeyTable<N>, groups: &[u32]) -> Vec<(u32, u32)> {
            groups.iter().map(|group| (*group, into.group(&from.keys()[*group as usize]))).collect()
        }
        let same = || groups.iter().map(|group| (*group, *group)).collect();
        both_tables!((into, self), (into, from) => adopt(into, from, groups), same())
    }

    /// The groups by the part of their key's hash.
    pub(super) fn by_part(&self) -> Vec<Vec<u32>> {
        fn of<const N: usize>(table: &KeyTable<N>) -> Vec<Vec<u32>> {
            let mut parts = vec![Vec::new(); spill::PARTS];
            for (group, key) in (0..).zip(table.keys()) {
                parts[spill::part_of(hash(key))].push(group);
            }
            parts
        }
        match self {
            Self::Hash1(table) => of(table),
            Self::Hash2(table) => of(table),
            Self::Hash4(table) => of(table),
            Self::Hash8(table) => of(table),
            Self::One | Self::Dense => vec![Vec::new(); spill::PARTS],
        }
    }

    /// Makes an empty table large enough for half of the rows to be new groups.
    pub(super) fn reserve(&mut self, rows: usize) {
        match self {
            Self::Hash1(table) => *table = KeyTable::with_capacity(rows / 2),
            Self::Hash2(table) => *table = KeyTable::with_capacity(rows / 2),
            Self::Hash4(table) => *table = KeyTable::with_capacity(rows / 2),
            Self::Hash8(table) => *table = KeyTable::with_capacity(rows / 2),
            Self::One | Self::Dense => {}
        }
    }
}

const _: () = assert!(KEY_WORDS_MAX == 8, "the widest table takes the widest key");
