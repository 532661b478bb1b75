use std::time::Duration;

use super::*;
use crate::load::{Ack, Load, Plan, testing};

fn tally(producer: u32, acks: Acks, produced: u64, acknowledged: &[(u64, u64)]) -> Tally {
    let mut tally = testing::tally(producer, acks);
    tally.produced = produced;
    tally.acks = acknowledged
        .iter()
        .map(|&(from, to)| Ack {
            from,
            to,
            first_sent: Duration::ZERO,
            sent: Duration::ZERO,
            at: Duration::ZERO,
            by: String::new(),
            again: false,
        })
        .collect();
    tally
}

fn read(ids: &[Id]) -> Vec<BTreeMap<i64, Id>> {
    vec![(0..).zip(ids.iter().copied()).collect()]
}

#[test]
fn all_there_is_nothing_lost() {
    let counts =
        compare(&[tally(1, Acks::All, 3, &[(0, 2), (2, 3)])], &read(&[(1, 0), (1, 1), (1, 2)]), &BTreeSet::new());
    let expected = Counts { produced: 3, acknowledged: 3, readable: 3, ..Counts::default() };
    assert_eq!(counts, expected);
}

#[test]
fn what_is_missing_is_lost_or_rescued() {
    let counts = compare(&[tally(1, Acks::Leader, 4, &[(0, 3)])], &read(&[(1, 0)]), &BTreeSet::from([(1, 2)]));
    assert_eq!((counts.lost, counts.rescued, counts.readable), (1, 1, 1));
    assert_eq!(Counts::examples(&counts.lost_ids), "1-1");
    assert!(!is_allowed(&[tally(1, Acks::Leader, 4, &[])], &counts.lost_ids));
    assert!(is_allowed(&[tally(1, Acks::None, 4, &[])], &counts.lost_ids));
}

#[test]
fn what_was_sent_and_not_acknowledged_may_be_there_or_not() {
    let counts = compare(&[tally(1, Acks::All, 4, &[(0, 2)])], &read(&[(1, 0), (1, 1), (1, 2)]), &BTreeSet::new());
    assert_eq!((counts.lost, counts.invented, counts.readable), (0, 0, 3));
}

#[test]
fn twice_out_of_order_and_invented_are_counted() {
    let ids = [(1, 0), (1, 2), (1, 1), (1, 2), (1, 9), (7, 0)];
    let counts = compare(&[tally(1, Acks::All, 3, &[(0, 3)])], &read(&ids), &BTreeSet::new());
    assert_eq!((counts.twice, counts.twice_idempotent, counts.out_of_order, counts.invented), (1, 1, 1, 2));
    let counts = compare(&[tally(1, Acks::Leader, 3, &[(0, 3)])], &read(&ids), &BTreeSet::new());
    assert_eq!((counts.twice, counts.twice_idempotent), (1, 0));
}

#[test]
fn an_offset_keeps_its_record() {
    let now = read(&[(1, 0), (1, 1)]).remove(0);
    assert_eq!(contradiction(0, &BTreeMap::from([(1, (1, 1))]), &now), None);
    assert!(contradiction(0, &BTreeMap::from([(1, (1, 2))]), &now).is_some());
    assert!(contradiction(0, &BTreeMap::from([(2, (1, 2))]), &now).is_some(), "what was read may not vanish");
}

#[test]
fn batches_are_found_in_lost_and_found_among_other_bytes() {
    let folder = std::env::temp_dir().join(format!("seawall-lost-{}", std::process::id()));
    let inner = folder.join("topic/3/lost+found/a");
    fs::create_dir_all(&inner).unwrap();
    let mut bytes = b"a header of some kind".to_vec();
    bytes.extend_from_slice(&testing::batch(3, 10, 4));
    bytes.extend_from_slice(b"between");
    bytes.extend_from_slice(&testing::batch(3, 14, 1));
    let torn = testing::batch(3, 15, 9);
    bytes.extend_from_slice(&torn[..torn.len() - 1]);
    fs::write(inner.join("suffix"), &bytes).unwrap();
    fs::write(folder.join("topic/3/other.log"), testing::batch(3, 99, 1)).unwrap();
    let found = lost_and_found(&folder);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [(3, 10), (3, 11), (3, 12), (3, 13), (3, 14)]);
}

#[test]
fn a_load_without_servers_acknowledges_nothing_and_ends() {
    let plan = Plan { producers: 2, patience: Duration::from_millis(200), ..Plan::standard("t", 1, Acks::All) };
    let load = Load::start(&["127.0.0.1:1".to_owned()], &plan, crate::load::Clock::start());
    assert!(load.await_acknowledged(1, Duration::from_millis(100)).is_err());
    assert!(load.await_all_flow(Duration::ZERO, Duration::from_millis(10)).is_err());
    let tallies = load.stop(Duration::from_secs(2));
    let counts = compare(&tallies, &[], &BTreeSet::new());
    assert_eq!((counts.produced, counts.acknowledged, counts.lost), (0, 0, 0));
}
