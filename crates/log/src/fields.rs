//! The fields of the internal topics' records, big-endian, as drawn in docs/formats. Written by the coordinators, read when they
//! begin; nothing that is read is trusted.

use bytes::Bytes;

/// A record's bytes cannot be what was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the record is damaged: {0}")]
pub struct Damaged(pub &'static str);

/// Names are bounded far below this when they come in (the coordinators' `limits`).
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    let len = i16::try_from(text.len());
    assert!(len.is_ok(), "a name of {} bytes was let in", text.len());
    out.extend(len.unwrap_or(0).to_be_bytes());
    out.extend(text.as_bytes());
}

pub fn put_nullable(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.extend((-1_i16).to_be_bytes()),
    }
}

pub fn put_len32(out: &mut Vec<u8>, len: usize) {
    let len = i32::try_from(len);
    assert!(len.is_ok(), "a list longer than 2^31 was let in");
    out.extend(len.unwrap_or(0).to_be_bytes());
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len32(out, bytes.len());
    out.extend(bytes);
}

pub fn put_ms(out: &mut Vec<u8>, ms: u64) {
    out.extend(i32::try_from(ms).unwrap_or(i32::MAX).to_be_bytes());
}

/// Bytes still to be read. Nothing is allocated by a length that is not there.
pub struct Reading<'a>(pub &'a [u8]);

impl<'a> Reading<'a> {
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Damaged("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.take(N)?.try_into().map_err(|_| Damaged("it ends too early"))
    }

    pub fn i16(&mut self) -> Result<i16, Damaged> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Damaged> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Damaged> {
        self.array().map(i64::from_be_bytes)
    }

    pub fn ms(&mut self) -> Result<u64, Damaged> {
        u64::try_from(self.i32()?).map_err(|_| Damaged("a timeout is negative"))
    }

    pub fn version(&mut self, expected: i16) -> Result<(), Damaged> {
        if self.i16()? == expected { Ok(()) } else { Err(Damaged("its version is unknown")) }
    }

    pub fn nullable(&mut self) -> Result<Option<String>, Damaged> {
        let len = self.i16()?;
        if len == -1 {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| Damaged("a length is negative"))?;
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| Damaged("a name is not UTF-8"))?;
        Ok(Some(text.to_owned()))
    }

    pub fn string(&mut self) -> Result<String, Damaged> {
        self.nullable()?.ok_or(Damaged("a name is null"))
    }

    pub fn bytes(&mut self) -> Result<Bytes, Damaged> {
        let len = usize::try_from(self.i32()?).map_err(|_| Damaged("a length is negative"))?;
        Ok(Bytes::copy_from_slice(self.take(len)?))
    }

    pub const fn end(&self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged("bytes follow its end")) }
    }
}
