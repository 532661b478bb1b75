//! What a follower lacks and is no longer in memory, read apart from the thread that drives the group.
//!
//! A leader that reads for a follower which comes back says nothing meanwhile: no heartbeat, no answer. So it only
//! says what it wants to have read ([`Group::reads`]); somebody reads that from the log wherever he likes, and
//! [`Group::read_done`] sends it.
//!
//! What always holds: one read at a time for a place that followers stand at; what was read counts only in the
//! leadership that asked for it, which replaces none of its own entries; to each follower no more than
//! `AHEAD_BYTES_MAX` and one message are on their way from reads.

use base::{LogIndex, NodeId, Term, Tick};
use raft::{ProgressState, StateRole};

use super::{Group, MESSAGE_BYTES_MAX, PROBE_AGAIN_HEARTBEATS};
use crate::{Entry, MEMBERS_MAX, Storage, StorageError};

/// Bytes from reads that are sent to a follower before it has acknowledged those before them.
const AHEAD_BYTES_MAX: u64 = 1 << 20;
/// Reads under way in a group.
const READS_MAX: usize = MEMBERS_MAX;

/// Entries `[from, to)` that followers need, or as many of them as `bytes_max` allows and at least one: what
/// [`Storage::entries`] gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    pub from: LogIndex,
    pub to: LogIndex,
    pub bytes_max: u64,
    /// Whom it is for, in ascending order.
    pub followers: Vec<NodeId>,
    /// The leadership in which it is wanted.
    term: Term,
}

impl<S: Storage> Group<S> {
    /// From now on the caller reads what followers need: asks for [`Group::reads`] after messages, ticks, proposals
    /// and reads that are done, and answers each of them with [`Group::read_done`].
    pub fn read_apart(&mut self) {
        self.node.mut_store().reads_apart = true;
    }

    /// What is to be read now. A read that is neither answered nor said to be
    /// dropped is not asked for again in this leadership.
    pub fn reads(&mut self) -> Vec<Read> {
        let wanted = self.node.mut_store().take_wanted();
        let term = self.term();
        let mut reads = Vec::new();
        for (from, to) in wanted {
            let is_known = self.reading.iter().any(|read| (read.term, read.from.0) == (term, from));
            let followers = self.waiting_at(from);
            if is_known || self.reading.len() >= READS_MAX || followers.is_empty() {
                continue;
            }
            let bytes_max = MESSAGE_BYTES_MAX.min(self.config.uncommitted_bytes_max);
            let followers = followers.into_iter().map(crate::message::node).collect();
            let read = Read { from: LogIndex(from), to: LogIndex(to), bytes_max, followers, term };
            self.reading.push(read.clone());
            reads.push(read);
        }
        reads
    }

    /// What was read, or why it could not be. Messages wait in the next [`Group::ready`].
    pub fn read_done(&mut self, now: Tick, read: &Read, entries: Result<Vec<Entry>, StorageError>) {
        self.advance(now);
        self.assert_no_pending();
        self.read_dropped(read);
        if self.fault().is_some() || self.node.raft.state != StateRole::Leader || self.term() != read.term {
            return;
        }
        let (low, high) = (read.from.0, read.to.0);
        let store = self.node.mut_store();
        // What was trimmed while it was read is no fault: the follower gets a snapshot.
        let is_trimmed = store.storage.first_index() > read.from;
        match entries.and_then(|entries| store.give(low, high, entries)) {
            // Asked for again when the follower is heard from.
            Err(StorageError::Mending(_)) => {}
            Err(error) if !is_trimmed => return store.failed(error),
            Ok(()) | Err(_) => {}
        }
        for id in self.waiting_at(low) {
            self.send_given(id);
        }
        drop(self.node.mut_store().take_given());
        self.react();
    }

    /// A read will not be answered; the group asks again when it matters. At any time.
    pub fn read_dropped(&mut self, read: &Read) {
        self.reading.retain(|other| other != read);
    }

    /// Sends all that was read, and what is in memory behind it, as far as the follower may be sent more.
    fn send_given(&mut self, id: u64) {
        let last = self.node.raft.raft_log.last_index();
        let begun = self.next_for(id);
        let mut from = begun;
        while let Some(next) = from.filter(|next| *next <= last) {
            self.node.raft.send_append(id);
            from = self.next_for(id).filter(|after| *after > next);
        }
        let (Some(begun), Some(end)) = (begun, self.node.raft.prs().get(id).map(|progress| progress.next_idx)) else {
            return;
        };
        let store = self.node.mut_store();
        let given = store.given_between(begun, end);
        if let Some(peer) = self.peers.get_mut(crate::message::node(id)) {
            peer.ahead_bytes += given;
            peer.ahead_to = LogIndex(end - 1);
        }
    }

    /// The next entry for a follower that may be sent one.
    fn next_for(&self, id: u64) -> Option<u64> {
        let progress = self.node.raft.prs().get(id)?;
        (!progress.is_paused()).then_some(progress.next_idx)
    }

    /// The followers that need the entry at `from` next and may be sent it.
    fn waiting_at(&mut self, from: u64) -> Vec<u64> {
        if self.node.raft.state != StateRole::Leader {
            return Vec::new();
        }
        let own = self.node.raft.id;
        let at = |(id, progress): (&u64, &raft::Progress)| {
            let waits = *id != own && progress.next_idx == from && !progress.is_paused();
            waits.then_some((*id, progress.state, progress.matched))
        };
        let waiting: Vec<_> = self.node.raft.prs().iter().filter_map(at).collect();
        let mut ids: Vec<u64> = waiting
            .into_iter()
            .filter(|(id, state, matched)| {
                let Some(peer) = self.peers.get_mut(crate::message::node(*id)) else { return true };
                if *state != ProgressState::Replicate || *matched >= peer.ahead_to.0 {
                    peer.ahead_bytes = 0;
                }
                peer.ahead_bytes < AHEAD_BYTES_MAX
            })
            .map(|(id, ..)| id)
            .collect();
        ids.sort_unstable();
        ids
    }

    /// A follower was heard from. What has been on its way there for long may be lost: it is sent a little more, and
    /// then it tells.
    pub(super) fn read_on(&mut self, from: NodeId) {
        let wait_ms = PROBE_AGAIN_HEARTBEATS * u64::from(self.config.heartbeat_ticks) * self.config.tick_ms;
        let (now, term) = (self.now, self.term());
        let Some(peer) = self.peers.get_mut(from) else { return };
        let is_long = peer.append_sent.is_none_or(|(of, at)| of != term || now.since(at) >= wait_ms);
        if is_long && peer.ahead_bytes >= AHEAD_BYTES_MAX {
            peer.ahead_bytes = AHEAD_BYTES_MAX - 1;
        }
    }
}
