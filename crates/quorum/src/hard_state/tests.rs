//! Hard states on a disk that dies at every write, flips bits and fills up.

use base::disk::memory::MemDisk;
use base::disk::{Disk, DiskError};
use base::{LogIndex, NodeId, Term};

use super::*;

const DIR: &str = "quorum";
const CAPACITY_BYTES: u64 = 64 << 20;

fn open(disk: &MemDisk) -> Result<HardStates, JournalError> {
    HardStates::open(Arc::new(disk.clone()), DIR)
}

fn key(number: u8) -> GroupKey {
    GroupKey([number; KEY_BYTES])
}

fn state(term: u64) -> HardState {
    HardState { term: Term(term), vote: Some(NodeId(3)), commit: LogIndex(term * 2) }
}

#[test]
fn what_was_synced_is_there_again() {
    let disk = MemDisk::new(1, CAPACITY_BYTES);
    let mut states = open(&disk).unwrap();
    assert_eq!(states.get(key(1)), None);
    states.put(key(1), state(1)).unwrap();
    states.put(key(2), state(1)).unwrap();
    states.put(key(1), state(2)).unwrap();
    states.remove(key(2)).unwrap();
    states.remove(key(9)).unwrap();
    states.sync().unwrap();
    let states = open(&disk.crash()).unwrap();
    assert_eq!(states.get(key(1)), Some(state(2)));
    assert_eq!(states.groups().collect::<Vec<_>>(), [key(1)]);
}

#[test]
fn the_file_does_not_grow_for_ever() {
    let disk = MemDisk::new(2, CAPACITY_BYTES);
    let mut states = open(&disk).unwrap();
    for round in 1..=3_000 {
        for group in 0..10 {
            states.put(key(group), state(round)).unwrap();
        }
        states.sync().unwrap();
    }
    let files = disk.dump();
    assert_eq!(files.len(), 1, "{:?}", files.iter().map(|(path, _)| path).collect::<Vec<_>>());
    assert!(files[0].1.len() as u64 <= REWRITE_BYTES_MIN + 2_000);
    assert!(states.number > 2);
    let back = open(&disk.crash()).unwrap();
    assert_eq!((0..10).map(|group| back.get(key(group))).collect::<Vec<_>>(), vec![Some(state(3_000)); 10]);
}

/// Puts and syncs until the disk dies; returns the maps that may come back.
fn work(disk: &MemDisk, dies_at: u64) -> Vec<BTreeMap<GroupKey, HardState>> {
    disk.crash_at(dies_at);
    let Ok(mut states) = open(disk) else { return vec![BTreeMap::new()] };
    let mut maps = vec![BTreeMap::new()];
    let mut map = BTreeMap::new();
    for round in 1..40_u64 {
        let group = key(u8::try_from(round % 5).unwrap());
        let outcome = if round % 7 == 0 {
            map.remove(&group);
            maps.push(map.clone());
            states.remove(group)
        } else {
            map.insert(group, state(round));
            maps.push(map.clone());
            states.put(group, state(round))
        };
        let outcome = match (outcome, round % 3, round % 11) {
            (Ok(()), _, 0) => states.rewrite().map(|()| maps.drain(..maps.len() - 1).count()),
            (Ok(()), 0, _) => states.sync().map(|()| maps.drain(..maps.len() - 1).count()),
            (outcome, ..) => outcome.map(|()| 0),
        };
        if outcome.is_err() {
            break;
        }
    }
    maps
}

#[test]
fn dying_at_every_operation_loses_nothing_that_was_synced() {
    for seed in 0..20 {
        let disk = MemDisk::new(seed, CAPACITY_BYTES);
        work(&disk, u64::MAX);
        for dies_at in 0..disk.ops() {
            let disk = MemDisk::new(seed, CAPACITY_BYTES);
            let allowed = work(&disk, dies_at);
            for image in [disk.crash(), disk.kill()] {
                let back = open(&image).unwrap_or_else(|error| panic!("seed {seed} operation {dies_at}: {error}"));
                assert!(allowed.contains(&back.states), "seed {seed} operation {dies_at}: {:?}", back.states);
                let again = open(&image.crash()).unwrap();
                assert_eq!(again.states, back.states, "seed {seed} operation {dies_at}, again");
            }
        }
    }
}

#[test]
fn every_flipped_bit_that_was_durable_is_refused() {
    let disk = MemDisk::new(3, CAPACITY_BYTES);
    let mut states = open(&disk).unwrap();
    states.put(key(1), state(1)).unwrap();
    states.put(key(2), state(2)).unwrap();
    states.sync().unwrap();
    let synced = states.file.len_bytes() - 24;
    let (path, bytes) = disk.dump().pop().unwrap();
    for bit in 0..bytes.len() as u64 * 8 {
        let image = disk.kill();
        image.flip_bit(&path, bit);
        match open(&image) {
            Err(JournalError::Damaged { .. } | JournalError::Version { .. }) => {}
            Err(error) => panic!("bit {bit}: {error}"),
            Ok(back) => {
                assert!(bit / 8 >= synced, "bit {bit} was durable and its damage went unseen");
                assert_eq!(back.states, states.states);
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let disk = MemDisk::new(4, CAPACITY_BYTES);
    let mut states = open(&disk).unwrap();
    states.put(key(1), state(1)).unwrap();
    states.sync().unwrap();
    disk.set_capacity(CAPACITY_BYTES - disk.free_bytes().unwrap() + 10);
    let refused = states.put(key(1), state(2)).unwrap_err();
    assert!(matches!(refused, JournalError::Disk(DiskError::Full { .. })), "{refused}");
    assert_eq!(states.get(key(1)), Some(state(1)));
    states.rewrite().unwrap();
    disk.set_capacity(CAPACITY_BYTES);
    states.put(key(1), state(2)).unwrap();
    states.sync().unwrap();
    assert_eq!(open(&disk.crash()).unwrap().get(key(1)), Some(state(2)));
}
