//! Session settings: what the session was told, else what is fixed here.

use crate::statement::Session;

/// Settings that do not change.
pub const FIXED: [(&str, &str); 26] = [
    ("server_version", "16.0"),
    ("server_version_num", "160000"),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
    ("integer_datetimes", "on"),
    ("datestyle", "ISO, MDY"),
    ("intervalstyle", "postgres"),
    ("search_path", "public"),
    ("transaction_isolation", "read committed"),
    ("transaction_isolation_level", "read committed"),
    ("default_transaction_isolation", "read committed"),
    ("transaction_read_only", "on"),
    ("default_transaction_read_only", "on"),
    ("application_name", ""),
    ("extra_float_digits", "1"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("bytea_output", "hex"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
    ("is_superuser", "on"),
    ("session_authorization", super::OWNER),
    ("in_hot_standby", "off"),
];

/// The value of a session setting, as `SHOW name` and `current_setting('name')` give it.
pub fn setting(name: &str, session: &Session) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let name = if name == "time_zone" { "timezone" } else { name.as_str() };
    if let Some(value) = session.settings.get(name) {
        return Some(value.clone());
    }
    if name == "timezone" {
        return Some(session.zone_name.clone());
    }
    FIXED.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}
