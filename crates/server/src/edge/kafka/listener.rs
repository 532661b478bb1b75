//! Accepts connections up to a bound.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::budget::Budget;
use super::limits::{DRAIN_MAX, RESPONSE_BYTES_MAX};
use super::{Edge, connection};
use crate::node::Node;

/// Pause after a failed accept: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves Kafka clients until `stop` is done, then lets open connections finish what they began for a moment.
pub async fn serve(node: Arc<Node>, listener: TcpListener, stop: impl Future<Output = ()>) {
    let connections_max = node.config().listen.connections_max;
    let request_bytes = usize::try_from(node.config().listen.inflight_bytes_max.0).unwrap_or(usize::MAX);
    let edge = Arc::new(Edge {
        node,
        requests: Budget::new(request_bytes),
        responses: Budget::new(RESPONSE_BYTES_MAX),
        config_changes: tokio::sync::Mutex::new(()),
        short_of_replicas: std::sync::atomic::AtomicU32::new(0),
    });
    let slots = Arc::new(Semaphore::new(usize::try_from(connections_max).unwrap_or(usize::MAX)));
    let (stopping, stopped) = watch::channel(false);
    let mut stop = pin!(stop);
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "kafka: accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let slot = Arc::clone(&slots).try_acquire_owned();
        // Said once each time it fills up: a client that is refused tries again at once.
        if slot.is_err() && !full {
            tracing::warn!(%peer, connections_max, "kafka: connections are refused, all are taken; see listen.connections_max");
        }
        full = slot.is_err();
        let Ok(slot) = slot else { continue };
        let (edge, stopped) = (Arc::clone(&edge), stopped.clone());
        tokio::spawn(async move {
            serve_stream(edge, stream, stopped).await;
            drop(slot);
        });
    }
    let _ = stopping.send(true);
    let _ = tokio::time::timeout(DRAIN_MAX, slots.acquire_many(connections_max)).await;
}

async fn serve_stream(edge: Arc<Edge>, stream: TcpStream, stopped: watch::Receiver<bool>) {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
    // Answers are whole; waiting for more of them only delays.
    let _ = stream.set_nodelay(true);
    let requests = edge.requests.clone();
    let handler = super::dispatch::handler(edge, peer, local);
    connection::run(stream, peer, requests, handler, stopped).await;
}
