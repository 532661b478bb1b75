//! The tables that have rows: namespaces, relations, columns, types, the database, the owner, settings.

use store::schema::ColumnRole;

use super::types::{TYPES, oid_of_type};
use super::{DATABASE, OWNER, SCHEMA, oid_of};
use crate::system::{Cell, Resolver, Rows, user_tables};

const OWNER_OID: i64 = 10;
const PG_CATALOG: i64 = 11;
const PUBLIC: i64 = 2200;
const INFORMATION_SCHEMA: i64 = 13_000;
const SYS: i64 = 13_001;
const HEAP: i64 = 2;

pub fn table(resolver: &Resolver, name: &str) -> Option<Rows> {
    Some(match name {
        "pg_namespace" => namespaces(),
        "pg_class" => classes(resolver),
        "pg_attribute" => attributes(resolver),
        "pg_type" => types(),
        "pg_database" => databases(),
        "pg_roles" | "pg_authid" | "pg_user" => roles(name),
        "pg_am" => access_methods(),
        "pg_tables" => tables(resolver),
        "pg_settings" => settings(),
        "pg_tablespace" => tablespaces(),
        _ => return None,
    })
}

fn namespaces() -> Rows {
    let mut rows = Rows::new("oid long, nspname text, nspowner long, nspacl list");
    for (oid, name) in
        [(PG_CATALOG, "pg_catalog"), (PUBLIC, SCHEMA), (INFORMATION_SCHEMA, "information_schema"), (SYS, "sys")]
    {
        rows.push(vec![oid.into(), name.into(), OWNER_OID.into()]);
    }
    rows
}

fn classes(resolver: &Resolver) -> Rows {
    let mut rows = Rows::new(
        "oid long, relname text, relnamespace long, reltype long, reloftype long, relowner long, relam long, \
         relfilenode long, reltablespace long, relpages long, reltuples long, relallvisible long, \
         reltoastrelid long, relhasindex bool, relisshared bool, relpersistence text, relkind text, relnatts long, \
         relchecks long, relhasrules bool, relhastriggers bool, relhassubclass bool, relrowsecurity bool, \
         relforcerowsecurity bool, relispopulated bool, relreplident text, relispartition bool, relrewrite long, \
         relfrozenxid long, relminmxid long, relacl list, reloptions list, relpartbound text",
    );
    let mut add = |name: &str, namespace: i64, kind: &str, columns: usize| {
        let no = || Cell::Bool(false);
        rows.push(vec![
            oid_of(name).into(),
            name.into(),
            namespace.into(),
            0.into(),
            0.into(),
            OWNER_OID.into(),
            if kind == "r" { HEAP } else { 0 }.into(),
            oid_of(name).into(),
            0.into(),
            1.into(),
            (-1).into(),
            0.into(),
            0.into(),
            no(),
            no(),
            "p".into(),
            kind.into(),
            i64::try_from(columns).ok().into(),
            0.into(),
            no(),
            no(),
            no(),
            no(),
            no(),
            true.into(),
            "n".into(),
            no(),
            0.into(),
            0.into(),
            0.into(),
        ]);
    };
    for (name, schema) in user_tables(resolver) {
        add(&name, PUBLIC, "r", schema.len());
    }
    for name in ["columns", "schemata", "tables"] {
        add(name, INFORMATION_SCHEMA, "v", 0);
    }
    for name in ["pg_attribute", "pg_class", "pg_database", "pg_namespace", "pg_proc", "pg_roles", "pg_type"] {
        add(name, PG_CATALOG, "r", 0);
    }
    rows
}

fn attributes(resolver: &Resolver) -> Rows {
    let mut rows = Rows::new(
        "attrelid long, attname text, atttypid long, attstattarget long, attlen long, attnum long, attndims long, \
         attcacheoff long, atttypmod long, attbyval bool, attstorage text, attalign text, attnotnull bool, \
         atthasdef bool, atthasmissing bool, attidentity text, attgenerated text, attisdropped bool, \
         attislocal bool, attinhcount long, attcollation long, attacl list, attoptions list, attfdwoptions list, \
         attmissingval text, attcompression text",
    );
    for (name, schema) in user_tables(resolver) {
        for (at, column) in schema.columns().iter().enumerate() {
            let oid = oid_of_type(column.ty);
            let length = TYPES.iter().find(|ty| ty.oid == oid).map_or(-1, |ty| ty.length);
            rows.push(vec![
                oid_of(&name).into(),
                column.name.as_str().into(),
                oid.into(),
                (-1).into(),
                length.into(),
                i64::try_from(at + 1).ok().into(),
                i64::from(column.ty.is_array()).into(),
                (-1).into(),
                (-1).into(),
                (length > 0).into(),
                "p".into(),
                "i".into(),
                (column.role == ColumnRole::Time).into(),
                false.into(),
                false.into(),
                "".into(),
                "".into(),
                false.into(),
                true.into(),
                0.into(),
                0.into(),
                Cell::Null,
                Cell::Null,
                Cell::Null,
                Cell::Null,
                "".into(),
            ]);
        }
    }
    rows
}

fn types() -> Rows {
    let mut rows = Rows::new(
        "oid long, typname text, typnamespace long, typowner long, typlen long, typbyval bool, typtype text, \
         typcategory text, typispreferred bool, typisdefined bool, typdelim text, typrelid long, typelem long, \
         typarray long, typinput long, typoutput long, typnotnull bool, typbasetype long, typtypmod long, \
         typndims long, typcollation long, typdefault text, typreceive long, typsend long, typsubscript long",
    );
    for ty in &TYPES {
        let element = TYPES.iter().find(|element| element.array == ty.oid).map_or(0, |element| element.oid);
        rows.push(vec![
            ty.oid.into(),
            ty.name.into(),
            PG_CATALOG.into(),
            OWNER_OID.into(),
            ty.length.into(),
            (ty.length > 0).into(),
            if ty.category == "P" { "p" } else { "b" }.into(),
            ty.category.into(),
            false.into(),
            true.into(),
            ",".into(),
            0.into(),
            element.into(),
            ty.array.into(),
            0.into(),
            0.into(),
            false.into(),
            0.into(),
            (-1).into(),
            0.into(),
            0.into(),
            Cell::Null,
            0.into(),
            0.into(),
            0.into(),
        ]);
    }
    rows
}

fn databases() -> Rows {
    let mut rows = Rows::new(
        "oid long, datname text, datdba long, encoding long, datlocprovider text, datistemplate bool, \
         datallowconn bool, datconnlimit long, datfrozenxid long, datminmxid long, dattablespace long, \
         datcollate text, datctype text, daticulocale text, daticurules text, datcollversion text, datacl list",
    );
    rows.push(vec![
        1.into(),
        DATABASE.into(),
        OWNER_OID.into(),
        6.into(),
        "c".into(),
        false.into(),
        true.into(),
        (-1).into(),
        0.into(),
        0.into(),
        1663.into(),
        "C.UTF-8".into(),
        "C.UTF-8".into(),
    ]);
    rows
}

fn roles(name: &str) -> Rows {
    if name == "pg_user" {
        let mut rows = Rows::new("usename text, usesysid long, usecreatedb bool, usesuper bool, userepl bool");
        rows.push(vec![OWNER.into(), OWNER_OID.into(), true.into(), true.into(), false.into()]);
        return rows;
    }
    let mut rows = Rows::new(
        "oid long, rolname text, rolsuper bool, rolinherit bool, rolcreaterole bool, rolcreatedb bool, \
         rolcanlogin bool, rolreplication bool, rolbypassrls bool, rolconnlimit long, rolpassword text, \
         rolvaliduntil text, rolconfig list",
    );
    let yes = || Cell::Bool(true);
    let mut row = vec![OWNER_OID.into(), OWNER.into(), yes(), yes(), yes(), yes(), yes()];
    row.extend([false.into(), false.into(), (-1).into()]);
    rows.push(row);
    rows
}

fn access_methods() -> Rows {
    let mut rows = Rows::new("oid long, amname text, amhandler long, amtype text");
    rows.push(vec![HEAP.into(), "segments".into(), 0.into(), "t".into()]);
    rows
}

fn tables(resolver: &Resolver) -> Rows {
    let mut rows = Rows::new(
        "schemaname text, tablename text, tableowner text, tablespace text, hasindexes bool, hasrules bool, \
         hastriggers bool, rowsecurity bool",
    );
    for (name, _) in user_tables(resolver) {
        let no = || Cell::Bool(false);
        rows.push(vec![SCHEMA.into(), name.as_ref().into(), OWNER.into(), Cell::Null, no(), no(), no(), no()]);
    }
    rows
}

fn settings() -> Rows {
    let mut rows = Rows::new(
        "name text, setting text, unit text, category text, short_desc text, extra_desc text, context text, \
         vartype text, source text, boot_val text, reset_val text",
    );
    for (name, value) in super::settings::FIXED {
        let mut row: Vec<Cell> = vec![name.into(), value.into(), Cell::Null, "Seawall".into()];
        row.extend([Cell::Null, Cell::Null, "internal".into(), "string".into(), "default".into()]);
        row.extend([value.into(), value.into()]);
        rows.push(row);
    }
    rows
}

fn tablespaces() -> Rows {
    let mut rows = Rows::new("oid long, spcname text, spcowner long, spcacl list, spcoptions list");
    rows.push(vec![1663.into(), "pg_default".into(), OWNER_OID.into()]);
    rows
}
