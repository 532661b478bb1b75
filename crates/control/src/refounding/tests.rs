//! What becomes of partitions, nodes and tables.

use base::{ClusterId, TopicId};

use super::*;
use crate::command::Command;
use crate::table::TableId;
use crate::{Address, NodeAddresses};

fn ids(numbers: &[u32]) -> Vec<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

fn disk(number: u32) -> DiskId {
    DiskId(Uuid::from_u128(u128::from(number)))
}

const TOPIC: TopicId = TopicId(Uuid::from_u128(1));

fn at(partition: i32) -> TopicPartition {
    TopicPartition { topic: TOPIC, partition: PartitionIndex(partition) }
}

/// Nodes 1 to `count`, a topic with these copies, and a table that has published 100 records of each partition.
fn state(count: u32, replicas: &[&[u32]]) -> State {
    let mut state = State::default();
    let mut index = LogIndex::ZERO;
    let mut apply = |command: Command| {
        index = index.next();
        state.apply(index, &command).expect("applies");
    };
    let cluster = ClusterId(Uuid::from_u128(9));
    apply(Command::FormCluster { cluster, formed: Timestamp(1), founders: ids(&[1, 2, 3]) });
    let address = || Address { host: "a".into(), port: 1 };
    for id in 1..=count {
        let addresses = NodeAddresses { kafka: address(), http: address(), postgres: address(), peer: address() };
        let (zone, version, at) = (String::new(), String::new(), Timestamp(2));
        apply(Command::RegisterNode { id: NodeId(id), disk: disk(id), addresses, zone, version, at });
    }
    apply(Command::CreateTopic {
        id: TOPIC,
        name: "wiki".into(),
        partitions: i32::try_from(replicas.len()).expect("few"),
        config: BTreeMap::new(),
        internal: false,
        created: Timestamp(3),
        replicas: replicas.iter().map(|_| ids(&[1])).collect(),
    });
    let table = TableId(Uuid::from_u128(5));
    let (spec, schema) = ("{}".to_owned(), "[]".to_owned());
    let (name, begin) = ("edits".to_owned(), BTreeMap::new());
    apply(Command::CreateTable { id: table, name, topic: TOPIC, spec, schema, begin, created: Timestamp(4) });
    for partition in (0..).take(replicas.len()).map(PartitionIndex) {
        apply(Command::PublishSegments {
            table,
            partition,
            from: Offset(0),
            to: Offset(100),
            term: Term(3),
            segments: Vec::new(),
            published: Timestamp(5),
        });
    }
    Arc::make_mut(state.topics.get_mut(&TOPIC).expect("there")).replicas =
        replicas.iter().map(|nodes| ids(nodes)).collect();
    state
}

fn found(term: u64, end: i64, voters: &[u32]) -> Found {
    let (end, committed) = (Offset(end), Offset(end - 1));
    Found { term: Term(term), end, committed, voters: ids(voters), is_readable: true }
}

struct Scene {
    lost: BTreeSet<NodeId>,
    surveys: BTreeMap<NodeId, Survey>,
}

impl Scene {
    fn new(lost: &[u32], surveys: &[(u32, &[(i32, Found)])]) -> Self {
        let survey =
            |found: &[(i32, Found)]| found.iter().map(|(partition, found)| (at(*partition), found.clone())).collect();
        Self {
            lost: ids(lost).into_iter().collect(),
            surveys: surveys.iter().map(|(node, found)| (NodeId(*node), survey(found))).collect(),
        }
    }

    fn plan(&self, seed: u32) -> Plan<'_> {
        Plan {
            id: Uuid::from_u128(77),
            source: Source::Survivor,
            at: Timestamp(10),
            seed: NodeId(seed),
            disk: disk(seed),
            term: Term(4),
            lost: &self.lost,
            surveys: &self.surveys,
        }
    }
}

fn table(state: &State) -> &crate::Table {
    state.table_named("edits").expect("there")
}

#[test]
fn one_of_three_goes_on_alone() {
    let before = state(3, &[&[1, 2, 3], &[2, 3], &[2, 3, 1]]);
    let scene = Scene::new(&[2, 3], &[(1, &[(0, found(5, 120, &[1, 2, 3])), (2, found(5, 90, &[1, 2, 3]))])]);
    let (after, fates) = refound(&before, &scene.plan(1)).expect("plans");
    assert_eq!(fates[&at(0)], Fate::Forced { on: NodeId(1), committed: Offset(119), end: Offset(120) });
    assert_eq!(fates[&at(1)], Fate::Empty);
    assert!((0..3).all(|partition| after.replicas(at(partition)) == ids(&[1])), "all are where something is");
    assert!(after.topics[&TOPIC].targets.is_empty(), "nobody else is left");
    // What comes at offsets that were published once is not passed over.
    let published = |partition| table(&after).published(PartitionIndex(partition));
    assert_eq!((published(0), published(1), published(2)), (Offset(100), Offset(0), Offset(90)));
    assert!(!table(&after).terms.contains_key(&PartitionIndex(1)), "a group that begins anew has small terms");
    assert_eq!(table(&after).terms.get(&PartitionIndex(0)), Some(&Term(3)), "and one that goes on has greater ones");
    assert_eq!([1, 2, 3].map(|id| after.nodes[&NodeId(id)].mode), [NodeMode::Active, NodeMode::Gone, NodeMode::Gone]);
    assert_eq!((after.applied, after.first_voters.clone()), (before.applied.next(), [NodeId(1)].into()));
    assert!(after.next_producer_id > before.next_producer_id + 1_000_000_000);
    let act = after.refoundings.last().expect("remembered");
    assert_eq!((act.index, act.empty_count, act.forced_count, &act.empty[..]), (before.applied, 1, 2, &[at(1)][..]));
    assert_eq!(after.lineage(), Some(Uuid::from_u128(77)));
    assert_eq!(after.former_lineages().map(|(id, _)| id).collect::<Vec<_>>(), [Uuid::from_u128(9)]);
    assert_eq!(State::restore(&after.snapshot()).expect("reads"), after);
}

#[test]
fn of_two_survivors_the_better_copy_counts_and_the_other_one_follows() {
    let before = state(5, &[&[1, 2, 3, 4, 5], &[2, 3, 4], &[1, 2, 3], &[1, 3, 4]]);
    let all = &[1, 2, 3, 4, 5];
    let one: &[(i32, Found)] = &[(0, found(5, 120, all)), (2, found(5, 50, &[1, 2, 3])), (3, found(5, 60, &[1, 3, 4]))];
    let unseen = Scene::new(&[3, 4, 5], &[(1, one)]);
    let error = refound(&before, &unseen.plan(1)).expect_err("node 2 was not looked at").to_string();
    assert!(error.contains("partition 0 of topic wiki has lost its majority, and node 2 may have"), "{error}");
    let two: &[(i32, Found)] = &[(0, found(6, 110, all)), (1, found(5, 70, &[2, 3, 4])), (2, found(5, 50, &[1, 2, 3]))];
    let scene = Scene::new(&[3, 4, 5], &[(1, one), (2, two)]);
    let (after, fates) = refound(&before, &scene.plan(1)).expect("plans");
    let on = |partition: i32| match fates[&at(partition)] {
        Fate::Forced { on, .. } => on.0,
        _ => 0,
    };
    assert_eq!([0, 1, 2, 3].map(on), [2, 2, 0, 1], "a later term beats a longer log");
    assert_eq!(fates[&at(2)], Fate::Kept, "two of three decide by themselves");
    assert_eq!(after.replicas(at(0)), ids(&[2]));
    assert!(after.topics[&TOPIC].targets.is_empty(), "two copies are worse than one");
    assert_eq!(after.replicas(at(2)), ids(&[1, 2, 3]));
}

#[test]
fn a_copy_that_was_on_its_way_is_better_than_nothing() {
    let before = state(4, &[&[2, 3, 4]]);
    let scene = Scene::new(&[2, 3, 4], &[(1, &[(0, found(5, 80, &[2, 3, 4]))])]);
    let (after, fates) = refound(&before, &scene.plan(1)).expect("plans");
    assert_eq!(fates[&at(0)], Fate::Forced { on: NodeId(1), committed: Offset(79), end: Offset(80) });
    assert_eq!((after.replicas(at(0)), table(&after).published(PartitionIndex(0))), (&ids(&[1])[..], Offset(80)));
}

#[test]
fn what_cannot_be_read_is_left_alone() {
    let before = state(1, &[&[1], &[1]]);
    let damaged = Found { is_readable: false, voters: Vec::new(), ..found(0, 0, &[]) };
    let scene = Scene::new(&[], &[(1, &[(0, damaged)])]);
    let (after, fates) = refound(&before, &Plan { source: Source::Backup, ..scene.plan(1) }).expect("plans");
    assert_eq!((fates[&at(0)], fates[&at(1)]), (Fate::Kept, Fate::Empty));
    assert_eq!(table(&after).published(PartitionIndex(0)), Offset(100));
}

#[test]
fn copies_that_were_moved_after_the_backup_are_found() {
    let mut before = state(4, &[&[1, 2, 3], &[1]]);
    let topic = Arc::make_mut(before.topics.get_mut(&TOPIC).expect("there"));
    topic.leaving.insert(PartitionIndex(0), [NodeId(4)].into());
    let surveyed: &[(i32, Found)] = &[(0, found(5, 120, &[1, 2, 4])), (1, found(5, 120, &[1, 2, 3]))];
    let scene = Scene::new(&[], &[(1, surveyed)]);
    let (after, fates) = refound(&before, &scene.plan(1)).expect("plans");
    assert_eq!((after.replicas(at(0)), after.replicas(at(1))), (&ids(&[1, 2, 4])[..], &ids(&[1, 2, 3])[..]));
    assert_eq!((fates[&at(0)], fates[&at(1)]), (Fate::Kept, Fate::Kept));
    assert!(after.topics[&TOPIC].leaving.is_empty(), "node 4 was given a copy again since: it deletes nothing");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let before = state(3, &[&[1, 2, 3]]);
    let refused = |scene: &Scene, seed, number| {
        let plan = Plan { disk: disk(number), ..scene.plan(seed) };
        refound(&before, &plan).expect_err("refused").to_string()
    };
    let nobody = Scene::new(&[], &[]);
    assert!(refused(&Scene::new(&[1], &[]), 1, 1).contains("node 1 cannot be lost"));
    assert!(refused(&Scene::new(&[7], &[]), 1, 1).contains("node 7 is not a member: its members are [1, 2, 3]"));
    let error = refused(&nobody, 1, 99);
    assert!(
        error.contains("node [2, 3] are expected to come back") && error.contains("name them all as lost"),
        "{error}"
    );
    let all = Scene::new(&[1, 2, 3], &[(4, &[])]);
    let (after, fates) = refound(&before, &all.plan(4)).expect("a new node in place of all");
    assert_eq!((fates[&at(0)], after.replicas(at(0))), (Fate::Empty, &ids(&[4])[..]));
    assert!(after.is_member(NodeId(4)));
    assert_eq!(refound(&State::default(), &nobody.plan(1)), Err(RefoundError::NotFormed));
}

#[test]
fn it_is_spoken_of_until_somebody_has_seen_it() {
    let before = state(3, &[&[1, 2, 3]]);
    let scene = Scene::new(&[2, 3], &[(1, &[])]);
    let (mut after, _) = refound(&before, &scene.plan(1)).expect("plans");
    let (id, next) = (Uuid::from_u128(77), after.applied.next());
    let other = Command::AcknowledgeRefounding { id: Uuid::from_u128(78), at: Timestamp(11) };
    assert!(after.apply(next, &other).is_err());
    after.apply(next.next(), &Command::AcknowledgeRefounding { id, at: Timestamp(11) }).expect("taken");
    after.apply(next.next().next(), &Command::AcknowledgeRefounding { id, at: Timestamp(12) }).expect("taken");
    assert_eq!(after.refoundings[0].acknowledged, Some(Timestamp(11)));
    assert_eq!(State::restore(&after.snapshot()).expect("reads"), after);
}
