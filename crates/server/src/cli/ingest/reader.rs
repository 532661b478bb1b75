//! A file as records: decompressed, cut into lines (a quoted CSV field may hold line ends), the header understood.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::limits::BATCH_BYTES_MAX;
use flate2::bufread::MultiGzDecoder;
use serde_json::{Map, Number, Value};

use super::FileFormat;
use crate::cli::failure::Failure;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const BUFFER_BYTES: usize = 256 << 10;
/// A record has to fit into a batch.
const RECORD_BYTES_MAX: usize = BATCH_BYTES_MAX / 2;

/// The columns of a CSV or TSV file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Separated {
    pub columns: Vec<String>,
    format: FileFormatKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FileFormatKind {
    Csv,
    Tsv,
}

/// The file being read.
pub struct Input {
    name: String,
    lines: Box<dyn BufRead>,
    read: Arc<AtomicU64>,
    /// `None`: not known.
    pub bytes_total: Option<u64>,
    separated: Option<Separated>,
    line: u64,
    /// The first record, read ahead to look at it.
    first: Option<Vec<u8>>,
    /// The first JSON object's names.
    names: Vec<String>,
}

/// Counts what goes through.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Input {
    pub fn open(path: &Path, format: FileFormat) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            return Self::new("stdin", Box::new(std::io::stdin()), None, format);
        }
        let name = path.display().to_string();
        let unreadable = |error: std::io::Error| Failure::usage(format!("{name}: {error}"));
        let file = File::open(path).map_err(unreadable)?;
        let meta = file.metadata().map_err(unreadable)?;
        if meta.is_dir() {
            return Err(Failure::usage(format!("{name} is a folder; name a file")));
        }
        Self::new(&name, Box::new(file), meta.is_file().then_some(meta.len()), format)
    }

    fn new(name: &str, raw: Box<dyn Read>, bytes_total: Option<u64>, format: FileFormat) -> Result<Self, Failure> {
        let read = Arc::new(AtomicU64::new(0));
        let mut raw = BufReader::with_capacity(BUFFER_BYTES, Counted { inner: raw, read: Arc::clone(&read) });
        let is_gzip = raw.fill_buf()?.starts_with(&GZIP);
        let lines: Box<dyn BufRead> = if is_gzip {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw)))
        } else {
            Box::new(raw)
        };
        let mut input = Self {
            name: name.to_owned(),
            lines,
            read,
            bytes_total,
            separated: None,
            line: 0,
            first: None,
            names: Vec::new(),
        };
        let kind = match format {
            FileFormat::Json => {
                input.check_json()?;
                return Ok(input);
            }
            FileFormat::Csv => FileFormatKind::Csv,
            FileFormat::Tsv => FileFormatKind::Tsv,
        };
        let mut header = Vec::new();
        input.separated = Some(Separated { columns: Vec::new(), format: kind });
        if !input.next(&mut header)? {
            return Err(Failure::usage(format!("{name} is empty: its first line must name the columns")));
        }
        let header = header.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&header);
        let columns = kind.fields(header);
        input.separated = Some(Separated { columns, format: kind });
        Ok(input)
    }

    /// Looks at the first record, so that a file of another kind is refused before anything is created.
    fn check_json(&mut self) -> Result<(), Failure> {
        let mut first = Vec::new();
        if !self.next(&mut first)? {
            return Ok(());
        }
        match serde_json::from_slice::<Value>(&first) {
            Ok(Value::Object(object)) => {
                self.names = object.into_iter().map(|(name, _)| name).collect();
                self.first = Some(first);
                Ok(())
            }
            Ok(Value::Array(_)) => Err(self.refuse("a JSON array", "write one object a line: jq -c '.[]'")),
            Ok(_) => Err(self.refuse("not a JSON object", "say --format csv or tsv if it is one")),
            Err(error) => {
                let hint = "write one object a line: jq -c ., or say --format csv or tsv";
                Err(self.refuse(&format!("not one JSON object ({error})"), hint))
            }
        }
    }

    fn refuse(&self, what: &str, hint: &str) -> Failure {
        Failure::usage(format!("{} line {}: {what}; {hint}", self.name, self.line))
    }

    /// The names of the columns, of JSON those of the first object.
    pub fn columns(&self) -> &[String] {
        self.separated.as_ref().map_or(&self.names, |separated| &separated.columns)
    }

    pub const fn separated(&self) -> Option<&Separated> {
        self.separated.as_ref()
    }

    pub fn describe(&self) -> String {
        match &self.separated {
            None => "json".to_owned(),
            Some(Separated { columns, format: FileFormatKind::Csv }) => format!("csv with columns {columns:?}"),
            Some(Separated { columns, format: FileFormatKind::Tsv }) => format!("tsv with columns {columns:?}"),
        }
    }

    /// Of the file as it lies on the disk.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The next record that is not blank; false at the end.
    pub fn next(&mut self, record: &mut Vec<u8>) -> Result<bool, Failure> {
        if let Some(first) = self.first.take() {
            *record = first;
            return Ok(true);
        }
        loop {
            record.clear();
            if !self.line(record)? {
                return Ok(false);
            }
            if !record.iter().all(u8::is_ascii_whitespace) {
                return Ok(true);
            }
        }
    }

    /// One line; of CSV as many as an open quote needs.
    fn line(&mut self, record: &mut Vec<u8>) -> Result<bool, Failure> {
        let may_continue = matches!(&self.separated, Some(separated) if separated.format == FileFormatKind::Csv);
        let mut quotes = 0;
        loop {
            let from = record.len();
            let limit = (RECORD_BYTES_MAX - from) as u64 + 1;
            let count = (&mut self.lines).take(limit).read_until(b'\n', record);
            let count =
                count.map_err(|error| Failure::usage(format!("{} line {}: {error}", self.name, self.line + 1)))?;
            if count == 0 {
                return Ok(!record.is_empty());
            }
            self.line += 1;
            if record.len() > RECORD_BYTES_MAX {
                return Err(
                    self.refuse(&format!("longer than {RECORD_BYTES_MAX} bytes"), "split it, or close its quote")
                );
            }
            quotes += record[from..].iter().filter(|byte| **byte == b'"').count();
            if !may_continue || quotes % 2 == 0 {
                while record.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                    record.pop();
                }
                return Ok(true);
            }
        }
    }
}

impl FileFormatKind {
    fn fields(self, line: &[u8]) -> Vec<String> {
        let text = String::from_utf8_lossy(line);
        match self {
            Self::Tsv => text.split('\t').map(str::to_owned).collect(),
            Self::Csv => csv_fields(&text),
        }
    }
}

/// RFC 4180: fields in quotes may hold commas, line ends and doubled quotes.
fn csv_fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}

impl Separated {
    /// A line as a JSON object, for a table that reads JSON: what looks like a number is one, what is empty is null.
    pub fn to_json(&self, line: &[u8]) -> String {
        let fields = self.format.fields(line);
        let object: Map<String, Value> =
            self.columns.iter().zip(fields).map(|(name, field)| (name.clone(), value(field))).collect();
        Value::Object(object).to_string()
    }
}

fn value(field: String) -> Value {
    if field.is_empty() {
        return Value::Null;
    }
    // Only what is written as a number would be: not 007, +1 or a date.
    let is_plain = |text: &str| {
        let digits = text.strip_prefix('-').unwrap_or(text);
        digits.starts_with(|c: char| c.is_ascii_digit())
            && (!digits.starts_with('0') || digits.len() == 1 || digits.starts_with("0."))
    };
    if !is_plain(&field) {
        return Value::String(field);
    }
    let long = field.parse::<i64>().ok().map(Number::from);
    let number = long.or_else(|| field.parse::<f64>().ok().and_then(Number::from_f64));
    number.map_or(Value::String(field), Value::Number)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn records(content: &[u8], format: FileFormat) -> Result<(Input, Vec<String>), Failure> {
        let mut input = Input::new("file", Box::new(std::io::Cursor::new(content.to_vec())), None, format)?;
        let (mut all, mut record) = (Vec::new(), Vec::new());
        while input.next(&mut record)? {
            all.push(String::from_utf8(record.clone()).unwrap());
        }
        Ok((input, all))
    }

    #[test]
    fn lines_are_records_whatever_ends_them_and_however_they_are_packed() {
        let plain = b"{\"a\":1}\r\n\n{\"a\":2}";
        assert_eq!(records(plain, FileFormat::Json).unwrap().1, ["{\"a\":1}", "{\"a\":2}"]);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(plain).unwrap();
        assert_eq!(records(&packed.finish().unwrap(), FileFormat::Json).unwrap().1.len(), 2);
    }

    #[test]
    fn a_quoted_field_may_hold_line_ends() {
        let (input, all) =
            records(b"\xef\xbb\xbfid,text\n1,\"two\nlines\"\n2,\"say \"\"x\"\"\"\n", FileFormat::Csv).unwrap();
        assert_eq!(all, ["1,\"two\nlines\"", "2,\"say \"\"x\"\"\""]);
        let separated = input.separated().unwrap();
        assert_eq!(separated.columns, ["id", "text"]);
        assert_eq!(separated.to_json(all[0].as_bytes()), r#"{"id":1,"text":"two\nlines"}"#);
        assert_eq!(separated.to_json(all[1].as_bytes()), r#"{"id":2,"text":"say \"x\""}"#);
    }

    #[test]
    fn fields_keep_what_they_are() {
        let line = |text: &str| value(text.to_owned()).to_string();
        let texts = ["1", "-1.5", "007", "2015-09-12", "", "0", "0.5", "1e3", "12abc"];
        let expected = ["1", "-1.5", "\"007\"", "\"2015-09-12\"", "null", "0", "0.5", "1000.0", "\"12abc\""];
        assert_eq!(texts.map(line), expected);
    }

    #[test]
    fn what_is_no_json_line_is_refused_with_the_next_step() {
        let refused = |content: &[u8]| records(content, FileFormat::Json).map(|_| ()).unwrap_err().message;
        assert!(refused(b"[{\"a\":1}]").starts_with("file line 1: a JSON array; write one object a line"));
        assert!(refused(b"a,b\n1,2\n").contains("--format csv"));
        assert!(refused(b"{\n\"a\": 1\n}").contains("jq -c"));
        assert!(records(b"", FileFormat::Csv).is_err());
    }
}
