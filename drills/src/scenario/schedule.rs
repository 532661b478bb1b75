//! The founding incident and its relatives: nodes lost one after the other, all ended, started while cut off from each
//! other, and healed in every order. It left a real Galera cluster stuck for ever.

use std::time::Duration;

use client::Acks;

use super::bounds::{STALL_MAX, nothing_missing};
use super::control::ports_say_why;
use crate::Failure;
use crate::trial::{Outcome, Setup, Stage, Trial};

const BEFORE: u64 = 10_000;
const AFTER: u64 = 5_000;
/// A process asked to end does so within this.
const SIGTERM_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Kill,
    Terminate,
    /// The processes go on.
    Not,
}

/// One schedule: node 1 is lost, then 2 and 3 lose each other; all end; all start; links heal.
#[derive(Clone, Copy, Debug)]
struct Incident {
    end: End,
    start: [u32; 3],
    /// The pair that can talk first; `None`: all at once.
    meet: Option<(u32, u32)>,
    /// All links are cut at the same moment.
    at_once: bool,
}

/// The schedules of an ordinary run: the founding one, the others that left Galera stuck, and another order.
const SHORT: [Incident; 5] = [
    Incident { end: End::Kill, start: [1, 2, 3], meet: Some((1, 3)), at_once: false },
    Incident { end: End::Kill, start: [3, 1, 2], meet: None, at_once: false },
    Incident { end: End::Terminate, start: [2, 3, 1], meet: Some((2, 3)), at_once: true },
    Incident { end: End::Kill, start: [2, 1, 3], meet: Some((1, 2)), at_once: true },
    Incident { end: End::Not, start: [1, 2, 3], meet: Some((1, 3)), at_once: false },
];

fn all_incidents() -> Vec<Incident> {
    let mut all = Vec::new();
    for end in [End::Kill, End::Terminate, End::Not] {
        for meet in [Some((1, 3)), Some((1, 2)), Some((2, 3)), None] {
            for at_once in [false, true] {
                for start in [[1, 2, 3], [3, 1, 2], [2, 3, 1]] {
                    if end != End::Not || start == [1, 2, 3] {
                        all.push(Incident { end, start, meet, at_once });
                    }
                }
            }
        }
    }
    all
}

pub fn founding_incident(stage: &Stage) -> Result<Outcome, Failure> {
    let incidents = if stage.full { all_incidents() } else { SHORT.to_vec() };
    let mut trial = Trial::start(stage, &Setup::three(Acks::All))?;
    let mut slowest = Duration::ZERO;
    for incident in &incidents {
        trial.flow(BEFORE)?;
        trial.say(&format!("{incident:?}"));
        match one(&mut trial, *incident)? {
            Some(after) => slowest = slowest.max(after),
            // Stuck: what follows would only say so again.
            None => break,
        }
    }
    let mut outcome = trial.finish(nothing_missing)?;
    // Without a majority nobody can write: what counts is the time since one could talk.
    outcome.row.write_gap_ms = Some(u64::try_from(slowest.as_millis()).unwrap_or(u64::MAX));
    Ok(outcome)
}

/// Returns how long after a majority could talk every producer was served; `None`: never.
fn one(trial: &mut Trial<'_>, incident: Incident) -> Result<Option<Duration>, Failure> {
    let (stagger, lonely) = if trial.stage.full {
        (Duration::from_secs(20), Duration::from_secs(12))
    } else {
        (Duration::from_secs(3), Duration::from_secs(3))
    };
    trial.fault("node 1 is cut off");
    trial.cluster.isolate(1);
    if !incident.at_once {
        trial.watch(stagger);
    }
    trial.fault("nodes 2 and 3 are cut from each other");
    trial.cluster.links.cut(2, 3);
    trial.watch(Duration::from_millis(500));
    for id in trial.cluster.ids() {
        match incident.end {
            End::Kill => trial.cluster.kill(id)?,
            End::Terminate => {
                let ended = trial.cluster.terminate(id, SIGTERM_MAX);
                trial.promise(ended.is_ok(), || ended.err().unwrap_or_default());
            }
            End::Not => {}
        }
    }
    if incident.end != End::Not {
        trial.fault(&format!("{:?} to all; started in the order {:?}, still cut off", incident.end, incident.start));
        for id in incident.start {
            trial.cluster.spawn(id)?;
        }
    }
    ports_say_why(trial, Duration::from_secs(10));
    let (one, other) = incident.meet.unwrap_or((1, 2));
    let healed =
        trial.fault(&format!("the link {one}-{other} heals{}", if incident.meet.is_none() { ", and all" } else { "" }));
    match incident.meet {
        Some((one, other)) => trial.cluster.links.heal(one, other),
        None => trial.cluster.links.heal_all(),
    }
    let Some(after) = trial.recovered(healed) else { return Ok(None) };
    trial.promise(after <= STALL_MAX, || {
        format!("{incident:?}: serving {} ms after a majority could talk", after.as_millis())
    });
    trial.watch(lonely);
    let all = trial.fault("all links heal");
    trial.cluster.links.heal_all();
    trial.flow(AFTER)?;
    trial.await_in_sync(0);
    trial.recovered(all);
    Ok(Some(after))
}
