//! Frames, calls, and links that break.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base::NodeId;
use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::super::frame::{Frame, Pieces};
use super::super::{BULK, CONTROL, CONTROL_FRAME_BYTES_MAX, CallError, Lane, LinkEvent, LinkState, SendError};
use super::{Hand, PATIENCE, TestNode, any, hello, key, members, node, nodes, state, until, works};

fn encoded(frame: Frame) -> Vec<u8> {
    let mut pieces = Pieces::default();
    pieces.put(frame);
    pieces.finish();
    let length = bytes::Buf::remaining(&pieces);
    bytes::Buf::copy_to_bytes(&mut pieces, length).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_a_lane_arrive_in_order_each_once() {
    let nodes = nodes(3).await;
    let count = 20_000u32;
    for number in 0..count {
        for lane in [Lane::Control, Lane::Bulk] {
            // Some large ones among them.
            let mut message = vec![0; if number % 1000 == 0 && lane == Lane::Bulk { 300_000 } else { 4 }];
            message[..4].copy_from_slice(&number.to_le_bytes());
            let message = Bytes::from(message);
            while let Err(error) = nodes[0].peers.send(NodeId(2), lane, key(1), message.clone()) {
                assert!(matches!(error, SendError::Full { .. }), "{error}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    until("all have arrived", || nodes[1].seen.count() >= 2 * count as usize).await;
    for lane in [Lane::Control, Lane::Bulk] {
        let numbers = nodes[1].seen.messages(lane).into_iter();
        let numbers = numbers.map(|message| u32::from_le_bytes(*message.first_chunk().expect("a number")));
        assert!(numbers.eq(0..count), "{lane:?}");
    }
    assert_eq!(nodes[2].seen.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_answered_refused_lost_or_late() {
    let nodes = nodes(2).await;
    let (one, two) = (&nodes[0].peers, NodeId(2));
    assert_eq!(one.call(two, 1, Bytes::from_static(b"echo"), PATIENCE).await, Ok(Bytes::from_static(b"echo")));
    let large = Bytes::from(vec![3; 4 << 20]);
    let echo = one.call(two, 1, large.clone(), PATIENCE).await;
    assert_eq!(echo.map(|body| body == large), Ok(true), "with the bulk lane");
    assert_eq!(one.call(two, 3, Bytes::new(), PATIENCE).await.map(|body| body.len()), Ok(3 << 20));
    let refused = one.call(two, 2, Bytes::new(), PATIENCE).await;
    assert_eq!(refused, Err(CallError::Failed { node: two, reason: "node 1 may not".to_owned() }));
    let late = one.call(two, 9, Bytes::new(), Duration::from_millis(50)).await;
    assert_eq!(late, Err(CallError::Timeout { node: two, waited_ms: 50 }));
    let unknown = one.call(NodeId(7), 1, Bytes::new(), PATIENCE).await;
    assert_eq!(unknown, Err(CallError::Send(SendError::Unknown(NodeId(7)))));
    let waiting = one.call(two, 9, Bytes::new(), PATIENCE);
    let cut = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        nodes[1].peers.close().await;
    };
    let (lost, ()) = tokio::join!(waiting, cut);
    assert_eq!(lost, Err(CallError::Lost(two)));
    until("it is noticed", || !one.is_up(two)).await;
    let gone = one.call(two, 1, Bytes::new(), PATIENCE).await;
    assert_eq!(gone, Err(CallError::Send(SendError::NotConnected(two))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_too_many_calls_under_way_is_told() {
    let nodes = nodes(2).await;
    let one = &nodes[0].peers;
    let busy = Arc::new(AtomicUsize::new(0));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let (one, busy) = (one.clone(), Arc::clone(&busy));
        calls.spawn(async move {
            let end = one.call(NodeId(2), 9, Bytes::new(), 2 * PATIENCE).await;
            assert_eq!(end, Err(CallError::Busy(NodeId(2))));
            busy.fetch_add(1, Ordering::SeqCst);
        });
    }
    until("the last ones are told", || busy.load(Ordering::SeqCst) == 300 - 256).await;
    assert_eq!(one.call(NodeId(2), 1, Bytes::new(), PATIENCE).await, Err(CallError::Busy(NodeId(2))));
    calls.abort_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_too_large_is_not_taken() {
    let nodes = nodes(2).await;
    let message = Bytes::from(vec![0; CONTROL_FRAME_BYTES_MAX]);
    let error = nodes[0].peers.send(NodeId(2), Lane::Control, key(1), message).expect_err("too large");
    assert!(matches!(error, SendError::TooLarge { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_peer_is_announced_and_linked_again() {
    let mut nodes = nodes(2).await;
    let two = nodes.pop().expect("node 2");
    let one = nodes.pop().expect("node 1");
    let address = two.peers.address();
    let (members, before) = (two.members.borrow().clone(), two.peers.instance());
    drop(two);
    until("the end is noticed", || state(&one, 2) == Some(LinkState::Down)).await;
    let again = node(2, 2, address);
    again.members.send_replace(members);
    until("it is back", || one.peers.is_up(NodeId(2))).await;
    let events = one.seen.events(2);
    assert!(matches!(events[0], LinkEvent::Up { instance, restarted: false } if instance == before), "{events:?}");
    let back = LinkEvent::Up { instance: again.peers.instance(), restarted: true };
    assert!(events.iter().any(|event| matches!(event, LinkEvent::Down { .. })), "{events:?}");
    assert_eq!(events.last(), Some(&back));
    works(&one, 2, &again.seen).await;
    works(&again, 1, &one.seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_of_a_stop_is_told() {
    let nodes = nodes(2).await;
    nodes[1].peers.close().await;
    until("the end is noticed", || !nodes[0].peers.is_up(NodeId(2))).await;
    let events = nodes[0].seen.events(2);
    let told = events.iter().any(|event| matches!(event, LinkEvent::Down { reason } if reason.contains("stops")));
    assert!(told, "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_link_stays_up_and_knows_its_round_trip() {
    let nodes = nodes(2).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for (node, peer) in [(&nodes[0], 2), (&nodes[1], 1)] {
        let events = node.seen.events(peer);
        let ups = events.iter().filter(|event| matches!(event, LinkEvent::Up { .. })).count();
        let downs = events.iter().filter(|event| matches!(event, LinkEvent::Down { .. })).count();
        assert_eq!((ups - downs, node.peers.is_up(NodeId(peer))), (1, true), "{events:?}");
        let link = &node.peers.links()[0];
        assert!(link.round_trip_us.is_some_and(|trip| trip < 1_000_000), "{link:?}");
        assert!(link.last_heard_ms.is_some_and(|ms| ms < 1_000), "{link:?}");
    }
}

/// Accepts, then says and reads nothing: what a black hole looks like.
#[tokio::test(flavor = "multi_thread")]
async fn silence_is_noticed_then_the_link_is_given_up() {
    let one = node(1, 1, any());
    one.members.send_replace(members(&[(2, "127.0.0.1:9".parse().expect("an address"))]));
    until("it is a member", || state(&one, 2).is_some()).await;
    let _hand = Hand::join(one.peers.address(), hello(2, 1, Lane::Control)).await;
    let started = Instant::now();
    until("it is silent", || state(&one, 2) == Some(LinkState::Silent)).await;
    assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
    until("it is given up", || state(&one, 2) == Some(LinkState::Down)).await;
    assert!(started.elapsed() >= Duration::from_millis(1900), "{:?}", started.elapsed());
    let events = one.seen.events(2);
    assert!(matches!(&events[1], LinkEvent::Silent { quiet_ms: 500 }), "{events:?}");
    assert!(matches!(&events[2], LinkEvent::Down { reason } if reason.contains("nothing was heard")), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_was_silent_is_heard_again() {
    let one = node(1, 1, any());
    one.members.send_replace(members(&[(2, "127.0.0.1:9".parse().expect("an address"))]));
    until("it is a member", || state(&one, 2).is_some()).await;
    let mut hand = Hand::join(one.peers.address(), hello(2, 1, Lane::Control)).await;
    until("it is silent", || state(&one, 2) == Some(LinkState::Silent)).await;
    hand.send(&encoded(Frame::Ping(1))).await;
    until("it is heard", || state(&one, 2) == Some(LinkState::Up)).await;
    assert_eq!(one.seen.events(2).last(), Some(&LinkEvent::Heard));
}

/// The sender's memory stays bounded, new frames are dropped and counted, and heartbeats go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_costs_a_bounded_queue() {
    let nodes = nodes(2).await;
    *nodes[1].seen.held.lock().expect("held") = Some(Vec::new());
    let message = Bytes::from(vec![5; 1 << 20]);
    let (mut sent, mut refused) = (0, 0);
    let started = Instant::now();
    while refused < 20 && started.elapsed() < PATIENCE {
        match nodes[0].peers.send(NodeId(2), Lane::Bulk, key(1), message.clone()) {
            Ok(()) => sent += 1,
            Err(error) => {
                assert!(matches!(error, SendError::Full { .. }), "{error}");
                refused += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    assert_eq!(refused, 20, "{sent} MiB were taken");
    let held = nodes[1].seen.held.lock().expect("held").as_ref().map_or(0, Vec::len);
    assert!(held <= BULK.room_bytes_max >> 20, "{held} MiB were received");
    let link = &nodes[0].peers.links()[0];
    assert!(link.queued_bytes[1] <= BULK.queue_bytes_max, "{link:?}");
    assert_eq!(link.dropped_frames, 20);
    // Not down meanwhile: the control lane has its own connection.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(nodes[0].peers.is_up(NodeId(2)) || starved(&nodes[0], 2));
    let worked_on = nodes[1].seen.held.lock().expect("held").take().expect("frames");
    let held = worked_on.len();
    drop(worked_on);
    until("the rest arrives", || starved(&nodes[0], 2) || held + nodes[1].seen.messages(Lane::Bulk).len() >= sent)
        .await;
}

/// A machine that gave a thread no time for seconds: what the links make of it is not what is tested.
fn starved(node: &TestNode, peer: u32) -> bool {
    let was = |event: &LinkEvent| match event {
        LinkEvent::Down { reason } | LinkEvent::Interrupted { reason } => reason.contains("nothing was heard"),
        _ => false,
    };
    node.seen.events(peer).iter().any(was)
}

/// A hand that floods the control lane is slowed by its own room, and does not disturb another peer.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_bounded_and_harms_nobody_else() {
    let one = node(1, 1, any());
    let three = node(3, 3, any());
    let nowhere = "127.0.0.1:9".parse().expect("an address");
    let list = [(1, one.peers.address()), (2, nowhere), (3, three.peers.address())];
    one.members.send_replace(members(&list));
    three.members.send_replace(members(&list));
    until("a link comes up", || one.peers.is_up(NodeId(3)) && three.peers.is_up(NodeId(1))).await;
    *one.seen.held.lock().expect("held") = Some(Vec::new());
    let hand = Hand::join(one.peers.address(), hello(2, 1, Lane::Control)).await;
    let (mut reading, mut writing) = hand.stream.into_split();
    tokio::spawn(async move { while reading.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {} });
    let flooding = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let frame = encoded(Frame::Group { group: key(1), message: Bytes::from_static(b"!") }).repeat(1_000);
        while writing.write_all(&frame).await.is_ok() {}
    });
    let of_two = || {
        let held = one.seen.held.lock().expect("held");
        held.as_ref().map_or(0, |held| held.iter().filter(|frame| frame.from.0 == 2).count())
    };
    let most = CONTROL.room_bytes_max / 256;
    until("there is no room for more", || of_two() >= most).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(of_two(), most, "each counts 256 bytes at least");
    assert_eq!(three.peers.call(NodeId(1), 1, Bytes::from_static(b"?"), PATIENCE).await, Ok(Bytes::from_static(b"?")));
    assert!(one.peers.is_up(NodeId(3)));
    flooding.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_is_told_so_and_cut_off() {
    let one = node(1, 1, any());
    one.members.send_replace(members(&[(2, "127.0.0.1:9".parse().expect("an address"))]));
    until("it is a member", || state(&one, 2).is_some()).await;
    let lies: [(&[u8], &str); 4] = [
        (&[255, 255, 255, 255, 1, 0, 0, 0, 0], "4294967295 bytes"),
        (&[0, 0, 4, 1, 1, 0, 0, 0, 0], "17039360 bytes"),
        (&[8, 0, 0, 0, 4, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], "checksum"),
        (&[0, 0, 0, 0, 99, 0, 0, 0, 0], "checksum"),
    ];
    for (bytes, reason) in lies {
        let mut hand = Hand::join(one.peers.address(), hello(2, 1, Lane::Control)).await;
        hand.send(bytes).await;
        let heard = String::from_utf8_lossy(&hand.rest().await).into_owned();
        assert!(heard.contains("broke the protocol") && heard.contains(reason), "{heard}");
    }
    until("it is down", || state(&one, 2) == Some(LinkState::Down)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_do_not_wait_behind_megabytes() {
    let nodes = nodes(2).await;
    let message = Bytes::from(vec![5; 4 << 20]);
    let overtakes = async || {
        while nodes[0].peers.send(NodeId(2), Lane::Bulk, key(1), message.clone()).is_ok() {}
        nodes[0].peers.call(NodeId(2), 1, Bytes::new(), PATIENCE).await.expect("answered");
        nodes[1].seen.frames.lock().expect("frames").clear();
        nodes[0].peers.links()[0].queued_bytes[1] > 0
    };
    let mut overtook = 0;
    for _ in 0..20 {
        overtook += usize::from(overtakes().await);
    }
    // Of 64 MiB before it, some were not even written when the answer came.
    assert!(
        overtook >= 10 || starved(&nodes[0], 2),
        "only {overtook} of 20 calls were faster than what was before them"
    );
}
