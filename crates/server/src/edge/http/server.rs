//! Connections: accepted up to a bound, each with limits on its headers and on how long it may stall.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::limits::{DRAIN_TIMEOUT, HEADER_BYTES_MAX, HEADER_READ_TIMEOUT, HEADERS_MAX, WRITE_STALL_TIMEOUT};
use crate::edge::socket::Patient;

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 21\r\n\r\ntoo many connections\n";

/// Clients that are told at the same time that there are too many.
const REFUSALS_MAX: usize = 64;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a refused request that are read.
const REFUSED_BYTES: usize = 4 << 10;

/// Serves `router` until `stop` is done, then lets open connections finish for [`DRAIN_TIMEOUT`].
pub async fn serve(listener: TcpListener, router: Router, connections_max: usize, stop: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(connections_max));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let (stopping, stopped) = watch::channel(false);
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or the peer left already: give the others time to close.
                tracing::warn!(%error, "http: accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            // Beyond these, the connection is closed without a word.
            if let Ok(refusal) = Arc::clone(&refusals).try_acquire_owned() {
                tokio::spawn(async move {
                    refuse(stream).await;
                    drop(refusal);
                });
            }
            continue;
        };
        let router = router.clone();
        let stopped = stopped.clone();
        tokio::spawn(async move {
            if let Err(error) = connection(stream, router, stopped).await {
                tracing::debug!(%peer, %error, "http: connection ended");
            }
            drop(slot);
        });
    }
    let _ = stopping.send(true);
    let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, slots.acquire_many(all)).await;
}

/// Waits for the request to begin, because a client takes no answer before it has asked.
async fn refuse(mut stream: TcpStream) {
    let told = async {
        let mut request = [0; REFUSED_BYTES];
        if stream.read(&mut request).await? == 0 {
            return Ok(());
        }
        stream.write_all(TOO_MANY).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, told).await;
}

async fn connection(stream: TcpStream, router: Router, mut stopped: watch::Receiver<bool>) -> Result<(), hyper::Error> {
    // Answers are whole chunks; waiting for more of them only delays.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream, WRITE_STALL_TIMEOUT)), service);
    let mut served = pin!(served);
    tokio::select! {
        result = served.as_mut() => return result,
        _ = stopped.wait_for(|stop| *stop) => served.as_mut().graceful_shutdown(),
    }
    served.await
}
