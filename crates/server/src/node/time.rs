//! The only place that reads the clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use base::{Tick, Timestamp};

/// Milliseconds of the clock that only goes forward and counts suspend.
pub fn now() -> Tick {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let ms = time.tv_sec.saturating_mul(1_000).saturating_add(time.tv_nsec / 1_000_000);
    Tick(u64::try_from(ms).unwrap_or(0))
}

/// The wall clock.
pub fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
