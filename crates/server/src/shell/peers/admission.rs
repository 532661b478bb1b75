//! The part of the handshake that decides from the two hellos alone. What depends on connections that are there
//! already is [`super::peer::Peer::admits`].

use base::NodeId;

use super::hello::{self, Hello, Refusal, RefusalCode};
use super::local::Local;

/// Checks the hello of a node that dialled; answers the protocol version to use.
pub fn check_dialler(local: &Local, theirs: &Hello) -> Result<u16, Refusal> {
    let version = hello::common_version(theirs.versions)?;
    if theirs.instance == local.instance {
        let text = format!("node {} reached itself: the address of node {} is its own", local.node, theirs.to);
        return Err(Refusal::new(RefusalCode::WrongNode, text));
    }
    if theirs.node == local.node {
        let text = format!(
            "two processes are configured as node {}, with the disks {} and {}: give one of them another node.id",
            local.node, local.disk, theirs.disk
        );
        return Err(Refusal::new(RefusalCode::TwoNodes, text));
    }
    if theirs.to != local.node {
        return Err(wrong_node(theirs.to, local.node));
    }
    same_cluster(local, theirs)?;
    Ok(version)
}

/// Checks the welcome of a node that was dialled as `meant`.
pub fn check_acceptor(local: &Local, meant: NodeId, theirs: &Hello) -> Result<(), Refusal> {
    hello::common_version(theirs.versions)?;
    if theirs.node != meant {
        return Err(wrong_node(meant, theirs.node));
    }
    same_cluster(local, theirs)
}

fn wrong_node(meant: NodeId, reached: NodeId) -> Refusal {
    let text = format!("the address of node {meant} leads to node {reached}: correct cluster.peers");
    Refusal::new(RefusalCode::WrongNode, text)
}

fn same_cluster(local: &Local, theirs: &Hello) -> Result<(), Refusal> {
    match (local.cluster(), theirs.cluster) {
        (Some(ours), Some(cluster)) if ours != cluster => {
            if let Some(told) = local.told_former(cluster) {
                return Err(Refusal::new(RefusalCode::Cluster, told));
            }
            let node = local.node;
            let text = format!(
                "node {} belongs to cluster {cluster}, node {node} to cluster {ours}: correct cluster.peers, or empty \
                 the data folder of the one that is to move",
                theirs.node
            );
            Err(Refusal::new(RefusalCode::Cluster, text))
        }
        _ => Ok(()),
    }
}
