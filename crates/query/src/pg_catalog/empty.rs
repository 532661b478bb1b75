//! Catalog tables that never have rows here: there are no indexes, constraints, comments, policies.

/// True if the table has no rows and never will.
pub fn is_always_empty(name: &str) -> bool {
    columns(name).is_some()
}

/// The columns of such a table.
pub fn columns(name: &str) -> Option<&'static str> {
    if let Some((_, columns)) = EMPTY.iter().find(|(known, _)| *known == name) {
        return Some(columns);
    }
    NAMES_ONLY.contains(&name).then_some("oid long")
}

/// Tables that are joined with others, so that their columns have to be there.
const EMPTY: [(&str, &str); 27] = [
    ("pg_attrdef", "oid long, adrelid long, adnum long, adbin text"),
    (
        "pg_index",
        "indexrelid long, indrelid long, indnatts long, indnkeyatts long, indisunique bool, \
         indisprimary bool, indisexclusion bool, indimmediate bool, indisclustered bool, \
         indisvalid bool, indisready bool, indislive bool, indisreplident bool, indkey list, \
         indcollation list, indclass list, indoption list, indexprs text, indpred text, \
         indnullsnotdistinct bool",
    ),
    (
        "pg_constraint",
        "oid long, conname text, connamespace long, contype text, condeferrable bool, \
         condeferred bool, convalidated bool, conrelid long, contypid long, conindid long, \
         conparentid long, confrelid long, confupdtype text, confdeltype text, confmatchtype text, \
         conislocal bool, coninhcount long, connoinherit bool, conkey list, confkey list, conbin text",
    ),
    ("pg_description", "objoid long, classoid long, objsubid long, description text"),
    ("pg_shdescription", "objoid long, classoid long, description text"),
    ("pg_inherits", "inhrelid long, inhparent long, inhseqno long, inhdetachpending bool"),
    ("pg_collation", "oid long, collname text, collnamespace long, collowner long, collprovider text"),
    (
        "pg_proc",
        "oid long, proname text, pronamespace long, proowner long, prolang long, prokind text, \
         prorettype long, proargtypes list, proargnames list, prosrc text, proretset bool, \
         pronargs long, proisstrict bool, provolatile text",
    ),
    ("pg_enum", "oid long, enumtypid long, enumsortorder long, enumlabel text"),
    ("pg_range", "rngtypid long, rngsubtype long, rngmultitypid long, rngcollation long, rngsubopc long"),
    ("pg_sequence", "seqrelid long, seqtypid long, seqstart long, seqincrement long, seqmax long, seqmin long"),
    ("pg_sequences", "schemaname text, sequencename text, sequenceowner text, last_value long"),
    ("pg_views", "schemaname text, viewname text, viewowner text, definition text"),
    ("pg_matviews", "schemaname text, matviewname text, matviewowner text, definition text"),
    ("pg_indexes", "schemaname text, tablename text, indexname text, tablespace text, indexdef text"),
    (
        "pg_trigger",
        "oid long, tgrelid long, tgparentid long, tgname text, tgfoid long, tgenabled text, \
         tgisinternal bool",
    ),
    ("pg_rewrite", "oid long, rulename text, ev_class long, ev_type text, ev_enabled text, is_instead bool"),
    (
        "pg_depend",
        "classid long, objid long, objsubid long, refclassid long, refobjid long, refobjsubid long, \
         deptype text",
    ),
    ("pg_extension", "oid long, extname text, extowner long, extnamespace long, extversion text"),
    ("pg_auth_members", "oid long, roleid long, member long, grantor long, admin_option bool"),
    ("pg_partitioned_table", "partrelid long, partstrat text, partnatts long, partdefid long"),
    ("pg_language", "oid long, lanname text, lanowner long"),
    ("pg_operator", "oid long, oprname text, oprnamespace long, oprleft long, oprright long, oprresult long"),
    ("pg_opclass", "oid long, opcmethod long, opcname text, opcnamespace long"),
    (
        "pg_stat_activity",
        "datid long, datname text, pid long, usename text, application_name text, client_addr text, \
         state text, query text",
    ),
    (
        "pg_stat_user_tables",
        "relid long, schemaname text, relname text, seq_scan long, n_live_tup long, n_dead_tup long",
    ),
    (
        "pg_stat_all_tables",
        "relid long, schemaname text, relname text, seq_scan long, n_live_tup long, n_dead_tup long",
    ),
];

/// Tables that are asked alone.
const NAMES_ONLY: [&str; 37] = [
    "pg_policy",
    "pg_statistic_ext",
    "pg_publication",
    "pg_publication_namespace",
    "pg_publication_rel",
    "pg_publication_tables",
    "pg_foreign_table",
    "pg_foreign_server",
    "pg_foreign_data_wrapper",
    "pg_event_trigger",
    "pg_subscription",
    "pg_cast",
    "pg_conversion",
    "pg_aggregate",
    "pg_ts_config",
    "pg_ts_dict",
    "pg_ts_parser",
    "pg_ts_template",
    "pg_locks",
    "pg_prepared_xacts",
    "pg_cursors",
    "pg_user_mapping",
    "pg_default_acl",
    "pg_init_privs",
    "pg_seclabel",
    "pg_shdepend",
    "pg_largeobject",
    "pg_statistic",
    "pg_stats",
    "pg_db_role_setting",
    "pg_opfamily",
    "pg_amop",
    "pg_amproc",
    "pg_timezone_names",
    "pg_stat_ssl",
    "pg_prepared_statements",
    "pg_transform",
];
