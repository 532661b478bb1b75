//! `status`: one look at a node.

use clap::Args;
use serde_json::{Value, json};

use super::failure::{Code, Failure};
use super::output::{Format, FormatArgs, say, stdout};
use super::remote::HttpArgs;

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// Ends with code 10 if the node is not well.
pub fn run(args: &StatusArgs) -> Result<(), Failure> {
    let status = args.http.connect()?.get("/api/v1/status")?;
    match args.format.format {
        None | Some(Format::Table) => stdout(for_people(&status).as_bytes())?,
        Some(Format::Json) => {
            stdout(format!("{}\n", serde_json::to_string_pretty(&status).unwrap_or_default()).as_bytes())?;
        }
        Some(Format::Ndjson) => stdout(format!("{status}\n").as_bytes())?,
        Some(Format::Csv | Format::Tsv) => {
            let columns = ["status", "ready", "verdict", "version", "uptime_ms"];
            let row = columns.map(|column| status[column].clone()).to_vec();
            args.format.show(&columns, &[row])?;
        }
    }
    if status["status"] == json!("red") || status["ready"] == json!(false) {
        say(&format!("unhealthy: {}", text(&status["verdict"])));
        return Err(Failure::new(Code::Unhealthy, ""));
    }
    Ok(())
}

fn for_people(status: &Value) -> String {
    let mut lines = vec![
        format!("{}  {}", text(&status["status"]), text(&status["verdict"])),
        format!(
            "node {} of {}, version {}, up {}",
            status["node"],
            text(&status["cluster"]),
            text(&status["version"]),
            duration(status["uptime_ms"].as_u64().unwrap_or(0))
        ),
        format!(
            "kafka {}   http {}   postgres {}",
            text(&status["listen"]["kafka"]),
            text(&status["listen"]["http"]),
            text(&status["listen"]["postgres"])
        ),
    ];
    for reason in list(&status["reasons"]) {
        lines.push(format!("not ready: {}", text(reason)));
    }
    for finding in list(&status["findings"]) {
        lines.push(format!("{}: {}", text(&finding["severity"]), text(&finding["title"])));
        lines.push(format!("  cause   {}", cause(&finding["cause"])));
        lines.push(format!("  action  {}", cause(&finding["action"])));
    }
    for table in list(&status["tables"]) {
        let trouble = table["trouble"].as_str().map(|trouble| format!("  {trouble}")).unwrap_or_default();
        lines.push(format!(
            "table {}  {} rows ({} live), {} segments, {} records behind{trouble}",
            text(&table["name"]),
            table["rows"],
            table["live_rows"],
            table["segments"],
            table["lag_records"]
        ));
    }
    for topic in list(&status["topics"]) {
        let partitions = topic["partitions"].as_array().map_or(0, Vec::len);
        lines.push(format!(
            "topic {}  {} records in {partitions} partitions, {} bytes",
            text(&topic["name"]),
            topic["records"],
            topic["size_bytes"]
        ));
    }
    lines.join("\n") + "\n"
}

/// Findings may have these as a text, an object with one, or several.
fn cause(value: &Value) -> String {
    match value {
        Value::Array(all) => all.iter().map(cause).collect::<Vec<_>>().join("; "),
        Value::Object(object) => object.get("text").map_or_else(|| value.to_string(), text),
        other => text(other),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
