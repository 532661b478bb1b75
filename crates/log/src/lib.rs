//! A partition: append, fence, replicate; producers; consumer groups; log files.
//!
//! ```text
//!           append(now, wall, batches)          flush_job()            run() on any thread that may block
//! owner ------------------------------> Partition ---------> FlushJob -------------------------------+
//!   ^                                      |   ^                                                      |
//!   |  Appended { offsets }                |   +----- flushed(done) -> committed moves <--- FlushDone -+
//!   +--------------------------------------+
//!                                          |  shared, lock held for moments only
//!             any thread ------------> Reader: read, offset_for_time, epoch_end, committed
//! ```
//!
//! A partition is a Raft group whose log files are the data: the batches a producer sent lie on disk, go to the
//! other replicas and to consumers, as they came. With one voter the way is the one with many: write, propose,
//! flush, committed. The files are drawn in docs/formats/log-file.md.
//!
//! Duties of the owner, a single thread: [`Partition::tick`] every tick of the group; after ticks, messages
//! ([`Partition::step`]) and appends send [`Partition::take_messages`] and, if [`Partition::needs_flush`], take
//! [`Partition::flush_job`], run it elsewhere, bring its outcome to [`Partition::flushed`] and take messages
//! again. About once a second, if [`Partition::needs_care`]: [`Partition::care_job`], run elsewhere, its outcome to
//! [`Partition::cared`], and the messages. Acknowledge `acks=all` when [`Partition::committed`] reaches [`Appended::next_offset`] while this replica
//! still leads in [`Appended::term`]; `acks=1` after the append if [`Partition::lease_valid`], and say so with
//! [`Partition::note_acked`]. [`Partition::close`] at the end. After [`Stopped`] no write is taken: the disk is not
//! to be trusted; a replica among others that was stopped by damage repairs itself at the next open.
//!
//! What a follower lacks is read for it on the owner's thread, unless the owner says [`Partition::read_apart`]: then it
//! runs [`Partition::take_reads`] elsewhere too and brings each outcome to [`Partition::read_done`].
//!
//! What always holds: what was committed is there after any crash, at its offset, byte for byte; nothing
//! whose checksum does not fit is served; no committed offset ever has two payloads; a batch of an
//! idempotent producer is in the log once; what another leader's records replace is saved before; damage to what was
//! durable is reported with file and byte, never cut off, and repaired only from other replicas: in place where old
//! files are damaged, by fetching everything again where more is.
//!
//! Deliberately not here: clocks, threads, sockets, Kafka's error codes, what records mean. Compaction is
//! refused, not ignored.

mod care;
mod config;
mod cut;
mod damage;
mod error;
mod fields;
mod file;
mod flush;
pub mod forward;
mod frame;
pub mod groups;
mod index;
pub mod limits;
mod lost;
mod mark;
mod partition;
mod producers;
mod reader;
mod reading;
mod recovery;
mod rescue;
mod roster;
mod scan;
mod seats;
mod stable;
mod storage;
pub mod transactions;
mod verification;

pub use base::marker::EndMarker as Marker;
pub use care::{CareDone, CareJob};
pub use config::{LostPolicy, PartitionConfig, TimestampType};
pub use error::{AppendError, DeleteError, OpenError, ReadError, StepError, Stopped};
pub use flush::{FlushDone, FlushJob, HardStates};
pub use lost::{Acked, LostBatch, LostFound, LostState, SettleDone, SettleJob};
pub use partition::{Appended, Partition, PartitionStatus, Trimmed, group_key};
pub use producers::ProducerSeen;
pub use quorum::{Message, Role};
pub use reader::{Fetched, ReadLimit, Reader};
pub use reading::{ReadDone, ReadJob};
pub use recovery::Recovery;
pub use rescue::{RESCUED_FROM_NODE, RESCUED_FROM_OFFSET, RESCUED_FROM_TERM, Rescue, is_rescuer};
pub use seats::Seats;
pub use stable::{AbortedTransaction, LeftOut, OpenTransaction};
pub use verification::Verification;
