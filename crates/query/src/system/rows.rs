//! A small table made of rows in memory: what every catalog table is.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, new_null_array};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema};
use datafusion::common::Result;
use datafusion::datasource::MemTable;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Text(String),
    Long(i64),
    Bool(bool),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Long(value)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A table: columns written as `name type`, the types `text`, `long`, `bool` or `list` (of text, always NULL).
#[derive(Clone, Debug)]
pub struct Rows {
    columns: Vec<(String, DataType)>,
    rows: Vec<Vec<Cell>>,
}

impl Rows {
    /// Columns from a list such as `"oid long, relname text"`.
    pub fn new(columns: &str) -> Self {
        let columns = columns
            .split(',')
            .filter_map(|column| column.trim().split_once(' '))
            .map(|(name, ty)| {
                let ty = match ty.trim() {
                    "long" => DataType::Int64,
                    "bool" => DataType::Boolean,
                    "list" => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
                    _ => DataType::Utf8,
                };
                (name.to_owned(), ty)
            })
            .collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; what is missing at its end is NULL.
    pub fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// The same with the columns' names in lower case, as PostgreSQL's clients write them.
    #[must_use]
    pub fn lower_case(mut self) -> Self {
        for (name, _) in &mut self.columns {
            *name = name.to_lowercase();
        }
        self
    }

    /// # Errors
    /// If a batch cannot be made; it always can.
    pub fn into_table(self) -> Result<MemTable> {
        let fields: Fields = self.columns.iter().map(|(name, ty)| Field::new(name, ty.clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let arrays = self.columns.iter().enumerate().map(|(at, (_, ty))| self.array(at, ty)).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
        MemTable::try_new(schema, vec![vec![batch]])
    }

    fn array(&self, at: usize, ty: &DataType) -> ArrayRef {
        let cells = self.rows.iter().map(|row| row.get(at).unwrap_or(&Cell::Null));
        match ty {
            DataType::Int64 => Arc::new(Int64Array::from_iter(cells.map(|cell| match cell {
                Cell::Long(value) => Some(*value),
                _ => None,
            }))),
            DataType::Boolean => Arc::new(BooleanArray::from_iter(cells.map(|cell| match cell {
                Cell::Bool(value) => Some(*value),
                _ => None,
            }))),
            DataType::Utf8 => Arc::new(StringArray::from_iter(cells.map(|cell| match cell {
                Cell::Text(text) => Some(text.clone()),
                Cell::Long(value) => Some(value.to_string()),
                Cell::Bool(value) => Some(value.to_string()),
                Cell::Null => None,
            }))),
            other => new_null_array(other, self.rows.len()),
        }
    }
}
