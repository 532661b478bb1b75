//! Live rows of a partition from a replica that keeps them, to a node that does not: what a query there needs.
//!
//! ```text
//! asks: table, partition, from ──> the leader, then the other keepers
//!                            <──── rows [from, to), with where they may be cut; or: published up to x
//! ```
//! What always holds: the rows come into the same live table, by the same offsets, as if this node had read them from the
//! log; so what is published takes their place as it does everywhere, nothing is counted twice and nothing is left out. Only
//! what is new since the last time is sent. They are forgotten when no query asked for a while (`forget_borrowed`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use base::{NodeId, Offset, PartitionIndex};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use control::TableId;
use store::live::{LiveChunk, Piece, RowEnd};
use store::schema::TableSchema;
use uuid::Uuid;

use super::reader::time_range;
use super::runtime::TableRuntime;
use super::{Deps, Tables};
use crate::node::router::Router;
use crate::node::time;
use crate::shell::calls;

/// Rows of one answer; fewer if they are large.
const PIECE_ROWS_MAX: usize = 32 << 10;
/// An answer is made smaller until it is below this, as far as its rows may be cut.
const PIECE_BYTES_MAX: usize = 8 << 20;
/// Longest wait for one answer.
const CALL: Duration = Duration::from_secs(2);
/// Between rounds in which nobody had more.
const POLL: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_millis(100);
const VERSION: u8 = 1;
const ROWS: u8 = 0;
const PUBLISHED: u8 = 1;
const REQUEST_BYTES: usize = 1 + 16 + 4 + 8;
const END_BYTES: usize = 8 + 4;

/// What a keeper answers.
enum Answer {
    /// The rows of `[from, to)`. `rest`: there is more at once.
    Rows { piece: Piece, rest: bool },
    /// It has none of them any more: they are in segments that are published up to here.
    Published(Offset),
}

/// Answers other nodes that ask for live rows kept here.
pub fn serve(router: &Router, tables: &Arc<Tables>) {
    let tables = Arc::downgrade(tables);
    router.on(calls::LIVE_ROWS, move |_, body| {
        let tables = tables.upgrade();
        async move {
            let tables = tables.ok_or_else(|| "the node is ending".to_owned())?;
            answer(&tables, body).await
        }
    });
}

async fn answer(tables: &Tables, mut body: Bytes) -> Result<Bytes, String> {
    if body.len() < REQUEST_BYTES || body.get_u8() != VERSION {
        return Err("a request for live rows that makes no sense".into());
    }
    let table = TableId(Uuid::from_u128(body.get_u128()));
    let partition = PartitionIndex(body.get_i32());
    let from = Offset(body.get_i64());
    let table = tables.runtime(table).ok_or_else(|| "it does not know the table (yet)".to_owned())?;
    let (chunk, next) = {
        let core = table.core();
        let place = core.partitions.get(&partition).filter(|place| place.keeps);
        let place = place.ok_or_else(|| "it keeps no live rows of the partition".to_owned())?;
        if place.published > from {
            return Ok(encode_published(place.published));
        }
        (core.live.chunk_from(partition, from), place.next)
    };
    let Some(chunk) = chunk else {
        let none =
            Piece { to: next.max(from), rows: RecordBatch::new_empty(table.core().schema.arrow()), ends: vec![] };
        return encode_rows(&none, false).map(|(bytes, _)| bytes);
    };
    let worker = Arc::clone(&tables.deps().workers).acquire_owned().await.map_err(|error| error.to_string())?;
    let work = move || {
        let encoded = cut(&chunk, from, next);
        drop(worker);
        encoded
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

/// The first rows of the chunk from `from` on, not too many of them.
fn cut(chunk: &LiveChunk, from: Offset, next: Offset) -> Result<Bytes, String> {
    let mut rows_max = PIECE_ROWS_MAX;
    loop {
        let piece = chunk.piece(from, rows_max).map_err(|error| error.to_string())?;
        let (bytes, rows) = encode_rows(&piece, piece.to < next)?;
        if bytes.len() <= PIECE_BYTES_MAX || rows_max == 1 || piece.ends.is_empty() {
            return Ok(bytes);
        }
        rows_max = (rows / 2).clamp(1, rows_max / 2);
    }
}

fn encode_published(to: Offset) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(&[VERSION, PUBLISHED]);
    out.put_i64(to.0);
    out.freeze()
}

fn encode_rows(piece: &Piece, rest: bool) -> Result<(Bytes, usize), String> {
    let mut out = BytesMut::new();
    out.put_slice(&[VERSION, ROWS, u8::from(rest)]);
    out.put_i64(piece.to.0);
    out.put_u32(u32::try_from(piece.ends.len()).map_err(|error| error.to_string())?);
    for end in &piece.ends {
        out.put_i64(end.offset.0);
        out.put_u32(u32::try_from(end.rows).map_err(|error| error.to_string())?);
    }
    if piece.rows.num_rows() > 0 {
        let told = |error: arrow::error::ArrowError| error.to_string();
        let mut writer = StreamWriter::try_new((&mut out).writer(), piece.rows.schema_ref()).map_err(told)?;
        writer.write(&piece.rows).and_then(|()| writer.finish()).map_err(told)?;
    }
    Ok((out.freeze(), piece.rows.num_rows()))
}

fn decode(mut body: Bytes) -> Option<Answer> {
    if body.try_get_u8().ok()? != VERSION {
        return None;
    }
    if body.try_get_u8().ok()? == PUBLISHED {
        return Some(Answer::Published(Offset(body.try_get_i64().ok()?)));
    }
    let rest = body.try_get_u8().ok()? != 0;
    let to = Offset(body.try_get_i64().ok()?);
    let count = usize::try_from(body.try_get_u32().ok()?).ok()?;
    if body.remaining() < count.checked_mul(END_BYTES)? {
        return None;
    }
    let ends = (0..count).map(|_| {
        let offset = Offset(body.get_i64());
        RowEnd { offset, rows: usize::try_from(body.get_u32()).unwrap_or(usize::MAX) }
    });
    let ends: Vec<RowEnd> = ends.collect();
    let rows = match body.is_empty() {
        true => RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty())),
        false => StreamReader::try_new(body.reader(), None).ok()?.next()?.ok()?,
    };
    Some(Answer::Rows { piece: Piece { to, rows, ends }, rest })
}

/// Takes the partition's live rows from whoever keeps them, up to `until`; without that, all that one of them has.
///
/// # Errors
/// Nobody gave them by `deadline`: which nodes were asked, and what they said.
pub async fn borrow(
    table: &Arc<TableRuntime>,
    partition: PartitionIndex,
    until: Option<Offset>,
    deps: &Arc<Deps>,
    deadline: Instant,
) -> Result<(), String> {
    let one_at_a_time = table.borrower(partition);
    let left = deadline.saturating_duration_since(Instant::now());
    let Ok(_one_at_a_time) = tokio::time::timeout(left, one_at_a_time.lock()).await else {
        return Err("another query is still fetching them".into());
    };
    // What each of them said last; not that time was over.
    let mut said: BTreeMap<NodeId, String> = BTreeMap::new();
    let mut pause = POLL;
    loop {
        for node in keepers(table, partition, deps) {
            if has(table, partition, until) {
                return Ok(());
            }
            let cause = match all_of(table, partition, node, deps, deadline).await {
                Ok(()) if until.is_none() || has(table, partition, until) => return Ok(()),
                Ok(()) => "it has not taken them in yet".to_owned(),
                Err(cause) => cause,
            };
            if Instant::now() < deadline || !said.contains_key(&node) {
                said.insert(node, cause);
            }
        }
        let is_over = Instant::now() + pause >= deadline;
        if is_over || are_segments_awaited(table, partition, deps) {
            let said: Vec<String> = said.iter().map(|(node, cause)| format!("node {node}: {cause}")).collect();
            return Err(if said.is_empty() { "it is not known who has them".into() } else { said.join("; ") });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
    }
}

/// True if the rows are published and their segments cannot be opened here: nobody has them live any more.
pub fn are_segments_awaited(table: &TableRuntime, partition: PartitionIndex, deps: &Deps) -> bool {
    let (next, fails) = {
        let core = table.core();
        let next = core.partitions.get(&partition).map_or(Offset::ZERO, |place| place.next);
        (next, core.behind_cause.is_some())
    };
    fails && table.is_published_beyond(partition, next, deps)
}

/// Whom to ask, in order: the leader, those who should keep them, then the other replicas.
fn keepers(table: &TableRuntime, partition: PartitionIndex, deps: &Deps) -> Vec<NodeId> {
    let at = table.at(partition);
    let leader = deps.leaders.leader_of(at).map(|(leader, _)| leader);
    let mut keepers = deps.meta.state().live_keepers(at, usize::MAX, leader);
    keepers.retain(|node| *node != deps.node);
    keepers
}

fn has(table: &TableRuntime, partition: PartitionIndex, until: Option<Offset>) -> bool {
    let core = table.core();
    until.is_some_and(|until| core.partitions.get(&partition).is_some_and(|place| place.next >= until))
}

/// Everything that one keeper has beyond what is here.
async fn all_of(
    table: &Arc<TableRuntime>,
    partition: PartitionIndex,
    node: NodeId,
    deps: &Arc<Deps>,
    deadline: Instant,
) -> Result<(), String> {
    let peers = deps.peers.as_ref().ok_or("there are no other nodes")?;
    loop {
        let Some(from) = note_asked(table, partition) else { return Err("the table is not open here".into()) };
        let mut body = BytesMut::with_capacity(REQUEST_BYTES);
        body.put_u8(VERSION);
        body.put_slice(table.id.0.as_bytes());
        body.put_i32(partition.0);
        body.put_i64(from.0);
        let patience = deadline.saturating_duration_since(Instant::now()).min(CALL);
        let answer = peers.call(node, calls::LIVE_ROWS, body.freeze(), patience).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match decode(answer).ok_or("its answer makes no sense")? {
            Answer::Published(to) => published(table, partition, to, deadline).await?,
            Answer::Rows { piece, rest } => {
                if table.live_bytes() > deps.config.live_bytes_max {
                    return Err(
                        "live rows here are at store.live_bytes_max: raise it, or ask one that keeps them".into()
                    );
                }
                let table = Arc::clone(table);
                let taken = tokio::task::spawn_blocking(move || take_in(&table, partition, from, &piece));
                taken.await.map_err(|error| error.to_string())??;
                if !rest {
                    return Ok(());
                }
            }
        }
    }
}

/// Where the borrowed rows end; they are wanted, so they stay for a while.
fn note_asked(table: &TableRuntime, partition: PartitionIndex) -> Option<Offset> {
    let mut core = table.core();
    let place = core.partitions.get_mut(&partition)?;
    place.asked = Some(time::now());
    Some(place.next)
}

/// Waits until what is published up to `to` is open here too.
async fn published(
    table: &TableRuntime,
    partition: PartitionIndex,
    to: Offset,
    deadline: Instant,
) -> Result<(), String> {
    let mut moves = table.moves();
    loop {
        moves.borrow_and_update();
        let (there, cause) = {
            let core = table.core();
            let there = core.partitions.get(&partition).is_some_and(|place| place.published >= to);
            (there, core.behind_cause.clone())
        };
        if there {
            return Ok(());
        }
        if let Some(cause) = cause {
            return Err(format!("they are published, and the segments cannot be opened here: {cause}"));
        }
        table.news.notify_one();
        if tokio::time::timeout(deadline.saturating_duration_since(Instant::now()), moves.changed()).await.is_err() {
            return Err(format!("they are published up to offset {to}, and this node has not heard of it yet"));
        }
    }
}

/// Books rows as a reader does. Nothing happens if the partition has moved on meanwhile.
fn take_in(table: &TableRuntime, partition: PartitionIndex, from: Offset, piece: &Piece) -> Result<(), String> {
    let mut guard = table.core();
    let core = &mut *guard;
    if core.partitions.get(&partition).is_none_or(|place| place.next != from) || piece.to <= from {
        return Ok(());
    }
    if piece.rows.num_rows() > 0 {
        let seen = TableSchema::from_arrow(piece.rows.schema_ref()).map_err(|error| error.to_string())?;
        if seen != *core.schema {
            core.schema = core.schema.merge(&seen).map(Arc::new).map_err(|error| error.to_string())?;
        }
    }
    core.live.push(partition, from..piece.to, &piece.rows, &piece.ends).map_err(|error| error.to_string())?;
    let times = time_range(&piece.rows);
    core.newest = core.newest.max(times.map(|(_, greatest)| greatest));
    if let Some(place) = core.partitions.get_mut(&partition) {
        place.next = piece.to;
        place.live_since = place.live_since.or_else(|| Some(time::now()));
        place.earliest = match (place.earliest, times) {
            (Some(before), Some((least, _))) => Some(before.min(least)),
            (before, times) => before.or(times.map(|(least, _)| least)),
        };
    }
    table.note_progress(core, partition);
    Ok(())
}
