//! Bounds of this room.

/// Longest statement accepted, in bytes.
pub const SQL_BYTES_MAX: usize = 1 << 20;
/// Most tokens of one statement: planning is slower than linear, so a longer one is refused at the door.
pub const SQL_TOKENS_MAX: usize = 100_000;
/// Deepest nesting of one statement, counted in brackets.
pub const SQL_DEPTH_MAX: usize = 100;
/// Most operators in a row, without a bracket or a comma between: the parser makes a tree of that depth, and a tree
/// is dropped by recursion.
pub const SQL_CHAIN_MAX: usize = 4_000;
/// Deepest expression, after chains of AND and OR are balanced: planning recurses.
pub const EXPRESSION_DEPTH_MAX: usize = 200;
/// Most tables of one FROM list, and most set operations and joins of one statement.
pub const RELATIONS_MAX: usize = 100;
/// Rows of one batch given to the caller.
pub const BATCH_ROWS: usize = 8192;
/// Queries that may wait for a free slot, as a multiple of those that may run.
pub const QUEUE_FACTOR: usize = 4;
/// Longest any query may run when the caller asks for no limit, in milliseconds.
pub const TIMEOUT_MS_CEILING: u64 = 24 * 3600 * 1000;
/// Most distinct values an aggregate such as STRING_AGG or ARRAY_AGG holds for a group when no size is given, in bytes.
pub const AGGREGATE_BYTES_DEFAULT: usize = 1024;

/// What the whole service may use. Set once, at start.
#[derive(Clone, Debug)]
pub struct QueryLimits {
    /// Memory of all running queries together, in bytes.
    pub memory_bytes: usize,
    /// Memory of one query, in bytes.
    pub query_memory_bytes: usize,
    /// Timeout of a query that names none, in milliseconds.
    pub timeout_ms_default: u64,
    /// Longest timeout a query may ask for, in milliseconds.
    pub timeout_ms_max: u64,
    /// Queries that run at once; `QUEUE_FACTOR` times as many may wait.
    pub concurrent_max: usize,
    /// Threads one query may use.
    pub threads: usize,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 2 << 30,
            query_memory_bytes: 1 << 30,
            timeout_ms_default: 300_000,
            timeout_ms_max: TIMEOUT_MS_CEILING,
            concurrent_max: 32,
            threads: 2,
        }
    }
}
