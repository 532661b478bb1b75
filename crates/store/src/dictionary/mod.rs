//! Node-wide dictionaries: one id per distinct string of a table column, the same in every segment on the node.
//!
//! ```text
//! TableDictionary   column name -> ColumnDictionary
//! ColumnDictionary  pages of 4,096 strings (bytes + offsets)  +  a hash table of (hash32, id)
//! ```
//! Ids are dense, given in order of arrival, start at 1 and never change or go away; 0 is null. So a group
//! key is an array index, and partial results of different segments add up without looking at a string.
//! Writers take the lock for at most [`INTERN_BATCH`] strings at a time, so that readers never wait long.
//!
//! Bounded: a column holds at most [`COLUMN_ENTRIES_MAX`] strings and [`COLUMN_BYTES_MAX`] bytes, and no string
//! longer than [`STRING_BYTES_MAX`]; what does not fit is refused, and the caller keeps the column plain.
//! Deliberately not here: freeing single strings. A dictionary with few live ids is made anew and the segments
//! are moved over (`Segment::rebase`), one generation after another.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use memchr::memmem::Finder;

mod bits;
mod pages;
#[cfg(test)]
mod tests;

pub use bits::IdSet;
pub(crate) use pages::{Interner, hash_string};

/// Strings interned under one lock.
pub const INTERN_BATCH: usize = 4_096;
/// Longest string a dictionary takes; a column with a longer one stays plain.
pub const STRING_BYTES_MAX: usize = 256 << 10;
/// Most strings of one column. Ids fit 31 bits, so that a query may number strings of its own above them.
pub const COLUMN_ENTRIES_MAX: usize = 100_000_000;
/// Most bytes one column's dictionary may hold.
pub const COLUMN_BYTES_MAX: usize = 8 << 30;

const _: () = assert!(COLUMN_ENTRIES_MAX < (1 << 31));
const _: () = assert!(STRING_BYTES_MAX * pages::PAGE_ENTRIES <= u32::MAX as usize);

/// A column is not called nearly unique before it has this many strings.
const UNIQUE_ENTRIES_MIN: usize = 65_536;

/// The id of null.
pub const NULL_ID: u32 = 0;

/// The dictionaries of one table's string columns. Shared by its segments, its live rows and its queries.
#[derive(Debug, Default)]
pub struct TableDictionary {
    columns: RwLock<BTreeMap<Arc<str>, Arc<ColumnDictionary>>>,
}

/// One column's strings.
pub struct ColumnDictionary {
    interner: RwLock<Interner>,
    /// Rows that came by: with the strings there are, they say whether the column is nearly unique.
    offered: AtomicUsize,
}

/// A string the dictionary refused. Keep the column plain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the dictionary is full, or a string is longer than {STRING_BYTES_MAX} bytes")]
pub struct DictionaryFull;

impl TableDictionary {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The column's dictionary; made empty if the column is new.
    #[must_use]
    pub fn column(&self, name: &str) -> Arc<ColumnDictionary> {
        if let Some(column) = self.existing(name) {
            return column;
        }
        let mut columns = self.columns.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(columns.entry(Arc::from(name)).or_default())
    }

    /// The column's dictionary if the column has one.
    #[must_use]
    pub fn existing(&self, name: &str) -> Option<Arc<ColumnDictionary>> {
        self.columns.read().unwrap_or_else(PoisonError::into_inner).get(name).map(Arc::clone)
    }

    /// Memory held, all columns.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.sizes().iter().map(|(_, _, bytes)| bytes).sum()
    }

    /// Name, strings and bytes of every column.
    #[must_use]
    pub fn sizes(&self) -> Vec<(Arc<str>, usize, usize)> {
        let columns = self.columns.read().unwrap_or_else(PoisonError::into_inner);
        columns.iter().map(|(name, column)| (Arc::clone(name), column.len(), column.size_bytes())).collect()
    }
}

impl Default for ColumnDictionary {
    fn default() -> Self {
        Self { interner: RwLock::new(Interner::default()), offered: AtomicUsize::new(0) }
    }
}

impl fmt::Debug for ColumnDictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColumnDictionary").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl ColumnDictionary {
    /// Ids given so far, null's included: every id is below this.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// True while it has no string.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() <= 1
    }

    /// Memory held.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.read().size_bytes()
    }

    /// The id of each string, new ones numbered. On an error some may have been added; that does no harm.
    pub fn intern<'a>(&self, strings: impl IntoIterator<Item = &'a str>) -> Result<Vec<u32>, DictionaryFull> {
        let mut strings = strings.into_iter();
        let mut ids = Vec::with_capacity(strings.size_hint().0);
        let mut batch: Vec<(u32, &str)> = Vec::with_capacity(INTERN_BATCH);
        loop {
            batch.clear();
            batch.extend(strings.by_ref().take(INTERN_BATCH).map(|string| (hash_string(string), string)));
            if batch.is_empty() {
                return Ok(ids);
            }
            if !self.find_all(&batch, &mut ids) {
                let mut interner = self.interner.write().unwrap_or_else(PoisonError::into_inner);
                for (hash, string) in &batch {
                    ids.push(interner.intern(*hash, string)?);
                }
            }
        }
    }

    /// The ids of a batch if every string is known: then no writer's lock is needed.
    fn find_all(&self, batch: &[(u32, &str)], ids: &mut Vec<u32>) -> bool {
        let interner = self.read();
        let start = ids.len();
        for (hash, string) in batch {
            let Some(id) = interner.find(*hash, string) else {
                ids.truncate(start);
                return false;
            };
            ids.push(id);
        }
        true
    }

    /// Counts `rows` live values, and says whether the column's strings are so nearly unique that live rows are
    /// better kept plain.
    pub(crate) fn nearly_unique(&self, rows: usize) -> bool {
        let offered = self.offered.fetch_add(rows, Ordering::Relaxed);
        let strings = self.len();
        strings >= UNIQUE_ENTRIES_MIN && strings > offered / 10 * 9
    }

    /// Counts the values of a segment's rows, whose strings were given their ids.
    pub(crate) fn offer(&self, rows: usize) {
        self.offered.fetch_add(rows, Ordering::Relaxed);
    }

    /// The id of a string, if it has one.
    #[must_use]
    pub fn lookup(&self, string: &str) -> Option<u32> {
        self.read().find(hash_string(string), string)
    }

    /// The strings, to look at many under one lock. Hold it briefly.
    #[must_use]
    pub fn strings(&self) -> Strings<'_> {
        Strings(self.read())
    }

    /// The ids below `len` whose string passes. Null never does. Lets writers in between.
    pub fn select(&self, len: usize, mut test: impl FnMut(&str) -> bool) -> IdSet {
        let mut set = IdSet::new(len);
        let mut from = 1;
        while from < len {
            let to = len.min(from + SELECT_BATCH);
            let strings = self.strings();
            for id in from..to {
                let id = u32::try_from(id).unwrap_or(u32::MAX);
                if strings.get(id).is_some_and(&mut test) {
                    set.insert(id);
                }
            }
            from = to;
        }
        set
    }

    /// The ids below `len` whose string holds what the finder finds, which is not empty. As [`Self::select`], but
    /// whole pages are searched at once.
    pub(crate) fn containing(&self, len: usize, finder: &Finder<'_>) -> IdSet {
        let mut set = IdSet::new(len);
        let mut from = 1;
        while from < len {
            let to = len.min(from + SELECT_BATCH);
            self.read().containing(from..to, finder, |id| _ = set.insert(id));
            from = to;
        }
        set
    }

    fn read(&self) -> RwLockReadGuard<'_, Interner> {
        self.interner.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Strings tested under one lock.
const SELECT_BATCH: usize = 65_536;

/// A look at a column's strings; writers wait while it lives.
#[derive(Debug)]
pub struct Strings<'a>(RwLockReadGuard<'a, Interner>);

impl Strings<'_> {
    /// The string of an id; `None` for null and for an id never given.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&str> {
        self.0.get(id)
    }

    /// The id of a string, by its [`hash_string`].
    pub(crate) fn find(&self, hash: u32, string: &str) -> Option<u32> {
        self.0.find(hash, string)
    }
}
