//! Types by oid.

use store::schema::ColumnType;

/// A type: oid, name, what `format_type` says, length, category, oid of its array type.
pub struct Type {
    pub oid: i64,
    pub name: &'static str,
    pub words: &'static str,
    pub length: i64,
    pub category: &'static str,
    pub array: i64,
}

const fn ty(
    oid: i64,
    name: &'static str,
    words: &'static str,
    length: i64,
    category: &'static str,
    array: i64,
) -> Type {
    Type { oid, name, words, length, category, array }
}

/// Every type this server speaks of.
pub const TYPES: [Type; 34] = [
    ty(16, "bool", "boolean", 1, "B", 1000),
    ty(17, "bytea", "bytea", -1, "U", 1001),
    ty(18, "char", "\"char\"", 1, "Z", 1002),
    ty(19, "name", "name", 64, "S", 1003),
    ty(20, "int8", "bigint", 8, "N", 1016),
    ty(21, "int2", "smallint", 2, "N", 1005),
    ty(23, "int4", "integer", 4, "N", 1007),
    ty(24, "regproc", "regproc", 4, "N", 1008),
    ty(25, "text", "text", -1, "S", 1009),
    ty(26, "oid", "oid", 4, "N", 1028),
    ty(114, "json", "json", -1, "U", 199),
    ty(700, "float4", "real", 4, "N", 1021),
    ty(701, "float8", "double precision", 8, "N", 1022),
    ty(1042, "bpchar", "character", -1, "S", 1014),
    ty(1043, "varchar", "character varying", -1, "S", 1015),
    ty(1082, "date", "date", 4, "D", 1182),
    ty(1083, "time", "time without time zone", 8, "D", 1183),
    ty(1114, "timestamp", "timestamp without time zone", 8, "D", 1115),
    ty(1184, "timestamptz", "timestamp with time zone", 8, "D", 1185),
    ty(1186, "interval", "interval", 16, "T", 1187),
    ty(1700, "numeric", "numeric", -1, "N", 1231),
    ty(2205, "regclass", "regclass", 4, "N", 2210),
    ty(2206, "regtype", "regtype", 4, "N", 2211),
    ty(2249, "record", "record", -1, "P", 2287),
    ty(2278, "void", "void", 4, "P", 0),
    ty(2950, "uuid", "uuid", 16, "U", 2951),
    ty(3802, "jsonb", "jsonb", -1, "U", 3807),
    ty(1000, "_bool", "boolean[]", -1, "A", 0),
    ty(1005, "_int2", "smallint[]", -1, "A", 0),
    ty(1007, "_int4", "integer[]", -1, "A", 0),
    ty(1009, "_text", "text[]", -1, "A", 0),
    ty(1015, "_varchar", "character varying[]", -1, "A", 0),
    ty(1016, "_int8", "bigint[]", -1, "A", 0),
    ty(1022, "_float8", "double precision[]", -1, "A", 0),
];

/// The oid of a column type.
pub fn oid_of_type(ty: ColumnType) -> i64 {
    match ty {
        ColumnType::String => 1043,
        ColumnType::Long => 20,
        ColumnType::Double => 701,
        ColumnType::Boolean => 16,
        ColumnType::Timestamp => 1114,
        ColumnType::ArrayString => 1015,
        ColumnType::ArrayLong => 1016,
        ColumnType::ArrayDouble => 1022,
        ColumnType::Json => 114,
    }
}

/// PostgreSQL's words for a column type: `character varying`, `bigint`.
pub fn type_name(ty: ColumnType) -> &'static str {
    words_of(oid_of_type(ty)).unwrap_or("text")
}

/// The oid of a type by its name or by what `format_type` calls it.
pub fn oid_named(name: &str) -> Option<i64> {
    let name = name.trim().trim_matches('"');
    let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
    let found = TYPES.iter().find(|ty| ty.name.eq_ignore_ascii_case(name) || ty.words.eq_ignore_ascii_case(name));
    found.map(|ty| ty.oid)
}

/// What `format_type` says of an oid.
pub fn words_of(oid: i64) -> Option<&'static str> {
    TYPES.iter().find(|ty| ty.oid == oid).map(|ty| ty.words)
}
