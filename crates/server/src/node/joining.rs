//! How this node becomes a member of a cluster that is there, and how this one lets another in.
//!
//! A newcomer asks a member (`cluster.join`): who it is, with which disk, where it is reached, what its clock says. The
//! member has the metadata register it, and tells it the cluster's id and the voters of the control group's first entry,
//! which it must begin with to understand that group's log. From then on every member speaks with it; it follows the
//! metadata, and whether it gets a vote is the active master's to decide (`node/duties.rs`).
//!
//! What always holds: a number belongs to one disk; asking twice is asking once; a node with data of its own does not ask.

use std::path::Path;
use std::time::Duration;

use base::{ClusterId, DiskId, NodeId, Timestamp};
use bytes::Bytes;
use control::{Command, NodeAddresses, Refused, plan};
use serde::{Deserialize, Serialize};

use super::membership;
use super::router::Router;
use super::time;
use crate::config::Config;
use crate::shell::meta::{MetaError, MetaHandle};
use crate::shell::peers::{HandshakeError, Refusal, RefusalCode, Security, enter};
use crate::shell::security;

/// Between two rounds of asking all of `cluster.join`.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait for the metadata before this node serves.
const INFORMED_WAIT: Duration = Duration::from_secs(10);
/// The same trouble is said again after so many rounds.
const SAY_EVERY: u32 = 10;
/// A newcomer's clock may differ by so much from that of the member it asks. Nothing acknowledged depends on wall clocks
/// (leases count elapsed time), but retention, times given by LogAppendTime and certificates do.
pub const CLOCK_DIFFERENCE_MS_MAX: i64 = 5_000;

/// What a newcomer says of itself. JSON; unknown fields are passed over.
#[derive(Debug, Serialize, Deserialize)]
struct Newcomer {
    disk: DiskId,
    addresses: NodeAddresses,
    #[serde(default)]
    zone: String,
    #[serde(default)]
    version: String,
    /// The cluster it is of already, if any.
    #[serde(default)]
    cluster: Option<ClusterId>,
    wall_ms: i64,
}

/// What it is told. JSON as well.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entered {
    pub cluster: ClusterId,
    pub first_voters: Vec<NodeId>,
}

/// Why the node could not join. It did not start.
#[derive(Debug, thiserror::Error)]
#[error("node {member} at {address}, asked to let this node in (cluster.join): {reason}")]
pub struct JoinError {
    member: NodeId,
    address: String,
    reason: String,
}

/// True if the folder has had metadata before.
pub fn has_metadata(data_dir: &Path) -> bool {
    std::fs::read_dir(data_dir.join("control")).is_ok_and(|mut entries| entries.next().is_some())
}

/// Asks the members in `cluster.join` in turn, until one of them lets this node in or says why not.
///
/// # Errors
/// A member's reason, which asking again does not change.
pub async fn ask(config: &Config, disk: DiskId, security: &Security) -> Result<Entered, JoinError> {
    let mut round: u32 = 0;
    loop {
        for (member, address) in &config.cluster.join.0 {
            let error = |reason: String| JoinError { member: *member, address: address.to_string(), reason };
            let newcomer = Newcomer {
                disk,
                addresses: membership::addresses(config),
                zone: config.cluster.zone.clone().unwrap_or_default(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                cluster: security::cluster(&config.security_dir()).ok(),
                wall_ms: time::wall().0,
            };
            let body = serde_json::to_vec(&newcomer).map_err(|failed| error(failed.to_string()))?;
            let asked = enter::enter(&address.to_string(), *member, security, NodeId(config.node.id), body).await;
            let trouble = match asked {
                Ok(body) => return serde_json::from_slice(&body).map_err(|failed| error(failed.to_string())),
                Err(HandshakeError::Refused(refusal)) if refusal.code != RefusalCode::NotYet => {
                    return Err(error(refusal.text));
                }
                Err(trouble) => trouble,
            };
            if round.is_multiple_of(SAY_EVERY) {
                tracing::warn!(%member, %address, %trouble, "waiting to be let in by a member of the cluster");
            }
        }
        round = round.wrapping_add(1);
        tokio::time::sleep(RETRY).await;
    }
}

/// Waits until this node's metadata has come as far as where it was let in, so that it answers for what there is; a while.
pub async fn informed(config: &Config, meta: &MetaHandle) {
    if config.cluster.join.0.is_empty() {
        return;
    }
    let mut states = meta.watch();
    let known = states.wait_for(|state| state.nodes.contains_key(&NodeId(config.node.id)));
    if tokio::time::timeout(INFORMED_WAIT, known).await.is_err() {
        tracing::warn!("the cluster's metadata has not come yet: until it does this node knows of no topics");
    }
}

/// Lets nodes in, from now on.
pub fn serve(router: &Router, meta: &MetaHandle) {
    let meta = meta.clone();
    router.on_enter(move |node, body| {
        let meta = meta.clone();
        async move { admit(&meta, node, &body).await }
    });
}

async fn admit(meta: &MetaHandle, node: NodeId, body: &Bytes) -> Result<Bytes, Refusal> {
    let refuse = |code, text: String| Err(Refusal::new(code, text));
    let newcomer: Newcomer = match serde_json::from_slice(body) {
        Ok(newcomer) => newcomer,
        Err(error) => return refuse(RefusalCode::Malformed, format!("what it says of itself cannot be read: {error}")),
    };
    let state = meta.state();
    let Some(cluster) = state.cluster else {
        return refuse(RefusalCode::NotYet, "this node's own cluster has not been formed yet: ask again".into());
    };
    if let Some(theirs) = newcomer.cluster.filter(|theirs| *theirs != cluster) {
        let text = format!(
            "node {node} has a certificate of cluster {theirs}, and this is cluster {cluster}: correct cluster.join, or \
             run `seawall cluster join` with a token of this cluster"
        );
        return refuse(RefusalCode::Cluster, text);
    }
    check_clock(node, newcomer.wall_ms, time::wall())?;
    let known = state.nodes.contains_key(&node);
    if !known && state.members().count() >= plan::LEARNERS_MAX {
        let text = format!("the cluster has as many nodes as it may have, {}: remove one", plan::LEARNERS_MAX);
        return refuse(RefusalCode::Other, text);
    }
    let Newcomer { disk, addresses, zone, version, .. } = newcomer;
    let at = time::wall();
    match meta.propose(Command::RegisterNode { id: node, disk, addresses, zone, version, at }).await {
        Ok(_) => {}
        Err(MetaError::Refused(refused @ (Refused::OtherDisk { .. } | Refused::DiskInUse { .. }))) => {
            return refuse(RefusalCode::OtherDisk, refused.to_string());
        }
        Err(MetaError::Refused(refused)) => return refuse(RefusalCode::Identity, refused.to_string()),
        Err(error) => return refuse(RefusalCode::NotYet, error.to_string()),
    }
    let state = meta.state();
    let first = if state.first_voters.is_empty() { &state.founders } else { &state.first_voters };
    let entered = Entered { cluster, first_voters: first.iter().copied().collect() };
    serde_json::to_vec(&entered).map(Bytes::from).map_err(|error| Refusal::new(RefusalCode::Other, error.to_string()))
}

fn check_clock(node: NodeId, theirs_ms: i64, ours: Timestamp) -> Result<(), Refusal> {
    let ahead_ms = theirs_ms.saturating_sub(ours.0);
    if ahead_ms.saturating_abs() <= CLOCK_DIFFERENCE_MS_MAX {
        return Ok(());
    }
    let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
    let text = format!(
        "the clock of node {node} is {} ms {side} this one's, and {CLOCK_DIFFERENCE_MS_MAX} ms are allowed: have both set \
         by the same time servers, then start it again",
        ahead_ms.saturating_abs()
    );
    Err(Refusal::new(RefusalCode::Other, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_by_how_much() {
        let now = Timestamp(1_000_000);
        assert!(check_clock(NodeId(4), 1_005_000, now).is_ok() && check_clock(NodeId(4), 995_000, now).is_ok());
        let ahead = check_clock(NodeId(4), 1_060_000, now).unwrap_err().text;
        assert!(ahead.contains("the clock of node 4 is 60000 ms ahead of this one's, and 5000 ms"), "{ahead}");
        assert!(check_clock(NodeId(4), i64::MIN, now).unwrap_err().text.contains("ms behind this one's"));
    }
}
