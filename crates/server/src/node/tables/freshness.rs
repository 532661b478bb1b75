//! How far a restarted replica has to read before its answers miss nothing: as far as the leader's log is committed now.
//!
//! A replica knows only what it had heard when it stopped. Without a leader within a short while it serves that: what is
//! committed stays readable when nobody can write.

use std::time::{Duration, Instant};

use base::{Offset, PartitionIndex, TopicId, TopicPartition};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::Deps;
use crate::node::router::Router;
use crate::shell::calls;
use crate::shell::logs::LogsHandle;

/// Longest wait for a leader to tell.
const PATIENCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);
const CALL: Duration = Duration::from_millis(500);

/// Answers other nodes that ask how far a partition led here is committed.
pub fn serve(router: &Router, logs: &LogsHandle) {
    let logs = logs.clone();
    router.on(calls::COMMITTED, move |_, body| {
        let answer = answer(&logs, body);
        async move { answer }
    });
}

fn answer(logs: &LogsHandle, mut body: Bytes) -> Result<Bytes, String> {
    let topic = TopicId(Uuid::from_u128(body.try_get_u128().map_err(|error| error.to_string())?));
    let partition = PartitionIndex(body.try_get_i32().map_err(|error| error.to_string())?);
    let at = TopicPartition { topic, partition };
    let leads = logs.leadership(at).is_some_and(|leadership| leadership.borrow().is_mine);
    let committed = logs.stable(at).map(|stable| *stable.borrow()).filter(|_| leads);
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
        return deps.logs.stable(partition).map(|stable| *stable.borrow());
    }
    let mut body = BytesMut::new();
    body.put_slice(partition.topic.0.as_bytes());
    body.put_i32(partition.partition.0);
    let answer = deps.peers.as_ref()?.call(leadership.leader?, calls::COMMITTED, body.freeze(), CALL).await.ok()?;
    Some(Offset(i64::from_be_bytes(<[u8; 8]>::try_from(&answer[..]).ok()?)))
}
