//! A partition's folder after anything happened to its bytes: it opens or is refused, and what it gives are whole batches.
//!
//! A good folder is written once. Each input changes bytes of its files, mends the checksums of what it changed so that the checks
//! behind them are met too, and opens it again.

#![no_main]

use std::sync::{Arc, Mutex, OnceLock};

use base::batch::Codec;
use base::checksum::crc32c;
use base::disk::Disk;
use base::disk::memory::MemDisk;
use base::records::{self, BatchBuilder};
use base::{NodeId, Offset, PartitionIndex, ProducerEpoch, ProducerId, Tick, Timestamp, TopicId, TopicPartition};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use log::{Partition, PartitionConfig, ReadLimit};

const DIR: &str = "p";
const CAPACITY_BYTES: u64 = 64 << 20;

type Files = Vec<(String, Vec<u8>)>;

fn id() -> TopicPartition {
    TopicPartition { topic: TopicId(uuid::Uuid::from_u128(7)), partition: PartitionIndex(0) }
}

fn config() -> PartitionConfig {
    PartitionConfig { file_bytes_max: 2000, index_step_bytes: 200, ..PartitionConfig::default() }
}

fn open(disk: &Arc<dyn Disk>) -> Option<Partition> {
    let hard = quorum::HardStates::open(Arc::clone(disk), "hard").ok()?;
    let hard = Arc::new(Mutex::new(hard));
    Partition::open(id(), DIR, config(), NodeId(1), Arc::clone(disk), hard, Tick(0), Timestamp(0))
        .ok()
        .map(|(partition, _)| partition)
}

fn flush(partition: &mut Partition) -> bool {
    while let Some(job) = partition.flush_job() {
        if partition.flushed(job.run()).is_err() {
            return false;
        }
    }
    true
}

fn batch(at: i32) -> Bytes {
    let mut batch = BatchBuilder::new(Codec::None).producer(ProducerId(1), ProducerEpoch(0), at * 3);
    for i in 0..3 {
        batch.push(Timestamp(1000 + i64::from(at)), Some(b"key"), Some(format!("value {i}").as_bytes()), &[]);
    }
    batch.build().unwrap_or_default()
}

/// The folder of a node that was killed after some appends: several files, indexes, a mark.
fn good() -> &'static Files {
    static GOOD: OnceLock<Files> = OnceLock::new();
    GOOD.get_or_init(|| {
        let memory = MemDisk::new(1, CAPACITY_BYTES);
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        let mut partition = open(&disk).expect("a new partition");
        flush(&mut partition);
        for at in 0..60 {
            partition.append(Tick(1), Timestamp(1), batch(at)).expect("room");
            flush(&mut partition);
        }
        memory.dump()
    })
}

fuzz_target!(|data: &[u8]| {
    let mut files = good().clone();
    for change in data.chunks_exact(5) {
        let [file, high, low, how, byte] = *change else { continue };
        let count = files.len();
        let Some((path, bytes)) = files.get_mut(usize::from(file) % count) else { continue };
        let at = usize::from(u16::from_be_bytes([high, low]));
        match how % 4 {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_slice(&[byte; 7]),
            _ if at < bytes.len() => bytes[at] = byte,
            _ => continue,
        }
        if how & 4 == 0 && path.ends_with(".log") {
            mend_frames(bytes);
        } else if how & 4 == 0 && path.ends_with("mark") {
            mend_mark(bytes);
        }
    }
    let memory = MemDisk::new(2, CAPACITY_BYTES);
    let disk: Arc<dyn Disk> = Arc::new(memory);
    for (path, bytes) in &files {
        write(&*disk, path, bytes);
    }
    use_it(&disk);
});

fn write(disk: &dyn Disk, path: &str, bytes: &[u8]) {
    if let Some((folder, _)) = path.rsplit_once('/') {
        disk.create_dir_all(folder).expect("a folder");
    }
    let file = disk.create(path).expect("a new file");
    file.append(&[bytes]).expect("room");
}

/// Reads everything, appends, closes, opens again.
fn use_it(disk: &Arc<dyn Disk>) {
    let Some(mut partition) = open(disk) else { return };
    read_all(&partition);
    flush(&mut partition);
    let next = partition.end();
    if let Ok(appended) = partition.append(Tick(5), Timestamp(5), batch(1000)) {
        assert!(appended.duplicate || appended.base_offset == next, "{appended:?} after {next}");
    }
    if !flush(&mut partition) {
        return;
    }
    let end = partition.end();
    read_all(&partition);
    if partition.close().is_ok() {
        let again = open(disk).expect("what was closed opens");
        assert_eq!(again.end(), end);
    }
}

fn read_all(partition: &Partition) {
    let reader = partition.reader();
    let mut at = reader.start();
    while at < reader.committed() {
        let Ok(fetched) = reader.read(at, 500, ReadLimit::Committed) else { return };
        if fetched.bytes.is_empty() {
            return;
        }
        assert!(fetched.next > at, "a read from {at} did not get on");
        for part in base::batch::split(&fetched.bytes) {
            let (header, bytes) = part.expect("whole batches");
            assert!(header.next_offset() > at || header.base_offset >= at);
            drop(records::decode(&bytes));
        }
        at = fetched.next;
    }
    let _ = reader.offset_for_time(Timestamp(1010));
    let _ = reader.max_timestamp();
    let _ = reader.epoch_end(1);
    let _ = reader.read(Offset(i64::MAX), 1, ReadLimit::End);
}

/// Writes every frame's checksum anew, as far as the lengths lead.
fn mend_frames(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + 21) {
        let length = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
        let Some(end) = usize::try_from(length).ok().and_then(|length| at.checked_add(12)?.checked_add(length)) else {
            return;
        };
        if end > bytes.len() || end < at + 21 {
            return;
        }
        let crc = crc32c(&bytes[at + 21..end]);
        bytes[at + 17..at + 21].copy_from_slice(&crc.to_be_bytes());
        at = end;
    }
}

fn mend_mark(bytes: &mut [u8]) {
    for slot in [0, 4096] {
        if let Some(slot) = bytes.get_mut(slot..slot + 64) {
            let crc = crc32c(&slot[..60]);
            slot[60..].copy_from_slice(&crc.to_be_bytes());
        }
    }
}
