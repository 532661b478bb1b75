//! When it will hurt that nothing is published: live rows fill memory, the log fills the disk.
//!
//! Rates are taken from when it began until now, so they are as steady as what clients do.

use base::Tick;

/// A rate over less time says nothing.
const MEASURED_MS_MIN: u64 = 2_000;
/// Beyond this a forecast says only that it is far away.
const FAR_MS: u64 = 30 * 24 * 3_600_000;

/// How full everything is; live rows of the table that has most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill {
    pub live_bytes: u64,
    pub live_bytes_max: u64,
    /// `None`: not known yet.
    pub free_bytes: Option<u64>,
    pub reserve_bytes: u64,
}

/// What was there when it began.
#[derive(Clone, Copy, Debug)]
pub struct Forecast {
    since: Tick,
    fill: Fill,
}

impl Forecast {
    pub const fn begin(since: Tick, fill: Fill) -> Self {
        Self { since, fill }
    }

    /// One or two sentences for a finding.
    pub fn words(&self, now: Tick, fill: Fill) -> String {
        let elapsed = now.since(self.since);
        let left = fill.live_bytes_max.saturating_sub(fill.live_bytes);
        let grown = fill.live_bytes.saturating_sub(self.fill.live_bytes);
        let mut words = format!(
            "live rows of the fullest table use {} of {} (store.live_bytes_max){}",
            bytes(fill.live_bytes),
            bytes(fill.live_bytes_max),
            match until(left, grown, elapsed) {
                When::Unknown => String::new(),
                When::Never => ": they do not grow".to_owned(),
                When::In(ms) => format!(
                    "; at this rate they reach it in {}, then new rows wait in the log unseen by queries",
                    time(ms)
                ),
            }
        );
        if let (Some(before), Some(free)) = (self.fill.free_bytes, fill.free_bytes) {
            let left = free.saturating_sub(fill.reserve_bytes);
            words.push_str(&format!(". The log's disk has {} left", bytes(left)));
            if let When::In(ms) = until(left, before.saturating_sub(free), elapsed) {
                words.push_str(&format!("; at this rate produce is refused in {}", time(ms)));
            }
        }
        words
    }
}

enum When {
    /// Measured for too short a time.
    Unknown,
    Never,
    In(u64),
}

fn until(left: u64, used: u64, elapsed_ms: u64) -> When {
    if elapsed_ms < MEASURED_MS_MIN {
        return When::Unknown;
    }
    if used == 0 {
        return When::Never;
    }
    let ms = u128::from(left) * u128::from(elapsed_ms) / u128::from(used);
    When::In(u64::try_from(ms).unwrap_or(u64::MAX))
}

fn bytes(count: u64) -> String {
    const MIB: u64 = 1 << 20;
    if count >= 10 << 30 {
        format!("{} GiB", count >> 30)
    } else {
        format!("{}.{} MiB", count / MIB, count % MIB * 10 / MIB)
    }
}

fn time(ms: u64) -> String {
    let minutes = ms / 60_000;
    match minutes {
        _ if ms > FAR_MS => "more than 30 days".to_owned(),
        0 => format!("about {} s", ms / 1_000),
        1..120 => format!("about {minutes} min"),
        120..2_880 => format!("about {} h", minutes / 60),
        _ => format!("about {} days", minutes / 1_440),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_when_memory_and_disk_are_full() {
        let fill = |live_mib: u64, free_gib: u64| Fill {
            live_bytes: live_mib << 20,
            live_bytes_max: 1 << 30,
            free_bytes: Some(free_gib << 30),
            reserve_bytes: 1 << 30,
        };
        let forecast = Forecast::begin(Tick(1_000), fill(24, 40));
        assert_eq!(
            forecast.words(Tick(2_000), fill(30, 39)),
            "live rows of the fullest table use 30.0 MiB of 1024.0 MiB (store.live_bytes_max). The log's disk has 38 GiB left"
        );
        assert_eq!(
            forecast.words(Tick(101_000), fill(124, 30)),
            "live rows of the fullest table use 124.0 MiB of 1024.0 MiB (store.live_bytes_max); at this rate they reach it in about 15 min, then \
             new rows wait in the log unseen by queries. The log's disk has 29 GiB left; at this rate produce is refused in \
             about 4 min"
        );
        let idle = forecast.words(Tick(9_000_000), fill(24, 40));
        assert!(idle.contains("they do not grow") && !idle.contains("refused"), "{idle}");
        let unknown = Fill { free_bytes: None, ..fill(24, 40) };
        assert!(!forecast.words(Tick(9_000_000), unknown).contains("disk"));
        assert_eq!(time(u64::MAX), "more than 30 days");
        assert_eq!([time(59_000), time(60_000), time(7_200_000)], ["about 59 s", "about 1 min", "about 2 h"]);
    }
}
