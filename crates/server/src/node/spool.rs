//! What makes a node a spool: its topics are like those of the cluster that its records are passed on to.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Node;

/// Longest wait for the cluster when a topic is made here.
const ASK_MAX: Duration = Duration::from_millis(1_500);

/// Asks the cluster how many partitions a topic has; may block.
type Ask = dyn Fn(&str) -> Option<i32> + Send + Sync;

/// The cluster behind a spool.
#[derive(Clone)]
pub struct Spool(Arc<Ask>);

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spool")
    }
}

impl Spool {
    pub fn new(ask: impl Fn(&str) -> Option<i32> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// `None`: the cluster cannot be asked now.
    pub async fn partitions(&self, topic: &str) -> Option<i32> {
        let (ask, topic) = (Arc::clone(&self.0), topic.to_owned());
        let asked = tokio::task::spawn_blocking(move || ask(&topic));
        tokio::time::timeout(ASK_MAX, asked).await.ok()?.ok()?
    }
}

impl Node {
    /// Makes the node a spool, once, before it serves.
    pub fn make_spool(&self, spool: Spool) {
        drop(self.spool.set(spool));
    }

    /// Set if records here only wait to be passed on.
    pub fn spool(&self) -> Option<&Spool> {
        self.spool.get()
    }
}
