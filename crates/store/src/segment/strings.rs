//! The dictionary section: a segment's sorted strings in small zstd frames. Read once, when ids are given.

use super::error::FormatError;
use super::format::Fields;
use crate::dictionary::{ColumnDictionary, NULL_ID, STRING_BYTES_MAX};

/// A frame is closed when it holds this much.
const FRAME_BYTES: usize = 256 << 10;
/// So no frame unpacks to more than this.
const FRAME_BYTES_MAX: usize = FRAME_BYTES + STRING_BYTES_MAX + 4;
const FRAME_ENTRY_BYTES: usize = 16;
/// Higher levels are no smaller here, only slower.
const ZSTD_LEVEL: i32 = 1;

/// The section of strings that ascend strictly.
pub(crate) fn write(strings: &[&str]) -> Vec<u8> {
    let mut frames = Frames::default();
    for string in strings {
        frames.push(string);
    }
    frames.finish()
}

#[derive(Default)]
struct Frames {
    count: u32,
    directory: Vec<u8>,
    data: Vec<u8>,
    lengths: Vec<u8>,
    bytes: Vec<u8>,
}

impl Frames {
    fn push(&mut self, string: &str) {
        self.lengths.extend_from_slice(&u32::try_from(string.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend_from_slice(string.as_bytes());
        if self.lengths.len() + self.bytes.len() >= FRAME_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.lengths.is_empty() {
            return;
        }
        let strings = self.lengths.len() / 4;
        self.lengths.append(&mut self.bytes);
        // Into a vector zstd cannot fail; if it ever did, an empty frame is refused when it is read.
        let packed = zstd::bulk::compress(&self.lengths, ZSTD_LEVEL).unwrap_or_default();
        for number in [strings, self.lengths.len(), packed.len(), 0] {
            self.directory.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        }
        self.data.extend_from_slice(&packed);
        self.count += 1;
        self.lengths.clear();
    }

    fn finish(mut self) -> Vec<u8> {
        self.flush();
        let mut section = Vec::with_capacity(8 + self.directory.len() + self.data.len());
        section.extend_from_slice(&self.count.to_le_bytes());
        section.extend_from_slice(&[0; 4]);
        section.append(&mut self.directory);
        section.append(&mut self.data);
        section
    }
}

/// Calls `sink` with the strings of each frame in turn. Checks lengths, UTF-8 and order.
pub(crate) fn for_each_frame(
    section: &[u8],
    column: &str,
    mut sink: impl FnMut(&[&str]) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    let wrong = |what: &str| FormatError::Structure(format!("dictionary of column {column:?}: {what}"));
    let mut fields = Fields(section);
    let (count, _) = (fields.u32() as usize, fields.u32());
    let directory_len = count.checked_mul(FRAME_ENTRY_BYTES).ok_or_else(|| wrong("too many frames"))?;
    let (directory, mut data) = fields.0.split_at_checked(directory_len).ok_or_else(|| wrong("too many frames"))?;
    let mut last: Option<String> = None;
    for entry in directory.as_chunks::<FRAME_ENTRY_BYTES>().0 {
        let mut fields = Fields(entry);
        let (strings, unpacked, stored) = (fields.u32() as usize, fields.u32() as usize, fields.u32() as usize);
        let (frame, rest) = data.split_at_checked(stored).ok_or_else(|| wrong("a frame reaches past the end"))?;
        data = rest;
        if unpacked > FRAME_BYTES_MAX || strings == 0 || strings > unpacked / 4 {
            return Err(wrong("a frame of impossible size"));
        }
        let bytes = zstd::bulk::decompress(frame, unpacked).map_err(|_| wrong("a frame that is not zstd"))?;
        let (lengths, text) = bytes.split_at_checked(4 * strings).ok_or_else(|| wrong("a frame cut short"))?;
        let text = std::str::from_utf8(text).map_err(|_| wrong("a string that is not UTF-8"))?;
        let mut at = 0_usize;
        let mut cut = Vec::with_capacity(strings);
        for length in lengths.as_chunks::<4>().0 {
            let end = at + u32::from_le_bytes(*length) as usize;
            cut.push(text.get(at..end).ok_or_else(|| wrong("a string of impossible length"))?);
            at = end;
        }
        let ascends = cut.windows(2).all(|pair| pair[0] < pair[1]);
        let follows = last.as_deref().is_none_or(|last| cut.first().is_some_and(|first| last < *first));
        if at != text.len() || !ascends || !follows {
            return Err(wrong("strings that are not in order"));
        }
        sink(&cut)?;
        last = cut.last().map(|last| (*last).to_owned());
    }
    if data.is_empty() { Ok(()) } else { Err(wrong("bytes after the last frame")) }
}

/// The table id of each code: null, then the section's `strings`, then null up to `room` codes.
pub(crate) fn intern(
    section: &[u8],
    strings: usize,
    room: usize,
    column: &str,
    dictionary: &ColumnDictionary,
) -> Result<Vec<u32>, FormatError> {
    let mut ids = vec![NULL_ID];
    for_each_frame(section, column, |frame| {
        let frame = dictionary.intern(frame.iter().copied());
        ids.extend(frame.map_err(|_| FormatError::DictionaryFull { column: column.to_owned() })?);
        if ids.len() > strings + 1 {
            return Err(FormatError::Structure(format!(
                "dictionary of column {column:?}: more strings than it claims"
            )));
        }
        Ok(())
    })?;
    if ids.len() != strings + 1 {
        return Err(FormatError::Structure(format!("dictionary of column {column:?}: fewer strings than it claims")));
    }
    ids.resize(room.max(strings + 1), NULL_ID);
    Ok(ids)
}
