//! The world's time, and how far each node's clocks are from it.

use base::{Tick, Timestamp};

/// Microseconds since the world began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct At(pub u64);

impl At {
    #[must_use]
    pub const fn plus_us(self, us: u64) -> Self {
        Self(self.0 + us)
    }

    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0 + ms * 1_000)
    }

    #[must_use]
    pub const fn since_us(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0 / 1_000
    }
}

/// A node's clocks. The steady one counts pauses (as CLOCK_BOOTTIME does) and runs at its own rate; the wall
/// clock jumps as it likes.
#[derive(Clone, Debug)]
pub struct Clock {
    /// How much faster than the world the steady clock runs; negative is slower.
    pub drift_ppm: i64,
    started_ms: u64,
    wall_ms: i64,
}

impl Clock {
    #[must_use]
    pub const fn new(drift_ppm: i64, started_ms: u64, wall_ms: i64) -> Self {
        Self { drift_ppm, started_ms, wall_ms }
    }

    /// The steady clock.
    #[must_use]
    pub fn tick(&self, at: At) -> Tick {
        let us = i128::from(at.0);
        let own = us + us * i128::from(self.drift_ppm) / 1_000_000;
        Tick(self.started_ms + u64::try_from(own / 1_000).unwrap_or(0))
    }

    #[must_use]
    pub fn wall(&self, at: At) -> Timestamp {
        Timestamp(self.wall_ms + i64::try_from(self.tick(at).0 - self.started_ms).unwrap_or(i64::MAX))
    }

    /// The wall clock is set.
    pub const fn jump(&mut self, by_ms: i64) {
        self.wall_ms += by_ms;
    }

    /// How long in the world until `ms` have passed on the steady clock.
    #[must_use]
    pub fn world_us(&self, ms: u64) -> u64 {
        let own = i128::from(ms) * 1_000;
        u64::try_from(own - own * i128::from(self.drift_ppm) / 1_000_000).unwrap_or(1).max(1)
    }
}
