//! The control plane's state at one committed index, as a file: docs/formats/backup.md.
//!
//! What always holds: bytes that were changed, cut short or added to are refused, and say so; so are those of a newer format.
//! Nothing is allocated by a length that was not compared with how many bytes there are.

use base::checksum::crc32c;
use base::{ClusterId, LogIndex, NodeId, Term, Timestamp, TopicPartition};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::codec::{self, CodecError};
use crate::state::State;

const MAGIC: &[u8; 8] = b"SWbackup";
/// Of the file's layout.
pub const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const CHECKSUM_BYTES: usize = 4;
/// A file larger than this is no backup.
pub const BYTES_MAX: u64 = 1 << 30;

/// What a file says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    pub cluster: ClusterId,
    /// The last entry that the state contains, and its term.
    pub index: LogIndex,
    pub term: Term,
    pub taken: Timestamp,
    pub taken_by: NodeId,
    /// The release that wrote it.
    pub version: String,
    /// Of the control group at that moment.
    pub voters: Vec<NodeId>,
    /// This is no backup to begin anew with, but what others that go on with a refounded cluster begin with.
    #[serde(default)]
    pub founding: Option<Founding>,
}

/// What the nodes of a refounded cluster need beside its state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Founding {
    pub id: Uuid,
    pub seed: NodeId,
    /// Partitions that go on from one copy, and where that is.
    pub forced: Vec<(TopicPartition, NodeId)>,
    /// Partitions that begin anew on the seed.
    pub empty: Vec<TopicPartition>,
}

/// A file's content.
#[derive(Clone, PartialEq, Debug)]
pub struct Backup {
    pub head: Head,
    pub state: State,
}

/// Why a file cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BackupError {
    #[error("it is no backup of Seawall's metadata")]
    Foreign,
    #[error("its format is {found}, and this release reads {VERSION}: use the release that wrote it")]
    Newer { found: u32 },
    #[error("it is damaged: {0}; use another copy of it")]
    Damaged(String),
    #[error("its checksum is right and its content cannot be read: {0}")]
    Content(#[from] CodecError),
}

impl Backup {
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (head, state) = (codec::encode(&self.head), self.state.snapshot());
        let mut bytes = Vec::with_capacity(HEADER_BYTES + head.len() + state.len() + CHECKSUM_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&(state.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&state);
        bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
        bytes.into()
    }

    /// # Errors
    /// [`BackupError`]: nothing of the file is used.
    pub fn decode(bytes: &[u8]) -> Result<Self, BackupError> {
        if !bytes.starts_with(MAGIC) {
            return Err(BackupError::Foreign);
        }
        let short = || BackupError::Damaged(format!("it ends after {} bytes", bytes.len()));
        let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let version = number(8).ok_or_else(short)?;
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(short)?;
        let is_whole = crc32c(body) == u32::from_le_bytes(*checksum);
        // Another layout may have its checksum elsewhere; a number that a damage made is taken for what it most likely is.
        if version != VERSION && (is_whole || (2..=0xffff).contains(&version)) {
            return Err(BackupError::Newer { found: version });
        }
        if !is_whole {
            return Err(BackupError::Damaged(format!("the checksum of its {} bytes is wrong", bytes.len())));
        }
        let head_bytes = number(12).and_then(|len| usize::try_from(len).ok()).ok_or_else(short)?;
        let rest = body.get(HEADER_BYTES..).ok_or_else(short)?;
        let (head, state) = rest.split_at_checked(head_bytes).ok_or_else(short)?;
        if body.get(16..24).is_none_or(|len| len != (state.len() as u64).to_le_bytes()) {
            return Err(BackupError::Damaged("it is not as long as it says".into()));
        }
        Ok(Self { head: codec::decode("head", head)?, state: State::restore(state)? })
    }
}

#[cfg(test)]
mod tests {
    use base::TopicId;

    use super::*;
    use crate::command::Command;

    fn backup() -> Backup {
        let mut state = State::default();
        let cluster = ClusterId(Uuid::from_u128(9));
        let form = Command::FormCluster { cluster, formed: Timestamp(1), founders: vec![NodeId(1), NodeId(2)] };
        state.apply(LogIndex(2), &form).expect("forms");
        let topic = Command::CreateTopic {
            id: TopicId(Uuid::from_u128(1)),
            name: "wiki".into(),
            partitions: 1,
            config: [("retention.ms".to_owned(), "1000".to_owned())].into(),
            internal: false,
            created: Timestamp(2),
            replicas: vec![vec![NodeId(1)]],
        };
        state.apply(LogIndex(3), &topic).expect("creates");
        let head = Head {
            cluster,
            index: LogIndex(3),
            term: Term(2),
            taken: Timestamp(5),
            taken_by: NodeId(2),
            version: "0.1.0".into(),
            voters: vec![NodeId(1), NodeId(2)],
            founding: Some(Founding { id: Uuid::from_u128(4), seed: NodeId(1), forced: Vec::new(), empty: Vec::new() }),
        };
        Backup { head, state }
    }

    #[test]
    fn what_was_written_is_read() {
        let backup = backup();
        let read = Backup::decode(&backup.encode()).expect("reads");
        assert_eq!(read, backup);
        assert!(read.state.topic_named("wiki").is_some(), "found by its name again");
    }

    #[test]
    fn no_flipped_bit_and_no_cut_is_overlooked() {
        let bytes = backup().encode().to_vec();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(Backup::decode(&flipped).is_err(), "bit {bit} of byte {at}");
            }
            assert!(Backup::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(Backup::decode(&longer), Err(BackupError::Damaged(_))));
        assert_eq!(Backup::decode(b"{\"cluster\": 1}"), Err(BackupError::Foreign));
        let error = Backup::decode(&bytes[..bytes.len() - 9]).unwrap_err().to_string();
        assert!(error.contains("the checksum of its") && error.contains("use another copy"), "{error}");
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let mut bytes = backup().encode().to_vec();
        bytes[8] = 2;
        assert_eq!(Backup::decode(&bytes), Err(BackupError::Newer { found: 2 }));
        let end = bytes.len() - CHECKSUM_BYTES;
        let checksum = crc32c(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&checksum);
        assert_eq!(Backup::decode(&bytes), Err(BackupError::Newer { found: 2 }));
    }

    #[test]
    fn lengths_that_lie_allocate_nothing() {
        let reseal = |mut bytes: Vec<u8>| {
            let end = bytes.len() - CHECKSUM_BYTES;
            let checksum = crc32c(&bytes[..end]).to_le_bytes();
            bytes[end..].copy_from_slice(&checksum);
            bytes
        };
        let mut head = backup().encode().to_vec();
        head[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut state = backup().encode().to_vec();
        state[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(Backup::decode(&reseal(head)), Err(BackupError::Damaged(_))));
        assert!(matches!(Backup::decode(&reseal(state)), Err(BackupError::Damaged(_))));
    }
}
