//! Republishing and dropping what is in this node's lost+found: by the topics' policies, and by hand at any node.
//!
//! ```text
//! RESCUE    u8 version = 1, 16 bytes topic, i32 partition, batches     for the partition's leader; without batches: how far does
//!           answer: u8 0 = it ends at, i64 offset | 1 = appended | 2 = shut out        the log go?
//! LOST_ACT  JSON: what is to be done with which batches of one file     answer: JSON, how many it was done with
//! ```
//! Big-endian. What always holds: a batch is in the log again before its file says so, and it is there once (`log::Rescue`
//! says why), whatever of this is repeated, late, or breaks off: then the next round begins anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::{NodeId, Offset, PartitionIndex, Tick, Timestamp, TopicId, TopicPartition};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use control::topic::LostPolicy;
use log::{AppendError, LostState, Rescue};
use query::LostRow;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::router::Router;
use super::tables::{Deps, Tables};
use super::{lost, time, topics};
use crate::shell::calls;
use crate::shell::logs::{LogsError, LogsHandle, LostFile};

const VERSION: u8 = 1;
const ENDS_AT: u8 = 0;
const APPENDED: u8 = 1;
const SHUT_OUT: u8 = 2;

/// Between two looks at the topics whose policy is not to keep.
const ROUND: Duration = Duration::from_secs(1);
/// A file with which something is wrong is tried again after this.
const REST_MS: u64 = 10_000;
/// One with which nothing more can be done is looked at again after this.
const REST_MS_LONG: u64 = 600_000;
/// Batches appended in one go.
const GROUP_BYTES: usize = 512 << 10;
/// Longest wait for the leader to have a group durable; the caller's is a little longer.
const APPEND_MS_MAX: u64 = 5_000;
const CALL: Duration = Duration::from_millis(APPEND_MS_MAX + 1_000);
/// Longest wait for what the leader has to arrive here, while nothing arrives.
const IDLE_MS_MAX: u64 = 10_000;
const POLL: Duration = Duration::from_millis(20);
/// Longest wait for another node to do what was asked by hand.
const ACT: Duration = Duration::from_secs(25);

/// What is done by hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    Republish,
    Drop,
}

/// Which batches.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    pub topic: String,
    pub partition: Option<i64>,
    /// The node whose lost+found is meant.
    pub node: Option<i64>,
    /// The offset that the batch began at.
    pub offset: Option<i64>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// Batches that were republished or dropped now.
    pub done: u64,
    /// Batches that were found to be in the log already.
    pub there: u64,
    /// Batches that stay as they are.
    pub kept: u64,
    /// Why, as far as something failed.
    pub trouble: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Order {
    act: Act,
    topic: Uuid,
    partition: i32,
    path: String,
    saved_at: i64,
    /// Where the batches began.
    offsets: Vec<i64>,
}

/// Answers other nodes, and does what the policies say until the node ends.
pub fn start(router: &Router, deps: &Arc<Deps>) {
    let logs = deps.logs.clone();
    router.on(calls::RESCUE, move |_, body| {
        let logs = logs.clone();
        async move { answer(&logs, body).await }
    });
    let weak = Arc::downgrade(deps);
    router.on(calls::LOST_ACT, move |_, body| {
        let deps = Weak::upgrade(&weak);
        async move {
            let deps = deps.ok_or_else(|| "the node is ending".to_owned())?;
            let order: Order = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            let done = obey(&deps, order).await?;
            serde_json::to_vec(&done).map(Bytes::from).map_err(|error| error.to_string())
        }
    });
    let weak = Arc::downgrade(deps);
    tokio::spawn(async move {
        let mut rests = BTreeMap::new();
        loop {
            tokio::time::sleep(ROUND).await;
            let Some(deps) = Weak::upgrade(&weak) else { return };
            round(&deps, &mut rests).await;
        }
    });
}

/// Files that are left alone until then.
type Rests = BTreeMap<(TopicPartition, LostFile), Tick>;

async fn round(deps: &Deps, rests: &mut Rests) {
    rests.retain(|_, until| *until > time::now());
    let state = deps.meta.state();
    let acts = |policy| match policy {
        LostPolicy::Keep => None,
        LostPolicy::Republish => Some(Act::Republish),
        LostPolicy::Drop => Some(Act::Drop),
    };
    let partitions = state.topics.values().filter_map(|topic| Some((topic, acts(topic.config().lost_policy)?)));
    let partitions = partitions.flat_map(|(topic, act)| topics::partitions(topic).map(move |at| (at, act)));
    for (at, act) in partitions.filter(|(at, _)| deps.logs.reader(*at).is_some()) {
        // One that is being closed has nothing to say.
        for found in deps.logs.lost_due(at).await.unwrap_or_default() {
            let file = (found.path.clone(), found.saved_at);
            let key = (at, file.clone());
            if rests.contains_key(&key) {
                continue;
            }
            let done = match act {
                Act::Republish => republish(deps, at, file, None).await,
                Act::Drop => drop_batches(deps, at, file, None).await,
            };
            let rest_ms = if done.trouble.is_empty() { REST_MS_LONG } else { REST_MS };
            for trouble in &done.trouble {
                tracing::warn!(partition = %at, path = found.path, trouble, "what was lost is tried again later");
            }
            tracing::info!(partition = %at, path = found.path, ?act, done = done.done, there = done.there, "lost+found");
            rests.insert(key, time::now().plus(rest_ms));
        }
    }
}

/// Does it with all such batches, on all nodes.
pub async fn by_hand(tables: &Tables, act: Act, which: &Which, patience: Duration) -> Done {
    let deps = tables.deps();
    let (rows, warnings) = lost::everywhere(tables, patience).await;
    let mut files: BTreeMap<(i64, i64, String, Timestamp), Vec<i64>> = BTreeMap::new();
    let is_meant = |row: &LostRow| {
        row.topic == which.topic
            && matches!(row.state.as_str(), "kept" | "waiting")
            && which.partition.is_none_or(|partition| partition == row.partition)
            && which.node.is_none_or(|node| node == row.node)
            && which.offset.is_none_or(|offset| offset == row.base_offset)
    };
    for row in rows.into_iter().filter(is_meant) {
        files.entry((row.partition, row.node, row.path, row.saved_at)).or_default().push(row.base_offset);
    }
    let mut all = Done { trouble: warnings, ..Done::default() };
    let state = deps.meta.state();
    let Some(topic) = state.topic_named(&which.topic) else {
        all.trouble.push(format!("there is no topic {}", which.topic));
        return all;
    };
    for ((partition, node, path, saved_at), offsets) in files {
        let count = offsets.len() as u64;
        let partition = i32::try_from(partition).unwrap_or(-1);
        let order = Order { act, topic: topic.id.0, partition, path, saved_at: saved_at.0, offsets };
        match send(deps, NodeId(u32::try_from(node).unwrap_or(0)), order).await {
            Ok(done) => all.add(done),
            Err(cause) => {
                all.kept += count;
                all.trouble.push(format!("node {node}: {cause}"));
            }
        }
    }
    all
}

impl Done {
    fn add(&mut self, other: Self) {
        self.done += other.done;
        self.there += other.there;
        self.kept += other.kept;
        self.trouble.extend(other.trouble);
    }
}

async fn send(deps: &Deps, node: NodeId, order: Order) -> Result<Done, String> {
    if node == deps.node {
        return obey(deps, order).await;
    }
    let peers = deps.peers.as_ref().ok_or("there are no other nodes")?;
    let body = serde_json::to_vec(&order).map_err(|error| error.to_string())?;
    let answer = peers.call(node, calls::LOST_ACT, body.into(), ACT).await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&answer).map_err(|error| error.to_string())
}

async fn obey(deps: &Deps, order: Order) -> Result<Done, String> {
    let at = TopicPartition { topic: TopicId(order.topic), partition: PartitionIndex(order.partition) };
    let file = (order.path, Timestamp(order.saved_at));
    let work = async {
        match order.act {
            Act::Republish => republish(deps, at, file, Some(&order.offsets)).await,
            Act::Drop => drop_batches(deps, at, file, Some(&order.offsets)).await,
        }
    };
    tokio::time::timeout(ACT, work).await.map_err(|_| "it takes long; look again in a while".to_owned())
}

/// Republishes what the policy would of one file, or by hand the batches that began at these offsets.
async fn republish(deps: &Deps, at: TopicPartition, file: LostFile, offsets: Option<&[i64]>) -> Done {
    let mut rescue = match deps.logs.rescue(at, file.clone(), offsets.is_some()).await {
        Ok(Some(rescue)) => rescue,
        Ok(None) => return Done::failed("the file is gone, or the new leader has nothing committed yet: try again"),
        Err(error) => return Done::failed(&error.to_string()),
    };
    if let Some(offsets) = offsets {
        rescue.only(|batch| offsets.contains(&batch.base_offset.0));
    }
    let (rescue, result) = bring_back(deps, at, rescue).await;
    let mut done = Done { trouble: result.err().into_iter().collect(), ..Done::default() };
    let Some(rescue) = rescue else { return done };
    // What is in the log is noted, also if the rest failed.
    let fates = rescue.fates();
    let count = |state| fates.iter().filter(|(_, fate)| *fate == state).count() as u64;
    (done.done, done.there) = (count(LostState::Republished), count(LostState::Returned));
    let asked = offsets.map_or_else(|| rescue.found().kept(), |offsets| offsets.len() as u64);
    done.kept = asked.saturating_sub(done.done + done.there);
    if !fates.is_empty() {
        done.trouble.extend(settle(deps, at, file, fates).await.err());
    }
    done
}

/// Gives up what is kept of one file, or of it the batches that began at these offsets.
async fn drop_batches(deps: &Deps, at: TopicPartition, file: LostFile, offsets: Option<&[i64]>) -> Done {
    let found = match deps.logs.lost(at).await {
        Ok(found) => found.into_iter().find(|found| (found.path.as_str(), found.saved_at) == (&file.0, file.1)),
        Err(error) => return Done::failed(&error.to_string()),
    };
    let Some(found) = found else { return Done::failed("the file is gone") };
    let is_meant = |batch: &log::LostBatch| {
        batch.state == LostState::Kept && offsets.is_none_or(|offsets| offsets.contains(&batch.base_offset.0))
    };
    let meant = found.batches.iter().enumerate().filter(|(_, batch)| is_meant(batch));
    let fates: Vec<(usize, LostState)> = meant.map(|(at, _)| (at, LostState::Dropped)).collect();
    let count = fates.len() as u64;
    match settle(deps, at, file, fates).await {
        Ok(()) => Done { done: count, ..Done::default() },
        Err(cause) => Done { kept: count, ..Done::failed(&cause) },
    }
}

impl Done {
    fn failed(cause: &str) -> Self {
        Self { trouble: vec![cause.to_owned()], ..Self::default() }
    }
}

async fn settle(deps: &Deps, at: TopicPartition, file: LostFile, fates: Vec<(usize, LostState)>) -> Result<(), String> {
    match deps.logs.settle(at, file, fates).await {
        Ok(true) => Ok(()),
        Ok(false) => Err("the file cannot be written now: try again".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Appends at the leader what is wanted and not there. The rescue comes back in any case but that this process fails it.
async fn bring_back(deps: &Deps, at: TopicPartition, rescue: Rescue) -> (Option<Rescue>, Result<(), String>) {
    let mut rescue = rescue;
    let mut group_bytes = GROUP_BYTES;
    loop {
        let (back, looked) = look(deps, at, rescue).await;
        let Some(back) = back else { return (None, looked) };
        rescue = back;
        if looked.is_err() {
            return (Some(rescue), looked);
        }
        loop {
            let (back, next) = match blocking(rescue, move |rescue| rescue.take_next(group_bytes)).await {
                Ok(done) => done,
                Err(cause) => return (None, Err(cause)),
            };
            rescue = back;
            let Some((places, batches)) = next else { return (Some(rescue), Ok(())) };
            match append(deps, at, batches).await {
                Ok(true) => rescue.appended(&places),
                Ok(false) => {
                    // Of several it is not known which.
                    if let [one] = places[..] {
                        rescue.shut_out(one);
                    }
                    group_bytes = 0;
                    break;
                }
                Err(cause) => return (Some(rescue), Err(cause)),
            }
        }
    }
}

/// Looks at the log as far as it goes at the leader.
async fn look(deps: &Deps, at: TopicPartition, rescue: Rescue) -> (Option<Rescue>, Result<(), String>) {
    let until = match end_at_leader(deps, at).await {
        Ok(until) => until,
        Err(cause) => return (Some(rescue), Err(cause)),
    };
    let mut rescue = rescue;
    let committed = || deps.logs.reader(at).map_or(Offset::ZERO, |reader| reader.committed());
    let (mut since, mut there) = (time::now(), committed());
    loop {
        let (back, looked) = match blocking(rescue, move |rescue| rescue.look(until)).await {
            Ok(done) => done,
            Err(cause) => return (None, Err(cause)),
        };
        rescue = back;
        match looked {
            Ok(true) => return (Some(rescue), Ok(())),
            Err(error) => return (Some(rescue), Err(error.to_string())),
            Ok(false) if committed() != there => (since, there) = (time::now(), committed()),
            Ok(false) if there >= until => {}
            Ok(false) if time::now().since(since) >= IDLE_MS_MAX => {
                let cause = format!("this replica has {there} of {until}, and nothing arrives");
                return (Some(rescue), Err(cause));
            }
            Ok(false) => tokio::time::sleep(POLL).await,
        }
    }
}

async fn blocking<T: Send + 'static>(
    mut rescue: Rescue,
    work: impl FnOnce(&mut Rescue) -> T + Send + 'static,
) -> Result<(Rescue, T), String> {
    let done = tokio::task::spawn_blocking(move || {
        let result = work(&mut rescue);
        (rescue, result)
    });
    done.await.map_err(|error| error.to_string())
}

async fn end_at_leader(deps: &Deps, at: TopicPartition) -> Result<Offset, String> {
    let mut answer = ask_leader(deps, at, Bytes::new()).await?;
    match answer.try_get_u8() {
        Ok(ENDS_AT) => answer.try_get_i64().map(Offset).map_err(|error| error.to_string()),
        other => Err(format!("the leader answered {other:?}")),
    }
}

/// True: they are in the log. False: one that was lost after some of them had been appended before.
async fn append(deps: &Deps, at: TopicPartition, batches: Bytes) -> Result<bool, String> {
    match ask_leader(deps, at, batches).await?.try_get_u8() {
        Ok(APPENDED) => Ok(true),
        Ok(SHUT_OUT) => Ok(false),
        other => Err(format!("the leader answered {other:?}")),
    }
}

async fn ask_leader(deps: &Deps, at: TopicPartition, batches: Bytes) -> Result<Bytes, String> {
    let (leader, _) = deps.leaders.leader_of(at).ok_or("the partition has no leader")?;
    if leader == deps.node {
        return answer_here(&deps.logs, at, batches).await;
    }
    let peers = deps.peers.as_ref().ok_or("there are no other nodes")?;
    let mut body = BytesMut::with_capacity(batches.len() + 32);
    body.put_u8(VERSION);
    body.put_slice(at.topic.0.as_bytes());
    body.put_i32(at.partition.0);
    body.put_slice(&batches);
    peers.call(leader, calls::RESCUE, body.freeze(), CALL).await.map_err(|error| error.to_string())
}

async fn answer(logs: &LogsHandle, mut body: Bytes) -> Result<Bytes, String> {
    let cut = |error: bytes::TryGetError| error.to_string();
    match body.try_get_u8().map_err(cut)? {
        VERSION => {}
        version => return Err(format!("version {version} is unknown here: update this node")),
    }
    let topic = TopicId(Uuid::from_u128(body.try_get_u128().map_err(cut)?));
    let partition = PartitionIndex(body.try_get_i32().map_err(cut)?);
    answer_here(logs, TopicPartition { topic, partition }, body).await
}

async fn answer_here(logs: &LogsHandle, at: TopicPartition, batches: Bytes) -> Result<Bytes, String> {
    let mut answer = BytesMut::new();
    if batches.is_empty() {
        let leads = logs.leadership(at).is_some_and(|leadership| leadership.borrow().is_mine);
        let end = logs.reader(at).filter(|_| leads).map(|reader| reader.end());
        answer.put_u8(ENDS_AT);
        answer.put_i64(end.ok_or_else(|| format!("partition {at} is not led here"))?.0);
        return Ok(answer.freeze());
    }
    match logs.append_rescued(at, batches, time::now().plus(APPEND_MS_MAX)).await {
        Ok(_) => answer.put_u8(APPENDED),
        Err(LogsError::Append(AppendError::FencedEpoch { .. })) => answer.put_u8(SHUT_OUT),
        Err(error) => return Err(error.to_string()),
    }
    Ok(answer.freeze())
}
