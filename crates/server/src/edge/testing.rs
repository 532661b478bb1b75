//! A whole node in a folder of its own, for the edges' tests: a table with rows, and both listeners on free ports.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::batch::Codec;
use base::records::BatchBuilder;
use base::{PartitionIndex, Tick, Timestamp, TopicPartition};
use store::spec::TableSpec;
use tokio::net::TcpListener;

use crate::config::{Config, Sources, load};
use crate::node::start::start;
use crate::node::{Acks, Node, time};

/// 2015-09-12T00:46:58.771Z.
pub const FIRST_EVENT_MS: i64 = 1_442_018_818_771;

/// A node that serves until it is dropped.
pub struct Served {
    pub node: Arc<Node>,
    pub http: SocketAddr,
    pub postgres: SocketAddr,
    folder: PathBuf,
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

impl Served {
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = std::env::temp_dir().join(format!("seawall-edge-{}", uuid::Uuid::new_v4().simple()));
        let setting = |key: &'static str, value: String| (key, key.to_owned(), value);
        let sources = Sources {
            dev: true,
            flags: vec![setting("node.data_dir", folder.display().to_string())],
            ..Sources::default()
        };
        let mut config = load(&sources).expect("configuration").config;
        config.log.disk_reserve_bytes.0 = 0;
        change(&mut config);
        let (node, data) = start(Arc::new(config)).await.expect("node");
        std::mem::forget(data);
        let http = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let postgres = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let served = Self {
            http: http.local_addr().expect("address"),
            postgres: postgres.local_addr().expect("address"),
            folder,
            node: Arc::clone(&node),
        };
        tokio::spawn(super::http::serve(Arc::clone(&node), http, std::future::pending()));
        tokio::spawn(super::postgres::serve(node, postgres, std::future::pending()));
        served
    }

    /// As [`Served::start`], with the table `edits` of `rows` rows: page, added, time one second apart.
    pub async fn with_edits(rows: i64) -> Self {
        let served = Self::start().await;
        served.node.create_table(TableSpec::discover("edits", "edits")).await.expect("table");
        served.produce("edits", rows).await;
        served.wait_for_rows("edits", u64::try_from(rows).expect("rows")).await;
        served
    }

    pub async fn produce(&self, topic: &str, rows: i64) {
        let topic = self.node.ensure_topic(topic).await.expect("topic").id;
        let mut batch = BatchBuilder::new(Codec::None);
        for row in 0..rows {
            let at = FIRST_EVENT_MS + row * 1_000;
            let json = format!(r#"{{"time":{at},"page":"p{}","added":{row},"ratio":{}.5}}"#, row % 3, row);
            batch.push(Timestamp(at), None, Some(json.as_bytes()), &[]);
        }
        let at = TopicPartition { topic, partition: PartitionIndex(0) };
        let deadline = Tick(time::now().0 + 10_000);
        self.node.append(at, batch.build().expect("batch"), Acks::All, deadline).await.expect("appended");
    }

    pub async fn wait_for_rows(&self, table: &str, rows: u64) {
        for _ in 0..500 {
            let status = self.node.table(table);
            if status.is_some_and(|status| status.live_rows + status.segment_rows >= rows) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{table} did not get {rows} rows: {:?}", self.node.table(table));
    }
}
