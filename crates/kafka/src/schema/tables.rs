//! The request bodies, field by field, in the order of the wire. Versions are those of Kafka's message definitions.

use super::{Field, Kind};

const BOOL: Field = Field::new(Kind::Fixed(1));
const I8: Field = Field::new(Kind::Fixed(1));
const I16: Field = Field::new(Kind::Fixed(2));
const I32: Field = Field::new(Kind::Fixed(4));
const I64: Field = Field::new(Kind::Fixed(8));
const UUID: Field = Field::new(Kind::Fixed(16));
const TEXT: Field = Field::new(Kind::Text);
const BYTES: Field = Field::new(Kind::Bytes);
const TEXTS: Field = Field::new(Kind::Texts);
const I32S: Field = Field::new(Kind::Numbers(4));
const I64S: Field = Field::new(Kind::Numbers(8));

const fn list(fields: &'static [Field]) -> Field {
    Field::new(Kind::Structs(fields))
}

const fn maybe(fields: &'static [Field]) -> Field {
    Field::new(Kind::Maybe(fields))
}

pub const API_VERSIONS: &[Field] = &[TEXT.since(3), TEXT.since(3)];

pub const METADATA: &[Field] = &[list(&[UUID.since(10), TEXT]), BOOL.since(4), BOOL.since(8).until(10), BOOL.since(8)];

pub const DESCRIBE_TOPIC_PARTITIONS: &[Field] = &[list(&[TEXT]), I32, maybe(&[TEXT, I32])];

pub const LIST_OFFSETS: &[Field] = &[I32, I8.since(2), list(&[TEXT, list(&[I32, I32.since(4), I64])]), I32.since(10)];

pub const INIT_PRODUCER_ID: &[Field] = &[TEXT, I32, I64.since(3), I16.since(3)];

pub const ADD_PARTITIONS_TO_TXN: &[Field] = &[TEXT, I64, I16, list(&[TEXT, I32S])];

pub const ADD_OFFSETS_TO_TXN: &[Field] = &[TEXT, I64, I16, TEXT];

pub const END_TXN: &[Field] = &[TEXT, I64, I16, BOOL];

pub const TXN_OFFSET_COMMIT: &[Field] = &[
    TEXT,
    TEXT,
    I64,
    I16,
    I32.since(3),
    TEXT.since(3),
    TEXT.since(3),
    list(&[TEXT, list(&[I32, I64, I32.since(2), TEXT])]),
];

pub const DESCRIBE_TRANSACTIONS: &[Field] = &[TEXTS];

pub const LIST_TRANSACTIONS: &[Field] = &[TEXTS, I64S, I64.since(1)];

pub const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[I32.since(3), list(&[TEXT, list(&[I32, I32, I32])])];

pub const FIND_COORDINATOR: &[Field] = &[TEXT.until(3), I8.since(1), TEXTS.since(4)];

pub const JOIN_GROUP: &[Field] =
    &[TEXT, I32, I32.since(1), TEXT, TEXT.since(5), TEXT, list(&[TEXT, BYTES]), TEXT.since(8)];

pub const SYNC_GROUP: &[Field] = &[TEXT, I32, TEXT, TEXT.since(3), TEXT.since(5), TEXT.since(5), list(&[TEXT, BYTES])];

pub const HEARTBEAT: &[Field] = &[TEXT, I32, TEXT, TEXT.since(3)];

pub const LEAVE_GROUP: &[Field] = &[TEXT, TEXT.until(2), list(&[TEXT, TEXT, TEXT.since(5)]).since(3)];

pub const OFFSET_COMMIT: &[Field] =
    &[TEXT, I32, TEXT, TEXT.since(7), I64.until(4), list(&[TEXT, list(&[I32, I64, I32.since(6), TEXT])])];

pub const OFFSET_FETCH: &[Field] = &[
    TEXT.until(7),
    list(&[TEXT, I32S]).until(7),
    list(&[TEXT, TEXT.since(9), I32.since(9), list(&[TEXT, I32S])]).since(8),
    BOOL.since(7),
];

pub const DESCRIBE_GROUPS: &[Field] = &[TEXTS, BOOL.since(3)];

pub const LIST_GROUPS: &[Field] = &[TEXTS.since(4), TEXTS.since(5)];

pub const DELETE_GROUPS: &[Field] = &[TEXTS];

pub const OFFSET_DELETE: &[Field] = &[TEXT, list(&[TEXT, list(&[I32])])];

pub const CREATE_TOPICS: &[Field] = &[list(&[TEXT, I32, I16, list(&[I32, I32S]), list(&[TEXT, TEXT])]), I32, BOOL];

pub const DELETE_TOPICS: &[Field] = &[list(&[TEXT, UUID]).since(6), TEXTS.until(5), I32];

pub const CREATE_PARTITIONS: &[Field] = &[list(&[TEXT, I32, list(&[I32S])]), I32, BOOL];

pub const DESCRIBE_CONFIGS: &[Field] = &[list(&[I8, TEXT, TEXTS]), BOOL, BOOL.since(3)];

pub const ALTER_CONFIGS: &[Field] = &[list(&[I8, TEXT, list(&[TEXT, TEXT])]), BOOL];

pub const ELECT_LEADERS: &[Field] = &[I8.since(1), list(&[TEXT, I32S]), I32];

pub const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[list(&[I8, TEXT, list(&[TEXT, I8, TEXT])]), BOOL];

pub const DESCRIBE_CLUSTER: &[Field] = &[BOOL, I8.since(1), BOOL.since(2)];

pub const DESCRIBE_PRODUCERS: &[Field] = &[list(&[TEXT, I32S])];

pub const DELETE_RECORDS: &[Field] = &[list(&[TEXT, list(&[I32, I64])]), I32];

pub const DESCRIBE_LOG_DIRS: &[Field] = &[list(&[TEXT, I32S])];

pub const ALTER_PARTITION_REASSIGNMENTS: &[Field] = &[I32, list(&[TEXT, list(&[I32, I32S])])];

pub const LIST_PARTITION_REASSIGNMENTS: &[Field] = &[I32, list(&[TEXT, I32S])];
