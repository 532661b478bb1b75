//! Requests to whoever leads a partition, asked again elsewhere while it may help.

use std::time::{Duration, Instant};

use client::{ClientError, Cluster, Connection};

use super::failure::Failure;

/// Between two tries.
const RETRY: Duration = Duration::from_millis(100);

/// A cluster reached through one or more of its nodes.
pub struct Routed {
    cluster: Cluster,
    patience: Duration,
}

impl Routed {
    /// `bootstrap`: one or more `host:port`, separated by commas.
    ///
    /// # Errors
    /// None of them answers.
    pub fn connect(bootstrap: &str, patience: Duration) -> Result<Self, Failure> {
        let addresses = bootstrap.split(',').map(str::trim).filter(|address| !address.is_empty()).map(str::to_owned);
        let mut cluster = Cluster::new(addresses.collect(), "seawall-cli", patience);
        cluster.learn()?;
        Ok(Self { cluster, patience })
    }

    /// The nodes' addresses, those given first.
    pub fn addresses(&self) -> Vec<String> {
        self.cluster.bootstrap().to_vec()
    }

    /// Asks any node.
    pub fn any<T>(&mut self, ask: impl FnMut(&mut Connection) -> Result<T, ClientError>) -> Result<T, Failure> {
        self.retrying(|cluster| cluster.any(), Cluster::close_all, ask)
    }

    /// Asks the node at one address, once.
    pub fn at<T>(
        &mut self,
        address: &str,
        ask: impl FnOnce(&mut Connection) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        ask(self.cluster.at(address)?)
    }

    /// Asks the leader of a partition; whoever that is by then if it changes meanwhile.
    pub fn leader<T>(
        &mut self,
        topic: &str,
        partition: i32,
        ask: impl FnMut(&mut Connection) -> Result<T, ClientError>,
    ) -> Result<T, Failure> {
        self.retrying(|cluster| cluster.leader(topic, partition), |cluster| cluster.forget(topic, partition), ask)
    }

    /// The connection to a partition's leader, for requests that are sent without waiting. Their failure is the caller's to
    /// mend.
    pub fn open_leader(&mut self, topic: &str, partition: i32) -> Result<(String, &mut Connection), Failure> {
        self.leader(topic, partition, |_| Ok(()))?;
        let address = self.cluster.leader_address(topic, partition).unwrap_or_default().to_owned();
        Ok((address, self.cluster.leader(topic, partition)?))
    }

    /// Forgets what is believed of a partition, and closes every connection.
    pub fn start_over(&mut self, topic: &str, partitions: impl Iterator<Item = i32>) {
        partitions.for_each(|partition| self.cluster.forget(topic, partition));
        self.cluster.close_all();
    }

    /// Asks the coordinator of a group.
    pub fn coordinator<T>(
        &mut self,
        group: &str,
        ask: impl FnMut(&mut Connection) -> Result<T, ClientError>,
    ) -> Result<T, Failure> {
        self.retrying(|cluster| cluster.coordinator(group), Cluster::close_all, ask)
    }

    fn retrying<T>(
        &mut self,
        mut find: impl FnMut(&mut Cluster) -> Result<&mut Connection, ClientError>,
        mut forget: impl FnMut(&mut Cluster),
        mut ask: impl FnMut(&mut Connection) -> Result<T, ClientError>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + self.patience;
        loop {
            let error = match find(&mut self.cluster).and_then(&mut ask) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !is_worth_a_retry(&error) || Instant::now() >= deadline {
                return Err(error.into());
            }
            forget(&mut self.cluster);
            std::thread::sleep(RETRY);
        }
    }
}

/// What is not there is said at once: a topic that was misspelt does not appear by waiting.
pub fn is_worth_a_retry(error: &ClientError) -> bool {
    error.is_retriable() && !error.is_unknown()
}
