//! Functions that catalog queries call. Most have one answer here, whatever they are asked.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

use super::types::{oid_named, words_of};
use super::{OWNER, oid_of};
use crate::functions::{Scalar, all_text, answer, array_arg, as_given, returns_boolean, returns_long, returns_text};

/// Always true: one owner owns everything.
const YES: [&str; 9] = [
    "pg_table_is_visible",
    "pg_type_is_visible",
    "pg_function_is_visible",
    "has_table_privilege",
    "has_schema_privilege",
    "has_database_privilege",
    "has_column_privilege",
    "has_function_privilege",
    "pg_has_role",
];
const NO: [&str; 2] = ["pg_relation_is_publishable", "pg_is_other_temp_schema"];
/// There are no comments, defaults, indexes, constraints, views, sequences.
const NOTHING: [&str; 13] = [
    "obj_description",
    "col_description",
    "shobj_description",
    "pg_get_expr",
    "pg_get_indexdef",
    "pg_get_constraintdef",
    "pg_get_viewdef",
    "pg_get_serial_sequence",
    "pg_get_ruledef",
    "pg_get_triggerdef",
    "pg_get_functiondef",
    "pg_get_function_result",
    "pg_get_function_arguments",
];
const ZERO: [&str; 5] =
    ["pg_relation_size", "pg_total_relation_size", "pg_table_size", "pg_indexes_size", "pg_database_size"];

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let constant = |names: &[&'static str], make: fn(&'static str) -> Scalar| -> Vec<Scalar> {
        names.iter().map(|name| make(name)).collect()
    };
    let mut all = constant(&YES, |name| Scalar::new(name, as_given, returns_boolean, |_| boolean(true)));
    all.extend(constant(&NO, |name| Scalar::new(name, as_given, returns_boolean, |_| boolean(false))));
    all.extend(constant(&NOTHING, |name| {
        Scalar::new(name, as_given, returns_text, |_| Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None))))
    }));
    all.extend(constant(&ZERO, |name| {
        Scalar::new(name, as_given, returns_long, |_| Ok(ColumnarValue::Scalar(ScalarValue::Int64(Some(0)))))
    }));
    all.push(Scalar::new("pg_get_userbyid", as_given, returns_text, |_| text(OWNER)));
    all.push(Scalar::new("pg_encoding_to_char", as_given, returns_text, |_| text("UTF8")));
    all.push(Scalar::new("format_type", two_longs, returns_text, format_type));
    all.push(Scalar::new("to_regclass", all_text, returns_long, to_regclass));
    all.push(Scalar::new("to_regtype", all_text, returns_long, to_regtype));
    all.push(Scalar::new("quote_ident", all_text, returns_text, quote_ident));
    all.push(Scalar::new("pg_size_pretty", |_| Ok(vec![DataType::Int64]), returns_text, size_pretty));
    all.into_iter().map(|function| Arc::new(ScalarUDF::new_from_impl(function))).collect()
}

fn boolean(value: bool) -> Result<ColumnarValue> {
    Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(value))))
}

fn text(value: &str) -> Result<ColumnarValue> {
    Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(value.to_owned()))))
}

fn two_longs(types: &[DataType]) -> Result<Vec<DataType>> {
    Ok(vec![DataType::Int64; types.len()])
}

fn format_type(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let oids = array_arg(args, 0)?;
    let names: StringArray = oids
        .as_primitive::<Int64Type>()
        .iter()
        .map(|oid| oid.map(|oid| words_of(oid).unwrap_or(if oid == 0 { "-" } else { "???" })))
        .collect();
    answer(args, Arc::new(names) as ArrayRef)
}

/// The oid that a relation of that name would have.
fn to_regclass(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let names = array_arg(args, 0)?;
    let oids: Int64Array = names
        .as_string::<i32>()
        .iter()
        .map(|name| {
            let name = name?;
            let last = name.rsplit('.').next().unwrap_or(name).trim_matches('"');
            Some(last.parse().unwrap_or_else(|_| oid_of(last)))
        })
        .collect();
    answer(args, Arc::new(oids) as ArrayRef)
}

/// The oid of the type of that name, by either spelling; null when there is none, as drivers that look for extensions
/// expect.
fn to_regtype(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let names = array_arg(args, 0)?;
    let oids: Int64Array = names.as_string::<i32>().iter().map(|name| oid_named(name?)).collect();
    answer(args, Arc::new(oids) as ArrayRef)
}

fn quote_ident(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let names = array_arg(args, 0)?;
    let quoted: StringArray = names
        .as_string::<i32>()
        .iter()
        .map(|name| {
            let name = name?;
            let plain = !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
                && !name.as_bytes().first().is_some_and(u8::is_ascii_digit);
            Some(if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) })
        })
        .collect();
    answer(args, Arc::new(quoted) as ArrayRef)
}

fn size_pretty(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let sizes = array_arg(args, 0)?;
    let texts: StringArray =
        sizes.as_primitive::<Int64Type>().iter().map(|size| size.map(|size| format!("{size} bytes"))).collect();
    debug_assert_eq!(texts.len(), sizes.len());
    answer(args, Arc::new(texts) as ArrayRef)
}
