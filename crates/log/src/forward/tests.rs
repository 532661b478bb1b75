//! Small ones, then a broker that forgets, a net that loses answers and a process that dies anywhere.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Small numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

/// A broker's partition: what Kafka keeps of producers, and what was written.
#[derive(Default)]
struct Broker {
    log: Vec<i64>,
    producers: BTreeMap<i64, Vec<(i32, i32)>>,
    next_id: i64,
    bad: BTreeSet<i64>,
}

impl Broker {
    fn produce(&mut self, batch: &Batch) -> Answer {
        if (batch.from.0..batch.to.0).any(|offset| self.bad.contains(&offset)) {
            return Answer::Refused;
        }
        let known = self.producers.entry(batch.producer.0).or_default();
        let span = (batch.sequence, after(batch.sequence, batch.records));
        if known.contains(&span) {
            return Answer::Taken;
        }
        // A producer that is not known may begin anywhere, as in Kafka.
        if known.last().is_some_and(|last| last.1 != span.0) {
            return Answer::Forgotten;
        }
        known.push(span);
        if known.len() > UNDER_WAY_MAX {
            known.remove(0);
        }
        self.log.extend(batch.from.0..batch.to.0);
        Answer::Taken
    }

    fn producer(&mut self) -> (ProducerId, ProducerEpoch) {
        self.next_id += 1;
        (ProducerId(self.next_id), ProducerEpoch(0))
    }
}

/// One round: cut, save, send, read answers. `saved` is the disk; true: the process died.
fn round(
    way: &mut Way,
    saved: &mut Place,
    broker: &mut Broker,
    end: i64,
    aside: &mut Vec<i64>,
    dice: &mut Dice,
) -> bool {
    if way.place().producer.is_none() {
        let (id, epoch) = broker.producer();
        way.set_producer(id, epoch);
    }
    if way.place().cuts.is_empty() {
        let mut at = way.place().from.0;
        let mut cuts = Vec::new();
        while cuts.len() < way.room() && at < end {
            let most = i64::from(way.records_max()).min(end - at).min(7);
            let records = 1 + i64::try_from(dice.roll(u64::try_from(most).unwrap())).unwrap();
            at += records;
            cuts.push(Cut { to: Offset(at), records: i32::try_from(records).unwrap() });
        }
        way.cut(cuts);
    }
    if dice.chance(3) {
        return true;
    }
    *saved = way.place().clone();
    let batches: Vec<Batch> = way.under_way().collect();
    let mut answers = Vec::new();
    for batch in &batches {
        if dice.chance(5) {
            break;
        }
        let answer = broker.produce(batch);
        answers.push(if dice.chance(5) { Answer::Later } else { answer });
        if answers.last() == Some(&Answer::Later) {
            break;
        }
    }
    if dice.chance(3) {
        return true;
    }
    if answers.len() < batches.len() && answers.last() != Some(&Answer::Later) {
        answers.push(Answer::Later);
    }
    for answer in answers {
        let first = way.under_way().next().unwrap();
        match way.answered(answer) {
            Next::GoOn => {}
            Next::SetAside => {
                aside.push(first.from.0);
                if dice.chance(10) {
                    return true;
                }
                way.set_aside();
                break;
            }
            Next::SendAgain | Next::AskForProducer | Next::CutAgain => break,
        }
    }
    false
}

fn play(seed: u64, forgets: bool) -> u64 {
    let mut dice = Dice(seed);
    let mut broker = Broker::default();
    let end = 200;
    broker.bad = (0..dice.roll(5)).map(|_| i64::try_from(dice.roll(200)).unwrap()).collect();
    let (mut saved, mut aside, mut doubts) = (Place::default(), Vec::new(), 0);
    let mut way = Way::resume(saved.clone());
    for _ in 0..100_000 {
        if way.place().from.0 == end {
            break;
        }
        if round(&mut way, &mut saved, &mut broker, end, &mut aside, &mut dice) {
            doubts += way.doubts();
            way = Way::resume(saved.clone());
        }
        if forgets && dice.chance(5) {
            broker.producers.clear();
        }
    }
    assert_eq!(way.place().from.0, end, "seed {seed}: it does not come to its end");
    doubts += way.doubts();
    let set_aside: BTreeSet<i64> = aside.into_iter().collect();
    assert_eq!(set_aside, broker.bad, "seed {seed}: exactly the bad ones are set aside");
    let there: BTreeSet<i64> = broker.log.iter().copied().collect();
    let expected: BTreeSet<i64> = (0..end).filter(|offset| !broker.bad.contains(offset)).collect();
    assert_eq!(there, expected, "seed {seed}: a record is missing or invented");
    if !forgets {
        assert!(
            broker.log.is_sorted_by(|one, next| one < next),
            "seed {seed}: out of order or twice: {:?}",
            broker.log
        );
    }
    doubts
}

#[test]
fn whatever_is_lost_and_whoever_dies_each_record_is_taken_once_and_in_order() {
    for seed in 0..2_000 {
        assert_eq!(play(seed, false), 0, "seed {seed}: nothing was forgotten, so nothing is in doubt");
    }
}

#[test]
fn a_broker_that_forgets_loses_nothing() {
    let doubts: u64 = (0..500).map(|seed| play(seed, true)).sum();
    assert!(doubts > 0, "the world is too kind");
}

#[test]
fn sequences_go_on_after_the_largest() {
    assert_eq!(after(i32::MAX, 1), 0);
    assert_eq!(after(i32::MAX - 1, 1), i32::MAX);
    assert_eq!(after(i32::MAX - 1, 5), 3);
}

#[test]
fn a_bad_record_is_found_by_halving() {
    let mut way = Way::resume(Place::default());
    way.set_producer(ProducerId(1), ProducerEpoch(0));
    way.cut(vec![Cut { to: Offset(8), records: 8 }]);
    assert_eq!(way.answered(Answer::Refused), Next::CutAgain);
    assert_eq!((way.records_max(), way.room()), (4, 1));
    way.cut(vec![Cut { to: Offset(1), records: 1 }]);
    assert_eq!(way.answered(Answer::Refused), Next::SetAside);
    way.set_aside();
    assert_eq!(way.place().from, Offset(1));
    assert_eq!(way.place().producer.unwrap().sequence, 0, "what was never taken has no number");
}
