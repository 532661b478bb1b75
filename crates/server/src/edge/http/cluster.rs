//! The cluster as this node sees it: its nodes, its active master, its partitions; and handing the master's duties over.

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base::{NodeId, PartitionIndex, TopicPartition};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body;
use super::context::Context;
use super::error::Problem;
use crate::node::{Node, time};
use crate::shell::peers::LinkStatus;

pub fn routes(context: Context) -> Router {
    Router::new()
        .route("/api/v1/cluster", get(cluster))
        .route("/api/v1/cluster/transfer-leader", post(transfer))
        .with_state(context)
}

async fn cluster(State(context): State<Context>) -> Json<Value> {
    let node = &context.node;
    let mut cluster = view(node);
    let links = node.peers().map(|peers| peers.links()).unwrap_or_default();
    cluster["links"] = links.iter().map(link).collect::<Vec<_>>().into();
    if let Some(group) = node.meta().status().await {
        cluster["group"] = json!({
            "role": format!("{:?}", group.role).to_lowercase(),
            "term": group.term.0,
            "commit": group.commit.0,
            "last": group.last.0,
            "lease_left_ms": group.lease_left_ms,
            "matched": group.peers.iter().map(|peer| json!({"node": peer.node.0, "index": peer.matched.0})).collect::<Vec<_>>(),
        });
    }
    Json(cluster)
}

fn link(link: &LinkStatus) -> Value {
    json!({
        "node": link.node.0,
        "address": link.address,
        "state": format!("{:?}", link.state).to_lowercase(),
        "since_ms": link.since_ms,
        "reason": link.reason,
        "instance": link.instance.map(|instance| instance.to_string()),
        "disk": link.disk.map(|disk| disk.to_string()),
        "round_trip_us": link.round_trip_us,
        "last_heard_ms": link.last_heard_ms,
        "sent_bytes": link.sent_bytes,
        "received_bytes": link.received_bytes,
        "queued_bytes": link.queued_bytes,
        "dropped_frames": link.dropped_frames,
        "connects": link.connects,
        "relayed_by": link.relayed_by.map(|by| by.0),
        "passed_on": link.passed_on,
    })
}

/// Everything `cluster status` shows.
pub fn view(node: &Node) -> Value {
    let state = node.state();
    let master = node.master();
    let counted = Partitions::count(node);
    let nodes: Vec<Value> = members(node)
        .into_iter()
        .map(|id| {
            let known = state.nodes.get(&id);
            let address = |port: fn(&control::NodeAddresses) -> &control::Address| {
                known.map(|known| port(&known.addresses).to_string())
            };
            json!({
                "node": id.0,
                "state": if master.leader == Some(id) { "active" } else { "backup" },
                "up": node.is_up(id),
                "mode": known.map(|known| format!("{:?}", known.mode).to_lowercase()),
                "zone": known.map(|known| known.zone.clone()),
                "version": known.map(|known| known.version.clone()),
                "kafka": address(|all| &all.kafka),
                "http": address(|all| &all.http),
                "postgres": address(|all| &all.postgres),
                "peer": address(|all| &all.peer),
                "replicas": counted.replicas_of(id),
                "leads": counted.led_by(id),
            })
        })
        .collect();
    let (is_safe, why) = safe_to_restart(node, &counted);
    json!({
        "cluster_id": state.cluster.map(|id| id.to_string()),
        "node": node.id().0,
        "master": {
            "node": master.leader.map(|leader| leader.0),
            "term": master.term.0,
            "is_this_node": master.is_active,
            "voters": numbers(&master.voters),
            "missing": numbers(&master.missing),
            "leaderless_for_ms": master.leaderless_since.map(|since| time::now().since(since)),
            "applied": state.applied.0,
        },
        "nodes": nodes,
        "partitions": {
            "total": counted.all.len(),
            "without_leader": counted.without_leader(),
            "with_replicas_out_of_reach": counted.all.iter().filter(|one| one.out_of_reach > 0).count(),
            "under_replicated": counted.under_replicated(),
        },
        "safe_to_restart_next": is_safe,
        "why": why,
    })
}

/// Whether a node may be stopped now without anybody waiting for longer than an election, and why (not).
pub fn safe_to_restart(node: &Node, counted: &Partitions) -> (bool, String) {
    let members = members(node);
    let down: Vec<String> = members.iter().filter(|id| !node.is_up(**id)).map(ToString::to_string).collect();
    if members.len() < 3 {
        return (
            false,
            "there are no other nodes: clients wait while it restarts; nothing acknowledged is lost".into(),
        );
    }
    if !down.is_empty() {
        return (false, format!("node {} cannot be reached: another one less may be one too many", down.join(", ")));
    }
    if node.master().leader.is_none() || counted.without_leader() > 0 {
        return (false, format!("{} partitions and the control group are being led anew", counted.without_leader()));
    }
    if counted.under_replicated() > 0 {
        let count = counted.under_replicated();
        return (false, format!("{count} partitions have replicas that are not up to date yet: wait for them"));
    }
    (true, "every node is up and every partition is led: one node at a time may be restarted".into())
}

/// Nodes that registered or vote.
fn members(node: &Node) -> Vec<NodeId> {
    let (state, master) = (node.state(), node.master());
    let mut all: Vec<NodeId> = state.nodes.keys().copied().chain(master.voters.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn numbers(nodes: &[NodeId]) -> Vec<u32> {
    nodes.iter().map(|node| node.0).collect()
}

/// Every partition of the cluster with its replicas and its leader.
pub struct Partitions {
    all: Vec<One>,
}

struct One {
    replicas: Vec<NodeId>,
    leader: Option<NodeId>,
    out_of_reach: usize,
    /// .. or not up to date.
    not_in_sync: usize,
}

impl Partitions {
    pub fn count(node: &Node) -> Self {
        let state = node.state();
        let partitions = state.topics.values().flat_map(|topic| {
            let id = topic.id;
            (0..topic.partitions).map(move |index| TopicPartition { topic: id, partition: PartitionIndex(index) })
        });
        let all = partitions.map(|partition| {
            let replicas = state.replicas(partition).to_vec();
            let out_of_reach = replicas.iter().filter(|replica| !node.is_up(**replica)).count();
            let behind = node.behind(partition);
            let is_behind = |replica: &NodeId| !node.is_up(*replica) || behind.contains(replica);
            let not_in_sync = replicas.iter().filter(|replica| is_behind(replica)).count();
            One { replicas, leader: node.leader_of(partition).map(|(leader, _)| leader), out_of_reach, not_in_sync }
        });
        Self { all: all.collect() }
    }

    fn replicas_of(&self, node: NodeId) -> usize {
        self.all.iter().filter(|one| one.replicas.contains(&node)).count()
    }

    fn led_by(&self, node: NodeId) -> usize {
        self.all.iter().filter(|one| one.leader == Some(node)).count()
    }

    pub fn under_replicated(&self) -> usize {
        self.all.iter().filter(|one| one.not_in_sync > 0).count()
    }

    pub fn without_leader(&self) -> usize {
        self.all.iter().filter(|one| one.leader.is_none()).count()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    to: u32,
}

async fn transfer(State(context): State<Context>, request: Body) -> Result<Response, Problem> {
    let Transfer { to } = body::read_json(request).await.map_err(Problem)?;
    context.node.transfer_master(NodeId(to)).await.map_err(|error| Problem(error.into()))?;
    Ok(Json(json!({"master": to})).into_response())
}
