//! `config show` and `config validate`: what the node would be told, and from where.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::failure::{Code, Failure};
use super::output::{Format, FormatArgs, say, stdout};
use crate::config::{ConfigFlags, KEYS, Key, Loaded, read};

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show every setting, as the file, the environment and the flags make it
    Show(Show),
    /// Check the file, the environment and the flags without starting anything
    Validate(ConfigFlags),
}

#[derive(Debug, Args)]
pub struct Show {
    /// Say where each value came from
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    flags: ConfigFlags,
}

pub fn run(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Show(show) => show_all(show),
        ConfigCommand::Validate(flags) => validate(flags),
    }
}

fn load(flags: &ConfigFlags) -> Result<Loaded, Failure> {
    let loaded = read(&flags.sources()).map_err(|error| Failure::usage(error.to_string()))?;
    for note in &loaded.notes {
        say(&format!("note: {note}"));
    }
    Ok(loaded)
}

fn show_all(show: &Show) -> Result<(), Failure> {
    let loaded = load(&show.flags)?;
    if !matches!(show.format.format, None | Some(Format::Table)) {
        let row = |key: &Key| {
            let origin = loaded.origin(key).to_string();
            [key.name.to_owned(), key.show(&loaded.config), origin, key.help()].map(Value::String).to_vec()
        };
        let rows: Vec<Vec<Value>> = KEYS.iter().map(row).collect();
        return show.format.show(&["key", "value", "origin", "help"], &rows);
    }
    stdout(as_file(&loaded, show.origin).as_bytes())
}

/// A file that would give this configuration.
fn as_file(loaded: &Loaded, with_origin: bool) -> String {
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        if key.section() != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            section = key.section();
            text.push_str(&format!("{gap}[{section}]\n"));
        }
        let shown = key.show(&loaded.config);
        let is_bare = shown.parse::<i64>().is_ok() || matches!(shown.as_str(), "true" | "false");
        let value = if is_bare { shown } else { Value::String(shown).to_string() };
        let comment = if with_origin { loaded.origin(key).to_string() } else { key.help() };
        text.push_str(&format!("{:<40} # {comment}\n", format!("{} = {value}", key.short_name())));
    }
    text
}

fn validate(flags: &ConfigFlags) -> Result<(), Failure> {
    let loaded = load(flags)?;
    loaded.check().map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
    let file = loaded.file.as_ref().map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
    say(&format!("good: {} settings, {file}", KEYS.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn what_is_shown_is_a_file_that_gives_the_same() {
        let loaded = read(&Sources { dev: true, ..Sources::default() }).unwrap();
        let path = std::env::temp_dir().join(format!("seawall-show-{}.toml", std::process::id()));
        std::fs::write(&path, as_file(&loaded, true)).unwrap();
        let again = read(&Sources { file: Some(path.clone()), dev: true, ..Sources::default() });
        std::fs::remove_file(path).unwrap();
        assert_eq!(again.unwrap().config, loaded.config);
    }
}
