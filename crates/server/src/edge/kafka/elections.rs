//! ElectLeaders: partitions go back to the first of their replicas.
//!
//! Who has no vote is never made a leader: an unclean election is refused, with what to do instead.

use std::time::Duration;

use base::{NodeId, PartitionIndex, TopicPartition};
use kafka::msg::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka::msg::{ElectLeadersRequest, ElectLeadersResponse, TopicName};
use kafka::{ErrorCode, StrBytes};

use super::Edge;
use super::limits::ELECTION_WAIT_MS_MAX;
use super::metadata::name;

const PREFERRED: i8 = 0;
/// Between two looks who leads.
const POLL: Duration = Duration::from_millis(10);

/// One partition that is to be led by its preferred replica.
struct Election {
    topic: TopicName,
    partition: i32,
    /// Where it is, and who shall lead it; else why it is not begun.
    begun: Result<(TopicPartition, NodeId), (ErrorCode, String)>,
}

pub(super) async fn elect(edge: &Edge, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let state = edge.node.state();
    let is_clean = request.election_type == PREFERRED;
    let is_all = request.topic_partitions.is_none();
    let asked: Vec<(TopicName, i32)> = match request.topic_partitions {
        Some(topics) => topics
            .into_iter()
            .flat_map(|asked| asked.partitions.into_iter().map(move |partition| (asked.topic.clone(), partition)))
            .collect(),
        None => state
            .topics
            .values()
            .flat_map(|topic| (0..topic.partitions).map(|partition| (name(&topic.name), partition)))
            .collect(),
    };
    let mut elections = Vec::with_capacity(asked.len());
    for (topic, partition) in asked {
        let begun = begin(edge, &topic, partition, is_clean).await;
        // Of all partitions only those are told of where something was to be done.
        if !(is_all && matches!(begun, Err((ErrorCode::ElectionNotNeeded, _)))) {
            elections.push(Election { topic, partition, begun });
        }
    }
    let wait = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0).min(ELECTION_WAIT_MS_MAX));
    let over = async {
        while elections.iter().any(|election| !is_over(edge, election)) {
            tokio::time::sleep(POLL).await;
        }
    };
    // Those that are not over by then are told one by one.
    let _in_time = tokio::time::timeout(wait, over).await;
    let mut results: Vec<ReplicaElectionResult> = Vec::new();
    for election in elections {
        let result = result(edge, &election);
        match results.last_mut().filter(|last| last.topic == election.topic) {
            Some(last) => last.partition_result.push(result),
            None => results
                .push(ReplicaElectionResult::default().with_topic(election.topic).with_partition_result(vec![result])),
        }
    }
    ElectLeadersResponse::default().with_replica_election_results(results)
}

/// Asks whoever leads to hand over.
async fn begin(
    edge: &Edge,
    topic: &str,
    partition: i32,
    is_clean: bool,
) -> Result<(TopicPartition, NodeId), (ErrorCode, String)> {
    let state = edge.node.state();
    let index = PartitionIndex(partition);
    let Some(topic) = state.topic_named(topic).filter(|topic| topic.has_partition(index)) else {
        return Err((ErrorCode::UnknownTopicOrPartition, "there is no such partition".to_owned()));
    };
    let place = TopicPartition { topic: topic.id, partition: index };
    let leader = edge.node.leader_of(place).map(|(leader, _)| leader);
    let preferred = topic.replicas_of(index).first().copied().unwrap_or_else(|| edge.node.id());
    if !is_clean {
        return Err(match leader {
            Some(leader) => (ErrorCode::ElectionNotNeeded, format!("node {leader} leads it")),
            None => (
                ErrorCode::EligibleLeadersNotAvailable,
                "only a majority of its replicas can elect a leader, so that nothing acknowledged is lost: start the nodes \
                 that are down"
                    .to_owned(),
            ),
        });
    }
    let Some(leader) = leader else {
        let text = "it has no leader that could hand over; one is elected when a majority of its replicas can talk";
        return Err((ErrorCode::PreferredLeaderNotAvailable, text.to_owned()));
    };
    if leader == preferred {
        return Err((ErrorCode::ElectionNotNeeded, format!("node {leader}, the first of its replicas, leads it")));
    }
    if !edge.node.is_up(preferred) || edge.node.behind(place).contains(&preferred) {
        let text = format!("node {preferred}, the first of its replicas, is down or not up to date");
        return Err((ErrorCode::PreferredLeaderNotAvailable, text));
    }
    match edge.node.transfer_partition(place, leader, preferred).await {
        Ok(()) => Ok((place, preferred)),
        Err(text) => Err((ErrorCode::PreferredLeaderNotAvailable, text)),
    }
}

fn is_over(edge: &Edge, election: &Election) -> bool {
    let leads =
        |(place, to): &(TopicPartition, NodeId)| edge.node.leader_of(*place).is_some_and(|(node, _)| node == *to);
    election.begun.as_ref().map_or(true, leads)
}

fn result(edge: &Edge, election: &Election) -> PartitionResult {
    let result = PartitionResult::default().with_partition_id(election.partition).with_error_message(None);
    let refused = |result: PartitionResult, code: ErrorCode, text: String| {
        result.with_error_code(code.number()).with_error_message(Some(StrBytes::from_string(text)))
    };
    match &election.begun {
        Ok(_) if is_over(edge, election) => result,
        Ok((_, to)) => {
            let text = format!("node {to} has not taken over yet; the one before it goes on");
            refused(result, ErrorCode::RequestTimedOut, text)
        }
        Err((code, text)) => refused(result, *code, text.clone()),
    }
}
