use std::collections::BTreeSet;

use base::Term;

use super::*;

fn lost(term: u64, offset: i64) -> LostBatch {
    LostBatch {
        term: Term(term),
        base_offset: Offset(offset),
        next_offset: Offset(offset + 1),
        records: 1,
        producer: ProducerId::NONE,
        acked: Acked::Yes,
        transactional: false,
        state: LostState::Kept,
        position: 0,
        size_bytes: 70,
    }
}

#[test]
fn no_two_batches_have_one_name_and_later_ones_have_later_epochs() {
    let mut names = BTreeSet::new();
    let terms = [0, 1, 2, 77, (1 << 20) - 1];
    let offsets = [0, 1, 2, 32_767, 32_768, 32_769, 1 << 30, (1 << 40) + 5, (1 << 41) - 1];
    for term in terms {
        for offset in offsets {
            let batch = lost(term, offset);
            for (id, epoch) in [name_of(&batch), second_name_of(&batch)] {
                assert!(is_rescuer(id) && epoch.0 >= 0, "{id} {epoch}");
                assert!(names.insert((id, epoch)), "term {term} offset {offset}");
            }
        }
    }
    assert_eq!(names.len(), 2 * terms.len() * offsets.len());
    let ((id, epoch), (later_id, later)) = (name_of(&lost(3, 40_000)), name_of(&lost(3, 40_001)));
    assert!(id == later_id && epoch < later);
    assert!(!is_rescuer(ProducerId(i64::MAX / 4)) && !is_rescuer(ProducerId::NONE));
}

#[test]
fn a_policy_republishes_what_was_or_may_have_been_acknowledged() {
    let was = |acked, producer, transactional| {
        LostBatch { acked, producer: ProducerId(producer), transactional, ..lost(1, 0) }.is_republished()
    };
    assert!(was(Acked::Yes, -1, false) && was(Acked::Yes, 5, false) && was(Acked::Unknown, -1, false));
    assert!(!was(Acked::Unknown, 5, false), "its producer sends it again");
    assert!(!was(Acked::No, -1, false) && !was(Acked::Yes, 5, true));
    let found = |acked| LostFound {
        path: "x".to_owned(),
        saved_at: Timestamp(1_000),
        replaced_by: Term(2),
        dropped_batches: 0,
        size_bytes: 0,
        batches: vec![lost(1, 0), LostBatch { acked, ..lost(1, 1) }],
    };
    assert!(Rescue::is_due(&found(Acked::Yes), Timestamp(1_000)));
    assert!(!Rescue::is_due(&found(Acked::Unknown), Timestamp(1_000 + RESCUE_WAIT_MS - 1)));
    assert!(Rescue::is_due(&found(Acked::Unknown), Timestamp(1_000 + RESCUE_WAIT_MS)));
}
