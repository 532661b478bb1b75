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
    assert!(wiped.contains("replace-disk 2 00000000-0000-0000-0000-000000000063"), "{wiped}");
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
    let set = |target: &[NodeId]| Command::SetReplicas { id: topic_id(1), partition: P0, target: target.to_vec() };
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
    apply(&mut state, &register(3, 15)).expect("with an empty folder it is a new node");
    assert_eq!(State::restore(&state.snapshot()), Ok(state));
}

#[test]
fn a_move_can_be_called_off() {
    let mut state = three();
    apply(&mut state, &replicated(1, "wiki", &[&[1]])).expect("creates");
    let set = |target: &[u32]| Command::SetReplicas { id: topic_id(1), partition: P0, target: nodes(target) };
    apply(&mut state, &set(&[2])).expect("moves");
    assert_eq!(state.topics[&topic_id(1)].targets.get(&P0), Some(&nodes(&[2])));
    assert!(refusal(&mut state, &set(&[1, 2])).contains("replication factor 2 is refused"));
    let beyond = Command::SetReplicas { id: topic_id(1), partition: PartitionIndex(1), target: nodes(&[2]) };
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
