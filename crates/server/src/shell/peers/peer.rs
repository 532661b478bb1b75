//! One peer: which connections to it count, what has been seen of it, and the decisions about both.
//!
//! What always holds: for each lane one connection counts, and its number is higher than those of all before it; a
//! connection that does not count delivers nothing; events are told in the order in which things happened, because
//! they are told under the lock that orders them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::{ClusterId, DiskId, NodeId};
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use super::calls::Calls;
use super::frame::Frame;
use super::hello::{Hello, Refusal, RefusalCode};
use super::local::Local;
use super::queue::Queue;
use super::{Lane, LinkEvent, LinkState, LinkStatus, Member};

/// A connection of the same pair that was heard within this time is kept against a second one.
const DUPLICATE_HEARD: Duration = Duration::from_millis(300);
/// As long as a process was heard within this time, another one under its node id is refused.
const OWNER_HEARD: Duration = Duration::from_millis(500);
/// What is said on a connection that made way for another one with the same process.
pub const REPLACED: &str = "replaced by a newer connection";
/// Instances remembered as replaced.
const REPLACED_MAX: usize = 8;
/// A refusal that is not repeated for this long is over.
const REFUSAL_LASTS: Duration = Duration::from_secs(5);
/// Calls of a peer that run at the same time here.
const CALLS_RUNNING_MAX: usize = 256;

/// What the two lanes have each.
#[derive(Debug)]
pub struct LaneState {
    pub queue: Queue,
    /// Bytes received and not yet worked on that there is room for.
    pub room: Arc<Semaphore>,
    /// Number of the connection that counts; 0: none.
    pub current: AtomicU64,
    /// When a byte last came, on [`Local::elapsed_ms`]'s clock.
    pub heard_ms: AtomicU64,
    /// Told when it may be time to dial.
    pub vacant: Notify,
    pub sent_bytes: AtomicU64,
    pub received_bytes: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub struct Peer {
    pub node: NodeId,
    pub local: Arc<Local>,
    pub lanes: [LaneState; 2],
    pub calls: Calls,
    pub running: Arc<Semaphore>,
    /// Smoothed, in microseconds; 0: not yet measured.
    pub round_trip_us: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    member: Member,
    link: LinkState,
    since_ms: u64,
    reason: Option<String>,
    connections: [Option<Current>; 2],
    connections_made: u64,
    /// Attempts to connect.
    attempts: u64,
    /// The instance seen last.
    instance: Option<Uuid>,
    disk: Option<DiskId>,
    cluster: Option<ClusterId>,
    /// Instances that a newer one took the place of.
    replaced: VecDeque<Uuid>,
    refusal: Option<(String, u64)>,
    connects: u64,
    /// Not a member any more.
    removed: bool,
}

/// A connection that counts.
#[derive(Debug)]
struct Current {
    number: u64,
    dialler: NodeId,
    instance: Uuid,
    disk: DiskId,
    stop: Arc<Stop>,
}

/// How a connection is told to end.
#[derive(Debug, Default)]
pub struct Stop {
    reason: Mutex<Option<String>>,
    wake: Notify,
}

impl Stop {
    pub fn stop(&self, reason: &str) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
        self.wake.notify_one();
    }

    pub async fn stopped(&self) -> String {
        loop {
            let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(reason) = reason {
                return reason;
            }
            self.wake.notified().await;
        }
    }
}

/// A connection's place among those of its peer.
#[derive(Debug)]
pub struct Place {
    pub peer: Arc<Peer>,
    pub lane: Lane,
    pub number: u64,
    pub stop: Arc<Stop>,
}

impl Place {
    pub fn lane(&self) -> &LaneState {
        self.peer.lane(self.lane)
    }

    pub fn counts(&self) -> bool {
        self.lane().current.load(Ordering::Acquire) == self.number
    }
}

impl Peer {
    pub fn new(node: NodeId, member: Member, local: Arc<Local>) -> Self {
        let lanes = [Lane::Control, Lane::Bulk].map(|lane| LaneState {
            queue: Queue::new(lane.limits().queue_bytes_max),
            room: Arc::new(Semaphore::new(lane.limits().room_bytes_max)),
            current: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            vacant: Notify::new(),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
        });
        let state = State {
            member,
            link: LinkState::Down,
            since_ms: local.elapsed_ms(),
            reason: None,
            connections: [None, None],
            connections_made: 0,
            attempts: 0,
            instance: None,
            disk: None,
            cluster: None,
            replaced: VecDeque::new(),
            refusal: None,
            connects: 0,
            removed: false,
        };
        let calls = Calls::new(&local.instance);
        let running = Arc::new(Semaphore::new(CALLS_RUNNING_MAX));
        Self { node, local, lanes, calls, running, round_trip_us: AtomicU64::new(0), state: Mutex::new(state) }
    }

    pub fn lane(&self, lane: Lane) -> &LaneState {
        &self.lanes[usize::from(lane.number())]
    }

    /// Where to try next: each of the addresses in turn.
    pub fn address(&self) -> String {
        let mut state = self.lock();
        state.attempts = state.attempts.wrapping_add(1);
        match &state.member.other_address {
            Some(other) if state.attempts.is_multiple_of(2) => other.clone(),
            _ => state.member.address.clone(),
        }
    }

    pub fn is_connected(&self, lane: Lane) -> bool {
        self.lane(lane).current.load(Ordering::Acquire) != 0
    }

    #[cfg(test)]
    pub fn is_up(&self) -> bool {
        matches!(self.lock().link, LinkState::Up | LinkState::Silent)
    }

    pub fn is_removed(&self) -> bool {
        self.lock().removed
    }

    /// The instance that is connected now.
    pub fn instance(&self) -> Option<Uuid> {
        self.lock().connections.iter().flatten().next().map(|current| current.instance)
    }

    /// Would a connection with this peer be taken? `hello` has passed [`super::admission::check`].
    pub fn admits(&self, hello: &Hello, dialler: NodeId) -> Result<(), Refusal> {
        self.admits_now(&self.lock(), hello, dialler)
    }

    /// Takes a connection; those that it replaces are told to stop.
    pub fn place(self: &Arc<Self>, hello: &Hello, dialler: NodeId) -> Result<Place, Refusal> {
        let mut state = self.lock();
        self.admits_now(&state, hello, dialler)?;
        if state.connections.iter().flatten().any(|current| current.instance != hello.instance) {
            self.drop_instance(&mut state, "the peer was started again");
        }
        let slot = usize::from(hello.lane.number());
        let lane = self.lane(hello.lane);
        if let Some(old) = state.connections[slot].take() {
            old.stop.stop(REPLACED);
            self.calls.fail_all();
        }
        state.connections_made += 1;
        let number = state.connections_made;
        let stop = Arc::new(Stop::default());
        let (instance, disk) = (hello.instance, hello.disk);
        state.connections[slot] = Some(Current { number, dialler, instance, disk, stop: Arc::clone(&stop) });
        state.cluster = hello.cluster;
        lane.heard_ms.store(self.local.elapsed_ms(), Ordering::Release);
        lane.current.store(number, Ordering::Release);
        if hello.lane == Lane::Control {
            if !matches!(state.link, LinkState::Up | LinkState::Silent) {
                self.come_up(&mut state, hello);
            }
            self.lane(Lane::Bulk).vacant.notify_one();
        }
        Ok(Place { peer: Arc::clone(self), lane: hello.lane, number, stop })
    }

    /// A connection has ended.
    pub fn ended(&self, place: &Place, reason: &str) {
        let mut state = self.lock();
        let slot = usize::from(place.lane.number());
        if state.connections[slot].as_ref().is_none_or(|current| current.number != place.number) {
            return;
        }
        self.vacate(&mut state, slot);
        if place.lane == Lane::Control {
            self.go_down(&mut state, reason);
        } else if matches!(state.link, LinkState::Up | LinkState::Silent) {
            self.lane(Lane::Bulk).queue.clear();
            self.calls.fail_all();
            self.tell(LinkEvent::Interrupted { reason: reason.to_owned() });
        }
    }

    /// Nothing came on the control lane for a while.
    pub fn silent(&self, place: &Place, quiet: Duration) {
        let mut state = self.lock();
        if place.counts() && state.link == LinkState::Up {
            self.turn(&mut state, LinkState::Silent, None);
            self.tell(LinkEvent::Silent { quiet_ms: u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX) });
        }
    }

    pub fn heard_again(&self, place: &Place) {
        let mut state = self.lock();
        if place.counts() && state.link == LinkState::Silent {
            self.turn(&mut state, LinkState::Up, None);
            self.tell(LinkEvent::Heard);
        }
    }

    /// One of the two nodes refused the other.
    pub fn refused(&self, reason: &str) {
        let mut state = self.lock();
        let now = self.local.elapsed_ms();
        let known = state.refusal.as_ref().is_some_and(|(text, _)| text == reason);
        state.refusal = Some((reason.to_owned(), now));
        if !matches!(state.link, LinkState::Up | LinkState::Silent) {
            let since = if known { state.since_ms } else { now };
            self.turn(&mut state, LinkState::Refused, Some(reason.to_owned()));
            state.since_ms = since;
        }
        if !known {
            self.tell(LinkEvent::Refused { reason: reason.to_owned() });
        }
    }

    /// An attempt to connect failed.
    pub fn failed(&self, reason: &str) {
        let mut state = self.lock();
        if state.link == LinkState::Down {
            state.reason = Some(reason.to_owned());
        }
    }

    /// Once a second: a refusal that is not repeated is over.
    pub fn tidy(&self) {
        let mut state = self.lock();
        let Some((_, at_ms)) = state.refusal else { return };
        if self.local.since_ms(at_ms) >= millis(REFUSAL_LASTS) {
            self.forget_refusal(&mut state);
        }
    }

    /// The member's address or disk may have changed.
    pub fn update(&self, member: &Member) {
        let mut state = self.lock();
        let wrong = member.disk.filter(|disk| state.connections.iter().flatten().any(|current| current.disk != *disk));
        state.member = member.clone();
        if let Some(disk) = wrong {
            self.drop_instance(
                &mut state,
                &format!("its disk is not {disk}, which is the one this node id belongs to"),
            );
        }
    }

    /// Compares clusters again, because this node's or the peer's became known.
    pub fn compare_clusters(&self, theirs: Option<Uuid>) {
        let mut state = self.lock();
        if let Some(theirs) = theirs {
            state.cluster = (!theirs.is_nil()).then_some(ClusterId(theirs));
        }
        if let (Some(ours), Some(theirs)) = (self.local.cluster(), state.cluster)
            && ours != theirs
        {
            self.drop_instance(&mut state, &format!("it belongs to cluster {theirs}, this node to {ours}"));
        }
    }

    /// Not a member any more, or this node ends.
    pub fn remove(&self, reason: &str) {
        let mut state = self.lock();
        state.removed = true;
        self.drop_instance(&mut state, reason);
        if state.refusal.is_some() {
            self.forget_refusal(&mut state);
        }
        drop(state);
        self.lanes.iter().for_each(|lane| lane.vacant.notify_one());
    }

    pub fn status(&self) -> LinkStatus {
        let state = self.lock();
        let heard = self.lanes.iter().map(|lane| lane.heard_ms.load(Ordering::Acquire)).max().filter(|ms| *ms > 0);
        let sum = |count: fn(&LaneState) -> &AtomicU64| {
            self.lanes.iter().map(|lane| count(lane).load(Ordering::Relaxed)).sum()
        };
        let loads = [self.lanes[0].queue.load(), self.lanes[1].queue.load()];
        let round_trip = self.round_trip_us.load(Ordering::Relaxed);
        LinkStatus {
            node: self.node,
            address: state.member.address.clone(),
            state: state.link,
            since_ms: self.local.since_ms(state.since_ms),
            reason: state.reason.clone(),
            instance: state.instance,
            disk: state.member.disk.or(state.disk),
            round_trip_us: (round_trip > 0).then_some(round_trip),
            last_heard_ms: heard.map(|ms| self.local.since_ms(ms)),
            sent_bytes: sum(|lane| &lane.sent_bytes),
            received_bytes: sum(|lane| &lane.received_bytes),
            queued_bytes: loads.map(|(bytes, _)| bytes),
            dropped_frames: loads.iter().map(|(_, dropped)| dropped).sum(),
            connects: state.connects,
            relayed_by: None,
            passed_on: 0,
        }
    }

    fn admits_now(&self, state: &State, hello: &Hello, dialler: NodeId) -> Result<(), Refusal> {
        if state.removed {
            return Err(Refusal::new(RefusalCode::NotMember, format!("node {} is not a member", self.node)));
        }
        if let Some(disk) = state.member.disk.filter(|disk| *disk != hello.disk) {
            let text = format!(
                "node id {} belongs to disk {disk}, and this is disk {}: a wiped or another disk cannot vote as the \
                 old one; give the node a new id, or replace the disk of node {0}",
                self.node, hello.disk
            );
            return Err(Refusal::new(RefusalCode::OtherDisk, text));
        }
        let others = state.connections.iter().flatten().find(|current| current.instance != hello.instance);
        if let Some(other) = others {
            self.admits_beside(state, hello, other)?;
        }
        let Some(old) = &state.connections[usize::from(hello.lane.number())] else { return Ok(()) };
        let stays = old.instance == hello.instance
            && old.dialler != dialler
            && old.dialler == self.local.node.min(self.node)
            && self.heard_within(self.lane(hello.lane), DUPLICATE_HEARD);
        if stays {
            return Err(Refusal::new(RefusalCode::Duplicate, "there is a connection already"));
        }
        Ok(())
    }

    /// Another process is connected under this node id: is the newcomer its successor?
    fn admits_beside(&self, state: &State, hello: &Hello, other: &Current) -> Result<(), Refusal> {
        let heard = self.lanes.iter().any(|lane| self.heard_within(lane, OWNER_HEARD));
        let text = if !heard {
            return Ok(());
        } else if other.disk != hello.disk {
            format!(
                "another process with disk {} is connected as node {}, and this one has disk {}: give one of them \
                 another node.id",
                other.disk, self.node, hello.disk
            )
        } else if state.replaced.contains(&hello.instance) {
            format!(
                "two processes run as node {} with the same disk {}, the newer one is connected: was the data folder \
                 copied? Stop one of them",
                self.node, hello.disk
            )
        } else {
            return Ok(());
        };
        Err(Refusal::new(RefusalCode::TwoNodes, text))
    }

    fn heard_within(&self, lane: &LaneState, time: Duration) -> bool {
        let heard_ms = lane.heard_ms.load(Ordering::Acquire);
        lane.current.load(Ordering::Acquire) != 0 && self.local.since_ms(heard_ms) < millis(time)
    }

    fn come_up(&self, state: &mut State, hello: &Hello) {
        let restarted = state.instance.is_some_and(|before| before != hello.instance);
        state.instance = Some(hello.instance);
        state.disk = Some(hello.disk);
        state.connects += 1;
        self.lanes.iter().for_each(|lane| lane.queue.open());
        self.turn(state, LinkState::Up, None);
        self.forget_refusal(state);
        // It may have been formed after the handshake began.
        if let Some(cluster) = self.local.cluster().filter(|cluster| hello.cluster != Some(*cluster)) {
            let _not_full = self.lane(Lane::Control).queue.push(Frame::Cluster(cluster.0));
        }
        self.tell(LinkEvent::Up { instance: hello.instance, restarted });
    }

    fn go_down(&self, state: &mut State, reason: &str) {
        for slot in 0..state.connections.len() {
            if let Some(current) = &state.connections[slot] {
                current.stop.stop(reason);
                self.vacate(state, slot);
            }
        }
        self.lanes.iter().for_each(|lane| lane.queue.close());
        self.calls.fail_all();
        if matches!(state.link, LinkState::Up | LinkState::Silent) {
            self.turn(state, LinkState::Down, Some(reason.to_owned()));
            self.tell(LinkEvent::Down { reason: reason.to_owned() });
        }
    }

    /// Ends what there is with the instance that is connected; it is not taken back while another one is there.
    fn drop_instance(&self, state: &mut State, reason: &str) {
        let instance = state.connections.iter().flatten().next().map(|current| current.instance);
        if let Some(instance) = instance.filter(|instance| !state.replaced.contains(instance)) {
            state.replaced.push_back(instance);
            if state.replaced.len() > REPLACED_MAX {
                state.replaced.pop_front();
            }
        }
        self.go_down(state, reason);
    }

    fn vacate(&self, state: &mut State, slot: usize) {
        state.connections[slot] = None;
        self.lanes[slot].current.store(0, Ordering::Release);
        self.lanes[slot].vacant.notify_one();
    }

    fn turn(&self, state: &mut State, link: LinkState, reason: Option<String>) {
        state.link = link;
        state.reason = reason;
        state.since_ms = self.local.elapsed_ms();
    }

    fn forget_refusal(&self, state: &mut State) {
        if state.refusal.take().is_some() {
            if state.link == LinkState::Refused {
                self.turn(state, LinkState::Down, None);
            }
            self.tell(LinkEvent::RefusalOver);
        }
    }

    fn tell(&self, event: LinkEvent) {
        tracing::debug!(peer = %self.node, ?event, "peer");
        self.local.inbound.link(self.node, event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
