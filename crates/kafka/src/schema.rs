//! A walk over a request body that proves every length and count before a decoder allocates by one.
//!
//! The generated decoders reserve room for as many elements as the wire claims. So a body is first walked by the tables here: a
//! count must fit the bytes that are left, and all elements of a request together stay below [`ELEMENTS_MAX`]. Only then is it
//! decoded. A test encodes every message in every version and asserts that walk and decoder see the same.
//!
//! Bytes after the body are ignored, as Kafka does: librdkafka's Metadata request for all topics (version 12) has three of them.

use crate::frame::FrameError;
use crate::wire::{LengthWidth, Reader};

mod tables;
#[cfg(test)]
mod tests;

pub use tables::*;

/// Most list elements and tagged fields of one request, all lists together. What a decoder allocates per element is below 256 bytes.
pub const ELEMENTS_MAX: usize = 200_000;

/// A field of a request, with the versions that have it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    kind: Kind,
    since: i16,
    until: i16,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// So many bytes.
    Fixed(usize),
    Text,
    Bytes,
    /// A list of elements of so many bytes.
    Numbers(usize),
    Texts,
    Structs(&'static [Field]),
    /// One byte that is negative if it is absent, then its fields.
    Maybe(&'static [Field]),
}

impl Field {
    const fn new(kind: Kind) -> Self {
        Self { kind, since: 0, until: i16::MAX }
    }

    const fn since(self, version: i16) -> Self {
        Self { since: version, ..self }
    }

    const fn until(self, version: i16) -> Self {
        Self { until: version, ..self }
    }
}

/// Walks the body that is left in `reader`, without moving it.
///
/// # Errors
/// [`FrameError::Malformed`], naming the byte.
pub(crate) fn check(reader: &Reader, fields: &[Field], version: i16, flexible: bool) -> Result<(), FrameError> {
    let mut walk = Walk { reader: reader.clone(), version, flexible, elements: 0 };
    walk.structure(fields)
}

struct Walk {
    reader: Reader,
    version: i16,
    flexible: bool,
    elements: usize,
}

impl Walk {
    fn structure(&mut self, fields: &[Field]) -> Result<(), FrameError> {
        for field in fields {
            if (field.since..=field.until).contains(&self.version) {
                self.field(field.kind)?;
            }
        }
        if self.flexible { self.tags() } else { Ok(()) }
    }

    fn field(&mut self, kind: Kind) -> Result<(), FrameError> {
        match kind {
            Kind::Fixed(bytes) => self.reader.skip(bytes),
            Kind::Text => self.prefixed(LengthWidth::Two),
            Kind::Bytes => self.prefixed(LengthWidth::Four),
            Kind::Numbers(bytes) => {
                let count = self.list()?;
                self.reader.skip(count.saturating_mul(bytes))
            }
            Kind::Texts => (0..self.list()?).try_for_each(|_| self.prefixed(LengthWidth::Two)),
            Kind::Maybe(fields) => {
                if self.reader.i8()? < 0 {
                    return Ok(());
                }
                self.structure(fields)
            }
            Kind::Structs(fields) => (0..self.list()?).try_for_each(|_| self.structure(fields)),
        }
    }

    fn prefixed(&mut self, width: LengthWidth) -> Result<(), FrameError> {
        let length = self.reader.count(self.flexible, width)?.unwrap_or(0);
        self.reader.skip(length)
    }

    fn list(&mut self) -> Result<usize, FrameError> {
        let count = self.reader.count(self.flexible, LengthWidth::Four)?.unwrap_or(0);
        self.count_in(count)?;
        Ok(count)
    }

    fn tags(&mut self) -> Result<(), FrameError> {
        let before = self.reader.clone();
        let count = self.reader.unsigned_varint()?;
        self.count_in(usize::try_from(count).unwrap_or(usize::MAX))?;
        self.reader = before;
        self.reader.skip_tags()
    }

    fn count_in(&mut self, count: usize) -> Result<(), FrameError> {
        self.elements = self.elements.saturating_add(count);
        if self.elements > ELEMENTS_MAX {
            return Err(self.reader.malformed("more than 200000 list elements"));
        }
        Ok(())
    }
}
