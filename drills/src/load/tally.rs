//! What one producer knows.

use std::collections::BTreeMap;
use std::time::Duration;

use client::Acks;

use super::Plan;

/// One acknowledged batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ack {
    /// Numbers `from..to`.
    pub from: u64,
    pub to: u64,
    /// When it was sent the first time.
    pub first_sent: Duration,
    /// When the attempt that was acknowledged was sent.
    pub sent: Duration,
    pub at: Duration,
    /// Who acknowledged it.
    pub by: String,
    /// It had been sent before, and nobody knows what became of that: it may be there twice if the producer is not idempotent.
    pub again: bool,
}

/// One producer's account.
#[derive(Clone, Debug)]
pub struct Tally {
    pub producer: u32,
    pub level: Acks,
    pub idempotent: bool,
    /// Numbers `0..produced` were sent at least once.
    pub produced: u64,
    pub acks: Vec<Ack>,
    /// Kafka's error code and how often; 0: the connection failed.
    pub refusals: BTreeMap<i16, u64>,
    pub last_failure: Option<String>,
    /// The longest wait from sending a request to its answer or failure, and when it was sent.
    pub longest_answer: (Duration, Duration),
    /// An answer that must never come; the producer stopped.
    pub fatal: Option<String>,
}

impl Tally {
    pub(super) fn new(producer: u32, plan: &Plan) -> Self {
        Self {
            producer,
            level: plan.acks,
            idempotent: plan.idempotent,
            produced: 0,
            acks: Vec::new(),
            refusals: BTreeMap::new(),
            last_failure: None,
            longest_answer: (Duration::ZERO, Duration::ZERO),
            fatal: None,
        }
    }

    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acks.iter().map(|ack| ack.to - ack.from).sum()
    }

    /// When the first batch that was sent after `from` was acknowledged.
    #[must_use]
    pub fn first_ack_of_sent_after(&self, from: Duration) -> Option<Duration> {
        self.acks.iter().rev().take_while(|ack| ack.first_sent >= from).last().map(|ack| ack.at)
    }

    /// The longest time without an acknowledgement within `from..until`, the edges included: before the fault the last
    /// acknowledgement counts, and at the end silence counts too.
    #[must_use]
    pub fn write_gap(&self, from: Duration, until: Duration) -> Duration {
        longest_gap(self.acks.iter().map(|ack| ack.at), from, until)
    }

    /// When the longest silence within `from..until` ended.
    #[must_use]
    pub fn write_gap_end(&self, from: Duration, until: Duration) -> Duration {
        let longest = self.write_gap(from, until);
        let mut last = from;
        for at in self.acks.iter().map(|ack| ack.at).take_while(|at| *at <= until) {
            if at >= from && at.saturating_sub(last) >= longest {
                return at;
            }
            last = at;
        }
        until
    }

    /// When `by` last acknowledged something.
    #[must_use]
    pub fn last_ack_by(&self, by: &str) -> Option<Duration> {
        self.acks.iter().rev().find(|ack| ack.by == by).map(|ack| ack.at)
    }
}

/// The longest stretch without an event that overlaps `from..until`. The stretch at its beginning is measured from the
/// last event before it, the one at its end up to `until`.
pub fn longest_gap(events: impl Iterator<Item = Duration>, from: Duration, until: Duration) -> Duration {
    let mut longest = Duration::ZERO;
    let mut last = None;
    for at in events.take_while(|at| *at <= until) {
        if at >= from {
            longest = longest.max(at.saturating_sub(last.unwrap_or(from)));
        }
        last = Some(at);
    }
    longest.max(until.saturating_sub(last.unwrap_or(from).max(Duration::ZERO)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn gap(events: &[u64], from: u64, until: u64) -> u64 {
        let gap = longest_gap(events.iter().map(|at| ms(*at)), ms(from), ms(until));
        u64::try_from(gap.as_millis()).unwrap()
    }

    #[test]
    fn a_gap_is_the_longest_silence_in_its_window() {
        assert_eq!(gap(&[10, 20, 30, 90, 100], 25, 105), 60);
        assert_eq!(gap(&[10, 60, 70, 80], 65, 85), 10, "a silence that ended before the window does not count");
        assert_eq!(gap(&[10, 60, 70], 50, 75), 50, "one that reaches into it counts whole");
        assert_eq!(gap(&[10, 20], 15, 100), 80, "silence at the end counts");
        assert_eq!(gap(&[10, 20, 200], 15, 100), 80, "what came after the window does not");
        assert_eq!(gap(&[], 15, 100), 85);
    }

    fn tally(acks: &[(u64, u64, u64, u64)]) -> Tally {
        let plan = Plan::standard("t", 1, Acks::All);
        let mut tally = Tally::new(0, &plan);
        tally.acks = acks
            .iter()
            .map(|&(from, to, sent, at)| Ack {
                from,
                to,
                first_sent: ms(sent),
                sent: ms(sent),
                at: ms(at),
                by: format!("node-{}", at / 100),
                again: false,
            })
            .collect();
        tally
    }

    #[test]
    fn a_tally_counts_records_and_knows_what_flows_again() {
        let tally = tally(&[(0, 5, 10, 12), (5, 7, 20, 110), (7, 9, 120, 125), (9, 10, 130, 135)]);
        assert_eq!(tally.acknowledged(), 10);
        assert_eq!(tally.first_ack_of_sent_after(ms(100)), Some(ms(125)), "sent before does not count");
        assert_eq!(tally.first_ack_of_sent_after(ms(140)), None);
        assert_eq!(tally.write_gap(ms(15), ms(140)), ms(98));
        assert_eq!(tally.last_ack_by("node-0"), Some(ms(12)));
        assert_eq!(tally.last_ack_by("node-7"), None);
    }
}
