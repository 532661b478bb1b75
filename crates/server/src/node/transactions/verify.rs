//! The question of a partition's leader, or of the groups' coordinator: is this transaction under way? (KIP-890)
//!
//! ```text
//! question  u8 version = 1, u16 length, transactional id, i64 producer, i16 epoch, u32 targets, each:
//!           u8 0, 16 bytes topic, i32 partition  |  u8 1, u16 length, group
//! answer    u8 0 yes, 1 no such producer, 2 fenced, 3 not under way with these, 4 ask again
//! ```

use std::time::Duration;

use base::{PartitionIndex, ProducerEpoch, ProducerId, TopicId, TopicPartition};
use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use log::transactions::{Coordinator, Producer, Request, Response, Target, TransactionError, TransactionState};
use uuid::Uuid;

use super::{Reach, TOPIC};
use crate::node::coordination::Desk;
use crate::node::router::Router;
use crate::shell::calls;

const VERSION: u8 = 1;
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers other nodes.
pub(super) fn serve(router: &Router, desk: &Desk<Coordinator>) {
    let desk = desk.clone();
    router.on(calls::VERIFY, move |_, body| {
        let desk = desk.clone();
        async move {
            let (id, producer, targets) = read(body)?;
            let verified = here(&desk, id, producer, targets).await;
            Ok(Bytes::copy_from_slice(&[code(&verified)]))
        }
    });
}

async fn here(
    desk: &Desk<Coordinator>,
    id: String,
    producer: Producer,
    targets: Vec<Target>,
) -> Result<(), TransactionError> {
    match super::ask(desk, Request::Verify { id, producer, targets }).await {
        Response::Verify(result) => result,
        _ => Err(TransactionError::NotAvailable),
    }
}

/// Asks the coordinator, wherever it is.
pub(super) async fn ask(
    desk: &Desk<Coordinator>,
    reach: &Reach,
    id: &str,
    producer: Producer,
    targets: Vec<Target>,
) -> Result<(), TransactionError> {
    let (leader, _) = reach.leader_of(TOPIC).ok_or(TransactionError::NotAvailable)?;
    if leader == reach.node {
        return here(desk, id.to_owned(), producer, targets).await;
    }
    let peers = reach.peers.as_ref().ok_or(TransactionError::NotAvailable)?;
    let question = write(id, producer, &targets).ok_or(TransactionError::InvalidId)?;
    let answer = peers.call(leader, calls::VERIFY, question, PATIENCE).await;
    let answer = answer.map_err(|error| {
        tracing::debug!(%leader, %error, "whether a transaction is under way could not be asked");
        TransactionError::NotAvailable
    })?;
    match answer.first() {
        Some(0) => Ok(()),
        Some(1) => Err(TransactionError::UnknownProducer),
        Some(2) => Err(TransactionError::Fenced { asked: producer.epoch.0, current: -1 }),
        Some(3) => Err(TransactionError::InvalidState(TransactionState::Empty)),
        _ => Err(TransactionError::Concurrent),
    }
}

const fn code(verified: &Result<(), TransactionError>) -> u8 {
    match verified {
        Ok(()) => 0,
        Err(TransactionError::UnknownProducer) => 1,
        Err(TransactionError::Fenced { .. }) => 2,
        Err(TransactionError::InvalidState(_)) => 3,
        Err(_) => 4,
    }
}

fn put_text(out: &mut BytesMut, text: &str) -> Option<()> {
    out.put_u16(u16::try_from(text.len()).ok()?);
    out.put_slice(text.as_bytes());
    Some(())
}

fn write(id: &str, producer: Producer, targets: &[Target]) -> Option<Bytes> {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    put_text(&mut out, id)?;
    out.put_i64(producer.id.0);
    out.put_i16(producer.epoch.0);
    out.put_u32(u32::try_from(targets.len()).ok()?);
    for target in targets {
        match target {
            Target::Partition(place) => {
                out.put_u8(0);
                out.put_slice(place.topic.0.as_bytes());
                out.put_i32(place.partition.0);
            }
            Target::Group(group) => {
                out.put_u8(1);
                put_text(&mut out, group)?;
            }
        }
    }
    Some(out.freeze())
}

fn read_text(body: &mut Bytes) -> Result<String, String> {
    let len = usize::from(body.try_get_u16().map_err(|error| error.to_string())?);
    if body.len() < len {
        return Err("a name is cut off".to_owned());
    }
    String::from_utf8(body.split_to(len).to_vec()).map_err(|error| error.to_string())
}

fn read(mut body: Bytes) -> Result<(String, Producer, Vec<Target>), String> {
    let cut = |error: TryGetError| error.to_string();
    super::marks::check_version(&mut body)?;
    let id = read_text(&mut body)?;
    let producer_id = ProducerId(body.try_get_i64().map_err(cut)?);
    let producer = Producer { id: producer_id, epoch: ProducerEpoch(body.try_get_i16().map_err(cut)?) };
    let count = body.try_get_u32().map_err(cut)?;
    let mut targets = Vec::new();
    for _ in 0..count {
        targets.push(match body.try_get_u8().map_err(cut)? {
            0 => {
                let topic = TopicId(Uuid::from_u128(body.try_get_u128().map_err(cut)?));
                let partition = PartitionIndex(body.try_get_i32().map_err(cut)?);
                Target::Partition(TopicPartition { topic, partition })
            }
            1 => Target::Group(read_text(&mut body)?),
            kind => return Err(format!("a target of kind {kind} is unknown here")),
        });
    }
    Ok((id, producer, targets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_comes_as_it_went_and_no_cut_panics() {
        let producer = Producer { id: ProducerId(7), epoch: ProducerEpoch(3) };
        let place = TopicPartition { topic: TopicId(Uuid::from_u128(77)), partition: PartitionIndex(2) };
        let targets = vec![Target::Partition(place), Target::Group("g".into())];
        let bytes = write("t", producer, &targets).unwrap();
        assert_eq!(read(bytes.clone()), Ok(("t".to_owned(), producer, targets)));
        for at in 0..bytes.len() {
            assert!(read(bytes.slice(..at)).is_err());
        }
    }
}
