//! When old files are read again, and what becomes of what is found damaged.

use std::collections::VecDeque;
use std::sync::Arc;

use base::{LogIndex, NodeId, Offset, Term, Tick};
use bytes::Bytes;
use quorum::{Copies, Entry, Message};

use super::{Partition, seed};
use crate::care::{CareDone, CareJob, Copied, Outcome, Spot, Work, Wound};
use crate::file::{FileName, LogFile};
use crate::limits::{COPIES_MS_MAX, SCRUB_BYTES, SCRUB_STEP_MS_MIN, WOUNDS_MAX};

/// Small files read at once, at most.
const PIECES_MAX: usize = 256;

/// What is known of old files.
pub(super) struct Care {
    /// When the next piece is to be read.
    due: Tick,
    /// Where to read on.
    at: Option<(FileName, Spot)>,
    /// Damaged and not mended. The first is the one that is being mended.
    wounds: VecDeque<Wound>,
    asked: Option<Asked>,
    /// Whom to ask next, counted on.
    turn: usize,
    /// To be written.
    copy: Option<(Wound, Bytes)>,
    /// A job is out.
    out: bool,
    /// Times that something was mended.
    mended: u64,
}

struct Asked {
    node: NodeId,
    until: Tick,
    copied: Copied,
}

impl Care {
    pub fn new(now: Tick) -> Self {
        Self { due: now, at: None, wounds: VecDeque::new(), asked: None, turn: 0, copy: None, out: false, mended: 0 }
    }

    /// In words.
    pub fn unreadable(&self) -> Vec<String> {
        self.wounds.iter().map(|wound| wound.reason.clone()).collect()
    }

    pub fn mended(&self) -> u64 {
        self.mended
    }
}

impl Partition {
    /// True if [`Partition::care_job`] has something to do. To be asked about once a second.
    #[must_use]
    pub fn needs_care(&self, now: Tick) -> bool {
        if self.stopped.is_some() || self.care.out || self.is_damaged() {
            return false;
        }
        self.care.copy.is_some()
            || self.storage().shared.has_suspects()
            || (self.wants_copies() && self.care.asked.as_ref().is_none_or(|asked| asked.until <= now))
            || (self.config.scrub_interval_ms.is_some() && self.care.due <= now && self.closed() > 0)
    }

    /// The next piece of looking after old files, if one is due: reading a bounded part of one again, or writing over
    /// damage what another replica gave. To be run on a thread that may block; then [`Partition::cared`]. May also ask
    /// another replica: [`Partition::take_messages`] after it.
    pub fn care_job(&mut self, now: Tick) -> Option<CareJob> {
        if !self.needs_care(now) {
            return None;
        }
        let mut job = self.mend_job();
        if job.is_none() {
            job = self.scrub_job(now);
            self.ask_for_copies(now);
        }
        self.care.out = job.is_some();
        job.map(CareJob)
    }

    /// Takes what a job found or did.
    pub fn cared(&mut self, done: CareDone) {
        self.care.out = false;
        match done.0 {
            Outcome::Nothing => {}
            Outcome::Good { file, to } => self.care.at = Some((file, to)),
            Outcome::Wounded(wound) => {
                self.care.at = Some((wound.file, wound.to));
                self.wounded(wound);
            }
            Outcome::Mended(wound) => {
                self.care.wounds.retain(|known| known.from != wound.from);
                self.care.mended += 1;
            }
            Outcome::Gone(file) => self.care.wounds.retain(|wound| wound.file != file),
            Outcome::Broken { file, reason } => self.broken(file, reason),
        }
    }

    fn wounded(&mut self, wound: Wound) {
        if self.care.wounds.iter().any(|known| known.from == wound.from) {
            return;
        }
        let can_be_mended = wound.can_be_mended() && self.care.wounds.len() < WOUNDS_MAX;
        if !can_be_mended && !self.storage().roster.is_sole_voter(self.node) {
            // Too much to be mended piece by piece: all is fetched again at the next open.
            self.give_up(wound.reason);
        } else if self.care.wounds.len() < WOUNDS_MAX {
            self.care.wounds.push_back(wound);
        }
    }

    /// The disk does not give, or not keep, what is on it.
    fn broken(&mut self, file: FileName, reason: String) {
        if !self.storage().roster.is_sole_voter(self.node) {
            self.give_up(reason);
            return;
        }
        let Some(found) = self.file_named(file) else { return };
        let from = Spot { position: 0, place: file.place() };
        let to = Spot { position: found.len_bytes(), place: found.place() };
        self.care.at = Some((file, to));
        self.wounded(Wound { file, from, to, reason });
    }

    fn mend_job(&mut self) -> Option<Work> {
        let (wound, bytes) = self.care.copy.take()?;
        let file = self.file_named(wound.file)?;
        Some(Work::Mend { file, wound, bytes })
    }

    fn scrub_job(&mut self, now: Tick) -> Option<Work> {
        if let Some((name, position)) = self.storage().shared.take_suspect()
            && let Some(file) = self.file_named(name)
        {
            return Some(Work::Suspect { file, position });
        }
        let interval_ms = self.config.scrub_interval_ms?;
        if self.care.due > now {
            return None;
        }
        if self.care.at.is_none() {
            self.begin_scrub(now, interval_ms);
            return None;
        }
        let pieces = self.next_pieces();
        let left = |(file, from): &(Arc<LogFile>, Spot)| file.len_bytes() - from.position;
        let piece = pieces.iter().map(left).sum::<u64>().clamp(1, SCRUB_BYTES);
        self.care.due = Tick(now.0.saturating_add(self.scrub_wait_ms(interval_ms, piece)));
        Some(Work::Scrub { pieces })
    }

    /// How long after reading `piece` bytes the next ones are due.
    fn scrub_wait_ms(&self, interval_ms: u64, piece: u64) -> u64 {
        let closed: u64 = self.storage().files.iter().take(self.closed()).map(|file| file.len_bytes()).sum();
        let wait_ms = u128::from(interval_ms) * u128::from(piece) / u128::from(closed.max(piece).max(1));
        u64::try_from(wait_ms).unwrap_or(u64::MAX).max(SCRUB_STEP_MS_MIN)
    }

    /// Begins where the wall clock says that a pass would be now, so that a node that is restarted often gets to every
    /// file, and the partitions of a node do not all begin at once.
    fn begin_scrub(&mut self, now: Tick, interval_ms: u64) {
        let step_ms = self.scrub_wait_ms(interval_ms, SCRUB_BYTES);
        let phase_ms = self.now.wall.0.unsigned_abs().wrapping_add(seed(self.id)) % interval_ms.max(1);
        let closed: Vec<&Arc<LogFile>> = self.storage().files.iter().take(self.closed()).collect();
        let total: u64 = closed.iter().map(|file| file.len_bytes()).sum();
        let place = u128::from(total) * u128::from(phase_ms) / u128::from(interval_ms.max(1));
        let mut before = 0;
        let first = closed.iter().find(|file| {
            before += u128::from(file.len_bytes());
            before > place
        });
        let Some(file) = first else { return };
        self.care.at = Some((file.name, Spot { position: 0, place: file.name.place() }));
        self.care.due = Tick(now.0.saturating_add(step_ms - phase_ms % step_ms));
    }

    /// Where to read on, and in which files after it, if there is not much left in one.
    fn next_pieces(&self) -> Vec<(Arc<LogFile>, Spot)> {
        let closed: Vec<&Arc<LogFile>> = self.storage().files.iter().take(self.closed()).collect();
        let (first, spot) = match self.care.at {
            Some((name, spot)) => {
                let at = closed.iter().position(|file| file.name >= name).unwrap_or(0);
                match closed.get(at).filter(|file| file.name == name) {
                    Some(file) if spot.position < file.len_bytes() => (at, Some(spot)),
                    Some(_) => (at + 1, None),
                    None => (at, None),
                }
            }
            None => (0, None),
        };
        let (first, spot) = if first < closed.len() { (first, spot) } else { (0, None) };
        let mut bytes = 0;
        let mut pieces = Vec::new();
        for file in closed.into_iter().skip(first).take(PIECES_MAX) {
            let begin = Spot { position: 0, place: file.name.place() };
            let from = spot.filter(|_| pieces.is_empty()).unwrap_or(begin);
            bytes += file.len_bytes() - from.position;
            pieces.push((Arc::clone(file), from));
            if bytes >= SCRUB_BYTES {
                break;
            }
        }
        pieces
    }

    /// How many of the oldest files will never change again.
    fn closed(&self) -> usize {
        self.storage().below(Offset(i64::MAX))
    }

    fn file_named(&self, name: FileName) -> Option<Arc<LogFile>> {
        self.storage().files.iter().take(self.closed()).find(|file| file.name == name).cloned()
    }

    fn wants_copies(&self) -> bool {
        let mendable = self.care.wounds.front().is_some_and(Wound::can_be_mended);
        self.care.copy.is_none() && mendable && self.others().next().is_some()
    }

    fn others(&self) -> impl Iterator<Item = NodeId> {
        let members = self.members();
        let all = members.voters.iter().chain(&members.outgoing).chain(&members.learners);
        all.copied().filter(|node| *node != self.node)
    }

    /// Asks the next replica for what is damaged, or for the rest of it.
    fn ask_for_copies(&mut self, now: Tick) {
        while self.care.wounds.front().is_some_and(|wound| self.file_named(wound.file).is_none()) {
            self.care.wounds.pop_front();
            self.care.asked = None;
        }
        if !self.wants_copies() || self.care.asked.as_ref().is_some_and(|asked| asked.until > now) {
            return;
        }
        let others: Vec<NodeId> = self.others().collect();
        if self.care.asked.take().is_some() {
            self.care.turn += 1;
            // Nobody helped with this one: the others are not to wait behind it.
            self.care.wounds.rotate_left(usize::from(self.care.turn.is_multiple_of(others.len())));
        }
        let node = others[self.care.turn % others.len()];
        let Some(wound) = self.care.wounds.front().cloned() else { return };
        let copied = Copied::new(wound);
        self.care.asked = Some(Asked { node, until: Tick(now.0 + COPIES_MS_MAX), copied });
        self.ask();
    }

    fn ask(&mut self) {
        let Some(Asked { node, copied, .. }) = &self.care.asked else { return };
        let (wound, first) = (copied.wound(), copied.next_index());
        let last = LogIndex(wound.to.place.index.0 - 1);
        let question = Message::copies_wanted(self.node, *node, wound.file.term, first, last);
        self.post(vec![question]);
    }

    /// What two replicas say to each other beside their group.
    pub(super) fn hear_copies(&mut self, from: NodeId, said: Copies) {
        match said {
            Copies::Wanted { term, first, last } => self.give_copies(from, term, first, last),
            Copies::Given(entries) => self.take_copies(from, &entries),
        }
    }

    fn give_copies(&mut self, to: NodeId, term: Term, first: LogIndex, last: LogIndex) {
        let is_known = self.others().any(|node| node == to);
        let is_decided = first <= last && last < self.storage().commit.index;
        if !is_known || !is_decided || self.is_damaged() {
            return;
        }
        let Some(mut entries) = self.storage().copies(first, last) else { return };
        entries.truncate(entries.iter().take_while(|entry| entry.term == term).count());
        if !entries.is_empty() {
            self.post(vec![Message::copies_given(self.node, to, entries)]);
        }
    }

    fn take_copies(&mut self, from: NodeId, entries: &[Entry]) {
        let Some(asked) = self.care.asked.as_mut().filter(|asked| asked.node == from) else { return };
        if !asked.copied.take(entries) {
            return;
        }
        if !asked.copied.is_whole() {
            return self.ask();
        }
        self.care.copy = self.care.asked.take().and_then(|asked| asked.copied.fitting());
        // What does not fit is asked of another one.
        self.care.turn += usize::from(self.care.copy.is_none());
    }
}
