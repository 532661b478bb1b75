//! Transactions in this partition: which batches may be part of one, and how one ends.
//!
//! The coordinator decides; here is only written down what it decided, and refused what it cannot have allowed.

use base::batch::BatchHeader;
use base::{ProducerEpoch, ProducerId, Tick, Timestamp};

use super::{Appended, Partition};
use crate::limits::OPEN_TRANSACTIONS_MAX;
use crate::storage::Now;
use crate::verification::Verification;
use crate::{AppendError, Marker, OpenTransaction, ProducerSeen};

impl Partition {
    /// A question about a producer's transaction is to be put to its coordinator: does it run, and is this partition
    /// part of it? To be called before the question is asked.
    pub fn verify_begin(&mut self, now: Tick, producer: ProducerId, epoch: ProducerEpoch) -> Verification {
        self.verifications.begin(now, producer, epoch)
    }

    /// The coordinator said yes: the transaction's first batch is taken. False if that comes too late: a marker came
    /// in between, which may be the one that ended this transaction, or too much time has passed. Then ask again.
    pub fn verified(&mut self, now: Tick, verification: Verification) -> bool {
        self.verifications.answer(now, verification)
    }

    /// Ends a producer's transaction here, as its coordinator decided, and fences lower epochs of it. Durable once
    /// [`Partition::committed`] reaches `next_offset`. A marker that says nothing new is not written again
    /// ([`Appended::duplicate`]): all that was written before it is what has to become durable.
    ///
    /// # Errors
    /// As [`Partition::append`], and `FencedCoordinator`, `FencedEpoch`: the marker is of the past.
    pub fn append_marker(&mut self, now: Tick, wall: Timestamp, marker: Marker) -> Result<Appended, AppendError> {
        self.check_running()?;
        self.now = Now { tick: now, wall };
        self.lead()?;
        self.judge(self.producers.check_marker(&marker))?;
        // A yes that is still to be used was given before the end.
        self.verifications.forget(marker.producer);
        let duplicate = self.producers.is_ended(&marker);
        let (base_offset, next_offset) = if duplicate {
            (self.end(), self.end())
        } else {
            let bytes = marker.encode(wall).map_err(|_| AppendError::Unsupported("a marker that cannot be written"))?;
            self.append_one(BatchHeader::parse(&bytes)?, bytes, None)?
        };
        let (term, log_start_offset) = (self.term(), self.start());
        Ok(Appended { base_offset, next_offset, term, log_append_time: None, log_start_offset, duplicate })
    }

    /// Compares a batch that is new with the producer's transaction.
    pub(super) fn check_transaction(&self, header: &BatchHeader) -> Result<(), AppendError> {
        let (producer, epoch) = (header.producer_id, header.producer_epoch);
        let transactions = &self.producers.transactions;
        if !header.is_transactional() {
            let message = "its producer has an open transaction here, which has to end first";
            let is_open = producer != ProducerId::NONE && transactions.is_open(producer);
            return if is_open { Err(AppendError::InvalidTransaction(message)) } else { Ok(()) };
        }
        if transactions.is_open_in(producer, epoch) {
            return Ok(());
        }
        if !self.verifications.holds(self.now.tick, producer, epoch) {
            return Err(AppendError::NotVerified { producer, epoch });
        }
        let open = transactions.len();
        if open >= OPEN_TRANSACTIONS_MAX { Err(AppendError::TooManyTransactions { open }) } else { Ok(()) }
    }

    /// The open transaction that begins first: what is stable ends there.
    #[must_use]
    pub fn oldest_transaction(&self) -> Option<OpenTransaction> {
        self.producers.transactions.list().next()
    }

    /// The open transactions, by where they begin.
    #[must_use]
    pub fn open_transactions(&self) -> Vec<OpenTransaction> {
        self.producers.transactions.list().collect()
    }

    /// What is remembered of producers, by their ids.
    #[must_use]
    pub fn producers(&self) -> Vec<ProducerSeen> {
        self.producers.list().collect()
    }
}
