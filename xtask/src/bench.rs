//! Measures the release build through its own ports.

use clap::Args;

use crate::run::{cargo, run};

#[derive(Args)]
pub struct Options {
    /// produce, ingest, query or all
    name: String,
    /// Seconds of load per measurement
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Rows for the query bench
    #[arg(long, default_value_t = 2_000_000)]
    rows: u64,
    /// Nodes of the produce bench
    #[arg(long, default_value_t = 1)]
    nodes: u32,
    /// With the peers beside it (needs python3; makes its own virtual environment)
    #[arg(long)]
    compare: bool,
    /// table or json
    #[arg(long, default_value = "table")]
    format: String,
}

pub fn bench(options: &Options) -> Result<(), String> {
    run(&cargo(), &["build", "--release", "--locked", "-p", "seawall", "-p", "seawall-drills"], &[])?;
    let seconds = options.seconds.to_string();
    let rows = options.rows.to_string();
    let nodes = options.nodes.to_string();
    let mut arguments =
        vec!["run", "--release", "--quiet", "--locked", "-p", "seawall-drills", "--", "bench", &options.name];
    arguments.extend(["--seconds", &seconds, "--rows", &rows, "--nodes", &nodes, "--format", &options.format]);
    if options.compare {
        arguments.push("--compare");
    }
    run(&cargo(), &arguments, &[])
}
