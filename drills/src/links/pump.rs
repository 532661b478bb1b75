//! One direction of one connection: a thread that reads and one that forwards when the wire lets it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Wire;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 32 << 10;
/// Chunks held back by a cut or slow wire; then the sender's own buffers fill up, as with any stuck receiver.
const CHUNKS_HELD_MAX: usize = 64;

type Chunk = (Instant, Vec<u8>);

/// Starts both threads; the one that forwards is returned, the one that reads ends with its socket.
pub fn start(from: &TcpStream, to: &TcpStream, wire: &Arc<Wire>) -> Option<JoinHandle<()>> {
    let (from, to) = (from.try_clone().ok()?, to.try_clone().ok()?);
    let (held, due) = sync_channel(CHUNKS_HELD_MAX);
    let source = from.try_clone().ok()?;
    std::thread::spawn(move || read(source, &held));
    let wire = Arc::clone(wire);
    Some(std::thread::spawn(move || forward(&due, &from, to, &wire)))
}

fn read(mut from: TcpStream, held: &SyncSender<Chunk>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if held.send((Instant::now(), buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

fn forward(due: &Receiver<Chunk>, from: &TcpStream, mut to: TcpStream, wire: &Wire) {
    for (arrived, chunk) in due {
        let Some(fault) = wire.await_whole() else { break };
        wire.rest(fault.delay.saturating_sub(arrived.elapsed()));
        // It may have been cut while it waited: then it is not on the other side yet.
        if wire.await_whole().is_none() || to.write_all(&chunk).is_err() {
            break;
        }
        wire.forwarded_bytes.fetch_add(u64::try_from(chunk.len()).unwrap_or(0), Ordering::Relaxed);
        if let Some(rate) = fault.bytes_per_second {
            let micros = u64::try_from(chunk.len()).unwrap_or(0).saturating_mul(1_000_000) / rate;
            wire.rest(Duration::from_micros(micros));
        }
    }
    // The end of the stream is news like any other: it does not cross a cut wire.
    let _ = wire.await_whole();
    drop(to.shutdown(Shutdown::Write));
    drop(from.shutdown(Shutdown::Read));
}
