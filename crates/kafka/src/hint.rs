//! Where to go instead (KIP-951): the leader of a partition and where it is reached, told with the refusal itself.
//!
//! Tagged fields of Produce from version 10 on and of Fetch: clients that know them save a round for the metadata, the others
//! skip them.

use bytes::Bytes;

use crate::wire::Writer;

/// Who leads a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderHint {
    pub node: i32,
    pub epoch: i32,
}

/// Where a node is reached.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NodeEndpoint {
    pub node: i32,
    pub host: String,
    pub port: i32,
    /// Its zone, if it names one.
    pub rack: Option<String>,
}

impl LeaderHint {
    pub(crate) fn field(self) -> Bytes {
        let mut out = Writer::new(true);
        out.i32(self.node);
        out.i32(self.epoch);
        out.no_tags();
        out.into_bytes()
    }
}

impl NodeEndpoint {
    pub(crate) fn field(endpoints: &[Self]) -> Bytes {
        let mut out = Writer::new(true);
        out.length(endpoints.len());
        for endpoint in endpoints {
            out.i32(endpoint.node);
            out.string(Some(&endpoint.host));
            out.i32(endpoint.port);
            out.string(endpoint.rack.as_deref());
            out.no_tags();
        }
        out.into_bytes()
    }
}

/// The end of a response: the endpoints, where the version has them and there are any.
pub(crate) fn write_endpoints(out: &mut Writer, endpoints: &[NodeEndpoint], has_field: bool) {
    if has_field && !endpoints.is_empty() {
        out.tags(&[(0, NodeEndpoint::field(endpoints))]);
    } else {
        out.no_tags();
    }
}
