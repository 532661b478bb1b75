//! Runs a story: each `>` line is an input, the lines below it are what must come out.
//!
//! Member ids are long and random; they are shown as `m1`, `m2`.. in the order they appear, and written so in inputs. Requests get
//! tickets #1, #2.. in order, writes are w1, w2.. To write a story: give inputs only and run with `SEAWALL_BLESS=1`, then read it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;

use base::{PartitionIndex, Tick, Timestamp};
use bytes::Bytes;

use super::super::*;

struct World {
    coordinator: Coordinator,
    config: GroupsConfig,
    now: u64,
    tickets: u64,
    writes: VecDeque<(WriteId, Vec<Record>)>,
    log: Vec<Record>,
    members: Vec<String>,
    out: String,
}

const WALL: i64 = 1_000_000_000_000;

impl World {
    fn new() -> Self {
        let config = GroupsConfig::default();
        let mut coordinator = Coordinator::new(config.clone());
        coordinator.loaded(Tick(0));
        Self {
            coordinator,
            config,
            now: 0,
            tickets: 0,
            writes: VecDeque::new(),
            log: Vec::new(),
            members: Vec::new(),
            out: String::new(),
        }
    }

    fn step(&mut self, input: Input) {
        let wall = Timestamp(WALL + i64::try_from(self.now).unwrap());
        for effect in self.coordinator.step(Tick(self.now), wall, input) {
            match effect {
                Effect::Persist(id, records) => {
                    writeln!(self.out, "w{}: write {} records", id.0, records.len()).unwrap();
                    self.writes.push_back((id, records));
                }
                Effect::Respond(ticket, response) => {
                    self.learn(&response);
                    let text = self.named(show(&response));
                    writeln!(self.out, "#{} {text}", ticket.0).unwrap();
                }
            }
        }
    }

    fn learn(&mut self, response: &Response) {
        let ids: Vec<&String> = match response {
            Response::Join(Ok(joined)) => {
                std::iter::once(&joined.member).chain(joined.members.iter().map(|seen| &seen.member)).collect()
            }
            Response::Join(Err(GroupError::MemberIdRequired(id))) => vec![id],
            _ => return,
        };
        for id in ids {
            if !self.members.contains(id) {
                self.members.push(id.clone());
            }
        }
    }

    fn named(&self, mut text: String) -> String {
        for (at, id) in self.members.iter().enumerate() {
            text = text.replace(id, &format!("m{}", at + 1));
        }
        text
    }

    fn id(&self, name: &str) -> String {
        let number = name.strip_prefix('m').and_then(|number| number.parse::<usize>().ok());
        number.and_then(|number| self.members.get(number - 1)).cloned().unwrap_or_else(|| name.to_owned())
    }

    fn request(&mut self, request: Request) {
        self.tickets += 1;
        self.step(Input::Request(Ticket(self.tickets), request));
    }

    fn run_to(&mut self, to: u64) {
        while let Some(at) = self.coordinator.next_deadline().filter(|at| at.0 <= to) {
            self.now = at.0.max(self.now);
            let before = self.out.len();
            self.step(Input::Tick);
            if self.out.len() > before {
                let line = format!("at {}\n", self.now);
                self.out.insert_str(before, &line);
            }
        }
        self.now = to;
    }

    fn write_ends(&mut self, is_durable: bool) {
        let Some((id, records)) = self.writes.pop_front() else {
            self.out.push_str("no write is out\n");
            return;
        };
        if is_durable {
            self.log.extend(records);
            self.step(Input::Persisted(id));
        } else {
            self.step(Input::WriteFailed(id));
        }
    }

    fn crash(&mut self) {
        self.config.seed += 1;
        self.coordinator = Coordinator::new(self.config.clone());
        self.writes.clear();
        for record in &self.log {
            self.coordinator.load(&record.key, record.value.as_deref()).unwrap();
        }
        self.coordinator.loaded(Tick(self.now));
    }

    fn run(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or_default();
        let words: Vec<&str> = words.collect();
        let option = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let number = |name: &str| option(name).map(|text| text.parse::<u64>().unwrap());
        let group = words.first().copied().unwrap_or_default().to_owned();
        let member = option("m").map(|name| self.id(name)).unwrap_or_default();
        let instance = option("i").map(str::to_owned);
        let generation = option("gen").map(|text| text.parse::<i32>().unwrap());
        match command {
            "to" => self.run_to(group.parse().unwrap()),
            "written" => self.write_ends(true),
            "fails" => self.write_ends(false),
            "crash" => self.crash(),
            "checkpoint" => self.log = self.coordinator.checkpoint(None, usize::MAX).records,
            "set" => {
                self.config.group_size_max = number("size").map_or(1000, |size| usize::try_from(size).unwrap());
                self.config.initial_delay_ms = number("delay").unwrap_or(100);
                self.crash();
            }
            "join" => self.request(Request::Join(Box::new(Join {
                group,
                member,
                instance,
                client_id: option("client").unwrap_or("c").to_owned(),
                client_host: "/127.0.0.1".to_owned(),
                session_timeout_ms: number("session").unwrap_or(10_000),
                rebalance_timeout_ms: number("rebalance").unwrap_or(60_000),
                protocol_type: option("type").unwrap_or("consumer").to_owned(),
                protocols: protocols(option("offers").unwrap_or("range:t")),
                id_required: words.contains(&"v4"),
                may_skip_assignment: words.contains(&"v9"),
            }))),
            "sync" => {
                let given = |word: &&str| {
                    let (name, parts) = word.strip_prefix("give:")?.split_once('=')?;
                    Some(Assignment { member: self.id(name), assignment: Bytes::copy_from_slice(parts.as_bytes()) })
                };
                let assignments = words.iter().filter_map(given).collect();
                let protocol = option("protocol").map(str::to_owned);
                let generation = generation.unwrap();
                let sync =
                    Request::Sync { group, generation, member, instance, protocol_type: None, protocol, assignments };
                self.request(sync);
            }
            "beat" => self.request(Request::Heartbeat { group, generation: generation.unwrap(), member, instance }),
            "leave" => {
                let leavers = words[1..].iter().map(|word| match word.split_once('/') {
                    Some((name, instance)) => Leaver { member: self.id(name), instance: Some(instance.to_owned()) },
                    None => Leaver { member: self.id(word), instance: None },
                });
                let leavers = leavers.collect();
                self.request(Request::Leave { group, leavers });
            }
            _ => self.run_offsets(command, &words),
        }
    }

    fn run_offsets(&mut self, command: &str, words: &[&str]) {
        let option = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let number = |name: &str| option(name).map(|text| text.parse::<u64>().unwrap());
        let group = words.first().copied().unwrap_or_default().to_owned();
        let member = option("m").map(|name| self.id(name)).unwrap_or_default();
        let instance = option("i").map(str::to_owned);
        let generation = option("gen").map(|text| text.parse::<i32>().unwrap());
        match command {
            "commit" => {
                let offsets = words.iter().filter_map(|word| word.split_once('/')).map(|(topic, rest)| {
                    let (partition, offset) = rest.split_once('=').unwrap();
                    CommitOffset {
                        topic: topic.to_owned(),
                        partition: PartitionIndex(partition.parse().unwrap()),
                        offset: offset.parse().unwrap(),
                        leader_epoch: -1,
                        metadata: "x".repeat(usize::try_from(number("meta").unwrap_or(0)).unwrap()),
                    }
                });
                let offsets = offsets.collect();
                self.request(Request::CommitOffsets { group, generation, member, instance, offsets });
            }
            "fetch" => self.request(Request::FetchOffsets { group, topics: places(&words[1..]) }),
            "describe" => self.request(Request::Describe { group }),
            "list" => self.request(Request::List { states: Vec::new() }),
            "delete" => self.request(Request::Delete { group }),
            "delete-offsets" => {
                let topics = places(&words[1..]).unwrap_or_default();
                self.request(Request::DeleteOffsets { group, topics });
            }
            "forget" => self.request(Request::ForgetTopic { topic: group }),
            other => panic!("unknown command {other}"),
        }
    }
}

/// `range:a,b;other:a` to protocols whose metadata is a consumer's.
fn protocols(text: &str) -> Vec<Protocol> {
    let protocol = |offered: &str| {
        let (name, topics) = offered.split_once(':').unwrap();
        let topics: Vec<&str> = topics.split(',').collect();
        let mut metadata = vec![0, 1];
        metadata.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
        for topic in topics {
            metadata.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
            metadata.extend(topic.as_bytes());
        }
        Protocol { name: name.to_owned(), metadata: metadata.into() }
    };
    text.split(';').map(protocol).collect()
}

fn places(words: &[&str]) -> Option<Vec<TopicPartitions>> {
    let place = |word: &&str| {
        let (topic, partition) = word.split_once('/').unwrap();
        TopicPartitions { topic: topic.to_owned(), partitions: vec![PartitionIndex(partition.parse().unwrap())] }
    };
    (!words.is_empty()).then(|| words.iter().map(place).collect())
}

fn show(response: &Response) -> String {
    let outcomes = |outcomes: &Vec<OffsetOutcome>| {
        let one = |outcome: &OffsetOutcome| {
            let result = outcome.result.as_ref().map_or_else(GroupError::to_string, |()| "ok".to_owned());
            format!("{}/{}: {result}", outcome.topic, outcome.partition)
        };
        outcomes.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let refused = |error: &GroupError| format!("refused: {error}");
    match response {
        Response::Join(Ok(joined)) => {
            let members: Vec<&str> = joined.members.iter().map(|member| member.member.as_str()).collect();
            format!(
                "joined {} generation={} protocol={} leader={}{}{}",
                joined.member,
                joined.generation,
                joined.protocol,
                joined.leader,
                if members.is_empty() { String::new() } else { format!(" members={}", members.join(",")) },
                if joined.skip_assignment { " skip" } else { "" }
            )
        }
        Response::Sync(Ok(synced)) => {
            format!("synced {} [{}]", synced.protocol, String::from_utf8_lossy(&synced.assignment))
        }
        Response::Heartbeat(Ok(())) => "alive".to_owned(),
        Response::Leave(Ok(results)) => {
            let one = |result: &Result<(), GroupError>| result.as_ref().map_or_else(refused, |()| "left".to_owned());
            results.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        Response::CommitOffsets(Ok(done)) => format!("committed {}", outcomes(done)),
        Response::FetchOffsets(Ok(topics)) => {
            let mut text = "offsets".to_owned();
            for topic in topics {
                for (partition, committed) in &topic.partitions {
                    let offset = committed.as_ref().map_or("none".to_owned(), |it| it.offset.to_string());
                    write!(text, " {}/{partition}={offset}", topic.topic).unwrap();
                }
            }
            text
        }
        Response::Describe(Ok(None)) => "no such group".to_owned(),
        Response::Describe(Ok(Some(group))) => {
            let member = |it: &DescribedMember| format!("{}[{}]", it.member, String::from_utf8_lossy(&it.assignment));
            let members: Vec<String> = group.members.iter().map(member).collect();
            let protocol = format!("{}:{}", group.protocol_type, group.protocol);
            format!("{:?} generation={} {protocol} {}", group.state, group.generation, members.join(" "))
        }
        Response::List(Ok(groups)) => {
            let one = |group: &ListedGroup| format!("{}:{:?}", group.group, group.state);
            format!("groups {}", groups.iter().map(one).collect::<Vec<_>>().join(" "))
        }
        Response::Delete(Ok(())) => "deleted".to_owned(),
        Response::DeleteOffsets(Ok(done)) => format!("deleted {}", outcomes(done)),
        Response::ForgetTopic(Ok(())) => "forgotten".to_owned(),
        Response::Guard(Ok(guard)) => format!("guard {guard}"),
        Response::EndTransaction(Ok(())) => "ended".to_owned(),
        Response::Guard(Err(error)) | Response::EndTransaction(Err(error)) => refused(error),
        Response::Join(Err(error))
        | Response::Sync(Err(error))
        | Response::Heartbeat(Err(error))
        | Response::Leave(Err(error))
        | Response::CommitOffsets(Err(error))
        | Response::FetchOffsets(Err(error))
        | Response::Describe(Err(error))
        | Response::List(Err(error))
        | Response::Delete(Err(error))
        | Response::DeleteOffsets(Err(error))
        | Response::ForgetTopic(Err(error)) => refused(error),
    }
}

fn replay(story: &str) -> String {
    let mut world = World::new();
    for line in story.lines() {
        if let Some(input) = line.strip_prefix('>') {
            writeln!(world.out, "{line}").unwrap();
            world.run(input);
        } else if line.is_empty() || line.starts_with('#') && !line[1..].starts_with(|c: char| c.is_ascii_digit()) {
            writeln!(world.out, "{line}").unwrap();
        }
    }
    world.out
}

#[test]
fn stories() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/groups");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let story = std::fs::read_to_string(&file).unwrap();
        let actual = replay(&story);
        if std::env::var_os("SEAWALL_BLESS").is_some() {
            std::fs::write(&file, &actual).unwrap();
            continue;
        }
        let differs = story.lines().zip(actual.lines()).position(|(expected, actual)| expected != actual);
        assert_eq!(story, actual, "{}: first difference after line {differs:?}", file.display());
    }
}
