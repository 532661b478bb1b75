//! The column file's bytes: docs/formats/column-file.md, in both directions. Knows no Arrow and no dictionary.

use arrow_buffer::Buffer;
use base::checksum::{crc32c, crc32c_append};

use super::error::FormatError;
use crate::schema::{COLUMNS_MAX, ColumnType};

pub(crate) const MAGIC: [u8; 8] = *b"SEAWCOL1";
pub(crate) const VERSION: u16 = 1;
pub(crate) const HEADER_BYTES: usize = 64;
pub(crate) const COLUMN_BYTES: usize = 48;
pub(crate) const SECTION_BYTES: usize = 32;
pub(crate) const ALIGNMENT: usize = 64;
/// Rows are counted in 31 bits.
pub(crate) const ROWS_MAX: usize = i32::MAX as usize;
/// No column has more sections than there are kinds.
const SECTIONS_PER_COLUMN_MAX: usize = 12;

pub(crate) const FLAG_SORTED: u16 = 1;

pub(crate) const VALIDITY: u32 = 1;
pub(crate) const CODES_BYTES: u32 = 2;
pub(crate) const CODES_WORDS: u32 = 3;
pub(crate) const DICTIONARY: u32 = 4;
pub(crate) const LONG_DIRECTORY: u32 = 5;
pub(crate) const LONG_WORDS: u32 = 6;
pub(crate) const DOUBLES: u32 = 7;
pub(crate) const BITS: u32 = 8;
pub(crate) const PLAIN_DIRECTORY: u32 = 9;
pub(crate) const PLAIN_DATA: u32 = 10;
pub(crate) const POSTINGS_STARTS: u32 = 11;
pub(crate) const POSTINGS_ROWS: u32 = 12;

/// How a column's values lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Encoding {
    Codes = 1,
    Integers = 2,
    Doubles = 3,
    Bits = 4,
    Plain = 5,
}

/// One column as the directory says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ColumnEntry {
    pub(crate) name: String,
    pub(crate) ty: ColumnType,
    pub(crate) encoding: Encoding,
    pub(crate) width: u8,
    pub(crate) strings: u32,
    pub(crate) nulls: u64,
    pub(crate) sections: Vec<SectionEntry>,
}

/// One section as the directory says it. Its range is within the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SectionEntry {
    pub(crate) kind: u32,
    pub(crate) crc: u32,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// The head of a column file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) sorted: bool,
    pub(crate) rows: usize,
    pub(crate) time_min: i64,
    pub(crate) time_max: i64,
    pub(crate) columns: Vec<ColumnEntry>,
}

/// A column to be written.
pub(crate) struct ColumnParts {
    pub(crate) entry: ColumnEntry,
    /// Kind and bytes.
    pub(crate) sections: Vec<(u32, Buffer)>,
}

fn type_tag(ty: ColumnType) -> u8 {
    match ty {
        ColumnType::String => 1,
        ColumnType::Long => 2,
        ColumnType::Double => 3,
        ColumnType::Boolean => 4,
        ColumnType::Timestamp => 5,
        ColumnType::ArrayString => 6,
        ColumnType::ArrayLong => 7,
        ColumnType::ArrayDouble => 8,
        ColumnType::Json => 9,
    }
}

fn type_of(tag: u8) -> Option<ColumnType> {
    use ColumnType::{ArrayDouble, ArrayLong, ArrayString, Boolean, Double, Json, Long, String, Timestamp};
    let all = [String, Long, Double, Boolean, Timestamp, ArrayString, ArrayLong, ArrayDouble, Json];
    all.into_iter().find(|ty| type_tag(*ty) == tag)
}

fn encoding_of(tag: u8) -> Option<Encoding> {
    use Encoding::{Bits, Codes, Doubles, Integers, Plain};
    [Codes, Integers, Doubles, Bits, Plain].into_iter().find(|encoding| *encoding as u8 == tag)
}

/// A whole file. The caller has kept rows and columns within their bounds.
pub(crate) fn write(sorted: bool, rows: usize, time: Option<(i64, i64)>, columns: &[ColumnParts]) -> Vec<u8> {
    let (mut column_bytes, mut section_bytes, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let sections: usize = columns.iter().map(|column| column.sections.len()).sum();
    let name_bytes: usize = columns.iter().map(|column| column.entry.name.len()).sum();
    let directory = columns.len() * COLUMN_BYTES + sections * SECTION_BYTES + name_bytes;
    let mut at = (HEADER_BYTES + directory).next_multiple_of(ALIGNMENT);
    let mut first_section = 0;
    for ColumnParts { entry, sections } in columns {
        column_bytes.extend_from_slice(&small(names.len()));
        column_bytes.extend_from_slice(&small(entry.name.len()));
        column_bytes.extend_from_slice(&[type_tag(entry.ty), entry.encoding as u8, entry.width, 0]);
        column_bytes.extend_from_slice(&small(first_section));
        column_bytes.extend_from_slice(&small(sections.len()));
        column_bytes.extend_from_slice(&entry.strings.to_le_bytes());
        column_bytes.extend_from_slice(&entry.nulls.to_le_bytes());
        column_bytes.extend_from_slice(&[0; 16]);
        names.extend_from_slice(entry.name.as_bytes());
        first_section += sections.len();
        for (kind, bytes) in sections {
            section_bytes.extend_from_slice(&kind.to_le_bytes());
            section_bytes.extend_from_slice(&crc32c(bytes).to_le_bytes());
            section_bytes.extend_from_slice(&(at as u64).to_le_bytes());
            section_bytes.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            section_bytes.extend_from_slice(&[0; 8]);
            at = (at + bytes.len()).next_multiple_of(ALIGNMENT);
        }
    }
    let mut head = Vec::with_capacity(at);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&(if sorted { FLAG_SORTED } else { 0 }).to_le_bytes());
    head.extend_from_slice(&[0; 4]);
    head.extend_from_slice(&(at as u64).to_le_bytes());
    head.extend_from_slice(&(rows as u64).to_le_bytes());
    head.extend_from_slice(&small(columns.len()));
    head.extend_from_slice(&small(sections));
    let (time_min, time_max) = time.unwrap_or((0, 0));
    head.extend_from_slice(&time_min.to_le_bytes());
    head.extend_from_slice(&time_max.to_le_bytes());
    head.extend_from_slice(&small(name_bytes));
    head.extend_from_slice(&[0; 4]);
    head.extend(column_bytes.into_iter().chain(section_bytes).chain(names));
    let crc = crc32c(&head[16..]);
    head[12..16].copy_from_slice(&crc.to_le_bytes());
    for (_, bytes) in columns.iter().flat_map(|column| &column.sections) {
        head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
        head.extend_from_slice(bytes);
    }
    head.resize(at, 0);
    head
}

/// A length that the bounds of the format keep below 2^32.
fn small(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

/// Little-endian fields one after another.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    pub(crate) fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.take())
    }
}

fn structure(what: impl Into<String>) -> FormatError {
    FormatError::Structure(what.into())
}

/// Reads and checks header and directory. Every section range returned lies within `bytes` and is aligned.
pub(crate) fn read(bytes: &[u8]) -> Result<Head, FormatError> {
    let cut = |what, needed: u64| FormatError::Truncated { what, needed, there: bytes.len() as u64 };
    if bytes.get(..8).is_some_and(|magic| magic != MAGIC) {
        return Err(FormatError::Magic);
    }
    let header = bytes.get(..HEADER_BYTES).ok_or_else(|| cut("the header", HEADER_BYTES as u64))?;
    let mut fields = Fields(&header[8..]);
    let version = fields.u16();
    if version != VERSION {
        return Err(FormatError::Version { found: version, readable: VERSION });
    }
    let (flags, expected, file_len, rows) = (fields.u16(), fields.u32(), fields.u64(), fields.u64());
    let (column_count, section_count) = (fields.u32() as usize, fields.u32() as usize);
    let (time_min, time_max, name_bytes) = (fields.i64(), fields.i64(), fields.u32() as usize);
    if column_count > COLUMNS_MAX || section_count > COLUMNS_MAX * SECTIONS_PER_COLUMN_MAX {
        return Err(structure(format!("{column_count} columns in {section_count} sections are too many")));
    }
    let directory_len = column_count * COLUMN_BYTES + section_count * SECTION_BYTES + name_bytes;
    let directory = bytes
        .get(HEADER_BYTES..HEADER_BYTES + directory_len)
        .ok_or_else(|| cut("the directory", (HEADER_BYTES + directory_len) as u64))?;
    let found = crc32c_append(crc32c(&header[16..]), directory);
    if found != expected {
        return Err(FormatError::Checksum { what: "the header and directory".to_owned(), found, expected });
    }
    if file_len != bytes.len() as u64 {
        return Err(cut("the file", file_len));
    }
    let rows = usize::try_from(rows).ok().filter(|rows| *rows <= ROWS_MAX);
    let rows = rows.ok_or_else(|| structure("more rows than the format counts"))?;
    let (columns, rest) = directory.split_at(column_count * COLUMN_BYTES);
    let (sections, names) = rest.split_at(section_count * SECTION_BYTES);
    let columns = columns
        .as_chunks::<COLUMN_BYTES>()
        .0
        .iter()
        .map(|column| read_column(column, sections, names, bytes.len()))
        .collect::<Result<_, _>>()?;
    Ok(Head { sorted: flags & FLAG_SORTED != 0, rows, time_min, time_max, columns })
}

fn read_column(column: &[u8], sections: &[u8], names: &[u8], file_len: usize) -> Result<ColumnEntry, FormatError> {
    let mut fields = Fields(column);
    let (name_start, name_len) = (fields.u32() as usize, fields.u32() as usize);
    let name = names.get(name_start..name_start.saturating_add(name_len));
    let name =
        name.and_then(|name| std::str::from_utf8(name).ok()).ok_or_else(|| structure("a column without a name"))?;
    let wrong = |what: &str| structure(format!("column {name:?}: {what}"));
    let ty = type_of(fields.u8()).ok_or_else(|| wrong("unknown type"))?;
    let encoding = encoding_of(fields.u8()).ok_or_else(|| wrong("unknown encoding"))?;
    let fits = match encoding {
        Encoding::Codes => ty == ColumnType::String,
        Encoding::Integers => matches!(ty, ColumnType::Long | ColumnType::Timestamp),
        Encoding::Doubles => ty == ColumnType::Double,
        Encoding::Bits => ty == ColumnType::Boolean,
        Encoding::Plain => ty.is_array() || matches!(ty, ColumnType::String | ColumnType::Json),
    };
    if !fits {
        return Err(wrong("its encoding cannot hold its type"));
    }
    let (width, _) = (fields.u8(), fields.u8());
    let (first, count) = (fields.u32() as usize, fields.u32() as usize);
    let (strings, nulls) = (fields.u32(), fields.u64());
    let end = first.saturating_add(count).saturating_mul(SECTION_BYTES);
    let entries = sections.get(first.saturating_mul(SECTION_BYTES)..end).ok_or_else(|| wrong("no such sections"))?;
    let sections = entries
        .as_chunks::<SECTION_BYTES>()
        .0
        .iter()
        .map(|entry| read_section(entry, file_len).ok_or_else(|| wrong("a section reaches past the file")))
        .collect::<Result<_, _>>()?;
    Ok(ColumnEntry { name: name.to_owned(), ty, encoding, width, strings, nulls, sections })
}

fn read_section(entry: &[u8], file_len: usize) -> Option<SectionEntry> {
    let mut fields = Fields(entry);
    let (kind, crc) = (fields.u32(), fields.u32());
    let start = usize::try_from(fields.u64()).ok()?;
    let len = usize::try_from(fields.u64()).ok()?;
    let within = start.is_multiple_of(ALIGNMENT) && start.checked_add(len).is_some_and(|end| end <= file_len);
    within.then_some(SectionEntry { kind, crc, start, len })
}
