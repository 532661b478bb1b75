//! What happens to records of producers that cannot reach the cluster at all.

use std::time::Duration;

use base::Timestamp;
use base::batch::Codec;
use base::records::BatchBuilder;
use client::{Acks, Connection};

use super::bounds::nothing_missing;
use crate::Failure;
use crate::links::CLIENTS;
use crate::trial::{Outcome, Setup, Stage, TOPIC, Trial};

const BEFORE: u64 = 15_000;
const AFTER: u64 = 15_000;
/// Records taken while the cluster is out of reach, before the forwarder is killed and after it.
const ALONE: u64 = 20_000;
/// Longest time without an acknowledgement while only the cluster is out of reach.
const NO_STALL: Duration = Duration::from_millis(1_000);
/// What the cluster's topic takes; the forwarder takes more.
const BYTES_MAX: usize = 100_000;

pub fn cluster_out_of_reach(stage: &Stage) -> Result<Outcome, Failure> {
    let mut setup = Setup::three(Acks::All).with_table();
    setup.front = true;
    setup.spec.client_links = true;
    setup.config.push(("max.message.bytes", "100000"));
    let mut trial = Trial::start(stage, &setup)?;
    trial.flow(BEFORE)?;
    let cut = trial.fault("every link from clients and from `seawall forward` to the cluster is cut");
    let nodes = trial.cluster.ids();
    nodes.iter().for_each(|node| trial.cluster.links.cut(CLIENTS, *node));
    trial.flow(ALONE)?;
    poison(&trial)?;
    let killed = trial.fault("SIGKILL to `seawall forward`");
    let front = trial.front.as_mut().ok_or("nothing stands in front")?;
    front.kill();
    front.start()?;
    let restarted = trial.clock.now();
    trial.say(&format!("it takes records again {} ms after", (restarted - killed).as_millis()));
    trial.recovered(killed);
    trial.flow(ALONE)?;
    trial.fault("healed");
    trial.cluster.links.heal_all();
    trial.flow(AFTER)?;
    let dead = |trial: &Trial<'_>| trial.front.as_ref().map_or(0, crate::front::Front::dead_letters);
    trial.finish(|trial, evidence| {
        nothing_missing(trial, evidence);
        let aside = dead(trial);
        trial.promise(aside == 1, || format!("{aside} dead letters, one record is too large for the cluster"));
        let gap = super::bounds::write_gap(evidence, cut, killed);
        trial.promise(gap <= NO_STALL, || format!("a stall of {} ms although the forwarder was up", gap.as_millis()));
    })
}

/// A record that the forwarder takes and the cluster refuses for good.
fn poison(trial: &Trial<'_>) -> Result<(), Failure> {
    let address = trial.front.as_ref().ok_or("nothing stands in front")?.kafka.to_string();
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(BYTES_MAX * 2)
    .collect();
    let mut batch = BatchBuilder::new(Codec::None);
    batch.push(Timestamp(0), None, Some(&noise), &[]);
    let batch = batch.build().map_err(|error| error.to_string())?;
    let told = |error: client::ClientError| error.to_string();
    let mut front = Connection::connect(&address, "drill", Duration::from_secs(10)).map_err(told)?;
    front.produce(TOPIC, 0, batch, Acks::All).map_err(told)?;
    trial.say("a record that is too large for the cluster's topic was acknowledged by `seawall forward`");
    Ok(())
}
