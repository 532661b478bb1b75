//! The handshake's messages: who speaks, from which cluster and disk, and why not.

use std::fmt;

use base::checksum::{crc32c, crc32c_append};
use base::{ClusterId, DiskId, NodeId};
use uuid::Uuid;

use super::Lane;
use super::enter::EnterRequest;
use super::join::{JoinRequest, Joined, SECRET_BYTES};

const MAGIC: [u8; 8] = *b"SWpeer\r\n";
/// Everything starts with this many bytes.
pub const HEADER_BYTES: usize = 16;
/// What follows the header.
pub const BODY_BYTES_MAX: usize = 8 << 10;
/// Longest text of a refusal.
const REFUSAL_BYTES_MAX: usize = 1 << 10;
const HELLO_BYTES: usize = 64;
/// Versions of the protocol this build speaks.
pub const VERSION_MIN: u16 = 1;
pub const VERSION_MAX: u16 = 1;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSAL: u8 = 3;
const AGREED: u8 = 4;
const JOIN: u8 = 5;
const JOINED: u8 = 6;
const ENTER: u8 = 7;
const ENTERED: u8 = 8;

/// What one side says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Protocol versions spoken; in a welcome both are the chosen one.
    pub versions: (u16, u16),
    pub lane: Lane,
    pub node: NodeId,
    /// Whom it means to speak to.
    pub to: NodeId,
    pub cluster: Option<ClusterId>,
    pub disk: DiskId,
    pub instance: Uuid,
}

/// Why two nodes do not talk. The numbers are on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum RefusalCode {
    Version = 1,
    Cluster = 2,
    WrongNode = 3,
    NotMember = 4,
    OtherDisk = 5,
    TwoNodes = 6,
    Duplicate = 7,
    Identity = 8,
    Malformed = 9,
    /// Not now: ask again.
    NotYet = 10,
    /// From a newer release.
    Other = u16::MAX,
}

/// A reason with its words for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub code: RefusalCode,
    pub text: String,
}

impl Refusal {
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A message of the handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Greeting {
    Hello(Hello),
    Welcome(Hello),
    Refusal(Refusal),
    Agreed,
    Join(JoinRequest),
    Joined(Joined),
    Enter(EnterRequest),
    /// What the new member must know; opaque here.
    Entered(Vec<u8>),
}

/// The checked first 16 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    kind: u8,
    /// Bytes that follow; at most [`BODY_BYTES_MAX`].
    pub body_bytes: usize,
    checksum: u32,
    start: [u8; 12],
}

impl Header {
    /// Notices TLS by its first byte: an alert, or a client's hello.
    pub fn check_start(byte: u8) -> Result<(), Refusal> {
        if matches!(byte, 0x15 | 0x16) {
            let text = "one of the two speaks TLS and the other does not: let both join the cluster, or none";
            return Err(Refusal::new(RefusalCode::Malformed, text));
        }
        Ok(())
    }

    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Refusal> {
        let malformed = |text: &str| Refusal::new(RefusalCode::Malformed, text);
        Self::check_start(bytes[0])?;
        if bytes[..8] != MAGIC {
            return Err(malformed("it does not speak the peer protocol: is this the right port?"));
        }
        let body_bytes = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
        if body_bytes > BODY_BYTES_MAX {
            return Err(malformed("its greeting is too long"));
        }
        let checksum = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        let mut start = [0; 12];
        start.copy_from_slice(&bytes[..12]);
        Ok(Self { kind: bytes[8], body_bytes, checksum, start })
    }
}

impl Greeting {
    pub fn encode(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Hello(hello) => (HELLO, encode_hello(hello)),
            Self::Welcome(hello) => (WELCOME, encode_hello(hello)),
            Self::Refusal(refusal) => (REFUSAL, encode_refusal(refusal)),
            Self::Agreed => (AGREED, Vec::new()),
            Self::Join(request) => (JOIN, encode_join(request)),
            Self::Joined(joined) => (JOINED, encode_joined(joined)),
            Self::Enter(request) => (ENTER, request.encode()),
            Self::Entered(body) => (ENTERED, body.clone()),
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[kind, 0]);
        bytes.extend_from_slice(&u16::try_from(body.len()).unwrap_or(0).to_le_bytes());
        let checksum = crc32c_append(crc32c(&bytes), &body);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    pub fn decode(header: &Header, body: &[u8]) -> Result<Self, Refusal> {
        let malformed = |text: &str| Refusal::new(RefusalCode::Malformed, text);
        if crc32c_append(crc32c(&header.start), body) != header.checksum {
            return Err(malformed("its greeting has a wrong checksum"));
        }
        let short = || malformed("its greeting is too short");
        match header.kind {
            HELLO => decode_hello(body).map(Self::Hello).ok_or_else(short),
            WELCOME => decode_hello(body).map(Self::Welcome).ok_or_else(short),
            REFUSAL => decode_refusal(body).map(Self::Refusal).ok_or_else(short),
            AGREED => Ok(Self::Agreed),
            JOIN => decode_join(body).map(Self::Join).ok_or_else(short),
            JOINED => decode_joined(body).map(Self::Joined).ok_or_else(short),
            ENTER => EnterRequest::decode(body).map(Self::Enter).ok_or_else(short),
            ENTERED => Ok(Self::Entered(body.to_vec())),
            _ => Err(malformed("its greeting is of an unknown kind")),
        }
    }
}

fn encode_hello(hello: &Hello) -> Vec<u8> {
    let mut body = Vec::with_capacity(HELLO_BYTES);
    body.extend_from_slice(&hello.versions.0.to_le_bytes());
    body.extend_from_slice(&hello.versions.1.to_le_bytes());
    body.extend_from_slice(&[hello.lane.number(), 0, 0, 0]);
    body.extend_from_slice(&hello.node.0.to_le_bytes());
    body.extend_from_slice(&hello.to.0.to_le_bytes());
    body.extend_from_slice(hello.cluster.map_or(Uuid::nil(), |cluster| cluster.0).as_bytes());
    body.extend_from_slice(hello.disk.0.as_bytes());
    body.extend_from_slice(hello.instance.as_bytes());
    body
}

/// A hello of a version this build does not speak is decoded as far as the versions, so that it can be answered.
fn decode_hello(body: &[u8]) -> Option<Hello> {
    let versions = (u16_at(body, 0)?, u16_at(body, 2)?);
    if !overlaps(versions) {
        let nobody = NodeId(0);
        let nil = Uuid::nil();
        let lane = Lane::Control;
        return Some(Hello {
            versions,
            lane,
            node: nobody,
            to: nobody,
            cluster: None,
            disk: DiskId(nil),
            instance: nil,
        });
    }
    let cluster = uuid_at(body, 16)?;
    Some(Hello {
        versions,
        lane: Lane::from_number(*body.get(4)?)?,
        node: NodeId(u32_at(body, 8)?),
        to: NodeId(u32_at(body, 12)?),
        cluster: (!cluster.is_nil()).then_some(ClusterId(cluster)),
        disk: DiskId(uuid_at(body, 32)?),
        instance: uuid_at(body, 48)?,
    })
}

fn overlaps(versions: (u16, u16)) -> bool {
    versions.0 <= VERSION_MAX && versions.1 >= VERSION_MIN
}

/// The newest version both speak.
pub fn common_version(theirs: (u16, u16)) -> Result<u16, Refusal> {
    if overlaps(theirs) {
        return Ok(theirs.1.min(VERSION_MAX));
    }
    let (oldest, newest) = theirs;
    let text = format!(
        "one speaks the peer protocol {oldest} to {newest}, the other {VERSION_MIN} to {VERSION_MAX}: upgrade one \
         release at a time"
    );
    Err(Refusal::new(RefusalCode::Version, text))
}

fn encode_refusal(refusal: &Refusal) -> Vec<u8> {
    let mut body = (refusal.code as u16).to_le_bytes().to_vec();
    body.extend_from_slice(cut(&refusal.text, REFUSAL_BYTES_MAX).as_bytes());
    body
}

fn decode_refusal(body: &[u8]) -> Option<Refusal> {
    let code = match u16_at(body, 0)? {
        1 => RefusalCode::Version,
        2 => RefusalCode::Cluster,
        3 => RefusalCode::WrongNode,
        4 => RefusalCode::NotMember,
        5 => RefusalCode::OtherDisk,
        6 => RefusalCode::TwoNodes,
        7 => RefusalCode::Duplicate,
        8 => RefusalCode::Identity,
        9 => RefusalCode::Malformed,
        10 => RefusalCode::NotYet,
        _ => RefusalCode::Other,
    };
    Some(Refusal { code, text: printable(body.get(2..)?) })
}

fn encode_join(request: &JoinRequest) -> Vec<u8> {
    [&request.node.0.to_le_bytes()[..], &request.secret, &request.public_key].concat()
}

fn decode_join(body: &[u8]) -> Option<JoinRequest> {
    Some(JoinRequest {
        node: NodeId(u32_at(body, 0)?),
        secret: *body.get(4..)?.first_chunk()?,
        public_key: *body.get(4 + SECRET_BYTES..)?.first_chunk()?,
    })
}

fn encode_joined(joined: &Joined) -> Vec<u8> {
    let length = u16::try_from(joined.authority.len()).unwrap_or(0).to_le_bytes();
    [&joined.cluster.0.as_bytes()[..], &length, &joined.authority, &joined.certificate].concat()
}

fn decode_joined(body: &[u8]) -> Option<Joined> {
    let length = usize::from(u16_at(body, 16)?);
    let (authority, certificate) = body.get(18..)?.split_at_checked(length)?;
    Some(Joined {
        cluster: ClusterId(uuid_at(body, 0)?),
        authority: authority.to_vec().into(),
        certificate: certificate.to_vec().into(),
    })
}

/// The longest start of `text` within `bytes_max`.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Text from a peer, fit for a log line and a terminal.
pub fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn uuid_at(bytes: &[u8], at: usize) -> Option<Uuid> {
    Uuid::from_slice(bytes.get(at..at + 16)?).ok()
}
