//! One group: its members, their protocols, its offsets. What it holds; the rules are in `rebalance` and `offsets`.

use std::collections::{BTreeMap, BTreeSet};

use base::{ProducerId, Tick, Timestamp};
use bytes::Bytes;

use super::coordinator::{Effect, GroupsConfig, Record, Ticket, WriteId};
use super::error::GroupError;
use super::limits::{REBALANCE_MS_MAX, WRITES_MAX};
use super::pending::Pending;
use super::record::{GroupRecord, Key, MemberRecord, Place};
use super::request::{Committed, DescribedGroup, DescribedMember, Join, JoinedMember, Protocol, Response};
use super::write::{Reply, What, Writes};

/// Where a group stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum GroupState {
    /// No members; maybe offsets.
    Empty,
    /// Waits for its members to join.
    PreparingRebalance,
    /// Waits for its leader's assignment.
    CompletingRebalance,
    /// Every member knows its part.
    Stable,
}

/// The state with what it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Empty,
    Preparing { deadline: Tick, initial: Option<Initial> },
    Completing { deadline: Tick, write: Option<WriteId> },
    Stable,
}

/// The first rebalance of an empty group: it waits a little for others, and a little more while they come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Initial {
    pub remaining_ms: u64,
    pub has_grown: bool,
}

#[derive(Clone, Debug)]
pub struct Member {
    /// Order of first joining, for a leader that does not depend on names.
    pub sequence: u64,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: u64,
    pub rebalance_timeout_ms: u64,
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    /// Without a sign of life until then it is removed. Does not count while it waits for an answer.
    pub session_ends: Tick,
    pub joining: Option<Ticket>,
    pub syncing: Option<Ticket>,
    /// It has been told the generation and has not yet asked for its part.
    pub must_sync: bool,
}

impl Member {
    pub const fn is_waiting(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }

    pub fn refresh(&mut self, now: Tick) {
        self.session_ends = now.plus(self.session_timeout_ms);
    }

    pub fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let chosen = self.protocols.iter().find(|offered| Some(offered.name.as_str()) == protocol);
        chosen.map(|offered| offered.metadata.clone()).unwrap_or_default()
    }

    pub fn offers(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|offered| offered.name == protocol)
    }

    /// What the group keeps of what it told.
    pub fn told_bytes(&self) -> usize {
        told_bytes(&self.client_id, &self.client_host, self.instance.as_ref(), &self.protocols)
    }
}

impl Join {
    pub(super) fn told_bytes(&self) -> usize {
        told_bytes(&self.client_id, &self.client_host, self.instance.as_ref(), &self.protocols)
    }
}

fn told_bytes(client_id: &str, client_host: &str, instance: Option<&String>, protocols: &[Protocol]) -> usize {
    let offered = protocols.iter().map(|offered| offered.name.len() + offered.metadata.len());
    // The member id is made of the client id or the instance id.
    2 * (client_id.len() + instance.map_or(0, String::len)) + client_host.len() + offered.sum::<usize>()
}

/// What a step brings to a group: the present, and where its answers go.
pub struct Context<'a> {
    pub now: Tick,
    pub wall: Timestamp,
    pub config: &'a GroupsConfig,
    pub writes: &'a mut Writes,
    pub ids: &'a mut Ids,
    pub out: &'a mut Vec<Effect>,
}

impl Context<'_> {
    pub fn respond(&mut self, ticket: Ticket, response: Response) {
        self.out.push(Effect::Respond(ticket, response));
    }

    /// Writes records; a requester is answered after it, or now if too many writes are out.
    pub fn persist(&mut self, records: Vec<Record>, what: What, reply: Option<Reply>) -> Option<WriteId> {
        if self.writes.len() >= WRITES_MAX {
            if let Some(reply) = reply {
                self.respond(reply.ticket, reply.failed);
            }
            return None;
        }
        let id = self.writes.open(self.now, what, reply);
        self.out.push(Effect::Persist(id, records));
        Some(id)
    }
}

/// Member ids nobody has had before: a random-looking number from a seed that differs with every start.
#[derive(Debug)]
pub struct Ids(pub u64);

impl Ids {
    pub fn next(&mut self, prefix: &str) -> String {
        let (high, low) = (self.number(), self.number());
        format!(
            "{prefix}-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }

    /// `SplitMix64`.
    const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[derive(Debug)]
pub struct Group {
    pub id: String,
    pub state: State,
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When it came into its state.
    pub since: Timestamp,
    pub members: BTreeMap<String, Member>,
    /// Instance id to member id.
    pub instances: BTreeMap<String, String>,
    /// Ids given to clients that have not yet joined with them, and until when they may.
    pub promised: BTreeMap<String, Tick>,
    pub offsets: BTreeMap<Place, Committed>,
    /// Offsets of transactions under way.
    pub pending: BTreeMap<ProducerId, Pending>,
    /// Of the writes that are out: those of offsets in transactions.
    pub pending_writes_out: usize,
    /// The group's record as the log has it: what a checkpoint repeats.
    pub durable: Option<Bytes>,
    /// Writes that are out and will change the group.
    pub writes_out: usize,
    /// The entry of the coordinator's index.
    pub scheduled: Option<Tick>,
    pub joined_ever: u64,
}

impl Group {
    pub const fn new(id: String, since: Timestamp) -> Self {
        Self {
            id,
            state: State::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: None,
            leader: None,
            since,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            promised: BTreeMap::new(),
            offsets: BTreeMap::new(),
            pending: BTreeMap::new(),
            pending_writes_out: 0,
            durable: None,
            writes_out: 0,
            scheduled: None,
            joined_ever: 0,
        }
    }

    pub const fn public_state(&self) -> GroupState {
        match self.state {
            State::Empty => GroupState::Empty,
            State::Preparing { .. } => GroupState::PreparingRebalance,
            State::Completing { .. } => GroupState::CompletingRebalance,
            State::Stable => GroupState::Stable,
        }
    }

    /// Nobody would miss it: it has nothing, and the log does not know it.
    pub fn is_blank(&self) -> bool {
        self.durable.is_none()
            && self.is_unused()
            && self.offsets.is_empty()
            && self.pending.is_empty()
            && self.writes_out == 0
    }

    /// No member, and nobody about to become one.
    pub fn is_unused(&self) -> bool {
        self.state == State::Empty && self.members.is_empty() && self.promised.is_empty()
    }

    pub fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// The longest any member needs to join again.
    pub fn rebalance_timeout_ms(&self) -> u64 {
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0);
        longest.clamp(1, REBALANCE_MS_MAX)
    }

    /// Protocols that every member offers.
    fn common_protocols(&self) -> BTreeSet<&str> {
        let Some(first) = self.members.values().next() else { return BTreeSet::new() };
        let by_all = |name: &&str| self.members.values().all(|member| member.offers(name));
        first.protocols.iter().map(|offered| offered.name.as_str()).filter(by_all).collect()
    }

    /// True if one of these protocols is offered by every member but `except`.
    pub fn supports(&self, protocols: &[Protocol], except: &str) -> bool {
        let others = || self.members.iter().filter(|(id, _)| *id != except);
        protocols.iter().any(|offered| others().all(|(_, member)| member.offers(&offered.name)))
    }

    /// Each member votes for the one it likes best among those all have; the leader breaks a tie.
    pub fn choose_protocol(&self) -> Option<String> {
        let common = self.common_protocols();
        let best_of = |member: &Member| {
            member.protocols.iter().find(|offered| common.contains(offered.name.as_str())).map(|best| best.name.clone())
        };
        let mut votes: BTreeMap<String, usize> = BTreeMap::new();
        for best in self.members.values().filter_map(best_of) {
            *votes.entry(best).or_default() += 1;
        }
        let most = votes.values().max().copied()?;
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id));
        let rank =
            |name: &String| leader.and_then(|leader| leader.protocols.iter().position(|offered| offered.name == *name));
        votes.into_iter().filter(|(_, count)| *count == most).map(|(name, _)| name).min_by_key(rank)
    }

    /// A new member, not yet answered.
    pub fn insert(&mut self, now: Tick, id: String, ticket: Ticket, join: Join) {
        self.joined_ever += 1;
        if let Some(instance) = &join.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        if self.members.is_empty() {
            self.protocol_type = join.protocol_type;
        }
        let member = Member {
            sequence: self.joined_ever,
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            session_ends: now.plus(join.session_timeout_ms),
            joining: Some(ticket),
            syncing: None,
            must_sync: false,
        };
        self.members.insert(id, member);
    }

    /// Checks that a request comes from a member of the present generation.
    ///
    /// # Errors
    /// What the member has to do instead.
    pub fn check_member(&self, member: &str, instance: Option<&str>, generation: i32) -> Result<(), GroupError> {
        self.check_identity(member, instance)?;
        if generation == self.generation {
            Ok(())
        } else {
            Err(GroupError::IllegalGeneration { asked: generation, current: self.generation })
        }
    }

    /// Checks that a member id is one of the group's, and its instance's.
    ///
    /// # Errors
    /// `FencedInstance`, `UnknownMember`.
    pub fn check_identity(&self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(holder) if holder != member => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    /// What the leader is told about everyone.
    pub fn roster(&self) -> Vec<JoinedMember> {
        let seen = |(id, member): (&String, &Member)| JoinedMember {
            member: id.clone(),
            instance: member.instance.clone(),
            metadata: member.metadata(self.protocol.as_deref()),
        };
        self.members.iter().map(seen).collect()
    }

    pub fn describe(&self) -> DescribedGroup {
        let protocol = if self.state == State::Stable { self.protocol.as_deref() } else { None };
        let seen = |(id, member): (&String, &Member)| DescribedMember {
            member: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: member.metadata(protocol),
            assignment: if protocol.is_some() { member.assignment.clone() } else { Bytes::new() },
        };
        DescribedGroup {
            group: self.id.clone(),
            state: self.public_state(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: protocol.unwrap_or_default().to_owned(),
            members: self.members.iter().map(seen).collect(),
        }
    }

    pub fn key(&self) -> Bytes {
        Key::Group { group: self.id.clone() }.encode()
    }

    /// The durable part as it is now.
    pub fn record(&self, wall: Timestamp) -> GroupRecord {
        let member = |(id, member): (&String, &Member)| MemberRecord {
            member: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            metadata: member.metadata(self.protocol.as_deref()),
            assignment: member.assignment.clone(),
        };
        GroupRecord {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            since: wall,
            members: self.members.iter().map(member).collect(),
        }
    }

    /// Takes over what a record says; offsets stay.
    pub fn restore(&mut self, record: GroupRecord, now: Tick) {
        self.generation = record.generation;
        self.protocol_type = record.protocol_type;
        self.leader = record.leader;
        self.since = record.since;
        self.members.clear();
        self.instances.clear();
        for member in record.members {
            self.joined_ever += 1;
            if let Some(instance) = &member.instance {
                self.instances.insert(instance.clone(), member.member.clone());
            }
            let name = record.protocol.clone().unwrap_or_default();
            let restored = Member {
                sequence: self.joined_ever,
                instance: member.instance,
                client_id: member.client_id,
                client_host: member.client_host,
                session_timeout_ms: member.session_timeout_ms,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                protocols: vec![Protocol { name, metadata: member.metadata }],
                assignment: member.assignment,
                session_ends: now.plus(member.session_timeout_ms),
                joining: None,
                syncing: None,
                must_sync: false,
            };
            self.members.insert(member.member, restored);
        }
        self.protocol = record.protocol;
        self.state = if self.members.is_empty() { State::Empty } else { State::Stable };
    }
}
