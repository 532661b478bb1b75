//! The cluster as this node sees it: its nodes, its active master, its partitions; and handing the master's duties over.

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base::{NodeId, PartitionIndex, TopicPartition};
use control::NodeMode;
use serde::Deserialize;
use serde_json::{Value, json};
use store::calendar::format_iso;

use super::body;
use super::context::Context;
use super::error::Problem;
use crate::node::{Node, refound, time};
use crate::shell::peers::LinkStatus;

pub fn routes(context: Context) -> Router {
    Router::new()
        .route("/api/v1/cluster", get(cluster))
        .route("/api/v1/cluster/transfer-leader", post(transfer))
        .route("/api/v1/cluster/recovery", get(recovery))
        .route("/api/v1/cluster/backup", get(backup))
        .route("/api/v1/cluster/acknowledge", post(acknowledge))
        .route("/api/v1/cluster/drain", post(drain))
        .route("/api/v1/cluster/undrain", post(undrain))
        .route("/api/v1/cluster/decommission", post(decommission))
        .route("/api/v1/cluster/remove", post(remove))
        .with_state(context)
}

async fn cluster(State(context): State<Context>) -> Json<Value> {
    let node = &context.node;
    let mut cluster = view(node);
    let links = node.peers().map(|peers| peers.links()).unwrap_or_default();
    for member in cluster["nodes"].as_array_mut().into_iter().flatten() {
        let id = member["node"].as_u64().and_then(|id| u32::try_from(id).ok()).map(NodeId);
        if let Some(id) = id.filter(|_| member["replicas_left"].is_u64()) {
            member["bytes_left"] = node.stored_bytes_of(id).await.into();
        }
    }
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
    let progress = node.progress();
    let vote = |id: &NodeId| match () {
        () if master.voters.contains(id) => "voter",
        () if master.learners.contains(id) => "learner",
        () => "none",
    };
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
                "vote": vote(&id),
                "replicas_left": progress.get(&id).map(|progress| progress.replicas_left),
                "to_delete": progress.get(&id).map(|progress| progress.to_delete),
                "blocked": progress.get(&id).and_then(|progress| progress.stuck.as_ref()).map(ToString::to_string),
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
            "learners": numbers(&master.learners),
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
        "refoundings": state.refoundings.iter().map(|act| refounding(&state, act)).collect::<Vec<_>>(),
        "safe_to_restart_next": is_safe,
        "why": why,
    })
}

/// A time the cluster was begun anew.
fn refounding(state: &control::State, act: &control::Refounding) -> Value {
    let names = |partitions: &[TopicPartition]| {
        let name = |at: &TopicPartition| {
            let topic = state.topics.get(&at.topic).map_or_else(|| at.topic.to_string(), |topic| topic.name.clone());
            format!("{topic}-{}", at.partition)
        };
        partitions.iter().map(name).collect::<Vec<_>>()
    };
    json!({
        "id": act.id.to_string(),
        "at": format_iso(act.at),
        "seed": act.seed.0,
        "up_to_entry": act.index.0,
        "lost": act.lost.iter().map(|node| node.0).collect::<Vec<_>>(),
        "empty": names(&act.empty),
        "empty_count": act.empty_count,
        "from_one_copy": names(&act.forced),
        "from_one_copy_count": act.forced_count,
        "text": refound::in_words(act),
        "acknowledged": act.acknowledged.map(format_iso),
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

/// Groups that cannot decide, and for want of whom.
async fn recovery(State(context): State<Context>) -> Json<Value> {
    let node = &context.node;
    let (groups, count) = node.undecided_groups();
    let groups: Vec<Value> = groups
        .iter()
        .map(|group| {
            json!({
                "group": group.name,
                "voters": numbers(&group.voters),
                "missing": numbers(&group.missing),
                "needed": group.needed(),
                "here": group.here,
            })
        })
        .collect();
    let leaderless_ms = node.master().leaderless_since.map(|since| time::now().since(since));
    Json(
        json!({"node": node.id().0, "undecided": count, "metadata_leaderless_for_ms": leaderless_ms, "groups": groups}),
    )
}

/// The metadata at one committed entry, as docs/formats/backup.md draws it.
async fn backup(State(context): State<Context>) -> Result<Response, Problem> {
    let backup = context.node.backup().await.map_err(|error| Problem(error.into()))?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], backup.encode()).into_response())
}

/// Somebody has seen that the cluster was begun anew, and what that cost.
async fn acknowledge(State(context): State<Context>) -> Result<Response, Problem> {
    let count = context.node.acknowledge_refoundings().await.map_err(|error| Problem(error.into()))?;
    Ok(Json(json!({"acknowledged": count})).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    node: u32,
}

async fn drain(State(context): State<Context>, request: Body) -> Result<Response, Problem> {
    set_mode(&context, request, NodeMode::Draining).await
}

async fn undrain(State(context): State<Context>, request: Body) -> Result<Response, Problem> {
    set_mode(&context, request, NodeMode::Active).await
}

async fn decommission(State(context): State<Context>, request: Body) -> Result<Response, Problem> {
    set_mode(&context, request, NodeMode::Leaving).await
}

async fn remove(State(context): State<Context>, request: Body) -> Result<Response, Problem> {
    set_mode(&context, request, NodeMode::Gone).await
}

/// Answers when it is committed; what follows from it is seen in `/api/v1/cluster`.
async fn set_mode(context: &Context, request: Body, mode: NodeMode) -> Result<Response, Problem> {
    let Which { node } = body::read_json(request).await.map_err(Problem)?;
    context.node.set_node_mode(NodeId(node), mode).await.map_err(|error| Problem(error.into()))?;
    Ok(Json(json!({"node": node, "mode": format!("{mode:?}").to_lowercase()})).into_response())
}
