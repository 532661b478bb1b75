//! What producers, partitions' leaders and administrators ask, and the answers.

use std::fmt;

use base::{ProducerEpoch, ProducerId, Timestamp, TopicPartition};

use super::error::TransactionError;

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $number:literal),* $(,)?) => {
        /// Where a transaction stands, in Kafka's words.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum TransactionState { $($(#[$doc])* $name = $number),* }

        impl TransactionState {
            /// The number in the records.
            #[must_use]
            pub const fn number(self) -> u8 {
                self as u8
            }

            #[must_use]
            pub const fn of_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// The name as tools show it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }

            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                match name { $(stringify!($name) => Some(Self::$name),)* _ => None }
            }
        }
    };
}

states! {
    /// Nothing has been added since the id became known.
    Empty = 0,
    /// Partitions or groups have been added.
    Ongoing = 1,
    /// The commit is decided, markers are on their way.
    PrepareCommit = 2,
    /// The abort is decided, markers are on their way.
    PrepareAbort = 3,
    /// Committed; every target knows.
    CompleteCommit = 4,
    /// Aborted; every target knows.
    CompleteAbort = 5,
    /// Is being forgotten.
    Dead = 6,
    /// Another producer came under the id, or the time is over: an abort under a higher epoch is being written.
    PrepareEpochFence = 7,
}

impl fmt::Display for TransactionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A producer and its incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Producer {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
}

/// What a transaction touches.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    Partition(TopicPartition),
    /// A consumer group's offsets.
    Group(String),
}

/// All that can be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// A producer begins under a transactional id. Whoever had it before is fenced, its transaction aborted.
    Init {
        id: String,
        /// As received.
        timeout_ms: i64,
        /// What the producer believes to be; it goes on with a higher epoch.
        expected: Option<Producer>,
        /// Nobody has this id. Used if the transactional id is new or its epochs are used up.
        fresh: ProducerId,
    },
    /// These become part of the transaction, which begins if none is under way.
    Add {
        id: String,
        producer: Producer,
        targets: Vec<Target>,
    },
    /// Answered when the outcome is decided durably; the markers follow.
    End {
        id: String,
        producer: Producer,
        commit: bool,
    },
    /// A target asks: are these part of a transaction that is under way?
    Verify {
        id: String,
        producer: Producer,
        targets: Vec<Target>,
    },
    Describe {
        id: String,
    },
    List {
        /// Empty: all.
        states: Vec<TransactionState>,
        /// Empty: all.
        producers: Vec<ProducerId>,
        /// Only those that have been under way for longer.
        longer_than_ms: Option<u64>,
    },
}

/// A transaction for people to see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedTransaction {
    pub id: String,
    pub state: TransactionState,
    pub producer: Producer,
    pub timeout_ms: u64,
    /// When the one under way began.
    pub started: Option<Timestamp>,
    /// Partitions that have not yet been told the outcome.
    pub partitions: Vec<TopicPartition>,
    /// Groups that have not yet been told the outcome.
    pub groups: Vec<String>,
}

/// A transaction in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedTransaction {
    pub id: String,
    pub producer: ProducerId,
    pub state: TransactionState,
}

/// The answer to the request of the same name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    Init(Result<Producer, TransactionError>),
    Add(Result<(), TransactionError>),
    End(Result<(), TransactionError>),
    Verify(Result<(), TransactionError>),
    Describe(Result<DescribedTransaction, TransactionError>),
    List(Result<Vec<ListedTransaction>, TransactionError>),
}

impl Request {
    /// The answer that refuses this request. For a caller that cannot even ask the coordinator, too.
    #[must_use]
    pub fn refused(&self, error: TransactionError) -> Response {
        self.refused_as()(error)
    }

    /// As [`Request::refused`], for later.
    #[must_use]
    pub const fn refused_as(&self) -> fn(TransactionError) -> Response {
        match self {
            Self::Init { .. } => |error| Response::Init(Err(error)),
            Self::Add { .. } => |error| Response::Add(Err(error)),
            Self::End { .. } => |error| Response::End(Err(error)),
            Self::Verify { .. } => |error| Response::Verify(Err(error)),
            Self::Describe { .. } => |error| Response::Describe(Err(error)),
            Self::List { .. } => |error| Response::List(Err(error)),
        }
    }
}
