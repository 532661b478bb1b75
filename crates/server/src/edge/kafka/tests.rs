//! A connection over a pipe: order, overlap, and what becomes of bad bytes. No node is needed for that.

mod admin;
mod cluster;
mod handlers;
mod transactions;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka::response::api_versions;
use kafka::{ErrorCode, ProduceResponse, Request, RequestHeader, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::budget::Budget;
use super::connection::{self, Answer, Work};

type Gate = oneshot::Sender<Answer>;

/// Requests that were started, each waiting for the test to answer it.
#[derive(Clone, Default)]
struct Started(Arc<Mutex<Vec<(RequestHeader, Gate)>>>);

impl Started {
    fn handler(&self) -> impl Fn(RequestHeader, Request) -> Work + use<> {
        let started = Arc::clone(&self.0);
        move |header, _| {
            let (gate, answer) = oneshot::channel();
            started.lock().unwrap().push((header, gate));
            Box::pin(async move { answer.await.unwrap_or(Answer::Silent) })
        }
    }

    fn ids(&self) -> Vec<i32> {
        self.0.lock().unwrap().iter().map(|(header, _)| header.correlation_id).collect()
    }

    /// Answers the request of this correlation id.
    fn answer(&self, id: i32, answer: Answer) {
        let mut started = self.0.lock().unwrap();
        let at = started.iter().position(|(header, _)| header.correlation_id == id).unwrap();
        let (_, gate) = started.remove(at);
        assert!(gate.send(answer).is_ok(), "nobody waits for answer {id}");
    }
}

struct Wire {
    stream: DuplexStream,
    started: Started,
    stop: watch::Sender<bool>,
    budget: Budget,
}

fn connect() -> Wire {
    let (near, far) = tokio::io::duplex(1 << 20);
    let started = Started::default();
    let (stop, stopped) = watch::channel(false);
    let budget = Budget::new(64 << 10);
    let peer = "127.0.0.1:1".parse().unwrap();
    let (handler, connection_budget) = (started.handler(), budget.clone());
    tokio::spawn(async move { connection::run(far, peer, connection_budget, handler, stopped).await });
    Wire { stream: near, started, stop, budget }
}

fn produced() -> Answer {
    Answer::Send(Response::Produce(ProduceResponse::default()), None)
}

fn versions() -> Answer {
    Answer::Send(api_versions(ErrorCode::None), None)
}

fn frame(key: i16, version: i16, id: i32, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32(i32::try_from(10 + body.len()).unwrap());
    out.put_i16(key);
    out.put_i16(version);
    out.put_i32(id);
    out.put_i16(-1);
    out.put_slice(body);
    out.freeze()
}

fn produce_frame(id: i32) -> Bytes {
    // no transactional id, acks -1, timeout 1000, no topics
    frame(0, 3, id, &[0xff, 0xff, 0xff, 0xff, 0, 0, 3, 0xe8, 0, 0, 0, 0])
}

fn versions_frame(id: i32) -> Bytes {
    frame(18, 0, id, &[])
}

impl Wire {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The correlation id of the next answer; `None` if the connection was closed.
    async fn next(&mut self) -> Option<i32> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.ok()?;
        let mut body = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut body).await.unwrap();
        Some(i32::from_be_bytes(body[..4].try_into().unwrap()))
    }

    async fn until_started(&self, ids: &[i32]) {
        let there = async {
            while self.started.ids() != ids {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = timeout(Duration::from_secs(5), there).await;
        assert!(waited.is_ok(), "started {:?} instead of {ids:?}", self.started.ids());
    }
}

#[tokio::test]
async fn produce_requests_overlap_and_are_answered_in_order() {
    let mut wire = connect();
    for id in 1..=5 {
        wire.send(&produce_frame(id)).await;
    }
    wire.until_started(&[1, 2, 3, 4, 5]).await;
    for id in [5, 3, 4, 2] {
        wire.started.answer(id, produced());
    }
    assert!(timeout(Duration::from_millis(50), wire.next()).await.is_err(), "an answer overtook the first");
    wire.started.answer(1, produced());
    for id in 1..=5 {
        assert_eq!(wire.next().await, Some(id));
    }
}

#[tokio::test]
async fn any_other_request_waits_for_those_before_it() {
    let mut wire = connect();
    for bytes in [produce_frame(1), versions_frame(2), produce_frame(3)] {
        wire.send(&bytes).await;
    }
    wire.until_started(&[1]).await;
    wire.started.answer(1, produced());
    wire.until_started(&[2]).await;
    wire.started.answer(2, versions());
    wire.until_started(&[3]).await;
    wire.started.answer(3, produced());
    assert_eq!((wire.next().await, wire.next().await, wire.next().await), (Some(1), Some(2), Some(3)));
}

#[tokio::test]
async fn a_frame_may_come_byte_by_byte() {
    let mut wire = connect();
    for byte in versions_frame(9) {
        wire.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    wire.until_started(&[9]).await;
    wire.started.answer(9, versions());
    assert_eq!(wire.next().await, Some(9));
}

#[tokio::test]
async fn a_malformed_frame_closes_the_connection_after_the_answers_before_it() {
    let bad: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 16],
        &frame(3, 8, 2, &[0x7f, 0xff, 0xff, 0xff]),
        &frame(999, 0, 2, b""),
        &frame(3, 99, 2, b""),
    ];
    for bad in bad {
        let mut wire = connect();
        wire.send(&produce_frame(1)).await;
        wire.send(bad).await;
        wire.until_started(&[1]).await;
        wire.started.answer(1, produced());
        assert_eq!(wire.next().await, Some(1));
        assert_eq!(timeout(Duration::from_secs(5), wire.next()).await, Ok(None), "{bad:?} left the connection open");
    }
}

#[tokio::test]
async fn a_client_that_wants_no_acknowledgement_gets_none() {
    let mut wire = connect();
    wire.send(&produce_frame(1)).await;
    wire.send(&produce_frame(2)).await;
    wire.until_started(&[1, 2]).await;
    wire.started.answer(1, Answer::Silent);
    wire.started.answer(2, produced());
    assert_eq!(wire.next().await, Some(2));
    wire.send(&produce_frame(3)).await;
    wire.until_started(&[3]).await;
    wire.started.answer(3, Answer::Close("a test"));
    assert_eq!(wire.next().await, None);
}

#[tokio::test]
async fn frames_wait_for_room_in_the_budget() {
    let mut wire = connect();
    let all = wire.budget.take(usize::MAX).await;
    wire.send(&versions_frame(1)).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(wire.started.ids().is_empty());
    drop(all);
    wire.until_started(&[1]).await;
}

#[tokio::test]
async fn stopping_lets_the_answers_owed_go_out() {
    let mut wire = connect();
    wire.send(&produce_frame(1)).await;
    wire.until_started(&[1]).await;
    wire.stop.send(true).unwrap();
    wire.started.answer(1, produced());
    assert_eq!(wire.next().await, Some(1));
    assert_eq!(wire.next().await, None);
}
