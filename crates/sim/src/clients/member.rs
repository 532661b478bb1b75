//! A consumer of the one group: joins, leads the assignment if it is told to, reads its partitions, keeps its
//! positions, and starts over when it is told to.

use std::collections::BTreeMap;

use base::{NodeId, Offset, PartitionIndex, TopicPartition};
use bytes::Bytes;
use log::groups::{
    Assignment, CommitOffset, GroupError, Join, Joined, Protocol, Request as GroupRequest, Response, TopicPartitions,
};

use super::{Core, TOPIC};
use crate::facts::{Facts, GroupFacts};
use crate::node::{Reply, Request, Ticket};
use crate::time::At;

const GROUP: &str = "readers";
const SESSION_MS: u64 = 2_000;
const REBALANCE_MS: u64 = 1_500;
const BEAT_MS: u64 = 300;
/// A join waits for the others to join.
const JOIN_MS_MAX: u64 = 4_000;

/// See the module.
#[derive(Default)]
pub(crate) struct Member {
    id: String,
    phase: Phase,
    asked: Option<(Ticket, At)>,
    coordinator: Option<NodeId>,
    again: At,
    beat_at: At,
    generation: i32,
    positions: BTreeMap<PartitionIndex, Position>,
    /// Partition, and what was known to be kept when it was asked for.
    floors: BTreeMap<PartitionIndex, Option<Offset>>,
    /// Partition, and from where.
    fetching: Option<(Ticket, At, TopicPartition, Offset)>,
    committing: Vec<(PartitionIndex, Offset)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Position {
    next: Offset,
    kept: Offset,
}

#[derive(Default)]
enum Phase {
    #[default]
    Out,
    Syncing(Box<Joined>),
    /// Asks where to go on.
    Positions(Vec<PartitionIndex>),
    Reading,
}

impl Member {
    pub fn wake(&mut self, core: &mut Core, at: At, facts: &Facts) -> u64 {
        if self.asked.is_some_and(|(_, until)| until <= at) {
            self.asked = None;
            self.coordinator = None;
            self.committing.clear();
        }
        if self.fetching.is_some_and(|(_, until, ..)| until <= at) {
            self.fetching = None;
        }
        if self.again <= at && self.asked.is_none() {
            self.ask(core, at, facts);
        }
        if matches!(self.phase, Phase::Reading) && self.fetching.is_none() {
            self.fetch(core, at);
        }
        core.random.range(10_000, 50_000)
    }

    fn ask(&mut self, core: &mut Core, at: At, facts: &Facts) {
        let Some(tp) = core.offsets_partition() else { return };
        let Some(node) = self.coordinator.or_else(|| core.leader(tp)) else { return };
        let (member, generation) = (self.id.clone(), self.generation);
        let mut wait_ms = super::ANSWER_MS_MAX;
        let request = match &self.phase {
            Phase::Out => {
                wait_ms = JOIN_MS_MAX;
                GroupRequest::Join(Box::new(Join {
                    group: GROUP.to_owned(),
                    member,
                    session_timeout_ms: SESSION_MS,
                    rebalance_timeout_ms: REBALANCE_MS,
                    protocol_type: "consumer".to_owned(),
                    protocols: vec![Protocol { name: "range".to_owned(), metadata: Bytes::from_static(b"events") }],
                    id_required: true,
                    ..Join::default()
                }))
            }
            Phase::Syncing(joined) => GroupRequest::Sync {
                group: GROUP.to_owned(),
                generation,
                member,
                instance: None,
                protocol_type: None,
                protocol: None,
                assignments: assign(core, joined),
            },
            Phase::Positions(partitions) => {
                self.floors = partitions.iter().map(|part| (*part, facts.groups.floor(*part))).collect();
                let topics = vec![TopicPartitions { topic: TOPIC.to_owned(), partitions: partitions.clone() }];
                GroupRequest::FetchOffsets { group: GROUP.to_owned(), topics: Some(topics) }
            }
            Phase::Reading => {
                let unkept = self.positions.iter().filter(|(_, position)| position.next > position.kept);
                self.committing = unkept.map(|(part, position)| (*part, position.next)).collect();
                if self.beat_at <= at {
                    self.beat_at = at.plus_ms(BEAT_MS);
                    self.committing.clear();
                    GroupRequest::Heartbeat { group: GROUP.to_owned(), generation, member, instance: None }
                } else if self.committing.is_empty() {
                    return;
                } else {
                    let offset = |(part, next): &(PartitionIndex, Offset)| CommitOffset {
                        topic: TOPIC.to_owned(),
                        partition: *part,
                        offset: next.0,
                        leader_epoch: -1,
                        metadata: String::new(),
                    };
                    GroupRequest::CommitOffsets {
                        group: GROUP.to_owned(),
                        generation: Some(generation),
                        member,
                        instance: None,
                        offsets: self.committing.iter().map(offset).collect(),
                    }
                }
            }
        };
        let ticket = core.ask(node, Request::Group(request));
        self.asked = Some((ticket, at.plus_ms(wait_ms)));
    }

    fn fetch(&mut self, core: &mut Core, at: At) {
        let parts: Vec<PartitionIndex> = self.positions.keys().copied().collect();
        let Some(part) = core.random.pick(&parts).copied() else { return };
        let Some(tp) = core.partitions(TOPIC).into_iter().find(|tp| tp.partition == part) else { return };
        let from = self.positions[&part].next;
        // Whoever has a replica may be asked: all give committed records only.
        let node = if core.random.chance(700) { core.leader(tp) } else { None };
        let node = node.unwrap_or_else(|| core.any_node());
        let ticket = core.ask(node, Request::Fetch { tp, from });
        self.fetching = Some((ticket, Core::deadline(at), tp, from));
    }

    pub fn reply(&mut self, core: &mut Core, at: At, ticket: Ticket, reply: Reply, facts: &mut Facts) {
        if let Some((open, _, tp, from)) = self.fetching
            && open == ticket
        {
            self.fetching = None;
            if let Reply::Fetched(Ok((bytes, next))) = reply {
                let result = facts.partitions.fetched(tp, from, &bytes);
                facts.check(result);
                // It may have been told another position since it asked.
                if let Some(position) = self.positions.get_mut(&tp.partition).filter(|position| position.next == from) {
                    position.next = next;
                }
            }
            return;
        }
        if self.asked.is_none_or(|(open, _)| open != ticket) {
            return;
        }
        self.asked = None;
        match reply {
            Reply::Group(Some(response)) => self.answered(core, at, response, facts),
            _ => {
                self.coordinator = None;
                if let Some(tp) = core.offsets_partition() {
                    core.not_leader(tp, None);
                }
                self.again = at.plus_ms(20 + core.random.below(60));
            }
        }
    }

    fn answered(&mut self, core: &mut Core, at: At, response: Response, facts: &mut Facts) {
        let error = match response {
            Response::Join(Ok(joined)) => {
                self.id.clone_from(&joined.member);
                self.generation = joined.generation;
                self.phase = Phase::Syncing(Box::new(joined));
                return;
            }
            Response::Sync(Ok(synced)) => {
                let parts: Vec<PartitionIndex> =
                    synced.assignment.iter().map(|part| PartitionIndex(i32::from(*part))).collect();
                let result = facts.groups.assigned(self.generation, &self.id, &parts);
                facts.check(result);
                self.positions.clear();
                self.phase = Phase::Positions(parts);
                return;
            }
            Response::FetchOffsets(Ok(topics)) => return self.found_positions(&topics, facts),
            Response::CommitOffsets(Ok(outcomes)) => {
                let committing = std::mem::take(&mut self.committing);
                for (outcome, (part, offset)) in outcomes.into_iter().zip(committing) {
                    match outcome.result {
                        Ok(()) => {
                            facts.groups.committed(part, offset);
                            if let Some(position) = self.positions.get_mut(&part) {
                                position.kept = position.kept.max(offset);
                            }
                        }
                        Err(error) => return self.failed(core, at, &error),
                    }
                }
                return;
            }
            Response::Heartbeat(Ok(())) => return,
            Response::Join(Err(error))
            | Response::Sync(Err(error))
            | Response::FetchOffsets(Err(error))
            | Response::CommitOffsets(Err(error))
            | Response::Heartbeat(Err(error)) => error,
            _ => return,
        };
        self.failed(core, at, &error);
    }

    fn found_positions(&mut self, topics: &[log::groups::TopicOffsets], facts: &mut Facts) {
        let Phase::Positions(parts) = &self.phase else { return };
        let found: BTreeMap<PartitionIndex, Offset> = topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .filter_map(|(part, committed)| Some((*part, committed.as_ref()?.offset)))
            .collect();
        for part in parts {
            let offset = found.get(part).copied();
            let floor = self.floors.get(part).copied().flatten();
            facts.check(GroupFacts::position(*part, floor, offset));
            let next = offset.unwrap_or_default();
            self.positions.insert(*part, Position { next, kept: next });
        }
        self.phase = Phase::Reading;
    }

    fn failed(&mut self, core: &mut Core, at: At, error: &GroupError) {
        self.again = at.plus_ms(10 + core.random.below(50));
        match error {
            GroupError::MemberIdRequired(id) => self.id.clone_from(id),
            GroupError::UnknownMember => {
                self.id.clear();
                self.phase = Phase::Out;
            }
            GroupError::IllegalGeneration { .. } | GroupError::RebalanceInProgress => self.phase = Phase::Out,
            _ => {}
        }
    }

    /// After the faults every partition is read to its end and the positions are kept.
    pub fn waits_for(&self, core: &Core, facts: &Facts) -> Option<String> {
        let id = core.id;
        if !matches!(self.phase, Phase::Reading) {
            return Some(format!("consumer {id} is not in the group"));
        }
        let behind = core.partitions(TOPIC).into_iter().find(|tp| {
            self.positions.get(&tp.partition).is_some_and(|position| position.next < facts.partitions.end(*tp))
        });
        if let Some(tp) = behind {
            return Some(format!("consumer {id} has not read {tp} to its end"));
        }
        let unkept = self.positions.iter().find(|(_, position)| position.next > position.kept);
        unkept.map(|(part, _)| format!("consumer {id} has not kept its position in {part}"))
    }
}

/// What the leader of the group gives to each member: partitions in turn, one byte each.
fn assign(core: &Core, joined: &Joined) -> Vec<Assignment> {
    let members: Vec<&String> = joined.members.iter().map(|member| &member.member).collect();
    let partitions = core.partitions(TOPIC);
    let of = |at: usize| {
        let own = partitions.iter().enumerate().filter(|(place, _)| place % members.len() == at);
        own.map(|(_, tp)| u8::try_from(tp.partition.0).unwrap_or(0)).collect::<Vec<u8>>()
    };
    (0..)
        .zip(&members)
        .map(|(at, member)| Assignment { member: (*member).clone(), assignment: of(at).into() })
        .collect()
}
