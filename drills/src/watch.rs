//! Readers that run all through a drill: when a read succeeded, what was read, and whether it ever contradicts itself.
//!
//! ```text
//! Probe   asks for the first record of one partition again and again: is committed data readable now?
//! Leaders who led a partition, from when
//! Tail    a consumer that follows a partition across leaders and remembers which id it saw at which offset
//! Asker   SQL counts over HTTP, at every node in turn
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use base::{Offset, batch, records};
use client::{ClientError, Cluster};

use crate::load::{Clock, Id, id_of};
use crate::{Failure, http};

const PAUSE: Duration = Duration::from_millis(20);
/// Longest wait of a reader for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
const FETCH_BYTES_MAX: i32 = 4 << 20;
/// Rest before the end of a log is asked for a second time.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a fetch may wait for data at the end of the log.
const FETCH_WAIT_MS: i32 = 100;

/// A thread that runs until told to stop, and what it found.
#[derive(Debug)]
struct Watcher<T> {
    stop: Arc<AtomicBool>,
    found: Arc<Mutex<T>>,
    _thread: JoinHandle<()>,
}

impl<T: Clone + Default + Send + 'static> Watcher<T> {
    fn start(mut work: impl FnMut(&Mutex<T>) + Send + 'static) -> Self {
        let (stop, found) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(T::default())));
        let (told, noted) = (Arc::clone(&stop), Arc::clone(&found));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                work(&noted);
            }
        });
        Self { stop, found, _thread: thread }
    }

    fn found(&self) -> T {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<T> Drop for Watcher<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// When committed data of a partition could be read.
#[derive(Debug)]
pub struct Probe(Watcher<Vec<Duration>>);

impl Probe {
    #[must_use]
    pub fn start(bootstrap: &[String], topic: &str, partition: i32, clock: Clock) -> Self {
        let mut cluster = Cluster::new(bootstrap.to_vec(), "drill-probe", PATIENCE);
        let topic = topic.to_owned();
        Self(Watcher::start(move |found: &Mutex<Vec<Duration>>| {
            let read =
                cluster.leader(&topic, partition).and_then(|leader| leader.fetch(&topic, partition, Offset(0), 1, 0));
            match read {
                Ok(fetched) if !fetched.batches.is_empty() => {
                    found.lock().unwrap_or_else(PoisonError::into_inner).push(clock.now());
                }
                Ok(_) => {}
                Err(_) => cluster.forget(&topic, partition),
            }
            std::thread::sleep(PAUSE);
        }))
    }

    /// The longest time without a successful read within `from..until`.
    #[must_use]
    pub fn read_gap(&self, from: Duration, until: Duration) -> Duration {
        crate::load::longest_gap(self.0.found().into_iter(), from, until)
    }
}

/// Who led a partition, as the newest epoch told by any node.
#[derive(Debug)]
pub struct Leaders(Watcher<Vec<(Duration, i32, i32)>>);

impl Leaders {
    #[must_use]
    pub fn start(bootstrap: &[String], topic: &str, partition: i32, clock: Clock) -> Self {
        let mut cluster = Cluster::new(bootstrap.to_vec(), "drill-leaders", PATIENCE);
        let topic = topic.to_owned();
        Self(Watcher::start(move |found: &Mutex<Vec<(Duration, i32, i32)>>| {
            let view = cluster.view(Some(&topic)).ok();
            if let Some((leader, epoch)) =
                view.and_then(|view| view.partitions.get(&partition).and_then(|p| Some((p.leader?, p.epoch))))
            {
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                if found.last().is_none_or(|(_, _, newest)| epoch > *newest) {
                    found.push((clock.now(), leader, epoch));
                }
            }
            std::thread::sleep(PAUSE * 2);
        }))
    }

    /// In words: who, since when, in which epoch.
    #[must_use]
    pub fn in_words(&self) -> String {
        let one = |(at, leader, epoch): &(Duration, i32, i32)| {
            format!("node {leader} from {:.3} s (epoch {epoch})", at.as_secs_f64())
        };
        self.0.found().iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// What a consumer saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// By offset.
    pub records: BTreeMap<i64, Id>,
    /// The first thing that must never be.
    pub wrong: Option<String>,
}

/// A consumer of one partition.
#[derive(Debug)]
pub struct Tail(Watcher<Seen>);

impl Tail {
    #[must_use]
    pub fn start(bootstrap: &[String], topic: &str, partition: i32) -> Self {
        let mut cluster = Cluster::new(bootstrap.to_vec(), "drill-tail", PATIENCE);
        let (topic, mut next) = (topic.to_owned(), Offset(0));
        Self(Watcher::start(move |found: &Mutex<Seen>| {
            match read_on(&mut cluster, &topic, partition, next, FETCH_WAIT_MS) {
                Ok((after, read)) => {
                    next = after;
                    let mut seen = found.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.records.extend(read);
                }
                Err(ReadError::Client(error)) => {
                    cluster.forget(&topic, partition);
                    // OFFSET_OUT_OF_RANGE: what this consumer has read is not committed at the leader.
                    if error.code() == Some(1) {
                        let mut seen = found.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.wrong.get_or_insert(format!("partition {partition}: a consumer at {next}: {error}"));
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(ReadError::Wrong(wrong)) => {
                    found.lock().unwrap_or_else(PoisonError::into_inner).wrong.get_or_insert(wrong);
                    std::thread::sleep(PAUSE);
                }
            }
        }))
    }

    #[must_use]
    pub fn seen(&self) -> Seen {
        self.0.found()
    }
}

/// Why nothing was read.
enum ReadError {
    Client(ClientError),
    Wrong(String),
}

type Read = (Offset, Vec<(i64, Id)>);

fn read_on(cluster: &mut Cluster, topic: &str, partition: i32, next: Offset, wait_ms: i32) -> Result<Read, ReadError> {
    let leader = cluster.leader(topic, partition).map_err(ReadError::Client)?;
    let fetched = leader.fetch(topic, partition, next, FETCH_BYTES_MAX, wait_ms).map_err(ReadError::Client)?;
    let wrong = |cause: String| ReadError::Wrong(format!("partition {partition} at {next}: {cause}"));
    let (mut after, mut read) = (next, Vec::new());
    for item in batch::split(&fetched.batches) {
        let (header, bytes) = match item {
            Ok(item) => item,
            Err(batch::BatchError::Truncated { .. }) => break,
            Err(error) => return Err(wrong(error.to_string())),
        };
        let decoded = records::decode(&bytes).map_err(|error| wrong(error.to_string()))?;
        for record in decoded.iter() {
            let record = record.map_err(|error| wrong(error.to_string()))?;
            if record.offset >= next {
                let id = id_of(&record).ok_or_else(|| wrong(format!("no drill wrote offset {}", record.offset)))?;
                read.push((record.offset.0, id));
            }
        }
        after = header.next_offset();
    }
    Ok((after, read))
}

/// The high watermark of a partition.
///
/// # Errors
/// Nobody who leads it answers now.
pub fn end_of(bootstrap: &[String], topic: &str, partition: i32) -> Result<i64, Failure> {
    let mut cluster = Cluster::new(bootstrap.to_vec(), "drill-end", PATIENCE);
    let asked =
        cluster.leader(topic, partition).and_then(|leader| leader.list_offset(topic, partition, client::LATEST));
    asked.map(|offset| offset.0).map_err(|error| error.to_string())
}

/// Everything of a partition from offset 0 to the high watermark, by offset.
///
/// # Errors
/// Not within the patience, or the bytes are wrong.
pub fn read_all(
    bootstrap: &[String],
    topic: &str,
    partition: i32,
    patience: Duration,
) -> Result<BTreeMap<i64, Id>, Failure> {
    let mut cluster = Cluster::new(bootstrap.to_vec(), "drill-reader", PATIENCE);
    let (clock, mut next, mut all) = (Clock::start(), Offset(0), BTreeMap::new());
    // The end is the same when asked for again after a while: a new leader may not have known all of it at once.
    let (mut end, mut settled) = (None, false);
    loop {
        let step = match end {
            None => cluster
                .leader(topic, partition)
                .and_then(|leader| leader.list_offset(topic, partition, client::LATEST))
                .map(|offset| end = Some(offset))
                .map_err(ReadError::Client),
            Some(end) if next >= end && settled => return Ok(all),
            Some(known) if next >= known => {
                std::thread::sleep(SETTLE);
                (end, settled) = (None, true);
                Ok(())
            }
            Some(_) => read_on(&mut cluster, topic, partition, next, 0).map(|(after, read)| {
                next = after;
                settled = false;
                all.extend(read);
            }),
        };
        match step {
            Ok(()) => {}
            Err(ReadError::Wrong(wrong)) => return Err(wrong),
            Err(ReadError::Client(error)) if clock.now() > patience => return Err(format!("reading back: {error}")),
            Err(ReadError::Client(_)) => {
                cluster.forget(topic, partition);
                std::thread::sleep(PAUSE);
            }
        }
        if clock.now() > patience {
            return Err(format!("reading back {topic}-{partition} takes longer than {} s", patience.as_secs()));
        }
    }
}

/// How SQL did.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub answered: Vec<Duration>,
    pub failed: u64,
    pub last_failure: Option<String>,
    /// Queries that a node answered with an error although the node itself was up.
    pub refused: u64,
    /// The longest time one query took.
    pub longest: Duration,
}

/// Asks for counts all the time.
#[derive(Debug)]
pub struct Asker(Watcher<Asked>);

impl Asker {
    #[must_use]
    pub fn start(addresses: Vec<std::net::SocketAddr>, table: &str, clock: Clock) -> Self {
        let (query, mut turn) = (format!("SELECT COUNT(*) FROM {table}"), 0);
        Self(Watcher::start(move |found: &Mutex<Asked>| {
            turn = (turn + 1) % addresses.len().max(1);
            let Some(address) = addresses.get(turn) else { return };
            let begun = clock.now();
            let answer = http::count(*address, &query, PATIENCE);
            let mut asked = found.lock().unwrap_or_else(PoisonError::into_inner);
            asked.longest = asked.longest.max(clock.now().saturating_sub(begun));
            match answer {
                Ok(_) => asked.answered.push(clock.now()),
                Err(failure) => {
                    asked.failed += 1;
                    asked.refused += u64::from(failure.contains("SELECT"));
                    asked.last_failure = Some(failure);
                }
            }
            drop(asked);
            std::thread::sleep(PAUSE * 2);
        }))
    }

    #[must_use]
    pub fn asked(&self) -> Asked {
        self.0.found()
    }
}
