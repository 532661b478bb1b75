//! The spool's partitions to the cluster, in rounds: cut, make the cuts durable, send to all leaders, read the answers.
//!
//! What always holds: nothing is sent whose place is not durable; a leader that does not answer costs its partitions a pause,
//! not their order; what the cluster has is deleted from the spool only after that is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base::{Offset, PartitionIndex, TopicPartition};
use client::{Acks, ClientError, Cluster};
use control::State;
use log::forward::{Batch, Next, Way};
use log::{ReadError, ReadLimit, Reader};

use super::dead::DeadLetters;
use super::places::Places;
use super::records::{BATCH_BYTES, Spooled};
use super::remote::{PATIENCE, answer};
use super::status::Status;
use crate::node::findings::{Finding, Severity};
use crate::node::{Node, time};

/// Bytes read from one partition for a round.
const READ_BYTES: usize = log::forward::UNDER_WAY_MAX * BATCH_BYTES;
/// Bytes of one round over all partitions.
const ROUND_BYTES_MAX: usize = 32 << 20;
/// Pause when there is nothing to send; it doubles up to the maximum.
const IDLE_MIN: Duration = Duration::from_millis(1);
const IDLE_MAX: Duration = Duration::from_millis(20);
/// Pause of a partition that was not taken; it doubles up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Offsets that are passed on before the spool is trimmed again.
const TRIM_EVERY: i64 = 10_000;
/// Or this long.
const TRIM_PAUSE: Duration = Duration::from_secs(5);
/// Longest wait for it to be done.
const DELETE_WAIT_MS: u64 = 10_000;

/// A partition and how far it is.
struct Route {
    topic: String,
    place_name: String,
    id: TopicPartition,
    reader: Reader,
    way: Way,
    pause: Duration,
    not_before: Instant,
    trimmed: (Offset, Instant),
}

/// What one partition sends in this round.
struct Load {
    route: usize,
    spooled: Spooled,
    batches: Vec<Batch>,
    /// Of the connection they went over, and how many went.
    sent: Option<(String, usize)>,
}

/// Owns the connections to the cluster. Runs on a thread of its own.
pub struct Shipper {
    node: Arc<Node>,
    runtime: tokio::runtime::Handle,
    cluster: Cluster,
    places: Arc<Places>,
    dead: Arc<DeadLetters>,
    status: Arc<Status>,
    stopped: Arc<AtomicBool>,
    state: Option<Arc<State>>,
    routes: Vec<Route>,
    /// The route a round begins with.
    first: usize,
    /// Partitions of the cluster's topics, as last heard.
    counts: BTreeMap<String, i32>,
}

impl Shipper {
    pub fn new(
        node: &Arc<Node>,
        to: Vec<String>,
        places: Arc<Places>,
        dead: Arc<DeadLetters>,
        status: &Arc<Status>,
        stopped: Arc<AtomicBool>,
    ) -> Self {
        Self {
            node: Arc::clone(node),
            runtime: tokio::runtime::Handle::current(),
            cluster: Cluster::new(to, "seawall-forward", PATIENCE),
            places,
            dead,
            status: Arc::clone(status),
            stopped,
            state: None,
            routes: Vec::new(),
            first: 0,
            counts: BTreeMap::new(),
        }
    }

    /// Until it is told to stop.
    pub fn run(mut self) {
        let mut idle = IDLE_MIN;
        while !self.stopped.load(Ordering::Acquire) {
            self.refresh();
            if self.round() {
                idle = IDLE_MIN;
            } else {
                std::thread::sleep(idle);
                idle = (idle * 2).min(IDLE_MAX);
            }
        }
    }

    /// A route for each partition of each topic.
    fn refresh(&mut self) {
        let state = self.node.state();
        if self.state.as_ref().is_some_and(|known| Arc::ptr_eq(known, &state)) {
            return;
        }
        let known: BTreeSet<TopicPartition> = self.routes.iter().map(|route| route.id).collect();
        let mut is_whole = true;
        for topic in state.topics.values().filter(|topic| !topic.internal) {
            for index in 0..topic.partitions {
                let id = TopicPartition { topic: topic.id, partition: PartitionIndex(index) };
                if known.contains(&id) {
                    continue;
                }
                let Some(reader) = self.node.reader(id) else {
                    is_whole = false;
                    continue;
                };
                let place_name = format!("{}/{index}", topic.id);
                let way = Way::resume(self.places.get(&place_name));
                self.status.is_at(id, way.place().from);
                let now = Instant::now();
                let trimmed = (reader.start(), now);
                let topic = topic.name.clone();
                self.routes.push(Route {
                    topic,
                    place_name,
                    id,
                    reader,
                    way,
                    pause: RETRY_MIN,
                    not_before: now,
                    trimmed,
                });
            }
        }
        self.routes.retain(|route| state.topics.contains_key(&route.id.topic));
        // A partition that is not open yet is looked for again.
        self.state = is_whole.then_some(state);
    }

    /// One round; true if anything was taken or set aside.
    fn round(&mut self) -> bool {
        let mut loads = self.prepare();
        if loads.is_empty() {
            return false;
        }
        if let Err(error) = self.save(&loads) {
            self.wait(&loads, &error);
            return false;
        }
        let mut broken = BTreeSet::new();
        for load in &mut loads {
            self.send(load, &mut broken);
        }
        let mut has_moved = false;
        for load in &loads {
            has_moved |= self.receive(load, &mut broken);
        }
        if !loads.is_empty() {
            self.first = loads[loads.len() - 1].route + 1;
        }
        has_moved
    }

    /// Cuts what can be sent now.
    fn prepare(&mut self) -> Vec<Load> {
        let now = Instant::now();
        let (mut loads, mut bytes) = (Vec::new(), 0);
        let count = self.routes.len();
        for turn in 0..count {
            let at = (self.first + turn) % count;
            let route = &mut self.routes[at];
            if route.not_before > now || route.reader.committed() <= route.way.place().from || bytes >= ROUND_BYTES_MAX
            {
                continue;
            }
            if let Err(cause) = self.give_producer(at) {
                self.hold(at, &cause);
                continue;
            }
            let route = &mut self.routes[at];
            match load(&mut route.way, &route.reader) {
                Ok(Some((spooled, batches))) => {
                    bytes += READ_BYTES;
                    loads.push(Load { route: at, spooled, batches, sent: None });
                }
                Ok(None) => {}
                Err(cause) => self.unreadable(at, &cause),
            }
        }
        loads
    }

    fn give_producer(&mut self, at: usize) -> Result<(), String> {
        if self.routes[at].way.place().producer.is_some() {
            return Ok(());
        }
        let asked = self.cluster.any().and_then(client::Connection::init_producer_id);
        match asked {
            Ok((id, epoch)) => {
                self.routes[at].way.set_producer(id, epoch);
                Ok(())
            }
            Err(error) => {
                self.cluster.close_all();
                Err(error.to_string())
            }
        }
    }

    fn save(&self, loads: &[Load]) -> Result<(), String> {
        let changed = loads.iter().map(|load| {
            let route = &self.routes[load.route];
            (route.place_name.as_str(), route.way.place())
        });
        self.places.save(changed, &[]).map_err(|error| error.to_string())
    }

    /// The partition of the cluster that takes a partition of the spool: the same, as long as the cluster has that many.
    fn target(&mut self, at: usize) -> Result<i32, ClientError> {
        let route = &self.routes[at];
        let index = route.id.partition.0;
        if let Some(count) = self.counts.get(&route.topic) {
            return Ok(index % count);
        }
        let count = self.cluster.any()?.topic(&route.topic, true)?.partitions.max(1);
        self.counts.insert(route.topic.clone(), count);
        Ok(index % count)
    }

    fn send(&mut self, load: &mut Load, broken: &mut BTreeSet<String>) {
        let target = match self.target(load.route) {
            Ok(target) => target,
            Err(error) => {
                self.cluster.close_all();
                return self.hold(load.route, &error.to_string());
            }
        };
        let topic = self.routes[load.route].topic.clone();
        if let Err(error) = self.cluster.leader(&topic, target).map(drop) {
            self.cluster.forget(&topic, target);
            self.counts.remove(&topic);
            return self.hold(load.route, &error.to_string());
        }
        let address = self.cluster.leader_address(&topic, target).unwrap_or_default().to_owned();
        if broken.contains(&address) {
            return self.hold(load.route, "the connection to the partition's leader was lost");
        }
        let mut sent = 0;
        for batch in &load.batches {
            let bytes = match load.spooled.build(batch) {
                Ok(bytes) => bytes,
                Err(error) => return self.unreadable(load.route, &error.to_string()),
            };
            let outcome =
                self.cluster.at(&address).and_then(|node| node.send_produce(&topic, target, bytes, Acks::All));
            sent += 1;
            if outcome.is_err() {
                broken.insert(address.clone());
                self.cluster.close(&address);
                break;
            }
        }
        load.sent = Some((address, sent));
    }

    /// Reads the answers of one partition; true if something was taken or set aside.
    fn receive(&mut self, load: &Load, broken: &mut BTreeSet<String>) -> bool {
        let Some((address, sent)) = &load.sent else { return false };
        let mut outcomes = Vec::new();
        for _ in 0..*sent {
            if broken.contains(address) {
                break;
            }
            let outcome = self.cluster.at(address).and_then(client::Connection::receive_produced);
            if matches!(
                outcome,
                Err(ClientError::Io { .. } | ClientError::Connect { .. } | ClientError::Malformed { .. })
            ) {
                broken.insert(address.clone());
                self.cluster.close(address);
            }
            outcomes.push(outcome);
        }
        let mut has_moved = false;
        for (batch, outcome) in load.batches.iter().zip(&outcomes) {
            let route = &mut self.routes[load.route];
            match route.way.answered(answer(outcome)) {
                Next::GoOn => {
                    has_moved = true;
                    self.status.passed_on(batch.records);
                }
                Next::SetAside => return self.set_aside(load, batch, outcome) || has_moved,
                Next::CutAgain => return true,
                Next::AskForProducer => {
                    self.maybe_twice(load.route);
                    return has_moved;
                }
                Next::SendAgain => {
                    self.not_taken(load.route, outcome);
                    return has_moved;
                }
            }
        }
        if outcomes.len() < load.batches.len() {
            self.routes[load.route].way.answered(log::forward::Answer::Later);
            self.not_taken(load.route, &Ok(Offset(-1)));
        } else if has_moved {
            self.moved(load.route);
        }
        has_moved
    }

    /// Everything that was sent has been taken.
    fn moved(&mut self, at: usize) {
        let route = &mut self.routes[at];
        (route.pause, route.not_before) = (RETRY_MIN, Instant::now());
        let from = route.way.place().from;
        self.status.is_at(route.id, from);
        self.status.well(&self.node);
        // The place that was made durable last is at the beginning of what has been taken since.
        let (trimmed, when) = route.trimmed;
        if from.0 - trimmed.0 >= TRIM_EVERY || (from > trimmed && when.elapsed() >= TRIM_PAUSE) {
            let saved = self.places.get(&route.place_name).from;
            route.trimmed = (saved, Instant::now());
            let (node, id) = (Arc::clone(&self.node), route.id);
            self.runtime.spawn(async move {
                if let Err(error) = node.delete_records(id, saved, time::now().plus(DELETE_WAIT_MS)).await {
                    tracing::debug!(%error, "the spool could not be trimmed; it is tried again");
                }
            });
        }
    }

    fn not_taken(&mut self, at: usize, outcome: &Result<Offset, ClientError>) {
        let cause = match outcome {
            Ok(_) => "the connection was lost before the answer".to_owned(),
            Err(error) => error.to_string(),
        };
        let route = &self.routes[at];
        let topic = route.topic.clone();
        let index = route.id.partition.0;
        if let Some(count) = self.counts.remove(&topic) {
            self.cluster.forget(&topic, index % count);
        }
        self.hold(at, &cause);
    }

    /// The partition pauses.
    fn hold(&mut self, at: usize, cause: &str) {
        let route = &mut self.routes[at];
        route.not_before = Instant::now() + route.pause;
        route.pause = (route.pause * 2).min(RETRY_MAX);
        self.status.ill(&self.node, cause);
    }

    fn wait(&mut self, loads: &[Load], cause: &str) {
        tracing::error!(cause, "the places could not be written; nothing is sent");
        loads.iter().for_each(|load| self.hold(load.route, cause));
    }

    /// The one record of the first batch is refused for good: it is written down, and passed over.
    fn set_aside(&mut self, load: &Load, batch: &Batch, outcome: &Result<Offset, ClientError>) -> bool {
        let reason = outcome.as_ref().map_or_else(ToString::to_string, |_| String::new());
        let topic = self.routes[load.route].topic.clone();
        let Some(record) = load.spooled.first(batch.from, batch.to) else { return false };
        let partition = self.routes[load.route].id.partition.0;
        if let Err(error) = self.dead.add(&topic, partition, &record, &reason) {
            self.hold(load.route, &format!("a refused record could not be written down: {error}"));
            return false;
        }
        tracing::warn!(topic, partition, offset = record.offset.0, reason, "the cluster refuses a record for good");
        let route = &mut self.routes[load.route];
        route.way.set_aside();
        self.status.is_at(route.id, route.way.place().from);
        self.node.all_findings().raise(
            "dead-letters",
            Finding {
                code: "forward-set-aside",
                severity: Severity::Warning,
                title: format!("{} records were refused by the cluster and set aside", self.dead.written()),
                since: crate::node::time::wall(),
                impact: vec!["forward"],
                cause: format!("{topic}: {reason}"),
                action: format!("look into {}; the records after them went on", self.dead.path().display()),
            },
        );
        true
    }

    fn maybe_twice(&self, at: usize) {
        let route = &self.routes[at];
        if route.way.doubts() == 0 {
            return;
        }
        self.node.all_findings().raise(
            &route.place_name,
            Finding {
                code: "forward-maybe-twice",
                severity: Severity::Warning,
                title: format!("up to {} batches of {} may be in the cluster twice", route.way.doubts(), route.topic),
                since: crate::node::time::wall(),
                impact: vec!["forward"],
                cause: "an answer was lost, and the cluster had forgotten the producer before it could be asked again"
                    .to_owned(),
                action: "compare the topic's records around now if it matters".to_owned(),
            },
        );
    }

    /// The spool itself cannot be read there: its damage is a finding of its own; this partition waits.
    fn unreadable(&mut self, at: usize, cause: &str) {
        tracing::error!(partition = %self.routes[at].id, cause, "the spool cannot be read");
        self.hold(at, cause);
    }
}

/// What one partition sends: what is under way already, or the next cuts. `None`: nothing now.
fn load(way: &mut Way, reader: &Reader) -> Result<Option<(Spooled, Vec<Batch>)>, String> {
    let passed_over = way.skip_to(reader.start());
    if passed_over > 0 {
        tracing::warn!(records = passed_over, "records of the spool were deleted before they were passed on");
    }
    let from = way.place().from;
    let to = way.place().cuts.last().map(|cut| cut.to);
    let (bytes, next) = match read(reader, from, to) {
        Ok(read) => read,
        // Trimmed meanwhile.
        Err(ReadError::OutOfRange { .. }) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let spooled = Spooled::decode(bytes).map_err(|error| error.to_string())?;
    if spooled.is_empty() {
        way.skip_to(next);
        return Ok(None);
    }
    if way.place().cuts.is_empty() {
        let cuts = spooled.cuts(from, way.room(), way.records_max()).map_err(|error| error.to_string())?;
        way.cut(cuts);
    }
    let batches: Vec<Batch> = way.under_way().collect();
    Ok((!batches.is_empty()).then_some((spooled, batches)))
}

/// Committed batches from `from` on: at least to `to` if that is given, else about [`READ_BYTES`].
fn read(reader: &Reader, from: Offset, to: Option<Offset>) -> Result<(bytes::Bytes, Offset), ReadError> {
    let mut all = bytes::BytesMut::new();
    let mut at = from;
    loop {
        let fetched = reader.read(at, READ_BYTES.saturating_sub(all.len()).max(1), ReadLimit::Committed)?;
        all.extend_from_slice(&fetched.bytes);
        let is_enough = to.map_or(all.len() >= READ_BYTES, |to| fetched.next >= to);
        if fetched.bytes.is_empty() || is_enough {
            return Ok((all.freeze(), fetched.next));
        }
        at = fetched.next;
    }
}
