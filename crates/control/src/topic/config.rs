//! Every topic configuration there is: name, kind, default, meaning. One declaration serves checking,
//! DescribeConfigs and the typed view.

use std::collections::BTreeMap;

use crate::command::Refused;

/// What values a key takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigKind {
    /// A whole number within the bounds.
    Number { min: i64, max: i64 },
    /// One of the words.
    Word(&'static [&'static str]),
}

/// A topic configuration key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigDef {
    pub name: &'static str,
    pub kind: ConfigKind,
    pub default: &'static str,
    pub doc: &'static str,
}

const fn number(name: &'static str, min: i64, max: i64, default: &'static str, doc: &'static str) -> ConfigDef {
    ConfigDef { name, kind: ConfigKind::Number { min, max }, default, doc }
}

const fn word(
    name: &'static str,
    words: &'static [&'static str],
    default: &'static str,
    doc: &'static str,
) -> ConfigDef {
    ConfigDef { name, kind: ConfigKind::Word(words), default, doc }
}

/// Sorted by name.
pub const DEFS: &[ConfigDef] = &[
    word("cleanup.policy", &["delete"], "delete", "what happens to old records; compact is not supported"),
    word("compression.type", &["producer"], "producer", "batches are kept as the producer compressed them"),
    word(
        "lost.batches.policy",
        &["keep", "republish", "drop"],
        "keep",
        "what is done with batches that a leader had not passed on and another leader's records replaced",
    ),
    number("max.message.bytes", 1_024, 16 << 20, "1048588", "largest batch accepted, in bytes"),
    word(
        "message.timestamp.type",
        &["CreateTime", "LogAppendTime"],
        "CreateTime",
        "whose clock a record's timestamp is: the producer's or the log's",
    ),
    number("min.insync.replicas", 1, 5, "1", "copies that must be durable before acks=all is answered"),
    number("retention.bytes", -1, i64::MAX, "-1", "bytes kept per partition; -1 for no bound"),
    number("retention.ms", -1, i64::MAX, "604800000", "milliseconds kept; -1 for ever"),
    number("segment.bytes", 1 << 20, 1 << 30, "268435456", "size at which a log file is closed and a new one begun"),
    number("segment.ms", 1_000, i64::MAX, "604800000", "age at which a log file is closed and a new one begun"),
];

/// Whose clock a record's timestamp is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// What is done with what another leader's records replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LostPolicy {
    Keep,
    Republish,
    Drop,
}

/// A topic's configuration with defaults filled in and units in the types.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicConfig {
    pub batch_bytes_max: usize,
    pub file_age_ms_max: u64,
    pub file_bytes_max: u64,
    pub lost_policy: LostPolicy,
    pub min_insync_replicas: u32,
    /// `None`: no bound.
    pub retention_bytes: Option<u64>,
    /// `None`: for ever.
    pub retention_ms: Option<u64>,
    pub timestamp_type: TimestampType,
}

impl TopicConfig {
    /// Compares every override with its definition.
    ///
    /// # Errors
    /// [`Refused::InvalidConfig`] naming the first key that is unknown or has a value it cannot have.
    pub fn check(overrides: &BTreeMap<String, String>) -> Result<(), Refused> {
        overrides.iter().try_for_each(|(key, value)| {
            let refuse = |reason: String| Err(Refused::InvalidConfig { key: key.clone(), reason });
            let Some(def) = DEFS.iter().find(|def| def.name == key) else {
                return refuse(format!("unknown key; the known ones are {}", names()));
            };
            match def.kind {
                ConfigKind::Number { min, max } => match value.parse::<i64>() {
                    Ok(number) if (min..=max).contains(&number) => Ok(()),
                    Ok(number) => refuse(format!("{number} is outside {min} to {max}")),
                    Err(_) => refuse(format!("{value:?} is not a whole number")),
                },
                ConfigKind::Word(words) if words.contains(&value.as_str()) => Ok(()),
                ConfigKind::Word(words) => refuse(format!("{value:?} is not supported; use {}", words.join(" or "))),
            }
        })
    }

    /// The typed view of overrides that passed [`TopicConfig::check`].
    #[must_use]
    pub fn from_checked(overrides: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| {
            let default = DEFS.iter().find(|def| def.name == name).map_or("", |def| def.default);
            overrides.get(name).map_or(default, String::as_str)
        };
        let number = |name: &str| text(name).parse::<i64>().unwrap_or(-1);
        let bound = |name: &str| u64::try_from(number(name)).ok();
        Self {
            batch_bytes_max: usize::try_from(number("max.message.bytes")).unwrap_or(1_048_588),
            file_age_ms_max: bound("segment.ms").unwrap_or(u64::MAX),
            file_bytes_max: bound("segment.bytes").unwrap_or(256 << 20),
            lost_policy: match text("lost.batches.policy") {
                "republish" => LostPolicy::Republish,
                "drop" => LostPolicy::Drop,
                _ => LostPolicy::Keep,
            },
            min_insync_replicas: u32::try_from(number("min.insync.replicas")).unwrap_or(1),
            retention_bytes: bound("retention.bytes"),
            retention_ms: bound("retention.ms"),
            timestamp_type: match text("message.timestamp.type") {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
        }
    }
}

fn names() -> String {
    DEFS.iter().map(|def| def.name).collect::<Vec<_>>().join(", ")
}
