//! One heartbeat per node pair for all groups that sleep.
//!
//! A group with nothing to do needs two things from time: its followers must hear that the leader lives, and
//! the leader must know that they heard. Ten thousand groups saying so forty times a second is all a node
//! would do. So groups that have nothing to write fall asleep ([`crate::Group::may_sleep`]): nobody ticks
//! them, and each node tells each other one, once a tick, which sleeping groups it leads there - as 64 sums,
//! one for each bucket of groups. A sum that is the same on both sides stands for a heartbeat of every group
//! of that bucket, and its answer for all their answers. A sum that differs makes the leader list that bucket;
//! what the follower does not agree with is refused by name, and goes on with heartbeats of its own.
//!
//! What always holds: a group counts as heard by a follower only with a beat whose sum was made while the
//! group was in it, and the follower had it at the same term and place; so waking with it is the same as
//! having taken that heartbeat. A beat of another process under the same node id clears what the one before
//! it led. What wakes because of silence wakes a few at a time, so that a node that stood still for a moment does not wake
//! ten thousand groups, which would keep it busy enough to stand still again. Waking late is safe: it makes a promise
//! longer, never a lease. All is decided by what is passed in: no clock, no sockets. docs/adr/0006 says why.

use std::collections::{BTreeMap, BTreeSet};

use base::{LogIndex, NodeId, Term, Tick};
use bytes::Bytes;
use raft::eraftpb::MessageType;

use crate::group::pace::{Delays, STRETCH_MAX};
use crate::message::codec::sent_ms_of;
use crate::{DecodeError, GroupKey, Message};

mod codec;

use codec::{Answer, Beat, Frame};

/// Groups are summed up in so many buckets: a bit each in a word.
const BUCKETS: usize = 64;
/// Groups listed by one beat; the rest follow with the next ones.
const LISTED_MAX: usize = 2_048;
/// Without a matching beat for so long, what it stood for wakes: less than a voter's promise holds. As long as timeouts
/// stretch, so does this ([`crate::group::pace`]).
const SILENT_MS: u64 = 150;
/// A leader loses nothing by sleeping on: its lease ends by itself.
const UNANSWERED_MS: u64 = SILENT_MS * STRETCH_MAX as u64;
/// Silence wakes so many groups in one tick; the next ones are looked at again then.
const WOKEN_MAX: usize = 256;
/// Nodes that beats go to.
const PAIRS_MAX: usize = 1_024;

/// Where a sleeping group stands: its last entry is decided, and everybody has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quiet {
    pub term: Term,
    pub last: LogIndex,
}

/// What the beats said of a group while it slept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Slept {
    /// When the leader's last beat for it came, by the clock here, and the ticks counted since.
    pub heard: Option<(Tick, u32)>,
    /// Of a leader: who answered, and when it had sent what they answered; by the clock here.
    pub answered: Vec<(NodeId, Tick)>,
}

/// A group and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Listed {
    key: GroupKey,
    quiet: Quiet,
}

/// What came of a frame: send `answer` back, call [`crate::Group::wake`] and tick again what woke.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Received {
    pub answer: Option<Bytes>,
    pub woken: Vec<(GroupKey, Slept)>,
}

/// The sleeping groups of a node. See the module.
#[derive(Debug)]
pub struct Liveness {
    instance: u64,
    /// Calls of `check`.
    ticks: u64,
    checked: Option<Tick>,
    /// How late ticks and beats came.
    delays: Delays,
    asleep: BTreeMap<GroupKey, Asleep>,
    pairs: BTreeMap<NodeId, Pair>,
}

#[derive(Debug)]
enum Asleep {
    /// Led here; the other members, each with the first beat that spoke for the group.
    Leads { quiet: Quiet, since: Tick, voters: Vec<NodeId>, followers: Vec<(NodeId, u64)> },
    /// Led there; since the beat with which it fell asleep, sent at that time of the leader's clock.
    Follows { leader: NodeId, quiet: Quiet, since: Heard, sent_ms: u64 },
}

/// All about one other node.
#[derive(Debug)]
struct Pair {
    /// What it was told of.
    led: Box<[Bucket; BUCKETS]>,
    /// The next beat, counted from 1.
    next: u64,
    /// Buckets to be listed.
    to_list: u64,
    /// Of each bucket, the last beat it agreed with, and when that was sent.
    answered: [(u64, Tick); BUCKETS],
    /// The process that speaks there, its last beat, and what it leads here.
    instance: u64,
    sequence: u64,
    /// When its last beat came.
    spoke: Option<Tick>,
    followed: Box<[Bucket; BUCKETS]>,
    heard: [Heard; BUCKETS],
}

/// When, by the clock and in ticks counted: a clock may have been read too early.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Tick,
    tick: u64,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    groups: BTreeSet<GroupKey>,
    digest: u64,
}

impl Liveness {
    /// `instance` names this process: chosen anew at each start.
    #[must_use]
    pub fn new(instance: u64) -> Self {
        Self {
            instance,
            ticks: 0,
            checked: None,
            delays: Delays::default(),
            asleep: BTreeMap::new(),
            pairs: BTreeMap::new(),
        }
    }

    /// The group, led here, falls asleep at `quiet`; `others` are its other members, `voters` all that decide.
    /// False if there are too many nodes: then it goes on awake.
    pub fn sleep(&mut self, now: Tick, key: GroupKey, quiet: Quiet, voters: &[NodeId], others: &[NodeId]) -> bool {
        let known = others.iter().filter(|node| self.pairs.contains_key(node)).count();
        if self.pairs.len() + others.len() - known > PAIRS_MAX || self.asleep.contains_key(&key) {
            return false;
        }
        let (bucket, ticks) = (bucket_of(key), self.ticks);
        let mut followers = Vec::with_capacity(others.len());
        for node in others {
            let pair = self.pairs.entry(*node).or_insert_with(|| Pair::new(now, ticks));
            pair.led[bucket].toggle(key, quiet);
            pair.to_list |= 1 << bucket;
            followers.push((*node, pair.next));
        }
        self.asleep.insert(key, Asleep::Leads { quiet, since: now, voters: voters.to_vec(), followers });
        true
    }

    /// True if the group sleeps.
    #[must_use]
    pub fn is_asleep(&self, key: GroupKey) -> bool {
        self.asleep.contains_key(&key)
    }

    /// Sleeping groups.
    #[must_use]
    pub fn len(&self) -> usize {
        self.asleep.len()
    }

    /// No group sleeps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.asleep.is_empty()
    }

    /// To be called before anything is done with a group that sleeps: a message that [`Liveness::passes_over`]
    /// does not take away, a proposal, a wish of its owner. `None` if it was awake; else give it to [`crate::Group::wake`] and tick the group again.
    pub fn wake(&mut self, key: GroupKey) -> Option<Slept> {
        let slept = self.slept(key)?;
        let bucket = bucket_of(key);
        match self.asleep.remove(&key)? {
            Asleep::Leads { quiet, followers, .. } => {
                for (node, _) in followers {
                    if let Some(pair) = self.pairs.get_mut(&node) {
                        pair.led[bucket].toggle(key, quiet);
                    }
                }
            }
            Asleep::Follows { leader, quiet, .. } => {
                if let Some(pair) = self.pairs.get_mut(&leader) {
                    pair.followed[bucket].toggle(key, quiet);
                }
            }
        }
        Some(slept)
    }

    /// True if the group sleeps and the message is from before it did, or says what is known: drop it. Any
    /// other one wakes the group.
    #[must_use]
    pub fn passes_over(&self, key: GroupKey, message: &Message) -> bool {
        let m = &message.0;
        let known = |quiet: &Quiet| m.term == quiet.term.0 && m.index + m.entries.len() as u64 <= quiet.last.0;
        match (self.asleep.get(&key), m.get_msg_type()) {
            (Some(Asleep::Leads { quiet, .. }), MessageType::MsgHeartbeatResponse | MessageType::MsgAppendResponse) => {
                known(quiet) && !m.reject
            }
            // A leader that woke speaks with a later time.
            (Some(Asleep::Follows { leader, quiet, sent_ms, .. }), MessageType::MsgHeartbeat) => {
                let sent = sent_ms_of(&m.context);
                known(quiet) && message.from() == *leader && sent.is_some_and(|sent| sent <= *sent_ms)
            }
            (Some(Asleep::Follows { leader, quiet, .. }), MessageType::MsgAppend) => {
                known(quiet) && message.from() == *leader && m.commit <= quiet.last.0
            }
            _ => false,
        }
    }

    /// What the beats said so far of a sleeping group: for [`crate::Group::credit`], to ask for its lease.
    #[must_use]
    pub fn slept(&self, key: GroupKey) -> Option<Slept> {
        let bucket = bucket_of(key);
        Some(match self.asleep.get(&key)? {
            Asleep::Leads { followers, .. } => {
                let answered = followers.iter().filter_map(|(node, since)| {
                    let (sequence, sent) = self.pairs.get(node)?.answered[bucket];
                    (sequence >= *since).then_some((*node, sent))
                });
                Slept { heard: None, answered: answered.collect() }
            }
            Asleep::Follows { leader, since, .. } => {
                let beat = self.pairs.get(leader).map_or(*since, |pair| pair.heard[bucket]);
                let ticks = self.ticks - beat.tick.max(since.tick);
                let heard = (beat.at.max(since.at), u32::try_from(ticks).unwrap_or(u32::MAX));
                Slept { heard: Some(heard), answered: Vec::new() }
            }
        })
    }

    /// Once a tick: what to send to whom.
    pub fn beat(&mut self, now: Tick) -> Vec<(NodeId, Bytes)> {
        let (instance, asleep) = (self.instance, &self.asleep);
        let quiet_of = |key: &GroupKey| match asleep.get(key) {
            Some(Asleep::Leads { quiet, .. }) => Some(Listed { key: *key, quiet: *quiet }),
            _ => None,
        };
        let mut frames = Vec::with_capacity(self.pairs.len());
        for (node, pair) in &mut self.pairs {
            if pair.to_list == 0 && pair.led.iter().all(|bucket| bucket.groups.is_empty()) {
                continue;
            }
            let (mut listed, mut groups) = (0, Vec::new());
            for bucket in (0..BUCKETS).filter(|bucket| pair.to_list & (1 << bucket) != 0) {
                if !groups.is_empty() && groups.len() + pair.led[bucket].groups.len() > LISTED_MAX {
                    break;
                }
                listed |= 1 << bucket;
                groups.extend(pair.led[bucket].groups.iter().filter_map(quiet_of));
            }
            pair.to_list &= !listed;
            let digests = std::array::from_fn(|bucket| pair.led[bucket].digest);
            let beat = Beat { instance, sequence: pair.next, sent_ms: now.0, digests, listed, groups };
            pair.next += 1;
            frames.push((*node, beat.encode()));
        }
        frames
    }

    /// Takes a frame from `from`. `may_follow` says of a group that wakes here whether it follows `from` at
    /// that place ([`crate::Group::may_follow`]) and lets it sleep if so: it is not ticked any more.
    ///
    /// # Errors
    /// The bytes are no frame.
    pub fn receive(
        &mut self,
        now: Tick,
        from: NodeId,
        bytes: Bytes,
        may_follow: &mut dyn FnMut(GroupKey, Quiet) -> bool,
    ) -> Result<Received, DecodeError> {
        Ok(match codec::decode(bytes)? {
            Frame::Beat(beat) => self.heard(now, from, &beat, may_follow),
            Frame::Answer(answer) => self.answered(now, from, &answer),
        })
    }

    /// Once a tick: what has to wake because its leader is silent, or because no majority answers.
    pub fn check(&mut self, now: Tick) -> Vec<(GroupKey, Slept)> {
        self.ticks += 1;
        // While this node stood still it heard nobody.
        let late_ms = self.checked.replace(now).map_or(0, |at| now.since(at));
        self.delays.took(SILENT_MS, now, late_ms);
        let silent_ms = SILENT_MS * u64::from(self.delays.stretch(SILENT_MS, 0));
        let is_silent = |at: Tick| now.since(at) > silent_ms;
        let is_unanswered = |at: Tick| now.since(at) > UNANSWERED_MS;
        let mut doubtful = BTreeSet::new();
        for pair in self.pairs.values() {
            for bucket in 0..BUCKETS {
                if is_silent(pair.heard[bucket].at) {
                    doubtful.extend(&pair.followed[bucket].groups);
                }
                if is_unanswered(pair.answered[bucket].1) {
                    doubtful.extend(&pair.led[bucket].groups);
                }
            }
        }
        doubtful.retain(|key| match self.asleep.get(key) {
            Some(Asleep::Leads { since, .. }) => is_unanswered(*since) && !self.has_majority(*key, is_unanswered),
            Some(Asleep::Follows { since, .. }) => is_silent(since.at),
            None => false,
        });
        self.wake_all(doubtful.into_iter().take(WOKEN_MAX))
    }

    /// A majority of the voters, this node being one, answered lately.
    fn has_majority(&self, key: GroupKey, is_unanswered: impl Fn(Tick) -> bool) -> bool {
        let Some(Asleep::Leads { voters, followers, .. }) = self.asleep.get(&key) else { return true };
        let fresh = |(node, _): &&(NodeId, u64)| {
            let pair = self.pairs.get(node);
            voters.contains(node) && pair.is_some_and(|pair| !is_unanswered(pair.answered[bucket_of(key)].1))
        };
        2 * (followers.iter().filter(fresh).count() + 1) > voters.len()
    }

    fn wake_all(&mut self, keys: impl IntoIterator<Item = GroupKey>) -> Vec<(GroupKey, Slept)> {
        keys.into_iter().filter_map(|key| self.wake(key).map(|slept| (key, slept))).collect()
    }

    fn heard(
        &mut self,
        now: Tick,
        from: NodeId,
        beat: &Beat,
        may_follow: &mut dyn FnMut(GroupKey, Quiet) -> bool,
    ) -> Received {
        if !self.pairs.contains_key(&from) && self.pairs.len() >= PAIRS_MAX {
            return Received::default();
        }
        let ticks = self.ticks;
        let pair = self.pairs.entry(from).or_insert_with(|| Pair::new(now, ticks));
        let mut woken = Vec::new();
        if pair.instance != beat.instance {
            (pair.instance, pair.sequence) = (beat.instance, 0);
            let gone: Vec<GroupKey> = pair.followed.iter().flat_map(|bucket| bucket.groups.iter().copied()).collect();
            woken = self.wake_all(gone);
        } else if beat.sequence <= pair.sequence {
            return Received::default();
        } else if let Some(before) = pair.spoke {
            self.delays.took(SILENT_MS, now, now.since(before));
        }
        let (refused, more) = self.take_list(now, from, beat, may_follow);
        woken.extend(more);
        let Some(pair) = self.pairs.get_mut(&from) else { return Received { answer: None, woken } };
        (pair.sequence, pair.spoke) = (beat.sequence, Some(now));
        let mut differing = 0;
        for bucket in 0..BUCKETS {
            if pair.followed[bucket].digest == beat.digests[bucket] {
                pair.heard[bucket] = Heard { at: now, tick: ticks };
            } else {
                differing |= 1 << bucket;
            }
        }
        let (sequence, sent_ms) = (beat.sequence, beat.sent_ms);
        let (instance, to_instance) = (self.instance, beat.instance);
        let answer = Answer { instance, to_instance, sequence, sent_ms, differing, refused };
        Received { answer: Some(answer.encode()), woken }
    }

    /// Makes what sleeps under `from` in the listed buckets be what it lists. Returns what may not, and what
    /// woke because it is no longer listed.
    fn take_list(
        &mut self,
        now: Tick,
        from: NodeId,
        beat: &Beat,
        may_follow: &mut dyn FnMut(GroupKey, Quiet) -> bool,
    ) -> (Vec<GroupKey>, Vec<(GroupKey, Slept)>) {
        let listed: BTreeMap<GroupKey, Quiet> = beat.groups.iter().map(|group| (group.key, group.quiet)).collect();
        let is_listed = |bucket: usize| beat.listed & (1 << bucket) != 0;
        let same = |key: GroupKey, asleep: &BTreeMap<GroupKey, Asleep>| match asleep.get(&key) {
            Some(Asleep::Follows { leader, quiet, .. }) => *leader == from && listed.get(&key) == Some(quiet),
            _ => false,
        };
        let mut gone = Vec::new();
        if let Some(pair) = self.pairs.get(&from) {
            for bucket in (0..BUCKETS).filter(|bucket| is_listed(*bucket)) {
                gone.extend(pair.followed[bucket].groups.iter().filter(|key| !same(**key, &self.asleep)).copied());
            }
        }
        let woken = self.wake_all(gone);
        let just_woken: BTreeSet<GroupKey> = woken.iter().map(|(key, _)| *key).collect();
        let mut refused = Vec::new();
        for (key, quiet) in &listed {
            let bucket = bucket_of(*key);
            if !is_listed(bucket) || same(*key, &self.asleep) {
                continue;
            }
            // One that has just woken is asked again with the next list.
            if just_woken.contains(key) || self.asleep.contains_key(key) || !may_follow(*key, *quiet) {
                refused.push(*key);
            } else if let Some(pair) = self.pairs.get_mut(&from) {
                pair.followed[bucket].toggle(*key, *quiet);
                let since = Heard { at: now, tick: self.ticks };
                let asleep = Asleep::Follows { leader: from, quiet: *quiet, since, sent_ms: beat.sent_ms };
                self.asleep.insert(*key, asleep);
            }
        }
        (refused, woken)
    }

    fn answered(&mut self, now: Tick, from: NodeId, answer: &Answer) -> Received {
        let Some(pair) = self.pairs.get_mut(&from).filter(|_| answer.to_instance == self.instance) else {
            return Received::default();
        };
        if answer.sequence >= pair.next {
            return Received::default();
        }
        let sent = Tick(answer.sent_ms.min(now.0));
        for bucket in 0..BUCKETS {
            if answer.differing & (1 << bucket) != 0 {
                pair.to_list |= 1 << bucket;
            } else if pair.answered[bucket].0 < answer.sequence {
                pair.answered[bucket] = (answer.sequence, sent);
            }
        }
        let leads = |key: &GroupKey| matches!(self.asleep.get(key), Some(Asleep::Leads { .. }));
        let refused: Vec<GroupKey> = answer.refused.iter().copied().filter(leads).collect();
        Received { answer: None, woken: self.wake_all(refused) }
    }
}

impl Pair {
    fn new(now: Tick, tick: u64) -> Self {
        Self {
            led: Box::new(std::array::from_fn(|_| Bucket::default())),
            next: 1,
            to_list: 0,
            answered: [(0, now); BUCKETS],
            instance: 0,
            sequence: 0,
            spoke: None,
            followed: Box::new(std::array::from_fn(|_| Bucket::default())),
            heard: [Heard { at: now, tick }; BUCKETS],
        }
    }
}

impl Bucket {
    /// Puts a group in, or takes it out.
    fn toggle(&mut self, key: GroupKey, quiet: Quiet) {
        self.digest ^= digest(key, quiet);
        if !self.groups.remove(&key) {
            self.groups.insert(key);
        }
    }
}

/// The finalizer of SplitMix64 over a group's name and place, a word at a time.
fn digest(key: GroupKey, quiet: Quiet) -> u64 {
    let (words, rest) = key.0.as_chunks::<8>();
    let mut tail = [0; 8];
    tail[..rest.len()].copy_from_slice(rest);
    let words = words.iter().copied().chain([tail]).map(u64::from_le_bytes);
    words.chain([quiet.term.0, quiet.last.0]).fold(0x5eed, |hash, word| crate::group::mix(hash ^ word))
}

fn bucket_of(key: GroupKey) -> usize {
    let word = digest(key, Quiet { term: Term::ZERO, last: LogIndex::ZERO });
    usize::try_from(word % BUCKETS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests;
