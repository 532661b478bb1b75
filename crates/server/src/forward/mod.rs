//! `seawall forward`: events are taken beside the program that makes them, kept on its own disk, and passed on to a cluster.
//!
//! ```text
//! Kafka clients --> edge/kafka --+
//! files that grow --> tail ------+--> a node of its own (the spool: fsync, then the acknowledgement)
//! stdin --> feed ----------------+          |
//!                                           v
//!                             ship: cut, note, send, read answers --> the cluster's leaders
//!                                           |
//!                                           +--> dead-letters.ndjson: what the cluster refuses for good
//! ```
//! The spool is the log that every node has, with one voter: what was acknowledged is on disk, and a full spool refuses
//! writes with an error that clients retry. What decides about sending is `log::forward`.
//!
//! What always holds: a record that was acknowledged here reaches the cluster, once and in its partition's order, or the file
//! of dead letters with the reason; nothing is deleted here before the cluster has it.
//!
//! Deliberately not here: transactions (refused), consumer groups over the spool, SQL.

mod dead;
mod feed;
mod places;
mod records;
mod remote;
mod ship;
mod status;
mod tail;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::{ByteSize, Config};
use crate::edge;
use crate::node::start::{StartError, start};
use crate::node::{Node, Spool};

pub use places::PlacesError;
use remote::Remote;
use status::Status;

/// Size of a log file of the spool: what has been passed on is deleted in these steps.
const FILE_BYTES: u64 = 16 << 20;
/// How often the end of a one-off source is looked for.
const DONE_POLL: Duration = Duration::from_millis(20);

/// What to forward, and where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port` of the cluster's nodes.
    pub to: Vec<String>,
    /// The spool's folder.
    pub spool: PathBuf,
    pub spool_bytes: u64,
    /// Where programs here connect as if it were the cluster.
    pub kafka: SocketAddr,
    /// Health, metrics and findings, if wanted.
    pub http: Option<SocketAddr>,
    pub tails: Vec<Tail>,
    /// Lines of stdin go to this topic; at its end, and when all has been passed on, the process ends.
    pub stdin: Option<String>,
    /// Accept an address other machines can reach.
    pub insecure: bool,
}

/// A file whose lines are forwarded as they are written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tail {
    pub topic: String,
    pub path: PathBuf,
}

/// Why forwarding ended.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Places(#[from] PlacesError),
    #[error("{0}: {1}")]
    Io(&'static str, std::io::Error),
    #[error("stdin: {0}")]
    Feed(String),
}

/// Forwards until SIGTERM or SIGINT, or until stdin has ended and everything has been passed on.
pub fn forward(options: Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no threads could be started");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "forwarding ended");
            ExitCode::FAILURE
        }
    };
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn run(options: Options) -> Result<(), ForwardError> {
    let listener = TcpListener::bind(options.kafka).await.map_err(|error| ForwardError::Io("--kafka", error))?;
    let forwarder = Forwarder::start(&options, listener).await?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| ForwardError::Io("signals", error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| ForwardError::Io("signals", error))?;
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = fed(&forwarder, options.stdin.as_deref()) => ended,
    };
    forwarder.close().await;
    ended
}

/// Stdin to its end, and until the cluster has all of it. Never, without stdin.
async fn fed(forwarder: &Forwarder, topic: Option<&str>) -> Result<(), ForwardError> {
    let Some(topic) = topic else { return std::future::pending().await };
    feed::feed(&forwarder.node, topic, &forwarder.dead).await.map_err(ForwardError::Feed)?;
    while !forwarder.is_empty() {
        tokio::time::sleep(DONE_POLL).await;
    }
    Ok(())
}

/// A running spool and what empties it.
pub(crate) struct Forwarder {
    node: Arc<Node>,
    dead: Arc<dead::DeadLetters>,
    status: Arc<Status>,
    stopping: watch::Sender<bool>,
    stopped: Arc<AtomicBool>,
    shipping: Option<std::thread::JoinHandle<()>>,
    _data: crate::node::DataDir,
}

impl Forwarder {
    pub(crate) async fn start(options: &Options, listener: TcpListener) -> Result<Self, ForwardError> {
        let (node, data) = start(Arc::new(config_of(options))).await?;
        let remote = Remote::new(options.to.clone());
        node.make_spool(Spool::new(move |topic| remote::partitions(&remote, topic)));
        let places = Arc::new(places::Places::open(&options.spool)?);
        let dead = dead::DeadLetters::open(&options.spool).map_err(|error| ForwardError::Io("dead letters", error))?;
        let dead = Arc::new(dead);
        let (status, stopped) = (Arc::new(Status::new(options)), Arc::new(AtomicBool::new(false)));
        let (stopping, _) = watch::channel(false);
        let until = |mut stop: watch::Receiver<bool>| async move {
            drop(stop.wait_for(|stop| *stop).await);
        };
        tokio::spawn(edge::kafka::serve(Arc::clone(&node), listener, until(stopping.subscribe())));
        if let Some(address) = options.http {
            let listener = TcpListener::bind(address).await.map_err(|error| ForwardError::Io("--http", error))?;
            tokio::spawn(edge::http::serve(Arc::clone(&node), listener, until(stopping.subscribe())));
        }
        for tail in &options.tails {
            let tail = tail::Tailing::new(tail.clone(), &node, &places, &dead);
            tokio::spawn(tail.run(until(stopping.subscribe())));
        }
        let shipper =
            ship::Shipper::new(&node, options.to.clone(), places, Arc::clone(&dead), &status, Arc::clone(&stopped));
        let shipping = std::thread::Builder::new()
            .name("forward".into())
            .spawn(move || shipper.run())
            .map_err(|error| ForwardError::Io("a thread", error))?;
        tracing::info!(
            kafka = %options.kafka, to = options.to.join(","), spool = %options.spool.display(), "forwarding"
        );
        Ok(Self { node, dead, status, stopping, stopped, shipping: Some(shipping), _data: data })
    }

    /// True if the cluster has, or has refused, everything that was acknowledged here.
    pub(crate) fn is_empty(&self) -> bool {
        self.status.is_empty(&self.node)
    }

    pub(crate) async fn close(mut self) {
        self.stopping.send_replace(true);
        self.stopped.store(true, Ordering::Release);
        if let Some(shipping) = self.shipping.take() {
            drop(tokio::task::spawn_blocking(move || shipping.join()).await);
        }
        self.node.close().await;
    }
}

/// The spool is a node that keeps records until they have been passed on, whatever their age.
fn config_of(options: &Options) -> Config {
    let mut config = Config::new();
    config.node.data_dir.clone_from(&options.spool);
    config.listen.kafka = options.kafka;
    config.listen.insecure = options.insecure;
    if let Some(http) = options.http {
        config.listen.http = http;
    }
    config.log.retention = None;
    config.log.retention_bytes = None;
    config.log.bytes_max = Some(ByteSize(options.spool_bytes));
    config.log.file_bytes = ByteSize(FILE_BYTES);
    config.log.auto_create_topics = true;
    config
}
