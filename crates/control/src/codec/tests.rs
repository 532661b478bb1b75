//! Bytes of older releases. A file under `testdata/` is never written again; a new field means a new file.

use std::collections::BTreeMap;

use base::{ClusterId, LogIndex, Offset, PartitionIndex, Term, Timestamp, TopicId};
use uuid::Uuid;

use crate::command::{Command, NewSegment};
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
        Command::FormCluster { cluster: ClusterId(Uuid::from_u128(9)), formed: Timestamp(1_700_000_000_000) },
        topic(1, "wiki", false),
        topic(2, "__consumer_offsets", true),
        topic(3, "gone", false),
        Command::DeleteTopic { id: topic_id(3) },
        Command::AddPartitions { id: topic_id(1), total: 3 },
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

#[test]
#[ignore]
fn write() {
    for (number, command) in commands().iter().enumerate() {
        std::fs::write(format!("testdata/v1/command-{number:02}.bin"), command.encode()).unwrap();
    }
    std::fs::write("testdata/v1/state.bin", state().snapshot()).unwrap();
}
