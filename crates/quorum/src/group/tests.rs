//! Traces as text, and a seeded world that checks what must always hold.

use bytes::Bytes;

use super::*;
use crate::{Entry, Initial, Payload};

mod cruel;
mod hostile;
mod slow;
pub(super) mod world;

use world::{MemLog, World};

/// Runs a trace script: `> command` lines, each followed by what it must print.
fn run(script: &str) {
    let mut world = World::default();
    let mut got = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            if !got.is_empty() {
                got.push('\n');
            }
            got.push_str(line);
            got.push('\n');
            for out in world.command(command) {
                got.push_str(&out);
                got.push('\n');
            }
        }
    }
    assert!(got == script, "the trace is now:\n{got}");
}

#[test]
fn one_voter() {
    run(include_str!("testdata/one_voter.txt"));
}

#[test]
fn one_voter_with_a_learner_sends_nothing_before_its_vote_is_durable() {
    run(include_str!("testdata/one_voter_and_learner.txt"));
}

#[test]
fn three_voters_lose_their_leader() {
    run(include_str!("testdata/three_voters.txt"));
}

#[test]
fn an_unsynced_copy_does_not_count() {
    run(include_str!("testdata/unsynced.txt"));
}

#[test]
fn a_slow_follower_gets_a_snapshot() {
    run(include_str!("testdata/snapshot.txt"));
}

#[test]
fn a_lease_follows_the_heartbeats() {
    run(include_str!("testdata/lease.txt"));
}

#[test]
fn a_voter_keeps_its_promise_and_then_hurries() {
    run(include_str!("testdata/promise.txt"));
}

#[test]
fn leadership_is_handed_over() {
    run(include_str!("testdata/transfer.txt"));
}

#[test]
fn members_change_one_half_after_the_other() {
    run(include_str!("testdata/members.txt"));
}

fn config(node: u32) -> GroupConfig {
    GroupConfig {
        node: NodeId(node),
        election_ticks: 10,
        heartbeat_ticks: 2,
        seed: 7,
        uncommitted_bytes_max: 100,
        inflight_messages_max: 16,
        ..GroupConfig::standard(NodeId(node), 7)
    }
}

fn sole_leader() -> Group<MemLog> {
    let mut group = Group::open(config(1), MemLog::new(&[1], &[])).unwrap();
    group.campaign();
    persist_all(&mut group);
    assert_eq!(group.role(), Role::Leader);
    group
}

/// Writes and persists until there is nothing left; returns what was committed.
fn persist_all(group: &mut Group<MemLog>) -> Vec<crate::Entry> {
    let mut committed = Vec::new();
    while let Some(ready) = group.ready() {
        group.storage_mut().write(&ready);
        group.written(ready.number);
        group.persisted(ready.number);
        committed.extend(ready.committed);
    }
    committed
}

#[test]
fn a_full_group_is_busy_and_recovers() {
    let mut group = sole_leader();
    group.propose(Bytes::from(vec![1; 80])).unwrap();
    let refused = group.propose(Bytes::from(vec![2; 80])).unwrap_err();
    assert_eq!(refused, ProposeError::Busy { uncommitted_bytes: 80 });
    assert_eq!(persist_all(&mut group).len(), 1);
    group.propose(Bytes::from(vec![3; 80])).unwrap();
}

#[test]
fn a_follower_says_who_leads() {
    let mut group = Group::open(config(2), MemLog::new(&[1, 2, 3], &[])).unwrap();
    let refused = group.propose(Bytes::from_static(b"x")).unwrap_err();
    assert_eq!(refused, ProposeError::NotLeader { leader: None });
    assert_eq!(refused.to_string(), "this group has no leader now; try again after an election");
}

#[test]
fn many_readies_may_be_written_before_one_sync() {
    let mut group = sole_leader();
    let mut last = 0;
    for round in 0..5_u8 {
        let (_, index) = group.propose(Bytes::from(vec![round + 1])).unwrap();
        let ready = group.ready().unwrap();
        assert_eq!(ready.entries.len(), 1);
        assert_eq!(ready.entries[0].index, index);
        assert!(ready.committed.is_empty() && ready.must_sync);
        group.storage_mut().write(&ready);
        group.written(ready.number);
        last = ready.number;
    }
    assert!(group.ready().is_none(), "nothing is decided before the sync");
    group.persisted(last);
    let committed = persist_all(&mut group);
    assert_eq!(committed.iter().map(|entry| entry.payload.bytes()[0]).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(group.storage().reads(), 0, "what was just written is not read back");
}

#[test]
fn entries_from_before_a_restart_are_read_and_handed_out_once() {
    let mut group = sole_leader();
    for data in ["a", "b"] {
        group.propose(Bytes::from_static(data.as_bytes())).unwrap();
    }
    persist_all(&mut group);
    let mut log = group.storage().clone();
    log.forget_commit();
    let mut group = Group::open(config(1), log).unwrap();
    group.campaign();
    let committed = persist_all(&mut group);
    let data: Vec<&[u8]> = committed.iter().map(|entry| entry.payload.bytes()).collect();
    assert_eq!(data, [&b""[..], b"a", b"b", b""]);
    assert_eq!(committed[3].payload, Payload::Empty);
    assert_eq!(group.term(), Term(2));
}

#[test]
fn a_damaged_log_stops_the_group_and_not_the_program() {
    let mut group = sole_leader();
    group.propose(Bytes::from_static(b"a")).unwrap();
    persist_all(&mut group);
    let mut log = group.storage().clone();
    log.forget_commit();
    log.damage("bad block");
    let mut group = Group::open(config(1), log).unwrap();
    group.campaign();
    assert!(persist_all(&mut group).is_empty());
    assert_eq!(group.fault(), Some(&StorageError::Corrupt("bad block".to_owned())));
    let refused = group.propose(Bytes::from_static(b"b")).unwrap_err();
    assert_eq!(refused.to_string(), "the group stopped: the log is damaged: bad block");
    group.tick(Tick(25));
    group.campaign();
    assert!(group.ready().is_none());
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let open = |config: GroupConfig, log: MemLog| Group::open(config, log).map(|_| ()).unwrap_err().to_string();
    let one = || MemLog::new(&[1], &[]);
    let refusal = open(GroupConfig { election_ticks: 2, ..config(1) }, one());
    assert!(refusal.starts_with("group configuration: node, ticks and bounds must be above zero"), "{refusal}");
    let refusal = open(config(1), MemLog::new(&[1, 2], &[2]));
    assert!(refusal.starts_with("group configuration: voters 1 2, learners 2: a voter is a learner too"), "{refusal}");
    let refusal = open(config(1), MemLog::new(&[], &[]));
    assert!(refusal.ends_with("nobody votes"), "{refusal}");
    let mut log = one();
    log.state.hard_state.commit = LogIndex(3);
    let refusal = open(config(1), log);
    assert_eq!(refusal, "the stored group contradicts itself: 3 is committed but the log is 1..=0");
}

#[test]
fn a_leader_that_knows_more_committed_than_the_disk_has_is_reported() {
    let mut group = Group::open(config(2), MemLog::new(&[1, 2, 3], &[])).unwrap();
    let heartbeat = eraftpb::Message {
        msg_type: MessageType::MsgHeartbeat,
        from: 1,
        to: 2,
        term: 1,
        commit: 9,
        ..eraftpb::Message::default()
    };
    let refused = group.step(Tick(0), Message(heartbeat.clone())).unwrap_err();
    let expected = QuorumError::LostEntries { from: NodeId(1), commit: LogIndex(9), last: LogIndex(0) };
    assert_eq!(refused, expected);
    let elsewhere = Message(eraftpb::Message { to: 3, ..heartbeat });
    let refused = group.step(Tick(0), elsewhere).unwrap_err();
    assert_eq!(refused.to_string(), "message from node 1 dropped: it is not for this node");
}

#[test]
fn only_a_sole_voter_has_a_lease_without_asking() {
    assert!(sole_leader().lease_valid(Tick(0)));
    let follower = Group::open(config(2), MemLog::new(&[1, 2, 3], &[])).unwrap();
    assert!(!follower.lease_valid(Tick(0)));
    let initial = follower.storage().initial();
    let expected = Initial {
        hard_state: HardState::default(),
        members: Members::new(&[NodeId(1), NodeId(2), NodeId(3)], &[]),
        applied: LogIndex(0),
    };
    assert_eq!(initial, expected);
}
