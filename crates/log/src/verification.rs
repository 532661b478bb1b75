//! Transactions that may begin in this partition: the coordinator was asked whether they run (KIP-890).
//!
//! A late batch of a transaction that has ended would open one that nobody ends. So the first batch is taken only
//! if the coordinator said yes to a question asked here, and no marker of the producer came in since the question.
//! What always holds: nothing here outlives [`VERIFIED_MS`] or a marker; it is lost with the process, and asked again.

use std::collections::BTreeMap;

use base::{ProducerEpoch, ProducerId, Tick};

use crate::limits::{VERIFICATIONS_MAX, VERIFIED_MS};

/// A question that is put to the coordinator, for [`crate::Partition::verified`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verification {
    producer: ProducerId,
    epoch: ProducerEpoch,
    number: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Verifications {
    held: BTreeMap<ProducerId, Held>,
    number: u64,
}

#[derive(Debug)]
struct Held {
    epoch: ProducerEpoch,
    number: u64,
    since: Tick,
    is_answered: bool,
}

impl Verifications {
    /// Before the coordinator is asked. One that is under way serves whoever asks later too.
    pub fn begin(&mut self, now: Tick, producer: ProducerId, epoch: ProducerEpoch) -> Verification {
        let known =
            self.held.get_mut(&producer).filter(|held| held.epoch == epoch && now.since(held.since) < VERIFIED_MS);
        if let Some(held) = known {
            return Verification { producer, epoch, number: held.number };
        }
        if self.held.len() >= VERIFICATIONS_MAX
            && let Some(oldest) = self.held.iter().min_by_key(|(_, held)| held.number).map(|(id, _)| *id)
        {
            self.held.remove(&oldest);
        }
        self.number += 1;
        let number = self.number;
        self.held.insert(producer, Held { epoch, number, since: now, is_answered: false });
        Verification { producer, epoch, number }
    }

    /// The coordinator said yes. False if that is too late, or of no use any more.
    pub fn answer(&mut self, now: Tick, verification: Verification) -> bool {
        let held = self.held.get_mut(&verification.producer);
        let held = held.filter(|held| held.number == verification.number && now.since(held.since) < VERIFIED_MS);
        held.is_some_and(|held| {
            held.is_answered = true;
            true
        })
    }

    pub fn holds(&self, now: Tick, producer: ProducerId, epoch: ProducerEpoch) -> bool {
        let held = self.held.get(&producer);
        held.is_some_and(|held| held.is_answered && held.epoch == epoch && now.since(held.since) < VERIFIED_MS)
    }

    /// The transaction has begun, or was ended.
    pub fn forget(&mut self, producer: ProducerId) {
        self.held.remove(&producer);
    }

    pub fn clear(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ProducerId = ProducerId(1);
    const EPOCH: ProducerEpoch = ProducerEpoch(0);

    #[test]
    fn a_yes_counts_until_a_marker_or_the_time_is_up() {
        let mut all = Verifications::default();
        let first = all.begin(Tick(0), ONE, EPOCH);
        assert!(!all.holds(Tick(0), ONE, EPOCH));
        assert!(all.answer(Tick(1), first));
        assert!(all.holds(Tick(1), ONE, EPOCH) && !all.holds(Tick(1), ONE, ProducerEpoch(1)));
        all.forget(ONE);
        assert!(!all.holds(Tick(2), ONE, EPOCH));
        let second = all.begin(Tick(2), ONE, EPOCH);
        assert!(!all.answer(Tick(3), first), "a late yes to the question before the marker");
        assert!(!all.holds(Tick(3), ONE, EPOCH));
        assert!(all.answer(Tick(3), second));
        assert!(!all.holds(Tick(2 + VERIFIED_MS), ONE, EPOCH));
    }

    #[test]
    fn their_number_is_bounded() {
        let mut all = Verifications::default();
        for at in 0..i64::try_from(VERIFICATIONS_MAX).unwrap() + 9 {
            all.begin(Tick(0), ProducerId(at), EPOCH);
        }
        assert_eq!(all.held.len(), VERIFICATIONS_MAX);
    }
}
