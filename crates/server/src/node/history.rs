//! What queries and tasks there were, on all nodes: `sys.queries` and `sys.tasks` after whoever ran them has died.
//!
//! Every node keeps what every node did, the newest [`ENTRIES_MAX`] of each kind and node. Nodes tell each other what the other
//! lacks: soon after something happened, and every few seconds, in one call that goes both ways. No leader is needed, so that
//! what happens while there is none is kept as well (docs/adr/0010). A copy on disk, written now and then, outlives a restart of
//! all of them; what happened in the last moments before a power loss of all nodes is lost, and nothing but this depends on it.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base::{NodeId, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::router::Router;
use super::time;
use crate::shell::calls;
use crate::shell::peers::PeersHandle;

/// Kept of each node and kind.
const ENTRIES_MAX: usize = 1_000;
/// Nodes whose entries are kept.
const NODES_MAX: usize = 64;
/// Told in one call.
const TOLD_MAX: usize = 400;
/// Longest text kept of a statement, a subject or an error, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;
/// Bytes of a call: what [`TOLD_MAX`] entries take at most, with room to spare.
const CALL_BYTES_MAX: usize = 4 << 20;
/// News gather this long.
const GATHER: Duration = Duration::from_millis(50);
/// Between two exchanges without news.
const EXCHANGE: Duration = Duration::from_secs(3);
const CALL: Duration = Duration::from_secs(1);
/// Between two copies on disk.
const SAVE: Duration = Duration::from_secs(20);
const FILE: &str = "history.json";

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Query,
    /// A piece of background work: rows sealed and published.
    Task,
}

/// Something that is over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Rises with each entry of its node, over restarts too.
    pub sequence: u64,
    pub node: u32,
    pub kind: Kind,
    pub id: String,
    /// The statement, or the table worked for.
    pub subject: String,
    pub identity: String,
    /// Milliseconds since 1970.
    pub began: i64,
    pub duration_ms: u64,
    pub rows: u64,
    /// Empty: it went well.
    pub error: String,
}

/// What is kept, as both the wire and the disk have it.
#[derive(Default, Serialize, Deserialize)]
struct Message {
    /// The last entry of each node that the sender has.
    have: BTreeMap<u32, u64>,
    entries: Vec<Entry>,
}

pub struct History {
    node: u32,
    kept: Mutex<BTreeMap<u32, Ring>>,
    file: PathBuf,
}

/// What one node did.
#[derive(Default)]
struct Ring {
    last: u64,
    entries: VecDeque<Entry>,
}

impl Ring {
    fn push(&mut self, entry: Entry) {
        let of_kind = self.entries.iter().filter(|other| other.kind == entry.kind).count();
        if of_kind >= ENTRIES_MAX
            && let Some(oldest) = self.entries.iter().position(|other| other.kind == entry.kind)
        {
            self.entries.remove(oldest);
        }
        self.last = entry.sequence;
        self.entries.push_back(entry);
    }
}

impl History {
    fn open(node: NodeId, folder: &std::path::Path) -> Arc<Self> {
        let file = folder.join(FILE);
        let history = Self { node: node.0, kept: Mutex::default(), file };
        let left = std::fs::read(&history.file).ok().and_then(|bytes| serde_json::from_slice::<Message>(&bytes).ok());
        history.take_in(left.unwrap_or_default());
        Arc::new(history)
    }

    /// With what an earlier process left in `folder`; exchanges with the other nodes and keeps the copy on disk, until the
    /// node ends.
    pub fn start(node: NodeId, folder: &std::path::Path, router: &Router, peers: Option<&PeersHandle>) -> Arc<Self> {
        let history = Self::open(node, folder);
        let answers = Arc::downgrade(&history);
        router.on(calls::HISTORY, move |_, body| {
            let answer =
                answers.upgrade().ok_or_else(|| "the node is ending".to_owned()).and_then(|own| own.answer(&body));
            async move { answer }
        });
        if let Some(peers) = peers {
            tokio::spawn(exchange(Arc::downgrade(&history), peers.clone(), router.links()));
        }
        tokio::spawn(save_now_and_then(Arc::downgrade(&history)));
        history
    }

    /// Notes something that this node did; `sequence` and `node` are given here. Never waits.
    pub fn note(&self, mut entry: Entry) {
        for text in [&mut entry.id, &mut entry.subject, &mut entry.identity, &mut entry.error] {
            cut(text);
        }
        let mut kept = self.lock();
        let ring = kept.entry(self.node).or_default();
        // By the clock, so that another process under this number goes on behind it.
        let now = u64::try_from(time::wall().0).unwrap_or(0).saturating_mul(1_000);
        (entry.sequence, entry.node) = (now.max(ring.last.saturating_add(1)), self.node);
        ring.push(entry);
    }

    /// All that is kept of a kind, the oldest first.
    pub fn list(&self, kind: Kind) -> Vec<Entry> {
        let kept = self.lock();
        let mut entries: Vec<Entry> =
            kept.values().flat_map(|ring| ring.entries.iter().filter(|entry| entry.kind == kind).cloned()).collect();
        entries.sort_by_key(|entry| (entry.began, entry.sequence));
        entries
    }

    fn answer(&self, body: &Bytes) -> Result<Bytes, String> {
        if body.len() > CALL_BYTES_MAX {
            return Err(format!("{} bytes of history are more than {CALL_BYTES_MAX}", body.len()));
        }
        let message: Message = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let theirs = message.have.clone();
        self.take_in(message);
        encode(&self.message_for(Some(&theirs)))
    }

    /// What this node has, and what one that has `theirs` lacks of it. `None`: that is not known yet.
    fn message_for(&self, theirs: Option<&BTreeMap<u32, u64>>) -> Message {
        let kept = self.lock();
        let have = kept.iter().map(|(node, ring)| (*node, ring.last)).collect();
        let lacks = |entry: &&Entry| {
            theirs.is_some_and(|theirs| theirs.get(&entry.node).is_none_or(|last| *last < entry.sequence))
        };
        let entries = kept.values().flat_map(|ring| &ring.entries).filter(lacks).take(TOLD_MAX).cloned().collect();
        Message { have, entries }
    }

    /// What is older than what is here of its node is here already, or was let go.
    fn take_in(&self, message: Message) {
        let mut kept = self.lock();
        for mut entry in message.entries {
            if !kept.contains_key(&entry.node) && kept.len() >= NODES_MAX {
                continue;
            }
            for text in [&mut entry.id, &mut entry.subject, &mut entry.identity, &mut entry.error] {
                cut(text);
            }
            let ring = kept.entry(entry.node).or_default();
            if entry.sequence > ring.last {
                ring.push(entry);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Ring>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the copy under another name and renames it: a half-written one is never read.
    fn save(&self) {
        let everything = {
            let kept = self.lock();
            let entries = kept.values().flat_map(|ring| ring.entries.iter().cloned()).collect();
            Message { have: BTreeMap::new(), entries }
        };
        let unfinished = self.file.with_extension("part");
        let saved = serde_json::to_vec(&everything)
            .map_err(std::io::Error::other)
            .and_then(|bytes| std::fs::write(&unfinished, bytes))
            .and_then(|()| std::fs::rename(&unfinished, &self.file));
        if let Err(error) = saved {
            tracing::debug!(%error, "the history of queries is kept in memory only");
        }
    }

    fn newest(&self) -> u64 {
        self.lock().values().map(|ring| ring.last).fold(0, u64::wrapping_add)
    }
}

fn encode(message: &Message) -> Result<Bytes, String> {
    serde_json::to_vec(message).map(Bytes::from).map_err(|error| error.to_string())
}

fn cut(text: &mut String) {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

async fn exchange(
    history: std::sync::Weak<History>,
    peers: PeersHandle,
    links: watch::Receiver<BTreeMap<NodeId, bool>>,
) {
    // What each of the others was last heard to have.
    let mut known: BTreeMap<NodeId, BTreeMap<u32, u64>> = BTreeMap::new();
    while let Some(own) = history.upgrade() {
        let up: Vec<NodeId> = links.borrow().iter().filter(|(_, is_up)| **is_up).map(|(node, _)| *node).collect();
        let told = up.iter().map(|node| {
            let body = encode(&own.message_for(known.get(node)));
            let peers = &peers;
            async move { peers.call(*node, calls::HISTORY, body.ok()?, CALL).await.ok() }
        });
        let told = futures::future::join_all(told).await;
        let mut is_more = false;
        for (node, answer) in up.iter().zip(told) {
            let answer = answer.filter(|answer| answer.len() <= CALL_BYTES_MAX);
            let message = answer.and_then(|answer| serde_json::from_slice::<Message>(&answer).ok());
            let Some(message) = message else {
                known.remove(node);
                continue;
            };
            known.insert(*node, message.have.clone());
            is_more |= message.entries.len() >= TOLD_MAX;
            own.take_in(message);
            is_more |= !own.message_for(known.get(node)).entries.is_empty();
        }
        if is_more {
            tokio::time::sleep(GATHER).await;
            continue;
        }
        // Held weakly while it waits, so that the node can end.
        let waits = Arc::downgrade(&own);
        let until = Instant::now() + EXCHANGE;
        let before = own.newest();
        drop(own);
        while Instant::now() < until {
            tokio::time::sleep(GATHER).await;
            if waits.upgrade().is_none_or(|own| own.newest() != before) {
                break;
            }
        }
    }
}

async fn save_now_and_then(history: std::sync::Weak<History>) {
    let mut saved = 0;
    loop {
        tokio::time::sleep(SAVE).await;
        let Some(own) = history.upgrade() else { return };
        let newest = own.newest();
        if newest != saved {
            saved = newest;
            drop(tokio::task::spawn_blocking(move || own.save()).await);
        }
    }
}

/// When it began, for an entry of something that took `duration`.
pub fn began(duration: Duration) -> i64 {
    let Timestamp(now) = time::wall();
    now.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(id: &str) -> Entry {
        Entry {
            sequence: 0,
            node: 0,
            kind: Kind::Query,
            id: id.to_owned(),
            subject: "SELECT 1".to_owned(),
            identity: String::new(),
            began: began(Duration::ZERO),
            duration_ms: 1,
            rows: 1,
            error: String::new(),
        }
    }

    fn ids(history: &History) -> Vec<String> {
        history.list(Kind::Query).into_iter().map(|entry| entry.id).collect()
    }

    /// One call and its answer, as nodes exchange it.
    fn talk(from: &History, to: &History, known: Option<&BTreeMap<u32, u64>>) -> BTreeMap<u32, u64> {
        let answer = to.answer(&encode(&from.message_for(known)).expect("encodes")).expect("answers");
        let message: Message = serde_json::from_slice(&answer).expect("decodes");
        let have = message.have.clone();
        from.take_in(message);
        have
    }

    #[test]
    fn everyone_has_everything_once_and_in_order() {
        let folder = std::env::temp_dir().join(format!("seawall-history-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).expect("folder");
        let [one, two, three] = [1, 2, 3].map(|id| History::open(NodeId(id), &folder));
        for number in 0..5 {
            one.note(query(&format!("one {number}")));
            two.note(query(&format!("two {number}")));
        }
        let known = talk(&one, &two, None);
        let known = talk(&one, &two, Some(&known));
        talk(&one, &two, Some(&known));
        // What node 1 did comes to node 3 by way of node 2.
        talk(&three, &two, None);
        for history in [&one, &two, &three] {
            let mut found = ids(history);
            found.sort();
            let mut expected: Vec<String> = (0..5).flat_map(|n| [format!("one {n}"), format!("two {n}")]).collect();
            expected.sort();
            assert_eq!(found, expected);
        }
        three.save();
        let again = History::open(NodeId(1), &folder);
        assert_eq!(ids(&again).len(), 10, "a restart of all keeps it");
        again.note(query("after"));
        talk(&again, &two, Some(&BTreeMap::from([(1, 0), (2, u64::MAX)])));
        assert!(ids(&two).contains(&"after".to_owned()), "a new process goes on behind the old one");
        drop(std::fs::remove_dir_all(folder));
    }

    #[test]
    fn it_is_bounded_in_number_and_in_size() {
        let history = History::open(NodeId(1), std::path::Path::new("/nonexistent"));
        history.note(Entry { kind: Kind::Task, ..query("a task") });
        for number in 0..ENTRIES_MAX + 10 {
            history.note(Entry { subject: "줄".repeat(2_000), ..query(&number.to_string()) });
        }
        let queries = history.list(Kind::Query);
        assert_eq!((queries.len(), queries[0].id.as_str()), (ENTRIES_MAX, "10"));
        assert!(queries.iter().all(|entry| entry.subject.len() <= TEXT_BYTES_MAX));
        assert_eq!(history.list(Kind::Task).len(), 1, "tasks are not pushed out by queries");
        assert!(history.message_for(Some(&BTreeMap::new())).entries.len() <= TOLD_MAX);
        assert!(history.answer(&Bytes::from_static(b"{\"have\":3}")).is_err());
    }
}
