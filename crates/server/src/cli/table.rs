//! `table ls | create | describe | drop | suspend | resume`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{Format, FormatArgs, confirm, say, stdout};
use super::remote::{HttpArgs, segment};

#[derive(Debug, Subcommand)]
pub enum TableCommand {
    /// List the tables
    Ls(List),
    /// Create a table that reads a topic
    Create(Create),
    /// Show a table's columns and how far it has read
    Describe(Describe),
    /// Drop a table and its rows; its topic stays
    Drop(Drop),
    /// Stop reading; what it has stays queryable
    Suspend(One),
    /// Go on reading
    Resume(One),
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, Args)]
pub struct Create {
    /// The table's name; with --spec the spec names it
    #[arg(required_unless_present = "spec", conflicts_with = "spec")]
    name: Option<String>,
    /// The topic it reads [default: the table's name]
    #[arg(long, conflicts_with = "spec")]
    topic: Option<String>,
    /// A table spec in JSON; - for stdin. Without one the columns are discovered
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    #[command(flatten)]
    http: HttpArgs,
}

#[derive(Debug, Args)]
pub struct Describe {
    name: String,
    /// Print the table's spec, as `create --spec` takes it
    #[arg(long)]
    spec: bool,
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, Args)]
pub struct Drop {
    #[arg(required = true)]
    names: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    http: HttpArgs,
}

#[derive(Debug, Args)]
pub struct One {
    name: String,
    #[command(flatten)]
    http: HttpArgs,
}

pub fn run(command: &TableCommand) -> Result<(), Failure> {
    match command {
        TableCommand::Ls(args) => list(args),
        TableCommand::Create(args) => create(args),
        TableCommand::Describe(args) => describe(args),
        TableCommand::Drop(args) => drop_tables(args),
        TableCommand::Suspend(args) => change(args, "suspend", "suspended"),
        TableCommand::Resume(args) => change(args, "resume", "resumed"),
    }
}

fn list(args: &List) -> Result<(), Failure> {
    let tables = args.http.connect()?.get("/api/v1/tables")?;
    const COLUMNS: [&str; 8] = ["name", "topic", "rows", "live_rows", "segments", "newest", "lag_records", "trouble"];
    let tables = tables.as_array().cloned().unwrap_or_default();
    let row = |table: &Value| COLUMNS.iter().map(|column| table[*column].clone()).collect();
    let rows: Vec<Vec<Value>> = tables.iter().map(row).collect();
    args.format.show(&COLUMNS, &rows)
}

fn create(args: &Create) -> Result<(), Failure> {
    let spec = match (&args.spec, &args.name) {
        (Some(path), _) => read_spec(path)?,
        (None, Some(name)) => json!({"name": name, "topic": args.topic.as_ref().unwrap_or(name)}),
        (None, None) => return Err(Failure::usage("name the table, or give a spec with --spec FILE")),
    };
    let created = args.http.connect()?.post("/api/v1/tables", &spec)?;
    say(&format!("created {}, reading topic {}", text(&created["name"]), text(&created["topic"])));
    Ok(())
}

fn read_spec(path: &PathBuf) -> Result<Value, Failure> {
    let name = path.display();
    let content =
        if path.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    let content = content.map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    serde_json::from_str(&content).map_err(|error| Failure::usage(format!("{name}: not valid JSON: {error}")))
}

fn describe(args: &Describe) -> Result<(), Failure> {
    let table = args.http.connect()?.get(&path_of(&args.name))?;
    if args.spec {
        return stdout(format!("{}\n", pretty(&table["spec"])).as_bytes());
    }
    if matches!(args.format.format, Some(Format::Json | Format::Ndjson)) {
        let text = if args.format.format == Some(Format::Json) { pretty(&table) } else { table.to_string() };
        return stdout(format!("{text}\n").as_bytes());
    }
    say(&summary(&table));
    let columns = table["columns"].as_array().cloned().unwrap_or_default();
    let row = |column: &Value| {
        let role = &column["role"];
        let role = if role.is_string() { text(role) } else { role.to_string() };
        vec![
            column["name"].clone(),
            column["ty"].as_str().map_or_else(|| column["type"].clone(), Value::from),
            role.into(),
        ]
    };
    let rows: Vec<Vec<Value>> = columns.iter().map(row).collect();
    args.format.show(&["column", "type", "role"], &rows)
}

fn summary(table: &Value) -> String {
    let mut lines = vec![
        format!("table     {} reads topic {}", text(&table["name"]), text(&table["topic"])),
        format!(
            "rows      {} ({} live, {} in {} segments of {} bytes)",
            table["rows"], table["live_rows"], table["segment_rows"], table["segments"], table["segment_bytes"]
        ),
    ];
    for partition in table["partitions"].as_array().into_iter().flatten() {
        lines.push(format!(
            "partition {}: read to {} of {}, published to {}",
            partition["partition"], partition["next"], partition["committed"], partition["published"]
        ));
    }
    let ingested = &table["ingested"];
    lines.push(format!(
        "ingested  {} rows since the start, {} unparseable, {} thrown away",
        ingested["rows"], ingested["unparseable"], ingested["thrown_away"]
    ));
    if table["suspended"] == json!(true) {
        lines.push("state     suspended: it reads nothing until `seawall table resume`".to_owned());
    }
    if let Some(trouble) = table["trouble"].as_str() {
        lines.push(format!("trouble   {trouble}"));
    }
    for letter in table["dead_letters"].as_array().into_iter().flatten().take(5) {
        let at = format!("{}/{}", letter["partition"], letter["offset"]);
        lines.push(format!("bad row   at {at}: {}: {}", text(&letter["reason"]), text(&letter["sample"])));
    }
    lines.join("\n") + "\n"
}

fn drop_tables(args: &Drop) -> Result<(), Failure> {
    confirm(&format!("Drop {} and all rows?", args.names.join(", ")), args.yes)?;
    let http = args.http.connect()?;
    for name in &args.names {
        http.delete(&path_of(name))?;
        say(&format!("dropped {name}"));
    }
    Ok(())
}

fn change(args: &One, action: &str, done: &str) -> Result<(), Failure> {
    args.http.connect()?.post(&format!("{}/{action}", path_of(&args.name)), &json!({}))?;
    say(&format!("{} {}", done, args.name));
    Ok(())
}

fn path_of(name: &str) -> String {
    format!("/api/v1/tables/{}", segment(name))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
