//! Nodes come, go and fall silent under many seeds: there is always somebody who decides, and in the end the right ones.

use super::*;

fn ids(numbers: &[u32]) -> Vec<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

fn elector(id: u32) -> Elector {
    Elector { id: NodeId(id), zone: String::new(), may_vote: true, is_out: false, is_up: true, has_caught_up: true }
}

fn electors(count: u32) -> Vec<Elector> {
    (1..=count).map(elector).collect()
}

fn next(voters: &[u32], learners: &[u32], nodes: &[Elector], wanted: usize) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
    next_members(&ids(voters), &ids(learners), nodes, wanted)
}

#[test]
fn a_newcomer_learns_and_votes_when_it_makes_the_number_odd() {
    let mut nodes = electors(3);
    assert_eq!(next(&[1], &[], &nodes, 3), Some((ids(&[1]), ids(&[2, 3]))));
    nodes[2].has_caught_up = false;
    assert_eq!(next(&[1], &[2, 3], &nodes, 3), None, "two voters are worse than one");
    nodes[2].has_caught_up = true;
    assert_eq!(next(&[1], &[2, 3], &nodes, 3), Some((ids(&[1, 2, 3]), ids(&[]))));
    let nodes = electors(5);
    assert_eq!(next(&[1, 2, 3], &[4, 5], &nodes, 3), None, "three are enough");
    assert_eq!(next(&[1, 2, 3], &[4, 5], &nodes, 5), Some((ids(&[1, 2, 3, 4, 5]), ids(&[]))));
    assert_eq!(next(&[1, 2, 3], &[4], &electors(4), 5), None);
}

#[test]
fn a_voter_that_leaves_is_replaced_in_one_change() {
    let mut nodes = electors(4);
    nodes[2].is_out = true;
    nodes[3].has_caught_up = false;
    assert_eq!(next(&[1, 2, 3], &[4], &nodes, 3), None, "who comes instead has not caught up");
    nodes[3].has_caught_up = true;
    assert_eq!(next(&[1, 2, 3], &[4], &nodes, 3), Some((ids(&[1, 2, 4]), ids(&[3]))), "it follows until it is removed");
    assert_eq!(next(&[1, 2, 4], &[3], &nodes, 3), None);
    nodes.remove(2);
    assert_eq!(next(&[1, 2, 4], &[3], &nodes, 3), Some((ids(&[1, 2, 4]), ids(&[]))), "it is no member any more");
    assert_eq!(next(&[1, 2, 3], &[4], &nodes, 3), Some((ids(&[1, 2, 4]), ids(&[]))), "a voter nobody knows");
}

#[test]
fn who_stays_is_never_made_too_few() {
    let mut nodes = electors(3);
    nodes[2].is_out = true;
    assert_eq!(next(&[1, 2, 3], &[], &nodes, 3), None);
    let mut nodes = electors(5);
    nodes[4].is_out = true;
    assert_eq!(next(&[1, 2, 3, 4, 5], &[], &nodes, 5), Some((ids(&[1, 2, 3]), ids(&[5, 4]))));
}

#[test]
fn votes_are_spread_over_zones() {
    let mut nodes = electors(5);
    for (node, zone) in nodes.iter_mut().zip(["a", "b", "c", "a", "c"]) {
        node.zone = zone.into();
    }
    nodes[2].is_out = true;
    assert_eq!(next(&[1, 2, 3], &[4, 5], &nodes, 3), Some((ids(&[1, 2, 5]), ids(&[4, 3]))));
}

#[test]
fn whatever_happens_an_odd_number_decides_and_in_the_end_the_right_one() {
    for seed in 1..400_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let founders = if below(2) == 0 { 1 } else { 3 };
        let wanted = if below(2) == 0 { 3 } else { 5 };
        let mut nodes = electors(founders);
        let (mut voters, mut learners): (Vec<_>, Vec<_>) = (nodes.iter().map(|node| node.id).collect(), Vec::new());
        let mut last = founders;
        for step in 0..200 {
            let is_quiet = step >= 150;
            let at = usize::try_from(below(nodes.len() as u64)).expect("few");
            let decided = |nodes: &[Elector], voters: &[NodeId]| {
                let up = |id: &&NodeId| nodes.iter().any(|node| node.id == **id && node.is_up);
                2 * voters.iter().filter(up).count() > voters.len()
            };
            match below(6) {
                _ if is_quiet => nodes.iter_mut().for_each(|node| (node.is_up, node.has_caught_up) = (true, true)),
                0 if nodes.len() < 8 => {
                    last += 1;
                    nodes.push(Elector { has_caught_up: false, ..elector(last) });
                }
                1 => nodes[at].is_up = !nodes[at].is_up,
                2 => nodes[at].has_caught_up = true,
                3 if nodes.iter().filter(|node| !node.is_out).count() > 3 => {
                    (nodes[at].is_out, nodes[at].may_vote) = (true, false);
                }
                4 if nodes[at].is_out && !voters.contains(&nodes[at].id) => drop(nodes.remove(at)),
                _ => {}
            }
            let (before, Some((to, follow))) = (voters.clone(), next_members(&voters, &learners, &nodes, wanted))
            else {
                continue;
            };
            assert!(to.len() % 2 == 1 && to.len() >= before.len().min(3), "seed {seed}: {before:?} became {to:?}");
            let added: Vec<_> = to.iter().filter(|id| !before.contains(id)).collect();
            assert!(added.iter().all(|id| learners.contains(id)), "seed {seed}: {added:?} did not learn first");
            assert!(to.iter().all(|id| !follow.contains(id)), "seed {seed}");
            assert_ne!((&to, &follow), (&voters, &learners), "seed {seed}: a change that is none");
            // Both majorities are needed for it to come through.
            if decided(&nodes, &before) && decided(&nodes, &to) {
                (voters, learners) = (to, follow);
                voters.sort_unstable();
                learners.sort_unstable();
            }
        }
        let able = nodes.iter().filter(|node| node.may_vote && !node.is_out).count();
        assert!(voters.len() >= odd(able.min(wanted)), "seed {seed}: {voters:?} of {able}, {wanted} wanted");
        let stays = |id: &NodeId| nodes.iter().any(|node| node.id == *id && !node.is_out);
        assert!(able < 3 || voters.iter().all(stays), "seed {seed}: {voters:?} vote, of {nodes:?}");
    }
}
