//! Whole nodes, and the same answer at each of them, whoever keeps the rows and whoever has died.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::Int64Array;
use base::batch::Codec;
use base::records::BatchBuilder;
use base::{NodeId, PartitionIndex, Timestamp, TopicPartition};
use bytes::Bytes;
use futures::StreamExt;
use query::{QueryError, QueryRequest};
use serde_json::json;
use store::spec::TableSpec;

use crate::edge::queries::Queries;
use crate::edge::testing::{Cluster, FIRST_EVENT_MS};
use crate::node::topics::{Copies, NewTopic};
use crate::node::{Acks, Node, time};

/// What was counted, and what was said about it.
type Counted = Result<(i64, i64, Vec<String>), QueryError>;

fn rows(from: i64, count: i64) -> Bytes {
    let mut batch = BatchBuilder::new(Codec::None);
    for row in from..from + count {
        let json = format!(r#"{{"time":{},"page":"p{}","added":{row}}}"#, FIRST_EVENT_MS + row, row % 7);
        batch.push(Timestamp(FIRST_EVENT_MS), None, Some(json.as_bytes()), &[]);
    }
    batch.build().expect("batch")
}

/// Produced, acknowledged by a majority.
fn produce(cluster: &Cluster, at: TopicPartition, from: i64, count: i64) {
    let begun = Instant::now();
    loop {
        let leader = cluster.leader(at);
        let node = cluster.node(leader);
        match cluster.run(leader, node.append(at, rows(from, count), Acks::All, time::now().plus(2_000))) {
            Ok(_) => return,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(30), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

async fn count_with(node: &Arc<Node>, context: serde_json::Value) -> Counted {
    let request = QueryRequest {
        sql: "SELECT COUNT(*), COALESCE(SUM(added), 0) FROM edits".into(),
        context: context.as_object().cloned().unwrap_or_default(),
        ..QueryRequest::default()
    };
    let mut stream = Queries::of(node, "test").run(request).await?;
    let batch = stream.batches.next().await.expect("a row")?;
    let value = |at: usize| batch.column(at).as_any().downcast_ref::<Int64Array>().expect("a number").value(0);
    Ok((value(0), value(1), stream.warnings))
}

fn count(cluster: &Cluster, id: u32) -> Counted {
    let node = cluster.node(id);
    cluster.run(id, count_with(&node, json!({})))
}

/// Every node that runs gives exactly the rows 0 to `total`, without a word.
fn all_count(cluster: &Cluster, total: i64, when: &str) {
    for id in cluster.ids() {
        let (rows, sum, warnings) = count(cluster, id).unwrap_or_else(|error| panic!("node {id}, {when}: {error}"));
        assert_eq!((rows, sum), (total, total * (total - 1) / 2), "node {id}, {when}: {warnings:?}");
        assert!(warnings.is_empty(), "node {id}, {when}: {warnings:?}");
    }
}

/// A table whose live rows are kept by `live_replicas`, over a topic of `partitions`.
fn create(cluster: &Cluster, by: u32, partitions: i32, live_replicas: u32, segment_rows: u64) -> Vec<TopicPartition> {
    create_with(cluster, by, NewTopic::plain("edits", partitions, BTreeMap::new()), live_replicas, segment_rows)
}

fn create_with(
    cluster: &Cluster,
    by: u32,
    topic: NewTopic,
    live_replicas: u32,
    segment_rows: u64,
) -> Vec<TopicPartition> {
    let node = cluster.node(by);
    let partitions = topic.partitions;
    let topic = cluster.run(by, node.create_topic_with(topic)).expect("topic");
    let mut spec = TableSpec { live_replicas, ..TableSpec::discover("edits", "edits") };
    spec.tuning.rows_per_segment_max = segment_rows;
    cluster.run(by, node.create_table(spec)).expect("table");
    cluster.until("all nodes have the table", |cluster| {
        cluster.ids().iter().all(|id| cluster.node(*id).table("edits").is_some())
    });
    (0..partitions).map(|index| TopicPartition { topic: topic.id, partition: PartitionIndex(index) }).collect()
}

fn kept(cluster: &Cluster, id: u32, at: TopicPartition) -> bool {
    let table = cluster.node(id).tables.named("edits").expect("the table");
    table.core().partitions.get(&at.partition).is_some_and(|place| place.keeps)
}

fn kept_by_whom_they_should(cluster: &Cluster, at: TopicPartition, live_replicas: usize) {
    cluster.until("as many keep the rows as should", |cluster| {
        let leader = NodeId(cluster.leader(at));
        let expected = cluster.node(1).state().live_keepers(at, live_replicas, Some(leader));
        cluster.ids().into_iter().all(|id| kept(cluster, id, at) == expected.contains(&NodeId(id)))
    });
}

#[test]
fn every_node_counts_all_that_was_acknowledged_wherever_it_is_kept() {
    let cluster = Cluster::start(3);
    let partitions = create(&cluster, 1, 3, 1, 120);
    let mut total = 0;
    for round in 0..30_i64 {
        for at in &partitions {
            produce(&cluster, *at, total, 10 + round % 4);
            total += 10 + round % 4;
        }
        // Sealed now and then in between: rows go from live to published under the queries.
        all_count(&cluster, total, &format!("round {round}"));
    }
    for at in &partitions {
        kept_by_whom_they_should(&cluster, *at, 1);
    }
    let published: usize = cluster.node(1).table("edits").expect("table").segments;
    assert!(published > 0, "nothing was sealed meanwhile");
    // Nobody asks: what was borrowed goes.
    let table = cluster.node(1).tables.named("edits").expect("the table");
    table.forget_borrowed(0);
    let foreign: u64 = {
        let core = table.core();
        let borrowed = core.partitions.iter().filter(|(_, place)| !place.keeps);
        borrowed.map(|(index, _)| core.live.partition_rows(*index)).sum()
    };
    assert_eq!(foreign, 0);
    all_count(&cluster, total, "after the borrowed rows were forgotten");
}

#[test]
fn a_leader_that_dies_takes_no_rows_with_it() {
    for live_replicas in [1, 2] {
        let mut cluster = Cluster::start(3);
        let at = create(&cluster, 1, 1, live_replicas, 1_000_000)[0];
        let mut total = 0;
        for round in 0..4 {
            for _ in 0..5 {
                produce(&cluster, at, total, 20);
                total += 20;
            }
            all_count(&cluster, total, &format!("{live_replicas} live replicas, before kill {round}"));
            let leader = cluster.leader(at);
            cluster.kill(leader);
            cluster.leader(at);
            all_count(&cluster, total, &format!("{live_replicas} live replicas, after kill {round}"));
            cluster.begin(leader);
        }
        kept_by_whom_they_should(&cluster, at, usize::try_from(live_replicas).expect("small"));
    }
}

#[test]
fn who_is_cut_off_answers_with_what_it_had_and_says_so() {
    let mut cluster = Cluster::start(3);
    let at = create(&cluster, 1, 1, 1, 1_000_000)[0];
    produce(&cluster, at, 0, 100);
    all_count(&cluster, 100, "all are there");
    let leader = cluster.leader(at);
    let last = cluster.ids().into_iter().find(|id| *id != leader).expect("another");
    cluster.until("it has heard what is committed", |cluster| {
        cluster.node(last).reader(at).is_some_and(|reader| reader.committed().0 >= 100)
    });
    // What it borrowed is gone, so that it has to help itself.
    cluster.node(last).tables.named("edits").expect("the table").forget_borrowed(0);
    for id in cluster.ids() {
        if id != last {
            cluster.kill(id);
        }
    }
    // Between the two kills it may have been elected; it vouches for what it has until it notices (L-follower-reads).
    cluster.until("it does not lead", |cluster| {
        cluster.node(last).logs().leadership(at).is_none_or(|leadership| !leadership.borrow().is_mine)
    });
    let (rows, _, warnings) = count(&cluster, last).expect("what it had");
    assert_eq!(rows, 100);
    assert!(warnings.iter().any(|warning| warning.contains("cannot be reached")), "{warnings:?}");
    let findings = cluster.node(last).findings();
    assert!(findings.iter().any(|finding| finding.code == "answers-may-lag"), "{findings:?}");
    let begun = Instant::now();
    let (rows, _, _) = count(&cluster, last).expect("again");
    assert!(rows == 100 && begun.elapsed() < Duration::from_secs(2), "the second query waits for nobody");
    for id in 1..=3 {
        if id != last {
            cluster.begin(id);
        }
    }
    cluster.leader(at);
    cluster.until("it is over by itself", |cluster| {
        cluster.node(last).findings().iter().all(|finding| finding.code != "answers-may-lag")
    });
    all_count(&cluster, 100, "all are back");
}

#[test]
fn rows_that_nobody_can_give_are_an_error_that_names_them() {
    let mut cluster = Cluster::start(3);
    let node = cluster.node(1);
    let placed = vec![vec![NodeId(1)], vec![NodeId(2)]];
    let topic = NewTopic { copies: Copies::Given(placed), ..NewTopic::plain("edits", 2, BTreeMap::new()) };
    let topic = cluster.run(1, node.create_topic_with(topic)).expect("topic");
    cluster.run(1, node.create_table(TableSpec::discover("edits", "edits"))).expect("table");
    drop(node);
    for index in [0, 1] {
        let at = TopicPartition { topic: topic.id, partition: PartitionIndex(index) };
        produce(&cluster, at, i64::from(index) * 50, 50);
    }
    cluster.until("node 3 has the table", |cluster| cluster.node(3).table("edits").is_some());
    all_count(&cluster, 100, "no node has both partitions");
    cluster.kill(2);
    for id in [1, 3] {
        let table = cluster.node(id).tables.named("edits").expect("the table");
        table.forget_borrowed(0);
        let error = count(&cluster, id).expect_err("50 rows are on node 2");
        let text = error.to_string();
        assert!(text.contains("partition 1") && text.contains("node 2"), "{text}");
        assert_eq!(error.kind, query::QueryErrorKind::Unavailable);
    }
    cluster.begin(2);
    let at = TopicPartition { topic: topic.id, partition: PartitionIndex(1) };
    cluster.leader(at);
    cluster.until("node 2 has read its log", |cluster| kept(cluster, 2, at));
    cluster.until("nobody lags", |cluster| {
        cluster.ids().iter().all(|id| cluster.node(*id).findings().iter().all(|f| f.code != "answers-may-lag"))
    });
    all_count(&cluster, 100, "node 2 is back");
}

/// Deep storage that only node 3 does not see.
#[test]
fn a_node_that_cannot_read_deep_storage_says_what_is_missing_and_catches_up() {
    let mut cluster = Cluster::start_with(3, |config| {
        if config.node.id == 3 {
            config.deep_storage.url = config.deep_storage.url.as_ref().map(|url| format!("{url}-3"));
        }
    });
    let copies = Copies::Given(vec![vec![NodeId(1), NodeId(2), NodeId(3)]]);
    let at = create_with(&cluster, 1, NewTopic { copies, ..NewTopic::plain("edits", 1, BTreeMap::new()) }, 1, 100)[0];
    let folder = |id: u32| cluster.node(id).config().deep_storage_dir();
    let (good, bad) = (folder(1), folder(3));
    produce(&cluster, at, 0, 150);
    cluster.until("it is published", |cluster| cluster.node(1).table("edits").is_some_and(|table| table.segments > 0));
    cluster.until("node 3 says it is behind", |cluster| {
        cluster.node(3).findings().iter().any(|finding| finding.code == "segments-behind")
    });
    let error = count(&cluster, 3).expect_err("never less than there is").to_string();
    assert!(error.contains("segment") && error.contains("deep storage"), "{error}");
    // Restarted it finds them missing from the start.
    cluster.kill(3);
    cluster.begin(3);
    cluster.until("node 3 knows what is missing", |cluster| {
        cluster.node(3).table("edits").is_some_and(|table| table.missing_segments > 0)
    });
    let error = count(&cluster, 3).expect_err("never less than there is").to_string();
    assert!(error.contains("1 segments of table edits are missing"), "{error}");
    copy(&good, &bad);
    cluster.until("it is over by itself", |cluster| {
        cluster.node(3).findings().iter().all(|finding| !["segments-behind", "segment-missing"].contains(&finding.code))
    });
    all_count(&cluster, 150, "deep storage is there again");
    drop(std::fs::remove_dir_all(bad));
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("folder").flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

/// However often the metadata changes while deep storage is down, one task follows.
#[test]
fn followers_do_not_pile_up() {
    let cluster = Cluster::start(1);
    let at = create(&cluster, 1, 1, 1, 1_000_000)[0];
    produce(&cluster, at, 0, 10);
    let node = cluster.node(1);
    let table = node.tables.named("edits").expect("the table");
    let tasks =
        |cluster: &Cluster| cluster.run(1, async { tokio::runtime::Handle::current().metrics().num_alive_tasks() });
    let held = cluster.run(1, async { table.following.lock().await });
    let before = tasks(&cluster);
    for number in 0..40 {
        cluster.run(1, node.create_topic(&format!("t{number}"), 1, BTreeMap::new())).expect("topic");
    }
    let after = tasks(&cluster);
    assert!(after < before + 30, "{before} tasks before 40 changes, {after} after them");
    drop(held);
    all_count(&cluster, 10, "after all");
    drop((table, node));
}
