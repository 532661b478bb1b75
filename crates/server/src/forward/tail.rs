//! Files that grow, into the spool: each whole line once, in order, also across a restart of this process.
//!
//! The same way as from the spool to the cluster: lines are cut into batches, the cuts are made durable, and the spool's
//! partition knows the batches by their producer. A file that was renamed is read to its end before the one that took
//! its name; one that became shorter is read from its beginning.

use std::future::Future;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base::{Offset, PartitionIndex, Tick, TopicPartition};
use log::AppendError;
use log::forward::{Answer, Batch, Cut, Next, Place, Way};

use super::Tail;
use super::dead::DeadLetters;
use super::places::Places;
use super::records::{BATCH_BYTES, of_lines};
use crate::node::{Acks, Node, NodeError, time};

/// How often a file is looked at when it does not grow.
const POLL: Duration = Duration::from_millis(50);
/// Pause after the spool refused.
const RETRY: Duration = Duration::from_millis(200);
const TAKEN_MS: u64 = 10_000;
/// Lines of one batch.
const LINES_MAX: i32 = 10_000;

/// The partition of a topic that a source's lines go to: all of one source to the same, for their order.
pub async fn place_of(node: &Arc<Node>, topic: &str, source: &str) -> Result<TopicPartition, String> {
    let topic = node.ensure_topic(topic).await.map_err(|error| error.to_string())?;
    let partitions = u32::try_from(topic.partitions.max(1)).unwrap_or(1);
    let index = base::checksum::crc32c(source.as_bytes()) % partitions;
    Ok(TopicPartition { topic: topic.id, partition: PartitionIndex(i32::try_from(index).unwrap_or(0)) })
}

/// One file that is followed.
pub struct Tailing {
    tail: Tail,
    node: Arc<Node>,
    places: Arc<Places>,
    dead: Arc<DeadLetters>,
    open: Option<Open>,
}

struct Open {
    file: std::fs::File,
    inode: u64,
    name: String,
    way: Way,
}

/// What a step did.
enum Step {
    Moved,
    /// Nothing is there now.
    Idle,
}

impl Tailing {
    pub fn new(tail: Tail, node: &Arc<Node>, places: &Arc<Places>, dead: &Arc<DeadLetters>) -> Self {
        Self { tail, node: Arc::clone(node), places: Arc::clone(places), dead: Arc::clone(dead), open: None }
    }

    /// Follows the file until told to stop.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut told = String::new();
        loop {
            let pause = match self.step().await {
                Ok(Step::Moved) => continue,
                Ok(Step::Idle) => POLL,
                Err(cause) => {
                    if told != cause {
                        tracing::warn!(path = %self.tail.path.display(), cause, "the file is not read on; it is tried again");
                        told = cause;
                    }
                    RETRY
                }
            };
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn step(&mut self) -> Result<Step, String> {
        if self.open.is_none() && !self.find()? {
            return Ok(Step::Idle);
        }
        let place = place_of(&self.node, &self.tail.topic, &self.tail.path.to_string_lossy()).await?;
        let Some(open) = &mut self.open else { return Ok(Step::Idle) };
        let length = open.file.metadata().map_err(|error| error.to_string())?.len();
        let from = u64::try_from(open.way.place().from.0).unwrap_or(0);
        if length < from {
            tracing::warn!(path = %self.tail.path.display(), "the file became shorter: it is read from its beginning");
            open.way = Way::resume(Place::default());
        }
        if open.way.place().cuts.is_empty() {
            let lines = lines_at(&open.file, from.min(length), length).map_err(|error| error.to_string())?;
            let is_replaced = inode_at(&self.tail.path) != Some(open.inode);
            let cut = cut(&lines, open.way.place().from, open.way.records_max(), is_replaced);
            let Some(cut) = cut else {
                if is_replaced {
                    self.places.save([], std::slice::from_ref(&open.name)).map_err(|error| error.to_string())?;
                    self.open = None;
                    return Ok(Step::Moved);
                }
                return Ok(Step::Idle);
            };
            self.give_producer().await?;
            let Some(open) = &mut self.open else { return Ok(Step::Idle) };
            open.way.cut(vec![cut]);
        } else {
            self.give_producer().await?;
        }
        let Some(open) = &self.open else { return Ok(Step::Idle) };
        self.places.save([(open.name.as_str(), open.way.place())], &[]).map_err(|error| error.to_string())?;
        self.push(place).await
    }

    /// Opens the file to read: one that was renamed before it was read to its end, else the one at the path. False if there
    /// is none.
    fn find(&mut self) -> Result<bool, String> {
        let current = inode_at(&self.tail.path);
        for name in self.places.names(&prefix(&self.tail.path)) {
            let inode = name.rsplit_once(':').and_then(|(_, inode)| inode.parse().ok());
            if inode.is_some() && inode == current {
                continue;
            }
            match inode.and_then(|inode| beside(&self.tail.path, inode)) {
                Some(path) => return self.open_at(&path),
                None => {
                    let path = self.tail.path.display();
                    tracing::warn!(%path, "a file of that name is gone; whether it was read to its end is not known");
                    self.places.save([], &[name]).map_err(|error| error.to_string())?;
                }
            }
        }
        self.open_at(&self.tail.path.clone())
    }

    fn open_at(&mut self, path: &Path) -> Result<bool, String> {
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.to_string()),
        };
        let inode = file.metadata().map_err(|error| error.to_string())?.ino();
        let name = format!("{}{inode}", prefix(&self.tail.path));
        let way = Way::resume(self.places.get(&name));
        self.open = Some(Open { file, inode, name, way });
        Ok(true)
    }

    async fn give_producer(&mut self) -> Result<(), String> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.way.place().producer.is_none() {
            let (id, epoch) = self.node.init_producer_id().await.map_err(|error| error.to_string())?;
            open.way.set_producer(id, epoch);
        }
        Ok(())
    }

    async fn push(&mut self, place: TopicPartition) -> Result<Step, String> {
        let Some(open) = &mut self.open else { return Ok(Step::Idle) };
        let Some(batch) = open.way.under_way().next() else { return Ok(Step::Idle) };
        let bytes = bytes_of(&open.file, &batch).map_err(|error| error.to_string())?;
        let records = of_lines(split(&bytes), &batch, time::wall()).map_err(|error| error.to_string())?;
        let deadline = Tick(time::now().0 + TAKEN_MS);
        let outcome = self.node.append(place, records, Acks::All, deadline).await;
        let answer = outcome.as_ref().map_or_else(answer_of, |_| Answer::Taken);
        match open.way.answered(answer) {
            Next::SetAside => {
                let reason = outcome.map_or_else(|error| error.to_string(), |_| String::new());
                let source = self.tail.path.to_string_lossy();
                let line = split(&bytes).next().unwrap_or_default();
                self.dead.add_line(&self.tail.topic, &source, line, &reason).map_err(|error| error.to_string())?;
                open.way.set_aside();
                Ok(Step::Moved)
            }
            Next::SendAgain => Err(outcome.map_or_else(|error| error.to_string(), |_| String::new())),
            Next::GoOn | Next::CutAgain | Next::AskForProducer => Ok(Step::Moved),
        }
    }
}

fn prefix(path: &Path) -> String {
    format!("file:{}:", path.display())
}

fn inode_at(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// The file of that number in the folder of `path`: where rotation puts it.
fn beside(path: &Path, inode: u64) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let mut found = entries.filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.ino() == inode));
    found.next().map(|entry| entry.path())
}

/// What the spool's own refusal means.
fn answer_of(error: &NodeError) -> Answer {
    match error {
        NodeError::Append(AppendError::OutOfOrderSequence { .. } | AppendError::FencedEpoch { .. }) => {
            Answer::Forgotten
        }
        NodeError::Append(AppendError::TooLarge { .. } | AppendError::Invalid(_) | AppendError::Unsupported(_)) => {
            Answer::Refused
        }
        _ => Answer::Later,
    }
}

/// Up to a batch's worth of bytes.
fn lines_at(file: &std::fs::File, from: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let mut want = BATCH_BYTES;
    loop {
        let bytes = usize::try_from(length - from).unwrap_or(usize::MAX).min(want);
        let mut read = vec![0; bytes];
        file.read_exact_at(&mut read, from)?;
        // A line longer than a batch is read whole, up to a bound; it is refused and set aside then.
        if read.contains(&b'\n') || bytes < want || want >= base::limits::BATCH_BYTES_MAX {
            return Ok(read);
        }
        want *= 2;
    }
}

/// The next batch: whole lines. The rest of a file that will not grow any more counts as one.
fn cut(lines: &[u8], from: Offset, records_max: i32, is_final: bool) -> Option<Cut> {
    let (mut records, mut end) = (0, 0);
    for (at, _) in lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        records += 1;
        end = at + 1;
        if records >= records_max.min(LINES_MAX) {
            break;
        }
    }
    if records == 0 && !lines.is_empty() && (is_final || lines.len() >= base::limits::BATCH_BYTES_MAX) {
        (records, end) = (1, lines.len());
    }
    (records > 0).then(|| Cut { to: from.plus(i64::try_from(end).unwrap_or(i64::MAX)), records })
}

fn bytes_of(file: &std::fs::File, batch: &Batch) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(batch.to.0 - batch.from.0).unwrap_or(0)];
    file.read_exact_at(&mut bytes, u64::try_from(batch.from.0).unwrap_or(0))?;
    Ok(bytes)
}

fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_are_cut() {
        let cut_at =
            |text: &str, most, last| cut(text.as_bytes(), Offset(10), most, last).map(|cut| (cut.to.0, cut.records));
        assert_eq!(cut_at("a\nbc\nd", 100, false), Some((15, 2)));
        assert_eq!(cut_at("a\nbc\nd", 1, false), Some((12, 1)));
        assert_eq!(cut_at("d", 100, false), None);
        assert_eq!(cut_at("d", 100, true), Some((11, 1)));
        assert_eq!(cut_at("", 100, true), None);
    }

    #[test]
    fn lines_lose_their_ends() {
        assert_eq!(split(b"a\r\n\nb").collect::<Vec<_>>(), [&b"a"[..], b"", b"b"]);
    }
}
