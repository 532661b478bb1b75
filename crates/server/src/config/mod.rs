//! What a node was told: defaults, then `seawall.toml`, then `SEAWALL_SECTION_KEY`, then flags; the later wins.
//!
//! What always holds: a [`Config`] that was loaded has values of the right type, and each knows where it came
//! from. Nothing is ignored in silence: an unknown key in the file or a flag is an error that names the nearest
//! one. (An unknown variable only gives a note: a scheduler may set `SEAWALL_SERVICE_HOST` and the like for
//! reasons of its own.) Not here: any rule of the product.
//!
//! ```text
//! keys     every setting, declared once
//! value    durations, sizes, addresses from text and back
//! file     TOML with lines
//! flags    the same keys as flags of `serve`
//! ```

mod file;
mod flags;
mod keys;
mod nearest;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base::NodeId;

use crate::shell::security;

pub use flags::ConfigFlags;
pub use keys::{Config, KEYS, Key};
pub use nearest::nearest;
pub use value::{ByteSize, Value};

/// What every variable of ours begins with.
pub const VARIABLE_PREFIX: &str = "SEAWALL_";
/// Read when no file is named.
pub const FILES: [&str; 2] = ["seawall.toml", "/etc/seawall/seawall.toml"];
/// Variables that are not keys: the commands read them.
const OTHER_VARIABLES: [&str; 4] = ["SEAWALL_CONFIG", "SEAWALL_BOOTSTRAP", "SEAWALL_URL", "SEAWALL_FORMAT"];
/// What `--dev` puts between the defaults and the file.
const DEV: [(&str, &str); 1] = [("node.data_dir", "seawall-dev")];
/// Most founding members: all of them vote on every change of the metadata.
const VOTERS_MAX: usize = 7;
/// A configuration file larger than this is some other file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why the configuration cannot be used. Nothing was started.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{file}: cannot be read: {cause}")]
    Unreadable { file: String, cause: String },
    #[error("{file}:{line}: not valid TOML: {cause}")]
    Syntax { file: String, line: usize, cause: String },
    #[error("{at}: there is no key {name}{}; `seawall config show` lists all", did_you_mean(.nearest.as_deref()))]
    UnknownKey { at: String, name: String, nearest: Option<String> },
    #[error("{at}: {key} {cause}")]
    WrongType { at: String, key: String, cause: String },
    /// Each value is good alone, but not together.
    #[error("{key} ({origin}): {cause}")]
    Refused { key: &'static str, origin: Origin, cause: String },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    Default,
    /// Set by `--dev`.
    Dev,
    File {
        name: String,
        line: usize,
    },
    Variable(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Dev => f.write_str("--dev"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Variable(name) => write!(f, "${name}"),
            Self::Flag(flag) => write!(f, "--{flag}"),
        }
    }
}

/// Where to look.
#[derive(Clone, Default, Debug)]
pub struct Sources {
    /// The named file. Without one, the first of [`FILES`] that is there (none with `dev`).
    pub file: Option<PathBuf>,
    pub dev: bool,
    /// The environment, or the part of it that begins with [`VARIABLE_PREFIX`].
    pub variables: Vec<(String, String)>,
    /// (key name, flag as the user wrote it without dashes, text).
    pub flags: Vec<(&'static str, String, String)>,
}

/// A configuration and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    origins: BTreeMap<&'static str, Origin>,
    /// Remarks that stop nothing.
    pub notes: Vec<String>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

impl Loaded {
    pub fn origin(&self, key: &Key) -> Origin {
        self.origins.get(key.name).cloned().unwrap_or(Origin::Default)
    }

    fn set(&mut self, key: &'static Key, text: &str, origin: Origin) -> Result<(), ConfigError> {
        (key.set)(&mut self.config, text).map_err(|cause| ConfigError::WrongType {
            at: origin.to_string(),
            key: key.name.to_owned(),
            cause: format!("needs {}: {cause}", key.shape),
        })?;
        self.origins.insert(key.name, origin);
        Ok(())
    }
}

/// Reads everything and compares the values with each other.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let loaded = read(sources)?;
    loaded.check()?;
    Ok(loaded)
}

/// As [`load`], without comparing the values: what `config show` shows.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn read(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded { config: Config::new(), origins: BTreeMap::new(), notes: Vec::new(), file: None };
    if sources.dev {
        loaded.config.dev = true;
        for (name, text) in DEV {
            loaded.set(key(name), text, Origin::Dev)?;
        }
    }
    if let Some(path) = file_to_read(sources) {
        let name = path.display().to_string();
        for setting in file::parse(&name, &read_file(&path)?)? {
            loaded.set(setting.key, &setting.text, Origin::File { name: name.clone(), line: setting.line })?;
        }
        loaded.file = Some(path);
    }
    for (name, text) in &sources.variables {
        read_variable(&mut loaded, name, text)?;
    }
    for (name, flag, text) in &sources.flags {
        loaded.set(key(name), text, Origin::Flag(flag.clone()))?;
    }
    Ok(loaded)
}

fn read_variable(loaded: &mut Loaded, name: &str, text: &str) -> Result<(), ConfigError> {
    if !name.starts_with(VARIABLE_PREFIX) || OTHER_VARIABLES.contains(&name) {
        return Ok(());
    }
    if let Some(key) = KEYS.iter().find(|key| key.variable() == name) {
        return loaded.set(key, text, Origin::Variable(name.to_owned()));
    }
    let known: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let hint = did_you_mean(nearest(name, known.iter().map(String::as_str)));
    loaded.notes.push(format!("the variable {name} is none of ours and is ignored{hint}"));
    Ok(())
}

impl Loaded {
    /// Compares the values with each other.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] with the reason and what to do.
    pub fn check(&self) -> Result<(), ConfigError> {
        let config = &self.config;
        let refuse = |name: &'static str, cause: String| {
            Err(ConfigError::Refused { key: name, origin: self.origin(key(name)), cause })
        };
        let mut listeners: Vec<(&'static str, SocketAddr)> = vec![
            ("listen.kafka", config.listen.kafka),
            ("listen.http", config.listen.http),
            ("listen.postgres", config.listen.postgres),
        ];
        if config.has_links() {
            listeners.push(("listen.peer", config.listen.peer));
        }
        let has_certificate = security::exists(&config.security_dir());
        for &(name, address) in &listeners {
            let is_open = !address.ip().is_loopback() && !config.listen.insecure;
            if is_open && name == "listen.peer" {
                if has_certificate {
                    continue;
                }
                let cause = format!(
                    "{address} can be reached from other machines, and this node has no certificate in {}: run \
                     `seawall cluster init` on the first node and `seawall cluster join` on the others",
                    config.security_dir().display()
                );
                return refuse(name, cause);
            }
            if is_open {
                return refuse(
                    name,
                    format!(
                        "{address} can be reached from other machines, and this version has neither encryption nor \
                         passwords yet; listen on 127.0.0.1, or say --insecure if the network around it is trusted"
                    ),
                );
            }
            let same = listeners.iter().find(|(other, at)| *other != name && *at == address && at.port() != 0);
            if let Some((other, _)) = same {
                return refuse(
                    name,
                    format!("{address} is also the address of {other}; give one of them another port"),
                );
            }
        }
        self.check_cluster()?;
        if config.query.timeout_default > config.query.timeout_max {
            return refuse(
                "query.timeout_default",
                "is longer than query.timeout_max; lower one or raise the other".into(),
            );
        }
        if config.log.group_session_min > config.log.group_session_max {
            return refuse("log.group_session_min", "is longer than log.group_session_max".into());
        }
        if !(1..=base::limits::PARTITIONS_PER_TOPIC_MAX).contains(&config.log.default_partitions) {
            let most = base::limits::PARTITIONS_PER_TOPIC_MAX;
            return refuse("log.default_partitions", format!("must be from 1 to {most}"));
        }
        let batch_max = base::limits::BATCH_BYTES_MAX as u64;
        if !(1024..=batch_max).contains(&config.log.batch_bytes_max.0) {
            return refuse("log.batch_bytes_max", format!("must be from 1KiB to {}", ByteSize(batch_max).show()));
        }
        if config.log.file_bytes < config.log.batch_bytes_max {
            return refuse("log.file_bytes", "must be at least log.batch_bytes_max: a batch lies in one file".into());
        }
        self.check_nonzero()
    }

    /// What holds the nodes of a cluster together.
    fn check_cluster(&self) -> Result<(), ConfigError> {
        let config = &self.config;
        let refuse = |name: &'static str, cause: String| {
            Err(ConfigError::Refused { key: name, origin: self.origin(key(name)), cause })
        };
        if config.node.id == 0 {
            return refuse("node.id", "must be above zero".into());
        }
        let voters = config.cluster.voters;
        if !matches!(voters, 1 | 3 | 5 | 7) {
            let cause =
                format!("must be 1, 3, 5 or 7, not {voters}: an even number survives no more than one less does");
            return refuse("cluster.voters", cause);
        }
        let (peers, join) = (&config.cluster.peers.0, &config.cluster.join.0);
        if join.contains_key(&NodeId(config.node.id)) {
            let cause =
                format!("names this node (node.id = {}): name others, which are members already", config.node.id);
            return refuse("cluster.join", cause);
        }
        if !join.is_empty() && !peers.is_empty() {
            let cause =
                "a node founds a cluster (cluster.peers) or joins one that is there (cluster.join): set one of them";
            return refuse("cluster.join", cause.into());
        }
        if !join.is_empty() && config.deep_storage.url.is_none() {
            let cause = "the nodes of a cluster share it: name the folder that every node sees";
            return refuse("deep_storage.url", cause.into());
        }
        if !join.is_empty() && config.listen.peer.ip().is_unspecified() {
            let cause = "the other nodes are told to find this one there: name an address that they can reach";
            return refuse("listen.peer", cause.into());
        }
        if peers.is_empty() {
            return Ok(());
        }
        let (own, others) = (NodeId(config.node.id), config.cluster.peers.show());
        let Some(address) = peers.get(&own) else {
            let cause =
                format!("this is node {own} (node.id), which {others} does not name: add it, or correct node.id");
            return refuse("cluster.peers", cause);
        };
        if peers.len() == 2 {
            return refuse(
                "cluster.peers",
                "two nodes cannot go on when one of them fails, so they are worth less than one: name one node, or \
                 three"
                    .into(),
            );
        }
        let named = peers.len();
        if named > VOTERS_MAX {
            return refuse("cluster.peers", format!("names {named} nodes; at most {VOTERS_MAX} can found a cluster"));
        }
        if address.port() != config.listen.peer.port() && config.listen.peer.port() != 0 {
            let cause = format!("the other nodes look for this one at {address} (cluster.peers): use the same port");
            return refuse("listen.peer", cause);
        }
        if named > 1 && config.deep_storage.url.is_none() {
            let cause = "the nodes of a cluster share it: name a folder that every node sees";
            return refuse("deep_storage.url", cause.into());
        }
        Ok(())
    }

    /// Bounds that would stop everything at zero.
    fn check_nonzero(&self) -> Result<(), ConfigError> {
        const ABOVE_ZERO: [&str; 11] = [
            "cluster.moves_max",
            "listen.connections_max",
            "listen.inflight_bytes_max",
            "log.index_step_bytes",
            "log.file_age",
            "log.group_size_max",
            "store.segment_rows_max",
            "store.live_bytes_max",
            "query.memory_bytes",
            "query.timeout_max",
            "query.concurrent_max",
        ];
        for name in ABOVE_ZERO {
            let key = key(name);
            if matches!(key.show(&self.config).as_str(), "0" | "0s" | "0B") {
                let cause = "must be above zero".to_owned();
                return Err(ConfigError::Refused { key: key.name, origin: self.origin(key), cause });
            }
        }
        Ok(())
    }
}

impl Config {
    /// There are other nodes, or may be.
    pub fn has_links(&self) -> bool {
        !self.cluster.peers.0.is_empty() || !self.cluster.join.0.is_empty()
    }

    /// No other node decides together with this one when it is new.
    pub fn is_alone(&self) -> bool {
        self.cluster.peers.0.len() < 2 && self.cluster.join.0.is_empty()
    }

    /// The folder where sealed segments are kept for good.
    pub fn deep_storage_dir(&self) -> PathBuf {
        let folder = |url: &String| PathBuf::from(url.strip_prefix("file://").unwrap_or(url));
        self.deep_storage.url.as_ref().map_or_else(|| self.node.data_dir.join("deep"), folder)
    }

    /// Where this node's certificate is, if it has one.
    pub fn security_dir(&self) -> PathBuf {
        security::folder(&self.node.data_dir)
    }
}

fn section_names() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    KEYS.iter().map(Key::section).filter(move |section| std::mem::replace(&mut last, section) != *section)
}

fn key(name: &str) -> &'static Key {
    let found = KEYS.iter().find(|key| key.name == name);
    let Some(key) = found else { panic!("no key {name} is declared") };
    key
}

fn file_to_read(sources: &Sources) -> Option<PathBuf> {
    if sources.file.is_some() || sources.dev {
        return sources.file.clone();
    }
    FILES.iter().map(Path::new).find(|path| path.is_file()).map(Path::to_owned)
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |cause: String| ConfigError::Unreadable { file: path.display().to_string(), cause };
    let len = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if len > FILE_BYTES_MAX {
        return Err(unreadable(format!("{len} bytes are too many for a configuration file")));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}
