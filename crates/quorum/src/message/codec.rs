//! A message as bytes: docs/formats/peer-messages.md.
//!
//! What always holds: whatever the bytes, decoding allocates no more than they are long and does not panic;
//! a decoded message encodes to the same bytes.

use base::NodeId;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::CAMPAIGN_TRANSFER;
use raft::eraftpb::{self, Entry, EntryType, MessageType, Snapshot};

use crate::storage::{from_conf_state, to_conf_state};
use crate::{DecodeError, Members};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 72;
const ENTRY_HEADER_BYTES: usize = 16;
const SNAPSHOT_HEADER_BYTES: usize = 16;
const REJECT: u8 = 1;
const BY_TRANSFER: u8 = 2;
/// Bytes of a heartbeat's send time.
const CONTEXT_BYTES: usize = 8;
/// Terms, indexes and times stay below: room to count on without an overflow.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

/// `raft` has kinds that no group of ours sends; two of them carry [`super::Copies`], which no group sees.
pub(super) const COPIES_WANTED: MessageType = MessageType::MsgReadIndex;
pub(super) const COPIES_GIVEN: MessageType = MessageType::MsgReadIndexResp;

const KINDS: [(u8, MessageType); 12] = [
    (1, MessageType::MsgAppend),
    (2, MessageType::MsgAppendResponse),
    (3, MessageType::MsgHeartbeat),
    (4, MessageType::MsgHeartbeatResponse),
    (5, MessageType::MsgRequestPreVote),
    (6, MessageType::MsgRequestPreVoteResponse),
    (7, MessageType::MsgRequestVote),
    (8, MessageType::MsgRequestVoteResponse),
    (9, MessageType::MsgSnapshot),
    (10, MessageType::MsgTimeoutNow),
    (11, COPIES_WANTED),
    (12, COPIES_GIVEN),
];

/// One of the kinds that groups send each other.
pub(crate) fn is_between_members(kind: MessageType) -> bool {
    kind != COPIES_WANTED && kind != COPIES_GIVEN && KINDS.iter().any(|(_, known)| *known == kind)
}

/// A heartbeat's send time, as `raft` carries it there and back.
pub(crate) fn context_of(sent_ms: u64) -> Bytes {
    Bytes::copy_from_slice(&sent_ms.to_le_bytes())
}

pub(crate) fn sent_ms_of(context: &[u8]) -> Option<u64> {
    context.try_into().ok().map(u64::from_le_bytes)
}

pub(super) fn encode(m: &eraftpb::Message) -> Bytes {
    let kind = KINDS.iter().find(|(_, kind)| *kind == m.get_msg_type()).map_or(0, |(number, _)| *number);
    assert!(kind != 0, "a group hands out no {:?}", m.get_msg_type());
    let payload: usize = m.entries.iter().map(|entry| ENTRY_HEADER_BYTES + entry.data.len()).sum();
    let mut out = BytesMut::with_capacity(HEADER_BYTES + payload + m.get_snapshot().data.len());
    let by_transfer = u8::from(&m.context[..] == CAMPAIGN_TRANSFER) * BY_TRANSFER;
    out.put_slice(&[VERSION, kind, (u8::from(m.reject) * REJECT) | by_transfer, 0]);
    out.put_u32_le(super::node(m.from).0);
    out.put_u32_le(super::node(m.to).0);
    for number in [m.term, m.log_term, m.index, m.commit, m.commit_term, m.reject_hint] {
        out.put_u64_le(number);
    }
    out.put_u64_le(sent_ms_of(&m.context).unwrap_or(0));
    out.put_u32_le(u32::try_from(m.entries.len()).unwrap_or(u32::MAX));
    for entry in &m.entries {
        put_entry(&mut out, entry);
    }
    if m.get_msg_type() == MessageType::MsgSnapshot {
        put_snapshot(&mut out, m.get_snapshot());
    }
    out.freeze()
}

fn put_entry(out: &mut BytesMut, entry: &Entry) {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => 0,
        EntryType::EntryNormal => 1,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => 2,
    };
    out.put_u64_le(entry.term);
    out.put_slice(&[kind, 0, 0, 0]);
    out.put_u32_le(u32::try_from(entry.data.len()).unwrap_or(u32::MAX));
    out.put_slice(&entry.data);
}

fn put_snapshot(out: &mut BytesMut, snapshot: &Snapshot) {
    let metadata = snapshot.get_metadata();
    out.put_u64_le(metadata.term);
    out.put_u64_le(metadata.index);
    let Members { voters, outgoing, learners, learners_next } = from_conf_state(metadata.get_conf_state());
    for list in [voters, outgoing, learners, learners_next] {
        out.put_u8(u8::try_from(list.len()).unwrap_or(u8::MAX));
        list.iter().for_each(|node| out.put_u32_le(node.0));
    }
    out.put_slice(&snapshot.data);
}

pub(super) fn decode(mut bytes: Bytes) -> Result<eraftpb::Message, DecodeError> {
    let version = bytes.first().copied().ok_or(DecodeError::Malformed("it is empty"))?;
    if version != VERSION {
        return Err(DecodeError::Version { version, readable: VERSION });
    }
    if bytes.len() > super::Message::BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), bytes_max: super::Message::BYTES_MAX });
    }
    let mut header = take(&mut bytes, HEADER_BYTES)?;
    header.advance(1);
    let (kind, flags, zero) = (header.get_u8(), header.get_u8(), header.get_u8());
    let known = KINDS.iter().find(|(number, _)| *number == kind);
    let (_, kind) = *known.ok_or(DecodeError::Malformed("its kind is unknown"))?;
    let may_transfer = kind == MessageType::MsgRequestVote;
    if zero != 0 || flags & !(REJECT | BY_TRANSFER) != 0 || (flags & BY_TRANSFER != 0 && !may_transfer) {
        return Err(DecodeError::Malformed("its flags are unknown"));
    }
    let mut m = eraftpb::Message { reject: flags & REJECT != 0, ..eraftpb::Message::default() };
    m.set_msg_type(kind);
    m.from = u64::from(header.get_u32_le());
    m.to = u64::from(header.get_u32_le());
    for field in [&mut m.term, &mut m.log_term, &mut m.index, &mut m.commit, &mut m.commit_term, &mut m.reject_hint] {
        *field = number(&mut header)?;
    }
    m.context = context(kind, flags, number(&mut header)?)?;
    let count = header.get_u32_le();
    match kind {
        MessageType::MsgAppend | COPIES_GIVEN => m.entries = entries(&mut bytes, count, m.index)?.into(),
        _ if count > 0 => return Err(DecodeError::Malformed("it carries entries but is no append")),
        MessageType::MsgSnapshot => m.set_snapshot(snapshot(&mut bytes)?),
        _ => {}
    }
    if bytes.is_empty() { Ok(m) } else { Err(DecodeError::Malformed("it goes on after its end")) }
}

fn context(kind: MessageType, flags: u8, sent_ms: u64) -> Result<Bytes, DecodeError> {
    match kind {
        MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse => Ok(context_of(sent_ms)),
        _ if sent_ms > 0 => Err(DecodeError::Malformed("it carries a send time but is no heartbeat")),
        _ if flags & BY_TRANSFER != 0 => Ok(Bytes::from_static(CAMPAIGN_TRANSFER)),
        _ => Ok(Bytes::new()),
    }
}

fn entries(bytes: &mut Bytes, count: u32, after: u64) -> Result<Vec<Entry>, DecodeError> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > bytes.len() / ENTRY_HEADER_BYTES {
        return Err(DecodeError::Malformed("it claims more entries than it has bytes for"));
    }
    let mut entries = Vec::with_capacity(count);
    for index in (after + 1..).take(count) {
        let mut header = take(bytes, ENTRY_HEADER_BYTES)?;
        let mut entry = Entry { term: number(&mut header)?, index, ..Entry::default() };
        let kind = header.get_u32_le();
        let len = usize::try_from(header.get_u32_le()).unwrap_or(usize::MAX);
        entry.data = take(bytes, len)?;
        match (kind, len) {
            (0, 0) | (1, 1..) => {}
            (2, _) => entry.set_entry_type(EntryType::EntryConfChangeV2),
            _ => return Err(DecodeError::Malformed("an entry's kind is unknown")),
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// The rest of the bytes.
fn snapshot(bytes: &mut Bytes) -> Result<Snapshot, DecodeError> {
    let mut header = take(bytes, SNAPSHOT_HEADER_BYTES)?;
    let (term, index) = (number(&mut header)?, number(&mut header)?);
    let mut list = || {
        let count = usize::from(take(bytes, 1)?[0]);
        let ids = take(bytes, count * 4)?;
        let (ids, _) = ids.as_chunks::<4>();
        Ok::<Vec<NodeId>, DecodeError>(ids.iter().map(|id| NodeId(u32::from_le_bytes(*id))).collect())
    };
    let members = Members { voters: list()?, outgoing: list()?, learners: list()?, learners_next: list()? };
    members.check().map_err(|_| DecodeError::Malformed("the members of its snapshot make no sense"))?;
    let mut snapshot = Snapshot { data: std::mem::take(bytes), ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    (metadata.term, metadata.index) = (term, index);
    metadata.set_conf_state(to_conf_state(&members));
    Ok(snapshot)
}

fn take(bytes: &mut Bytes, len: usize) -> Result<Bytes, DecodeError> {
    if len > bytes.len() {
        return Err(DecodeError::Malformed("it ends too early"));
    }
    Ok(bytes.split_to(len))
}

/// The header has it: `take` gave all of it.
fn number(header: &mut Bytes) -> Result<u64, DecodeError> {
    Some(header.get_u64_le())
        .filter(|number| *number < NUMBER_MAX)
        .ok_or(DecodeError::Malformed("a number is too large"))
}

const _: () = assert!(CAMPAIGN_TRANSFER.len() != CONTEXT_BYTES, "a send time must not look like a transfer");

#[cfg(test)]
mod tests;
