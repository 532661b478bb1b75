//! Many rows on disk, SIGKILL, and the time until the first right answer.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::bench::load;
use crate::server::Server;
use crate::{Common, Failure, table};

#[derive(Args)]
pub struct Options {
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// How often it is killed and started again
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// table or json
    #[arg(long, default_value = "table")]
    format: String,
}

pub fn run(common: &Common, options: &Options) -> Result<(), Failure> {
    let mut server = Server::new(common, &[])?;
    server.start()?;
    server.create_table(load::TOPIC)?;
    load::load(&server, options.rows, 30)?;
    load::await_rows(&server, options.rows, Duration::from_secs(600))?;
    let mut cells = Vec::new();
    for round in 1..=options.rounds {
        server.kill();
        let begun = Instant::now();
        server.spawn()?;
        let counted = server.await_sql(&format!("SELECT COUNT(*) FROM {}", load::TOPIC), begun)?;
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if counted != options.rows {
            return Err(format!("round {round}: the first answer counts {counted} of {} rows", options.rows));
        }
        cells.push(vec![json!(round), json!(counted), json!(ms), json!(server.memory_bytes() >> 20)]);
    }
    table::print(&options.format, &["round", "rows", "first_answer_ms", "memory_mib"], &cells);
    Ok(())
}
