//! What is wrong with the cluster, said by every node as it sees it: who is out of reach, what has no leader, since when,
//! and what that will hurt next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{NodeId, PartitionIndex, Tick, Timestamp, TopicPartition};
use control::State;

use super::findings::{Finding, Severity};
use super::forecast::{Fill, Forecast};
use super::{Findings, Node, time};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// All partitions are looked at when a leadership or a node came or went, while one has no leader, and every so many looks.
const LOOKS_PER_ROUND: u32 = 100;
/// .. and this many looks after a node came or went: what it had told is forgotten then.
const NEWS_LOOKS: u32 = 40;
/// What lasts shorter than this is a hand-over or a reconnection, not news.
const NEWS_MS: u64 = 200;
/// Partitions named in a finding.
const NAMED_MAX: usize = 3;

const NODE_DOWN: &str = "node-down";
const LINK_DOWN: &str = "link-down";
const NO_MASTER: &str = "no-active-master";
const NO_LEADER: &str = "partitions-without-leader";

/// Looks until the node ends. Nothing to do for a node that is alone.
pub fn start(node: &Arc<Node>) {
    if node.peers().is_none() {
        return;
    }
    let watched = Arc::downgrade(node);
    tokio::spawn(async move {
        let mut watch = Watch::default();
        let mut round: u32 = 0;
        while let Some(node) = watched.upgrade() {
            let changes = *node.logs().leadership_changes().borrow();
            let is_news = watch.changes != changes || watch.no_leader.is_some();
            watch.changes = changes;
            if watch.look(&node, is_news || round.is_multiple_of(LOOKS_PER_ROUND)) {
                // What its silence does to who leads is known a little later.
                round = LOOKS_PER_ROUND - NEWS_LOOKS;
            }
            round = round.wrapping_add(1);
            drop(node);
            tokio::time::sleep(LOOK).await;
        }
    });
}

#[derive(Default)]
struct Watch {
    /// Since when it is so; what is over is not in it.
    down: BTreeMap<NodeId, Since>,
    relayed: BTreeMap<NodeId, Since>,
    no_leader: Option<Since>,
    no_master: Option<(Since, Forecast)>,
    /// Changes of leadership seen.
    changes: u64,
}

#[derive(Clone, Copy)]
struct Since {
    tick: Tick,
    wall: Timestamp,
}

impl Since {
    fn now() -> Self {
        Self { tick: time::now(), wall: time::wall() }
    }

    fn is_news(self) -> bool {
        time::now().since(self.tick) >= NEWS_MS
    }
}

impl Watch {
    /// True if a node came or went.
    fn look(&mut self, node: &Node, all: bool) -> bool {
        let (state, findings) = (node.state(), node.all_findings());
        let down = self.down.len();
        self.nodes(node, &state, findings);
        self.links(node, &state, findings);
        self.master(node, findings);
        if all {
            self.partitions(node, &state, findings);
        }
        down != self.down.len()
    }

    fn nodes(&mut self, node: &Node, state: &State, findings: &Findings) {
        let mut members = node.master().voters.clone();
        members.extend(state.nodes.keys());
        let down: Vec<NodeId> = members.into_iter().filter(|member| !node.is_up(*member)).collect();
        let back: Vec<NodeId> = self.down.keys().copied().filter(|known| !down.contains(known)).collect();
        for id in back {
            self.down.remove(&id);
            findings.clear(NODE_DOWN, &id.to_string());
        }
        for id in down {
            let since = *self.down.entry(id).or_insert_with(Since::now);
            if since.is_news() {
                findings.raise(&id.to_string(), node_down(id, since.wall, state));
            }
        }
    }

    /// Nodes that are reached through others: all goes on, but for each link that is missing one node more does the work.
    fn links(&mut self, node: &Node, state: &State, findings: &Findings) {
        let by = |id: NodeId| Some((id, node.peers()?.relayed_by(id)?));
        let relayed: BTreeMap<NodeId, NodeId> =
            state.nodes.keys().filter(|id| **id != node.id() && node.is_up(**id)).filter_map(|id| by(*id)).collect();
        let back: Vec<NodeId> = self.relayed.keys().copied().filter(|known| !relayed.contains_key(known)).collect();
        for id in back {
            self.relayed.remove(&id);
            findings.clear(LINK_DOWN, &id.to_string());
        }
        for (id, by) in relayed {
            let since = *self.relayed.entry(id).or_insert_with(Since::now);
            if since.is_news() {
                findings.raise(&id.to_string(), link_down(id, by, since.wall));
            }
        }
    }

    fn master(&mut self, node: &Node, findings: &Findings) {
        let master = node.master();
        if master.leader.is_some() {
            self.no_master = None;
            return findings.clear(NO_MASTER, "control");
        }
        let fill = Fill {
            live_bytes: node.live_bytes_of_fullest(),
            live_bytes_max: node.config().store.live_bytes_max.0,
            free_bytes: node.logs().free_bytes(),
            reserve_bytes: node.config().log.disk_reserve_bytes.0,
        };
        let (since, forecast) =
            *self.no_master.get_or_insert_with(|| (Since::now(), Forecast::begin(time::now(), fill)));
        if !since.is_news() {
            return;
        }
        let cause = if master.missing.is_empty() {
            "every node that votes can be reached and none has been elected yet".to_owned()
        } else {
            format!(
                "{} of {} votes are out of reach: node {}",
                master.missing.len(),
                master.voters.len(),
                named(&master.missing)
            )
        };
        findings.raise(
            "control",
            Finding {
                code: NO_MASTER,
                severity: Severity::Critical,
                title: "metadata cannot be changed: no active master; produce, fetch and queries of what is placed go on"
                    .into(),
                since: since.wall,
                impact: vec!["publish", "admin", "retention"],
                cause,
                action: format!(
                    "start these nodes or mend the links to them; nothing else is to be done, publishing catches up by itself. \
                     Stopped are creating and changing topics and tables, publishing segments, and retention: {}",
                    forecast.words(time::now(), fill)
                ),
            },
        );
    }

    fn partitions(&mut self, node: &Node, state: &State, findings: &Findings) {
        let all = state.topics.values().flat_map(|topic| {
            let place = move |index| (topic, TopicPartition { topic: topic.id, partition: PartitionIndex(index) });
            (0..topic.partitions).map(place)
        });
        let without: Vec<(String, &[NodeId])> = all
            .filter(|(_, partition)| node.leader_of(*partition).is_none())
            .map(|(topic, partition)| (format!("{}-{}", topic.name, partition.partition), state.replicas(partition)))
            .collect();
        let Some((_, replicas)) = without.first() else {
            self.no_leader = None;
            return findings.clear(NO_LEADER, "log");
        };
        let since = *self.no_leader.get_or_insert_with(Since::now);
        if !since.is_news() {
            return;
        }
        let names: Vec<&str> = without.iter().take(NAMED_MAX).map(|(name, _)| name.as_str()).collect();
        let missing: Vec<NodeId> = replicas.iter().copied().filter(|replica| !node.is_up(*replica)).collect();
        findings.raise(
            "log",
            Finding {
                code: NO_LEADER,
                severity: Severity::Critical,
                title: format!("{} partitions take no writes; what is committed of them is served", without.len()),
                since: since.wall,
                impact: vec!["log", "ingest"],
                cause: format!(
                    "{} have no leader; out of reach are their replicas on node {}",
                    names.join(", "),
                    if missing.is_empty() { "(none: an election is under way)".to_owned() } else { named(&missing) }
                ),
                action: "start these nodes or mend the links to them; writes resume by themselves with a majority"
                    .into(),
            },
        );
    }
}

fn node_down(id: NodeId, since: Timestamp, state: &State) -> Finding {
    let replicas = state.partitions_on(id).count();
    Finding {
        code: NODE_DOWN,
        severity: Severity::Warning,
        title: format!("node {id} cannot be reached from here"),
        since,
        impact: vec!["durability"],
        cause: format!("no link to it is up; it holds replicas of {replicas} partitions"),
        action: "start it or mend the link; it catches up by itself. One more node less may stop writes".into(),
    }
}

fn link_down(id: NodeId, by: NodeId, since: Timestamp) -> Finding {
    Finding {
        code: LINK_DOWN,
        severity: Severity::Warning,
        title: format!("no link to node {id} is up; node {by} passes on what goes there"),
        since,
        impact: vec!["durability"],
        cause: format!("node {by} has links to both, this node has none to node {id}"),
        action: format!("mend the link between this node and node {id}; until then node {by} must not be stopped"),
    }
}

fn named(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
