use std::collections::BTreeMap;

use base::disk::memory::{Fault, MemDisk};
use base::{Term, Timestamp, TopicId};
use quorum::{Entry, Payload, Storage};
use uuid::Uuid;

use super::*;
use crate::shell::outbox::Nowhere;
use crate::shell::slow_disk::SlowDisk;

const CAPACITY_BYTES: u64 = 256 << 20;

fn mem_disk() -> MemDisk {
    MemDisk::new(1, CAPACITY_BYTES)
}

fn alone(disk: impl Disk + 'static, findings: Arc<Findings>) -> Start {
    Start {
        disk: Arc::new(disk),
        dir: "control".into(),
        node: NodeId(1),
        voters: vec![NodeId(1)],
        findings,
        outbox: Arc::new(Nowhere),
        peers: None,
    }
}

fn open(disk: impl Disk + 'static) -> (MetaHandle, Arc<Findings>) {
    let findings = Arc::new(Findings::default());
    let handle = start(alone(disk, Arc::clone(&findings)));
    (handle.unwrap_or_else(|error| panic!("{error}")), findings)
}

fn topic(number: u128) -> Command {
    Command::CreateTopic {
        id: TopicId(Uuid::from_u128(number + 1)),
        name: format!("topic-{number}"),
        partitions: 1,
        config: BTreeMap::new(),
        internal: false,
        created: Timestamp(0),
        replicas: Vec::new(),
    }
}

fn codes(findings: &Findings) -> Vec<&'static str> {
    findings.list().iter().map(|finding| finding.code).collect()
}

/// Asks again until it works, as a client would.
async fn until_ok(meta: &MetaHandle, command: Command) {
    for _ in 0..100 {
        if meta.propose(command.clone()).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still refused");
}

#[tokio::test]
async fn a_command_that_was_answered_is_seen_and_stays() {
    let disk = mem_disk();
    let (meta, _) = open(disk.clone());
    for number in 0..20 {
        meta.propose(topic(number)).await.unwrap();
        assert_eq!(meta.state().topics.len() as u128, number + 1, "an answer comes after the state that shows it");
    }
    let refused = meta.propose(topic(3)).await.unwrap_err();
    assert!(matches!(refused, MetaError::Refused(_)), "{refused}");
    let before = meta.state();
    drop(meta);
    let (meta, findings) = open(disk.crash());
    assert_eq!(meta.state().topics, before.topics);
    assert!(findings.list().is_empty());
    meta.close().await;
    assert!(matches!(meta.propose(topic(99)).await.unwrap_err(), MetaError::Stopped(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commands_share_a_sync() {
    let disk = SlowDisk::new(mem_disk());
    let (meta, _) = open(disk.clone());
    let before = disk.file_syncs();
    disk.close_gate();
    let tasks: Vec<_> = (0..500)
        .map(|number| {
            let meta = meta.clone();
            tokio::spawn(async move { meta.propose(topic(number)).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    disk.open_gate();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(meta.state().topics.len(), 500);
    let syncs = disk.file_syncs() - before;
    assert!(syncs < 20, "{syncs} syncs for 500 commands");
}

#[tokio::test]
async fn dying_anywhere_loses_no_answered_command() {
    let disk = mem_disk();
    drop(open(disk.clone()));
    for dies_at in (disk.ops()..disk.ops() + 60).step_by(1) {
        let disk = MemDisk::new(u64::from(u16::MAX) + dies_at, CAPACITY_BYTES);
        disk.crash_at(dies_at);
        let findings = Arc::new(Findings::default());
        let Ok(meta) = start(alone(disk.clone(), findings)) else { continue };
        let mut answered = 0;
        while meta.propose(topic(answered)).await.is_ok() {
            answered += 1;
        }
        for (image, name) in [(disk.crash(), "power lost"), (disk.kill(), "killed")] {
            let (meta, _) = open(image);
            let there = meta.state().topics.len() as u128;
            // The one that was being written may be there too.
            assert!((answered..=answered + 1).contains(&there), "{name} at {dies_at}: {there} of {answered} answered");
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_until_there_is_room() {
    let disk = mem_disk();
    let (meta, findings) = open(disk.clone());
    meta.propose(topic(0)).await.unwrap();
    disk.fault(Fault::Full);
    let refused = meta.propose(topic(1)).await.unwrap_err();
    assert_eq!(refused.to_string(), "the disk is full: metadata can be changed again when there is room");
    assert_eq!(meta.propose(topic(2)).await.unwrap_err(), MetaError::DiskFull);
    assert_eq!(codes(&findings), ["control-full"]);
    assert_eq!(meta.state().topics.len(), 1, "the last state stays readable");
    disk.heal();
    until_ok(&meta, topic(3)).await;
    assert!(findings.list().is_empty());
    let names: Vec<String> = meta.state().topics.values().map(|topic| topic.name.clone()).collect();
    assert_eq!(names, ["topic-0", "topic-1", "topic-3"], "what was being written came through");
    let (again, _) = open(disk.crash());
    assert_eq!(again.state().topics, meta.state().topics);
}

#[tokio::test]
async fn a_failed_sync_stops_changes_and_nothing_else() {
    let disk = mem_disk();
    let (meta, findings) = open(disk.clone());
    meta.propose(topic(0)).await.unwrap();
    disk.fault(Fault::Sync { after_ops: 0 });
    let refused = meta.propose(topic(1)).await.unwrap_err();
    assert!(refused.to_string().starts_with("metadata cannot be changed: control/"), "{refused}");
    disk.heal();
    assert!(matches!(meta.propose(topic(2)).await.unwrap_err(), MetaError::Stopped(_)));
    assert_eq!(codes(&findings), ["control-stopped"]);
    assert_eq!(meta.state().topics.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_keep_the_journal_short() {
    let disk = mem_disk();
    let (meta, _) = open(disk.clone());
    let count = u128::from(SNAPSHOT_ENTRIES) + 200;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        let meta = meta.clone();
        tasks.spawn(async move { meta.propose(topic(number)).await.unwrap() });
    }
    tasks.join_all().await;
    let before = meta.state();
    meta.close().await;
    let (mut journal, recovered) = Journal::open(Arc::new(disk.kill()), "control", &[NodeId(1)]).unwrap();
    assert!(recovered.snapshot.is_some_and(|snapshot| snapshot.index >= LogIndex(SNAPSHOT_ENTRIES)));
    assert!(journal.entries_above_snapshot() < 1_000);
    journal.sync().unwrap();
    let (meta, _) = open(disk.crash());
    assert_eq!(meta.state().topics, before.topics);
}

#[tokio::test]
async fn a_command_too_large_for_the_journal_is_refused() {
    let (meta, findings) = open(mem_disk());
    let Command::CreateTopic { id, partitions, internal, created, replicas, .. } = topic(1) else { unreachable!() };
    let config = BTreeMap::from([("x".repeat(COMMAND_BYTES_MAX), String::new())]);
    let huge = Command::CreateTopic { id, name: "huge".into(), partitions, config, internal, created, replicas };
    let refused = meta.propose(huge).await.unwrap_err();
    assert!(matches!(refused, MetaError::TooLarge { bytes } if bytes > COMMAND_BYTES_MAX), "{refused}");
    meta.propose(topic(2)).await.unwrap();
    assert!(findings.list().is_empty());
}

#[tokio::test]
async fn a_command_of_a_newer_release_is_not_skipped() {
    let disk = mem_disk();
    let (meta, _) = open(disk.clone());
    meta.propose(topic(0)).await.unwrap();
    meta.close().await;
    let (mut journal, _) = Journal::open(Arc::new(disk.clone()), "control", &[NodeId(1)]).unwrap();
    let (term, next) = (Term(1), journal.last_index().next());
    let unknown = Entry { term, index: next, payload: Payload::Data(Bytes::from_static(b"\xff newer")) };
    let known = Entry { term, index: next.next(), payload: Payload::Data(topic(1).encode()) };
    journal.append(&[unknown, known], None).unwrap();
    journal.sync().unwrap();
    let refused = start(alone(disk, Arc::default())).map(|_| ()).unwrap_err().to_string();
    let expected = format!("the metadata: metadata cannot be changed: the command at index {next} is unknown: ");
    assert!(refused.starts_with(&expected), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_makes_changes_slow_and_the_thread_goes_on_hearing() {
    let disk = SlowDisk::new(mem_disk());
    let (meta, _) = open(disk.clone());
    meta.propose(topic(0)).await.unwrap();
    disk.close_gate();
    let waits: Vec<_> = (1..20)
        .map(|number| {
            let meta = meta.clone();
            tokio::spawn(async move { meta.propose(topic(number)).await })
        })
        .collect();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let asked = tokio::time::timeout(Duration::from_secs(2), meta.status());
        assert!(asked.await.expect("the thread waits for the disk").is_some());
        assert_eq!(meta.state().topics.len(), 1, "nothing counts before it is durable");
    }
    disk.open_gate();
    for wait in waits {
        wait.await.unwrap().unwrap();
    }
    let there = meta.state();
    drop(meta);
    let (meta, _) = open(disk.inner.crash());
    assert_eq!(meta.state().topics, there.topics);
}
