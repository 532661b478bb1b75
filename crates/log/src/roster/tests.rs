use super::*;

fn ids(nodes: &[u32]) -> Vec<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

fn roster() -> Roster {
    let mut roster = Roster::new(&Seats { voters: ids(&[1]), learners: ids(&[4]) });
    roster.wrote(LogIndex(7));
    let joint = Members { voters: ids(&[1, 2, 3]), outgoing: ids(&[1]), ..Members::default() };
    roster.applied(LogIndex(7), joint);
    roster.wrote(LogIndex(8));
    roster
}

#[test]
fn it_is_read_as_it_was_written_and_any_flipped_bit_is_noticed() {
    let bytes = roster().encode();
    assert_eq!(Roster::decode(&bytes), Some(roster()));
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Roster::decode(&damaged), None);
    }
    for len in 0..bytes.len() {
        assert_eq!(Roster::decode(&bytes[..len]), None);
    }
}

#[test]
fn it_knows_the_members_at_every_entry_that_is_left() {
    let mut roster = roster();
    assert_eq!(roster.members_at(LogIndex(6)).map(|members| members.voters.clone()), Some(ids(&[1])));
    assert_eq!(roster.members_at(LogIndex(7)), Some(roster.members()));
    assert_eq!(roster.undecided(), Some(LogIndex(8)));
    roster.trimmed(LogIndex(7));
    assert_eq!(roster.members_at(LogIndex(6)), None);
    assert_eq!(roster.members_at(LogIndex(7)), Some(roster.members()));
}

#[test]
fn who_may_have_company_is_not_alone() {
    let mut roster = Roster::new(&Seats::alone(NodeId(1)));
    assert!(roster.is_alone(NodeId(1)) && !roster.is_alone(NodeId(2)));
    roster.wrote(LogIndex(3));
    assert!(!roster.is_alone(NodeId(1)) && roster.is_sole_voter(NodeId(1)));
}
