//! Groups over a real log: what was acknowledged is there after a restart, also when the log has been trimmed below a checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::batch::split;
use base::records::decode_shared;
use base::{Offset, PartitionIndex, TopicPartition};
use bytes::Bytes;
use log::groups::{Assignment, CommitOffset, Join, Joined, Protocol, Record, Synced, TopicPartitions};

use super::*;
use crate::config::{Sources, load as load_config};
use crate::node::coordination::appends;
use crate::node::start::start;
use crate::node::{Node, identity::DataDir};

fn record(len: usize) -> Record {
    Record { key: Bytes::from_static(b"key"), value: Some(vec![7; len].into()) }
}

#[test]
fn records_become_batches_of_bounded_size_and_none_is_lost() {
    for sizes in [vec![10], vec![10; 1000], vec![3 << 20, 10, 10], vec![600 << 10; 20], vec![10, 8 << 20, 10]] {
        let records: Vec<Record> = sizes.iter().map(|size| record(*size)).collect();
        let mut found = 0;
        for append in appends(&records).unwrap() {
            for batch in split(&append) {
                let (_, bytes) = batch.unwrap();
                found += decode_shared(&bytes).unwrap().iter().map(Result::unwrap).count();
            }
        }
        assert_eq!(found, sizes.len());
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("seawall-groups-{}", uuid::Uuid::new_v4().simple())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

async fn open(folder: &Path) -> (Arc<Node>, DataDir) {
    let flags = vec![("node.data_dir", String::new(), folder.display().to_string())];
    let mut config = load_config(&Sources { dev: true, flags, ..Sources::default() }).unwrap().config;
    config.log.disk_reserve_bytes.0 = 0;
    config.log.group_rebalance_delay = Duration::ZERO;
    start(Arc::new(config)).await.unwrap()
}

fn commit(group: &str, from: i32, count: i32, offset: i64, metadata: impl Fn(i32) -> String) -> Request {
    let offset = |partition| CommitOffset {
        topic: "t".into(),
        partition: PartitionIndex(partition),
        offset,
        leader_epoch: -1,
        metadata: metadata(partition),
    };
    Request::CommitOffsets {
        group: group.into(),
        generation: None,
        member: String::new(),
        instance: None,
        offsets: (from..from + count).map(offset).collect(),
    }
}

async fn offsets(node: &Node, group: &str) -> BTreeMap<i32, i64> {
    match node.group(Request::FetchOffsets { group: group.into(), topics: None }).await {
        Response::FetchOffsets(Ok(topics)) => topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .map(|(partition, committed)| (partition.0, committed.unwrap().offset.0))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_offsets_survive_a_restart() {
    let folder = Folder::new();
    let (node, data) = open(&folder.0).await;
    let committed = node.group(commit("tool", 0, 3, 7, |_| String::new())).await;
    assert!(matches!(committed, Response::CommitOffsets(Ok(_))), "{committed:?}");
    let join = Join {
        group: "g".into(),
        client_id: "c".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol { name: "range".into(), metadata: Bytes::new() }],
        ..Join::default()
    };
    let Response::Join(Ok(Joined { generation, member, .. })) = node.group(Request::Join(Box::new(join))).await else {
        panic!("not joined")
    };
    let sync = |assignments| Request::Sync {
        group: "g".into(),
        generation,
        member: member.clone(),
        instance: None,
        protocol_type: None,
        protocol: None,
        assignments,
    };
    let given = vec![Assignment { member: member.clone(), assignment: Bytes::from_static(b"mine") }];
    assert!(matches!(node.group(sync(given)).await, Response::Sync(Ok(_))));
    drop((node, data));

    let (node, _data) = open(&folder.0).await;
    assert_eq!(offsets(&node, "tool").await, BTreeMap::from([(0, 7), (1, 7), (2, 7)]));
    let Response::Sync(Ok(Synced { assignment, .. })) = node.group(sync(Vec::new())).await else {
        panic!("not synced")
    };
    assert_eq!(&assignment[..], b"mine");
    let topics = vec![TopicPartitions { topic: "t".into(), partitions: vec![PartitionIndex(1)] }];
    let deleted = node.group(Request::DeleteOffsets { group: "tool".into(), topics }).await;
    assert!(matches!(deleted, Response::DeleteOffsets(Ok(_))));
    assert_eq!(offsets(&node, "tool").await, BTreeMap::from([(0, 7), (2, 7)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_replaces_what_the_log_held() {
    let folder = Folder::new();
    let (node, data) = open(&folder.0).await;
    let state = node.state();
    let topic = state.topic_named(TOPIC).unwrap();
    let reader = node.reader(TopicPartition { topic: topic.id, partition: PartitionIndex(0) }).unwrap();
    let noise = |mut seed: u64| {
        let mut text = String::new();
        while text.len() < 4_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(&format!("{:08x}", seed >> 32));
        }
        text
    };
    let mut round = 0;
    while reader.start() == Offset::ZERO {
        round += 1;
        assert!(round < 200, "no checkpoint after {} bytes", reader.size_bytes());
        let asked = commit(&format!("g{}", round % 3), 0, 100, round, |partition| {
            noise(round.unsigned_abs() * 1_000 + u64::try_from(partition).unwrap())
        });
        assert!(matches!(node.group(asked).await, Response::CommitOffsets(Ok(_))));
    }
    let before = [offsets(&node, "g0").await, offsets(&node, "g1").await, offsets(&node, "g2").await];
    assert!(before.iter().all(|group| group.len() == 100));
    drop((node, data));
    let (node, _data) = open(&folder.0).await;
    for (number, expected) in before.iter().enumerate() {
        assert_eq!(offsets(&node, &format!("g{number}")).await, *expected);
    }
}
