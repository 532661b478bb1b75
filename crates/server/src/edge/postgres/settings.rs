//! A session's settings: PostgreSQL's that clients read and set, and query context for every other name.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use store::calendar::Zone;

use super::limits::SETTINGS_MAX;

/// What a session begins with. Those marked are told to the client at the start and when they change.
const DEFAULTS: [(&str, &str, bool); 27] = [
    ("application_name", "", true),
    ("bytea_output", "hex", false),
    ("client_encoding", "UTF8", true),
    ("client_min_messages", "notice", false),
    ("DateStyle", "ISO, MDY", true),
    ("default_transaction_isolation", "read committed", false),
    ("default_transaction_read_only", "off", true),
    ("extra_float_digits", "1", false),
    ("idle_in_transaction_session_timeout", "0", false),
    ("in_hot_standby", "off", true),
    ("integer_datetimes", "on", true),
    ("IntervalStyle", "postgres", true),
    ("is_superuser", "off", true),
    ("jit", "off", false),
    ("lc_collate", "C", false),
    ("lc_ctype", "C", false),
    ("lock_timeout", "0", false),
    ("max_identifier_length", "63", false),
    ("search_path", "\"$user\", public", true),
    ("server_encoding", "UTF8", true),
    ("server_version_num", "150000", false),
    ("session_authorization", "", true),
    ("standard_conforming_strings", "on", true),
    ("statement_timeout", "0", false),
    ("TimeZone", "UTC", true),
    ("transaction_isolation", "read committed", false),
    ("transaction_read_only", "on", false),
];
/// Settings that cannot be set.
const FIXED: [&str; 9] = [
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "lc_collate",
    "lc_ctype",
    "max_identifier_length",
    "server_encoding",
    "server_version",
    "server_version_num",
];
const VERSION: &str = concat!("15.0 (Seawall ", env!("CARGO_PKG_VERSION"), ")");

/// Why a setting was refused, with its SQLSTATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub sqlstate: &'static str,
    pub message: String,
}

/// The settings of one session.
#[derive(Debug, Clone)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// As the client asked at startup: what RESET goes back to.
    initial: BTreeMap<String, String>,
    /// Names that are not PostgreSQL's: query context.
    context: Map<String, Value>,
}

impl Settings {
    pub fn new() -> Self {
        let mut values: BTreeMap<String, String> =
            DEFAULTS.iter().map(|(name, value, _)| ((*name).to_owned(), (*value).to_owned())).collect();
        values.insert("server_version".to_owned(), VERSION.to_owned());
        Self { initial: values.clone(), values, context: Map::new() }
    }

    /// What the startup packet asks for. Unknown names and bad values are passed over: many drivers send some.
    pub fn start(&mut self, parameters: &[(String, String)]) {
        for (name, value) in parameters {
            match name.as_str() {
                "user" => {
                    self.values.insert("session_authorization".to_owned(), value.clone());
                }
                "database" | "replication" => {}
                "options" => {
                    for (name, value) in options(value) {
                        let _ = self.set(&name, Some(&value));
                    }
                }
                _ if spelled(name).is_some() => {
                    let _ = self.set(name, Some(value));
                }
                _ => {}
            }
        }
        self.initial = self.values.clone();
    }

    /// Sets a value; `None` goes back to the initial one. Gives the spelled name when the client is to be told.
    ///
    /// # Errors
    /// Refused when it cannot be set, or not to this.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<Option<&'static str>, Refused> {
        let Some((known, reported)) = spelled(name) else {
            self.set_context(name, value)?;
            return Ok(None);
        };
        if FIXED.contains(&known) {
            return Err(Refused { sqlstate: "55P02", message: format!("parameter {known} cannot be changed") });
        }
        let value = match value {
            Some(value) => checked(known, value)?,
            None => self.initial.get(known).cloned().unwrap_or_default(),
        };
        self.values.insert(known.to_owned(), value);
        Ok(reported.then_some(known))
    }

    fn set_context(&mut self, name: &str, value: Option<&str>) -> Result<(), Refused> {
        let Some(value) = value else {
            self.context.shift_remove(name);
            return Ok(());
        };
        if self.context.len() >= SETTINGS_MAX && !self.context.contains_key(name) {
            let message = format!("a session may have {SETTINGS_MAX} settings of its own; RESET some");
            return Err(Refused { sqlstate: "53400", message });
        }
        let json = match serde_json::from_str::<Value>(value) {
            Ok(json @ (Value::Bool(_) | Value::Number(_))) => json,
            _ => Value::String(value.to_owned()),
        };
        self.context.insert(name.to_owned(), json);
        Ok(())
    }

    /// Back to what the session began with.
    pub fn reset_all(&mut self) {
        self.values = self.initial.clone();
        self.context.clear();
    }

    /// The spelled name and the value of a setting.
    pub fn get(&self, name: &str) -> Option<(String, String)> {
        if let Some(value) = self.context.get(name) {
            return Some((name.to_owned(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        }
        let found = self.values.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(known, value)| (known.clone(), value.clone()))
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What a client is told at the start.
    pub fn reported(&self) -> impl Iterator<Item = (&str, &str)> {
        let report = |name: &str| name == "server_version" || spelled(name).is_some_and(|(_, reported)| reported);
        self.all().filter(move |(name, _)| report(name))
    }

    /// The query context of the session's queries.
    pub fn context(&self) -> Map<String, Value> {
        let mut context = self.context.clone();
        let zone = self.values.get("TimeZone").map_or("UTC", String::as_str);
        context.entry("sqlTimeZone").or_insert_with(|| Value::String(zone.to_owned()));
        let timeout = self.values.get("statement_timeout").and_then(|text| milliseconds(text)).unwrap_or(0);
        if timeout > 0 {
            context.entry("timeout").or_insert_with(|| Value::from(timeout));
        }
        context
    }
}

/// PostgreSQL's spelling of a name of its own, and whether clients are told of it.
fn spelled(name: &str) -> Option<(&'static str, bool)> {
    if name.eq_ignore_ascii_case("server_version") {
        return Some(("server_version", true));
    }
    DEFAULTS
        .iter()
        .find(|(known, _, _)| known.eq_ignore_ascii_case(name))
        .map(|(known, _, reported)| (*known, *reported))
}

fn checked(name: &str, value: &str) -> Result<String, Refused> {
    let refused = |message: String| Err(Refused { sqlstate: "22023", message });
    match name {
        "client_encoding" => {
            let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
            if matches!(plain.to_ascii_uppercase().as_str(), "UTF8" | "UNICODE" | "SQLASCII") {
                Ok("UTF8".to_owned())
            } else {
                refused(format!("client_encoding {value} is not offered: use UTF8"))
            }
        }
        "TimeZone" => match Zone::parse(value) {
            Ok(_) => Ok(value.to_owned()),
            Err(error) => refused(error.to_string()),
        },
        "statement_timeout" => match milliseconds(value) {
            Some(_) => Ok(value.to_owned()),
            None => refused(format!("statement_timeout {value} is no time: write it as 5000, '5s' or '1min'")),
        },
        "standard_conforming_strings" if !value.eq_ignore_ascii_case("on") => {
            refused("standard_conforming_strings is always on".to_owned())
        }
        _ => Ok(value.to_owned()),
    }
}

/// `5000`, `5s`, `500 ms`, `2min`, `1h`, in milliseconds.
fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// `-c name=value -c name=value` or `--name=value`, as libpq's `options` has them.
fn options(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let assignment = match (word, word.strip_prefix("-c"), word.strip_prefix("--")) {
            ("-c", _, _) => words.next(),
            (_, Some(rest), _) => Some(rest),
            (_, None, rest) => rest,
        };
        if let Some((name, value)) = assignment.and_then(|assignment| assignment.split_once('=')) {
            found.push((name.replace('-', "_"), value.replace('\\', "")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_postgresql_and_of_query_context() {
        let mut settings = Settings::new();
        settings.start(&[
            ("user".into(), "ann".into()),
            ("options".into(), "-c statement_timeout=5s --TimeZone=Asia/Seoul".into()),
            ("client_encoding".into(), "utf-8".into()),
            ("_pq_.x".into(), "1".into()),
        ]);
        assert_eq!(settings.get("timezone"), Some(("TimeZone".into(), "Asia/Seoul".into())));
        assert_eq!(settings.get("client_encoding"), Some(("client_encoding".into(), "UTF8".into())));
        assert_eq!(settings.set("datestyle", Some("ISO, DMY")), Ok(Some("DateStyle")));
        assert_eq!(settings.set("useCache", Some("false")), Ok(None));
        assert_eq!(settings.set("lane", Some("slow")), Ok(None));
        assert_eq!(
            Value::Object(settings.context()),
            json!({"useCache": false, "lane": "slow", "sqlTimeZone": "Asia/Seoul", "timeout": 5000})
        );
        settings.set("TimeZone", Some("UTC")).expect("known");
        settings.reset_all();
        assert_eq!(
            Value::Object(settings.context()),
            json!({"sqlTimeZone": "Asia/Seoul", "timeout": 5000}),
            "back to what the client began with"
        );
        assert!(
            settings.reported().any(|(name, value)| name == "server_version" && value.starts_with("15.0 (Seawall "))
        );
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        let mut settings = Settings::new();
        let state = |result: Result<_, Refused>| result.expect_err("refused").sqlstate;
        assert_eq!(state(settings.set("server_version", Some("9"))), "55P02");
        assert_eq!(state(settings.set("client_encoding", Some("LATIN1"))), "22023");
        assert_eq!(state(settings.set("timezone", Some("Mars/Olympus"))), "22023");
        for number in 0..SETTINGS_MAX {
            settings.set(&format!("k{number}"), Some("1")).expect("within the bound");
        }
        assert_eq!(state(settings.set("one_more", Some("1"))), "53400");
    }
}
