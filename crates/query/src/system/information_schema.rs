//! INFORMATION_SCHEMA with Druid's columns; lower-case names for PostgreSQL's clients.

use store::schema::{ColumnRole, ColumnType};

use super::rows::{Cell, Rows};
use super::{DRUID_SCHEMA, Resolver, user_tables};
use crate::request::Dialect;
use crate::result::{jdbc_type, sql_type_of};

/// The table of that name, in any case.
pub fn table(resolver: &Resolver, name: &str) -> Option<Rows> {
    let rows = match name.to_ascii_uppercase().as_str() {
        "SCHEMATA" => schemata(resolver),
        "TABLES" => tables(resolver),
        "COLUMNS" => columns(resolver),
        "ROUTINES" => routines(),
        "VIEWS" | "TABLE_CONSTRAINTS" | "KEY_COLUMN_USAGE" | "REFERENTIAL_CONSTRAINTS" | "CONSTRAINT_COLUMN_USAGE"
            if resolver.dialect == Dialect::Postgres =>
        {
            empty(name)
        }
        _ => return None,
    };
    Some(if resolver.dialect == Dialect::Postgres { rows.lower_case() } else { rows })
}

fn catalog_and_schema(resolver: &Resolver) -> (&'static str, &'static str) {
    match resolver.dialect {
        Dialect::Druid => ("druid", DRUID_SCHEMA),
        Dialect::Postgres => (crate::pg_catalog::DATABASE, crate::pg_catalog::SCHEMA),
    }
}

fn schemata(resolver: &Resolver) -> Rows {
    let (catalog, schema) = catalog_and_schema(resolver);
    let mut rows = Rows::new(
        "CATALOG_NAME text, SCHEMA_NAME text, SCHEMA_OWNER text, DEFAULT_CHARACTER_SET_CATALOG text, \
         DEFAULT_CHARACTER_SET_SCHEMA text, DEFAULT_CHARACTER_SET_NAME text, SQL_PATH text",
    );
    let mut names = vec!["INFORMATION_SCHEMA", schema, "sys"];
    if resolver.dialect == Dialect::Postgres {
        names = vec!["information_schema", "pg_catalog", schema, "sys"];
    }
    for name in names {
        rows.push(vec![catalog.into(), name.into()]);
    }
    rows
}

fn tables(resolver: &Resolver) -> Rows {
    let (catalog, schema) = catalog_and_schema(resolver);
    let mut rows = Rows::new(
        "TABLE_CATALOG text, TABLE_SCHEMA text, TABLE_NAME text, TABLE_TYPE text, IS_JOINABLE text, IS_BROADCAST text",
    );
    let postgres = resolver.dialect == Dialect::Postgres;
    let user_type = if postgres { "BASE TABLE" } else { "TABLE" };
    let system_type = if postgres { "VIEW" } else { "SYSTEM_TABLE" };
    let mut add = |schema: &str, name: &str, ty: &str| {
        rows.push(vec![catalog.into(), schema.into(), name.into(), ty.into(), "NO".into(), "NO".into()]);
    };
    for (name, _) in user_tables(resolver) {
        add(schema, &name, user_type);
    }
    let information_schema = if postgres { "information_schema" } else { "INFORMATION_SCHEMA" };
    for name in ["COLUMNS", "ROUTINES", "SCHEMATA", "TABLES"] {
        let name = if postgres { name.to_lowercase() } else { name.to_owned() };
        add(information_schema, &name, system_type);
    }
    for name in super::sys::TABLES {
        add("sys", name, system_type);
    }
    rows
}

fn columns(resolver: &Resolver) -> Rows {
    let (catalog, schema) = catalog_and_schema(resolver);
    let mut rows = Rows::new(
        "TABLE_CATALOG text, TABLE_SCHEMA text, TABLE_NAME text, COLUMN_NAME text, ORDINAL_POSITION long, \
         COLUMN_DEFAULT text, IS_NULLABLE text, DATA_TYPE text, CHARACTER_MAXIMUM_LENGTH long, \
         CHARACTER_OCTET_LENGTH long, NUMERIC_PRECISION long, NUMERIC_PRECISION_RADIX long, NUMERIC_SCALE long, \
         DATETIME_PRECISION long, CHARACTER_SET_NAME text, COLLATION_NAME text, JDBC_TYPE long",
    );
    for (table, columns) in user_tables(resolver) {
        for (at, column) in columns.columns().iter().enumerate() {
            let ty = match resolver.dialect {
                Dialect::Druid => sql_type_of(column.ty),
                Dialect::Postgres => crate::pg_catalog::type_name(column.ty),
            };
            let nullable = column.role != ColumnRole::Time;
            let numeric = matches!(column.ty, ColumnType::Long | ColumnType::Double);
            let time = column.ty == ColumnType::Timestamp;
            rows.push(vec![
                catalog.into(),
                schema.into(),
                table.as_ref().into(),
                column.name.as_str().into(),
                i64::try_from(at + 1).ok().into(),
                Cell::Null,
                if nullable { "YES" } else { "NO" }.into(),
                ty.into(),
                Cell::Null,
                Cell::Null,
                numeric.then_some(if column.ty == ColumnType::Long { 19 } else { 15 }).into(),
                numeric.then_some(10).into(),
                (column.ty == ColumnType::Long).then_some(0).into(),
                time.then_some(3).into(),
                Cell::Null,
                Cell::Null,
                i64::from(jdbc_type(column.ty)).into(),
            ]);
        }
    }
    rows
}

fn routines() -> Rows {
    let mut rows = Rows::new(
        "ROUTINE_CATALOG text, ROUTINE_SCHEMA text, ROUTINE_NAME text, ROUTINE_TYPE text, IS_AGGREGATOR text, \
         SIGNATURES text",
    );
    let mut names: Vec<String> =
        crate::functions::scalars().iter().map(|function| function.name().to_uppercase()).collect();
    names.sort_unstable();
    for name in names {
        rows.push(vec!["druid".into(), "INFORMATION_SCHEMA".into(), name.into(), "FUNCTION".into(), "NO".into()]);
    }
    rows
}

/// Tables that are always empty here: there are no views and no constraints.
fn empty(name: &str) -> Rows {
    let columns = match name.to_ascii_uppercase().as_str() {
        "VIEWS" => {
            "TABLE_CATALOG text, TABLE_SCHEMA text, TABLE_NAME text, VIEW_DEFINITION text, CHECK_OPTION text, \
             IS_UPDATABLE text"
        }
        "REFERENTIAL_CONSTRAINTS" => {
            "CONSTRAINT_CATALOG text, CONSTRAINT_SCHEMA text, CONSTRAINT_NAME text, UNIQUE_CONSTRAINT_CATALOG text, \
             UNIQUE_CONSTRAINT_SCHEMA text, UNIQUE_CONSTRAINT_NAME text, MATCH_OPTION text, UPDATE_RULE text, \
             DELETE_RULE text"
        }
        _ => {
            "CONSTRAINT_CATALOG text, CONSTRAINT_SCHEMA text, CONSTRAINT_NAME text, TABLE_CATALOG text, \
             TABLE_SCHEMA text, TABLE_NAME text, COLUMN_NAME text, ORDINAL_POSITION long, CONSTRAINT_TYPE text, \
             POSITION_IN_UNIQUE_CONSTRAINT long"
        }
    };
    Rows::new(columns)
}
