//! Tables as the cluster knows them: which topic they read, how far they are published, their segments.

use std::collections::BTreeMap;
use std::fmt;

use base::{Offset, PartitionIndex, Term, Timestamp, TopicId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::command::{NewSegment, Refused};
use crate::segment::{Interval, Segment, SegmentId};

/// A table. Dropped and created again under its name it is another table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub Uuid);

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a table takes in new rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TableMode {
    Running,
    /// Reads nothing more from its topic; what it has stays queryable and its place is kept.
    Suspended,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Table {
    pub id: TableId,
    pub name: String,
    pub topic: TopicId,
    pub spec: String,
    pub schema: String,
    pub mode: TableMode,
    pub created: Timestamp,
    /// Per partition, the first offset that is in no published segment. Absent: zero.
    pub published: BTreeMap<PartitionIndex, Offset>,
    pub segments: BTreeMap<SegmentId, Segment>,
    /// Per partition, the term of the leader that published last. Absent: any may.
    #[serde(default)]
    pub terms: BTreeMap<PartitionIndex, Term>,
}

impl Table {
    /// The first offset of `partition` that is in no published segment.
    #[must_use]
    pub fn published(&self, partition: PartitionIndex) -> Offset {
        self.published.get(&partition).copied().unwrap_or(Offset::ZERO)
    }

    /// The segments that count: those no other segment overshadows. Ordered by time, then shard.
    #[must_use]
    pub fn visible_segments(&self) -> Vec<&Segment> {
        let mut newest_first: Vec<&Segment> = self.segments.values().collect();
        newest_first.sort_by_key(|segment| std::cmp::Reverse(segment.version));
        let mut covered = Covered::default();
        let mut visible = Vec::with_capacity(newest_first.len());
        for same_version in newest_first.chunk_by(|left, right| left.version == right.version) {
            visible.extend(same_version.iter().copied().filter(|segment| !covered.contains(segment.interval)));
            same_version.iter().for_each(|segment| covered.add(segment.interval));
        }
        visible.sort_by_key(|segment| (segment.interval, segment.version, segment.shard));
        visible
    }

    /// Takes in the segments of `[from, to)`; the caller has checked `from` and the term.
    pub(crate) fn publish(
        &mut self,
        partition: PartitionIndex,
        range: (Offset, Offset),
        term: Term,
        new: &[NewSegment],
        published: Timestamp,
    ) -> Result<(), Refused> {
        if let Some(twice) = new.iter().find(|segment| self.segments.contains_key(&segment.id)) {
            return Err(Refused::SegmentExists(twice.id));
        }
        for segment in new {
            let (version, shard) = self.next_shard(segment.interval, published);
            self.segments.insert(
                segment.id,
                Segment {
                    id: segment.id,
                    interval: segment.interval,
                    version,
                    shard,
                    rows: segment.rows,
                    size_bytes: segment.size_bytes,
                    checksum: segment.checksum,
                    path: segment.path.clone(),
                    partition,
                    from: range.0,
                    to: range.1,
                    term,
                    published,
                },
            );
        }
        self.published.insert(partition, range.1);
        self.terms.insert(partition, term);
        Ok(())
    }

    /// Version and shard of a segment appended to `interval`: the newest version that overlaps it, so that
    /// an append never hides, and the next free shard.
    fn next_shard(&self, interval: Interval, now: Timestamp) -> (Timestamp, u32) {
        let version = self
            .segments
            .values()
            .filter(|segment| segment.interval.overlaps(&interval))
            .map(|segment| segment.version)
            .max()
            .unwrap_or(now);
        let shard = self
            .segments
            .values()
            .filter(|segment| segment.interval == interval && segment.version == version)
            .map(|segment| segment.shard.saturating_add(1))
            .max()
            .unwrap_or(0);
        (version, shard)
    }
}

/// Intervals, of which only those count that no other contains: a later start has a later end.
#[derive(Default)]
struct Covered(BTreeMap<Timestamp, Timestamp>);

impl Covered {
    /// True if one of the intervals contains all of `interval`.
    fn contains(&self, interval: Interval) -> bool {
        self.0.range(..=interval.start).next_back().is_some_and(|(_, end)| *end >= interval.end)
    }

    fn add(&mut self, interval: Interval) {
        if self.contains(interval) {
            return;
        }
        let within = self.0.range(interval.start..).take_while(|(_, end)| **end <= interval.end);
        let within: Vec<Timestamp> = within.map(|(start, _)| *start).collect();
        within.iter().for_each(|start| _ = self.0.remove(start));
        self.0.insert(interval.start, interval.end);
    }
}
