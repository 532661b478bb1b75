//! The binary `seawall`: composes the rooms, and is the only one with sockets, files, clocks and threads.
//!
//! ```text
//! cli/     what a person types            config/  file + environment + flags, with their origin
//! edge/    Kafka, HTTP, PostgreSQL in     node/    one node: topics, tables, groups, queries composed
//! shell/   the doers: real disk, group 0's thread, the log's threads and flusher
//! forward/ a node as a spool: what it takes is passed on to a cluster
//! ```

mod cli;
mod config;
mod edge;
mod forward;
mod node;
mod shell;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
