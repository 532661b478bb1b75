//! Who makes topics and the table, and then now and then a topic more or less.

use std::collections::{BTreeMap, BTreeSet};

use base::{ClusterId, NodeId, PartitionIndex, TopicId, TopicPartition};
use control::{Applied, Command, Refused, State, TableId, plan};
use uuid::Uuid;

use super::{Core, TOPIC};
use crate::facts::Facts;
use crate::node::{OFFSETS_TOPIC, ProposeFailure, Reply, Request, Ticket};
use crate::plan::Plan;
use crate::time::At;

pub(crate) const TABLE: TableId = TableId(Uuid::from_u128(0x7ab1e));

/// See the module.
pub(crate) struct Admin {
    /// To be done in order; the first is under way.
    todo: Vec<Command>,
    asked: Option<(Ticket, At)>,
    again: At,
    founders: Vec<NodeId>,
    partitions: i32,
    made: u32,
    extra: BTreeMap<TopicId, String>,
    deleted: BTreeSet<TopicId>,
    done: u64,
}

impl Admin {
    pub fn new(plan: &Plan) -> Self {
        let founders: Vec<NodeId> = (1..=plan.nodes).map(NodeId).collect();
        let mut admin = Self {
            todo: Vec::new(),
            asked: None,
            again: At(0),
            founders: founders.clone(),
            partitions: plan.partitions,
            made: 0,
            extra: BTreeMap::new(),
            deleted: BTreeSet::new(),
            done: 0,
        };
        let cluster = ClusterId(Uuid::from_u128(u128::from(plan.seed)));
        admin.todo.push(Command::FormCluster { cluster, formed: base::Timestamp(1), founders });
        let events = admin.topic(TOPIC, admin.partitions, false);
        let Command::CreateTopic { id: topic, .. } = events else { unreachable!("it is one") };
        admin.todo.push(events);
        let offsets = admin.topic(OFFSETS_TOPIC, 1, true);
        admin.todo.push(offsets);
        admin.todo.push(Command::CreateTable {
            id: TABLE,
            name: "events".to_owned(),
            topic,
            spec: "{}".to_owned(),
            schema: "{}".to_owned(),
            begin: BTreeMap::new(),
            created: base::Timestamp(1),
        });
        admin
    }

    fn topic(&mut self, name: &str, partitions: i32, internal: bool) -> Command {
        self.made += 1;
        let candidates = State::default().candidates();
        let candidates = if candidates.is_empty() { self.candidates() } else { candidates };
        let count = usize::try_from(partitions).unwrap_or(1);
        let replicas = plan::place(&candidates, &[], count, 3).expect("three of at least three nodes");
        Command::CreateTopic {
            id: TopicId(Uuid::from_u128(0x70_0000 + u128::from(self.made))),
            name: name.to_owned(),
            partitions,
            config: BTreeMap::new(),
            internal,
            created: base::Timestamp(1),
            replicas,
        }
    }

    fn candidates(&self) -> Vec<plan::Candidate> {
        let candidate = |id: &NodeId| plan::Candidate { id: *id, zone: String::new(), replicas: 0, leaders: 0 };
        self.founders.iter().map(candidate).collect()
    }

    pub fn wake(&mut self, core: &mut Core, at: At) -> u64 {
        if self.asked.is_some_and(|(_, until)| until <= at) {
            self.asked = None;
            core.control = None;
        }
        if self.todo.is_empty() && !core.last_call && core.random.chance(60) {
            self.something(core);
        }
        if self.asked.is_none()
            && self.again <= at
            && let Some(command) = self.todo.first()
        {
            let node = core.control.unwrap_or_else(|| core.any_node());
            let ticket = core.ask(node, Request::Propose(command.clone()));
            self.asked = Some((ticket, Core::deadline(at)));
        }
        20_000
    }

    /// Said by a leader; it says so again until the state has it.
    pub fn finished(&mut self, tp: TopicPartition, replicas: Vec<NodeId>) {
        let command = Command::FinishReassignment { id: tp.topic, partition: tp.partition, replicas };
        if !self.todo.contains(&command) {
            self.todo.push(command);
        }
    }

    /// Three nodes of more than three are to have a partition of the topic that is written to.
    fn move_replicas(&mut self, core: &mut Core) {
        let Some(id) = core.state.as_ref().and_then(|state| state.topic_named(TOPIC)).map(|topic| topic.id) else {
            return;
        };
        let mut target = self.founders.clone();
        while target.len() > 3 {
            let at = core.random.place(target.len());
            target.remove(at);
        }
        let at = core.random.below(u64::from(self.partitions.unsigned_abs()));
        let partition = PartitionIndex(i32::try_from(at).unwrap_or(0));
        // Whoever left keeps its disk as it is here: what comes back to it must be right with that too.
        let topic = core.state.as_ref().and_then(|state| state.topics.get(&id));
        let left = topic.and_then(|topic| topic.leaving.get(&partition)).into_iter().flatten().copied();
        self.todo.extend(left.map(|node| Command::ReplicaDeleted { id, partition, node }));
        self.todo.push(Command::SetReplicas { id, partition, target, expected: None });
    }

    fn something(&mut self, core: &mut Core) {
        if self.founders.len() > 3 && core.random.chance(500) {
            return self.move_replicas(core);
        }
        let old = self.extra.keys().next().copied().filter(|_| self.extra.len() > 2 || core.random.chance(500));
        if let Some(id) = old {
            self.todo.push(Command::DeleteTopic { id });
        } else {
            let name = format!("extra-{}", self.made);
            let command = self.topic(&name, 1, false);
            self.todo.push(command);
        }
    }

    pub fn reply(&mut self, core: &mut Core, at: At, ticket: Ticket, reply: Reply, facts: &mut Facts) {
        if self.asked.is_none_or(|(open, _)| open != ticket) {
            return;
        }
        self.asked = None;
        self.again = at.plus_ms(10);
        let Some(command) = self.todo.first().cloned() else { return };
        match reply {
            Reply::Proposed(Ok(applied)) => self.is_done(&command, Some(&applied), facts),
            // Done by an earlier try whose answer was lost.
            Reply::Proposed(Err(ProposeFailure::Refused(
                Refused::AlreadyFormed(_)
                | Refused::TopicExists { .. }
                | Refused::TableExists { .. }
                | Refused::UnknownTopic(_),
            ))) => self.is_done(&command, None, facts),
            // Finished by an earlier try, or called off since; or a move was finished that was not when this was thought of.
            Reply::Proposed(Err(ProposeFailure::Refused(
                Refused::OtherTarget { .. } | Refused::StillDeleting { .. },
            ))) => {
                self.is_done(&command, None, facts);
            }
            Reply::Proposed(Err(ProposeFailure::Refused(refused))) => {
                facts.broken("command", format!("{command:?} was refused: {refused}"));
            }
            Reply::Proposed(Err(ProposeFailure::NotLeader(leader))) => core.control = leader,
            _ => core.control = None,
        }
    }

    fn is_done(&mut self, command: &Command, applied: Option<&Applied>, facts: &mut Facts) {
        self.todo.remove(0);
        self.done += 1;
        match command {
            Command::CreateTopic { id, name, .. } if name.starts_with("extra") => {
                self.extra.insert(*id, name.clone());
            }
            Command::DeleteTopic { id } => {
                self.extra.remove(id);
                self.deleted.insert(*id);
            }
            _ => {}
        }
        if let (Command::CreateTopic { id, .. }, Some(Applied::TopicCreated(made))) = (command, applied)
            && id != made
        {
            facts.broken("command", format!("asked for topic {id}, got {made}"));
        }
        facts.topics =
            self.extra.keys().map(|id| (*id, true)).chain(self.deleted.iter().map(|id| (*id, false))).collect();
    }

    pub fn waits_for(&self, _core: &Core) -> Option<String> {
        self.todo.first().map(|command| format!("the administrator waits for {command:?}"))
    }

    pub fn summary(&self) -> String {
        format!("{} admin commands", self.done)
    }
}
