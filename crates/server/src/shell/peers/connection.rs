//! A connection after its handshake: one task that reads, one that writes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::frame::{self, Frame, FrameError, Pieces, Status};
use super::local;
use super::peer::{Peer, Place, REPLACED};
use super::{GroupFrame, Lane, SMALL_CALL_BYTES_MAX};

/// Without a byte for this long a link is called silent.
const SILENT_AFTER: Duration = Duration::from_millis(500);
/// The round trip is measured at least so often.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// A timer that rang this much too late says that this process stood still, not the peer.
const OWN_STALL: Duration = Duration::from_millis(100);
/// About so much is written at once.
const WRITE_BYTES: usize = 256 << 10;
/// How long a connection that took another one's place may be on its way.
const SUCCESSOR: Duration = Duration::from_millis(500);
/// How long a farewell may take.
const PARTING: Duration = Duration::from_millis(100);
/// The least a received frame counts, so that many small ones are bounded too.
const ROOM_BYTES_MIN: usize = 256;

pub type Reading = Box<dyn AsyncRead + Send + Unpin>;
pub type Writing = Box<dyn AsyncWrite + Send + Unpin>;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the peer closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("nothing was heard for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("the peer took nothing for {} ms", .0.as_millis())]
    Stalled(Duration),
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] FrameError),
    #[error("the peer said: {0}")]
    Farewell(String),
    /// It does not count any more.
    #[error("another connection took its place")]
    Replaced,
    #[error("{0}")]
    Stopped(String),
    #[error("its task failed: {0}")]
    Failed(String),
}

/// What the reader asks the writer to say.
struct Talk {
    pong: AtomicU64,
    wake: Arc<Notify>,
}

/// No ping is of the end of time.
const NO_PONG: u64 = u64::MAX;

/// Runs a connection to its end.
pub async fn run(place: Place, reading: Reading, writing: Writing) {
    let place = Arc::new(place);
    let wake = place.lane().queue.attach(place.number);
    let talk = Arc::new(Talk { pong: AtomicU64::new(NO_PONG), wake });
    let mut reader = tokio::spawn(read(Arc::clone(&place), Arc::clone(&talk), reading));
    let mut writer = tokio::spawn(write(Arc::clone(&place), Arc::clone(&talk), writing));
    let mut closing = place.peer.local.closing.subscribe();
    let (mut reader_ended, mut writer_ended) = (false, false);
    let end = tokio::select! {
        end = &mut reader => {
            reader_ended = true;
            end.unwrap_or_else(|error| End::Failed(error.to_string()))
        }
        end = &mut writer => {
            writer_ended = true;
            end.map_or_else(|error| End::Failed(error.to_string()), |(_, end)| end)
        }
        reason = place.stop.stopped() => End::Stopped(reason),
        () = local::closed(&mut closing) => End::Stopped("this node stops".into()),
    };
    if matches!(&end, End::Farewell(text) if text == REPLACED) {
        // The other connection is on its way here. What is to be sent waits for it.
        writer.abort();
        writer_ended = true;
        drop(timeout(SUCCESSOR, place.stop.stopped()).await);
    }
    let reason = end.to_string();
    tracing::debug!(peer = %place.peer.node, lane = ?place.lane, reason, "connection ended");
    place.peer.ended(&place, &reason);
    talk.wake.notify_one();
    // The writer sees that the connection does not count any more, and hands its half back when it is between frames.
    if !writer_ended && let Ok(Ok((Some(writing), _))) = timeout(PARTING, &mut writer).await {
        drop(timeout(PARTING, farewell(writing, reason)).await);
    }
    writer.abort();
    // What is not read would reset the connection, and the farewell be lost.
    if !reader_ended {
        drop(timeout(PARTING, &mut reader).await);
        reader.abort();
    }
}

async fn farewell(mut writing: Writing, reason: String) -> io::Result<()> {
    let mut pieces = Pieces::default();
    pieces.put(Frame::Farewell(reason));
    pieces.finish();
    writing.write_all_buf(&mut pieces).await?;
    writing.flush().await?;
    writing.shutdown().await
}

// --- Writing

async fn write(place: Arc<Place>, talk: Arc<Talk>, mut writing: Writing) -> (Option<Writing>, End) {
    match write_on(&place, &talk, &mut writing).await {
        Err(End::Replaced) => (Some(writing), End::Replaced),
        Err(end) => (None, end),
        Ok(never) => match never {},
    }
}

async fn write_on(place: &Place, talk: &Talk, writing: &mut Writing) -> Result<std::convert::Infallible, End> {
    let limits = place.lane.limits();
    let lane = place.lane();
    let mut pieces = Pieces::default();
    // The first thing said is a ping: it measures the round trip.
    let mut ping_at = Instant::now();
    let mut measure_at = ping_at;
    loop {
        if !place.counts() {
            return Err(End::Replaced);
        }
        let pong = talk.pong.swap(NO_PONG, Ordering::AcqRel);
        if pong != NO_PONG {
            pieces.put(Frame::Pong(pong));
        }
        let now = Instant::now();
        if now >= ping_at {
            pieces.put(Frame::Ping(place.peer.local.elapsed_us()));
            measure_at = now + MEASURE_EVERY;
        }
        if !lane.queue.take(place.number, WRITE_BYTES, |frame| pieces.put(frame)) {
            return Err(End::Replaced);
        }
        if pieces.is_empty() {
            tokio::select! {
                () = talk.wake.notified() => {}
                () = sleep_until(ping_at) => {}
            }
            continue;
        }
        pieces.finish();
        write_pieces(place, &mut pieces, writing, limits.stall_max).await?;
        lane.queue.written(place.number);
        ping_at = measure_at.min(Instant::now() + limits.keep_alive);
    }
}

async fn write_pieces(
    place: &Place,
    pieces: &mut Pieces,
    writing: &mut Writing,
    patience: Duration,
) -> Result<(), End> {
    while bytes::Buf::has_remaining(pieces) {
        let written = timeout(patience, writing.write_buf(pieces)).await.map_err(|_| End::Stalled(patience))??;
        if written == 0 {
            return Err(End::Closed);
        }
        place.lane().sent_bytes.fetch_add(written as u64, Ordering::Relaxed);
    }
    timeout(patience, writing.flush()).await.map_err(|_| End::Stalled(patience))?.map_err(End::Io)
}

// --- Reading

async fn read(place: Arc<Place>, talk: Arc<Talk>, mut reading: Reading) -> End {
    let end = match read_on(&place, &talk, &mut reading).await {
        Err(end) => end,
        Ok(never) => match never {},
    };
    if matches!(end, End::Replaced | End::Protocol(_)) {
        drop(timeout(PARTING, drain(&mut reading)).await);
    }
    end
}

async fn drain(reading: &mut Reading) -> io::Result<()> {
    let mut rest = [0; 4096];
    while reading.read(&mut rest).await? > 0 {}
    Ok(())
}

async fn read_on(place: &Arc<Place>, talk: &Talk, reading: &mut Reading) -> Result<std::convert::Infallible, End> {
    let mut buffer = BytesMut::new();
    let mut heard = Instant::now();
    loop {
        while let Some(frame) = frame::next(&mut buffer, place.lane.limits().frame_bytes_max)? {
            if !place.counts() {
                return Err(End::Replaced);
            }
            if take(place, talk, frame).await? {
                // The time this node had no room for more is not the peer's silence.
                heard = Instant::now();
            }
        }
        let count = read_some(place, reading, &mut buffer, &mut heard).await?;
        if count == 0 {
            return Err(End::Closed);
        }
        let lane = place.lane();
        lane.received_bytes.fetch_add(count as u64, Ordering::Relaxed);
        lane.heard_ms.store(place.peer.local.elapsed_ms(), Ordering::Release);
    }
}

/// Reads what there is; tells when there is nothing for too long.
async fn read_some(
    place: &Place,
    reading: &mut Reading,
    buffer: &mut BytesMut,
    heard: &mut Instant,
) -> Result<usize, End> {
    let dead_after = place.lane.limits().dead_after;
    let mut silent = false;
    loop {
        let due = *heard + if silent || place.lane == Lane::Bulk { dead_after } else { SILENT_AFTER };
        match timeout_at(due, reading.read_buf(buffer)).await {
            Ok(count) => {
                *heard = Instant::now();
                if silent {
                    place.peer.heard_again(place);
                }
                return Ok(count?);
            }
            Err(_) if due.elapsed() > OWN_STALL => *heard = Instant::now(),
            Err(_) if silent || place.lane == Lane::Bulk => return Err(End::Silent(dead_after)),
            Err(_) => {
                silent = true;
                place.peer.silent(place, SILENT_AFTER);
            }
        }
    }
}

/// Works on one frame. True: it had to wait for room.
async fn take(place: &Arc<Place>, talk: &Talk, frame: Frame) -> Result<bool, End> {
    let peer = &place.peer;
    match frame {
        Frame::Group { group, message } => {
            let (room, waited) = room(place, message.len()).await;
            if !place.counts() {
                return Err(End::Replaced);
            }
            peer.local.inbound.group(GroupFrame { from: peer.node, lane: place.lane, group, message, _room: room });
            return Ok(waited);
        }
        Frame::Request { id, patience_ms, kind, body } => {
            let (room, waited) = room(place, body.len()).await;
            request(peer, (id, Duration::from_millis(patience_ms.into())), (kind, body), room);
            return Ok(waited);
        }
        Frame::Answer { id, status, body } => peer.calls.answer(id, status, body),
        Frame::Ping(time) => {
            talk.pong.store(time, Ordering::Release);
            talk.wake.notify_one();
        }
        Frame::Pong(time) => {
            if place.lane == Lane::Control {
                measure(peer, time);
            }
        }
        Frame::Cluster(id) => peer.compare_clusters(Some(id)),
        Frame::Farewell(text) => return Err(End::Farewell(text)),
    }
    Ok(false)
}

async fn room(place: &Place, bytes: usize) -> (Option<OwnedSemaphorePermit>, bool) {
    let room = &place.lane().room;
    let count = bytes.clamp(ROOM_BYTES_MIN, place.lane.limits().room_bytes_max);
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    if let Ok(permit) = Arc::clone(room).try_acquire_many_owned(count) {
        return (Some(permit), false);
    }
    // It is never closed.
    (Arc::clone(room).acquire_many_owned(count).await.ok(), true)
}

/// Answers a call beside the connection.
fn request(
    peer: &Arc<Peer>,
    (id, patience): (u64, Duration),
    (kind, body): (u8, Bytes),
    room: Option<OwnedSemaphorePermit>,
) {
    let Ok(running) = Arc::clone(&peer.running).try_acquire_owned() else {
        return answer(peer, id, Status::Busy, Bytes::new());
    };
    let instance = peer.instance();
    let serving = Arc::clone(peer);
    peer.local.server.spawn(async move {
        let _held = (running, room);
        // Who asked has given up by then.
        let Ok(result) = timeout(patience, serving.local.inbound.call(serving.node, kind, body)).await else { return };
        // Another instance would take the answer for one of its own calls.
        if serving.instance() == instance {
            match result {
                Ok(body) => answer(&serving, id, Status::Done, body),
                Err(text) => answer(&serving, id, Status::Failed, text.into()),
            }
        }
    });
}

fn answer(peer: &Peer, id: u64, status: Status, body: Bytes) {
    let frame = Frame::Answer { id, status, body };
    let bytes = frame.payload_bytes();
    let (lane, frame) = if bytes <= SMALL_CALL_BYTES_MAX {
        (Lane::Control, frame)
    } else if bytes <= Lane::Bulk.limits().frame_bytes_max {
        (Lane::Bulk, frame)
    } else {
        (Lane::Control, Frame::Answer { id, status: Status::TooLarge, body: Bytes::new() })
    };
    if let Err(error) = peer.lane(lane).queue.push(frame) {
        tracing::debug!(peer = %peer.node, ?error, "an answer was dropped; who asked will see a timeout");
    }
}

fn measure(peer: &Peer, sent_us: u64) {
    let Some(trip) = peer.local.elapsed_us().checked_sub(sent_us) else { return };
    let before = peer.round_trip_us.load(Ordering::Relaxed);
    let smoothed = if before == 0 { trip } else { before - before / 8 + trip / 8 };
    peer.round_trip_us.store(smoothed.max(1), Ordering::Relaxed);
}
