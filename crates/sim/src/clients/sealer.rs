//! What carries a partition's committed records into segments, on the node that leads it: publishes ranges.

use std::collections::BTreeMap;

use base::{NodeId, Offset, Timestamp, TopicPartition};
use control::{Command, Interval, NewSegment, SegmentId};
use quorum::Role;
use uuid::Uuid;

use super::admin::TABLE;
use super::{Core, TOPIC};
use crate::node::{Node, ProposeFailure, Reply, Request, Ticket};
use crate::time::At;

/// See the module.
pub(crate) struct Sealer {
    node: u32,
    asked: Option<(Ticket, At)>,
    made: u64,
}

impl Sealer {
    pub const fn new(node: u32) -> Self {
        Self { node, asked: None, made: 0 }
    }

    pub fn wake(&mut self, core: &mut Core, at: At, nodes: &BTreeMap<u32, Node>) -> u64 {
        if self.asked.is_some_and(|(_, until)| until <= at) {
            self.asked = None;
        }
        let node = nodes.get(&self.node).filter(|node| node.paused_until <= at);
        if self.asked.is_none()
            && let Some(command) = node.and_then(|node| self.publish(core, node))
        {
            let leader = node.and_then(|node| node.process.as_ref()?.meta.group.leader());
            let to = leader.unwrap_or(NodeId(self.node));
            self.asked = Some((core.ask(to, Request::Propose(command)), Core::deadline(at)));
        }
        core.random.range(100_000, 400_000)
    }

    fn publish(&mut self, core: &mut Core, node: &Node) -> Option<Command> {
        let process = node.process.as_ref()?;
        let state = &process.meta.state;
        let table = state.tables.get(&TABLE)?;
        let topic = state.topic_named(TOPIC)?;
        let leads = |tp: &&TopicPartition| {
            process.logs.get(tp).is_some_and(|log| log.partition.role() == Role::Leader && tp.topic == topic.id)
        };
        let led: Vec<TopicPartition> = process.logs.keys().filter(leads).copied().collect();
        let tp = *core.random.pick(&led)?;
        let partition = &process.logs.get(&tp)?.partition;
        let (from, committed) = (table.published(tp.partition), partition.committed());
        if from >= committed {
            return None;
        }
        let rows = core.random.range(1, (committed.0 - from.0).unsigned_abs());
        let to = Offset(from.0 + i64::try_from(rows).unwrap_or(1));
        self.made += 1;
        let number = u128::from(node.id.0) << 96 | u128::from(node.life) << 64 | u128::from(self.made);
        let segment = NewSegment {
            id: SegmentId(Uuid::from_u128(number)),
            interval: Interval { start: Timestamp(0), end: Timestamp(3_600_000) },
            rows,
            size_bytes: 100,
            checksum: 0,
            path: number.to_string(),
        };
        Some(Command::PublishSegments {
            table: TABLE,
            partition: tp.partition,
            from,
            to,
            term: partition.term(),
            segments: vec![segment],
            published: Timestamp(1),
        })
    }

    pub fn reply(&mut self, core: &mut Core, _at: At, ticket: Ticket, reply: Reply) {
        if self.asked.is_some_and(|(open, _)| open == ticket) {
            self.asked = None;
        }
        if let Reply::Proposed(Err(ProposeFailure::NotLeader(leader))) = reply {
            core.control = leader;
        }
    }
}
