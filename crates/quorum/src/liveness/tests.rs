//! Beats between two nodes, by hand. Whole worlds with sleeping groups: group/tests/cruel.rs.

use super::*;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const QUIET: Quiet = Quiet { term: Term(3), last: LogIndex(10) };

fn key(number: u32) -> GroupKey {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&number.to_le_bytes());
    GroupKey(key)
}

fn asleep(leader: &mut Liveness, now: u64, groups: std::ops::Range<u32>) {
    for group in groups {
        assert!(leader.sleep(Tick(now), key(group), QUIET, &[ONE, TWO, NodeId(3)], &[TWO]));
    }
}

/// One beat from node 1 to node 2 and its answer; what woke at either.
fn beat(
    leader: &mut Liveness,
    follower: &mut Liveness,
    now: u64,
    may_follow: &mut dyn FnMut(GroupKey, Quiet) -> bool,
) -> (Vec<GroupKey>, Vec<GroupKey>) {
    let keys = |woken: Vec<(GroupKey, Slept)>| woken.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let (mut at_leader, mut at_follower) = (keys(leader.check(Tick(now))), keys(follower.check(Tick(now))));
    for (to, bytes) in leader.beat(Tick(now)) {
        assert_eq!(to, TWO);
        let received = follower.receive(Tick(now + 5_000), ONE, bytes, may_follow).unwrap();
        at_follower.extend(keys(received.woken));
        if let Some(answer) = received.answer {
            let received = leader.receive(Tick(now + 1), TWO, answer, &mut |_, _| false).unwrap();
            at_leader.extend(keys(received.woken));
        }
    }
    (at_leader, at_follower)
}

#[test]
fn one_beat_stands_for_all_groups() {
    let (mut leader, mut follower) = (Liveness::new(1), Liveness::new(2));
    asleep(&mut leader, 100, 0..1_000);
    assert_eq!(beat(&mut leader, &mut follower, 125, &mut |_, _| true), (vec![], vec![]));
    assert_eq!(follower.len(), 1_000);
    beat(&mut leader, &mut follower, 150, &mut |_, _| panic!("all is known"));
    for group in 0..1_000 {
        assert_eq!(leader.slept(key(group)).unwrap().answered, [(TWO, Tick(150))]);
        assert_eq!(follower.slept(key(group)).unwrap().heard, Some((Tick(5_150), 0)));
    }
    let bytes: usize = leader.beat(Tick(175)).iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes < 600, "{bytes} bytes for a thousand groups");
}

#[test]
fn an_answer_says_nothing_of_groups_that_came_after_the_beat() {
    let (mut leader, mut follower) = (Liveness::new(1), Liveness::new(2));
    asleep(&mut leader, 100, 0..1);
    let (_, bytes) = leader.beat(Tick(125)).pop().unwrap();
    asleep(&mut leader, 130, 1..500);
    let answer = follower.receive(Tick(0), ONE, bytes, &mut |_, _| true).unwrap().answer.unwrap();
    leader.receive(Tick(140), TWO, answer, &mut |_, _| false).unwrap();
    assert_eq!(leader.slept(key(0)).unwrap().answered, [(TWO, Tick(125))]);
    assert!((1..500).all(|group| leader.slept(key(group)).unwrap().answered.is_empty()));
}

#[test]
fn a_group_that_may_not_sleep_there_goes_on_awake() {
    let (mut leader, mut follower) = (Liveness::new(1), Liveness::new(2));
    asleep(&mut leader, 100, 0..300);
    let (woken, _) = beat(&mut leader, &mut follower, 125, &mut |group, _| group != key(7));
    assert_eq!(woken, [key(7)]);
    assert_eq!((leader.len(), follower.len()), (299, 299));
    beat(&mut leader, &mut follower, 150, &mut |_, _| panic!("nothing is new"));
    assert_eq!(leader.slept(key(8)).unwrap().answered, [(TWO, Tick(150))]);
}

#[test]
fn what_wakes_on_one_side_only_is_noticed() {
    let (mut leader, mut follower) = (Liveness::new(1), Liveness::new(2));
    asleep(&mut leader, 100, 0..300);
    beat(&mut leader, &mut follower, 125, &mut |_, _| true);
    assert!(follower.wake(key(3)).is_some() && follower.wake(key(3)).is_none());
    beat(&mut leader, &mut follower, 150, &mut |_, _| panic!("the sum differs, nothing is listed"));
    let mut asked = Vec::new();
    beat(&mut leader, &mut follower, 175, &mut |group, quiet| {
        asked.push((group, quiet));
        true
    });
    assert_eq!(asked, [(key(3), QUIET)]);
    leader.wake(key(4)).unwrap();
    beat(&mut leader, &mut follower, 200, &mut |_, _| false);
    let (_, woken) = beat(&mut leader, &mut follower, 225, &mut |_, _| false);
    assert_eq!(woken, [key(4)]);
}

/// Ticks of 25 ms until something wakes; when, and how many.
fn until_woken(liveness: &mut Liveness, from: u64) -> (u64, usize) {
    (1..100)
        .map(|tick| from + 25 * tick)
        .map(|now| (now, liveness.check(Tick(now)).len()))
        .find(|(_, woken)| *woken > 0)
        .unwrap()
}

#[test]
fn silence_wakes_what_it_was_to_keep_asleep() {
    let (mut leader, mut follower) = (Liveness::new(1), Liveness::new(2));
    asleep(&mut leader, 100, 0..50);
    beat(&mut leader, &mut follower, 125, &mut |_, _| true);
    follower.check(Tick(5_125));
    assert_eq!(until_woken(&mut follower, 5_125), (5_125 + SILENT_MS + 25, 50));
    assert_eq!(until_woken(&mut leader, 125), (125 + UNANSWERED_MS + 25, 50));
    let sole = key(900);
    leader.sleep(Tick(1_000), sole, QUIET, &[ONE], &[]);
    assert!((41..4_000).all(|tick| leader.check(Tick(25 * tick)).is_empty()) && leader.is_asleep(sole));
}

#[test]
fn what_woke_knows_how_long_it_was_asleep() {
    let (mut leader, mut follower) = (Liveness::new(1), Liveness::new(2));
    asleep(&mut leader, 100, 0..1);
    beat(&mut leader, &mut follower, 125, &mut |_, _| true);
    follower.check(Tick(5_150));
    // Two ticks were counted there since the beat came: a clock that jumps counts for nothing more.
    let woken = follower.check(Tick(9_000));
    assert_eq!(woken, [(key(0), Slept { heard: Some((Tick(5_125), 2)), answered: vec![] })]);
}

#[test]
fn a_node_that_stands_still_now_and_then_waits_longer() {
    let (mut leader, mut follower) = (Liveness::new(1), Liveness::new(2));
    asleep(&mut leader, 100, 0..50);
    beat(&mut leader, &mut follower, 125, &mut |_, _| true);
    follower.check(Tick(5_125));
    assert!(follower.check(Tick(5_325)).is_empty(), "200 ms without a tick: it heard nobody");
    assert_eq!(until_woken(&mut follower, 5_325), (5_125 + 3 * SILENT_MS + 25, 50), "but that has an end");
}

#[test]
fn a_crowd_wakes_a_few_at_a_time_and_only_while_it_is_silent() {
    let (mut leader, mut follower) = (Liveness::new(1), Liveness::new(2));
    asleep(&mut leader, 100, 0..2_000);
    beat(&mut leader, &mut follower, 125, &mut |_, _| true);
    follower.check(Tick(5_125));
    let (woken_at, woken) = until_woken(&mut follower, 5_125);
    assert_eq!((woken, follower.len()), (WOKEN_MAX, 2_000 - WOKEN_MAX));
    // The leader was only late: what still sleeps goes on sleeping where the sums agree again.
    let now = woken_at - 5_000 + 25;
    beat(&mut leader, &mut follower, now, &mut |_, _| true);
    let (_, woken) = beat(&mut leader, &mut follower, now + 25, &mut |_, _| true);
    assert_eq!((woken.len(), follower.len()), (0, 2_000), "and the others fell asleep again");
}

#[test]
fn another_process_on_the_node_led_nothing() {
    let (mut leader, mut follower) = (Liveness::new(1), Liveness::new(2));
    asleep(&mut leader, 100, 0..50);
    beat(&mut leader, &mut follower, 125, &mut |_, _| true);
    let mut restarted = Liveness::new(3);
    asleep(&mut restarted, 150, 60..61);
    let (_, woken) = beat(&mut restarted, &mut follower, 150, &mut |_, _| true);
    assert_eq!((woken.len(), follower.len()), (50, 1));
}

#[test]
fn a_beat_that_comes_twice_or_late_says_nothing() {
    let (mut leader, mut follower) = (Liveness::new(1), Liveness::new(2));
    asleep(&mut leader, 100, 0..1);
    let (_, first) = leader.beat(Tick(125)).pop().unwrap();
    let (_, second) = leader.beat(Tick(150)).pop().unwrap();
    let receive = |follower: &mut Liveness, bytes: &Bytes| {
        follower.receive(Tick(9), ONE, bytes.clone(), &mut |_, _| true).unwrap().answer
    };
    assert!(receive(&mut follower, &first).is_some());
    let answer = receive(&mut follower, &second).unwrap();
    assert!(receive(&mut follower, &first).is_none() && receive(&mut follower, &second).is_none());
    for _ in 0..2 {
        leader.receive(Tick(160), TWO, answer.clone(), &mut |_, _| false).unwrap();
    }
    assert_eq!(leader.slept(key(0)).unwrap().answered, [(TWO, Tick(150))]);
    let mut other = Liveness::new(77);
    asleep(&mut other, 100, 0..1);
    other.beat(Tick(125));
    other.receive(Tick(160), TWO, answer, &mut |_, _| false).unwrap();
    assert!(other.slept(key(0)).unwrap().answered.is_empty(), "an answer to another process");
}

#[test]
fn only_what_is_new_wakes() {
    let (mut leader, mut follower) = (Liveness::new(1), Liveness::new(2));
    asleep(&mut leader, 100, 0..1);
    beat(&mut leader, &mut follower, 125, &mut |_, _| true);
    let message = |kind, change: fn(&mut raft::eraftpb::Message)| {
        let mut m = raft::eraftpb::Message { from: 1, to: 2, term: 3, ..raft::eraftpb::Message::default() };
        m.set_msg_type(kind);
        change(&mut m);
        Message(m)
    };
    let at = |m: &mut raft::eraftpb::Message, ms| m.context = crate::message::codec::context_of(ms);
    let old = [
        message(MessageType::MsgHeartbeat, |m| m.context = crate::message::codec::context_of(125)),
        message(MessageType::MsgAppend, |m| (m.index, m.commit) = (10, 10)),
    ];
    assert!(old.iter().all(|message| follower.passes_over(key(0), message)));
    let mut later = message(MessageType::MsgHeartbeat, |_| ());
    at(&mut later.0, 126);
    let new = [
        later,
        message(MessageType::MsgAppend, |m| m.index = 11),
        message(MessageType::MsgHeartbeat, |m| m.term = 4),
        message(MessageType::MsgRequestVote, |m| m.term = 4),
    ];
    assert!(new.iter().all(|message| !follower.passes_over(key(0), message)));
    assert!(old.iter().all(|message| !follower.passes_over(key(1), message)), "that one is awake");
    let answers = [
        message(MessageType::MsgHeartbeatResponse, |m| m.from = 2),
        message(MessageType::MsgAppendResponse, |m| m.index = 10),
    ];
    assert!(answers.iter().all(|message| leader.passes_over(key(0), message)));
    let refused = message(MessageType::MsgAppendResponse, |m| m.reject = true);
    assert!(!leader.passes_over(key(0), &refused));
}

#[test]
fn golden_bytes_and_damage() {
    let mut leader = Liveness::new(0x11);
    asleep(&mut leader, 100, 5..6);
    let (_, bytes) = leader.beat(Tick(0x22)).pop().unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(hex.starts_with("010100001100000000000000010000000000000022000000000000000"), "{hex}");
    assert_eq!(bytes.len(), 4 + 8 * 5 + 8 + 4 + 36);
    let mut follower = Liveness::new(2);
    for at in 0..bytes.len() {
        assert!(follower.receive(Tick(0), ONE, bytes.slice(..at), &mut |_, _| true).is_err());
        for bit in 0..8 {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << bit;
            let _read_or_refused = follower.receive(Tick(0), ONE, damaged.into(), &mut |_, _| true);
        }
    }
    let mut endless = bytes.to_vec();
    endless[52..56].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(follower.receive(Tick(0), ONE, endless.into(), &mut |_, _| true).is_err());
}
