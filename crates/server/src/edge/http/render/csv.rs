//! One cell as a CSV field (RFC 4180): quoted only where it has to be, null as nothing.

use super::json;
use super::number::{non_finite, write_double, write_float, write_long};
use crate::edge::cells::Cell;
use store::calendar::Zone;

/// Appends `cell` as a field. Arrays and structs are their JSON text.
pub fn write_cell(out: &mut Vec<u8>, cell: &Cell<'_>, zone: Zone, scratch: &mut Vec<u8>) {
    match cell {
        Cell::Null => {}
        Cell::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Cell::Long(value) => write_long(out, *value),
        Cell::BigUnsigned(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Cell::Double(value) => match non_finite(*value) {
            Some(name) => out.extend_from_slice(name.as_bytes()),
            None => write_double(out, *value),
        },
        Cell::Float(value) => match non_finite(f64::from(*value)) {
            Some(name) => out.extend_from_slice(name.as_bytes()),
            None => write_float(out, *value),
        },
        Cell::Text(text) => write_field(out, text.as_bytes()),
        Cell::Rendered { text, .. } => write_field(out, text.as_bytes()),
        Cell::Binary(bytes) => json::write_base64(out, bytes),
        Cell::Timestamp { .. } | Cell::Date { .. } => json::write_moment(out, cell, zone),
        Cell::List(_) | Cell::Struct(_) => {
            scratch.clear();
            json::write_cell(scratch, cell, zone);
            write_field(out, scratch);
        }
    }
}

/// Appends text as a field, in quotes when it holds a comma, a quote or a line end.
pub fn write_field(out: &mut Vec<u8>, text: &[u8]) {
    if !text.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for byte in text {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
