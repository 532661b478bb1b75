//! Segments as the cluster knows them: what they hold, where their file is, and which of them count.
//!
//! A segment is named by (interval, version, shard). Among segments whose intervals overlap, one with a
//! higher version hides every segment of a lower version whose interval lies wholly within its own, as in
//! Druid. Appending never hides: a new shard takes the version its neighbours have.

use std::fmt;

use base::{Offset, PartitionIndex, Term, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A segment's identity for life; also the stem of its file's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SegmentId(pub Uuid);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `[start, end)` of event time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Interval {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Interval {
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// A published segment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Segment {
    pub id: SegmentId,
    pub interval: Interval,
    /// Milliseconds at which the interval was first written (or rewritten). Higher hides lower.
    pub version: Timestamp,
    /// Its number among the segments of the same interval and version.
    pub shard: u32,
    pub rows: u64,
    pub size_bytes: u64,
    pub checksum: u32,
    pub path: String,
    pub partition: PartitionIndex,
    pub from: Offset,
    pub to: Offset,
    pub term: Term,
    pub published: Timestamp,
}

/// True if `upper` hides `lower`.
#[must_use]
pub fn overshadows(upper: &Segment, lower: &Segment) -> bool {
    upper.version > lower.version && upper.interval.contains(&lower.interval)
}
