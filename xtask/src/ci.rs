//! What CI runs, and the test command of the README.

use crate::run::{cargo, run};
use crate::{check, sim};

const QUICK_ROOMS: &[&str] = &["base", "kafka", "quorum", "control", "log", "sim", "store"];

/// Unit and integration tests; without `quick` also SQL and the drills against a real server process.
pub fn test(quick: bool) -> Result<(), String> {
    if quick {
        let mut arguments = vec!["test".to_owned()];
        arguments.extend(QUICK_ROOMS.iter().flat_map(|room| ["-p".to_owned(), format!("seawall-{room}")]));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        return run(&cargo(), &arguments, &[]);
    }
    run(&cargo(), &["test", "--workspace", "--locked"], &[])
}

pub fn ci() -> Result<(), String> {
    check::check()?;
    run(&cargo(), &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[])?;
    test(false)?;
    sim::ci()
}
