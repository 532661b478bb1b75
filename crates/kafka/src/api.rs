//! Which APIs and versions are spoken. One table: dispatch, ApiVersions and the frame decoder all read it.

use base::limits::FRAME_BYTES_MAX;

use crate::schema::{self, Field};

/// Largest frame of any API but Produce. Group assignments and large topic lists fit; nothing else is big.
pub const CONTROL_FRAME_BYTES_MAX: usize = 8 << 20;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    pub key: ApiKey,
    /// Told to clients. May be below `min`: see [`ApiKey::Produce`].
    pub advertised_min: i16,
    /// Lowest version that is decoded.
    pub min: i16,
    pub max: i16,
    /// From this version on: compact lengths, tagged fields, request header v2. Above `max` if never.
    pub flexible_from: i16,
    /// The request's body; empty for the two APIs whose bodies are read by hand.
    pub body: &'static [Field],
}

macro_rules! apis {
    ($($(#[$doc:meta])* $name:ident = $key:literal, advertised $low:literal, $min:literal..=$max:literal, flexible $flexible:literal, $body:expr;)*) => {
        /// An API this broker speaks.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(i16)]
        pub enum ApiKey { $($(#[$doc])* $name = $key),* }

        /// Every API, by key.
        pub const APIS: &[Api] = &[$(Api {
            key: ApiKey::$name, advertised_min: $low, min: $min, max: $max, flexible_from: $flexible, body: $body,
        }),*];

        impl ApiKey {
            /// The key on the wire.
            #[must_use]
            pub const fn number(self) -> i16 {
                self as i16
            }

            #[must_use]
            pub const fn of(number: i16) -> Option<Self> {
                match number { $($key => Some(Self::$name),)* _ => None }
            }

            /// The name in Kafka's documentation.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }

            #[must_use]
            pub const fn api(self) -> &'static Api {
                &APIS[index_of(self)]
            }
        }
    };
}

apis! {
    /// Advertised from 0 because librdkafka tests for compression against version 0 and otherwise sends uncompressed without a
    /// word (KAFKA-18659); 0 to 2 carry record formats that do not exist here and are answered with an error in their shape.
    Produce = 0, advertised 0, 0..=11, flexible 9, &[];
    Fetch = 1, advertised 4, 4..=17, flexible 12, &[];
    ListOffsets = 2, advertised 1, 1..=8, flexible 6, schema::LIST_OFFSETS;
    Metadata = 3, advertised 0, 0..=12, flexible 9, schema::METADATA;
    OffsetCommit = 8, advertised 2, 2..=9, flexible 8, schema::OFFSET_COMMIT;
    OffsetFetch = 9, advertised 1, 1..=9, flexible 6, schema::OFFSET_FETCH;
    FindCoordinator = 10, advertised 0, 0..=4, flexible 3, schema::FIND_COORDINATOR;
    JoinGroup = 11, advertised 0, 0..=9, flexible 6, schema::JOIN_GROUP;
    Heartbeat = 12, advertised 0, 0..=4, flexible 4, schema::HEARTBEAT;
    LeaveGroup = 13, advertised 0, 0..=5, flexible 4, schema::LEAVE_GROUP;
    SyncGroup = 14, advertised 0, 0..=5, flexible 4, schema::SYNC_GROUP;
    DescribeGroups = 15, advertised 0, 0..=5, flexible 5, schema::DESCRIBE_GROUPS;
    ListGroups = 16, advertised 0, 0..=5, flexible 3, schema::LIST_GROUPS;
    ApiVersions = 18, advertised 0, 0..=4, flexible 3, schema::API_VERSIONS;
    CreateTopics = 19, advertised 2, 2..=7, flexible 5, schema::CREATE_TOPICS;
    DeleteTopics = 20, advertised 1, 1..=6, flexible 4, schema::DELETE_TOPICS;
    DeleteRecords = 21, advertised 0, 0..=2, flexible 2, schema::DELETE_RECORDS;
    InitProducerId = 22, advertised 0, 0..=5, flexible 2, schema::INIT_PRODUCER_ID;
    OffsetForLeaderEpoch = 23, advertised 2, 2..=4, flexible 4, schema::OFFSET_FOR_LEADER_EPOCH;
    AddPartitionsToTxn = 24, advertised 0, 0..=3, flexible 3, schema::ADD_PARTITIONS_TO_TXN;
    AddOffsetsToTxn = 25, advertised 0, 0..=3, flexible 3, schema::ADD_OFFSETS_TO_TXN;
    EndTxn = 26, advertised 0, 0..=3, flexible 3, schema::END_TXN;
    TxnOffsetCommit = 28, advertised 0, 0..=3, flexible 3, schema::TXN_OFFSET_COMMIT;
    DescribeConfigs = 32, advertised 1, 1..=4, flexible 4, schema::DESCRIBE_CONFIGS;
    AlterConfigs = 33, advertised 0, 0..=2, flexible 2, schema::ALTER_CONFIGS;
    DescribeLogDirs = 35, advertised 1, 1..=4, flexible 2, schema::DESCRIBE_LOG_DIRS;
    CreatePartitions = 37, advertised 0, 0..=3, flexible 2, schema::CREATE_PARTITIONS;
    DeleteGroups = 42, advertised 0, 0..=2, flexible 2, schema::DELETE_GROUPS;
    ElectLeaders = 43, advertised 0, 0..=2, flexible 2, schema::ELECT_LEADERS;
    IncrementalAlterConfigs = 44, advertised 0, 0..=1, flexible 1, schema::INCREMENTAL_ALTER_CONFIGS;
    AlterPartitionReassignments = 45, advertised 0, 0..=0, flexible 0, schema::ALTER_PARTITION_REASSIGNMENTS;
    ListPartitionReassignments = 46, advertised 0, 0..=0, flexible 0, schema::LIST_PARTITION_REASSIGNMENTS;
    OffsetDelete = 47, advertised 0, 0..=0, flexible 1, schema::OFFSET_DELETE;
    DescribeCluster = 60, advertised 0, 0..=1, flexible 0, schema::DESCRIBE_CLUSTER;
    DescribeProducers = 61, advertised 0, 0..=0, flexible 0, schema::DESCRIBE_PRODUCERS;
    DescribeTransactions = 65, advertised 0, 0..=0, flexible 0, schema::DESCRIBE_TRANSACTIONS;
    ListTransactions = 66, advertised 0, 0..=1, flexible 0, schema::LIST_TRANSACTIONS;
    DescribeTopicPartitions = 75, advertised 0, 0..=0, flexible 0, schema::DESCRIBE_TOPIC_PARTITIONS;
}

const fn index_of(key: ApiKey) -> usize {
    let mut index = 0;
    while APIS[index].key as i16 != key as i16 {
        index += 1;
    }
    index
}

impl ApiKey {
    /// Largest frame of this API, its header included and its length field not.
    #[must_use]
    pub const fn frame_bytes_max(self) -> usize {
        match self {
            Self::Produce => FRAME_BYTES_MAX,
            _ => CONTROL_FRAME_BYTES_MAX,
        }
    }

    /// True if this version has compact lengths and tagged fields.
    #[must_use]
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.api().flexible_from
    }
}

const _: () = assert!(CONTROL_FRAME_BYTES_MAX <= FRAME_BYTES_MAX, "no API may have larger frames than a frame may be");
