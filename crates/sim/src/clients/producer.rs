//! A producer: sends batches of unique records and sends again what was not acknowledged, as its kind may.

use std::collections::{BTreeMap, VecDeque};

use base::batch::Codec;
use base::records::BatchBuilder;
use base::{NodeId, ProducerEpoch, ProducerId, Timestamp, TopicPartition};
use bytes::Bytes;
use control::{Applied, Command};

use super::{Core, TOPIC};
use crate::facts::Facts;
use crate::node::{Acks, ProduceFailure, Reply, Request, Ticket};
use crate::time::At;

/// Batches on the way to one partition.
const IN_FLIGHT_MAX: usize = 3;
const TIME_MS: i64 = 1_600_000_000_000;

/// How a producer wants its records kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kind {
    pub acks: Acks,
    pub idempotent: bool,
}

/// See the module.
pub(crate) struct Producer {
    kind: Kind,
    id: Option<ProducerId>,
    asking_id: Option<(Ticket, At)>,
    partitions: BTreeMap<TopicPartition, Queue>,
    made: u64,
}

#[derive(Default)]
struct Queue {
    next_sequence: i32,
    open: VecDeque<Batch>,
    /// The proof, after the faults, that it can still write.
    proved: bool,
}

struct Batch {
    bytes: Bytes,
    sent: Sent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// To be sent, not before.
    Not(At),
    Under(Ticket, At, NodeId, /* first of its queue */ bool),
    /// Acknowledged before what precedes it: it keeps its place, so that the log never gets further ahead of the
    /// first than it remembers.
    Done,
}

impl Producer {
    pub const fn new(kind: Kind) -> Self {
        Self { kind, id: None, asking_id: None, partitions: BTreeMap::new(), made: 0 }
    }

    pub fn wake(&mut self, core: &mut Core, at: At) -> u64 {
        if self.kind.idempotent && self.id.is_none() {
            self.ask_id(core, at);
        } else {
            for tp in core.partitions(TOPIC) {
                self.fill(core, tp, at);
                self.send(core, tp, at);
            }
        }
        core.random.range(8_000, 60_000)
    }

    fn ask_id(&mut self, core: &mut Core, at: At) {
        if self.asking_id.is_some_and(|(_, until)| until > at) {
            return;
        }
        let node = core.control.unwrap_or_else(|| core.any_node());
        let ticket = core.ask(node, Request::Propose(Command::AllocateProducerIds { count: 10 }));
        self.asking_id = Some((ticket, Core::deadline(at)));
    }

    /// One more batch, if there is room.
    fn fill(&mut self, core: &mut Core, tp: TopicPartition, at: At) {
        let queue = self.partitions.entry(tp).or_default();
        let room = if self.kind.idempotent { IN_FLIGHT_MAX } else { 1 };
        if queue.open.len() >= room || (core.last_call && std::mem::replace(&mut queue.proved, true)) {
            return;
        }
        let count = i32::try_from(core.random.range(1, 3)).unwrap_or(1);
        let mut builder = BatchBuilder::new(Codec::None);
        if let Some(id) = self.id {
            builder = builder.producer(id, ProducerEpoch(0), queue.next_sequence);
        }
        for _ in 0..count {
            self.made += 1;
            let value = format!("{}.{}", core.id, self.made);
            builder.push(Timestamp(TIME_MS + i64::try_from(at.ms()).unwrap_or(0)), None, Some(value.as_bytes()), &[]);
        }
        queue.next_sequence += count;
        let bytes = builder.build().expect("a small batch");
        queue.open.push_back(Batch { bytes, sent: Sent::Not(at) });
    }

    fn send(&mut self, core: &mut Core, tp: TopicPartition, at: At) {
        let Some(queue) = self.partitions.get_mut(&tp) else { return };
        let Some(leader) = core.leader(tp) else { return };
        let acks = self.kind.acks;
        let idempotent = self.kind.idempotent;
        let mut first = true;
        let mut late = false;
        // Nothing is sent before what precedes it, nor while that is under way to another node.
        let mut held = false;
        queue.open.retain_mut(|batch| {
            let was_first = std::mem::replace(&mut first, false);
            match batch.sent {
                Sent::Under(_, until, ..) if until <= at => {
                    (late, held) = (true, true);
                    batch.sent = Sent::Not(at);
                    // What became of it is unknown; only an idempotent producer may send it again.
                    return idempotent;
                }
                Sent::Under(_, _, node, _) => held |= node != leader,
                Sent::Done => {}
                Sent::Not(from) if from <= at && !held => {
                    let ticket = core.ask(leader, Request::Produce { tp, acks, batch: batch.bytes.clone() });
                    batch.sent = Sent::Under(ticket, Core::deadline(at), leader, was_first);
                    return acks != Acks::None;
                }
                Sent::Not(_) => held = true,
            }
            true
        });
        if late {
            core.not_leader(tp, None);
        }
    }

    pub fn reply(&mut self, core: &mut Core, at: At, ticket: Ticket, reply: Reply, facts: &mut Facts) {
        match reply {
            Reply::Proposed(result) if self.asking_id.is_some_and(|(open, _)| open == ticket) => {
                self.asking_id = None;
                match result {
                    Ok(Applied::ProducerIds { first, .. }) => {
                        facts.control_ids.given(first).unwrap_or_else(|what| facts.broken("producer ids", what));
                        self.id = Some(ProducerId(first));
                    }
                    Err(crate::node::ProposeFailure::NotLeader(leader)) => core.control = leader,
                    _ => core.control = None,
                }
            }
            Reply::Refused if self.asking_id.is_some_and(|(open, _)| open == ticket) => {
                self.asking_id = None;
                core.control = None;
            }
            Reply::Produced(result) => self.produced(core, at, ticket, &result, facts),
            Reply::Refused => self.produced(core, at, ticket, &Err(ProduceFailure::NotLeader(None)), facts),
            _ => {}
        }
    }

    fn produced(
        &mut self,
        core: &mut Core,
        at: At,
        ticket: Ticket,
        result: &Result<base::Offset, ProduceFailure>,
        facts: &mut Facts,
    ) {
        let under = |batch: &Batch| matches!(batch.sent, Sent::Under(open, ..) if open == ticket);
        let found = self.partitions.iter_mut().find_map(|(tp, queue)| {
            let place = queue.open.iter().position(under)?;
            Some((*tp, queue, place))
        });
        let Some((tp, queue, place)) = found else { return };
        let was_first = matches!(queue.open[place].sent, Sent::Under(.., true));
        let mut keep = self.kind.idempotent;
        let mut wait_ms = 5 + core.random.below(40);
        match result {
            Ok(_) => keep = false,
            Err(ProduceFailure::NotLeader(instead)) => {
                keep = true;
                core.not_leader(tp, *instead);
            }
            Err(ProduceFailure::Busy | ProduceFailure::DiskFull) => keep = true,
            Err(ProduceFailure::Unknown | ProduceFailure::Stopped) => core.not_leader(tp, None),
            Err(ProduceFailure::OutOfOrder { expected, found }) => {
                wait_ms = 2;
                if was_first {
                    let what = format!("{tp}: {found} follows what was acknowledged, the log expects {expected}");
                    facts.broken("idempotence has no hole", what);
                }
            }
            Err(ProduceFailure::Invalid(what)) => facts.broken("append", format!("{tp}: refused a good batch: {what}")),
        }
        if keep {
            queue.open[place].sent = Sent::Not(at.plus_ms(wait_ms));
        } else {
            queue.open[place].sent = Sent::Done;
            while queue.open.front().is_some_and(|batch| matches!(batch.sent, Sent::Done)) {
                queue.open.pop_front();
            }
        }
    }

    pub fn waits_for(&self, core: &Core) -> Option<String> {
        if self.kind.acks == Acks::None {
            return None;
        }
        if self.kind.idempotent && self.id.is_none() {
            return Some(format!("producer {} has no id", core.id));
        }
        if self.partitions.is_empty() {
            return Some(format!("producer {} has found no partition", core.id));
        }
        let stuck = |(tp, queue): (&TopicPartition, &Queue)| {
            (!queue.open.is_empty() || !queue.proved)
                .then(|| format!("producer {} waits for {} batches of {tp}", core.id, queue.open.len()))
        };
        self.partitions.iter().find_map(stuck)
    }
}
