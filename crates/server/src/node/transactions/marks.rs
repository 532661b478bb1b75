//! Outcomes on their way: from the coordinator to whoever leads a partition, or coordinates the groups.
//!
//! ```text
//! MARK         u8 version = 1, 16 bytes topic, i32 partition, end
//! END_OFFSETS  u8 version = 1, end, u16 length, group
//! end          u64 term of the receiver's leadership, i64 producer, i16 epoch, u8 commit, u64 coordinator's term, u64 round
//! ```
//! Big-endian. The answer is empty: it is done, durably, or was before. Any failure: the coordinator asks again.
//!
//! What always holds: a mark is carried out in the leadership that it was sent to, or not at all; one that comes late, after the
//! same or a later one of its producer, does nothing.

use base::{NodeId, PartitionIndex, ProducerEpoch, ProducerId, Term, TopicId, TopicPartition};
use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use log::transactions::{Mark, MarkId, Producer, Target};
use log::{AppendError, groups};
use std::time::Duration;
use uuid::Uuid;

use super::Reach;
use crate::node::cluster::epoch;
use crate::node::coordination::Doing;
use crate::node::groups::TOPIC as GROUPS;
use crate::node::router::Router;
use crate::node::time;
use crate::shell::calls;
use crate::shell::logs::LogsError;

const VERSION: u8 = 1;
/// Longest wait for a target; the caller's is a little longer.
const TARGET_MS_MAX: u64 = 3_000;
const CALL: Duration = Duration::from_millis(TARGET_MS_MAX + 1_000);

/// An outcome as it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct End {
    /// Of the receiver's leadership.
    term: Term,
    producer: Producer,
    commit: bool,
    /// The coordinator's term and round.
    mark: (u64, u64),
}

/// Carries marks to their targets.
pub(super) struct Marker(pub Reach);

impl Marker {
    pub fn run(&self, term: Term, id: MarkId, mark: Mark) -> Doing<(MarkId, bool)> {
        let reach = self.0.clone();
        Box::pin(async move {
            let result = send(&reach, term, &mark).await;
            if let Err(error) = &result {
                tracing::debug!(target = ?mark.target, producer = %mark.producer.id, error, "a transaction's end is sent again");
            }
            (id, result.is_ok())
        })
    }
}

async fn send(reach: &Reach, coordinator: Term, mark: &Mark) -> Result<(), String> {
    let end = |term| End { term, producer: mark.producer, commit: mark.commit, mark: (coordinator.0, mark.round) };
    match &mark.target {
        Target::Partition(place) => {
            if reach.meta.state().tombstones.contains_key(&place.topic) {
                return Ok(());
            }
            let (leader, term) = reach.leaders.leader_of(*place).ok_or("no leader is known")?;
            if leader == reach.node {
                return mark_here(reach, *place, end(term)).await;
            }
            let mut body = BytesMut::new();
            body.put_u8(VERSION);
            body.put_slice(place.topic.0.as_bytes());
            body.put_i32(place.partition.0);
            end(term).put(&mut body);
            call(reach, leader, calls::MARK, body.freeze()).await
        }
        Target::Group(group) => {
            let (leader, term) = reach.leader_of(GROUPS).ok_or("no coordinator of groups is known")?;
            if leader == reach.node {
                return end_offsets_here(reach, group.clone(), end(term)).await;
            }
            let mut body = BytesMut::new();
            body.put_u8(VERSION);
            end(term).put(&mut body);
            body.put_u16(u16::try_from(group.len()).map_err(|error| error.to_string())?);
            body.put_slice(group.as_bytes());
            call(reach, leader, calls::END_OFFSETS, body.freeze()).await
        }
    }
}

async fn call(reach: &Reach, node: NodeId, kind: u8, body: Bytes) -> Result<(), String> {
    let peers = reach.peers.as_ref().ok_or("the node is alone")?;
    peers.call(node, kind, body, CALL).await.map(drop).map_err(|error| error.to_string())
}

/// Answers other nodes.
pub(super) fn serve(router: &Router, reach: &Reach) {
    let own = reach.clone();
    router.on(calls::MARK, move |_, body| {
        let reach = own.clone();
        async move {
            let (place, end) = read_mark(body)?;
            mark_here(&reach, place, end).await.map(|()| Bytes::new())
        }
    });
    let own = reach.clone();
    router.on(calls::END_OFFSETS, move |_, body| {
        let reach = own.clone();
        async move {
            let (group, end) = read_end_offsets(body)?;
            end_offsets_here(&reach, group, end).await.map(|()| Bytes::new())
        }
    });
}

async fn mark_here(reach: &Reach, place: TopicPartition, end: End) -> Result<(), String> {
    let marker = log::Marker {
        producer: end.producer.id,
        epoch: end.producer.epoch,
        commit: end.commit,
        coordinator_epoch: epoch(end.mark.0),
    };
    let deadline = time::now().plus(TARGET_MS_MAX);
    match reach.logs.append_marker(place, marker, end.mark, end.term, deadline).await {
        // Of a later incarnation of the producer than the transaction: this one's has ended here before.
        Ok(_) | Err(LogsError::Append(AppendError::FencedEpoch { .. })) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

async fn end_offsets_here(reach: &Reach, group: String, end: End) -> Result<(), String> {
    if reach.leader_of(GROUPS) != Some((reach.node, end.term)) {
        return Err("the groups are not coordinated here in that term".to_owned());
    }
    let End { producer, commit, mark, .. } = end;
    let request = groups::Request::EndTransaction { group, producer: producer.id, commit, mark };
    let asked = tokio::time::timeout(Duration::from_millis(TARGET_MS_MAX), reach.groups.request(request));
    match asked.await {
        Ok(groups::Response::EndTransaction(result)) => result.map_err(|error| error.to_string()),
        Ok(other) => Err(format!("answered with {other:?}")),
        Err(_) => Err("the coordinator of groups did not answer in time".to_owned()),
    }
}

impl End {
    fn put(&self, out: &mut BytesMut) {
        out.put_u64(self.term.0);
        out.put_i64(self.producer.id.0);
        out.put_i16(self.producer.epoch.0);
        out.put_u8(u8::from(self.commit));
        out.put_u64(self.mark.0);
        out.put_u64(self.mark.1);
    }

    fn read(body: &mut Bytes) -> Result<Self, TryGetError> {
        let term = Term(body.try_get_u64()?);
        let id = ProducerId(body.try_get_i64()?);
        let producer = Producer { id, epoch: ProducerEpoch(body.try_get_i16()?) };
        let commit = body.try_get_u8()? != 0;
        Ok(Self { term, producer, commit, mark: (body.try_get_u64()?, body.try_get_u64()?) })
    }
}

fn read_mark(mut body: Bytes) -> Result<(TopicPartition, End), String> {
    let cut = |error: TryGetError| error.to_string();
    check_version(&mut body)?;
    let topic = TopicId(Uuid::from_u128(body.try_get_u128().map_err(cut)?));
    let partition = PartitionIndex(body.try_get_i32().map_err(cut)?);
    Ok((TopicPartition { topic, partition }, End::read(&mut body).map_err(cut)?))
}

fn read_end_offsets(mut body: Bytes) -> Result<(String, End), String> {
    let cut = |error: TryGetError| error.to_string();
    check_version(&mut body)?;
    let end = End::read(&mut body).map_err(cut)?;
    let len = usize::from(body.try_get_u16().map_err(cut)?);
    let group = body.get(..len).ok_or("the group's id is cut off")?;
    let group = std::str::from_utf8(group).map_err(|error| error.to_string())?.to_owned();
    Ok((group, end))
}

pub(super) fn check_version(body: &mut Bytes) -> Result<(), String> {
    match body.try_get_u8() {
        Ok(VERSION) => Ok(()),
        Ok(version) => Err(format!("version {version} is unknown here: update this node")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_as_they_went_and_no_cut_panics() {
        let producer = Producer { id: ProducerId(7), epoch: ProducerEpoch(3) };
        let end = End { term: Term(5), producer, commit: true, mark: (9, 11) };
        let place = TopicPartition { topic: TopicId(Uuid::from_u128(77)), partition: PartitionIndex(2) };
        let mut mark = BytesMut::new();
        mark.put_u8(VERSION);
        mark.put_slice(place.topic.0.as_bytes());
        mark.put_i32(2);
        end.put(&mut mark);
        let mut offsets = BytesMut::new();
        offsets.put_u8(VERSION);
        end.put(&mut offsets);
        offsets.put_u16(1);
        offsets.put_slice(b"g");
        let (mark, offsets) = (mark.freeze(), offsets.freeze());
        assert_eq!(read_mark(mark.clone()), Ok((place, end)));
        assert_eq!(read_end_offsets(offsets.clone()), Ok(("g".to_owned(), end)));
        for at in 0..mark.len() {
            assert!(read_mark(mark.slice(..at)).is_err());
        }
        for at in 0..offsets.len() {
            assert!(read_end_offsets(offsets.slice(..at)).is_err());
        }
    }
}
