//! Bits that flip, files that go missing: what was durable is refused with its place, never cut off.

use base::disk::Disk;
use base::disk::memory::MemDisk;
use base::{Offset, Tick};
use log::{OpenError, PartitionConfig, ReadError, ReadLimit};

use crate::world::{DIR, World, batch, small_files};

/// Twelve records in several files, all flushed, the process killed. Indexes and producer snapshots of all
/// but the last file are there.
fn written() -> MemDisk {
    let mut world = World::new(small_files());
    for at in 0..12 {
        world.put(&[&format!("value {at:04}")]);
        world.flush().unwrap();
    }
    world.disk.kill()
}

fn files(disk: &MemDisk, extension: &str) -> Vec<(String, usize)> {
    let all = disk.dump().into_iter().map(|(path, bytes)| (path, bytes.len()));
    all.filter(|(path, _)| path.starts_with(DIR) && path.ends_with(extension)).collect()
}

fn expected() -> Vec<String> {
    (0..12).map(|at| format!("value {at:04}")).collect()
}

#[test]
fn no_flipped_bit_of_the_log_is_ever_served_or_cut_off() {
    let clean = written();
    for (path, len) in files(&clean, ".log") {
        for bit in (0..len as u64 * 8).step_by(3) {
            let disk = clean.kill();
            disk.flip_bit(&path, bit);
            let before = disk.dump();
            match World::open(disk.clone(), small_files()) {
                Err(OpenError::Corrupt { path: named, position, .. }) => {
                    assert_eq!(named, path);
                    assert!(position <= bit / 8);
                    assert!(disk.dump() == before, "nothing is touched");
                }
                Err(error) => panic!("{error}"),
                // A closed file is not read at the open. A read finds it, and gives the rest.
                Ok(world) => assert_served_without_damage(&world, &path),
            }
        }
    }
}

fn assert_served_without_damage(world: &World, path: &str) {
    assert_eq!(world.recovery.truncated_bytes, 0);
    let reader = world.reader();
    let mut corrupt = 0;
    for at in 0..12 {
        match reader.read(Offset(at), 1, ReadLimit::Committed) {
            Ok(fetched) => {
                let (header, _) = base::batch::split(&fetched.bytes).next().unwrap().unwrap();
                assert_eq!(header.leader_epoch, 1, "the epoch is under no checksum, but a file has one term");
                let decoded = base::records::decode(&fetched.bytes).unwrap();
                let record = decoded.iter().next().unwrap().unwrap();
                assert_eq!((record.offset, record.value.unwrap()), (Offset(at), format!("value {at:04}").as_bytes()));
            }
            Err(ReadError::Corrupt { path: named, .. }) => {
                assert_eq!(named, path);
                corrupt += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    // A flip in a note that no reader is given harms nobody.
    assert!(corrupt <= 5, "{corrupt} of 12 cannot be read");
}

#[test]
fn a_missing_piece_is_refused() {
    let clean = written();
    let logs = files(&clean, ".log");
    assert!(logs.len() >= 3);
    for (path, _) in &logs {
        let disk = clean.kill();
        disk.remove_file(path).unwrap();
        let opened = World::open(disk, small_files()).map(|world| world.values());
        assert!(matches!(opened, Err(OpenError::Corrupt { .. })), "{path}: {opened:?}");
    }
    for (path, len) in &logs {
        let disk = clean.kill();
        disk.open(path).unwrap().truncate(*len as u64 - 1).unwrap();
        let opened = World::open(disk, small_files()).map(|world| world.values());
        assert!(matches!(opened, Err(OpenError::Corrupt { .. })), "{path}: {opened:?}");
    }
    let disk = clean.kill();
    disk.remove_dir_all(DIR).unwrap();
    let opened = World::open(disk, small_files()).map(|world| world.values());
    assert!(matches!(opened, Err(OpenError::Missing { .. })), "{opened:?}");
}

#[test]
fn side_files_may_be_damaged_or_gone() {
    let clean = written();
    for extension in [".idx", ".producers"] {
        let side = files(&clean, extension);
        assert!(!side.is_empty());
        for (path, len) in side {
            let gone = clean.kill();
            gone.remove_file(&path).unwrap();
            assert_eq!(World::open(gone, small_files()).unwrap().values(), expected());
            for bit in 0..len as u64 * 8 {
                let disk = clean.kill();
                disk.flip_bit(&path, bit);
                assert_eq!(World::open(disk, small_files()).unwrap().values(), expected(), "{path} bit {bit}");
            }
        }
    }
}

#[test]
fn one_slot_of_the_mark_may_be_damaged_and_a_lost_mark_is_made_again_from_a_good_log() {
    let clean = written();
    let mark = format!("{DIR}/mark");
    for bit in (0..64 * 8).chain(4096 * 8..4160 * 8) {
        let disk = clean.kill();
        disk.flip_bit(&mark, bit);
        let world = World::open(disk, small_files()).unwrap();
        assert_eq!((world.values(), world.recovery.truncated_bytes), (expected(), 0));
    }
    let disk = clean.kill();
    disk.remove_file(&mark).unwrap();
    let world = World::open(disk.clone(), small_files()).unwrap();
    assert_eq!(world.values(), expected());
    assert!(world.recovery.findings[0].contains("mark was missing"), "{:?}", world.recovery.findings);
    let again = World::open(disk, small_files()).unwrap();
    assert_eq!((again.values(), again.recovery.findings.len()), (expected(), 0));

    let disk = clean.kill();
    disk.remove_file(&mark).unwrap();
    let (last, len) = files(&disk, ".log").pop().unwrap();
    disk.open(&last).unwrap().truncate(len as u64 - 1).unwrap();
    let opened = World::open(disk, small_files()).map(|world| world.values());
    assert!(matches!(opened, Err(OpenError::Corrupt { .. })), "without a mark nothing is cut off: {opened:?}");
}

#[test]
fn a_torn_tail_above_the_mark_is_cut_and_counted() {
    let mut world = World::new(PartitionConfig::default());
    world.put(&["a"]);
    world.flush().unwrap();
    let (path, flushed) = world.log_files().pop().unwrap();
    world.put(&["b"]);
    let (_, all) = world.log_files().pop().unwrap();
    for len in flushed..all {
        let disk = world.disk.kill();
        disk.open(&path).unwrap().truncate(len as u64).unwrap();
        let mut world = World::open(disk, PartitionConfig::default()).unwrap();
        assert_eq!(world.values(), ["a"]);
        assert_eq!(world.recovery.truncated_bytes, (len - flushed) as u64);
        assert_eq!(world.append(batch(&["c"])).unwrap().base_offset, Offset(1));
    }
}

#[test]
fn rubbish_in_the_folder_is_harmless() {
    let disk = written();
    for name in ["x.tmp", "1-2-3.log", "nonsense", "00000000000000000099-00000000000000000099-0000000001.idx"] {
        disk.create(&format!("{DIR}/{name}")).unwrap().append(&[b"rubbish"]).unwrap();
    }
    disk.create_dir_all(&format!("{DIR}/folder")).unwrap();
    assert_eq!(World::open(disk, small_files()).unwrap().values(), expected());
}

#[test]
fn hostile_bytes_are_refused_or_cut_off_and_never_panic() {
    let clean = written();
    let (path, _) = files(&clean, ".log").pop().unwrap();
    let good = clean.dump().into_iter().find(|(name, _)| *name == path).unwrap().1;
    let mut random = 1_u64;
    let mut below = |bound: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % bound
    };
    for round in 0..3000 {
        let mut bytes = if round % 3 == 0 { Vec::new() } else { good.clone() };
        for _ in 0..1 + below(4) {
            let at = below(bytes.len() + 1);
            match below(4) {
                0 => bytes.truncate(at),
                1 => bytes.splice(at..at, (0..below(200)).map(|byte| byte as u8)).for_each(drop),
                2 => bytes.splice(at.., good[below(good.len())..].iter().copied()).for_each(drop),
                _ => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = 0xff),
            }
        }
        // In the place of a log whose mark is at its beginning, and of one whose mark is at its end.
        let fresh = World::new(small_files()).disk.kill();
        let name = format!("{DIR}/00000000000000000000-00000000000000000001-0000000001.log");
        for (disk, path) in [(fresh, &name), (clean.kill(), &path)] {
            if disk.open(path).is_ok() {
                disk.remove_file(path).unwrap();
            }
            disk.create(path).unwrap().append(&[&bytes]).unwrap();
            if let Ok(world) = World::open(disk, small_files()) {
                let _read = world.reader().read(world.partition.start(), 1000, ReadLimit::End);
                let _found = world.reader().max_timestamp();
            }
        }
    }
}

#[test]
fn a_sole_voter_says_what_it_cannot_read_and_serves_the_rest() {
    let clean = written();
    let (path, len) = files(&clean, ".log").swap_remove(1);
    let disk = clean.kill();
    disk.flip_bit(&path, len as u64 * 4);
    let before = disk.dump();
    let mut world = World::open(disk.clone(), small_files()).unwrap();
    for _ in 0..20 {
        world.now = Tick(world.now.0 + 7 * 24 * 3_600_000);
        if let Some(job) = world.partition.care_job(world.now) {
            world.partition.cared(job.run());
        }
    }
    let status = world.partition.status();
    assert_eq!((status.unreadable.len(), status.mended, status.damaged), (1, 0, false), "{status:?}");
    assert!(status.unreadable[0].starts_with(&path), "{status:?}");
    assert!(world.partition.take_messages().is_empty(), "there is nobody to ask");
    let files_now =
        |disk: &MemDisk| disk.dump().into_iter().filter(|(path, _)| path.ends_with(".log")).collect::<Vec<_>>();
    assert_eq!(files_now(&disk), before.into_iter().filter(|(path, _)| path.ends_with(".log")).collect::<Vec<_>>());
    assert_served_without_damage(&world, &path);
    assert_eq!(world.append(batch(&["more"])).unwrap().base_offset, Offset(12));
}
