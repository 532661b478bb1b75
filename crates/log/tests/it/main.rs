//! The partition from outside, on a disk in memory.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::disallowed_methods,
    reason = "tests: a panic is the report, numbers are small, threads and clocks are theirs"
)]

mod crash;
mod damage;
mod partition;
mod producers;
mod replicas;
mod speed;
mod transactions;
mod world;
