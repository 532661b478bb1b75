//! Frames on a connection after the handshake: length, kind, checksum, payload.

use base::checksum::{crc32c, crc32c_append};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorum::GroupKey;
use uuid::Uuid;

use super::hello;

pub const HEADER_BYTES: usize = 9;
pub const KEY_BYTES: usize = 20;
/// Call id, deadline, kind.
pub const REQUEST_HEAD_BYTES: usize = 13;
/// Call id, status.
pub const ANSWER_HEAD_BYTES: usize = 9;
const HEAD_BYTES_MAX: usize = KEY_BYTES;
/// Longest text of a farewell.
const FAREWELL_BYTES_MAX: usize = 512;
/// Bodies up to this size are copied behind their header, larger ones are written from where they are.
const COPY_BYTES_MAX: usize = 4 << 10;
/// Most memory taken ahead of the bytes of a frame.
const AHEAD_BYTES_MAX: usize = 1 << 20;
const READ_BYTES: usize = 64 << 10;

const GROUP: u8 = 1;
const REQUEST: u8 = 2;
const ANSWER: u8 = 3;
const PING: u8 = 4;
const CLUSTER: u8 = 5;
const PONG: u8 = 6;
const FAREWELL: u8 = 7;

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Done,
    Failed,
    Busy,
    TooLarge,
}

impl Status {
    const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Busy => 2,
            Self::TooLarge => 3,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Done,
            1 => Self::Failed,
            2 => Self::Busy,
            3 => Self::TooLarge,
            _ => return None,
        })
    }
}

/// What one frame says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    Group { group: GroupKey, message: Bytes },
    Request { id: u64, patience_ms: u32, kind: u8, body: Bytes },
    Answer { id: u64, status: Status, body: Bytes },
    Ping(u64),
    Cluster(Uuid),
    Pong(u64),
    Farewell(String),
}

impl Frame {
    /// Bytes on the wire after the header.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Group { message, .. } => KEY_BYTES + message.len(),
            Self::Request { body, .. } => REQUEST_HEAD_BYTES + body.len(),
            Self::Answer { body, .. } => ANSWER_HEAD_BYTES + body.len(),
            Self::Ping(_) | Self::Pong(_) => 8,
            Self::Cluster(_) => 16,
            Self::Farewell(text) => hello::cut(text, FAREWELL_BYTES_MAX).len(),
        }
    }
}

/// Frames made into as few pieces of memory as it takes; a [`Buf`] to write from.
#[derive(Default, Debug)]
pub struct Pieces {
    whole: std::collections::VecDeque<Bytes>,
    last: BytesMut,
}

impl Pieces {
    pub fn put(&mut self, frame: Frame) {
        let mut head = [0; HEAD_BYTES_MAX];
        let (kind, head, body) = split(frame, &mut head);
        // The lane's bound, checked when the frame was queued, is far below.
        let length = u32::try_from(head.len() + body.len()).unwrap_or(u32::MAX);
        let mut start = [0; 5];
        start[..4].copy_from_slice(&length.to_le_bytes());
        start[4] = kind;
        let checksum = crc32c_append(crc32c_append(crc32c(&start), head), &body);
        self.last.reserve(HEADER_BYTES + HEAD_BYTES_MAX + COPY_BYTES_MAX);
        self.last.put_slice(&start);
        self.last.put_u32_le(checksum);
        self.last.put_slice(head);
        if body.len() <= COPY_BYTES_MAX {
            self.last.put_slice(&body);
        } else {
            self.whole.push_back(self.last.split().freeze());
            self.whole.push_back(body);
        }
    }

    /// To be called when the last frame has been put, before writing.
    pub fn finish(&mut self) {
        if !self.last.is_empty() {
            self.whole.push_back(self.last.split().freeze());
        }
    }

    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.last.is_empty()
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.whole.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.whole.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        let count = slices.len().min(self.whole.len());
        for (slice, piece) in slices.iter_mut().zip(&self.whole) {
            *slice = std::io::IoSlice::new(piece);
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some(piece) = self.whole.front_mut() else { return };
            if count < piece.len() {
                return piece.advance(count);
            }
            count -= piece.len();
            self.whole.pop_front();
        }
    }
}

/// Kind, fixed part, body.
fn split(frame: Frame, head: &mut [u8; HEAD_BYTES_MAX]) -> (u8, &[u8], Bytes) {
    match frame {
        Frame::Group { group, message } => {
            head.copy_from_slice(&group.0);
            (GROUP, &head[..KEY_BYTES], message)
        }
        Frame::Request { id, patience_ms, kind, body } => {
            head[..8].copy_from_slice(&id.to_le_bytes());
            head[8..12].copy_from_slice(&patience_ms.to_le_bytes());
            head[12] = kind;
            (REQUEST, &head[..REQUEST_HEAD_BYTES], body)
        }
        Frame::Answer { id, status, body } => {
            head[..8].copy_from_slice(&id.to_le_bytes());
            head[8] = status.number();
            (ANSWER, &head[..ANSWER_HEAD_BYTES], body)
        }
        Frame::Ping(time) => {
            head[..8].copy_from_slice(&time.to_le_bytes());
            (PING, &head[..8], Bytes::new())
        }
        Frame::Pong(time) => {
            head[..8].copy_from_slice(&time.to_le_bytes());
            (PONG, &head[..8], Bytes::new())
        }
        Frame::Cluster(id) => {
            head[..16].copy_from_slice(id.as_bytes());
            (CLUSTER, &head[..16], Bytes::new())
        }
        Frame::Farewell(text) => {
            (FAREWELL, &[], Bytes::copy_from_slice(hello::cut(&text, FAREWELL_BYTES_MAX).as_bytes()))
        }
    }
}

/// What is wrong with what a peer sent. The connection is of no use any more.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame says it has {length} bytes; at most {max} are allowed on its lane")]
    TooLong { length: usize, max: usize },
    #[error("a frame's checksum is wrong")]
    Checksum,
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("a frame of kind {kind} has only {bytes} bytes")]
    Short { kind: u8, bytes: usize },
}

/// Takes the first whole frame off `buffer`. `None`: more bytes are needed, and there is room for them.
pub fn next(buffer: &mut BytesMut, payload_bytes_max: usize) -> Result<Option<Frame>, FrameError> {
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else {
        buffer.reserve(READ_BYTES);
        return Ok(None);
    };
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > payload_bytes_max {
        return Err(FrameError::TooLong { length, max: payload_bytes_max });
    }
    let missing = (HEADER_BYTES + length).saturating_sub(buffer.len());
    if missing > 0 {
        buffer.reserve(missing.clamp(READ_BYTES, AHEAD_BYTES_MAX));
        return Ok(None);
    }
    let kind = header[4];
    let checksum = u32::from_le_bytes([header[5], header[6], header[7], header[8]]);
    let start = crc32c(&header[..5]);
    buffer.advance(HEADER_BYTES);
    let payload = buffer.split_to(length).freeze();
    if crc32c_append(start, &payload) != checksum {
        return Err(FrameError::Checksum);
    }
    parse(kind, payload).map(Some)
}

fn parse(kind: u8, mut payload: Bytes) -> Result<Frame, FrameError> {
    let least = match kind {
        GROUP => KEY_BYTES,
        REQUEST => REQUEST_HEAD_BYTES,
        ANSWER => ANSWER_HEAD_BYTES,
        PING | PONG => 8,
        CLUSTER => 16,
        FAREWELL => 0,
        _ => return Err(FrameError::Kind(kind)),
    };
    if payload.len() < least {
        return Err(FrameError::Short { kind, bytes: payload.len() });
    }
    Ok(match kind {
        GROUP => {
            let mut group = [0; KEY_BYTES];
            payload.copy_to_slice(&mut group);
            Frame::Group { group: GroupKey(group), message: payload }
        }
        REQUEST => Frame::Request {
            id: payload.get_u64_le(),
            patience_ms: payload.get_u32_le(),
            kind: payload.get_u8(),
            body: payload,
        },
        ANSWER => {
            let id = payload.get_u64_le();
            let status = payload.get_u8();
            let status = Status::from_number(status).ok_or(FrameError::Kind(status))?;
            Frame::Answer { id, status, body: payload }
        }
        PING => Frame::Ping(payload.get_u64_le()),
        PONG => Frame::Pong(payload.get_u64_le()),
        CLUSTER => {
            let mut id = [0; 16];
            payload.copy_to_slice(&mut id);
            Frame::Cluster(Uuid::from_bytes(id))
        }
        _ => Frame::Farewell(hello::printable(&payload[..payload.len().min(FAREWELL_BYTES_MAX)])),
    })
}
