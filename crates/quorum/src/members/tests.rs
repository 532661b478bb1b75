//! What a change does to members, as text, and what bytes are none.

use super::*;

fn nodes(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().map(|id| NodeId(*id)).collect()
}

fn to(voters: &[u32], learners: &[u32]) -> Bytes {
    Change::To { voters: nodes(voters), learners: nodes(learners) }.encode()
}

#[test]
fn voters_change_in_two_steps() {
    let members = Members::new(&nodes(&[3, 1, 2]), &nodes(&[9]));
    assert_eq!(members.to_string(), "voters 1 2 3, learners 9");
    let joint = members.after(&to(&[2, 4, 9], &[3])).unwrap();
    assert_eq!(joint.to_string(), "voters 2 4 9, outgoing 1 2 3, learners to come 3");
    assert_eq!(joint.all(), nodes(&[1, 2, 3, 4, 9]));
    assert!(joint.check().is_ok() && joint.is_joint() && joint.is_voter(NodeId(1)));
    let refused = joint.after(&to(&[1], &[])).unwrap_err();
    assert_eq!(refused.to_string(), "another change is under way");
    let after = joint.after(&Change::Leave.encode()).unwrap();
    assert_eq!(after.to_string(), "voters 2 4 9, learners 3");
    let refused = after.after(&Change::Leave.encode()).unwrap_err();
    assert_eq!(refused.to_string(), "no change is under way that could end");
}

#[test]
fn learners_change_at_once() {
    let members = Members::new(&nodes(&[1]), &[]);
    assert_eq!(members.sole_voter(), Some(NodeId(1)));
    let after = members.after(&to(&[1], &[2, 3])).unwrap();
    assert_eq!(after.to_string(), "voters 1, learners 2 3");
}

#[test]
fn golden_bytes() {
    assert_eq!(to(&[1, 300], &[2])[..], [1, 1, 2, 1, 0, 0, 0, 44, 1, 0, 0, 1, 2, 0, 0, 0]);
    assert_eq!(Change::Leave.encode()[..], [1, 2]);
}

#[test]
fn bytes_that_are_no_change_are_refused() {
    let refusal = |bytes: &[u8]| Change::decode(bytes).unwrap_err().to_string();
    assert_eq!(refusal(&[1]), "a membership entry ends too early");
    assert_eq!(refusal(&[7, 1]), "membership format 7, this program reads 1");
    assert_eq!(refusal(&[1, 9]), "a membership entry of the unknown kind 9");
    assert_eq!(refusal(&[1, 2, 0]), "a membership entry goes on after its end");
    assert_eq!(refusal(&[1, 1, 255, 1]), "a membership entry ends too early");
    assert_eq!(refusal(&to(&[], &[])), "voters : nobody votes");
    assert_eq!(refusal(&to(&[1, 1], &[])), "voters 1 1: a list holds a node twice, node 0, or too many");
    assert_eq!(refusal(&to(&[1], &[1])), "voters 1, learners 1: a voter is a learner too");
    for byte in 0..=255 {
        for at in 0..16 {
            let mut bytes = to(&[1, 2], &[3]).to_vec();
            bytes[at.min(13)] = byte;
            let _read_or_refused = Change::decode(&bytes[..bytes.len() - at % 3]);
        }
    }
}
