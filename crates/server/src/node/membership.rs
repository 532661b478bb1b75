//! The nodes of the cluster: who they are, told to the links; this one made known; the cluster formed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, DiskId, NodeId};
use control::{Address, Command, NodeAddresses, Refused, State};
use tokio::sync::watch;
use uuid::Uuid;

use super::findings::{Finding, Findings, Severity};
use super::{refound, time};
use crate::config::Config;
use crate::shell::meta::{MasterStatus, MetaError, MetaHandle};
use crate::shell::peers::{Former, Member, Members};
use crate::shell::security;

/// Between two tries to make this node known.
const RETRY: Duration = Duration::from_millis(500);
/// After a refusal that needs a person.
const RETRY_REFUSED: Duration = Duration::from_secs(10);

/// What the links are told of the cluster.
pub struct Known {
    /// What nodes that speak with each other have in common: [`State::lineage`].
    pub cluster: watch::Sender<Option<ClusterId>>,
    /// What it was before the control plane was begun anew, and what to say to those that come with it.
    pub former: watch::Sender<Arc<Former>>,
    pub members: watch::Sender<Arc<Members>>,
}

impl Known {
    pub fn new(config: &Config) -> Self {
        let (cluster, former) = (watch::channel(None).0, watch::channel(Arc::default()).0);
        Self { cluster, former, members: watch::channel(Arc::new(configured(config))).0 }
    }

    fn update(&self, config: &Config, state: &State, master: &MasterStatus) {
        let told = former(state);
        self.former.send_if_modified(|before| {
            let changed = **before != told;
            if changed {
                *before = Arc::new(told);
            }
            changed
        });
        let lineage = state.lineage().map(ClusterId);
        self.cluster.send_if_modified(|cluster| std::mem::replace(cluster, lineage) != lineage);
        if state.cluster.is_none() {
            return;
        }
        let members = members(config, state, master, &self.members.borrow());
        self.members.send_if_modified(|before| {
            let changed = **before != members;
            if changed {
                *before = Arc::new(members);
            }
            changed
        });
    }
}

/// What is said to a node that was left out when the cluster was begun anew.
fn former(state: &State) -> Former {
    let told = |act: &control::Refounding| {
        format!(
            "{}; this was on {}, on node {}, and this node's data folder is of before. If it was to go on with the others, \
             stop it and run `seawall cluster restore --replace` on it with the file that node {} wrote then; else let it join \
             with an empty data folder and a node.id that was never used (cluster.join)",
            refound::in_words(act),
            store::calendar::format_iso(act.at),
            act.seed,
            act.seed
        )
    };
    state.former_lineages().map(|(id, act)| (ClusterId(id), told(act))).collect()
}

/// Who there is before the metadata has said so.
fn configured(config: &Config) -> Members {
    let all = config.cluster.peers.0.iter().chain(&config.cluster.join.0);
    let member =
        |address: &std::net::SocketAddr| Member { address: address.to_string(), other_address: None, disk: None };
    all.map(|(id, address)| (*id, member(address))).collect()
}

/// Who there is as the metadata has it, and those that its group has not let go yet. A node is where it registered; where
/// the configuration says it is, is tried as well: if all nodes have moved, nobody can tell the others. With
/// `cluster.fixed_addresses` the configuration alone says where.
fn members(config: &Config, state: &State, master: &MasterStatus, before: &Members) -> Members {
    let configured = configured(config);
    let group = master.voters.iter().chain(&master.learners).copied();
    let all: BTreeSet<NodeId> = state.members().chain(group).collect();
    let member = |id: NodeId| {
        let written = configured.get(&id).map(|member| member.address.clone());
        let Some(node) = state.nodes.get(&id) else {
            return configured.get(&id).or_else(|| before.get(&id)).cloned();
        };
        let registered = node.addresses.peer.to_string();
        let (address, other_address) = match written {
            Some(written) if config.cluster.fixed_addresses => (written, None),
            written => (registered.clone(), written.filter(|written| *written != registered)),
        };
        Some(Member { address, other_address, disk: Some(node.disk) })
    };
    all.into_iter().filter_map(|id| Some((id, member(id)?))).collect()
}

/// Follows the metadata for the links' sake, until the node ends.
pub fn follow(config: &Arc<Config>, disk: DiskId, meta: &MetaHandle, known: Known, findings: &Arc<Findings>) {
    let (config, meta, findings) = (Arc::clone(config), meta.clone(), Arc::clone(findings));
    let (mut states, mut masters) = (meta.watch(), meta.watch_master());
    known.update(&config, &states.borrow_and_update().clone(), &masters.borrow_and_update().clone());
    refound::tell(&meta.state(), &findings);
    tokio::spawn(async move {
        loop {
            let changed = tokio::select! {
                changed = states.changed() => changed,
                changed = masters.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            let state = Arc::clone(&states.borrow_and_update());
            let master = Arc::clone(&masters.borrow_and_update());
            known.update(&config, &state, &master);
            refound::tell(&state, &findings);
            if let Some((node, _)) = state.removed.get(&disk) {
                findings.raise("node", removed_finding(*node));
            }
        }
    });
}

fn removed_finding(node: NodeId) -> Finding {
    Finding {
        code: "node-removed",
        severity: Severity::Critical,
        title: format!("node {node} is no member of its cluster any more"),
        since: time::wall(),
        impact: vec!["log", "query", "publish"],
        cause: "it was decommissioned or removed; the others do not speak with it".into(),
        action: "stop it; its data folder can be deleted. To come back it starts with an empty one and another node.id"
            .into(),
    }
}

/// Forms the cluster if that is this node's to do, and makes this node known with its disk and addresses.
/// Returns when both are done.
///
/// # Errors
/// What group 0 said, for whoever does not want to try again.
pub async fn introduce(config: &Config, disk: DiskId, meta: &MetaHandle) -> Result<(), MetaError> {
    let is_active = meta.master().is_active;
    if meta.state().cluster.is_none() {
        if !is_active {
            return Err(MetaError::NoLeader { missing: Vec::new(), voters: config.cluster.peers.0.len() });
        }
        let founders = founders(config);
        // A cluster whose nodes have certificates got its id with them.
        let cluster = security::cluster(&config.security_dir()).unwrap_or_else(|_| ClusterId(Uuid::new_v4()));
        let form = Command::FormCluster { cluster, formed: time::wall(), founders };
        match meta.propose(form).await {
            Ok(_) | Err(MetaError::Refused(Refused::AlreadyFormed(_))) => {}
            Err(error) => return Err(error),
        }
    }
    let id = NodeId(config.node.id);
    let (addresses, zone) = (addresses(config), config.cluster.zone.clone().unwrap_or_default());
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let state = meta.state();
    let is_known = state.nodes.get(&id).is_some_and(|node| {
        node.disk == disk && node.addresses == addresses && node.zone == zone && node.version == version
    });
    if !is_known {
        meta.propose(Command::RegisterNode { id, disk, addresses, zone, version, at: time::wall() }).await?;
    }
    Ok(())
}

/// As [`introduce`], in the background, until it is done.
pub fn introduce_later(config: &Arc<Config>, disk: DiskId, meta: &MetaHandle, findings: &Arc<Findings>) {
    let (config, meta, findings) = (Arc::clone(config), meta.clone(), Arc::clone(findings));
    tokio::spawn(async move {
        loop {
            let wait = match introduce(&config, disk, &meta).await {
                Ok(()) => return findings.clear("node-refused", "node"),
                Err(MetaError::Refused(refused)) => {
                    findings.raise("node", refused_finding(&refused));
                    RETRY_REFUSED
                }
                Err(MetaError::Stopped(_)) => return,
                Err(error) => {
                    tracing::debug!(%error, "this node is not made known yet");
                    RETRY
                }
            };
            let mut changes = meta.watch_master();
            changes.mark_unchanged();
            drop(tokio::time::timeout(wait, changes.changed()).await);
        }
    });
}

/// Who founds the cluster, as this node is configured.
pub fn founders(config: &Config) -> Vec<NodeId> {
    match config.cluster.peers.0.keys().copied().collect::<Vec<_>>() {
        none if none.is_empty() => vec![NodeId(config.node.id)],
        founders => founders,
    }
}

/// Where this node is reached.
pub fn addresses(config: &Config) -> NodeAddresses {
    let own =
        |address: std::net::SocketAddr| Address { host: address.ip().to_canonical().to_string(), port: address.port() };
    let peer = config.cluster.peers.0.get(&NodeId(config.node.id)).copied().unwrap_or(config.listen.peer);
    // Listening everywhere says nothing about where others find it: where the peers do.
    let reachable = |address: std::net::SocketAddr| {
        if address.ip().is_unspecified() { Address { port: address.port(), ..own(peer) } } else { own(address) }
    };
    let advertised = config.listen.advertised_kafka.as_deref().and_then(|text| text.parse().ok());
    NodeAddresses {
        kafka: advertised.unwrap_or_else(|| reachable(config.listen.kafka)),
        http: reachable(config.listen.http),
        postgres: reachable(config.listen.postgres),
        peer: own(peer),
    }
}

fn refused_finding(refused: &Refused) -> Finding {
    Finding {
        code: "node-refused",
        severity: Severity::Critical,
        title: "the cluster does not take this node as what it says it is".into(),
        since: time::wall(),
        impact: vec!["log", "publish"],
        cause: refused.to_string(),
        action: "correct node.id or node.data_dir; in place of a lost disk a node with a new number joins".into(),
    }
}
