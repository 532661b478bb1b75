//! Lines of stdin into the spool.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use base::Tick;
use base::batch::Codec;
use base::records::BatchBuilder;

use super::dead::DeadLetters;
use super::records::BATCH_BYTES;
use super::tail::place_of;
use crate::node::{Acks, Node, time};

/// Longest wait for the spool to take a batch before it is tried again; a full spool holds the pipe.
const TAKEN_MS: u64 = 10_000;
const RETRY: std::time::Duration = std::time::Duration::from_millis(100);

/// Reads lines to the end; each is durable in the spool when this returns. A batch ends where no line waits.
pub async fn feed(node: &Arc<Node>, topic: &str, dead: &Arc<DeadLetters>) -> Result<(), String> {
    let (node, topic, dead) = (Arc::clone(node), topic.to_owned(), Arc::clone(dead));
    let runtime = tokio::runtime::Handle::current();
    let fed = tokio::task::spawn_blocking(move || feed_from(std::io::stdin().lock(), &runtime, &node, &topic, &dead));
    fed.await.unwrap_or_else(|error| Err(error.to_string()))
}

fn feed_from(
    input: impl Read,
    runtime: &tokio::runtime::Handle,
    node: &Arc<Node>,
    topic: &str,
    dead: &DeadLetters,
) -> Result<(), String> {
    let line_max = usize::try_from(node.config().log.batch_bytes_max.0).unwrap_or(usize::MAX) / 2;
    let mut input = BufReader::with_capacity(BATCH_BYTES, input);
    let mut batch = BatchBuilder::new(Codec::Lz4);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = input.read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if text.len() > line_max {
            let reason = format!("a line of {} bytes; {line_max} are allowed", text.len());
            dead.add_line(topic, "stdin", text, &reason).map_err(|error| error.to_string())?;
        } else if !text.is_empty() {
            batch.push(time::wall(), None, Some(text), &[]);
        }
        let waits_for_more = !input.buffer().contains(&b'\n');
        if !batch.is_empty() && (read == 0 || waits_for_more || batch.plain_bytes() >= BATCH_BYTES) {
            let full = std::mem::replace(&mut batch, BatchBuilder::new(Codec::Lz4));
            let full = full.build().map_err(|error| error.to_string())?;
            runtime.block_on(append(node, topic, full))?;
        }
        if read == 0 {
            return Ok(());
        }
    }
}

/// Until the spool has it: it refuses only while it is full or its disk is.
async fn append(node: &Arc<Node>, topic: &str, batch: bytes::Bytes) -> Result<(), String> {
    loop {
        let place = place_of(node, topic, topic).await?;
        let deadline = Tick(time::now().0 + TAKEN_MS);
        match node.append(place, batch.clone(), Acks::All, deadline).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                tracing::warn!(%error, "the spool takes no lines now; stdin waits");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
