//! A cluster as a client sees it: who is there, who leads what, and a connection to the one to ask.
//!
//! What always holds: of two answers about one partition the one with the higher leader epoch is believed, so that a
//! node that does not know yet that it was replaced cannot lead a client back to itself; every wait is bounded.
//!
//! Deliberately not here: threads, retries, batching. The caller decides what a failure means: it says
//! [`Cluster::forget`] and asks again.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::{
    ApiKey, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest, MetadataResponse, metadata_request,
};
use kafka_protocol::protocol::StrBytes;

use crate::{ClientError, Connection, name};

const METADATA_VERSION: i16 = 9;
const FIND_COORDINATOR_VERSION: i16 = 3;
/// Most addresses of nodes that are kept.
const BOOTSTRAP_MAX: usize = 64;
/// Longest wait for an answer about who leads; a node that hangs is passed over.
const METADATA_PATIENCE: Duration = Duration::from_millis(1_000);
/// LEADER_NOT_AVAILABLE: nobody leads the partition now.
const LEADER_NOT_AVAILABLE: i16 = 5;

/// Where a partition is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionView {
    /// `None`: the node that was asked knows of no leader.
    pub leader: Option<i32>,
    pub epoch: i32,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
}

/// One node's view of its cluster and of one topic.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterView {
    pub cluster_id: Option<String>,
    /// `host:port` by node.
    pub brokers: BTreeMap<i32, String>,
    /// The active master, as that node believes.
    pub controller: Option<i32>,
    pub partitions: BTreeMap<i32, PartitionView>,
}

impl Connection {
    /// This node's view of the cluster and of `topic`, if one is named. Creates nothing.
    pub fn view(&mut self, topic: Option<&str>) -> Result<ClusterView, ClientError> {
        let ask = |topic: &str| metadata_request::MetadataRequestTopic::default().with_name(Some(name(topic)));
        let topics = topic.map(ask).into_iter().collect();
        let request = MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(false);
        let response: MetadataResponse = self.call(ApiKey::Metadata, METADATA_VERSION, &request)?;
        let brokers = response.brokers.iter().map(|b| (b.node_id.0, format!("{}:{}", b.host, b.port))).collect();
        let controller = Some(response.controller_id.0).filter(|id| *id >= 0);
        let mut partitions = BTreeMap::new();
        for topic in &response.topics {
            if topic.error_code != LEADER_NOT_AVAILABLE {
                let name = topic.name.as_ref().map_or("", |name| name.0.as_str());
                ClientError::check(format!("topic {name}"), topic.error_code, None)?;
            }
            partitions.extend(topic.partitions.iter().map(|partition| {
                let ids = |nodes: &[kafka_protocol::messages::BrokerId]| nodes.iter().map(|id| id.0).collect();
                let view = PartitionView {
                    leader: Some(partition.leader_id.0).filter(|id| *id >= 0),
                    epoch: partition.leader_epoch,
                    replicas: ids(&partition.replica_nodes),
                    in_sync: ids(&partition.isr_nodes),
                };
                (partition.partition_index, view)
            }));
        }
        let cluster_id = response.cluster_id.map(|id| id.to_string()).filter(|id| !id.is_empty());
        Ok(ClusterView { cluster_id, brokers, controller, partitions })
    }
}

/// Who leads one partition, as last heard.
#[derive(Clone, Debug)]
struct Leader {
    address: String,
    epoch: i32,
}

/// Connections to a cluster, found through any of its nodes.
#[derive(Debug)]
pub struct Cluster {
    bootstrap: Vec<String>,
    /// The bootstrap address to ask next.
    next: usize,
    client_id: String,
    patience: Duration,
    leaders: BTreeMap<(String, i32), Leader>,
    epochs: BTreeMap<(String, i32), i32>,
    connections: BTreeMap<String, Connection>,
}

impl Cluster {
    /// Connects to nothing yet. `patience` bounds each wait for an answer about records.
    #[must_use]
    pub fn new(bootstrap: Vec<String>, client_id: &str, patience: Duration) -> Self {
        Self {
            bootstrap,
            next: 0,
            client_id: client_id.to_owned(),
            patience,
            leaders: BTreeMap::new(),
            epochs: BTreeMap::new(),
            connections: BTreeMap::new(),
        }
    }

    /// The first node asked is the one at `index` of the bootstrap list.
    #[must_use]
    pub const fn starting_at(mut self, index: usize) -> Self {
        self.next = index;
        self
    }

    /// The connection to the partition's leader. Asks one bootstrap node if the leader is not known, the next one at the next call.
    ///
    /// # Errors
    /// Nobody answered, or no leader is known: wait a little and call again.
    pub fn leader(&mut self, topic: &str, partition: i32) -> Result<&mut Connection, ClientError> {
        let key = (topic.to_owned(), partition);
        if !self.leaders.contains_key(&key) {
            let leader = self.find(topic, partition)?;
            self.leaders.insert(key.clone(), leader);
        }
        let address = self.leaders.get(&key).map(|leader| leader.address.clone()).unwrap_or_default();
        if let Err(error) = self.connection(&address) {
            // Whoever named it may not have known yet that it has died.
            self.leaders.remove(&key);
            return Err(error);
        }
        self.connection(&address)
    }

    /// The address of the leader as last heard.
    #[must_use]
    pub fn leader_address(&self, topic: &str, partition: i32) -> Option<&str> {
        self.leaders.get(&(topic.to_owned(), partition)).map(|leader| leader.address.as_str())
    }

    /// What was believed about the partition's leader was wrong, or is of no use: it is asked for anew, and the connection to it is closed.
    pub fn forget(&mut self, topic: &str, partition: i32) {
        if let Some(leader) = self.leaders.remove(&(topic.to_owned(), partition)) {
            self.connections.remove(&leader.address);
        }
    }

    /// Closes the connection to one address, if there is one; what is believed about leaders stays.
    pub fn close(&mut self, address: &str) {
        self.connections.remove(address);
    }

    /// Closes every connection; what is believed about leaders stays.
    pub fn close_all(&mut self) {
        self.connections.clear();
    }

    /// A connection to any node that takes one; each call begins with the next of the bootstrap list.
    ///
    /// # Errors
    /// None of them takes one.
    pub fn any(&mut self) -> Result<&mut Connection, ClientError> {
        let mut failure = None;
        for _ in 0..self.bootstrap.len() {
            let address = self.turn();
            match self.connection(&address) {
                Ok(_) => return self.connection(&address),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| nobody("no address of a node was given")))
    }

    /// As [`Connection::view`], of the next bootstrap node that answers.
    ///
    /// # Errors
    /// None answers.
    pub fn view(&mut self, topic: Option<&str>) -> Result<ClusterView, ClientError> {
        let mut failure = None;
        for _ in 0..self.bootstrap.len() {
            match self.view_of_next(topic) {
                Ok(view) => return Ok(view),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| nobody("no address of a node was given")))
    }

    /// Takes every node that any of the bootstrap nodes tells of into the bootstrap list, so that the loss of those given
    /// does not matter.
    ///
    /// # Errors
    /// None answers.
    pub fn learn(&mut self) -> Result<(), ClientError> {
        let view = self.view(None)?;
        for address in view.brokers.into_values() {
            if self.bootstrap.len() < BOOTSTRAP_MAX && !self.bootstrap.contains(&address) {
                self.bootstrap.push(address);
            }
        }
        Ok(())
    }

    /// The addresses that are asked for what any node can tell.
    #[must_use]
    pub fn bootstrap(&self) -> &[String] {
        &self.bootstrap
    }

    /// A connection to one address, the one there is or a new one.
    ///
    /// # Errors
    /// It takes none.
    pub fn at(&mut self, address: &str) -> Result<&mut Connection, ClientError> {
        self.connection(address)
    }

    /// The connection to the node that coordinates `group`, as the next bootstrap node tells.
    ///
    /// # Errors
    /// Nobody answered, or nobody coordinates: wait a little and call again.
    pub fn coordinator(&mut self, group: &str) -> Result<&mut Connection, ClientError> {
        let request = FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
        let asked = self.any()?;
        let found: FindCoordinatorResponse = asked.call(ApiKey::FindCoordinator, FIND_COORDINATOR_VERSION, &request)?;
        ClientError::check(format!("group {group}"), found.error_code, found.error_message.as_ref())?;
        self.connection(&format!("{}:{}", found.host, found.port))
    }

    fn find(&mut self, topic: &str, partition: i32) -> Result<Leader, ClientError> {
        let view = self.view_of_next(Some(topic))?;
        let unknown = || nobody(&format!("nobody leads {topic}-{partition}"));
        let found = view.partitions.get(&partition).ok_or_else(unknown)?;
        let address = found.leader.and_then(|id| view.brokers.get(&id)).ok_or_else(unknown)?;
        let newest = self.epochs.entry((topic.to_owned(), partition)).or_insert(found.epoch);
        if found.epoch < *newest {
            return Err(nobody(&format!("{topic}-{partition}: epoch {} is over, {newest} was seen", found.epoch)));
        }
        *newest = found.epoch;
        Ok(Leader { address: address.clone(), epoch: found.epoch })
    }

    /// Asked over a connection of its own with a patience of its own: a node that hangs costs a second, not a request's patience.
    fn view_of_next(&mut self, topic: Option<&str>) -> Result<ClusterView, ClientError> {
        let address = self.turn();
        Connection::connect(&address, &self.client_id, METADATA_PATIENCE.min(self.patience))?.view(topic)
    }

    fn turn(&mut self) -> String {
        let address = self.bootstrap.get(self.next % self.bootstrap.len().max(1)).cloned().unwrap_or_default();
        self.next = self.next.wrapping_add(1);
        address
    }

    fn connection(&mut self, address: &str) -> Result<&mut Connection, ClientError> {
        if !self.connections.contains_key(address) {
            let connection = Connection::connect(address, &self.client_id, self.patience)?;
            self.connections.insert(address.to_owned(), connection);
        }
        self.connections.get_mut(address).ok_or_else(|| nobody("connected above"))
    }

    /// The epoch under which the partition's leader was last found.
    #[must_use]
    pub fn leader_epoch(&self, topic: &str, partition: i32) -> Option<i32> {
        self.leaders.get(&(topic.to_owned(), partition)).map(|leader| leader.epoch)
    }
}

fn nobody(what: &str) -> ClientError {
    ClientError::Refused { what: what.to_owned(), code: LEADER_NOT_AVAILABLE, message: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_there_is_an_error_within_a_bound() {
        let mut cluster = Cluster::new(vec!["127.0.0.1:1".into()], "test", Duration::from_millis(200));
        assert!(matches!(cluster.leader("t", 0), Err(ClientError::Connect { .. })));
        assert!(cluster.any().is_err());
        assert!(cluster.view(None).is_err());
        cluster.forget("t", 0);
        assert_eq!(cluster.leader_address("t", 0), None);
    }

    #[test]
    fn a_leader_that_takes_no_connection_is_not_believed_in_for_ever() {
        let mut cluster = Cluster::new(vec!["127.0.0.1:1".into()], "test", Duration::from_millis(200));
        let gone = Leader { address: "127.0.0.1:1".into(), epoch: 1 };
        cluster.leaders.insert(("t".to_owned(), 0), gone);
        assert!(matches!(cluster.leader("t", 0), Err(ClientError::Connect { .. })));
        assert_eq!(cluster.leader_address("t", 0), None, "it is asked for anew");
    }

    #[test]
    fn no_bootstrap_address_is_an_error_too() {
        let mut cluster = Cluster::new(Vec::new(), "test", Duration::from_millis(200));
        assert!(cluster.any().is_err() && cluster.view(None).is_err() && cluster.leader("t", 0).is_err());
    }
}
