//! How a new node gets its certificate: it shows a token, to an authority that it knows by its fingerprint.
//!
//! The token is a secret that the authority gave out, and the fingerprint of the authority's certificate. The newcomer
//! says the secret only to who holds a certificate of that authority; its key never leaves it.

use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, NodeId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::handshake::{self, HandshakeError};
use super::hello::{Greeting, Refusal, RefusalCode};
use super::tls::{self, Wire};

/// Connecting and being answered.
const JOIN_MAX: Duration = Duration::from_secs(10);

pub const SECRET_BYTES: usize = 16;
pub const FINGERPRINT_BYTES: usize = 32;
/// A point of the curve P-256, uncompressed.
pub const PUBLIC_KEY_BYTES: usize = 65;

/// What a newcomer asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinRequest {
    pub secret: [u8; SECRET_BYTES],
    /// Who it wants to be.
    pub node: NodeId,
    pub public_key: [u8; PUBLIC_KEY_BYTES],
}

/// What it gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    pub cluster: ClusterId,
    pub authority: CertificateDer<'static>,
    pub certificate: CertificateDer<'static>,
}

/// Who decides about joining.
pub trait Authority: Send + Sync + std::fmt::Debug {
    /// # Errors
    /// The reason, for the one who asked.
    fn join(&self, request: &JoinRequest) -> Result<Joined, String>;
}

/// SHA-256 of a certificate.
pub fn fingerprint(certificate: &[u8]) -> [u8; FINGERPRINT_BYTES] {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let mut bytes = [0; FINGERPRINT_BYTES];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// Asks the node at `address` for a certificate. Only an authority with this fingerprint hears the secret.
///
/// # Errors
/// Why it was not to be had, in words.
pub async fn join(
    address: &str,
    authority: [u8; FINGERPRINT_BYTES],
    request: JoinRequest,
) -> Result<Joined, HandshakeError> {
    timeout(JOIN_MAX, ask(address, authority, request)).await.map_err(|_| HandshakeError::Timeout)?
}

async fn ask(
    address: &str,
    authority: [u8; FINGERPRINT_BYTES],
    request: JoinRequest,
) -> Result<Joined, HandshakeError> {
    let algorithms = tls::provider().signature_verification_algorithms;
    let verifier = Arc::new(ByFingerprint { authority, algorithms });
    let client = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(tls::VERSIONS)
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let anyone = ServerName::try_from("anyone.seawall").map_err(std::io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(client)).connect(anyone, stream).await.map_err(tls::explain)?;
    let mut wire = Wire::Tls(Box::new(stream.into()));
    handshake::write(&mut wire, &Greeting::Join(request)).await?;
    let joined = match handshake::read(&mut wire).await? {
        Greeting::Joined(joined) => joined,
        Greeting::Refusal(refusal) => return Err(HandshakeError::Refused(refusal)),
        _ => return Err(HandshakeError::Refused(handshake::unexpected())),
    };
    if fingerprint(&joined.authority) != authority {
        let text = "it answered with the certificate of another authority than the token's";
        return Err(HandshakeError::Refused(Refusal::new(RefusalCode::Identity, text)));
    }
    Ok(joined)
}

/// Trusts whoever has a certificate of the one authority, whatever its name.
#[derive(Debug)]
struct ByFingerprint {
    authority: [u8; FINGERPRINT_BYTES],
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|certificate| fingerprint(certificate) == self.authority);
        let authority = authority.ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let all = self.algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&certificate, &roots, &[], now, all)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
