//! Consumer groups as an administrator sees them, and topic configurations.

use std::collections::BTreeMap;

use base::{Offset, PartitionIndex};
use kafka_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DeleteGroupsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    DescribeGroupsRequest, DescribeGroupsResponse, GroupId, ListGroupsRequest, ListGroupsResponse, OffsetFetchRequest,
    OffsetFetchResponse, describe_configs_request,
};
use kafka_protocol::protocol::StrBytes;

use crate::{ClientError, Connection};

const LIST_GROUPS_VERSION: i16 = 4;
const DESCRIBE_GROUPS_VERSION: i16 = 4;
const OFFSET_FETCH_VERSION: i16 = 7;
const DELETE_GROUPS_VERSION: i16 = 1;
const DESCRIBE_CONFIGS_VERSION: i16 = 1;
/// DescribeConfigs: a topic.
const RESOURCE_TOPIC: i8 = 2;

/// A group in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupInfo {
    pub group: String,
    pub protocol_type: String,
    pub state: String,
}

/// A member and what it reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupMember {
    pub member: String,
    pub client_id: String,
    pub client_host: String,
    /// By topic; empty if the group is no consumer group.
    pub partitions: BTreeMap<String, Vec<PartitionIndex>>,
}

/// A group with its members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupDescription {
    pub group: String,
    /// `Dead`: there is no such group.
    pub state: String,
    pub protocol: String,
    pub members: Vec<GroupMember>,
}

/// One setting of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicSetting {
    pub name: String,
    pub value: String,
    pub is_default: bool,
}

impl Connection {
    /// Every group, by id.
    pub fn groups(&mut self) -> Result<Vec<GroupInfo>, ClientError> {
        let response: ListGroupsResponse =
            self.call(ApiKey::ListGroups, LIST_GROUPS_VERSION, &ListGroupsRequest::default())?;
        ClientError::check("groups", response.error_code, None)?;
        let groups = response.groups.into_iter().map(|group| GroupInfo {
            group: group.group_id.0.to_string(),
            protocol_type: group.protocol_type.to_string(),
            state: group.group_state.to_string(),
        });
        let mut groups: Vec<GroupInfo> = groups.collect();
        groups.sort_by(|one, other| one.group.cmp(&other.group));
        Ok(groups)
    }

    pub fn describe_group(&mut self, group: &str) -> Result<GroupDescription, ClientError> {
        let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
        let response: DescribeGroupsResponse = self.call(ApiKey::DescribeGroups, DESCRIBE_GROUPS_VERSION, &request)?;
        let found = response.groups.into_iter().next();
        let found = found.ok_or_else(|| self.malformed("a group answer without the group"))?;
        ClientError::check(format!("group {group}"), found.error_code, None)?;
        let members = found.members.into_iter().map(|member| GroupMember {
            member: member.member_id.to_string(),
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            partitions: assignment(&member.member_assignment).unwrap_or_default(),
        });
        Ok(GroupDescription {
            group: group.to_owned(),
            state: found.group_state.to_string(),
            protocol: found.protocol_data.to_string(),
            members: members.collect(),
        })
    }

    /// Everything the group has committed.
    pub fn group_offsets(&mut self, group: &str) -> Result<BTreeMap<(String, PartitionIndex), Offset>, ClientError> {
        let request = OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(None);
        let response: OffsetFetchResponse = self.call(ApiKey::OffsetFetch, OFFSET_FETCH_VERSION, &request)?;
        ClientError::check(format!("offsets of group {group}"), response.error_code, None)?;
        let mut offsets = BTreeMap::new();
        for topic in response.topics {
            for partition in topic.partitions {
                ClientError::check(format!("offsets of group {group}"), partition.error_code, None)?;
                let place = (topic.name.0.to_string(), PartitionIndex(partition.partition_index));
                if partition.committed_offset >= 0 {
                    offsets.insert(place, Offset(partition.committed_offset));
                }
            }
        }
        Ok(offsets)
    }

    /// Deletes a group that has no members, and its offsets.
    pub fn delete_group(&mut self, group: &str) -> Result<(), ClientError> {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(group)]);
        let response: DeleteGroupsResponse = self.call(ApiKey::DeleteGroups, DELETE_GROUPS_VERSION, &request)?;
        response
            .results
            .iter()
            .try_for_each(|result| ClientError::check(format!("group {group}"), result.error_code, None))
    }

    /// Every setting of a topic.
    pub fn topic_settings(&mut self, topic: &str) -> Result<Vec<TopicSetting>, ClientError> {
        let resource = describe_configs_request::DescribeConfigsResource::default()
            .with_resource_type(RESOURCE_TOPIC)
            .with_resource_name(StrBytes::from_string(topic.to_owned()))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let response: DescribeConfigsResponse =
            self.call(ApiKey::DescribeConfigs, DESCRIBE_CONFIGS_VERSION, &request)?;
        let found = response.results.into_iter().next();
        let found = found.ok_or_else(|| self.malformed("a configuration answer without the topic"))?;
        ClientError::check(format!("topic {topic}"), found.error_code, found.error_message.as_ref())?;
        let setting = |config: kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult| {
            TopicSetting {
                name: config.name.to_string(),
                value: config.value.map(|value| value.to_string()).unwrap_or_default(),
                // 1: set for this topic.
                is_default: config.config_source != 1,
            }
        };
        Ok(found.configs.into_iter().map(setting).collect())
    }
}

fn group_id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
}

/// What consumers agree on among themselves: `i16` version, `i32` topics, each a name and `i32` partitions. `None`: it is
/// something else.
fn assignment(bytes: &[u8]) -> Option<BTreeMap<String, Vec<PartitionIndex>>> {
    let (_, rest) = bytes.split_first_chunk::<2>()?;
    let (topics, mut rest) = take_i32(rest)?;
    let mut found = BTreeMap::new();
    for _ in 0..topics {
        let (len, after) = rest.split_first_chunk::<2>()?;
        let (name, after) = after.split_at_checked(usize::try_from(i16::from_be_bytes(*len)).ok()?)?;
        let (count, mut after) = take_i32(after)?;
        let mut partitions = Vec::new();
        for _ in 0..count {
            let (partition, next) = take_i32(after)?;
            partitions.push(PartitionIndex(partition));
            after = next;
        }
        found.insert(String::from_utf8(name.to_vec()).ok()?, partitions);
        rest = after;
    }
    Some(found)
}

fn take_i32(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((i32::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_and_nonsense_is_none() {
        let bytes = b"\0\x01\0\0\0\x01\0\x02ab\0\0\0\x02\0\0\0\x00\0\0\0\x03\xff\xff\xff\xff";
        let found = assignment(bytes).unwrap();
        assert_eq!(found["ab"], [PartitionIndex(0), PartitionIndex(3)]);
        for cut in 0..bytes.len() - 4 {
            assert_eq!(assignment(&bytes[..cut]), None);
        }
        assert_eq!(assignment(b"\0\0\x7f\xff\xff\xff"), None);
    }
}
