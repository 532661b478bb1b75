//! Runs drills by name, one after another, each in a folder of its own.

use std::path::{Path, PathBuf};

use crate::Failure;
use crate::report::{self, Row};
use crate::scenario::{Drill, catalogue};
use crate::trial::{Outcome, Stage};

/// What is to be run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of drills, beginnings of names that end in `-` ("log-"), or `all`.
    pub names: Vec<String>,
    pub repeat: u32,
    pub seed: u64,
    /// Long waits at their full length instead of shortened.
    pub full: bool,
    /// The binary that is drilled.
    pub binary: PathBuf,
    /// Below it each run has a folder.
    pub folder: PathBuf,
    /// Keep the folders of all runs; those of runs that did not pass are kept anyhow.
    pub keep: bool,
    /// Says what happens.
    pub talk: fn(&str),
}

impl Options {
    /// A new folder below the system's temporary one.
    #[must_use]
    pub fn temporary_folder() -> PathBuf {
        std::env::temp_dir().join(format!("seawall-drills-{}", std::process::id()))
    }
}

/// Runs them; `each` gets every row as soon as it is there. Returns all rows.
///
/// # Errors
/// A name is unknown, the binary is not there, or the record cannot be written. A drill that does not pass is no error.
pub fn run(options: &Options, mut each: impl FnMut(&Row)) -> Result<Vec<Row>, Failure> {
    let drills = chosen(&options.names)?;
    if !options.binary.exists() {
        return Err(format!("{} is not there; build it first", options.binary.display()));
    }
    let mut rows = Vec::new();
    for drill in drills {
        for round in 0..options.repeat.max(1) {
            let row = one(options, drill, round);
            report::keep(&report::record_path(), &row)?;
            each(&row);
            rows.push(row);
        }
    }
    Ok(rows)
}

fn one(options: &Options, drill: &Drill, round: u32) -> Row {
    let folder = options.folder.join(format!("{}-{round}", drill.name));
    let stage = Stage {
        name: drill.name,
        binary: options.binary.clone(),
        folder: folder.clone(),
        seed: options.seed.wrapping_add(u64::from(round)),
        full: options.full,
        talk: options.talk,
    };
    (options.talk)(&format!("{}: {}", drill.name, drill.what));
    let outcome = (drill.run)(&stage).unwrap_or_else(|failure| not_run(drill, failure));
    for broken in &outcome.broken {
        (options.talk)(&format!("{} has not passed: {broken}", drill.name));
    }
    if outcome.row.passed && !options.keep {
        remove(&folder);
    } else {
        (options.talk)(&format!("{}: files and logs are in {}", drill.name, folder.display()));
    }
    outcome.row
}

/// A run that could not go on is a row that has not passed.
fn not_run(drill: &Drill, failure: Failure) -> Outcome {
    let row = Row { name: drill.name.to_owned(), ..Row::default() };
    Outcome { row, broken: vec![failure] }
}

fn remove(folder: &Path) {
    drop(std::fs::remove_dir_all(folder));
    // Gone with the last of its runs.
    if let Some(parent) = folder.parent() {
        drop(std::fs::remove_dir(parent));
    }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Drill>, Failure> {
    let mut found = Vec::new();
    for name in names {
        let matching: Vec<&Drill> = catalogue()
            .iter()
            .filter(|drill| name == "all" || drill.name == name || name.ends_with('-') && drill.name.starts_with(name))
            .collect();
        if matching.is_empty() {
            return Err(format!("there is no drill {name}; `drill ls` shows those there are"));
        }
        found.extend(matching);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drills_are_chosen_by_name_beginning_or_all() {
        let names = |names: &[&str]| chosen(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&["log-3", "control-1"]).unwrap().len(), 2);
        assert_eq!(names(&["all"]).unwrap().len(), catalogue().len());
        assert!(names(&["log-"]).unwrap().iter().all(|drill| drill.name.starts_with("log-")));
        assert!(names(&["log-1"]).unwrap().iter().all(|drill| drill.name == "log-1"));
        assert!(names(&["nonsense"]).unwrap_err().contains("nonsense"));
    }

    #[test]
    fn a_drill_that_cannot_start_is_a_row_that_has_not_passed() {
        let folder = Options::temporary_folder().join("none");
        let options = Options {
            names: vec!["log-3".into()],
            repeat: 1,
            seed: 1,
            full: false,
            binary: "/bin/false".into(),
            folder: folder.clone(),
            keep: false,
            talk: |_| {},
        };
        let drill = Drill { name: "none", what: "", promise: "", run: |_| Err("cannot".into()) };
        let row = one(&options, &drill, 0);
        assert!(!row.passed && row.name == "none");
        drop(std::fs::remove_dir_all(folder));
    }
}
