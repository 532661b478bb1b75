//! Real seawall processes, broken on purpose and counted. They are touched through their ports, their signals and,
//! where a drill damages a disk, their files: never by a call.
//!
//! ```text
//! run, Options   the door: names of drills in, rows out; `seawall drill` and the binary `drills` use it
//! scenario/      the drills: a few lines each over what follows; `catalogue` lists them
//! trial          one run of one drill: load, faults, and the judgement
//! cluster/       N processes in a folder of their own: start, kill, stop, isolate
//! front          a `seawall forward` between producers and the cluster
//! links/         the user-space links between them that can be cut, delayed, slowed
//! load/, watch   producers that account for every record; readers that run meanwhile
//! verdict        what was acknowledged against what is there
//! play           a cluster for real client libraries, whose leaders are killed in turn
//! report         rows, summaries, and the record of earlier runs
//! kill, restart, server, ledger   one node: kill rounds, restart times
//! bench/, usage  measures
//! ```
//! What always holds: traffic stays on loopback, all of it below one temporary folder, every wait is bounded, and every
//! process that was started is ended.
//!
//! Deliberately not here: anything of the server's own crates but `base` and the client. A drill that could look inside
//! would prove less.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the benches of this package print what they measure")]

pub mod bench;
pub mod cluster;
pub mod front;
mod http;
pub mod kill;
mod ledger;
pub mod links;
pub mod load;
pub mod play;
mod random;
pub mod report;
pub mod restart;
mod run;
pub mod scenario;
mod server;
mod table;
pub mod trial;
mod usage;
pub mod verdict;
pub mod watch;

pub use run::{Options, run};
pub use scenario::{Drill, catalogue};
pub use table::print as print_rows;

use std::path::PathBuf;

use clap::Args;

/// Anything that went wrong, in words.
pub type Failure = String;

/// What the older drills and the benches need.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// The binary; default: beside this program
    #[arg(long, global = true)]
    pub seawall: Option<PathBuf>,
    /// Where the server keeps its data; default: a new folder below the system's temporary folder
    #[arg(long, global = true)]
    pub folder: Option<PathBuf>,
    /// Do not remove the folder at the end
    #[arg(long, global = true)]
    pub keep: bool,
}

impl Common {
    /// The binary that is drilled.
    ///
    /// # Errors
    /// It is not where it was said to be, or nobody said and it is not beside this program.
    pub fn binary(&self) -> Result<PathBuf, Failure> {
        let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("seawall")));
        let binary = self.seawall.clone().or(beside).ok_or("where is the binary? say --seawall PATH")?;
        if binary.exists() {
            return Ok(binary);
        }
        Err(format!("{} is not there; build it or say --seawall PATH", binary.display()))
    }
}
