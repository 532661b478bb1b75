//! Whole clusters of the deciding rooms under one seed.
//!
//! ```text
//!                seed -> Plan: nodes, links, disks, clocks, which faults how often
//!                          |
//!  clients --asks--> World: events in the order of their virtual time --messages--> nodes
//!     ^                    |  nemesis: kills, cuts, pauses, tears            each: disk, clocks, group 0,
//!     +-----answers--------+                                                 replicas, group coordinator
//!                          v
//!                        Facts: after every step, what must always hold; after the faults: all is well
//! ```
//!
//! A node is what `server` makes of the rooms, without its threads: the same calls in the same order, fsyncs
//! that take time, owners that wait for them. The disk is [`base::disk::memory::MemDisk`].
//!
//! What always holds: a run is a function of its seed; the same seed gives the same trace, event by event. The
//! first broken promise ends a run and is its outcome; so does a panic of a room.
//!
//! Deliberately not here: the Kafka and HTTP codecs, the store, queries, sockets. Their seams with these rooms
//! are tried by `drills` with real processes. How to run and what was found: docs/simulator.md.

mod clients;
mod disk;
mod facts;
mod nemesis;
mod network;
mod node;
mod plan;
mod random;
pub mod runner;
mod time;
mod trace;
mod world;

pub use node::Bug;
pub use plan::{Kind, Plan};
pub use trace::Violation;
pub use world::Outcome;
