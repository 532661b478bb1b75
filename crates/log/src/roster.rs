//! Who the members were, entry by entry: what a restart must know before it reads the log.
//!
//! On disk it is the `members` file of docs/formats/log-file.md, written whole. What always holds: it is
//! durable before a membership entry it has not heard of is called durable, and before the mark speaks of
//! one as committed; so a sole voter never decides alone what others may have a say in. And the log that it lies beside
//! has all that is committed up to the members in force, or ends before: those of a snapshot come after the cut.

use base::checksum::crc32c;
use base::disk::{Disk, DiskError};
use base::{LogIndex, NodeId};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorum::{MEMBERS_MAX, Members};

use crate::Seats;
use crate::flush::remove_if_there;

pub(crate) const MEMBERS_NAME: &str = "members";
const MAGIC: &[u8; 4] = b"SWMB";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 20;
/// Changes remembered; more than any log holds that is trimmed now and then.
const HISTORY_MAX: usize = 64;
const FILE_BYTES_MAX: u64 = 1 << 20;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Roster {
    /// The members after an entry, by rising index; never empty.
    history: Vec<(LogIndex, Members)>,
    /// The last membership entry written; it may be undecided, or gone again.
    written: LogIndex,
}

impl Roster {
    pub fn new(seats: &Seats) -> Self {
        let members = Members::new(&seats.voters, &seats.learners);
        Self { history: vec![(LogIndex::ZERO, members)], written: LogIndex::ZERO }
    }

    /// The roster in `dir`, and whether it is stored there. A folder with log files and without one is of a node that was alone.
    pub fn load(disk: &dyn Disk, dir: &str, node: NodeId, seats: &Seats) -> Result<Option<(Self, bool)>, DiskError> {
        let file = match disk.open(&format!("{dir}/{MEMBERS_NAME}")) {
            Ok(file) => file,
            Err(DiskError::NotFound { .. }) => {
                let written = disk.list(dir)?.iter().any(|entry| entry.name.ends_with(".log"));
                let seats = if written { Seats::alone(node) } else { seats.clone() };
                return Ok(Some((Self::new(&seats), false)));
            }
            Err(error) => return Err(error),
        };
        let len = file.len_bytes().min(FILE_BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let read = file.read_at(0, &mut bytes)?;
        Ok(Self::decode(&bytes[..read]).map(|roster| (roster, true)))
    }

    /// Writes the file now, durably. Blocks.
    pub fn save(&self, disk: &dyn Disk, dir: &str) -> Result<(), DiskError> {
        self.write_aside(disk, dir)?;
        Self::take_place(disk, dir)
    }

    /// Writes it durably under a name that counts for nothing.
    pub fn write_aside(&self, disk: &dyn Disk, dir: &str) -> Result<(), DiskError> {
        let temporary = temporary(dir);
        remove_if_there(disk, &temporary)?;
        let file = disk.create(&temporary)?;
        file.append(&[&self.encode()])?;
        file.sync()
    }

    /// What was written aside is the file from here on.
    pub fn take_place(disk: &dyn Disk, dir: &str) -> Result<(), DiskError> {
        disk.rename(&temporary(dir), &format!("{dir}/{MEMBERS_NAME}"))?;
        disk.sync_dir(dir)
    }

    /// The members in force.
    pub fn members(&self) -> &Members {
        let (_, members) = &self.history[self.history.len() - 1];
        members
    }

    /// The members after the entry `index`, if that is known.
    pub fn members_at(&self, index: LogIndex) -> Option<&Members> {
        self.history.iter().rev().find(|(since, _)| *since <= index).map(|(_, members)| members)
    }

    /// True if `node` decides alone, nobody follows, and no entry that may change that was written.
    pub fn is_alone(&self, node: NodeId) -> bool {
        let members = self.members();
        members.sole_voter() == Some(node) && members.learners.is_empty() && self.undecided().is_none()
    }

    /// Only `node` may decide, up to the entry that may change that.
    pub fn is_sole_voter(&self, node: NodeId) -> bool {
        self.members().sole_voter() == Some(node)
    }

    /// The membership entry that was written and is not in force.
    pub fn undecided(&self) -> Option<LogIndex> {
        let (applied, _) = self.history[self.history.len() - 1];
        (self.written > applied).then_some(self.written)
    }

    /// The last membership entry that came into force here: it was committed.
    pub fn in_force(&self) -> LogIndex {
        self.history[self.history.len() - 1].0
    }

    /// A membership entry was written.
    pub fn wrote(&mut self, index: LogIndex) {
        self.written = index;
    }

    /// A membership entry came into force.
    pub fn applied(&mut self, index: LogIndex, members: Members) {
        self.history.retain(|(since, _)| *since < index);
        self.history.push((index, members));
        if self.history.len() > HISTORY_MAX {
            self.history.remove(0);
        }
    }

    /// Only entries up to `index` are known to be in force; others are handed out again.
    pub fn forget_above(&mut self, index: LogIndex) {
        let keep = self.history.partition_point(|(since, _)| *since <= index).max(1);
        self.history.truncate(keep);
    }

    /// Entries up to `index` are gone: who the members were before is of no use.
    pub fn trimmed(&mut self, index: LogIndex) {
        let keep_from = self.history.partition_point(|(since, _)| *since <= index).saturating_sub(1);
        self.history.drain(..keep_from);
    }

    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(256);
        bytes.put_slice(MAGIC);
        bytes.put_u16(VERSION);
        bytes.put_u16(0);
        bytes.put_u64(self.written.0);
        bytes.put_u32(u32::try_from(self.history.len()).unwrap_or(0));
        for (index, members) in &self.history {
            bytes.put_u64(index.0);
            for list in [&members.voters, &members.outgoing, &members.learners, &members.learners_next] {
                bytes.put_u32(u32::try_from(list.len()).unwrap_or(0));
                list.iter().for_each(|node| bytes.put_u32(node.0));
            }
        }
        bytes.put_u32(crc32c(&bytes));
        bytes.freeze()
    }

    /// `None` if it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if body.len() < HEADER_BYTES || crc32c(body) != u32::from_be_bytes(*crc) || body[0..4] != *MAGIC {
            return None;
        }
        if body[4..6] != VERSION.to_be_bytes() {
            return None;
        }
        let mut rest = &body[8..];
        let written = LogIndex(rest.get_u64());
        let count = usize::try_from(rest.get_u32()).ok().filter(|count| (1..=HISTORY_MAX).contains(count))?;
        let mut history = Vec::with_capacity(count);
        for _ in 0..count {
            let index = LogIndex(rest.try_get_u64().ok()?);
            let mut list = || decode_list(&mut rest);
            let (voters, outgoing) = (list()?, list()?);
            let (learners, learners_next) = (list()?, list()?);
            history.push((index, Members { voters, outgoing, learners, learners_next }));
        }
        let rising = history.is_sorted_by(|(a, _), (b, _)| a < b);
        (rest.is_empty() && rising).then_some(Self { history, written })
    }
}

fn temporary(dir: &str) -> String {
    format!("{dir}/{MEMBERS_NAME}.tmp")
}

fn decode_list(rest: &mut &[u8]) -> Option<Vec<NodeId>> {
    let count = usize::try_from(rest.try_get_u32().ok()?).ok().filter(|count| *count <= MEMBERS_MAX)?;
    (0..count).map(|_| rest.try_get_u32().ok().map(NodeId)).collect()
}

#[cfg(test)]
mod tests;
