//! Measures the release build through its own ports.

use clap::Args;

use crate::run::{cargo, run};

#[derive(Args)]
pub struct Options {
    /// produce, ingest, query, all or idle
    name: String,
    /// Seconds of load per measurement
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Rows for the query bench
    #[arg(long, default_value_t = 2_000_000)]
    rows: u64,
    /// Nodes of the produce and idle benches
    #[arg(long)]
    nodes: Option<u32>,
    /// Partitions of the idle bench
    #[arg(long)]
    partitions: Option<u32>,
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
    let mut arguments =
        vec!["run", "--release", "--quiet", "--locked", "-p", "seawall-drills", "--", "bench", &options.name];
    arguments.extend(["--seconds", &seconds, "--rows", &rows, "--format", &options.format]);
    let nodes = options.nodes.map(|nodes| nodes.to_string());
    let partitions = options.partitions.map(|partitions| partitions.to_string());
    for (flag, value) in [("--nodes", &nodes), ("--partitions", &partitions)] {
        arguments.extend(value.iter().flat_map(|value| [flag, value.as_str()]));
    }
    if options.compare {
        arguments.push("--compare");
    }
    run(&cargo(), &arguments, &[])
}
