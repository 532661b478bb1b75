//! A frame: four bytes of length, then a request header, then a body.
//!
//! ```text
//! i32 length of the rest | i16 api key | i16 version | i32 correlation id | i16 length + client id (length -1: none)
//!                        | from the flexible versions on: tagged fields    | body
//! ```
//! Quirks kept: header v2 has a client id that is not compact; the response to ApiVersions always has header v0.

use bytes::Bytes;

use base::limits::FRAME_BYTES_MAX;

use crate::api::ApiKey;
use crate::wire::Reader;

/// Bytes of a frame that [`check_head`] needs: key, version, correlation id.
pub const HEAD_BYTES: usize = 8;

/// Why a connection has to be closed. After any of them the stream's next byte has no meaning.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("frame length {length} is outside {HEAD_BYTES} to {limit}; is this a Kafka client without TLS?")]
    Length { length: i64, limit: usize },
    #[error("api key {0} is not spoken here; ApiVersions tells which are")]
    UnknownApi(i16),
    #[error("{} version {version} is not spoken here; ApiVersions tells which are", api.name())]
    UnsupportedVersion { api: ApiKey, version: i16 },
    /// A length or count in the frame does not fit the bytes that are there.
    #[error("{what} at byte {at} of the frame")]
    Malformed { what: &'static str, at: usize },
    #[error("the body does not decode: {0}")]
    Body(String),
}

/// What every request starts with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestHeader {
    pub api: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<String>,
}

/// Checks a frame's length field before a byte of the frame is buffered.
///
/// # Errors
/// [`FrameError::Length`].
pub fn check_length(field: [u8; 4]) -> Result<usize, FrameError> {
    let length = i64::from(i32::from_be_bytes(field));
    within(length, FRAME_BYTES_MAX)
}

/// Checks the length against the bound of the API that the frame's first bytes name.
///
/// # Errors
/// [`FrameError::Length`], or [`FrameError::UnknownApi`].
pub fn check_head(length: usize, head: [u8; HEAD_BYTES]) -> Result<ApiKey, FrameError> {
    let number = i16::from_be_bytes([head[0], head[1]]);
    let api = ApiKey::of(number).ok_or(FrameError::UnknownApi(number))?;
    within(i64::try_from(length).unwrap_or(i64::MAX), api.frame_bytes_max())?;
    Ok(api)
}

fn within(length: i64, limit: usize) -> Result<usize, FrameError> {
    usize::try_from(length)
        .ok()
        .filter(|length| (HEAD_BYTES..=limit).contains(length))
        .ok_or(FrameError::Length { length, limit })
}

/// Reads the header of a frame (without its length field); what is left in the reader is the body.
pub(crate) fn header(frame: &Bytes) -> Result<(RequestHeader, Reader), FrameError> {
    let mut reader = Reader::new(frame.clone());
    let number = reader.i16()?;
    let api = ApiKey::of(number).ok_or(FrameError::UnknownApi(number))?;
    let version = reader.i16()?;
    let correlation_id = reader.i32()?;
    if version < 0 {
        return Err(FrameError::UnsupportedVersion { api, version });
    }
    let client_id = reader.short_string()?.map(str::to_owned);
    if api.is_flexible(version) {
        reader.skip_tags()?;
    }
    Ok((RequestHeader { api, version, correlation_id, client_id }, reader))
}
