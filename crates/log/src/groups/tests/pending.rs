//! Offsets in transactions: seen by nobody before the commit, there after it, gone after an abort; whatever fails and comes again.

use base::{PartitionIndex, ProducerEpoch, ProducerId, Tick, Timestamp};

use super::super::*;

struct Scene {
    coordinator: Coordinator,
    log: Vec<Record>,
    tickets: u64,
    /// Of the records of the next write, so many are kept and the write fails.
    cut: Option<usize>,
}

impl Scene {
    fn new() -> Self {
        let mut coordinator = Coordinator::new(GroupsConfig::default());
        coordinator.loaded(Tick(0));
        Self { coordinator, log: Vec::new(), tickets: 0, cut: None }
    }

    fn step(&mut self, input: Input) -> Option<Response> {
        let mut response = None;
        for effect in self.coordinator.step(Tick(0), Timestamp(0), input) {
            match effect {
                Effect::Respond(_, said) => response = Some(said),
                Effect::Persist(id, mut records) => {
                    let cut = self.cut.take();
                    records.truncate(cut.unwrap_or(records.len()));
                    self.log.extend(records);
                    let told = if cut.is_some() { Input::WriteFailed(id) } else { Input::Persisted(id) };
                    response = self.step(told).or(response);
                }
            }
        }
        response
    }

    fn ask(&mut self, request: Request) -> Response {
        self.tickets += 1;
        self.step(Input::Request(Ticket(self.tickets), request)).expect("an answer")
    }

    fn guard(&mut self) -> u64 {
        match self.ask(Request::Guard) {
            Response::Guard(Ok(guard)) => guard,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, guard: u64, epoch: i16, offset: i64) -> Result<(), GroupError> {
        let offsets = (0..3).map(|partition| CommitOffset {
            topic: "t".into(),
            partition: PartitionIndex(partition),
            offset,
            leader_epoch: -1,
            metadata: String::new(),
        });
        let commit = TransactionCommit {
            group: "g".into(),
            producer: ProducerId(7),
            epoch: ProducerEpoch(epoch),
            guard,
            generation: None,
            member: String::new(),
            instance: None,
            offsets: offsets.collect(),
        };
        match self.ask(Request::CommitInTransaction(Box::new(commit))) {
            Response::CommitOffsets(result) => result.map(drop),
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, commit: bool, mark: (u64, u64)) -> Result<(), GroupError> {
        match self.ask(Request::EndTransaction { group: "g".into(), producer: ProducerId(7), commit, mark }) {
            Response::EndTransaction(result) => result,
            other => panic!("{other:?}"),
        }
    }

    /// The offsets of the three partitions, and how many are unstable.
    fn offsets(&mut self) -> (Vec<i64>, usize) {
        let partitions = (0..3).map(PartitionIndex).collect();
        let topics = Some(vec![TopicPartitions { topic: "t".into(), partitions }]);
        let Response::FetchOffsets(Ok(fetched)) = self.ask(Request::FetchOffsets { group: "g".into(), topics }) else {
            panic!("no offsets")
        };
        let all = self.ask(Request::FetchOffsets { group: "g".into(), topics: None });
        let Response::FetchOffsets(Ok(all)) = all else { panic!("no offsets") };
        assert_eq!(all.iter().map(|topic| topic.unstable.len()).sum::<usize>(), fetched[0].unstable.len());
        let known = fetched[0].partitions.iter().map(|(_, committed)| committed.as_ref().map_or(-1, |it| it.offset.0));
        (known.collect(), fetched[0].unstable.len())
    }

    fn restart(&mut self) {
        let mut coordinator = Coordinator::new(GroupsConfig::default());
        for record in &self.log {
            coordinator.load(&record.key, record.value.as_deref()).unwrap();
        }
        coordinator.loaded(Tick(0));
        self.coordinator = coordinator;
    }

    fn checkpoint(&mut self) {
        self.log = self.coordinator.checkpoint(None, usize::MAX).records;
    }
}

#[test]
fn pending_offsets_are_seen_after_the_commit_and_gone_after_an_abort_through_restarts() {
    for commit in [true, false] {
        for restarts in 0..8_u8 {
            let mut scene = Scene::new();
            let guard = scene.guard();
            scene.commit(guard, 0, 5).unwrap();
            assert_eq!(scene.offsets(), (vec![-1; 3], 3));
            if restarts & 1 != 0 {
                scene.restart();
            }
            if restarts & 2 != 0 {
                scene.checkpoint();
                scene.restart();
            }
            assert_eq!(scene.offsets(), (vec![-1; 3], 3));
            assert_eq!(scene.ask(Request::Delete { group: "g".into() }), Response::Delete(Err(GroupError::NotEmpty)));
            scene.end(commit, (1, 1)).unwrap();
            if restarts & 4 != 0 {
                scene.restart();
            }
            assert_eq!(scene.offsets(), (vec![if commit { 5 } else { -1 }; 3], 0));
            assert_eq!(scene.end(commit, (1, 1)), Ok(()));
        }
    }
}

#[test]
fn an_end_that_was_half_written_is_finished_when_it_comes_again() {
    for commit in [true, false] {
        for kept in 0..=6 {
            for is_restarted in [false, true] {
                let mut scene = Scene::new();
                let guard = scene.guard();
                scene.commit(guard, 0, 5).unwrap();
                scene.cut = Some(kept);
                assert_eq!(scene.end(commit, (1, 1)), Err(GroupError::NotPersisted));
                if is_restarted {
                    scene.restart();
                }
                scene.end(commit, (1, 1)).unwrap();
                let expected = (vec![if commit { 5 } else { -1 }; 3], 0);
                assert_eq!(scene.offsets(), expected, "{kept} records were kept");
                scene.restart();
                assert_eq!(scene.offsets(), expected, "{kept} records were kept");
            }
        }
    }
}

#[test]
fn what_comes_late_changes_nothing() {
    let mut scene = Scene::new();
    let early = scene.guard();
    scene.commit(early, 1, 5).unwrap();
    assert_eq!(scene.commit(early, 0, 6), Err(GroupError::FencedProducer));
    scene.end(true, (1, 4)).unwrap();
    // It was verified before the transaction ended: it would stay pending for ever.
    assert_eq!(scene.commit(early, 1, 6), Err(GroupError::TransactionEnded));
    let guard = scene.guard();
    scene.commit(guard, 1, 9).unwrap();
    // A mark of the transaction before.
    for mark in [(1, 4), (1, 3), (0, 9)] {
        scene.end(true, mark).unwrap();
        assert_eq!(scene.offsets(), (vec![5; 3], 3));
    }
    scene.end(false, (2, 1)).unwrap();
    assert_eq!(scene.offsets(), (vec![5; 3], 0));
    // A mark for a group that nobody knows.
    scene.coordinator = Coordinator::new(GroupsConfig::default());
    scene.coordinator.loaded(Tick(0));
    assert_eq!(scene.end(true, (3, 1)), Ok(()));
}
