//! A seeded world: clients that join, assign, commit, stop and forget; writes that are slow, fail or are lost; crashes. Checked all
//! the while: one owner per partition and generation, nobody of another generation commits, what was acknowledged is there after
//! every crash, every request is answered in time, and the same seed gives the same history.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{PartitionIndex, Tick, Timestamp};
use bytes::Bytes;

use super::super::*;

const CLIENTS: usize = 5;
const PARTITIONS: i32 = 6;
const STEPS: usize = 1_500;
const REBALANCE_MS: u64 = 20_000;
/// Two full rebalances may follow each other while one join waits, and a write.
const ANSWER_MS_MAX: u64 = 2 * REBALANCE_MS + limits::WRITE_MS_MAX + 1_000;

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

#[derive(Clone, Debug, Default)]
struct Client {
    member: String,
    generation: Option<i32>,
    leads: bool,
    roster: Vec<String>,
    owned: Vec<i32>,
    waits: Option<Ticket>,
}

struct World {
    random: Random,
    coordinator: Coordinator,
    config: GroupsConfig,
    now: u64,
    tickets: u64,
    clients: Vec<Client>,
    asked: BTreeMap<Ticket, (u64, usize, Request)>,
    /// Written but not yet told: the disk may or may not have them.
    out: VecDeque<(WriteId, Vec<Record>)>,
    log: Vec<Record>,
    /// Offsets only grow: what is committed next.
    next_offset: i64,
    acknowledged: BTreeMap<i32, i64>,
    /// Who owned what, by generation: partition to instance or member.
    owners: BTreeMap<(i32, i32), String>,
    /// Which assignment a generation has: the leader's mark.
    marks: BTreeMap<i32, String>,
    history: String,
    commits: u32,
    refused: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let config = GroupsConfig { seed, initial_delay_ms: 50, ..GroupsConfig::default() };
        let mut coordinator = Coordinator::new(config.clone());
        coordinator.loaded(Tick(0));
        Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            coordinator,
            config,
            now: 0,
            tickets: 0,
            clients: vec![Client::default(); CLIENTS],
            asked: BTreeMap::new(),
            out: VecDeque::new(),
            log: Vec::new(),
            next_offset: 1,
            acknowledged: BTreeMap::new(),
            owners: BTreeMap::new(),
            marks: BTreeMap::new(),
            history: String::new(),
            commits: 0,
            refused: 0,
        }
    }

    fn step(&mut self, input: Input) {
        for effect in self.coordinator.step(Tick(self.now), Timestamp(i64::try_from(self.now).unwrap()), input) {
            self.history.push_str(&format!("{} {effect:?}\n", self.now));
            match effect {
                Effect::Persist(id, records) => self.out.push_back((id, records)),
                Effect::Respond(ticket, response) => {
                    let (_, client, request) = self.asked.remove(&ticket).expect("an answer to nobody");
                    self.answered(ticket, client, &request, response);
                }
            }
        }
    }

    /// Sends a request; about every tenth answer is lost on the way back.
    fn ask(&mut self, client: usize, request: Request) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.asked.insert(ticket, (self.now, client, request.clone()));
        self.clients[client].waits = if self.random.one_in(10) { None } else { Some(ticket) };
        self.step(Input::Request(ticket, request));
    }

    fn answered(&mut self, ticket: Ticket, at: usize, request: &Request, response: Response) {
        if let (Response::CommitOffsets(Ok(outcomes)), Request::CommitOffsets { offsets, .. }) = (&response, request) {
            assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()));
            for offset in offsets {
                let kept = self.acknowledged.entry(offset.partition.0).or_default();
                *kept = (*kept).max(offset.offset);
            }
            self.commits += 1;
        }
        self.check_part(request, &response);
        let client = &mut self.clients[at];
        if client.waits != Some(ticket) {
            return;
        }
        client.waits = None;
        match response {
            Response::Join(Ok(joined)) => {
                client.leads = joined.leader == joined.member && !joined.skip_assignment;
                client.roster = joined.members.into_iter().map(|member| member.member).collect();
                client.generation = Some(joined.generation);
                client.member = joined.member;
                client.owned.clear();
            }
            Response::Join(Err(GroupError::MemberIdRequired(id))) => client.member = id,
            Response::Sync(Ok(synced)) => client.owned = partitions(&synced.assignment).1,
            Response::Join(Err(GroupError::UnknownMember | GroupError::FencedInstance))
            | Response::Sync(Err(GroupError::UnknownMember | GroupError::FencedInstance))
            | Response::Heartbeat(Err(GroupError::UnknownMember | GroupError::FencedInstance))
            | Response::CommitOffsets(Err(GroupError::UnknownMember | GroupError::FencedInstance)) => {
                *client = Client::default();
            }
            Response::Sync(Err(_)) | Response::Heartbeat(Err(_)) => client.generation = None,
            _ => {}
        }
    }

    /// Within a generation there is one assignment, and each partition has one owner.
    fn check_part(&mut self, request: &Request, response: &Response) {
        let (Request::Sync { generation, member, instance, .. }, Response::Sync(Ok(synced))) = (request, response)
        else {
            return;
        };
        let (mark, owned) = partitions(&synced.assignment);
        if mark.is_empty() {
            return;
        }
        let known = self.marks.entry(*generation).or_insert_with(|| mark.clone());
        assert_eq!(*known, mark, "generation {generation} has two assignments");
        let who = instance.as_ref().unwrap_or(member);
        for partition in owned {
            let owner = self.owners.entry((*generation, partition)).or_insert_with(|| who.clone());
            assert_eq!(owner, who, "partition {partition} has two owners in generation {generation}");
        }
    }

    /// Clients 3 and 4 are static members.
    fn instance(at: usize) -> Option<String> {
        (at >= 3).then(|| format!("static{at}"))
    }

    fn act(&mut self, at: usize) {
        let client = self.clients[at].clone();
        let instance = Self::instance(at);
        match (client.generation, self.random.below(12)) {
            (_, 0) => {
                let leavers = vec![Leaver { member: client.member, instance }];
                self.clients[at] = Client::default();
                self.ask(at, Request::Leave { group: "g".into(), leavers });
            }
            // The process is restarted, or forgets.
            (_, 1) => self.clients[at] = Client::default(),
            (None, _) => self.join(at),
            (Some(generation), 2..=4) => {
                let assignments = if client.leads { self.assignment(&client.roster) } else { Vec::new() };
                let sync = Request::Sync {
                    group: "g".into(),
                    generation,
                    member: client.member,
                    instance,
                    protocol_type: Some("consumer".into()),
                    protocol: None,
                    assignments,
                };
                self.ask(at, sync);
            }
            (Some(generation), 5..=8) => self.commit(at, generation),
            (Some(_), 9) => self.join(at),
            (Some(generation), _) => {
                let beat = Request::Heartbeat { group: "g".into(), generation, member: client.member, instance };
                self.ask(at, beat);
            }
        }
    }

    fn join(&mut self, at: usize) {
        let flavour = if self.random.one_in(8) { b"other" } else { b"topic" };
        let join = Join {
            group: "g".into(),
            member: self.clients[at].member.clone(),
            instance: Self::instance(at),
            client_id: format!("c{at}"),
            client_host: "h".into(),
            session_timeout_ms: 6_000,
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: "consumer".into(),
            protocols: vec![Protocol { name: "range".into(), metadata: Bytes::from_static(flavour) }],
            id_required: at != 0,
            may_skip_assignment: at == 4,
        };
        self.ask(at, Request::Join(Box::new(join)));
    }

    fn assignment(&mut self, roster: &[String]) -> Vec<Assignment> {
        self.tickets += 1;
        let mark = format!("mark{}", self.tickets);
        let part = |(at, member): (usize, &String)| {
            let own = (0..PARTITIONS).filter(|partition| usize::try_from(*partition).unwrap() % roster.len() == at);
            let list: Vec<String> = own.map(|partition| partition.to_string()).collect();
            Assignment { member: member.clone(), assignment: format!("{mark}:{}", list.join(",")).into() }
        };
        roster.iter().enumerate().map(part).collect()
    }

    /// A commit that is let in comes from a member of the group's present generation.
    fn commit(&mut self, at: usize, generation: i32) {
        let generation = if self.random.one_in(6) { generation - 1 } else { generation };
        let partition = i32::try_from(self.random.below(6)).unwrap();
        let offset = CommitOffset {
            topic: "t".into(),
            partition: PartitionIndex(partition),
            offset: self.next_offset,
            leader_epoch: -1,
            metadata: String::new(),
        };
        self.next_offset += 1;
        let member = self.clients[at].member.clone();
        self.step(Input::Tick);
        let before = self.describe();
        let is_member = before.members.iter().any(|seen| seen.member == member);
        let may_commit =
            is_member && before.generation == generation && before.state != GroupState::CompletingRebalance;
        let writes = self.out.len();
        let commit = Request::CommitOffsets {
            group: "g".into(),
            generation: Some(generation),
            member,
            instance: Self::instance(at),
            offsets: vec![offset],
        };
        self.ask(at, commit);
        let was_let_in = self.out.len() > writes;
        assert!(!was_let_in || may_commit, "a commit of generation {generation} was let in by {before:?}");
        self.refused += u32::from(!was_let_in);
    }

    fn describe(&mut self) -> DescribedGroup {
        let effects = self.coordinator.step(
            Tick(self.now),
            Timestamp(0),
            Input::Request(Ticket(0), Request::Describe { group: "g".into() }),
        );
        let [Effect::Respond(_, Response::Describe(Ok(group)))] = &effects[..] else { panic!("{effects:?}") };
        group.clone().unwrap_or(DescribedGroup {
            group: "g".into(),
            state: GroupState::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
        })
    }

    fn write_ends(&mut self) {
        let Some((id, records)) = self.out.pop_front() else { return };
        if self.random.one_in(12) {
            // It failed as far as we know; the disk may have it all the same.
            if self.random.one_in(2) {
                self.log.extend(records);
            }
            self.step(Input::WriteFailed(id));
        } else {
            self.log.extend(records);
            self.step(Input::Persisted(id));
        }
    }

    fn crash(&mut self) {
        if self.random.one_in(2) && self.out.is_empty() {
            self.checkpoint();
        }
        // Of what was being written, a part may be there.
        let kept = self.random.index(self.out.len() + 1);
        for (_, records) in self.out.drain(..).take(kept) {
            self.log.extend(records);
        }
        self.asked.clear();
        self.config.seed += 1;
        self.coordinator = Coordinator::new(self.config.clone());
        for record in &self.log {
            self.coordinator.load(&record.key, record.value.as_deref()).unwrap();
        }
        self.coordinator.loaded(Tick(self.now));
        for client in &mut self.clients {
            client.waits = None;
        }
        self.check_offsets();
    }

    /// In parts of one group, as small as they get.
    fn checkpoint(&mut self) {
        self.log.clear();
        let mut last = None;
        loop {
            let part = self.coordinator.checkpoint(last.as_deref(), 1);
            self.log.extend(part.records);
            last = part.last;
            if last.is_none() {
                return;
            }
        }
    }

    fn check_offsets(&mut self) {
        let fetch = Request::FetchOffsets { group: "g".into(), topics: None };
        let effects = self.coordinator.step(Tick(self.now), Timestamp(0), Input::Request(Ticket(0), fetch));
        let Some(Effect::Respond(_, Response::FetchOffsets(Ok(topics)))) = effects.last() else {
            panic!("{effects:?}")
        };
        let mut found = BTreeMap::new();
        for (partition, committed) in topics.iter().flat_map(|topic| &topic.partitions) {
            found.insert(partition.0, committed.as_ref().unwrap().offset.0);
        }
        for (partition, acknowledged) in &self.acknowledged {
            let now = found.get(partition).copied().unwrap_or(-1);
            assert!(now >= *acknowledged, "partition {partition} went back from {acknowledged} to {now}");
        }
    }

    fn advance(&mut self) {
        let by = [1, 20, 300, 2_000][self.random.index(4)];
        let to = self.now + by;
        while let Some(at) = self.coordinator.next_deadline().filter(|at| at.0 <= to) {
            self.now = at.0.max(self.now);
            self.step(Input::Tick);
        }
        self.now = to;
        for (asked_at, client, request) in self.asked.values() {
            let age = self.now - asked_at;
            assert!(age <= ANSWER_MS_MAX, "client {client} waits for {age} ms for {request:?}");
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.random.below(20) {
                0..=10 => {
                    let at = self.random.index(CLIENTS);
                    if self.clients[at].waits.is_none() {
                        self.act(at);
                    }
                }
                11..=15 => self.write_ends(),
                16..=18 => self.advance(),
                _ if self.random.one_in(10) => self.crash(),
                _ => {}
            }
        }
        // Left alone, everything comes to an end.
        for _ in 0..40 {
            while !self.out.is_empty() {
                self.write_ends();
            }
            self.advance();
            self.now += 5_000;
            self.step(Input::Tick);
        }
        assert!(self.asked.is_empty(), "unanswered: {:?}", self.asked);
    }
}

fn partitions(assignment: &[u8]) -> (String, Vec<i32>) {
    let text = String::from_utf8(assignment.to_vec()).unwrap();
    let Some((mark, list)) = text.split_once(':') else { return (String::new(), Vec::new()) };
    (mark.to_owned(), list.split(',').filter(|part| !part.is_empty()).map(|part| part.parse().unwrap()).collect())
}

#[test]
fn whatever_happens_groups_keep_their_promises() {
    let (mut commits, mut refused, mut generations) = (0, 0, BTreeSet::new());
    for seed in 1..=150 {
        let mut world = World::new(seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        assert!(outcome.is_ok(), "seed {seed} failed; its history ends with\n{}", tail(&world.history));
        commits += world.commits;
        refused += world.refused;
        generations.insert(world.marks.len());
    }
    // A world in which nothing happens proves nothing.
    assert!(commits > 1_000 && refused > 500 && generations.iter().any(|count| *count > 5), "{commits} {refused}");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let run = |seed| {
        let mut world = World::new(seed);
        world.run();
        world.history
    };
    assert!(run(7) == run(7));
    assert!(run(7) != run(8));
}

fn tail(history: &str) -> String {
    let lines: Vec<&str> = history.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
