//! Links over loopback: what is promised of them, and what peers may do that they should not.

mod codec;
mod identity;
mod traffic;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base::{ClusterId, DiskId, NodeId};
use bytes::Bytes;
use quorum::GroupKey;
use tokio::sync::watch;
use uuid::Uuid;

use super::hello::{Greeting, HEADER_BYTES, Header, Hello};
use super::{
    GroupFrame, Inbound, Lane, LinkEvent, LinkState, Member, Members, PeersConfig, PeersHandle, Refusal, RefusalCode,
    Security, start,
};

/// On a busy machine everything takes longer; nothing takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps what arrives. Holds frames back when told to.
#[derive(Default)]
pub struct Seen {
    frames: Mutex<Vec<(NodeId, Lane, Bytes)>>,
    events: Mutex<Vec<(NodeId, LinkEvent)>>,
    held: Mutex<Option<Vec<GroupFrame>>>,
}

#[async_trait::async_trait]
impl Inbound for Seen {
    fn group(&self, frame: GroupFrame) {
        if let Some(held) = &mut *self.held.lock().expect("held") {
            return held.push(frame);
        }
        self.frames.lock().expect("frames").push((frame.from, frame.lane, frame.message));
    }

    async fn call(&self, from: NodeId, kind: u8, body: Bytes) -> Result<Bytes, String> {
        match kind {
            1 => Ok(body),
            2 => Err(format!("node {from} may not")),
            3 => Ok(Bytes::from(vec![7; 3 << 20])),
            _ => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(body)
            }
        }
    }

    async fn enter(&self, node: NodeId, body: Bytes) -> Result<Bytes, Refusal> {
        match &body[..] {
            b"later" => Err(Refusal::new(RefusalCode::NotYet, format!("node {node} asks too early"))),
            _ => Ok(body),
        }
    }

    fn link(&self, peer: NodeId, event: LinkEvent) {
        self.events.lock().expect("events").push((peer, event));
    }
}

impl Seen {
    pub fn count(&self) -> usize {
        self.frames.lock().expect("frames").len()
    }

    pub fn froms(&self) -> Vec<u32> {
        self.frames.lock().expect("frames").iter().map(|frame| frame.0.0).collect()
    }

    pub fn messages(&self, lane: Lane) -> Vec<Bytes> {
        let frames = self.frames.lock().expect("frames");
        frames.iter().filter(|frame| frame.1 == lane).map(|frame| frame.2.clone()).collect()
    }

    pub fn events(&self, peer: u32) -> Vec<LinkEvent> {
        let events = self.events.lock().expect("events");
        events.iter().filter(|(node, _)| node.0 == peer).map(|(_, event)| event.clone()).collect()
    }

    pub fn refusals(&self, peer: u32) -> Vec<String> {
        let refusal = |event| match event {
            LinkEvent::Refused { reason } => Some(reason),
            _ => None,
        };
        self.events(peer).into_iter().filter_map(refusal).collect()
    }
}

/// A node with its links, and the ends of what it follows.
pub struct TestNode {
    pub peers: PeersHandle,
    pub seen: Arc<Seen>,
    pub members: watch::Sender<Arc<Members>>,
    pub cluster: watch::Sender<Option<ClusterId>>,
}

pub fn any() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

pub fn disk(number: u128) -> DiskId {
    DiskId(Uuid::from_u128(number))
}

pub fn cluster(number: u128) -> Option<ClusterId> {
    Some(ClusterId(Uuid::from_u128(number)))
}

/// Members by their addresses.
pub fn members(list: &[(u32, SocketAddr)]) -> Arc<Members> {
    let member = |(node, address): &(u32, SocketAddr)| {
        (NodeId(*node), Member { address: address.to_string(), other_address: None, disk: None })
    };
    Arc::new(list.iter().map(member).collect::<BTreeMap<_, _>>())
}

pub fn node(id: u32, disk_number: u128, listen: SocketAddr) -> TestNode {
    secured(id, disk_number, listen, Security::Plain)
}

pub fn secured(id: u32, disk_number: u128, listen: SocketAddr, security: Security) -> TestNode {
    let seen = Arc::new(Seen::default());
    let (members, following) = watch::channel(Arc::default());
    let (cluster, in_cluster) = watch::channel(cluster(1));
    let config = PeersConfig {
        node: NodeId(id),
        disk: disk(disk_number),
        cluster: in_cluster,
        former: watch::channel(Arc::default()).1,
        listen,
        security,
        members: following,
    };
    let inbound: Arc<Seen> = Arc::clone(&seen);
    let peers = start(config, inbound).expect("links");
    TestNode { peers, seen, members, cluster }
}

/// Nodes 1 to `count`, with their ids as disks, that know each other.
pub async fn nodes(count: u32) -> Vec<TestNode> {
    let nodes: Vec<TestNode> = (1..=count).map(|id| node(id, u128::from(id), any())).collect();
    let list: Vec<(u32, SocketAddr)> = (1..).zip(nodes.iter().map(|node| node.peers.address())).collect();
    for node in &nodes {
        node.members.send_replace(members(&list));
    }
    for (id, node) in (1..).zip(&nodes) {
        for other in (1..=count).filter(|other| *other != id) {
            until("a link comes up", || node.peers.is_up(NodeId(other))).await;
        }
    }
    nodes
}

/// Both lanes, both ways: every frame of a node to another arrives there.
pub async fn works(from: &TestNode, to: u32, seen: &Seen) {
    for lane in [Lane::Control, Lane::Bulk] {
        let text = Bytes::from(Uuid::new_v4().to_string());
        until("a frame arrives", || {
            drop(from.peers.send(NodeId(to), lane, key(1), text.clone()));
            seen.messages(lane).contains(&text)
        })
        .await;
    }
}

pub fn key(number: u8) -> GroupKey {
    GroupKey([number; 20])
}

pub async fn until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "waited {} s until {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn state(node: &TestNode, peer: u32) -> Option<LinkState> {
    node.peers.links().into_iter().find(|link| link.node.0 == peer).map(|link| link.state)
}

/// What a node with these says.
pub fn hello(node: u32, to: u32, lane: Lane) -> Hello {
    Hello {
        versions: (1, 1),
        lane,
        node: NodeId(node),
        to: NodeId(to),
        cluster: cluster(1),
        disk: disk(node.into()),
        instance: Uuid::new_v4(),
    }
}

/// A peer made by hand.
pub struct Hand {
    pub stream: tokio::net::TcpStream,
}

impl Hand {
    pub async fn connect(address: SocketAddr) -> Self {
        Self { stream: tokio::net::TcpStream::connect(address).await.expect("connects") }
    }

    /// Dials and agrees.
    pub async fn join(address: SocketAddr, hello: Hello) -> Self {
        let mut hand = Self::connect(address).await;
        match hand.greet(&Greeting::Hello(hello)).await {
            Some(Greeting::Welcome(_)) => hand.send(&Greeting::Agreed.encode()).await,
            other => panic!("a welcome was expected, not {other:?}"),
        }
        hand
    }

    pub async fn greet(&mut self, greeting: &Greeting) -> Option<Greeting> {
        self.send(&greeting.encode()).await;
        self.hear().await
    }

    /// `None`: the other side closed.
    pub async fn hear(&mut self) -> Option<Greeting> {
        use tokio::io::AsyncReadExt;
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header).await.ok()?;
        let header = Header::decode(&header).expect("a header");
        let mut body = vec![0; header.body_bytes];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(Greeting::decode(&header, &body).expect("a greeting"))
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        use tokio::io::AsyncWriteExt;
        self.stream.write_all(bytes).await.expect("written");
    }

    /// Reads until the other side closes; answers everything it said.
    pub async fn rest(&mut self) -> Vec<u8> {
        use tokio::io::AsyncReadExt;
        let mut rest = Vec::new();
        let reading = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest));
        drop(reading.await.expect("closed in time"));
        rest
    }
}
