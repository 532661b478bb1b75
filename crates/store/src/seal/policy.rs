//! Is it time to seal a partition's live rows?

use base::{Tick, Timestamp};
use serde::Serialize;

use crate::spec::Tuning;

/// What is live in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LiveStats {
    pub rows: u64,
    pub bytes: u64,
    /// When the oldest of the rows came in.
    pub oldest: Option<Tick>,
    /// The end of the earliest time chunk that has a live row.
    pub earliest_chunk_end: Option<Timestamp>,
}

/// Why rows are sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SealReason {
    Rows,
    Bytes,
    /// The oldest row has been live for long enough.
    Age,
    /// A time chunk is over.
    ChunkEnd,
}

/// Whether to seal now. `wall` says which time chunks are over; nothing is sealed without rows.
#[must_use]
pub fn should_seal(tuning: &Tuning, live: &LiveStats, now: Tick, wall: Timestamp) -> Option<SealReason> {
    if live.rows == 0 {
        return None;
    }
    let age_ms = live.oldest.map_or(0, |oldest| now.since(oldest));
    if live.rows >= tuning.rows_per_segment_max {
        Some(SealReason::Rows)
    } else if live.bytes >= tuning.bytes_per_segment_max {
        Some(SealReason::Bytes)
    } else if age_ms >= tuning.live_age_ms_max {
        Some(SealReason::Age)
    } else if age_ms >= tuning.chunk_grace_ms && live.earliest_chunk_end.is_some_and(|end| end <= wall) {
        Some(SealReason::ChunkEnd)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_alone_is_enough() {
        let tuning = Tuning {
            rows_per_segment_max: 10,
            bytes_per_segment_max: 100,
            live_age_ms_max: 1_000,
            chunk_grace_ms: 500,
        };
        let live = LiveStats { rows: 1, bytes: 1, oldest: Some(Tick(0)), earliest_chunk_end: Some(Timestamp(50)) };
        let ask = |live: &LiveStats, now, wall| should_seal(&tuning, live, Tick(now), Timestamp(wall));
        assert_eq!(ask(&live, 499, 1_000), None, "a chunk that is over still waits for its grace");
        assert_eq!(ask(&live, 500, 49), None);
        assert_eq!(ask(&live, 500, 50), Some(SealReason::ChunkEnd));
        assert_eq!(ask(&live, 1_000, 0), Some(SealReason::Age));
        assert_eq!(ask(&LiveStats { rows: 10, ..live }, 0, 0), Some(SealReason::Rows));
        assert_eq!(ask(&LiveStats { bytes: 100, ..live }, 0, 0), Some(SealReason::Bytes));
        assert_eq!(ask(&LiveStats { rows: 0, bytes: 100, ..live }, 9_999, 9_999), None);
    }
}
