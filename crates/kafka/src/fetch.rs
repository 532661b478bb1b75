//! Fetch, versions 4 to 17: framing by hand, the batches of each partition sent on as they came from the log.
//!
//! Sessions are not kept: every request names all its partitions, every answer has session id 0, which tells clients so.

use bytes::Bytes;
use uuid::Uuid;

use crate::code::ErrorCode;
use crate::frame::FrameError;
use crate::hint::{LeaderHint, NodeEndpoint, write_endpoints};
use crate::produce::PARTITIONS_MAX;
use crate::wire::{Reader, Writer};

/// Version from which topics are named by their id.
pub const TOPIC_ID_VERSION: i16 = 13;

/// Version from which a refused partition may name its leader, and from which an answer may say where leaders are.
const HINT_VERSION: i16 = 12;
const ENDPOINTS_VERSION: i16 = 16;

/// A fetch request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchRequest {
    /// Negative for a consumer.
    pub replica_id: i32,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    /// True if only what is not part of an open transaction may be returned.
    pub read_committed: bool,
    /// 0 if the client asks for a new session or none.
    pub session_id: i32,
    /// -1 if the client wants no session.
    pub session_epoch: i32,
    pub topics: Vec<FetchTopic>,
    /// The consumer's zone (version 11 on); empty if it names none.
    pub rack: String,
}

/// How a request names a topic: by name up to version 12, by id from 13 on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TopicRef {
    Name(String),
    Id(Uuid),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchTopic {
    pub topic: TopicRef,
    pub partitions: Vec<FetchPartition>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchPartition {
    pub index: i32,
    /// -1 if the client does not say.
    pub current_leader_epoch: i32,
    pub fetch_offset: i64,
    pub max_bytes: i32,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchResponse {
    pub throttle_time_ms: i32,
    /// For the request as a whole.
    pub error: ErrorCode,
    pub topics: Vec<FetchedTopic>,
    /// Of the leaders that refusals name (version 16 on).
    pub endpoints: Vec<NodeEndpoint>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedTopic {
    pub topic: TopicRef,
    pub partitions: Vec<FetchedPartition>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedPartition {
    pub index: i32,
    pub error: ErrorCode,
    /// First offset that is not committed; -1 with an error.
    pub high_watermark: i64,
    /// First offset that may still belong to an open transaction.
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// Of those in `records`, for a client that reads committed transactions only: what it has to leave out, by where
    /// it begins.
    pub aborted: Vec<AbortedTransaction>,
    /// Whole batches, possibly none.
    pub records: Bytes,
    /// A replica nearer to the consumer, to fetch from instead (version 11 on); -1 if there is none.
    pub preferred_read_replica: i32,
    /// With a refusal: who leads instead (version 12 on).
    pub leader: Option<LeaderHint>,
}

/// The records of `producer_id` from `first_offset` on, up to its next marker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

impl FetchedPartition {
    #[must_use]
    pub const fn refused(index: i32, error: ErrorCode) -> Self {
        Self {
            index,
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted: Vec::new(),
            records: Bytes::new(),
            preferred_read_replica: -1,
            leader: None,
        }
    }
}

impl FetchRequest {
    pub(crate) fn read(reader: &mut Reader, version: i16, flexible: bool) -> Result<Self, FrameError> {
        let replica_id = if version <= 14 { reader.i32()? } else { -1 };
        let max_wait_ms = reader.i32()?;
        let min_bytes = reader.i32()?;
        let max_bytes = reader.i32()?;
        let read_committed = reader.i8()? == 1;
        let (session_id, session_epoch) = if version >= 7 { (reader.i32()?, reader.i32()?) } else { (0, -1) };
        let mut partitions_seen = 0;
        let mut topics = Vec::new();
        for _ in 0..reader.array_count(flexible)? {
            let topic = topic(reader, version, flexible)?;
            let count = reader.array_count(flexible)?;
            partitions_seen += 1 + count;
            if partitions_seen > PARTITIONS_MAX {
                return Err(reader.malformed("more than 100000 partitions"));
            }
            let mut partitions = Vec::new();
            for _ in 0..count {
                partitions.push(FetchPartition::read(reader, version, flexible)?);
            }
            topics.push(FetchTopic { topic, partitions });
            if flexible {
                reader.skip_tags()?;
            }
        }
        if version >= 7 {
            skip_forgotten(reader, version, flexible)?;
        }
        let rack = if version >= 11 { reader.string(flexible)?.unwrap_or_default().to_owned() } else { String::new() };
        if flexible {
            reader.skip_tags()?;
        }
        Ok(Self {
            replica_id,
            max_wait_ms,
            min_bytes,
            max_bytes,
            read_committed,
            session_id,
            session_epoch,
            topics,
            rack,
        })
    }
}

fn topic(reader: &mut Reader, version: i16, flexible: bool) -> Result<TopicRef, FrameError> {
    if version >= TOPIC_ID_VERSION {
        reader.uuid().map(TopicRef::Id)
    } else {
        reader.required_string(flexible).map(TopicRef::Name)
    }
}

/// The partitions a session should drop. There is no session.
fn skip_forgotten(reader: &mut Reader, version: i16, flexible: bool) -> Result<(), FrameError> {
    for _ in 0..reader.array_count(flexible)? {
        topic(reader, version, flexible)?;
        let count = reader.array_count(flexible)?;
        reader.skip(count.saturating_mul(4))?;
        if flexible {
            reader.skip_tags()?;
        }
    }
    Ok(())
}

impl FetchPartition {
    fn read(reader: &mut Reader, version: i16, flexible: bool) -> Result<Self, FrameError> {
        let index = reader.i32()?;
        let current_leader_epoch = if version >= 9 { reader.i32()? } else { -1 };
        let fetch_offset = reader.i64()?;
        if version >= 12 {
            reader.i32()?; // last fetched epoch: followers' business
        }
        if version >= 5 {
            reader.i64()?; // the follower's log start
        }
        let max_bytes = reader.i32()?;
        if flexible {
            reader.skip_tags()?;
        }
        Ok(Self { index, current_leader_epoch, fetch_offset, max_bytes })
    }
}

impl FetchResponse {
    pub(crate) fn write(self, out: &mut Writer, version: i16) {
        out.i32(self.throttle_time_ms);
        if version >= 7 {
            out.i16(self.error.number());
            out.i32(0);
        }
        out.length(self.topics.len());
        for topic in self.topics {
            match &topic.topic {
                TopicRef::Name(name) if version < TOPIC_ID_VERSION => out.string(Some(name)),
                TopicRef::Id(id) => out.uuid(*id),
                TopicRef::Name(_) => out.uuid(Uuid::nil()),
            }
            out.length(topic.partitions.len());
            for partition in topic.partitions {
                partition.write(out, version);
            }
            out.no_tags();
        }
        write_endpoints(out, &self.endpoints, version >= ENDPOINTS_VERSION);
    }

    /// Bytes of records in the answer.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.records.len()).sum()
    }
}

impl FetchedPartition {
    fn write(self, out: &mut Writer, version: i16) {
        out.i32(self.index);
        out.i16(self.error.number());
        out.i64(self.high_watermark);
        out.i64(self.last_stable_offset);
        if version >= 5 {
            out.i64(self.log_start_offset);
        }
        out.length(self.aborted.len());
        for one in &self.aborted {
            out.i64(one.producer_id);
            out.i64(one.first_offset);
            out.no_tags();
        }
        if version >= 11 {
            out.i32(self.preferred_read_replica);
        }
        out.bytes(self.records);
        match self.leader {
            Some(leader) if version >= HINT_VERSION => out.tags(&[(1, leader.field())]),
            _ => out.no_tags(),
        }
    }
}
