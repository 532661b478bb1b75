//! Links that are encrypted, and on which both sides prove which node they are.
//!
//! A node's certificate names the node and its cluster (`node-2.<cluster id>.seawall`) and is signed by the cluster's
//! own authority. The dialler checks the name while TLS is set up, the acceptor against the hello.
//!
//! What always holds: without a certificate of the cluster nothing but a join is heard; TLS 1.3 only; no session is
//! resumed, so that a certificate that was replaced is not in use any more.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base::{ClusterId, NodeId};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::connection::{Reading, Writing};
use super::handshake::HandshakeError;
use super::hello::{Refusal, RefusalCode};

/// What a node proves itself with.
#[derive(Debug)]
pub struct Credentials {
    pub cluster: ClusterId,
    /// Authorities that are trusted.
    pub roots: Vec<CertificateDer<'static>>,
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

/// [`Credentials`] ready for use.
pub struct Tls {
    cluster: ClusterId,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    /// # Errors
    /// If the key does not belong to the certificate, or one of them cannot be read.
    pub fn new(credentials: Credentials) -> Result<Self, rustls::Error> {
        let Credentials { cluster, roots: trusted, certificate, key } = credentials;
        let mut roots = RootCertStore::empty();
        for root in &trusted {
            roots.add(root.clone())?;
        }
        let roots = Arc::new(roots);
        // The authority goes along: whoever wants to join knows it by its fingerprint only.
        let mut chain = vec![certificate];
        chain.extend(trusted);
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        client.resumption = Resumption::disabled();
        Ok(Self { cluster, acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }

    /// Sets TLS up with `node`, which was dialled.
    pub async fn connect(&self, stream: TcpStream, node: NodeId) -> Result<Wire, HandshakeError> {
        let name = server_name(self.cluster, node)?;
        let stream = self.connector.connect(name, stream).await.map_err(explain)?;
        Ok(Wire::Tls(Box::new(stream.into())))
    }

    /// Sets TLS up with someone who dialled.
    pub async fn accept(&self, stream: TcpStream) -> Result<Wire, HandshakeError> {
        let stream = self.acceptor.accept(stream).await.map_err(explain)?;
        Ok(Wire::Tls(Box::new(stream.into())))
    }

    /// Is the certificate that was shown the one of `node`?
    pub fn check(&self, certificate: Option<&CertificateDer<'_>>, node: NodeId) -> Result<(), Refusal> {
        let refuse = |text: String| Err(Refusal::new(RefusalCode::Identity, text));
        let Some(certificate) = certificate else {
            return refuse(format!("node {node} showed no certificate: let it join with `seawall cluster join`"));
        };
        let name = server_name(self.cluster, node);
        let belongs = ParsedCertificate::try_from(certificate)
            .ok()
            .zip(name.ok())
            .is_some_and(|(certificate, name)| rustls::client::verify_server_name(&certificate, &name).is_ok());
        if belongs {
            return Ok(());
        }
        refuse(format!("the certificate shown by node {node} is not that of node {node} of cluster {}", self.cluster))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

pub static VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The name in the certificate of `node`.
pub fn node_name(cluster: ClusterId, node: NodeId) -> String {
    format!("node-{node}.{cluster}.seawall")
}

fn server_name(cluster: ClusterId, node: NodeId) -> Result<ServerName<'static>, HandshakeError> {
    ServerName::try_from(node_name(cluster, node)).map_err(|error| HandshakeError::Io(io::Error::other(error)))
}

/// What a failure of TLS means for people.
pub fn explain(error: io::Error) -> HandshakeError {
    use rustls::{AlertDescription, CertificateError, Error};
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) else {
        return HandshakeError::Io(error);
    };
    let text = match cause {
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is that of another node or cluster: correct cluster.peers, or let it join again".into(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is of another cluster's authority: let it join with `seawall cluster join`".into()
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired: let it join again, and check the clocks of both".into()
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "its certificate is not valid yet: check the clocks of both".into()
        }
        Error::AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
            "it does not know the authority of this node's certificate: let this node join that cluster".into()
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "this node's certificate has expired: let it join again".into()
        }
        Error::InvalidMessage(_) => {
            "it does not speak TLS, as this node does: let it join with `seawall cluster join`".into()
        }
        other => format!("TLS: {other}"),
    };
    HandshakeError::Refused(Refusal::new(RefusalCode::Identity, text))
}

/// A connection, encrypted or not.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// What the other side has shown.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.peer_certificates()?.first(),
        }
    }

    pub fn split(self) -> (Reading, Writing) {
        match self {
            Self::Plain(stream) => {
                let (reading, writing) = stream.into_split();
                (Box::new(reading), Box::new(writing))
            }
            Self::Tls(stream) => {
                let (reading, writing) = tokio::io::split(*stream);
                (Box::new(reading), Box::new(writing))
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
