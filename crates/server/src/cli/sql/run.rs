//! One statement from start to end: progress while it runs, Ctrl-C cancels it.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use tokio::runtime::Runtime;

use super::http::{Answer, Http};
use super::show::Show;
use crate::cli::failure::{Code, Failure};
use crate::cli::output::{self, Format};
use crate::edge::postgres::command::{self, Command};

/// A statement that is done sooner shows no progress.
const PATIENCE: Duration = Duration::from_millis(400);
const TICK: Duration = Duration::from_millis(100);

/// How a statement ended, when it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Ctrl-C: cancelled on the node.
    Interrupted,
}

/// Runs statements one after another.
#[derive(Debug)]
pub struct Runner {
    runtime: Runtime,
    pub http: Http,
    pub format: Format,
    pub expanded: bool,
    pub timing: bool,
    /// What `SET` has set: the context of every statement.
    context: Map<String, Value>,
}

impl Runner {
    pub fn new(http: Http, format: Format) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { runtime, http, format, expanded: false, timing: false, context: Map::new() })
    }

    /// Sets a value of the query context; `None` takes it away.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value else {
            self.context.shift_remove(name);
            return;
        };
        let json = match serde_json::from_str::<Value>(value) {
            Ok(json @ (Value::Bool(_) | Value::Number(_))) => json,
            _ => Value::String(value.to_owned()),
        };
        self.context.insert(name.to_owned(), json);
    }

    /// `SET` and `RESET` are for the statements after them; each request to the node is one of its own.
    fn set_by(&mut self, statement: &str) -> bool {
        match command::parse(statement) {
            Ok(Some(Command::Set { name, value })) if name == "TimeZone" => self.set("sqlTimeZone", value.as_deref()),
            Ok(Some(Command::Set { name, value })) => self.set(&name, value.as_deref()),
            Ok(Some(Command::Reset(name))) => self.set(&name, None),
            Ok(Some(Command::ResetAll)) => self.context.clear(),
            _ => return false,
        }
        true
    }

    /// Runs a statement and shows its rows.
    ///
    /// # Errors
    /// The node's refusal, a cut-off answer, or a stdout that is closed.
    pub fn run(&mut self, statement: &str) -> Result<Outcome, Failure> {
        if self.set_by(statement) {
            return Ok(Outcome::Done);
        }
        let began = Instant::now();
        let query_id = uuid::Uuid::new_v4().to_string();
        let progress = Progress::begin(began);
        let work = async {
            let answer = self.http.query(statement, &query_id, &self.context).await?;
            let warnings = answer.warnings.clone();
            let shown = self.show(answer, &progress).await?;
            warnings.iter().for_each(|warning| output::say(&format!("warning: {warning}")));
            Ok(shown)
        };
        let done = self.runtime.block_on(async {
            tokio::select! {
                done = work => done.map(Some),
                _ = tokio::signal::ctrl_c() => {
                    self.http.cancel(&query_id).await;
                    Ok(None)
                }
            }
        });
        progress.clear();
        let Some(rows) = done.map_err(|failure| placed(failure, statement))? else {
            output::say("cancelled");
            return Ok(Outcome::Interrupted);
        };
        if self.timing {
            let plural = if rows == 1 { "" } else { "s" };
            output::say(&format!("{rows} row{plural} in {}", elapsed(began.elapsed())));
        }
        Ok(Outcome::Done)
    }

    async fn show(&self, mut answer: Answer, progress: &Progress) -> Result<u64, Failure> {
        let mut show = Show::new(self.format, self.expanded, answer.columns.clone())?;
        while let Some(row) = answer.next().await? {
            show.row(row)?;
            progress.rows(show.count);
        }
        progress.clear();
        show.end()?;
        Ok(show.count)
    }

    /// All rows of a small answer, for the shell's own questions.
    ///
    /// # Errors
    /// The node's refusal.
    pub fn rows(&self, statement: &str) -> Result<Vec<Vec<Value>>, Failure> {
        self.runtime.block_on(async {
            let mut answer = self.http.query(statement, &uuid::Uuid::new_v4().to_string(), &Map::new()).await?;
            let mut rows = Vec::new();
            while let Some(row) = answer.next().await? {
                rows.push(row);
            }
            Ok(rows)
        })
    }

    /// A request that is no statement.
    ///
    /// # Errors
    /// The node's refusal.
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        self.runtime.block_on(self.http.json(reqwest::Method::GET, path, None))
    }
}

/// `12 ms`, `3.4 s`.
pub fn elapsed(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// Points at the place an error names, as the last line of its message.
fn placed(failure: Failure, statement: &str) -> Failure {
    let number = |label: &str| -> Option<usize> {
        let (_, rest) = failure.message.rsplit_once(label)?;
        rest.split(']').next()?.parse().ok()
    };
    let Some((line, column)) = number("line [").zip(number("column [")) else { return failure };
    let Some(text) = statement.lines().nth(line.saturating_sub(1)) else { return failure };
    if failure.code != Code::Failure || column == 0 || column > text.chars().count() + 1 {
        return failure;
    }
    let message = format!("{}\n  {text}\n  {}^", failure.message, " ".repeat(column - 1));
    Failure::new(failure.code, message)
}

/// A line on stderr that says that work goes on, where there is a person to read it.
struct Progress {
    bar: ProgressBar,
    began: Instant,
}

impl Progress {
    fn begin(began: Instant) -> Self {
        let bar = ProgressBar::hidden();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg} (Ctrl-C cancels)") {
            bar.set_style(style);
        }
        let progress = Self { bar, began };
        if std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb") {
            let bar = progress.bar.clone();
            std::thread::spawn(move || {
                std::thread::sleep(PATIENCE);
                if !bar.is_finished() {
                    bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
                    bar.enable_steady_tick(TICK);
                }
            });
        }
        progress
    }

    fn rows(&self, count: u64) {
        if count.is_multiple_of(1_000) && self.began.elapsed() > PATIENCE {
            self.bar.set_message(format!("{count} rows"));
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_an_error_is_pointed_at() {
        let failure = Failure::new(Code::Failure, "no such column x (line [2], column [4])");
        let message = placed(failure, "SELECT\n 1, x\nFROM t").message;
        assert_eq!(message, "no such column x (line [2], column [4])\n   1, x\n     ^");
        let elsewhere = Failure::new(Code::Failure, "bad (line [9], column [1])");
        assert_eq!(placed(elsewhere.clone(), "SELECT").message, elsewhere.message);
    }

    #[test]
    fn what_is_set_goes_with_every_later_statement() {
        let http = Http::new(&crate::cli::sql::http::HttpArgs { url: "localhost:1".to_owned() }).expect("address");
        let mut runner = Runner::new(http, Format::Tsv).expect("runner");
        for statement in
            ["SET timeout = 700", "SET lane TO 'slow'", "SET useCache = false", "SET TIME ZONE 'Asia/Seoul'"]
        {
            assert!(runner.set_by(statement), "{statement}");
        }
        let expected =
            serde_json::json!({"timeout": 700, "lane": "slow", "useCache": false, "sqlTimeZone": "Asia/Seoul"});
        assert_eq!(Value::Object(runner.context.clone()), expected);
        assert!(runner.set_by("RESET lane") && !runner.context.contains_key("lane"));
        assert!(runner.set_by("RESET ALL") && runner.context.is_empty());
        assert!(!runner.set_by("SELECT 1"));
    }

    #[test]
    fn time_is_said_in_what_people_read() {
        assert_eq!(elapsed(Duration::from_millis(12)), "12 ms");
        assert_eq!(elapsed(Duration::from_millis(3_420)), "3.4 s");
    }
}
