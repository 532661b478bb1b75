//! A link that is missing, nodes that pass on, and what they must not.

use std::net::SocketAddr;

use super::super::tests::{TestNode, any, key, members, node, until, works};
use super::super::{LinkState, PeersHandle};
use super::*;

/// Nobody listens there.
fn nowhere() -> SocketAddr {
    "127.0.0.1:1".parse().expect("an address")
}

/// Nodes 1 to `count`; the pairs in `cut` have no link.
async fn cut(count: u32, cut: &[(u32, u32)]) -> Vec<TestNode> {
    let nodes: Vec<TestNode> = (1..=count).map(|id| node(id, u128::from(id), any())).collect();
    let is_cut = |one, other| cut.contains(&(one, other)) || cut.contains(&(other, one));
    for (id, node) in (1..).zip(&nodes) {
        let list: Vec<(u32, SocketAddr)> = (1..)
            .zip(&nodes)
            .map(|(other, peer)| (other, if is_cut(id, other) { nowhere() } else { peer.peers.address() }))
            .collect();
        node.members.send_replace(members(&list));
    }
    nodes
}

async fn reached(peers: &PeersHandle, to: u32, by: Option<u32>) {
    until("the way is found", || peers.relayed_by(NodeId(to)) == by.map(NodeId)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_without_a_link_speak_through_the_third() {
    let nodes = cut(3, &[(1, 2)]).await;
    reached(&nodes[0].peers, 2, Some(3)).await;
    reached(&nodes[1].peers, 1, Some(3)).await;
    works(&nodes[0], 2, &nodes[1].seen).await;
    works(&nodes[1], 1, &nodes[0].seen).await;
    assert!(nodes[1].seen.froms().iter().all(|from| *from == 1), "as if it came from there");
    assert_eq!(nodes[2].seen.count(), 0, "who passes on does not listen");
    let (one, two) = (&nodes[0].peers, NodeId(2));
    let patience = Duration::from_secs(20);
    assert_eq!(one.call(two, 1, Bytes::from_static(b"echo"), patience).await, Ok(Bytes::from_static(b"echo")));
    let large = Bytes::from(vec![3; 1 << 20]);
    assert_eq!(one.call(two, 1, large.clone(), patience).await, Ok(large));
    let refused = one.call(two, 2, Bytes::new(), patience).await;
    assert_eq!(refused, Err(CallError::Failed { node: two, reason: "node 1 may not".to_owned() }));
    let begun = Instant::now();
    let late = one.call(two, 9, Bytes::new(), Duration::from_millis(100)).await;
    assert!(matches!(late, Err(CallError::Timeout { .. } | CallError::Lost(_))), "{late:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "the deadline is the caller's");
    let links = one.links();
    let link = links.iter().find(|link| link.node == two).expect("the link");
    assert_eq!((link.state, link.relayed_by), (LinkState::Down, Some(NodeId(3))));
    assert!(nodes[2].peers.links().iter().any(|link| link.node == two && link.passed_on > 0));
    assert!(nodes[0].seen.events(2).contains(&LinkEvent::Relayed { by: NodeId(3) }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_serves_four_others() {
    let pairs: Vec<(u32, u32)> = (2..=5).flat_map(|one| (one + 1..=5).map(move |other| (one, other))).collect();
    let nodes = cut(5, &pairs).await;
    for (from, to) in [(2, 3), (5, 2), (4, 5), (3, 4)] {
        reached(&nodes[from - 1].peers, u32::try_from(to).expect("small"), Some(1)).await;
        works(&nodes[from - 1], u32::try_from(to).expect("small"), &nodes[to - 1].seen).await;
    }
    assert_eq!(nodes[0].seen.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_ends_with_the_node_it_leads_over_and_with_the_one_it_leads_to() {
    let mut nodes = cut(3, &[(1, 2)]).await;
    reached(&nodes[0].peers, 2, Some(3)).await;
    let third = nodes.pop().expect("node 3");
    third.peers.close().await;
    reached(&nodes[0].peers, 2, None).await;
    until("it is told", || matches!(nodes[0].seen.events(2).last(), Some(LinkEvent::Down { .. }))).await;
    let sent = nodes[0].peers.send(NodeId(2), Lane::Control, key(1), Bytes::new());
    assert_eq!(sent, Err(SendError::NotConnected(NodeId(2))));

    let mut nodes = cut(3, &[(1, 2)]).await;
    reached(&nodes[0].peers, 2, Some(3)).await;
    let second = nodes.remove(1);
    second.peers.close().await;
    reached(&nodes[0].peers, 2, None).await;
    let called = nodes[0].peers.call(NodeId(2), 1, Bytes::new(), Duration::from_secs(1)).await;
    assert_eq!(called, Err(SendError::NotConnected(NodeId(2)).into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_died_is_said_to_be_down_before_any_way_to_it() {
    let nodes = cut(3, &[]).await;
    works(&nodes[0], 2, &nodes[1].seen).await;
    nodes[1].peers.close().await;
    until("it is told", || matches!(nodes[0].seen.events(2).last(), Some(LinkEvent::Down { .. }))).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let events = nodes[0].seen.events(2);
    assert!(!events.iter().any(|event| matches!(event, LinkEvent::Relayed { .. })), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_passed_on_twice_or_for_strangers() {
    let nodes = cut(3, &[]).await;
    works(&nodes[0], 3, &nodes[2].seen).await;
    works(&nodes[2], 2, &nodes[1].seen).await;
    let before = nodes[1].seen.count();
    // Node 1 claims to pass on for node 9, and for node 2, to node 2, over node 3.
    for origin in [9, 2, 3] {
        let Frame::Group { group, message } = pass(NodeId(origin), NodeId(2), key(1), b"forged") else {
            unreachable!()
        };
        nodes[0].peers.send(NodeId(3), Lane::Control, group, message).expect("sent");
    }
    // And a call.
    for (origin, kind) in [(9, 1), (2, 1), (1, CALL)] {
        let (origin, to, patience) = (NodeId(origin), NodeId(2), Duration::from_secs(1));
        let body = Call { origin, to, patience, kind, body: Bytes::new() }.encode(b"x");
        let answer = nodes[0].peers.call(NodeId(3), CALL, body, patience).await;
        assert!(matches!(answer, Err(CallError::Failed { .. })), "{answer:?}");
    }
    works(&nodes[0], 2, &nodes[1].seen).await;
    works(&nodes[2], 2, &nodes[1].seen).await;
    assert!(!nodes[1].seen.messages(Lane::Control).contains(&Bytes::from_static(b"forged")), "of {before}");
}

#[test]
fn a_node_that_does_not_hear_is_spoken_to_through_another() {
    struct Deaf;
    #[async_trait::async_trait]
    impl Inbound for Deaf {
        fn group(&self, _: GroupFrame) {}
        async fn call(&self, _: NodeId, _: u8, body: Bytes) -> Result<Bytes, String> {
            Ok(body)
        }
        async fn enter(&self, _: NodeId, body: Bytes) -> Result<Bytes, Refusal> {
            Ok(body)
        }
        fn link(&self, _: NodeId, _: LinkEvent) {}
    }
    let relay = Relay::new(NodeId(1), Arc::new(Deaf));
    let up = || LinkEvent::Up { instance: uuid::Uuid::nil(), restarted: false };
    relay.link(NodeId(2), up());
    relay.link(NodeId(3), up());
    let tell = || {
        relay.told(NodeId(2), [NodeId(3)].into());
        relay.told(NodeId(3), [NodeId(1), NodeId(2)].into());
    };
    tell();
    assert_eq!(relay.relays.by(NodeId(2)), None, "not at once: it may be an old word");
    std::thread::sleep(DEAF_AFTER);
    tell();
    tell();
    assert_eq!(relay.relays.by(NodeId(2)), Some(NodeId(3)));
    relay.told(NodeId(2), [NodeId(1), NodeId(3)].into());
    assert_eq!(relay.relays.by(NodeId(2)), None);
}

#[test]
fn nonsense_is_refused() {
    let links = encode_links(&[NodeId(1), NodeId(7)]);
    assert!(matches!(decode(links.clone()), Some(Said::Links(links)) if links.len() == 2));
    let Frame::Group { message, .. } = pass(NodeId(1), NodeId(2), key(9), b"text") else { unreachable!() };
    assert!(matches!(decode(message.clone()), Some(Said::Passed { message, .. }) if &message[..] == b"text"));
    for cut in 0..PASSED_BYTES {
        assert!(decode(message.slice(..cut)).is_none(), "cut at {cut}");
    }
    for cut in [0, 2, 3, 4, 6] {
        assert!(decode(links.slice(..cut)).is_none(), "cut at {cut}");
    }
    assert!(decode(Bytes::from_static(&[7])).is_none());
    assert!(decode(vec![0; 1 + 4 * (LINKS_MAX + 1)].into()).is_none());
    for cut in 0..CALL_HEAD_BYTES {
        assert!(Call::decode(vec![0; cut].into()).is_none());
    }
}
