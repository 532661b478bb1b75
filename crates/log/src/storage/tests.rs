use std::sync::Mutex;

use base::batch::Codec;
use base::disk::memory::MemDisk;
use base::records::BatchBuilder;
use base::{NodeId, PartitionIndex, TopicId, TopicPartition};

use quorum::Payload;

use super::*;
use crate::{Partition, Seats};

const NOW: Tick = Tick(1);
const WALL: Timestamp = Timestamp(1);

fn open(disk: &MemDisk) -> Partition {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let hard = Arc::new(Mutex::new(quorum::HardStates::open(Arc::clone(&disk), "hard").unwrap()));
    let topic = TopicId("6f1c0f9e-3c1d-4a7e-9e7b-0a2f4b8c1d2e".parse().unwrap());
    let id = TopicPartition { topic, partition: PartitionIndex(0) };
    let config = PartitionConfig { file_bytes_max: 500, index_step_bytes: 100, ..PartitionConfig::default() };
    Partition::open(id, "p", config, NodeId(1), Seats::alone(NodeId(1)), disk, hard, NOW, WALL).unwrap().0
}

fn put(partition: &mut Partition, value: &str) {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(WALL, None, Some(value.as_bytes()), &[]);
    partition.append(NOW, WALL, builder.build().unwrap()).unwrap();
}

fn flush(partition: &mut Partition) {
    while let Some(job) = partition.flush_job() {
        partition.flushed(job.run()).unwrap();
    }
}

/// Three terms of seven batches each, so entries 1, 9 and 17 are the leaders' first.
fn three_terms() -> Partition {
    let disk = MemDisk::new(1, 1 << 20);
    let mut partition = open(&disk);
    for round in 0..3 {
        for at in 0..7 {
            put(&mut partition, &format!("{round}.{at}"));
        }
        flush(&mut partition);
        if round < 2 {
            partition.close().unwrap();
            partition = open(&disk);
        }
    }
    partition
}

#[test]
fn the_log_files_are_the_groups_log() {
    let partition = three_terms();
    let storage = partition.storage();
    assert_eq!((storage.first_index(), storage.last_index()), (LogIndex(1), LogIndex(24)));
    for from in 1..=24 {
        for to in from + 1..=25 {
            let entries = storage.entries(LogIndex(from), LogIndex(to), u64::MAX).unwrap();
            assert_eq!(entries.len() as u64, to - from);
            for (entry, index) in entries.iter().zip(from..) {
                assert_eq!((entry.index, entry.term), (LogIndex(index), Term((index - 1) / 8 + 1)));
                assert_eq!(storage.term_of(entry.index), Ok(entry.term));
                assert_eq!(entry.payload == Payload::Empty, index % 8 == 1);
            }
        }
    }
    assert_eq!(storage.entries(LogIndex(2), LogIndex(20), 0).unwrap().len(), 1, "at least one");
    assert_eq!(storage.entries(LogIndex(2), LogIndex(20), 200).unwrap().len(), 2);
    assert_eq!(storage.term_of(LogIndex(0)), Ok(Term(0)));
    assert_eq!(storage.term_of(LogIndex(25)), Err(StorageError::Unavailable));
    assert_eq!(storage.entries(LogIndex(20), LogIndex(26), 9), Err(StorageError::Unavailable));
}

#[test]
fn what_was_trimmed_is_compacted_and_its_last_term_is_known() {
    let mut partition = three_terms();
    partition.delete_before(Offset(14)).unwrap();
    flush(&mut partition);
    let storage = partition.storage();
    let first = storage.first_index();
    assert_eq!(first, LogIndex(17));
    assert_eq!(storage.term_of(LogIndex(first.0 - 1)), Ok(Term(2)));
    assert_eq!(storage.term_of(LogIndex(first.0 - 2)), Err(StorageError::Compacted));
    assert_eq!(storage.entries(LogIndex(1), first, 9), Err(StorageError::Compacted));
    let snapshot = storage.snapshot().unwrap();
    assert_eq!((snapshot.index, snapshot.term), (LogIndex(16), Term(2)));
    let place = StartPlace::decode(&snapshot.data).unwrap();
    assert_eq!((place.base_offset, place.start), (Offset(14), Offset(14)));
}
