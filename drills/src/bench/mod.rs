//! Our own measures, through the server's ports. A figure without its peer in the same run means nothing:
//! `--compare` runs the peers of bench/compare on the same data.

mod idle;
mod ingest;
pub mod load;
mod produce;
mod query;

use clap::Args;

use crate::{Common, Failure};

#[derive(Args)]
pub struct Options {
    /// produce, ingest, query or all; idle: partitions that nobody writes to
    pub name: String,
    /// Seconds of load per measurement
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// Rows of the query bench
    #[arg(long, default_value_t = 2_000_000)]
    pub rows: u64,
    /// Events a second of the ingest bench's steady part
    #[arg(long, default_value_t = 50_000)]
    pub rate: u64,
    /// Partitions of the idle bench
    #[arg(long, default_value_t = 1_000)]
    pub partitions: u32,
    /// Nodes: of the produce bench 1, of the idle bench 3 unless said
    #[arg(long)]
    pub nodes: Option<u32>,
    /// The produce bench's load against a cluster that runs already: host:port,..
    #[arg(long, value_delimiter = ',')]
    pub bootstrap: Vec<String>,
    /// With --bootstrap: the processes whose CPU and memory count
    #[arg(long, value_delimiter = ',')]
    pub pids: Vec<u32>,
    /// The peers on the same data
    #[arg(long)]
    pub compare: bool,
    /// table or json
    #[arg(long, default_value = "table")]
    pub format: String,
}

pub fn run(common: &Common, options: &Options) -> Result<(), Failure> {
    match options.name.as_str() {
        "idle" => idle::run(common, options),
        "produce" => produce::run(common, options),
        "ingest" => ingest::run(common, options),
        "query" => query::run(common, options),
        "all" => {
            produce::run(common, options)?;
            ingest::run(common, options)?;
            query::run(common, options)
        }
        other => Err(format!("there is no bench {other}; there are produce, ingest, query, idle and all")),
    }
}
