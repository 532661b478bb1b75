//! The extended protocol: Parse, Bind, Describe, Execute, Close, Sync.
//!
//! What always holds: after a failure everything up to the next Sync is passed over. A query starts when its portal is
//! described or executed, whichever comes first, and so is planned once.

use std::sync::{Arc, OnceLock};

use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::EmptyQueryResponse;
use query::Parameter;

use super::failure::Failure;
use super::limits::STATEMENTS_MAX;
use super::params;
use super::rows::{Fetched, describe_unbound};
use super::session::{End, Kind, Portal, Progress, Session, Statement, Stop};
use super::simple::kind_of;
use super::statements::split;
use super::types::PgType;
use super::wire::{Bind, Frontend, Target};

impl Session {
    /// Answers a message of the extended protocol.
    ///
    /// # Errors
    /// The session's end; a failure is answered.
    pub async fn extended(&mut self, message: Frontend) -> Result<(), End> {
        let done = match message {
            Frontend::Sync => {
                self.skipping = false;
                self.end_portals();
                self.say_ready();
                return self.flush().await;
            }
            Frontend::Flush => return self.flush().await,
            _ if self.skipping => return Ok(()),
            Frontend::Parse { name, sql, types } => self.parse(name, sql, &types).await,
            Frontend::Bind(bind) => self.bind(bind).await,
            Frontend::Describe { target: Target::Statement, name } => self.describe_statement(&name).await,
            Frontend::Describe { target: Target::Portal, name } => self.describe_portal(&name).await,
            Frontend::Execute { portal, rows_max } => self.execute(&portal, rows_max).await,
            Frontend::Close { target, name } => {
                match target {
                    Target::Statement => drop(self.statements.remove(&name)),
                    Target::Portal => drop(self.portals.remove(&name)),
                }
                self.say(&PgWireBackendMessage::CloseComplete(CloseComplete::new()));
                Ok(())
            }
            _ => Ok(()),
        };
        match done {
            Ok(()) => Ok(()),
            Err(Stop::Failed(failure)) => {
                self.say_failure(&failure);
                self.skipping = true;
                // The client may wait for this before it syncs.
                self.flush().await
            }
            Err(Stop::Ended(end)) => Err(end),
        }
    }

    async fn parse(&mut self, name: String, sql: String, types: &[u32]) -> Result<(), Stop> {
        if !name.is_empty() {
            if self.statements.contains_key(&name) {
                return Err(Failure::new("42P05", format!("prepared statement \"{name}\" already exists")).into());
            }
            if self.statements.len() >= STATEMENTS_MAX {
                let message = format!("a session may have {STATEMENTS_MAX} prepared statements; DEALLOCATE some");
                return Err(Failure::new("53400", message).into());
            }
        }
        if split(&sql).len() > 1 {
            return Err(Failure::new("42601", "cannot insert multiple commands into a prepared statement").into());
        }
        let kind = kind_of(&sql)?;
        self.check_transaction(&kind)?;
        let parameter_types = types.iter().map(|oid| PgType::from_oid(*oid)).collect();
        let statement = Arc::new(Statement { sql, kind, parameter_types, description: OnceLock::new() });
        // A named statement is meant to be used again: what is wrong with it is said now.
        if !name.is_empty() && statement.kind == Kind::Query {
            self.described(&statement).await?;
        }
        self.statements.insert(name, statement);
        self.say(&PgWireBackendMessage::ParseComplete(ParseComplete::new()));
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<Arc<Statement>, Failure> {
        self.statements.get(name).cloned().ok_or_else(|| {
            let which = if name.is_empty() {
                "unnamed prepared statement".to_owned()
            } else {
                format!("prepared statement \"{name}\"")
            };
            Failure::new("26000", format!("{which} does not exist"))
        })
    }

    async fn bind(&mut self, bind: Bind) -> Result<(), Stop> {
        let statement = self.statement(&bind.statement)?;
        self.check_transaction(&statement.kind)?;
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            return Err(Failure::new("42P03", format!("portal \"{}\" already exists", bind.portal)).into());
        }
        let parameters = self.parameters(&statement, &bind).await?;
        let portal = Portal {
            statement,
            parameters,
            result_formats: bind.result_formats,
            progress: Progress::Bound,
            held: false,
        };
        self.keep_portal(bind.portal, portal)?;
        self.say(&PgWireBackendMessage::BindComplete(BindComplete::new()));
        Ok(())
    }

    async fn parameters(&mut self, statement: &Arc<Statement>, bind: &Bind) -> Result<Vec<Parameter>, Stop> {
        let (count, formats) = (bind.parameters.len(), &bind.parameter_formats);
        if formats.len() > 1 && formats.len() != count {
            let message = format!("bind message has {} parameter formats but {count} parameters", formats.len());
            return Err(Failure::new("08P01", message).into());
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        let open = |number: usize| statement.parameter_types.get(number).copied().flatten().is_none();
        let inferred = if (0..count).any(open) { self.described(statement).await?.parameters } else { Vec::new() };
        let format = |number: usize| formats.get(if formats.len() == 1 { 0 } else { number }).copied().unwrap_or(0);
        let decoded = bind.parameters.iter().enumerate().map(|(number, bytes)| {
            let declared = statement.parameter_types.get(number).copied().flatten();
            let pg = declared.or_else(|| inferred.get(number).map(PgType::of)).unwrap_or(PgType::TEXT);
            params::decode(number + 1, bytes.as_ref(), pg, format(number) == 1)
        });
        Ok(decoded.collect::<Result<_, _>>().map_err(Failure::from)?)
    }

    async fn describe_statement(&mut self, name: &str) -> Result<(), Stop> {
        let statement = self.statement(name)?;
        let (types, description) = match &statement.kind {
            Kind::Query => {
                let described = self.described(&statement).await?;
                let count = described.parameters.len().max(statement.parameter_types.len());
                let type_of = |number: usize| {
                    let declared = statement.parameter_types.get(number).copied().flatten();
                    declared.or_else(|| described.parameters.get(number).map(PgType::of)).unwrap_or(PgType::TEXT)
                };
                let columns = (!described.columns.is_empty()).then(|| describe_unbound(&described.columns));
                ((0..count).map(|number| type_of(number).oid()).collect(), columns)
            }
            Kind::Command(command) => (Vec::new(), self.command_description(command)?),
            Kind::Empty => (Vec::new(), None),
        };
        self.say(&PgWireBackendMessage::ParameterDescription(ParameterDescription::new(types)));
        self.say_columns(description);
        Ok(())
    }

    fn say_columns(&mut self, description: Option<pgwire::messages::data::RowDescription>) {
        match description {
            Some(description) => self.say(&PgWireBackendMessage::RowDescription(description)),
            None => self.say(&PgWireBackendMessage::NoData(NoData::new())),
        }
    }

    fn take_portal(&mut self, name: &str) -> Result<Portal, Failure> {
        self.portals.remove(name).ok_or_else(|| Failure::new("34000", format!("portal \"{name}\" does not exist")))
    }

    /// Starts the portal's query if it has not been.
    async fn started(&mut self, portal: &mut Portal) -> Result<(), Stop> {
        if matches!(portal.progress, Progress::Bound) {
            let parameters = std::mem::take(&mut portal.parameters);
            let sql = portal.statement.sql.trim().trim_end_matches(';').to_owned();
            let rows = self.start(&sql, parameters, &portal.result_formats).await?;
            portal.progress = Progress::Running(Box::new(rows));
        }
        Ok(())
    }

    async fn describe_portal(&mut self, name: &str) -> Result<(), Stop> {
        let mut portal = self.take_portal(name)?;
        let description = match &portal.statement.kind {
            Kind::Empty => None,
            Kind::Command(command) => self.command_description(command)?,
            Kind::Query => {
                self.started(&mut portal).await?;
                match &portal.progress {
                    Progress::Running(rows) => Some(rows.description()).filter(|row| !row.fields.is_empty()),
                    Progress::Bound | Progress::Done => None,
                }
            }
        };
        self.portals.insert(name.to_owned(), portal);
        self.say_columns(description);
        Ok(())
    }

    async fn execute(&mut self, name: &str, rows_max: i32) -> Result<(), Stop> {
        let mut portal = self.take_portal(name)?;
        let statement = Arc::clone(&portal.statement);
        self.check_transaction(&statement.kind)?;
        match &statement.kind {
            Kind::Empty => self.say(&PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())),
            Kind::Command(command) => self.run_command(command, false).await?,
            Kind::Query => {
                self.started(&mut portal).await?;
                // Zero and below: no limit.
                self.fetch_portal(&mut portal, u64::try_from(rows_max).unwrap_or(0)).await?;
                self.portals.insert(name.to_owned(), portal);
            }
        }
        Ok(())
    }

    async fn fetch_portal(&mut self, portal: &mut Portal, rows_max: u64) -> Result<(), Stop> {
        let Progress::Running(rows) = &mut portal.progress else {
            self.say_complete("SELECT 0".to_owned());
            return Ok(());
        };
        let (fetched, sent) = self.send_rows(rows, &portal.statement.sql, rows_max).await?;
        match fetched {
            Fetched::Suspended => self.say(&PgWireBackendMessage::PortalSuspended(PortalSuspended::new())),
            Fetched::Complete => {
                let tag = rows.tag().clone();
                portal.progress = Progress::Done;
                let tag = self.query_tag(&tag, sent)?;
                self.say_complete(tag);
            }
        }
        Ok(())
    }
}
