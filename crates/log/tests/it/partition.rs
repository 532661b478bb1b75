//! What a partition does when nothing is wrong, and when it is full, refused or asked for odd things.

use base::batch::{BatchError, BatchHeader};
use base::disk::memory::Fault;
use base::records;
use base::{Offset, Term, Tick, Timestamp};
use bytes::{Bytes, BytesMut};
use log::{AppendError, DeleteError, PartitionConfig, ReadError, ReadLimit, TimestampType};

use crate::world::{World, batch, batch_at, small_files, values};

#[test]
fn what_was_appended_is_committed_by_a_flush_and_read_back() {
    let mut world = World::new(PartitionConfig::default());
    let first = world.put(&["a", "b"]);
    assert_eq!((first.base_offset, first.next_offset), (Offset(0), Offset(2)));
    assert_eq!(world.put(&["c"]).base_offset, Offset(2));
    assert_eq!(world.partition.committed(), Offset(0));
    assert!(world.values().is_empty(), "consumers see committed data only");
    assert_eq!(values(&world.reader(), ReadLimit::End), ["a", "b", "c"]);
    assert_eq!(world.flush(), Ok(Offset(3)));
    assert_eq!(world.values(), ["a", "b", "c"]);
    assert_eq!(world.partition.end(), Offset(3));
}

#[test]
fn the_bytes_on_disk_are_the_producers_but_for_offset_and_epoch() {
    let mut world = World::new(PartitionConfig::default());
    world.put(&["x"]);
    let sent = batch(&["a", "b"]);
    world.append(sent.clone()).unwrap();
    world.flush().unwrap();
    let stored = world.reader().read(Offset(1), 1, ReadLimit::Committed).unwrap().bytes;
    assert_eq!(stored[16..], sent[16..]);
    let header = BatchHeader::check(&stored).unwrap();
    assert_eq!((header.base_offset, header.leader_epoch), (Offset(1), 1));
}

#[test]
fn a_fetch_inside_a_batch_gives_it_whole_and_at_least_one() {
    let mut world = World::new(small_files());
    for at in 0..20 {
        world.put(&[&format!("{at}a"), &format!("{at}b"), &format!("{at}c")]);
    }
    world.flush().unwrap();
    let reader = world.reader();
    for offset in 0..60 {
        let fetched = reader.read(Offset(offset), 0, ReadLimit::Committed).unwrap();
        let header = BatchHeader::check(&fetched.bytes).unwrap();
        assert_eq!(header.size_bytes, fetched.bytes.len());
        assert_eq!(header.base_offset, Offset(offset / 3 * 3));
        assert_eq!(fetched.next, header.next_offset());
    }
    assert!(world.log_files().len() > 3);
    let all = reader.read(Offset(0), usize::MAX, ReadLimit::Committed).unwrap();
    assert!(all.bytes.len() > 200 && all.next > Offset(3), "as much as fits: {all:?}");
}

#[test]
fn out_of_range_is_said() {
    let mut world = World::new(PartitionConfig::default());
    world.put(&["a"]);
    let reader = world.reader();
    assert!(reader.read(Offset(1), 10, ReadLimit::End).unwrap().bytes.is_empty());
    assert!(reader.read(Offset(1), 10, ReadLimit::Committed).unwrap().bytes.is_empty(), "waits for the commit");
    let out = ReadError::OutOfRange { offset: Offset(2), start: Offset(0), end: Offset(1) };
    assert_eq!(reader.read(Offset(2), 10, ReadLimit::Committed), Err(out));
    assert!(reader.read(Offset(-1), 10, ReadLimit::Committed).is_err());
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let config = small_files();
    let mut world = World::new(config.clone());
    let mut expected = Vec::new();
    for round in 0..5 {
        for at in 0..7 {
            let value = format!("{round}.{at}");
            world.put(&[&value]);
            expected.push(value);
            if at % 2 == 0 {
                world.flush().unwrap();
            }
        }
        world = if round % 2 == 0 {
            let disk = world.disk.clone();
            world.partition.close().unwrap();
            World::open(disk, config.clone()).unwrap()
        } else {
            world.killed(config.clone())
        };
        assert_eq!(world.values(), expected);
        assert_eq!(world.partition.committed(), world.partition.end());
    }
    assert_eq!(world.partition.term(), Term(5));
}

#[test]
fn a_clean_restart_reads_nothing_and_an_idle_one_writes_nothing() {
    let mut world = World::new(PartitionConfig::default());
    world.put(&["a"]);
    world.flush().unwrap();
    let disk = world.disk.clone();
    world.partition.close().unwrap();
    let before = disk.dump();
    for _ in 0..3 {
        let world = World::open(disk.clone(), PartitionConfig::default()).unwrap();
        assert_eq!(world.recovery.scanned_bytes, 0);
        assert_eq!(world.values(), ["a"]);
        world.partition.close().unwrap();
    }
    assert!(disk.dump() == before);
}

#[test]
fn files_roll_by_size_age_and_term() {
    let mut world = World::new(PartitionConfig { file_age_ms_max: 1000, ..small_files() });
    for _ in 0..6 {
        world.put(&["some bytes that fill a file"]);
    }
    world.flush().unwrap();
    let by_size = world.log_files();
    assert!(by_size.len() >= 2 && by_size.iter().all(|(_, len)| *len <= 400), "{by_size:?}");
    world.now = Tick(world.now.0 + 999);
    world.partition.tick(world.now, world.wall);
    world.put(&["x"]);
    assert_eq!(world.log_files().len(), by_size.len(), "not old yet");
    world.now = Tick(world.now.0 + 1);
    world.partition.tick(world.now, world.wall);
    world.put(&["x"]);
    assert_eq!(world.log_files().len(), by_size.len() + 1);
    world.flush().unwrap();
    let mut world = world.killed(small_files());
    world.put(&["x"]);
    let names = world.log_files();
    assert_eq!(names.len(), by_size.len() + 2);
    assert!(names.last().unwrap().0.ends_with("-0000000002.log"), "{names:?}");
}

#[test]
fn retention_by_size_keeps_what_is_asked_for_and_what_a_table_needs() {
    let config = PartitionConfig { retention_ms: None, retention_bytes: Some(1000), ..small_files() };
    let mut world = World::new(config.clone());
    for at in 0..40 {
        world.put(&[&format!("value {at:020}")]);
    }
    world.flush().unwrap();
    world.partition.set_retention_floor(Some(Offset(10)));
    let trimmed = world.partition.trim(world.now, world.wall);
    assert!(trimmed.files > 0 && trimmed.start <= Offset(10) && trimmed.start > Offset(6), "{trimmed:?}");
    world.partition.set_retention_floor(None);
    let trimmed = world.partition.trim(world.now, world.wall);
    assert!(world.partition.size_bytes() >= 1000 && world.partition.size_bytes() < 1400);
    let files_before = world.log_files().len();
    world.flush().unwrap();
    assert!(world.log_files().len() < files_before, "files go with the flush");
    let expected: Vec<_> = (trimmed.start.0..40).map(|at| format!("value {at:020}")).collect();
    assert_eq!(world.values(), expected);
    assert!(matches!(world.reader().read(Offset(3), 10, ReadLimit::End), Err(ReadError::OutOfRange { .. })));
    let world = world.killed(config);
    assert_eq!(world.partition.start(), trimmed.start);
    assert_eq!(world.values(), expected);
}

#[test]
fn retention_by_time_may_empty_the_log_and_offsets_go_on() {
    let config = PartitionConfig { retention_ms: Some(1000), ..small_files() };
    let mut world = World::new(config.clone());
    let start = world.wall;
    for at in 0..10 {
        world.append(batch_at(start.0, &[&format!("{at}")])).unwrap();
    }
    world.wall = Timestamp(start.0 + 1000);
    assert_eq!(world.partition.trim(world.now, world.wall).files, 0, "nothing is committed");
    world.flush().unwrap();
    assert_eq!(world.partition.trim(world.now, world.wall).files, 0, "not old enough");
    world.wall = Timestamp(start.0 + 1001);
    assert_eq!(world.partition.trim(world.now, world.wall).start, Offset(10));
    world.flush().unwrap();
    assert!(world.log_files().is_empty());
    let mut world = world.killed(config.clone());
    assert_eq!((world.partition.start(), world.partition.end()), (Offset(10), Offset(10)));
    assert_eq!(world.put(&["next"]).base_offset, Offset(10));
    world.flush().unwrap();
    assert_eq!(world.killed(config).values(), ["next"]);
}

#[test]
fn a_time_in_the_future_does_not_keep_a_file_for_ever() {
    let mut world = World::new(PartitionConfig { retention_ms: Some(1000), ..small_files() });
    world.append(batch_at(i64::MAX - 5, &["far"])).unwrap();
    world.flush().unwrap();
    world.wall = Timestamp(world.wall.0 + 1001);
    assert_eq!(world.partition.trim(world.now, world.wall).files, 0, "its producers are not saved yet");
    world.flush().unwrap();
    assert_eq!(world.partition.trim(world.now, world.wall).files, 1);
}

#[test]
fn records_are_deleted_up_to_an_offset() {
    let mut world = World::new(small_files());
    for at in 0..20 {
        world.put(&[&format!("{at}"), "-"]);
    }
    world.flush().unwrap();
    world.put(&["not committed"]);
    let held = |floor| Err(DeleteError::Held { floor: Offset(floor) });
    world.partition.set_retention_floor(Some(Offset(5)));
    assert_eq!(world.partition.delete_before(Offset(6)), held(5));
    world.partition.set_retention_floor(None);
    let out = DeleteError::OutOfRange { offset: Offset(41), start: Offset(0), end: Offset(40) };
    assert_eq!(world.partition.delete_before(Offset(41)), Err(out));
    assert_eq!(world.partition.delete_before(Offset(33)), Ok(Offset(33)));
    assert_eq!(world.partition.delete_before(Offset(7)), Ok(Offset(33)), "never back");
    let files = world.log_files().len();
    world.flush().unwrap();
    assert!(world.log_files().len() < files);
    let world = world.killed(small_files());
    assert_eq!(world.partition.start(), Offset(33));
    assert_eq!(world.values(), ["-", "17", "-", "18", "-", "19", "-", "not committed"]);
}

#[test]
fn an_offset_is_found_by_time() {
    let mut world = World::new(small_files());
    for at in 0..30 {
        world.append(batch_at(1000 + 10 * at, &["a", "b", "c"])).unwrap();
    }
    world.flush().unwrap();
    world.append(batch_at(5000, &["not committed"])).unwrap();
    let reader = world.reader();
    let found = |time| reader.offset_for_time(Timestamp(time)).unwrap().map(|(offset, time)| (offset.0, time.0));
    assert_eq!(found(0), Some((0, 1000)));
    assert_eq!(found(1001), Some((1, 1001)));
    assert_eq!(found(1003), Some((3, 1010)));
    assert_eq!(found(1292), Some((89, 1292)));
    assert_eq!(found(1293), None);
    assert_eq!(reader.max_timestamp(), Ok(Some((Offset(89), Timestamp(1292)))));
    world.partition.delete_before(Offset(2)).unwrap();
    assert_eq!(found(0), Some((2, 1002)));
}

#[test]
fn leader_epochs_end_where_the_next_begins() {
    let mut world = World::new(PartitionConfig::default());
    assert_eq!(world.reader().epoch_end(0), (0, Offset(0)));
    for _ in 0..2 {
        world.put(&["a", "b"]);
        world.flush().unwrap();
        world = world.killed(PartitionConfig::default());
    }
    world.put(&["c"]);
    world.flush().unwrap();
    let reader = world.reader();
    assert_eq!(reader.epoch_end(0), (0, Offset(0)));
    assert_eq!(reader.epoch_end(1), (1, Offset(2)));
    assert_eq!(reader.epoch_end(2), (2, Offset(4)));
    assert_eq!(reader.epoch_end(3), (3, Offset(5)));
    assert_eq!(reader.epoch_end(4), (-1, Offset(-1)));
    assert_eq!(reader.epoch_end(-1), (-1, Offset(-1)));
}

#[test]
fn the_time_of_the_append_is_written_into_the_batch() {
    let config = PartitionConfig { timestamp_type: TimestampType::LogAppendTime, ..PartitionConfig::default() };
    let mut world = World::new(config);
    let appended = world.put(&["a", "b"]);
    assert_eq!(appended.log_append_time, Some(world.wall));
    world.flush().unwrap();
    let bytes = world.reader().read(Offset(0), 1, ReadLimit::Committed).unwrap().bytes;
    let decoded = records::decode(&bytes).unwrap();
    assert!(decoded.iter().all(|record| record.unwrap().timestamp == world.wall));
    let found = world.reader().offset_for_time(world.wall).unwrap();
    assert_eq!(found, Some((Offset(0), world.wall)));
}

#[test]
fn a_bad_batch_is_refused_with_its_reason_and_leaves_nothing() {
    let mut world = World::new(PartitionConfig { batch_bytes_max: 200, ..PartitionConfig::default() });
    let good = batch(&["good"]);
    let with = |at: usize, value: u8, crc: bool| {
        let mut bytes = BytesMut::from(&good[..]);
        bytes[at] = value;
        if crc {
            let sum = base::checksum::crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&sum.to_be_bytes());
        }
        bytes.freeze()
    };
    let invalid = |result| matches!(result, Err(AppendError::Invalid(_)));
    assert!(invalid(world.append(Bytes::new())));
    assert!(invalid(world.append(good.slice(..good.len() - 1))));
    assert!(invalid(world.append(with(70, b'!', false))), "checksum");
    assert!(invalid(world.append(with(16, 1, false))), "magic");
    assert!(invalid(world.append(with(60, 9, true))), "count");
    let count = world.append(with(26, 1, true));
    assert!(matches!(count, Err(AppendError::Invalid(BatchError::Count { .. }))), "{count:?}");
    for attributes in [0x08, 0x10, 0x20] {
        let refused = world.append(with(22, attributes, true));
        assert!(matches!(refused, Err(AppendError::Unsupported(_))), "{refused:?}");
    }
    let large = world.append(batch(&["x".repeat(200).as_str()]));
    assert!(matches!(large, Err(AppendError::TooLarge { bytes_max: 200, .. })));
    assert_eq!(world.partition.end(), Offset(0));
    assert_eq!(world.append(good).unwrap().base_offset, Offset(0));
}

#[test]
fn several_batches_in_one_append_follow_one_another() {
    let mut world = World::new(small_files());
    let joined = [batch(&["a", "b"]), batch(&["c"]), batch(&["d"])].concat();
    let appended = world.append(Bytes::from(joined)).unwrap();
    assert_eq!((appended.base_offset, appended.next_offset), (Offset(0), Offset(4)));
    world.flush().unwrap();
    assert_eq!(world.values(), ["a", "b", "c", "d"]);
}

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    for room in (0..900).step_by(7) {
        let mut world = World::new(small_files());
        let used: usize = world.disk.dump().iter().map(|(_, bytes)| bytes.len()).sum();
        world.disk.set_capacity(used as u64 + room);
        let mut expected = Vec::new();
        let mut refused = 0;
        for at in 0..12 {
            match world.append(batch(&[&format!("value {at}")])) {
                Ok(_) => expected.push(format!("value {at}")),
                Err(AppendError::DiskFull) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            world.flush().unwrap();
            assert_eq!(world.values(), expected, "reads go on");
        }
        assert!(refused > 0, "room {room}");
        world.disk.set_capacity(1 << 30);
        assert_eq!(world.put(&["again"]).base_offset, Offset(expected.len() as i64));
        expected.push("again".to_owned());
        world.flush().unwrap();
        assert_eq!(world.values(), expected);
        let world = world.killed(small_files());
        assert_eq!(world.values(), expected);
        assert_eq!(world.recovery.findings, Vec::<String>::new());
    }
}

#[test]
fn a_full_disk_does_not_stop_retention() {
    let config = PartitionConfig { retention_bytes: Some(500), ..small_files() };
    let mut world = World::new(config);
    for at in 0..20 {
        world.put(&[&format!("value {at}")]);
    }
    world.flush().unwrap();
    world.disk.fault(Fault::Full);
    let trimmed = world.partition.trim(world.now, world.wall);
    let before = world.log_files().len();
    world.flush().unwrap();
    assert_eq!(world.log_files().len(), before - trimmed.files);
}

#[test]
fn a_sync_error_stops_the_partition_for_good_and_reads_go_on() {
    let mut world = World::new(PartitionConfig::default());
    world.put(&["a"]);
    world.flush().unwrap();
    world.put(&["b"]);
    world.disk.fault(Fault::Sync { after_ops: 0 });
    let stopped = world.flush().unwrap_err();
    assert!(stopped.reason.contains("fsync failed"), "{stopped}");
    world.disk.heal();
    assert_eq!(world.append(batch(&["c"])), Err(AppendError::Stopped(stopped.clone())));
    assert!(world.partition.flush_job().is_none(), "never tried again");
    assert_eq!(world.partition.committed(), Offset(1));
    assert_eq!(world.partition.stopped(), Some(&stopped));
    assert_eq!(world.values(), ["a"]);
    assert!(world.partition.delete_before(Offset(1)).is_err());
    assert!(world.partition.close().is_err());
}

#[test]
fn a_write_error_stops_the_partition() {
    let mut world = World::new(PartitionConfig::default());
    world.put(&["a"]);
    world.flush().unwrap();
    world.disk.fault(Fault::Write { after_ops: 0 });
    assert!(matches!(world.append(batch(&["b"])), Err(AppendError::Stopped(_))));
    world.disk.heal();
    assert!(matches!(world.append(batch(&["b"])), Err(AppendError::Stopped(_))));
    assert_eq!(world.values(), ["a"]);
    assert_eq!(world.killed(PartitionConfig::default()).values(), ["a"]);
}

#[test]
fn one_flush_job_is_out_at_a_time_and_covers_what_was_written_before_it() {
    let mut world = World::new(PartitionConfig::default());
    world.put(&["a"]);
    let job = world.partition.flush_job().unwrap();
    world.put(&["b"]);
    assert!(world.partition.flush_job().is_none());
    assert_eq!(world.partition.flushed(job.run()), Ok(Offset(1)));
    assert_eq!(world.flush(), Ok(Offset(2)));
    assert!(world.partition.flush_job().is_none(), "nothing is left");
}

#[test]
fn a_reader_on_another_thread_sees_whole_batches_only() {
    let mut world = World::new(PartitionConfig { file_bytes_max: 20_000, ..PartitionConfig::default() });
    let reader = world.reader();
    let watcher = std::thread::spawn(move || {
        let mut at = Offset(0);
        while at < Offset(3000) {
            let fetched = reader.read(at, 4000, ReadLimit::Committed).unwrap();
            for batch in base::batch::split(&fetched.bytes) {
                let (header, bytes) = batch.unwrap();
                BatchHeader::check(&bytes).unwrap();
                assert_eq!(header.base_offset, at);
                at = header.next_offset();
            }
            assert_eq!(fetched.next, at);
        }
    });
    for at in 0..1000 {
        world.put(&["a", &format!("{at}"), &"x".repeat(at % 90)]);
        if at % 7 == 0 {
            world.flush().unwrap();
        }
    }
    world.flush().unwrap();
    watcher.join().unwrap();
}

#[test]
fn a_restart_after_a_kill_reads_what_came_after_the_last_checkpoint() {
    let mut world = World::new(PartitionConfig::default());
    let value = "x".repeat(300_000);
    for _ in 0..5 {
        world.put(&[&value]);
        world.flush().unwrap();
    }
    world.now = Tick(world.now.0 + 30_000);
    world.partition.tick(world.now, world.wall);
    world.flush().unwrap();
    world.put(&["after"]);
    world.flush().unwrap();
    let world = world.killed(PartitionConfig::default());
    assert!(world.recovery.scanned_bytes < 100, "{}", world.recovery.scanned_bytes);
    assert_eq!(world.partition.end(), Offset(6));
    assert_eq!(world.reader().read(Offset(5), 1, ReadLimit::Committed).unwrap().next, Offset(6));
}
