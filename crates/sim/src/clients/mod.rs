//! Those who use the cluster: producers, consumers of a group, an administrator, and the sealer of each node.
//! Each wakes now and then, asks, waits for answers with a deadline, and asks again elsewhere.

mod admin;
mod member;
mod producer;
mod sealer;

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{NodeId, PartitionIndex, TopicPartition};
use control::State;

use crate::facts::Facts;
use crate::node::{Acks, Node, OFFSETS_TOPIC, Reply, Request, Ticket};
use crate::plan::Plan;
use crate::random::Random;
use crate::time::At;

/// The topic that producers write to and consumers read.
pub const TOPIC: &str = "events";
/// After this long without an answer a client asks again.
const ANSWER_MS_MAX: u64 = 1_200;
/// Producers of each kind of acknowledgement.
const KINDS: [producer::Kind; 4] = [
    producer::Kind { acks: Acks::All, idempotent: true },
    producer::Kind { acks: Acks::All, idempotent: false },
    producer::Kind { acks: Acks::Leader, idempotent: false },
    producer::Kind { acks: Acks::None, idempotent: false },
];

/// What a client wants of the world.
#[derive(Clone, Debug)]
pub enum ClientCall {
    Ask { node: u32, ticket: Ticket, request: Box<Request> },
    WakeAfter { client: u32, us: u64 },
}

/// What every client has.
pub(crate) struct Core {
    pub id: u32,
    pub random: Random,
    pub nodes: u32,
    /// What it last saw of the cluster.
    pub state: Option<Arc<State>>,
    pub leaders: BTreeMap<TopicPartition, NodeId>,
    pub control: Option<NodeId>,
    /// No new work, only what is open.
    pub last_call: bool,
    count: u32,
    describing: Option<(Ticket, At)>,
    calls: Vec<ClientCall>,
}

enum Kind {
    Producer(producer::Producer),
    Member(member::Member),
    Admin(admin::Admin),
    Sealer(sealer::Sealer),
}

struct Client {
    core: Core,
    kind: Kind,
}

/// See the module.
pub struct Clients {
    clients: BTreeMap<u32, Client>,
}

impl Clients {
    #[must_use]
    pub fn new(plan: &Plan, mut random: Random) -> Self {
        let mut kinds = vec![Kind::Admin(admin::Admin::new(plan))];
        kinds.extend(KINDS.iter().map(|kind| Kind::Producer(producer::Producer::new(*kind))));
        if random.chance(500) {
            kinds.push(Kind::Producer(producer::Producer::new(KINDS[0])));
        }
        kinds.extend((0..random.range(1, 3)).map(|_| Kind::Member(member::Member::default())));
        kinds.extend((1..=plan.nodes).map(|node| Kind::Sealer(sealer::Sealer::new(node))));
        let clients = (1..).zip(kinds).map(|(id, kind)| {
            let core = Core {
                id,
                random: random.fork(u64::from(id)),
                nodes: plan.nodes,
                state: None,
                leaders: BTreeMap::new(),
                control: None,
                last_call: false,
                count: 0,
                describing: None,
                calls: Vec::new(),
            };
            (id, Client { core, kind })
        });
        Self { clients: clients.collect() }
    }

    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        self.clients.keys().copied().collect()
    }

    pub fn wake(&mut self, at: At, id: u32, facts: &mut Facts, nodes: &BTreeMap<u32, Node>) -> Vec<ClientCall> {
        let Some(Client { core, kind }) = self.clients.get_mut(&id) else { return Vec::new() };
        let again_us = match kind {
            Kind::Producer(producer) => producer.wake(core, at),
            Kind::Member(member) => member.wake(core, at, facts),
            Kind::Admin(admin) => admin.wake(core, at),
            Kind::Sealer(sealer) => sealer.wake(core, at, nodes),
        };
        core.describe_if_needed(at);
        core.calls.push(ClientCall::WakeAfter { client: id, us: again_us });
        std::mem::take(&mut core.calls)
    }

    pub fn reply(&mut self, at: At, ticket: Ticket, reply: Reply, facts: &mut Facts) -> Vec<ClientCall> {
        let Some(Client { core, kind }) = self.clients.get_mut(&ticket.client()) else { return Vec::new() };
        if core.describing.is_some_and(|(open, _)| open == ticket) {
            core.described(reply);
        } else {
            match kind {
                Kind::Producer(producer) => producer.reply(core, at, ticket, reply, facts),
                Kind::Member(member) => member.reply(core, at, ticket, reply, facts),
                Kind::Admin(admin) => admin.reply(core, at, ticket, reply, facts),
                Kind::Sealer(sealer) => sealer.reply(core, at, ticket, reply),
            }
        }
        core.describe_if_needed(at);
        std::mem::take(&mut core.calls)
    }

    /// Faults have ended: finish what is open, and prove once more that all works.
    pub fn last_call(&mut self) {
        for client in self.clients.values_mut() {
            client.core.last_call = true;
        }
    }

    /// A move of replicas is over, as its leader says: somebody says so to group 0.
    pub fn finished(&mut self, tp: TopicPartition, replicas: Vec<NodeId>) {
        for client in self.clients.values_mut() {
            if let Kind::Admin(admin) = &mut client.kind {
                admin.finished(tp, replicas.clone());
            }
        }
    }

    /// What a client still waits for.
    #[must_use]
    pub fn waits_for(&self, facts: &Facts) -> Option<String> {
        self.clients.values().find_map(|Client { core, kind }| match kind {
            Kind::Producer(producer) => producer.waits_for(core),
            Kind::Member(member) => member.waits_for(core, facts),
            Kind::Admin(admin) => admin.waits_for(core),
            Kind::Sealer(_) => None,
        })
    }

    #[must_use]
    pub fn summary(&self) -> String {
        let admin = self.clients.values().filter_map(|client| match &client.kind {
            Kind::Admin(admin) => Some(admin.summary()),
            _ => None,
        });
        admin.collect()
    }
}

impl Core {
    /// Asks; the answer comes under the ticket, or never.
    pub fn ask(&mut self, node: NodeId, request: Request) -> Ticket {
        self.count += 1;
        let ticket = Ticket::new(self.id, self.count);
        self.calls.push(ClientCall::Ask { node: node.0, ticket, request: Box::new(request) });
        ticket
    }

    pub fn any_node(&mut self) -> NodeId {
        let nodes = u64::from(self.nodes);
        NodeId(u32::try_from(self.random.range(1, nodes)).unwrap_or(1))
    }

    pub fn deadline(at: At) -> At {
        at.plus_ms(ANSWER_MS_MAX)
    }

    /// Who leads a partition, by hearsay; someone who might know better is asked if nobody does.
    pub fn leader(&mut self, tp: TopicPartition) -> Option<NodeId> {
        self.leaders.get(&tp).copied()
    }

    /// What was believed of a partition's leader is wrong.
    pub fn not_leader(&mut self, tp: TopicPartition, instead: Option<NodeId>) {
        match instead {
            Some(node) => self.leaders.insert(tp, node),
            None => self.leaders.remove(&tp),
        };
    }

    pub fn partitions(&self, topic: &str) -> Vec<TopicPartition> {
        let Some(topic) = self.state.as_ref().and_then(|state| state.topic_named(topic)) else { return Vec::new() };
        (0..topic.partitions).map(|at| TopicPartition { topic: topic.id, partition: PartitionIndex(at) }).collect()
    }

    pub fn offsets_partition(&self) -> Option<TopicPartition> {
        self.partitions(OFFSETS_TOPIC).first().copied()
    }

    /// Asks a node what it knows, if this client lacks a topic or a leader.
    fn describe_if_needed(&mut self, at: At) {
        if self.describing.is_some_and(|(_, until)| until > at) {
            return;
        }
        let wanted = [TOPIC, OFFSETS_TOPIC].map(|topic| self.partitions(topic));
        let lacks = wanted
            .iter()
            .any(|partitions| partitions.is_empty() || partitions.iter().any(|tp| !self.leaders.contains_key(tp)));
        if lacks || self.random.chance(5) {
            let node = self.any_node();
            let ticket = self.ask(node, Request::Describe);
            self.describing = Some((ticket, at.plus_ms(150)));
        }
    }

    fn described(&mut self, reply: Reply) {
        let Reply::Described(state, leaders) = reply else { return };
        if self.state.as_ref().is_none_or(|known| known.applied <= state.applied) {
            self.state = Some(state);
        }
        self.leaders.extend(leaders);
    }
}
