//! Messages of PostgreSQL's protocol 3 from a client, from bytes that may be anything.
//!
//! pgwire has decoders of these too, but they read past the end of a message that is cut short (and panic there), so a
//! frame is taken off the socket whole here, within a bound, and decoded with every read checked. The messages we send
//! are pgwire's.

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::limits::{MESSAGE_BYTES_MAX, STARTUP_BYTES_MAX};

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
/// Shortest and longest secret of a cancel request, as the protocol says.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 4..=256;

/// Why the connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("protocol violation: {0}")]
    Malformed(String),
    #[error("protocol violation: a message of {length} bytes; at most {max} are accepted")]
    TooLarge { length: usize, max: usize },
}

/// What a connection may begin with.
#[derive(Debug, PartialEq, Eq)]
pub enum Startup {
    Ssl,
    Gss,
    Cancel { pid: i32, secret: Bytes },
    Start { major: u16, minor: u16, parameters: Vec<(String, String)> },
}

/// What a Describe or Close is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Statement,
    Portal,
}

/// A message of a session. The empty name is the unnamed statement or portal.
#[derive(Debug, PartialEq, Eq)]
pub enum Frontend {
    Query(String),
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe {
        target: Target,
        name: String,
    },
    Execute {
        portal: String,
        rows_max: i32,
    },
    Close {
        target: Target,
        name: String,
    },
    Flush,
    Sync,
    Terminate,
    /// Copy data, done and fail outside of a COPY are ignored, as PostgreSQL does.
    Copy,
    /// A password nobody asked for, a function call, or a type that does not exist.
    Other(u8),
}

/// Values for a statement's parameters, and how its results should come.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Bind {
    pub portal: String,
    pub statement: String,
    pub parameter_formats: Vec<i16>,
    pub parameters: Vec<Option<Bytes>>,
    pub result_formats: Vec<i16>,
}

/// Reads the first packet of a connection, or the one after a refused encryption.
///
/// # Errors
/// `Io` at the end of the stream; `TooLarge` or `Malformed` otherwise.
pub async fn read_startup<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Startup, WireError> {
    let body = read_body(stream, STARTUP_BYTES_MAX).await?;
    decode_startup(body)
}

/// Reads the next message.
///
/// # Errors
/// As [`read_startup`].
pub async fn read_message<S: AsyncRead + Unpin>(kind: u8, stream: &mut S) -> Result<Frontend, WireError> {
    let body = read_body(stream, MESSAGE_BYTES_MAX).await?;
    decode(kind, body)
}

/// A length (which counts itself) and as many bytes. The buffer grows as they arrive, never by the length alone.
async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, max: usize) -> Result<Bytes, WireError> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    let Some(rest) = length.checked_sub(4) else {
        return Err(WireError::Malformed(format!("a message says it is {length} bytes long; 4 is the least")));
    };
    if rest > max {
        return Err(WireError::TooLarge { length: rest, max });
    }
    let mut body = Vec::new();
    let limit = u64::try_from(rest).unwrap_or(0);
    if stream.take(limit).read_to_end(&mut body).await? < rest {
        return Err(WireError::Io(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Bytes::from(body))
}

fn decode_startup(body: Bytes) -> Result<Startup, WireError> {
    let mut reader = Reader { rest: body };
    match reader.u32("protocol version")? {
        SSL_REQUEST => Ok(Startup::Ssl),
        GSS_REQUEST => Ok(Startup::Gss),
        CANCEL_REQUEST => {
            let pid = reader.i32("process id")?;
            if !SECRET_BYTES.contains(&reader.rest.len()) {
                return Err(WireError::Malformed(format!("a cancel secret of {} bytes", reader.rest.len())));
            }
            Ok(Startup::Cancel { pid, secret: reader.rest })
        }
        version => {
            let mut parameters = Vec::new();
            loop {
                let name = reader.string("startup parameter")?;
                if name.is_empty() {
                    break;
                }
                parameters.push((name, reader.string("startup parameter value")?));
            }
            let [major_high, major_low, minor_high, minor_low] = version.to_be_bytes();
            Ok(Startup::Start {
                major: u16::from_be_bytes([major_high, major_low]),
                minor: u16::from_be_bytes([minor_high, minor_low]),
                parameters,
            })
        }
    }
}

/// One message from its type and body.
///
/// # Errors
/// `Malformed`, naming what is missing.
pub fn decode(kind: u8, body: Bytes) -> Result<Frontend, WireError> {
    let mut reader = Reader { rest: body };
    let message = match kind {
        b'Q' => Frontend::Query(reader.string("query")?),
        b'P' => Frontend::Parse {
            name: reader.string("statement name")?,
            sql: reader.string("query")?,
            types: reader.list("parameter types", 4, Reader::u32)?,
        },
        b'B' => Frontend::Bind(Bind {
            portal: reader.string("portal name")?,
            statement: reader.string("statement name")?,
            parameter_formats: reader.list("parameter formats", 2, Reader::i16)?,
            parameters: reader.list("parameters", 4, Reader::value)?,
            result_formats: reader.list("result formats", 2, Reader::i16)?,
        }),
        b'D' => Frontend::Describe { target: reader.target()?, name: reader.string("name")? },
        b'C' => Frontend::Close { target: reader.target()?, name: reader.string("name")? },
        b'E' => Frontend::Execute { portal: reader.string("portal name")?, rows_max: reader.i32("row limit")? },
        b'H' => Frontend::Flush,
        b'S' => Frontend::Sync,
        b'X' => Frontend::Terminate,
        b'd' | b'c' | b'f' => return Ok(Frontend::Copy),
        other => return Ok(Frontend::Other(other)),
    };
    if reader.rest.is_empty() {
        Ok(message)
    } else {
        Err(WireError::Malformed(format!(
            "{} bytes too many in a message of type {}",
            reader.rest.len(),
            char::from(kind)
        )))
    }
}

/// Takes fields off a message; every read is checked against what is there.
struct Reader {
    rest: Bytes,
}

impl Reader {
    fn need(&self, bytes: usize, what: &str) -> Result<(), WireError> {
        if self.rest.len() < bytes {
            return Err(WireError::Malformed(format!("the message ends within its {what}")));
        }
        Ok(())
    }

    fn u32(&mut self, what: &str) -> Result<u32, WireError> {
        self.need(4, what)?;
        Ok(self.rest.get_u32())
    }

    fn i32(&mut self, what: &str) -> Result<i32, WireError> {
        self.need(4, what)?;
        Ok(self.rest.get_i32())
    }

    fn i16(&mut self, what: &str) -> Result<i16, WireError> {
        self.need(2, what)?;
        Ok(self.rest.get_i16())
    }

    fn string(&mut self, what: &str) -> Result<String, WireError> {
        let Some(end) = self.rest.iter().position(|byte| *byte == 0) else {
            return Err(WireError::Malformed(format!("the {what} has no end")));
        };
        let bytes = self.rest.split_to(end);
        self.rest.advance(1);
        String::from_utf8(bytes.to_vec()).map_err(|error| {
            WireError::Malformed(format!("the {what} is not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
        })
    }

    /// A count and as many items, each at least `item_bytes` long.
    fn list<T>(
        &mut self,
        what: &str,
        item_bytes: usize,
        item: impl Fn(&mut Self, &str) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        self.need(2, what)?;
        let count = usize::from(self.rest.get_u16());
        self.need(count * item_bytes, what)?;
        (0..count).map(|_| item(self, what)).collect()
    }

    /// A length and as many bytes; -1 is NULL.
    fn value(&mut self, what: &str) -> Result<Option<Bytes>, WireError> {
        let length = self.i32(what)?;
        if length == -1 {
            return Ok(None);
        }
        let Ok(length) = usize::try_from(length) else {
            return Err(WireError::Malformed(format!("a value of {length} bytes in its {what}")));
        };
        self.need(length, what)?;
        Ok(Some(self.rest.split_to(length)))
    }

    fn target(&mut self) -> Result<Target, WireError> {
        self.need(1, "target")?;
        match self.rest.get_u8() {
            b'S' => Ok(Target::Statement),
            b'P' => Ok(Target::Portal),
            other => Err(WireError::Malformed(format!("{} is neither a statement nor a portal", char::from(other)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind_bytes() -> Vec<u8> {
        let mut body = b"p\0s\0".to_vec();
        body.extend_from_slice(&[0, 1, 0, 1]);
        body.extend_from_slice(&[0, 2, 0, 0, 0, 2, b'h', b'i', 0xff, 0xff, 0xff, 0xff]);
        body.extend_from_slice(&[0, 2, 0, 0, 0, 1]);
        body
    }

    #[test]
    fn messages_decode() {
        assert_eq!(decode(b'Q', Bytes::from_static(b"SELECT 1\0")).expect("query"), Frontend::Query("SELECT 1".into()));
        assert_eq!(
            decode(b'P', Bytes::from_static(b"s\0SELECT $1\0\0\x01\0\0\0\x14")).expect("parse"),
            Frontend::Parse { name: "s".into(), sql: "SELECT $1".into(), types: vec![20] }
        );
        assert_eq!(
            decode(b'B', Bytes::from(bind_bytes())).expect("bind"),
            Frontend::Bind(Bind {
                portal: "p".into(),
                statement: "s".into(),
                parameter_formats: vec![1],
                parameters: vec![Some(Bytes::from_static(b"hi")), None],
                result_formats: vec![0, 1],
            })
        );
    }

    #[test]
    fn a_message_cut_anywhere_is_refused() {
        let whole = bind_bytes();
        for length in 0..whole.len() {
            assert!(decode(b'B', Bytes::copy_from_slice(&whole[..length])).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn hostile_counts_and_lengths_are_refused() {
        for body in [
            b"\0\0\xff\xff".as_slice(),
            b"\0\0\0\0\0\x01\x7f\xff\xff\xff",
            b"\0\0\0\0\0\x01\x80\x00\x00\x00",
            b"\0\0\0\0\xff\xff\0\0\0\0",
        ] {
            assert!(decode(b'B', Bytes::copy_from_slice(body)).is_err());
        }
        assert!(decode(b'Q', Bytes::from_static(b"no end")).is_err());
        assert!(decode(b'Q', Bytes::from_static(b"\xff\0")).is_err());
        assert!(decode(b'D', Bytes::from_static(b"Zx\0")).is_err());
        assert!(decode(b'S', Bytes::from_static(b"x")).is_err());
    }

    /// Every byte string up to a few bytes, through every type: decoding says yes or no, and never panics.
    #[test]
    fn no_bytes_panic() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut body = Vec::new();
            for _ in 0..seed % 40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                body.push(seed.to_be_bytes()[0] & if seed & 1 == 0 { 0x03 } else { 0xff });
            }
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            for kind in *b"QPBDCEHSXdz" {
                let _ = decode(kind, Bytes::copy_from_slice(&body));
            }
            let _ = decode_startup(Bytes::from(body));
        }
    }

    #[tokio::test]
    async fn lengths_are_bounded_before_anything_is_allocated() {
        let mut stream: &[u8] = &[0x7f, 0xff, 0xff, 0xff, 0];
        assert!(matches!(read_message(b'Q', &mut stream).await, Err(WireError::TooLarge { .. })));
        let mut stream: &[u8] = &[0, 0, 0, 3, 0];
        assert!(matches!(read_message(b'Q', &mut stream).await, Err(WireError::Malformed(_))));
        let mut stream: &[u8] = &[0, 0, 0x10, 0, b'a'];
        assert!(matches!(read_message(b'Q', &mut stream).await, Err(WireError::Io(_))));
    }

    #[tokio::test]
    async fn a_connection_begins() {
        let mut ssl: &[u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
        assert_eq!(read_startup(&mut ssl).await.expect("ssl"), Startup::Ssl);
        let mut body = vec![0, 0, 0, 0, 0, 3, 0, 0];
        body.extend_from_slice(b"user\0ann\0\0");
        body[3] = u8::try_from(body.len()).expect("short");
        let mut start: &[u8] = &body;
        let expected = Startup::Start { major: 3, minor: 0, parameters: vec![("user".into(), "ann".into())] };
        assert_eq!(read_startup(&mut start).await.expect("start"), expected);
    }
}
