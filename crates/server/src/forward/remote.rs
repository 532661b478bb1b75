//! The cluster that records are passed on to: what its answers mean, and how many partitions its topics have.

use std::sync::Mutex;
use std::time::Duration;

use client::{ClientError, Cluster};
use log::forward::Answer;

/// Longest wait for an answer about records.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait of a client here for what the cluster knows of a topic that is new here.
const ASK_PATIENCE: Duration = Duration::from_millis(1_000);

/// Asked about topics.
pub struct Remote(Mutex<Cluster>);

impl Remote {
    pub fn new(to: Vec<String>) -> Self {
        Self(Mutex::new(Cluster::new(to, "seawall-forward", ASK_PATIENCE)))
    }
}

/// How many partitions the cluster's topic has, made there if it may be; `None`: the cluster cannot be asked now.
pub fn partitions(remote: &Remote, topic: &str) -> Option<i32> {
    let mut cluster = remote.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let asked = cluster.any().and_then(|node| node.topic(topic, true));
    match asked {
        Ok(topic) => Some(topic.partitions).filter(|partitions| *partitions > 0),
        Err(error) => {
            cluster.close_all();
            tracing::info!(topic, %error, "a topic is made here without asking the cluster");
            None
        }
    }
}

/// What an outcome says about the batch.
pub fn answer(outcome: &Result<base::Offset, ClientError>) -> Answer {
    match outcome {
        Ok(_) => Answer::Taken,
        Err(error) => match error.code() {
            // duplicate sequence number
            Some(46) => Answer::Taken,
            // out of order sequence, unknown producer, older epoch
            Some(45 | 47 | 59 | 90) => Answer::Forgotten,
            // message too large, record list too large, invalid timestamp, unsupported for its format, unsupported compression,
            // invalid record
            Some(10 | 18 | 32 | 43 | 76 | 87) => Answer::Refused,
            _ => Answer::Later,
        },
    }
}
