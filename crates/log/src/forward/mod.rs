//! The way of a spooled partition to a cluster: what is sent, as which batches, and what an answer means.
//!
//! ```text
//! Place (durable) --cut--> Place with cuts (durable) --send--> answers --> Place further on
//!     ^                                                            |
//!     +----------- crash at any point: the same cuts again --------+
//! ```
//! A broker remembers of each producer the last [`UNDER_WAY_MAX`] batches and answers the same batch a second time without
//! writing it. So what is under way is cut first, the cuts are made durable, and after a crash or a lost answer exactly the
//! same batches are sent again, in order.
//!
//! What always holds: a record is passed over only if it was taken or refused for good and set aside; records of one
//! partition are taken in their order; none is taken twice while the broker remembers the producer. Where it has forgotten
//! it and an answer was lost, that is counted in [`Way::doubts`].
//!
//! Deliberately not here: sockets, files, clocks, the records themselves.

use base::{Offset, ProducerEpoch, ProducerId};

#[cfg(test)]
mod tests;

/// Batches of one partition under way at a time: as many as a broker remembers.
pub const UNDER_WAY_MAX: usize = 5;

/// The producer that a broker knows us by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Producer {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    /// Of the next record that has not been taken.
    pub sequence: i32,
}

/// The end of a batch under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The offset after its last record.
    pub to: Offset,
    pub records: i32,
}

/// How far a partition is; what must be durable.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// The first record that has neither been taken nor set aside.
    pub from: Offset,
    /// `None`: one has to be asked for.
    pub producer: Option<Producer>,
    /// Batches under way, in order from `from` on.
    pub cuts: Vec<Cut>,
}

/// A batch to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Batch {
    pub from: Offset,
    pub to: Offset,
    pub records: i32,
    pub producer: ProducerId,
    pub epoch: ProducerEpoch,
    pub sequence: i32,
}

/// What became of the first batch under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is there, now or since before.
    Taken,
    /// Nobody knows, or it was not taken now: the same again later.
    Later,
    /// The broker does not know the producer, or its last batch.
    Forgotten,
    /// Never, whatever is tried: too large, or not valid there.
    Refused,
}

/// What the caller does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// The answers of the batches after it count.
    GoOn,
    /// What is under way is sent again from the first on; answers still to come do not count.
    SendAgain,
    /// As `SendAgain`, under another producer.
    AskForProducer,
    /// As `SendAgain`, once the new, smaller cuts are there.
    CutAgain,
    /// The one record in `[from, to)` is written down where refused ones are kept; then [`Way::set_aside`].
    SetAside,
}

/// One partition's way.
#[derive(Clone, Debug)]
pub struct Way {
    place: Place,
    /// An answer about what is under way was lost.
    in_doubt: bool,
    /// Most records of the next batches: small after one was refused, to find the one that is bad.
    records_max: i32,
    doubts: u64,
}

impl Way {
    /// Goes on at a place that was read back.
    #[must_use]
    pub const fn resume(place: Place) -> Self {
        // Whoever wrote the cuts may have sent them.
        let in_doubt = !place.cuts.is_empty();
        Self { place, in_doubt, records_max: i32::MAX, doubts: 0 }
    }

    /// What must be durable before anything is sent.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// How often batches may have been taken twice: the broker had forgotten the producer while an answer was missing.
    #[must_use]
    pub const fn doubts(&self) -> u64 {
        self.doubts
    }

    /// Most records in one batch now.
    #[must_use]
    pub const fn records_max(&self) -> i32 {
        self.records_max
    }

    /// Batches that may be cut now: none while some are under way, one while the broker has seen none of this producer (it
    /// would take any sequence number of one it does not know, and a gap with it), or while a bad record is looked for.
    #[must_use]
    pub fn room(&self) -> usize {
        match self.place.producer {
            _ if !self.place.cuts.is_empty() => 0,
            Some(producer) if producer.sequence > 0 && self.records_max == i32::MAX => UNDER_WAY_MAX,
            _ => 1,
        }
    }

    /// Takes the ends of the next batches, at most [`Way::room`] of at most [`Way::records_max`] records. Make
    /// [`Way::place`] durable before they are sent.
    pub fn cut(&mut self, cuts: Vec<Cut>) {
        debug_assert!(self.place.cuts.is_empty() && cuts.len() <= self.room());
        self.in_doubt = false;
        self.place.cuts = cuts;
    }

    /// Another producer, as the broker gave it. Make [`Way::place`] durable before anything is sent.
    pub const fn set_producer(&mut self, id: ProducerId, epoch: ProducerEpoch) {
        self.place.producer = Some(Producer { id, epoch, sequence: 0 });
    }

    /// What is to be sent, in order. Empty without a producer or cuts.
    pub fn under_way(&self) -> impl Iterator<Item = Batch> + '_ {
        let start = self.place.producer.map(|producer| (self.place.from, producer));
        let cuts = self.place.cuts.iter();
        cuts.scan(start, |at, cut| {
            let (from, producer) = (*at)?;
            *at = Some((cut.to, Producer { sequence: after(producer.sequence, cut.records), ..producer }));
            let Producer { id, epoch, sequence } = producer;
            Some(Batch { from, to: cut.to, records: cut.records, producer: id, epoch, sequence })
        })
    }

    /// What became of the first batch under way.
    pub fn answered(&mut self, answer: Answer) -> Next {
        let Some(first) = self.place.cuts.first().copied() else { return Next::GoOn };
        match answer {
            Answer::Taken => {
                self.place.from = first.to;
                self.place.cuts.remove(0);
                if let Some(producer) = &mut self.place.producer {
                    producer.sequence = after(producer.sequence, first.records);
                }
                self.records_max = self.records_max.saturating_mul(2);
                self.in_doubt &= !self.place.cuts.is_empty();
                Next::GoOn
            }
            Answer::Later => {
                self.in_doubt = true;
                Next::SendAgain
            }
            Answer::Forgotten => {
                self.doubts += u64::from(self.in_doubt);
                self.in_doubt = false;
                self.place.producer = None;
                // The new one is unknown there: one batch at a time until it is known.
                self.place.cuts.truncate(1);
                Next::AskForProducer
            }
            Answer::Refused if first.records > 1 => {
                // Those after it were refused too: there is a gap before them.
                self.place.cuts.clear();
                self.records_max = first.records / 2;
                Next::CutAgain
            }
            Answer::Refused => Next::SetAside,
        }
    }

    /// The first batch under way, of one record, was refused for good and has been written down elsewhere.
    pub fn set_aside(&mut self) {
        if let Some(first) = self.place.cuts.first() {
            self.place.from = first.to;
        }
        // As above: what follows was not taken.
        self.place.cuts.clear();
        self.in_doubt = false;
    }

    /// Records below `start` are gone from the spool: they are passed over. Returns how many offsets.
    pub fn skip_to(&mut self, start: Offset) -> i64 {
        let skipped = start.0.saturating_sub(self.place.from.0).max(0);
        if skipped > 0 {
            self.place.cuts.clear();
            self.place.from = start;
        }
        skipped
    }
}

/// The sequence number so many records later; after the largest comes zero, as in Kafka.
const fn after(sequence: i32, records: i32) -> i32 {
    match sequence.checked_add(records) {
        Some(next) => next,
        None => records - (i32::MAX - sequence) - 1,
    }
}
