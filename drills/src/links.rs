//! Links between processes that a drill can cut, delay or slow, in user space and without root.
//!
//! ```text
//!   node 1 --dials--> [proxy port of (1,2)] --> node 2's own port
//!             bytes 1 -> 2 pass wire (1,2);  bytes 2 -> 1 pass wire (2,1)
//! ```
//! Every ordered pair has a port of its own, which is what the dialling side is told. A wire is one direction of one
//! pair, whoever dialled: cutting wire (1,2) stops the bytes from 1 to 2 on every connection between the two.
//!
//! What always holds: a cut wire forwards nothing at all, no byte, no FIN, no RST: to both sides it looks as if the
//! packets were dropped. What was sent meanwhile is held (as the sender's TCP would hold it, bounded) and arrives after
//! the heal. A connection dialled while either direction is cut hangs. An end is forwarded as an end only over a whole wire.
//!
//! Deliberately not here: loss or reordering inside a connection; TCP does not show those to a process.

mod pump;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Failure;

/// Longest wait for the far side to take a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// Who is at an end of a link: a node by its number, or the clients.
pub type Place = u32;
/// The clients of the cluster, all of them.
pub const CLIENTS: Place = 0;

/// What a wire does to bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Fault {
    cut: bool,
    delay: Duration,
    /// `None`: as fast as it goes.
    bytes_per_second: Option<u64>,
    ended: bool,
}

/// One direction of one pair.
#[derive(Debug, Default)]
struct Wire {
    fault: Mutex<Fault>,
    changed: Condvar,
    forwarded_bytes: AtomicU64,
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Fault)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until bytes may pass; what the wire does to them then, or `None` if the links have ended.
    fn await_whole(&self) -> Option<Fault> {
        let mut fault = self.lock();
        while fault.cut && !fault.ended {
            fault = self.changed.wait(fault).unwrap_or_else(PoisonError::into_inner);
        }
        (!fault.ended).then_some(*fault)
    }

    /// Waits this long, or until the links end.
    fn rest(&self, pause: Duration) {
        let fault = self.lock();
        drop(self.changed.wait_timeout_while(fault, pause, |fault| !fault.ended));
    }
}

/// All sockets open now, to be closed at the end.
#[derive(Debug, Default)]
struct Sockets {
    open: Mutex<BTreeMap<u64, TcpStream>>,
    next: AtomicU64,
    ended: AtomicBool,
}

impl Sockets {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, stream: &TcpStream) -> Option<u64> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(id, stream.try_clone().ok()?);
        Some(id)
    }

    fn leave(&self, id: Option<u64>) {
        if let Some(id) = id {
            self.lock().remove(&id);
        }
    }
}

/// The links of one cluster. Everything ends when it is dropped.
#[derive(Debug, Default)]
pub struct Links {
    wires: BTreeMap<(Place, Place), Arc<Wire>>,
    sockets: Arc<Sockets>,
    listeners: Vec<(SocketAddr, JoinHandle<()>)>,
}

impl Links {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A port that leads from `from` to `to`, who listens (now or later) at `target`.
    ///
    /// # Errors
    /// No port can be had.
    pub fn open(&mut self, from: Place, to: Place, target: SocketAddr) -> Result<SocketAddr, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("a link: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("a link: {error}"))?;
        let (there, back) = (self.wire(from, to), self.wire(to, from));
        let sockets = Arc::clone(&self.sockets);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if sockets.ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (there, back, sockets) = (Arc::clone(&there), Arc::clone(&back), Arc::clone(&sockets));
                std::thread::spawn(move || carry(&stream, target, &there, &back, &sockets));
            }
        });
        self.listeners.push((address, thread));
        Ok(address)
    }

    fn wire(&mut self, from: Place, to: Place) -> Arc<Wire> {
        Arc::clone(self.wires.entry((from, to)).or_default())
    }

    fn change(&self, from: Place, to: Place, change: impl FnOnce(&mut Fault)) {
        if let Some(wire) = self.wires.get(&(from, to)) {
            wire.change(change);
        }
    }

    /// No byte goes from `from` to `to` until healed.
    pub fn cut_one_way(&self, from: Place, to: Place) {
        self.change(from, to, |fault| fault.cut = true);
    }

    /// No byte goes between the two until healed.
    pub fn cut(&self, one: Place, other: Place) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Bytes go between the two again, at full speed.
    pub fn heal(&self, one: Place, other: Place) {
        for (from, to) in [(one, other), (other, one)] {
            self.change(from, to, |fault| *fault = Fault { ended: fault.ended, ..Fault::default() });
        }
    }

    /// All wires are whole and fast again.
    pub fn heal_all(&self) {
        for (from, to) in self.wires.keys() {
            self.change(*from, *to, |fault| *fault = Fault { ended: fault.ended, ..Fault::default() });
        }
    }

    /// Every byte from `from` to `to` arrives this much later.
    pub fn delay(&self, from: Place, to: Place, delay: Duration) {
        self.change(from, to, |fault| fault.delay = delay);
    }

    /// At most so many bytes a second go from `from` to `to`.
    pub fn slow(&self, from: Place, to: Place, bytes_per_second: u64) {
        self.change(from, to, |fault| fault.bytes_per_second = Some(bytes_per_second.max(1)));
    }

    /// Bytes that have gone from `from` to `to` so far.
    #[must_use]
    pub fn forwarded_bytes(&self, from: Place, to: Place) -> u64 {
        self.wires.get(&(from, to)).map_or(0, |wire| wire.forwarded_bytes.load(Ordering::Relaxed))
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.sockets.ended.store(true, Ordering::SeqCst);
        self.wires.values().for_each(|wire| wire.change(|fault| fault.ended = true));
        for (address, thread) in self.listeners.drain(..) {
            // Wakes the listener, which then sees that it has ended.
            drop(TcpStream::connect_timeout(&address, CONNECT_PATIENCE));
            drop(thread.join());
        }
        self.sockets.lock().values().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

/// One connection: dialled on only once both directions are whole, for a handshake needs both.
fn carry(near: &TcpStream, target: SocketAddr, there: &Arc<Wire>, back: &Arc<Wire>, sockets: &Arc<Sockets>) {
    let near_id = sockets.enter(near);
    // Looked at again after the wait for the other: the first may have been cut meanwhile.
    while there.lock().cut || back.lock().cut {
        if there.await_whole().is_none() || back.await_whole().is_none() {
            break;
        }
    }
    let ended = sockets.ended.load(Ordering::SeqCst);
    if !ended && let Ok(far) = TcpStream::connect_timeout(&target, CONNECT_PATIENCE) {
        let far_id = sockets.enter(&far);
        drop(near.set_nodelay(true));
        drop(far.set_nodelay(true));
        let threads = [pump::start(near, &far, there), pump::start(&far, near, back)];
        for thread in threads.into_iter().flatten() {
            drop(thread.join());
        }
        sockets.leave(far_id);
    }
    drop(near.shutdown(Shutdown::Both));
    sockets.leave(near_id);
}

#[cfg(test)]
mod tests;
