//! The strings themselves: pages that are appended to, and the table that finds them.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use memchr::memmem::Finder;

use super::{COLUMN_BYTES_MAX, COLUMN_ENTRIES_MAX, DictionaryFull, STRING_BYTES_MAX};

/// Strings of one page; a power of two, so that an id splits into page and place.
pub(super) const PAGE_ENTRIES: usize = 4_096;

/// Not a secret: whoever fills a dictionary with colliding strings slows its own table down.
const HASH_SEED: u64 = 0x5ea_3a11;

/// The 32-bit hash a dictionary keeps of each string.
pub(crate) fn hash_string(string: &str) -> u32 {
    let mut hasher = FixedState::with_seed(HASH_SEED).build_hasher();
    hasher.write(string.as_bytes());
    let hash = hasher.finish();
    #[expect(clippy::cast_possible_truncation, reason = "folding 64 bits into 32 is the point")]
    let folded = (hash ^ (hash >> 32)) as u32;
    folded
}

/// The table takes its place from the low bits and its tag from the top ones; both come from the 32 there are.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// Strings with dense ids from 1 on. One writer; `ColumnDictionary` puts a lock around it.
#[derive(Default)]
pub(crate) struct Interner {
    pages: Vec<Page>,
    table: HashTable<(u32, u32)>,
    len: usize,
    string_bytes: usize,
}

#[derive(Default)]
struct Page {
    bytes: String,
    /// Where each string ends.
    ends: Vec<u32>,
}

impl Page {
    fn get(&self, place: usize) -> Option<&str> {
        let end = *self.ends.get(place)? as usize;
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.bytes.get(start..end)
    }

    /// Searches the strings of some places as one text; what is found across two strings is not counted.
    fn containing(&self, places: Range<usize>, finder: &Finder<'_>, mut found: impl FnMut(usize)) {
        let Some(ends) = self.ends.get(..places.end) else { return };
        let start = places.start.checked_sub(1).map_or(0, |before| ends.get(before).map_or(0, |end| *end as usize));
        let text = self.bytes.as_bytes().get(..ends.last().map_or(0, |end| *end as usize)).unwrap_or_default();
        let mut from = start;
        while let Some(at) = text.get(from..).and_then(|rest| finder.find(rest)).map(|at| from + at) {
            let place = ends.partition_point(|end| *end as usize <= at);
            let Some(end) = ends.get(place).map(|end| *end as usize) else { return };
            if at + finder.needle().len() <= end {
                found(place);
                from = end;
            } else {
                from = at + 1;
            }
        }
    }
}

impl Interner {
    /// Ids given, null's included.
    pub(crate) fn len(&self) -> usize {
        self.len + 1
    }

    pub(crate) fn size_bytes(&self) -> usize {
        let pages: usize = self.pages.iter().map(|page| page.bytes.capacity() + page.ends.capacity() * 4 + 48).sum();
        pages + self.table.capacity() * 10
    }

    pub(crate) fn get(&self, id: u32) -> Option<&str> {
        let at = (id as usize).checked_sub(1)?;
        self.pages.get(at / PAGE_ENTRIES)?.get(at % PAGE_ENTRIES)
    }

    /// Calls `found` with the ids in a range whose string holds what the finder finds, ascending.
    pub(super) fn containing(&self, ids: Range<usize>, finder: &Finder<'_>, mut found: impl FnMut(u32)) {
        let (from, to) = (ids.start.saturating_sub(1), ids.end.saturating_sub(1));
        let pages = self.pages.iter().enumerate().skip(from / PAGE_ENTRIES);
        for (number, page) in pages.take_while(|(number, _)| number * PAGE_ENTRIES < to) {
            let first = number * PAGE_ENTRIES;
            let places = from.saturating_sub(first)..(to - first).min(page.ends.len());
            page.containing(places, finder, |place| found(u32::try_from(first + place + 1).unwrap_or(0)));
        }
    }

    pub(crate) fn find(&self, hash: u32, string: &str) -> Option<u32> {
        let found = self.table.find(spread(hash), |(h, id)| *h == hash && self.get(*id) == Some(string));
        found.map(|(_, id)| *id)
    }

    pub(crate) fn intern(&mut self, hash: u32, string: &str) -> Result<u32, DictionaryFull> {
        if let Some(id) = self.find(hash, string) {
            return Ok(id);
        }
        self.append(string)?;
        let id = u32::try_from(self.len).map_err(|_| DictionaryFull)?;
        self.table.insert_unique(spread(hash), (hash, id), |(h, _)| spread(*h));
        Ok(id)
    }

    fn append(&mut self, string: &str) -> Result<(), DictionaryFull> {
        let too_long = string.len() > STRING_BYTES_MAX;
        if too_long || self.len >= COLUMN_ENTRIES_MAX || self.string_bytes + string.len() > COLUMN_BYTES_MAX {
            return Err(DictionaryFull);
        }
        if self.len.is_multiple_of(PAGE_ENTRIES) {
            if let Some(page) = self.pages.last_mut() {
                page.bytes.shrink_to_fit();
                page.ends.shrink_to_fit();
            }
            self.pages.push(Page::default());
        }
        let page = self.pages.last_mut().ok_or(DictionaryFull)?;
        page.bytes.push_str(string);
        page.ends.push(u32::try_from(page.bytes.len()).map_err(|_| DictionaryFull)?);
        self.len += 1;
        self.string_bytes += string.len();
        Ok(())
    }
}

impl fmt::Debug for Interner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interner").field("len", &self.len).field("string_bytes", &self.string_bytes).finish()
    }
}
