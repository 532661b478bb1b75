//! Runs seeds and says what they found: `seawall-sim [--seed N] [--for 60s] [--count N] [--from N] [--bug NAME]`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]
#![allow(clippy::disallowed_methods, reason = "how long to run is the only thing here that asks a clock")]

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sim::{Bug, Outcome, runner};

const USAGE: &str =
    "usage: seawall-sim [--seed N] [--for 60s|10m|1h] [--count N] [--from N] [--bug NAME] [--trace LINES]";
const TRACE_LINES: usize = 120;
/// More failures than this say nothing new.
const FAILURES_MAX: usize = 20;

struct Options {
    seed: Option<u64>,
    lasts: Option<Duration>,
    count: Option<u64>,
    from: Option<u64>,
    bug: Bug,
    lines: usize,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("seawall-sim: {message}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    // A panic of a room is an outcome; the default hook would print it twice.
    std::panic::set_hook(Box::new(|_| {}));
    let clean = match options.seed {
        Some(seed) => one(seed, &options),
        None => many(&options),
    };
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options() -> Result<Options, String> {
    let mut options = Options { seed: None, lasts: None, count: None, from: None, bug: Bug::None, lines: TRACE_LINES };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word}: {value:?} is not a number"));
        match word.as_str() {
            "--seed" => options.seed = Some(number()?),
            "--count" => options.count = Some(number()?),
            "--from" => options.from = Some(number()?),
            "--for" => options.lasts = Some(duration(&value)?),
            "--trace" => options.lines = usize::try_from(number()?).unwrap_or(TRACE_LINES),
            "--bug" => {
                let named = |bug: &Bug| format!("{bug:?}").eq_ignore_ascii_case(&value);
                options.bug = Bug::ALL.into_iter().find(named).ok_or_else(|| format!("one of {:?}", Bug::ALL))?;
            }
            other => return Err(format!("{other} is not known")),
        }
    }
    Ok(options)
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write 90s, 10m or 1h");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().map_err(|_| wrong())?;
    match &text[split..] {
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3600)),
        _ => Err(wrong()),
    }
}

/// One seed, with its trace if it fails.
fn one(seed: u64, options: &Options) -> bool {
    let outcome = runner::play(seed, options.bug, true);
    let from = outcome.tail.len().saturating_sub(options.lines);
    for line in &outcome.tail[from..] {
        println!("{line}");
    }
    println!("{}", line(&outcome));
    outcome.violation.is_none()
}

/// The seeds that failed before, then fresh ones.
fn many(options: &Options) -> bool {
    let started = Instant::now();
    let from = options.from.unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs()).wrapping_mul(1_000_000)
    });
    let lasts = options.lasts.or(options.count.is_none().then_some(Duration::from_secs(60)));
    let known = runner::known_seeds();
    let fresh = (from..).take(options.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX)));
    let (mut played, mut events, mut failed) = (0_u64, 0, Vec::new());
    let mut slowest = (0, 0);
    for seed in known.into_iter().chain(fresh) {
        if lasts.is_some_and(|lasts| started.elapsed() >= lasts) || failed.len() >= FAILURES_MAX {
            break;
        }
        let outcome = runner::play(seed, options.bug, false);
        played += 1;
        events += outcome.events;
        slowest = slowest.max((outcome.healed_ms.unwrap_or(0), seed));
        if outcome.violation.is_some() {
            println!("{}", line(&outcome));
            failed.push(seed);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let a_minute = played as f64 * 60.0 / seconds;
    println!(
        "{played} seeds from {from} in {seconds:.0} s ({a_minute:.0} a minute), {events} events, {} failed; slowest to heal: {} ms (seed {})",
        failed.len(),
        slowest.0,
        slowest.1
    );
    if !failed.is_empty() {
        println!("again, with its trace: cargo xtask sim --seed {}; then keep it in crates/sim/seeds.txt", failed[0]);
    }
    failed.is_empty()
}

fn line(outcome: &Outcome) -> String {
    let end = match (&outcome.violation, outcome.healed_ms) {
        (Some(violation), _) => format!("VIOLATION {violation}"),
        (None, Some(ms)) => format!("clean, healed in {ms} ms"),
        (None, None) => "clean".to_owned(),
    };
    format!("seed {} trace {:016x}, {} events, {}: {end}", outcome.seed, outcome.hash, outcome.events, outcome.summary)
}
