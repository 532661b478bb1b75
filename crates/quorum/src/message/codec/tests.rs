//! Golden bytes, round trips of seeded messages, and what damage does to them.

use super::super::Message;
use super::*;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn number(&mut self) -> u64 {
        let bits = self.below(62);
        self.next() & ((1 << bits) - 1)
    }

    fn bytes(&mut self, len_max: u64) -> Bytes {
        let len = self.below(len_max);
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

fn members(random: &mut Random) -> Members {
    let pick = |random: &mut Random, from: u32| -> Vec<NodeId> {
        (from..from + 4).filter(|_| random.below(2) == 0).map(NodeId).collect()
    };
    let voters = [vec![NodeId(1)], pick(random, 2)].concat();
    let (outgoing, learners) = (pick(random, 6), pick(random, 10));
    let learners_next = outgoing.iter().copied().filter(|_| random.below(2) == 0).collect();
    Members { voters, outgoing, learners, learners_next }
}

/// A message such as a group may hand out.
fn message(random: &mut Random) -> eraftpb::Message {
    let (_, kind) = KINDS[usize::try_from(random.below(12)).unwrap()];
    let mut m = eraftpb::Message {
        from: 1 + random.below(u64::from(u32::MAX)),
        to: 1 + random.below(u64::from(u32::MAX)),
        term: random.number(),
        log_term: random.number(),
        index: random.number(),
        commit: random.number(),
        commit_term: random.number(),
        reject_hint: random.number(),
        reject: random.below(2) == 0,
        ..eraftpb::Message::default()
    };
    m.set_msg_type(kind);
    match kind {
        MessageType::MsgAppend | COPIES_GIVEN => {
            let entries: Vec<Entry> = (m.index + 1..)
                .take(usize::try_from(random.below(5)).unwrap())
                .map(|index| entry(random, index))
                .collect();
            m.entries = entries.into();
        }
        MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse => m.context = context_of(random.number()),
        MessageType::MsgRequestVote if random.below(2) == 0 => m.context = Bytes::from_static(CAMPAIGN_TRANSFER),
        MessageType::MsgSnapshot => {
            let mut snapshot = Snapshot { data: random.bytes(200), ..Snapshot::default() };
            let metadata = snapshot.mut_metadata();
            (metadata.term, metadata.index) = (random.number(), random.number());
            metadata.set_conf_state(to_conf_state(&members(random)));
            m.set_snapshot(snapshot);
        }
        _ => {}
    }
    m
}

fn entry(random: &mut Random, index: u64) -> Entry {
    let mut entry = Entry { term: random.number(), index, ..Entry::default() };
    match random.below(3) {
        0 => {}
        1 => entry.data = [&b"x"[..], &random.bytes(100)].concat().into(),
        _ => {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            entry.data = random.bytes(20);
        }
    }
    entry
}

#[test]
fn golden_bytes() {
    let mut m =
        eraftpb::Message { from: 1, to: 2, term: 3, log_term: 2, index: 7, commit: 6, ..eraftpb::Message::default() };
    m.set_msg_type(MessageType::MsgAppend);
    m.entries = vec![Entry { term: 3, index: 8, data: Bytes::from_static(b"hi"), ..Entry::default() }].into();
    let hex: String = Message(m).encode().iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = [
        "01010000",
        "0100000002000000",
        "0300000000000000",
        "0200000000000000",
        "0700000000000000",
        "0600000000000000",
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
        "01000000",
        "0300000000000000",
        "01000000",
        "02000000",
        "6869",
    ];
    assert_eq!(hex, expected.concat());
}

#[test]
fn every_message_comes_back() {
    let mut random = Random(1);
    for _ in 0..20_000 {
        let m = message(&mut random);
        let bytes = Message(m.clone()).encode();
        let back = Message::decode(bytes.clone()).unwrap();
        assert_eq!(back.0, m);
        assert_eq!(back.encode(), bytes);
    }
}

#[test]
fn payloads_are_not_copied() {
    let mut random = Random(2);
    let mut m = message(&mut random);
    m.set_msg_type(MessageType::MsgAppend);
    (m.index, m.context) = (4, Bytes::new());
    m.entries = vec![Entry { term: 1, index: 5, data: vec![7; 1_000].into(), ..Entry::default() }].into();
    m.clear_snapshot();
    let bytes = Message(m).encode();
    let back = Message::decode(bytes.clone()).unwrap();
    let range = bytes.as_ptr_range();
    assert!(range.contains(&back.0.entries[0].data.as_ptr()));
}

/// Cut, flipped, spliced: an error or a message that encodes to what was read.
#[test]
fn damage_is_refused_or_means_what_it_says() {
    let mut random = Random(3);
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..60_000 {
        let mut bytes = Message(message(&mut random)).encode().to_vec();
        match random.below(4) {
            0 => bytes.truncate(usize::try_from(random.below(bytes.len() as u64 + 1)).unwrap()),
            1 => bytes.extend_from_slice(&random.bytes(9)),
            2 => {
                let other = Message(message(&mut random)).encode();
                let at = usize::try_from(random.below(bytes.len().min(other.len()) as u64)).unwrap();
                bytes.splice(at.., other[at..].iter().copied());
            }
            _ => {}
        }
        for _ in 0..random.below(4) {
            if !bytes.is_empty() {
                let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
                bytes[at] ^= 1 << random.below(8);
            }
        }
        let bytes = Bytes::from(bytes);
        match Message::decode(bytes.clone()) {
            Ok(message) => {
                taken += 1;
                assert_eq!(message.encode(), bytes);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 10_000 && taken > 10_000, "{refused} refused, {taken} taken");
}

#[test]
fn any_bytes_are_an_error_and_not_a_panic() {
    let mut random = Random(4);
    for _ in 0..50_000 {
        let mut bytes = random.bytes(300).to_vec();
        if let [version, kind, flags, zero, ..] = &mut bytes[..] {
            (*version, *kind, *flags, *zero) = (VERSION, *kind % 12, *flags % 4, 0);
        }
        let _read_or_refused = Message::decode(bytes.into());
    }
}

#[test]
fn lying_lengths_allocate_nothing() {
    let mut random = Random(5);
    let mut m = message(&mut random);
    while m.get_msg_type() != MessageType::MsgAppend {
        m = message(&mut random);
    }
    let mut bytes = Message(m).encode().to_vec();
    bytes[68..72].copy_from_slice(&u32::MAX.to_le_bytes());
    let refused = Message::decode(bytes.into()).unwrap_err();
    assert_eq!(refused.to_string(), "a message makes no sense: it claims more entries than it has bytes for");
    let later = Message::decode(Bytes::from_static(&[9, 1, 0])).unwrap_err();
    assert_eq!(later.to_string(), "a message of format version 9; this program reads 1");
}
