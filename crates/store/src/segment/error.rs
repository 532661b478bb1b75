//! What can be wrong with a column file, and with rows offered to one.

/// A column file that cannot be trusted. Make it again from the segment in deep storage.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    #[error("not a column file: it starts with other bytes")]
    Magic,
    #[error("column file version {found}; this build reads version {readable}")]
    Version { found: u16, readable: u16 },
    #[error("column file cut short: {what} needs {needed} bytes, {there} are there")]
    Truncated { what: &'static str, needed: u64, there: u64 },
    #[error("column file damaged: checksum of {what} is {found:#010x}, expected {expected:#010x}")]
    Checksum { what: String, found: u32, expected: u32 },
    #[error("column file damaged: {0}")]
    Structure(String),
    /// The file is sound, the node has no room for its strings.
    #[error("the node's dictionary of column {column:?} is full; exclude the column or make its values fewer")]
    DictionaryFull { column: String },
}

/// Rows or a Parquet file that cannot become a segment.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SegmentError {
    /// A type the store has no column for. Declare the column with a type it has.
    #[error("column {column:?} has type {found}, which a segment cannot hold")]
    UnsupportedType { column: String, found: String },
    /// More rows or longer values than the format can count. Seal smaller segments.
    #[error("{what} is {found}, the column file holds at most {max}")]
    TooLarge { what: &'static str, found: usize, max: usize },
    /// Not a Parquet file of ours, or a damaged one.
    #[error("the segment's parquet file cannot be read: {0}")]
    Parquet(String),
    #[error(transparent)]
    Format(#[from] FormatError),
}
