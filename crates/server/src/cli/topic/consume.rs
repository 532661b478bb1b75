//! `topic consume`: records to stdout, without a group.

use std::time::Duration;

use base::batch::split;
use base::records::decode_shared;
use base::{Offset, Timestamp};
use clap::Args;
use client::Connection;
use serde_json::{Value, json};

use crate::cli::failure::{Code, Failure};
use crate::cli::output::{Format, FormatArgs, say, stdout};
use crate::cli::remote::KafkaArgs;
use crate::cli::routed::Routed;

const FETCH_BYTES: i32 = 1 << 20;
/// Between two looks at partitions that had nothing new.
const IDLE: Duration = Duration::from_millis(50);
/// Rows gathered for formats that need all of them.
const GATHERED_MAX: usize = 1_000_000;
const COLUMNS: [&str; 6] = ["partition", "offset", "timestamp", "key", "value", "headers"];

#[derive(Debug, Args)]
pub struct Consume {
    topic: String,
    /// Where to begin: start, end, an offset, -N for the last N of each partition, or @MS for a time
    #[arg(long, short = 'o', default_value = "start", allow_hyphen_values = true, value_parser = parse_from)]
    from: From,
    /// Only this partition
    #[arg(long, short)]
    partition: Option<i32>,
    /// End after so many records
    #[arg(long, short = 'n')]
    max: Option<u64>,
    /// Go on when the end is reached [default: end there]
    #[arg(long, short)]
    follow: bool,
    /// Print keys before values, with a tab between
    #[arg(long, short)]
    keys: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    Start,
    End,
    Offset(i64),
    Last(i64),
    Time(i64),
}

fn parse_from(text: &str) -> Result<From, String> {
    let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
    let parsed = match text {
        "start" | "beginning" => Some(From::Start),
        "end" => Some(From::End),
        _ => match text.split_at_checked(1) {
            Some(("-", count)) => number(count).map(From::Last),
            Some(("@", time)) => number(time).map(From::Time),
            _ => number(text).map(From::Offset),
        },
    };
    parsed.ok_or_else(|| "write start, end, an offset, -N or @MILLISECONDS".to_owned())
}

/// One partition being read.
struct Position {
    partition: i32,
    next: Offset,
    /// Where it ends if it is not followed.
    end: Offset,
}

pub fn run(args: &Consume) -> Result<(), Failure> {
    let is_gathered = !matches!(args.format.format, None | Some(Format::Ndjson));
    if args.follow && is_gathered {
        return Err(Failure::usage("--follow has no end: it goes with no --format, or with --format ndjson"));
    }
    let mut nodes = args.kafka.connect()?;
    let mut positions = positions(args, &mut nodes)?;
    let mut sink = Sink { args, left: args.max.unwrap_or(u64::MAX), gathered: Vec::new() };
    while sink.left > 0 {
        let mut is_idle = true;
        for position in &mut positions {
            if args.follow || position.next < position.end {
                is_idle &= !read(&mut nodes, position, &mut sink)?;
            }
        }
        if !args.follow && positions.iter().all(|position| position.next >= position.end) {
            break;
        }
        if is_idle {
            std::thread::sleep(IDLE);
        }
    }
    if is_gathered { args.format.show(&COLUMNS, &sink.gathered) } else { Ok(()) }
}

fn positions(args: &Consume, nodes: &mut Routed) -> Result<Vec<Position>, Failure> {
    let count = nodes.any(|node| node.topic(&args.topic, false))?.partitions;
    let partitions = match args.partition {
        Some(partition) if (0..count).contains(&partition) => partition..partition + 1,
        Some(partition) => {
            let message = format!("topic {} has no partition {partition}, only 0 to {}", args.topic, count - 1);
            return Err(Failure::new(Code::NotFound, message));
        }
        None => 0..count,
    };
    let mut positions = Vec::new();
    for partition in partitions {
        let mut at = |time| nodes.leader(&args.topic, partition, |node| node.list_offset(&args.topic, partition, time));
        let (start, end) = (at(client::EARLIEST)?, at(client::LATEST)?);
        let next = match args.from {
            From::Start => start,
            From::End => end,
            From::Offset(offset) => Offset(offset).clamp(start, end),
            From::Last(count) => end.plus(-count).max(start),
            From::Time(time) => match at(Timestamp(time))? {
                none if none.0 < 0 => end,
                found => found,
            },
        };
        positions.push(Position { partition, next, end });
    }
    Ok(positions)
}

/// True if there was something.
fn read(nodes: &mut Routed, position: &mut Position, sink: &mut Sink<'_>) -> Result<bool, Failure> {
    let topic = &sink.args.topic;
    let fetch = |node: &mut Connection| node.fetch(topic, position.partition, position.next, FETCH_BYTES, 0);
    let fetched = nodes.leader(topic, position.partition, fetch)?;
    let before = position.next;
    for batch in split(&fetched.batches) {
        let Ok((header, batch)) = batch else { break };
        let damaged = |error: base::records::RecordError| {
            Failure::new(Code::Failure, format!("{topic}/{} at {}: {error}", position.partition, header.base_offset))
        };
        let decoded = decode_shared(&batch).map_err(damaged)?;
        for record in &decoded {
            let record = record.map_err(damaged)?;
            let is_wanted = record.offset >= position.next && (sink.args.follow || record.offset < position.end);
            if is_wanted && sink.left > 0 && !header.is_control() {
                sink.take(position.partition, &record)?;
            }
        }
        position.next = position.next.max(header.next_offset());
    }
    Ok(position.next > before)
}

struct Sink<'a> {
    args: &'a Consume,
    left: u64,
    gathered: Vec<Vec<Value>>,
}

impl Sink<'_> {
    fn take(&mut self, partition: i32, record: &base::records::Record<'_>) -> Result<(), Failure> {
        self.left -= 1;
        if self.args.format.format.is_none() {
            let mut line = Vec::new();
            if self.args.keys {
                line.extend_from_slice(record.key.unwrap_or_default());
                line.push(b'\t');
            }
            line.extend_from_slice(record.value.unwrap_or_default());
            line.push(b'\n');
            return stdout(&line);
        }
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let headers: Vec<Value> = record
            .headers
            .iter()
            .map(|header| json!({"key": String::from_utf8_lossy(header.key), "value": text(header.value)}))
            .collect();
        let row: Vec<Value> = vec![
            partition.into(),
            record.offset.0.into(),
            record.timestamp.0.into(),
            text(record.key).into(),
            text(record.value).into(),
            headers.into(),
        ];
        if self.args.format.format == Some(Format::Ndjson) {
            let cells = COLUMNS.iter().zip(row).map(|(name, cell)| ((*name).to_owned(), cell));
            let object = Value::Object(cells.collect());
            return stdout(format!("{object}\n").as_bytes());
        }
        if self.gathered.len() >= GATHERED_MAX {
            say(&format!("only the first {GATHERED_MAX} records are shown; use --format ndjson for all"));
            self.left = 0;
            return Ok(());
        }
        self.gathered.push(row);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_begin() {
        assert_eq!(parse_from("start"), Ok(From::Start));
        assert_eq!(parse_from("-5"), Ok(From::Last(5)));
        assert_eq!(parse_from("17"), Ok(From::Offset(17)));
        assert_eq!(parse_from("@1700000000000"), Ok(From::Time(1_700_000_000_000)));
        assert!(parse_from("").is_err() && parse_from("--5").is_err() && parse_from("soon").is_err());
    }
}
