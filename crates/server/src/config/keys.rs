//! Every setting, declared once: its type, its default, its flag and what it means. The struct it is read
//! into, the flag, the environment variable, `config show` and the help all come from this one list.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::value::{ByteSize, Peers, Value};

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// `section.key`.
    pub name: &'static str,
    /// The flag of `serve` without its dashes, where it has one.
    pub flag: Option<&'static str>,
    pub default: &'static str,
    /// What to write, for people.
    pub shape: &'static str,
    /// A switch takes no value as a flag.
    pub is_switch: bool,
    doc: &'static [&'static str],
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    pub(super) get: fn(&Config) -> String,
}

impl Key {
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// The name within the section.
    pub fn short_name(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, key)| key)
    }

    /// `SEAWALL_SECTION_KEY`.
    pub fn variable(&self) -> String {
        format!("{}{}", super::VARIABLE_PREFIX, self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// What it means, in one line.
    pub fn help(&self) -> String {
        self.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }

    /// What stands for the value in a usage line.
    pub fn value_name(&self) -> &'static str {
        match self.shape {
            <SocketAddr as Value>::SHAPE => "ADDRESS",
            <PathBuf as Value>::SHAPE => "DIR",
            <u32 as Value>::SHAPE => "NUMBER",
            _ => "VALUE",
        }
    }

    /// Its value in `config`, as text.
    pub fn show(&self, config: &Config) -> String {
        (self.get)(config)
    }
}

macro_rules! optional_flag {
    () => {
        None
    };
    ($flag:literal) => {
        Some($flag)
    };
}

macro_rules! settings {
    ($($(#[doc = $section_doc:literal])* $section:ident: $Section:ident {
        $($(#[doc = $doc:literal])* $key:ident: $ty:ty = $default:literal $(, flag $flag:literal)?;)*
    })*) => {
        $($(#[doc = $section_doc])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $Section { $($(#[doc = $doc])* pub $key: $ty,)* })*

        /// What a node was told. Every value is good on its own; [`Config::check`] compares them.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct Config {
            /// Started with `--dev`.
            pub dev: bool,
            $(pub $section: $Section,)*
        }

        impl Config {
            /// The defaults as declared.
            ///
            /// # Panics
            /// If a declared default is not of its own type, which a test rules out.
            pub fn new() -> Self {
                Self { dev: false, $($section: $Section { $($key: declared(<$ty as Value>::parse($default)),)* },)* }
            }
        }

        /// All settings, in the order of the declaration.
        pub static KEYS: &[Key] = &[$($(Key {
            name: concat!(stringify!($section), ".", stringify!($key)),
            flag: optional_flag!($($flag)?),
            default: $default,
            shape: <$ty as Value>::SHAPE,
            is_switch: is_switch(<$ty as Value>::SHAPE),
            doc: &[$($doc),*],
            set: |config, text| {
                config.$section.$key = <$ty as Value>::parse(text)?;
                Ok(())
            },
            get: |config| config.$section.$key.show(),
        },)*)*];
    };
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

const fn is_switch(shape: &str) -> bool {
    matches!(shape.as_bytes(), b"true or false")
}

fn declared<T>(value: Result<T, String>) -> T {
    match value {
        Ok(value) => value,
        Err(error) => panic!("a declared default is wrong: {error}"),
    }
}

settings! {
    /// This process and its place on the machine.
    node: Node {
        /// The node's number in its cluster; never used twice.
        id: u32 = "1", flag "node-id";
        /// Folder for everything this node keeps. Only one process may use it at a time.
        data_dir: PathBuf = "seawall-data", flag "data-dir";
    }

    /// Where clients connect.
    listen: Listen {
        /// Address for Kafka clients.
        kafka: SocketAddr = "127.0.0.1:9092", flag "kafka";
        /// Address for HTTP: SQL, admin API, health, metrics.
        http: SocketAddr = "127.0.0.1:8888", flag "http";
        /// Address for PostgreSQL clients.
        postgres: SocketAddr = "127.0.0.1:5433", flag "postgres";
        /// Address for the other nodes of the cluster; used only when cluster.peers or cluster.join is set.
        peer: SocketAddr = "127.0.0.1:7400", flag "peer";
        /// The host:port Kafka clients are told to connect to; none = the address of listen.kafka.
        advertised_kafka: Option<String> = "none", flag "advertised-kafka";
        /// Accept an address other machines can reach although nothing is encrypted and nobody is asked who they are.
        insecure: bool = "false", flag "insecure";
        /// Most connections at a time on each listener; further ones are closed at once.
        connections_max: u32 = "1024";
        /// Most bytes of requests being worked on at a time on the Kafka listener; further ones wait in their sockets.
        inflight_bytes_max: ByteSize = "256MiB";
    }

    /// The cluster this node belongs to.
    cluster: Cluster {
        /// Name for people; identity is a UUID chosen when the data folder is first used.
        name: String = "seawall";
        /// The founding nodes and their listen.peer, this one among them; empty = this node is alone, or joins later. Counts
        /// at the first start only: after that the cluster knows its members.
        peers: Peers = "", flag "peers";
        /// For a node that founds no cluster: members of the one that it joins, with their listen.peer.
        join: Peers = "", flag "join";
        /// How many nodes vote on the metadata, when there are so many: 1, 3, 5 or 7. The active master's counts.
        voters: u32 = "3";
        /// What a node that cannot be reached for so long holds is made anew on others; none = only when it is removed.
        replace_after: Option<Duration> = "30m";
        /// Replicas moved at the same time when nodes are emptied or replaced.
        moves_max: u32 = "4";
        /// Members named in cluster.peers or cluster.join are reached only there, not where they registered: for ports that are
        /// forwarded.
        fixed_addresses: bool = "false";
        /// Where the node stands, such as a data centre: replicas are spread over zones; none = not said.
        zone: Option<String> = "none";
    }

    /// Where sealed segments are kept for good.
    deep_storage: DeepStorage {
        /// A folder; none = the folder `deep` in node.data_dir.
        url: Option<String> = "none", flag "deep-storage";
    }

    /// Topics: partition logs and consumer groups.
    log: Log {
        /// How long records are kept; none = for ever. What a table has not sealed yet is always kept.
        retention: Option<Duration> = "7d";
        /// How many bytes of each partition are kept; none = no limit.
        retention_bytes: Option<ByteSize> = "none";
        /// Size at which a log file ends and the next begins.
        file_bytes: ByteSize = "256MiB";
        /// Age at which a log file ends and the next begins.
        file_age: Duration = "7d";
        /// Bytes between two entries of a log file's index.
        index_step_bytes: ByteSize = "4KiB";
        /// Largest record batch accepted from a producer.
        batch_bytes_max: ByteSize = "1MiB";
        /// Longest time that a record acknowledged with acks=1 stays without fsync.
        flush_interval: Duration = "100ms";
        /// Free space below which produce is refused, so that the disk never gets full.
        disk_reserve_bytes: ByteSize = "512MiB";
        /// Bytes of all partitions of this node above which produce is refused; none = as much as the disk has.
        bytes_max: Option<ByteSize> = "none";
        /// Create a topic when a client asks for one that is not there.
        auto_create_topics: bool = "true";
        /// Partitions of a topic created without a number.
        default_partitions: i32 = "1";
        /// How long the offsets of a group are kept after its last member left.
        offsets_retention: Duration = "7d";
        /// Wait for more members before the first assignment of an empty group.
        group_rebalance_delay: Duration = "100ms";
        /// Shortest session timeout a group member may ask for.
        group_session_min: Duration = "1s";
        /// Longest session timeout a group member may ask for.
        group_session_max: Duration = "30m";
        /// Longest time a producer may ask its transactions to last.
        transaction_timeout_max: Duration = "15m";
        /// How long a transactional id that nobody uses is kept.
        transactional_id_expiration: Duration = "7d";
        /// Most members of one group.
        group_size_max: u32 = "1000";
    }

    /// Tables: rows in memory, segments on disk.
    store: Store {
        /// Rows after which live rows are sealed into a segment.
        segment_rows_max: u64 = "500000";
        /// Age after which live rows are sealed into a segment.
        segment_age_max: Duration = "1h";
        /// Bytes of live rows of all tables at which the largest are sealed early.
        live_bytes_max: ByteSize = "1GiB";
        /// Bytes of all dictionaries; above it, columns that are nearly unique are kept without one.
        dictionary_bytes_max: ByteSize = "2GiB";
        /// Threads that parse, seal and load; 0 = one for every two cores.
        threads: u32 = "0";
    }

    /// Answering SQL.
    query: Query {
        /// Memory all queries share; a query that needs more fails alone.
        memory_bytes: ByteSize = "1GiB";
        /// Time a query may take when it does not say.
        timeout_default: Duration = "5m";
        /// Longest time a query may ask for.
        timeout_max: Duration = "1h";
        /// Queries that run at a time; further ones wait.
        concurrent_max: u32 = "32";
        /// Threads that answer queries; 0 = one for every core.
        threads: u32 = "0";
    }

    /// What the node tells about itself.
    telemetry: Telemetry {
        /// Keep the node's own request log as the table seawall_requests.
        request_log: bool = "false";
        /// Keep the node's own metrics as the table seawall_metrics.
        metrics: bool = "false";
        /// Time between two readings of the node's own metrics.
        metrics_interval: Duration = "10s";
        /// What is written to stderr: error, warn, info, debug or trace, or a filter such as info,seawall::edge=debug.
        log: String = "info", flag "log";
    }
}
