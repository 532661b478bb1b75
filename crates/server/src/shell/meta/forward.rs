//! A proposal on its way to whoever leads, and the bytes of that.
//!
//! Request: the encoded command. Answer, little endian:
//! ```text
//! 0 | term u64 | index u64     it stands there
//! 1 | leader u32 (0: unknown)  not the leader
//! 2 | text                     refused, for people
//! ```

use std::sync::Arc;
use std::time::Duration;

use base::{LogIndex, NodeId, Term, Tick};
use bytes::{BufMut, Bytes, BytesMut};
use control::{Applied, Command, State};
use quorum::ProposeError;
use tokio::sync::oneshot;

use super::{Failed, Input, MISSING_MS_MAX, MetaError, MetaHandle, RETRY, Waiter, gone};
use crate::node::time;
use crate::shell::calls;

/// Longest wait for a leader to say where a command stands: it does so before it is decided.
const OFFER_MS_MAX: u64 = 1_500;
const PLACED: u8 = 0;
const NOT_LEADER: u8 = 1;
const REFUSED: u8 = 2;

/// One command, as often as it takes.
pub(super) struct Attempt {
    command: Command,
    data: Bytes,
    /// It was given to a group, and what came of it is not known.
    pub may_have_been_proposed: bool,
}

/// What one try came to.
enum Outcome {
    Answered(Result<Applied, MetaError>),
    /// Ask again.
    Again,
    NoLeader,
}

impl Attempt {
    pub fn new(command: Command, data: Bytes) -> Self {
        Self { command, data, may_have_been_proposed: false }
    }

    /// Ends when it is answered; the caller sets the time limit.
    pub async fn run(&mut self, meta: &MetaHandle, deadline: Tick) -> Result<Applied, MetaError> {
        let place = Arc::clone(&meta.places).acquire_owned().await.map_err(|_| gone())?;
        let place = Arc::new(place);
        loop {
            let answer = match self.here(meta, &place).await? {
                Ok(applied) => Outcome::Answered(Ok(applied)),
                Err(Failed::NotLeader(Some(leader))) => self.at(meta, leader, &place, deadline).await?,
                Err(Failed::NotLeader(None)) => Outcome::NoLeader,
                Err(failed) => self.judge(failed),
            };
            match answer {
                Outcome::Answered(Err(MetaError::Refused(refused))) => {
                    // An earlier try that was not heard of again may be why.
                    let done = self.may_have_been_proposed.then(|| was_applied(&self.command, &meta.state())).flatten();
                    return done.ok_or(MetaError::Refused(refused));
                }
                Outcome::Answered(answer) => return answer,
                Outcome::NoLeader => {
                    let master = meta.master();
                    let long = master.leaderless_since.is_some_and(|at| time::now().since(at) >= MISSING_MS_MAX);
                    if !master.has_majority() && long {
                        return Err(meta.no_leader());
                    }
                }
                Outcome::Again => {}
            }
            let mut changes = meta.watch_master();
            changes.mark_unchanged();
            drop(tokio::time::timeout(RETRY, changes.changed()).await);
        }
    }

    async fn here(
        &mut self,
        meta: &MetaHandle,
        place: &Arc<tokio::sync::OwnedSemaphorePermit>,
    ) -> Result<Result<Applied, Failed>, MetaError> {
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter { reply, _place: Some(Arc::clone(place)) };
        meta.tell(Input::Propose(self.data.clone(), waiter))?;
        let before = std::mem::replace(&mut self.may_have_been_proposed, true);
        let answered = answer.await.map_err(|_| gone())?;
        // All but these say what came of it.
        if !matches!(answered, Err(Failed::Unknown | Failed::Error(MetaError::DiskFull | MetaError::Stopped(_)))) {
            self.may_have_been_proposed = before;
        }
        Ok(answered)
    }

    /// Gives it to the leader and waits until this node has applied it.
    async fn at(
        &mut self,
        meta: &MetaHandle,
        leader: NodeId,
        place: &Arc<tokio::sync::OwnedSemaphorePermit>,
        deadline: Tick,
    ) -> Result<Outcome, MetaError> {
        let Some(peers) = &meta.peers else { return Ok(Outcome::NoLeader) };
        let patience = Duration::from_millis(deadline.since(time::now()).min(OFFER_MS_MAX));
        let before = std::mem::replace(&mut self.may_have_been_proposed, true);
        let offered = peers.call(leader, calls::PROPOSE, self.data.clone(), patience).await;
        let (term, index) = match offered.map(|answer| read(&answer)) {
            Ok(Some(Offered::Placed(term, index))) => (term, index),
            Ok(Some(Offered::NotLeader)) => {
                self.may_have_been_proposed = before;
                return Ok(Outcome::Again);
            }
            Ok(Some(Offered::Refused(cause))) => {
                self.may_have_been_proposed = before;
                return Ok(Outcome::Answered(Err(MetaError::Stopped(format!("node {leader}: {cause}")))));
            }
            Ok(None) => {
                return Ok(Outcome::Answered(Err(MetaError::Stopped(format!("node {leader} answers nonsense")))));
            }
            // The leader has gone, or its answer has: the next one is asked.
            Err(error) => {
                tracing::debug!(%leader, %error, "metadata: a proposal was not answered");
                return Ok(Outcome::Again);
            }
        };
        let (reply, answer) = oneshot::channel();
        meta.tell(Input::Await(term, index, Waiter { reply, _place: Some(Arc::clone(place)) }))?;
        Ok(match answer.await.map_err(|_| gone())? {
            Ok(applied) => Outcome::Answered(Ok(applied)),
            Err(Failed::Replaced) => {
                self.may_have_been_proposed = before;
                Outcome::Again
            }
            Err(failed) => self.judge(failed),
        })
    }

    fn judge(&self, failed: Failed) -> Outcome {
        match failed {
            Failed::Replaced | Failed::NotLeader(_) => Outcome::Again,
            // Asked again, it is refused if it took effect.
            Failed::Unknown => Outcome::Again,
            Failed::Error(error) => Outcome::Answered(Err(error)),
        }
    }
}

/// What the command would have answered, if the state shows that it took effect.
fn was_applied(command: &Command, state: &State) -> Option<Applied> {
    match command {
        Command::FormCluster { cluster, .. } => (state.cluster == Some(*cluster)).then_some(Applied::Done),
        Command::CreateTopic { id, .. } => state.topics.contains_key(id).then_some(Applied::TopicCreated(*id)),
        Command::DeleteTopic { id } => state.tombstones.contains_key(id).then_some(Applied::Done),
        Command::AddPartitions { id, total, .. } => {
            state.topics.get(id).is_some_and(|topic| topic.partitions == *total).then_some(Applied::Done)
        }
        Command::CreateTable { id, .. } => state.tables.contains_key(id).then_some(Applied::TableCreated(*id)),
        Command::DropTable { id } => (!state.tables.contains_key(id)).then_some(Applied::Done),
        Command::PublishSegments { table, partition, to, segments, .. } => {
            let table = state.tables.get(table)?;
            let there = segments.iter().all(|segment| table.segments.contains_key(&segment.id));
            (!segments.is_empty() && there && table.published(*partition) >= *to)
                .then_some(Applied::Published { to: *to })
        }
        _ => None,
    }
}

enum Offered {
    Placed(Term, LogIndex),
    NotLeader,
    Refused(String),
}

/// Answers another node's proposal.
pub async fn answer(meta: &MetaHandle, data: Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(32);
    match meta.offer(data).await {
        Ok((term, index)) => {
            out.put_u8(PLACED);
            out.put_u64_le(term.0);
            out.put_u64_le(index.0);
        }
        Err(MetaError::Propose(ProposeError::NotLeader { leader })) => {
            out.put_u8(NOT_LEADER);
            out.put_u32_le(leader.map_or(0, |node| node.0));
        }
        Err(error) => {
            out.put_u8(REFUSED);
            out.put_slice(error.to_string().as_bytes());
        }
    }
    out.freeze()
}

fn read(answer: &[u8]) -> Option<Offered> {
    let (kind, rest) = answer.split_first()?;
    match (*kind, rest.len()) {
        (PLACED, 16) => {
            let number = |at: usize| rest.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
            Some(Offered::Placed(Term(number(0)?), LogIndex(number(8)?)))
        }
        (NOT_LEADER, 4) => Some(Offered::NotLeader),
        (REFUSED, _) => Some(Offered::Refused(String::from_utf8_lossy(rest).into_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_no_answer() {
        assert!(read(&[]).is_none());
        for kind in 0..=255 {
            for len in 0..24 {
                let bytes = vec![kind; len + 1];
                drop(read(&bytes));
            }
        }
        assert!(read(&[PLACED, 1]).is_none() && read(&[NOT_LEADER]).is_none() && read(&[9]).is_none());
    }
}
