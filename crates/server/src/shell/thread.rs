//! Threads that own a state machine.

use std::io;
use std::thread::Builder;

/// Starts a thread that owns state. If it panics the process ends: a node that stopped is started again and
/// recovers; one that lost an owner would refuse for ever, or go on being wrong.
pub fn spawn_owner(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name(name.to_owned()).spawn(move || {
        let guard = AbortOnPanic;
        work();
        drop(guard);
    })?;
    Ok(())
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a thread that owns state panicked: the process ends and recovers when started again");
            std::process::abort();
        }
    }
}
