//! The query room from outside: text in, text out, over small tables and over real ones.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "helpers of tests"
)]

mod common;
mod oracle;
mod service;
mod slt;
mod wikipedia;
