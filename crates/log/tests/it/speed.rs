//! How fast an append is, against the memory disk: what the room itself costs. Run with
//! `cargo test -p seawall-log --release --test it -- --ignored --nocapture speed`.

use std::time::{Duration, Instant};

use base::Offset;
use base::disk::memory::MemDisk;
use bytes::Bytes;
use log::{PartitionConfig, ReadLimit};

use crate::world::{World, batch_of};

/// Appends to one flush, as when many producers wait for one fsync.
const APPENDS_PER_FLUSH: i32 = 64;

#[test]
#[ignore = "a measurement"]
fn speed_of_append_and_read() {
    for (what, batch_bytes, count) in [("1 KB", 1000, 200_000), ("100 KB", 100_000, 10_000)] {
        for owned in [true, false] {
            measure(what, batch_bytes, count, owned);
        }
    }
}

/// `owned`: the buffer belongs to the batch alone, so that nothing is copied before the write.
fn measure(what: &str, batch_bytes: usize, count: i32, owned: bool) {
    let config = PartitionConfig { file_bytes_max: 64 << 20, ..PartitionConfig::default() };
    let mut world = World::open(MemDisk::new(1, u64::MAX), config).unwrap();
    let value = "x".repeat(batch_bytes - 80);
    let (mut spent, mut flushing) = (Duration::ZERO, Duration::ZERO);
    for sequence in 0..count {
        let batch = batch_of(7, 0, sequence, &[&value]);
        let kept = if owned { Bytes::new() } else { batch.clone() };
        let start = Instant::now();
        world.append(batch).unwrap();
        spent += start.elapsed();
        drop(kept);
        if sequence % APPENDS_PER_FLUSH == 0 {
            let start = Instant::now();
            world.flush().unwrap();
            flushing += start.elapsed();
        }
    }
    world.flush().unwrap();
    let per_second = f64::from(count) / spent.as_secs_f64();
    let bytes = world.reader().size_bytes() as f64 / 1e6;
    println!(
        "{what} batches, {}: {per_second:.0} appends/s, {:.0} MB/s; flush {:.1} us each",
        if owned { "buffer owned " } else { "buffer shared" },
        bytes / spent.as_secs_f64(),
        flushing.as_secs_f64() * 1e6 / f64::from(count / APPENDS_PER_FLUSH),
    );
    let start = Instant::now();
    let (reader, mut at) = (world.reader(), Offset(0));
    while at < world.partition.end() {
        at = reader.read(at, 1 << 20, ReadLimit::Committed).unwrap().next;
    }
    println!("{what} batches: read back at {:.0} MB/s in fetches of 1 MiB", bytes / start.elapsed().as_secs_f64());
}
