//! The records of the internal topic, as drawn in docs/formats/consumer-offsets.md.

use base::{Offset, PartitionIndex, ProducerEpoch, ProducerId, Timestamp};
use bytes::Bytes;

use super::request::Committed;
use crate::fields::{Damaged, Reading, put_bytes, put_len32, put_ms, put_nullable, put_string};

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const PENDING_KEY: i16 = 1001;
const PENDING_VALUE: i16 = 1;
const VALUE: i16 = 3;

/// A partition by the name of its topic, as clients know it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    pub topic: String,
    pub partition: PartitionIndex,
}

/// What a record is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Key {
    Offset {
        group: String,
        place: Place,
    },
    Group {
        group: String,
    },
    /// An offset of a transaction under way.
    Pending {
        group: String,
        producer: ProducerId,
        place: Place,
    },
}

/// A group's durable part.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupRecord {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    pub since: Timestamp,
    pub members: Vec<MemberRecord>,
}

/// A member's durable part.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberRecord {
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: u64,
    pub session_timeout_ms: u64,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

impl Key {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Offset { group, place } => {
                out.extend(OFFSET_KEY.to_be_bytes());
                put_string(&mut out, group);
                put_string(&mut out, &place.topic);
                out.extend(place.partition.0.to_be_bytes());
            }
            Self::Group { group } => {
                out.extend(GROUP_KEY.to_be_bytes());
                put_string(&mut out, group);
            }
            Self::Pending { group, producer, place } => {
                out.extend(PENDING_KEY.to_be_bytes());
                put_string(&mut out, group);
                out.extend(producer.0.to_be_bytes());
                put_string(&mut out, &place.topic);
                out.extend(place.partition.0.to_be_bytes());
            }
        }
        out.into()
    }

    /// `None`: a kind this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, Damaged> {
        let mut read = Reading(bytes);
        let key = match read.i16()? {
            OFFSET_KEY => {
                let group = read.string()?;
                let place = Place { topic: read.string()?, partition: PartitionIndex(read.i32()?) };
                Self::Offset { group, place }
            }
            GROUP_KEY => Self::Group { group: read.string()? },
            PENDING_KEY => {
                let group = read.string()?;
                let producer = ProducerId(read.i64()?);
                let place = Place { topic: read.string()?, partition: PartitionIndex(read.i32()?) };
                Self::Pending { group, producer, place }
            }
            _ => return Ok(None),
        };
        read.end()?;
        Ok(Some(key))
    }
}

pub fn encode_offset(committed: &Committed) -> Bytes {
    let mut out = Vec::new();
    out.extend(VALUE.to_be_bytes());
    out.extend(committed.offset.0.to_be_bytes());
    out.extend(committed.leader_epoch.to_be_bytes());
    put_string(&mut out, &committed.metadata);
    out.extend(committed.at.0.to_be_bytes());
    out.into()
}

pub fn decode_offset(bytes: &[u8]) -> Result<Committed, Damaged> {
    let mut read = Reading(bytes);
    read.version(VALUE)?;
    let committed = Committed {
        offset: Offset(read.i64()?),
        leader_epoch: read.i32()?,
        metadata: read.string()?,
        at: Timestamp(read.i64()?),
    };
    read.end()?;
    if committed.offset < Offset::ZERO { Err(Damaged("its offset is negative")) } else { Ok(committed) }
}

pub fn encode_pending(epoch: ProducerEpoch, committed: &Committed) -> Bytes {
    let mut out = Vec::new();
    out.extend(PENDING_VALUE.to_be_bytes());
    out.extend(epoch.0.to_be_bytes());
    out.extend(&encode_offset(committed)[..]);
    out.into()
}

pub fn decode_pending(bytes: &[u8]) -> Result<(ProducerEpoch, Committed), Damaged> {
    let mut read = Reading(bytes);
    read.version(PENDING_VALUE)?;
    let epoch = ProducerEpoch(read.i16()?);
    Ok((epoch, decode_offset(read.0)?))
}

impl GroupRecord {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        out.extend(VALUE.to_be_bytes());
        put_string(&mut out, &self.protocol_type);
        out.extend(self.generation.to_be_bytes());
        put_nullable(&mut out, self.protocol.as_deref());
        put_nullable(&mut out, self.leader.as_deref());
        out.extend(self.since.0.to_be_bytes());
        put_len32(&mut out, self.members.len());
        for member in &self.members {
            put_string(&mut out, &member.member);
            put_nullable(&mut out, member.instance.as_deref());
            put_string(&mut out, &member.client_id);
            put_string(&mut out, &member.client_host);
            put_ms(&mut out, member.rebalance_timeout_ms);
            put_ms(&mut out, member.session_timeout_ms);
            put_bytes(&mut out, &member.metadata);
            put_bytes(&mut out, &member.assignment);
        }
        out.into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut read = Reading(bytes);
        read.version(VALUE)?;
        let mut record = Self {
            protocol_type: read.string()?,
            generation: read.i32()?,
            protocol: read.nullable()?,
            leader: read.nullable()?,
            since: Timestamp(read.i64()?),
            members: Vec::new(),
        };
        let count = read.i32()?;
        for _ in 0..count {
            record.members.push(MemberRecord {
                member: read.string()?,
                instance: read.nullable()?,
                client_id: read.string()?,
                client_host: read.string()?,
                rebalance_timeout_ms: read.ms()?,
                session_timeout_ms: read.ms()?,
                metadata: read.bytes()?,
                assignment: read.bytes()?,
            });
        }
        read.end()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_the_bytes_that_were_drawn() {
        let place = Place { topic: "t".into(), partition: PartitionIndex(3) };
        let key = Key::Offset { group: "g1".into(), place };
        assert_eq!(&key.encode()[..], b"\0\x01\0\x02g1\0\x01t\0\0\0\x03");
        assert_eq!(Key::decode(&key.encode()), Ok(Some(key)));
        let committed = Committed { offset: Offset(258), leader_epoch: -1, metadata: "m".into(), at: Timestamp(1) };
        let bytes = encode_offset(&committed);
        assert_eq!(&bytes[..], b"\0\x03\0\0\0\0\0\0\x01\x02\xff\xff\xff\xff\0\x01m\0\0\0\0\0\0\0\x01");
        assert_eq!(decode_offset(&bytes), Ok(committed.clone()));
        let place = Place { topic: "t".into(), partition: PartitionIndex(3) };
        let key = Key::Pending { group: "g1".into(), producer: ProducerId(7), place };
        assert_eq!(&key.encode()[..], b"\x03\xe9\0\x02g1\0\0\0\0\0\0\0\x07\0\x01t\0\0\0\x03");
        assert_eq!(Key::decode(&key.encode()), Ok(Some(key)));
        let pending = encode_pending(ProducerEpoch(5), &committed);
        assert_eq!(pending[..], [&b"\0\x01\0\x05"[..], &bytes].concat());
        assert_eq!(decode_pending(&pending), Ok((ProducerEpoch(5), committed)));
    }

    #[test]
    fn a_group_comes_back_and_no_cut_or_flip_panics() {
        let member = MemberRecord {
            member: "a-1".into(),
            instance: Some("i".into()),
            client_id: "a".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: 60_000,
            session_timeout_ms: 45_000,
            metadata: Bytes::from_static(b"meta"),
            assignment: Bytes::from_static(b"given"),
        };
        let record = GroupRecord {
            protocol_type: "consumer".into(),
            generation: 7,
            protocol: Some("range".into()),
            leader: Some("a-1".into()),
            since: Timestamp(5),
            members: vec![member],
        };
        let bytes = record.encode();
        assert_eq!(GroupRecord::decode(&bytes), Ok(record));
        for at in 0..bytes.len() {
            assert!(GroupRecord::decode(&bytes[..at]).is_err());
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << bit;
                let _ = GroupRecord::decode(&flipped);
                let _ = decode_offset(&flipped);
                let _ = Key::decode(&flipped);
            }
        }
        assert_eq!(Key::decode(b"\0\x09whatever"), Ok(None));
    }
}
