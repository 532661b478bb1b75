//! Transactional APIs: typed Kafka requests to the transaction coordinator's words, and its answers back.
//!
//! One node coordinates at a time; the others say so. What is decided here: which topics there are, and which code a refusal
//! has. Everything else is the coordinators'.

use std::collections::BTreeMap;

use base::{PartitionIndex, ProducerEpoch, TopicPartition};
use kafka::msg::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka::msg::add_partitions_to_txn_response::{AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult};
use kafka::msg::describe_transactions_response::{TopicData, TransactionState as DescribedState};
use kafka::msg::list_transactions_response::TransactionState as ListedState;
use kafka::msg::txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic};
use kafka::msg::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    DescribeTransactionsRequest, DescribeTransactionsResponse, EndTxnRequest, EndTxnResponse, InitProducerIdRequest,
    InitProducerIdResponse, ListTransactionsRequest, ListTransactionsResponse, ProducerId, TopicName, TransactionalId,
    TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use kafka::{ErrorCode, Request, RequestHeader, Response, StrBytes};
use log::groups::{self, CommitOffset, TransactionCommit};
use log::transactions::{self, Producer, Target, TransactionError, TransactionState};

use super::groups::code_of_group;
use super::{Client, Edge};

/// Most ids described in one request.
const DESCRIBED_MAX: usize = 10_000;

/// Answers InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, EndTxn, TxnOffsetCommit, DescribeTransactions and
/// ListTransactions. Gives any other request back.
pub(super) async fn handle(
    edge: &Edge,
    client: &Client,
    header: &RequestHeader,
    request: Request,
) -> Result<Response, Request> {
    let version = header.version;
    Ok(match request {
        Request::InitProducerId(request) => init_producer_id(edge, client, version, request).await.into(),
        Request::AddPartitionsToTxn(request) => add_partitions(edge, version, request).await.into(),
        Request::AddOffsetsToTxn(request) => add_offsets(edge, version, request).await.into(),
        Request::EndTxn(request) => end(edge, version, &request).await.into(),
        Request::TxnOffsetCommit(request) => commit_offsets(edge, request).await.into(),
        Request::DescribeTransactions(request) => describe(edge, request).await.into(),
        Request::ListTransactions(request) => list(edge, request).await.into(),
        other => return Err(other),
    })
}

/// The code a producer acts upon. `fenced`: what its version knows for that.
fn code(error: &TransactionError, fenced: ErrorCode) -> ErrorCode {
    match error {
        TransactionError::InvalidId | TransactionError::TooLarge { .. } => ErrorCode::InvalidRequest,
        TransactionError::InvalidTimeout { .. } => ErrorCode::InvalidTransactionTimeout,
        TransactionError::UnknownProducer => ErrorCode::InvalidProducerIdMapping,
        TransactionError::Fenced { .. } => fenced,
        TransactionError::Concurrent => ErrorCode::ConcurrentTransactions,
        TransactionError::InvalidState(_) => ErrorCode::InvalidTxnState,
        // Retried: the first at once with the same coordinator, the others after looking for one.
        TransactionError::Busy { .. } | TransactionError::Loading => ErrorCode::CoordinatorLoadInProgress,
        TransactionError::NotPersisted | TransactionError::NotAvailable => ErrorCode::CoordinatorNotAvailable,
        TransactionError::NotCoordinator => ErrorCode::NotCoordinator,
        TransactionError::NotFound => ErrorCode::TransactionalIdNotFound,
    }
}

/// Older versions know one code for both kinds of fencing.
const fn fenced(version: i16, newer_from: i16) -> ErrorCode {
    if version < newer_from { ErrorCode::InvalidProducerEpoch } else { ErrorCode::ProducerFenced }
}

/// Of records whose transaction is not known to be under way. What may pass is a code that every producer retries.
pub(super) fn produce_code(error: &TransactionError) -> ErrorCode {
    match code(error, ErrorCode::InvalidProducerEpoch) {
        known
        @ (ErrorCode::InvalidProducerEpoch | ErrorCode::InvalidProducerIdMapping | ErrorCode::InvalidTxnState) => known,
        _ => ErrorCode::NotEnoughReplicas,
    }
}

const fn producer(id: ProducerId, epoch: i16) -> Producer {
    Producer { id: base::ProducerId(id.0), epoch: ProducerEpoch(epoch) }
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// An answer of another kind than the request's: our fault, and the client may ask again.
const MISMATCH: TransactionError = TransactionError::NotAvailable;

/// Hands out an id for an idempotent producer, or begins under a transactional id.
async fn init_producer_id(
    edge: &Edge,
    client: &Client,
    version: i16,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let given = match request.transactional_id {
        Some(id) if edge.node.spool().is_some() => {
            tracing::warn!(peer = %client.peer, transactional_id = %id.0,
                "kafka: a spool takes no transactions: unset transactional.id, or connect to the cluster itself");
            // The code at which every client gives up at once.
            Err(ErrorCode::TransactionalIdAuthorizationFailed)
        }
        Some(id) => {
            let expected = producer(request.producer_id, request.producer_epoch);
            let expected = (expected.id.0 >= 0).then_some(expected);
            let timeout_ms = i64::from(request.transaction_timeout_ms);
            let begun = edge.node.init_transactional(id.0.to_string(), timeout_ms, expected).await;
            begun.map_err(|error| code(&error, fenced(version, 4)))
        }
        None => match edge.node.init_producer_id().await {
            Ok((id, epoch)) => Ok(Producer { id, epoch }),
            Err(error) => {
                tracing::warn!(peer = %client.peer, %error, "kafka: no producer id could be given");
                // What clients retry.
                Err(ErrorCode::CoordinatorNotAvailable)
            }
        },
    };
    match given {
        Ok(Producer { id, epoch }) => {
            InitProducerIdResponse::default().with_producer_id(ProducerId(id.0)).with_producer_epoch(epoch.0)
        }
        Err(code) => InitProducerIdResponse::default()
            .with_error_code(code.number())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

/// The partitions as targets, or the code of each if one of them is none.
fn targets(edge: &Edge, topics: &[AddPartitionsToTxnTopic]) -> Result<Vec<Target>, BTreeMap<(String, i32), ErrorCode>> {
    let state = edge.node.state();
    let (mut targets, mut codes, mut is_refused) = (Vec::new(), BTreeMap::new(), false);
    for asked in topics {
        let topic = state.topic_named(&asked.name);
        for &index in &asked.partitions {
            let partition = PartitionIndex(index);
            let known = topic.filter(|topic| topic.has_partition(partition) && !topic.internal);
            let code = match (known, topic) {
                (Some(topic), _) => {
                    targets.push(Target::Partition(TopicPartition { topic: topic.id, partition }));
                    ErrorCode::OperationNotAttempted
                }
                (None, Some(topic)) if topic.internal => ErrorCode::InvalidTopic,
                (None, _) => ErrorCode::UnknownTopicOrPartition,
            };
            is_refused |= code != ErrorCode::OperationNotAttempted;
            codes.insert((asked.name.to_string(), index), code);
        }
    }
    if is_refused { Err(codes) } else { Ok(targets) }
}

async fn add_partitions(edge: &Edge, version: i16, request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
    let id = request.v3_and_below_transactional_id.0.to_string();
    let producer = producer(request.v3_and_below_producer_id, request.v3_and_below_producer_epoch);
    let topics = request.v3_and_below_topics;
    let (refused, code) = match targets(edge, &topics) {
        Ok(targets) => match edge.node.transaction(transactions::Request::Add { id, producer, targets }).await {
            transactions::Response::Add(Ok(())) => (BTreeMap::new(), ErrorCode::None),
            transactions::Response::Add(Err(error)) => (BTreeMap::new(), code(&error, fenced(version, 2))),
            _ => (BTreeMap::new(), code(&MISMATCH, ErrorCode::ProducerFenced)),
        },
        Err(codes) => (codes, ErrorCode::None),
    };
    let results = topics.into_iter().map(|topic| {
        let result = |&index: &i32| {
            let code = refused.get(&(topic.name.to_string(), index)).copied().unwrap_or(code);
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(index)
                .with_partition_error_code(code.number())
        };
        let results = topic.partitions.iter().map(result).collect();
        AddPartitionsToTxnTopicResult::default().with_name(topic.name.clone()).with_results_by_partition(results)
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results.collect())
}

async fn add_offsets(edge: &Edge, version: i16, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let request = transactions::Request::Add {
        id: request.transactional_id.0.to_string(),
        producer: producer(request.producer_id, request.producer_epoch),
        targets: vec![Target::Group(request.group_id.0.to_string())],
    };
    let code = match edge.node.transaction(request).await {
        transactions::Response::Add(Ok(())) => ErrorCode::None,
        transactions::Response::Add(Err(error)) => code(&error, fenced(version, 2)),
        _ => code(&MISMATCH, ErrorCode::ProducerFenced),
    };
    AddOffsetsToTxnResponse::default().with_error_code(code.number())
}

async fn end(edge: &Edge, version: i16, request: &EndTxnRequest) -> EndTxnResponse {
    let request = transactions::Request::End {
        id: request.transactional_id.0.to_string(),
        producer: producer(request.producer_id, request.producer_epoch),
        commit: request.committed,
    };
    let code = match edge.node.transaction(request).await {
        transactions::Response::End(Ok(())) => ErrorCode::None,
        transactions::Response::End(Err(error)) => code(&error, fenced(version, 2)),
        _ => code(&MISMATCH, ErrorCode::ProducerFenced),
    };
    EndTxnResponse::default().with_error_code(code.number())
}

/// Offsets in a transaction: kept by the group's coordinator, after that of transactions has said that it is under way.
async fn commit_offsets(edge: &Edge, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let state = edge.node.state();
    let exists = |topic: &str, index: i32| {
        state.topic_named(topic).is_some_and(|topic| topic.has_partition(PartitionIndex(index)))
    };
    let (mut asked, mut offsets) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            if !exists(&topic.name, index) {
                partitions.push((index, ErrorCode::UnknownTopicOrPartition));
                continue;
            }
            partitions.push((index, ErrorCode::None));
            let metadata = partition.committed_metadata.as_ref();
            offsets.push(CommitOffset {
                topic: topic.name.0.to_string(),
                partition: PartitionIndex(index),
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: metadata.map(ToString::to_string).unwrap_or_default(),
            });
        }
        asked.push((topic.name.clone(), partitions));
    }
    let outcome = if offsets.is_empty() { Ok(Vec::new()) } else { commit_known(edge, &request, offsets).await };
    let (refused, mut codes) = match outcome {
        Ok(codes) => (ErrorCode::None, codes.into_iter()),
        Err(code) => (code, Vec::new().into_iter()),
    };
    let topics = asked.into_iter().map(|(name, partitions)| {
        let answers = partitions.into_iter().map(|(index, known)| {
            let code = match (known, refused) {
                (ErrorCode::None, ErrorCode::None) => codes.next().unwrap_or(ErrorCode::UnknownServerError),
                (ErrorCode::None, refused) => refused,
                (known, _) => known,
            };
            TxnOffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code.number())
        });
        TxnOffsetCommitResponseTopic::default().with_name(name).with_partitions(answers.collect())
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

/// The code of each offset, in their order.
async fn commit_known(
    edge: &Edge,
    request: &TxnOffsetCommitRequest,
    offsets: Vec<CommitOffset>,
) -> Result<Vec<ErrorCode>, ErrorCode> {
    let producer = producer(request.producer_id, request.producer_epoch);
    let group = request.group_id.0.to_string();
    let guard = match edge.node.group(groups::Request::Guard).await {
        groups::Response::Guard(Ok(guard)) => guard,
        groups::Response::Guard(Err(error)) => return Err(code_of_group(&error)),
        _ => return Err(ErrorCode::CoordinatorNotAvailable),
    };
    let targets = vec![Target::Group(group.clone())];
    let verified = edge.node.verify_transaction(&request.transactional_id, producer, targets).await;
    verified.map_err(|error| match code(&error, ErrorCode::InvalidProducerEpoch) {
        // Of the other coordinator; this one is the right one, so the client shall ask here again.
        ErrorCode::ConcurrentTransactions | ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator => {
            ErrorCode::CoordinatorLoadInProgress
        }
        code => code,
    })?;
    let commit = TransactionCommit {
        group,
        producer: producer.id,
        epoch: producer.epoch,
        guard,
        generation: (request.generation_id >= 0).then_some(request.generation_id),
        member: request.member_id.to_string(),
        instance: request.group_instance_id.as_ref().map(ToString::to_string),
        offsets,
    };
    match edge.node.group(groups::Request::CommitInTransaction(Box::new(commit))).await {
        groups::Response::CommitOffsets(Ok(outcomes)) => {
            let code = |outcome: groups::OffsetOutcome| {
                outcome.result.as_ref().map_or_else(code_of_group, |()| ErrorCode::None)
            };
            Ok(outcomes.into_iter().map(code).collect())
        }
        groups::Response::CommitOffsets(Err(error)) => Err(code_of_group(&error)),
        _ => Err(ErrorCode::CoordinatorNotAvailable),
    }
}

async fn describe(edge: &Edge, request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let mut described = Vec::new();
    for id in request.transactional_ids.into_iter().take(DESCRIBED_MAX) {
        let answer = edge.node.transaction(transactions::Request::Describe { id: id.0.to_string() }).await;
        let found = match answer {
            transactions::Response::Describe(found) => found,
            _ => Err(MISMATCH),
        };
        described.push(match found {
            Ok(found) => described_state(edge, id, &found),
            Err(error) => DescribedState::default()
                .with_transactional_id(id)
                .with_error_code(code(&error, ErrorCode::ProducerFenced).number()),
        });
    }
    DescribeTransactionsResponse::default().with_transaction_states(described)
}

fn described_state(edge: &Edge, id: TransactionalId, found: &transactions::DescribedTransaction) -> DescribedState {
    let state = edge.node.state();
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for place in &found.partitions {
        if let Some(topic) = state.topics.get(&place.topic) {
            topics.entry(&topic.name).or_default().push(place.partition.0);
        }
    }
    if !found.groups.is_empty() {
        topics.entry(crate::node::groups::TOPIC).or_default().push(0);
    }
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| TopicData::default().with_topic(TopicName(text(name))).with_partitions(partitions));
    DescribedState::default()
        .with_transactional_id(id)
        .with_transaction_state(text(found.state.name()))
        .with_transaction_timeout_ms(i32::try_from(found.timeout_ms).unwrap_or(i32::MAX))
        .with_transaction_start_time_ms(found.started.map_or(-1, |started| started.0))
        .with_producer_id(ProducerId(found.producer.id.0))
        .with_producer_epoch(found.producer.epoch.0)
        .with_topics(topics.collect())
}

async fn list(edge: &Edge, request: ListTransactionsRequest) -> ListTransactionsResponse {
    let known = |name: &StrBytes| TransactionState::named(name);
    let states: Vec<TransactionState> = request.state_filters.iter().filter_map(known).collect();
    let unknown: Vec<StrBytes> = request.state_filters.iter().filter(|name| known(name).is_none()).cloned().collect();
    let response = ListTransactionsResponse::default().with_unknown_state_filters(unknown);
    if states.is_empty() && !request.state_filters.is_empty() {
        return response;
    }
    let producers = request.producer_id_filters.iter().map(|id| base::ProducerId(id.0)).collect();
    let longer_than_ms = u64::try_from(request.duration_filter).ok();
    let list = transactions::Request::List { states, producers, longer_than_ms };
    match edge.node.transaction(list).await {
        transactions::Response::List(Ok(listed)) => {
            let one = |listed: transactions::ListedTransaction| {
                ListedState::default()
                    .with_transactional_id(TransactionalId(text(listed.id)))
                    .with_producer_id(ProducerId(listed.producer.0))
                    .with_transaction_state(text(listed.state.name()))
            };
            response.with_transaction_states(listed.into_iter().map(one).collect())
        }
        transactions::Response::List(Err(error)) => {
            response.with_error_code(code(&error, ErrorCode::ProducerFenced).number())
        }
        _ => response.with_error_code(code(&MISMATCH, ErrorCode::ProducerFenced).number()),
    }
}
