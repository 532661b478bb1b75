//! Names to tables: the user's tables, INFORMATION_SCHEMA, sys and PostgreSQL's catalog.

mod information_schema;
mod rows;
mod sys;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::{DataFusionError, Result, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::TableSource;
use store::engine::Limits;

pub use rows::{Cell, Rows};

use crate::catalog::{Catalog, LostRow, Prepared};
use crate::error::QueryError;
use crate::request::Dialect;
use crate::service::QueryInfo;
use crate::table::SnapshotTable;

/// The schema of Druid's tables; PostgreSQL's clients know the same tables as `public`.
pub const DRUID_SCHEMA: &str = "druid";

/// Resolves the names of one statement. A table is looked up once: every mention sees the same snapshot.
pub struct Resolver {
    pub catalog: Arc<dyn Catalog>,
    pub dialect: Dialect,
    pub running: Vec<QueryInfo>,
    limits: Limits,
    /// `None`: only names and types are asked for, not rows.
    prepared: Option<Prepared>,
    known: Mutex<BTreeMap<String, Arc<dyn TableSource>>>,
}

impl Resolver {
    /// `limits` are what the statement's tables may use.
    pub fn new(catalog: Arc<dyn Catalog>, dialect: Dialect, running: Vec<QueryInfo>, limits: Limits) -> Self {
        Self { catalog, dialect, running, limits, prepared: None, known: Mutex::new(BTreeMap::new()) }
    }

    /// The same with the rows of the statement's tables.
    #[must_use]
    pub fn with(mut self, prepared: Prepared) -> Self {
        self.prepared = Some(prepared);
        self
    }

    /// The rows of `sys.lost_batches`, where they were asked for.
    pub fn lost(&self) -> &[LostRow] {
        self.prepared.as_ref().map_or(&[], |prepared| &prepared.lost)
    }

    /// # Errors
    /// If there is no such table.
    pub fn resolve(&self, name: &TableReference) -> Result<Arc<dyn TableSource>> {
        let key = name.to_string();
        if let Some(found) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(found));
        }
        let found = self.look_up(name)?.ok_or_else(|| self.not_found(name))?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&found));
        Ok(found)
    }

    /// Names of the user's tables that were resolved so far.
    pub fn used(&self) -> Vec<String> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn look_up(&self, name: &TableReference) -> Result<Option<Arc<dyn TableSource>>> {
        let table = name.table();
        let postgres = self.dialect == Dialect::Postgres;
        let rows = match name.schema().map(str::to_ascii_lowercase).as_deref() {
            None => match self.user_table(table)? {
                Some(found) => return Ok(Some(found)),
                None if postgres => crate::pg_catalog::table(self, &table.to_lowercase()),
                None => None,
            },
            Some("druid" | "public") => return self.user_table(table),
            Some("information_schema") => information_schema::table(self, table),
            Some("sys") => sys::table(self, table),
            Some("pg_catalog") => crate::pg_catalog::table(self, &table.to_lowercase()),
            Some(_) => None,
        };
        rows.map(|rows| Ok(provider_as_source(Arc::new(rows.into_table()?)))).transpose()
    }

    fn user_table(&self, table: &str) -> Result<Option<Arc<dyn TableSource>>> {
        // The same table under two spellings of its schema is still one snapshot.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for spelling in [table.to_owned(), format!("{DRUID_SCHEMA}.{table}"), format!("public.{table}")] {
            if let Some(found) = known.get(&spelling) {
                return Ok(Some(Arc::clone(found)));
            }
        }
        let prepared = self.prepared.as_ref().map(|prepared| prepared.snapshots.get(table).cloned());
        let snapshot = match prepared {
            Some(Some(snapshot)) => Some(snapshot),
            None => self.catalog.snapshot(table),
            // Not among the statement's names as they were read: what is here counts only if it is all.
            Some(None) => match self.catalog.unavailable(table) {
                Some(cause) => return Err(DataFusionError::External(Box::new(QueryError::unavailable(cause)))),
                None => self.catalog.snapshot(table),
            },
        };
        let Some(snapshot) = snapshot else { return Ok(None) };
        let source = provider_as_source(Arc::new(SnapshotTable::new(snapshot, self.limits.clone())));
        known.insert(table.to_owned(), Arc::clone(&source));
        Ok(Some(source))
    }

    fn not_found(&self, name: &TableReference) -> DataFusionError {
        const SHOWN: usize = 20;
        let tables = self.catalog.tables();
        let there: Vec<&str> = tables.iter().take(SHOWN).map(AsRef::as_ref).collect();
        let hint = match there.is_empty() {
            true => "there are no tables yet".to_owned(),
            false => format!("there are {}{}", there.join(", "), if tables.len() > SHOWN { ", ..." } else { "" }),
        };
        let message = format!("table '{}' not found; {hint}", name.to_string().replace('"', ""));
        DataFusionError::External(Box::new(QueryError::validation(message)))
    }
}

/// The user's tables with their columns, for the catalogs.
pub fn user_tables(resolver: &Resolver) -> Vec<(Arc<str>, Arc<store::schema::TableSchema>)> {
    let mut tables = resolver.catalog.tables();
    tables.sort_unstable();
    tables
        .into_iter()
        .filter_map(|table| resolver.catalog.snapshot(&table).map(|snapshot| (table, snapshot.schema)))
        .collect()
}
