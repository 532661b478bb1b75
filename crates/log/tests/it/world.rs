//! A partition on a disk in memory, and what tests say to it.

use std::sync::{Arc, Mutex};

use base::batch::Codec;
use base::disk::Disk;
use base::disk::memory::MemDisk;
use base::records::{self, BatchBuilder};
use base::{NodeId, Offset, PartitionIndex, ProducerEpoch, ProducerId, Tick, Timestamp, TopicId, TopicPartition};
use bytes::Bytes;
use log::{AppendError, Appended, OpenError, Partition, PartitionConfig, ReadLimit, Reader, Recovery, Seats, Stopped};

pub const DIR: &str = "topic/0";

pub fn id() -> TopicPartition {
    let topic = TopicId("6f1c0f9e-3c1d-4a7e-9e7b-0a2f4b8c1d2e".parse().unwrap());
    TopicPartition { topic, partition: PartitionIndex(0) }
}

pub struct World {
    pub disk: MemDisk,
    pub partition: Partition,
    pub recovery: Recovery,
    pub now: Tick,
    pub wall: Timestamp,
}

impl World {
    pub fn new(config: PartitionConfig) -> Self {
        Self::open(MemDisk::new(1, 1 << 30), config).unwrap()
    }

    pub fn open(disk: MemDisk, config: PartitionConfig) -> Result<Self, OpenError> {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let hard = quorum::HardStates::open(Arc::clone(&shared), "hard")
            .map_err(|error| OpenError::Group(error.to_string()))?;
        let (now, wall) = (Tick(1000), Timestamp(1_700_000_000_000));
        let hard = Arc::new(Mutex::new(hard));
        let seats = Seats::alone(NodeId(1));
        let (partition, recovery) = Partition::open(id(), DIR, config, NodeId(1), seats, shared, hard, now, wall)?;
        Ok(Self { disk, partition, recovery, now, wall })
    }

    /// The process dies, the machine goes on.
    pub fn killed(self, config: PartitionConfig) -> Self {
        Self::open(self.disk.kill(), config).unwrap()
    }

    pub fn append(&mut self, batch: Bytes) -> Result<Appended, AppendError> {
        self.partition.append(self.now, self.wall, batch)
    }

    pub fn put(&mut self, values: &[&str]) -> Appended {
        self.append(batch(values)).unwrap()
    }

    pub fn flush(&mut self) -> Result<Offset, Stopped> {
        while let Some(job) = self.partition.flush_job() {
            let done = job.run();
            self.partition.flushed(done)?;
        }
        Ok(self.partition.committed())
    }

    pub fn reader(&self) -> Reader {
        self.partition.reader()
    }

    pub fn values(&self) -> Vec<String> {
        values(&self.reader(), ReadLimit::Committed)
    }

    pub fn log_files(&self) -> Vec<(String, usize)> {
        let files = self.disk.dump().into_iter().map(|(path, bytes)| (path, bytes.len()));
        files.filter(|(path, _)| path.ends_with(".log")).collect()
    }
}

pub fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    for (at, value) in (0..).zip(values) {
        builder.push(Timestamp(1_600_000_000_000 + at), None, Some(value.as_bytes()), &[]);
    }
    builder.build().unwrap()
}

pub fn batch_at(time: i64, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    for (at, value) in (0..).zip(values) {
        builder.push(Timestamp(time + at), None, Some(value.as_bytes()), &[]);
    }
    builder.build().unwrap()
}

pub fn batch_of(producer: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    let builder = BatchBuilder::new(Codec::None);
    let mut builder = builder.producer(ProducerId(producer), ProducerEpoch(epoch), sequence);
    for value in values {
        builder.push(Timestamp(1_600_000_000_000), None, Some(value.as_bytes()), &[]);
    }
    builder.build().unwrap()
}

/// Every record's value from the start to the limit, checking on the way that offsets have no gap.
pub fn values(reader: &Reader, limit: ReadLimit) -> Vec<String> {
    let mut at = reader.start();
    let mut values = Vec::new();
    loop {
        let fetched = reader.read(at, 300, limit).unwrap();
        if fetched.bytes.is_empty() {
            return values;
        }
        for (header, batch) in base::batch::split(&fetched.bytes).map(Result::unwrap) {
            assert!(header.base_offset <= at, "gap before {}", header.base_offset);
            for record in records::decode(&batch).unwrap().iter().map(Result::unwrap) {
                if record.offset >= at {
                    assert_eq!(record.offset, at);
                    values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                    at = at.next();
                }
            }
        }
        assert_eq!(at, fetched.next);
    }
}

/// A small file after which the log rolls.
pub fn small_files() -> PartitionConfig {
    PartitionConfig { file_bytes_max: 400, index_step_bytes: 1, ..PartitionConfig::default() }
}
