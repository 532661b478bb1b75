//! The event loop: nodes, links, clients, the nemesis and the checkers, in one order that follows from the seed.

use std::collections::BTreeMap;

use base::NodeId;
use base::disk::memory::MemDisk;
use bytes::Bytes;
use quorum::{Message, QuorumError};

use crate::clients::{ClientCall, Clients};
use crate::facts::{Facts, View};
use crate::nemesis::{Death, Undo};
use crate::network::{Network, Port};
use crate::node::{Acked, Effects, GroupName, Node, Reply, Request, SyncOf, Ticket};
use crate::plan::Plan;
use crate::random::Random;
use crate::time::{At, Clock};
use crate::trace::{Trace, Violation};

/// Ticks of a group are this far apart.
pub(crate) const TICK_MS: u64 = 25;
const DISK_BYTES: u64 = 64 << 20;
/// Once faults have ended, this often it is asked whether everything has healed.
const HEALED_CHECK_MS: u64 = 100;
/// Events of one run; more means that something spins.
const EVENTS_MAX: u64 = 3_000_000;
const WALL_START_MS: i64 = 1_700_000_000_000;

/// What may happen next.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Tick { node: u32, life: u64 },
    Deliver { to: u32, group: GroupName, bytes: Bytes },
    LinkLost { node: u32, peer: u32 },
    Unreachable { node: u32, life: u64, group: GroupName, peer: u32 },
    Synced { node: u32, life: u64, what: SyncOf },
    Request { node: u32, ticket: Ticket, request: Box<Request> },
    Reply { ticket: Ticket, reply: Box<Reply> },
    Wake { client: u32 },
    Fault,
    Undo(Undo),
    Heal,
    CheckHealed,
}

/// See the module.
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) at: At,
    pub(crate) trace: Trace,
    pub(crate) facts: Facts,
    pub(crate) network: Network,
    pub(crate) nodes: BTreeMap<u32, Node>,
    pub(crate) clients: Clients,
    pub(crate) nemesis: Random,
    pub(crate) faults: u64,
    pub(crate) healing_since: Option<At>,
    /// When all was well again, and how long it had taken.
    pub(crate) healed: Option<At>,
    /// When the last thing sent over each connection of a client arrives.
    connections: BTreeMap<(Port, Port), At>,
    events: BTreeMap<(At, u64), Event>,
    sequence: u64,
    chance: Random,
}

/// What became of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    pub violation: Option<Violation>,
    pub hash: u64,
    pub events: u64,
    /// From the end of the faults to all being well.
    pub healed_ms: Option<u64>,
    pub summary: String,
    /// The last lines of the trace, if it was recorded.
    pub tail: Vec<String>,
}

impl World {
    #[must_use]
    pub fn new(plan: Plan, recording: bool) -> Self {
        let mut random = Random::new(plan.seed);
        let network = Network::new(plan.usual, random.fork(1));
        let founders: Vec<NodeId> = (1..=plan.nodes).map(NodeId).collect();
        let mut drawn = random.fork(2);
        let nodes = founders.iter().map(|id| {
            let drift = i64::try_from(drawn.range(0, 2 * plan.drift_ppm_max)).unwrap_or(0)
                - i64::try_from(plan.drift_ppm_max).unwrap_or(0);
            let clock = Clock::new(drift, drawn.range(1_000, 90_000), WALL_START_MS);
            let disk = MemDisk::new(drawn.next(), DISK_BYTES);
            let mut node = Node::new(*id, clock, disk, &founders, drawn.next(), plan.bug);
            node.sync_us = plan.sync_us;
            (id.0, node)
        });
        let nodes: BTreeMap<u32, Node> = nodes.collect();
        let clients = Clients::new(&plan, random.fork(3));
        let mut world = Self {
            at: At(0),
            trace: Trace::new(recording),
            facts: Facts::default(),
            network,
            nodes,
            clients,
            nemesis: random.fork(4),
            faults: 0,
            healing_since: None,
            healed: None,
            connections: BTreeMap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            chance: random.fork(5),
            plan,
        };
        for id in world.node_ids() {
            world.start(id);
        }
        for client in world.clients.ids() {
            let wait_us = world.chance.below(50_000);
            world.after_us(wait_us, Event::Wake { client });
        }
        world.after_us(1_500_000, Event::Fault);
        let chaos_ms = world.plan.chaos_ms;
        world.later(chaos_ms, Event::Heal);
        world
    }

    /// Runs to the end: the first broken promise, or all being well after the faults.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        while self.facts.violation.is_none() && self.healed.is_none() {
            let Some(((at, _), event)) = self.events.pop_first() else { break };
            self.at = at;
            self.happen(event);
            if self.trace.events() > EVENTS_MAX {
                self.facts.broken("ends", format!("{EVENTS_MAX} events and no end"));
            }
        }
        let healed_ms = self.healed.zip(self.healing_since).map(|(healed, since)| healed.since_us(since) / 1_000);
        Outcome {
            seed: self.plan.seed,
            hash: self.trace.hash(),
            events: self.trace.events(),
            healed_ms,
            summary: self.summary(),
            tail: self.trace.tail(usize::MAX),
            violation: self.facts.violation,
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some(node) = event_node(&event)
            && let Some(until) = self.nodes.get(&node).map(|node| node.paused_until).filter(|until| *until > self.at)
        {
            return self.at_time(until, event);
        }
        match event {
            Event::Tick { node, life } => self.tick(node, life),
            Event::Deliver { to, group, bytes } => self.deliver(to, group, &bytes),
            Event::LinkLost { node, peer } => self.act(node, |node, at| node.link_lost(at, NodeId(peer))),
            Event::Unreachable { node, life, group, peer } => {
                if self.node(node).life == life {
                    self.node(node).report_unreachable(group, NodeId(peer));
                }
            }
            Event::Synced { node, life, what } => {
                if self.node(node).life == life {
                    self.trace.event(self.at, &[0x5c, u64::from(node)], || format!("{node} synced {what:?}"));
                    self.act(node, |node, at| node.synced(at, what));
                }
            }
            Event::Request { node, ticket, request } => self.request(node, ticket, *request),
            Event::Reply { ticket, reply } => {
                self.trace.event(self.at, &[0x4e, ticket.0], || {
                    format!("client {}.{} gets {}", ticket.client(), ticket.0 & 0xffff, short(&reply))
                });
                let at = self.at;
                let calls = self.clients.reply(at, ticket, *reply, &mut self.facts);
                self.client_calls(calls);
            }
            Event::Wake { client } => {
                let at = self.at;
                let calls = self.clients.wake(at, client, &mut self.facts, &self.nodes);
                self.client_calls(calls);
            }
            Event::Fault => {
                if self.healing_since.is_none() {
                    self.break_something();
                    let mean = self.plan.fault_every_ms;
                    let wait_ms = self.nemesis.range(mean / 4, mean * 2);
                    self.later(wait_ms, Event::Fault);
                }
            }
            Event::Undo(undo) => {
                if self.healing_since.is_none() {
                    self.undo(&undo);
                }
            }
            Event::Heal => {
                self.heal();
                self.clients.last_call();
                self.later(HEALED_CHECK_MS, Event::CheckHealed);
            }
            Event::CheckHealed => self.check_healed(),
        }
    }

    fn tick(&mut self, id: u32, life: u64) {
        if self.node(id).life != life || !self.node(id).runs() {
            return;
        }
        let wait_us = self.node(id).clock.world_us(TICK_MS);
        self.after_us(wait_us, Event::Tick { node: id, life });
        self.act(id, Node::tick);
    }

    fn deliver(&mut self, to: u32, group: GroupName, bytes: &Bytes) {
        if !self.node(to).runs() {
            return;
        }
        let message = match Message::decode(bytes.clone()) {
            Ok(message) => message,
            Err(error) => return self.facts.broken("codec", format!("a message cannot be read back: {error}")),
        };
        let (from, term) = (u64::from(message.from().0), message.term().0);
        self.trace.event(self.at, &[0xde, u64::from(to), group.number(), from, term, bytes.len() as u64], || {
            format!("{group:?} {message}")
        });
        self.act(to, |node, at| node.step(at, group, message));
    }

    fn request(&mut self, id: u32, ticket: Ticket, request: Request) {
        self.trace.event(self.at, &[0x4f, u64::from(id), ticket.0], || {
            format!("client {}.{} asks {id}: {}", ticket.client(), ticket.0 & 0xffff, short(&request))
        });
        if !self.node(id).runs() {
            // The machine refuses the connection; one without power says nothing.
            if self.chance.chance(500) {
                self.answer(id, ticket, Reply::Refused);
            }
            return;
        }
        self.act(id, |node, at| node.request(at, ticket, request));
    }

    /// Lets a node do something, carries out what it asks for, and checks what it shows after it.
    pub(crate) fn act(&mut self, id: u32, step: impl FnOnce(&mut Node, At) -> Effects) {
        let at = self.at;
        let node = self.node(id);
        if !node.runs() {
            return;
        }
        let fx = step(node, at);
        if node.disk.is_dead() {
            // It died in the middle of it: nothing of what it wanted to say was said. But it may have begun to delete.
            let death = if node.crash_is_power { Death::Power } else { Death::Kill };
            self.note_deleted(id);
            self.trace.event(at, &[0xdd, u64::from(id)], || format!("### {id} died in the middle of a write"));
            self.die(id, death);
            let wait_ms = self.nemesis.range(20, 1_500);
            self.later(wait_ms, Event::Undo(Undo::Start(id)));
            return;
        }
        self.carry_out(id, fx);
    }

    fn carry_out(&mut self, id: u32, mut fx: Effects) {
        let life = self.node(id).life;
        for (group, error) in std::mem::take(&mut fx.refusals) {
            self.refusal(id, group, &error);
        }
        self.observe(id, &fx);
        let deleted = &self.facts.deleted;
        let acked: Vec<Acked> = fx.acked.drain(..).filter(|acked| !deleted.contains(&acked.tp.topic)).collect();
        for acked in acked {
            let result = self.facts.partitions.acked(NodeId(id), &acked, &self.facts.elections);
            self.facts.check(result);
        }
        for (group, message) in fx.sends {
            if message.grants_vote() {
                self.facts.elections.voted(group, NodeId(id), message.term());
            }
            let to = message.to().0;
            self.send(id, life, group, to, &message);
        }
        for (ticket, reply) in fx.replies {
            self.answer(id, ticket, reply);
        }
        for (tp, replicas) in fx.finished {
            self.clients.finished(tp, replicas);
        }
        for what in fx.syncs {
            let (low, high) = self.node(id).sync_us;
            let wait_us = self.chance.range(low, high);
            self.after_us(wait_us, Event::Synced { node: id, life, what });
        }
    }

    fn send(&mut self, from: u32, life: u64, group: GroupName, to: u32, message: &Message) {
        let bytes = message.encode();
        let (first, second) = self.network.send(Port::Node(from), Port::Node(to));
        for wait_us in [first, second].into_iter().flatten() {
            self.after_us(wait_us, Event::Deliver { to, group, bytes: bytes.clone() });
        }
        if first.is_none() && self.chance.chance(200) {
            self.after_us(1_000, Event::Unreachable { node: from, life, group, peer: to });
        }
    }

    fn answer(&mut self, from: u32, ticket: Ticket, reply: Reply) {
        if let Some(at) = self.in_order(Port::Node(from), Port::Client(ticket.client())) {
            self.at_time(at, Event::Reply { ticket, reply: Box::new(reply) });
        }
    }

    /// When something sent over a connection arrives: never before what was sent over it earlier.
    fn in_order(&mut self, from: Port, to: Port) -> Option<At> {
        let (arrives, _) = self.network.send(from, to);
        let before = self.connections.entry((from, to)).or_default();
        *before = (*before).max(self.at.plus_us(arrives?));
        Some(*before)
    }

    fn client_calls(&mut self, calls: Vec<ClientCall>) {
        for call in calls {
            match call {
                ClientCall::Ask { node, ticket, request } => {
                    let (from, to) = (Port::Client(ticket.client()), Port::Node(node));
                    if let Some(at) = self.in_order(from, to) {
                        self.at_time(at, Event::Request { node, ticket, request });
                    }
                }
                ClientCall::WakeAfter { client, us } => self.after_us(us, Event::Wake { client }),
            }
        }
    }

    /// A group dropped a message. Only one reason is nobody's fault: a message that came too late to make sense.
    fn refusal(&mut self, id: u32, group: GroupName, error: &QuorumError) {
        self.trace.note(self.at, || format!("{id} {group:?} refused: {error}"));
        if let QuorumError::LostEntries { .. } = error
            && !self.node(id).was_damaged
        {
            self.facts.broken("durable", format!("{group:?} on node {id}: {error}"));
        }
    }

    fn observe(&mut self, id: u32, fx: &Effects) {
        let at = self.at;
        let groups = if fx.applied { self.node(id).all_groups() } else { fx.touched.clone() };
        if fx.applied {
            self.tombstones(id);
        }
        for group in groups {
            if matches!(group, GroupName::Partition(tp) if self.facts.deleted.contains(&tp.topic)) {
                continue;
            }
            let Some(view) = self.nodes.get(&id).and_then(|node| node.view(at, group)) else { continue };
            let others = self.views(id, group);
            let elected = match self.facts.elections.observe(group, view, &others) {
                Ok(elected) => elected,
                Err(violation) => return self.facts.check(Err(violation)),
            };
            if elected {
                self.trace.event(at, &[0xe1, u64::from(id), group.number(), view.term.0], || {
                    format!("=== {id} leads {group:?} in term {}", view.term)
                });
            }
            // A node that was held up (a full disk) may show a leadership that is long over: a later leader's entries are
            // not its to have.
            let newest = elected && self.facts.elections.later_leader(group, view.term).is_none();
            let Some(node) = self.nodes.get(&id) else { return };
            let (Some(process), flipped) = (&node.process, node.was_damaged) else { return };
            let result = match group {
                GroupName::Control => self.facts.control.observe(view.node, view.life, &process.meta, newest),
                GroupName::Partition(tp) => match process.logs.get(&tp) {
                    Some(log) => self.facts.partitions.observe(tp, view, log, newest, flipped),
                    None => Ok(()),
                },
            };
            if let Err(violation) = result {
                return self.facts.check(Err(violation));
            }
        }
    }

    /// Of a topic with a committed tombstone nothing is asked any more. One without must be open.
    fn tombstones(&mut self, id: u32) {
        self.note_deleted(id);
        let Some(process) = self.nodes.get(&id).and_then(|node| node.process.as_ref()) else { return };
        let failed = process.failures.iter().find(|(tp, _)| !self.facts.deleted.contains(&tp.topic));
        if let Some((tp, why)) = failed {
            let what = format!("{tp} on node {id} cannot be opened: {why}");
            self.facts.broken("opens", what);
        }
    }

    fn note_deleted(&mut self, id: u32) {
        let Some(process) = self.nodes.get(&id).and_then(|node| node.process.as_ref()) else { return };
        self.facts.deleted.extend(process.meta.state.tombstones.keys().copied());
    }

    /// How every other node that runs has a group.
    fn views(&self, except: u32, group: GroupName) -> Vec<View> {
        let others = self.nodes.values().filter(|node| node.id.0 != except);
        others.filter_map(|node| node.view(self.at, group)).collect()
    }

    pub(crate) fn start(&mut self, id: u32) {
        let at = self.at;
        let node = self.node(id);
        if node.runs() {
            return;
        }
        node.paused_until = At(0);
        let started = node.start(at);
        let (life, ops) = (node.life, node.disk.ops());
        self.trace.event(at, &[0x57, u64::from(id), life, ops], || format!("### {id} starts: {started:?}"));
        if self.node(id).disk.is_dead() {
            let death = Death::Power;
            self.die(id, death);
            return self.later(50, Event::Undo(Undo::Start(id)));
        }
        match started {
            Ok(()) => {
                let wait_us = self.chance.below(TICK_MS * 1_000);
                self.after_us(wait_us, Event::Tick { node: id, life });
                self.observe(id, &Effects { applied: true, ..Effects::default() });
            }
            Err(why) => self.facts.broken("starts", format!("node {id} cannot start: {why}")),
        }
    }

    pub(crate) fn die(&mut self, id: u32, death: Death) {
        self.trace.event(self.at, &[0xd1, u64::from(id)], || format!("### {id} dies: {death:?}"));
        let power = death == Death::Power;
        if power || self.node(id).stopped() {
            self.facts.partitions.unsynced_lost(NodeId(id));
        }
        self.node(id).stop(power);
        if death == Death::Kill {
            // The kernel closes the connections: the others hear of it.
            for peer in self.node_ids().into_iter().filter(|peer| *peer != id) {
                if let (Some(wait_us), _) = self.network.send(Port::Node(id), Port::Node(peer)) {
                    self.after_us(wait_us, Event::LinkLost { node: peer, peer: id });
                }
            }
        }
    }

    pub(crate) fn transfer(&mut self, to: u32) {
        let at = self.at;
        let groups: Vec<(u32, GroupName)> = self
            .nodes
            .values()
            .flat_map(|node| node.all_groups().into_iter().map(|group| (node.id.0, group)).collect::<Vec<_>>())
            .filter(|(id, group)| {
                let view = self.nodes.get(id).and_then(|node| node.view(at, *group));
                view.is_some_and(|view| view.role == quorum::Role::Leader) && *id != to
            })
            .collect();
        if let Some((from, group)) = self.nemesis.pick(&groups).copied() {
            self.trace.note(at, || format!("### {group:?} from {from} to {to}"));
            self.act(from, |node, at| node.transfer(at, group, NodeId(to)));
        }
    }

    fn check_healed(&mut self) {
        let since = self.healing_since.unwrap_or_default();
        match self.what_is_wrong() {
            None => {
                let result = self.facts.finish(&self.nodes);
                self.facts.check(result);
                self.healed = Some(self.at);
            }
            Some(what) if self.at.since_us(since) > self.plan.heal_ms_max * 1_000 => {
                self.facts.broken("heals", format!("{} ms after the last fault {what}", self.plan.heal_ms_max));
            }
            Some(what) => {
                self.trace.note(self.at, || format!("not healed: {what}"));
                if !self.all_vote() {
                    let ids = self.node_ids();
                    self.ask_members(&ids);
                }
                self.later(HEALED_CHECK_MS, Event::CheckHealed);
            }
        }
    }

    /// Every node has a vote in group 0, as every node that leads it knows.
    fn all_vote(&self) -> bool {
        let members = self.nodes.values().filter_map(|node| Some(node.process.as_ref()?.meta.group.members()));
        members.into_iter().all(|members| members.voters.len() == self.nodes.len() && !members.is_joint())
    }

    /// What keeps all from being well.
    fn what_is_wrong(&self) -> Option<String> {
        if !self.all_vote() {
            return Some("not every node has a vote in group 0".to_owned());
        }
        for node in self.nodes.values() {
            if !node.runs() {
                return Some(format!("node {} is down", node.id));
            }
            if node.stopped() {
                return Some(format!("node {} has stopped: {}", node.id, node.why_stopped()));
            }
        }
        self.facts.whole(&self.nodes).or_else(|| self.clients.waits_for(&self.facts))
    }

    pub(crate) fn node(&mut self, id: u32) -> &mut Node {
        self.nodes.get_mut(&id).expect("nodes are never removed")
    }

    pub(crate) fn node_ids(&self) -> Vec<u32> {
        self.nodes.keys().copied().collect()
    }

    /// A node to be hurt; a leader more often than chance would.
    pub(crate) fn some_node(&mut self) -> u32 {
        let ids = self.node_ids();
        if self.nemesis.chance(400) {
            let at = self.at;
            let leads = |node: &&Node| {
                node.all_groups()
                    .into_iter()
                    .any(|group| node.view(at, group).is_some_and(|view| view.role == quorum::Role::Leader))
            };
            let leaders: Vec<u32> = self.nodes.values().filter(leads).map(|node| node.id.0).collect();
            if let Some(id) = self.nemesis.pick(&leaders) {
                return *id;
            }
        }
        self.nemesis.pick(&ids).copied().unwrap_or(1)
    }

    pub(crate) fn later(&mut self, ms: u64, event: Event) {
        self.after_us(ms * 1_000, event);
    }

    fn after_us(&mut self, us: u64, event: Event) {
        self.at_time(self.at.plus_us(us), event);
    }

    fn at_time(&mut self, at: At, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    fn summary(&self) -> String {
        format!(
            "{} ms, {} faults, {} elections, {} commands, {}, {}, {}",
            self.at.ms(),
            self.faults,
            self.facts.elections.count,
            self.facts.control.committed_count(),
            self.facts.partitions.summary(),
            self.facts.groups.summary(),
            self.clients.summary(),
        )
    }
}

/// Whose process has to take the event, if it is a node's.
const fn event_node(event: &Event) -> Option<u32> {
    match event {
        Event::Tick { node, .. }
        | Event::LinkLost { node, .. }
        | Event::Unreachable { node, .. }
        | Event::Synced { node, .. }
        | Event::Request { node, .. } => Some(*node),
        Event::Deliver { to, .. } => Some(*to),
        _ => None,
    }
}

/// As a trace shows it.
fn short(thing: &impl std::fmt::Debug) -> String {
    let mut text = format!("{thing:?}");
    if let Some((at, _)) = text.char_indices().nth(240) {
        text.truncate(at);
    }
    text
}
