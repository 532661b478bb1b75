//! The query room from outside: text in, text out, over small tables and over real ones.

mod common;
mod service;
mod slt;
mod wikipedia;
