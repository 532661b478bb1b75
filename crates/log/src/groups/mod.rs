//! Consumer groups: who reads which partition (the classic protocol), and how far each group has read.
//!
//! ```text
//!                 Request + Ticket          Persist(WriteId, records)
//! a client  ---------------------->  step  ------------------------->  the internal topic
//!           <----------------------        <-------------------------
//!                 Respond(Ticket)           Persisted | WriteFailed(WriteId)
//! ```
//! A pure state machine: the present is an argument, what should happen is the answer. States of a group:
//!
//! ```text
//!          join                all joined, or the          the leader's assignment
//!  Empty --------> Preparing   rebalance timeout  Completing  is durable           Stable
//!    ^             Rebalance  ------------------> Rebalance ---------------------->  |
//!    |                ^  ^-------------------------'  join, leave, session over     |
//!    '----------------+-------------------------------------------------------------'
//! ```
//! Always holds:
//! - A generation is never reused and never goes back while the group exists; whoever names another one, or is not a member
//!   of it, commits nothing.
//! - An offset commit, an assignment and a deletion are answered after their records are durable. What was answered is
//!   there after a crash.
//! - Every request is answered: at once, or by the group's rebalance timeout, or within [`limits::WRITE_MS_MAX`].
//! - Members survive a restart of the coordinator with their assignments: no rebalance, only fresh session timeouts.
//!
//! Duties of the caller:
//! - [`Coordinator::load`] every record of the internal topic in order, then [`Coordinator::loaded`], before the first step.
//! - Append the records of `Persist` in the order of the effects, and tell the outcome of each.
//! - Step with [`Input::Tick`] at [`Coordinator::next_deadline`].
//! - The internal topic has no cleaner: now and then append [`Coordinator::checkpoint`], each part while no write is out, and trim
//!   what is below the first part.
//!
//! Not here: Kafka's error codes, whether a topic exists, whether a transaction is under way. Records: docs/formats/consumer-offsets.md.

mod coordinator;
mod error;
mod group;
pub mod limits;
mod offsets;
mod pending;
mod rebalance;
mod record;
mod request;
mod subscription;
mod write;

#[cfg(test)]
mod tests;

pub use coordinator::{CheckpointPart, Coordinator, Effect, GroupsConfig, Input, LoadError, Record, Ticket, WriteId};
pub use error::GroupError;
pub use group::GroupState;
pub use request::{
    Assignment, CommitOffset, Committed, DeletedOffset, DescribedGroup, DescribedMember, Join, Joined, JoinedMember,
    Leaver, ListedGroup, OffsetOutcome, Protocol, Request, Response, Synced, TopicOffsets, TopicPartitions,
    TransactionCommit,
};
