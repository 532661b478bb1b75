//! Reading and writing the protocol's primitive types. Reads are checked against the bytes that are there.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::frame::FrameError;

/// Most tagged fields of one structure. None of the protocol's has more than five.
const TAGS_MAX: u32 = 64;

/// A place in a frame.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    frame: Bytes,
    at: usize,
}

impl Reader {
    pub(crate) const fn new(frame: Bytes) -> Self {
        Self { frame, at: 0 }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.frame.len() - self.at
    }

    /// The bytes not yet read.
    pub(crate) fn rest(&self) -> Bytes {
        self.frame.slice(self.at..)
    }

    pub(crate) const fn malformed(&self, what: &'static str) -> FrameError {
        FrameError::Malformed { what, at: self.at }
    }

    pub(crate) fn skip(&mut self, count: usize) -> Result<(), FrameError> {
        if count > self.remaining() {
            return Err(self.malformed("a length that reaches past the end"));
        }
        self.at += count;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let bytes = self.frame[self.at..].first_chunk::<N>().copied();
        let bytes = bytes.ok_or_else(|| self.malformed("a field that is cut off"))?;
        self.at += N;
        Ok(bytes)
    }

    pub(crate) fn i8(&mut self) -> Result<i8, FrameError> {
        self.array().map(i8::from_be_bytes)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, FrameError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, FrameError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, FrameError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn uuid(&mut self) -> Result<Uuid, FrameError> {
        self.array().map(Uuid::from_bytes)
    }

    pub(crate) fn unsigned_varint(&mut self) -> Result<u32, FrameError> {
        let mut value = 0_u32;
        for place in 0..5 {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if place == 4 && bits > 0x0f {
                break;
            }
            value |= bits << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed("a number of more than 32 bits"))
    }

    /// A count or length: `None` for null. Never more than the bytes that are left.
    pub(crate) fn count(&mut self, flexible: bool, width: LengthWidth) -> Result<Option<usize>, FrameError> {
        let count = if flexible {
            i64::from(self.unsigned_varint()?) - 1
        } else {
            match width {
                LengthWidth::Two => i64::from(self.i16()?),
                LengthWidth::Four => i64::from(self.i32()?),
            }
        };
        if count == -1 {
            return Ok(None);
        }
        let fits = usize::try_from(count).ok().filter(|&count| count <= self.remaining());
        fits.map(Some).ok_or_else(|| self.malformed("a count or length that does not fit the bytes that are left"))
    }

    /// The length of an array that may not be null.
    pub(crate) fn array_count(&mut self, flexible: bool) -> Result<usize, FrameError> {
        self.count(flexible, LengthWidth::Four)?.ok_or_else(|| self.malformed("a list that is null"))
    }

    pub(crate) fn string(&mut self, flexible: bool) -> Result<Option<&str>, FrameError> {
        let Some(length) = self.count(flexible, LengthWidth::Two)? else { return Ok(None) };
        let at = self.at;
        self.skip(length)?;
        let text = std::str::from_utf8(&self.frame[at..at + length]);
        text.map(Some).map_err(|_| FrameError::Malformed { what: "a text that is not UTF-8", at })
    }

    pub(crate) fn short_string(&mut self) -> Result<Option<&str>, FrameError> {
        self.string(false)
    }

    pub(crate) fn required_string(&mut self, flexible: bool) -> Result<String, FrameError> {
        let text = self.string(flexible)?.map(str::to_owned);
        text.ok_or_else(|| self.malformed("a text that is null"))
    }

    /// Bytes, shared with the frame.
    pub(crate) fn bytes(&mut self, flexible: bool) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.count(flexible, LengthWidth::Four)? else { return Ok(None) };
        let at = self.at;
        self.skip(length)?;
        Ok(Some(self.frame.slice(at..at + length)))
    }

    /// Skips tagged fields; none that is read by hand carries anything this broker uses.
    pub(crate) fn skip_tags(&mut self) -> Result<(), FrameError> {
        let count = self.unsigned_varint()?;
        if count > TAGS_MAX {
            return Err(self.malformed("more than 64 tagged fields"));
        }
        for _ in 0..count {
            self.unsigned_varint()?;
            let length = self.unsigned_varint()?;
            self.skip(usize::try_from(length).unwrap_or(usize::MAX))?;
        }
        Ok(())
    }
}

/// Bytes of a length field where lengths are not compact.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LengthWidth {
    Two,
    Four,
}

/// A response being written: small fields gather in one buffer, large bytes go by reference.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    chunks: Vec<Bytes>,
    open: BytesMut,
    flexible: bool,
}

/// Bytes below this are copied into the buffer: cheaper than a chunk of their own.
const COPY_BYTES_MAX: usize = 1024;

impl Writer {
    pub(crate) fn new(flexible: bool) -> Self {
        Self { chunks: Vec::new(), open: BytesMut::with_capacity(256), flexible }
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.open.put_i16(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.open.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.open.put_i64(value);
    }

    pub(crate) fn uuid(&mut self, value: Uuid) {
        self.open.put_slice(value.as_bytes());
    }

    pub(crate) fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.open.put_u8((value & 0x7f).to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.open.put_u8(value.to_le_bytes()[0]);
    }

    /// An array's or bytes' length.
    pub(crate) fn length(&mut self, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX - 1);
        if self.flexible {
            self.unsigned_varint(length.saturating_add(1));
        } else {
            self.open.put_u32(length);
        }
    }

    /// A text, cut at what its length field can say.
    pub(crate) fn string(&mut self, text: Option<&str>) {
        let Some(text) = text else {
            if self.flexible {
                self.unsigned_varint(0)
            } else {
                self.open.put_i16(-1)
            }
            return;
        };
        let text = &text[..text.floor_char_boundary(i16::MAX.unsigned_abs().into())];
        let length = u16::try_from(text.len()).unwrap_or(0);
        if self.flexible {
            self.unsigned_varint(u32::from(length) + 1);
        } else {
            self.open.put_u16(length);
        }
        self.open.put_slice(text.as_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: Bytes) {
        self.length(bytes.len());
        if bytes.len() <= COPY_BYTES_MAX {
            self.open.put_slice(&bytes);
        } else {
            let before = self.open.split().freeze();
            self.chunks.push(before);
            self.chunks.push(bytes);
        }
    }

    /// No tagged fields, where the version has any.
    pub(crate) fn no_tags(&mut self) {
        if self.flexible {
            self.open.put_u8(0);
        }
    }

    /// Tagged fields, where the version has any: number and content, numbers ascending.
    pub(crate) fn tags(&mut self, fields: &[(u32, Bytes)]) {
        if !self.flexible {
            return;
        }
        self.unsigned_varint(u32::try_from(fields.len()).unwrap_or(0));
        for (number, content) in fields {
            self.unsigned_varint(*number);
            self.unsigned_varint(u32::try_from(content.len()).unwrap_or(0));
            self.open.put_slice(content);
        }
    }

    /// What was written, in one piece: the content of a tagged field.
    pub(crate) fn into_bytes(self) -> Bytes {
        let mut whole = BytesMut::new();
        self.finish().iter().for_each(|chunk| whole.put_slice(chunk));
        whole.freeze()
    }

    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.chunks.push(self.open.freeze());
        }
        self.chunks
    }
}
