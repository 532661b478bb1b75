//! All links of a node: who listens, who dials whom and when.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use base::{ClusterId, NodeId};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::connection;
use super::enter;
use super::frame::Frame;
use super::handshake::{self, HandshakeError};
use super::hello::{Hello, Refusal, RefusalCode};
use super::local::{self, Local};
use super::peer::{Peer, Place};
use super::relay::{self, Relay, Relays};
use super::tls::{self, Tls, Wire};
use super::{Inbound, Lane, Members, PeersConfig, PeersError};

/// Threads for all links. Two, so that control is worked on while bulk is copied and checked.
const THREADS: usize = 2;
/// Longest attempt to connect, finding the address included.
const CONNECT_MAX: Duration = Duration::from_millis(500);
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A connection that lasted so long was a good one: the next attempt may follow at once.
const LASTED: Duration = Duration::from_secs(1);
/// What the node with the larger id leaves the other one to dial first.
const HEAD_START: Duration = Duration::from_millis(30);
/// Handshakes of strangers at the same time; further ones are closed at once.
const HANDSHAKES_MAX: usize = 256;
/// Pause after the listener failed, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// How long closing waits for farewells.
const CLOSE_PATIENCE: Duration = Duration::from_millis(300);

type Peers = BTreeMap<NodeId, Arc<Peer>>;

/// See the module.
pub struct Links {
    pub local: Arc<Local>,
    pub address: SocketAddr,
    pub relays: Arc<Relays>,
    peers: Arc<RwLock<Peers>>,
    runtime: Mutex<Option<Runtime>>,
}

impl Links {
    pub fn start(config: PeersConfig, inbound: Arc<dyn Inbound>) -> Result<Self, PeersError> {
        let server = Handle::try_current().map_err(|error| PeersError::Threads(std::io::Error::other(error)))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("peers")
            .enable_all()
            .build()
            .map_err(PeersError::Threads)?;
        let refused = |error| PeersError::Listen(config.listen, error);
        let listener = std::net::TcpListener::bind(config.listen).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let listener = {
            let _within = runtime.enter();
            TcpListener::from_std(listener).map_err(refused)?
        };
        let address = listener.local_addr().map_err(refused)?;
        let who = (config.node, config.disk);
        let relay = Arc::new(Relay::new(config.node, inbound));
        let inbound = Arc::clone(&relay) as Arc<dyn Inbound>;
        let local = Local::new(who, (config.cluster.clone(), config.former), config.security, inbound, server);
        let local = Arc::new(local);
        let peers = Arc::new(RwLock::new(Peers::new()));
        relay.serve(&peers);
        let relays = Arc::clone(&relay.relays);
        runtime.spawn(relay::tell(Arc::clone(&local), relay));
        runtime.spawn(accept(listener, Arc::clone(&local), Arc::clone(&peers)));
        runtime.spawn(supervise(
            Arc::clone(&local),
            Arc::clone(&peers),
            Arc::clone(&relays),
            config.members,
            config.cluster,
        ));
        Ok(Self { local, address, relays, peers, runtime: Mutex::new(Some(runtime)) })
    }

    pub fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers().get(&node).cloned()
    }

    pub fn peers(&self) -> RwLockReadGuard<'_, Peers> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn close(&self) {
        self.local.closing.send_replace(true);
        let ended = async {
            // Each connection, the listener and the supervisor listen to this.
            self.local.closing.closed().await;
        };
        drop(timeout(CLOSE_PATIENCE, ended).await);
        self.shut_down();
    }

    fn shut_down(&self) {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("local", &self.local).field("address", &self.address).finish_non_exhaustive()
    }
}

/// Follows the members and the cluster's id.
async fn supervise(
    local: Arc<Local>,
    peers: Arc<RwLock<Peers>>,
    relays: Arc<Relays>,
    mut members: watch::Receiver<Arc<Members>>,
    mut cluster: watch::Receiver<Option<ClusterId>>,
) {
    let mut closing = local.closing.subscribe();
    let mut tidy = interval(TIDY_EVERY);
    tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
    members.mark_changed();
    loop {
        tokio::select! {
            () = local::closed(&mut closing) => return,
            Ok(()) = members.changed() => {
                let now = Arc::clone(&members.borrow_and_update());
                follow(&local, &peers, &relays, &now);
            }
            Ok(()) = cluster.changed() => {
                let now = *cluster.borrow_and_update();
                announce(&peers, now);
            }
            _ = tidy.tick() => {
                each(&peers, Peer::tidy);
                local.tidy();
            }
        }
    }
}

fn follow(local: &Arc<Local>, peers: &RwLock<Peers>, relays: &Relays, members: &Members) {
    let mut removed = Vec::new();
    let mut peers = peers.write().unwrap_or_else(PoisonError::into_inner);
    peers.retain(|node, peer| {
        let stays = members.contains_key(node);
        if !stays {
            removed.push(Arc::clone(peer));
        }
        stays
    });
    for (node, member) in members.iter().filter(|(node, _)| **node != local.node) {
        if let Some(peer) = peers.get(node) {
            peer.update(member);
            continue;
        }
        local.forget_stranger(*node);
        relays.know(*node);
        let peer = Arc::new(Peer::new(*node, member.clone(), Arc::clone(local)));
        for lane in [Lane::Control, Lane::Bulk] {
            tokio::spawn(dial(Arc::clone(&peer), lane));
        }
        peers.insert(*node, peer);
    }
    drop(peers);
    for peer in removed {
        peer.remove("the node is not a member any more");
        relays.forget(peer.node);
    }
}

fn announce(peers: &RwLock<Peers>, cluster: Option<ClusterId>) {
    let Some(cluster) = cluster else { return };
    each(peers, |peer| {
        // A peer that is not connected hears it in the handshake.
        let _sent = peer.lane(Lane::Control).queue.push(Frame::Cluster(cluster.0));
        peer.compare_clusters(None);
    });
}

fn each(peers: &RwLock<Peers>, work: impl Fn(&Peer)) {
    let all: Vec<Arc<Peer>> = peers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    all.iter().for_each(|peer| work(peer));
}

// --- Dialling

/// Dials whenever the lane has no connection, as long as the peer is a member.
async fn dial(peer: Arc<Peer>, lane: Lane) {
    let mut closing = peer.local.closing.subscribe();
    let dialling = async {
        let mut backoff = Backoff::new(peer.local.instance.as_u64_pair().0 ^ u64::from(peer.node.0));
        while !peer.is_removed() {
            // Bulk follows control: the acceptor has its lists in order then, and one refusal is enough.
            let idle = peer.is_connected(lane) || (lane == Lane::Bulk && !peer.is_connected(Lane::Control));
            if idle {
                peer.lane(lane).vacant.notified().await;
                continue;
            }
            if peer.local.node > peer.node && backoff.is_fresh() {
                sleep(HEAD_START).await;
            }
            if !peer.is_connected(lane) {
                match attempt(&peer, lane).await {
                    // Time enough has passed.
                    Attempt::Linked | Attempt::Late => backoff.reset(),
                    Attempt::Failed => {}
                }
            }
            sleep(backoff.next()).await;
        }
    };
    tokio::select! {
        () = dialling => {}
        () = local::closed(&mut closing) => {}
    }
}

/// How an attempt went.
enum Attempt {
    /// There was a connection for a while.
    Linked,
    /// Nobody answered in time.
    Late,
    /// At once.
    Failed,
}

/// Makes one connection and runs it to its end.
async fn attempt(peer: &Arc<Peer>, lane: Lane) -> Attempt {
    let address = peer.address();
    let stream = match timeout(CONNECT_MAX, TcpStream::connect(&address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            peer.failed(&format!("{address}: {error}"));
            return Attempt::Failed;
        }
        Err(_) => {
            peer.failed(&format!("{address}: no answer within {} ms", CONNECT_MAX.as_millis()));
            return Attempt::Late;
        }
    };
    let error = match greet(stream, peer, lane).await {
        Ok((place, wire)) => {
            let began = Instant::now();
            run(place, wire).await;
            return if began.elapsed() >= LASTED { Attempt::Linked } else { Attempt::Failed };
        }
        Err(error) => error,
    };
    match error {
        HandshakeError::Refused(refusal) if refusal.code == RefusalCode::Duplicate => return Attempt::Failed,
        HandshakeError::Refused(refusal) => peer.refused(&refusal.text),
        error => {
            peer.failed(&format!("{address}: {error}"));
            if matches!(error, HandshakeError::Timeout) {
                return Attempt::Late;
            }
        }
    }
    Attempt::Failed
}

async fn greet(stream: TcpStream, peer: &Arc<Peer>, lane: Lane) -> Result<(Place, Wire), HandshakeError> {
    let mut wire = match tls_of(&peer.local) {
        None => Wire::Plain(stream),
        Some(tls) => in_time(handshake::DIAL_MAX, tls.connect(stream, peer.node)).await?,
    };
    let place = handshake::dial(&mut wire, peer, lane).await.map_err(explain)?;
    Ok((place, wire))
}

/// What the other side thinks of a certificate is heard with the first bytes after TLS was set up.
fn explain(error: HandshakeError) -> HandshakeError {
    match error {
        HandshakeError::Io(error) => tls::explain(error),
        other => other,
    }
}

fn tls_of(local: &Local) -> Option<Arc<Tls>> {
    local.security.tls()
}

async fn in_time<T>(
    time: Duration,
    work: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    timeout(time, work).await.map_err(|_| HandshakeError::Timeout)?
}

async fn run(place: Place, wire: Wire) {
    if let Err(error) = wire.tcp().set_nodelay(true) {
        tracing::debug!(%error, "small frames to a peer may be delayed");
    }
    let (reading, writing) = wire.split();
    connection::run(place, reading, writing).await;
}

/// Pauses that double, with jitter of a half.
struct Backoff {
    pause: Duration,
    random: u64,
}

impl Backoff {
    const fn new(seed: u64) -> Self {
        Self { pause: BACKOFF_MIN, random: seed | 1 }
    }

    fn is_fresh(&self) -> bool {
        self.pause == BACKOFF_MIN
    }

    fn reset(&mut self) {
        self.pause = BACKOFF_MIN;
    }

    fn next(&mut self) -> Duration {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let pause = self.pause;
        self.pause = (pause * 2).min(BACKOFF_MAX);
        let half = pause / 2;
        half + half * u32::try_from(self.random % 1_000).unwrap_or(0) / 1_000
    }
}

// --- Accepting

async fn accept(listener: TcpListener, local: Arc<Local>, peers: Arc<RwLock<Peers>>) {
    let mut closing = local.closing.subscribe();
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let stream = tokio::select! {
            () = local::closed(&mut closing) => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "listen.peer");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        // Whoever opens many connections and says nothing takes these places for a second each.
        let Ok(place) = Arc::clone(&handshakes).try_acquire_owned() else { continue };
        let (local, peers) = (Arc::clone(&local), Arc::clone(&peers));
        tokio::spawn(async move {
            if let Some((counted, wire)) = welcome(stream, &local, &peers).await {
                drop(place);
                run(counted, wire).await;
            }
        });
    }
}

async fn welcome(stream: TcpStream, local: &Arc<Local>, peers: &RwLock<Peers>) -> Option<(Place, Wire)> {
    let address = stream.peer_addr().map_or_else(|_| "an unknown address".to_owned(), |address| address.to_string());
    let tls = tls_of(local);
    let secured = match &tls {
        None => Ok(Wire::Plain(stream)),
        Some(tls) => in_time(handshake::HANDSHAKE_MAX, tls.accept(stream)).await,
    };
    let (node, result) = match secured {
        Err(error) => (NodeId(0), Err(error)),
        Ok(mut wire) => {
            let certificate = wire.certificate().cloned();
            let find = |hello: &Hello| {
                tls.as_ref().map_or(Ok(()), |tls| tls.check(certificate.as_ref(), hello.node))?;
                member(peers, hello.node)
            };
            let caller = handshake::accept(&mut wire, local, find).await;
            if let Err(HandshakeError::Enters(request)) = caller.result {
                let proven = tls.as_ref().map_or(Ok(()), |tls| tls.check(certificate.as_ref(), request.node));
                enter::answer(&mut wire, local, request, proven).await;
                return None;
            }
            (caller.node, caller.result.map(|place| (place, wire)))
        }
    };
    let refusal = match result {
        Ok(placed) => return Some(placed),
        Err(HandshakeError::Refused(refusal)) if refusal.code == RefusalCode::Duplicate => return None,
        Err(HandshakeError::Refused(refusal)) => refusal,
        Err(HandshakeError::Enters(_)) => return None,
        Err(HandshakeError::Joined) => {
            tracing::info!(from = address, "a node was given its certificate");
            return None;
        }
        Err(error) => {
            tracing::debug!(peer = %node, from = address, %error, "a connection came to nothing");
            return None;
        }
    };
    let known = peers.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned();
    // A node id that was not proven is not held against the node that has it.
    let proven = refusal.code != RefusalCode::Identity;
    match known {
        Some(peer) if proven => peer.refused(&refusal.text),
        // Before it said who it is, or with a version in which it could not: not a node, or a much newer one.
        _ if node.0 == 0 => tracing::warn!(from = address, reason = %refusal, "a connection was refused"),
        _ => local.refused_stranger(node, &refusal.text),
    }
    None
}

fn member(peers: &RwLock<Peers>, node: NodeId) -> Result<Arc<Peer>, Refusal> {
    peers.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned().ok_or_else(|| {
        let text = format!(
            "node {node} is not a member of this cluster: start it with an empty data folder and cluster.join naming one \
             of its members, or with this cluster's cluster.peers if it founds it with them"
        );
        Refusal::new(RefusalCode::NotMember, text)
    })
}
