//! A whole node in a folder of its own, for the edges' tests: a table with rows, and both listeners on free ports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
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

/// Several whole nodes in this process, each with a runtime of its own, that can be killed and begun again.
pub struct Cluster {
    folder: PathBuf,
    ports: BTreeMap<u32, Ports>,
    members: BTreeMap<u32, Member>,
    /// Where the first nodes are, as they are configured for ever.
    founders: String,
    /// Whom those that joined later asked.
    joined: BTreeMap<u32, String>,
    /// Changes every node's configuration before it starts.
    change: fn(&mut Config),
}

#[derive(Clone, Copy)]
pub struct Ports {
    pub peer: u16,
    pub kafka: u16,
    pub http: u16,
    pub postgres: u16,
}

struct Member {
    node: Arc<Node>,
    runtime: tokio::runtime::Runtime,
    _data: crate::node::DataDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for id in self.ids() {
            self.kill(id);
        }
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

impl Cluster {
    /// Starts nodes 1 to `count`; returns when they have formed a cluster and all have registered.
    pub fn start(count: u32) -> Self {
        Self::start_with(count, |_| ())
    }

    pub fn start_with(count: u32, change: fn(&mut Config)) -> Self {
        let folder = std::env::temp_dir().join(format!("seawall-cluster-{}", uuid::Uuid::new_v4().simple()));
        let ports = || Ports { peer: free_port(), kafka: free_port(), http: free_port(), postgres: free_port() };
        let ports: BTreeMap<u32, Ports> = (1..=count).map(|id| (id, ports())).collect();
        let founders = ports.iter().map(|(id, ports)| format!("{id}@127.0.0.1:{}", ports.peer));
        let founders = founders.collect::<Vec<_>>().join(",");
        let mut cluster = Self { folder, ports, members: BTreeMap::new(), founders, joined: BTreeMap::new(), change };
        (1..=count).for_each(|id| cluster.begin(id));
        cluster.until("all nodes have registered", |cluster| {
            cluster.members.values().all(|member| {
                let state = member.node.state();
                state.cluster.is_some() && state.nodes.len() == count as usize
            })
        });
        cluster
    }

    /// The ids of the nodes that run.
    pub fn ids(&self) -> Vec<u32> {
        self.members.keys().copied().collect()
    }

    pub fn node(&self, id: u32) -> Arc<Node> {
        Arc::clone(&self.members.get(&id).expect("it runs").node)
    }

    pub fn ports(&self, id: u32) -> Ports {
        *self.ports.get(&id).expect("a node of the cluster")
    }

    /// Runs `work` where the node's own tasks run.
    pub fn run<T>(&self, id: u32, work: impl Future<Output = T>) -> T {
        self.members.get(&id).expect("it runs").runtime.block_on(work)
    }

    /// Starts a new node that asks a member that runs to let it in; returns when it serves.
    pub fn join(&mut self, id: u32) {
        self.try_join(id, &id.to_string()).expect("joins");
    }

    /// As [`Cluster::join`], with its data in `folder`.
    pub fn try_join(&mut self, id: u32, folder: &str) -> Result<(), String> {
        let members = self.members.keys().map(|id| format!("{id}@127.0.0.1:{}", self.ports(*id).peer));
        let members = members.collect::<Vec<_>>().join(",");
        let ports = Ports { peer: free_port(), kafka: free_port(), http: free_port(), postgres: free_port() };
        self.ports.insert(id, ports);
        self.joined.insert(id, members);
        self.launch(id, folder)
    }

    /// Starts a node on the data it had.
    pub fn begin(&mut self, id: u32) {
        self.launch(id, &id.to_string()).expect("node");
    }

    fn launch(&mut self, id: u32, folder: &str) -> Result<(), String> {
        let (key, others) = match self.joined.get(&id) {
            Some(members) => ("cluster.join", members.clone()),
            None => ("cluster.peers", self.founders.clone()),
        };
        let own = self.ports(id);
        let setting = |key: &'static str, value: String| (key, key.to_owned(), value);
        let sources = Sources {
            dev: true,
            flags: vec![
                setting("node.id", id.to_string()),
                setting("node.data_dir", self.folder.join(folder).display().to_string()),
                setting("deep_storage.url", self.folder.join("deep").display().to_string()),
                setting(key, others),
                setting("listen.peer", own.peer.to_string()),
                setting("listen.kafka", own.kafka.to_string()),
                setting("listen.http", own.http.to_string()),
                setting("listen.postgres", own.postgres.to_string()),
            ],
            ..Sources::default()
        };
        let mut config = load(&sources).expect("configuration").config;
        config.log.disk_reserve_bytes.0 = 0;
        (self.change)(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads");
        let config = Arc::new(config);
        let started = runtime.block_on(async {
            let (node, data) = start(Arc::clone(&config)).await.map_err(|error| error.to_string())?;
            let bind = |port: u16| TcpListener::bind(("127.0.0.1", port));
            let (kafka, http, postgres) =
                tokio::try_join!(bind(own.kafka), bind(own.http), bind(own.postgres)).expect("ports");
            tokio::spawn(super::kafka::serve(Arc::clone(&node), kafka, std::future::pending()));
            tokio::spawn(super::http::serve(Arc::clone(&node), http, std::future::pending()));
            tokio::spawn(super::postgres::serve(Arc::clone(&node), postgres, std::future::pending()));
            Ok::<_, String>((node, data))
        });
        let (node, data) = started?;
        self.members.insert(id, Member { node, runtime, _data: data });
        Ok(())
    }

    /// Ends a node where it stands: nothing is flushed, nobody is told.
    pub fn kill(&mut self, id: u32) {
        let Some(Member { node, runtime, .. }) = self.members.remove(&id) else { return };
        let alive = Arc::downgrade(&node);
        // The links hold the router, and it holds everything else.
        node.router().end();
        drop(node);
        runtime.shutdown_timeout(Duration::from_secs(5));
        assert_eq!(alive.strong_count(), 0, "somebody still holds node {id}");
        // Its threads end when they see that; a process that is killed has none.
        std::thread::sleep(Duration::from_millis(300));
    }

    /// Waits for something, 20 seconds at most.
    pub fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..2_000 {
            if is_so(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("not within 20 s: {what}");
    }

    /// The node that is the active master.
    pub fn master(&self) -> u32 {
        self.until("there is an active master", |cluster| cluster.active_master().is_some());
        self.active_master().expect("an active master")
    }

    fn active_master(&self) -> Option<u32> {
        self.members.iter().find(|(_, member)| member.node.master().is_active).map(|(id, _)| *id)
    }

    /// The node that leads a partition.
    pub fn leader(&self, partition: TopicPartition) -> u32 {
        self.until("the partition has a leader", |cluster| cluster.leads(partition).is_some());
        self.leads(partition).expect("a leader")
    }

    /// Whoever says so with the highest term.
    fn leads(&self, partition: TopicPartition) -> Option<u32> {
        let leadership = |member: &Member| Some(*member.node.logs().leadership(partition)?.borrow());
        let all = self.members.iter().filter_map(|(id, member)| Some((*id, leadership(member)?)));
        all.filter(|(_, leadership)| leadership.is_mine).max_by_key(|(_, own)| own.term).map(|(id, _)| id)
    }
}

/// Below the ports that connections get by themselves, so that none of them takes it meanwhile.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = 12_000 + u16::try_from(std::process::id() % 200).expect("small") * 90;
    loop {
        let port = begin + NEXT.fetch_add(1, Ordering::Relaxed) % 900;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
