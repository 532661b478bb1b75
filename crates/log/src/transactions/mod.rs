//! Transactions: which batches of which partitions, and which offsets of which groups, become visible together or not at all.
//!
//! ```text
//!                 Request + Ticket          Persist(WriteId, records)
//! a producer ---------------------->  step  ------------------------->  the internal topic
//!            <----------------------        <-------------------------
//!                 Respond(Ticket)           Persisted | WriteFailed(WriteId)
//!                                           Mark(MarkId, target)
//!                                           ------------------------->  leaders of partitions, coordinators of groups
//!                                           <-------------------------
//!                                           Marked | MarkFailed(MarkId)
//! ```
//! A pure state machine: the present is an argument, what should happen is the answer. States of a transaction:
//!
//! ```text
//!          a partition or      the producer commits                 every target
//!          group is added      ,--------> PrepareCommit ----------> CompleteCommit --.
//!  Empty ---------------> Ongoing         is durable                has its marker   +--> Ongoing: the next one
//!                              '--------> PrepareAbort -----------> CompleteAbort ---'
//!                              the producer aborts, another comes under its name, or its time is over
//! ```
//! Always holds:
//! - Once a commit (abort) has been prepared durably, its outcome never changes: markers are sent until every target has
//!   taken them or is gone, by this coordinator or by the next one that loads the topic.
//! - Nobody is told of success before what it means is durable; the same question asked again gets the same answer.
//! - The epoch of a producer never goes back. Whoever comes with another one is fenced.
//! - A transaction whose producer is silent for its timeout is aborted, under a higher epoch.
//! - Every request is answered: at once, or within [`limits::WRITE_MS_MAX`].
//!
//! Duties of the caller:
//! - [`Coordinator::load`] every record of the internal topic in order, then [`Coordinator::loaded`], before the first step.
//! - Append the records of `Persist` in the order of the effects, and tell the outcome of each.
//! - Try each `Mark` once, in bounded time, and tell the outcome. A target that is gone for good is `Marked`. A mark that comes
//!   late, after a later [`Mark::round`] of the same coordinator or a later coordinator's, must not be carried out.
//! - Step with [`Input::Tick`] at [`Coordinator::next_deadline`].
//! - Checkpoint and trim the internal topic, as for [`super::groups`].
//!
//! Not here: Kafka's error codes, names of topics, who leads what, what a partition does with a marker.
//! Records: docs/formats/transaction-state.md.

mod coordinator;
mod error;
pub mod limits;
mod marks;
mod record;
mod request;
mod rules;

#[cfg(test)]
mod tests;

pub use super::groups::{CheckpointPart, Record, Ticket, WriteId};
pub use coordinator::{Coordinator, Effect, Input, LoadError, TransactionsConfig};
pub use error::TransactionError;
pub use marks::{Mark, MarkId};
pub use request::{DescribedTransaction, ListedTransaction, Producer, Request, Response, Target, TransactionState};
