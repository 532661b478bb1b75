//! The simple protocol: a text of statements, run in order until one fails.

use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::EmptyQueryResponse;

use super::command;
use super::failure::Failure;
use super::limits::STATEMENTS_PER_QUERY_MAX;
use super::session::{End, Kind, Session, Stop};
use super::statements::{is_blank, split};

/// What a statement text is.
///
/// # Errors
/// 42601 for a command that goes on wrongly.
pub fn kind_of(sql: &str) -> Result<Kind, Failure> {
    if is_blank(sql.trim_matches(|c: char| c == ';' || c.is_whitespace())) {
        return Ok(Kind::Empty);
    }
    match command::parse(sql) {
        Ok(Some(command)) => Ok(Kind::Command(command)),
        Ok(None) => Ok(Kind::Query),
        Err(message) => Err(Failure::new("42601", message)),
    }
}

impl Session {
    /// Answers a Query message.
    ///
    /// # Errors
    /// The session's end; a statement's failure is answered.
    pub async fn simple_query(&mut self, text: &str) -> Result<(), End> {
        match self.statements_of(text).await {
            Ok(()) => {}
            Err(Stop::Failed(failure)) => self.say_failure(&failure),
            Err(Stop::Ended(end)) => return Err(end),
        }
        self.say_ready();
        self.flush().await
    }

    async fn statements_of(&mut self, text: &str) -> Result<(), Stop> {
        let statements = split(text);
        if statements.is_empty() {
            self.say(&PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new()));
            return Ok(());
        }
        if statements.len() > STATEMENTS_PER_QUERY_MAX {
            let message =
                format!("{} statements in one query; at most {STATEMENTS_PER_QUERY_MAX} are run", statements.len());
            return Err(Failure::new("54001", message).into());
        }
        for sql in statements {
            let placed = self.simple_statement(sql).await.map_err(|stop| match stop {
                Stop::Failed(failure) => Stop::Failed(placed_in(failure, text, sql)),
                ended @ Stop::Ended(_) => ended,
            });
            placed?;
        }
        Ok(())
    }

    async fn simple_statement(&mut self, sql: &str) -> Result<(), Stop> {
        let kind = kind_of(sql)?;
        self.check_transaction(&kind)?;
        match kind {
            Kind::Empty => self.say(&PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())),
            Kind::Command(command) => self.run_command(&command, true).await?,
            Kind::Query => {
                let mut rows = self.start(sql, Vec::new(), &[]).await?;
                if !rows.description().fields.is_empty() {
                    self.say(&PgWireBackendMessage::RowDescription(rows.description()));
                }
                let (_, sent) = self.send_rows(&mut rows, sql, 0).await?;
                let tag = self.query_tag(rows.tag(), sent)?;
                self.say_complete(tag);
            }
        }
        Ok(())
    }
}

/// A position within one statement as one within the whole text.
fn placed_in(failure: Failure, text: &str, statement: &str) -> Failure {
    let bytes_before = statement.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    let before = text.get(..bytes_before).map_or(0, |before| before.chars().count());
    Failure { position: failure.position.map(|position| position + before), ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_from_the_start_of_the_text() {
        let text = "SELECT '줄'; SELECT x";
        let statement = split(text)[1];
        let failure = Failure { position: Some(8), ..Failure::new("42703", "no x") };
        assert_eq!(placed_in(failure, text, statement).position, Some(20));
    }

    #[test]
    fn a_text_is_empty_a_command_or_a_query() {
        assert_eq!(kind_of(" ;; "), Ok(Kind::Empty));
        assert_eq!(kind_of("-- only this"), Ok(Kind::Empty));
        assert_eq!(kind_of("commit"), Ok(Kind::Command(command::Command::Commit)));
        assert_eq!(kind_of("SELECT 1"), Ok(Kind::Query));
        assert_eq!(kind_of("SET").expect_err("no name").sqlstate, "42601");
    }
}
