//! One column of a segment, and the one place that says what it can hold.

use std::sync::{Arc, OnceLock};

use arrow_buffer::{Buffer, ScalarBuffer};

use super::bitmap::{Bitmap, Mask, mask_of};
use super::codes::{Codes, Packing};
use super::error::FormatError;
use super::longs::Longs;
use super::packing::BLOCK_ROWS;
use super::plain::Plain;
use crate::schema::ColumnType;

/// A column: what it is called, what it holds, and which rows hold nothing.
#[derive(Debug)]
pub struct Column {
    pub(crate) name: Arc<str>,
    pub(crate) ty: ColumnType,
    pub(crate) rows: usize,
    pub(crate) nulls: usize,
    /// `None` without nulls, and for coded strings, whose code 0 is null.
    pub(crate) validity: Option<Bitmap>,
    pub(crate) data: Data,
    pub(crate) sections: Vec<Section>,
    pub(crate) checked: OnceLock<Result<(), FormatError>>,
}

/// The values.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Codes(Codes),
    Longs(Longs),
    Doubles(ScalarBuffer<f64>),
    Booleans(Bitmap),
    Plain(Plain),
}

/// A part of the column file and the checksum it must have.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) kind: u32,
    pub(crate) crc: u32,
    pub(crate) bytes: Buffer,
}

impl Column {
    /// A column in memory.
    pub(crate) fn new(
        name: &str,
        ty: ColumnType,
        rows: usize,
        nulls: usize,
        validity: Option<Bitmap>,
        data: Data,
    ) -> Self {
        let checked = OnceLock::from(Ok(()));
        Self { name: Arc::from(name), ty, rows, nulls, validity, data, sections: Vec::new(), checked }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn column_type(&self) -> ColumnType {
        self.ty
    }

    /// Rows that are null.
    #[must_use]
    pub fn nulls(&self) -> usize {
        self.nulls
    }

    /// Distinct strings of a coded column.
    #[must_use]
    pub fn distinct(&self) -> Option<usize> {
        match &self.data {
            Data::Codes(codes) if codes.is_sorted() => Some(codes.entries - 1),
            _ => None,
        }
    }

    /// Checks the column's bytes against their checksums, once. To be called before its values are used.
    pub(crate) fn ready(&self) -> Result<(), FormatError> {
        let check = || {
            for section in &self.sections {
                let found = base::checksum::crc32c(&section.bytes);
                if found != section.crc {
                    let what = format!("section {} of column {:?}", section.kind, self.name);
                    return Err(FormatError::Checksum { what, found, expected: section.crc });
                }
            }
            self.check_values()
        };
        self.checked.get_or_init(check).clone()
    }

    /// What a checksum does not prove.
    fn check_values(&self) -> Result<(), FormatError> {
        let wrong = |what: &str| Err(FormatError::Structure(format!("column {:?}: {what}", self.name)));
        if let Some(validity) = &self.validity
            && validity.count(self.rows) != Some(self.rows - self.nulls)
        {
            return wrong("its validity does not have the nulls it claims");
        }
        match &self.data {
            Data::Codes(codes) => {
                if let Packing::Bytes(bytes) = &codes.packing
                    && bytes.iter().any(|code| usize::from(*code) >= codes.entries)
                {
                    return wrong("a code without a string");
                }
                if codes.postings.as_ref().is_some_and(|postings| !postings.is_sound(self.rows)) {
                    return wrong("postings that are not in order");
                }
                codes.intern(&self.name)?;
                codes.dictionary.offer(self.rows - self.nulls);
                Ok(())
            }
            Data::Booleans(bits) if bits.count(self.rows).is_none() => wrong("bits past the last row"),
            Data::Longs(_) | Data::Doubles(_) | Data::Booleans(_) | Data::Plain(_) => Ok(()),
        }
    }

    /// Rows of a block.
    pub(crate) fn block_rows(&self, block: usize) -> usize {
        self.rows.saturating_sub(block * BLOCK_ROWS).min(BLOCK_ROWS)
    }

    /// The rows of a block that have a value. For codes: all of them; their null is a code.
    pub(crate) fn valid(&self, block: usize) -> Mask {
        self.validity.as_ref().map_or_else(|| mask_of(self.block_rows(block)), |validity| validity.block(block))
    }

    /// Memory or file bytes of the values, without what the dictionary holds.
    pub(crate) fn size_bytes(&self) -> usize {
        let data = match &self.data {
            Data::Codes(codes) => {
                let postings = codes.postings.as_ref().map_or(0, |p| (p.starts.len() + p.rows.len()) * 4);
                codes.packing.size_bytes() + codes.ids().map_or(0, |ids| ids.len() * 4) + postings
            }
            Data::Longs(longs) => longs.size_bytes(),
            Data::Doubles(doubles) => doubles.len() * 8,
            Data::Booleans(bits) => bits.words().len() * 8,
            Data::Plain(plain) => plain.size_bytes(),
        };
        data + self.validity.as_ref().map_or(0, |validity| validity.words().len() * 8)
    }

    /// The part of [`Self::size_bytes`] that is memory also when the rest is a mapped file.
    pub(crate) fn heap_bytes(&self) -> usize {
        if self.sections.is_empty() {
            return self.size_bytes();
        }
        match &self.data {
            Data::Codes(codes) => codes.ids().map_or(0, |ids| ids.len() * 4),
            Data::Longs(longs) => longs.blocks.len() * size_of::<super::longs::LongBlock>(),
            Data::Plain(plain) => plain.blocks.len() * size_of::<super::plain::PlainBlock>(),
            Data::Doubles(_) | Data::Booleans(_) => 0,
        }
    }
}
