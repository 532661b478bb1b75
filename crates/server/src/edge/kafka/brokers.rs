//! The cluster as clients are told of it: nodes with their addresses, who serves which partition, where to go instead.

use std::collections::{BTreeMap, BTreeSet};

use base::{NodeId, PartitionIndex, TopicPartition};
use control::{State, Topic};
use kafka::msg::BrokerId;
use kafka::{ErrorCode, LeaderHint, NodeEndpoint, StrBytes};

use super::limits::NAMED_AFTER_LOSS;
use super::{Client, Edge};
use crate::node::cluster::Leader;

/// Where clients reach a node.
pub(super) struct Broker {
    pub id: NodeId,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

/// A node's number as the wire has it.
pub(super) fn broker_id(node: NodeId) -> BrokerId {
    BrokerId(i32::try_from(node.0).unwrap_or(i32::MAX))
}

/// A node's number from the wire.
pub(super) fn node_id(broker: BrokerId) -> Option<NodeId> {
    u32::try_from(broker.0).ok().map(NodeId)
}

impl Broker {
    pub(super) fn broker_id(&self) -> BrokerId {
        broker_id(self.id)
    }

    pub(super) fn host(&self) -> StrBytes {
        StrBytes::from_string(self.host.clone())
    }

    pub(super) fn rack(&self) -> Option<StrBytes> {
        self.rack.clone().map(StrBytes::from_string)
    }

    fn endpoint(&self) -> NodeEndpoint {
        NodeEndpoint { node: self.broker_id().0, host: self.host.clone(), port: self.port, rack: self.rack.clone() }
    }
}

impl Edge {
    /// Every node that can be reached, this one with the address the client used unless another is configured. A node that
    /// neither this one has a link to nor any other that this one reaches is left out, as long as most of the others are there:
    /// a client that is sent to it would wait for it. That only this node has no link to it is no reason: clients have theirs.
    /// Where this node is the one cut off, the client shall know whom else to ask.
    pub(super) fn brokers(&self, client: &Client) -> Vec<Broker> {
        self.brokers_if(client, |node| self.node.is_up(node))
    }

    /// As [`Edge::brokers`], with those that were lost a moment ago: who restarts is not to be forgotten meanwhile.
    pub(super) fn brokers_lately(&self, client: &Client) -> Vec<Broker> {
        self.brokers_if(client, |node| self.node.was_up(node, NAMED_AFTER_LOSS))
    }

    fn brokers_if(&self, client: &Client, is_named: impl Fn(NodeId) -> bool) -> Vec<Broker> {
        let state = self.node.state();
        let members: Vec<NodeId> = state.members().collect();
        let shows_all = !self.node.reaches_majority_of(&members);
        let mut brokers: Vec<Broker> = state
            .nodes
            .values()
            .filter(|node| node.id != self.node.id() && (shows_all || is_named(node.id)))
            .map(|node| Broker {
                id: node.id,
                host: node.addresses.kafka.host.clone(),
                port: i32::from(node.addresses.kafka.port),
                rack: Some(node.zone.clone()).filter(|zone| !zone.is_empty()),
            })
            .collect();
        let (host, port) = self.address_for(client);
        brokers.push(Broker { id: self.node.id(), host, port, rack: self.node.config().cluster.zone.clone() });
        brokers.sort_by_key(|broker| broker.id);
        brokers
    }

    /// The node to send what changes the cluster to. Any will do; the active master saves a step.
    pub(super) fn controller(&self) -> BrokerId {
        let active = self.node.master().leader.filter(|node| self.node.is_up(*node));
        broker_id(active.unwrap_or_else(|| self.node.id()))
    }

    /// The nodes that a refusal names, with their addresses.
    pub(super) fn endpoints(&self, client: &Client, hints: impl Iterator<Item = LeaderHint>) -> Vec<NodeEndpoint> {
        let named: BTreeSet<i32> = hints.map(|hint| hint.node).collect();
        if named.is_empty() {
            return Vec::new();
        }
        let brokers = self.brokers(client);
        brokers.iter().filter(|broker| named.contains(&broker.broker_id().0)).map(Broker::endpoint).collect()
    }

    /// Who to ask instead of this node.
    pub(super) fn hint(&self, state: &State, partition: TopicPartition) -> Option<LeaderHint> {
        match self.node.leader(partition, state.replicas(partition)) {
            Leader::Known { node, epoch } if node != self.node.id() => {
                Some(LeaderHint { node: broker_id(node).0, epoch })
            }
            _ => None,
        }
    }

    /// A partition as Metadata and DescribeTopicPartitions have it.
    pub(super) fn placed(&self, topic: &Topic, index: i32) -> Placed {
        let partition = TopicPartition { topic: topic.id, partition: PartitionIndex(index) };
        let own = [self.node.id()];
        let replicas = match topic.replicas_of(partition.partition) {
            [] => &own[..],
            replicas => replicas,
        };
        let (code, leader, epoch) = match self.node.leader(partition, replicas) {
            Leader::Known { node, epoch } => (ErrorCode::None, Some(node), epoch),
            // So that consumers can go on reading. Producers are refused there, and told why.
            Leader::ReadOnly { node, epoch } => (ErrorCode::None, Some(node), epoch),
            Leader::Electing | Leader::Unreachable => (ErrorCode::LeaderNotAvailable, None, -1),
        };
        let behind = self.node.behind(partition);
        let is_online = |node: &NodeId| Some(*node) == leader || self.node.is_up(*node);
        let ids = |nodes: Vec<NodeId>| nodes.into_iter().map(broker_id).collect::<Vec<_>>();
        let (online, offline): (Vec<NodeId>, Vec<NodeId>) = replicas.iter().copied().partition(is_online);
        let isr = online.into_iter().filter(|node| Some(*node) == leader || !behind.contains(node)).collect();
        Placed {
            index,
            code,
            leader: leader.map_or(BrokerId(-1), broker_id),
            epoch,
            replicas: ids(replicas.to_vec()),
            isr: ids(isr),
            offline: ids(offline),
        }
    }
}

/// See [`Edge::placed`].
pub(super) struct Placed {
    pub index: i32,
    pub code: ErrorCode,
    pub leader: BrokerId,
    pub epoch: i32,
    pub replicas: Vec<BrokerId>,
    /// Those that can be reached and of which the leader says that they keep up.
    pub isr: Vec<BrokerId>,
    pub offline: Vec<BrokerId>,
}

/// Replicas as an assignment on the wire has them; `None` if a number cannot be a node's.
pub(super) fn assignment(partitions: &BTreeMap<i32, Vec<BrokerId>>) -> Option<Vec<Vec<NodeId>>> {
    let nodes = |brokers: &Vec<BrokerId>| brokers.iter().map(|broker| node_id(*broker)).collect();
    partitions.values().map(nodes).collect()
}
