//! `topic produce`: a line is a record.

use std::io::BufRead;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use base::batch::Codec;
use clap::{Args, ValueEnum};
use client::Acks;

use crate::cli::failure::{Code, Failure};
use crate::cli::output::say;
use crate::cli::producer::Producer;
use crate::cli::remote::KafkaArgs;

/// Lines read ahead.
const LINES_MAX: usize = 4_096;
/// A batch waits this long for more lines, so that what is typed or trickles in is sent at once.
const LINGER: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub struct Produce {
    topic: String,
    /// Read lines from a file instead of stdin
    file: Option<PathBuf>,
    /// The partition of all records [default: by key, else by turns]
    #[arg(long, short)]
    partition: Option<i32>,
    /// What stands between key and value on a line [default: lines have no key]
    #[arg(long, short = 'K', value_name = "SEPARATOR")]
    key_separator: Option<String>,
    /// When a record counts as sent
    #[arg(long, value_enum, default_value_t = AcksArg::All)]
    acks: AcksArg,
    /// How batches are compressed
    #[arg(long, value_enum, default_value_t = CodecArg::Lz4)]
    codec: CodecArg,
    #[command(flatten)]
    kafka: KafkaArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum AcksArg {
    /// Durable
    All,
    /// Written
    #[value(name = "1")]
    Leader,
    /// Sent
    #[value(name = "0")]
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum CodecArg {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl CodecArg {
    pub const fn codec(self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Gzip => Codec::Gzip,
            Self::Snappy => Codec::Snappy,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd => Codec::Zstd,
        }
    }
}

pub fn run(args: &Produce) -> Result<(), Failure> {
    let acks = match args.acks {
        AcksArg::All => Acks::All,
        AcksArg::Leader => Acks::Leader,
        AcksArg::None => Acks::None,
    };
    let mut producer = Producer::new(args.kafka.connect()?, &args.topic, acks, args.codec.codec())?;
    if let Some(partition) = args.partition
        && !(0..producer.partitions()).contains(&partition)
    {
        let last = producer.partitions() - 1;
        return Err(Failure::usage(format!("topic {} has partitions 0 to {last}, not {partition}", args.topic)));
    }
    let (sender, lines) = sync_channel(LINES_MAX);
    let file = args.file.clone();
    let reader = std::thread::spawn(move || read(file, &sender));
    let produced = send(args, &mut producer, &lines);
    // The reader stops when it finds nobody listening.
    drop(lines);
    if produced.is_ok() {
        reader.join().map_err(|_| Failure::new(Code::Failure, "reading the input failed"))??;
    }
    say(&format!("{} records", producer.acknowledged()));
    produced
}

fn read(file: Option<PathBuf>, lines: &SyncSender<Vec<u8>>) -> Result<(), Failure> {
    let mut input: Box<dyn BufRead> = match file {
        None => Box::new(std::io::stdin().lock()),
        Some(path) => {
            let opened = std::fs::File::open(&path);
            let opened = opened.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
            Box::new(std::io::BufReader::new(opened))
        }
    };
    loop {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if lines.send(line).is_err() {
            return Ok(());
        }
    }
}

fn send(args: &Produce, producer: &mut Producer, lines: &Receiver<Vec<u8>>) -> Result<(), Failure> {
    let mut has_unsent = false;
    loop {
        let line = if has_unsent {
            lines.recv_timeout(LINGER)
        } else {
            lines.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match line {
            Ok(line) => {
                let (key, value) = split(&line, args.key_separator.as_deref());
                producer.push(args.partition, key, value)?;
                has_unsent = true;
            }
            Err(RecvTimeoutError::Timeout) => {
                producer.finish()?;
                has_unsent = false;
            }
            Err(RecvTimeoutError::Disconnected) => return producer.finish(),
        }
    }
}

/// A line without the separator has no key.
fn split<'a>(line: &'a [u8], separator: Option<&str>) -> (Option<&'a [u8]>, &'a [u8]) {
    let Some(separator) = separator.map(str::as_bytes).filter(|separator| !separator.is_empty()) else {
        return (None, line);
    };
    match line.windows(separator.len()).position(|window| window == separator) {
        Some(at) => (Some(&line[..at]), &line[at + separator.len()..]),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_at_the_first_separator() {
        assert_eq!(split(b"k: v: w", Some(": ")), (Some(&b"k"[..]), &b"v: w"[..]));
        assert_eq!(split(b"value", Some(":")), (None, &b"value"[..]));
        assert_eq!(split(b"a:b", None), (None, &b"a:b"[..]));
    }
}
