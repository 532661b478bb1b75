//! What the cluster refuses for good: a line of JSON each, on disk before the record is passed over.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use base::records::Record;
use serde_json::{Value, json};

/// The file's name in the spool's folder.
pub const FILE: &str = "dead-letters.ndjson";
/// Above this nothing is set aside any more, and forwarding waits: something is wrong with more than a few records.
const BYTES_MAX: u64 = 1 << 30;

/// The file, open at its end.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    file: Mutex<File>,
    written: AtomicU64,
}

impl DeadLetters {
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        let path = folder.join(FILE);
        let mut file = File::options().create(true).append(true).open(&path)?;
        let bytes = file.metadata()?.len();
        // A line that a crash has torn stays as it is; the next one begins after it.
        if bytes > 0 {
            file.write_all(b"\n")?;
        }
        File::open(folder)?.sync_all()?;
        Ok(Self { path, file: Mutex::new(file), written: AtomicU64::new(0) })
    }

    /// Writes a record down; it is on disk when this returns.
    pub fn add(&self, topic: &str, partition: i32, record: &Record<'_>, reason: &str) -> std::io::Result<()> {
        let headers: Vec<Value> =
            record.headers.iter().map(|header| json!([text(Some(header.key)), text(header.value)])).collect();
        self.write(&json!({
            "topic": topic,
            "partition": partition,
            "spool_offset": record.offset.0,
            "timestamp_ms": record.timestamp.0,
            "reason": reason,
            "key": text(record.key),
            "value": text(record.value),
            "headers": headers,
        }))
    }

    /// Writes down what never became a record.
    pub fn add_line(&self, topic: &str, source: &str, line: &[u8], reason: &str) -> std::io::Result<()> {
        self.write(&json!({ "topic": topic, "source": source, "reason": reason, "value": text(Some(line)) }))
    }

    fn write(&self, line: &Value) -> std::io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if file.metadata()?.len() > BYTES_MAX {
            let full =
                format!("{} is larger than {BYTES_MAX} bytes: look into it and move it away", self.path.display());
            return Err(std::io::Error::other(full));
        }
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_data()?;
        self.written.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Records set aside by this process.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Text as it is, other bytes as `{"hex": ...}`.
fn text(bytes: Option<&[u8]>) -> Value {
    match bytes.map(std::str::from_utf8) {
        None => Value::Null,
        Some(Ok(text)) => text.into(),
        Some(Err(_)) => {
            let hex: String = bytes.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": hex })
        }
    }
}
