//! What happens to tables when the nodes that fill them fail.

use std::time::Duration;

use client::Acks;

use super::bounds::nothing_missing;
use crate::Failure;
use crate::trial::{Outcome, RECOVERY_PATIENCE, Setup, Stage, Trial};

pub fn ingesting_leader_killed(stage: &Stage) -> Result<Outcome, Failure> {
    const KILLS: u32 = 10;
    let mut setup = Setup::three(Acks::All).with_table();
    // Small segments, sealed often, so that kills meet sealing and publishing too.
    setup.spec.settings.extend([
        ("store.segment_rows_max", "10000".to_owned()),
        ("store.segment_age_max", "2s".to_owned()),
        ("log.file_bytes", "8MiB".to_owned()),
    ]);
    let mut trial = Trial::start(stage, &setup)?;
    for round in 1..=KILLS {
        trial.flow(8_000)?;
        let leader = trial.leader()?;
        let at = trial.fault(&format!("kill {round} of {KILLS}: SIGKILL to node {leader}, the leader"));
        trial.cluster.kill(leader)?;
        if trial.recovered(at).is_none() {
            break;
        }
        trial.flow(2_000)?;
        trial.cluster.spawn(leader)?;
        trial.await_in_sync(0);
        trial.watch(Duration::from_millis(200));
    }
    trial.load.await_all_flow(trial.clock.now(), RECOVERY_PATIENCE)?;
    trial.finish(nothing_missing)
}
