//! The drills: each a few lines over a [`Trial`](crate::trial::Trial).

mod bounds;
mod control;
mod disk;
mod forward;
mod log;
mod schedule;
mod store;

use crate::Failure;
use crate::trial::{Outcome, Stage};

/// A drill.
#[derive(Clone, Copy, Debug)]
pub struct Drill {
    pub name: &'static str,
    /// What happens.
    pub what: &'static str,
    /// What must hold.
    pub promise: &'static str,
    pub run: fn(&Stage) -> Result<Outcome, Failure>,
}

/// All drills there are, in the order of the founding scenarios.
#[must_use]
pub const fn catalogue() -> &'static [Drill] {
    CATALOGUE
}

const CATALOGUE: &[Drill] = &[
    Drill {
        name: "log-1",
        what: "acks=0, the leader is killed",
        promise: "only records that were in flight are lost",
        run: log::no_acks_leader_killed,
    },
    Drill {
        name: "log-2",
        what: "acks=1, the leader is killed and comes back",
        promise: "0 lost once it is back; write stall at most 2 s",
        run: log::leader_acks_leader_killed,
    },
    Drill {
        name: "log-3",
        what: "acks=all, ten producers, the leader is killed",
        promise: "0 lost; write stall at most 2 s",
        run: log::all_acks_leader_killed,
    },
    Drill {
        name: "log-4",
        what: "acks=1, the leader is cut from all peers while clients reach it",
        promise: "0 lost after the heal, it stops acknowledging within 0.5 s and says why; stall at most 2 s, none at the heal",
        run: log::leader_acks_leader_isolated,
    },
    Drill {
        name: "log-5",
        what: "acks=all, the leader is cut from all peers while clients reach it",
        promise: "0 lost; stall at most 2 s, none at the heal",
        run: log::all_acks_leader_isolated,
    },
    Drill {
        name: "log-6",
        what: "acks=1, a leader is cut from the active master only",
        promise: "0 lost, no stall",
        run: log::leader_acks_cut_from_control,
    },
    Drill {
        name: "log-7",
        what: "acks=all, a leader is cut from the active master only",
        promise: "0 lost, no stall",
        run: log::all_acks_cut_from_control,
    },
    Drill {
        name: "log-8",
        what: "min.insync.replicas=2, two of three are killed",
        promise: "refused at once with NOT_ENOUGH_REPLICAS, committed data stays readable, resumes by itself",
        run: log::two_of_three_down,
    },
    Drill {
        name: "log-9",
        what: "producers write to `seawall forward`; the cluster is out of reach; the forwarder is killed meanwhile",
        promise: "what it acknowledged is in the cluster once and in order after the heal; a poison record is set aside",
        run: forward::cluster_out_of_reach,
    },
    Drill {
        name: "log-10",
        what: "all three are SIGKILLed under load and every log gets a torn write",
        promise: "0 lost, serving again within 10 s",
        run: log::all_killed_and_torn,
    },
    Drill {
        name: "log-11",
        what: "acks=1, the leader is stopped for 5 s and continues",
        promise: "it acknowledges nothing after it wakes that is not kept",
        run: log::leader_paused,
    },
    Drill {
        name: "log-12",
        what: "a replica's log gets a flipped bit below its durable mark",
        promise: "it does not lead before it is repaired from its peers; a finding is shown; 0 lost",
        run: log::flipped_bit,
    },
    Drill {
        name: "log-13",
        what: "writes are in flight when their leader dies",
        promise: "every request is answered or failed within 2 s; retries of idempotent producers are exact",
        run: log::in_flight_when_leader_dies,
    },
    Drill {
        name: "control-1",
        what: "the active master is killed",
        promise: "a new one takes metadata writes within 2 s; no query fails at the other nodes; query history is kept",
        run: control::master_killed,
    },
    Drill {
        name: "control-2",
        what: "haadmin: -getState, -transitionToActive, -transitionToBackup, -formatHA",
        promise: "the verbs do what they say; a transition fails no request; -formatHA refuses on a running node",
        run: control::haadmin_verbs,
    },
    Drill {
        name: "control-3",
        what: "every node is cut from every other, then healed",
        promise: "ports answer and say why meanwhile; serving within 2 s of the heal",
        run: control::all_isolated,
    },
    Drill {
        name: "control-4",
        what: "the founding incident: staggered loss, all killed, started while cut, healed in every order",
        promise: "serving within 2 s after a majority can talk; ports open all the time; SIGTERM works",
        run: schedule::founding_incident,
    },
    Drill {
        name: "control-5",
        what: "one link of three is cut; then only the links to one of five are left",
        promise: "every node goes on serving, leaders do not flap, no outage at the heal",
        run: control::partial_partitions,
    },
    Drill {
        name: "control-6",
        what: "three of five nodes are down: no active master, one partition keeps its majority",
        promise: "produce, fetch and queries go on; metadata writes resume by themselves",
        run: control::no_master,
    },
    Drill {
        name: "control-7",
        what: "a node is started with another cluster's data",
        promise: "it is refused, and both cluster ids are named",
        run: control::foreign_data,
    },
    Drill {
        name: "control-8",
        what: "every node is cut from every other and asked for what cannot be done",
        promise: "every request ends at its deadline, none hangs",
        run: control::nothing_waits_in_silence,
    },
    Drill {
        name: "store-9",
        what: "the leader of an ingesting partition is killed ten times",
        promise: "SQL counts exactly the acknowledged records, each once",
        run: store::ingesting_leader_killed,
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_drill_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = catalogue().iter().map(|drill| drill.name).collect();
        assert_eq!(names.len(), catalogue().len());
        assert!(catalogue().iter().all(|drill| !drill.what.is_empty() && !drill.promise.is_empty()));
    }
}
