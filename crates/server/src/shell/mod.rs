//! The doers: the real disk, the thread that owns group 0, the threads that own the partitions.
//!
//! Each owner thread is the only one that touches its state machine; everyone else sends it a command and
//! waits for the answer, with a deadline. Queues are bounded in items and bytes; a full one is answered with
//! `Busy`, never by waiting without end.

pub mod calls;
pub mod deep;
pub mod disk;
pub mod logs;
pub mod meta;
pub mod outbox;
pub mod peers;
pub mod security;
#[cfg(test)]
mod slow_disk;
mod thread;
