//! Zigzag varints, and a cursor that never reads past its slice.

/// A place in a slice. Every read is checked; an error says what was wrong in words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("a length reaches past the end")?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn varint(&mut self) -> Result<i32, &'static str> {
        i32::try_from(self.varlong()?).map_err(|_| "a number does not fit into 32 bits")
    }

    pub(super) fn varlong(&mut self) -> Result<i64, &'static str> {
        let mut unsigned = 0_u64;
        for (place, &byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                return Err("a number does not fit into 64 bits");
            }
            unsigned |= bits << (7 * place);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[place + 1..];
                return Ok((unsigned >> 1).cast_signed() ^ -((unsigned & 1).cast_signed()));
            }
        }
        Err(if self.rest.len() < 10 { "a number is cut off" } else { "a number has more than ten bytes" })
    }

    /// Bytes behind their varint length; `None` for the length -1.
    pub(super) fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, &'static str> {
        match self.varint()? {
            -1 => Ok(None),
            length => self.take(usize::try_from(length).map_err(|_| "a length is below -1")?).map(Some),
        }
    }
}

pub(super) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut unsigned = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while unsigned >= 0x80 {
        out.push((unsigned & 0x7f).to_le_bytes()[0] | 0x80);
        unsigned >>= 7;
    }
    out.push(unsigned.to_le_bytes()[0]);
}
