use std::collections::BTreeMap;
use std::sync::Mutex;

use base::disk::memory::{Fault, MemDisk};
use base::records::{BatchBuilder, decode};
use base::{PartitionIndex, Timestamp, TopicId};
use log::{ReadLimit, Reader};
use uuid::Uuid;

use super::*;
use crate::node::time;
use crate::shell::disk::RealDisk;
use crate::shell::outbox::Nowhere;
use crate::shell::slow_disk::SlowDisk;

const CAPACITY_BYTES: u64 = 256 << 20;
const RESERVE_BYTES: u64 = 1 << 20;

struct Node {
    logs: LogsHandle,
    findings: Arc<Findings>,
}

fn node(disk: impl Disk + 'static) -> Node {
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let hard = quorum::HardStates::open(Arc::clone(&disk), "hard-state").unwrap();
    let findings = Arc::new(Findings::default());
    let config = LogsConfig { node: NodeId(1), flush_interval_ms: 10, reserve_bytes: RESERVE_BYTES, bytes_max: None };
    let start = Start {
        disk,
        hard: Arc::new(Mutex::new(hard)),
        config,
        findings: Arc::clone(&findings),
        outbox: Arc::new(Nowhere),
    };
    Node { logs: super::start(start).unwrap(), findings }
}

impl Node {
    async fn open(&self, count: i32) -> Vec<TopicPartition> {
        let ids: Vec<TopicPartition> = (0..count).map(partition).collect();
        for id in &ids {
            self.logs.open(*id, PartitionConfig::default(), Seats::alone(NodeId(1))).await.unwrap();
        }
        ids
    }

    async fn append(&self, id: TopicPartition, value: &str, acks: Acks) -> Result<Appended, LogsError> {
        self.logs.append(id, batch(value), acks, Tick(time::now().0 + 10_000)).await
    }

    fn codes(&self) -> Vec<&'static str> {
        self.findings.list().iter().map(|finding| finding.code).collect()
    }
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(7)), partition: PartitionIndex(number) }
}

fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(base::batch::Codec::None);
    builder.push(Timestamp(1_000), None, Some(value.as_bytes()), &[]);
    builder.build().unwrap()
}

/// Every record of a partition, up to `limit`.
fn read(reader: &Reader, limit: ReadLimit) -> BTreeMap<i64, String> {
    let mut records = BTreeMap::new();
    let mut at = reader.start();
    loop {
        let fetched = reader.read(at, 1 << 20, limit).unwrap();
        let mut rest = &fetched.bytes[..];
        while !rest.is_empty() {
            let header = base::batch::BatchHeader::check(rest).unwrap();
            for record in decode(&rest[..header.size_bytes]).unwrap().iter() {
                let record = record.unwrap();
                records.insert(record.offset.0, String::from_utf8(record.value.unwrap().to_vec()).unwrap());
            }
            rest = &rest[header.size_bytes..];
        }
        if fetched.bytes.is_empty() {
            return records;
        }
        at = fetched.next;
    }
}

#[tokio::test]
async fn opening_one_partition_holds_no_other_up() {
    let disk = SlowDisk::new(MemDisk::new(11, CAPACITY_BYTES));
    let node = node(disk.clone());
    let ids = node.open(1).await;
    node.append(ids[0], "before", Acks::All).await.unwrap();
    disk.close_gate();
    // One of three replicas: its list of members is made durable before it is open.
    let seats = Seats { voters: vec![NodeId(1), NodeId(2), NodeId(3)], learners: Vec::new() };
    let open = |at: i32| {
        let (logs, seats) = (node.logs.clone(), seats.clone());
        tokio::spawn(async move { logs.open(partition(at), PartitionConfig::default(), seats).await })
    };
    let (first, twice, deleted) = (open(1), open(1), open(2));
    node.append(ids[0], "meanwhile", Acks::Leader).await.unwrap();
    let logs = node.logs.clone();
    let delete = tokio::spawn(async move { logs.delete(partition(2)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!first.is_finished() && !twice.is_finished());
    node.append(ids[0], "still", Acks::Leader).await.unwrap();
    disk.open_gate();
    first.await.unwrap().unwrap();
    twice.await.unwrap().unwrap();
    assert_eq!(deleted.await.unwrap().unwrap_err(), LogsError::Unknown(partition(2)));
    delete.await.unwrap().unwrap();
    assert!(node.logs.reader(partition(1)).is_some() && node.logs.reader(partition(2)).is_none());
}

struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = Folder(std::env::temp_dir().join(format!("seawall-logs-{}", std::process::id())));
    drop(std::fs::remove_dir_all(&folder.0));
    let mut expected = vec![BTreeMap::new(); 3];
    for (round, orderly) in [(0, false), (1, true), (2, false)] {
        let node = node(RealDisk::open(&folder.0).unwrap());
        let ids = node.open(3).await;
        for number in 0..60 {
            let value = format!("round {round} number {number}");
            let acks = [Acks::All, Acks::Leader, Acks::None][number % 3];
            let appended = node.append(ids[number / 3 % 3], &value, acks).await.unwrap();
            assert!(expected[number / 3 % 3].insert(appended.base_offset.0, value).is_none());
        }
        if orderly {
            node.logs.close().await.unwrap();
        }
    }
    let node = node(RealDisk::open(&folder.0).unwrap());
    for (id, expected) in node.open(3).await.into_iter().zip(&expected) {
        let reader = node.logs.reader(id).unwrap();
        assert_eq!(read(&reader, ReadLimit::End), *expected);
    }
}

/// Appends to two partitions from several tasks until the disk dies; what was acknowledged, by partition.
async fn work(disk: &MemDisk, acks: Acks) -> Vec<BTreeMap<i64, String>> {
    let node = Arc::new(node(disk.clone()));
    let mut acknowledged = vec![BTreeMap::new(); 2];
    for id in (0..2).map(partition) {
        if node.logs.open(id, PartitionConfig::default(), Seats::alone(NodeId(1))).await.is_err() {
            return acknowledged;
        }
    }
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..6_usize {
        let node = Arc::clone(&node);
        tasks.spawn(async move {
            let mut done = BTreeMap::new();
            for number in 0..40 {
                let value = format!("task {task} number {number}");
                let id = partition(i32::try_from(task % 2).unwrap());
                let Ok(appended) = node.append(id, &value, acks).await else { break };
                done.insert(appended.base_offset.0, value);
            }
            (task % 2, done)
        });
    }
    for (partition, done) in tasks.join_all().await {
        acknowledged[partition].extend(done);
    }
    acknowledged
}

async fn check(image: MemDisk, acknowledged: &[BTreeMap<i64, String>], story: &str) {
    let node = node(image);
    for (id, acknowledged) in node.open(2).await.into_iter().zip(acknowledged) {
        let there = read(&node.logs.reader(id).unwrap(), ReadLimit::End);
        for (offset, value) in acknowledged {
            assert_eq!(there.get(offset), Some(value), "{story}: {id} at {offset}");
        }
        let appended = node.append(id, "goes on", Acks::All).await.unwrap();
        let last = there.last_key_value().map_or(-1, |(offset, _)| *offset);
        assert!(appended.base_offset.0 > last, "{story}: {id} {appended:?} after {last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_takes_nothing_that_acks_all_was_told() {
    let mut total = 0;
    for seed in 0..60 {
        let disk = MemDisk::new(seed, CAPACITY_BYTES);
        disk.crash_at(10 + seed * 7);
        let acknowledged = work(&disk, Acks::All).await;
        total += acknowledged.iter().map(BTreeMap::len).sum::<usize>();
        check(disk.crash(), &acknowledged, &format!("seed {seed}, power lost")).await;
        check(disk.kill(), &acknowledged, &format!("seed {seed}, killed")).await;
    }
    assert!(total > 2_000, "only {total} records were acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_takes_nothing_that_acks_1_was_told() {
    for seed in 0..40 {
        let disk = MemDisk::new(seed, CAPACITY_BYTES);
        disk.crash_at(10 + seed * 7);
        let acknowledged = work(&disk, Acks::Leader).await;
        check(disk.kill(), &acknowledged, &format!("seed {seed}, killed")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_appends_share_a_sync() {
    let disk = SlowDisk::new(MemDisk::new(1, CAPACITY_BYTES));
    let node = Arc::new(node(disk.clone()));
    let ids = node.open(2).await;
    node.append(ids[0], "first", Acks::All).await.unwrap();
    let before = disk.file_syncs();
    disk.close_gate();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..400 {
        let (node, id) = (Arc::clone(&node), ids[number % 2]);
        tasks.spawn(async move { node.append(id, "gathers", Acks::All).await.unwrap() });
    }
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let reader = node.logs.reader(ids[0]).unwrap();
    assert_eq!(read(&reader, ReadLimit::Committed).len(), 1, "nobody reads what is not durable");
    assert!(read(&reader, ReadLimit::End).len() > 100);
    disk.open_gate();
    let mut committed = node.logs.committed(ids[0]).unwrap();
    tasks.join_all().await;
    assert_eq!(committed.wait_for(|committed| committed.0 >= 201).await.unwrap().0, 201);
    let syncs = disk.file_syncs() - before;
    assert!(syncs < 40, "{syncs} syncs for 400 appends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_is_answered_by_its_deadline() {
    let disk = SlowDisk::new(MemDisk::new(1, CAPACITY_BYTES));
    let node = node(disk.clone());
    let ids = node.open(1).await;
    node.append(ids[0], "first", Acks::All).await.unwrap();
    disk.close_gate();
    let asked = time::now();
    let late = node.logs.append(ids[0], batch("late"), Acks::All, Tick(asked.0 + 100)).await;
    assert_eq!(late, Err(LogsError::Timeout));
    assert!((100..2_000).contains(&time::now().since(asked)), "answered after {} ms", time::now().since(asked));
    node.append(ids[0], "acks=1 needs no sync", Acks::Leader).await.unwrap();
    let past = node.logs.append(ids[0], batch("past"), Acks::All, asked).await;
    assert_eq!(past, Err(LogsError::Timeout));
    disk.open_gate();
    node.append(ids[0], "next", Acks::All).await.unwrap();
    let there: Vec<String> = read(&node.logs.reader(ids[0]).unwrap(), ReadLimit::Committed).into_values().collect();
    assert_eq!(there, ["first", "late", "acks=1 needs no sync", "next"]);
}

#[tokio::test]
async fn a_failed_sync_stops_the_disk_for_good_and_reads_go_on() {
    let disk = MemDisk::new(1, CAPACITY_BYTES);
    let node = node(disk.clone());
    let ids = node.open(2).await;
    node.append(ids[0], "first", Acks::All).await.unwrap();
    disk.fault(Fault::Sync { after_ops: 0 });
    let stopped = node.append(ids[0], "second", Acks::All).await.unwrap_err();
    assert!(matches!(stopped, LogsError::Append(AppendError::Stopped(_))), "{stopped}");
    disk.heal();
    for (id, acks) in [(ids[0], Acks::All), (ids[1], Acks::Leader)] {
        let refused = node.append(id, "third", acks).await.unwrap_err();
        assert!(matches!(refused, LogsError::Append(AppendError::Stopped(_))), "{refused}");
    }
    assert_eq!(node.codes(), ["log-stopped"]);
    let there: Vec<String> = read(&node.logs.reader(ids[0]).unwrap(), ReadLimit::Committed).into_values().collect();
    assert_eq!(there, ["first"]);
}

#[tokio::test]
async fn a_disk_that_fills_up_refuses_and_resumes_by_itself() {
    let disk = MemDisk::new(1, CAPACITY_BYTES);
    let node = node(disk.clone());
    let ids = node.open(1).await;
    node.append(ids[0], "before", Acks::All).await.unwrap();
    let used = CAPACITY_BYTES - disk.free_bytes().unwrap();
    disk.set_capacity(used + RESERVE_BYTES - 1);
    tokio::time::sleep(std::time::Duration::from_millis(SPACE_CHECK_MS + 100)).await;
    let refused = node.append(ids[0], "full", Acks::All).await.unwrap_err();
    assert_eq!(refused, LogsError::Append(AppendError::DiskFull));
    assert_eq!(node.codes(), ["disk-full"]);
    assert_eq!(read(&node.logs.reader(ids[0]).unwrap(), ReadLimit::Committed).len(), 1);
    disk.set_capacity(used + RESERVE_BYTES + RESERVE_BYTES / 4);
    tokio::time::sleep(std::time::Duration::from_millis(SPACE_CHECK_MS + 100)).await;
    assert!(node.append(ids[0], "not yet", Acks::All).await.is_err(), "room must be more than just enough");
    disk.set_capacity(CAPACITY_BYTES);
    tokio::time::sleep(std::time::Duration::from_millis(SPACE_CHECK_MS + 100)).await;
    node.append(ids[0], "after", Acks::All).await.unwrap();
    assert!(node.codes().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_is_deleted_after_the_flush_that_is_under_way() {
    let disk = SlowDisk::new(MemDisk::new(1, CAPACITY_BYTES));
    let node = Arc::new(node(disk.clone()));
    let ids = node.open(2).await;
    for id in &ids {
        node.append(*id, "first", Acks::All).await.unwrap();
    }
    disk.close_gate();
    let (writer, id) = (Arc::clone(&node), ids[0]);
    let waits = tokio::spawn(async move { writer.append(id, "second", Acks::All).await });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let (deleter, id) = (Arc::clone(&node), ids[0]);
    let deleting = tokio::spawn(async move { deleter.logs.delete(id).await });
    assert_eq!(waits.await.unwrap(), Err(LogsError::Unknown(ids[0])));
    assert!(node.logs.reader(ids[0]).is_none());
    assert!(disk.list(&owner::partition_dir(ids[0])).is_ok(), "its files are in use");
    disk.open_gate();
    deleting.await.unwrap().unwrap();
    assert!(matches!(disk.list(&owner::partition_dir(ids[0])), Err(DiskError::NotFound { .. })));
    assert_eq!(node.append(ids[0], "gone", Acks::All).await, Err(LogsError::Unknown(ids[0])));
    node.append(ids[1], "stays", Acks::All).await.unwrap();
    node.logs.delete(ids[0]).await.unwrap();
}

#[tokio::test]
async fn a_damaged_partition_is_told_and_the_others_are_served() {
    let disk = MemDisk::new(1, CAPACITY_BYTES);
    let first = node(disk.clone());
    for id in first.open(2).await {
        for _ in 0..3 {
            first.append(id, "something to damage", Acks::All).await.unwrap();
        }
    }
    first.logs.close().await.unwrap();
    // Its folder is empty and its vote says that there was something.
    let image = disk.kill();
    for (path, _) in image.dump().iter().filter(|(path, _)| path.starts_with(&owner::partition_dir(partition(0)))) {
        image.remove_file(path).unwrap();
    }
    let node = node(image);
    let refused = node
        .logs
        .open(partition(0), PartitionConfig::default(), Seats::alone(NodeId(1)))
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(refused, LogsError::Open(OpenError::Missing { .. })), "{refused}");
    let refused = node.append(partition(0), "x", Acks::All).await.unwrap_err();
    assert!(matches!(refused, LogsError::Broken { .. }), "{refused}");
    assert_eq!(node.codes(), ["partition-damaged"]);
    node.logs.open(partition(1), PartitionConfig::default(), Seats::alone(NodeId(1))).await.unwrap();
    node.append(partition(1), "served", Acks::All).await.unwrap();
}
