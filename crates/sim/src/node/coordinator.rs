//! The coordinator of consumer groups on the node that leads their internal topic.
//!
//! It begins once the leader's own first entry is committed, so that all that was ever acknowledged is there to
//! be loaded; it ends with the leadership; it answers only while the lease is valid, so that a deposed one
//! tells nobody of old offsets.

use std::collections::BTreeMap;

use base::batch::Codec;
use base::records::{self, BatchBuilder};
use base::{Term, Tick, Timestamp};
use bytes::Bytes;
use log::ReadLimit;
use log::groups::{Coordinator, Effect, GroupsConfig, Input, Record, Ticket as GroupTicket};
use quorum::Role;

use super::log::{Acks, Log, Waits};
use super::{Effects, Reply, Ticket};
use crate::random::mix;

/// See the module.
pub struct Groups {
    serving: Option<Serving>,
    seed: u64,
}

struct Serving {
    term: Term,
    coordinator: Coordinator,
    tickets: BTreeMap<GroupTicket, Ticket>,
    next_ticket: u64,
}

impl Groups {
    pub const fn new(seed: u64) -> Self {
        Self { serving: None, seed }
    }

    /// Begins, ends and lets time pass.
    pub fn tick(&mut self, now: Tick, wall: Timestamp, log: &mut Log, fx: &mut Effects) {
        self.follow(now, log, fx);
        let Some(serving) = &mut self.serving else { return };
        if serving.coordinator.next_deadline().is_some_and(|at| at <= now) {
            let effects = serving.coordinator.step(now, wall, Input::Tick);
            self.carry_out(now, wall, effects, log, fx);
        }
    }

    pub fn request(
        &mut self,
        now: Tick,
        wall: Timestamp,
        ticket: Ticket,
        request: log::groups::Request,
        log: &mut Log,
        fx: &mut Effects,
    ) {
        self.follow(now, log, fx);
        let lease = log.partition.lease_valid(now);
        let Some(serving) = self.serving.as_mut().filter(|_| lease) else {
            return fx.reply(ticket, Reply::Group(None));
        };
        serving.next_ticket += 1;
        let own = GroupTicket(serving.next_ticket);
        serving.tickets.insert(own, ticket);
        let effects = serving.coordinator.step(now, wall, Input::Request(own, request));
        self.carry_out(now, wall, effects, log, fx);
    }

    /// Tells of writes that came to an end, until there are none.
    pub fn written(&mut self, now: Tick, wall: Timestamp, log: &mut Log, fx: &mut Effects) {
        while !fx.writes.is_empty() {
            let (term, write, well) = fx.writes.remove(0);
            let Some(serving) = self.serving.as_mut().filter(|serving| serving.term == term) else { continue };
            let input = if well { Input::Persisted(write) } else { Input::WriteFailed(write) };
            let effects = serving.coordinator.step(now, wall, input);
            self.carry_out(now, wall, effects, log, fx);
        }
    }

    fn follow(&mut self, now: Tick, log: &mut Log, fx: &mut Effects) {
        let (role, term) = (log.partition.role(), log.partition.term());
        if self.serving.as_ref().is_some_and(|serving| role != Role::Leader || serving.term != term)
            && let Some(serving) = self.serving.take()
        {
            for ticket in serving.tickets.into_values() {
                fx.reply(ticket, Reply::Group(None));
            }
        }
        if self.serving.is_none() && role == Role::Leader && log.partition.lease_valid(now) && log.caught_up() {
            self.serving = self.load(now, term, log);
        }
    }

    fn load(&self, now: Tick, term: Term, log: &Log) -> Option<Serving> {
        let seed = mix(self.seed ^ mix(term.0));
        let mut coordinator = Coordinator::new(GroupsConfig { seed, ..GroupsConfig::default() });
        let reader = log.partition.reader();
        let mut at = reader.start();
        while at < reader.committed() {
            let fetched = reader.read(at, 64 << 10, ReadLimit::Committed).ok()?;
            for batch in base::batch::split(&fetched.bytes) {
                let (_, bytes) = batch.ok()?;
                for record in records::decode(&bytes).ok()?.iter() {
                    let record = record.ok()?;
                    coordinator.load(record.key?, record.value).ok()?;
                }
            }
            if fetched.next == at {
                break;
            }
            at = fetched.next;
        }
        coordinator.loaded(now);
        Some(Serving { term, coordinator, tickets: BTreeMap::new(), next_ticket: 0 })
    }

    fn carry_out(&mut self, now: Tick, wall: Timestamp, effects: Vec<Effect>, log: &mut Log, fx: &mut Effects) {
        let lease = log.partition.lease_valid(now);
        for effect in effects {
            match effect {
                Effect::Respond(own, response) => {
                    let ticket = self.serving.as_mut().and_then(|serving| serving.tickets.remove(&own));
                    if let Some(ticket) = ticket {
                        fx.reply(ticket, Reply::Group(lease.then_some(response)));
                    }
                }
                Effect::Persist(write, records) => {
                    let Some(term) = self.serving.as_ref().map(|serving| serving.term) else { continue };
                    let who = Waits::Coordinator(term, write);
                    log.produce(now, wall, who, Acks::All, batch(wall, &records), fx);
                }
            }
        }
    }
}

fn batch(wall: Timestamp, records: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    for record in records {
        builder.push(wall, Some(&record.key), record.value.as_deref(), &[]);
    }
    builder.build().expect("records of a coordinator fit into a batch")
}
