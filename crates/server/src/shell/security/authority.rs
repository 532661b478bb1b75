//! The cluster's own certificate authority: signs certificates for nodes that show a token.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base::{ClusterId, NodeId, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::peers::join::{Authority, JoinRequest, Joined, PUBLIC_KEY_BYTES, SECRET_BYTES, fingerprint};
use super::super::peers::tls::node_name;
use super::{ROOTS, SecurityError, Token, cluster, exists, hex, read, write, write_node};

const AUTHORITY_KEY: &str = "ca.key";
const TOKENS: &str = "tokens.json";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Certificates are valid from a day before, as clocks differ ..
const BEFORE: Duration = DAY;
/// .. for ten years. Replacing them is joining again.
const VALID: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);
/// How long a token can be used, unless told otherwise.
pub const TOKEN_VALID: Duration = DAY;
/// Tokens that are valid at the same time.
const TOKENS_MAX: usize = 256;

/// See the module.
pub struct CertificateAuthority {
    dir: PathBuf,
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    clock: fn() -> Timestamp,
    /// One change of the tokens' file at a time.
    changing: Mutex<()>,
}

/// What has been given out. Written by the node that serves and by commands run beside it; the last one counts.
#[derive(Default, Serialize, Deserialize)]
struct Given {
    tokens: Vec<GivenToken>,
    /// Node ids that have a certificate.
    joined: BTreeSet<NodeId>,
}

#[derive(Serialize, Deserialize)]
struct GivenToken {
    /// SHA-256 of the secret.
    digest: String,
    expires: Timestamp,
    /// The one node id it is for, which may have joined before; any new one if absent.
    node: Option<NodeId>,
}

impl CertificateAuthority {
    /// Makes an authority for a new cluster, and the certificate of its first node, in `dir`.
    ///
    /// # Errors
    /// If there is a certificate in the folder already.
    pub fn found(dir: &Path, node: NodeId, clock: fn() -> Timestamp) -> Result<Self, SecurityError> {
        if exists(dir) {
            return Err(SecurityError::Exists(dir.to_owned()));
        }
        let cluster = ClusterId(Uuid::new_v4());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = authority_params(cluster, clock());
        let certificate = CertificateDer::from(params.self_signed(&key)?);
        let secret = key.serialize_pem();
        let issuer = Issuer::new(params, key);
        let authority = Self { dir: dir.to_owned(), cluster, certificate, issuer, clock, changing: Mutex::default() };
        std::fs::create_dir_all(dir).map_err(|error| SecurityError::Io(dir.to_owned(), error))?;
        write(&dir.join(AUTHORITY_KEY), secret.as_bytes())?;
        authority.issue(dir, node)?;
        Ok(authority)
    }

    /// The authority in `dir`; `None` if the folder is a node's only.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(dir: &Path, clock: fn() -> Timestamp) -> Result<Option<Self>, SecurityError> {
        let path = dir.join(AUTHORITY_KEY);
        if !path.exists() {
            return Ok(None);
        }
        let damaged = |path: PathBuf, cause: String| SecurityError::Damaged { path, cause };
        let text = String::from_utf8_lossy(&read(&path)?).into_owned();
        let key = KeyPair::from_pem(&text).map_err(|error| damaged(path, error.to_string()))?;
        let cluster = cluster(dir)?;
        let roots = dir.join(ROOTS);
        let certificate = CertificateDer::from_pem_slice(&read(&roots)?);
        let certificate = certificate.map_err(|error| damaged(roots, error.to_string()))?;
        let issuer = Issuer::new(authority_params(cluster, clock()), key);
        Ok(Some(Self { dir: dir.to_owned(), cluster, certificate, issuer, clock, changing: Mutex::default() }))
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Makes the folder of a node on this machine.
    ///
    /// # Errors
    /// If there is a certificate in it already.
    pub fn issue(&self, dir: &Path, node: NodeId) -> Result<(), SecurityError> {
        if exists(dir) {
            return Err(SecurityError::Exists(dir.to_owned()));
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let joined = self.sign(node, &key)?;
        self.change(|given| {
            given.joined.insert(node);
            Ok(())
        })?;
        write_node(dir, &joined, &key)
    }

    /// Gives out a token. With a node id it is for that one, also if it has joined before; else for any new one.
    ///
    /// # Errors
    /// If there are too many, or the file cannot be written.
    pub fn token(&self, valid: Duration, node: Option<NodeId>) -> Result<Token, SecurityError> {
        let token = Token { secret: *Uuid::new_v4().as_bytes(), authority: fingerprint(&self.certificate) };
        let expires = plus((self.clock)(), valid);
        let digest = digest(&token.secret);
        self.change(|given| {
            if given.tokens.len() >= TOKENS_MAX {
                return Err(SecurityError::Refused(format!("there are {TOKENS_MAX} tokens already; let some expire")));
            }
            given.tokens.push(GivenToken { digest, expires, node });
            Ok(())
        })?;
        Ok(token)
    }

    fn admit(&self, request: &JoinRequest) -> Result<(), SecurityError> {
        let digest = digest(&request.secret);
        let node = request.node;
        self.change(|given| {
            let refuse = |text: String| Err(SecurityError::Refused(text));
            let Some(token) = given.tokens.iter().find(|token| token.digest == digest) else {
                return refuse("the token is unknown or has expired: make one with `seawall cluster token`".into());
            };
            if let Some(only) = token.node.filter(|only| *only != node) {
                return refuse(format!("the token is for node {only}, not for node {node}"));
            }
            if token.node.is_none() && given.joined.contains(&node) {
                return refuse(format!(
                    "node {node} has joined already: choose another node.id, or make a token for it with `seawall \
                     cluster token --node-id {node}`"
                ));
            }
            given.joined.insert(node);
            Ok(())
        })
    }

    /// Changes what has been given out, without what has expired.
    fn change(&self, change: impl FnOnce(&mut Given) -> Result<(), SecurityError>) -> Result<(), SecurityError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.dir.join(TOKENS);
        let mut given = match path.exists() {
            false => Given::default(),
            true => serde_json::from_slice(&read(&path)?)
                .map_err(|error| SecurityError::Damaged { path: path.clone(), cause: error.to_string() })?,
        };
        let now = (self.clock)();
        given.tokens.retain(|token| token.expires > now);
        change(&mut given)?;
        write(&path, &serde_json::to_vec_pretty(&given).unwrap_or_default())
    }

    fn sign(&self, node: NodeId, key: &impl PublicKeyData) -> Result<Joined, SecurityError> {
        let mut params = CertificateParams::new([node_name(self.cluster, node)])?;
        let name = format!("seawall node {node}");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_time(&mut params, (self.clock)());
        let certificate = params.signed_by(key, &self.issuer)?.into();
        Ok(Joined { cluster: self.cluster, authority: self.certificate.clone(), certificate })
    }
}

impl Authority for CertificateAuthority {
    fn join(&self, request: &JoinRequest) -> Result<Joined, String> {
        let joining = || {
            // The key is tried first: a token is not used up by nonsense.
            let joined = self.sign(request.node, &PublicPoint(request.public_key))?;
            self.admit(request)?;
            Ok::<_, SecurityError>(joined)
        };
        let result = joining();
        match &result {
            Ok(_) => tracing::info!(node = %request.node, "a node joined: it has its certificate"),
            Err(error) => tracing::warn!(node = %request.node, %error, "a node was not let in"),
        }
        result.map_err(|error| error.to_string())
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// A newcomer's public key.
struct PublicPoint([u8; PUBLIC_KEY_BYTES]);

impl PublicKeyData for PublicPoint {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn authority_params(cluster: ClusterId, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("seawall cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_time(&mut params, now);
    params
}

fn set_time(params: &mut CertificateParams, now: Timestamp) {
    let since_1970 = Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
    let now = date_time_ymd(1970, 1, 1) + since_1970;
    params.not_before = now - BEFORE;
    params.not_after = now + VALID;
}

fn plus(now: Timestamp, time: Duration) -> Timestamp {
    now.plus(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

fn digest(secret: &[u8; SECRET_BYTES]) -> String {
    hex(&fingerprint(secret))
}

/// A certificate as text.
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let encoded = base64(certificate);
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let value = group.iter().chain(&[0, 0]).take(3).fold(0u32, |value, byte| value << 8 | u32::from(*byte));
        for place in 0..4 {
            let digit = usize::try_from(value >> (18 - 6 * place) & 63).unwrap_or(0);
            text.push(if place <= group.len() { char::from(DIGITS[digit]) } else { '=' });
        }
    }
    text
}
