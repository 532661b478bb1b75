//! What the engine is asked: filters, keys, aggregates, order. Plain data, no planning.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sketch::Share;

/// A constant. Timestamps are `Long` milliseconds since 1970 UTC.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    String(Arc<str>),
    Long(i64),
    Double(f64),
    Boolean(bool),
}

/// How a column is compared with a constant. Strings compare by bytes, as SQL's binary collation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A test of a string that is not null; called once per dictionary entry, or per row of a plain column.
#[derive(Clone)]
pub struct StringTest(pub Arc<dyn Fn(&str) -> bool + Send + Sync>);

/// A test of a long, timestamp or boolean (0 or 1) that is not null; called per row.
#[derive(Clone)]
pub struct LongTest(pub Arc<dyn Fn(i64) -> bool + Send + Sync>);

/// From a string (or null) to a string (or null), such as `LOWER(x)`; called once per dictionary entry.
#[derive(Clone)]
pub struct StringMap(pub Arc<StringFunction>);

/// What a [`StringMap`] calls.
pub type StringFunction = dyn Fn(Option<&str>) -> Option<String> + Send + Sync;

/// From a long or timestamp that is not null to a long (or null), such as `EXTRACT(HOUR FROM __time)`.
#[derive(Clone)]
pub struct LongMap(pub Arc<dyn Fn(i64) -> Option<i64> + Send + Sync>);

/// From milliseconds to the bucket `[start, end)` that holds them. Buckets must not overlap, and `start <= t < end`.
#[derive(Clone)]
pub struct TimeFloor(pub Arc<dyn Fn(i64) -> (i64, i64) + Send + Sync>);

/// A condition in SQL's three-valued logic: a comparison with null is unknown, and only true selects.
#[derive(Clone, Debug)]
pub enum Filter {
    True,
    False,
    /// The unknown of SQL: neither it nor its negation selects.
    Unknown,
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    IsNull(String),
    Compare {
        column: String,
        comparison: Comparison,
        value: Value,
    },
    /// `null_in_list`: the list held a NULL, which makes "not in" never true.
    In {
        column: String,
        values: Vec<Value>,
        null_in_list: bool,
    },
    /// LIKE, regular expressions and the like. A null is unknown.
    Matches {
        column: String,
        test: StringTest,
    },
    /// Strings that hold this one. A null is unknown.
    Contains {
        column: String,
        text: Arc<str>,
    },
    /// Any test of one long, timestamp or boolean column. A null is unknown.
    MatchesLong {
        column: String,
        test: LongTest,
    },
}

/// One column of a group key.
#[derive(Clone, Debug)]
pub enum KeyKind {
    Column(String),
    /// A time column cut into buckets. The answer is the bucket's start, as a timestamp.
    TimeFloor {
        column: String,
        floor: TimeFloor,
    },
    /// A function of one string column. The answer is a string.
    StringMap {
        column: String,
        map: StringMap,
    },
    /// A function of one long or timestamp column. The answer is a long.
    LongMap {
        column: String,
        map: LongMap,
    },
}

/// A group key and the name of its column in the answer.
#[derive(Clone, Debug)]
pub struct Key {
    pub name: String,
    pub kind: KeyKind,
}

/// An aggregate function. Longs add with wrap-around, as in Druid; of no rows every one but the counts is null.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Function {
    /// Rows. Int64.
    Count,
    /// Rows where the column is not null. Int64.
    CountColumn(String),
    /// Of a long: Int64. Of a double: Float64.
    Sum(String),
    /// The column's own type: long, timestamp, double.
    Min(String),
    Max(String),
    /// Float64.
    Average(String),
    /// Exact number of distinct values that are not null. Int64. Strings, longs, timestamps, booleans.
    CountDistinct(String),
    /// The value at a share of a long's or double's values, from a sketch of accuracy `k` ([`crate::sketch`]). Float64.
    Quantile {
        column: String,
        share: Share,
        k: u16,
    },
}

/// An aggregate, its own filter, and the name of its column in the answer.
#[derive(Clone, Debug)]
pub struct Aggregate {
    pub name: String,
    pub function: Function,
    pub filter: Option<Filter>,
}

/// What the answer is ordered by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OrderTarget {
    Key(usize),
    Aggregate(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OrderBy {
    pub target: OrderTarget,
    pub descending: bool,
    pub nulls_first: bool,
}

/// A grouped aggregation. Without keys the answer is one row, also over no rows; with keys it has only the
/// groups that occur. Without `order` the rows come in no particular order; with it, ties are broken by the keys.
#[derive(Clone, Debug, Default)]
pub struct AggregateQuery {
    pub filter: Option<Filter>,
    pub keys: Vec<Key>,
    pub aggregates: Vec<Aggregate>,
    pub order: Vec<OrderBy>,
    pub limit: Option<usize>,
}

/// Rows as they are. `limit` and `reverse` hold within each unit.
#[derive(Clone, Debug, Default)]
pub struct ScanQuery {
    pub projection: Vec<String>,
    pub filter: Option<Filter>,
    pub limit: Option<usize>,
    /// Rows of each unit from the last to the first.
    pub reverse: bool,
}

/// Says stop, from any thread. Checked every few blocks of 1,024 rows.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a query may use. `memory_bytes` bounds the group state of all its partials together.
#[derive(Clone, Debug)]
pub struct Limits {
    pub memory_bytes: usize,
    pub cancel: Cancel,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: MEMORY_BYTES_DEFAULT, cancel: Cancel::default() }
    }
}

/// Group state a query may hold when nobody says otherwise.
pub const MEMORY_BYTES_DEFAULT: usize = 1 << 30;

macro_rules! opaque_debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}
opaque_debug!(StringTest, LongTest, StringMap, LongMap, TimeFloor);
