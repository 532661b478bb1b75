//! Who is let in, who is not, and what they are told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base::NodeId;

use super::super::hello::{Greeting, Hello, Refusal, RefusalCode};
use super::super::{HandshakeError, Lane, LinkEvent, LinkState, Member, Members, Security, enter};
use super::{Hand, TestNode, any, cluster, disk, hello, members, node, nodes, state, until, works};

/// Node 1 that knows node 2, which is not there.
async fn alone() -> TestNode {
    let one = node(1, 1, any());
    one.members.send_replace(members(&[(2, "127.0.0.1:9".parse().expect("an address"))]));
    until("it is a member", || state(&one, 2).is_some()).await;
    one
}

async fn refusal(one: &TestNode, hello: Hello) -> Refusal {
    let mut hand = Hand::connect(one.peers.address()).await;
    match hand.greet(&Greeting::Hello(hello)).await {
        Some(Greeting::Refusal(refusal)) => refusal,
        other => panic!("a refusal was expected, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_name_both_clusters() {
    let (one, two) = (node(1, 1, any()), node(2, 2, any()));
    two.cluster.send_replace(cluster(77));
    let list = [(1, one.peers.address()), (2, two.peers.address())];
    one.members.send_replace(members(&list));
    two.members.send_replace(members(&list));
    for (node, peer) in [(&one, 2), (&two, 1)] {
        until("it is refused", || state(node, peer) == Some(LinkState::Refused)).await;
        let refusals = node.seen.refusals(peer);
        let ids = [cluster(1), cluster(77)].map(|id| id.expect("an id").to_string());
        assert!(ids.iter().all(|id| refusals[0].contains(id)), "{refusals:?}");
        assert!(refusals[0].contains("correct cluster.peers"), "{refusals:?}");
        assert!(!node.seen.events(peer).iter().any(|event| matches!(event, LinkEvent::Up { .. })));
    }
    // Put right, it works without a hand.
    two.cluster.send_replace(cluster(1));
    until("a link comes up", || one.peers.is_up(NodeId(2)) && two.peers.is_up(NodeId(1))).await;
    assert!(one.seen.events(2).contains(&LinkEvent::RefusalOver));
    works(&one, 2, &two.seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_cluster_is_spoken_to_until_it_is_in_another() {
    let (one, two) = (node(1, 1, any()), node(2, 2, any()));
    one.cluster.send_replace(None);
    two.cluster.send_replace(None);
    let list = [(1, one.peers.address()), (2, two.peers.address())];
    one.members.send_replace(members(&list));
    two.members.send_replace(members(&list));
    until("a link comes up", || one.peers.is_up(NodeId(2)) && two.peers.is_up(NodeId(1))).await;
    one.cluster.send_replace(cluster(5));
    two.cluster.send_replace(cluster(5));
    works(&one, 2, &two.seen).await;
    two.cluster.send_replace(cluster(6));
    until("it is cut off", || state(&one, 2) == Some(LinkState::Refused)).await;
    until("it is cut off", || state(&two, 1) == Some(LinkState::Refused)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_leads_to_another_node_is_named() {
    let (one, three) = (node(1, 1, any()), node(3, 3, any()));
    one.members.send_replace(members(&[(2, three.peers.address()), (3, three.peers.address())]));
    three.members.send_replace(members(&[(1, one.peers.address())]));
    until("it is refused", || state(&one, 2) == Some(LinkState::Refused)).await;
    until("the right one is linked", || one.peers.is_up(NodeId(3))).await;
    assert_eq!(one.seen.refusals(2), ["the address of node 2 leads to node 3: correct cluster.peers"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dials_itself_is_told_so() {
    let one = node(1, 1, any());
    one.members.send_replace(members(&[(2, one.peers.address())]));
    until("it is refused", || state(&one, 2) == Some(LinkState::Refused)).await;
    assert_eq!(one.seen.refusals(2)[0], "node 1 reached itself: the address of node 2 is its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_until_it_is_a_member() {
    let (one, two) = (node(1, 1, any()), node(2, 2, any()));
    two.members.send_replace(members(&[(1, one.peers.address())]));
    until("it is refused", || state(&two, 1) == Some(LinkState::Refused)).await;
    let text = "node 2 is not a member of this cluster: start it with an empty data folder and cluster.join naming one of its members, or with this cluster's cluster.peers if it founds it with them";
    until("both are told", || !one.seen.refusals(2).is_empty()).await;
    assert_eq!((one.seen.refusals(2), two.seen.refusals(1)), (vec![text.to_owned()], vec![text.to_owned()]));
    one.members.send_replace(members(&[(2, two.peers.address())]));
    until("a link comes up", || one.peers.is_up(NodeId(2))).await;
    works(&two, 1, &one.seen).await;
    // And it is dropped when it leaves.
    one.members.send_replace(Arc::default());
    until("it is gone", || state(&one, 2).is_none()).await;
    until("it is refused", || state(&two, 1) == Some(LinkState::Refused)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_goes_away_is_not_spoken_of_any_more() {
    let (one, two) = (node(1, 1, any()), node(2, 2, any()));
    two.members.send_replace(members(&[(1, one.peers.address())]));
    until("it is refused", || !one.seen.refusals(2).is_empty()).await;
    two.peers.close().await;
    let is_over = |(node, event): &(NodeId, LinkEvent)| *node == NodeId(2) && *event == LinkEvent::RefusalOver;
    until("that is over", || one.seen.events.lock().expect("events").iter().any(is_over)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_asks_to_be_a_member_is_heard() {
    let one = node(1, 1, any());
    let address = one.peers.address().to_string();
    let ask = async |body: &str| {
        enter::enter(&address, NodeId(1), &Security::Plain, NodeId(9), body.as_bytes().to_vec()).await
    };
    assert_eq!(ask("who it is").await.unwrap(), b"who it is");
    match ask("later").await {
        Err(HandshakeError::Refused(refusal)) => {
            assert_eq!((refusal.code, &*refusal.text), (RefusalCode::NotYet, "node 9 asks too early"));
        }
        other => panic!("{other:?}"),
    }
    assert!(one.seen.refusals(9).is_empty(), "it asked, and did not dial as a member");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_disk_under_an_old_id_is_refused() {
    let one = node(1, 1, any());
    let two = node(2, 22, any());
    let known = Member { address: two.peers.address().to_string(), other_address: None, disk: Some(disk(2)) };
    one.members.send_replace(Arc::new(Members::from([(NodeId(2), known.clone())])));
    two.members.send_replace(members(&[(1, one.peers.address())]));
    until("it is refused", || state(&one, 2) == Some(LinkState::Refused)).await;
    until("it is refused", || state(&two, 1) == Some(LinkState::Refused)).await;
    let refusals = [one.seen.refusals(2), two.seen.refusals(1)];
    for text in [disk(2), disk(22)].map(|disk| disk.to_string()) {
        assert!(refusals.iter().all(|list| list[0].contains(&text)), "{refusals:?}");
    }
    // The disk is replaced: it is let in.
    one.members.send_replace(Arc::new(Members::from([(NodeId(2), Member { disk: Some(disk(22)), ..known.clone() })])));
    until("a link comes up", || one.peers.is_up(NodeId(2))).await;
    // And cut off when the id goes to another one.
    one.members.send_replace(Arc::new(Members::from([(NodeId(2), known)])));
    until("it is refused", || state(&one, 2) == Some(LinkState::Refused)).await;
}

/// Two processes with one id and different disks: the first stays as long as it is heard.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_claim_one_id_are_told_apart_by_their_disks() {
    let nodes = nodes(2).await;
    let impostor = node(2, 99, any());
    impostor.members.send_replace(members(&[(1, nodes[0].peers.address())]));
    until("both are told", || !impostor.seen.refusals(1).is_empty() && !nodes[0].seen.refusals(2).is_empty()).await;
    let refusals = [nodes[0].seen.refusals(2), impostor.seen.refusals(1)];
    for text in ["give one of them another node.id", &disk(99).to_string(), &disk(2).to_string()] {
        assert!(refusals.iter().all(|list| list[0].contains(text)), "{refusals:?}");
    }
    assert!(nodes[0].peers.is_up(NodeId(2)), "the link with the first stays");
    works(&nodes[0], 2, &nodes[1].seen).await;
    drop(impostor);
    until("the refusal is over", || nodes[0].seen.events(2).contains(&LinkEvent::RefusalOver)).await;
}

/// A copied data folder: the newer process replaces the older one, which is refused then.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_with_one_disk_do_not_take_turns() {
    let nodes = nodes(2).await;
    let copy = node(2, 2, any());
    copy.members.send_replace(members(&[(1, nodes[0].peers.address())]));
    until("the copy is linked", || copy.peers.is_up(NodeId(1))).await;
    let is_told = |reason: &String| reason.contains("was the data folder copied");
    until("the first is told why it is refused", || nodes[1].seen.refusals(1).iter().any(is_told)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(copy.peers.is_up(NodeId(1)));
    let ups = nodes[0].seen.events(2).iter().filter(|event| matches!(event, LinkEvent::Up { .. })).count();
    assert!(ups <= 4, "{:?}", nodes[0].seen.events(2));
    drop(copy);
    until("the first is back", || nodes[1].peers.is_up(NodeId(1)) && nodes[0].peers.is_up(NodeId(2))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_version_is_refused_with_the_versions() {
    let one = alone().await;
    let refusal = refusal(&one, Hello { versions: (8, 9), ..hello(2, 1, Lane::Control) }).await;
    assert_eq!(refusal.code, RefusalCode::Version);
    assert!(refusal.text.contains("8 to 9") && refusal.text.contains("one release at a time"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_is_a_duplicate_only_for_the_larger_id() {
    let nodes = nodes(2).await;
    works(&nodes[1], 1, &nodes[0].seen).await;
    let same = |node: &TestNode| Hello { instance: node.peers.instance(), ..hello(2, 1, Lane::Control) };
    assert_eq!(refusal(&nodes[0], same(&nodes[1])).await.code, RefusalCode::Duplicate);
    let smaller = Hello { instance: nodes[0].peers.instance(), ..hello(1, 2, Lane::Control) };
    let hand = Hand::join(nodes[1].peers.address(), smaller).await;
    drop(hand);
    works(&nodes[0], 2, &nodes[1].seen).await;
    works(&nodes[1], 1, &nodes[0].seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_closed_and_harms_nobody() {
    let nodes = nodes(2).await;
    let request = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n".to_vec();
    let tls = [&[0x16, 3, 1, 2, 0, 1], &[0; 60][..]].concat();
    let too_long = [b"SWpeer\r\n\x01\x00\xff\xff", &[0; 60][..]].concat();
    for bytes in [request, tls, too_long, vec![0; 100]] {
        let mut hand = Hand::connect(nodes[0].peers.address()).await;
        hand.send(&bytes).await;
        let heard = String::from_utf8_lossy(&hand.rest().await).into_owned();
        assert!(heard.starts_with("SWpeer\r\n"), "{heard}");
    }
    assert!(nodes[0].peers.is_up(NodeId(2)));
    works(&nodes[0], 2, &nodes[1].seen).await;
}

/// Many that connect and say nothing: each is closed after a second, and members still get in.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_end() {
    let one = alone().await;
    let mut hands = Vec::new();
    for _ in 0..100 {
        hands.push(Hand::connect(one.peers.address()).await);
    }
    hands[0].send(b"SWpe").await;
    let mut member = Hand::join(one.peers.address(), hello(2, 1, Lane::Control)).await;
    let started = Instant::now();
    for hand in &mut hands {
        hand.rest().await;
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(!member.rest().await.is_empty(), "it was told why it was given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_the_welcome_is_heard() {
    let one = alone().await;
    let mut hand = Hand::connect(one.peers.address()).await;
    let welcome = hand.greet(&Greeting::Hello(hello(2, 1, Lane::Bulk))).await;
    assert!(matches!(welcome, Some(Greeting::Welcome(_))), "{welcome:?}");
    hand.send(&Greeting::Refusal(Refusal::new(RefusalCode::Identity, "who are you")).encode()).await;
    until("it is told", || !one.seen.refusals(2).is_empty()).await;
    assert_eq!(one.seen.refusals(2), ["who are you"]);
}

/// A process that was killed without a word, as when its machine is gone: its successor is let in at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_successor_replaces_a_half_open_predecessor() {
    let one = alone().await;
    let _predecessor = Hand::join(one.peers.address(), hello(2, 1, Lane::Control)).await;
    until("it is up", || one.peers.is_up(NodeId(2))).await;
    let successor = hello(2, 1, Lane::Control);
    let _successor = Hand::join(one.peers.address(), successor).await;
    until("it is up again", || one.seen.events(2).len() == 3).await;
    let events = one.seen.events(2);
    assert!(matches!(&events[1], LinkEvent::Down { .. }), "{events:?}");
    assert_eq!(events[2], LinkEvent::Up { instance: successor.instance, restarted: true });
}

/// As when all nodes start, or a cut heals: both dial at once, many times over. No link flaps.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_dial_each_other_at_once_come_up_once() {
    for _ in 0..20 {
        let nodes = nodes(3).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        for (id, node) in (1..).zip(&nodes) {
            for other in (1..=3).filter(|other| *other != id) {
                let events = node.seen.events(other);
                let downs = events.iter().filter(|event| matches!(event, LinkEvent::Down { .. })).count();
                assert_eq!(downs, 0, "{events:?}");
            }
        }
    }
}
