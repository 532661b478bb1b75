//! The threads queries work on: apart from those that serve sockets, so that a query that keeps its threads busy delays
//! other queries and nothing else. No produce, no health check and no cancel waits behind one.

use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime of its own. When it is let go, what still runs on it is given up.
#[derive(Debug)]
pub struct QueryThreads {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl QueryThreads {
    /// # Errors
    /// When the machine gives no threads.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(threads.max(1)).thread_name("query").enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for QueryThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
