//! Who leads which partition, so that any node answers Metadata for all of them.
//!
//! Of its own replicas a node knows it first hand. Of the others it hears: every node tells its peers what it
//! leads, when that changes and every second; while nothing changes it says only which list still holds, so that ten
//! thousand partitions cost nothing. What was not repeated for a while counts no longer. With it goes which
//! replicas do not keep up, for those partitions where there are any.
//!
//! Who should lead: the first of a partition's replicas. A node that leads in its place hands over when that one has
//! been there for a while, a few partitions at a time; a node that ends in order hands over everything first.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base::checksum::crc32c;
use base::{NodeId, PartitionIndex, Term, Tick, TopicId, TopicPartition};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::watch;
use uuid::Uuid;

use super::router::Router;
use super::{Node, time};
use crate::shell::calls;
use crate::shell::logs::{Behind, LogsHandle};
use crate::shell::meta::MetaHandle;
use crate::shell::peers::PeersHandle;

/// Between two tellings without a change.
const TELL: Duration = Duration::from_secs(1);
/// Changes are gathered this long ..
const GATHER: Duration = Duration::from_millis(10);
/// .. and a millisecond more for so many bytes of the list: while thousands of partitions elect, each change would else send
/// the whole list again, a hundred times a second.
const TOLD_BYTES_PER_MS: usize = 2 << 10;
/// What was heard longer ago than this counts no longer.
const HEARD_MS_MAX: u64 = 3_500;
/// Partitions told at a time; a node that leads more tells the first ones.
const TOLD_MAX: usize = 100_000;
/// How often leaderships are looked at.
const BALANCE: Duration = Duration::from_secs(5);
/// A preferred leader is given its partitions back when it has been connected for so many looks.
const STEADY_LOOKS: u32 = 6;
/// Handed over in one look.
const MOVED_MAX: usize = 32;
/// Longest wait for others to take over when this node ends.
const HAND_OVER: Duration = Duration::from_millis(1_500);
const ENTRY_BYTES: usize = 28;
/// Topic, partition, node.
const TRANSFER_BYTES: usize = 24;
/// A list.
const VERSION: u8 = 1;
/// Nine bytes: the list of that digest still holds.
const UNCHANGED: u8 = 2;
/// The answer to a digest that fits no list heard before. One who does not know of digests refuses: the same.
const UNKNOWN: &[u8] = &[1];

/// See the module.
pub struct Leaders {
    logs: LogsHandle,
    heard: RwLock<BTreeMap<NodeId, Heard<Term>>>,
    heard_behind: RwLock<BTreeMap<NodeId, Heard<Behind>>>,
}

struct Heard<T> {
    at: Tick,
    /// Of the list as it came.
    digest: [u8; 8],
    led: BTreeMap<TopicPartition, T>,
}

impl Leaders {
    /// Starts telling and hearing. Without peers there is nobody to tell.
    pub fn start(logs: &LogsHandle, peers: Option<&PeersHandle>, router: &Router) -> Arc<Self> {
        let leaders = Arc::new(Self { logs: logs.clone(), heard: RwLock::default(), heard_behind: RwLock::default() });
        let hears = Arc::clone(&leaders);
        router.on(calls::LEADERS, move |from, body| {
            let heard = hears.hear(from, body);
            async move { heard }
        });
        let hears = Arc::clone(&leaders);
        router.on(calls::BEHIND, move |from, body| {
            let heard = hears.hear_behind(from, body);
            async move { heard }
        });
        let hands_over = logs.clone();
        router.on(calls::TRANSFER_PARTITION, move |_, body| {
            let begun = transfer(&hands_over, body);
            async move { begun }
        });
        if let Some(peers) = peers {
            tokio::spawn(tell(logs.clone(), peers.clone(), router.links()));
        }
        leaders
    }

    /// Gives partitions back to their preferred leaders, until the node ends.
    pub fn balance(&self, node: NodeId, meta: &MetaHandle, links: watch::Receiver<BTreeMap<NodeId, bool>>) {
        tokio::spawn(balance(node, self.logs.clone(), meta.clone(), links));
    }

    /// Hands over all that this node leads, group 0 with it, to whoever is there. The node is about to end.
    pub async fn hand_over(&self, node: NodeId, meta: &MetaHandle, up: &BTreeMap<NodeId, bool>) {
        let is_up = |other: &NodeId| *other != node && up.get(other).copied().unwrap_or(false);
        let state = meta.state();
        let mut begun = false;
        for (partition, _) in self.logs.led() {
            if let Some(to) = state.replicas(partition).iter().copied().find(is_up) {
                self.logs.transfer(partition, to);
                begun = true;
            }
        }
        let master = meta.master();
        if let Some(to) = master.voters.iter().copied().find(is_up).filter(|_| master.is_active) {
            meta.transfer_leadership(to);
            begun = true;
        }
        let over = async {
            while begun && (meta.master().is_active || !self.logs.led().is_empty()) {
                tokio::time::sleep(GATHER).await;
            }
        };
        if tokio::time::timeout(HAND_OVER, over).await.is_err() {
            tracing::info!("the other nodes did not take over in time; they find out by themselves");
        }
    }

    /// Who leads `partition`, and since which term.
    pub fn leader_of(&self, partition: TopicPartition) -> Option<(NodeId, Term)> {
        let own = self.logs.leadership(partition).map(|leadership| *leadership.borrow());
        let own_term = own.map_or(Term::ZERO, |own| own.term);
        let own = own.and_then(|own| Some((own.leader?, own.term)));
        if own.is_some() {
            return own;
        }
        let now = time::now();
        let heard = self.heard.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = heard.iter().filter(|(_, heard)| now.since(heard.at) < HEARD_MS_MAX);
        let told = fresh.filter_map(|(node, heard)| Some((*node, *heard.led.get(&partition)?)));
        told.filter(|(_, term)| *term >= own_term).max_by_key(|(_, term)| *term)
    }

    /// The replicas of a partition that `leader` says do not keep up with it.
    pub fn behind(&self, partition: TopicPartition, leader: NodeId) -> Behind {
        if self.logs.leadership(partition).is_some_and(|leadership| leadership.borrow().is_mine) {
            return self.logs.behind(partition);
        }
        let heard = self.heard_behind.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = heard.get(&leader).filter(|heard| time::now().since(heard.at) < HEARD_MS_MAX);
        fresh.and_then(|heard| heard.led.get(&partition)).cloned().unwrap_or_default()
    }

    fn hear_behind(&self, from: NodeId, body: Bytes) -> Result<Bytes, String> {
        let led = decode_behind(body).ok_or("a list of replicas that are behind that makes no sense")?;
        let heard = Heard { at: time::now(), digest: [0; 8], led };
        self.heard_behind.write().unwrap_or_else(PoisonError::into_inner).insert(from, heard);
        Ok(Bytes::new())
    }

    fn hear(&self, from: NodeId, body: Bytes) -> Result<Bytes, String> {
        let mut all = self.heard.write().unwrap_or_else(PoisonError::into_inner);
        if let [UNCHANGED, digest @ ..] = &body[..] {
            let Some(heard) = all.get_mut(&from).filter(|heard| heard.digest == digest) else {
                return Ok(Bytes::from_static(UNKNOWN));
            };
            heard.at = time::now();
            return Ok(Bytes::new());
        }
        let digest = digest(&body);
        let led = decode(body).ok_or("a list of leaders that makes no sense")?;
        all.insert(from, Heard { at: time::now(), digest, led });
        Ok(Bytes::new())
    }
}

fn transfer(logs: &LogsHandle, mut body: Bytes) -> Result<Bytes, String> {
    if body.len() != TRANSFER_BYTES {
        return Err("a request to hand over that makes no sense".to_owned());
    }
    let topic = TopicId(Uuid::from_u128(body.get_u128()));
    let partition = TopicPartition { topic, partition: PartitionIndex(body.get_i32()) };
    if !logs.leadership(partition).is_some_and(|leadership| leadership.borrow().is_mine) {
        return Err("this node does not lead the partition any more".to_owned());
    }
    logs.transfer(partition, NodeId(body.get_u32()));
    Ok(Bytes::new())
}

impl Node {
    /// Asks `leader` to hand a partition over to `to`. Watch who leads.
    ///
    /// # Errors
    /// Why it did not begin, for people.
    pub async fn transfer_partition(
        &self,
        partition: TopicPartition,
        leader: NodeId,
        to: NodeId,
    ) -> Result<(), String> {
        if leader == self.id() {
            self.logs().transfer(partition, to);
            return Ok(());
        }
        let Some(peers) = self.peers() else { return Err(format!("node {leader} cannot be reached from here")) };
        let mut body = BytesMut::with_capacity(TRANSFER_BYTES);
        body.put_slice(partition.topic.0.as_bytes());
        body.put_i32(partition.partition.0);
        body.put_u32(to.0);
        let asked = peers.call(leader, calls::TRANSFER_PARTITION, body.freeze(), TELL).await;
        asked.map(drop).map_err(|error| error.to_string())
    }
}

async fn balance(node: NodeId, logs: LogsHandle, meta: MetaHandle, links: watch::Receiver<BTreeMap<NodeId, bool>>) {
    let mut steady: BTreeMap<NodeId, u32> = BTreeMap::new();
    loop {
        tokio::time::sleep(BALANCE).await;
        for (node, is_up) in &*links.borrow() {
            let looks = steady.entry(*node).or_default();
            *looks = if *is_up { looks.saturating_add(1) } else { 0 };
        }
        let state = meta.state();
        let mut moved = 0;
        for (partition, _) in logs.led() {
            let preferred = state.replicas(partition).first().copied();
            let is_steady = |other: &NodeId| steady.get(other).is_some_and(|looks| *looks >= STEADY_LOOKS);
            if let Some(to) = preferred.filter(|to| *to != node).filter(is_steady) {
                logs.transfer(partition, to);
                moved += 1;
            }
            if moved == MOVED_MAX {
                break;
            }
        }
    }
}

async fn tell(logs: LogsHandle, peers: PeersHandle, mut links: watch::Receiver<BTreeMap<NodeId, bool>>) {
    let mut changes = logs.leadership_changes();
    changes.mark_changed();
    let (mut list, mut were_behind) = (Bytes::new(), false);
    loop {
        let is_new = changes.has_changed().unwrap_or(false);
        if is_new {
            changes.mark_unchanged();
            list = encode(&logs.led());
        }
        let behind = logs.all_behind();
        // That there are none any more is said once; whoever did not hear it forgets the others in time.
        let says_behind = !behind.is_empty() || were_behind;
        were_behind = !behind.is_empty();
        let behind = encode_behind(&behind);
        let up: Vec<NodeId> =
            links.borrow_and_update().iter().filter(|(_, is_up)| **is_up).map(|(node, _)| *node).collect();
        for node in up {
            let (peers, list, behind) = (peers.clone(), list.clone(), behind.clone());
            tokio::spawn(async move {
                if says_behind && let Err(error) = peers.call(node, calls::BEHIND, behind, TELL).await {
                    tracing::debug!(%node, %error, "who is behind was not heard");
                }
                tell_one(&peers, node, list, is_new).await;
            });
        }
        tokio::time::sleep(gather(list.len())).await;
        let changed = async {
            tokio::select! {
                changed = changes.changed() => { changes.mark_changed(); changed.is_ok() },
                changed = links.changed() => changed.is_ok(),
            }
        };
        if matches!(tokio::time::timeout(TELL, changed).await, Ok(false)) {
            return;
        }
    }
}

/// How long changes are gathered before a list of so many bytes is said again; never as long as what was heard counts.
fn gather(list_bytes: usize) -> Duration {
    let more = Duration::from_millis((list_bytes / TOLD_BYTES_PER_MS) as u64);
    (GATHER + more).min(TELL)
}

/// Says the list, or only that it still holds if the other one knows it.
async fn tell_one(peers: &PeersHandle, node: NodeId, list: Bytes, is_new: bool) {
    if !is_new {
        let mut body = BytesMut::with_capacity(9);
        body.put_u8(UNCHANGED);
        body.put_slice(&digest(&list));
        let answer = peers.call(node, calls::LEADERS, body.freeze(), TELL).await;
        if answer.is_ok_and(|answer| answer != UNKNOWN) {
            return;
        }
    }
    if let Err(error) = peers.call(node, calls::LEADERS, list, TELL).await {
        tracing::debug!(%node, %error, "who leads what was not heard");
    }
}

/// Tells lists of one node apart.
fn digest(list: &[u8]) -> [u8; 8] {
    let (crc, len) = (crc32c(list), u32::try_from(list.len()).unwrap_or(u32::MAX));
    ((u64::from(len) << 32) | u64::from(crc)).to_be_bytes()
}

/// One byte of version; then of each partition its topic, its number and the term, big-endian.
fn encode(led: &[(TopicPartition, Term)]) -> Bytes {
    let led = &led[..led.len().min(TOLD_MAX)];
    let mut out = BytesMut::with_capacity(1 + led.len() * ENTRY_BYTES);
    out.put_u8(VERSION);
    for (partition, term) in led {
        out.put_slice(partition.topic.0.as_bytes());
        out.put_i32(partition.partition.0);
        out.put_u64(term.0);
    }
    out.freeze()
}

fn decode(mut body: Bytes) -> Option<BTreeMap<TopicPartition, Term>> {
    if body.try_get_u8().ok()? != VERSION
        || !body.len().is_multiple_of(ENTRY_BYTES)
        || body.len() / ENTRY_BYTES > TOLD_MAX
    {
        return None;
    }
    let mut led = BTreeMap::new();
    while body.has_remaining() {
        let topic = TopicId(Uuid::from_u128(body.get_u128()));
        let partition = PartitionIndex(body.get_i32());
        led.insert(TopicPartition { topic, partition }, Term(body.get_u64()));
    }
    Some(led)
}

/// One byte of version; then of each partition its topic, its number, and how many nodes in one byte, and these, big-endian.
fn encode_behind(behind: &[(TopicPartition, Behind)]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    for (partition, nodes) in &behind[..behind.len().min(TOLD_MAX)] {
        out.put_slice(partition.topic.0.as_bytes());
        out.put_i32(partition.partition.0);
        let count = u8::try_from(nodes.len()).unwrap_or(u8::MAX);
        out.put_u8(count);
        nodes.iter().take(count.into()).for_each(|node| out.put_u32(node.0));
    }
    out.freeze()
}

fn decode_behind(mut body: Bytes) -> Option<BTreeMap<TopicPartition, Behind>> {
    if body.try_get_u8().ok()? != VERSION {
        return None;
    }
    let mut behind = BTreeMap::new();
    while body.has_remaining() {
        if behind.len() == TOLD_MAX {
            return None;
        }
        let topic = TopicId(Uuid::from_u128(body.try_get_u128().ok()?));
        let partition = PartitionIndex(body.try_get_i32().ok()?);
        let count = body.try_get_u8().ok()?;
        let nodes: Option<Vec<NodeId>> = (0..count).map(|_| body.try_get_u32().ok().map(NodeId)).collect();
        behind.insert(TopicPartition { topic, partition }, nodes?.into());
    }
    Some(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_as_it_went() {
        let at = |number: i32| TopicPartition {
            topic: TopicId(Uuid::from_u128(7 << 64 | 5)),
            partition: PartitionIndex(number),
        };
        let led = [(at(0), Term(3)), (at(9_999), Term(u64::MAX))];
        let bytes = encode(&led);
        assert_eq!(decode(bytes.clone()).unwrap(), led.into());
        assert!(decode(encode(&[])).unwrap().is_empty());
        for cut in 0..bytes.len() {
            assert!(cut % ENTRY_BYTES == 1 || decode(bytes.slice(..cut)).is_none(), "cut at {cut}");
        }
        assert!(decode(Bytes::from_static(&[9])).is_none());
    }

    #[test]
    fn who_is_behind_comes_as_it_went() {
        let at = |number: i32| TopicPartition { topic: TopicId(Uuid::from_u128(9)), partition: PartitionIndex(number) };
        let behind: [(_, Behind); 2] = [(at(0), [NodeId(2)].into()), (at(7), [NodeId(1), NodeId(3)].into())];
        let bytes = encode_behind(&behind);
        assert_eq!(decode_behind(bytes.clone()).unwrap(), behind.into());
        assert!(decode_behind(encode_behind(&[])).unwrap().is_empty());
        for cut in 0..bytes.len() {
            assert!([1, 26].contains(&cut) || decode_behind(bytes.slice(..cut)).is_none(), "cut at {cut}");
        }
    }
}
