//! The transactions of a node: [`coordination`](super::coordination) with the log's transaction coordinator in it, and what goes
//! between nodes for them.
//!
//! ```text
//! producer --> coordinator (leader of __transaction_state) --marks--> leaders of partitions, coordinator of groups
//! producer --> leader of a partition --verify--> coordinator, before the first batch of a transaction
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{NodeId, PartitionIndex, Term, Tick, Timestamp, TopicPartition};
use log::transactions::{
    CheckpointPart, Coordinator, Effect as TransactionEffect, Input as TransactionInput, Mark, MarkId, Producer,
    Request, Response, Target, TransactionError, TransactionsConfig,
};

use super::coordination::{Absent, Desk, Effect, Input, Machine, WAITING_MAX, Works};
use super::groups::Groups;
use super::hosting::Hosting;
use super::leaders::Leaders;
use super::router::Router;
use crate::config::Config;
use crate::shell::logs::LogsHandle;
use crate::shell::meta::MetaHandle;
use crate::shell::peers::PeersHandle;
use marks::Marker;

mod marks;
mod verify;

/// Rounds of one coordinator. At a million transactions a second they last for 12 days of one leadership.
const ROUNDS_BITS: u32 = 40;

/// The internal topic.
pub const TOPIC: &str = "__transaction_state";

impl Machine for Coordinator {
    const TOPIC: &'static str = TOPIC;
    const WHAT: &'static str = "transactions";
    type Request = Request;
    type Response = Response;
    type Errand = (MarkId, Mark);
    /// Whether the target has it.
    type Outcome = (MarkId, bool);

    fn load(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        Self::load(self, key, value).map_err(|error| error.to_string())
    }

    fn loaded(&mut self, now: Tick, wall: Timestamp) {
        Self::loaded(self, now, wall);
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
            Input::Request(ticket, request) => TransactionInput::Request(ticket, request),
            Input::Persisted(id) => TransactionInput::Persisted(id),
            Input::WriteFailed(id) => TransactionInput::WriteFailed(id),
            Input::Done((mark, true)) => TransactionInput::Marked(mark),
            Input::Done((mark, false)) => TransactionInput::MarkFailed(mark),
            Input::Tick => TransactionInput::Tick,
        };
        let effect = |effect| match effect {
            TransactionEffect::Respond(ticket, response) => Effect::Respond(ticket, response),
            TransactionEffect::Persist(id, records) => Effect::Persist(id, records),
            TransactionEffect::Mark(id, mark) => Effect::Errand((id, mark)),
        };
        Self::step(self, now, wall, input).into_iter().map(effect).collect()
    }

    fn busy(request: &Request) -> Response {
        request.refused(TransactionError::Busy { what: "waiting requests", max: WAITING_MAX })
    }

    /// Marks for a deleted topic end by its tombstone.
    fn topic_gone(_name: &str) -> Option<Request> {
        None
    }
}

/// What the parts of a node that work on transactions share.
#[derive(Clone)]
struct Reach {
    node: NodeId,
    meta: MetaHandle,
    logs: LogsHandle,
    leaders: Arc<Leaders>,
    /// `None`: the node is alone.
    peers: Option<PeersHandle>,
    groups: Groups,
}

impl Reach {
    /// Who leads the one partition of an internal topic.
    fn leader_of(&self, topic: &str) -> Option<(NodeId, Term)> {
        let topic = self.meta.state().topic_named(topic)?.id;
        self.leaders.leader_of(TopicPartition { topic, partition: PartitionIndex(0) })
    }
}

/// The transactions, wherever they are coordinated.
#[derive(Clone)]
pub struct Transactions {
    desk: Desk<Coordinator>,
    reach: Reach,
}

/// What [`Transactions::start`] needs of a node.
pub struct Start<'a> {
    pub config: &'a Arc<Config>,
    pub meta: &'a MetaHandle,
    pub hosting: &'a Hosting,
    pub logs: &'a LogsHandle,
    pub leaders: &'a Arc<Leaders>,
    pub peers: Option<&'a PeersHandle>,
    pub router: &'a Router,
    pub groups: &'a Groups,
}

impl Transactions {
    /// See [`Desk::open`]. Answers other nodes' questions from now on.
    pub async fn start(start: Start<'_>) -> Self {
        let reach = Reach {
            node: NodeId(start.config.node.id),
            meta: start.meta.clone(),
            logs: start.logs.clone(),
            leaders: Arc::clone(start.leaders),
            peers: start.peers.cloned(),
            groups: start.groups.clone(),
        };
        marks::serve(start.router, &reach);
        let config = transactions_config(start.config);
        let marker = Marker(reach.clone());
        let run = Arc::new(move |term, (id, mark): (MarkId, Mark)| marker.run(term, id, mark));
        // A coordinator may begin anew in the same term; its rounds go on above those of the one before.
        let begun = AtomicU64::new(0);
        let make = move || {
            let rounds_after = begun.fetch_add(1, Ordering::Relaxed) << ROUNDS_BITS;
            Coordinator::new(TransactionsConfig { rounds_after, ..config.clone() })
        };
        let works = Works { make: Box::new(make), run };
        let is_alone = start.config.is_alone();
        let desk = Desk::open(is_alone, start.meta, start.hosting, start.logs, works).await;
        verify::serve(start.router, &desk);
        Self { desk, reach }
    }

    /// Asks the coordinator if it is here. Every wait in it has a deadline of its own.
    pub async fn request(&self, request: Request) -> Response {
        ask(&self.desk, request).await
    }

    /// True if all targets belong to a transaction of the producer that is under way, wherever it is coordinated.
    pub async fn verify(&self, id: &str, producer: Producer, targets: Vec<Target>) -> Result<(), TransactionError> {
        verify::ask(&self.desk, &self.reach, id, producer, targets).await
    }
}

async fn ask(desk: &Desk<Coordinator>, request: Request) -> Response {
    let is_list = matches!(request, Request::List { .. });
    // Of the same kind, for when the request itself is gone.
    let refuse = request.refused_as();
    match desk.ask(request).await {
        Ok(response) => response,
        // Tools ask every node for its transactions and put the lists together.
        Err(Absent::Elsewhere) if is_list => Response::List(Ok(Vec::new())),
        Err(Absent::Unknown) => refuse(TransactionError::NotAvailable),
        Err(Absent::Loading) => refuse(TransactionError::Loading),
        Err(Absent::Elsewhere) => refuse(TransactionError::NotCoordinator),
    }
}

fn transactions_config(config: &Config) -> TransactionsConfig {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    TransactionsConfig {
        timeout_ms_max: ms(config.log.transaction_timeout_max),
        expiration_ms: ms(config.log.transactional_id_expiration),
        rounds_after: 0,
    }
}
