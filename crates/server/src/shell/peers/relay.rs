//! What goes to a node that no link is up to, through one that has links to both.
//!
//! ```text
//!     1 ---- 3 ---- 2      the link between 1 and 2 is cut
//!     1 --Passed{origin 1, to 2}--> 3 --the same bytes--> 2 hands it out as if it came from 1
//! ```
//!
//! Every node tells the others which links of it are up, whenever that changes and several times a second. Where a
//! node has no link, it picks one of those that say they have.
//!
//! What always holds: a frame is passed on once and no further, because only the first receiver finds the origin to be
//! the one it got the frame from; it takes room in the same bounded queues as everything else and is dropped like
//! everything else; who passes a call on waits no longer than the caller; a link that broke is said to be down before
//! another way is taken, so that nobody waits for a node that has died.
//!
//! Deliberately not here: ways over more than one node, and any promise of order: groups need none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use base::NodeId;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorum::GroupKey;
use tokio::sync::watch;

use super::frame::{Frame, KEY_BYTES};
use super::local::{self, Local};
use super::peer::Peer;
use super::{CallError, GroupFrame, Inbound, Lane, LinkEvent, Refusal, SendError, direct_call, push};

/// The group of what is said here. No partition has it, and a node of an older version drops it.
const GROUP: GroupKey = GroupKey([0xff; KEY_BYTES]);
const _: () = assert!(GROUP.0[0] != crate::shell::outbox::BEATS.0[0], "each has its own");
/// The kind of a call that is to be passed on. See [`crate::shell::calls`].
const CALL: u8 = crate::shell::calls::RELAY;
/// Between two tellings without a change.
const TELL: Duration = Duration::from_millis(200);
/// What was told longer ago counts no longer.
const TOLD_MAX: Duration = Duration::from_millis(1_000);
/// A node that says so this long after a link was lost really has a link of its own: it would have noticed by then that
/// the other one has died.
const GRACE: Duration = Duration::from_millis(150);
/// A peer that has not heard this node for so long, although a link seems to be up, is spoken to through others.
const DEAF_AFTER: Duration = Duration::from_millis(600);
/// Links told at a time.
const LINKS_MAX: usize = 1_024;

const LINKS: u8 = 0;
const PASSED: u8 = 1;
/// What a frame needs that is passed on, beside its message.
pub const PASSED_BYTES: usize = 1 + 4 + 4 + KEY_BYTES;
const CALL_HEAD_BYTES: usize = 4 + 4 + 4 + 1;

const DONE: u8 = 0;
const FAILED: u8 = 1;
const NOT_SENT: u8 = 2;
const UNKNOWN: u8 = 3;

type Peers = RwLock<BTreeMap<NodeId, Arc<Peer>>>;

/// Which links there are, here and elsewhere.
#[derive(Debug)]
pub struct Relays {
    node: NodeId,
    table: Mutex<Table>,
    /// Nodes that are reached through another one now.
    relayed: AtomicUsize,
    /// Counts the changes of this node's own links.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Table {
    links: BTreeMap<NodeId, Link>,
    told: BTreeMap<NodeId, Told>,
}

#[derive(Debug)]
struct Link {
    is_up: bool,
    since: Instant,
    /// Since when the peer says that it does not hear this node.
    deaf: Option<Instant>,
    by: Option<NodeId>,
    /// Frames and calls passed on to this peer for others.
    passed_on: u64,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    links: BTreeSet<NodeId>,
}

impl Link {
    fn new(now: Instant) -> Self {
        Self { is_up: false, since: now, deaf: None, by: None, passed_on: 0 }
    }

    fn is_deaf(&self, now: Instant) -> bool {
        self.is_up && self.deaf.is_some_and(|since| now.duration_since(since) >= DEAF_AFTER)
    }
}

impl Table {
    /// Who has a link to `to`, and told so after it was lost here.
    fn who_reaches(&self, to: NodeId, link: &Link, now: Instant) -> Option<NodeId> {
        let lost = if link.is_up { link.deaf.unwrap_or(link.since) } else { link.since };
        let mut all = self.told.iter().filter_map(|(node, told)| {
            let is_new = now.duration_since(told.at) < TOLD_MAX && told.at >= lost + GRACE;
            let near = self.links.get(node).is_some_and(|near| near.is_up && !near.is_deaf(now));
            (*node != to && is_new && near && told.links.contains(&to)).then_some(*node)
        });
        let first = all.next();
        // Whoever does it now goes on with it.
        link.by.filter(|by| first == Some(*by) || all.any(|node| node == *by)).or(first)
    }

    /// Looks for the ways of all nodes anew; what changed for those that have no link.
    fn look(&mut self, now: Instant) -> Vec<(NodeId, LinkEvent)> {
        let mut events = Vec::new();
        let ways: Vec<(NodeId, Option<NodeId>)> = self
            .links
            .iter()
            .map(|(to, link)| {
                let is_lost = !link.is_up || link.is_deaf(now);
                (*to, if is_lost { self.who_reaches(*to, link, now) } else { None })
            })
            .collect();
        for (to, by) in ways {
            let Some(link) = self.links.get_mut(&to) else { continue };
            let before = std::mem::replace(&mut link.by, by);
            if before == by || link.is_up {
                continue;
            }
            events.push((
                to,
                match by {
                    Some(by) => LinkEvent::Relayed { by },
                    None => LinkEvent::Down { reason: "no other node has a link to it any more".to_owned() },
                },
            ));
        }
        events
    }
}

impl Relays {
    pub fn new(node: NodeId) -> Self {
        Self { node, table: Mutex::default(), relayed: AtomicUsize::new(0), changes: watch::Sender::new(0) }
    }

    /// A member that there may never have been a link to.
    pub fn know(&self, node: NodeId) {
        self.lock().links.entry(node).or_insert_with(|| Link::new(Instant::now()));
    }

    /// Not a member any more.
    pub fn forget(&self, node: NodeId) {
        let mut table = self.lock();
        table.links.remove(&node);
        table.told.remove(&node);
        self.count(&table);
    }

    /// Through whom `to` is reached; `None`: over its own link, or not at all.
    pub fn by(&self, to: NodeId) -> Option<NodeId> {
        if self.relayed.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.lock().links.get(&to)?.by
    }

    pub fn passed_on(&self, to: NodeId) -> u64 {
        self.lock().links.get(&to).map_or(0, |link| link.passed_on)
    }

    fn passes(&self, to: NodeId) {
        if let Some(link) = self.lock().links.get_mut(&to) {
            link.passed_on += 1;
        }
    }

    fn count(&self, table: &Table) {
        let relayed = table.links.values().filter(|link| link.by.is_some()).count();
        self.relayed.store(relayed, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes that a link of this one is up to, and those that are reached through others.
    fn reached(&self) -> (Vec<NodeId>, Vec<NodeId>) {
        let table = self.lock();
        let up = table.links.iter().filter(|(_, link)| link.is_up).map(|(node, _)| *node).collect();
        let relayed = table.links.iter().filter(|(_, link)| link.by.is_some()).map(|(node, _)| *node).collect();
        (up, relayed)
    }

    /// What changes the table, and what is told of it, in one step: events of a peer come in order.
    fn change(&self, inner: &dyn Inbound, change: impl FnOnce(&mut Table, Instant) -> Option<(NodeId, LinkEvent)>) {
        let mut table = self.lock();
        let now = Instant::now();
        let first = change(&mut table, now);
        let then = table.look(now);
        self.count(&table);
        for (peer, event) in first.into_iter().chain(then) {
            inner.link(peer, event);
        }
    }
}

/// Stands between the links and whoever takes what arrives.
pub struct Relay {
    inner: Arc<dyn Inbound>,
    pub relays: Arc<Relays>,
    peers: OnceLock<Weak<Peers>>,
}

impl Relay {
    pub fn new(node: NodeId, inner: Arc<dyn Inbound>) -> Self {
        Self { inner, relays: Arc::new(Relays::new(node)), peers: OnceLock::new() }
    }

    /// From now on there are peers to pass something on to.
    pub fn serve(&self, peers: &Arc<Peers>) {
        let _once = self.peers.set(Arc::downgrade(peers));
    }

    fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        let peers = self.peers.get()?.upgrade()?;
        let peers = peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.get(&node).cloned()
    }

    fn is_member(&self, node: NodeId) -> bool {
        self.peer(node).is_some()
    }

    fn told(&self, from: NodeId, links: BTreeSet<NodeId>) {
        self.relays.change(&*self.inner, |table, now| {
            let hears = links.contains(&self.relays.node);
            if let Some(link) = table.links.get_mut(&from) {
                link.deaf = if hears { None } else { link.deaf.or(Some(now)) };
            }
            table.told.insert(from, Told { at: now, links });
            None
        });
    }

    fn hear(&self, frame: GroupFrame) {
        match decode(frame.message.clone()) {
            Some(Said::Links(links)) => self.told(frame.from, links),
            Some(Said::Passed { origin, to, group, message }) if to == self.relays.node => {
                if origin == self.relays.node || !self.is_member(origin) {
                    return tracing::debug!(from = %frame.from, %origin, "a frame of nobody was passed on to here");
                }
                if group != GROUP {
                    return self.inner.group(GroupFrame { from: origin, group, message, ..frame });
                }
                // A node without a link says so through others; nothing else is said twice wrapped.
                if let Some(Said::Links(links)) = decode(message) {
                    self.told(origin, links);
                }
            }
            Some(Said::Passed { origin, to, .. }) if origin == frame.from => {
                let Some(peer) = self.peer(to) else { return };
                match push(&peer, frame.lane, Frame::Group { group: GROUP, message: frame.message }) {
                    Ok(()) => self.relays.passes(to),
                    Err(error) => tracing::debug!(%origin, %error, "a frame was not passed on"),
                }
            }
            Some(Said::Passed { .. }) => {
                tracing::debug!(from = %frame.from, "a frame that was passed on already is not passed on");
            }
            None => tracing::debug!(from = %frame.from, "what was said of links makes no sense"),
        }
    }

    async fn answer(&self, from: NodeId, body: Bytes) -> Result<Bytes, String> {
        let passed = Call::decode(body.clone()).ok_or("a call to be passed on that makes no sense")?;
        let Call { origin, to, patience, kind, body: inner } = passed;
        if to == self.relays.node {
            if origin == to || !self.is_member(origin) {
                return Err(format!("node {origin} is no other member"));
            }
            return Ok(match self.inner.call(origin, kind, inner).await {
                Ok(answer) => answered(DONE, &answer),
                Err(text) => answered(FAILED, text.as_bytes()),
            });
        }
        if origin != from {
            return Err("a call that was passed on already is not passed on".to_owned());
        }
        let Some(peer) = self.peer(to) else { return Ok(answered(NOT_SENT, b"")) };
        self.relays.passes(to);
        Ok(match direct_call(&peer, CALL, body, patience).await {
            Ok(answer) => answer,
            Err(CallError::Send(_) | CallError::Busy(_)) => answered(NOT_SENT, b""),
            Err(CallError::Lost(_) | CallError::Timeout { .. }) => answered(UNKNOWN, b""),
            Err(CallError::Failed { reason, .. }) => answered(FAILED, reason.as_bytes()),
        })
    }
}

#[async_trait::async_trait]
impl Inbound for Relay {
    fn group(&self, frame: GroupFrame) {
        if frame.group == GROUP { self.hear(frame) } else { self.inner.group(frame) }
    }

    async fn call(&self, from: NodeId, kind: u8, body: Bytes) -> Result<Bytes, String> {
        if kind == CALL { self.answer(from, body).await } else { self.inner.call(from, kind, body).await }
    }

    async fn enter(&self, node: NodeId, body: Bytes) -> Result<Bytes, Refusal> {
        self.inner.enter(node, body).await
    }

    fn link(&self, peer: NodeId, event: LinkEvent) {
        let is_up = match event {
            LinkEvent::Up { .. } | LinkEvent::Heard => true,
            LinkEvent::Silent { .. } | LinkEvent::Down { .. } => false,
            _ => return self.inner.link(peer, event),
        };
        self.relays.change(&*self.inner, |table, now| {
            let link = table.links.entry(peer).or_insert_with(|| Link::new(now));
            let is_news = link.is_up != is_up;
            if is_news {
                // Who is reached through another node stays so, when a connection ends that said nothing any more.
                *link = Link { is_up, since: now, deaf: None, by: None, passed_on: link.passed_on };
                self.relays.changes.send_modify(|count| *count += 1);
            }
            let is_relayed = !is_up && link.by.is_some();
            (!is_relayed).then_some((peer, event))
        });
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("relays", &self.relays).finish_non_exhaustive()
    }
}

/// Tells the others which links are up here, until the node ends.
pub async fn tell(local: Arc<Local>, relay: Arc<Relay>) {
    let mut closing = local.closing.subscribe();
    let mut changes = relay.relays.changes.subscribe();
    loop {
        // Ways end when nothing is heard of them any more.
        relay.relays.change(&*relay.inner, |_, _| None);
        let (up, relayed) = relay.relays.reached();
        let message = encode_links(&up);
        for to in up.into_iter().chain(relayed) {
            // Whoever is not told takes this node's word for outdated, and that is right.
            let _not_sent = send(&relay, to, Lane::Control, GROUP, message.clone());
        }
        tokio::select! {
            () = local::closed(&mut closing) => return,
            Ok(()) = changes.changed() => {}
            () = tokio::time::sleep(TELL) => {}
        }
    }
}

fn send(relay: &Relay, to: NodeId, lane: Lane, group: GroupKey, message: Bytes) -> Result<(), SendError> {
    let peer = |node| relay.peer(node).ok_or(SendError::Unknown(node));
    match relay.relays.by(to) {
        None => push(&*peer(to)?, lane, Frame::Group { group, message }),
        Some(by) => push(&*peer(by)?, lane, pass(relay.relays.node, to, group, &message)),
    }
}

/// A frame for the one that is to pass `message` on.
pub fn pass(origin: NodeId, to: NodeId, group: GroupKey, message: &[u8]) -> Frame {
    let mut out = BytesMut::with_capacity(PASSED_BYTES + message.len());
    out.put_u8(PASSED);
    out.put_u32_le(origin.0);
    out.put_u32_le(to.0);
    out.put_slice(&group.0);
    out.put_slice(message);
    Frame::Group { group: GROUP, message: out.freeze() }
}

/// Asks `to` through `by`.
pub async fn call(
    by: &Peer,
    (origin, to): (NodeId, NodeId),
    kind: u8,
    body: &[u8],
    patience: Duration,
) -> Result<Bytes, CallError> {
    let passed = Call { origin, to, patience, kind, body: Bytes::new() }.encode(body);
    let mut answer = match direct_call(by, CALL, passed, patience).await {
        Ok(answer) => answer,
        Err(CallError::Lost(_)) => return Err(CallError::Lost(to)),
        Err(CallError::Timeout { waited_ms, .. }) => return Err(CallError::Timeout { node: to, waited_ms }),
        Err(error) => return Err(error),
    };
    match answer.try_get_u8() {
        Ok(DONE) => Ok(answer),
        Ok(FAILED) => Err(CallError::Failed { node: to, reason: super::hello::printable(&answer) }),
        Ok(NOT_SENT) => Err(SendError::NotConnected(to).into()),
        _ => Err(CallError::Lost(to)),
    }
}

fn answered(status: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + body.len());
    out.put_u8(status);
    out.put_slice(body);
    out.freeze()
}

enum Said {
    Links(BTreeSet<NodeId>),
    Passed { origin: NodeId, to: NodeId, group: GroupKey, message: Bytes },
}

fn encode_links(up: &[NodeId]) -> Bytes {
    let up = &up[..up.len().min(LINKS_MAX)];
    let mut out = BytesMut::with_capacity(1 + 4 * up.len());
    out.put_u8(LINKS);
    up.iter().for_each(|node| out.put_u32_le(node.0));
    out.freeze()
}

fn decode(mut message: Bytes) -> Option<Said> {
    match message.try_get_u8().ok()? {
        LINKS => {
            if !message.len().is_multiple_of(4) || message.len() / 4 > LINKS_MAX {
                return None;
            }
            let mut links = BTreeSet::new();
            while message.has_remaining() {
                links.insert(NodeId(message.get_u32_le()));
            }
            Some(Said::Links(links))
        }
        PASSED => {
            let origin = NodeId(message.try_get_u32_le().ok()?);
            let to = NodeId(message.try_get_u32_le().ok()?);
            let mut key = [0; KEY_BYTES];
            message.try_copy_to_slice(&mut key).ok()?;
            Some(Said::Passed { origin, to, group: GroupKey(key), message })
        }
        _ => None,
    }
}

struct Call {
    origin: NodeId,
    to: NodeId,
    patience: Duration,
    kind: u8,
    body: Bytes,
}

impl Call {
    fn encode(&self, body: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(CALL_HEAD_BYTES + body.len());
        out.put_u32_le(self.origin.0);
        out.put_u32_le(self.to.0);
        out.put_u32_le(u32::try_from(self.patience.as_millis()).unwrap_or(u32::MAX));
        out.put_u8(self.kind);
        out.put_slice(body);
        out.freeze()
    }

    fn decode(mut bytes: Bytes) -> Option<Self> {
        let origin = NodeId(bytes.try_get_u32_le().ok()?);
        let to = NodeId(bytes.try_get_u32_le().ok()?);
        let patience = Duration::from_millis(bytes.try_get_u32_le().ok()?.into());
        let kind = bytes.try_get_u8().ok()?;
        // A call within a call would be passed on for ever.
        (kind != CALL).then_some(Self { origin, to, patience, kind, body: bytes })
    }
}

#[cfg(test)]
mod tests;
