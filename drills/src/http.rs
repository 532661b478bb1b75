//! The few HTTP requests the drills make, over one short connection each.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Failure;

/// An answer is never larger than this.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    patience: Duration,
) -> Result<(u16, String), Failure> {
    let told = |error: std::io::Error| format!("{method} {path}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, patience).map_err(told)?;
    stream.set_read_timeout(Some(patience)).map_err(told)?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).map_err(told)?;
    stream.write_all(body.as_bytes()).map_err(told)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(told)?;
    let malformed = || format!("{method} {path}: the answer is not HTTP");
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(malformed)?;
    let head = String::from_utf8_lossy(&answer[..split]).into_owned();
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
    let body = &answer[split + 4..];
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body).ok_or_else(malformed)? } else { body.to_vec() };
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len());
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n")?;
        let length =
            usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?.split(';').next()?.trim(), 16).ok()?;
        body = &body[end + 2..];
        if length == 0 {
            return Some(out);
        }
        out.extend_from_slice(body.get(..length)?);
        body = body.get(length + 2..)?;
    }
}

/// The rows of a statement.
pub fn sql(address: SocketAddr, query: &str, patience: Duration) -> Result<Vec<Vec<Value>>, Failure> {
    let body = json!({"query": query, "resultFormat": "array"}).to_string();
    let (status, answer) = request(address, "POST", "/druid/v2/sql", &body, patience)?;
    if status != 200 {
        return Err(format!("{query}: {status} {}", answer.chars().take(400).collect::<String>()));
    }
    serde_json::from_str(&answer)
        .map_err(|error| format!("{query}: {error}: {}", answer.chars().take(200).collect::<String>()))
}

/// One number.
pub fn count(address: SocketAddr, query: &str, patience: Duration) -> Result<u64, Failure> {
    let rows = sql(address, query, patience)?;
    let cell = rows.first().and_then(|row| row.first());
    cell.and_then(Value::as_u64).ok_or_else(|| format!("{query}: answered {rows:?}"))
}
