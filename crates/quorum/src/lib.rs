//! Consensus behind one door: tick, step, propose, ready. Knows no topic and no segment.
//!
//! ```text
//!            propose(data)                   ready() -> Ready { entries, hard_state, messages, committed }
//! caller ------------------> Group<Storage> ------------------------------------------------> caller
//!            step(now, message)                     written(n)    after the entries are readable in Storage
//!            tick(now)                              persisted(n)  after they survive a crash
//!                                                   applied(i)    after the committed ones took effect
//! ```
//!
//! [`Group`] is one Raft group. One voter or many: the same calls in the same order, so replication adds
//! voters and no second path. Its duties for the caller, in this order, for each [`Ready`]:
//!
//! 1. send `messages`; install `snapshot`; write `entries` and `hard_state` to the storage; call
//!    [`Group::written`]; nothing else may be called on the group before that;
//! 2. after an fsync that covers them, call [`Group::persisted`] and only then send `messages_after_persist`;
//! 3. let the `committed` entries take effect, in order - a [`Payload::Membership`] by
//!    [`Group::apply_membership`] - and call [`Group::applied`].
//!
//! Time is [`base::Tick`], an argument. The owner calls [`Group::tick`] once per `tick_ms` and does not catch
//! up after a stall. From it follow elections, and the lease that lets a leader answer before a majority has
//! the entry ([`Group::lease_valid`]): no two nodes hold one at a time, whatever the network does and however
//! long a process stands still, as long as clocks run at about the same rate.
//!
//! A leader's thread need not read for followers that are behind: see [`Group::read_apart`].
//!
//! What always holds: an entry is handed out as committed once, in order, only after it is durable here and
//! on a majority; for the same seed and the same calls everything handed out is the same; types of the crate
//! `raft` never leave this one.
//!
//! Two stores on [`base::disk::Disk`] for those who bring none: [`Journal`], the log, snapshots and hard
//! state of one group, and [`HardStates`], the hard states of many groups whose logs live elsewhere. Their
//! files are drawn in docs/formats/control-journal.md and docs/formats/hard-state.md.
//!
//! Messages cross the wire in a format of our own, docs/formats/peer-messages.md. Whatever arrives, a group
//! refuses what would break it; members are trusted not to lie about what they voted and stored.
//!
//! Deliberately not here: who may connect (the transport's), which nodes a group should have (`control`'s).

mod error;
mod frames;
mod group;
mod hard_state;
mod journal;
mod liveness;
mod members;
mod message;
mod storage;
mod types;

pub use error::{DecodeError, JournalError, MembershipError, ProposeError, QuorumError, StorageError, TransferError};
pub use frames::{SyncDone, SyncJob};
pub use group::{Group, GroupConfig, Read};
pub use hard_state::{GroupKey, HardStates};
pub use journal::{Journal, Recovered};
pub use liveness::{Liveness, Quiet, Received, Slept};
pub use members::{MEMBERS_MAX, Members, MembersError};
pub use message::{Copies, Message};
pub use storage::{Initial, Storage};
pub use types::{Entry, GroupStatus, HardState, Payload, PeerStatus, Ready, Role, Snapshot};
