//! One partition: what its owner calls. Appending and retention are in their own files.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};

use base::disk::{Disk, DiskFile};
use base::{LogIndex, NodeId, Offset, Term, Tick, Timestamp, TopicPartition};
use quorum::{Group, GroupConfig, GroupKey, HardState, Members, Message, Ready, Role};

use crate::flush::HardStates;
use crate::limits::UNCOMMITTED_BYTES_MAX;
use crate::lost::{AckedRanges, LostFound};
use crate::mark::{Mark, Slot};
use crate::producers::Producers;
use crate::reader::Shared;
use crate::recovery::{Asker, Recovered, Recovery, recover};
use crate::roster::Roster;
use crate::storage::{LogStorage, Now, WriteFault};
use crate::verification::Verifications;
use crate::{AppendError, OpenError, PartitionConfig, Reader, Seats, Stopped, damage, lost};

mod append;
mod care;
mod commit;
mod flushing;
mod quiet;
mod reading;
mod replication;
mod rescuing;
mod retention;
mod transactions;

pub use append::Appended;
pub use replication::PartitionStatus;
pub use retention::Trimmed;

use care::Care;
use commit::Unpersisted;
use flushing::Flushing;
use replication::Cutting;

/// A partition, for its one owner. See the crate's documentation for the order of calls.
pub struct Partition {
    id: TopicPartition,
    node: NodeId,
    config: PartitionConfig,
    group: Group<LogStorage>,
    hard: HardStates,
    /// The hard state was put and no flush job has taken it yet.
    hard_dirty: bool,
    producers: Producers,
    /// Batches below are accounted for in `producers`, also those that are still to come from the leader.
    producers_from: Offset,
    producers_expired: Tick,
    /// Transactions that may begin here.
    verifications: Verifications,
    /// Entries not committed: their index and the offset after them.
    pending: VecDeque<(LogIndex, Offset)>,
    /// A ready whose entries could not be written: for lack of room, or because others have to go first.
    stalled: Option<Ready>,
    /// What has to go for it.
    cutting: Option<Cutting>,
    /// The snapshot of the stalled ready, once it is in place.
    installed: Option<LogIndex>,
    /// Readies that were written and are not known to be durable, oldest first.
    unpersisted: VecDeque<Unpersisted>,
    /// The term this replica leads in, if all that its group has of it is written: then an append needs no more
    /// than the place at the end, and what the group has to say of many appends is said at once.
    led: Option<Term>,
    /// The last ready that was written, and the last that is durable.
    ready: u64,
    persisted: u64,
    /// To be sent.
    messages: Vec<Message>,
    acked: AckedRanges,
    /// From here on records were replaced.
    replaced: Option<Offset>,
    lost: VecDeque<LostFound>,
    lost_dropped: u64,
    /// A file of lost+found is being written anew.
    settling: bool,
    /// When the owner last said what time it is.
    now: Now,
    mark: Mark,
    mark_file: Arc<dyn DiskFile>,
    /// Where the next mark goes: not where the last synced one is.
    mark_slot: Slot,
    /// What was found in the other slot may not be durable.
    mark_in_doubt: bool,
    /// The mark speaks of a new start that is not durable.
    mark_dirty: bool,
    /// More is committed than the mark says; it need not be synced.
    mark_behind: bool,
    mark_written: Tick,
    /// The roster changed and no flush job has taken it yet.
    members_dirty: bool,
    bytes_since_mark_sync: u64,
    bytes_since_checkpoint: u64,
    checkpointed: Tick,
    removals: Vec<String>,
    /// Damaged files that were moved aside, until all of it has been fetched again.
    set_aside: Vec<String>,
    retention_floor: Option<Offset>,
    care: Care,
    /// Damage was noted on disk: the next open repairs it.
    declared: bool,
    /// The flush job that is out.
    flushing: Option<Flushing>,
    stopped: Option<Stopped>,
}

/// Names the group of a partition among the node's hard states.
#[must_use]
pub fn group_key(id: TopicPartition) -> GroupKey {
    let mut key = [0; 20];
    key[..16].copy_from_slice(id.topic.0.as_bytes());
    key[16..].copy_from_slice(&id.partition.0.to_be_bytes());
    GroupKey(key)
}

/// Draws the elections of the groups of a node apart.
fn seed(id: TopicPartition) -> u64 {
    let (high, low) = id.topic.0.as_u64_pair();
    high ^ low.rotate_left(17) ^ u64::from(id.partition.0.unsigned_abs())
}

impl Partition {
    /// Opens the partition in folder `dir`, creating it if it is new. Reads no more than what was written
    /// since the last checkpoint; writes nothing if the last process closed it. Blocks on the disk. `seats`
    /// counts only for a partition that is new here.
    ///
    /// # Errors
    /// See [`OpenError`]: nothing was changed.
    #[expect(clippy::too_many_arguments, reason = "all a partition needs from its surroundings, once")]
    pub fn open(
        id: TopicPartition,
        dir: &str,
        config: PartitionConfig,
        node: NodeId,
        seats: Seats,
        disk: Arc<dyn Disk>,
        hard: HardStates,
        now: Tick,
        wall: Timestamp,
    ) -> Result<(Self, Recovery), OpenError> {
        let dir: Arc<str> = dir.into();
        let now = Now { tick: now, wall };
        disk.create_dir_all(&dir)?;
        let mut roster = load_roster(disk.as_ref(), &dir, node, &seats)?;
        let key = group_key(id);
        let mut voted = hard.lock().unwrap_or_else(PoisonError::into_inner).get(key);
        let asker = |written_before| Asker { node, roster: &roster, written_before, wall };
        let found = if !roster.is_sole_voter(node) && damage::is_declared(disk.as_ref(), &dir)? {
            let reason = "the log was found not to be what it must be".to_owned();
            Err(OpenError::Corrupt { path: dir.to_string(), position: 0, reason })
        } else {
            recover(&disk, &dir, &config, &asker(voted.is_some()))
        };
        let recovered = match found {
            Err(error) if damage::is_repairable(&error) && !roster.is_sole_voter(node) => {
                voted = Some(damage::set_aside(disk.as_ref(), &dir, &hard, key)?);
                let mut recovered = recover(&disk, &dir, &config, &asker(true))?;
                recovered.recovery.findings.push(format!(
                    "{error}; what is left was moved to {dir}/{}, and everything is fetched from the other replicas \
                     again; until then this replica has no vote",
                    damage::FOLDER
                ));
                recovered
            }
            recovered => recovered?,
        };
        roster.forget_above(LogIndex(recovered.commit.index.0 - 1));
        if let Some(changed) = recovered.changed {
            roster.wrote(changed);
        }
        Self::begin(id, config, node, &dir, disk, hard, roster, voted, recovered, now)
    }

    #[expect(clippy::too_many_arguments, clippy::too_many_lines, reason = "the second half of open: a list of fields")]
    fn begin(
        id: TopicPartition,
        config: PartitionConfig,
        node: NodeId,
        dir: &Arc<str>,
        disk: Arc<dyn Disk>,
        hard: HardStates,
        roster: Roster,
        voted: Option<HardState>,
        recovered: Recovered,
        now: Now,
    ) -> Result<(Self, Recovery), OpenError> {
        let Recovered { files, unindexed, end, last_term, mark, commit, applied, mut recovery, .. } = recovered;
        // A vote reaches the disk before the entries of its term, but a power loss may keep entries that
        // were never flushed and lose the vote: nothing of that term was acknowledged.
        let hard_state = match voted {
            Some(voted) if voted.term >= last_term => voted,
            _ => HardState { term: last_term, vote: None, commit: LogIndex::ZERO },
        };
        let (lost, unreadable) = lost::list(disk.as_ref(), dir, now.wall)?;
        recovery.findings.extend(unreadable.iter().map(|path| format!("{path} cannot be read; it is left as it is")));
        let set_aside = damage::list(disk.as_ref(), dir)?;
        let list: Vec<_> = files.iter().cloned().collect();
        let shared =
            Arc::new(Shared::new(&list, mark.start.min(commit.offset), commit.offset, end.offset, hard_state.term));
        let storage = LogStorage {
            disk,
            dir: Arc::clone(dir),
            shared,
            roster,
            files,
            active: false,
            active_since: now.tick,
            end,
            last_term,
            commit,
            applied,
            start: mark.start,
            snapshots: recovered.snapshots,
            trimmed: (mark.trimmed_index, mark.trimmed_term),
            hard_state,
            dirty: Vec::new(),
            dirty_bytes: 0,
            new_names: false,
            checkpoint_due: !unindexed.is_empty(),
            unindexed,
        };
        let group =
            GroupConfig { uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX, ..GroupConfig::standard(node, seed(id)) };
        let group = Group::open(group, storage).map_err(|error| OpenError::Group(error.to_string()))?;
        let mut partition = Self {
            id,
            node,
            config,
            group,
            hard,
            hard_dirty: false,
            producers: recovered.producers,
            producers_from: recovered.producers_from,
            producers_expired: now.tick,
            verifications: Verifications::default(),
            pending: recovered.undecided,
            stalled: None,
            cutting: None,
            installed: None,
            unpersisted: VecDeque::new(),
            led: None,
            ready: 0,
            persisted: 0,
            messages: Vec::new(),
            acked: AckedRanges::unknown_below(end.offset),
            replaced: None,
            lost_dropped: lost.iter().map(|found| found.dropped_batches).max().unwrap_or(0),
            lost: lost.into(),
            settling: false,
            now,
            mark,
            mark_file: recovered.mark_file,
            mark_slot: recovered.mark_slot,
            mark_in_doubt: recovered.mark_in_doubt,
            mark_dirty: false,
            mark_behind: false,
            mark_written: now.tick,
            members_dirty: false,
            bytes_since_mark_sync: 0,
            bytes_since_checkpoint: 0,
            checkpointed: now.tick,
            removals: Vec::new(),
            set_aside,
            retention_floor: None,
            care: Care::new(now.tick),
            declared: false,
            flushing: None,
            stopped: None,
        };
        partition.learn_stable();
        Ok((partition, recovery))
    }

    /// The high watermark: the first offset that is not committed.
    #[must_use]
    pub fn committed(&self) -> Offset {
        self.storage().shared.committed()
    }

    /// The first offset that may belong to a transaction whose end is not committed, or is not committed itself.
    #[must_use]
    pub fn last_stable(&self) -> Offset {
        self.reader().last_stable()
    }

    /// The first offset not written.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.storage().end.offset
    }

    /// The first offset that is not deleted.
    #[must_use]
    pub fn start(&self) -> Offset {
        self.storage().shared.start()
    }

    /// The leader epoch. The first append after a restart raises it.
    #[must_use]
    pub fn term(&self) -> Term {
        self.group.term()
    }

    /// Who the members are, as far as is decided here.
    #[must_use]
    pub fn members(&self) -> &Members {
        self.storage().roster.members()
    }

    #[must_use]
    pub fn id(&self) -> TopicPartition {
        self.id
    }

    /// Of all log files.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.storage().files.iter().map(|file| file.len_bytes()).sum()
    }

    /// Why no write is taken any more, if so.
    #[must_use]
    pub fn stopped(&self) -> Option<&Stopped> {
        self.stopped.as_ref()
    }

    /// It stopped because of damage, and opening it again repairs that from the other replicas: to be done soon.
    #[must_use]
    pub fn is_repaired_by_reopening(&self) -> bool {
        self.stopped.is_some() && self.declared
    }

    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.storage().shared))
    }

    #[must_use]
    pub fn config(&self) -> &PartitionConfig {
        &self.config
    }

    pub fn configure(&mut self, config: PartitionConfig) {
        self.config = config;
    }

    /// To be called every `tick_ms` of the group, and after it [`Partition::take_messages`] and, if
    /// [`Partition::needs_flush`], a flush job: elections, heartbeats, and rare work.
    pub fn tick(&mut self, now: Tick, wall: Timestamp) {
        self.now = Now { tick: now, wall };
        if self.stopped.is_some() {
            return;
        }
        // A sole voter needs no clock, and would only be elected for nothing. A damaged replica asks for no vote.
        if !self.is_alone() && self.stalled.is_none() && !self.is_damaged() {
            self.group.tick(now);
        }
        self.chores(now, wall);
    }

    pub(crate) fn storage(&self) -> &LogStorage {
        self.group.storage()
    }

    /// Becomes leader, if it is not. A sole voter elects itself; its first entry starts a new file.
    fn lead(&mut self) -> Result<(), AppendError> {
        if self.role() == Role::Leader && self.led == Some(self.term()) {
            return Ok(());
        }
        self.pump()?;
        if self.storage().files.is_empty() && std::mem::take(&mut self.mark_in_doubt) {
            self.settle_mark()?;
        }
        if self.is_alone() && self.group.role() != Role::Leader && self.stalled.is_none() {
            self.group.campaign();
            self.pump()?;
            self.check_group()?;
        }
        if self.role() != Role::Leader {
            return Err(AppendError::NotLeader { leader: self.leader() });
        }
        self.led = Some(self.term());
        Ok(())
    }

    /// The process that created the mark may have died before it was durable; it must be before there is a
    /// log file.
    fn settle_mark(&mut self) -> Result<(), AppendError> {
        let storage = self.group.storage();
        let synced = self.mark_file.sync().and_then(|()| storage.disk.sync_dir(&storage.dir));
        self.fit(synced.map_err(|error| WriteFault::Broken(error.to_string())))
    }

    fn is_alone(&self) -> bool {
        self.storage().roster.is_alone(self.node)
    }

    /// This disk lost what it had promised to keep, and does not have all of it again.
    fn is_damaged(&self) -> bool {
        self.mark.repair_term != Term::ZERO
    }

    fn fit(&mut self, result: Result<(), WriteFault>) -> Result<(), AppendError> {
        result.map_err(|fault| match fault {
            WriteFault::Full => AppendError::DiskFull,
            WriteFault::Wait => AppendError::NotLeader { leader: self.leader() },
            WriteFault::Broken(reason) => AppendError::Stopped(self.stop(reason)),
        })
    }
}

fn load_roster(disk: &dyn Disk, dir: &str, node: NodeId, seats: &Seats) -> Result<Roster, OpenError> {
    let Some((roster, is_stored)) = Roster::load(disk, dir, node, seats)? else {
        let path = format!("{dir}/{}", crate::roster::MEMBERS_NAME);
        return Err(OpenError::Corrupt { path, position: 0, reason: "the list of members is damaged".to_owned() });
    };
    if !is_stored && !roster.is_alone(node) {
        roster.save(disk, dir)?;
    }
    Ok(roster)
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, committed, end) = (self.start(), self.committed(), self.end());
        write!(f, "Partition({}, {start}..{committed}, end {end}, {:?})", self.id, self.group)
    }
}
