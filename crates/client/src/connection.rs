//! One connection: frames out, frames in, in order.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use base::limits::FRAME_BYTES_MAX;
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::ClientError;

/// A connection to one server.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    address: String,
    patience: Duration,
    client_id: StrBytes,
    sent: i32,
    received: i32,
}

impl Connection {
    /// Connects; `patience` bounds the connect and every later wait.
    pub fn connect(address: &str, client_id: &str, patience: Duration) -> Result<Self, ClientError> {
        let refused = |cause| ClientError::Connect { address: address.to_owned(), cause };
        let resolved = address.to_socket_addrs().map_err(refused)?.next();
        let resolved = resolved.ok_or_else(|| refused(std::io::Error::other("the name has no address")))?;
        let stream = TcpStream::connect_timeout(&resolved, patience).map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        stream.set_read_timeout(Some(patience)).map_err(refused)?;
        stream.set_write_timeout(Some(patience)).map_err(refused)?;
        Ok(Self {
            stream,
            address: address.to_owned(),
            patience,
            client_id: StrBytes::from_string(client_id.to_owned()),
            sent: 0,
            received: 0,
        })
    }

    /// Requests that have been sent and not answered.
    #[must_use]
    pub const fn in_flight(&self) -> i32 {
        self.sent - self.received
    }

    /// True if the server has closed the connection, as it does to tell a producer with acks=0 that something is wrong.
    /// Call it only while nothing is in flight.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return true;
        }
        let seen = self.stream.peek(&mut [0]);
        let is_quiet = matches!(&seen, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).is_err() || !is_quiet
    }

    /// Sends a request and waits for its answer; none may be in flight.
    pub fn call<Request: Encodable, Response: Decodable>(
        &mut self,
        api: ApiKey,
        version: i16,
        request: &Request,
    ) -> Result<Response, ClientError> {
        self.send(api, version, request)?;
        self.receive(api, version)
    }

    pub(crate) fn send<Request: Encodable>(
        &mut self,
        api: ApiKey,
        version: i16,
        request: &Request,
    ) -> Result<(), ClientError> {
        let header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.sent)
            .with_client_id(Some(self.client_id.clone()));
        let mut frame = BytesMut::from(&[0_u8; 4][..]);
        let encoded = header
            .encode(&mut frame, api.request_header_version(version))
            .and_then(|()| request.encode(&mut frame, version));
        encoded.map_err(|error| self.malformed(&format!("the request cannot be written: {error}")))?;
        let length = u32::try_from(frame.len() - 4).map_err(|_| self.malformed("the request is too large"))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).map_err(|cause| self.io(cause))?;
        self.sent = self.sent.wrapping_add(1);
        Ok(())
    }

    /// The request just sent gets no answer (a produce with acks=0).
    pub(crate) fn expect_none(&mut self) {
        self.received = self.received.wrapping_add(1);
    }

    pub(crate) fn receive<Response: Decodable>(&mut self, api: ApiKey, version: i16) -> Result<Response, ClientError> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).map_err(|cause| self.io(cause))?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(self.malformed(&format!("{length} bytes are more than a frame may have")));
        }
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame).map_err(|cause| self.io(cause))?;
        let mut frame = Bytes::from(frame);
        let header = ResponseHeader::decode(&mut frame, api.response_header_version(version));
        let header = header.map_err(|error| self.malformed(&error.to_string()))?;
        let expected = self.received;
        self.received = self.received.wrapping_add(1);
        if header.correlation_id != expected {
            return Err(self.malformed(&format!("answer {} to request {expected}", header.correlation_id)));
        }
        let response = Response::decode(&mut frame, version).map_err(|error| self.malformed(&error.to_string()))?;
        if frame.has_remaining() {
            return Err(self.malformed(&format!("{} bytes too many", frame.remaining())));
        }
        Ok(response)
    }

    pub(crate) fn patience_ms(&self) -> i32 {
        i32::try_from(self.patience.as_millis()).unwrap_or(i32::MAX)
    }

    pub(crate) fn malformed(&self, cause: &str) -> ClientError {
        ClientError::Malformed { address: self.address.clone(), cause: cause.to_owned() }
    }

    fn io(&self, cause: std::io::Error) -> ClientError {
        ClientError::Io { address: self.address.clone(), cause }
    }
}
