//! What one query sees of a table: taken once at its start, never changed after.

use std::sync::Arc;

use crate::dictionary::{IdSet, TableDictionary};
use crate::interval::Interval;
use crate::schema::TableSchema;
use crate::segment::Segment;

/// A table at one moment.
#[derive(Clone, Debug)]
pub struct TableSnapshot {
    pub table: Arc<str>,
    pub schema: Arc<TableSchema>,
    pub dictionary: Arc<TableDictionary>,
    pub segments: Vec<SnapshotSegment>,
}

/// One segment or live chunk of a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotSegment {
    pub id: String,
    pub interval: Interval,
    pub rows: u64,
    pub segment: Arc<Segment>,
    /// In memory only, not yet published.
    pub live: bool,
}

/// What a dictionary is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DictionaryUse {
    pub strings: usize,
    pub unused: usize,
}

impl TableSnapshot {
    /// Rows of all segments.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.segments.iter().map(|segment| segment.rows).sum()
    }

    /// Strings the dictionary holds, and how many of them no segment uses any more. When most are unused, make a new
    /// dictionary and move every segment over with [`Segment::rebase`]: the next generation.
    #[must_use]
    pub fn dictionary_use(&self) -> DictionaryUse {
        let mut total = DictionaryUse::default();
        for (column, strings, _) in self.dictionary.sizes() {
            let mut used = IdSet::new(strings);
            self.segments.iter().for_each(|segment| segment.segment.used_ids(&column, &mut used));
            total.strings += strings - 1;
            total.unused += (strings - 1).saturating_sub(used.count());
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::segment::tests::{random_batch, random_schema};

    #[test]
    fn a_dropped_segments_strings_are_counted_and_freed_by_a_new_generation() {
        let dictionary = Arc::new(TableDictionary::new());
        let segment = |seed| {
            let file = Segment::encode(&random_batch(seed, 3_000, 1_000)).unwrap();
            let segment = Segment::open(Bytes::from(file), &dictionary).unwrap();
            segment.warm().unwrap();
            SnapshotSegment {
                id: seed.to_string(),
                interval: Interval::ETERNITY,
                rows: 3_000,
                segment: Arc::new(segment),
                live: false,
            }
        };
        let mut snapshot = TableSnapshot {
            table: Arc::from("t"),
            schema: Arc::new(random_schema()),
            dictionary: Arc::clone(&dictionary),
            segments: vec![segment(1), segment(2)],
        };
        let full = snapshot.dictionary_use();
        assert_eq!(full.unused, 0);
        snapshot.segments.truncate(1);
        let half = snapshot.dictionary_use();
        assert_eq!(half.strings, full.strings);
        assert!(half.unused > 20, "{half:?}");
        let next = Arc::new(TableDictionary::new());
        let moved = snapshot.segments[0].segment.rebase(&next).unwrap();
        moved.warm().unwrap();
        snapshot.segments[0].segment = Arc::new(moved);
        snapshot.dictionary = next;
        assert_eq!(snapshot.dictionary_use(), DictionaryUse { strings: half.strings - half.unused, unused: 0 });
    }
}
