//! The room against Druid's own specs and data.
#![allow(clippy::print_stdout, reason = "tests say what they skip and what they measured")]

mod data;
mod druid;
