//! Offsets: kept, told, deleted, forgotten after a time.

use std::collections::{BTreeMap, BTreeSet};

use base::{Offset, Timestamp};

use super::coordinator::{Record, Ticket};
use super::error::GroupError;
use super::group::{Context, Group, State};
use super::limits::{OFFSETS_PER_GROUP_MAX, WRITES_MAX};
use super::record::{Key, Place, encode_offset};
use super::request::{CommitOffset, Committed, OffsetOutcome, Response, TopicOffsets, TopicPartitions};
use super::subscription;
use super::write::{Reply, What};

/// Who commits.
pub struct Committer<'a> {
    /// `None`: takes part in no rebalance.
    pub generation: Option<i32>,
    pub member: &'a str,
    pub instance: Option<&'a str>,
}

impl Group {
    /// Answers when the offsets are durable.
    pub fn commit(&mut self, cx: &mut Context<'_>, ticket: Ticket, by: &Committer<'_>, asked: Vec<CommitOffset>) {
        if let Err(error) = self.check_commit(cx, by, asked.len()) {
            return cx.respond(ticket, Response::CommitOffsets(Err(error)));
        }
        let mut outcomes = Vec::with_capacity(asked.len());
        let mut offsets = Vec::new();
        for asked in asked {
            let result = check_offset(asked.offset, &asked.metadata, cx.config.offset_metadata_bytes_max);
            outcomes.push(OffsetOutcome {
                topic: asked.topic.clone(),
                partition: asked.partition,
                result: result.clone(),
            });
            if result.is_ok() {
                let place = Place { topic: asked.topic, partition: asked.partition };
                let committed = Committed {
                    offset: Offset(asked.offset),
                    leader_epoch: asked.leader_epoch,
                    metadata: asked.metadata,
                    at: cx.wall,
                };
                offsets.push((place, committed));
            }
        }
        if offsets.is_empty() {
            return cx.respond(ticket, Response::CommitOffsets(Ok(outcomes)));
        }
        let record = |(place, committed): &(Place, Committed)| Record {
            key: Key::Offset { group: self.id.clone(), place: place.clone() }.encode(),
            value: Some(encode_offset(committed)),
        };
        let records = offsets.iter().map(record).collect();
        let busy = GroupError::Busy { what: "writes", max: WRITES_MAX };
        let failed = if cx.writes.len() < WRITES_MAX { GroupError::NotPersisted } else { busy };
        let reply =
            Reply { ticket, done: Response::CommitOffsets(Ok(outcomes)), failed: Response::CommitOffsets(Err(failed)) };
        let what = What::Offsets { group: self.id.clone(), offsets };
        if cx.persist(records, what, Some(reply)).is_some() {
            self.writes_out += 1;
        }
    }

    fn check_commit(&mut self, cx: &Context<'_>, by: &Committer<'_>, count: usize) -> Result<(), GroupError> {
        if self.offsets.len() + count > OFFSETS_PER_GROUP_MAX {
            return Err(GroupError::Busy { what: "the group's offsets", max: OFFSETS_PER_GROUP_MAX });
        }
        let Some(generation) = by.generation else {
            // A committer of its own, or a tool that sets offsets: only while nobody else moves them.
            return if self.state == State::Empty { Ok(()) } else { Err(GroupError::UnknownMember) };
        };
        self.check_member(by.member, by.instance, generation)?;
        if matches!(self.state, State::Completing { .. }) {
            return Err(GroupError::RebalanceInProgress);
        }
        if let Some(member) = self.members.get_mut(by.member) {
            member.refresh(cx.now);
        }
        Ok(())
    }

    /// The offsets of `topics`, or all.
    pub fn fetch(&self, topics: Option<&[TopicPartitions]>) -> Vec<TopicOffsets> {
        let Some(topics) = topics else {
            let mut found: BTreeMap<&str, TopicOffsets> = BTreeMap::new();
            let empty =
                |topic: &str| TopicOffsets { topic: topic.to_owned(), partitions: Vec::new(), unstable: Vec::new() };
            for (place, committed) in &self.offsets {
                let topic = found.entry(&place.topic).or_insert_with(|| empty(&place.topic));
                topic.partitions.push((place.partition, Some(committed.clone())));
            }
            let pending: BTreeSet<&Place> = self.pending.values().flat_map(|pending| pending.offsets.keys()).collect();
            for place in pending {
                found.entry(&place.topic).or_insert_with(|| empty(&place.topic)).unstable.push(place.partition);
            }
            return found.into_values().collect();
        };
        let offset = |topic: &str, partition| self.offsets.get(&Place { topic: topic.to_owned(), partition }).cloned();
        let is_unstable = |topic: &str, partition| self.is_unstable(&Place { topic: topic.to_owned(), partition });
        let fetched = |asked: &TopicPartitions| TopicOffsets {
            topic: asked.topic.clone(),
            partitions: asked
                .partitions
                .iter()
                .map(|partition| (*partition, offset(&asked.topic, *partition)))
                .collect(),
            unstable: asked.partitions.iter().copied().filter(|at| is_unstable(&asked.topic, *at)).collect(),
        };
        topics.iter().map(fetched).collect()
    }

    /// Which of these may be deleted, and what to answer for each.
    pub fn deletable(&self, topics: &[TopicPartitions]) -> (Vec<Place>, Vec<OffsetOutcome>) {
        let (mut places, mut outcomes) = (Vec::new(), Vec::new());
        for asked in topics {
            let is_read = self.reads(&asked.topic);
            for &partition in &asked.partitions {
                let result = if is_read { Err(GroupError::SubscribedToTopic) } else { Ok(()) };
                let place = Place { topic: asked.topic.clone(), partition };
                if !is_read && self.offsets.contains_key(&place) {
                    places.push(place);
                }
                outcomes.push(OffsetOutcome { topic: asked.topic.clone(), partition, result });
            }
        }
        (places, outcomes)
    }

    /// True if a member reads `topic`, as far as can be told: of a group that is no consumer group, nothing can.
    fn reads(&self, topic: &str) -> bool {
        if self.members.is_empty() {
            return false;
        }
        if self.protocol_type != subscription::CONSUMER {
            return true;
        }
        let mut offered = self.members.values().flat_map(|member| &member.protocols);
        offered.any(|offered| subscription::names(&offered.metadata, topic))
    }

    /// What nobody has used for the retention time: offsets, and whether the group itself goes with them.
    pub fn expired(&self, wall: Timestamp, retention_ms: u64) -> (Vec<Place>, bool) {
        if !self.is_unused() || self.writes_out > 0 || !self.pending.is_empty() {
            return (Vec::new(), false);
        }
        let since = if self.durable.is_some() { self.since } else { Timestamp(i64::MIN) };
        let retention_ms = i64::try_from(retention_ms).unwrap_or(i64::MAX);
        let is_over = |used: Timestamp| used.0.saturating_add(retention_ms) <= wall.0;
        let over = self.offsets.iter().filter(|(_, committed)| is_over(committed.at.max(since)));
        let places: Vec<Place> = over.map(|(place, _)| place.clone()).collect();
        let all = places.len() == self.offsets.len() && is_over(self.since);
        (places, all)
    }
}

/// Whether an offset can be kept.
pub fn check_offset(offset: i64, metadata: &str, metadata_bytes_max: usize) -> Result<(), GroupError> {
    if metadata.len() > metadata_bytes_max {
        return Err(GroupError::OffsetMetadataTooLarge(metadata_bytes_max));
    }
    if offset < 0 { Err(GroupError::InvalidOffset(offset)) } else { Ok(()) }
}
