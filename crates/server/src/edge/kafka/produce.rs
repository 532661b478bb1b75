//! Produce: the records of each partition go to its log untouched; the answer waits as long as `acks` says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use base::batch::BatchHeader;
use base::{PartitionIndex, Tick, TopicPartition};
use control::State;
use futures::future::join_all;
use kafka::produce::{BATCH_VERSION_MIN, ProducePartition, ProduceRequest, ProducedPartition, ProducedTopic};
use kafka::{ErrorCode, ProduceResponse, Response};
use log::transactions::{Producer, Target};

use super::connection::Answer;
use super::limits::PRODUCE_WAIT_MS_MAX;
use super::{Client, Edge, errors, transactions};
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
    let is_torn = request.transactional_id.is_some() && request.acks != -1;
    is_torn.then_some((ErrorCode::InvalidRequiredAcks, "records in a transaction need acks=all"))
}

/// As [`produce`], for records in a transaction: before the first of a partition its coordinator is asked whether the
/// transaction is under way. Requests of one connection go on in their order all the same, each in a task of its own, because a
/// later one would otherwise overtake the one that waits.
pub(super) async fn produce_in_transaction(edge: Arc<Edge>, client: Client, request: ProduceRequest) -> Answer {
    let mut turn = Box::pin(Arc::clone(&client.turn).lock_owned());
    // The place in the queue is taken now, at the first poll.
    let taken = futures::poll!(&mut turn);
    let work = tokio::spawn(async move {
        let taken = match taken {
            Poll::Ready(taken) => taken,
            Poll::Pending => turn.await,
        };
        if refusal(&request).is_some() {
            return produce(&edge, &client, request).await;
        }
        let (refusals, request) = verify(&edge, request).await;
        let mut work = Box::pin(append_all(&edge, &client, request, Acks::All));
        // Every partition is handed to its log with this.
        let done = futures::poll!(&mut work);
        drop(taken);
        let mut response = match done {
            Poll::Ready(response) => response,
            Poll::Pending => work.await,
        };
        response.topics.extend(refusals);
        Answer::Send(Response::Produce(response), None)
    });
    work.await.unwrap_or(Answer::Close("a produce request failed"))
}

/// Takes out what does not belong to a transaction under way: the answers for it, and the request without it.
async fn verify(edge: &Edge, mut request: ProduceRequest) -> (Vec<ProducedTopic>, ProduceRequest) {
    let id = request.transactional_id.clone().unwrap_or_default();
    let state = edge.node.state();
    let (mut asked, mut refusals) = (Vec::new(), BTreeMap::new());
    for (at, topic) in request.topics.iter().enumerate() {
        let known = state.topic_named(&topic.name);
        for partition in &topic.partitions {
            let (Some(known), Some(records)) = (known, &partition.records) else { continue };
            let Ok(header) = BatchHeader::parse(records) else { continue };
            if !header.is_transactional() {
                continue;
            }
            let place = TopicPartition { topic: known.id, partition: PartitionIndex(partition.index) };
            let producer = Producer { id: header.producer_id, epoch: header.producer_epoch };
            // Nothing to ask: it is open there, or the append finds out by itself what is wrong.
            let begun = edge.node.logs().verify_begin(place, producer.id, producer.epoch).await;
            if let Ok(Some(verification)) = begun {
                asked.push((at, partition.index, place, producer, verification));
            }
        }
    }
    for producer in asked.iter().map(|(_, _, _, producer, _)| *producer).collect::<BTreeSet<_>>() {
        let of_producer = asked.iter().filter(|(_, _, _, other, _)| *other == producer);
        let targets = of_producer.clone().map(|(_, _, place, ..)| Target::Partition(*place)).collect();
        let verified = edge.node.verify_transaction(&id, producer, targets).await;
        for (at, index, place, _, verification) in of_producer {
            let refusal = match &verified {
                Ok(()) => match edge.node.logs().verified(*place, *verification).await {
                    Ok(true) | Err(_) => continue,
                    Ok(false) => (ErrorCode::NotEnoughReplicas, "the transaction was verified too late".to_owned()),
                },
                Err(error) => (transactions::produce_code(error), error.to_string()),
            };
            refusals.insert((*at, *index), refusal);
        }
    }
    let mut answers = Vec::new();
    for (at, topic) in request.topics.iter_mut().enumerate() {
        let mut refused = Vec::new();
        topic.partitions.retain(|partition| match refusals.remove(&(at, partition.index)) {
            Some((code, message)) => {
                refused.push(ProducedPartition::refused(partition.index, code, Some(message)));
                false
            }
            None => true,
        });
        if !refused.is_empty() {
            answers.push(ProducedTopic { name: topic.name.clone(), partitions: refused });
        }
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    (answers, request)
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
