//! Node-wide dictionaries: one id per distinct string of a table column, the same in every segment on the node.

use std::sync::Arc;

/// The dictionaries of one table's string columns. Shared by its segments, its live rows and its queries.
#[derive(Debug, Default)]
pub struct TableDictionary {}

/// One column's strings. Ids are dense, given in order of arrival, and 0 is null.
#[derive(Debug)]
pub struct ColumnDictionary {}

impl TableDictionary {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The column's dictionary; made empty if the column is new.
    #[must_use]
    pub fn column(&self, name: &str) -> Arc<ColumnDictionary> {
        let _ = name;
        unimplemented!()
    }

    /// Memory held, all columns.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        unimplemented!()
    }
}
