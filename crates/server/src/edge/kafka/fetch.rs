//! Fetch: whole batches from each partition, waiting for committed records where there are too few.

use std::time::Duration;

use base::{Offset, PartitionIndex, TopicId, TopicPartition};
use control::State;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kafka::fetch::{FetchPartition, FetchTopic, FetchedPartition, FetchedTopic, TopicRef};
use kafka::{ErrorCode, FetchRequest, FetchResponse, Response};
use log::{ReadLimit, Reader};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::budget::Share;
use super::connection::Answer;
use super::limits::{FETCH_BYTES_MAX, FETCH_PASS_PAUSE, FETCH_WAIT_MS_MAX};
use super::{Edge, errors};

/// One partition asked for.
#[derive(Clone)]
struct Asked {
    index: i32,
    from: Offset,
    bytes_max: usize,
    /// `Err`: answered with this, nothing is read.
    reader: Result<Reader, ErrorCode>,
    place: TopicPartition,
}

type AskedTopics = Vec<(TopicRef, Vec<Asked>)>;

pub(super) async fn fetch(edge: &Edge, request: FetchRequest) -> Answer {
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
    let topics: AskedTopics = request.topics.into_iter().map(|topic| look_up(edge, &state, topic)).collect();
    let (topics, share) = wait_and_read(edge, topics, bytes_min, bytes_max, deadline).await;
    send(FetchResponse { throttle_time_ms: 0, error: ErrorCode::None, topics, endpoints: Vec::new() }, share)
}

fn look_up(edge: &Edge, state: &State, asked: FetchTopic) -> (TopicRef, Vec<Asked>) {
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
        let reader = match topic {
            None => Err(unknown),
            Some(_) => edge.node.reader(place).ok_or(ErrorCode::UnknownTopicOrPartition),
        };
        Asked::new(place, reader, &partition)
    });
    let partitions = partitions.collect();
    (asked.topic, partitions)
}

impl Asked {
    fn new(place: TopicPartition, reader: Result<Reader, ErrorCode>, asked: &FetchPartition) -> Self {
        let reader =
            reader.and_then(|reader| errors::check_epoch(&reader, asked.current_leader_epoch).map(|()| reader));
        Self {
            index: asked.index,
            from: Offset(asked.fetch_offset),
            bytes_max: usize::try_from(asked.max_bytes).unwrap_or(0),
            reader,
            place,
        }
    }

    /// True if there is something to tell at once: records, or an error.
    fn is_ready(&self) -> bool {
        self.reader.as_ref().map_or(true, |reader| self.from != reader.committed())
    }

    /// Reads at most `room` bytes, but at least one batch if there is one.
    fn read(&self, room: usize) -> FetchedPartition {
        let reader = match &self.reader {
            Ok(reader) => reader,
            Err(code) => return FetchedPartition::refused(self.index, *code),
        };
        let (committed, start) = (reader.committed(), reader.start());
        let mut answer = FetchedPartition {
            index: self.index,
            error: ErrorCode::None,
            high_watermark: committed.0,
            last_stable_offset: committed.0,
            log_start_offset: start.0,
            records: bytes::Bytes::new(),
            preferred_read_replica: -1,
            leader: None,
        };
        if self.from < start || self.from > committed {
            answer.error = ErrorCode::OffsetOutOfRange;
        } else if room > 0 && self.from < committed {
            match reader.read(self.from, self.bytes_max.min(room), ReadLimit::Committed) {
                Ok(fetched) => {
                    answer.high_watermark = fetched.committed.0;
                    answer.last_stable_offset = fetched.committed.0;
                    answer.log_start_offset = fetched.start.0;
                    answer.records = fetched.bytes;
                }
                Err(error) => {
                    tracing::warn!(partition = %self.place, %error, "kafka: fetch failed");
                    answer.error = errors::of_read(&error);
                }
            }
        }
        answer
    }
}

/// Waits until there are `bytes_min`, an error or the deadline; then reads.
async fn wait_and_read(
    edge: &Edge,
    topics: AskedTopics,
    bytes_min: usize,
    bytes_max: usize,
    deadline: Instant,
) -> (Vec<FetchedTopic>, Option<Share>) {
    let mut signals: Vec<_> = topics
        .iter()
        .flat_map(|(_, asked)| asked)
        .filter_map(|asked| edge.node.committed_signal(asked.place))
        .collect();
    let mut gone = false;
    loop {
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
        gone = matches!(timeout_at(deadline, any_change(&mut signals)).await, Ok(Change::Gone));
    }
}

enum Change {
    Committed,
    /// The partition was closed: nothing will ever be committed.
    Gone,
}

async fn any_change(signals: &mut [watch::Receiver<Offset>]) -> Change {
    let mut changes: FuturesUnordered<_> = signals.iter_mut().map(watch::Receiver::changed).collect();
    match changes.next().await {
        Some(Ok(())) => Change::Committed,
        Some(Err(_)) => Change::Gone,
        None => std::future::pending().await,
    }
}

/// One pass over all partitions, on a thread that may block.
async fn read(
    edge: &Edge,
    topics: AskedTopics,
    bytes_min: usize,
    bytes_max: usize,
) -> (Vec<FetchedTopic>, Option<Share>, bool) {
    let wanted = topics.iter().flat_map(|(_, asked)| asked).filter(|asked| asked.is_ready() && asked.reader.is_ok());
    let wanted = wanted.fold(0_usize, |sum, asked| sum.saturating_add(asked.bytes_max)).min(bytes_max.max(1));
    if wanted == 0 {
        let failed = topics.iter().flat_map(|(_, asked)| asked).any(|asked| asked.reader.is_err());
        return (read_topics(topics, bytes_max).0, None, failed);
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
            failed |= fetched.error != ErrorCode::None;
            partitions.push(fetched);
        }
        answer.push(FetchedTopic { topic, partitions });
    }
    (answer, bytes, failed)
}
