//! The journal on a disk that dies at every write, flips bits, fills up and fails to sync.

use base::disk::memory::{Fault, MemDisk};
use base::disk::{Disk, DiskError};

use super::*;

const DIR: &str = "control";
const CAPACITY_BYTES: u64 = 64 << 20;

fn open(disk: &MemDisk) -> Result<(Journal, Recovered), JournalError> {
    Journal::open(Arc::new(disk.clone()), DIR, &[NodeId(1)])
}

fn entry(term: u64, index: u64, data: &str) -> Entry {
    let payload = if data.is_empty() { Payload::Empty } else { Payload::Data(Bytes::copy_from_slice(data.as_bytes())) };
    Entry { term: Term(term), index: LogIndex(index), payload }
}

fn hard_state(term: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: Some(NodeId(1)), commit: LogIndex(commit) }
}

/// What a journal says, as one comparable value.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Said {
    snapshot: (LogIndex, Term, Bytes),
    hard_state: HardState,
    entries: Vec<Entry>,
}

fn said(journal: &Journal) -> Said {
    let Snapshot { index, term, data, .. } = journal.snapshot.clone();
    Said {
        snapshot: (index, term, data),
        hard_state: journal.hard_state,
        entries: journal.entries.iter().cloned().collect(),
    }
}

#[test]
fn what_was_synced_is_there_again() {
    let disk = MemDisk::new(1, CAPACITY_BYTES);
    let (mut journal, recovered) = open(&disk).unwrap();
    assert_eq!(recovered, Recovered { created: true, snapshot: None, entries: 0, truncated_bytes: 0 });
    journal.append(&[entry(1, 1, ""), entry(1, 2, "a")], Some(&hard_state(1, 0))).unwrap();
    journal.append(&[entry(1, 3, "b"), entry(1, 4, "c")], None).unwrap();
    journal.append(&[entry(2, 3, "other")], Some(&hard_state(2, 2))).unwrap();
    journal.sync().unwrap();
    let before = said(&journal);
    assert_eq!(before.entries.len(), 3);
    let (journal, recovered) = open(&disk.crash()).unwrap();
    assert_eq!(said(&journal), before);
    assert!(!recovered.created);
    assert_eq!(recovered.entries, 3);
    assert_eq!(journal.initial().members.voters, [NodeId(1)]);
    assert_eq!(journal.term_of(LogIndex(3)), Ok(Term(2)));
    assert_eq!(journal.term_of(LogIndex(4)), Err(StorageError::Unavailable));
}

#[test]
fn a_snapshot_replaces_the_entries_below_it() {
    let disk = MemDisk::new(2, CAPACITY_BYTES);
    let (mut journal, _) = open(&disk).unwrap();
    let entries: Vec<Entry> = (1..=10).map(|index| entry(1, index, "x")).collect();
    journal.append(&entries, Some(&hard_state(1, 9))).unwrap();
    journal.save_snapshot(LogIndex(8), Term(1), Bytes::from_static(b"state at 8")).unwrap();
    journal.append(&[entry(1, 11, "y")], None).unwrap();
    journal.sync().unwrap();
    let (journal, recovered) = open(&disk.crash()).unwrap();
    let snapshot = recovered.snapshot.unwrap();
    assert_eq!((snapshot.index, &snapshot.data[..]), (LogIndex(8), &b"state at 8"[..]));
    assert_eq!(journal.first_index(), LogIndex(9));
    assert_eq!(journal.last_index(), LogIndex(11));
    assert_eq!(journal.initial().applied, LogIndex(8));
    assert_eq!(journal.term_of(LogIndex(8)), Ok(Term(1)));
    assert_eq!(journal.term_of(LogIndex(7)), Err(StorageError::Compacted));
    assert_eq!(Storage::entries(&journal, LogIndex(8), LogIndex(9), 9), Err(StorageError::Compacted));
    assert_eq!(Storage::entries(&journal, LogIndex(9), LogIndex(12), 0).unwrap().len(), 1);
    let names: Vec<String> = disk.dump().into_iter().map(|(path, _)| path).collect();
    assert_eq!(names, ["control/00000000000000000002.journal"]);
}

#[test]
fn a_snapshot_of_another_history_replaces_the_whole_log() {
    let disk = MemDisk::new(3, CAPACITY_BYTES);
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&[entry(1, 1, "a"), entry(1, 2, "b"), entry(1, 3, "c")], None).unwrap();
    let voters = vec![NodeId(1), NodeId(2), NodeId(3)];
    let (index, term, data) = (LogIndex(2), Term(4), Bytes::from_static(b"theirs"));
    let snapshot = Snapshot { index, term, members: Members::new(&voters, &[NodeId(9)]), data };
    journal.install(snapshot.clone()).unwrap();
    let (journal, recovered) = open(&disk.crash()).unwrap();
    assert_eq!(recovered.snapshot, Some(snapshot));
    assert_eq!(journal.last_index(), LogIndex(2));
    assert_eq!(journal.initial().members.voters, voters);
    assert_eq!(journal.initial().members.learners, [NodeId(9)]);
    assert_eq!(journal.initial().hard_state.commit, LogIndex(2));
}

fn change(term: u64, index: u64, change: &crate::members::Change) -> Entry {
    Entry { term: Term(term), index: LogIndex(index), payload: Payload::Membership(change.encode()) }
}

#[test]
fn members_come_back_as_of_the_snapshot() {
    let disk = MemDisk::new(14, CAPACITY_BYTES);
    let (mut journal, _) = open(&disk).unwrap();
    let to = |ids: &[u32]| {
        let voters = ids.iter().map(|id| NodeId(*id)).collect();
        crate::members::Change::To { voters, learners: vec![NodeId(9)] }
    };
    let leave = crate::members::Change::Leave;
    journal.append(&[entry(1, 1, ""), change(1, 2, &to(&[1, 2, 3])), entry(1, 3, "x")], None).unwrap();
    journal.append(&[change(1, 4, &leave), change(1, 5, &to(&[2]))], Some(&hard_state(1, 3))).unwrap();
    journal.sync().unwrap();
    let disk = disk.crash();
    let (mut journal, _) = open(&disk).unwrap();
    assert_eq!(journal.initial().members.to_string(), "voters 1");
    assert_eq!(journal.initial().hard_state.commit, LogIndex(4), "a second change proves the first");
    journal.save_snapshot(LogIndex(3), Term(1), Bytes::from_static(b"at 3")).unwrap();
    let (mut journal, _) = open(&disk).unwrap();
    assert_eq!(journal.initial().members.to_string(), "voters 1 2 3, outgoing 1, learners 9");
    journal.save_snapshot(LogIndex(4), Term(1), Bytes::from_static(b"at 4")).unwrap();
    assert_eq!(journal.initial().members.to_string(), "voters 1 2 3, learners 9");
}

#[test]
fn a_snapshot_larger_than_a_frame_comes_back() {
    let disk = MemDisk::new(4, 512 << 20);
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&[entry(1, 1, "a")], None).unwrap();
    let data: Vec<u8> = (0..(70_u32 << 20) / 4).flat_map(u32::to_le_bytes).collect();
    journal.save_snapshot(LogIndex(1), Term(1), data.clone().into()).unwrap();
    let (_, recovered) = open(&disk.kill()).unwrap();
    assert!(recovered.snapshot.unwrap().data == data);
}

#[test]
fn an_entry_larger_than_a_frame_is_refused() {
    let disk = MemDisk::new(5, CAPACITY_BYTES);
    let (mut journal, _) = open(&disk).unwrap();
    let payload = Payload::Data(vec![0; Journal::ENTRY_BYTES_MAX + 1].into());
    let refused = journal.append(&[Entry { term: Term(1), index: LogIndex(1), payload }], None).unwrap_err();
    assert_eq!(refused.to_string(), "67108865 bytes do not fit into one frame of at most 67108864");
    journal.append(&[entry(1, 1, "a")], None).unwrap();
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A journal at work, and every state it may come back in: one for each frame it wrote.
struct Work {
    journal: Journal,
    states: Vec<Said>,
    /// The first of `states` that may still come back.
    synced: usize,
}

impl Work {
    fn new(journal: Journal) -> Self {
        let states = vec![said(&journal)];
        Self { journal, states, synced: 0 }
    }

    fn latest(&self) -> Said {
        self.states.last().unwrap().clone()
    }

    fn step(&mut self, random: &mut Random) -> Result<(), JournalError> {
        match random.below(10) {
            0..=5 => self.append(random),
            6..=8 => {
                self.journal.sync()?;
                self.synced = self.states.len() - 1;
                Ok(())
            }
            _ => self.snapshot(random),
        }
    }

    fn append(&mut self, random: &mut Random) -> Result<(), JournalError> {
        let mut state = self.latest();
        let term = state.hard_state.term.0 + u64::from(random.below(8) == 0);
        let last = state.snapshot.0.0 + state.entries.len() as u64;
        let first_free = state.hard_state.commit.0.max(state.snapshot.0.0) + 1;
        let from = if random.below(6) == 0 { first_free.min(last + 1) } else { last + 1 };
        let mut entries = Vec::new();
        for index in from..from + random.below(4) {
            let data = "d".repeat(usize::try_from(random.below(700)).unwrap());
            let entry = entry(term, index, &data);
            state.entries.truncate(usize::try_from(index - state.snapshot.0.0 - 1).unwrap());
            state.entries.push(entry.clone());
            self.states.push(state.clone());
            entries.push(entry);
        }
        let last = state.snapshot.0.0 + state.entries.len() as u64;
        let commit = first_free - 1 + random.below(last + 2 - first_free);
        let next = (random.below(2) == 0).then(|| hard_state(term, commit));
        if let Some(next) = next {
            state.hard_state = next;
            self.states.push(state);
        } else if entries.is_empty() {
            return Ok(());
        }
        self.journal.append(&entries, next.as_ref())
    }

    fn snapshot(&mut self, random: &mut Random) -> Result<(), JournalError> {
        let mut state = self.latest();
        let (base, commit) = (state.snapshot.0, state.hard_state.commit);
        if commit <= base {
            return Ok(());
        }
        let index = base.plus(1 + random.below(commit.0 - base.0));
        let term = self.journal.term_of(index).unwrap();
        let data = Bytes::from(vec![7; usize::try_from(random.below(2_000)).unwrap()]);
        state.entries.drain(..usize::try_from(index.0 - base.0).unwrap());
        state.snapshot = (index, term, data.clone());
        self.states.push(state);
        self.journal.save_snapshot(index, term, data)?;
        self.synced = self.states.len() - 1;
        Ok(())
    }
}

const STEPS: usize = 25;

/// Works until the disk dies at operation `dies_at`; returns the states that may come back.
fn work(disk: &MemDisk, seed: u64, dies_at: u64) -> Vec<Said> {
    disk.crash_at(dies_at);
    let Ok((journal, _)) = open(disk) else { return Vec::new() };
    let mut random = Random(seed);
    let mut work = Work::new(journal);
    for _ in 0..STEPS {
        if work.step(&mut random).is_err() {
            assert!(disk.is_dead());
            break;
        }
    }
    work.states.split_off(work.synced)
}

fn reopened(image: &MemDisk, allowed: &[Said], story: &str) {
    let (journal, _) = open(image).unwrap_or_else(|error| panic!("{story}: {error}"));
    let back = said(&journal);
    if !allowed.is_empty() {
        assert!(allowed.contains(&back), "{story}: came back as {back:?}, allowed {allowed:?}");
    }
    // What came back once may not change any more, and work goes on.
    let second = image.crash();
    let (mut journal, recovered) = open(&second).unwrap_or_else(|error| panic!("{story}, again: {error}"));
    assert_eq!((said(&journal), recovered.truncated_bytes), (back, 0), "{story}, again");
    let next = journal.last_index().next();
    journal.append(&[entry(99, next.0, "goes on")], None).unwrap();
    journal.sync().unwrap();
    let (journal, _) = open(&second.crash()).unwrap();
    assert_eq!(journal.last_index(), next, "{story}, after going on");
}

#[test]
fn dying_at_every_operation_loses_nothing_that_was_synced() {
    for seed in 0..40 {
        let disk = MemDisk::new(seed, CAPACITY_BYTES);
        work(&disk, seed, u64::MAX);
        for dies_at in 0..disk.ops() {
            let disk = MemDisk::new(seed, CAPACITY_BYTES);
            let allowed = work(&disk, seed, dies_at);
            assert!(disk.is_dead());
            reopened(&disk.crash(), &allowed, &format!("seed {seed}, power lost at {dies_at}"));
            reopened(&disk.kill(), &allowed, &format!("seed {seed}, killed at {dies_at}"));
        }
    }
}

#[test]
fn every_flipped_bit_that_was_durable_is_refused() {
    let disk = MemDisk::new(9, CAPACITY_BYTES);
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&[entry(1, 1, ""), entry(1, 2, "some data")], Some(&hard_state(1, 1))).unwrap();
    journal.save_snapshot(LogIndex(1), Term(1), Bytes::from_static(b"state")).unwrap();
    journal.append(&[entry(1, 3, "three")], None).unwrap();
    journal.sync().unwrap();
    let synced = journal.len_bytes() - 24;
    let before = said(&journal);
    let (path, bytes) = disk.dump().pop().unwrap();
    for bit in 0..bytes.len() as u64 * 8 {
        let image = disk.kill();
        image.flip_bit(&path, bit);
        let unopened = image.dump();
        match open(&image) {
            Err(JournalError::Damaged { path: at, .. }) => assert_eq!(at, path),
            Err(JournalError::Version { .. }) => assert!((64..96).contains(&bit), "bit {bit}"),
            Err(error) => panic!("bit {bit}: {error}"),
            Ok((journal, _)) => {
                assert!(bit / 8 >= synced, "bit {bit} was durable and its damage went unseen");
                assert_eq!(said(&journal), before, "bit {bit}");
                continue;
            }
        }
        assert!(image.dump() == unopened, "bit {bit}: a refused journal was changed");
    }
}

#[test]
fn a_refusal_says_where_and_what_to_do() {
    let disk = MemDisk::new(10, CAPACITY_BYTES);
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&[entry(1, 1, "one"), entry(1, 2, "two")], None).unwrap();
    journal.sync().unwrap();
    disk.flip_bit("control/00000000000000000001.journal", 8 * 150);
    let refused = open(&disk).unwrap_err().to_string();
    let expected = "control/00000000000000000001.journal: damaged at byte 124: a frame that a later one calls \
                    durable is bad; restore it from a backup or another replica";
    assert_eq!(refused, expected);
}

#[test]
fn frames_with_a_right_checksum_and_no_sense_are_refused() {
    type Write = fn(&mut Frames) -> Result<(), JournalError>;
    let nonsense: [Write; 7] = [
        |frames| frames.push(200, &[b"unknown kind"]),
        |frames| frames.push(ENTRY, &[b"short"]),
        |frames| push_entry(frames, &entry(1, 0, "at zero")),
        |frames| push_entry(frames, &entry(1, 7, "after a gap")),
        |frames| frames.push(HARD_STATE, &[b"19 bytes are too few"]).and_then(|()| frames.push(HARD_STATE, &[b"x"])),
        |frames| push_hard_state(frames, &hard_state(1, 5)),
        |frames| frames.push(MEMBERS, &[&9_u32.to_le_bytes(), &1_u32.to_le_bytes()]),
    ];
    for (number, write) in nonsense.into_iter().enumerate() {
        let disk = MemDisk::new(11, CAPACITY_BYTES);
        let (mut journal, _) = open(&disk).unwrap();
        let mut frames = Frames::default();
        write(&mut frames).unwrap();
        journal.file.append(&mut frames).unwrap();
        let refused = open(&disk).unwrap_err();
        assert!(matches!(refused, JournalError::Damaged { .. }), "{number}: {refused}");
    }
}

#[test]
fn any_bytes_are_an_error_and_not_a_panic() {
    let disk = MemDisk::new(12, CAPACITY_BYTES);
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&[entry(1, 1, "one"), entry(1, 2, "two")], Some(&hard_state(1, 1))).unwrap();
    journal.sync().unwrap();
    let (path, good) = disk.dump().pop().unwrap();
    let mut random = Random(12);
    for _ in 0..3_000 {
        let mut bytes = good.clone();
        bytes.truncate(usize::try_from(random.below(bytes.len() as u64 + 1)).unwrap());
        for _ in 0..random.below(6) {
            if let Some(last) = (bytes.len() as u64).checked_sub(1) {
                bytes[usize::try_from(random.below(last + 1)).unwrap()] = random.below(256).to_le_bytes()[0];
            }
        }
        let image = MemDisk::new(1, CAPACITY_BYTES);
        image.create_dir_all(DIR).unwrap();
        image.create(&path).unwrap().append(&[&bytes]).unwrap();
        let _opened_or_refused = open(&image);
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let disk = MemDisk::new(13, CAPACITY_BYTES);
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&[entry(1, 1, "one")], None).unwrap();
    journal.sync().unwrap();
    let free = disk.free_bytes().unwrap();
    disk.set_capacity(CAPACITY_BYTES - free + 60);
    let two = [entry(1, 2, "two"), entry(1, 3, "three")];
    let refused = journal.append(&two, None).unwrap_err();
    assert!(matches!(refused, JournalError::Disk(DiskError::Full { .. })), "{refused}");
    let refused = journal.save_snapshot(LogIndex(1), Term(1), Bytes::from(vec![0; 4_000])).unwrap_err();
    assert!(matches!(refused, JournalError::Disk(DiskError::Full { .. })), "{refused}");
    assert_eq!(journal.last_index(), LogIndex(1));
    // Entry 2 went to the disk whole before the room ended. It was refused, so it must not come back.
    assert_eq!(open(&disk.kill()).unwrap().0.last_index(), LogIndex(1));
    disk.set_capacity(CAPACITY_BYTES);
    journal.append(&two, None).unwrap();
    journal.sync().unwrap();
    let before = said(&journal);
    assert_eq!(said(&open(&disk.crash()).unwrap().0), before);
}

#[test]
fn after_a_failed_sync_nothing_is_written_any_more() {
    let disk = MemDisk::new(14, CAPACITY_BYTES);
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&[entry(1, 1, "one")], None).unwrap();
    disk.fault(Fault::Sync { after_ops: 0 });
    let failed = journal.sync().unwrap_err();
    assert!(matches!(failed, JournalError::Disk(DiskError::Sync { .. })), "{failed}");
    disk.heal();
    let cause =
        "control/00000000000000000001.journal: fsync failed (injected sync error); what the disk holds is unknown";
    let stopped = journal.append(&[entry(1, 2, "two")], None).unwrap_err();
    assert_eq!(stopped.to_string(), format!("stopped after an earlier error: {cause}"));
    assert!(matches!(journal.sync().unwrap_err(), JournalError::Stopped(_)));
}

#[test]
fn a_failed_rename_of_a_snapshot_stops_the_journal() {
    let disk = MemDisk::new(15, CAPACITY_BYTES);
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&[entry(1, 1, "one")], None).unwrap();
    journal.sync().unwrap();
    // create, append, sync, rename, sync_dir: the last one fails, so either file may be found later.
    disk.fault(Fault::Sync { after_ops: 4 });
    let failed = journal.save_snapshot(LogIndex(1), Term(1), Bytes::from_static(b"state")).unwrap_err();
    assert!(matches!(failed, JournalError::Disk(DiskError::Sync { .. })), "{failed}");
    disk.heal();
    assert!(matches!(journal.append(&[entry(1, 2, "two")], None), Err(JournalError::Stopped(_))));
}

#[test]
fn a_sync_beside_appends_covers_what_was_there_before_it() {
    for seed in 0..200 {
        let disk = MemDisk::new(seed, CAPACITY_BYTES);
        let (mut journal, _) = open(&disk).unwrap();
        let mut covered = 0;
        for round in 0..4 {
            let next = journal.last_index().0 + 1;
            // A snapshot is of what was committed: no hard state after it says less.
            let state = hard_state(1, next.saturating_sub(2));
            journal.append(&[entry(1, next, "before")], Some(&state)).unwrap();
            let job = journal.sync_job().unwrap().unwrap();
            journal.append(&[entry(1, next + 1, "meanwhile")], None).unwrap();
            if round == 2 && seed % 2 == 0 {
                // The file that the job is for is replaced; the new one has everything.
                journal.save_snapshot(LogIndex(next - 2), Term(1), Bytes::from_static(b"state")).unwrap();
                covered = next + 1;
            }
            let done = job.run();
            covered = covered.max(next);
            assert!(open(&disk.crash()).unwrap().0.last_index().0 >= covered, "seed {seed} round {round}");
            journal.synced(done).unwrap();
            let (crashed, _) = open(&disk.crash()).unwrap();
            assert!(crashed.last_index().0 >= covered, "seed {seed} round {round}");
        }
        journal.sync().unwrap();
        assert!(journal.sync_job().unwrap().is_none(), "nothing is left");
        assert_eq!(said(&open(&disk.crash()).unwrap().0), said(&journal));
    }
}

#[test]
fn a_sync_that_failed_beside_appends_stops_the_journal() {
    let disk = MemDisk::new(7, CAPACITY_BYTES);
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&[entry(1, 1, "before")], Some(&hard_state(1, 0))).unwrap();
    let job = journal.sync_job().unwrap().unwrap();
    journal.append(&[entry(1, 2, "meanwhile")], None).unwrap();
    disk.fault(Fault::Sync { after_ops: 0 });
    let done = job.run();
    disk.heal();
    assert!(journal.synced(done).is_err());
    assert!(journal.append(&[entry(1, 3, "after")], None).is_err());
    assert!(journal.sync().is_err() && journal.sync_job().is_err(), "no second try is believed");
}

#[test]
fn a_replaced_group_is_the_old_one_or_the_new_one_wherever_power_is_lost() {
    let anew = Snapshot {
        index: LogIndex(20),
        term: Term(9),
        members: Members::new(&[NodeId(2)], &[]),
        data: Bytes::from_static(b"anew"),
    };
    let mut outcomes = [0, 0];
    for dies_at in 0..40 {
        let disk = MemDisk::new(dies_at, CAPACITY_BYTES);
        let (mut journal, _) = open(&disk).unwrap();
        journal.append(&[entry(1, 1, "a"), entry(1, 2, "b")], Some(&hard_state(1, 2))).unwrap();
        journal.sync().unwrap();
        let old = said(&journal);
        drop(journal);
        disk.crash_at(dies_at);
        let is_done = Journal::replace(&disk, DIR, &anew).is_ok();
        let (journal, _) = open(&disk.crash()).unwrap();
        let is_new = said(&journal) != old;
        assert!(is_new || !is_done, "dead at {dies_at}");
        if is_new {
            let expected = HardState { term: Term(9), vote: None, commit: LogIndex(20) };
            assert_eq!((journal.hard_state, journal.snapshot.clone()), (expected, anew.clone()), "dead at {dies_at}");
            assert_eq!((journal.last_index(), journal.term_of(LogIndex(20))), (LogIndex(20), Ok(Term(9))));
        }
        outcomes[usize::from(is_new)] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 1), "{outcomes:?}");
}
