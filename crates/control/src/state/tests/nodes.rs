//! Nodes come, change, lose their disks and go; replicas are where members are.

use base::{ClusterId, DiskId, NodeId, TopicPartition};

use super::*;
use crate::node::{Address, NodeAddresses, NodeMode};
use crate::plan::PlaceError;

fn disk(number: u128) -> DiskId {
    DiskId(Uuid::from_u128(number))
}

pub fn addresses(node: u32) -> NodeAddresses {
    let port = |base: u16| Address { host: format!("node-{node}"), port: base };
    NodeAddresses { kafka: port(9092), http: port(8888), postgres: port(5433), peer: port(7400) }
}

fn register(node: u32, disk_number: u128) -> Command {
    Command::RegisterNode {
        id: NodeId(node),
        disk: disk(disk_number),
        addresses: addresses(node),
        zone: format!("zone-{node}"),
        version: "0.2.0".into(),
        at: Timestamp(i64::from(node)),
    }
}

fn form() -> Command {
    Command::FormCluster {
        cluster: ClusterId(Uuid::from_u128(1)),
        formed: Timestamp(1),
        founders: vec![NodeId(1), NodeId(2), NodeId(3)],
    }
}

fn nodes(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn replicated(number: u128, name: &str, lists: &[&[u32]]) -> Command {
    match create_topic(number, name, &[]) {
        Command::CreateTopic { id, name, config, internal, created, .. } => Command::CreateTopic {
            id,
            name,
            partitions: i32::try_from(lists.len()).expect("few"),
            config,
            internal,
            created,
            replicas: lists.iter().map(|list| nodes(list)).collect(),
        },
        other => other,
    }
}

fn three() -> State {
    state_after(&[form(), register(1, 11), register(2, 12), register(3, 13)])
}

fn refusal(state: &mut State, command: &Command) -> String {
    let before = state.clone();
    let refused = apply(state, command).expect_err("refused");
    assert_eq!(State { applied: before.applied, ..state.clone() }, before, "a refused command changes nothing");
    refused.to_string()
}

#[test]
fn a_node_registers_again_with_its_disk_only() {
    let mut state = three();
    apply(&mut state, &Command::SetNodeMode { id: NodeId(2), mode: NodeMode::Draining }).expect("drains");
    let moved = match register(2, 12) {
        Command::RegisterNode { id, disk, zone, version, at, .. } => {
            Command::RegisterNode { id, disk, addresses: addresses(7), zone, version, at: Timestamp(at.0 + 10) }
        }
        other => other,
    };
    apply(&mut state, &moved).expect("with another address");
    let node = &state.nodes[&NodeId(2)];
    assert_eq!((node.addresses.clone(), node.registered, node.updated), (addresses(7), Timestamp(2), Timestamp(12)));
    assert_eq!(node.mode, NodeMode::Draining, "a restart does not end a drain");

    let wiped = refusal(&mut state, &register(2, 99));
    assert!(wiped.contains("node 2 has disk 00000000-0000-0000-0000-00000000000c"), "{wiped}");
    assert!(wiped.contains("and this one is 00000000-0000-0000-0000-000000000063"), "{wiped}");
    assert!(wiped.contains("seawall cluster remove 2"), "{wiped}");
    let copied = refusal(&mut state, &register(4, 12));
    assert!(copied.contains("is that of node 2"), "{copied}");
    apply(&mut state, &Command::ReplaceDisk { id: NodeId(2), disk: disk(99), at: Timestamp(20) }).expect("replaces");
    apply(&mut state, &register(2, 99)).expect("with the new disk");
    assert!(refusal(&mut state, &register(2, 12)).contains("node 2 has disk"));
}

#[test]
fn what_is_said_of_a_node_must_make_sense() {
    let mut state = State::default();
    assert_eq!(refusal(&mut state, &register(0, 1)), "node 0 cannot register: its id must be between 1 and 2147483647");
    let Command::RegisterNode { id, disk, version, at, .. } = register(1, 1) else { unreachable!() };
    let mut nowhere = addresses(1);
    nowhere.kafka.port = 0;
    let zone = "z".repeat(101);
    let bad = [
        (nowhere, String::new(), "its addresses must name a host and a port other than 0"),
        (addresses(1), zone, "its zone and version may have 100 bytes and no control characters"),
    ];
    for (addresses, zone, reason) in bad {
        let command = Command::RegisterNode { id, disk, addresses, zone, version: version.clone(), at };
        assert_eq!(refusal(&mut state, &command), format!("node 1 cannot register: {reason}"));
    }
}

#[test]
fn addresses_are_read_and_written_as_text() {
    for text in ["127.0.0.1:9092", "broker-1.example:1", "[::1]:65535"] {
        assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(text.to_owned()));
    }
    for text in ["", "a", "a:", ":1", "a:0", "a:65536", "::1:9092", "[::1:9", "a b:1", "a/b:1", "user@host:1"] {
        assert!(text.parse::<Address>().is_err(), "{text}");
    }
}

#[test]
fn replicas_are_members_and_as_many_as_allowed() {
    let mut state = three();
    apply(&mut state, &replicated(1, "wiki", &[&[1, 2, 3], &[2, 3, 1]])).expect("creates");
    let place = |partition| TopicPartition { topic: topic_id(1), partition: PartitionIndex(partition) };
    assert_eq!(state.replicas(place(1)), nodes(&[2, 3, 1]));
    assert_eq!((state.replicas(place(2)), state.replicas(place(-1))), (&[][..], &[][..]));
    let refused: [(&[&[u32]], &str); 6] = [
        (&[&[1, 2]], "replication factor 2 is refused: a majority of 2 is 2"),
        (&[&[1, 2, 4]], "node 4 is not a member of the cluster"),
        (&[&[1, 2, 2]], "partition 0 names node 2 twice"),
        (&[&[1, 2, 3], &[1]], "partition 1 has 1 replicas and the others 3"),
        (&[&[]], "replication factor 0 is refused: use 1, 3 or 5"),
        (&[&[1, 2, 3, 1, 2, 3]], "replication factor 6 is refused"),
    ];
    for (lists, message) in refused {
        let said = refusal(&mut state, &replicated(2, "other", lists));
        assert!(said.starts_with(message), "{said}");
    }
    assert!(refusal(&mut state, &create_topic(2, "nowhere", &[])).starts_with("0 lists of replicas for 2 partitions"));
    let more = |lists: &[&[u32]]| Command::AddPartitions {
        id: topic_id(1),
        total: 3,
        replicas: lists.iter().map(|list| nodes(list)).collect(),
    };
    assert!(refusal(&mut state, &more(&[])).starts_with("0 lists of replicas for 1 partitions"));
    apply(&mut state, &more(&[&[3, 1, 2]])).expect("adds");
    assert_eq!(state.replicas(place(2)), nodes(&[3, 1, 2]));
    assert_eq!(state.topic_named("wiki").map(|topic| topic.factor()), Some(3));
}

#[test]
fn a_founder_gets_replicas_before_it_has_registered() {
    let mut state = state_after(&[form(), register(1, 11)]);
    let ids: Vec<_> = state.candidates().iter().map(|candidate| candidate.id).collect();
    assert_eq!(ids, nodes(&[1, 2, 3]));
    apply(&mut state, &replicated(1, "wiki", &[&[1, 2, 3]])).expect("creates");
    assert!(matches!(
        apply(&mut state, &replicated(2, "other", &[&[4]])),
        Err(Refused::Place(PlaceError::UnknownNode(NodeId(4))))
    ));
}

#[test]
fn a_node_is_drained_before_it_is_removed_and_does_not_come_back() {
    let mut state = three();
    apply(&mut state, &register(4, 14)).expect("a fourth");
    apply(&mut state, &replicated(1, "wiki", &[&[1, 2, 3]])).expect("creates");
    apply(&mut state, &Command::SetNodeMode { id: NodeId(3), mode: NodeMode::Draining }).expect("drains");
    assert!(state.candidates().iter().all(|candidate| candidate.id != NodeId(3)));
    let remove = Command::RemoveNode { id: NodeId(3) };
    assert_eq!(refusal(&mut state, &remove), "node 3 has a replica of partition 0 of topic wiki: drain it first");
    let target = nodes(&[1, 2, 4]);
    let set = |target: &[NodeId]| move_to(0, target, None);
    let finish =
        |target: &[NodeId]| Command::FinishReassignment { id: topic_id(1), partition: P0, replicas: target.to_vec() };
    apply(&mut state, &set(&target)).expect("moves");
    assert!(refusal(&mut state, &remove).contains("drain it first"), "it has its copy until the move is done");
    assert_eq!(state.partitions_on(NodeId(4)).count(), 1);
    assert!(refusal(&mut state, &finish(&nodes(&[1, 2, 3]))).contains("is not on its way to those replicas"));
    apply(&mut state, &finish(&target)).expect("is there");
    assert!(refusal(&mut state, &finish(&target)).contains("is not on its way"), "once");
    apply(&mut state, &remove).expect("goes");
    assert!(refusal(&mut state, &register(3, 13)).contains("which was removed from the cluster"));
    assert!(refusal(&mut state, &remove).contains("node 3 is not a member"));
    let reused = refusal(&mut state, &register(3, 15));
    assert!(reused.contains("node 3 was removed from the cluster, and a number is never used twice"), "{reused}");
    apply(&mut state, &register(5, 15)).expect("with an empty folder and a new number it is a new node");
    assert_eq!(State::restore(&state.snapshot()), Ok(state));
}

fn move_to(partition: i32, target: &[NodeId], expected: Option<&[NodeId]>) -> Command {
    Command::SetReplicas {
        id: topic_id(1),
        partition: PartitionIndex(partition),
        target: target.to_vec(),
        expected: expected.map(<[NodeId]>::to_vec),
    }
}

fn finish(target: &[u32]) -> Command {
    Command::FinishReassignment { id: topic_id(1), partition: P0, replicas: nodes(target) }
}

fn deleted(node: u32) -> Command {
    Command::ReplicaDeleted { id: topic_id(1), partition: P0, node: NodeId(node) }
}

#[test]
fn a_copy_that_was_moved_away_is_deleted_before_its_node_gets_another() {
    let mut state = three();
    apply(&mut state, &register(4, 14)).expect("a fourth");
    apply(&mut state, &replicated(1, "wiki", &[&[1, 2, 3]])).expect("creates");
    let leaves = |state: &State, node: u32| state.topics[&topic_id(1)].is_leaving(P0, NodeId(node));
    apply(&mut state, &move_to(0, &nodes(&[1, 2, 4]), Some(&nodes(&[1, 2, 3])))).expect("moves");
    assert!(!leaves(&state, 3), "it has its copy until the move is done");
    apply(&mut state, &finish(&[1, 2, 4])).expect("is there");
    assert!(leaves(&state, 3) && !leaves(&state, 4));
    let back = move_to(0, &nodes(&[1, 2, 3]), None);
    assert!(refusal(&mut state, &back).contains("node 3 still deletes the copy of partition 0 of topic wiki"));
    assert_eq!(State::restore(&state.snapshot()).as_ref(), Ok(&state));
    apply(&mut state, &deleted(3)).expect("has deleted it");
    apply(&mut state, &deleted(3)).expect("says so twice");
    assert!(!leaves(&state, 3) && state.topics[&topic_id(1)].leaving.is_empty());
    apply(&mut state, &back).expect("may have one again");
}

#[test]
fn a_move_that_was_called_off_leaves_nothing_behind() {
    let mut state = three();
    for node in 4..=6 {
        apply(&mut state, &register(node, 10 + u128::from(node))).expect("comes");
    }
    apply(&mut state, &replicated(1, "wiki", &[&[1, 2, 3]])).expect("creates");
    for target in [[1, 2, 4], [1, 2, 5], [1, 2, 4], [1, 2, 6]] {
        apply(&mut state, &move_to(0, &nodes(&target), None)).expect("moves elsewhere");
    }
    // It may have a vote by now, and goes on serving its copy until the move has its end, also after a restart.
    assert!(state.partitions_on(NodeId(5)).count() == 1 && state.topics[&topic_id(1)].is_on(P0, NodeId(4)));
    assert!(refusal(&mut state, &Command::RemoveNode { id: NodeId(5) }).contains('5'));
    apply(&mut state, &finish(&[1, 2, 6])).expect("is there");
    assert_eq!(state.topics[&topic_id(1)].leaving[&P0], nodes(&[3, 4, 5]).into_iter().collect());
    assert!(state.topics[&topic_id(1)].called_off.is_empty());
    apply(&mut state, &Command::RemoveNode { id: NodeId(3) }).expect("goes: its disk does not come back");
    assert_eq!(state.topics[&topic_id(1)].leaving[&P0], nodes(&[4, 5]).into_iter().collect());
}

#[test]
fn a_plan_that_saw_something_else_does_nothing() {
    let mut state = three();
    apply(&mut state, &register(4, 14)).expect("a fourth");
    apply(&mut state, &replicated(1, "wiki", &[&[1, 2, 3]])).expect("creates");
    let stale = refusal(&mut state, &move_to(0, &nodes(&[1, 2, 4]), Some(&nodes(&[1, 2]))));
    assert!(stale.contains("are elsewhere by now, or being moved"), "{stale}");
    let seen = nodes(&[1, 2, 3]);
    apply(&mut state, &move_to(0, &nodes(&[1, 2, 4]), Some(&seen))).expect("moves");
    let twice = refusal(&mut state, &move_to(0, &nodes(&[2, 3, 4]), Some(&seen)));
    assert!(twice.contains("are elsewhere by now, or being moved"), "{twice}");
}

#[test]
fn a_move_can_be_called_off() {
    let mut state = three();
    apply(&mut state, &replicated(1, "wiki", &[&[1]])).expect("creates");
    let set = |target: &[u32]| move_to(0, &nodes(target), None);
    apply(&mut state, &set(&[2])).expect("moves");
    assert_eq!(state.topics[&topic_id(1)].targets.get(&P0), Some(&nodes(&[2])));
    assert!(refusal(&mut state, &set(&[1, 2])).contains("replication factor 2 is refused"));
    let beyond = move_to(1, &nodes(&[2]), None);
    assert_eq!(refusal(&mut state, &beyond), "topic wiki has no partition 1");
    apply(&mut state, &set(&[1])).expect("goes back");
    assert_eq!(state.topics[&topic_id(1)].targets.get(&P0), Some(&nodes(&[1])), "what was begun is to be undone");
    let finish = Command::FinishReassignment { id: topic_id(1), partition: P0, replicas: nodes(&[1]) };
    apply(&mut state, &finish).expect("is back");
    apply(&mut state, &set(&[1])).expect("where it is");
    assert!(state.topics[&topic_id(1)].targets.is_empty(), "nothing to do");
}

#[test]
fn disks_of_removed_nodes_are_remembered_up_to_a_bound() {
    let mut state = State::default();
    for number in 1..=u32::try_from(REMOVED_DISKS_MAX).expect("few") + 5 {
        apply(&mut state, &register(number, u128::from(number))).expect("comes");
        apply(&mut state, &Command::RemoveNode { id: NodeId(number) }).expect("goes");
    }
    assert_eq!(state.removed.len(), REMOVED_DISKS_MAX);
    assert!(!state.removed.contains_key(&disk(1)) && state.removed.contains_key(&disk(1_005)));
}
