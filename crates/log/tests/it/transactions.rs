//! Transactions in one partition: what is taken, what is stable, what was aborted; over restarts and lost indexes.

use base::batch::{BatchHeader, Codec};
use base::records::BatchBuilder;
use base::{Offset, ProducerEpoch, ProducerId, Tick, Timestamp};
use bytes::Bytes;
use log::{AppendError, Appended, LeftOut, Marker, PartitionConfig, ReadLimit};

use crate::world::{World, batch, batch_of, small_files};

pub fn part(producer: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    let builder = BatchBuilder::new(Codec::None).transactional();
    let mut builder = builder.producer(ProducerId(producer), ProducerEpoch(epoch), sequence);
    for value in values {
        builder.push(Timestamp(1_600_000_000_000), None, Some(value.as_bytes()), &[]);
    }
    builder.build().unwrap()
}

fn marker(producer: i64, epoch: i16, commit: bool) -> Marker {
    Marker { producer: ProducerId(producer), epoch: ProducerEpoch(epoch), commit, coordinator_epoch: 1 }
}

impl World {
    /// The coordinator says yes.
    fn allow(&mut self, producer: i64, epoch: i16) {
        let (producer, epoch) = (ProducerId(producer), ProducerEpoch(epoch));
        let question = self.partition.verify_begin(self.now, producer, epoch);
        assert!(self.partition.verified(self.now, question));
    }

    fn end(&mut self, marker: Marker) -> Result<Appended, AppendError> {
        self.partition.append_marker(self.now, self.wall, marker)
    }

    fn stable(&mut self) -> i64 {
        self.flush().unwrap();
        self.partition.last_stable().0
    }

    /// `producer@first` of what was aborted in a range.
    fn aborted(&self, from: i64, bytes_max: usize) -> String {
        let fetched = self.reader().read(Offset(from), bytes_max, ReadLimit::Stable).unwrap();
        let text: Vec<String> = fetched.aborted.iter().map(|one| format!("{}@{}", one.producer, one.first)).collect();
        text.join(" ")
    }

    /// What a consumer of committed transactions sees.
    fn seen(&self) -> Vec<String> {
        let (reader, mut values) = (self.reader(), Vec::new());
        let mut at = reader.start();
        while at < reader.last_stable() {
            let fetched = reader.read(at, 1, ReadLimit::Stable).unwrap();
            let mut left_out = LeftOut::new(&fetched.aborted);
            for one in base::batch::split(&fetched.bytes) {
                let (header, bytes) = one.unwrap();
                if !left_out.leaves_out(&header) {
                    let decoded = base::records::decode(&bytes).unwrap();
                    values.extend(
                        decoded
                            .iter()
                            .map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap()),
                    );
                }
            }
            at = fetched.next;
        }
        values
    }
}

#[test]
fn a_transaction_begins_after_its_coordinator_said_yes() {
    let mut world = World::new(PartitionConfig::default());
    let refused = AppendError::NotVerified { producer: ProducerId(1), epoch: ProducerEpoch(0) };
    assert_eq!(world.append(part(1, 0, 0, &["a"])), Err(refused.clone()));
    let question = world.partition.verify_begin(world.now, ProducerId(1), ProducerEpoch(0));
    assert_eq!(world.append(part(1, 0, 0, &["a"])), Err(refused.clone()), "asked is not answered");
    world.end(marker(1, 0, false)).unwrap();
    assert!(!world.partition.verified(world.now, question), "the transaction ended in between");
    assert_eq!(world.append(part(1, 0, 0, &["a"])), Err(refused));
    world.allow(1, 0);
    world.append(part(1, 0, 0, &["a"])).unwrap();
    world.append(part(1, 0, 1, &["b"])).unwrap();
    assert!(matches!(world.append(batch_of(1, 0, 2, &["c"])), Err(AppendError::InvalidTransaction(_))));
    assert!(world.append(part(1, 0, 1, &["b"])).unwrap().duplicate);
    world.end(marker(1, 0, true)).unwrap();
    world.append(batch_of(1, 0, 2, &["c"])).unwrap();
    assert!(world.append(part(-1, -1, -1, &["x"])).is_err());
    let mut forged = marker(1, 0, true).encode(Timestamp(0)).unwrap().to_vec();
    base::batch::assign(&mut forged, Offset(0), base::Term(0));
    assert!(matches!(world.append(forged.into()), Err(AppendError::Unsupported(_))), "a client writes no marker");
}

#[test]
fn a_yes_does_not_hold_for_ever() {
    let mut world = World::new(PartitionConfig::default());
    world.allow(1, 0);
    world.now = Tick(world.now.0 + log::limits::VERIFIED_MS);
    assert!(matches!(world.append(part(1, 0, 0, &["a"])), Err(AppendError::NotVerified { .. })));
}

#[test]
fn markers_fence_and_are_fenced() {
    let mut world = World::new(PartitionConfig::default());
    world.allow(1, 3);
    world.append(part(1, 3, 0, &["a"])).unwrap();
    let newer = Marker { coordinator_epoch: 5, ..marker(1, 4, false) };
    let written = world.end(newer).unwrap();
    assert!(!written.duplicate);
    let again = world.end(newer).unwrap();
    assert_eq!((again.duplicate, again.next_offset), (true, written.next_offset));
    assert!(matches!(world.end(marker(1, 4, true)), Err(AppendError::FencedCoordinator { current: 5, found: 1, .. })));
    let older = Marker { coordinator_epoch: 6, ..marker(1, 3, true) };
    assert!(matches!(world.end(older), Err(AppendError::FencedEpoch { .. })));
    assert!(matches!(world.append(part(1, 3, 1, &["b"])), Err(AppendError::FencedEpoch { .. })));
    world.allow(1, 4);
    assert!(matches!(world.append(part(1, 4, 1, &["b"])), Err(AppendError::OutOfOrderSequence { .. })));
    world.append(part(1, 4, 0, &["b"])).unwrap();
    let seen = world.partition.producers()[0];
    assert_eq!((seen.epoch.0, seen.last_sequence, seen.coordinator_epoch), (4, 0, 5));
    assert_eq!(seen.txn_start, Some(Offset(2)));
    assert_eq!(world.partition.open_transactions()[0].first, Offset(2));
    // A marker of a producer that wrote nothing here fences as well.
    world.end(marker(7, 2, false)).unwrap();
    assert!(matches!(world.append(batch_of(7, 1, 0, &["x"])), Err(AppendError::FencedEpoch { .. })));
}

/// Two transactions side by side over several files, plain records between them.
fn two_transactions(world: &mut World) {
    world.put(&["plain 0"]);
    world.allow(1, 0);
    world.append(part(1, 0, 0, &["lost 1"])).unwrap();
    world.allow(2, 0);
    world.append(part(2, 0, 0, &["kept 2"])).unwrap();
    world.put(&["plain 3"]);
    world.append(part(1, 0, 1, &["lost 4", "lost 5"])).unwrap();
    assert_eq!(world.stable(), 1);
    world.end(marker(2, 0, true)).unwrap();
    assert_eq!(world.stable(), 1);
    world.put(&["plain 7"]);
    world.end(marker(1, 0, false)).unwrap();
    assert_eq!(world.partition.last_stable(), Offset(1), "its end is not durable");
    assert_eq!(world.stable(), 9);
}

const SEEN: [&str; 4] = ["plain 0", "kept 2", "plain 3", "plain 7"];

#[test]
fn what_was_aborted_is_told_wherever_it_is_read() {
    let mut world = World::new(small_files());
    two_transactions(&mut world);
    assert_eq!(
        (0..9).map(|at| world.aborted(at, 1)).collect::<Vec<_>>(),
        ["", "1@1", "1@1", "1@1", "1@1", "1@1", "1@1", "1@1", "1@1"]
    );
    assert_eq!(world.aborted(0, 1 << 20), "1@1");
    assert_eq!(world.seen(), SEEN);
    world.allow(3, 0);
    world.append(part(3, 0, 0, &["open"])).unwrap();
    world.put(&["plain 10"]);
    assert_eq!(world.stable(), 9);
    assert_eq!(world.partition.committed(), Offset(11));
    assert_eq!(world.reader().read(Offset(9), 1 << 20, ReadLimit::Stable).unwrap().bytes.len(), 0);
    assert!(!world.reader().read(Offset(9), 1 << 20, ReadLimit::Committed).unwrap().bytes.is_empty());
    world.end(marker(3, 0, true)).unwrap();
    assert_eq!(world.stable(), 12);
    assert_eq!(world.seen()[4..], ["open", "plain 10"]);
}

#[test]
fn a_restart_knows_it_all_whatever_is_left_of_the_helping_files() {
    for (kill, spoil) in
        [(true, ""), (false, ""), (false, ".idx"), (false, ".producers"), (true, ".idx"), (false, ".idx .producers")]
    {
        let mut world = World::new(small_files());
        two_transactions(&mut world);
        world.allow(3, 0);
        world.append(part(3, 0, 0, &["open 9"])).unwrap();
        world.put(&["plain 10"]);
        world.flush().unwrap();
        let disk = world.disk.clone();
        let disk = if kill {
            disk.kill()
        } else {
            world.partition.close().unwrap();
            disk.crash()
        };
        for (path, _) in disk.dump() {
            if spoil.split_whitespace().any(|ending| path.ends_with(ending)) {
                base::disk::Disk::remove_file(&disk, &path).unwrap();
            }
        }
        let mut world = World::open(disk, small_files()).unwrap();
        assert_eq!(world.partition.last_stable(), Offset(9), "{kill} {spoil}");
        assert_eq!(world.seen(), SEEN, "{kill} {spoil}");
        assert_eq!(world.aborted(5, 1), "1@1", "{kill} {spoil}");
        let open = world.partition.open_transactions();
        assert_eq!((open.len(), open[0].producer, open[0].first), (1, ProducerId(3), Offset(9)));
        // The transaction goes on, without another question.
        world.append(part(3, 0, 1, &["open 11"])).unwrap();
        world.end(marker(3, 0, false)).unwrap();
        assert_eq!(world.stable(), 13);
        assert_eq!(world.seen()[4..], ["plain 10"]);
        assert!(matches!(
            world.end(Marker { coordinator_epoch: 0, ..marker(1, 0, true) }),
            Err(AppendError::FencedCoordinator { .. })
        ));
    }
}

#[test]
fn retention_keeps_what_is_open() {
    let config = PartitionConfig { retention_bytes: Some(1), ..small_files() };
    let mut world = World::new(config.clone());
    world.put(&["old"]);
    world.allow(1, 0);
    world.append(part(1, 0, 0, &["open"])).unwrap();
    for at in 0..30 {
        world.put(&[&format!("plain {at}")]);
    }
    world.flush().unwrap();
    for _ in 0..3 {
        world.partition.trim(world.now, world.wall);
        world.flush().unwrap();
    }
    assert!(world.partition.start() <= Offset(1), "{:?}", world.partition);
    world.partition.delete_before(Offset(5)).unwrap();
    assert_eq!(world.stable(), 5, "what is deleted holds nobody");
    let mut world = world.killed(config.clone());
    assert_eq!(world.partition.open_transactions()[0].first, Offset(1));
    world.end(marker(1, 0, false)).unwrap();
    assert_eq!(world.stable(), 33);
    for _ in 0..3 {
        world.partition.trim(world.now, world.wall);
        world.flush().unwrap();
    }
    assert!(world.partition.start() > Offset(20), "{:?}", world.partition);
}

#[test]
fn a_file_of_the_first_version_is_read() {
    let mut world = World::new(PartitionConfig::default());
    world.append(batch_of(4, 0, 0, &["a"])).unwrap();
    world.append(batch(&["b"])).unwrap();
    world.partition.close().unwrap();
    let disk = world.disk.crash();
    for (path, bytes) in disk.dump() {
        if path.ends_with(".idx") || path.ends_with(".producers") {
            assert_eq!(bytes[4..6], [0, 1], "{path}: without transactions the files are as they were");
        }
    }
    let mut world = World::open(disk, PartitionConfig::default()).unwrap();
    assert!(world.append(batch_of(4, 0, 0, &["a"])).unwrap().duplicate);
    world.allow(4, 0);
    world.append(part(4, 0, 1, &["c"])).unwrap();
    world.end(marker(4, 0, true)).unwrap();
    world.flush().unwrap();
    let bytes = world.reader().read(Offset(3), 1, ReadLimit::Stable).unwrap().bytes;
    assert!(BatchHeader::check(&bytes).unwrap().is_control());
}
