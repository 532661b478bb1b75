//! Every answer encodes in every version that is advertised, and the codes stand where each version has them.

use base::{Offset, Timestamp};
use bytes::Bytes;
use kafka::msg::{DescribeGroupsResponse, OffsetFetchResponse};
use kafka::{ApiKey, RequestHeader};
use log::groups::{DescribedMember, Joined, JoinedMember, Synced};

use super::*;

/// Writes the answer in every version of its API.
fn encodes(key: ApiKey, answer: impl Fn(i16) -> kafka::Response) {
    for version in key.api().min..=key.api().max {
        let header = RequestHeader { api: key, version, correlation_id: 1, client_id: None };
        if let Err(error) = answer(version).encode(&header) {
            panic!("{} version {version}: {error}", key.name());
        }
    }
}

fn committed_at(offset: i64) -> Committed {
    Committed { offset: Offset(offset), leader_epoch: 3, metadata: "m".into(), at: Timestamp(0) }
}

#[test]
fn every_version_of_every_answer_encodes() {
    let member = JoinedMember { member: "m".into(), instance: Some("i".into()), metadata: Bytes::from_static(b"x") };
    let is_joined = Joined {
        generation: 1,
        protocol_type: "consumer".into(),
        protocol: "range".into(),
        leader: "m".into(),
        member: "m".into(),
        skip_assignment: false,
        members: vec![member],
    };
    encodes(ApiKey::JoinGroup, |version| {
        joined(version, StrBytes::default(), Response::Join(Ok(is_joined.clone()))).into()
    });
    for error in [GroupError::MemberIdRequired("m".into()), GroupError::UnknownMember, GroupError::NotPersisted] {
        encodes(ApiKey::JoinGroup, |version| {
            joined(version, StrBytes::default(), Response::Join(Err(error.clone()))).into()
        });
        encodes(ApiKey::SyncGroup, |version| synced(version, Response::Sync(Err(error.clone()))).into());
        encodes(ApiKey::LeaveGroup, |version| {
            let leavers = vec![Leaver { member: "m".into(), instance: Some("i".into()) }];
            left(version, leavers, Response::Leave(Ok(vec![Err(error.clone())]))).into()
        });
        encodes(ApiKey::OffsetFetch, |version| fetched_any(version, Response::FetchOffsets(Err(error.clone()))).into());
        encodes(ApiKey::DescribeGroups, |_| {
            let group = described(GroupId::default(), Response::Describe(Err(error.clone())));
            DescribeGroupsResponse::default().with_groups(vec![group]).into()
        });
        encodes(ApiKey::Heartbeat, |_| beaten(Response::Heartbeat(Err(error.clone()))).into());
        encodes(ApiKey::ListGroups, |version| listed(version, Response::List(Err(error.clone()))).into());
        encodes(ApiKey::OffsetDelete, |_| offsets_deleted(Response::DeleteOffsets(Err(error.clone()))).into());
    }
    let is_synced =
        Synced { protocol_type: "consumer".into(), protocol: "range".into(), assignment: Bytes::from_static(b"x") };
    encodes(ApiKey::SyncGroup, |version| synced(version, Response::Sync(Ok(is_synced.clone()))).into());
    let topics = vec![TopicOffsets {
        topic: "t".into(),
        unstable: Vec::new(),
        partitions: vec![(PartitionIndex(0), Some(committed_at(5))), (PartitionIndex(1), None)],
    }];
    encodes(ApiKey::OffsetFetch, |version| fetched_any(version, Response::FetchOffsets(Ok(topics.clone()))).into());
    let list = vec![log::groups::ListedGroup {
        group: "g".into(),
        protocol_type: "consumer".into(),
        state: GroupState::Stable,
    }];
    encodes(ApiKey::ListGroups, |version| listed(version, Response::List(Ok(list.clone()))).into());
    let member = DescribedMember {
        member: "m".into(),
        instance: Some("i".into()),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        metadata: Bytes::from_static(b"x"),
        assignment: Bytes::from_static(b"y"),
    };
    let group = log::groups::DescribedGroup {
        group: "g".into(),
        state: GroupState::Stable,
        generation: 1,
        protocol_type: "consumer".into(),
        protocol: "range".into(),
        members: vec![member],
    };
    encodes(ApiKey::DescribeGroups, |_| {
        let group = described(GroupId::default(), Response::Describe(Ok(Some(group.clone()))));
        DescribeGroupsResponse::default().with_groups(vec![group]).into()
    });
    let outcomes = vec![OffsetOutcome { topic: "t".into(), partition: PartitionIndex(0), result: Ok(()) }];
    encodes(ApiKey::OffsetDelete, |_| offsets_deleted(Response::DeleteOffsets(Ok(outcomes.clone()))).into());
}

fn fetched_any(version: i16, answer: Response) -> OffsetFetchResponse {
    if version < 8 {
        let asked = vec![TopicPartitions { topic: "t".into(), partitions: vec![PartitionIndex(0)] }];
        return fetched(version, Some(asked), answer, true);
    }
    OffsetFetchResponse::default().with_groups(vec![fetched_group(GroupId(text("g")), answer, true)])
}

#[test]
fn a_refused_fetch_never_looks_like_no_offset() {
    for version in 1..8 {
        let answer = fetched_any(version, Response::FetchOffsets(Err(GroupError::NotAvailable)));
        let at_partition = answer.topics[0].partitions[0].error_code;
        assert_eq!(at_partition, ErrorCode::CoordinatorNotAvailable.number());
        assert_eq!(answer.error_code, if version >= 2 { at_partition } else { 0 });
    }
    let group = fetched_group(GroupId::default(), Response::FetchOffsets(Err(GroupError::NotAvailable)), true);
    assert_eq!(group.error_code, ErrorCode::CoordinatorNotAvailable.number());
}

#[test]
fn a_commit_for_an_unknown_topic_is_refused_beside_the_good_ones() {
    use kafka::msg::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let partition =
        |index| OffsetCommitRequestPartition::default().with_partition_index(index).with_committed_offset(7);
    let topic = |name_of: &str, indexes: &[i32]| {
        let partitions = indexes.iter().map(|index| partition(*index)).collect();
        OffsetCommitRequestTopic::default().with_name(name(name_of)).with_partitions(partitions)
    };
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic("no", &[0]), topic("yes", &[0, 9, 1])]);
    let (asked, commit) = commit(request, |topic, partition| topic == "yes" && partition < 2);
    let Some(Request::CommitOffsets { offsets, generation: None, .. }) = commit else { panic!("{commit:?}") };
    assert_eq!(offsets.len(), 2);
    let outcome =
        |partition, result| OffsetOutcome { topic: "yes".into(), partition: PartitionIndex(partition), result };
    let outcomes = vec![outcome(0, Ok(())), outcome(1, Err(GroupError::OffsetMetadataTooLarge(1)))];
    let response = committed(asked, Response::CommitOffsets(Ok(outcomes)));
    let codes: Vec<i16> =
        response.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code).collect();
    assert_eq!(codes, [3, 0, 3, 12]);
}

#[test]
fn filters_of_a_list() {
    let request = |states: &[&str], types: &[&str]| {
        let texts = |words: &[&str]| words.iter().map(|word| text(*word)).collect();
        ListGroupsRequest::default().with_states_filter(texts(states)).with_types_filter(texts(types))
    };
    assert_eq!(list(&request(&[], &[])), Some(Request::List { states: vec![] }));
    assert_eq!(list(&request(&["stable"], &["Classic"])), Some(Request::List { states: vec![GroupState::Stable] }));
    assert_eq!(list(&request(&["Dead"], &[])), None);
    assert_eq!(list(&request(&[], &["consumer"])), None);
}
