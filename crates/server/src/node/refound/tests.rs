//! Backups, restores and recoveries of whole nodes, through real files.

use std::path::PathBuf;

use base::PartitionIndex;

use super::*;
use crate::edge::testing::Cluster;
use crate::node::cluster_tests::{append, create_topic, read as records};

fn folder(cluster: &Cluster, id: u32) -> PathBuf {
    cluster.node(id).config().node.data_dir.clone()
}

fn backup_of(cluster: &Cluster, id: u32) -> Backup {
    let backup = cluster.run(id, cluster.node(id).backup()).expect("a backup");
    Backup::decode(&backup.encode()).expect("reads")
}

fn lost(nodes: &[u32]) -> BTreeSet<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

fn refused(result: Result<Done, RefoundFailure>) -> String {
    result.map(|done| done.founding).expect_err("refused").to_string()
}

fn has_finding(cluster: &Cluster, id: u32, code: &str) -> bool {
    cluster.node(id).findings().iter().any(|finding| finding.code == code)
}

fn values(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("number {number}")).collect()
}

/// Twenty records.
fn fill(cluster: &Cluster, topic: TopicPartition) {
    for value in values(20) {
        append(cluster, topic, &value);
    }
}

/// As if power had been lost right after the act.
fn undo_partitions(dir: &Path, done: &Done) {
    let act = done.state.refoundings.last().expect("an act").id;
    for at in done.fates.keys() {
        let members = folder_of(dir, *at).join("members");
        let before = members.with_file_name(format!("members-before-{act}"));
        if before.exists() {
            fs::rename(before, members).expect("renamed");
        }
    }
    fs::remove_file(done.founding.with_extension("done")).expect("removed");
}

#[test]
fn a_node_alone_is_restored_and_finds_its_records() {
    let mut cluster = Cluster::start(1);
    let topic = create_topic(&cluster, 1, "t", 1);
    fill(&cluster, topic);
    let (backup, dir) = (backup_of(&cluster, 1), folder(&cluster, 1));
    create_topic(&cluster, 1, "later", 1);
    let running = refused(restore(&dir, &backup, &Restore::default()));
    assert!(running.contains("in use by another process"), "{running}");
    cluster.kill(1);

    let told = refused(restore(&dir, &backup, &Restore::default()));
    assert!(told.contains("is not empty: it has metadata up to entry") && told.contains("--replace"), "{told}");
    let mut other = backup.clone();
    other.head.cluster = base::ClusterId(Uuid::from_u128(5));
    let replace = Restore { replace: true, ..Restore::default() };
    let told = refused(restore(&dir, &other, &replace));
    assert!(told.contains("is of cluster") && told.contains("--other-cluster"), "{told}");

    let done = restore(&dir, &backup, &replace).expect("restored");
    assert!(done.fates.values().any(|fate| matches!(fate, Fate::Alone { end } if end.0 == 20)), "{:?}", done.fates);
    assert!(done.aside.as_ref().is_some_and(|aside| aside.is_dir()), "what was there is kept");
    cluster.begin(1);
    let state = cluster.node(1).state();
    assert_eq!(state.cluster, backup.state.cluster);
    assert!(state.topic_named("later").is_none(), "what was done after the backup is forgotten");
    assert_eq!(records(&cluster, 1, topic), values(20));
    append(&cluster, topic, "again");
    create_topic(&cluster, 1, "later", 1);
    assert!(has_finding(&cluster, 1, FINDING));
    cluster.run(1, cluster.node(1).acknowledge_refoundings()).expect("acknowledged");
    cluster.until("it is spoken of no more", |cluster| !has_finding(cluster, 1, FINDING));
}

#[test]
fn an_empty_folder_begins_with_a_backup_and_says_what_is_empty() {
    let mut cluster = Cluster::start(1);
    let topic = create_topic(&cluster, 1, "t", 2);
    append(&cluster, topic, "gone");
    let (backup, dir) = (backup_of(&cluster, 1), folder(&cluster, 1));
    cluster.kill(1);
    fs::remove_dir_all(&dir).expect("the disk is lost");
    let told = refused(restore(&dir, &backup, &Restore::default()));
    assert!(told.contains("--node-id"), "{told}");
    let done = restore(&dir, &backup, &Restore { node: Some(NodeId(1)), ..Restore::default() }).expect("restored");
    assert!(done.fates.values().all(|fate| *fate == Fate::Empty) && done.fates.len() >= 2, "{:?}", done.fates);
    cluster.begin(1);
    assert_eq!(records(&cluster, 1, topic), Vec::<String>::new());
    append(&cluster, topic, "new");
    assert_eq!(records(&cluster, 1, topic), ["new"]);
    cluster.kill(1);
    cluster.begin(1);
    assert_eq!(records(&cluster, 1, topic), ["new"], "the act is not done twice");
}

#[test]
fn three_nodes_begin_with_the_same_file_and_no_other_is_spoken_to() {
    let mut cluster = Cluster::start(3);
    let topic = create_topic(&cluster, 1, "t", 1);
    fill(&cluster, topic);
    let backup = backup_of(&cluster, 2);
    let dirs: Vec<PathBuf> = [1, 2, 3].iter().map(|id| folder(&cluster, *id)).collect();
    [1, 2, 3].iter().for_each(|id| cluster.kill(*id));
    // The metadata of all is lost, the records are not.
    for dir in &dirs {
        fs::remove_dir_all(dir.join("control")).expect("removed");
    }
    let done = restore(&dirs[0], &backup, &Restore::default()).expect("restored");
    assert!(done.fates.values().all(|fate| *fate == Fate::Kept), "{:?}", done.fates);
    let founding = read(&done.founding).expect("reads");
    restore(&dirs[1], &founding, &Restore::default()).expect("follows");
    let told = refused(restore(&dirs[1], &founding, &Restore { replace: true, ..Restore::default() }));
    assert!(told.contains("has begun with this file before"), "{told}");
    // Somebody restores the third by itself.
    restore(&dirs[2], &backup, &Restore::default()).expect("restored");
    [1, 2, 3].iter().for_each(|id| cluster.begin(*id));
    cluster.until("two go on together", |cluster| {
        [1, 2].iter().all(|id| {
            let master = cluster.node(*id).master();
            master.leader.is_some() && cluster.node(*id).state().refoundings.len() == 1
        }) && cluster.node(1).is_up(NodeId(2))
    });
    cluster.until("the third is not spoken to", |cluster| has_finding(cluster, 1, "peer-refused"));
    assert!(!cluster.node(1).is_up(NodeId(3)) && !cluster.node(3).is_up(NodeId(1)));
    append(&cluster, topic, "again");
    let all = [values(20), vec!["again".to_owned()]].concat();
    cluster.until("both have everything", |cluster| [1, 2].iter().all(|id| records(cluster, *id, topic) == all));
    // It takes the right file, and is one of them again.
    cluster.kill(3);
    restore(&dirs[2], &founding, &Restore { replace: true, ..Restore::default() }).expect("follows");
    cluster.begin(3);
    cluster.until("all vote again", |cluster| cluster.node(3).master().voters.len() == 3);
    cluster.until("all have everything", |cluster| records(cluster, 3, topic) == all);
}

#[test]
fn one_of_three_goes_on_and_the_others_are_told_when_they_return() {
    let mut cluster = Cluster::start(3);
    let topic = create_topic(&cluster, 1, "t", 3);
    fill(&cluster, topic);
    cluster
        .until("all have everything", |cluster| [1, 2, 3].iter().all(|id| records(cluster, *id, topic) == values(20)));
    let (dir, id) = (folder(&cluster, 1), cluster.node(1).state().cluster.expect("formed").to_string());
    let told = Recover { lost: lost(&[2, 3]), ..Recover::default() };
    let running = prospect(&dir, &told).map(|_| ()).expect_err("it runs").to_string();
    assert!(running.contains("in use by another process"), "{running}");
    [1, 2, 3].iter().for_each(|id| cluster.kill(*id));

    let enough =
        prospect(&dir, &Recover { lost: lost(&[3]), ..Recover::default() }).map(|_| ()).expect_err("two are left");
    assert!(enough.to_string().contains("2 of the 3 nodes that vote on the metadata are left"), "{enough}");
    let before = fs::read_dir(&dir).expect("lists").count();
    let plan = prospect(&dir, &told).expect("plans");
    assert!(plan.fates.values().all(|fate| matches!(fate, Fate::Forced { on: NodeId(1), .. })), "{:?}", plan.fates);
    let unsure = refused(recover(&dir, &told, "yes"));
    assert!(unsure.contains("cannot be undone") && unsure.contains(&id), "{unsure}");
    assert_eq!(fs::read_dir(&dir).expect("lists").count(), before, "a plan changes nothing");
    let done = recover(&dir, &told, &id).expect("recovered");
    undo_partitions(&dir, &done);

    cluster.begin(1);
    assert!(done.founding.with_extension("done").exists(), "the start did what was left to do");
    append(&cluster, topic, "alone");
    let all = [values(20), vec!["alone".to_owned()]].concat();
    assert_eq!(records(&cluster, 1, topic), all);
    let other = TopicPartition { partition: PartitionIndex(1), ..topic };
    append(&cluster, other, "also here");
    create_topic(&cluster, 1, "u", 1);
    assert!(has_finding(&cluster, 1, FINDING));
    cluster.until("the lost are members no more", |cluster| cluster.node(1).state().nodes.len() == 1);

    // They come back, a majority of what was.
    cluster.begin(2);
    cluster.begin(3);
    cluster.until("they are told", |cluster| {
        let told = |id| {
            let findings = cluster.node(id).findings();
            findings.iter().any(|finding| finding.code == "peer-refused" && finding.cause.contains("begun anew"))
        };
        told(2) && told(3)
    });
    assert_eq!(records(&cluster, 1, topic), all, "nothing of theirs came over");
    cluster.kill(2);
    cluster.kill(3);
    cluster.join(4);
    cluster.until("a new node follows", |cluster| cluster.node(4).state().topic_named("u").is_some());
}

#[test]
fn of_five_two_go_on_with_the_better_copies() {
    let mut cluster = Cluster::start(5);
    let topic = create_topic(&cluster, 1, "t", 10);
    let at = |partition| TopicPartition { partition: PartitionIndex(partition), ..topic };
    for partition in 0..10 {
        append(&cluster, at(partition), &format!("in {partition}"));
    }
    let state = cluster.node(1).state();
    let id = state.cluster.expect("formed").to_string();
    let dirs: Vec<PathBuf> = (1..=5).map(|id| folder(&cluster, id)).collect();
    (1..=5).for_each(|id| cluster.kill(id));
    let lost = lost(&[3, 4, 5]);
    let blind = Recover { lost: lost.clone(), ..Recover::default() };
    let unseen = prospect(&dirs[0], &blind).map(|_| ()).expect_err("node 2 was not looked at").to_string();
    assert!(unseen.contains("node 2 may have a better copy") && unseen.contains("--survey"), "{unseen}");
    let (two, found, _) = survey_for_others(&dirs[1]).expect("surveyed");
    let told = Recover { lost, surveys: [(two, found)].into() };
    let done = recover(&dirs[0], &told, &id).expect("recovered");
    let founding = read(&done.founding).expect("reads");
    restore(&dirs[1], &founding, &Restore { replace: true, ..Restore::default() }).expect("follows");
    cluster.begin(1);
    cluster.begin(2);
    cluster.until("both know", |cluster| [1, 2].iter().all(|id| cluster.node(*id).state().refoundings.len() == 1));
    for partition in 0..10 {
        let before = state.replicas(at(partition));
        let is_left = before.iter().any(|node| node.0 < 3);
        let expected = if is_left { vec![format!("in {partition}")] } else { Vec::new() };
        cluster.until(&format!("partition {partition}, that was on {before:?}, has what it had"), |cluster| {
            records(cluster, cluster.leader(at(partition)), at(partition)) == expected
        });
        append(&cluster, at(partition), "again");
    }
}
