//! One session: what it remembers, how it waits, and what it says.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::{CommandComplete, NoticeResponse, ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::ParameterStatus;
use query::{Description, Dialect, Parameter, QueryRequest, StatementTag};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::cancel::Registration;
use super::command::Command;
use super::failure::Failure;
use super::limits::{FLUSH_BYTES, PORTALS_MAX};
use super::rows::{Fetched, Rows};
use super::settings::Settings;
use super::types::PgType;
use super::wire::WireError;
use crate::edge::queries::Queries;
use crate::edge::socket::Patient;

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The client said so, or went away.
    #[error("the client left")]
    Left,
    #[error("the node is stopping")]
    Stopping,
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        Self::Wire(WireError::Io(error))
    }
}

/// Why a statement stopped: the session goes on, or it does not.
#[derive(Debug)]
pub enum Stop {
    Failed(Failure),
    Ended(End),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::Ended(end)
    }
}

/// What a statement text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Empty,
    Command(Command),
    Query,
}

/// A prepared statement.
#[derive(Debug)]
pub struct Statement {
    pub sql: String,
    pub kind: Kind,
    /// As the client declared them; `None` where it left it open.
    pub parameter_types: Vec<Option<PgType>>,
    /// Found out when it is needed first.
    pub description: OnceLock<Description>,
}

/// A statement with its parameters, perhaps on its way.
pub struct Portal {
    pub statement: Arc<Statement>,
    pub parameters: Vec<Parameter>,
    pub result_formats: Vec<i16>,
    pub progress: Progress,
    /// Declared outside of a transaction: it lasts until it is closed. Every other ends with its transaction.
    pub held: bool,
}

/// How far a portal is.
pub enum Progress {
    Bound,
    Running(Box<Rows>),
    Done,
}

/// A session after its startup.
pub struct Session {
    pub queries: Queries,
    pub reader: BufReader<OwnedReadHalf>,
    pub writer: Patient<OwnedWriteHalf>,
    pub out: BytesMut,
    pub stopped: watch::Receiver<bool>,
    pub registration: Registration,
    pub user: String,
    pub settings: Settings,
    pub transaction: TransactionStatus,
    pub statements: BTreeMap<String, Arc<Statement>>,
    pub portals: BTreeMap<String, Portal>,
    /// After an error of the extended protocol: everything up to the next Sync is passed over.
    pub skipping: bool,
}

impl Session {
    /// Appends a message to what goes out next.
    pub fn say(&mut self, message: &PgWireBackendMessage) {
        let start = self.out.len();
        if let Err(error) = message.encode(&mut self.out) {
            // Only a message longer than the protocol allows: without it the client is still in step.
            tracing::warn!(%error, "postgres: a message could not be sent");
            self.out.truncate(start);
        }
    }

    pub fn say_failure(&mut self, failure: &Failure) {
        if self.transaction == TransactionStatus::Transaction {
            self.transaction = TransactionStatus::Error;
        }
        self.say(&PgWireBackendMessage::ErrorResponse(failure.response()));
    }

    /// What the client should know of an answer that comes all the same.
    fn say_warning(&mut self, warning: &str) {
        let fields = [(b'S', "WARNING"), (b'V', "WARNING"), (b'C', "01000"), (b'M', warning)];
        let fields = fields.map(|(kind, text)| (kind, text.replace('\0', "\u{fffd}"))).to_vec();
        self.say(&PgWireBackendMessage::NoticeResponse(NoticeResponse::new(fields)));
    }

    pub fn say_complete(&mut self, tag: String) {
        self.say(&PgWireBackendMessage::CommandComplete(CommandComplete::new(tag)));
    }

    pub fn say_ready(&mut self) {
        self.say(&PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(self.transaction)));
    }

    pub fn say_setting(&mut self, name: &str) {
        if let Some((name, value)) = self.settings.get(name) {
            self.say(&PgWireBackendMessage::ParameterStatus(ParameterStatus::new(name, value)));
        }
    }

    /// Sends everything that was said.
    ///
    /// # Errors
    /// When the client is gone or stopped reading.
    pub async fn flush(&mut self) -> Result<(), End> {
        if !self.out.is_empty() {
            self.writer.write_all(&self.out).await?;
            self.out.clear();
        }
        self.writer.flush().await?;
        Ok(())
    }

    /// In a transaction that failed, only its end is accepted.
    ///
    /// # Errors
    /// 25P02.
    pub fn check_transaction(&self, kind: &Kind) -> Result<(), Failure> {
        let ends =
            matches!(kind, Kind::Empty | Kind::Command(Command::Commit | Command::Rollback | Command::Savepoint(_)));
        if self.transaction == TransactionStatus::Error && !ends {
            return Err(Failure::new(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    pub fn request(&self, sql: &str, parameters: Vec<Parameter>) -> QueryRequest {
        QueryRequest {
            sql: sql.to_owned(),
            parameters,
            context: self.settings.context(),
            dialect: Dialect::Postgres,
            identity: self.user.clone(),
            query_id: Some(uuid::Uuid::new_v4().to_string()),
        }
    }

    /// Starts a query; a cancel request, the node's stop or the client's leaving ends the wait.
    ///
    /// # Errors
    /// The query's failure, or the session's end.
    pub async fn start(&mut self, sql: &str, parameters: Vec<Parameter>, formats: &[i16]) -> Result<Rows, Stop> {
        let request = self.request(sql, parameters);
        self.registration.slot.set_running(request.query_id.clone());
        let queries = self.queries.clone();
        let started = self.uninterrupted(queries.run(request)).await;
        self.registration.slot.set_running(None);
        match started? {
            Ok(stream) => {
                stream.warnings.iter().for_each(|warning| self.say_warning(warning));
                Ok(Rows::new(stream, formats)?)
            }
            Err(error) => Err(Failure::of_query(&error, sql).into()),
        }
    }

    /// Sends at most `rows_max` rows (0: all) of a running query.
    ///
    /// # Errors
    /// The query's failure, or the session's end.
    pub async fn send_rows(&mut self, rows: &mut Rows, sql: &str, rows_max: u64) -> Result<(Fetched, u64), Stop> {
        self.registration.slot.set_running(Some(rows.query_id().to_owned()));
        let sent = self.send_rows_running(rows, sql, rows_max).await;
        self.registration.slot.set_running(None);
        sent
    }

    async fn send_rows_running(&mut self, rows: &mut Rows, sql: &str, rows_max: u64) -> Result<(Fetched, u64), Stop> {
        let rows_max = if rows_max == 0 { u64::MAX } else { rows_max };
        let mut sent = 0;
        loop {
            if sent >= rows_max {
                return Ok((Fetched::Suspended, sent));
            }
            self.uninterrupted(rows.wait(sql)).await??;
            if rows.has_ended() {
                return Ok((Fetched::Complete, sent));
            }
            sent += rows.write(&mut self.out, rows_max - sent)?;
            if self.out.len() >= FLUSH_BYTES {
                self.flush().await?;
            }
        }
    }

    /// Waits for `work`, unless a cancel request, the node's stop or the client's leaving comes first.
    ///
    /// # Errors
    /// What came first.
    pub async fn uninterrupted<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let pipelined = !self.reader.buffer().is_empty();
        let socket = self.reader.get_mut();
        let gone = async {
            let mut byte = [0];
            // A byte that is there is the client's next message: it waits, and so is still there.
            if pipelined || !matches!(socket.peek(&mut byte).await, Ok(0) | Err(_)) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.registration.slot.cancelled() => Err(Failure::cancelled().into()),
            _ = self.stopped.wait_for(|stopped| *stopped) => Err(End::Stopping.into()),
            () = gone => Err(End::Left.into()),
        }
    }

    /// Finds out, once, what a statement takes and gives.
    ///
    /// # Errors
    /// What is wrong with the statement, or the session's end.
    pub async fn described(&mut self, statement: &Arc<Statement>) -> Result<Description, Stop> {
        if let Some(known) = statement.description.get() {
            return Ok(known.clone());
        }
        let request = self.request(&statement.sql, Vec::new());
        let types: Vec<_> = statement.parameter_types.iter().map(|pg| pg.map(PgType::arrow)).collect();
        let queries = self.queries.clone();
        let described = self.uninterrupted(queries.describe(&request, &types)).await?;
        let description = described.map_err(|error| Failure::of_query(&error, &statement.sql))?;
        Ok(statement.description.get_or_init(|| description).clone())
    }

    /// Keeps a portal under its name, in place of one of that name.
    ///
    /// # Errors
    /// 53400 when there are too many.
    pub fn keep_portal(&mut self, name: String, portal: Portal) -> Result<(), Failure> {
        if self.portals.len() >= PORTALS_MAX && !self.portals.contains_key(&name) {
            let message = format!("a session may have {PORTALS_MAX} open portals and cursors; close some");
            return Err(Failure::new("53400", message));
        }
        self.portals.insert(name, portal);
        Ok(())
    }

    /// The tag of a query that has ended, with the rows it gave; also does what a tag asks of the session.
    ///
    /// # Errors
    /// A refused setting.
    pub fn query_tag(&mut self, tag: &StatementTag, rows: u64) -> Result<String, Failure> {
        Ok(match tag {
            StatementTag::Select => format!("SELECT {rows}"),
            StatementTag::Explain => "EXPLAIN".to_owned(),
            StatementTag::Show => "SHOW".to_owned(),
            StatementTag::Set { name, value } => {
                if let Some(reported) = self.settings.set(name, value.as_deref())? {
                    self.say_setting(reported);
                }
                "SET".to_owned()
            }
            StatementTag::Begin => {
                self.begin();
                "BEGIN".to_owned()
            }
            StatementTag::Commit => self.finish("COMMIT").to_owned(),
            StatementTag::Rollback => self.finish("ROLLBACK").to_owned(),
            StatementTag::Empty => String::new(),
            StatementTag::Other(word) => (*word).to_owned(),
        })
    }

    pub fn begin(&mut self) {
        if self.transaction == TransactionStatus::Idle {
            self.transaction = TransactionStatus::Transaction;
        }
    }

    /// Lets go of what ends with a transaction, be it one of a single message.
    pub fn end_portals(&mut self) {
        if self.transaction == TransactionStatus::Idle {
            self.portals.retain(|_, portal| portal.held);
        }
    }

    /// Ends a transaction; a failed one is rolled back whatever was asked.
    pub fn finish(&mut self, asked: &'static str) -> &'static str {
        let failed = self.transaction == TransactionStatus::Error;
        self.transaction = TransactionStatus::Idle;
        self.end_portals();
        if failed { "ROLLBACK" } else { asked }
    }
}
