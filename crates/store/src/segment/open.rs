//! The column file -> columns over its bytes. What costs time (checksums of the values, ids for the strings) waits
//! for a column's first touch; what the reader indexes with is checked here.

use std::sync::{Arc, OnceLock};

use arrow_buffer::{Buffer, MutableBuffer, ScalarBuffer};

use super::bitmap::{BLOCK_WORDS, Bitmap};
use super::codes::{BYTE_WIDTH_MAX, Codes, Packing, Postings, Remap};
use super::column::{Column, Data, Section};
use super::error::FormatError;
use super::format::{self, ColumnEntry, Encoding, Fields, Head};
use super::longs::{LongBlock, Longs, WIDTH_RAW};
use super::packing::{self, BLOCK_ROWS};
use super::plain::{Plain, PlainBlock};
use crate::dictionary::TableDictionary;

#[cfg(not(target_endian = "little"))]
compile_error!("column files are used where they lie, in little-endian");

/// The file's bytes at an address its widest numbers can be read from; a memory map is, a piece of a buffer may not be.
pub(crate) fn aligned(buffer: Buffer) -> Buffer {
    if buffer.as_ptr().align_offset(align_of::<u64>()) == 0 {
        return buffer;
    }
    let mut copy = MutableBuffer::new(buffer.len());
    copy.extend_from_slice(&buffer);
    copy.into()
}

/// The head, and a column for each of its entries.
pub(crate) fn open(file: &Buffer, dictionary: &TableDictionary) -> Result<(Head, Vec<Column>), FormatError> {
    let head = format::read(file)?;
    let columns = head
        .columns
        .iter()
        .map(|entry| {
            let sections = entry.sections.iter().map(|section| Section {
                kind: section.kind,
                crc: section.crc,
                bytes: file.slice_with_length(section.start, section.len),
            });
            Opening { entry, rows: head.rows, sections: sections.collect() }.column(dictionary)
        })
        .collect::<Result<_, _>>()?;
    Ok((head, columns))
}

struct Opening<'a> {
    entry: &'a ColumnEntry,
    rows: usize,
    sections: Vec<Section>,
}

impl Opening<'_> {
    fn column(self, dictionary: &TableDictionary) -> Result<Column, FormatError> {
        let nulls = usize::try_from(self.entry.nulls).ok().filter(|nulls| *nulls <= self.rows);
        let nulls = nulls.ok_or_else(|| self.wrong("more nulls than rows"))?;
        let coded = self.entry.encoding == Encoding::Codes;
        let validity = if nulls > 0 && !coded { Some(self.bits(format::VALIDITY)?) } else { None };
        let data = match self.entry.encoding {
            Encoding::Codes => Data::Codes(self.codes(dictionary)?),
            Encoding::Integers => Data::Longs(self.longs()?),
            Encoding::Doubles => Data::Doubles(self.numbers(format::DOUBLES, self.rows)?),
            Encoding::Bits => Data::Booleans(self.bits(format::BITS)?),
            Encoding::Plain => Data::Plain(self.plain()?),
        };
        Ok(Column {
            name: Arc::from(self.entry.name.as_str()),
            ty: self.entry.ty,
            rows: self.rows,
            nulls,
            validity,
            data,
            sections: self.sections,
            checked: OnceLock::new(),
        })
    }

    fn wrong(&self, what: &str) -> FormatError {
        FormatError::Structure(format!("column {:?}: {what}", self.entry.name))
    }

    fn blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK_ROWS)
    }

    fn find(&self, kind: u32) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == kind)
    }

    fn section(&self, kind: u32) -> Result<&Buffer, FormatError> {
        let section = self.find(kind).ok_or_else(|| self.wrong(&format!("section {kind} is missing")))?;
        Ok(&section.bytes)
    }

    /// A section that is read now, so it is checked now.
    fn section_checked(&self, kind: u32) -> Result<&Buffer, FormatError> {
        let section = self.find(kind).ok_or_else(|| self.wrong(&format!("section {kind} is missing")))?;
        let found = base::checksum::crc32c(&section.bytes);
        if found != section.crc {
            let what = format!("section {kind} of column {:?}", self.entry.name);
            return Err(FormatError::Checksum { what, found, expected: section.crc });
        }
        Ok(&section.bytes)
    }

    /// A section of exactly `count` numbers.
    fn numbers<T: arrow_buffer::ArrowNativeType>(
        &self,
        kind: u32,
        count: usize,
    ) -> Result<ScalarBuffer<T>, FormatError> {
        let bytes = self.section(kind)?;
        if count.checked_mul(size_of::<T>()) != Some(bytes.len()) {
            return Err(self.wrong(&format!("section {kind} has {} bytes for {count} numbers", bytes.len())));
        }
        Ok(ScalarBuffer::new(bytes.clone(), 0, count))
    }

    fn bits(&self, kind: u32) -> Result<Bitmap, FormatError> {
        Ok(Bitmap::new(self.numbers(kind, self.blocks() * BLOCK_WORDS)?))
    }

    fn codes(&self, dictionary: &TableDictionary) -> Result<Codes, FormatError> {
        let strings = self.entry.strings as usize;
        if strings > self.rows || self.entry.width != packing::width_of(self.entry.strings) {
            return Err(self.wrong("a dictionary that does not fit its rows and codes"));
        }
        let width = self.entry.width;
        let packing = if width <= BYTE_WIDTH_MAX {
            Packing::Bytes(self.numbers(format::CODES_BYTES, self.blocks() * BLOCK_ROWS)?)
        } else {
            let words = self.numbers(format::CODES_WORDS, self.blocks() * packing::block_words(width))?;
            Packing::Words { words, width }
        };
        let postings = if self.find(format::POSTINGS_STARTS).is_some() {
            let starts = self.numbers(format::POSTINGS_STARTS, strings + 2)?;
            Some(Postings { starts, rows: self.numbers(format::POSTINGS_ROWS, self.rows)? })
        } else {
            None
        };
        let section = self.section(format::DICTIONARY)?.clone();
        let remap = Remap::Strings { section, ids: OnceLock::new() };
        Ok(Codes { packing, entries: strings + 1, remap, dictionary: dictionary.column(&self.entry.name), postings })
    }

    fn longs(&self) -> Result<Longs, FormatError> {
        let directory = self.section_checked(format::LONG_DIRECTORY)?;
        let bytes = self.section(format::LONG_WORDS)?;
        let words: ScalarBuffer<u32> = self.numbers(format::LONG_WORDS, bytes.len() / 4)?;
        if directory.len() != self.blocks() * 24 {
            return Err(self.wrong("an integer directory of another length than its blocks"));
        }
        let blocks = directory.as_chunks::<24>().0.iter().map(|entry| {
            let mut fields = Fields(entry);
            let (min, max, start, width) = (fields.i64(), fields.i64(), fields.u32(), fields.u8());
            let block = LongBlock { min, max, start, width };
            let range = max.checked_sub(min).map_or(u64::MAX, i64::cast_unsigned);
            let fits = match width {
                0..=32 => min <= max && range.checked_shr(u32::from(width)).unwrap_or(0) == 0,
                WIDTH_RAW => min <= max,
                _ => false,
            };
            let within = fits && start as usize + block.words() <= words.len();
            within.then_some(block).ok_or_else(|| self.wrong("an integer block that does not fit"))
        });
        let blocks = blocks.collect::<Result<_, _>>()?;
        Ok(Longs { blocks, words })
    }

    fn plain(&self) -> Result<Plain, FormatError> {
        let directory = self.section_checked(format::PLAIN_DIRECTORY)?;
        if directory.len() != self.blocks() * 24 {
            return Err(self.wrong("a plain directory of another length than its blocks"));
        }
        let entries = directory.as_chunks::<24>().0.iter().map(|entry| {
            let mut fields = Fields(entry);
            PlainBlock { start: fields.u64(), stored: fields.u64(), unpacked: fields.u64() }
        });
        Ok(Plain { blocks: entries.collect(), data: self.section(format::PLAIN_DATA)?.clone() })
    }
}
