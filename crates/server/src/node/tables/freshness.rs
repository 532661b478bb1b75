//! How far a restarted replica has to read before its answers miss nothing: as far as the leader's log is committed now.
//!
//! A replica knows only what it had heard when it stopped. Without a leader within a short while it serves that: what is
//! committed stays readable when nobody can write.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base::{NodeId, Offset, PartitionIndex, TopicId, TopicPartition};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::Deps;
use crate::node::router::Router;
use crate::shell::calls;
use crate::shell::logs::LogsHandle;

/// Longest wait for a leader to tell.
const PATIENCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);
/// In place of an offset: the partition is not led here.
const NOT_LED: i64 = -1;
const CALL: Duration = Duration::from_millis(500);

/// Answers other nodes that ask how far a partition led here is committed.
pub fn serve(router: &Router, logs: &LogsHandle) {
    let one = logs.clone();
    router.on(calls::COMMITTED, move |_, body| {
        let answer = answer(&one, body);
        async move { answer }
    });
    let logs = logs.clone();
    router.on(calls::COMMITTED_MANY, move |_, body| {
        let answer = answer_many(&logs, body);
        async move { answer }
    });
}

fn answer_many(logs: &LogsHandle, mut body: Bytes) -> Result<Bytes, String> {
    let mut offsets = BytesMut::new();
    while !body.is_empty() {
        let topic = TopicId(Uuid::from_u128(body.try_get_u128().map_err(|error| error.to_string())?));
        let partition = PartitionIndex(body.try_get_i32().map_err(|error| error.to_string())?);
        let at = TopicPartition { topic, partition };
        let leads = logs.leadership(at).is_some_and(|leadership| leadership.borrow().is_mine);
        let end = readable_end(logs, at).filter(|_| leads);
        offsets.put_i64(end.map_or(NOT_LED, |end| end.0));
    }
    Ok(offsets.freeze())
}

/// How far the partitions are committed at their leaders, of those whose leader answers; one call a leader.
pub async fn committed_now(partitions: &[TopicPartition], deps: &Deps) -> BTreeMap<TopicPartition, Offset> {
    let mut by_leader: BTreeMap<NodeId, Vec<TopicPartition>> = BTreeMap::new();
    for at in partitions {
        if let Some((leader, _)) = deps.leaders.leader_of(*at) {
            by_leader.entry(leader).or_default().push(*at);
        }
    }
    let asked = by_leader.into_iter().map(|(leader, led)| ask_many(leader, led, deps));
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

async fn ask_many(leader: NodeId, led: Vec<TopicPartition>, deps: &Deps) -> Vec<(TopicPartition, Offset)> {
    if leader == deps.node {
        let own = led.into_iter().filter(|at| deps.logs.leadership(*at).is_some_and(|own| own.borrow().is_mine));
        return own.filter_map(|at| Some((at, readable_end(&deps.logs, at)?))).collect();
    }
    let Some(peers) = deps.peers.as_ref() else { return Vec::new() };
    let mut body = BytesMut::new();
    for at in &led {
        body.put_slice(at.topic.0.as_bytes());
        body.put_i32(at.partition.0);
    }
    let Ok(mut answer) = peers.call(leader, calls::COMMITTED_MANY, body.freeze(), CALL).await else {
        return Vec::new();
    };
    let told = led.into_iter().map_while(|at| Some((at, Offset(answer.try_get_i64().ok()?))));
    told.filter(|(_, offset)| offset.0 != NOT_LED).collect()
}

/// How far tables have to read to miss nothing, as this node knows it. `None`: no replica here.
pub fn readable_end(logs: &LogsHandle, partition: TopicPartition) -> Option<Offset> {
    logs.stable(partition).map(|stable| *stable.borrow())
}

fn answer(logs: &LogsHandle, mut body: Bytes) -> Result<Bytes, String> {
    let topic = TopicId(Uuid::from_u128(body.try_get_u128().map_err(|error| error.to_string())?));
    let partition = PartitionIndex(body.try_get_i32().map_err(|error| error.to_string())?);
    let at = TopicPartition { topic, partition };
    let leads = logs.leadership(at).is_some_and(|leadership| leadership.borrow().is_mine);
    let committed = readable_end(logs, at).filter(|_| leads);
    let committed = committed.ok_or_else(|| format!("partition {at} is not led here"))?;
    Ok(Bytes::copy_from_slice(&committed.0.to_be_bytes()))
}

/// The leader's committed offset. `None`: nobody told within the patience.
pub async fn leaders_committed(partition: TopicPartition, deps: &Deps) -> Option<Offset> {
    let begun = Instant::now();
    loop {
        if let Some(offset) = ask(partition, deps).await {
            return Some(offset);
        }
        if begun.elapsed() > PATIENCE {
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn ask(partition: TopicPartition, deps: &Deps) -> Option<Offset> {
    let leadership = deps.logs.leadership(partition).map(|leadership| *leadership.borrow())?;
    if leadership.is_mine {
        return readable_end(&deps.logs, partition);
    }
    let mut body = BytesMut::new();
    body.put_slice(partition.topic.0.as_bytes());
    body.put_i32(partition.partition.0);
    let answer = deps.peers.as_ref()?.call(leadership.leader?, calls::COMMITTED, body.freeze(), CALL).await.ok()?;
    Some(Offset(i64::from_be_bytes(<[u8; 8]>::try_from(&answer[..]).ok()?)))
}
