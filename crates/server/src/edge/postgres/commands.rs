//! What a session does with the statements it answers by itself.

use std::sync::{Arc, OnceLock};

use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::RowDescription;
use pgwire::messages::response::TransactionStatus;

use super::command::Command;
use super::failure::Failure;
use super::rows::{describe_text, write_text_row};
use super::session::{Kind, Portal, Progress, Session, Statement, Stop};

impl Session {
    /// Runs a command up to its CommandComplete. `with_description` says whether rows are preceded by what they are.
    ///
    /// # Errors
    /// The command's failure, or the session's end.
    pub async fn run_command(&mut self, command: &Command, with_description: bool) -> Result<(), Stop> {
        let tag = match command {
            Command::Begin | Command::Commit | Command::Rollback | Command::Savepoint(_) => self.transact(command)?,
            Command::Set { name, value } => {
                if let Some(reported) = self.settings.set(name, value.as_deref()).map_err(Failure::from)? {
                    self.say_setting(reported);
                }
                "SET"
            }
            Command::SetIgnored => "SET",
            Command::Reset(name) => {
                if let Some(reported) = self.settings.set(name, None).map_err(Failure::from)? {
                    self.say_setting(reported);
                }
                "RESET"
            }
            Command::ResetAll => {
                self.reset_settings();
                "RESET"
            }
            Command::Show(_) | Command::ShowAll => {
                self.show(command, with_description)?;
                "SHOW"
            }
            Command::DiscardAll => {
                self.statements.clear();
                self.portals.clear();
                self.reset_settings();
                "DISCARD ALL"
            }
            Command::Deallocate(Some(name)) => {
                if self.statements.remove(name).is_none() {
                    let message = format!("prepared statement \"{name}\" does not exist");
                    return Err(Failure::new("26000", message).into());
                }
                "DEALLOCATE"
            }
            Command::Deallocate(None) => {
                self.statements.clear();
                "DEALLOCATE ALL"
            }
            Command::CloseCursor(Some(name)) => {
                if self.portals.remove(name).is_none() {
                    return Err(no_cursor(name).into());
                }
                "CLOSE CURSOR"
            }
            Command::CloseCursor(None) => {
                self.portals.clear();
                "CLOSE CURSOR ALL"
            }
            Command::Declare { name, query } => {
                self.declare(name, query).await?;
                "DECLARE CURSOR"
            }
            Command::Fetch { name, rows } => return self.fetch(name, *rows, with_description).await,
            Command::Nothing(word) => word,
        };
        self.say_complete(tag.to_owned());
        Ok(())
    }

    fn transact(&mut self, command: &Command) -> Result<&'static str, Failure> {
        match command {
            Command::Begin => {
                self.begin();
                Ok("BEGIN")
            }
            Command::Commit => Ok(self.finish("COMMIT")),
            Command::Savepoint(word) => {
                if self.transaction == TransactionStatus::Idle {
                    return Err(Failure::new("25P01", format!("{word} can only be used in transaction blocks")));
                }
                if *word == "ROLLBACK" {
                    self.transaction = TransactionStatus::Transaction;
                }
                Ok(word)
            }
            _ => Ok(self.finish("ROLLBACK")),
        }
    }

    /// What rows a command gives, if it gives any.
    ///
    /// # Errors
    /// 34000 for a cursor that does not exist.
    pub fn command_description(&self, command: &Command) -> Result<Option<RowDescription>, Failure> {
        Ok(match command {
            Command::Show(name) => Some(describe_text(&self.setting(name)?.0)),
            Command::ShowAll => {
                let mut description = describe_text("name");
                description.fields.extend(describe_text("setting").fields);
                Some(description)
            }
            Command::Fetch { name, .. } => match self.portals.get(name) {
                Some(Portal { progress: Progress::Running(rows), .. }) => Some(rows.description()),
                Some(_) => Some(RowDescription::new(Vec::new())),
                None => return Err(no_cursor(name)),
            },
            _ => None,
        })
    }

    fn setting(&self, name: &str) -> Result<(String, String), Failure> {
        self.settings
            .get(name)
            .ok_or_else(|| Failure::new("42704", format!("unrecognized configuration parameter \"{name}\"")))
    }

    fn reset_settings(&mut self) {
        self.settings.reset_all();
        let reported: Vec<String> = self.settings.reported().map(|(name, _)| name.to_owned()).collect();
        for name in reported {
            self.say_setting(&name);
        }
    }

    fn show(&mut self, command: &Command, with_description: bool) -> Result<(), Failure> {
        let rows: Vec<Vec<String>> = match command {
            Command::Show(name) => vec![vec![self.setting(name)?.1]],
            _ => self.settings.all().map(|(name, value)| vec![name.to_owned(), value.to_owned()]).collect(),
        };
        if let Some(description) = self.command_description(command)?.filter(|_| with_description) {
            self.say(&PgWireBackendMessage::RowDescription(description));
        }
        for row in &rows {
            write_text_row(&mut self.out, &row.iter().map(String::as_str).collect::<Vec<_>>());
        }
        Ok(())
    }

    async fn declare(&mut self, name: &str, query: &str) -> Result<(), Stop> {
        let rows = self.start(query, Vec::new(), &[]).await?;
        let statement = Arc::new(Statement {
            sql: query.to_owned(),
            kind: Kind::Query,
            parameter_types: Vec::new(),
            description: OnceLock::new(),
        });
        let progress = Progress::Running(Box::new(rows));
        let held = self.transaction == TransactionStatus::Idle;
        let portal = Portal { statement, parameters: Vec::new(), result_formats: Vec::new(), progress, held };
        Ok(self.keep_portal(name.to_owned(), portal)?)
    }

    async fn fetch(&mut self, name: &str, rows_max: Option<u32>, with_description: bool) -> Result<(), Stop> {
        let mut portal = self.portals.remove(name).ok_or_else(|| no_cursor(name))?;
        let mut sent = 0;
        if let Progress::Running(rows) = &mut portal.progress {
            if with_description {
                self.say(&PgWireBackendMessage::RowDescription(rows.description()));
            }
            if rows_max != Some(0) {
                let limit = rows_max.map_or(0, u64::from);
                sent = self.send_rows(rows, &portal.statement.sql, limit).await?.1;
            }
        }
        self.portals.insert(name.to_owned(), portal);
        self.say_complete(format!("FETCH {sent}"));
        Ok(())
    }
}

fn no_cursor(name: &str) -> Failure {
    Failure::new("34000", format!("cursor \"{name}\" does not exist"))
}
