//! Offsets that belong to a transaction: kept durably beside the group's own, and made its own, or dropped, when the
//! transaction ends.
//!
//! Always holds:
//! - Nobody is told of a pending offset; who insists on stable ones is told that there is one.
//! - A mark is carried out once per transaction: one that comes again later, when the producer is in its next transaction, does
//!   nothing. Marks are numbered by their coordinator's term and its rounds.
//! - An offset whose transaction was verified before a mark and that comes after it is refused: it would stay pending for ever.
//!   The committer takes a guard, asks whether the transaction is under way, and commits with the guard.

use std::collections::BTreeMap;

use base::{Offset, ProducerEpoch, ProducerId, Tick, Timestamp};

use super::coordinator::{Coordinator, Effect, Record, Ticket};
use super::error::GroupError;
use super::group::{Context, Group};
use super::limits::{GROUP_ID_BYTES_MAX, GROUPS_MAX, OFFSETS_PER_GROUP_MAX, PRODUCERS_REMEMBERED_MAX};
use super::offsets::check_offset;
use super::record::{Key, Place, encode_offset, encode_pending};
use super::request::{CommitOffset, Committed, OffsetOutcome, Response, TransactionCommit};
use super::write::{Reply, What};

/// Offsets of one producer's transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending {
    pub epoch: ProducerEpoch,
    pub offsets: BTreeMap<Place, Committed>,
}

/// The producers whose transactions ended last, across all groups.
#[derive(Debug, Default)]
pub struct Ends {
    count: u64,
    by_producer: BTreeMap<ProducerId, End>,
    by_age: BTreeMap<u64, ProducerId>,
    /// Ends up to this one are not remembered.
    forgotten: u64,
}

#[derive(Clone, Copy, Debug)]
struct End {
    at: u64,
    /// The last mark that was carried out: the coordinator's term and its round.
    mark: (u64, u64),
}

impl Ends {
    /// What a committer keeps while it asks whether its transaction is under way.
    pub const fn guard(&self) -> u64 {
        self.count
    }

    /// True if no transaction of the producer has ended since the guard was taken.
    pub fn holds(&self, guard: u64, producer: ProducerId) -> bool {
        guard >= self.forgotten && self.by_producer.get(&producer).is_none_or(|end| end.at <= guard)
    }

    fn is_done(&self, producer: ProducerId, mark: (u64, u64)) -> bool {
        self.by_producer.get(&producer).is_some_and(|end| end.mark >= mark)
    }

    /// An end begins (`mark` unchanged) or was carried out.
    fn note(&mut self, producer: ProducerId, mark: Option<(u64, u64)>) {
        self.count += 1;
        let before = self.by_producer.get(&producer).copied();
        if let Some(before) = before {
            self.by_age.remove(&before.at);
        }
        let mark = mark.or(before.map(|before| before.mark)).unwrap_or_default();
        self.by_producer.insert(producer, End { at: self.count, mark });
        self.by_age.insert(self.count, producer);
        if self.by_producer.len() > PRODUCERS_REMEMBERED_MAX
            && let Some((at, oldest)) = self.by_age.pop_first()
        {
            self.by_producer.remove(&oldest);
            self.forgotten = at;
        }
    }
}

impl Group {
    /// True if a transaction under way has an offset for this place.
    pub fn is_unstable(&self, place: &Place) -> bool {
        self.pending.values().any(|pending| pending.offsets.contains_key(place))
    }

    fn commit_pending(&mut self, cx: &mut Context<'_>, ticket: Ticket, commit: TransactionCommit) {
        let refuse = |error| Response::CommitOffsets(Err(error));
        if let Err(error) = self.check_pending(cx, &commit) {
            return cx.respond(ticket, refuse(error));
        }
        let (mut outcomes, mut offsets) = (Vec::with_capacity(commit.offsets.len()), Vec::new());
        for CommitOffset { topic, partition, offset, leader_epoch, metadata } in commit.offsets {
            let result = check_offset(offset, &metadata, cx.config.offset_metadata_bytes_max);
            outcomes.push(OffsetOutcome { topic: topic.clone(), partition, result: result.clone() });
            if result.is_ok() {
                let committed = Committed { offset: Offset(offset), leader_epoch, metadata, at: cx.wall };
                offsets.push((Place { topic, partition }, committed));
            }
        }
        if offsets.is_empty() {
            return cx.respond(ticket, Response::CommitOffsets(Ok(outcomes)));
        }
        let (producer, epoch) = (commit.producer, commit.epoch);
        let record = |(place, committed): &(Place, Committed)| Record {
            key: Key::Pending { group: self.id.clone(), producer, place: place.clone() }.encode(),
            value: Some(encode_pending(epoch, committed)),
        };
        let records = offsets.iter().map(record).collect();
        let failed = refuse(GroupError::NotPersisted);
        let reply = Reply { ticket, done: Response::CommitOffsets(Ok(outcomes)), failed };
        let what = What::Pending { group: self.id.clone(), producer, epoch, offsets };
        if cx.persist(records, what, Some(reply)).is_some() {
            self.writes_out += 1;
            self.pending_writes_out += 1;
        }
    }

    fn check_pending(&mut self, cx: &Context<'_>, commit: &TransactionCommit) -> Result<(), GroupError> {
        let held: usize = self.pending.values().map(|pending| pending.offsets.len()).sum();
        if self.offsets.len() + held + commit.offsets.len() > OFFSETS_PER_GROUP_MAX {
            return Err(GroupError::Busy { what: "the group's offsets", max: OFFSETS_PER_GROUP_MAX });
        }
        if let Some(pending) = self.pending.get(&commit.producer)
            && commit.epoch < pending.epoch
        {
            return Err(GroupError::FencedProducer);
        }
        // Producers from before KIP-447 say nothing of the member they read for: their transactional id fences them.
        let Some(generation) = commit.generation else {
            let is_silent = commit.member.is_empty() && commit.instance.is_none();
            return if is_silent { Ok(()) } else { Err(GroupError::UnknownMember) };
        };
        self.check_member(&commit.member, commit.instance.as_deref(), generation)?;
        if let Some(member) = self.members.get_mut(&commit.member) {
            member.refresh(cx.now);
        }
        Ok(())
    }

    /// The records that end a transaction. Offsets come before the removals, so that none is lost half way.
    fn end_records(&self, producer: ProducerId, commit: bool) -> Vec<Record> {
        let Some(pending) = self.pending.get(&producer) else { return Vec::new() };
        let kept = |(place, committed): (&Place, &Committed)| Record {
            key: Key::Offset { group: self.id.clone(), place: place.clone() }.encode(),
            value: Some(encode_offset(committed)),
        };
        let gone = |place: &Place| Record {
            key: Key::Pending { group: self.id.clone(), producer, place: place.clone() }.encode(),
            value: None,
        };
        let mut records: Vec<Record> = if commit { pending.offsets.iter().map(kept).collect() } else { Vec::new() };
        records.extend(pending.offsets.keys().map(gone));
        records
    }

    pub fn pending_written(
        &mut self,
        producer: ProducerId,
        epoch: ProducerEpoch,
        offsets: Vec<(Place, Committed)>,
        is_durable: bool,
    ) {
        self.writes_out -= 1;
        self.pending_writes_out -= 1;
        if is_durable {
            let empty = || Pending { epoch, offsets: BTreeMap::new() };
            let pending = self.pending.entry(producer).or_insert_with(empty);
            pending.epoch = epoch.max(pending.epoch);
            pending.offsets.extend(offsets);
        }
    }

    pub fn end_written(&mut self, producer: ProducerId, commit: bool, is_durable: bool) {
        self.writes_out -= 1;
        self.pending_writes_out -= 1;
        if is_durable
            && let Some(pending) = self.pending.remove(&producer)
            && commit
        {
            self.offsets.extend(pending.offsets);
        }
    }
}

impl Coordinator {
    pub(super) fn commit_pending(
        &mut self,
        now: Tick,
        wall: Timestamp,
        ticket: Ticket,
        commit: TransactionCommit,
        out: &mut Vec<Effect>,
    ) {
        let refuse = |error| Effect::Respond(ticket, Response::CommitOffsets(Err(error)));
        if commit.group.is_empty() || commit.group.len() > GROUP_ID_BYTES_MAX {
            return out.push(refuse(GroupError::InvalidGroupId));
        }
        if !self.ends.holds(commit.guard, commit.producer) {
            return out.push(refuse(GroupError::TransactionEnded));
        }
        if commit.generation.is_none() {
            if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&commit.group) {
                return out.push(refuse(GroupError::Busy { what: "groups", max: GROUPS_MAX }));
            }
            self.group_or_new(&commit.group, wall);
        }
        let (id, asked) = (commit.group.clone(), commit.generation.unwrap_or(-1));
        let kept = self.with_group(now, wall, &id, out, |group, cx| group.commit_pending(cx, ticket, commit));
        if kept.is_none() {
            out.push(refuse(GroupError::IllegalGeneration { asked, current: 0 }));
        }
    }

    /// Answered when the transaction's offsets are the group's, or gone, durably.
    #[expect(clippy::too_many_arguments, reason = "the fields of one request and the present")]
    pub(super) fn end_transaction(
        &mut self,
        now: Tick,
        wall: Timestamp,
        ticket: Ticket,
        id: &str,
        producer: ProducerId,
        commit: bool,
        mark: (u64, u64),
        out: &mut Vec<Effect>,
    ) {
        let answer = |result| Effect::Respond(ticket, Response::EndTransaction(result));
        if self.ends.is_done(producer, mark) {
            return out.push(answer(Ok(())));
        }
        self.ends.note(producer, None);
        let Some(group) = self.groups.get(id) else {
            self.ends.note(producer, Some(mark));
            return out.push(answer(Ok(())));
        };
        // An offset on its way may belong to the transaction; the mark comes again.
        if group.pending_writes_out > 0 {
            return out.push(answer(Err(GroupError::NotPersisted)));
        }
        let records = group.end_records(producer, commit);
        if records.is_empty() {
            self.ends.note(producer, Some(mark));
            return out.push(answer(Ok(())));
        }
        let done = Response::EndTransaction(Ok(()));
        let reply = Reply { ticket, done, failed: Response::EndTransaction(Err(GroupError::NotPersisted)) };
        let what = What::End { group: id.to_owned(), producer, commit, mark };
        self.with_group(now, wall, id, out, |group, cx| {
            if cx.persist(records, what, Some(reply)).is_some() {
                group.writes_out += 1;
                group.pending_writes_out += 1;
            }
        });
    }

    pub(super) fn note_end(&mut self, producer: ProducerId, mark: (u64, u64)) {
        self.ends.note(producer, Some(mark));
    }
}
