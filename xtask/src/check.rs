//! The house rules: what ARCHITECTURE.md draws is what cargo sees, and no file outgrows its reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::run::{capture, cargo, root};

/// A file past this is split (STYLE.md 4).
const FILE_LINES_MAX: usize = 1_000;

type Table = BTreeMap<String, BTreeSet<String>>;

/// Runs every rule and reports all that is broken, not only the first.
pub fn check() -> Result<(), String> {
    let architecture = read(&root().join("ARCHITECTURE.md"))?;
    let metadata = metadata()?;
    let mut broken = arrows(&table(&architecture, "arrows")?, &metadata);
    broken.extend(homes(&table(&architecture, "homes")?, &metadata));
    let files = capture("git", &["ls-files", "--cached", "--others", "--exclude-standard"])?;
    broken.extend(sizes(&files)?);
    broken.extend(room_furniture());
    if let Err(message) = capture(&cargo(), &["fmt", "--all", "--check"]) {
        broken.push(format!("formatting: run `cargo fmt --all` ({})", message.lines().next().unwrap_or_default()));
    }
    if broken.is_empty() {
        println!("check: arrows, homes of crates, file sizes, room furniture and formatting are as drawn");
        return Ok(());
    }
    Err(format!("{} rules are broken:\n  {}", broken.len(), broken.join("\n  ")))
}

/// The Markdown table between `<!-- NAME: begin -->` and `<!-- NAME: end -->`: first cell -> names in the second.
fn table(text: &str, name: &str) -> Result<Table, String> {
    let begin = format!("<!-- {name}: begin -->");
    let end = format!("<!-- {name}: end -->");
    let body = text
        .split_once(&begin)
        .and_then(|(_, rest)| rest.split_once(&end))
        .map(|(body, _)| body)
        .ok_or_else(|| format!("ARCHITECTURE.md has no table between {begin} and {end}"))?;
    Ok(body
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|---"))
        .skip(1)
        .filter_map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            let room = cells.next()?.to_owned();
            let names = cells.next().unwrap_or_default().split(',').map(str::trim);
            Some((room, names.filter(|name| !name.is_empty()).map(str::to_owned).collect()))
        })
        .collect())
}

/// Room -> crates it names (dev- and build-dependencies included), as cargo sees it.
fn metadata() -> Result<Table, String> {
    let text = capture(&cargo(), &["metadata", "--format-version", "1", "--no-deps", "--locked"])?;
    let json: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = json["packages"].as_array().ok_or("cargo metadata has no packages")?;
    Ok(packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            let names = dependencies.filter_map(|dependency| dependency["name"].as_str()).map(room_of).collect();
            (room_of(package["name"].as_str().unwrap_or_default()), names)
        })
        .collect())
}

/// `seawall-log` -> `log`; the binary's package is the room `server`.
fn room_of(package: &str) -> String {
    if package == "seawall" { "server".into() } else { package.strip_prefix("seawall-").unwrap_or(package).into() }
}

fn arrows(drawn: &Table, seen: &Table) -> Vec<String> {
    let rooms: BTreeSet<&String> = seen.keys().collect();
    let mut broken: Vec<String> = Vec::new();
    for (room, names) in seen {
        let Some(allowed) = drawn.get(room) else {
            broken.push(format!("room {room} is not drawn in ARCHITECTURE.md"));
            continue;
        };
        let own: BTreeSet<String> = names.iter().filter(|name| rooms.contains(name)).cloned().collect();
        broken.extend(
            own.difference(allowed)
                .map(|name| format!("new arrow: {room} names {name}; draw it and say why in docs/adr")),
        );
        broken.extend(
            allowed.difference(&own).map(|name| format!("arrow not there: {room} does not name {name}; erase it")),
        );
    }
    broken.extend(
        drawn.keys().filter(|room| !seen.contains_key(*room)).map(|room| format!("room {room} is drawn, not built")),
    );
    broken
}

fn homes(drawn: &Table, seen: &Table) -> Vec<String> {
    seen.iter()
        .flat_map(|(room, names)| {
            drawn
                .iter()
                .filter(move |(krate, homes)| names.contains(*krate) && !homes.contains(room))
                .map(move |(krate, homes)| format!("{room} names {krate}, which lives only in {homes:?}"))
        })
        .collect()
}

fn sizes(files: &str) -> Result<Vec<String>, String> {
    let mut broken = Vec::new();
    for file in files.lines().filter(|file| Path::new(file).extension().is_some_and(|ending| ending == "rs")) {
        let path = root().join(file);
        if !path.exists() {
            continue;
        }
        let lines = read(&path)?.lines().count();
        if lines > FILE_LINES_MAX {
            broken.push(format!("{file} has {lines} lines, more than {FILE_LINES_MAX}: split it"));
        }
    }
    Ok(broken)
}

/// Every room opens with what it is; every deciding room bans what a decision may not touch.
fn room_furniture() -> Vec<String> {
    let mut broken = Vec::new();
    for room in ["base", "kafka", "quorum", "control", "log", "store", "query", "sim"] {
        let folder = root().join("crates").join(room);
        if !read(&folder.join("src/lib.rs")).unwrap_or_default().starts_with("//!") {
            broken.push(format!("crates/{room}/src/lib.rs does not open with what it is"));
        }
        if ["quorum", "control", "log", "store", "sim"].contains(&room) && !folder.join("clippy.toml").exists() {
            broken.push(format!("crates/{room}/clippy.toml is missing: it bans clocks, threads, files and sockets"));
        }
    }
    broken
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
