//! Connections: accepted up to a bound, through startup, then message by message until one side ends it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pgwire::messages::response::{GssEncResponse, SslResponse, TransactionStatus};
use pgwire::messages::startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, SecretKey};
use pgwire::messages::{Message as _, PgWireBackendMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::cancel::Cancels;
use super::failure::Failure;
use super::limits::{DRAIN_TIMEOUT, MESSAGE_READ_TIMEOUT, STARTUP_TIMEOUT, WRITE_STALL_TIMEOUT};
use super::session::{End, Session};
use super::settings::Settings;
use super::wire::{Frontend, Startup, WireError, read_message, read_startup};
use crate::edge::queries::Queries;
use crate::edge::socket::Patient;

/// How long to wait after an accept failed: descriptors may come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Encryption may be asked for twice (GSS, then TLS) before the startup packet.
const NEGOTIATIONS_MAX: usize = 2;
/// The newest protocol we speak, as startup packets number it.
const MINOR_MAX: u16 = 2;
/// 3.2 in the 32 bits of a version.
const VERSION_3_0: i32 = 3 << 16;

/// What every session shares.
#[derive(Clone)]
struct Shared {
    queries: Queries,
    cancels: Arc<Cancels>,
    stopped: watch::Receiver<bool>,
}

/// Serves sessions until `stop` is done, then gives open ones a moment to end what they do.
pub async fn serve(queries: Queries, connections_max: usize, listener: TcpListener, stop: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(connections_max));
    let (stopping, stopped) = watch::channel(false);
    let shared = Shared { queries, cancels: Arc::new(Cancels::default()), stopped };
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "postgres: accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let slot = Arc::clone(&slots).try_acquire_owned().ok();
        let shared = shared.clone();
        tokio::spawn(async move {
            let full = slot.is_none();
            if let Err(error) = connection(stream, shared, full).await {
                tracing::debug!(%peer, %error, "postgres: session ended");
            }
            drop(slot);
        });
    }
    let _ = stopping.send(true);
    let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, slots.acquire_many(all)).await;
}

async fn connection(stream: TcpStream, shared: Shared, full: bool) -> Result<(), End> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    let (mut reader, mut writer) = (BufReader::new(read), Patient::new(write, WRITE_STALL_TIMEOUT));
    let begun = tokio::time::timeout(STARTUP_TIMEOUT, begin(&mut reader, &mut writer, &shared)).await;
    let Ok(begun) = begun else {
        return Err(WireError::Malformed(format!("no startup packet within {} s", STARTUP_TIMEOUT.as_secs())).into());
    };
    let Some((minor, parameters)) = begun? else { return Ok(()) };
    let refusal = match () {
        () if full => Some(Failure::fatal("53300", "sorry, too many clients already; see listen.connections_max")),
        () if !parameters.iter().any(|(name, value)| name == "user" && !value.is_empty()) => {
            Some(Failure::fatal("28000", "no PostgreSQL user name specified in startup packet"))
        }
        () => None,
    };
    if let Some(failure) = refusal {
        return say_last(&mut writer, &failure).await;
    }
    let mut session = new_session(reader, writer, &shared, minor, &parameters);
    session.welcome(minor, &parameters).await?;
    session.run().await
}

async fn say_last(writer: &mut Patient<OwnedWriteHalf>, failure: &Failure) -> Result<(), End> {
    let mut out = BytesMut::new();
    let _ = failure.response().encode(&mut out);
    writer.write_all(&out).await?;
    Ok(writer.shutdown().await?)
}

/// Up to the startup packet. `None`: it was a cancel request, which is done.
async fn begin(
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut Patient<OwnedWriteHalf>,
    shared: &Shared,
) -> Result<Option<(u16, Vec<(String, String)>)>, End> {
    for _ in 0..=NEGOTIATIONS_MAX {
        match read_startup(reader).await? {
            Startup::Ssl => writer.write_all(&[SslResponse::BYTE_REFUSE]).await?,
            Startup::Gss => writer.write_all(&[GssEncResponse::BYTE_REFUSE]).await?,
            Startup::Cancel { pid, secret } => {
                shared.cancels.cancel(pid, &secret, &shared.queries);
                return Ok(None);
            }
            Startup::Start { major: 3, minor, parameters } => return Ok(Some((minor, parameters))),
            Startup::Start { major, minor, .. } => {
                let message = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2");
                say_last(writer, &Failure::fatal("0A000", message)).await?;
                return Ok(None);
            }
        }
    }
    Err(WireError::Malformed("encryption was asked for again and again".to_owned()).into())
}

fn new_session(
    reader: BufReader<OwnedReadHalf>,
    writer: Patient<OwnedWriteHalf>,
    shared: &Shared,
    minor: u16,
    parameters: &[(String, String)],
) -> Session {
    let mut settings = Settings::new();
    settings.start(parameters);
    let user = parameters.iter().find(|(name, _)| name == "user").map(|(_, value)| value.clone()).unwrap_or_default();
    Session {
        queries: shared.queries.clone(),
        reader,
        writer,
        out: BytesMut::new(),
        stopped: shared.stopped.clone(),
        registration: shared.cancels.register(minor >= MINOR_MAX),
        user,
        settings,
        transaction: TransactionStatus::Idle,
        statements: BTreeMap::new(),
        portals: BTreeMap::new(),
        skipping: false,
    }
}

impl Session {
    /// Authentication is not asked for: a listener that could be reached from other machines is not started without it.
    async fn welcome(&mut self, minor: u16, parameters: &[(String, String)]) -> Result<(), End> {
        let unknown: Vec<String> =
            parameters.iter().map(|(name, _)| name.clone()).filter(|name| name.starts_with("_pq_.")).collect();
        if minor != 0 && minor != MINOR_MAX || !unknown.is_empty() {
            let newest = VERSION_3_0 + i32::from(if minor >= MINOR_MAX { MINOR_MAX } else { 0 });
            self.say(&PgWireBackendMessage::NegotiateProtocolVersion(NegotiateProtocolVersion::new(newest, unknown)));
        }
        self.say(&PgWireBackendMessage::Authentication(Authentication::Ok));
        let reported: Vec<String> = self.settings.reported().map(|(name, _)| name.to_owned()).collect();
        for name in reported {
            self.say_setting(&name);
        }
        let secret = match <[u8; 4]>::try_from(self.registration.slot.secret()) {
            Ok(short) => SecretKey::I32(i32::from_be_bytes(short)),
            Err(_) => SecretKey::Bytes(Bytes::copy_from_slice(self.registration.slot.secret())),
        };
        self.say(&PgWireBackendMessage::BackendKeyData(BackendKeyData::new(self.registration.pid, secret)));
        self.say_ready();
        self.flush().await
    }

    /// Answers messages until one side ends the session.
    async fn run(&mut self) -> Result<(), End> {
        loop {
            match self.step().await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(End::Stopping) => {
                    let failure = Failure::fatal("57P01", "terminating connection: the node is stopping");
                    self.say_failure(&failure);
                    return self.flush().await;
                }
                Err(End::Wire(error @ (WireError::Malformed(_) | WireError::TooLarge { .. }))) => {
                    self.say_failure(&Failure::fatal("08P01", error.to_string()));
                    return self.flush().await;
                }
                Err(end) => return Err(end),
            }
        }
    }

    /// One message. `false`: the client said goodbye.
    async fn step(&mut self) -> Result<bool, End> {
        let first = tokio::select! {
            first = self.reader.read_u8() => first,
            _ = self.stopped.wait_for(|stopped| *stopped) => return Err(End::Stopping),
        };
        let kind = match first {
            Ok(kind) => kind,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(End::Left),
            Err(error) => return Err(error.into()),
        };
        let Ok(message) = tokio::time::timeout(MESSAGE_READ_TIMEOUT, read_message(kind, &mut self.reader)).await else {
            let waited = MESSAGE_READ_TIMEOUT.as_secs();
            return Err(WireError::Malformed(format!("the rest of a message did not come within {waited} s")).into());
        };
        match message? {
            Frontend::Terminate => return Ok(false),
            Frontend::Query(_) if self.skipping => {}
            Frontend::Query(text) => self.simple_query(&text).await?,
            Frontend::Copy => {}
            Frontend::Other(b'F') => {
                self.say_failure(&Failure::new("0A000", "function calls are not offered: SELECT the function"));
                self.say_ready();
                self.flush().await?;
            }
            Frontend::Other(kind) => {
                let shown = char::from(kind).escape_default();
                return Err(WireError::Malformed(format!("a message of type {shown} is not expected")).into());
            }
            extended => self.extended(extended).await?,
        }
        Ok(true)
    }
}
