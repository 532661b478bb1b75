//! A cluster of real `seawall serve` processes on this machine, in a folder of its own.
//!
//! ```text
//! <folder>/node-1/seawall.toml, data/, server.log     one folder a node
//! <folder>/deep/                                      deep storage, common to all
//! ```
//! What always holds: a process is touched through its ports, its signals and, where a drill damages a disk, its files;
//! every wait has a bound; all processes end when the cluster is dropped.

mod node;
mod ports;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use client::{ClusterView, Connection};
use serde_json::Value;

pub use node::Node;
pub use ports::free_address;

use crate::links::{CLIENTS, Links};
use crate::{Failure, http};

/// Longest wait for a cluster that starts, for people's patience and a busy machine.
pub const START_PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for one small question.
const ASK_PATIENCE: Duration = Duration::from_millis(1_500);
/// Rest between two questions of a wait.
const ASK_PAUSE: Duration = Duration::from_millis(20);

/// Lines of a log that are shown of a process that ended.
const LAST_WORDS: usize = 8;

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Spec {
    pub nodes: u32,
    /// Further settings, the same on every node: `section.key`, value.
    pub settings: Vec<(&'static str, String)>,
    /// A zone for each node, in turn; empty: none.
    pub zones: Vec<&'static str>,
    /// Clients reach the nodes over links too.
    pub client_links: bool,
}

impl Spec {
    #[must_use]
    pub const fn of(nodes: u32) -> Self {
        Self { nodes, settings: Vec::new(), zones: Vec::new(), client_links: false }
    }
}

/// The processes and the links between them.
#[derive(Debug)]
pub struct Cluster {
    pub folder: PathBuf,
    pub links: Links,
    nodes: BTreeMap<u32, Node>,
}

impl Cluster {
    /// Chooses ports, lays the links, writes the configuration files; starts nothing.
    ///
    /// # Errors
    /// The folder cannot be written or no port is free.
    pub fn new(binary: &Path, folder: &Path, spec: &Spec) -> Result<Self, Failure> {
        let mut links = Links::new();
        let mut nodes = BTreeMap::new();
        for id in 1..=spec.nodes {
            nodes.insert(id, Node::new(id, binary, &folder.join(format!("node-{id}")))?);
        }
        let ids: Vec<u32> = nodes.keys().copied().collect();
        for id in &ids {
            let peers = peers_of(*id, &nodes, &mut links)?;
            let Some(node) = nodes.get_mut(id) else { continue };
            if spec.client_links {
                node.kafka = links.open(CLIENTS, *id, node.listen_kafka)?;
                node.http = links.open(CLIENTS, *id, node.listen_http)?;
            }
            let mut settings = vec![
                ("cluster.peers", peers),
                // Else a node whose link is cut is dialled where it registered, past the link.
                ("cluster.fixed_addresses", "true".to_owned()),
                ("deep_storage.url", text(&folder.join("deep"))),
            ];
            if !spec.zones.is_empty() {
                let at = usize::try_from(id - 1).unwrap_or(0) % spec.zones.len();
                settings.push(("cluster.zone", spec.zones[at].to_owned()));
            }
            settings.extend(spec.settings.iter().cloned());
            node.configure(&settings)?;
        }
        std::fs::create_dir_all(folder.join("deep")).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self { folder: folder.to_owned(), links, nodes })
    }

    /// Starts every process and waits until each answers and one is the active master.
    pub fn start(&mut self) -> Result<(), Failure> {
        for id in self.ids() {
            self.spawn(id)?;
        }
        self.await_master(START_PATIENCE).map(drop)
    }

    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        self.nodes.keys().copied().collect()
    }

    /// Nodes whose processes run and are not stopped.
    #[must_use]
    pub fn running(&self) -> Vec<u32> {
        self.nodes.values().filter(|node| node.is_running()).map(|node| node.id).collect()
    }

    #[must_use]
    pub fn others(&self, id: u32) -> Vec<u32> {
        self.nodes.keys().copied().filter(|other| *other != id).collect()
    }

    /// # Errors
    /// There is no such node.
    pub fn node(&self, id: u32) -> Result<&Node, Failure> {
        self.nodes.get(&id).ok_or_else(|| format!("there is no node {id}"))
    }

    fn node_mut(&mut self, id: u32) -> Result<&mut Node, Failure> {
        self.nodes.get_mut(&id).ok_or_else(|| format!("there is no node {id}"))
    }

    /// Where Kafka clients connect to, all nodes.
    #[must_use]
    pub fn bootstrap(&self) -> Vec<String> {
        self.nodes.values().map(|node| node.kafka.to_string()).collect()
    }

    /// Starts one process; returns at once.
    pub fn spawn(&mut self, id: u32) -> Result<(), Failure> {
        self.node_mut(id)?.spawn()
    }

    /// SIGKILL.
    pub fn kill(&mut self, id: u32) -> Result<(), Failure> {
        self.node_mut(id)?.kill();
        Ok(())
    }

    /// SIGTERM, and how long the process took to end.
    pub fn terminate(&mut self, id: u32, patience: Duration) -> Result<Duration, Failure> {
        self.node_mut(id)?.terminate(patience)
    }

    /// SIGSTOP.
    pub fn pause(&mut self, id: u32) -> Result<(), Failure> {
        self.node_mut(id)?.pause()
    }

    /// SIGCONT.
    pub fn resume(&mut self, id: u32) -> Result<(), Failure> {
        self.node_mut(id)?.resume()
    }

    /// Cuts a node from every other; clients still reach it.
    pub fn isolate(&self, id: u32) {
        self.others(id).into_iter().for_each(|other| self.links.cut(id, other));
    }

    /// Cuts every node from every other.
    pub fn isolate_all(&self) {
        self.ids().into_iter().for_each(|id| self.isolate(id));
    }

    /// A node's connection for administration.
    pub fn connect(&self, id: u32, patience: Duration) -> Result<Connection, Failure> {
        let address = self.node(id)?.kafka.to_string();
        Connection::connect(&address, "drill", patience).map_err(|error| error.to_string())
    }

    /// What one node says about the cluster and `topic`.
    pub fn view_of(&self, id: u32, topic: Option<&str>) -> Result<ClusterView, Failure> {
        self.connect(id, ASK_PATIENCE)?.view(topic).map_err(|error| error.to_string())
    }

    /// The leader of a partition: who is named under the newest epoch, runs, and says so itself.
    pub fn await_leader(&self, topic: &str, partition: i32, patience: Duration) -> Result<u32, Failure> {
        let picked = |view: &ClusterView| {
            let partition = view.partitions.get(&partition)?;
            Some((partition.epoch, u32::try_from(partition.leader?).ok()?))
        };
        self.await_views(&format!("leader of {topic}-{partition}"), patience, Some(topic), |views| {
            let named = views.iter().filter_map(|(_, view)| picked(view));
            let (epoch, leader) = named.max_by_key(|(epoch, _)| *epoch)?;
            let own = views.iter().find(|(id, _)| *id == leader).and_then(|(_, view)| picked(view));
            (own == Some((epoch, leader))).then_some(leader)
        })
    }

    /// The active master: whom most running nodes name, if it runs.
    pub fn await_master(&self, patience: Duration) -> Result<u32, Failure> {
        self.await_views("active master", patience, None, |views| {
            let running = self.running();
            let mut said: BTreeMap<u32, usize> = BTreeMap::new();
            for master in views.iter().filter_map(|(_, view)| u32::try_from(view.controller?).ok()) {
                *said.entry(master).or_default() += 1;
            }
            let agreed = said.into_iter().find(|(_, votes)| 2 * votes > running.len());
            agreed.map(|(id, _)| id).filter(|id| running.contains(id))
        })
    }

    /// Asks every running node again and again until `judge` makes something of what they say.
    fn await_views(
        &self,
        what: &str,
        patience: Duration,
        topic: Option<&str>,
        judge: impl Fn(&[(u32, ClusterView)]) -> Option<u32>,
    ) -> Result<u32, Failure> {
        let begun = Instant::now();
        loop {
            let asked: Vec<_> = self.running().into_iter().map(|id| (id, self.view_of(id, topic))).collect();
            let views: Vec<_> =
                asked.iter().filter_map(|(id, view)| Some((*id, view.as_ref().ok()?.clone()))).collect();
            if let Some(id) = judge(&views) {
                return Ok(id);
            }
            if begun.elapsed() > patience {
                let said: Vec<String> = asked.iter().map(|(id, view)| format!("node {id} says {view:?}")).collect();
                return Err(format!("no {what} within {} ms: {}", patience.as_millis(), said.join("; ")));
            }
            std::thread::sleep(ASK_PAUSE);
        }
    }

    /// Creates a topic, at any node that takes it.
    pub fn create_topic(&self, topic: &client::TopicSpec) -> Result<(), Failure> {
        self.somewhere(|id| {
            let created = self.connect(id, Duration::from_secs(10))?.create_topic(topic);
            match created {
                // It is there: an answer to an earlier attempt was lost.
                Err(client::ClientError::Refused { code: 36, .. }) => Ok(()),
                other => other.map_err(|error| error.to_string()),
            }
        })
    }

    /// A table that discovers its columns, over the topic of the same name.
    pub fn create_table(&self, name: &str) -> Result<(), Failure> {
        let body = serde_json::json!({"name": name, "topic": name}).to_string();
        self.somewhere(|id| {
            let (status, answer) =
                http::request(self.node(id)?.http, "POST", "/api/v1/tables", &body, Duration::from_secs(10))?;
            let is_done = (200..300).contains(&status) || status == 409;
            if is_done { Ok(()) } else { Err(format!("creating table {name}: {status} {answer}")) }
        })
    }

    /// Tries one running node after the other until one succeeds.
    fn somewhere<T>(&self, act: impl Fn(u32) -> Result<T, Failure>) -> Result<T, Failure> {
        let begun = Instant::now();
        loop {
            let mut failure = "no node runs".to_owned();
            for id in self.running() {
                match act(id) {
                    Ok(done) => return Ok(done),
                    Err(cause) => failure = format!("node {id}: {cause}"),
                }
            }
            if begun.elapsed() > START_PATIENCE {
                return Err(failure);
            }
            std::thread::sleep(ASK_PAUSE);
        }
    }

    /// A node's own account of the cluster's health.
    pub fn health(&self, id: u32) -> Result<Value, Failure> {
        let (_, answer) = http::request(self.node(id)?.http, "GET", "/health/cluster", "", ASK_PATIENCE)?;
        serde_json::from_str(&answer).map_err(|error| format!("/health/cluster of node {id}: {error}: {answer}"))
    }

    /// The codes of all findings that running nodes show now.
    #[must_use]
    pub fn findings(&self) -> BTreeSet<String> {
        let mut codes = BTreeSet::new();
        for id in self.running() {
            let Ok(health) = self.health(id) else { continue };
            let findings = health["findings"].as_array().into_iter().flatten();
            codes.extend(findings.filter_map(|finding| finding["code"].as_str()).map(str::to_owned));
        }
        codes
    }

    /// A process that ended although nobody ended it: who, how, and its last words.
    pub fn fallen(&mut self) -> Option<Failure> {
        let ended = self.nodes.values_mut().find_map(|node| node.ended().map(|how| (node.id, how)));
        ended.map(|(id, how)| {
            format!("node {id} ended by itself: {how}; its last words:\n{}", self.log_tail(id, LAST_WORDS))
        })
    }

    /// The end of a node's log, for a report of what went wrong.
    #[must_use]
    pub fn log_tail(&self, id: u32, lines: usize) -> String {
        let path = self.nodes.get(&id).map(Node::log_path).unwrap_or_default();
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// `cluster.peers` of a node: its own address as it is, every other over a link.
fn peers_of(id: u32, nodes: &BTreeMap<u32, Node>, links: &mut Links) -> Result<String, Failure> {
    if nodes.len() == 1 {
        return Ok(String::new());
    }
    let mut peers = String::new();
    for other in nodes.values() {
        let address: SocketAddr = if other.id == id { other.peer } else { links.open(id, other.id, other.peer)? };
        let comma = if peers.is_empty() { "" } else { "," };
        let _ = write!(peers, "{comma}{}@{address}", other.id);
    }
    Ok(peers)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests;
