//! What comes from other nodes, to whom it belongs.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use base::{NodeId, Tick};
use bytes::Bytes;
use tokio::sync::watch;

use super::findings::{Finding, Findings, Severity};
use super::time;
use crate::shell::calls;
use crate::shell::logs::LogsHandle;
use crate::shell::meta::{self, MetaHandle};
use crate::shell::outbox::CONTROL;
use crate::shell::peers::{GroupFrame, Inbound, LinkEvent, Refusal, RefusalCode};

type Answer = Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send>>;
type Admitted = Pin<Box<dyn Future<Output = Result<Bytes, Refusal>> + Send>>;
/// Answers a node that wants to be a member.
type Entrance = Arc<dyn Fn(NodeId, Bytes) -> Admitted + Send + Sync>;
type Handler = Arc<dyn Fn(NodeId, Bytes) -> Answer + Send + Sync>;

/// Takes everything from the links. Messages for what has not been started yet are dropped: groups repeat themselves.
pub struct Router {
    meta: RwLock<Option<MetaHandle>>,
    logs: RwLock<Option<LogsHandle>>,
    calls: RwLock<BTreeMap<u8, Handler>>,
    enter: RwLock<Option<Entrance>>,
    findings: Arc<Findings>,
    /// Nodes that can be reached: a link to them is up, or another node passes on what goes to them.
    up: watch::Sender<BTreeMap<NodeId, bool>>,
    /// Since when those that cannot be reached cannot. Nodes that never could be are not in it.
    lost: RwLock<BTreeMap<NodeId, Tick>>,
}

impl Router {
    pub fn new(findings: Arc<Findings>) -> Self {
        Self {
            meta: RwLock::default(),
            logs: RwLock::default(),
            calls: RwLock::default(),
            enter: RwLock::default(),
            findings,
            up: watch::channel(BTreeMap::new()).0,
            lost: RwLock::default(),
        }
    }

    /// From now on group 0's messages and calls are taken.
    pub fn serve_meta(&self, meta: &MetaHandle) {
        // Under the lock of the links, so that none comes or goes unheard.
        self.up.send_if_modified(|up| {
            up.iter().for_each(|(node, is_up)| meta.link(*node, *is_up));
            *write(&self.meta) = Some(meta.clone());
            false
        });
    }

    /// From now on the partitions' messages are taken.
    pub fn serve_logs(&self, logs: &LogsHandle) {
        self.up.send_if_modified(|up| {
            up.iter().for_each(|(node, is_up)| logs.link(*node, *is_up));
            *write(&self.logs) = Some(logs.clone());
            false
        });
    }

    /// From now on nothing is taken: the node ends.
    pub fn end(&self) {
        *write(&self.meta) = None;
        *write(&self.logs) = None;
        write(&self.calls).clear();
        *write(&self.enter) = None;
    }

    /// Who answers nodes that want to be members.
    pub fn on_enter<F, A>(&self, answer: F)
    where
        F: Fn(NodeId, Bytes) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Bytes, Refusal>> + Send + 'static,
    {
        *write(&self.enter) = Some(Arc::new(move |node, body| Box::pin(answer(node, body))));
    }

    /// Who answers calls of `kind`. The last one counts.
    pub fn on<F, A>(&self, kind: u8, answer: F)
    where
        F: Fn(NodeId, Bytes) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Bytes, String>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |from, body| Box::pin(answer(from, body)));
        write(&self.calls).insert(kind, handler);
    }

    /// Which nodes can be reached; changes with them.
    pub fn links(&self) -> watch::Receiver<BTreeMap<NodeId, bool>> {
        self.up.subscribe()
    }

    /// Since when a node that could be reached cannot be any more.
    pub fn lost_since(&self, node: NodeId) -> Option<Tick> {
        read(&self.lost).get(&node).copied()
    }

    fn set_up(&self, peer: NodeId, is_up: bool) {
        self.up.send_modify(|up| {
            if is_up {
                write(&self.lost).remove(&peer);
            } else if up.get(&peer) == Some(&true) {
                write(&self.lost).insert(peer, time::now());
            }
            up.insert(peer, is_up);
            read(&self.meta).iter().for_each(|meta| meta.link(peer, is_up));
            read(&self.logs).iter().for_each(|logs| logs.link(peer, is_up));
        });
    }

    fn refused(&self, peer: NodeId, reason: &str) {
        self.findings.raise(
            &peer.to_string(),
            Finding {
                code: "peer-refused",
                severity: Severity::Critical,
                title: format!("node {peer} and this node do not speak with each other"),
                since: time::wall(),
                impact: vec!["log", "publish"],
                cause: reason.to_owned(),
                action: "correct cluster.peers, node.id or node.data_dir of the node that is wrong, and restart it"
                    .into(),
            },
        );
    }
}

#[async_trait::async_trait]
impl Inbound for Router {
    fn group(&self, frame: GroupFrame) {
        if frame.group == CONTROL {
            if let Some(meta) = &*read(&self.meta) {
                meta.step(frame);
            }
        } else if let Some(logs) = &*read(&self.logs) {
            logs.step(frame);
        }
    }

    async fn call(&self, from: NodeId, kind: u8, body: Bytes) -> Result<Bytes, String> {
        if kind == calls::PROPOSE {
            let meta = read(&self.meta).clone();
            let Some(meta) = meta else { return Err("the node is starting or ending".into()) };
            return Ok(meta::answer(&meta, body).await);
        }
        let handler = read(&self.calls).get(&kind).cloned();
        match handler {
            Some(handler) => handler(from, body).await,
            None => Err(format!("calls of kind {kind} are not answered here (yet)")),
        }
    }

    async fn enter(&self, node: NodeId, body: Bytes) -> Result<Bytes, Refusal> {
        let entrance = read(&self.enter).clone();
        match entrance {
            Some(entrance) => entrance(node, body).await,
            None => Err(Refusal::new(RefusalCode::NotYet, "the node is starting or ending: ask again")),
        }
    }

    fn link(&self, peer: NodeId, event: LinkEvent) {
        match event {
            LinkEvent::Up { .. } => {
                self.findings.clear("peer-refused", &peer.to_string());
                tracing::info!(%peer, "connected");
                self.set_up(peer, true);
            }
            LinkEvent::Down { reason } => {
                tracing::info!(%peer, reason, "the link is down");
                self.set_up(peer, false);
            }
            LinkEvent::Refused { reason } => self.refused(peer, &reason),
            LinkEvent::RefusalOver => self.findings.clear("peer-refused", &peer.to_string()),
            LinkEvent::Silent { quiet_ms } => {
                tracing::debug!(%peer, quiet_ms, "the link is silent");
                self.set_up(peer, false);
            }
            LinkEvent::Heard => self.set_up(peer, true),
            LinkEvent::Relayed { by } => {
                tracing::info!(%peer, %by, "no link is up, it is reached through another node");
                self.set_up(peer, true);
            }
            LinkEvent::Interrupted { reason } => tracing::debug!(%peer, reason, "the bulk link broke"),
        }
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
