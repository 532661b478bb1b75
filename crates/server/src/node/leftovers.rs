//! What moves left behind on this node's disk, deleted when the metadata says so.
//!
//! What always holds: a copy is deleted only when the committed state lists this node among those that have left that
//! partition (by the topic's UUID, after the move was finished); the state gives this node no new copy of it before this
//! node has said that the old one is gone. So it does not matter how late this node learns of it: what it deletes cannot be
//! a newer copy. Folders that nobody names are left alone.

use std::sync::{Arc, Weak};
use std::time::Duration;

use base::TopicPartition;
use base::disk::{Disk, DiskError};
use control::{Command, plan};

use super::Node;
use crate::shell::logs::LogsError;

/// Until what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Deletes until the node ends. `disk` is where the logs have their folders.
pub fn start(node: &Arc<Node>, disk: Arc<dyn Disk>) {
    let mut states = node.meta().watch();
    let node = Arc::downgrade(node);
    tokio::spawn(async move {
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            let Some(own) = Weak::upgrade(&node) else { return };
            let all: Vec<TopicPartition> = plan::left_behind(&state, own.id()).collect();
            drop(state);
            for partition in &all {
                if let Err(error) = delete(&own, *partition, &disk).await {
                    tracing::warn!(%partition, %error, "a copy that was moved away is still on this disk: tried again");
                }
            }
            drop(own);
            if all.is_empty() {
                if states.changed().await.is_err() {
                    return;
                }
            } else {
                tokio::time::sleep(RETRY).await;
            }
        }
    });
}

async fn delete(node: &Node, partition: TopicPartition, disk: &Arc<dyn Disk>) -> Result<(), String> {
    match node.logs().delete(partition).await {
        Ok(()) | Err(LogsError::Unknown(_)) => {}
        Err(error) => return Err(error.to_string()),
    }
    // It must not be there again after a power loss: what was said of it could not be taken back.
    match disk.sync_dir(&partition.topic.to_string()) {
        Ok(()) | Err(DiskError::NotFound { .. }) => {}
        Err(error) => return Err(error.to_string()),
    }
    let (id, partition, own) = (partition.topic, partition.partition, node.id());
    node.propose(Command::ReplicaDeleted { id, partition, node: own }).await.map_err(|error| error.to_string())?;
    tracing::info!(topic = %id, %partition, "a copy that was moved away is deleted");
    Ok(())
}
