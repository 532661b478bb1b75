//! Whether all is well: what is asked once the faults have ended.

use std::collections::BTreeMap;

use base::{PartitionIndex, TopicPartition};
use quorum::{Role, Storage};

use super::control::published_is_gapless;
use super::{Facts, broken};
use crate::node::{Log, Node};
use crate::trace::Violation;

impl Facts {
    /// What is not well yet, if anything: a group without a leader, a replica behind.
    #[must_use]
    pub fn whole(&self, nodes: &BTreeMap<u32, Node>) -> Option<String> {
        let running: Vec<_> = nodes.values().filter_map(|node| Some((node.id, node.process.as_ref()?))).collect();
        let last = self.control.last_committed();
        let leaders = running.iter().filter(|(_, process)| process.meta.group.role() == Role::Leader).count();
        if leaders != 1 {
            return Some(format!("control has {leaders} leaders"));
        }
        for (id, process) in &running {
            let group = &process.meta.group;
            let end = group.storage().last_index();
            if group.leader().is_none() || group.commit_index() < last || end != group.commit_index() {
                let commit = group.commit_index();
                return Some(format!("control on node {id} ends at {end} with {commit} committed, of {last}"));
            }
        }
        let applied = running.iter().map(|(_, process)| process.meta.state.applied).max().unwrap_or_default();
        if let Some((id, process)) = running.iter().find(|(_, process)| process.meta.state.applied < applied) {
            return Some(format!("control on node {id} has applied {} of {applied}", process.meta.state.applied));
        }
        let state = &running.first()?.1.meta.state;
        for topic in state.topics.values() {
            for partition in (0..topic.partitions).map(PartitionIndex) {
                let tp = TopicPartition { topic: topic.id, partition };
                if topic.targets.contains_key(&partition) {
                    return Some(format!("{tp} is being moved"));
                }
                let seats = topic.replicas_of(partition);
                let sits = |id: &base::NodeId| seats.contains(id);
                let hosts = running.iter().filter(|(id, _)| sits(id));
                let replicas: Vec<_> = hosts.filter_map(|(id, process)| Some((id.0, process.logs.get(&tp)?))).collect();
                let wanted = seats.len();
                if replicas.len() != wanted {
                    return Some(format!("{tp} has {} replicas of {wanted}", replicas.len()));
                }
                let odd = replicas.iter().find(|(_, log)| !has_seats(log, seats));
                if let Some((id, log)) = odd {
                    return Some(format!("{tp} on node {id} has members {}, not {seats:?}", log.partition.members()));
                }
                if let Some(what) = self.replicas_whole(tp, &replicas) {
                    return Some(what);
                }
            }
        }
        None
    }

    /// What must hold once all is well.
    pub fn finish(&mut self, nodes: &BTreeMap<u32, Node>) -> Result<(), Violation> {
        for process in nodes.values().filter_map(|node| node.process.as_ref()) {
            published_is_gapless(&process.meta.state)?;
            for (id, there) in &self.topics {
                if process.meta.state.topics.contains_key(id) != *there {
                    return broken("command", format!("topic {id} was acknowledged as made: {there}, and is not so"));
                }
            }
        }
        self.partitions.finish(nodes, &self.deleted)
    }

    fn replicas_whole(&self, tp: TopicPartition, replicas: &[(u32, &Log)]) -> Option<String> {
        let leaders: Vec<u32> =
            replicas.iter().filter(|(_, log)| log.partition.role() == Role::Leader).map(|(id, _)| *id).collect();
        let [leader] = leaders[..] else { return Some(format!("{tp} has leaders {leaders:?}")) };
        for (id, log) in replicas {
            let partition = &log.partition;
            if partition.leader().is_none_or(|found| found.0 != leader) {
                return Some(format!("{tp} on node {id} follows {:?}, not {leader}", partition.leader()));
            }
            if partition.status().damaged {
                return Some(format!("{tp} on node {id} is damaged"));
            }
            if let Some(what) = unreadable(partition) {
                return Some(format!("{tp} on node {id} cannot be read: {what}"));
            }
            let (committed, end) = (partition.committed(), partition.end());
            if committed != end || end != self.partitions.end(tp) {
                let all = self.partitions.end(tp);
                return Some(format!("{tp} on node {id} has {committed} committed and ends at {end}, of {all}"));
            }
        }
        None
    }
}

/// A replica knows its group's members as the topic has them.
fn has_seats(log: &Log, seats: &[base::NodeId]) -> bool {
    let members = log.partition.members();
    let count = members.voters.len() == seats.len() && !members.is_joint() && members.learners.is_empty();
    count && seats.iter().all(|id| members.voters.contains(id))
}

/// What a replica cannot give, by its own word or to a reader.
fn unreadable(partition: &log::Partition) -> Option<String> {
    let known = partition.status().unreadable.first().cloned();
    if known.is_some() {
        return known;
    }
    let reader = partition.reader();
    let mut at = reader.start();
    while at < reader.committed() {
        match reader.read(at, 64 << 10, log::ReadLimit::Committed) {
            Ok(fetched) if fetched.next > at => at = fetched.next,
            Ok(_) => return Some(format!("nothing at {at}")),
            Err(error) => return Some(error.to_string()),
        }
    }
    None
}
