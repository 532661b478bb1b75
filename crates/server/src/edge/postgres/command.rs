//! Statements a session answers by itself: transactions, settings, and what pools send to clean up.
//!
//! Recognised by their first words, so that they work also in a failed transaction and cost no planning. Everything else
//! is a query.

use super::statements::skip_blanks;

/// A statement of the session itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Begin,
    Commit,
    Rollback,
    /// `SAVEPOINT`, `RELEASE`, `ROLLBACK TO`: accepted inside of a transaction; there is nothing to undo.
    Savepoint(&'static str),
    /// `SET name = value`. `None`: `SET name TO DEFAULT`.
    Set {
        name: String,
        value: Option<String>,
    },
    /// `SET TRANSACTION ...`, `SET CONSTRAINTS ...`: accepted, without effect.
    SetIgnored,
    Reset(String),
    ResetAll,
    Show(String),
    ShowAll,
    DiscardAll,
    Deallocate(Option<String>),
    /// `CLOSE name`, or all with `None`.
    CloseCursor(Option<String>),
    /// `DECLARE name CURSOR FOR query`.
    Declare {
        name: String,
        query: String,
    },
    /// `FETCH n FROM name`; `None` is all.
    Fetch {
        name: String,
        rows: Option<u32>,
    },
    /// `LISTEN`, `UNLISTEN`: accepted; nothing is ever notified.
    Nothing(&'static str),
}

/// The command a statement is, if it is one.
///
/// # Errors
/// A message for 42601 when it begins as one and goes on wrongly.
pub fn parse(statement: &str) -> Result<Option<Command>, String> {
    let mut words = Words { rest: skip_blanks(statement) };
    let Some(first) = words.keyword() else { return Ok(None) };
    let command = match first.as_str() {
        "begin" => Command::Begin,
        "start" if words.take("transaction") => Command::Begin,
        "commit" | "end" => Command::Commit,
        "abort" => Command::Rollback,
        "rollback" => {
            let _ = words.take("work") || words.take("transaction");
            if words.take("to") { Command::Savepoint("ROLLBACK") } else { Command::Rollback }
        }
        "savepoint" => Command::Savepoint("SAVEPOINT"),
        "release" => Command::Savepoint("RELEASE"),
        "set" => set(&mut words)?,
        "reset" => match words.name() {
            Some(name) if name.eq_ignore_ascii_case("all") => Command::ResetAll,
            Some(name) => Command::Reset(name),
            None => return Err("RESET needs a name, or ALL".to_owned()),
        },
        "show" => return Ok(show(&mut words)),
        "discard" => Command::DiscardAll,
        "deallocate" => {
            let _ = words.take("prepare");
            Command::Deallocate(all_or_name(&mut words, "DEALLOCATE")?)
        }
        "close" => Command::CloseCursor(all_or_name(&mut words, "CLOSE")?),
        "declare" => declare(&mut words)?,
        "fetch" => fetch(&mut words)?,
        "listen" => Command::Nothing("LISTEN"),
        "unlisten" => Command::Nothing("UNLISTEN"),
        _ => return Ok(None),
    };
    Ok(Some(command))
}

fn all_or_name(words: &mut Words<'_>, what: &str) -> Result<Option<String>, String> {
    match words.name() {
        Some(name) if name.eq_ignore_ascii_case("all") => Ok(None),
        Some(name) => Ok(Some(name)),
        None => Err(format!("{what} needs a name, or ALL")),
    }
}

fn set(words: &mut Words<'_>) -> Result<Command, String> {
    let _ = words.take("session") || words.take("local");
    if words.take("transaction") || words.take("constraints") || words.take("characteristics") {
        return Ok(Command::SetIgnored);
    }
    if words.take("time") {
        if !words.take("zone") {
            return Err("SET TIME needs ZONE".to_owned());
        }
        let value = words.value().ok_or("SET TIME ZONE needs a zone")?;
        let local = ["local", "default"].iter().any(|word| value.eq_ignore_ascii_case(word));
        return Ok(Command::Set { name: "TimeZone".to_owned(), value: (!local).then_some(value) });
    }
    if words.take("names") {
        return Ok(Command::Set { name: "client_encoding".to_owned(), value: words.value() });
    }
    let name = words.name().ok_or("SET needs a name")?;
    if !words.symbol('=') && !words.take("to") {
        return Err(format!("SET {name} needs = or TO, and a value"));
    }
    let value = words.value().ok_or_else(|| format!("SET {name} needs a value"))?;
    let default = value.eq_ignore_ascii_case("default");
    Ok(Command::Set { name, value: (!default).then_some(value) })
}

fn show(words: &mut Words<'_>) -> Option<Command> {
    let name = words.name()?;
    Some(match name.to_ascii_lowercase().as_str() {
        "all" => Command::ShowAll,
        // Statements of the query room, not settings.
        "tables" | "columns" | "databases" | "schemas" | "functions" | "create" => return None,
        "time" if words.take("zone") => Command::Show("TimeZone".to_owned()),
        "transaction" if words.take("isolation") => Command::Show("transaction_isolation".to_owned()),
        "session" => Command::Show("session_authorization".to_owned()),
        _ => Command::Show(name),
    })
}

/// `name [BINARY] [INSENSITIVE] [[NO] SCROLL] CURSOR [{WITH|WITHOUT} HOLD] FOR query`.
fn declare(words: &mut Words<'_>) -> Result<Command, String> {
    let name = words.name().ok_or("DECLARE needs a name")?;
    while !words.take("cursor") {
        match words.keyword().as_deref() {
            Some("insensitive" | "asensitive" | "no" | "scroll") => {}
            Some("binary") => return Err("a binary cursor is not offered".to_owned()),
            _ => return Err(format!("DECLARE {name} needs CURSOR FOR and a query")),
        }
    }
    if words.take("with") || words.take("without") {
        let _ = words.take("hold");
    }
    if !words.take("for") {
        return Err(format!("DECLARE {name} CURSOR needs FOR and a query"));
    }
    Ok(Command::Declare { name, query: words.rest.trim().to_owned() })
}

/// `[NEXT | FORWARD [n | ALL] | n | ALL] [FROM | IN] name`.
fn fetch(words: &mut Words<'_>) -> Result<Command, String> {
    let forward = words.take("forward");
    let rows = if words.take("next") {
        Some(1)
    } else if words.take("all") {
        None
    } else if let Some(count) = words.number() {
        Some(count)
    } else if forward || words.at_name_or_from() {
        Some(1)
    } else {
        return Err("a cursor goes forward only: FETCH [NEXT | n | ALL] FROM name".to_owned());
    };
    let _ = words.take("from") || words.take("in");
    let name = words.name().ok_or("FETCH needs the name of a cursor")?;
    Ok(Command::Fetch { name, rows })
}

/// Takes words off a statement.
struct Words<'a> {
    rest: &'a str,
}

impl Words<'_> {
    /// The next word in lower case, unless something else comes next.
    fn keyword(&mut self) -> Option<String> {
        let text = skip_blanks(self.rest);
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
        if end == 0 {
            return None;
        }
        self.rest = &text[end..];
        Some(text[..end].to_ascii_lowercase())
    }

    /// Takes the next word if it is this one.
    fn take(&mut self, word: &str) -> bool {
        let before = self.rest;
        let taken = self.keyword().is_some_and(|next| next == word);
        if !taken {
            self.rest = before;
        }
        taken
    }

    fn symbol(&mut self, symbol: char) -> bool {
        let text = skip_blanks(self.rest);
        match text.strip_prefix(symbol) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn number(&mut self) -> Option<u32> {
        let before = self.rest;
        let number = self.keyword().and_then(|word| word.parse().ok());
        if number.is_none() {
            self.rest = before;
        }
        number
    }

    /// A name, perhaps with dots (`seawall.x`) or in double quotes.
    fn name(&mut self) -> Option<String> {
        let text = skip_blanks(self.rest);
        if let Some(quoted) = text.strip_prefix('"') {
            let end = quoted.find('"')?;
            self.rest = &quoted[end + 1..];
            return Some(quoted[..end].to_owned());
        }
        let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '$');
        let end = text.find(|c: char| !word(c)).unwrap_or(text.len());
        self.rest = &text[end..];
        (end > 0).then(|| text[..end].to_owned())
    }

    fn at_name_or_from(&self) -> bool {
        let mut ahead = Words { rest: self.rest };
        let first = ahead.name().unwrap_or_default().to_ascii_lowercase();
        !matches!(first.as_str(), "" | "prior" | "first" | "last" | "absolute" | "relative" | "backward")
    }

    /// The rest as a value: a list keeps its commas, quotes come off.
    fn value(&mut self) -> Option<String> {
        let text = skip_blanks(self.rest).trim_end().trim_end_matches(';').trim_end();
        self.rest = "";
        let unquoted = match text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
            Some(inner) if !inner.replace("''", "").contains('\'') => inner.replace("''", "'"),
            _ => match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(inner) if !inner.contains('"') => inner.to_owned(),
                _ => text.to_owned(),
            },
        };
        (!text.is_empty()).then_some(unquoted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Option<Command> {
        Some(Command::Set { name: name.into(), value: Some(value.into()) })
    }

    #[test]
    fn what_drivers_and_pools_send() {
        let cases = [
            ("BEGIN", Some(Command::Begin)),
            ("begin isolation level read committed", Some(Command::Begin)),
            ("START TRANSACTION READ ONLY", Some(Command::Begin)),
            ("-- hello\n COMMIT;", Some(Command::Commit)),
            ("ROLLBACK", Some(Command::Rollback)),
            ("ROLLBACK TO SAVEPOINT a", Some(Command::Savepoint("ROLLBACK"))),
            ("SET extra_float_digits = 3", set("extra_float_digits", "3")),
            ("SET client_encoding TO 'UTF8'", set("client_encoding", "UTF8")),
            ("set session time zone 'Asia/Seoul'", set("TimeZone", "Asia/Seoul")),
            ("SET TIME ZONE DEFAULT", Some(Command::Set { name: "TimeZone".into(), value: None })),
            ("SET search_path = \"$user\", public", set("search_path", "\"$user\", public")),
            ("SET application_name = 'it''s'", set("application_name", "it's")),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Some(Command::SetIgnored)),
            ("RESET ALL", Some(Command::ResetAll)),
            ("SHOW transaction isolation level", Some(Command::Show("transaction_isolation".into()))),
            ("show standard_conforming_strings", Some(Command::Show("standard_conforming_strings".into()))),
            ("SHOW TABLES", None),
            ("DISCARD ALL", Some(Command::DiscardAll)),
            ("DEALLOCATE \"_pg3_0\"", Some(Command::Deallocate(Some("_pg3_0".into())))),
            ("DEALLOCATE ALL", Some(Command::Deallocate(None))),
            ("UNLISTEN *", Some(Command::Nothing("UNLISTEN"))),
            ("CLOSE ALL", Some(Command::CloseCursor(None))),
            (
                "DECLARE \"c 1\" NO SCROLL CURSOR WITHOUT HOLD FOR SELECT 1",
                Some(Command::Declare { name: "c 1".into(), query: "SELECT 1".into() }),
            ),
            ("FETCH FORWARD 100 FROM \"c 1\"", Some(Command::Fetch { name: "c 1".into(), rows: Some(100) })),
            ("FETCH ALL IN c", Some(Command::Fetch { name: "c".into(), rows: None })),
            ("FETCH c", Some(Command::Fetch { name: "c".into(), rows: Some(1) })),
            ("SELECT 1", None),
            ("(SELECT 1)", None),
            ("", None),
        ];
        for (statement, expected) in cases {
            assert_eq!(parse(statement), Ok(expected), "{statement}");
        }
    }

    #[test]
    fn what_goes_on_wrongly_is_said() {
        for statement in
            ["SET", "SET x", "SET x =", "RESET", "DECLARE c FOR SELECT 1", "FETCH BACKWARD 5 FROM c", "CLOSE"]
        {
            assert!(parse(statement).is_err(), "{statement}");
        }
    }
}
