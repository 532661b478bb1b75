//! Doing what the group asks for: what is written, what is said, what is decided.

use std::mem;
use std::sync::PoisonError;

use base::batch::BatchHeader;
use base::disk::DiskError;
use base::marker::EndMarker;
use base::{LogIndex, Offset, Term};
use quorum::{Entry, Message, Payload, Ready};

use super::{Partition, group_key};
use crate::flush::disk_error;
use crate::frame::{Frame, Note, NoteKind, Place};
use crate::limits::MESSAGES_MAX;
use crate::storage::WriteFault;
use crate::{AppendError, Stopped, damage};

/// A ready that was written.
pub(super) struct Unpersisted {
    number: u64,
    must_sync: bool,
    /// To be sent once it is durable.
    messages: Vec<Message>,
    /// The snapshot it brought.
    snapshot: Option<LogIndex>,
}

impl Partition {
    /// Does what the group asks for, until it asks for nothing or has to wait.
    pub(super) fn pump(&mut self) -> Result<(), AppendError> {
        let outcome = self.obey_all();
        self.learn_commit();
        outcome
    }

    fn obey_all(&mut self) -> Result<(), AppendError> {
        if self.stopped.is_some() {
            return Ok(());
        }
        loop {
            self.persist();
            if self.cutting.is_some() {
                return Ok(());
            }
            let Some(mut ready) = self.stalled.take().or_else(|| self.group.ready()) else { return Ok(()) };
            match self.obey(&mut ready) {
                Ok(()) => {}
                Err(WriteFault::Wait) => {
                    self.stalled = Some(ready);
                    return Ok(());
                }
                Err(fault) => {
                    self.stalled = (fault == WriteFault::Full).then_some(ready);
                    return self.fit(Err(fault));
                }
            }
        }
    }

    fn obey(&mut self, ready: &mut Ready) -> Result<(), WriteFault> {
        self.put_hard_state(ready)?;
        if let Some(snapshot) = &ready.snapshot {
            self.plan_install(snapshot)?;
            return Err(WriteFault::Wait);
        }
        for entry in &ready.entries {
            self.write_entry(entry)?;
        }
        self.group.written(ready.number);
        self.ready = ready.number;
        self.post(mem::take(&mut ready.messages));
        self.unpersisted.push_back(Unpersisted {
            number: ready.number,
            must_sync: ready.must_sync,
            messages: mem::take(&mut ready.messages_after_persist),
            snapshot: self.installed.take(),
        });
        self.apply(&ready.committed);
        Ok(())
    }

    fn put_hard_state(&mut self, ready: &Ready) -> Result<(), WriteFault> {
        let voted = self.storage().hard_state;
        let Some(state) = ready.hard_state.filter(|state| (state.term, state.vote) != (voted.term, voted.vote)) else {
            return Ok(());
        };
        let put = self.hard.lock().unwrap_or_else(PoisonError::into_inner).put(group_key(self.id), state);
        put.map_err(|error| match disk_error(error) {
            DiskError::Full { .. } => WriteFault::Full,
            error => WriteFault::Broken(error.to_string()),
        })?;
        self.hard_dirty = true;
        let storage = self.group.storage_mut();
        storage.hard_state = state;
        storage.shared.set_term(state.term);
        Ok(())
    }

    /// Writes an entry, if it is not there; what is there instead has to go first.
    fn write_entry(&mut self, entry: &Entry) -> Result<(), WriteFault> {
        let Place { index: end, .. } = self.storage().end;
        if entry.index < end {
            // The leader's own entries are written before they are proposed.
            let there = quorum::Storage::term_of(self.storage(), entry.index);
            return if there == Ok(entry.term) { Ok(()) } else { self.plan_cut(entry) };
        }
        if entry.index > end {
            return Err(WriteFault::Broken(format!("entry {} was handed out where {end} follows", entry.index)));
        }
        let now = self.now;
        let kind = match &entry.payload {
            Payload::Empty => NoteKind::Empty,
            Payload::Membership(_) => NoteKind::Membership,
            Payload::Data(bytes) => return self.write_data(entry.term, bytes),
        };
        let payload = entry.payload.bytes();
        self.group.storage_mut().write_note(kind, payload, entry.term, now, &self.config)?;
        if kind == NoteKind::Membership {
            self.group.storage_mut().roster.wrote(entry.index);
            self.members_dirty = true;
        }
        self.pending.push_back((entry.index, self.storage().end.offset));
        Ok(())
    }

    /// Writes what the leader wrote, as it is.
    fn write_data(&mut self, term: Term, bytes: &[u8]) -> Result<(), WriteFault> {
        let now = self.now;
        let storage = self.group.storage_mut();
        let Place { index, offset } = storage.end;
        let unfit = |error| WriteFault::Broken(format!("entry {index} (offset {offset}) from the leader: {error}"));
        let frame = Frame::check(bytes).map_err(unfit)?;
        let next = frame.follow(storage.end, term).map_err(unfit)?;
        storage.write_frame(&frame, bytes, next, term, now, &self.config)?;
        self.pending.push_back((index, next.offset));
        if let Frame::Batch(header) = &frame {
            let marker = EndMarker::decode(header, bytes);
            self.remember(header, marker.as_ref());
        }
        Ok(())
    }

    /// A batch was written; its header has its offsets.
    pub(super) fn remember(&mut self, header: &BatchHeader, marker: Option<&EndMarker>) {
        let wall = self.now.wall;
        let aborted = if header.base_offset >= self.producers_from {
            self.producers.record(header, marker, wall, self.config.producers_max)
        } else {
            // The snapshot that the log began with has counted it.
            self.producers.transactions.record(header, marker, wall)
        };
        if header.is_transactional() {
            self.verifications.forget(header.producer_id);
        }
        self.group.storage().note_aborted(aborted);
    }

    /// Moves what readers of committed transactions see.
    pub(super) fn learn_stable(&mut self) {
        let storage = self.group.storage();
        let committed = storage.shared.committed();
        self.producers.transactions.decided(storage.decided().offset);
        let stable =
            self.producers.transactions.first_unstable(committed).map_or(committed, |first| first.min(committed));
        storage.shared.set_stable(stable);
    }

    /// What was decided takes effect; it is durable here.
    fn apply(&mut self, committed: &[Entry]) {
        let mut place = self.storage().applied;
        for entry in committed {
            place.index = entry.index.next();
            if let Payload::Data(bytes) = &entry.payload
                && let Ok(Frame::Batch(header)) = Frame::parse(bytes)
            {
                place.offset = header.next_offset();
            }
            match &entry.payload {
                Payload::Membership(_) => {
                    // One that makes no sense changes nothing, on every replica alike.
                    if let Ok(members) = self.group.apply_membership(entry) {
                        self.group.storage_mut().roster.applied(entry.index, members);
                        self.members_dirty = true;
                    }
                }
                Payload::Data(bytes) => self.apply_start(bytes),
                Payload::Empty => {}
            }
        }
        let Some(last) = committed.last() else { return };
        self.group.applied(last.index);
        let storage = self.group.storage_mut();
        if place.index > storage.applied.index {
            storage.applied = place;
        }
        if self.is_damaged() && last.term >= self.mark.repair_term {
            self.mark.repair_term = Term::ZERO;
            self.mark_dirty = true;
            self.removals.append(&mut self.set_aside);
        }
    }

    /// Records below a start that was agreed on are deleted.
    fn apply_start(&mut self, bytes: &[u8]) {
        if let Some(start) = Note::start_of(bytes)
            && start > self.storage().start
        {
            self.group.storage_mut().delete_below(start);
            self.mark_dirty = true;
            self.remove_oldest(self.storage().removable(start));
        }
    }

    /// Tells the group what is durable, and releases what was to be said only then.
    fn persist(&mut self) {
        if self.stalled.is_some() {
            return;
        }
        let durable = self.persisted;
        let is_durable = |front: &mut Unpersisted| front.number <= durable || !front.must_sync;
        let mut last = None;
        while let Some(ready) = self.unpersisted.pop_front_if(is_durable) {
            last = Some(ready.number);
            self.post(ready.messages);
            if let Some(index) = ready.snapshot {
                self.group.persisted(ready.number);
                self.group.applied(index);
            }
        }
        if let Some(last) = last {
            self.group.persisted(last);
        }
    }

    pub(super) fn post(&mut self, messages: Vec<Message>) {
        let room = MESSAGES_MAX.saturating_sub(self.messages.len());
        self.messages.extend(messages.into_iter().take(room));
    }

    /// Moves what readers see up to what the group knows to be decided and is written here.
    fn learn_commit(&mut self) {
        if self.stalled.is_some() {
            // What stands here at the index that is decided may be what has to go.
            return;
        }
        let decided = self.group.commit_index();
        let mut commit: Option<(LogIndex, Offset)> = None;
        while let Some(entry) = self.pending.pop_front_if(|(index, _)| *index <= decided) {
            commit = Some(entry);
        }
        if let Some((index, offset)) = commit {
            self.group.storage_mut().committed(index, offset);
            self.acked.forget_below(offset);
            self.learn_stable();
        }
    }

    pub(super) fn check_running(&self) -> Result<(), Stopped> {
        self.stopped.clone().map_or(Ok(()), Err)
    }

    /// A group that stands still stops the partition. If others have what cannot be read here, the next open
    /// fetches it from them.
    pub(super) fn check_group(&mut self) -> Result<(), Stopped> {
        match self.group.fault().map(ToString::to_string) {
            Some(fault) => Err(self.give_up(fault)),
            None => self.check_running(),
        }
    }

    /// Stops, because this replica's log is not what it must be.
    pub(super) fn give_up(&mut self, reason: String) -> Stopped {
        let storage = self.group.storage();
        if self.stopped.is_none() && !storage.roster.is_sole_voter(self.node) {
            // If it cannot be noted, the next open finds what this process has found.
            self.declared = damage::declare(storage.disk.as_ref(), &storage.dir).is_ok();
        }
        self.stop(reason)
    }

    /// From here on nothing is written.
    pub(super) fn stop(&mut self, reason: String) -> Stopped {
        self.stopped.get_or_insert(Stopped { reason }).clone()
    }
}
