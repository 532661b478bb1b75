//! A forwarder and the node it passes on to, in one process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::batch::Codec;
use base::records::BatchBuilder;
use base::{Offset, PartitionIndex, Timestamp, TopicPartition};
use client::{Acks, Connection};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::config::{Sources, load};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("seawall-forward-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The cluster: one node whose Kafka port can be closed and opened.
struct Target {
    node: Arc<Node>,
    _data: crate::node::DataDir,
    address: SocketAddr,
    stop: watch::Sender<bool>,
}

impl Target {
    async fn start(folder: &Path) -> Self {
        let setting = |key: &'static str, value: String| (key, key.to_owned(), value);
        let sources = Sources {
            dev: true,
            flags: vec![
                setting("node.data_dir", folder.display().to_string()),
                setting("log.batch_bytes_max", "64KiB".into()),
            ],
            ..Sources::default()
        };
        let mut config = load(&sources).unwrap().config;
        config.log.disk_reserve_bytes.0 = 0;
        config.log.default_partitions = 2;
        let (node, data) = start(Arc::new(config)).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        Self { node, _data: data, address, stop: watch::channel(true).0 }
    }

    /// Opens the port.
    async fn open(&self) {
        self.stop.send_replace(false);
        let listener = TcpListener::bind(self.address).await.unwrap();
        let mut stopped = self.stop.subscribe();
        let stop = async move {
            drop(stopped.wait_for(|stopped| *stopped).await);
        };
        tokio::spawn(edge::kafka::serve(Arc::clone(&self.node), listener, stop));
    }

    /// Every value of the topic by partition.
    fn values(&self, topic: &str) -> Vec<Vec<String>> {
        let state = self.node.state();
        let Some(topic) = state.topic_named(topic) else { return Vec::new() };
        (0..topic.partitions)
            .map(|index| {
                let id = TopicPartition { topic: topic.id, partition: PartitionIndex(index) };
                self.node.reader(id).map(|reader| values_of(&reader)).unwrap_or_default()
            })
            .collect()
    }
}

fn values_of(reader: &log::Reader) -> Vec<String> {
    let (mut values, mut at) = (Vec::new(), reader.start());
    while at < reader.committed() {
        let fetched = reader.read(at, 1 << 20, log::ReadLimit::Committed).unwrap();
        let mut bytes = fetched.bytes.clone();
        while !bytes.is_empty() {
            let batch = base::records::decode(&bytes).unwrap();
            drop(bytes.split_to(batch.header().size_bytes));
            values
                .extend(batch.iter().map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap()));
        }
        at = fetched.next;
    }
    values
}

fn options(target: &Target, folder: &Path) -> Options {
    Options {
        to: vec![target.address.to_string()],
        spool: folder.to_owned(),
        spool_bytes: 1 << 30,
        kafka: "127.0.0.1:0".parse().unwrap(),
        http: None,
        tails: Vec::new(),
        stdin: None,
        insecure: false,
    }
}

async fn forwarder(options: &Options) -> (Forwarder, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (Forwarder::start(options, listener).await.unwrap(), address)
}

/// Produces `values` to partition 0 over the Kafka port, each in a batch of its own.
async fn produce(address: SocketAddr, topic: &'static str, values: Vec<String>) {
    let produced = tokio::task::spawn_blocking(move || {
        let mut node = Connection::connect(&address.to_string(), "test", Duration::from_secs(10)).unwrap();
        node.topic(topic, true).unwrap();
        for value in values {
            let mut batch = BatchBuilder::new(Codec::None);
            batch.push(Timestamp(1_000), Some(b"key"), Some(value.as_bytes()), &[("header", Some(b"value"))]);
            node.produce(topic, 0, batch.build().unwrap(), Acks::All).unwrap();
        }
    });
    produced.await.unwrap();
}

async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 20 s: {what}");
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("record {number}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_while_the_cluster_was_away_is_there_once_and_in_order() {
    let (here, there) = (Folder::new(), Folder::new());
    let target = Target::start(&there.0).await;
    let options = options(&target, &here.0);
    let (one, address) = forwarder(&options).await;
    produce(address, "events", numbered(0..50)).await;
    assert!(!one.is_empty() && target.values("events").is_empty());
    // The process ends with all of it in its spool.
    one.close().await;
    target.open().await;
    let (two, address) = forwarder(&options).await;
    produce(address, "events", numbered(50..80)).await;
    until("all passed on", || two.is_empty()).await;
    assert_eq!(target.values("events")[0], numbered(0..80));
    two.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_has_the_partitions_of_the_clusters_topic_when_it_can_be_asked() {
    let (here, there) = (Folder::new(), Folder::new());
    let target = Target::start(&there.0).await;
    target.open().await;
    target.node.create_topic("wide", 5, std::collections::BTreeMap::new()).await.unwrap();
    let (forwarder, _) = forwarder(&options(&target, &here.0)).await;
    assert_eq!(forwarder.node.ensure_topic("wide").await.unwrap().partitions, 5);
    assert_eq!(forwarder.node.ensure_topic("new").await.unwrap().partitions, 2);
    forwarder.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_cluster_refuses_for_good_is_set_aside_and_the_others_go_on() {
    let (here, there) = (Folder::new(), Folder::new());
    let target = Target::start(&there.0).await;
    target.open().await;
    let (forwarder, address) = forwarder(&options(&target, &here.0)).await;
    let mut values = numbered(0..20);
    // More than the cluster's 64 KiB, and not compressible to them.
    let mut state = 7_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap())
    });
    values[7] = noise.take(100_000).collect();
    produce(address, "events", values.clone()).await;
    until("all passed on", || forwarder.is_empty()).await;
    let bad = values.remove(7);
    assert_eq!(target.values("events")[0], values);
    let dead = std::fs::read_to_string(here.0.join(dead::FILE)).unwrap();
    let line: serde_json::Value = serde_json::from_str(dead.trim()).unwrap();
    assert_eq!((line["value"].as_str(), line["topic"].as_str()), (Some(bad.as_str()), Some("events")));
    let codes: Vec<_> = forwarder.node.findings().iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&"forward-set-aside"), "{codes:?}");
    forwarder.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_comes_and_goes_takes_nothing_twice() {
    let (here, there) = (Folder::new(), Folder::new());
    let target = Target::start(&there.0).await;
    let (forwarder, address) = forwarder(&options(&target, &here.0)).await;
    let flapping = Arc::new(AtomicBool::new(true));
    let produced = {
        let flapping = Arc::clone(&flapping);
        tokio::spawn(async move {
            for begin in (0..600).step_by(50) {
                produce(address, "events", numbered(begin..begin + 50)).await;
            }
            flapping.store(false, Ordering::Release);
        })
    };
    while flapping.load(Ordering::Acquire) {
        target.open().await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        target.stop.send_replace(true);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    produced.await.unwrap();
    target.open().await;
    until("all passed on", || forwarder.is_empty()).await;
    assert_eq!(target.values("events")[0], numbered(0..600));
    assert_eq!(forwarder.status.count(), 600);
    forwarder.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_and_takes_again_when_it_has_been_passed_on() {
    let (here, there) = (Folder::new(), Folder::new());
    let target = Target::start(&there.0).await;
    let mut options = options(&target, &here.0);
    options.spool_bytes = 200_000;
    let (forwarder, _) = forwarder(&options).await;
    let topic = forwarder.node.ensure_topic("events").await.unwrap().id;
    let id = TopicPartition { topic, partition: PartitionIndex(0) };
    let append = || async {
        let mut batch = BatchBuilder::new(Codec::None);
        batch.push(Timestamp(1_000), None, Some(&[b'x'; 50_000]), &[]);
        let deadline = base::Tick(crate::node::time::now().0 + 5_000);
        forwarder.node.append(id, batch.build().unwrap(), crate::node::Acks::All, deadline).await
    };
    let mut taken = 0;
    while append().await.is_ok() {
        taken += 1;
        assert!(taken < 100, "a spool of 200,000 bytes took {taken} records of 50,000");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(taken >= 4);
    assert!(forwarder.node.findings().iter().any(|finding| finding.code == "log-full"));
    assert_eq!(forwarder.node.reader(id).unwrap().committed(), Offset(taken));
    forwarder.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_followed_over_its_rotation_and_a_restart() {
    let (here, there) = (Folder::new(), Folder::new());
    let target = Target::start(&there.0).await;
    target.open().await;
    let mut options = options(&target, &here.0);
    let path = there.0.join("app.log");
    options.tails = vec![Tail { topic: "lines".into(), path: path.clone() }];
    let (one, _) = forwarder(&options).await;
    std::fs::write(&path, "a\nb\nunfinished").unwrap();
    let all = || target.values("lines").concat();
    until("two lines", || all().len() == 2).await;
    one.close().await;
    std::fs::rename(&path, there.0.join("app.log.1")).unwrap();
    std::fs::write(&path, "c\nd\n").unwrap();
    let (two, _) = forwarder(&options).await;
    until("the new file", || all().len() >= 5).await;
    std::fs::write(&path, "c\nd\ne\nf\n").unwrap();
    until("what was added", || all().len() >= 7).await;
    assert_eq!(all(), ["a", "b", "unfinished", "c", "d", "e", "f"]);
    two.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transactional_producer_is_refused_for_good() {
    use client::messages::{ApiKey, InitProducerIdRequest, InitProducerIdResponse, TransactionalId};

    let (here, there) = (Folder::new(), Folder::new());
    let target = Target::start(&there.0).await;
    let (forwarder, address) = forwarder(&options(&target, &here.0)).await;
    let asked = tokio::task::spawn_blocking(move || {
        let mut node = Connection::connect(&address.to_string(), "test", Duration::from_secs(10)).unwrap();
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId("t".to_owned().into())))
            .with_transaction_timeout_ms(1_000);
        let answer: InitProducerIdResponse = node.call(ApiKey::InitProducerId, 3, &request).unwrap();
        answer.error_code
    });
    assert_eq!(asked.await.unwrap(), 53);
    forwarder.close().await;
}
