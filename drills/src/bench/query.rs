//! The event queries of the bench, through the HTTP port, warm; with `--compare` beside DuckDB and ClickHouse.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Options, load};
use crate::server::{PATIENCE, Server};
use crate::{Common, Failure, http, table};

/// Warm runs of each query; the median counts.
const RUNS: usize = 5;

/// Name and SQL. The peers' spelling is in bench/compare/run.py under the same names.
const QUERIES: &[(&str, &str)] = &[
    ("Q1", "SELECT COUNT(*) FROM edits"),
    (
        "Q2",
        "SELECT TIME_FLOOR(__time, 'PT1H') h, SUM(added) FROM edits \
         WHERE __time >= TIMESTAMP '2026-01-10' AND __time < TIMESTAMP '2026-01-11' GROUP BY 1",
    ),
    ("Q3", "SELECT TIME_FLOOR(__time, 'P1D') d, SUM(added) FROM edits WHERE channel = '#de.wikipedia' GROUP BY 1"),
    ("Q4", "SELECT page, COUNT(*) c FROM edits GROUP BY page ORDER BY c DESC LIMIT 10"),
    (
        "Q5",
        "SELECT page, SUM(added) s FROM edits WHERE channel = '#de.wikipedia' AND isRobot = 0 \
         AND __time >= TIMESTAMP '2026-01-10' AND __time < TIMESTAMP '2026-01-17' GROUP BY page ORDER BY s DESC LIMIT 10",
    ),
    ("Q6", "SELECT channel, isRobot, SUM(added), AVG(delta) FROM edits GROUP BY channel, isRobot"),
    ("Q7", "SELECT \"user\", COUNT(*) c FROM edits GROUP BY \"user\" ORDER BY c DESC LIMIT 100"),
    ("Q8a", "SELECT COUNT(DISTINCT \"user\") FROM edits"),
    ("Q8b", "SELECT APPROX_COUNT_DISTINCT(\"user\") FROM edits"),
    ("Q9", "SELECT SUM(added), COUNT(*) FROM edits WHERE page = 'typo 1201'"),
    (
        "Q10",
        "SELECT cityName, COUNT(*) c FROM edits WHERE countryIsoCode IN ('DA', 'KA', 'RA') GROUP BY cityName \
         ORDER BY c DESC LIMIT 10",
    ),
    ("Q11", "SELECT COUNT(*) FROM edits WHERE page LIKE '%source 12%'"),
    ("Q12", "SELECT page, \"user\", COUNT(*) c FROM edits GROUP BY page, \"user\" ORDER BY c DESC LIMIT 100"),
    ("Q13", "SELECT __time, channel, page, added FROM edits ORDER BY __time DESC LIMIT 100"),
    (
        "Q14",
        "SELECT channel, APPROX_QUANTILE_DS(delta, 0.5), APPROX_QUANTILE_DS(delta, 0.95), APPROX_QUANTILE_DS(delta, 0.99) \
         FROM edits GROUP BY channel",
    ),
];

pub fn run(common: &Common, options: &Options) -> Result<(), Failure> {
    let mut server = Server::new(common, &[("SEAWALL_STORE_SEGMENT_AGE_MAX", "5s")])?;
    server.start()?;
    server.create_table(load::TOPIC)?;
    load::load(&server, options.rows, 30)?;
    load::await_rows(&server, options.rows, Duration::from_secs(900))?;
    await_sealed(&server)?;
    let peers = if options.compare { peers(&server)? } else { Value::Null };
    let mut rows = Vec::new();
    let mut ratios = Vec::new();
    for (name, query) in QUERIES {
        let ours = median_ms(&server, query)?;
        let of = |peer: &str| peers[peer][*name].as_f64();
        let best = [of("duckdb"), of("clickhouse")].into_iter().flatten().min_by(f64::total_cmp);
        let ratio = best.map(|best| ours / best);
        ratios.extend(ratio);
        let shown = |figure: Option<f64>| figure.map_or(Value::Null, |figure| json!((figure * 100.0).round() / 100.0));
        rows.push(vec![json!(name), shown(Some(ours)), shown(of("duckdb")), shown(of("clickhouse")), shown(ratio)]);
    }
    if !ratios.is_empty() {
        #[expect(clippy::cast_precision_loss, reason = "a dozen queries")]
        let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
        rows.push(vec![
            json!("geometric mean"),
            Value::Null,
            Value::Null,
            Value::Null,
            json!((mean * 1000.0).round() / 1000.0),
        ]);
    }
    table::print(&options.format, &["name", "ours_ms", "duckdb_ms", "clickhouse_ms", "ratio"], &rows);
    Ok(())
}

/// Everything in segments, so that the peers can be given the same files.
fn await_sealed(server: &Server) -> Result<(), Failure> {
    let begun = Instant::now();
    while http::count(server.http, "SELECT COUNT(*) FROM sys.segments WHERE is_realtime = 1", PATIENCE)? > 0 {
        if begun.elapsed() > Duration::from_secs(120) {
            return Err("live rows were not sealed within 120 s".into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn median_ms(server: &Server, query: &str) -> Result<f64, Failure> {
    http::sql(server.http, query, PATIENCE)?;
    let mut runs = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let begun = Instant::now();
        http::sql(server.http, query, PATIENCE)?;
        runs.push(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    runs.sort_by(f64::total_cmp);
    Ok(table::percentile(&runs, 0.5))
}

/// Runs the peers on the Parquet files of our own deep storage; `{peer: {query: ms}}`.
fn peers(server: &Server) -> Result<Value, Failure> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/compare/run.py");
    let deep = server.folder.join("data/deep");
    let output = Command::new("python3")
        .arg(script)
        .args(["--files".as_ref(), deep.as_os_str()])
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| format!("python3: {error}"))?;
    if !output.status.success() {
        return Err(format!("{script} failed: {}", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{script}: {error}"))
}
