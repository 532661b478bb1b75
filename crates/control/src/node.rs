//! Nodes as the cluster knows them: which disk is theirs, where they are reached, and whether they take new replicas.

use std::fmt;
use std::str::FromStr;

use base::{DiskId, NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::command::Refused;

/// Most nodes of a cluster.
pub const NODES_MAX: usize = 1_024;
/// Longest host name, as DNS has it.
const HOST_BYTES_MAX: usize = 253;
/// Longest zone name and longest version text.
const WORD_BYTES_MAX: usize = 100;

/// Where a port is reached. IPv6 hosts are written without brackets here and with them as text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

/// Text that is not `host:port`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not an address: write host:port, as in 10.0.0.1:9092, broker-1:9092 or [::1]:9092")]
pub struct AddressError {
    text: String,
}

/// Where a node's listeners are reached by others: what it tells, not what it binds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeAddresses {
    pub kafka: Address,
    pub http: Address,
    pub postgres: Address,
    pub peer: Address,
}

/// Whether a node is given new replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum NodeMode {
    #[default]
    Active,
    /// Keeps what it has until that has been moved; gets nothing new.
    Draining,
    /// As `Draining`, and then it leaves the cluster.
    Leaving,
    /// It will not come back: what it had is made anew elsewhere, and then it is no member any more.
    Gone,
}

impl NodeMode {
    /// It may be given replicas and a vote.
    #[must_use]
    pub const fn takes_replicas(self) -> bool {
        matches!(self, Self::Active)
    }

    /// It is on its way out of the cluster for good.
    #[must_use]
    pub const fn leaves(self) -> bool {
        matches!(self, Self::Leaving | Self::Gone)
    }
}

/// A node that has registered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RegisteredNode {
    pub id: NodeId,
    pub disk: DiskId,
    pub addresses: NodeAddresses,
    /// Replicas of a partition are spread over zones. Empty: it names none.
    pub zone: String,
    /// Of the release it runs.
    pub version: String,
    #[serde(default)]
    pub mode: NodeMode,
    /// When it first registered, and when it last did.
    pub registered: Timestamp,
    pub updated: Timestamp,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError { text: text.chars().take(HOST_BYTES_MAX).collect() };
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(error)?,
            None if host.contains(':') => return Err(error()),
            None => host,
        };
        let address = Self { host: host.to_owned(), port: port.parse().map_err(|_| error())? };
        if address.is_sound() { Ok(address) } else { Err(error()) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Address {
    fn is_sound(&self) -> bool {
        let is_host = !self.host.is_empty()
            && self.host.len() <= HOST_BYTES_MAX
            && self.host.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'@' | b'[' | b']'));
        is_host && self.port > 0
    }
}

impl RegisteredNode {
    /// # Errors
    /// [`Refused::InvalidNode`] with what is wrong.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        let NodeAddresses { kafka, http, postgres, peer } = &self.addresses;
        let is_word = |text: &str| text.len() <= WORD_BYTES_MAX && !text.chars().any(char::is_control);
        let reason = if self.id.0 == 0 || i32::try_from(self.id.0).is_err() {
            "its id must be between 1 and 2147483647"
        } else if ![kafka, http, postgres, peer].into_iter().all(Address::is_sound) {
            "its addresses must name a host and a port other than 0"
        } else if !is_word(&self.zone) || !is_word(&self.version) {
            "its zone and version may have 100 bytes and no control characters"
        } else {
            return Ok(());
        };
        Err(Refused::InvalidNode { node: self.id, reason })
    }
}
