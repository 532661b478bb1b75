//! The consumer groups of a node: [`coordination`](super::coordination) with the log's group coordinator in it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::{Tick, Timestamp};
use log::groups::{CheckpointPart, Coordinator, GroupError, GroupsConfig, Request, Response};
use log::groups::{Effect as GroupEffect, Input as GroupInput};

use super::coordination::{Absent, Desk, Effect, Input, Machine, WAITING_MAX, Works};
use super::hosting::Hosting;
use crate::config::Config;
use crate::shell::logs::LogsHandle;
use crate::shell::meta::MetaHandle;

/// The internal topic.
pub const TOPIC: &str = "__consumer_offsets";

impl Machine for Coordinator {
    const TOPIC: &'static str = TOPIC;
    const WHAT: &'static str = "consumer groups";
    type Request = Request;
    type Response = Response;
    type Errand = Infallible;
    type Outcome = Infallible;

    fn load(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        Self::load(self, key, value).map_err(|error| error.to_string())
    }

    fn loaded(&mut self, now: Tick, _wall: Timestamp) {
        Self::loaded(self, now);
    }

    fn len(&self) -> usize {
        Self::len(self)
    }

    fn checkpoint(&self, after: Option<&str>, bytes: usize) -> CheckpointPart {
        Self::checkpoint(self, after, bytes)
    }

    fn next_deadline(&self) -> Option<Tick> {
        Self::next_deadline(self)
    }

    fn step(&mut self, now: Tick, wall: Timestamp, input: Input<Self>) -> Vec<Effect<Self>> {
        let input = match input {
            Input::Request(ticket, request) => GroupInput::Request(ticket, request),
            Input::Persisted(id) => GroupInput::Persisted(id),
            Input::WriteFailed(id) => GroupInput::WriteFailed(id),
            Input::Done(never) => match never {},
            Input::Tick => GroupInput::Tick,
        };
        let effect = |effect| match effect {
            GroupEffect::Respond(ticket, response) => Effect::Respond(ticket, response),
            GroupEffect::Persist(id, records) => Effect::Persist(id, records),
        };
        Self::step(self, now, wall, input).into_iter().map(effect).collect()
    }

    fn busy(request: &Request) -> Response {
        request.refused(GroupError::Busy { what: "waiting requests", max: WAITING_MAX })
    }

    fn topic_gone(name: &str) -> Option<Request> {
        Some(Request::ForgetTopic { topic: name.to_owned() })
    }
}

/// The groups, wherever they are coordinated.
#[derive(Clone)]
pub struct Groups {
    desk: Desk<Coordinator>,
}

impl Groups {
    /// See [`Desk::open`]. One node of several answers "not available" until somebody leads.
    pub async fn start(config: &Arc<Config>, meta: &MetaHandle, hosting: &Hosting, logs: &LogsHandle) -> Self {
        let is_alone = config.is_alone();
        let config = Arc::clone(config);
        let make = Box::new(move || Coordinator::new(groups_config(&config)));
        let works = Works { make, run: Arc::new(|_, never: Infallible| match never {}) };
        Self { desk: Desk::open(is_alone, meta, hosting, logs, works).await }
    }

    /// Asks the coordinator. Every wait in it has a deadline of its own.
    pub async fn request(&self, request: Request) -> Response {
        let is_heartbeat = matches!(request, Request::Heartbeat { .. });
        let is_list = matches!(request, Request::List { .. });
        // Of the same kind, for when the request itself is gone.
        let refuse = request.refused_as();
        match self.desk.ask(request).await {
            Ok(response) => response,
            // As Kafka's brokers do: a member cannot be told anything yet, and clients take an error here for the end.
            Err(Absent::Loading) if is_heartbeat => Response::Heartbeat(Ok(())),
            // Clients ask every node for its groups and put the lists together.
            Err(Absent::Elsewhere) if is_list => Response::List(Ok(Vec::new())),
            Err(Absent::Unknown) => refuse(GroupError::NotAvailable),
            Err(Absent::Loading) => refuse(GroupError::Loading),
            Err(Absent::Elsewhere) => refuse(GroupError::NotCoordinator),
        }
    }
}

fn groups_config(config: &Config) -> GroupsConfig {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    GroupsConfig {
        session_timeout_ms_min: ms(config.log.group_session_min),
        session_timeout_ms_max: ms(config.log.group_session_max),
        initial_delay_ms: ms(config.log.group_rebalance_delay),
        group_size_max: usize::try_from(config.log.group_size_max).unwrap_or(usize::MAX),
        offsets_retention_ms: ms(config.log.offsets_retention),
        seed: uuid::Uuid::new_v4().as_u64_pair().0,
        ..GroupsConfig::default()
    }
}

#[cfg(test)]
mod tests;
