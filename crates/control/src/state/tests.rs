use std::collections::BTreeMap;

use base::{LogIndex, Offset, PartitionIndex, Term, Timestamp, TopicId};
use uuid::Uuid;

use super::*;
use crate::command::NewSegment;
use crate::segment::{Interval, SegmentId};

mod nodes;
pub(crate) use nodes::addresses;

const P0: PartitionIndex = PartitionIndex(0);

fn topic_id(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

fn table_id(number: u128) -> TableId {
    TableId(Uuid::from_u128(number))
}

fn create_topic(number: u128, name: &str, config: &[(&str, &str)]) -> Command {
    Command::CreateTopic {
        id: topic_id(number),
        name: name.into(),
        partitions: 2,
        config: config.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        internal: false,
        created: Timestamp(1),
        replicas: Vec::new(),
    }
}

fn create_table(number: u128, name: &str, topic: u128) -> Command {
    Command::CreateTable {
        id: table_id(number),
        name: name.into(),
        topic: topic_id(topic),
        spec: "{}".into(),
        schema: "[]".into(),
        begin: BTreeMap::new(),
        created: Timestamp(1),
    }
}

fn publish(from: i64, to: i64, segments: Vec<NewSegment>, at: i64) -> Command {
    Command::PublishSegments {
        table: table_id(1),
        partition: P0,
        from: Offset(from),
        to: Offset(to),
        term: Term(1),
        segments,
        published: Timestamp(at),
    }
}

fn segment(number: u128, start: i64, end: i64) -> NewSegment {
    NewSegment {
        id: SegmentId(Uuid::from_u128(number)),
        interval: Interval { start: Timestamp(start), end: Timestamp(end) },
        rows: 10,
        size_bytes: 100,
        checksum: 7,
        path: format!("t/{number}"),
    }
}

/// A state to which `commands` were applied, none refused.
fn state_after(commands: &[Command]) -> State {
    let mut state = State::default();
    for command in commands {
        apply(&mut state, command).expect("applies");
    }
    state
}

fn apply(state: &mut State, command: &Command) -> Result<Applied, Refused> {
    state.apply(state.applied.next(), command)
}

#[test]
fn a_topic_is_created_once_and_by_kafkas_rules() {
    let mut state = state_after(&[create_topic(1, "wiki", &[("retention.ms", "1000")])]);
    assert_eq!(state.topic_named("wiki").map(|topic| topic.config().retention_ms), Some(Some(1000)));
    let refused = [
        (create_topic(2, "wiki", &[]), "topic wiki exists"),
        (
            create_topic(2, "a b", &[]),
            "topic name \"a b\" is invalid: only ASCII letters, digits, . _ and - are allowed",
        ),
        (create_topic(2, "", &[]), "topic name \"\" is invalid: it is empty"),
        (
            create_topic(2, "c", &[("cleanup.policy", "compact")]),
            "topic config cleanup.policy: \"compact\" is not supported; use delete",
        ),
        (
            create_topic(2, "c", &[("retention.ms", "soon")]),
            "topic config retention.ms: \"soon\" is not a whole number",
        ),
    ];
    for (command, message) in refused {
        let before = state.clone();
        assert_eq!(apply(&mut state, &command).map_err(|refused| refused.to_string()), Err(message.into()));
        assert_eq!(State { applied: before.applied, ..state.clone() }, before, "a refused command changes nothing");
    }
}

#[test]
fn a_topic_that_a_table_reads_is_not_deleted() {
    let mut state = state_after(&[create_topic(1, "wiki", &[]), create_table(1, "edits", 1)]);
    let delete = Command::DeleteTopic { id: topic_id(1) };
    assert_eq!(apply(&mut state, &delete), Err(Refused::TopicInUse { topic: "wiki".into(), table: "edits".into() }));
    apply(&mut state, &Command::DropTable { id: table_id(1) }).expect("drops");
    apply(&mut state, &delete).expect("deletes");
    assert_eq!(state.tombstones.get(&topic_id(1)), Some(&LogIndex(5)));
}

/// A command that was sent again, was held up and came after the topic had been deleted made it again: every node then
/// deleted its data, and it had no replica for ever.
#[test]
fn a_late_copy_of_the_command_that_made_a_topic_does_not_bring_it_back() {
    let mut state = state_after(&[create_topic(1, "wiki", &[]), Command::DeleteTopic { id: topic_id(1) }]);
    let late = apply(&mut state, &create_topic(1, "wiki", &[]));
    assert_eq!(late, Err(Refused::TopicDeleted(topic_id(1).to_string())));
    apply(&mut state, &create_topic(2, "wiki", &[])).expect("the name is free");
}

#[test]
fn publishing_has_no_gap_and_no_overlap() {
    let mut state = state_after(&[create_topic(1, "wiki", &[]), create_table(1, "edits", 1)]);
    apply(&mut state, &publish(0, 10, vec![segment(1, 0, 100)], 5)).expect("first");
    for (from, to) in [(0, 10), (5, 20), (11, 20)] {
        let refused = apply(&mut state, &publish(from, to, vec![segment(2, 0, 100)], 6));
        assert!(matches!(refused, Err(Refused::PublishGap { published: Offset(10), .. })), "{refused:?}");
    }
    assert!(matches!(apply(&mut state, &publish(10, 10, vec![], 6)), Err(Refused::EmptyRange { .. })));
    assert!(matches!(apply(&mut state, &publish(10, 11, vec![segment(1, 0, 1)], 6)), Err(Refused::SegmentExists(_))));
    apply(&mut state, &publish(10, 20, vec![], 6)).expect("rows that were all refused still move the offset");
    assert_eq!(state.tables[&table_id(1)].published(P0), Offset(20));
}

#[test]
fn a_leader_of_an_older_term_cannot_publish() {
    let with_term = |from: i64, to: i64, of: u64| match publish(from, to, vec![], 5) {
        Command::PublishSegments { table, partition, from, to, segments, published, .. } => {
            Command::PublishSegments { table, partition, from, to, term: Term(of), segments, published }
        }
        other => other,
    };
    let mut state = state_after(&[create_topic(1, "wiki", &[]), create_table(1, "edits", 1)]);
    apply(&mut state, &with_term(0, 10, 4)).expect("the leader of term 4");
    let refused = apply(&mut state, &with_term(10, 20, 3));
    let fenced = Refused::Fenced { table: "edits".into(), partition: P0, term: Term(3), newer: Term(4) };
    assert_eq!(refused, Err(fenced), "the leader before it has the right offset and still no right");
    apply(&mut state, &with_term(10, 20, 4)).expect("again");
    apply(&mut state, &with_term(20, 30, 9)).expect("the leader after it");
    let mut restored = State::restore(&state.snapshot()).expect("restores");
    assert!(matches!(apply(&mut restored, &with_term(30, 40, 8)), Err(Refused::Fenced { newer: Term(9), .. })));
}

#[test]
fn appended_shards_share_a_version_and_never_hide() {
    let mut state = state_after(&[create_topic(1, "wiki", &[]), create_table(1, "edits", 1)]);
    apply(&mut state, &publish(0, 10, vec![segment(1, 0, 100), segment(2, 100, 200)], 5)).expect("first");
    apply(&mut state, &publish(10, 20, vec![segment(3, 0, 100)], 9)).expect("second");
    // The granularity changed from 100 to 200: the wider interval must not hide the two it covers.
    apply(&mut state, &publish(20, 30, vec![segment(4, 0, 200)], 12)).expect("third");
    let table = &state.tables[&table_id(1)];
    let named: Vec<_> = table
        .visible_segments()
        .iter()
        .map(|segment| (segment.id.0.as_u128(), segment.version.0, segment.shard))
        .collect();
    assert_eq!(named, [(1, 5, 0), (3, 5, 1), (4, 5, 0), (2, 5, 0)]);
}

#[test]
fn a_higher_version_hides_what_it_covers() {
    let mut table =
        (*state_after(&[create_topic(1, "wiki", &[]), create_table(1, "edits", 1)]).tables[&table_id(1)]).clone();
    table
        .publish(P0, (Offset(0), Offset(1)), Term(1), &[segment(1, 0, 100), segment(2, 50, 150)], Timestamp(5))
        .expect("publishes");
    let mut rewritten = table.segments[&SegmentId(Uuid::from_u128(1))].clone();
    rewritten.id = SegmentId(Uuid::from_u128(3));
    rewritten.version = Timestamp(6);
    table.segments.insert(rewritten.id, rewritten);
    let visible: Vec<_> = table.visible_segments().iter().map(|segment| segment.id.0.as_u128()).collect();
    assert_eq!(visible, [3, 2], "1 is covered by 3; 2 only overlaps it");
}

/// A table of segments whose versions and intervals come from `seed`.
fn random_table(seed: u64, segments: u32, reach: i64) -> Table {
    let mut table =
        (*state_after(&[create_topic(1, "wiki", &[]), create_table(1, "edits", 1)]).tables[&table_id(1)]).clone();
    table.publish(P0, (Offset(0), Offset(1)), Term(1), &[segment(1, 0, 100)], Timestamp(5)).expect("publishes");
    let like = table.segments.pop_first().expect("one").1;
    let mut random = seed;
    let mut next = |below: i64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((random >> 33) % below.unsigned_abs()).expect("small")
    };
    for number in 0..segments {
        let start = next(reach);
        let mut one = like.clone();
        one.id = SegmentId(Uuid::from_u128(number.into()));
        one.version = Timestamp(next(12));
        one.interval = crate::Interval { start: Timestamp(start), end: Timestamp(start + 1 + next(reach)) };
        table.segments.insert(one.id, one);
    }
    table
}

#[test]
fn what_is_visible_is_what_nothing_overshadows() {
    for seed in 0..300 {
        let table = random_table(seed, 60, 40);
        let hidden = |lower| table.segments.values().any(|upper| crate::segment::overshadows(upper, lower));
        let mut expected: Vec<_> = table.segments.values().filter(|segment| !hidden(segment)).collect();
        expected.sort_by_key(|segment| (segment.interval, segment.version, segment.shard));
        assert_eq!(table.visible_segments(), expected, "seed {seed}");
    }
}

#[test]
fn a_hundred_thousand_segments_of_many_versions_are_sorted_out_in_a_moment() {
    // Compared pair by pair this is ten thousand million comparisons: minutes.
    let table = random_table(7, 100_000, 1_000_000);
    assert!(!table.visible_segments().is_empty());
}

#[test]
fn producer_ids_are_handed_out_once() {
    let mut state = State::default();
    let allocate = Command::AllocateProducerIds { count: 1_000 };
    assert_eq!(apply(&mut state, &allocate), Ok(Applied::ProducerIds { first: 0, count: 1_000 }));
    assert_eq!(apply(&mut state, &allocate), Ok(Applied::ProducerIds { first: 1_000, count: 1_000 }));
    assert_eq!(apply(&mut state, &Command::AllocateProducerIds { count: 0 }), Err(Refused::InvalidCount(0)));
}

#[test]
fn a_snapshot_restores_to_the_same_state() {
    let commands =
        [create_topic(1, "wiki", &[]), create_table(1, "edits", 1), publish(0, 10, vec![segment(1, 0, 100)], 5)];
    let state = state_after(&commands);
    assert_eq!(State::restore(&state.snapshot()), Ok(state));
    for command in commands {
        assert_eq!(Command::decode(&command.encode()), Ok(command));
    }
}

#[test]
fn hostile_bytes_are_an_error() {
    let whole = state_after(&[create_topic(1, "wiki", &[])]).snapshot();
    for cut in 0..whole.len() {
        assert!(State::restore(&whole[..cut]).is_err(), "cut at {cut}");
    }
    assert!(matches!(Command::decode(&[9, 1]), Err(CodecError::Version { found: 9, .. })));
}

use crate::codec::CodecError;
