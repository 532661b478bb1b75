//! Produce, versions 0 to 11: framing by hand, the records of each partition a slice of the frame.

use bytes::Bytes;

use crate::code::ErrorCode;
use crate::frame::FrameError;
use crate::hint::{LeaderHint, NodeEndpoint, write_endpoints};
use crate::wire::{Reader, Writer};

/// Most partitions of one request.
pub const PARTITIONS_MAX: usize = 100_000;

/// Lowest version whose records are batches v2. Below it only an error can be answered.
pub const BATCH_VERSION_MIN: i16 = 3;

/// Version from which a refusal may name the leader.
const HINT_VERSION: i16 = 10;

/// A produce request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProduceRequest {
    pub version: i16,
    pub transactional_id: Option<String>,
    /// 0, 1 or -1 (all); anything else is the client's mistake.
    pub acks: i16,
    pub timeout_ms: i32,
    pub topics: Vec<ProduceTopic>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProduceTopic {
    pub name: String,
    pub partitions: Vec<ProducePartition>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducePartition {
    pub index: i32,
    /// Whole record batches as the client sent them; `None` if null.
    pub records: Option<Bytes>,
}

/// The answer: one entry per partition asked, in the order asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProduceResponse {
    pub topics: Vec<ProducedTopic>,
    pub throttle_time_ms: i32,
    /// Of the leaders that refusals name (version 10 on).
    pub endpoints: Vec<NodeEndpoint>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducedTopic {
    pub name: String,
    pub partitions: Vec<ProducedPartition>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducedPartition {
    pub index: i32,
    pub error: ErrorCode,
    /// -1 where there is none.
    pub base_offset: i64,
    /// -1 unless the topic stamps records with the time of the append.
    pub log_append_time_ms: i64,
    /// -1 where there is none.
    pub log_start_offset: i64,
    /// In words for the person behind the client (version 8 on).
    pub error_message: Option<String>,
    /// With a refusal: who leads instead (version 10 on).
    pub leader: Option<LeaderHint>,
}

impl ProducedPartition {
    /// A partition that took nothing.
    #[must_use]
    pub const fn refused(index: i32, error: ErrorCode, message: Option<String>) -> Self {
        Self {
            index,
            error,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            error_message: message,
            leader: None,
        }
    }
}

impl ProduceRequest {
    pub(crate) fn read(reader: &mut Reader, version: i16, flexible: bool) -> Result<Self, FrameError> {
        let transactional_id = if version >= 3 { reader.string(flexible)?.map(str::to_owned) } else { None };
        let acks = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let mut partitions_seen = 0;
        let mut topics = Vec::new();
        for _ in 0..reader.array_count(flexible)? {
            let name = reader.required_string(flexible)?;
            let count = reader.array_count(flexible)?;
            partitions_seen += 1 + count;
            if partitions_seen > PARTITIONS_MAX {
                return Err(reader.malformed("more than 100000 partitions"));
            }
            let mut partitions = Vec::new();
            for _ in 0..count {
                let index = reader.i32()?;
                let records = reader.bytes(flexible)?;
                partitions.push(ProducePartition { index, records });
                if flexible {
                    reader.skip_tags()?;
                }
            }
            topics.push(ProduceTopic { name, partitions });
            if flexible {
                reader.skip_tags()?;
            }
        }
        if flexible {
            reader.skip_tags()?;
        }
        Ok(Self { version, transactional_id, acks, timeout_ms, topics })
    }

    /// Bytes of records in the request.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.filter_map(|partition| partition.records.as_ref()).map(Bytes::len).sum()
    }

    /// The same answer for every partition of this request.
    #[must_use]
    pub fn refuse(&self, error: ErrorCode, message: Option<&str>) -> ProduceResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter();
            let refused = |index| ProducedPartition::refused(index, error, message.map(str::to_owned));
            let partitions = partitions.map(|partition| refused(partition.index)).collect();
            ProducedTopic { name: topic.name.clone(), partitions }
        });
        ProduceResponse { topics: topics.collect(), throttle_time_ms: 0, endpoints: Vec::new() }
    }
}

impl ProduceResponse {
    pub(crate) fn write(&self, out: &mut Writer, version: i16) {
        out.length(self.topics.len());
        for topic in &self.topics {
            out.string(Some(&topic.name));
            out.length(topic.partitions.len());
            for partition in &topic.partitions {
                partition.write(out, version);
            }
            out.no_tags();
        }
        if version >= 1 {
            out.i32(self.throttle_time_ms);
        }
        write_endpoints(out, &self.endpoints, version >= HINT_VERSION);
    }
}

impl ProducedPartition {
    fn write(&self, out: &mut Writer, version: i16) {
        out.i32(self.index);
        out.i16(self.error.number());
        out.i64(self.base_offset);
        if version >= 2 {
            out.i64(self.log_append_time_ms);
        }
        if version >= 5 {
            out.i64(self.log_start_offset);
        }
        if version >= 8 {
            out.length(0);
            out.string(self.error_message.as_deref());
        }
        match self.leader {
            Some(leader) if version >= HINT_VERSION => out.tags(&[(0, leader.field())]),
            _ => out.no_tags(),
        }
    }
}
