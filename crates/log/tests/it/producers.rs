//! Idempotent producers, from outside.

use base::{Offset, ProducerEpoch, ProducerId, Tick, Timestamp};
use log::{AppendError, PartitionConfig};

use crate::world::{World, batch_of, small_files};

const MAX: i32 = i32::MAX;

fn out_of_order(expected: i32, found: i32) -> Result<log::Appended, AppendError> {
    Err(AppendError::OutOfOrderSequence { producer: ProducerId(7), expected, found })
}

#[test]
fn a_batch_sent_again_gets_its_old_offsets() {
    let mut world = World::new(PartitionConfig::default());
    let mut sent = Vec::new();
    for at in 0..6 {
        let batch = batch_of(7, 0, at * 2, &["x", "y"]);
        let appended = world.append(batch.clone()).unwrap();
        assert!(!appended.duplicate);
        sent.push((batch, appended));
    }
    for (batch, first) in &sent[1..] {
        let again = world.append(batch.clone()).unwrap();
        assert!(again.duplicate);
        assert_eq!((again.base_offset, again.next_offset), (first.base_offset, first.next_offset));
    }
    assert_eq!(world.append(sent[0].0.clone()), out_of_order(12, 0), "more than five ago");
    assert_eq!(world.partition.end(), Offset(12));
}

#[test]
fn sequences_must_follow_and_epochs_fence() {
    let mut world = World::new(PartitionConfig::default());
    let mut send = |epoch, sequence| world.append(batch_of(7, epoch, sequence, &["x"]));
    assert_eq!(send(3, 1), out_of_order(0, 1), "who was never here begins at the beginning");
    assert!(send(3, 0).is_ok());
    assert_eq!(send(3, 2), out_of_order(1, 2));
    assert!(send(3, 1).is_ok());
    assert_eq!(send(4, 42), out_of_order(0, 42), "a new epoch starts at zero");
    assert!(send(4, 0).is_ok());
    let fenced =
        AppendError::FencedEpoch { producer: ProducerId(7), current: ProducerEpoch(4), found: ProducerEpoch(3) };
    assert_eq!(send(3, 42), Err(fenced));
    assert!(matches!(send(-1, 0), Err(AppendError::Unsupported(_))));
}

#[test]
fn sequences_wrap_around() {
    let mut world = World::new(PartitionConfig { producers_max: 1, ..PartitionConfig::default() });
    // Once someone was forgotten, it may be this one.
    assert!(world.append(batch_of(1, 0, 0, &["x"])).is_ok());
    assert!(world.append(batch_of(2, 0, 0, &["x"])).is_ok());
    assert!(world.append(batch_of(7, 0, MAX - 1, &["a"])).is_ok());
    let across = batch_of(7, 0, MAX, &["b", "c", "d"]);
    assert!(!world.append(across.clone()).unwrap().duplicate);
    assert!(world.append(across).unwrap().duplicate);
    assert_eq!(world.append(batch_of(7, 0, 3, &["e"])), out_of_order(2, 3));
    assert!(world.append(batch_of(7, 0, 2, &["e"])).is_ok());
}

#[test]
fn producers_are_known_after_a_restart_of_either_kind() {
    for clean in [true, false] {
        let mut world = World::new(small_files());
        let mut batches = Vec::new();
        for at in 0..20 {
            let batch = batch_of(at % 3, 0, i32::try_from(at / 3).unwrap(), &["x"]);
            let appended = world.append(batch.clone()).unwrap();
            batches.push((batch, appended.base_offset));
            if at % 4 == 0 {
                world.flush().unwrap();
            }
        }
        world.flush().unwrap();
        let mut world = if clean {
            let disk = world.disk.clone();
            world.partition.close().unwrap();
            World::open(disk, small_files()).unwrap()
        } else {
            world.killed(small_files())
        };
        for (batch, offset) in &batches[12..] {
            let again = world.append(batch.clone()).unwrap();
            assert!(again.duplicate, "clean: {clean}");
            assert_eq!(again.base_offset, *offset);
        }
        assert_eq!(world.partition.end(), Offset(20));
    }
}

#[test]
fn producers_outlive_the_files_they_wrote() {
    let mut world = World::new(small_files());
    let first = batch_of(7, 0, 0, &["x"]);
    world.append(first.clone()).unwrap();
    for at in 0..10 {
        world.append(batch_of(8, 0, at, &["some bytes that fill a file"])).unwrap();
    }
    world.flush().unwrap();
    let start = world.partition.delete_before(Offset(9)).unwrap();
    world.flush().unwrap();
    assert_eq!(start, Offset(9));
    let mut world = world.killed(small_files());
    assert!(world.append(first).unwrap().duplicate);
}

#[test]
fn the_silent_are_forgotten_and_their_number_is_bounded() {
    let config = PartitionConfig { producers_max: 16, producer_expiry_ms: 60_000, ..PartitionConfig::default() };
    let mut world = World::new(config);
    for producer in 0..50 {
        world.wall = Timestamp(world.wall.0 + 1);
        world.append(batch_of(producer, 0, 0, &["x"])).unwrap();
        assert_eq!(world.append(batch_of(producer, 0, 0, &["x"])).map(|appended| appended.duplicate), Ok(true));
    }
    assert!(!world.append(batch_of(0, 0, 0, &["x"])).unwrap().duplicate, "forgotten long ago");
    assert!(world.append(batch_of(49, 0, 0, &["x"])).unwrap().duplicate);
    world.wall = Timestamp(world.wall.0 + 60_001);
    world.now = Tick(world.now.0 + 60_001);
    world.partition.tick(world.now, world.wall);
    assert!(!world.append(batch_of(49, 0, 0, &["x"])).unwrap().duplicate);
}
