//! The greetings of a connection, on the side that dials and on the side that accepts.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::enter::EnterRequest;
use super::hello::{self, Greeting, HEADER_BYTES, Header, Hello, Refusal, RefusalCode};
use super::join::JoinRequest;
use super::local::Local;
use super::peer::{Peer, Place};
use super::{Lane, Security, admission};

/// Everything before the first frame, on the side that accepts.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(1);
/// On the side that dials: what was lost in a cut does not come any more, and the next attempt may be after the heal.
pub const DIAL_MAX: Duration = Duration::from_millis(700);
/// How long a refusal may take to be written and read before the connection is closed.
const PARTING: Duration = Duration::from_millis(200);

/// How a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Refused(Refusal),
    #[error("the handshake took longer than {} ms", DIAL_MAX.as_millis())]
    Timeout,
    /// It was no link that was wanted, but a certificate.
    #[error("a node has joined")]
    Joined,
    /// Nor this: a node asks to be made a member.
    #[error("node {} asks to be made a member", .0.node)]
    Enters(EnterRequest),
}

/// Greets the node that was dialled as `peer`.
pub async fn dial<S>(stream: &mut S, peer: &Arc<Peer>, lane: Lane) -> Result<Place, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let greeting = greet(stream, peer, lane);
    tokio::time::timeout(DIAL_MAX, greeting).await.map_err(|_| HandshakeError::Timeout)?
}

async fn greet<S>(stream: &mut S, peer: &Arc<Peer>, lane: Lane) -> Result<Place, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let local = &peer.local;
    let ours = local.hello(peer.node, lane, (hello::VERSION_MIN, hello::VERSION_MAX));
    write(stream, &Greeting::Hello(ours)).await?;
    let theirs = match read(stream).await? {
        Greeting::Welcome(theirs) => theirs,
        Greeting::Refusal(refusal) => return Err(HandshakeError::Refused(refusal)),
        _ => return Err(HandshakeError::Refused(unexpected())),
    };
    let allowed = admission::check_acceptor(local, peer.node, &theirs).and_then(|()| peer.admits(&theirs, local.node));
    if let Err(refusal) = allowed {
        part(stream, &refusal).await;
        return Err(HandshakeError::Refused(refusal));
    }
    write(stream, &Greeting::Agreed).await?;
    peer.place(&theirs, local.node).map_err(HandshakeError::Refused)
}

/// Who dialled, as far as it got.
pub struct Caller {
    /// Zero if it did not say.
    pub node: NodeId,
    pub result: Result<Place, HandshakeError>,
}

/// Answers a node that dialled. `find` knows the members.
pub async fn accept<S>(
    stream: &mut S,
    local: &Arc<Local>,
    find: impl Fn(&Hello) -> Result<Arc<Peer>, Refusal>,
) -> Caller
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut node = NodeId(0);
    let answering = answer(stream, local, find, &mut node);
    let result = match tokio::time::timeout(HANDSHAKE_MAX, answering).await {
        Ok(result) => result,
        Err(_) => Err(HandshakeError::Timeout),
    };
    Caller { node, result }
}

async fn answer<S>(
    stream: &mut S,
    local: &Arc<Local>,
    find: impl Fn(&Hello) -> Result<Arc<Peer>, Refusal>,
    node: &mut NodeId,
) -> Result<Place, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let theirs = match read(stream).await {
        Ok(Greeting::Hello(theirs)) => theirs,
        Ok(Greeting::Join(request)) => return join(stream, local, request).await,
        Ok(Greeting::Enter(request)) => {
            *node = request.node;
            return match hello::common_version(request.versions) {
                Ok(_) => Err(HandshakeError::Enters(request)),
                Err(refusal) => refuse(stream, refusal).await,
            };
        }
        Ok(_) => return refuse(stream, unexpected()).await,
        Err(HandshakeError::Refused(refusal)) => return refuse(stream, refusal).await,
        Err(error) => return Err(error),
    };
    *node = theirs.node;
    let allowed = admission::check_dialler(local, &theirs).and_then(|version| Ok((version, find(&theirs)?)));
    let (version, peer) = match allowed {
        Ok(allowed) => allowed,
        Err(refusal) => return refuse(stream, refusal).await,
    };
    if let Err(refusal) = peer.admits(&theirs, theirs.node) {
        return refuse(stream, refusal).await;
    }
    let ours = local.hello(theirs.node, theirs.lane, (version, version));
    write(stream, &Greeting::Welcome(ours)).await?;
    match read(stream).await? {
        Greeting::Agreed => peer.place(&theirs, theirs.node).map_err(HandshakeError::Refused),
        Greeting::Refusal(refusal) => Err(HandshakeError::Refused(refusal)),
        _ => refuse(stream, unexpected()).await,
    }
}

async fn refuse<S, T>(stream: &mut S, refusal: Refusal) -> Result<T, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    part(stream, &refusal).await;
    Err(HandshakeError::Refused(refusal))
}

/// Gives a newcomer its certificate. That ends the connection: a welcome is heard by a member only.
async fn join<S, T>(stream: &mut S, local: &Local, request: JoinRequest) -> Result<T, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let joined = match &local.security {
        Security::Tls { authority: Some(authority), .. } => {
            let authority = Arc::clone(authority);
            let joining = tokio::task::spawn_blocking(move || authority.join(&request)).await;
            joining.unwrap_or_else(|error| Err(error.to_string()))
        }
        _ => Err(format!("node {} holds no authority: join at the node that `cluster init` was run on", local.node)),
    };
    match joined {
        Ok(joined) => {
            write(stream, &Greeting::Joined(joined)).await?;
            stream.shutdown().await?;
            Err(HandshakeError::Joined)
        }
        Err(reason) => refuse(stream, Refusal::new(RefusalCode::Identity, reason)).await,
    }
}

/// Says why and waits until the other side has closed, so that the words are not lost with a reset.
pub async fn part<S>(stream: &mut S, refusal: &Refusal)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let parting = async {
        write(stream, &Greeting::Refusal(refusal.clone())).await?;
        stream.shutdown().await?;
        let mut rest = [0; 256];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    drop(tokio::time::timeout(PARTING, parting).await);
}

pub fn unexpected() -> Refusal {
    Refusal::new(RefusalCode::Malformed, "its greeting came out of turn")
}

pub async fn write<S: AsyncWrite + Unpin>(stream: &mut S, greeting: &Greeting) -> io::Result<()> {
    stream.write_all(&greeting.encode()).await?;
    stream.flush().await
}

pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Greeting, HandshakeError> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header[..1]).await?;
    // What TLS has to say in the clear is shorter than a header.
    Header::check_start(header[0]).map_err(HandshakeError::Refused)?;
    stream.read_exact(&mut header[1..]).await?;
    let header = Header::decode(&header).map_err(HandshakeError::Refused)?;
    let mut body = vec![0; header.body_bytes];
    stream.read_exact(&mut body).await?;
    Greeting::decode(&header, &body).map_err(HandshakeError::Refused)
}
