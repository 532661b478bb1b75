//! Produce: the records of each partition go to its log untouched; the answer waits as long as `acks` says.

use std::sync::atomic::Ordering;

use base::{PartitionIndex, Tick, TopicPartition};
use control::State;
use futures::future::join_all;
use kafka::produce::{BATCH_VERSION_MIN, ProducePartition, ProduceRequest, ProducedPartition, ProducedTopic};
use kafka::{ErrorCode, ProduceResponse, Response};

use super::connection::Answer;
use super::limits::PRODUCE_WAIT_MS_MAX;
use super::{Client, Edge, errors};
use crate::node::{Acks, NodeError, time};

/// Handles one request. Every partition is handed to its log on the first poll, so that requests keep their order.
pub(super) async fn produce(edge: &Edge, client: &Client, request: ProduceRequest) -> Answer {
    let acks = match request.acks {
        0 => Acks::None,
        1 => Acks::Leader,
        -1 => Acks::All,
        _ => {
            let response = request.refuse(ErrorCode::InvalidRequiredAcks, Some("acks is 0, 1 or -1 (all)"));
            return Answer::Send(Response::Produce(response), None);
        }
    };
    let response = match refusal(&request) {
        Some((code, message)) => request.refuse(code, Some(message)),
        None => append_all(edge, client, request, acks).await,
    };
    if acks != Acks::None {
        return Answer::Send(Response::Produce(response), None);
    }
    let failed = response.topics.iter().flat_map(|topic| &topic.partitions).any(|part| part.error != ErrorCode::None);
    // As Kafka has it: the client learns from the lost connection, and asks for the metadata again.
    if failed { Answer::Close("records sent with acks=0 were refused") } else { Answer::Silent }
}

fn refusal(request: &ProduceRequest) -> Option<(ErrorCode, &'static str)> {
    if request.version < BATCH_VERSION_MIN {
        let message = "record formats before Kafka 0.11 are not supported: upgrade the client";
        return Some((ErrorCode::UnsupportedVersion, message));
    }
    let transactional = request.transactional_id.is_some();
    transactional.then_some((ErrorCode::InvalidTxnState, "transactions are not supported yet: unset transactional.id"))
}

async fn append_all(edge: &Edge, client: &Client, request: ProduceRequest, acks: Acks) -> ProduceResponse {
    let state = edge.node.state();
    let wait_ms = u64::try_from(request.timeout_ms).unwrap_or(0).min(PRODUCE_WAIT_MS_MAX);
    let deadline = time::now().plus(wait_ms);
    let topics = request.topics.into_iter().map(|topic| {
        let state = &state;
        async move {
            let name = topic.name;
            let partitions = topic.partitions.into_iter();
            let appends = partitions.map(|partition| append(edge, state, &name, partition, acks, deadline));
            let partitions = join_all(appends).await;
            ProducedTopic { name, partitions }
        }
    });
    let topics = join_all(topics).await;
    let hints = topics.iter().flat_map(|topic: &ProducedTopic| &topic.partitions).filter_map(|part| part.leader);
    let endpoints = edge.endpoints(client, hints);
    ProduceResponse { topics, throttle_time_ms: 0, endpoints }
}

async fn append(
    edge: &Edge,
    state: &State,
    name: &str,
    partition: ProducePartition,
    acks: Acks,
    deadline: Tick,
) -> ProducedPartition {
    let index = partition.index;
    let refused = |code, message: String| ProducedPartition::refused(index, code, Some(message));
    let Some(topic) = state.topic_named(name).filter(|topic| (0..topic.partitions).contains(&index)) else {
        return refused(ErrorCode::UnknownTopicOrPartition, format!("there is no partition {index} of topic {name}"));
    };
    if topic.internal {
        return refused(ErrorCode::InvalidTopic, format!("topic {name} is internal and cannot be written by clients"));
    }
    let Some(records) = partition.records.filter(|records| !records.is_empty()) else {
        return refused(ErrorCode::InvalidRecord, "the partition carries no record batch".to_owned());
    };
    let place = TopicPartition { topic: topic.id, partition: PartitionIndex(index) };
    let appended = match acks {
        Acks::All => {
            let copies = usize::try_from(topic.config().min_insync_replicas).unwrap_or(1);
            edge.node.append_in_sync(place, records, copies, deadline).await
        }
        _ => edge.node.append(place, records, acks, deadline).await,
    };
    match appended {
        Ok(appended) => ProducedPartition {
            index,
            error: ErrorCode::None,
            base_offset: appended.base_offset.0,
            log_append_time_ms: appended.log_append_time.map_or(-1, |time| time.0),
            log_start_offset: appended.log_start_offset.0,
            error_message: None,
            leader: None,
        },
        Err(error) => {
            let (code, message) = refusal_of(edge, &error, acks);
            let leader = if code == ErrorCode::NotLeaderOrFollower { edge.hint(state, place) } else { None };
            ProducedPartition { leader, ..refused(code, message) }
        }
    }
}

/// Refusals for want of replicas of which every so many says "not the leader" instead.
const LOOK_ELSEWHERE_EVERY: u32 = 8;

/// The code and words of a refused append.
///
/// A node that reaches too few replicas cannot tell whether they are down or it is cut off. NOT_ENOUGH_REPLICAS is what
/// there is to say, but at that code clients stay here and try again; so now and then one is told to look for a leader
/// elsewhere. With acks=1 no number of replicas was asked for: there is just no leader here.
fn refusal_of(edge: &Edge, error: &NodeError, acks: Acks) -> (ErrorCode, String) {
    let (code, message) = match error {
        // The topic has it, this node does not: another has.
        NodeError::UnknownPartition(_) => {
            let message = "this node has no copy of the partition that takes records: ask for the metadata again";
            (ErrorCode::NotLeaderOrFollower, message.to_owned())
        }
        error => errors::of_node(error),
    };
    if !matches!(error, NodeError::NotEnoughReplicas(_)) {
        return (code, message);
    }
    let looks_elsewhere =
        edge.short_of_replicas.fetch_add(1, Ordering::Relaxed) % LOOK_ELSEWHERE_EVERY == LOOK_ELSEWHERE_EVERY - 1;
    if acks != Acks::All || looks_elsewhere { (ErrorCode::NotLeaderOrFollower, message) } else { (code, message) }
}
