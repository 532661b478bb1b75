//! Fetch: whole batches from each partition, waiting for committed records where there are too few.
//!
//! The leader serves everybody, and sends a consumer that names its zone to a copy in that zone if there is one. Any other
//! copy serves consumers of its own zone while it hears a leader, and everybody while most copies are out of reach: what is
//! committed can be read as long as one copy is there. All of them serve committed records only; a client that reads
//! committed transactions gets no further than the first open one, and is told what of it was aborted.

use std::time::Duration;

use base::{NodeId, Offset, PartitionIndex, TopicId, TopicPartition};
use control::State;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kafka::fetch::{AbortedTransaction, FetchTopic, FetchedPartition, FetchedTopic, TopicRef};
use kafka::msg::BrokerId;
use kafka::{ErrorCode, FetchRequest, FetchResponse, LeaderHint, Response};
use log::{ReadLimit, Reader};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::brokers::broker_id;
use super::budget::Share;
use super::connection::Answer;
use super::limits::{FETCH_BYTES_MAX, FETCH_PASS_PAUSE, FETCH_WAIT_MS_MAX};
use super::{Client, Edge, errors};
use crate::node::cluster::Leader;

/// One partition asked for.
#[derive(Clone)]
struct Asked {
    index: i32,
    from: Offset,
    bytes_max: usize,
    current_leader_epoch: i32,
    limit: ReadLimit,
    place: TopicPartition,
    from_here: Result<Source, Refused>,
}

/// Where the records come from.
#[derive(Clone)]
struct Source {
    reader: Reader,
    /// What is not here is nowhere.
    leads: bool,
    /// A nearer copy, to ask instead.
    nearer: Option<BrokerId>,
}

/// Answered with this, nothing is read.
#[derive(Clone, Copy)]
struct Refused {
    code: ErrorCode,
    leader: Option<LeaderHint>,
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self { code, leader: None }
    }
}

type AskedTopics = Vec<(TopicRef, Vec<Asked>)>;

pub(super) async fn fetch(edge: &Edge, client: &Client, request: FetchRequest) -> Answer {
    let send = |response, share| Answer::Send(Response::Fetch(response), share);
    if request.session_id != 0 {
        let error = ErrorCode::FetchSessionIdNotFound;
        return send(FetchResponse { throttle_time_ms: 0, error, topics: Vec::new(), endpoints: Vec::new() }, None);
    }
    let state = edge.node.state();
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(FETCH_BYTES_MAX);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max);
    let wait_ms = u64::try_from(request.max_wait_ms).unwrap_or(0).min(FETCH_WAIT_MS_MAX);
    let deadline = Instant::now() + Duration::from_millis(wait_ms);
    let zone = request.rack;
    let limit = if request.read_committed { ReadLimit::Stable } else { ReadLimit::Committed };
    let topics = request.topics.into_iter();
    let topics: AskedTopics = topics.map(|topic| look_up(edge, &state, topic, &zone, limit)).collect();
    let (topics, share) = wait_and_read(edge, topics, &zone, bytes_min, bytes_max, deadline).await;
    let hints = topics.iter().flat_map(|topic| &topic.partitions).filter_map(|partition| partition.leader);
    let endpoints = edge.endpoints(client, hints);
    send(FetchResponse { throttle_time_ms: 0, error: ErrorCode::None, topics, endpoints }, share)
}

fn look_up(edge: &Edge, state: &State, asked: FetchTopic, zone: &str, limit: ReadLimit) -> (TopicRef, Vec<Asked>) {
    let topic = match &asked.topic {
        TopicRef::Name(name) => state.topic_named(name),
        TopicRef::Id(id) => state.topics.get(&TopicId(*id)),
    };
    let unknown = match &asked.topic {
        TopicRef::Name(_) => ErrorCode::UnknownTopicOrPartition,
        TopicRef::Id(_) => ErrorCode::UnknownTopicId,
    };
    let partitions = asked.partitions.into_iter().map(|partition| {
        let id = topic.map_or(TopicId(uuid::Uuid::nil()), |topic| topic.id);
        let place = TopicPartition { topic: id, partition: PartitionIndex(partition.index) };
        let from_here = match topic {
            None => Err(unknown.into()),
            Some(topic) if !topic.has_partition(place.partition) => Err(ErrorCode::UnknownTopicOrPartition.into()),
            Some(_) => source(edge, state, place, partition.current_leader_epoch, zone),
        };
        Asked {
            index: partition.index,
            from: Offset(partition.fetch_offset),
            bytes_max: usize::try_from(partition.max_bytes).unwrap_or(0),
            current_leader_epoch: partition.current_leader_epoch,
            limit,
            place,
            from_here,
        }
    });
    let partitions = partitions.collect();
    (asked.topic, partitions)
}

/// Whether this node serves a consumer in `zone`, and who does if it does not.
fn source(edge: &Edge, state: &State, place: TopicPartition, epoch: i32, zone: &str) -> Result<Source, Refused> {
    let elsewhere = || Refused { code: ErrorCode::NotLeaderOrFollower, leader: edge.hint(state, place) };
    let reader = edge.node.reader(place).ok_or_else(elsewhere)?;
    errors::check_epoch(&reader, epoch)?;
    if edge.node.leads(place) {
        return Ok(Source { reader, leads: true, nearer: nearer(edge, state, place, zone) });
    }
    let is_near = !zone.is_empty() && edge.node.config().cluster.zone.as_deref() == Some(zone);
    match edge.node.leader(place, state.replicas(place)) {
        Leader::Known { .. } if is_near => Ok(Source { reader, leads: false, nearer: None }),
        Leader::ReadOnly { .. } => Ok(Source { reader, leads: false, nearer: None }),
        _ => Err(elsewhere()),
    }
}

/// A copy in the consumer's zone, if the leader is in another.
fn nearer(edge: &Edge, state: &State, place: TopicPartition, zone: &str) -> Option<BrokerId> {
    if zone.is_empty() || edge.node.config().cluster.zone.as_deref() == Some(zone) {
        return None;
    }
    let replicas = state.replicas(place);
    let is_in_zone = |id: &NodeId| state.nodes.get(id).is_some_and(|node| node.zone == zone);
    edge.node.reachable_of(replicas).find(is_in_zone).map(broker_id)
}

impl Asked {
    /// True if there is something to tell at once: records, an error, or where to ask.
    fn is_ready(&self) -> bool {
        let Ok(source) = &self.from_here else { return true };
        let end = self.end(&source.reader);
        // Records that are written and not to be seen yet are waited for, like those that are not written. What a copy
        // has not heard of may be there for all it knows.
        let is_ahead = self.from > end && (!source.leads || self.from <= source.reader.end());
        source.nearer.is_some() || (self.from != end && !is_ahead)
    }

    /// The first offset that this client does not see.
    fn end(&self, reader: &Reader) -> Offset {
        if self.limit == ReadLimit::Stable { reader.last_stable() } else { reader.committed() }
    }

    /// True if records come from here, if there are any.
    fn reads(&self) -> bool {
        self.from_here.as_ref().is_ok_and(|source| source.nearer.is_none())
    }

    /// Reads at most `room` bytes, but at least one batch if there is one.
    fn read(&self, room: usize) -> FetchedPartition {
        let source = match &self.from_here {
            Ok(source) => source,
            Err(Refused { code, leader }) => {
                return FetchedPartition { leader: *leader, ..FetchedPartition::refused(self.index, *code) };
            }
        };
        // In this order: what is stable is committed.
        let (end, stable) = (self.end(&source.reader), source.reader.last_stable());
        let (committed, start) = (source.reader.committed(), source.reader.start());
        let mut answer = FetchedPartition {
            index: self.index,
            error: ErrorCode::None,
            high_watermark: committed.0,
            last_stable_offset: stable.0,
            log_start_offset: start.0,
            aborted: Vec::new(),
            records: bytes::Bytes::new(),
            preferred_read_replica: source.nearer.map_or(-1, |nearer| nearer.0),
            leader: None,
        };
        if self.from < start || (source.leads && self.from > source.reader.end()) {
            answer.error = ErrorCode::OffsetOutOfRange;
            answer.preferred_read_replica = -1;
        } else if self.from > committed && !source.leads {
            answer.error = ErrorCode::OffsetNotAvailable;
        } else if room > 0 && self.from < end && source.nearer.is_none() {
            self.read_into(&mut answer, &source.reader, room);
        }
        answer
    }

    fn read_into(&self, answer: &mut FetchedPartition, reader: &Reader, room: usize) {
        match reader.read(self.from, self.bytes_max.min(room), self.limit) {
            Ok(fetched) => {
                answer.high_watermark = fetched.committed.0;
                answer.last_stable_offset = fetched.stable.0;
                answer.log_start_offset = fetched.start.0;
                answer.records = fetched.bytes;
                answer.aborted = fetched.aborted.iter().map(aborted).collect();
            }
            Err(error) => {
                tracing::warn!(partition = %self.place, %error, "kafka: fetch failed");
                answer.error = errors::of_read(&error);
            }
        }
    }
}

fn aborted(one: &log::AbortedTransaction) -> AbortedTransaction {
    AbortedTransaction { producer_id: one.producer.0, first_offset: one.first.0 }
}

/// After a change of leadership somewhere: what was served from here may be served elsewhere by now.
fn look_again(edge: &Edge, topics: &mut AskedTopics, zone: &str) {
    let state = edge.node.state();
    for asked in topics.iter_mut().flat_map(|(_, asked)| asked) {
        if asked.from_here.as_ref().is_ok_and(|source| source.leads != edge.node.leads(asked.place)) {
            asked.from_here = source(edge, &state, asked.place, asked.current_leader_epoch, zone);
        }
    }
}

/// Waits until there are `bytes_min`, an error or the deadline; then reads.
async fn wait_and_read(
    edge: &Edge,
    mut topics: AskedTopics,
    zone: &str,
    bytes_min: usize,
    bytes_max: usize,
    deadline: Instant,
) -> (Vec<FetchedTopic>, Option<Share>) {
    let mut leaders = edge.node.logs().leadership_changes();
    let mut signals: Vec<_> = topics
        .iter()
        .flat_map(|(_, asked)| asked)
        .filter_map(|asked| match asked.limit {
            ReadLimit::Stable => edge.node.stable_signal(asked.place),
            ReadLimit::Committed | ReadLimit::End => edge.node.committed_signal(asked.place),
        })
        .collect();
    let mut gone = false;
    loop {
        leaders.mark_unchanged();
        look_again(edge, &mut topics, zone);
        for signal in &mut signals {
            signal.mark_unchanged();
        }
        let last = gone || bytes_min == 0 || Instant::now() >= deadline;
        if last || topics.iter().flat_map(|(_, asked)| asked).any(Asked::is_ready) {
            let (answer, share, enough) = read(edge, topics.clone(), bytes_min, bytes_max).await;
            if last || enough {
                return (answer, share);
            }
            // Few bytes are there and more are wanted: do not read them again for every commit.
            sleep_until(deadline.min(Instant::now() + FETCH_PASS_PAUSE)).await;
        }
        gone = matches!(timeout_at(deadline, any_change(&mut signals, &mut leaders)).await, Ok(Change::Gone));
    }
}

enum Change {
    /// More may be read.
    More,
    /// Of some partition's leader, most likely another's.
    Leader,
    /// The partition was closed: nothing will ever be committed.
    Gone,
}

async fn any_change(signals: &mut [watch::Receiver<Offset>], leaders: &mut watch::Receiver<u64>) -> Change {
    let mut changes: FuturesUnordered<_> = signals.iter_mut().map(watch::Receiver::changed).collect();
    tokio::select! {
        Some(change) = changes.next() => if change.is_ok() { Change::More } else { Change::Gone },
        Ok(()) = leaders.changed() => Change::Leader,
        else => std::future::pending().await,
    }
}

/// One pass over all partitions, on a thread that may block.
async fn read(
    edge: &Edge,
    topics: AskedTopics,
    bytes_min: usize,
    bytes_max: usize,
) -> (Vec<FetchedTopic>, Option<Share>, bool) {
    let wanted = topics.iter().flat_map(|(_, asked)| asked).filter(|asked| asked.is_ready() && asked.reads());
    let wanted = wanted.fold(0_usize, |sum, asked| sum.saturating_add(asked.bytes_max)).min(bytes_max.max(1));
    if wanted == 0 {
        let (answer, _, failed) = read_topics(topics, bytes_max);
        return (answer, None, failed);
    }
    let mut share = edge.responses.take(wanted).await;
    let pass = tokio::task::spawn_blocking(move || read_topics(topics, bytes_max));
    let Ok((answer, bytes, failed)) = pass.await else {
        // The runtime is shutting down, or the reader panicked: the client gets nothing and asks again.
        return (Vec::new(), None, true);
    };
    share.shrink_to(bytes);
    (answer, Some(share), failed || bytes >= bytes_min)
}

fn read_topics(topics: AskedTopics, bytes_max: usize) -> (Vec<FetchedTopic>, usize, bool) {
    let (mut bytes, mut failed) = (0_usize, false);
    let mut answer = Vec::with_capacity(topics.len());
    for (topic, asked) in topics {
        let mut partitions = Vec::with_capacity(asked.len());
        for asked in asked {
            // At least one batch in all, even for a client that asks for no bytes: it would never get on.
            let room = if bytes == 0 { bytes_max.max(1) } else { bytes_max.saturating_sub(bytes) };
            let fetched = asked.read(room);
            bytes += fetched.records.len();
            failed |= fetched.error != ErrorCode::None || fetched.preferred_read_replica >= 0;
            partitions.push(fetched);
        }
        answer.push(FetchedTopic { topic, partitions });
    }
    (answer, bytes, failed)
}
