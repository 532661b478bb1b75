//! Commands and states as bytes: one version byte, then MessagePack with field names.
//!
//! Names instead of positions, so that a node of the last version can read what a node of this version
//! wrote as long as only fields with a default were added. docs/formats/control-state.md draws it. The
//! checksum is the journal's.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::command::Command;
use crate::state::State;

/// Of both encodings.
pub const VERSION: u8 = 1;

/// Bytes that are not a command or a state of ours.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} has format version {found}; this build reads version {VERSION}: run the release that wrote it")]
    Version { what: &'static str, found: u8 },
    #[error("{what} cannot be read: {cause}")]
    Malformed { what: &'static str, cause: String },
}

impl Command {
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// # Errors
    /// [`CodecError`] if the bytes are not a command of a version this build knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode("command", bytes)
    }
}

impl State {
    #[must_use]
    pub fn snapshot(&self) -> Bytes {
        encode(self)
    }

    /// # Errors
    /// [`CodecError`] if the bytes are not a state of a version this build knows.
    pub fn restore(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut state: Self = decode("state snapshot", bytes)?;
        state.index();
        Ok(state)
    }
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut out = vec![VERSION];
    let mut serializer = rmp_serde::Serializer::new(&mut out).with_struct_map();
    let written = value.serialize(&mut serializer);
    assert!(written.is_ok(), "a command or state always encodes into memory: {written:?}");
    Bytes::from(out)
}

pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Empty { what }),
        Some((&VERSION, body)) => {
            rmp_serde::from_slice(body).map_err(|error| CodecError::Malformed { what, cause: error.to_string() })
        }
        Some((&found, _)) => Err(CodecError::Version { what, found }),
    }
}

#[cfg(test)]
mod tests;
