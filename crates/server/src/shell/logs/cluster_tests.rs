//! Three owners of partitions on three memory disks, joined by a network that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::disk::memory::MemDisk;
use base::records::{BatchBuilder, decode};
use base::{PartitionIndex, Timestamp, TopicId};
use log::{ReadLimit, Reader};
use quorum::GroupKey;
use uuid::Uuid;

use super::*;
use crate::node::time;
use crate::shell::outbox::BEATS;
use crate::shell::peers::{GroupFrame, Lane};

mod sleeping;

const CAPACITY_BYTES: u64 = 256 << 20;
const VOTERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// The way between the nodes.
#[derive(Default)]
struct Mesh {
    nodes: Mutex<BTreeMap<NodeId, LogsHandle>>,
    /// Sends of the first to the second vanish.
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    /// A node whose lock is held stands still as soon as it speaks.
    paused: [Mutex<()>; 3],
    /// Frames sent, by whether they were beats.
    sent: Mutex<BTreeMap<bool, u64>>,
    /// What was sent last on the control lane, by receiver.
    last: Mutex<BTreeMap<NodeId, (NodeId, Bytes)>>,
}

struct End {
    node: NodeId,
    mesh: Arc<Mesh>,
}

impl Outbox for End {
    fn send(&self, to: NodeId, lane: Lane, group: GroupKey, message: Bytes) -> bool {
        drop(self.mesh.paused[usize::try_from(self.node.0 - 1).unwrap()].lock().unwrap());
        *self.mesh.sent.lock().unwrap().entry(group == BEATS).or_default() += 1;
        if self.mesh.cut.lock().unwrap().contains(&(self.node, to)) {
            return true;
        }
        if lane == Lane::Control {
            self.mesh.last.lock().unwrap().insert(to, (self.node, message.clone()));
        }
        let there = self.mesh.nodes.lock().unwrap().get(&to).cloned();
        there.is_some_and(|logs| {
            logs.step(GroupFrame::local(self.node, lane, group, message));
            true
        })
    }
}

impl Mesh {
    /// Cuts a node from all others, as a network does: nobody is told.
    fn isolate(&self, node: NodeId) {
        let mut cut = self.cut.lock().unwrap();
        for other in VOTERS.into_iter().filter(|other| *other != node) {
            cut.insert((node, other));
            cut.insert((other, node));
        }
    }

    fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }
}

struct Cluster {
    mesh: Arc<Mesh>,
    disks: BTreeMap<NodeId, MemDisk>,
}

impl Cluster {
    async fn start() -> Self {
        let disks = VOTERS.map(|node| (node, MemDisk::new(u64::from(node.0), CAPACITY_BYTES)));
        let mut cluster = Self { mesh: Arc::default(), disks: disks.into() };
        for node in VOTERS {
            cluster.begin(node).await;
        }
        cluster
    }

    async fn begin(&mut self, node: NodeId) {
        let disk: Arc<dyn Disk> = Arc::new(self.disks[&node].clone());
        let hard = quorum::HardStates::open(Arc::clone(&disk), "hard-state").unwrap();
        let logs = start(Start {
            disk,
            hard: Arc::new(Mutex::new(hard)),
            config: LogsConfig { node, flush_interval_ms: 10, reserve_bytes: 0, bytes_max: None },
            findings: Arc::default(),
            outbox: Arc::new(End { node, mesh: Arc::clone(&self.mesh) }),
        });
        let logs = logs.unwrap();
        let seats = Seats { voters: VOTERS.to_vec(), learners: Vec::new() };
        logs.open(id(), PartitionConfig::default(), seats).await.unwrap();
        let mut nodes = self.mesh.nodes.lock().unwrap();
        for (other, handle) in nodes.iter() {
            handle.link(node, true);
            logs.link(*other, true);
        }
        nodes.insert(node, logs);
    }

    /// The process ends as it is; `power` is lost too or not. The others see the connection close.
    fn kill(&mut self, node: NodeId, power: bool) {
        let gone = self.mesh.nodes.lock().unwrap().remove(&node);
        // Nothing of the old process reaches the new one's disk.
        let disk = &self.disks[&node];
        let image = if power { disk.crash() } else { disk.kill() };
        drop(gone);
        self.disks.insert(node, image);
        self.mesh.nodes.lock().unwrap().values().for_each(|other| other.link(node, false));
    }

    fn logs(&self, node: NodeId) -> LogsHandle {
        self.mesh.nodes.lock().unwrap()[&node].clone()
    }

    /// Whoever leads with the highest term.
    async fn leader(&self) -> NodeId {
        let begun = time::now();
        loop {
            let nodes = self.mesh.nodes.lock().unwrap().clone();
            let led = nodes.iter().filter_map(|(node, logs)| {
                let leadership = *logs.leadership(id())?.borrow();
                leadership.is_mine.then_some((leadership.term, *node))
            });
            if let Some((_, node)) = led.max() {
                return node;
            }
            assert!(time::now().since(begun) < 10_000, "no leader");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks whoever leads until it is acknowledged; how long that took.
    async fn append(&self, value: &str) -> u64 {
        let begun = time::now();
        loop {
            let leader = self.leader().await;
            let result = self.logs(leader).append(id(), batch(value), Acks::All, time::now().plus(2_000)).await;
            match result {
                Ok(_) => return time::now().since(begun),
                Err(error) => assert!(time::now().since(begun) < 10_000, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a node has everything committed up to `offset`.
    async fn caught_up(&self, node: NodeId, offset: Offset) {
        let mut committed = self.logs(node).committed(id()).unwrap();
        let caught_up = committed.wait_for(|committed| *committed >= offset);
        tokio::time::timeout(Duration::from_secs(10), caught_up).await.expect("caught up").unwrap();
    }
}

fn id() -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(7)), partition: PartitionIndex(3) }
}

fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(base::batch::Codec::None);
    builder.push(Timestamp(1_000), None, Some(value.as_bytes()), &[]);
    builder.build().unwrap()
}

fn read(reader: &Reader) -> Vec<String> {
    let (mut values, mut at) = (Vec::new(), reader.start());
    loop {
        let fetched = reader.read(at, 1 << 20, ReadLimit::Committed).unwrap();
        for (header, bytes) in base::batch::split(&fetched.bytes).flatten() {
            assert!(!header.is_control());
            for record in decode(&bytes).unwrap().iter() {
                values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
            }
        }
        if fetched.bytes.is_empty() {
            return values;
        }
        at = fetched.next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_preferred_replica_leads_a_new_partition_at_once() {
    let begun = time::now();
    let cluster = Cluster::start().await;
    assert_eq!(cluster.leader().await, VOTERS[0]);
    assert!(time::now().since(begun) < 240, "after {} ms", time::now().since(begun));
    cluster.append("first").await;
    for node in VOTERS {
        cluster.caught_up(node, Offset(1)).await;
        assert_eq!(read(&cluster.logs(node).reader(id()).unwrap()), ["first"]);
        assert_eq!(cluster.logs(node).leadership(id()).unwrap().borrow().leader, Some(VOTERS[0]));
    }
    let refused =
        cluster.logs(VOTERS[1]).append(id(), batch("x"), Acks::All, time::now().plus(1_000)).await.unwrap_err();
    assert_eq!(refused, LogsError::Append(AppendError::NotLeader { leader: Some(VOTERS[0]) }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leaders_lose_nothing() {
    let mut cluster = Cluster::start().await;
    let mut values = Vec::new();
    let mut gaps = Vec::new();
    for round in 0..6 {
        for number in 0..10 {
            values.push(format!("round {round} number {number}"));
            cluster.append(values.last().unwrap()).await;
        }
        let leader = cluster.leader().await;
        cluster.kill(leader, round % 2 == 0);
        values.push(format!("round {round} after the leader"));
        gaps.push(cluster.append(values.last().unwrap()).await);
        cluster.begin(leader).await;
    }
    let end = cluster.logs(cluster.leader().await).reader(id()).unwrap().committed();
    for node in VOTERS {
        cluster.caught_up(node, end).await;
        let there = read(&cluster.logs(node).reader(id()).unwrap());
        for value in &values {
            assert!(there.contains(value), "{value} is not on node {node}");
        }
    }
    gaps.sort_unstable();
    assert!(*gaps.last().unwrap() < 2_000, "{gaps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_stops_to_acknowledge_and_says_so() {
    let cluster = Cluster::start().await;
    cluster.append("before").await;
    let old = cluster.leader().await;
    cluster.mesh.isolate(old);
    let cut = time::now();
    let pending = {
        let logs = cluster.logs(old);
        tokio::spawn(async move { logs.append(id(), batch("pending"), Acks::All, time::now().plus(5_000)).await })
    };
    let mut acked = 0;
    let refused = loop {
        match cluster.logs(old).append(id(), batch("alone"), Acks::Leader, time::now().plus(5_000)).await {
            Ok(_) => acked += 1,
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let stopped_ms = time::now().since(cut);
    assert!(stopped_ms < 600, "acknowledged for {stopped_ms} ms after the cut");
    assert!(matches!(refused, LogsError::Append(AppendError::NotLeader { .. })), "{refused}");
    assert!(pending.await.unwrap().is_err());
    assert!(time::now().since(cut) < 1_000, "a waiter was left hanging");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_ne!(cluster.leader().await, old);
    for number in 0..20 {
        cluster.append(&format!("meanwhile {number}")).await;
    }
    cluster.mesh.heal();
    cluster.append("after").await;
    let end = cluster.logs(cluster.leader().await).reader(id()).unwrap().committed();
    cluster.caught_up(old, end).await;
    let there = read(&cluster.logs(old).reader(id()).unwrap());
    assert_eq!(there, read(&cluster.logs(cluster.leader().await).reader(id()).unwrap()));
    assert!(there.contains(&"meanwhile 19".to_owned()) && there.contains(&"before".to_owned()));
    let lost = there.iter().filter(|value| *value == "alone").count() < acked;
    let found = cluster.logs(old).status(id()).await.unwrap().replica.lost_batches;
    assert!(!lost || found >= acked as u64, "{acked} were acknowledged, {found} batches are in lost+found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_reads_go_on_and_writes_are_refused_at_once() {
    let mut cluster = Cluster::start().await;
    cluster.append("before").await;
    for node in VOTERS {
        cluster.caught_up(node, Offset(1)).await;
    }
    // Each notes what it knows to be committed after a second.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    cluster.kill(VOTERS[0], false);
    cluster.kill(VOTERS[1], false);
    tokio::time::sleep(Duration::from_millis(700)).await;
    let begun = time::now();
    let refused = cluster.logs(VOTERS[2]).append(id(), batch("x"), Acks::All, begun.plus(5_000)).await.unwrap_err();
    assert!(time::now().since(begun) < 50);
    assert!(matches!(&refused, LogsError::NotEnoughReplicas { missing, .. } if missing.len() == 2), "{refused}");
    assert_eq!(read(&cluster.logs(VOTERS[2]).reader(id()).unwrap()), ["before"]);
    // The one that was there goes too; what was committed is served by whoever is back first.
    cluster.kill(VOTERS[2], true);
    cluster.begin(VOTERS[1]).await;
    assert_eq!(read(&cluster.logs(VOTERS[1]).reader(id()).unwrap()), ["before"]);
    cluster.begin(VOTERS[2]).await;
    cluster.append("again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everyone_loses_power() {
    let mut cluster = Cluster::start().await;
    for round in 0..3 {
        for number in 0..20 {
            cluster.append(&format!("round {round} number {number}")).await;
        }
        for node in VOTERS {
            cluster.kill(node, true);
        }
        for node in VOTERS {
            cluster.begin(node).await;
        }
        cluster.append(&format!("round {round} is over")).await;
        let there = read(&cluster.logs(cluster.leader().await).reader(id()).unwrap());
        for number in 0..20 {
            let value = format!("round {round} number {number}");
            assert!(there.contains(&value), "{value} is lost");
        }
    }
}

/// A heartbeat as the leader sent it, that says of a later entry that it is committed.
fn of_a_later_commit(message: &Bytes) -> Option<Bytes> {
    let said = log::Message::decode(message.clone()).ok()?.to_string();
    let (start, commit) = said.split_once(" heartbeat ").and(said.rsplit_once(" commit "))?;
    let commit: u64 = commit.parse().ok()?;
    let wanted = format!("{start} commit {}", commit + 1_000_000);
    (0..message.len().saturating_sub(7)).find_map(|at| {
        let mut bytes = message.to_vec();
        bytes[at..at + 8].copy_from_slice(&(commit + 1_000_000).to_le_bytes());
        let patched = Bytes::from(bytes);
        let reads = log::Message::decode(patched.clone()).is_ok_and(|message| message.to_string() == wanted);
        reads.then_some(patched)
    })
}

/// What a replica whose disk forgot something finds out from its leader: it is opened again and gets all of it back, and
/// who followed it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stopped_for_damage_is_opened_again_and_gets_everything_back() {
    let cluster = Cluster::start().await;
    for number in 0..20 {
        cluster.append(&format!("number {number}")).await;
    }
    let leader = cluster.leader().await;
    let follower = VOTERS.into_iter().find(|node| *node != leader).unwrap();
    let followed = cluster.logs(follower).committed(id()).unwrap();
    let term = cluster.logs(follower).status(id()).await.unwrap().term;
    let begun = time::now();
    let forged = loop {
        let last = cluster.mesh.last.lock().unwrap().get(&follower).cloned();
        let forged = last.filter(|(from, _)| *from == leader).and_then(|(_, message)| of_a_later_commit(&message));
        if let Some(forged) = forged {
            break forged;
        }
        assert!(time::now().since(begun) < 10_000, "no heartbeat");
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    cluster.logs(follower).step(GroupFrame::local(leader, Lane::Control, log::group_key(id()), forged));
    // It has stopped, and has been opened again, in a term of its own.
    loop {
        let status = cluster.logs(follower).status(id()).await;
        let is_whole =
            |status: ReplicaStatus| status.term > term && !status.replica.damaged && status.committed.0 >= 20;
        if status.is_ok_and(is_whole) {
            break;
        }
        assert!(time::now().since(begun) < 20_000, "not repaired");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.append("after").await;
    let mut followed = followed;
    let seen = followed.wait_for(|committed| committed.0 >= 21);
    tokio::time::timeout(Duration::from_secs(10), seen).await.expect("it comes back").expect("it is still told");
    let there = read(&cluster.logs(follower).reader(id()).unwrap());
    assert_eq!(there.len(), 21, "{there:?}");
    assert_eq!(there, read(&cluster.logs(cluster.leader().await).reader(id()).unwrap()));
}
