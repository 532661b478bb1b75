//! `seawall serve`: the node, its listeners, and an orderly end.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::Node;
use super::start::{StartError, start};
use crate::config::Config;
use crate::edge;

/// Serves until SIGTERM or SIGINT; the exit code is for the shell.
pub fn serve(config: Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no threads could be started");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(run(Arc::new(config))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the node did not start");
            ExitCode::FAILURE
        }
    };
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

async fn run(config: Arc<Config>) -> Result<(), StartError> {
    let listeners = Listeners::bind(&config).await?;
    let begun = std::time::Instant::now();
    let (node, data) = start(Arc::clone(&config)).await?;
    let (stop, stopped) = watch::channel(false);
    let serving = listeners.serve(&node, &stopped);
    tracing::info!(
        kafka = %config.listen.kafka,
        http = %config.listen.http,
        postgres = %config.listen.postgres,
        data_dir = %data.path.display(),
        started_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        "serving"
    );
    let name = ended().await.map_err(|error| StartError::Io("signals", error))?;
    tracing::info!(signal = name, "stopping");
    stop.send_replace(true);
    for task in serving {
        drop(task.await);
    }
    node.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// The sockets, bound before anything is opened: an address that is taken is said at once.
struct Listeners {
    kafka: TcpListener,
    http: TcpListener,
    postgres: TcpListener,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, StartError> {
        Ok(Self {
            kafka: bind("listen.kafka", config.listen.kafka).await?,
            http: bind("listen.http", config.listen.http).await?,
            postgres: bind("listen.postgres", config.listen.postgres).await?,
        })
    }

    fn serve(self, node: &Arc<Node>, stopped: &watch::Receiver<bool>) -> [tokio::task::JoinHandle<()>; 3] {
        let until = |mut stopped: watch::Receiver<bool>| async move {
            drop(stopped.wait_for(|stopped| *stopped).await);
        };
        [
            tokio::spawn(edge::kafka::serve(Arc::clone(node), self.kafka, until(stopped.clone()))),
            tokio::spawn(edge::http::serve(Arc::clone(node), self.http, until(stopped.clone()))),
            tokio::spawn(edge::postgres::serve(Arc::clone(node), self.postgres, until(stopped.clone()))),
        ]
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| {
        let told = std::io::Error::new(error.kind(), format!("{address}: {error}; is another server running there?"));
        StartError::Io(key, told)
    })
}

async fn ended() -> std::io::Result<&'static str> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
