//! Group messages of the wire to the coordinator's words and back. Nothing here waits or decides.

use std::collections::BTreeSet;

use base::PartitionIndex;
use kafka::msg::delete_groups_response::DeletableGroupResult;
use kafka::msg::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka::msg::join_group_response::JoinGroupResponseMember;
use kafka::msg::leave_group_response::MemberResponse;
use kafka::msg::list_groups_response::ListedGroup;
use kafka::msg::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka::msg::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka::msg::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka::msg::{
    GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse, TopicName,
};
use kafka::{ErrorCode, StrBytes};
use log::groups::{
    Assignment, CommitOffset, Committed, GroupError, GroupState, Join, Leaver, OffsetOutcome, Protocol, Request,
    Response, TopicOffsets, TopicPartitions,
};

/// The one type of group there is; the other, `consumer`, is of the protocol of KIP-848.
const TYPE: &str = "classic";

/// The code a member acts upon.
pub fn code(error: &GroupError) -> ErrorCode {
    match error {
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::InvalidSessionTimeout { .. } => ErrorCode::InvalidSessionTimeout,
        GroupError::TooLarge { .. } => ErrorCode::InvalidRequest,
        GroupError::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::MemberIdRequired(_) => ErrorCode::MemberIdRequired,
        GroupError::UnknownMember => ErrorCode::UnknownMemberId,
        GroupError::FencedInstance => ErrorCode::FencedInstanceId,
        GroupError::IllegalGeneration { .. } => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::GroupFull(_) => ErrorCode::GroupMaxSizeReached,
        // Both are retried: the first at once with the same coordinator, the second after looking for one.
        GroupError::Busy { .. } => ErrorCode::CoordinatorLoadInProgress,
        GroupError::NotPersisted | GroupError::NotAvailable => ErrorCode::CoordinatorNotAvailable,
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::Loading => ErrorCode::CoordinatorLoadInProgress,
        GroupError::FencedProducer => ErrorCode::InvalidProducerEpoch,
        // Asked again at once, as while the groups are loaded.
        GroupError::TransactionEnded => ErrorCode::CoordinatorLoadInProgress,
        GroupError::NotFound => ErrorCode::GroupIdNotFound,
        GroupError::NotEmpty => ErrorCode::NonEmptyGroup,
        GroupError::SubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::OffsetMetadataTooLarge(_) => ErrorCode::OffsetMetadataTooLarge,
        GroupError::InvalidOffset(_) => ErrorCode::InvalidCommitOffsetSize,
    }
}

fn number(result: &Result<(), GroupError>) -> i16 {
    result.as_ref().map_or_else(code, |()| ErrorCode::None).number()
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

fn owned(text: Option<&StrBytes>) -> Option<String> {
    text.map(ToString::to_string)
}

fn name(topic: &str) -> TopicName {
    TopicName(text(topic))
}

/// An answer of another kind than the request's: our fault, and the client may ask again.
const MISMATCH: GroupError = GroupError::NotAvailable;

pub fn join(version: i16, request: JoinGroupRequest, client_id: String, client_host: String) -> Join {
    let session_timeout_ms = u64::try_from(request.session_timeout_ms).unwrap_or(0);
    // Version 0 has only the one timeout.
    let rebalance_timeout_ms = u64::try_from(request.rebalance_timeout_ms).unwrap_or(session_timeout_ms);
    let protocols = request.protocols.into_iter();
    Join {
        group: request.group_id.0.to_string(),
        member: request.member_id.to_string(),
        instance: owned(request.group_instance_id.as_ref()),
        client_id,
        client_host,
        session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols
            .map(|offered| Protocol { name: offered.name.to_string(), metadata: offered.metadata })
            .collect(),
        id_required: version >= 4,
        may_skip_assignment: version >= 9,
    }
}

pub fn joined(version: i16, member: StrBytes, answer: Response) -> JoinGroupResponse {
    let Response::Join(answer) = answer else { return joined(version, member, Response::Join(Err(MISMATCH))) };
    match answer {
        Ok(joined) => {
            let members = joined.members.into_iter().map(|seen| {
                JoinGroupResponseMember::default()
                    .with_member_id(text(seen.member))
                    .with_group_instance_id(seen.instance.map(text))
                    .with_metadata(seen.metadata)
            });
            JoinGroupResponse::default()
                .with_generation_id(joined.generation)
                .with_protocol_type(Some(text(joined.protocol_type)))
                .with_protocol_name(Some(text(joined.protocol)))
                .with_leader(text(joined.leader))
                .with_skip_assignment(joined.skip_assignment)
                .with_member_id(text(joined.member))
                .with_members(members.collect())
        }
        Err(error) => {
            let member = if let GroupError::MemberIdRequired(id) = &error { text(id.as_str()) } else { member };
            JoinGroupResponse::default()
                .with_error_code(code(&error).number())
                .with_generation_id(-1)
                .with_protocol_name((version < 7).then(StrBytes::default))
                .with_member_id(member)
        }
    }
}

pub fn sync(request: SyncGroupRequest) -> Request {
    let given = request.assignments.into_iter();
    Request::Sync {
        group: request.group_id.0.to_string(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: owned(request.group_instance_id.as_ref()),
        protocol_type: owned(request.protocol_type.as_ref()),
        protocol: owned(request.protocol_name.as_ref()),
        assignments: given
            .map(|given| Assignment { member: given.member_id.to_string(), assignment: given.assignment })
            .collect(),
    }
}

pub fn synced(version: i16, answer: Response) -> SyncGroupResponse {
    let Response::Sync(answer) = answer else { return synced(version, Response::Sync(Err(MISMATCH))) };
    match answer {
        Ok(synced) => {
            let response = SyncGroupResponse::default().with_assignment(synced.assignment);
            if version < 5 {
                return response;
            }
            response
                .with_protocol_type(Some(text(synced.protocol_type)))
                .with_protocol_name(Some(text(synced.protocol)))
        }
        Err(error) => SyncGroupResponse::default().with_error_code(code(&error).number()),
    }
}

pub fn heartbeat(request: HeartbeatRequest) -> Request {
    Request::Heartbeat {
        group: request.group_id.0.to_string(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: owned(request.group_instance_id.as_ref()),
    }
}

pub fn beaten(answer: Response) -> HeartbeatResponse {
    let Response::Heartbeat(result) = answer else { return beaten(Response::Heartbeat(Err(MISMATCH))) };
    HeartbeatResponse::default().with_error_code(number(&result))
}

/// The request, and who leaves in the order of the wire.
pub fn leave(version: i16, request: LeaveGroupRequest) -> (Request, Vec<Leaver>) {
    let leavers: Vec<Leaver> = if version < 3 {
        vec![Leaver { member: request.member_id.to_string(), instance: None }]
    } else {
        let leaver = |leaver: kafka::msg::leave_group_request::MemberIdentity| Leaver {
            member: leaver.member_id.to_string(),
            instance: owned(leaver.group_instance_id.as_ref()),
        };
        request.members.into_iter().map(leaver).collect()
    };
    (Request::Leave { group: request.group_id.0.to_string(), leavers: leavers.clone() }, leavers)
}

pub fn left(version: i16, leavers: Vec<Leaver>, answer: Response) -> LeaveGroupResponse {
    let results = match answer {
        Response::Leave(Ok(results)) => results,
        Response::Leave(Err(error)) => return LeaveGroupResponse::default().with_error_code(code(&error).number()),
        _ => return LeaveGroupResponse::default().with_error_code(code(&MISMATCH).number()),
    };
    if version < 3 {
        return LeaveGroupResponse::default().with_error_code(results.first().map_or(0, number));
    }
    let members = leavers.into_iter().zip(&results).map(|(leaver, result)| {
        MemberResponse::default()
            .with_member_id(text(leaver.member))
            .with_group_instance_id(leaver.instance.map(text))
            .with_error_code(number(result))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

/// What was asked for, partition by partition, each with the code known so far.
pub type Asked = Vec<(TopicName, Vec<(i32, ErrorCode)>)>;

/// The offsets of partitions that exist go to the coordinator; `None` if there are none and the group need not be asked.
pub fn commit(request: OffsetCommitRequest, exists: impl Fn(&str, i32) -> bool) -> (Asked, Option<Request>) {
    let (mut asked, mut offsets) = (Vec::with_capacity(request.topics.len()), Vec::new());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            if !exists(&topic.name, index) {
                partitions.push((index, ErrorCode::UnknownTopicOrPartition));
                continue;
            }
            partitions.push((index, ErrorCode::None));
            offsets.push(CommitOffset {
                topic: topic.name.0.to_string(),
                partition: PartitionIndex(index),
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata.map(|metadata| metadata.to_string()).unwrap_or_default(),
            });
        }
        asked.push((topic.name, partitions));
    }
    if offsets.is_empty() && !asked.is_empty() {
        return (asked, None);
    }
    let generation = request.generation_id_or_member_epoch;
    let commit = Request::CommitOffsets {
        group: request.group_id.0.to_string(),
        generation: (generation >= 0).then_some(generation),
        member: request.member_id.to_string(),
        instance: owned(request.group_instance_id.as_ref()),
        offsets,
    };
    (asked, Some(commit))
}

pub fn committed(asked: Asked, answer: Response) -> OffsetCommitResponse {
    // The coordinator answers in the order of what it was given: the partitions without a code yet.
    let (refused, mut outcomes) = match answer {
        Response::CommitOffsets(Ok(outcomes)) => (None, outcomes.into_iter()),
        Response::CommitOffsets(Err(error)) => (Some(code(&error)), Vec::new().into_iter()),
        _ => (Some(code(&MISMATCH)), Vec::new().into_iter()),
    };
    let mut answer = |(index, known): (i32, ErrorCode)| {
        let code = match (known, refused) {
            (ErrorCode::None, Some(refused)) => refused.number(),
            (ErrorCode::None, None) => outcomes.next().map_or(0, |outcome| number(&outcome.result)),
            (known, _) => known.number(),
        };
        OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code)
    };
    let topics = asked.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(&mut answer).collect();
        OffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

pub fn places(topic: &TopicName, partitions: Vec<i32>) -> TopicPartitions {
    TopicPartitions { topic: topic.0.to_string(), partitions: partitions.into_iter().map(PartitionIndex).collect() }
}

/// An offset as the wire has it: -1 where there is none.
fn offset(committed: Option<Committed>) -> (i64, i32, Option<StrBytes>) {
    committed.map_or((-1, -1, Some(StrBytes::default())), |committed| {
        (committed.offset.0, committed.leader_epoch, Some(text(committed.metadata)))
    })
}

fn offsets(answer: Response) -> Result<Vec<TopicOffsets>, ErrorCode> {
    match answer {
        Response::FetchOffsets(Ok(topics)) => Ok(topics),
        Response::FetchOffsets(Err(error)) => Err(code(&error)),
        _ => Err(code(&MISMATCH)),
    }
}

/// The offsets of a topic, each with its code. `stable`: one that a transaction under way may still change is not told.
fn told(topic: TopicOffsets, stable: bool) -> Vec<(PartitionIndex, Option<Committed>, ErrorCode)> {
    let TopicOffsets { partitions, unstable, .. } = topic;
    let is_unstable = |index: &PartitionIndex| stable && unstable.contains(index);
    let known: BTreeSet<PartitionIndex> = partitions.iter().map(|(index, _)| *index).collect();
    let others = unstable.iter().copied().filter(|index| stable && !known.contains(index));
    let others = others.map(|index| (index, None, ErrorCode::UnstableOffsetCommit));
    let one = |(index, committed)| {
        if is_unstable(&index) {
            (index, None, ErrorCode::UnstableOffsetCommit)
        } else {
            (index, committed, ErrorCode::None)
        }
    };
    partitions.into_iter().map(one).chain(others).collect()
}

/// Versions 1 to 7: one group. Version 1 has no code of its own, so a refusal stands at each partition.
pub fn fetched(
    version: i16,
    asked: Option<Vec<TopicPartitions>>,
    answer: Response,
    stable: bool,
) -> OffsetFetchResponse {
    let (topics, code) = match offsets(answer) {
        Ok(topics) => (topics, ErrorCode::None),
        Err(code) => {
            let none = |asked: TopicPartitions| TopicOffsets {
                unstable: Vec::new(),
                partitions: asked.partitions.into_iter().map(|partition| (partition, None)).collect(),
                topic: asked.topic,
            };
            (asked.unwrap_or_default().into_iter().map(none).collect(), code)
        }
    };
    let partition = |(index, committed, own): (PartitionIndex, Option<Committed>, ErrorCode)| {
        let (offset, leader_epoch, metadata) = offset(committed);
        let code = if code == ErrorCode::None { own } else { code };
        OffsetFetchResponsePartition::default()
            .with_partition_index(index.0)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(leader_epoch)
            .with_metadata(metadata)
            .with_error_code(code.number())
    };
    let topics = topics.into_iter().map(|topic| {
        OffsetFetchResponseTopic::default()
            .with_name(name(&topic.topic))
            .with_partitions(told(topic, stable).into_iter().map(partition).collect())
    });
    let response = OffsetFetchResponse::default().with_topics(topics.collect());
    if version >= 2 { response.with_error_code(code.number()) } else { response }
}

/// From version 8 on: one of the groups asked for.
pub fn fetched_group(group: GroupId, answer: Response, stable: bool) -> OffsetFetchResponseGroup {
    let topics = match offsets(answer) {
        Ok(topics) => topics,
        Err(code) => return OffsetFetchResponseGroup::default().with_group_id(group).with_error_code(code.number()),
    };
    let partition = |(index, committed, own): (PartitionIndex, Option<Committed>, ErrorCode)| {
        let (offset, leader_epoch, metadata) = offset(committed);
        OffsetFetchResponsePartitions::default()
            .with_error_code(own.number())
            .with_partition_index(index.0)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(leader_epoch)
            .with_metadata(metadata)
    };
    let topics = topics.into_iter().map(|topic| {
        OffsetFetchResponseTopics::default()
            .with_name(name(&topic.topic))
            .with_partitions(told(topic, stable).into_iter().map(partition).collect())
    });
    OffsetFetchResponseGroup::default().with_group_id(group).with_topics(topics.collect())
}

pub fn state(state: GroupState) -> &'static str {
    match state {
        GroupState::Empty => "Empty",
        GroupState::PreparingRebalance => "PreparingRebalance",
        GroupState::CompletingRebalance => "CompletingRebalance",
        GroupState::Stable => "Stable",
    }
}

pub fn described(group: GroupId, answer: Response) -> DescribedGroup {
    let described = DescribedGroup::default().with_group_id(group);
    let found = match answer {
        Response::Describe(Ok(Some(found))) => found,
        // Clients know a group that is not there by this state.
        Response::Describe(Ok(None)) => return described.with_group_state(text("Dead")),
        Response::Describe(Err(error)) => return described.with_error_code(code(&error).number()),
        _ => return described.with_error_code(code(&MISMATCH).number()),
    };
    let members = found.members.into_iter().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(text(member.member))
            .with_group_instance_id(member.instance.map(text))
            .with_client_id(text(member.client_id))
            .with_client_host(text(member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    });
    described
        .with_group_state(text(state(found.state)))
        .with_protocol_type(text(found.protocol_type))
        .with_protocol_data(text(found.protocol))
        .with_members(members.collect())
}

/// `None`: the filters leave nothing.
pub fn list(request: &ListGroupsRequest) -> Option<Request> {
    let is_type = |asked: &StrBytes| asked.eq_ignore_ascii_case(TYPE);
    if !request.types_filter.is_empty() && !request.types_filter.iter().any(is_type) {
        return None;
    }
    let all = [GroupState::Empty, GroupState::PreparingRebalance, GroupState::CompletingRebalance, GroupState::Stable];
    let is_asked =
        |known: &GroupState| request.states_filter.iter().any(|asked| asked.eq_ignore_ascii_case(state(*known)));
    let states: Vec<GroupState> = all.into_iter().filter(is_asked).collect();
    (request.states_filter.is_empty() || !states.is_empty()).then_some(Request::List { states })
}

pub fn listed(version: i16, answer: Response) -> ListGroupsResponse {
    let groups = match answer {
        Response::List(Ok(groups)) => groups,
        Response::List(Err(error)) => return ListGroupsResponse::default().with_error_code(code(&error).number()),
        _ => return ListGroupsResponse::default().with_error_code(code(&MISMATCH).number()),
    };
    let groups = groups.into_iter().map(|group| {
        let mut listed = ListedGroup::default()
            .with_group_id(GroupId(text(group.group)))
            .with_protocol_type(text(group.protocol_type));
        if version >= 4 {
            listed = listed.with_group_state(text(state(group.state)));
        }
        if version >= 5 { listed.with_group_type(text(TYPE)) } else { listed }
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

pub fn deleted(group: GroupId, answer: &Response) -> DeletableGroupResult {
    let code = match answer {
        Response::Delete(result) => number(result),
        _ => code(&MISMATCH).number(),
    };
    DeletableGroupResult::default().with_group_id(group).with_error_code(code)
}

pub fn offset_delete(request: OffsetDeleteRequest) -> Request {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| places(&topic.name, topic.partitions.iter().map(|partition| partition.partition_index).collect()));
    Request::DeleteOffsets { group: request.group_id.0.to_string(), topics: topics.collect() }
}

pub fn offsets_deleted(answer: Response) -> OffsetDeleteResponse {
    let outcomes = match answer {
        Response::DeleteOffsets(Ok(outcomes)) => outcomes,
        Response::DeleteOffsets(Err(error)) => {
            return OffsetDeleteResponse::default().with_error_code(code(&error).number());
        }
        _ => return OffsetDeleteResponse::default().with_error_code(code(&MISMATCH).number()),
    };
    let mut topics: Vec<OffsetDeleteResponseTopic> = Vec::new();
    for OffsetOutcome { topic, partition, result } in outcomes {
        let answered =
            OffsetDeleteResponsePartition::default().with_partition_index(partition.0).with_error_code(number(&result));
        match topics.last_mut() {
            Some(last) if last.name.0.as_str() == topic => last.partitions.push(answered),
            _ => topics
                .push(OffsetDeleteResponseTopic::default().with_name(name(&topic)).with_partitions(vec![answered])),
        }
    }
    OffsetDeleteResponse::default().with_topics(topics)
}

#[cfg(test)]
mod tests;
