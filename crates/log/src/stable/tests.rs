use base::batch::Codec;

use super::*;

fn data(producer: i64, offset: i64, attributes: i16) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(offset),
        size_bytes: 100,
        leader_epoch: 0,
        crc: 0,
        attributes,
        codec: Codec::None,
        last_offset_delta: 0,
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(0),
        base_sequence: 0,
        record_count: 1,
    }
}

/// `d 1 10`: data of producer 1 at offset 10; `p`: plain data; `c` and `a`: markers. Answers what each aborted.
fn play(all: &mut Transactions, script: &str) -> Vec<Aborted> {
    let mut aborted = Vec::new();
    for line in script.split(',') {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (producer, offset) = (words[1].parse().unwrap(), words[2].parse().unwrap());
        let (attributes, commit) = match words[0] {
            "p" => (0, None),
            "d" => (0x10, None),
            "c" => (0x30, Some(true)),
            _ => (0x30, Some(false)),
        };
        let header = data(producer, offset, attributes);
        let marker = commit.map(|commit| EndMarker {
            producer: ProducerId(producer),
            epoch: ProducerEpoch(0),
            commit,
            coordinator_epoch: 0,
        });
        aborted.extend(all.record(&header, marker.as_ref(), Timestamp(5)));
    }
    aborted
}

fn aborted(producer: i64, first: i64, last: i64, floor: i64) -> Aborted {
    Aborted { producer: ProducerId(producer), first: Offset(first), last: Offset(last), floor: Offset(floor) }
}

#[test]
fn what_is_stable_ends_at_the_earliest_open_transaction() {
    let mut all = Transactions::default();
    assert_eq!(all.first_unstable(Offset(0)), None);
    assert_eq!(play(&mut all, "p 9 0, d 1 1, d 2 2, d 1 3, c 1 4"), []);
    assert_eq!(all.first_unstable(Offset(4)), Some(Offset(1)), "its marker may be taken back");
    assert_eq!(all.first_unstable(Offset(5)), Some(Offset(2)));
    assert_eq!(play(&mut all, "d 1 5, a 2 6, a 9 7"), [aborted(2, 2, 6, 5)]);
    assert_eq!(all.first_unstable(Offset(8)), Some(Offset(5)));
    all.decided(Offset(5));
    assert_eq!(all.first_unstable(Offset(6)), Some(Offset(2)));
    assert!(all.is_open(ProducerId(1)) && !all.is_open(ProducerId(2)));
    let mut bytes = BytesMut::new();
    all.encode(&mut bytes);
    assert_eq!(Transactions::decode(&bytes), Some(all));
    for len in 0..bytes.len() {
        assert_eq!(Transactions::decode(&bytes[..len]), None);
    }
}

#[test]
fn a_search_stops_where_nothing_more_can_overlap() {
    let mut all = Transactions::default();
    let list = play(&mut all, "d 1 0, d 2 1, a 2 2, d 2 3, a 1 4, d 3 5, a 2 6, a 3 7");
    assert_eq!(list, [aborted(2, 1, 2, 0), aborted(1, 0, 4, 3), aborted(2, 3, 6, 5), aborted(3, 5, 7, 8)]);
    let search = |from, to| {
        let mut found = Vec::new();
        let ended = overlapping(&list, Offset(from), Offset(to), &mut found);
        (found.iter().map(|one| (one.producer.0, one.first.0)).collect::<Vec<_>>(), ended)
    };
    assert_eq!(search(0, 3), (vec![(2, 1), (1, 0)], true));
    assert_eq!(search(3, 4), (vec![(1, 0), (2, 3)], true));
    assert_eq!(search(7, 8), (vec![(3, 5)], true));
    assert_eq!(search(7, 9), (vec![(3, 5)], false));
}
