//! The one door: inputs in, effects out. Keeps all groups, what is being written, and an index of deadlines.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use base::{ProducerId, Tick, Timestamp};
use bytes::Bytes;

use super::error::GroupError;
use super::group::{Context, Group, Ids, State};
use super::limits::{EXPIRY_EVERY_MS, EXPIRY_RECORDS_MAX, GROUP_ID_BYTES_MAX, GROUPS_MAX, NAME_BYTES_MAX, WRITES_MAX};
use super::offsets::Committer;
use super::pending::{Ends, Pending};
use super::rebalance::Sync;
use super::record::{GroupRecord, Key, Place, decode_offset, decode_pending, encode_offset, encode_pending};
use super::request::{Committed, Join, Leaver, ListedGroup, Request, Response, TopicPartitions};
use super::write::{Reply, What, Writes};
use crate::fields::Damaged;

/// Names a request until it is answered. Chosen by the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// Names a write until its outcome is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct WriteId(pub u64);

impl WriteId {
    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A record of the internal topic; without a value it removes what the key names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

impl Record {
    /// Of its key and value.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// A piece of the whole state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckpointPart {
    pub records: Vec<Record>,
    /// Ask for what follows this group. `None`: that was all.
    pub last: Option<String>,
}

/// What happens to the coordinator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    Request(Ticket, Request),
    /// The write's records are durable.
    Persisted(WriteId),
    /// The write failed, or its outcome is unknown.
    WriteFailed(WriteId),
    /// Time has passed.
    Tick,
}

/// What should happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    Respond(Ticket, Response),
    /// Append these records together; tell the outcome as [`Input::Persisted`] or [`Input::WriteFailed`].
    Persist(WriteId, Vec<Record>),
}

/// What the coordinator was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupsConfig {
    pub session_timeout_ms_min: u64,
    pub session_timeout_ms_max: u64,
    /// How long the first rebalance of an empty group waits for others, and again while they come.
    pub initial_delay_ms: u64,
    pub group_size_max: usize,
    pub offset_metadata_bytes_max: usize,
    /// How long the offsets of a group without members are kept.
    pub offsets_retention_ms: u64,
    /// Differs with every start, so that no member id is given twice.
    pub seed: u64,
}

impl Default for GroupsConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms_min: 1_000,
            session_timeout_ms_max: 30 * 60_000,
            initial_delay_ms: 100,
            group_size_max: 1_000,
            offset_metadata_bytes_max: 4_096,
            offsets_retention_ms: 7 * 86_400_000,
            seed: 0,
        }
    }
}

/// A record of the internal topic makes no sense. It is skipped; what it said is lost, so someone should know.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a record of the consumer groups' topic cannot be read: {0}")]
pub struct LoadError(#[from] Damaged);

/// See the module.
#[derive(Debug)]
pub struct Coordinator {
    config: GroupsConfig,
    ids: Ids,
    pub(super) groups: BTreeMap<String, Group>,
    /// (when, group) for every group that waits for something.
    deadlines: BTreeSet<(Tick, String)>,
    writes: Writes,
    pub(super) ends: Ends,
    expiry_at: Tick,
}

impl Coordinator {
    #[must_use]
    pub fn new(config: GroupsConfig) -> Self {
        let ids = Ids(config.seed);
        Self {
            config,
            ids,
            groups: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            writes: Writes::default(),
            ends: Ends::default(),
            expiry_at: Tick::ZERO,
        }
    }

    /// Takes over one record of the internal topic.
    ///
    /// # Errors
    /// The record is damaged and was skipped.
    pub fn load(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), LoadError> {
        let Some(key) = Key::decode(key)? else { return Ok(()) };
        match (key, value) {
            (Key::Offset { group, place }, Some(value)) => {
                let committed = decode_offset(value)?;
                self.group_or_new(&group, committed.at).offsets.insert(place, committed);
            }
            (Key::Offset { group, place }, None) => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.offsets.remove(&place);
                }
            }
            (Key::Pending { group, producer, place }, Some(value)) => {
                let (epoch, committed) = decode_pending(value)?;
                let empty = || Pending { epoch, offsets: BTreeMap::new() };
                let pending = &mut self.group_or_new(&group, committed.at).pending;
                let pending = pending.entry(producer).or_insert_with(empty);
                pending.epoch = epoch.max(pending.epoch);
                pending.offsets.insert(place, committed);
            }
            (Key::Pending { group, producer, place }, None) => {
                if let Some(group) = self.groups.get_mut(&group)
                    && let Some(pending) = group.pending.get_mut(&producer)
                {
                    pending.offsets.remove(&place);
                    group.pending.retain(|_, pending| !pending.offsets.is_empty());
                }
            }
            (Key::Group { group }, Some(value)) => {
                let record = GroupRecord::decode(value)?;
                let group = self.group_or_new(&group, record.since);
                group.restore(record, Tick::ZERO);
                group.durable = Some(Bytes::copy_from_slice(value));
            }
            (Key::Group { group }, None) => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.restore(GroupRecord { since: group.since, ..GroupRecord::default() }, Tick::ZERO);
                    group.durable = None;
                }
            }
        }
        Ok(())
    }

    /// All records are in: members have their full session timeout from now.
    pub fn loaded(&mut self, now: Tick) {
        self.groups.retain(|_, group| !group.is_blank());
        for group in self.groups.values_mut() {
            for member in group.members.values_mut() {
                member.refresh(now);
            }
        }
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        for id in ids {
            self.schedule(&id);
        }
        self.expiry_at = now.plus(EXPIRY_EVERY_MS);
    }

    /// The durable state of the groups that follow `after`, up to about `bytes` of it. Only while no write is out. Writes may
    /// come between two parts: a part is never older than what the log has of the same groups.
    #[must_use]
    pub fn checkpoint(&self, after: Option<&str>, bytes: usize) -> CheckpointPart {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut records, mut size, mut groups) =
            (Vec::new(), 0, self.groups.range::<str, _>((from, Bound::Unbounded)));
        for (id, group) in groups.by_ref() {
            let own = group.durable.as_ref().map(|value| Record { key: group.key(), value: Some(value.clone()) });
            let offset = |(place, committed)| Record {
                key: offset_key(&group.id, place),
                value: Some(encode_offset(committed)),
            };
            let of_producer = |(producer, pending): (&ProducerId, &Pending)| {
                let record = |(place, committed): (&Place, &Committed)| Record {
                    key: Key::Pending { group: group.id.clone(), producer: *producer, place: place.clone() }.encode(),
                    value: Some(encode_pending(pending.epoch, committed)),
                };
                pending.offsets.iter().map(record).collect::<Vec<_>>()
            };
            let pending = group.pending.iter().flat_map(of_producer);
            for record in own.into_iter().chain(group.offsets.iter().map(offset)).chain(pending) {
                size += record.size_bytes();
                records.push(record);
            }
            if size >= bytes {
                return CheckpointPart { records, last: Some(id.clone()) };
            }
        }
        CheckpointPart { records, last: None }
    }

    /// Groups in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// When to step with [`Input::Tick`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        let group = self.deadlines.first().map(|(at, _)| *at);
        [group, self.writes.next_deadline(), Some(self.expiry_at)].into_iter().flatten().min()
    }

    /// Takes one input at a time. Whatever is overdue at `now` happens first.
    pub fn step(&mut self, now: Tick, wall: Timestamp, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        self.run_deadlines(now, wall, &mut out);
        match input {
            Input::Request(ticket, request) => self.request(now, wall, ticket, request, &mut out),
            Input::Persisted(id) => self.written(now, wall, id, true, &mut out),
            Input::WriteFailed(id) => self.written(now, wall, id, false, &mut out),
            Input::Tick => {}
        }
        out
    }

    fn run_deadlines(&mut self, now: Tick, wall: Timestamp, out: &mut Vec<Effect>) {
        while let Some((id, write)) = self.writes.pop_late(now) {
            if let Some(reply) = write.reply.take() {
                out.push(Effect::Respond(reply.ticket, reply.failed));
            }
            if let What::Group { group, .. } = &write.what {
                let group = group.clone();
                self.with_group(now, wall, &group, out, |group, cx| group.assignment_written(cx, id, false));
            }
        }
        let due: Vec<String> =
            self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, group)| group.clone()).collect();
        for group in due {
            self.with_group(now, wall, &group, out, Group::on_deadline);
        }
        if self.expiry_at <= now {
            self.expiry_at = now.plus(EXPIRY_EVERY_MS);
            self.expire(now, wall, out);
        }
    }

    /// Runs `act` on a group that is there, and keeps the index right.
    pub(super) fn with_group<T>(
        &mut self,
        now: Tick,
        wall: Timestamp,
        id: &str,
        out: &mut Vec<Effect>,
        act: impl FnOnce(&mut Group, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let group = self.groups.get_mut(id)?;
        let mut cx = Context { now, wall, config: &self.config, writes: &mut self.writes, ids: &mut self.ids, out };
        let done = act(group, &mut cx);
        self.schedule(id);
        Some(done)
    }

    /// Files a group under its next deadline; a group nobody would miss is dropped.
    fn schedule(&mut self, id: &str) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let next = group.next_deadline();
        if group.scheduled != next {
            if let Some(before) = group.scheduled.take() {
                self.deadlines.remove(&(before, id.to_owned()));
            }
            if let Some(at) = next {
                self.deadlines.insert((at, id.to_owned()));
            }
            group.scheduled = next;
        }
        if group.is_blank() {
            self.groups.remove(id);
        }
    }

    pub(super) fn group_or_new(&mut self, id: &str, since: Timestamp) -> &mut Group {
        self.groups.entry(id.to_owned()).or_insert_with(|| Group::new(id.to_owned(), since))
    }

    fn request(&mut self, now: Tick, wall: Timestamp, ticket: Ticket, request: Request, out: &mut Vec<Effect>) {
        if let Some(refused) = self.refusal(&request) {
            out.push(Effect::Respond(ticket, refused));
            return;
        }
        match request {
            Request::Join(join) => self.join(now, wall, ticket, *join, out),
            Request::Sync { group, generation, member, instance, protocol_type, protocol, assignments } => {
                let sync = Sync { generation, member, instance, protocol_type, protocol, assignments };
                let known = self.with_group(now, wall, &group, out, |group, cx| group.sync(cx, ticket, sync));
                if known.is_none() {
                    out.push(Effect::Respond(ticket, Response::Sync(Err(GroupError::UnknownMember))));
                }
            }
            Request::Heartbeat { group, generation, member, instance } => {
                let beat = |group: &mut Group, cx: &mut Context<'_>| {
                    group.heartbeat(cx.now, &member, instance.as_deref(), generation)
                };
                let outcome = self.with_group(now, wall, &group, out, beat).unwrap_or(Err(GroupError::UnknownMember));
                out.push(Effect::Respond(ticket, Response::Heartbeat(outcome)));
            }
            Request::Leave { group, leavers } => {
                let unknown = |_: &Leaver| Err(GroupError::UnknownMember);
                let outcomes = self
                    .with_group(now, wall, &group, out, |group, cx| group.leave(cx, &leavers))
                    .unwrap_or_else(|| leavers.iter().map(unknown).collect());
                out.push(Effect::Respond(ticket, Response::Leave(Ok(outcomes))));
            }
            Request::CommitOffsets { group, generation, member, instance, offsets } => {
                if generation.is_none() {
                    self.group_or_new(&group, wall);
                }
                let by = Committer { generation, member: &member, instance: instance.as_deref() };
                let commit = |group: &mut Group, cx: &mut Context<'_>| group.commit(cx, ticket, &by, offsets);
                if self.with_group(now, wall, &group, out, commit).is_none() {
                    let refused = GroupError::IllegalGeneration { asked: generation.unwrap_or(-1), current: 0 };
                    out.push(Effect::Respond(ticket, Response::CommitOffsets(Err(refused))));
                }
            }
            Request::Guard => out.push(Effect::Respond(ticket, Response::Guard(Ok(self.ends.guard())))),
            Request::CommitInTransaction(commit) => self.commit_pending(now, wall, ticket, *commit, out),
            Request::EndTransaction { group, producer, commit, mark } => {
                self.end_transaction(now, wall, ticket, &group, producer, commit, mark, out);
            }
            Request::FetchOffsets { group, topics } => {
                let empty = Group::new(String::new(), wall);
                let offsets = self.groups.get(&group).unwrap_or(&empty).fetch(topics.as_deref());
                out.push(Effect::Respond(ticket, Response::FetchOffsets(Ok(offsets))));
            }
            Request::Describe { group } => {
                let described = self.groups.get(&group).map(Group::describe);
                out.push(Effect::Respond(ticket, Response::Describe(Ok(described))));
            }
            Request::List { states } => {
                let is_asked = |group: &&Group| states.is_empty() || states.contains(&group.public_state());
                let listed = |group: &Group| ListedGroup {
                    group: group.id.clone(),
                    protocol_type: group.protocol_type.clone(),
                    state: group.public_state(),
                };
                let list = self.groups.values().filter(is_asked).map(listed).collect();
                out.push(Effect::Respond(ticket, Response::List(Ok(list))));
            }
            Request::Delete { group } => self.delete(now, ticket, &group, out),
            Request::DeleteOffsets { group, topics } => self.delete_offsets(now, ticket, &group, &topics, out),
            Request::ForgetTopic { topic } => self.forget_topic(now, ticket, &topic, out),
        }
    }

    /// Bounds that hold for every request.
    fn refusal(&self, request: &Request) -> Option<Response> {
        let (group, creates) = match request {
            Request::Join(join) => (&join.group, join.member.is_empty()),
            Request::CommitOffsets { group, generation, offsets, .. } => {
                if offsets.iter().any(|offset| offset.topic.len() > NAME_BYTES_MAX) {
                    let error = GroupError::TooLarge { what: "a topic's name", max: NAME_BYTES_MAX };
                    return Some(request.refused(error));
                }
                // Some clients commit without a group of their own name: Kafka keeps offsets under an empty id.
                if group.is_empty() && generation.is_none() {
                    return None;
                }
                (group, generation.is_none())
            }
            Request::Sync { group, .. } | Request::Heartbeat { group, .. } | Request::Leave { group, .. } => {
                (group, false)
            }
            _ => return None,
        };
        if group.is_empty() || group.len() > GROUP_ID_BYTES_MAX {
            return Some(request.refused(GroupError::InvalidGroupId));
        }
        let is_full = creates && self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(group);
        is_full.then(|| request.refused(GroupError::Busy { what: "groups", max: GROUPS_MAX }))
    }

    fn join(&mut self, now: Tick, wall: Timestamp, ticket: Ticket, join: Join, out: &mut Vec<Effect>) {
        let id = join.group.clone();
        if join.member.is_empty() {
            self.group_or_new(&id, wall);
        }
        if self.with_group(now, wall, &id, out, |group, cx| group.join(cx, ticket, join)).is_none() {
            out.push(Effect::Respond(ticket, Response::Join(Err(GroupError::UnknownMember))));
        }
    }

    fn delete(&mut self, now: Tick, ticket: Ticket, id: &str, out: &mut Vec<Effect>) {
        let refuse = |error| Effect::Respond(ticket, Response::Delete(Err(error)));
        let Some(group) = self.groups.get(id) else {
            out.push(refuse(GroupError::NotFound));
            return;
        };
        if group.state != State::Empty || !group.pending.is_empty() || group.pending_writes_out > 0 {
            out.push(refuse(GroupError::NotEmpty));
            return;
        }
        let offsets = group.offsets.keys().map(|place| (id.to_owned(), place.clone())).collect();
        let reply =
            Reply { ticket, done: Response::Delete(Ok(())), failed: Response::Delete(Err(GroupError::NotPersisted)) };
        self.remove(now, offsets, vec![id.to_owned()], Some(reply), out);
    }

    fn delete_offsets(
        &mut self,
        now: Tick,
        ticket: Ticket,
        id: &str,
        topics: &[TopicPartitions],
        out: &mut Vec<Effect>,
    ) {
        let Some(group) = self.groups.get(id) else {
            out.push(Effect::Respond(ticket, Response::DeleteOffsets(Err(GroupError::NotFound))));
            return;
        };
        let (places, outcomes) = group.deletable(topics);
        let reply = Reply {
            ticket,
            done: Response::DeleteOffsets(Ok(outcomes)),
            failed: Response::DeleteOffsets(Err(GroupError::NotPersisted)),
        };
        let offsets = places.into_iter().map(|place| (id.to_owned(), place)).collect();
        self.remove(now, offsets, Vec::new(), Some(reply), out);
    }

    fn forget_topic(&mut self, now: Tick, ticket: Ticket, topic: &str, out: &mut Vec<Effect>) {
        let mut offsets = Vec::new();
        for group in self.groups.values() {
            let of_topic = group.offsets.keys().filter(|place| place.topic == topic);
            offsets.extend(of_topic.map(|place| (group.id.clone(), place.clone())));
        }
        let reply = Reply {
            ticket,
            done: Response::ForgetTopic(Ok(())),
            failed: Response::ForgetTopic(Err(GroupError::NotPersisted)),
        };
        self.remove(now, offsets, Vec::new(), Some(reply), out);
    }

    /// Groups and offsets that nobody has used for the retention time; at most [`EXPIRY_RECORDS_MAX`] at once.
    fn expire(&mut self, now: Tick, wall: Timestamp, out: &mut Vec<Effect>) {
        let (mut offsets, mut groups) = (Vec::new(), Vec::new());
        for group in self.groups.values() {
            let (places, is_all) = group.expired(wall, self.config.offsets_retention_ms);
            offsets.extend(places.into_iter().map(|place| (group.id.clone(), place)));
            if is_all {
                groups.push(group.id.clone());
            }
            if offsets.len() + groups.len() >= EXPIRY_RECORDS_MAX {
                self.expiry_at = now.next();
                break;
            }
        }
        self.remove(now, offsets, groups, None, out);
    }

    /// Writes removals; they become true when durable.
    fn remove(
        &mut self,
        now: Tick,
        offsets: Vec<(String, Place)>,
        groups: Vec<String>,
        reply: Option<Reply>,
        out: &mut Vec<Effect>,
    ) {
        if offsets.is_empty() && groups.is_empty() || self.writes.len() >= WRITES_MAX {
            let is_nothing = offsets.is_empty() && groups.is_empty();
            if let Some(Reply { ticket, done, failed }) = reply {
                out.push(Effect::Respond(ticket, if is_nothing { done } else { failed }));
            }
            return;
        }
        let gone = |key| Record { key, value: None };
        let mut records: Vec<Record> = offsets.iter().map(|(group, place)| gone(offset_key(group, place))).collect();
        records.extend(groups.iter().map(|group| gone(Key::Group { group: group.clone() }.encode())));
        for id in offsets.iter().map(|(group, _)| group).chain(&groups).collect::<BTreeSet<_>>() {
            if let Some(group) = self.groups.get_mut(id) {
                group.writes_out += 1;
            }
        }
        let id = self.writes.open(now, What::Removal { offsets, groups }, reply);
        out.push(Effect::Persist(id, records));
    }

    fn written(&mut self, now: Tick, wall: Timestamp, id: WriteId, is_durable: bool, out: &mut Vec<Effect>) {
        let Some(write) = self.writes.close(id) else { return };
        match write.what {
            What::Offsets { group, offsets } => {
                let keep = |group: &mut Group, _: &mut Context<'_>| {
                    group.writes_out -= 1;
                    if is_durable {
                        group.offsets.extend(offsets);
                    }
                };
                self.with_group(now, wall, &group, out, keep);
            }
            What::Pending { group, producer, epoch, offsets } => {
                let keep = |group: &mut Group, _: &mut Context<'_>| {
                    group.pending_written(producer, epoch, offsets, is_durable)
                };
                self.with_group(now, wall, &group, out, keep);
            }
            What::End { group, producer, commit, mark } => {
                let keep = |group: &mut Group, _: &mut Context<'_>| group.end_written(producer, commit, is_durable);
                self.with_group(now, wall, &group, out, keep);
                if is_durable {
                    self.note_end(producer, mark);
                }
            }
            What::Group { group, record } => {
                let keep = |group: &mut Group, cx: &mut Context<'_>| {
                    group.writes_out -= 1;
                    if is_durable {
                        group.durable = Some(record);
                    }
                    group.assignment_written(cx, id, is_durable);
                };
                self.with_group(now, wall, &group, out, keep);
            }
            What::Removal { offsets, groups } => self.removed(offsets, groups, is_durable),
        }
        if let Some(Reply { ticket, done, failed }) = write.reply {
            out.push(Effect::Respond(ticket, if is_durable { done } else { failed }));
        }
    }

    fn removed(&mut self, offsets: Vec<(String, Place)>, groups: Vec<String>, is_durable: bool) {
        let touched: BTreeSet<String> = offsets.iter().map(|(group, _)| group).chain(&groups).cloned().collect();
        if is_durable {
            for (group, place) in offsets {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.offsets.remove(&place);
                }
            }
            for id in groups {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.durable = None;
                }
            }
        }
        for id in touched {
            if let Some(group) = self.groups.get_mut(&id) {
                group.writes_out -= 1;
            }
            self.schedule(&id);
        }
    }
}

fn offset_key(group: &str, place: &Place) -> Bytes {
    Key::Offset { group: group.to_owned(), place: place.clone() }.encode()
}
