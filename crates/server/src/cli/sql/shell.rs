//! The interactive shell: lines until a semicolon, history, completion, and commands that begin with a backslash.

use std::path::PathBuf;

use clap::ValueEnum;
use reedline::{
    ColumnarMenu, DefaultPrompt, DefaultPromptSegment, Emacs, FileBackedHistory, KeyCode, KeyModifiers, MenuBuilder,
    Reedline, ReedlineEvent, ReedlineMenu, Signal, ValidationResult, Validator, default_emacs_keybindings,
};
use serde_json::Value;

use super::complete::Names;
use super::run::Runner;
use super::show::plain;
use crate::cli::failure::{Code, Failure};
use crate::cli::output::{self, Format};
use crate::edge::postgres::statements::{is_complete, split};

/// Lines of history kept.
const HISTORY_MAX: usize = 10_000;
const MENU: &str = "completion";
const HELP: &str = "\
statements end with a semicolon and may span lines; Tab completes names; Ctrl-C cancels what runs; Ctrl-D leaves
  \\dt             tables, with their rows and how fresh they are
  \\d NAME         the columns of a table
  \\df [PATTERN]   functions
  \\x              one line per value, on or off
  \\timing         say how long a statement took, on or off
  \\format NAME    table, json, ndjson, csv or tsv
  \\refresh        ask the node for its names again
  \\q              leave";

/// Runs until the person leaves.
///
/// # Errors
/// When the node cannot be reached at the start, or the terminal cannot be used.
pub fn shell(mut runner: Runner) -> Result<(), Failure> {
    let status = runner.get("/api/v1/status")?;
    let said = |key: &str| status.get(key).map(plain).unwrap_or_default();
    output::say(&format!("Seawall {} · {} · \\? helps, \\q leaves", said("version"), said("verdict")));
    runner.timing = true;
    let mut editor = editor(Names::ask(&runner));
    let prompt = DefaultPrompt::new(DefaultPromptSegment::Basic("seawall".to_owned()), DefaultPromptSegment::Empty);
    loop {
        match editor.read_line(&prompt)? {
            Signal::Success(line) => {
                if line.trim() == "\\refresh" {
                    editor = editor.with_completer(Box::new(Names::ask(&runner)));
                    continue;
                }
                match command(&mut runner, line.trim()) {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    // A closed stdout ends the shell; every other failure only its statement.
                    Err(failure) if failure.message.is_empty() => return Err(failure),
                    Err(failure) => output::say(&failure.message),
                }
            }
            Signal::CtrlD => return Ok(()),
            _ => {}
        }
    }
}

fn editor(names: Names) -> Reedline {
    let mut keys = default_emacs_keybindings();
    let complete = ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext]);
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
    keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
    let menu = ReedlineMenu::EngineCompleter(Box::new(ColumnarMenu::default().with_name(MENU)));
    let editor = Reedline::create()
        .with_completer(Box::new(names))
        .with_menu(menu)
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_validator(Box::new(UntilSemicolon))
        .with_quick_completions(true)
        .with_partial_completions(true)
        .with_ansi_colors(std::env::var_os("NO_COLOR").is_none());
    match history_file().and_then(|file| FileBackedHistory::with_file(HISTORY_MAX, file).ok()) {
        Some(history) => editor.with_history(Box::new(history)),
        None => editor,
    }
}

/// `$XDG_STATE_HOME/seawall/sql_history`, or below `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    Some(state.join("seawall").join("sql_history"))
}

struct UntilSemicolon;

impl Validator for UntilSemicolon {
    fn validate(&self, line: &str) -> ValidationResult {
        if line.trim_start().starts_with('\\') || matches!(line.trim(), "quit" | "exit") || is_complete(line) {
            ValidationResult::Complete
        } else {
            ValidationResult::Incomplete
        }
    }
}

/// Runs what was typed. True: leave.
fn command(runner: &mut Runner, line: &str) -> Result<bool, Failure> {
    let (word, argument) = line.split_once(char::is_whitespace).map_or((line, ""), |(word, rest)| (word, rest.trim()));
    let argument = argument.trim_end_matches(';');
    match word {
        "\\q" | "quit" | "exit" | "quit;" | "exit;" => return Ok(true),
        "\\?" | "\\h" => output::say(HELP),
        "\\x" => {
            runner.expanded = !runner.expanded;
            output::say(if runner.expanded { "one line per value" } else { "one line per row" });
        }
        "\\timing" => {
            runner.timing = !runner.timing;
            output::say(if runner.timing { "timing is on" } else { "timing is off" });
        }
        "\\format" => {
            runner.format = Format::from_str(argument, true)
                .map_err(|_| Failure::usage("\\format needs table, json, ndjson, csv or tsv"))?;
        }
        "\\dt" => tables(runner)?,
        "\\d" if argument.is_empty() => tables(runner)?,
        "\\d" => columns(runner, argument)?,
        "\\df" => functions(runner, argument)?,
        _ if word.starts_with('\\') => return Err(Failure::usage(format!("{word} is no command; \\? lists them"))),
        _ => {
            for statement in split(line) {
                runner.run(statement)?;
            }
        }
    }
    Ok(false)
}

fn tables(runner: &Runner) -> Result<(), Failure> {
    let tables = runner.get("/api/v1/tables")?;
    let keys = ["name", "topic", "rows", "live_rows", "segments", "lag_records", "newest", "trouble"];
    let row = |table: &Value| keys.iter().map(|key| table.get(*key).cloned().unwrap_or(Value::Null)).collect();
    let rows: Vec<Vec<Value>> = tables.as_array().map(|all| all.iter().map(row).collect()).unwrap_or_default();
    if rows.is_empty() {
        output::say("no tables yet: `seawall table create NAME --topic TOPIC` makes one");
        return Ok(());
    }
    output::FormatArgs { format: Some(runner.format) }.show(&keys, &rows)
}

fn literal(text: &str) -> String {
    format!("'{}'", text.trim_matches('"').replace('\'', "''"))
}

fn columns(runner: &Runner, table: &str) -> Result<(), Failure> {
    let (schema, name) = table.split_once('.').map_or((None, table), |(schema, name)| (Some(schema), name));
    let in_schema = schema.map(|schema| format!(" AND TABLE_SCHEMA = {}", literal(schema))).unwrap_or_default();
    let question = format!(
        "SELECT COLUMN_NAME, DATA_TYPE, IS_NULLABLE FROM INFORMATION_SCHEMA.COLUMNS \
         WHERE TABLE_NAME = {}{in_schema} ORDER BY ORDINAL_POSITION",
        literal(name)
    );
    let rows = runner.rows(&question)?;
    if rows.is_empty() {
        return Err(Failure::new(Code::NotFound, format!("table {table} does not exist; \\dt lists all")));
    }
    output::FormatArgs { format: Some(runner.format) }.show(&["column", "type", "nullable"], &rows)
}

fn functions(runner: &Runner, pattern: &str) -> Result<(), Failure> {
    let like =
        if pattern.is_empty() { "%".to_owned() } else { format!("%{}%", pattern.to_uppercase().replace('*', "%")) };
    let question = format!(
        "SELECT ROUTINE_NAME, IS_AGGREGATOR, SIGNATURES FROM INFORMATION_SCHEMA.ROUTINES \
         WHERE UPPER(ROUTINE_NAME) LIKE {} ORDER BY ROUTINE_NAME",
        literal(&like)
    );
    let rows = runner.rows(&question)?;
    output::FormatArgs { format: Some(runner.format) }.show(&["function", "aggregates", "arguments"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_whole_at_its_semicolon_or_as_a_command() {
        let whole = |line: &str| matches!(UntilSemicolon.validate(line), ValidationResult::Complete);
        assert!(whole("SELECT 1;") && whole("\\d edits") && whole("exit") && whole(""));
        assert!(!whole("SELECT ';'") && !whole("SELECT 1\nFROM x"));
    }

    #[test]
    fn names_become_literals() {
        assert_eq!(literal("\"it's\""), "'it''s'");
    }
}
