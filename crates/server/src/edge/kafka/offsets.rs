//! Offsets of a partition: by time, by leadership, and deleting records below one.

use std::time::Duration;

use base::{Offset, PartitionIndex, Timestamp, TopicPartition};
use control::State;
use kafka::ErrorCode;
use kafka::msg::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka::msg::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka::msg::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka::msg::{
    DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};
use log::Reader;

use super::limits::DELETE_WAIT_MS_MAX;
use super::{Edge, errors};
use crate::node::cluster::Leader;

/// Timestamps with a meaning of their own in ListOffsets.
mod at {
    pub const LATEST: i64 = -1;
    pub const EARLIEST: i64 = -2;
    pub const MAX_TIMESTAMP: i64 = -3;
    /// Of what is kept on the node itself: all of it is.
    pub const EARLIEST_LOCAL: i64 = -4;
}

/// The isolation level of a client that sees committed transactions only.
const READ_COMMITTED: i8 = 1;

/// DeleteRecords up to the high watermark.
const TO_HIGH_WATERMARK: i64 = -1;

/// Longest wait for what was written before the question to be committed.
const LATEST_WAIT: Duration = Duration::from_secs(1);

/// A partition that is answered for here: this node leads it, or nobody can and this is a copy.
pub(super) fn find(edge: &Edge, state: &State, topic: &str, index: i32) -> Result<(TopicPartition, Reader), ErrorCode> {
    let topic = state.topic_named(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let place = TopicPartition { topic: topic.id, partition: PartitionIndex(index) };
    if !topic.has_partition(place.partition) {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    let reader = edge.node.reader(place).ok_or(ErrorCode::NotLeaderOrFollower)?;
    let is_answered_here = edge.node.leads(place)
        || matches!(edge.node.leader(place, topic.replicas_of(place.partition)), Leader::ReadOnly { .. });
    if is_answered_here { Ok((place, reader)) } else { Err(ErrorCode::NotLeaderOrFollower) }
}

/// The end of what is committed, and of all that was written when this was asked: a new leader learns what its predecessor
/// committed only by its own first commit, and no consumer shall be told of an end that others have read past.
async fn latest(edge: &Edge, place: TopicPartition, reader: &Reader) -> Result<Offset, ErrorCode> {
    let end = reader.end();
    if reader.committed() >= end || !edge.node.leads(place) {
        return Ok(reader.committed());
    }
    let mut committed = edge.node.committed_signal(place).ok_or(ErrorCode::NotLeaderOrFollower)?;
    match tokio::time::timeout(LATEST_WAIT, committed.wait_for(|committed| *committed >= end)).await {
        Ok(Ok(_)) => Ok(reader.committed()),
        _ if edge.node.leads(place) => Err(ErrorCode::OffsetNotAvailable),
        _ => Err(ErrorCode::NotLeaderOrFollower),
    }
}

pub(super) async fn list_offsets(edge: &Edge, version: i16, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let state = edge.node.state();
    let read_committed = version >= 2 && request.isolation_level == READ_COMMITTED;
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let index = partition.partition_index;
            let found = match find(edge, &state, &asked.name, index) {
                Ok((place, reader)) => match errors::check_epoch(&reader, partition.current_leader_epoch) {
                    Ok(()) => offset_at(edge, reader, place, partition.timestamp, read_committed).await,
                    Err(code) => Err(code),
                },
                Err(code) => Err(code),
            };
            partitions.push(answer(index, version, found));
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(asked.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

struct FoundOffset {
    offset: i64,
    timestamp: i64,
    leader_epoch: i32,
}

fn answer(index: i32, version: i16, found: Result<FoundOffset, ErrorCode>) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match found {
        Ok(found) => {
            let response = response.with_offset(found.offset).with_timestamp(found.timestamp);
            if version >= 4 { response.with_leader_epoch(found.leader_epoch) } else { response }
        }
        // Older clients know no such thing, and this one they retry.
        Err(ErrorCode::OffsetNotAvailable) if version < 5 => {
            response.with_error_code(ErrorCode::LeaderNotAvailable.number()).with_offset(-1).with_timestamp(-1)
        }
        Err(code) => response.with_error_code(code.number()).with_offset(-1).with_timestamp(-1),
    }
}

async fn offset_at(
    edge: &Edge,
    reader: Reader,
    place: TopicPartition,
    timestamp: i64,
    read_committed: bool,
) -> Result<FoundOffset, ErrorCode> {
    let leader_epoch = reader.leader_epoch();
    let edge_of_log = |offset: Offset| Ok(FoundOffset { offset: offset.0, timestamp: -1, leader_epoch });
    match timestamp {
        at::LATEST => {
            let committed = latest(edge, place, &reader).await?;
            return edge_of_log(if read_committed { reader.last_stable().min(committed) } else { committed });
        }
        at::EARLIEST | at::EARLIEST_LOCAL => return edge_of_log(reader.start()),
        _ if timestamp < at::EARLIEST_LOCAL => return Err(ErrorCode::InvalidRequest),
        _ => {}
    }
    let stable = if read_committed { reader.last_stable() } else { Offset(i64::MAX) };
    let search = move || match timestamp {
        at::MAX_TIMESTAMP => reader.max_timestamp(),
        time => reader.offset_for_time(Timestamp(time)),
    };
    let found = tokio::task::spawn_blocking(search).await.map_err(|_| ErrorCode::UnknownServerError)?;
    match found {
        Ok(Some((offset, time))) if offset < stable => {
            Ok(FoundOffset { offset: offset.0, timestamp: time.0, leader_epoch })
        }
        Ok(_) => Ok(FoundOffset { offset: -1, timestamp: -1, leader_epoch }),
        Err(error) => {
            tracing::warn!(partition = %place, %error, "kafka: offsets by time failed");
            Err(errors::of_read(&error))
        }
    }
}

pub(super) fn offset_for_leader_epoch(
    edge: &Edge,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let state = edge.node.state();
    let topics = request.topics.into_iter().map(|asked| {
        let partitions = asked.partitions.iter().map(|partition| {
            let answer = EpochEndOffset::default().with_partition(partition.partition);
            let found = find(edge, &state, &asked.topic, partition.partition)
                .and_then(|(_, reader)| errors::check_epoch(&reader, partition.current_leader_epoch).map(|()| reader));
            match found {
                Ok(reader) => {
                    let (epoch, end) = reader.epoch_end(partition.leader_epoch);
                    answer.with_leader_epoch(epoch).with_end_offset(end.0)
                }
                Err(code) => answer.with_error_code(code.number()),
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(asked.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

pub(super) async fn delete_records(edge: &Edge, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let state = edge.node.state();
    let wait_ms = u64::try_from(request.timeout_ms).unwrap_or(0).min(DELETE_WAIT_MS_MAX);
    let deadline = crate::node::time::now().plus(wait_ms);
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let answer = DeleteRecordsPartitionResult::default().with_partition_index(partition.partition_index);
            let place = (&**asked.name, partition.partition_index);
            let deleted = delete_below(edge, &state, place, partition.offset, deadline).await;
            partitions.push(match deleted {
                Ok(start) => answer.with_low_watermark(start.0),
                Err(code) => answer.with_error_code(code.number()).with_low_watermark(-1),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(asked.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn delete_below(
    edge: &Edge,
    state: &State,
    (topic, index): (&str, i32),
    offset: i64,
    deadline: base::Tick,
) -> Result<Offset, ErrorCode> {
    let (place, reader) = find(edge, state, topic, index)?;
    if state.topic_named(topic).is_some_and(|topic| topic.internal) {
        return Err(ErrorCode::InvalidTopic);
    }
    let before = if offset == TO_HIGH_WATERMARK { reader.committed() } else { Offset(offset) };
    if before.0 < 0 || before > reader.committed() {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    edge.node.delete_records(place, before, deadline).await.map_err(|error| {
        tracing::info!(partition = %place, %before, %error, "kafka: records were not deleted");
        errors::of_node(&error).0
    })
}
