//! Bytes of older releases. A file under `testdata/` is never written again; a new field means a new file.

use std::collections::BTreeMap;

use base::{ClusterId, DiskId, LogIndex, NodeId, Offset, PartitionIndex, Term, Timestamp, TopicId};
use uuid::Uuid;

use crate::command::{Command, NewSegment};
use crate::node::NodeMode;
use crate::segment::{Interval, SegmentId};
use crate::state::State;
use crate::table::{TableId, TableMode};

fn topic_id(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

fn table_id(number: u128) -> TableId {
    TableId(Uuid::from_u128(number))
}

fn segment(number: u128) -> NewSegment {
    NewSegment {
        id: SegmentId(Uuid::from_u128(number)),
        interval: Interval { start: Timestamp(0), end: Timestamp(3_600_000) },
        rows: 10,
        size_bytes: 4_096,
        checksum: 0xdead_beef,
        path: format!("edits/{number}.parquet"),
    }
}

/// Every command of the first format, in an order in which none is refused.
fn commands() -> Vec<Command> {
    let config: BTreeMap<String, String> = [("retention.ms".to_owned(), "1000".to_owned())].into();
    let topic = |number, name: &str, internal| Command::CreateTopic {
        id: topic_id(number),
        name: name.into(),
        partitions: 2,
        config: config.clone(),
        internal,
        created: Timestamp(1_700_000_000_000),
        replicas: vec![],
    };
    let table = |number, name: &str| Command::CreateTable {
        id: table_id(number),
        name: name.into(),
        topic: topic_id(1),
        spec: "{\"a\":1}".into(),
        schema: "[]".into(),
        begin: [(PartitionIndex(1), Offset(7))].into(),
        created: Timestamp(2),
    };
    vec![
        Command::FormCluster {
            cluster: ClusterId(Uuid::from_u128(9)),
            formed: Timestamp(1_700_000_000_000),
            founders: vec![],
        },
        topic(1, "wiki", false),
        topic(2, "__consumer_offsets", true),
        topic(3, "gone", false),
        Command::DeleteTopic { id: topic_id(3) },
        Command::AddPartitions { id: topic_id(1), total: 3, replicas: vec![] },
        Command::SetTopicConfig { id: topic_id(1), config: BTreeMap::new() },
        table(1, "edits"),
        table(2, "dropped"),
        Command::SetTableSchema { id: table_id(1), schema: "[{\"name\":\"page\"}]".into() },
        Command::SetTableSpec { id: table_id(1), spec: "{\"a\":2}".into() },
        Command::SetTableMode { id: table_id(1), mode: TableMode::Suspended },
        Command::DropTable { id: table_id(2) },
        Command::PublishSegments {
            table: table_id(1),
            partition: PartitionIndex(1),
            from: Offset(7),
            to: Offset(17),
            term: Term(3),
            segments: vec![segment(1), segment(2)],
            published: Timestamp(5),
        },
        Command::AllocateProducerIds { count: 1_000 },
    ]
}

fn state() -> State {
    let mut state = State::default();
    for (at, command) in (1..).zip(commands()) {
        state.apply(LogIndex(at), &command).expect("applies");
    }
    state
}

/// As release 0.1 wrote them.
const COMMANDS_V1: [&[u8]; 15] = [
    include_bytes!("../../testdata/v1/command-00.bin"),
    include_bytes!("../../testdata/v1/command-01.bin"),
    include_bytes!("../../testdata/v1/command-02.bin"),
    include_bytes!("../../testdata/v1/command-03.bin"),
    include_bytes!("../../testdata/v1/command-04.bin"),
    include_bytes!("../../testdata/v1/command-05.bin"),
    include_bytes!("../../testdata/v1/command-06.bin"),
    include_bytes!("../../testdata/v1/command-07.bin"),
    include_bytes!("../../testdata/v1/command-08.bin"),
    include_bytes!("../../testdata/v1/command-09.bin"),
    include_bytes!("../../testdata/v1/command-10.bin"),
    include_bytes!("../../testdata/v1/command-11.bin"),
    include_bytes!("../../testdata/v1/command-12.bin"),
    include_bytes!("../../testdata/v1/command-13.bin"),
    include_bytes!("../../testdata/v1/command-14.bin"),
];
const STATE_V1: &[u8] = include_bytes!("../../testdata/v1/state.bin");

#[test]
fn commands_of_the_first_format_are_read() {
    let read: Vec<_> = COMMANDS_V1.iter().map(|bytes| Command::decode(bytes)).collect();
    assert_eq!(read, commands().into_iter().map(Ok).collect::<Vec<_>>());
}

#[test]
fn a_state_of_the_first_format_is_read_and_goes_on() {
    let mut old = State::restore(STATE_V1).expect("restores");
    let mut expected = state();
    // That format had no terms: whoever publishes next sets the bar.
    for table in expected.tables.values_mut() {
        std::sync::Arc::make_mut(table).terms.clear();
    }
    assert_eq!(old, expected);
    let register = Command::RegisterNode {
        id: NodeId(1),
        disk: DiskId(Uuid::from_u128(5)),
        addresses: crate::state::tests::addresses(1),
        zone: String::new(),
        version: "0.2.0".into(),
        at: Timestamp(9),
    };
    old.apply(old.applied.next(), &register).expect("registers");
    let partition = base::TopicPartition { topic: topic_id(1), partition: PartitionIndex(2) };
    assert_eq!(old.replicas(partition), [NodeId(1)], "what there was is on the node that there was");
}

#[test]
fn every_command_of_this_format_comes_back() {
    let moves = vec![vec![NodeId(1), NodeId(2), NodeId(3)]];
    let new = vec![
        Command::FormCluster {
            cluster: ClusterId(Uuid::from_u128(9)),
            formed: Timestamp(1),
            founders: vec![NodeId(1), NodeId(2), NodeId(3)],
        },
        Command::RegisterNode {
            id: NodeId(3),
            disk: DiskId(Uuid::from_u128(4)),
            addresses: crate::state::tests::addresses(3),
            zone: "a".into(),
            version: "0.2.0".into(),
            at: Timestamp(9),
        },
        Command::ReplaceDisk { id: NodeId(3), disk: DiskId(Uuid::from_u128(6)), at: Timestamp(10) },
        Command::SetNodeMode { id: NodeId(3), mode: NodeMode::Draining },
        Command::RemoveNode { id: NodeId(3) },
        Command::AddPartitions { id: topic_id(1), total: 4, replicas: moves.clone() },
        Command::SetReplicas {
            id: topic_id(1),
            partition: PartitionIndex(0),
            target: moves[0].clone(),
            expected: None,
        },
        Command::FinishReassignment { id: topic_id(1), partition: PartitionIndex(0), replicas: moves[0].clone() },
    ];
    for command in new.into_iter().chain(commands()) {
        let bytes = command.encode();
        assert_eq!(Command::decode(&bytes), Ok(command));
        for cut in 0..bytes.len() {
            assert!(Command::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
