//! Beats and their answers as bytes: docs/formats/peer-messages.md.

use base::{LogIndex, Term};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{BUCKETS, Listed, Quiet};
use crate::{DecodeError, GroupKey};

const VERSION: u8 = 1;
const BEAT: u8 = 1;
const ANSWER: u8 = 2;
const KEY_BYTES: usize = 20;
const LISTED_BYTES: usize = KEY_BYTES + 16;

/// What a node tells another about the sleeping groups it leads there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Beat {
    pub instance: u64,
    pub sequence: u64,
    /// By the sender's clock.
    pub sent_ms: u64,
    /// Of each bucket, all its groups; 0 for an empty one.
    pub digests: [u64; BUCKETS],
    /// Buckets listed in full.
    pub listed: u64,
    pub groups: Vec<Listed>,
}

/// What the other makes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub instance: u64,
    /// Whose beat this answers, and which.
    pub to_instance: u64,
    pub sequence: u64,
    pub sent_ms: u64,
    /// Buckets that are not the same here.
    pub differing: u64,
    /// Listed groups that may not sleep here.
    pub refused: Vec<GroupKey>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Frame {
    Beat(Box<Beat>),
    Answer(Answer),
}

impl Beat {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + BUCKETS * 8 + self.groups.len() * LISTED_BYTES);
        out.put_slice(&[VERSION, BEAT, 0, 0]);
        out.put_u64_le(self.instance);
        out.put_u64_le(self.sequence);
        out.put_u64_le(self.sent_ms);
        let filled = (0..BUCKETS).filter(|bucket| self.digests[*bucket] != 0);
        out.put_u64_le(filled.clone().fold(0, |mask, bucket| mask | 1 << bucket));
        filled.for_each(|bucket| out.put_u64_le(self.digests[bucket]));
        out.put_u64_le(self.listed);
        out.put_u32_le(u32::try_from(self.groups.len()).unwrap_or(u32::MAX));
        for Listed { key, quiet } in &self.groups {
            out.put_slice(&key.0);
            out.put_u64_le(quiet.term.0);
            out.put_u64_le(quiet.last.0);
        }
        out.freeze()
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + self.refused.len() * KEY_BYTES);
        out.put_slice(&[VERSION, ANSWER, 0, 0]);
        for number in [self.instance, self.to_instance, self.sequence, self.sent_ms, self.differing] {
            out.put_u64_le(number);
        }
        out.put_u32_le(u32::try_from(self.refused.len()).unwrap_or(u32::MAX));
        self.refused.iter().for_each(|key| out.put_slice(&key.0));
        out.freeze()
    }
}

pub(super) fn decode(mut bytes: Bytes) -> Result<Frame, DecodeError> {
    let short = DecodeError::Malformed("a beat ends too early");
    let head = bytes.get(..4).ok_or_else(|| short.clone())?;
    let (version, kind, zero) = (head[0], head[1], [head[2], head[3]]);
    if version != VERSION {
        return Err(DecodeError::Version { version, readable: VERSION });
    }
    if zero != [0, 0] {
        return Err(DecodeError::Malformed("a beat's flags are unknown"));
    }
    bytes.advance(4);
    let frame = match kind {
        BEAT => read_beat(&mut bytes).map(|beat| Frame::Beat(Box::new(beat))),
        ANSWER => read_answer(&mut bytes).map(Frame::Answer),
        _ => return Err(DecodeError::Malformed("a beat's kind is unknown")),
    };
    if !bytes.is_empty() && frame.is_some() {
        return Err(DecodeError::Malformed("a beat goes on after its end"));
    }
    frame.ok_or(short)
}

fn read_beat(bytes: &mut Bytes) -> Option<Beat> {
    let (instance, sequence, sent_ms) = (number(bytes)?, number(bytes)?, number(bytes)?);
    let filled = number(bytes)?;
    let mut digests = [0; BUCKETS];
    for (bucket, digest) in digests.iter_mut().enumerate() {
        if filled & (1 << bucket) != 0 {
            *digest = number(bytes).filter(|digest| *digest != 0)?;
        }
    }
    let listed = number(bytes)?;
    let count = count(bytes, LISTED_BYTES)?;
    let mut groups = Vec::with_capacity(count);
    for _ in 0..count {
        let key = key(bytes)?;
        let quiet = Quiet { term: Term(number(bytes)?), last: LogIndex(number(bytes)?) };
        groups.push(Listed { key, quiet });
    }
    Some(Beat { instance, sequence, sent_ms, digests, listed, groups })
}

fn read_answer(bytes: &mut Bytes) -> Option<Answer> {
    let (instance, to_instance, sequence) = (number(bytes)?, number(bytes)?, number(bytes)?);
    let (sent_ms, differing) = (number(bytes)?, number(bytes)?);
    let count = count(bytes, KEY_BYTES)?;
    let mut refused = Vec::with_capacity(count);
    for _ in 0..count {
        refused.push(key(bytes)?);
    }
    Some(Answer { instance, to_instance, sequence, sent_ms, differing, refused })
}

/// A count that the bytes left can hold.
fn count(bytes: &mut Bytes, each_bytes: usize) -> Option<usize> {
    let count = bytes.try_get_u32_le().ok().and_then(|count| usize::try_from(count).ok())?;
    (count <= bytes.len() / each_bytes).then_some(count)
}

fn number(bytes: &mut Bytes) -> Option<u64> {
    bytes.try_get_u64_le().ok()
}

fn key(bytes: &mut Bytes) -> Option<GroupKey> {
    let key = *bytes.first_chunk::<KEY_BYTES>()?;
    bytes.advance(KEY_BYTES);
    Some(GroupKey(key))
}
