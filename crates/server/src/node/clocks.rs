//! How far the other nodes' clocks are from this one's: asked now and then, told as a finding.
//!
//! Nothing that was acknowledged depends on it: leases and timeouts count elapsed time on each node's own steady clock.
//! What does: the times of records given by LogAppendTime, retention by age, how long tokens and certificates hold.

use std::sync::{Arc, Weak};
use std::time::Duration;

use base::NodeId;
use bytes::Bytes;

use super::findings::{Finding, Severity};
use super::router::Router;
use super::{Node, time};
use crate::shell::calls;

/// Between two looks at all clocks.
const LOOK: Duration = Duration::from_secs(10);
/// Longest wait for an answer; a slow one says little.
const PATIENCE: Duration = Duration::from_millis(500);
/// Clocks set by the same servers are closer than this.
pub const DIFFERENCE_MS_MAX: i64 = 200;
const CODE: &str = "clock-skew";

/// Tells others what time it is here.
pub fn serve(router: &Router) {
    router.on(calls::CLOCK, |_, _| async { Ok(Bytes::copy_from_slice(&time::wall().0.to_be_bytes())) });
}

/// Looks until the node ends.
pub fn start(node: &Arc<Node>) {
    let Some(peers) = node.peers().cloned() else { return };
    let node = Arc::downgrade(node);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(node) = Weak::upgrade(&node) else { return };
            let others: Vec<NodeId> = node.state().members().filter(|id| *id != node.id()).collect();
            for other in others {
                if !node.is_up(other) {
                    node.all_findings().clear(CODE, &other.to_string());
                    continue;
                }
                let (sent, begun) = (time::wall().0, time::now());
                let answer = peers.call(other, calls::CLOCK, Bytes::new(), PATIENCE).await;
                let took_ms = i64::try_from(time::now().since(begun)).unwrap_or(i64::MAX);
                let Some(theirs) = answer.ok().and_then(|answer| Some(i64::from_be_bytes(answer[..].try_into().ok()?)))
                else {
                    continue;
                };
                match ahead_ms(sent, took_ms, theirs) {
                    0 => node.all_findings().clear(CODE, &other.to_string()),
                    ahead_ms => node.all_findings().raise(&other.to_string(), finding(other, ahead_ms)),
                }
            }
        }
    });
}

/// How far the other clock is ahead, at the least; 0 if it may be within the bound.
fn ahead_ms(sent: i64, took_ms: i64, theirs: i64) -> i64 {
    // It was read at some time between sending and receiving.
    let (earliest, latest) = (sent, sent.saturating_add(took_ms));
    let ahead_ms = if theirs > latest { theirs.saturating_sub(latest) } else { theirs.saturating_sub(earliest).min(0) };
    if ahead_ms.saturating_abs() > DIFFERENCE_MS_MAX { ahead_ms } else { 0 }
}

fn finding(other: NodeId, ahead_ms: i64) -> Finding {
    let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
    Finding {
        code: CODE,
        severity: Severity::Warning,
        title: format!("the clock of node {other} is {} ms {side} this one's", ahead_ms.saturating_abs()),
        since: time::wall(),
        impact: vec!["retention"],
        cause: format!(
            "clocks that the same time servers set are within {DIFFERENCE_MS_MAX} ms. No acknowledged record is in danger: \
             leases do not look at these clocks. LogAppendTime, retention by age, tokens and certificates do"
        ),
        action: "let time servers set both clocks (chrony, systemd-timesyncd)".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_way_there_and_back_cannot_explain_counts() {
        assert_eq!(ahead_ms(1_000, 0, 1_200), 0);
        assert_eq!(ahead_ms(1_000, 0, 1_201), 201);
        assert_eq!(ahead_ms(1_000, 400, 1_600), 0, "read just before it was received");
        assert_eq!(ahead_ms(1_000, 400, 1_601), 201);
        assert_eq!(ahead_ms(1_000, 400, 800), 0);
        assert_eq!(ahead_ms(1_000, 400, 799), -201);
        assert_eq!(ahead_ms(i64::MAX, 5, i64::MIN), i64::MIN);
        assert!(finding(NodeId(2), -5_000).title.contains("node 2 is 5000 ms behind this one's"));
    }
}
