//! One JSON object -> cells, in one pass over the text and without building a tree.
//!
//! Strict JSON (RFC 8259) on text that is already valid UTF-8: no comments, no trailing commas, no NaN.
//! A field that is there twice keeps its last value. Objects and arrays inside keep their text without
//! white space, checked like the rest. Nesting is bounded. Differences from a tree: numbers inside nested
//! values keep the digits they were written with.

use super::cell::{Cell, Kinds, Row, Span};
use super::fields::Fields;

/// Deepest nesting accepted, the row's own object included.
pub const DEPTH_MAX: usize = 128;

/// Why a text is no JSON object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct JsonError {
    /// Byte of the record.
    pub at: usize,
    pub what: &'static str,
}

type Result<T> = std::result::Result<T, JsonError>;

/// Reads the object that starts at `at` (after white space) into `row`; returns the byte after it.
///
/// # Errors
/// If it is no object; `row` then holds part of it and must not be used.
pub fn read_object(text: &str, at: usize, fields: &mut Fields, row: &mut Row) -> Result<usize> {
    let mut scanner = Scanner { text, bytes: text.as_bytes(), at };
    scanner.skip_space();
    scanner.expect(b'{', "a row must be a JSON object")?;
    let mut position = 0;
    scanner.skip_space();
    if scanner.take(b'}') {
        return Ok(scanner.at);
    }
    loop {
        scanner.expect(b'"', "expected a field name in quotes")?;
        let slot = match scanner.string(&mut row.scratch)? {
            Text::Plain(start, end) => fields.at(position, &text[start..end]),
            Text::Unescaped(start) => {
                let slot = fields.at(position, &row.scratch[start..]);
                row.scratch.truncate(start);
                slot
            }
        };
        scanner.skip_space();
        scanner.expect(b':', "expected a colon after a field name")?;
        scanner.skip_space();
        let cell = scanner.value(&mut row.scratch)?;
        match slot {
            Some(slot) => row.put(slot, cell),
            None => row.overflow = true,
        }
        position += 1;
        scanner.skip_space();
        if scanner.take(b'}') {
            return Ok(scanner.at);
        }
        scanner.expect(b',', "expected a comma or the end of the object")?;
        scanner.skip_space();
    }
}

/// The byte after the white space at `at`.
#[must_use]
pub fn skip_space(text: &str, at: usize) -> usize {
    let mut scanner = Scanner { text, bytes: text.as_bytes(), at };
    scanner.skip_space();
    scanner.at
}

/// The elements of compact array text that [`read_object`] made, one after another; spans are of `array`
/// and of `scratch`. Ends early if the text is no array.
pub fn each_element(array: &str, scratch: &mut String, mut each: impl FnMut(Cell, &str)) {
    let mut scanner = Scanner { text: array, bytes: array.as_bytes(), at: 0 };
    if !scanner.take(b'[') || scanner.take(b']') {
        return;
    }
    loop {
        scratch.clear();
        let Ok(cell) = scanner.value(scratch) else { return };
        each(cell, scratch);
        if !scanner.take(b',') {
            return;
        }
    }
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

/// Where a string's characters are: between two bytes of the text, or from a byte of the scratch to its end.
enum Text {
    Plain(usize, usize),
    Unescaped(usize),
}

impl Scanner<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    #[inline]
    fn expect(&mut self, byte: u8, what: &'static str) -> Result<()> {
        if self.take(byte) { Ok(()) } else { Err(self.error(what)) }
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    #[cold]
    fn error(&self, what: &'static str) -> JsonError {
        let what = if self.at >= self.bytes.len() { "the text ends inside a value" } else { what };
        JsonError { at: self.at, what }
    }

    /// A value of the row itself.
    #[inline]
    fn value(&mut self, scratch: &mut String) -> Result<Cell> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                let span = match self.string(scratch)? {
                    Text::Plain(start, end) => Span::of_input(start, end),
                    Text::Unescaped(start) => Span::of_scratch(start, scratch.len()),
                };
                span.map(Cell::Text).ok_or_else(|| self.error("the text is too long"))
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Cell::Bool(true)),
            Some(b'f') => self.word(b"false", Cell::Bool(false)),
            Some(b'n') => self.word(b"null", Cell::Null),
            Some(b'{' | b'[') => self.nested_cell(scratch),
            _ => Err(self.error("expected a value")),
        }
    }

    #[inline]
    fn word(&mut self, word: &'static [u8], cell: Cell) -> Result<Cell> {
        if self.bytes[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(cell);
        }
        Err(self.error("expected true, false or null"))
    }

    /// The characters after an opening quote; ends after the closing one.
    #[inline]
    fn string(&mut self, scratch: &mut String) -> Result<Text> {
        let start = self.at;
        self.at = plain_end(self.bytes, start);
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(Text::Plain(start, self.at - 1))
            }
            Some(b'\\') => self.unescape(start, scratch),
            _ => Err(self.error("a string has a control character that is not escaped")),
        }
    }

    /// The string that starts at `start` and has its first backslash here.
    #[cold]
    fn unescape(&mut self, start: usize, scratch: &mut String) -> Result<Text> {
        let begin = scratch.len();
        let mut from = start;
        loop {
            scratch.push_str(&self.text[from..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Text::Unescaped(begin));
                }
                Some(b'\\') => {
                    self.at += 1;
                    scratch.push(self.escape()?);
                }
                _ => return Err(self.error("a string has a control character that is not escaped")),
            }
            from = self.at;
            self.at = plain_end(self.bytes, from);
        }
    }

    /// The character that the escape after a backslash means. Half a surrogate pair is U+FFFD.
    fn escape(&mut self) -> Result<char> {
        let byte = self.peek().ok_or_else(|| self.error(""))?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex()?;
                if (0xD800..0xDC00).contains(&high) && self.bytes[self.at..].starts_with(b"\\u") {
                    let back = self.at;
                    self.at += 2;
                    let low = self.hex()?;
                    if (0xDC00..0xE000).contains(&low) {
                        let code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                        return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    self.at = back;
                }
                char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => {
                self.at -= 1;
                return Err(self.error("an escape that JSON does not have"));
            }
        })
    }

    fn hex(&mut self) -> Result<u32> {
        let digits =
            self.bytes.get(self.at..self.at + 4).ok_or_else(|| self.error("four hex digits must follow \\u"))?;
        let mut code = 0;
        for digit in digits {
            let value = char::from(*digit).to_digit(16);
            code = code * 16 + value.ok_or_else(|| self.error("four hex digits must follow \\u"))?;
        }
        self.at += 4;
        Ok(code)
    }

    #[inline]
    fn number(&mut self) -> Result<Cell> {
        let start = self.at;
        let negative = self.take(b'-');
        let digits_from = self.at;
        let mut value: i64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - digits_from;
        if digits == 0 || (digits > 1 && self.bytes[digits_from] == b'0') {
            return Err(self.error("a number that JSON does not have"));
        }
        if let Some(b'.' | b'e' | b'E') = self.peek() {
            return self.fraction(start);
        }
        if digits <= 18 {
            return Ok(Cell::Long(if negative { -value } else { value }));
        }
        match self.text[start..self.at].parse() {
            Ok(value) => Ok(Cell::Long(value)),
            Err(_) => self.number_text(start),
        }
    }

    /// The rest of a number that has a fraction or an exponent.
    fn fraction(&mut self, start: usize) -> Result<Cell> {
        if self.take(b'.') {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        match self.text[start..self.at].parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Cell::Double(value)),
            _ => self.number_text(start),
        }
    }

    fn digits(&mut self) -> Result<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.error("a number that JSON does not have")) } else { Ok(()) }
    }

    fn number_text(&self, start: usize) -> Result<Cell> {
        Span::of_input(start, self.at).map(Cell::Number).ok_or_else(|| self.error("the text is too long"))
    }

    /// An array or object as compact text.
    fn nested_cell(&mut self, scratch: &mut String) -> Result<Cell> {
        let start = self.at;
        let is_array = self.peek() == Some(b'[');
        let mut nested = Nested { kinds: Kinds::default(), spaces: false };
        self.nested(1, &mut nested, scratch)?;
        let text = &self.text[start..self.at];
        let span = if nested.spaces {
            let begin = scratch.len();
            compact(text, scratch);
            Span::of_scratch(begin, scratch.len())
        } else {
            Span::of_input(start, self.at)
        };
        let span = span.ok_or_else(|| self.error("the text is too long"))?;
        Ok(if is_array { Cell::Array(span, nested.kinds) } else { Cell::Object(span) })
    }

    /// Checks a nested value; `depth` is how many objects and arrays it is in.
    fn nested(&mut self, depth: usize, nested: &mut Nested, scratch: &mut String) -> Result<Kinds> {
        match self.peek() {
            Some(open @ (b'{' | b'[')) => {
                if depth >= DEPTH_MAX {
                    return Err(self.error("values are nested too deep"));
                }
                self.at += 1;
                self.members(open, depth, nested, scratch)?;
                Ok(Kinds::NESTED)
            }
            _ => {
                let mark = scratch.len();
                let cell = self.value(scratch)?;
                scratch.truncate(mark);
                Ok(match cell {
                    Cell::Missing | Cell::Null => Kinds::NULL,
                    Cell::Bool(_) => Kinds::BOOL,
                    Cell::Long(_) => Kinds::LONG,
                    Cell::Double(_) => Kinds::DOUBLE,
                    Cell::Number(_) | Cell::Text(_) => Kinds::TEXT,
                    Cell::Array(..) | Cell::Object(_) => Kinds::NESTED,
                })
            }
        }
    }

    fn members(&mut self, open: u8, depth: usize, nested: &mut Nested, scratch: &mut String) -> Result<()> {
        let close = if open == b'{' { b'}' } else { b']' };
        self.space_in(nested);
        if self.take(close) {
            return Ok(());
        }
        loop {
            if open == b'{' {
                self.expect(b'"', "expected a field name in quotes")?;
                let mark = scratch.len();
                self.string(scratch)?;
                scratch.truncate(mark);
                self.space_in(nested);
                self.expect(b':', "expected a colon after a field name")?;
                self.space_in(nested);
            }
            let kind = self.nested(depth + 1, nested, scratch)?;
            if depth == 1 {
                nested.kinds.add(kind);
            }
            self.space_in(nested);
            if self.take(close) {
                return Ok(());
            }
            self.expect(b',', "expected a comma or the end of the value")?;
            self.space_in(nested);
        }
    }

    fn space_in(&mut self, nested: &mut Nested) {
        let start = self.at;
        self.skip_space();
        nested.spaces |= self.at != start;
    }
}

/// What is learnt on the way through a nested value.
struct Nested {
    /// Of its own elements.
    kinds: Kinds,
    /// There is white space between its parts.
    spaces: bool,
}

/// Appends checked JSON text without the white space between its parts.
fn compact(text: &str, out: &mut String) {
    let bytes = text.as_bytes();
    let (mut from, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += 1 + usize::from(bytes[at] == b'\\');
                }
                at += 1;
            }
            b' ' | b'\t' | b'\n' | b'\r' => {
                out.push_str(&text[from..at]);
                at += 1;
                from = at;
            }
            _ => at += 1,
        }
    }
    out.push_str(&text[from..]);
}

/// The first byte from `at` that ends a run of plain string characters: a quote, a backslash, a control
/// character, or the end of the text. Eight bytes at a time.
#[inline]
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    const fn has_zero(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word & HIGHS
    }
    while let Some(chunk) = bytes.get(at..at + 8).and_then(|chunk| <[u8; 8]>::try_from(chunk).ok()) {
        let word = u64::from_le_bytes(chunk);
        let quote = has_zero(word ^ (ONES * b'"' as u64));
        let backslash = has_zero(word ^ (ONES * b'\\' as u64));
        // A byte below 0x20: subtracting 0x20 borrows, and its own high bit is not set.
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let hit = quote | backslash | control;
        if hit != 0 {
            // Borrows only run upward, so the lowest hit is a true one.
            return at + hit.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..=0x1F) {
            break;
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests;
