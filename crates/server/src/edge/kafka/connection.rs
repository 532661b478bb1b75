//! One connection: frames in, answers out, in order.
//!
//! Two halves run side by side. The reading half takes frames, starts their handlers and hands each over as a running
//! piece of work; the writing half awaits them one after another and writes. A handler is polled once before the next frame is
//! started, so what reaches the log does so in the order of the frames. Produce requests overlap; any other request waits
//! until all before it are done, and is done before the next one starts, as Kafka has it.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use kafka::frame::{self, FrameError, HEAD_BYTES};
use kafka::{ApiKey, EncodeError, Request, RequestHeader, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::budget::{Budget, Share};
use super::limits::{
    DRAIN_MAX, FRAME_FIRST_BYTES, FRAME_READ_MAX, IDLE_MAX, PIPELINE_MAX, READ_BYTES, WRITE_STALL_MAX,
};
use crate::edge::socket::Patient;

/// What a handler makes of a request.
pub(super) enum Answer {
    /// The response, and the share of memory its records take until they are sent.
    Send(Response, Option<Share>),
    /// Nothing is sent: the client asked for no acknowledgement.
    Silent,
    /// Close the connection: the only way to tell a client that wants no acknowledgement.
    Close(&'static str),
}

pub(super) type Work = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Why a connection ended, other than by the client's wish.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Closed(&'static str),
}

/// Which half ended first, and how.
enum Half {
    Reading(Result<(), Ended>),
    Writing(Result<(), Ended>),
}

/// A request that was started.
struct Started {
    header: RequestHeader,
    work: Work,
    /// Given back when the answer has been written: the frame's memory, and its place in the pipeline.
    _share: Share,
    _place: OwnedSemaphorePermit,
}

/// Serves one connection until it ends. Whatever its bytes are, nothing but this connection is affected.
pub(super) async fn run<S, H>(
    stream: S,
    peer: SocketAddr,
    budget: Budget,
    handler: H,
    mut stopped: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(RequestHeader, Request) -> Work,
{
    let (reading, writing) = tokio::io::split(Patient::new(stream, WRITE_STALL_MAX));
    let (starter, started) = mpsc::channel(usize::try_from(PIPELINE_MAX).unwrap_or(1));
    let mut reader = Reader { stream: reading, buffer: BytesMut::with_capacity(READ_BYTES), api: None };
    let mut writer = pin!(write_answers(writing, started));
    let ended = {
        let requests = read_requests(&mut reader, &budget, &handler, starter);
        let mut requests = pin!(requests);
        tokio::select! {
            ended = &mut requests => Half::Reading(ended),
            _ = stopped.wait_for(|stopped| *stopped) => Half::Reading(Ok(())),
            ended = &mut writer => Half::Writing(ended),
        }
    };
    let ended = match ended {
        Half::Writing(ended) => ended,
        // The sender is dropped by now: the writer ends after the answers still owed.
        Half::Reading(ended) => match timeout(DRAIN_MAX, writer).await {
            Ok(Err(error)) if ended.is_ok() => Err(error),
            _ => ended,
        },
    };
    report(peer, reader.api, ended);
}

fn report(peer: SocketAddr, api: Option<ApiKey>, ended: Result<(), Ended>) {
    let api = api.map_or("none", ApiKey::name);
    match ended {
        Ok(()) => tracing::debug!(%peer, api, "kafka: connection closed"),
        Err(Ended::Io(error)) => tracing::debug!(%peer, api, %error, "kafka: connection lost"),
        Err(Ended::Closed(reason)) => tracing::info!(%peer, api, reason, "kafka: connection closed by us"),
        Err(error) => {
            tracing::warn!(%peer, api, %error, "kafka: connection closed: the request cannot be read or answered")
        }
    }
}

async fn read_requests<R, H>(
    reader: &mut Reader<R>,
    budget: &Budget,
    handler: &H,
    starter: mpsc::Sender<Started>,
) -> Result<(), Ended>
where
    R: AsyncRead + Unpin,
    H: Fn(RequestHeader, Request) -> Work,
{
    let places = Arc::new(Semaphore::new(usize::try_from(PIPELINE_MAX).unwrap_or(1)));
    while let Some((frame, share)) = reader.frame(budget).await? {
        let (header, request) = kafka::parse(&frame)?;
        drop(frame);
        let wanted = if header.api == ApiKey::Produce { 1 } else { PIPELINE_MAX };
        let Ok(place) = Arc::clone(&places).acquire_many_owned(wanted).await else { return Ok(()) };
        let mut work = handler(header.clone(), request);
        if let std::task::Poll::Ready(answer) = futures::poll!(&mut work) {
            work = Box::pin(std::future::ready(answer));
        }
        let started = Started { header, work, _share: share, _place: place };
        if starter.send(started).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn write_answers<W: AsyncWrite + Unpin>(
    mut stream: W,
    mut started: mpsc::Receiver<Started>,
) -> Result<(), Ended> {
    while let Some(Started { header, work, _share, _place }) = started.recv().await {
        match work.await {
            Answer::Send(response, share) => {
                write_chunks(&mut stream, response.encode(&header)?).await?;
                drop(share);
            }
            Answer::Silent => {}
            Answer::Close(reason) => return Err(Ended::Closed(reason)),
        }
    }
    stream.shutdown().await?;
    Ok(())
}

/// Chunks of one `writev`.
const CHUNKS_MAX: usize = 64;

async fn write_chunks<W: AsyncWrite + Unpin>(stream: &mut W, chunks: Vec<Bytes>) -> io::Result<()> {
    let mut chunks: VecDeque<Bytes> = chunks.into();
    while !chunks.is_empty() {
        let slices: Vec<IoSlice<'_>> = chunks.iter().take(CHUNKS_MAX).map(|chunk| IoSlice::new(chunk)).collect();
        let mut written = stream.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = chunks.front_mut() {
            let taken = written.min(first.len());
            first.advance(taken);
            written -= taken;
            if !first.is_empty() {
                break;
            }
            chunks.pop_front();
        }
    }
    stream.flush().await
}

struct Reader<R> {
    stream: R,
    buffer: BytesMut,
    /// Of the last frame begun, for the log line.
    api: Option<ApiKey>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// The next frame without its length, with its share of memory; `None` when the client is done.
    async fn frame(&mut self, budget: &Budget) -> Result<Option<(Bytes, Share)>, Ended> {
        match timeout(IDLE_MAX, self.fill(4)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Ok(None),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(Ended::Closed("idle")),
        }
        let mut field = [0; 4];
        field.copy_from_slice(&self.buffer[..4]);
        self.api = None;
        let length = frame::check_length(field)?;
        match timeout(FRAME_READ_MAX, self.rest_of_frame(length, budget)).await {
            Ok(share) => {
                let share = share?;
                self.buffer.advance(4);
                Ok(Some((self.buffer.split_to(length).freeze(), share)))
            }
            Err(_) => Err(Ended::Closed("a frame did not arrive in time")),
        }
    }

    async fn rest_of_frame(&mut self, length: usize, budget: &Budget) -> Result<Share, Ended> {
        self.need(4 + HEAD_BYTES).await?;
        let mut head = [0; HEAD_BYTES];
        head.copy_from_slice(&self.buffer[4..4 + HEAD_BYTES]);
        self.api = Some(frame::check_head(length, head)?);
        let share = budget.take(length).await;
        self.buffer.reserve((4 + length).saturating_sub(self.buffer.len()).min(FRAME_FIRST_BYTES));
        self.need(4 + length).await?;
        Ok(share)
    }

    async fn need(&mut self, count: usize) -> Result<(), Ended> {
        if self.fill(count).await? { Ok(()) } else { Err(Ended::Io(io::ErrorKind::UnexpectedEof.into())) }
    }

    /// Reads until the buffer holds `count` bytes; false if the stream ends before. Memory grows with what has come.
    async fn fill(&mut self, count: usize) -> io::Result<bool> {
        while self.buffer.len() < count {
            let missing = count - self.buffer.len();
            self.buffer.reserve(missing.min(READ_BYTES.max(self.buffer.len())));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(false) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
        Ok(true)
    }
}
