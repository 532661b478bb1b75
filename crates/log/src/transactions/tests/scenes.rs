//! Scenes: what is asked, what happens.

use base::{PartitionIndex, ProducerEpoch, ProducerId, Tick, Timestamp, TopicId, TopicPartition};

use super::super::*;

struct Scene {
    coordinator: Coordinator,
    now: u64,
    log: Vec<Record>,
    marks: Vec<(MarkId, Mark)>,
    tickets: u64,
    writes: bool,
}

fn partition(number: i32) -> Target {
    let topic = TopicId(uuid::Uuid::from_u128(1));
    Target::Partition(TopicPartition { topic, partition: PartitionIndex(number) })
}

fn producer(id: i64, epoch: i16) -> Producer {
    Producer { id: ProducerId(id), epoch: ProducerEpoch(epoch) }
}

impl Scene {
    fn new() -> Self {
        let mut coordinator = Coordinator::new(TransactionsConfig::default());
        coordinator.loaded(Tick(0), Timestamp(0));
        Self { coordinator, now: 0, log: Vec::new(), marks: Vec::new(), tickets: 0, writes: true }
    }

    fn wall(&self) -> Timestamp {
        Timestamp(i64::try_from(self.now).unwrap())
    }

    /// Carries out writes at once; answers the one response, if there is one.
    fn step(&mut self, input: Input) -> Option<Response> {
        let mut response = None;
        for effect in self.coordinator.step(Tick(self.now), self.wall(), input) {
            match effect {
                Effect::Respond(_, said) => response = Some(said),
                Effect::Mark(id, mark) => self.marks.push((id, mark)),
                Effect::Persist(id, _) if !self.writes => {
                    response = self.step(Input::WriteFailed(id)).or(response);
                }
                Effect::Persist(id, records) => {
                    self.log.extend(records);
                    response = self.step(Input::Persisted(id)).or(response);
                }
            }
        }
        response
    }

    fn ask(&mut self, request: Request) -> Response {
        self.tickets += 1;
        self.step(Input::Request(Ticket(self.tickets), request)).expect("an answer")
    }

    fn init(&mut self, expected: Option<Producer>, fresh: i64) -> Result<Producer, TransactionError> {
        let fresh = ProducerId(fresh);
        match self.ask(Request::Init { id: "t".into(), timeout_ms: 1_000, expected, fresh }) {
            Response::Init(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn add(&mut self, producer: Producer, target: Target) -> Result<(), TransactionError> {
        match self.ask(Request::Add { id: "t".into(), producer, targets: vec![target] }) {
            Response::Add(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn verify(&mut self, producer: Producer, target: Target) -> Result<(), TransactionError> {
        match self.ask(Request::Verify { id: "t".into(), producer, targets: vec![target] }) {
            Response::Verify(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, producer: Producer, commit: bool) -> Result<(), TransactionError> {
        match self.ask(Request::End { id: "t".into(), producer, commit }) {
            Response::End(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn state(&mut self) -> TransactionState {
        match self.ask(Request::Describe { id: "t".into() }) {
            Response::Describe(Ok(described)) => described.state,
            other => panic!("{other:?}"),
        }
    }

    fn mark_all(&mut self) {
        while let Some((id, _)) = self.marks.pop() {
            self.step(Input::Marked(id));
        }
    }

    fn restart(&mut self) {
        let mut coordinator = Coordinator::new(TransactionsConfig::default());
        for record in &self.log {
            coordinator.load(&record.key, record.value.as_deref()).unwrap();
        }
        coordinator.loaded(Tick(self.now), self.wall());
        self.coordinator = coordinator;
        self.marks.clear();
    }
}

#[test]
fn a_commit_is_answered_when_it_is_decided_and_done_when_every_target_knows() {
    let mut scene = Scene::new();
    let me = scene.init(None, 7).unwrap();
    assert_eq!(me, producer(7, 0));
    assert_eq!(scene.state(), TransactionState::Empty);
    assert_eq!(scene.end(me, true), Err(TransactionError::InvalidState(TransactionState::Empty)));
    assert_eq!(scene.add(me, partition(0)), Ok(()));
    assert_eq!(scene.add(me, Target::Group("g".into())), Ok(()));
    assert_eq!(scene.verify(me, partition(0)), Ok(()));
    assert_eq!(scene.verify(me, partition(1)), Err(TransactionError::InvalidState(TransactionState::Ongoing)));
    assert_eq!(scene.end(me, true), Ok(()));
    assert_eq!(scene.end(me, true), Err(TransactionError::Concurrent));
    assert_eq!(scene.end(me, false), Err(TransactionError::InvalidState(TransactionState::PrepareCommit)));
    assert_eq!(scene.add(me, partition(0)), Err(TransactionError::Concurrent));
    assert_eq!(scene.init(None, 8), Err(TransactionError::Concurrent));
    assert!(scene.marks.iter().all(|(_, mark)| mark.commit && mark.producer == me));
    assert_eq!(scene.marks.len(), 2);
    scene.mark_all();
    assert_eq!(scene.state(), TransactionState::CompleteCommit);
    assert_eq!(scene.end(me, true), Ok(()));
    assert_eq!(scene.end(me, false), Err(TransactionError::InvalidState(TransactionState::CompleteCommit)));
    assert_eq!(scene.verify(me, partition(0)), Err(TransactionError::InvalidState(TransactionState::CompleteCommit)));
    assert_eq!(scene.add(me, partition(0)), Ok(()));
}

#[test]
fn who_comes_under_the_same_id_aborts_and_fences_the_other() {
    let mut scene = Scene::new();
    let old = scene.init(None, 7).unwrap();
    scene.add(old, partition(0)).unwrap();
    assert_eq!(scene.init(None, 8), Err(TransactionError::Concurrent));
    assert_eq!(scene.state(), TransactionState::PrepareAbort);
    assert_eq!(scene.marks[0].1.producer, producer(7, 1));
    assert!(!scene.marks[0].1.commit);
    assert_eq!(scene.init(None, 8), Err(TransactionError::Concurrent));
    scene.mark_all();
    let new = scene.init(None, 8).unwrap();
    assert_eq!(new, producer(7, 2));
    for answer in [scene.add(old, partition(0)), scene.end(old, true), scene.verify(old, partition(0))] {
        assert_eq!(answer, Err(TransactionError::Fenced { asked: 0, current: 2 }));
    }
    assert_eq!(scene.init(Some(old), 9), Err(TransactionError::Fenced { asked: 0, current: 2 }));
    // A producer that raises its own epoch, and asks again because the answer was lost.
    assert_eq!(scene.init(Some(new), 9), Ok(producer(7, 3)));
    assert_eq!(scene.init(Some(new), 9), Ok(producer(7, 3)));
    assert_eq!(scene.init(Some(producer(7, 3)), 9), Ok(producer(7, 4)));
    assert_eq!(scene.end(producer(9, 0), true), Err(TransactionError::UnknownProducer));
}

#[test]
fn epochs_are_used_up_and_a_new_producer_id_is_given() {
    let mut scene = Scene::new();
    let mut me = scene.init(None, 7).unwrap();
    for _ in 1..i16::MAX {
        me = scene.init(Some(me), 8).unwrap();
    }
    assert_eq!(me, producer(7, i16::MAX - 1));
    assert_eq!(scene.init(Some(me), 8), Ok(producer(8, 0)));
    assert_eq!(scene.init(Some(me), 9), Ok(producer(8, 0)));
    // Fencing has one epoch left.
    let mut scene = Scene::new();
    let mut me = scene.init(None, 7).unwrap();
    for _ in 1..i16::MAX {
        me = scene.init(Some(me), 8).unwrap();
    }
    scene.add(me, partition(0)).unwrap();
    assert_eq!(scene.init(None, 8), Err(TransactionError::Concurrent));
    assert_eq!(scene.marks[0].1.producer, producer(7, i16::MAX));
    scene.mark_all();
    assert_eq!(scene.init(None, 8), Ok(producer(8, 0)));
}

#[test]
fn a_silent_producer_is_aborted_also_when_the_write_fails_at_first_and_after_a_restart() {
    for is_restarted in [false, true] {
        let mut scene = Scene::new();
        let me = scene.init(None, 7).unwrap();
        scene.add(me, partition(0)).unwrap();
        if is_restarted {
            scene.now = 600;
            scene.restart();
        }
        scene.now = 999;
        scene.step(Input::Tick);
        assert_eq!(scene.state(), TransactionState::Ongoing);
        scene.writes = false;
        scene.now = 1_000;
        scene.step(Input::Tick);
        assert_eq!(scene.state(), TransactionState::Ongoing);
        scene.writes = true;
        scene.now = scene.coordinator.next_deadline().unwrap().0;
        assert!(scene.now < 1_100);
        scene.step(Input::Tick);
        assert_eq!(scene.state(), TransactionState::PrepareAbort);
        assert_eq!(scene.end(me, true), Err(TransactionError::Fenced { asked: 0, current: 1 }));
        scene.mark_all();
        assert_eq!(scene.state(), TransactionState::CompleteAbort);
    }
}

#[test]
fn what_was_prepared_is_finished_after_a_restart_and_failed_marks_are_sent_again() {
    let mut scene = Scene::new();
    let me = scene.init(None, 7).unwrap();
    scene.add(me, partition(0)).unwrap();
    scene.add(me, partition(1)).unwrap();
    scene.end(me, true).unwrap();
    scene.restart();
    scene.step(Input::Tick);
    assert_eq!(scene.marks.len(), 2);
    for failures in 0..20 {
        let (failed, mark) = scene.marks.remove(0);
        assert!(mark.commit);
        scene.step(Input::MarkFailed(failed));
        let wait = scene.coordinator.next_deadline().unwrap().since(Tick(scene.now));
        assert!(wait <= limits::RETRY_MS_MAX, "{wait} ms after {failures} failures");
        scene.now += limits::RETRY_MS_MAX;
        scene.step(Input::Tick);
        assert_eq!(scene.marks.len(), 2);
    }
    scene.mark_all();
    assert_eq!(scene.state(), TransactionState::CompleteCommit);
    assert_eq!(scene.end(me, true), Ok(()));
}

#[test]
fn what_nobody_uses_is_forgotten_and_bounds_are_kept() {
    let mut scene = Scene::new();
    let me = scene.init(None, 7).unwrap();
    let many = (0..=i32::try_from(limits::PARTITIONS_MAX).unwrap()).map(partition).collect();
    let Response::Add(refused) = scene.ask(Request::Add { id: "t".into(), producer: me, targets: many }) else {
        panic!()
    };
    assert!(matches!(refused, Err(TransactionError::TooLarge { .. })));
    let long = "x".repeat(limits::ID_BYTES_MAX + 1);
    for id in [String::new(), long] {
        let refused = scene.ask(Request::End { id, producer: me, commit: true });
        assert_eq!(refused, Response::End(Err(TransactionError::InvalidId)));
    }
    for timeout_ms in [-1, 0, 15 * 60_000 + 1] {
        let asked = Request::Init { id: "u".into(), timeout_ms, expected: None, fresh: ProducerId(9) };
        assert!(matches!(scene.ask(asked), Response::Init(Err(TransactionError::InvalidTimeout { .. }))));
    }
    scene.now = 8 * 86_400_000;
    scene.step(Input::Tick);
    assert!(scene.coordinator.is_empty());
    scene.restart();
    assert!(scene.coordinator.is_empty());
}
