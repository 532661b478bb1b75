//! A seeded world: producers that begin, add, write, end, die and come back under their ids while their zombies go on; requests sent
//! twice and late; writes that are slow, fail, or fail and happened; marks that fail, are lost after they happened, and come late;
//! crashes, checkpoints. Checked: a transaction is committed at all of its targets or at none, as its producer was told; never two
//! outcomes; nobody who was fenced gets anything done; every request is answered in time; what is prepared is finished after a
//! restart, and nothing stays open; the same seed gives the same history.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{PartitionIndex, ProducerEpoch, ProducerId, Tick, Timestamp, TopicId, TopicPartition};

use super::super::*;

const IDS: usize = 3;
const TARGETS: u64 = 6;
const STEPS: usize = 2_000;
const TIMEOUT_MS: u64 = 5_000;
const ANSWER_MS_MAX: u64 = limits::WRITE_MS_MAX + 1_000;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(u64::try_from(bound).unwrap())).unwrap()
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

fn target(number: u64) -> Target {
    if number == 0 {
        return Target::Group("g".into());
    }
    let topic = TopicId(uuid::Uuid::from_u128(number.into()));
    Target::Partition(TopicPartition { topic, partition: PartitionIndex(0) })
}

/// What a partition (or a group's offsets) does with writes and marks.
#[derive(Default)]
struct Place {
    epochs: BTreeMap<ProducerId, i16>,
    open: BTreeMap<ProducerId, Vec<u64>>,
    /// The last mark carried out: coordinator's term and round.
    marked: BTreeMap<ProducerId, (u64, u64)>,
    committed: BTreeSet<u64>,
    aborted: BTreeSet<u64>,
}

/// A process that produces under a transactional id.
#[derive(Clone, Default)]
struct Client {
    producer: Option<Producer>,
    /// Its transaction, if one is under way: a number nobody else has.
    transaction: Option<u64>,
    added: BTreeSet<Target>,
    ending: Option<bool>,
    waits: Option<Ticket>,
    asked: Option<Request>,
}

struct World {
    random: Random,
    coordinator: Coordinator,
    term: u64,
    now: u64,
    tickets: u64,
    ids: i64,
    numbers: u64,
    /// Two processes per transactional id: one of them is the zombie of the other.
    clients: Vec<Client>,
    asked: BTreeMap<Ticket, (u64, usize, Request, Option<u64>)>,
    out: VecDeque<(WriteId, Vec<Record>)>,
    log: Vec<Record>,
    marks: Vec<(u64, MarkId, Mark, bool)>,
    places: BTreeMap<Target, Place>,
    /// What producers were told of their transactions.
    told: BTreeMap<u64, bool>,
    history: String,
    calm: bool,
    ended: [u32; 2],
}

impl World {
    fn new(seed: u64) -> Self {
        let mut coordinator = Coordinator::new(TransactionsConfig::default());
        coordinator.loaded(Tick(0), Timestamp(0));
        Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            coordinator,
            term: 1,
            now: 0,
            tickets: 0,
            ids: 0,
            numbers: 0,
            clients: vec![Client::default(); 2 * IDS],
            asked: BTreeMap::new(),
            out: VecDeque::new(),
            log: Vec::new(),
            marks: Vec::new(),
            places: (0..TARGETS).map(|number| (target(number), Place::default())).collect(),
            told: BTreeMap::new(),
            history: String::new(),
            calm: false,
            ended: [0; 2],
        }
    }

    fn id(client: usize) -> String {
        format!("t{}", client / 2)
    }

    fn wall(&self) -> Timestamp {
        Timestamp(i64::try_from(self.now).unwrap())
    }

    fn step(&mut self, input: Input) {
        for effect in self.coordinator.step(Tick(self.now), self.wall(), input) {
            self.history.push_str(&format!("{} {effect:?}\n", self.now));
            match effect {
                Effect::Persist(id, records) => self.out.push_back((id, records)),
                Effect::Mark(id, mark) => self.marks.push((self.term, id, mark, true)),
                Effect::Respond(ticket, response) => {
                    let (_, client, request, number) = self.asked.remove(&ticket).expect("an answer to nobody");
                    self.answered(ticket, client, &request, number, &response);
                }
            }
        }
    }

    fn ask(&mut self, client: usize, request: Request) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let number = self.clients[client].transaction;
        self.asked.insert(ticket, (self.now, client, request.clone(), number));
        let is_lost = !self.calm && self.random.one_in(8);
        self.clients[client].waits = if is_lost { None } else { Some(ticket) };
        self.clients[client].asked = Some(request.clone());
        self.step(Input::Request(ticket, request));
    }

    fn answered(&mut self, ticket: Ticket, at: usize, request: &Request, number: Option<u64>, response: &Response) {
        if let (Request::End { commit, .. }, Response::End(Ok(())), Some(number)) = (request, response, number) {
            let told = self.told.entry(number).or_insert(*commit);
            assert_eq!(told, commit, "transaction {number} has two outcomes");
        }
        let client = &mut self.clients[at];
        if client.waits != Some(ticket) {
            return;
        }
        client.waits = None;
        client.asked = None;
        match (request, response) {
            (Request::Init { .. }, Response::Init(Ok(producer))) => {
                *client = Client { producer: Some(*producer), ..Client::default() };
            }
            (Request::Add { targets, .. }, Response::Add(Ok(()))) => client.added.extend(targets.iter().cloned()),
            (Request::End { commit, .. }, Response::End(Ok(()))) => {
                self.ended[usize::from(*commit)] += 1;
                client.transaction = None;
                client.ending = None;
                client.added.clear();
            }
            (
                _,
                Response::Init(Err(TransactionError::Fenced { .. }))
                | Response::Add(Err(TransactionError::Fenced { .. } | TransactionError::UnknownProducer))
                | Response::End(Err(
                    TransactionError::Fenced { .. }
                    | TransactionError::UnknownProducer
                    | TransactionError::InvalidState(_),
                )),
            ) => *client = Client::default(),
            _ => {}
        }
    }

    fn act(&mut self, at: usize) {
        let client = self.clients[at].clone();
        let id = Self::id(at);
        if client.waits.is_some() && !self.random.one_in(20) {
            return;
        }
        // A lost answer: asked again, as it was. Whoever has begun to end asks for nothing else until told.
        if let Some(request) = client.asked.clone()
            && (client.ending.is_some() || self.random.one_in(2))
        {
            return self.ask(at, request);
        }
        let Some(producer) = client.producer else {
            // The process is started. The other one under the id, if there is one, is a zombie from then on.
            if self.random.one_in(4) {
                self.init(at, None);
            }
            return;
        };
        if let Some(commit) = client.ending {
            return self.ask(at, Request::End { id, producer, commit });
        }
        match (client.transaction, self.random.below(12)) {
            (_, 0) if self.random.one_in(4) => self.clients[at] = Client::default(),
            (None, 1) => self.init(at, Some(producer)),
            (None, _) => {
                self.numbers += 1;
                self.clients[at].transaction = Some(self.numbers);
            }
            (Some(_), 2..=4) => {
                let targets = vec![target(self.random.below(TARGETS)), target(self.random.below(TARGETS))];
                self.ask(at, Request::Add { id, producer, targets });
            }
            (Some(number), 5..=9) => self.produce(at, producer, number),
            (Some(_), _) if !client.added.is_empty() => {
                let commit = !self.random.one_in(3);
                self.clients[at].ending = Some(commit);
                self.ask(at, Request::End { id, producer, commit });
            }
            _ => {}
        }
    }

    fn init(&mut self, at: usize, expected: Option<Producer>) {
        self.ids += 1;
        let (id, timeout_ms) = (Self::id(at), i64::try_from(TIMEOUT_MS).unwrap());
        self.ask(at, Request::Init { id, timeout_ms, expected, fresh: ProducerId(self.ids) });
    }

    /// Writes to something that was added: the target verifies before the first of a transaction.
    fn produce(&mut self, at: usize, producer: Producer, number: u64) {
        let added: Vec<Target> = self.clients[at].added.iter().cloned().collect();
        if added.is_empty() {
            return;
        }
        let at_target = added[self.random.index(added.len())].clone();
        let known = self.places[&at_target].epochs.get(&producer.id).copied().unwrap_or(0);
        let is_open = known == producer.epoch.0 && self.places[&at_target].open.contains_key(&producer.id);
        if producer.epoch.0 < known {
            self.clients[at] = Client::default();
            return;
        }
        if !is_open {
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            let verify = Request::Verify { id: Self::id(at), producer, targets: vec![at_target.clone()] };
            let effects = self.coordinator.step(Tick(self.now), self.wall(), Input::Request(ticket, verify));
            let mut is_verified = false;
            for effect in effects {
                match effect {
                    Effect::Respond(answered, Response::Verify(result)) if answered == ticket => {
                        is_verified = result.is_ok();
                    }
                    Effect::Persist(id, records) => self.out.push_back((id, records)),
                    Effect::Mark(id, mark) => self.marks.push((self.term, id, mark, true)),
                    Effect::Respond(ticket, response) => {
                        let (_, client, request, number) = self.asked.remove(&ticket).unwrap();
                        self.answered(ticket, client, &request, number, &response);
                    }
                }
            }
            if !is_verified {
                return;
            }
        }
        let place = self.places.get_mut(&at_target).unwrap();
        place.epochs.insert(producer.id, producer.epoch.0);
        place.open.entry(producer.id).or_default().push(number);
    }

    /// One attempt reaches its target, or does not; the outcome is told, or is not known. It may come once more, late.
    fn carry_out_mark(&mut self) {
        if self.marks.is_empty() {
            return;
        }
        let at = self.random.index(self.marks.len());
        let (term, id, mark, tells) = self.marks.remove(at);
        let fails = !self.calm && self.random.one_in(4);
        let comes_again = !self.calm && self.random.one_in(6);
        if comes_again {
            self.marks.push((term, id, mark.clone(), false));
        }
        let is_done = !fails || self.random.one_in(2);
        if is_done {
            self.mark(term, &mark);
        }
        if tells && term == self.term {
            self.step(if fails { Input::MarkFailed(id) } else { Input::Marked(id) });
        }
    }

    fn mark(&mut self, term: u64, mark: &Mark) {
        let Producer { id, epoch: ProducerEpoch(epoch) } = mark.producer;
        let place = self.places.get_mut(&mark.target).unwrap();
        if place.marked.get(&id).is_some_and(|last| *last >= (term, mark.round)) {
            return;
        }
        place.marked.insert(id, (term, mark.round));
        let known = place.epochs.entry(id).or_insert(epoch);
        *known = epoch.max(*known);
        for number in place.open.remove(&id).unwrap_or_default() {
            if mark.commit {
                place.committed.insert(number)
            } else {
                place.aborted.insert(number)
            };
        }
    }

    fn write(&mut self) {
        let Some((id, records)) = self.out.pop_front() else { return };
        let fails = !self.calm && self.random.one_in(12);
        if !fails || self.random.one_in(2) {
            self.log.extend(records);
        }
        self.step(if fails { Input::WriteFailed(id) } else { Input::Persisted(id) });
    }

    fn crash(&mut self) {
        let kept = self.random.index(self.out.len() + 1);
        for (_, records) in self.out.drain(..).take(kept) {
            self.log.extend(records);
        }
        self.asked.clear();
        for client in &mut self.clients {
            client.waits = None;
        }
        self.term += 1;
        self.load();
    }

    fn load(&mut self) {
        let mut coordinator = Coordinator::new(TransactionsConfig::default());
        for record in &self.log {
            coordinator.load(&record.key, record.value.as_deref()).unwrap();
        }
        coordinator.loaded(Tick(self.now), self.wall());
        self.coordinator = coordinator;
    }

    /// The log becomes what a checkpoint says.
    fn checkpoint(&mut self) {
        let (mut records, mut after) = (Vec::new(), None);
        loop {
            let part = self.coordinator.checkpoint(after.as_deref(), 64);
            records.extend(part.records);
            after = part.last;
            if after.is_none() {
                break;
            }
        }
        self.log = records;
    }

    fn advance(&mut self, ms: u64) {
        self.now += ms;
        if self.coordinator.next_deadline().is_some_and(|at| at <= Tick(self.now)) {
            self.step(Input::Tick);
        }
        for (since, _, request, _) in self.asked.values() {
            assert!(self.now - since <= ANSWER_MS_MAX, "{request:?} has waited since {since}, now {}", self.now);
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.random.below(100) {
                0..50 => {
                    let at = self.random.index(self.clients.len());
                    self.act(at);
                }
                50..75 => self.write(),
                75..90 => self.carry_out_mark(),
                90 if self.random.one_in(4) => self.crash(),
                91 if self.out.is_empty() => self.checkpoint(),
                92 if self.random.one_in(4) => self.advance(TIMEOUT_MS),
                _ => {
                    let ms = self.random.below(100);
                    self.advance(ms);
                }
            }
        }
        self.calm_down();
    }

    /// No faults any more and nobody asks: everything is finished within a bound.
    fn calm_down(&mut self) {
        self.calm = true;
        for _ in 0..2_000 {
            while !self.out.is_empty() {
                self.write();
            }
            for _ in 0..self.marks.len() {
                self.carry_out_mark();
            }
            self.advance(50);
        }
        assert!(self.asked.is_empty(), "unanswered: {:?}", self.asked);
        assert_eq!(self.coordinator.unmarked(), 0);
        let open = [TransactionState::Ongoing, TransactionState::PrepareCommit, TransactionState::PrepareAbort];
        let list = Request::List { states: open.into(), producers: Vec::new(), longer_than_ms: None };
        let listed = self.coordinator.step(Tick(self.now), self.wall(), Input::Request(Ticket(0), list));
        assert_eq!(listed, [Effect::Respond(Ticket(0), Response::List(Ok(Vec::new())))]);
        let (mut committed, mut aborted) = (BTreeSet::<u64>::new(), BTreeSet::<u64>::new());
        for (at, place) in &self.places {
            assert!(place.open.is_empty(), "{at:?} has an open transaction: {:?}", place.open);
            committed.extend(&place.committed);
            aborted.extend(&place.aborted);
        }
        let torn: Vec<_> = committed.intersection(&aborted).collect();
        assert!(torn.is_empty(), "committed here and aborted there: {torn:?}");
        for (number, commit) in &self.told {
            let opposite = if *commit { &aborted } else { &committed };
            assert!(!opposite.contains(number), "transaction {number}: told {commit}, and it is not so");
        }
    }
}

#[test]
fn a_transaction_is_committed_everywhere_or_nowhere() {
    let mut ended = [0; 2];
    for seed in 0..150 {
        let mut world = World::new(seed);
        world.run();
        ended[0] += world.ended[0];
        ended[1] += world.ended[1];
    }
    assert!(ended[0] > 500 && ended[1] > 1_000, "too little happened: {ended:?}");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let mut worlds = [World::new(7), World::new(7)];
    worlds.iter_mut().for_each(World::run);
    assert_eq!(worlds[0].history, worlds[1].history);
}
