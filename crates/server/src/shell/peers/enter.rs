//! How a node that no other one knows is made a member: it asks one that is, on the peer port, and is told whom to speak
//! with. What is asked and told is the caller's; here are only the bytes around it and the limits in time.
//!
//! ```text
//! newcomer --Enter { versions, node, body }--> a member --Inbound::enter--> the metadata
//!          <--Entered { body } | Refusal-----
//! ```

use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Security;
use super::handshake::{self, HandshakeError};
use super::hello::{self, BODY_BYTES_MAX, Greeting, Refusal, RefusalCode};
use super::local::Local;
use super::tls::Wire;

/// Connecting, and TLS.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Until the metadata has it. Longer than a proposal may take.
const ENTER_MAX: Duration = Duration::from_secs(7);

/// What a newcomer asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EnterRequest {
    /// Protocol versions it speaks.
    pub versions: (u16, u16),
    /// Who it wants to be.
    pub node: NodeId,
    pub body: Vec<u8>,
}

impl EnterRequest {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (oldest, newest) = self.versions;
        [&oldest.to_le_bytes()[..], &newest.to_le_bytes(), &self.node.0.to_le_bytes(), &self.body].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let versions = (hello::u16_at(bytes, 0)?, hello::u16_at(bytes, 2)?);
        Some(Self { versions, node: NodeId(hello::u32_at(bytes, 4)?), body: bytes.get(8..)?.to_vec() })
    }
}

/// Asks the node `member` at `address` to make `node` a member.
///
/// # Errors
/// [`HandshakeError::Refused`] with the member's own words.
pub async fn enter(
    address: &str,
    member: NodeId,
    security: &Security,
    node: NodeId,
    body: Vec<u8>,
) -> Result<Vec<u8>, HandshakeError> {
    let asked = async {
        let stream = timeout(CONNECT_MAX, TcpStream::connect(address)).await.map_err(|_| HandshakeError::Timeout)??;
        let mut wire = match security.tls() {
            None => Wire::Plain(stream),
            Some(tls) => {
                timeout(CONNECT_MAX, tls.connect(stream, member)).await.map_err(|_| HandshakeError::Timeout)??
            }
        };
        let request = EnterRequest { versions: (hello::VERSION_MIN, hello::VERSION_MAX), node, body };
        handshake::write(&mut wire, &Greeting::Enter(request)).await?;
        match handshake::read(&mut wire).await? {
            Greeting::Entered(body) => Ok(body),
            Greeting::Refusal(refusal) => Err(HandshakeError::Refused(refusal)),
            _ => Err(HandshakeError::Refused(handshake::unexpected())),
        }
    };
    timeout(CONNECT_MAX + ENTER_MAX, asked).await.map_err(|_| HandshakeError::Timeout)?
}

/// Answers a newcomer. `proven`: what its certificate says of the number it wants.
pub(super) async fn answer(wire: &mut Wire, local: &Arc<Local>, request: EnterRequest, proven: Result<(), Refusal>) {
    let EnterRequest { node, body, .. } = request;
    let answered = match proven {
        Err(refusal) => Err(refusal),
        Ok(()) => {
            let inbound = Arc::clone(&local.inbound);
            let asked = local.server.spawn(async move { inbound.enter(node, Bytes::from(body)).await });
            let not_yet = |what: &str| Refusal::new(RefusalCode::NotYet, format!("{what}: ask again"));
            match timeout(ENTER_MAX, asked).await {
                Ok(Ok(answered)) => answered,
                Ok(Err(_)) => Err(not_yet("this node ends")),
                Err(_) => Err(not_yet("the metadata could not be changed in time")),
            }
        }
    };
    let refusal = match answered {
        Ok(body) if body.len() <= BODY_BYTES_MAX => {
            match handshake::write(wire, &Greeting::Entered(body.to_vec())).await {
                Ok(()) => return tracing::info!(%node, "a node was made a member"),
                Err(error) => return tracing::debug!(%node, %error, "a new member did not hear that it is one"),
            }
        }
        Ok(_) => Refusal::new(RefusalCode::Other, "the answer is larger than a greeting may be"),
        Err(refusal) => refusal,
    };
    tracing::warn!(%node, reason = %refusal, "a node was not made a member");
    handshake::part(wire, &refusal).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_as_it_went() {
        let request = EnterRequest { versions: (1, 3), node: NodeId(7), body: b"{}".to_vec() };
        let bytes = request.encode();
        assert_eq!(EnterRequest::decode(&bytes), Some(request));
        for cut in 0..8 {
            assert_eq!(EnterRequest::decode(&bytes[..cut]), None);
        }
    }
}
