//! What waits to be sent on one lane: bounded in bytes, taken in order by the writer of the current connection.
//!
//! What always holds: bytes count from when they are queued until they are written, so the bound is on memory; a
//! writer whose connection was replaced gets nothing more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::frame::{Frame, HEADER_BYTES};

/// What a queued frame costs beside its bytes.
const FRAME_COST_BYTES: usize = 64;

#[derive(Debug)]
pub struct Queue {
    inner: Mutex<Inner>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Inner {
    frames: VecDeque<Frame>,
    /// Queued and taken, not yet written.
    bytes: usize,
    /// Of these, taken by the writer.
    taken: usize,
    /// The connection that may take.
    owner: u64,
    wake: Arc<Notify>,
    open: bool,
    dropped: u64,
}

/// Why a frame was not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PushError {
    Closed,
    Full { bytes: usize },
}

impl Queue {
    pub fn new(bytes_max: usize) -> Self {
        let inner = Inner {
            frames: VecDeque::new(),
            bytes: 0,
            taken: 0,
            owner: 0,
            wake: Arc::default(),
            open: false,
            dropped: 0,
        };
        Self { inner: Mutex::new(inner), bytes_max }
    }

    /// A frame into an empty queue is always taken, so that one of the largest size can be sent at all.
    pub fn push(&self, frame: Frame) -> Result<(), PushError> {
        let mut inner = self.lock();
        if !inner.open {
            return Err(PushError::Closed);
        }
        let cost = cost(&frame);
        if inner.bytes > 0 && inner.bytes + cost > self.bytes_max {
            inner.dropped += 1;
            return Err(PushError::Full { bytes: inner.bytes });
        }
        inner.bytes += cost;
        inner.frames.push_back(frame);
        inner.wake.notify_one();
        Ok(())
    }

    /// Frames are taken from now on, whether there is a connection yet or not.
    pub fn open(&self) {
        self.lock().open = true;
    }

    /// What waits is dropped, and everything that comes is refused, until it is opened again.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.open = false;
        inner.clear();
    }

    /// What waits is dropped.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Makes the connection `owner` the one that takes; answers what wakes it.
    pub fn attach(&self, owner: u64) -> Arc<Notify> {
        let mut inner = self.lock();
        if owner < inner.owner {
            // A newer one was faster; this one will find that it does not count.
            return Arc::default();
        }
        inner.owner = owner;
        inner.bytes -= inner.taken;
        inner.taken = 0;
        inner.wake = Arc::default();
        // There may be something already.
        inner.wake.notify_one();
        Arc::clone(&inner.wake)
    }

    /// Takes frames of at least one and about `bytes_max` bytes. False: another connection has taken over.
    pub fn take(&self, owner: u64, bytes_max: usize, mut put: impl FnMut(Frame)) -> bool {
        let mut inner = self.lock();
        if inner.owner != owner {
            return false;
        }
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(frame) = inner.frames.pop_front()
        {
            let cost = cost(&frame);
            bytes += cost;
            inner.taken += cost;
            put(frame);
        }
        true
    }

    /// Everything taken has been written.
    pub fn written(&self, owner: u64) {
        let mut inner = self.lock();
        if inner.owner == owner {
            inner.bytes -= inner.taken;
            inner.taken = 0;
        }
    }

    /// Bytes that wait, and frames dropped so far.
    pub fn load(&self) -> (usize, u64) {
        let inner = self.lock();
        (inner.bytes, inner.dropped)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn clear(&mut self) {
        self.frames = VecDeque::new();
        self.bytes = self.taken;
    }
}

fn cost(frame: &Frame) -> usize {
    HEADER_BYTES + frame.payload_bytes() + FRAME_COST_BYTES
}
