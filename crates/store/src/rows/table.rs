//! Rows -> one growing column per column of the table.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, TimestampMillisecondArray};
use arrow_schema::ArrowError;
use base::Timestamp;

use super::cell::{Cell, Row, Texts};
use super::column::{Column, Reading};
use super::fields::Fields;
use super::{Reader, timestamp::TimestampFormat};
use crate::interval::Interval;
use crate::schema::{
    COLUMN_NAME_BYTES_MAX, COLUMNS_MAX, ColumnDef, ColumnRole, ColumnType, MetricKind, TIME_COLUMN, TableSchema,
};
use crate::spec::{DimensionType, Discover, RECORD_TIME_COLUMN, TableSpec};

/// Why a row has no time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeError {
    Missing,
    Unreadable,
}

/// A row would add more columns than a table may have, or one whose name is too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyColumns;

/// The rows read so far.
#[derive(Debug)]
pub struct Table {
    times: Vec<i64>,
    columns: Vec<Filled>,
    schema: Arc<TableSchema>,
    time_sources: Vec<TimeSource>,
    format: TimestampFormat,
    missing_value: Option<Timestamp>,
    discover: Discover,
    exclusions: Vec<String>,
    /// Fields looked at so far; later ones are new.
    fields_known: usize,
    /// Fields that become a column with their first value.
    undiscovered: Vec<Undiscovered>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Undiscovered {
    slot: usize,
    /// The column has the type of its values; else it is a string.
    typed: bool,
}

#[derive(Debug)]
struct Filled {
    source: Source,
    /// Widens with its values.
    auto: bool,
    column: Column,
}

/// What fills a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    /// One for every row.
    Count,
    Field(usize),
    /// The field has no slot any more: nulls.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
enum TimeSource {
    Field(usize),
    Record,
}

impl Table {
    /// A table that goes on with `schema`: what the spec begins with, widened by what was read before.
    #[must_use]
    pub fn new(spec: &TableSpec, schema: &TableSchema, reader: &mut Reader) -> Self {
        let fields = &mut reader.fields;
        let initial = spec.initial_schema();
        let schema = initial.merge(schema).unwrap_or(initial);
        let columns = schema.columns().iter().skip(1).map(|column| Filled::new(spec, column, fields)).collect();
        let time_sources = spec
            .timestamp
            .columns
            .iter()
            .filter_map(|name| match name.as_str() {
                RECORD_TIME_COLUMN => Some(TimeSource::Record),
                name => fields.intern(name).map(TimeSource::Field),
            })
            .collect();
        let mut exclusions: Vec<String> = spec.dimensions.exclusions.iter().cloned().collect();
        exclusions.push(TIME_COLUMN.to_owned());
        exclusions.extend(spec.metrics.iter().filter_map(|metric| metric.field.clone()));
        if spec.timestamp.columns.len() == 1 {
            exclusions.extend(spec.timestamp.columns.iter().cloned());
        }
        Self {
            times: Vec::new(),
            columns,
            schema: Arc::new(schema),
            time_sources,
            format: spec.timestamp.format.clone(),
            missing_value: spec.timestamp.missing_value,
            discover: spec.dimensions.discover,
            exclusions,
            fields_known: 0,
            undiscovered: Vec::new(),
        }
        .with_auto(spec, fields)
    }

    /// Declared `auto` dimensions without a value so far wait like fields to discover.
    fn with_auto(mut self, spec: &TableSpec, fields: &mut Fields) -> Self {
        for dimension in &spec.dimensions.declared {
            if dimension.kind == DimensionType::Auto
                && self.schema.column(&dimension.name).is_none()
                && let Some(slot) = fields.intern(&dimension.name)
            {
                self.undiscovered.push(Undiscovered { slot, typed: true });
            }
        }
        self
    }

    #[must_use]
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    #[must_use]
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// The row's time, and the field it came from.
    ///
    /// # Errors
    /// If no field has one and none was given for that case.
    pub fn time_of(
        &self,
        row: &Row,
        texts: Texts<'_>,
        record: Timestamp,
    ) -> Result<(Timestamp, Option<usize>), TimeError> {
        let mut error = TimeError::Missing;
        for source in &self.time_sources {
            let (cell, slot) = match source {
                TimeSource::Record => return Ok((record, None)),
                TimeSource::Field(slot) => (row.cell(*slot), *slot),
            };
            if cell.is_null() {
                continue;
            }
            let time = match cell {
                Cell::Long(value) => self.format.read_long(value),
                Cell::Double(value) => self.format.read_double(value),
                Cell::Text(span) => self.format.read_text(texts.get(span)),
                _ => None,
            };
            match time.filter(|time| Interval::ETERNITY.contains(*time)) {
                Some(time) => return Ok((time, Some(slot))),
                None => error = TimeError::Unreadable,
            }
        }
        match (error, self.missing_value) {
            (TimeError::Missing, Some(value)) => Ok((value, None)),
            _ => Err(error),
        }
    }

    /// Appends the reader's row. `time_slot` is the field its time came from: it is not discovered.
    /// Returns how many values did not fit their column and became null.
    ///
    /// # Errors
    /// [`TooManyColumns`]; nothing was appended then.
    pub fn append(
        &mut self,
        time: Timestamp,
        time_slot: Option<usize>,
        reader: &Reader,
        text: &str,
    ) -> Result<usize, TooManyColumns> {
        let row = &reader.row;
        let texts = row.texts(text);
        if self.discover != Discover::No && row.overflow {
            return Err(TooManyColumns);
        }
        if self.fields_known < reader.fields.len() {
            self.meet_fields(&reader.fields);
        }
        if !self.undiscovered.is_empty() {
            self.discover_columns(row, time_slot, &reader.fields)?;
        }
        let mut unreadable = 0;
        for (at, filled) in self.columns.iter_mut().enumerate() {
            let cell = match filled.source {
                Source::Field(slot) => row.cell(slot),
                Source::Nothing => Cell::Missing,
                Source::Count => {
                    filled.column.push_long(1);
                    continue;
                }
            };
            if filled.auto
                && let Some(ty) = cell.column_type()
                && ty != filled.column.column_type()
            {
                let ty = filled.column.column_type().widen(ty);
                if ty != filled.column.column_type() && filled.column.widen(ty).is_ok() {
                    self.schema = Arc::new(with_type(&self.schema, at + 1, ty));
                }
            }
            unreadable += usize::from(filled.column.push(cell, texts).is_err());
        }
        self.times.push(time.0);
        Ok(unreadable)
    }

    /// Sorts the fields that the reader met since the last row: which may become columns?
    fn meet_fields(&mut self, fields: &Fields) {
        for slot in self.fields_known..fields.len() {
            let name = fields.name(slot);
            let known = self.columns.iter().any(|filled| filled.source == Source::Field(slot))
                || self.undiscovered.iter().any(|other| other.slot == slot);
            if self.discover != Discover::No
                && !known
                && self.schema.column(name).is_none()
                && !self.exclusions.iter().any(|excluded| excluded == name)
            {
                self.undiscovered.push(Undiscovered { slot, typed: self.discover == Discover::Typed });
            }
        }
        self.fields_known = fields.len();
    }

    fn discover_columns(&mut self, row: &Row, time_slot: Option<usize>, fields: &Fields) -> Result<(), TooManyColumns> {
        let found: Vec<(Undiscovered, ColumnType)> = self
            .undiscovered
            .iter()
            .filter(|field| Some(field.slot) != time_slot)
            .filter_map(|field| field.column_type(row.cell(field.slot)).map(|ty| (*field, ty)))
            .collect();
        if found.is_empty() {
            return Ok(());
        }
        let bad_name = |name: &str| name.is_empty() || name.len() > COLUMN_NAME_BYTES_MAX;
        if self.schema.len() + found.len() > COLUMNS_MAX
            || found.iter().any(|(field, _)| bad_name(fields.name(field.slot)))
        {
            return Err(TooManyColumns);
        }
        let mut columns = self.schema.columns().to_vec();
        for (field, ty) in found {
            self.undiscovered.retain(|other| *other != field);
            columns.push(ColumnDef::dimension(fields.name(field.slot), ty));
            let column = Column::new(ty, Reading::Dimension, self.times.len());
            self.columns.push(Filled { source: Source::Field(field.slot), auto: field.typed, column });
        }
        // Names of slots are unique and none is in the schema, so this is a schema.
        if let Ok(schema) = TableSchema::new(columns) {
            self.schema = Arc::new(schema);
        }
        Ok(())
    }

    /// All rows so far in the schema's columns; the table is empty after.
    ///
    /// # Errors
    /// If a column is too large for one Arrow array.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(std::mem::take(&mut self.times)));
        let columns = self.columns.iter_mut().map(|filled| filled.column.finish());
        let columns = std::iter::once(Ok(times)).chain(columns).collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(self.schema.arrow(), columns)
    }

    /// Takes over what others found: columns of theirs, and wider types.
    pub fn adopt(&mut self, spec: &TableSpec, schema: &TableSchema, reader: &mut Reader) {
        let Ok(merged) = self.schema.merge(schema) else { return };
        if merged == *self.schema {
            return;
        }
        for (at, column) in merged.columns().iter().enumerate().skip(1) {
            match self.columns.get_mut(at - 1) {
                Some(filled) if filled.column.column_type() != column.ty => {
                    if filled.column.widen(column.ty).is_err() {
                        return;
                    }
                }
                Some(_) => {}
                None => {
                    let mut filled = Filled::new(spec, column, &mut reader.fields);
                    filled.column = Column::new(column.ty, Reading::Dimension, self.times.len());
                    self.undiscovered.retain(|field| Source::Field(field.slot) != filled.source);
                    self.columns.push(filled);
                }
            }
        }
        self.schema = Arc::new(merged);
    }
}

fn with_type(schema: &TableSchema, at: usize, ty: ColumnType) -> TableSchema {
    let mut columns = schema.columns().to_vec();
    columns[at].ty = ty;
    TableSchema::new(columns).unwrap_or_else(|_| schema.clone())
}

impl Undiscovered {
    /// The type of the column that a value makes; none for a null, and for an object if columns are strings.
    fn column_type(self, cell: Cell) -> Option<ColumnType> {
        let ty = cell.column_type()?;
        match cell {
            _ if self.typed => Some(ty),
            Cell::Object(_) => None,
            _ => Some(ColumnType::String),
        }
    }
}

impl Filled {
    fn new(spec: &TableSpec, column: &ColumnDef, fields: &mut Fields) -> Self {
        let declared = spec.dimensions.declared.iter().find(|dimension| dimension.name == column.name);
        let mut field = |name: &str| fields.intern(name).map_or(Source::Nothing, Source::Field);
        let (source, reading) = match column.role {
            ColumnRole::Metric(MetricKind::Count) => (Source::Count, Reading::Metric),
            ColumnRole::Metric(_) => {
                let metric = spec.metrics.iter().find(|metric| metric.name == column.name);
                let name = metric.and_then(|metric| metric.field.as_deref()).unwrap_or(&column.name);
                (field(name), Reading::Metric)
            }
            ColumnRole::Time | ColumnRole::Dimension => {
                let float = declared.is_some_and(|dimension| dimension.kind == DimensionType::Float);
                (field(&column.name), if float { Reading::Float } else { Reading::Dimension })
            }
        };
        let auto = column.role == ColumnRole::Dimension
            && match declared {
                Some(dimension) => dimension.kind == DimensionType::Auto,
                None => spec.dimensions.discover == Discover::Typed,
            };
        Self { source, auto, column: Column::new(column.ty, reading, 0) }
    }
}

#[cfg(test)]
mod tests;
