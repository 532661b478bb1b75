//! An authority, tokens, folders; and links that are encrypted.

use std::path::PathBuf;
use std::time::Duration;

use base::{NodeId, Timestamp};

use super::super::peers::Security;
use super::super::peers::tests::{TestNode, any, members, secured, state, until, works};
use super::super::peers::{LinkEvent, LinkState};
use super::{CertificateAuthority, SecurityError, Token, exists, join};

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    Timestamp(i64::try_from(since.as_millis()).expect("fits"))
}

fn long_ago() -> Timestamp {
    Timestamp(now().0 - 20 * 365 * 24 * 3_600_000)
}

/// A folder that is removed.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("seawall-security-{}", uuid::Uuid::new_v4())))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn tls(dir: &std::path::Path, node: u32) -> Security {
    super::of(dir, NodeId(node), now).expect("loads")
}

fn node(id: u32, security: Security) -> TestNode {
    secured(id, id.into(), any(), security)
}

fn know_each_other(nodes: &[(u32, &TestNode)]) {
    let list: Vec<_> = nodes.iter().map(|(id, node)| (*id, node.peers.address())).collect();
    nodes.iter().for_each(|(_, node)| drop(node.members.send_replace(members(&list))));
}

#[test]
fn a_token_is_read_as_it_was_written() {
    let token = Token { secret: [0xab; 16], authority: [7; 32] };
    assert_eq!(token.to_string().len(), 104);
    assert_eq!(token.to_string().parse::<Token>().expect("a token"), token);
    for wrong in ["", "seawall-", "seawall-00", "other-00", &token.to_string()[..103], "seawall-öö"] {
        assert!(matches!(wrong.parse::<Token>(), Err(SecurityError::Token)), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_with_a_token_and_are_linked() {
    let folder = Folder::new();
    let authority = CertificateAuthority::found(&folder.at("1"), NodeId(1), now).expect("an authority");
    let token = authority.token(HOUR, None).expect("a token");
    let one = node(1, tls(&folder.at("1"), 1));
    let address = one.peers.address().to_string();
    let cluster = join(&folder.at("2"), &address, &token, NodeId(2)).await.expect("joins");
    assert_eq!(cluster, authority.cluster());
    let two = node(2, tls(&folder.at("2"), 2));
    know_each_other(&[(1, &one), (2, &two)]);
    until("a link comes up", || one.peers.is_up(NodeId(2)) && two.peers.is_up(NodeId(1))).await;
    works(&one, 2, &two.seen).await;
    works(&two, 1, &one.seen).await;
    let large = bytes::Bytes::from(vec![3; 5 << 20]);
    let answer = one.peers.call(NodeId(2), 1, large.clone(), Duration::from_secs(20)).await;
    assert_eq!(answer.map(|body| body == large), Ok(true));

    let again = join(&folder.at("2"), &address, &token, NodeId(2)).await.expect_err("there is one");
    assert!(matches!(again, SecurityError::Exists(_)), "{again}");
    let same = join(&folder.at("2b"), &address, &token, NodeId(2)).await.expect_err("the id is taken");
    assert!(same.to_string().contains("node 2 has joined already"), "{same}");
    let other = join(&folder.at("3"), &two.peers.address().to_string(), &token, NodeId(3)).await;
    assert!(other.expect_err("node 2 has no key").to_string().contains("node 2 holds no authority"));
    let bound = authority.token(HOUR, Some(NodeId(2))).expect("a token");
    let wrong = join(&folder.at("3"), &address, &bound, NodeId(3)).await.expect_err("for node 2");
    assert!(wrong.to_string().contains("the token is for node 2"), "{wrong}");
    join(&folder.at("2c"), &address, &bound, NodeId(2)).await.expect("again, with its own token");
    assert!(!exists(&folder.at("3")), "nothing is left of a join that failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_wrong_expired_or_of_another_authority_are_of_no_use() {
    let folder = Folder::new();
    let authority = CertificateAuthority::found(&folder.at("1"), NodeId(1), now).expect("an authority");
    let elsewhere = CertificateAuthority::found(&folder.at("x"), NodeId(1), now).expect("another");
    let expired = authority.token(Duration::ZERO, None).expect("a token");
    let foreign = elsewhere.token(HOUR, None).expect("a token");
    let guessed = Token { secret: [1; 16], ..expired.clone() };
    let one = node(1, tls(&folder.at("1"), 1));
    let address = one.peers.address().to_string();
    for (token, reason) in [
        (&expired, "unknown or has expired"),
        (&guessed, "unknown or has expired"),
        (&foreign, "another cluster's authority"),
    ] {
        let error = join(&folder.at("2"), &address, token, NodeId(2)).await.expect_err("refused");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

/// A node without certificates, one of another cluster, one with another node's certificate.
#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_prove_who_it_is_is_refused() {
    let folder = Folder::new();
    let authority = CertificateAuthority::found(&folder.at("1"), NodeId(1), now).expect("an authority");
    CertificateAuthority::found(&folder.at("foreign"), NodeId(2), now).expect("another");
    authority.issue(&folder.at("3"), NodeId(3)).expect("a certificate");
    for (intruder, reason) in [
        (Security::Plain, "speaks TLS"),
        (tls(&folder.at("foreign"), 2), "authority"),
        (tls(&folder.at("3"), 3), "certificate"),
    ] {
        let one = node(1, tls(&folder.at("1"), 1));
        let two = node(2, intruder);
        know_each_other(&[(1, &one), (2, &two)]);
        until("both have noticed", || [state(&one, 2), state(&two, 1)] == [Some(LinkState::Refused); 2]).await;
        let refusals = [one.seen.refusals(2), two.seen.refusals(1)].concat();
        assert!(refusals.iter().any(|text| text.contains(reason)), "{reason}: {refusals:?}");
        let events = [one.seen.events(2), two.seen.events(1)].concat();
        assert!(!events.iter().any(|event| matches!(event, LinkEvent::Up { .. })), "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_named_and_a_new_one_is_used_without_a_restart() {
    let folder = Folder::new();
    let authority = CertificateAuthority::found(&folder.at("1"), NodeId(1), now).expect("an authority");
    CertificateAuthority::open(&folder.at("1"), long_ago)
        .expect("opens")
        .expect("an authority")
        .issue(&folder.at("2"), NodeId(2))
        .expect("an old certificate");
    let one = node(1, tls(&folder.at("1"), 1));
    let two = node(2, tls(&folder.at("2"), 2));
    know_each_other(&[(1, &one), (2, &two)]);
    until("it is refused", || one.seen.refusals(2).iter().any(|text| text.contains("has expired"))).await;
    for name in ["node.pem", "node.key"] {
        std::fs::remove_file(folder.at("2").join(name)).expect("removed");
    }
    authority.issue(&folder.at("2"), NodeId(2)).expect("a new certificate");
    until("a link comes up", || one.peers.is_up(NodeId(2)) && two.peers.is_up(NodeId(1))).await;
}

#[tokio::test]
async fn a_folder_of_another_node_is_not_used() {
    let folder = Folder::new();
    assert!(matches!(super::of(&folder.at("1"), NodeId(1), now), Ok(Security::Plain)), "there is none");
    CertificateAuthority::found(&folder.at("1"), NodeId(1), now).expect("an authority");
    let error = super::of(&folder.at("1"), NodeId(2), now).expect_err("node 1's");
    assert!(error.to_string().contains("not the certificate of node 2"), "{error}");
}

#[test]
fn keys_are_their_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    CertificateAuthority::found(&folder.at("1"), NodeId(1), now).expect("an authority");
    for name in ["ca.key", "node.key", "tokens.json"] {
        let mode = std::fs::metadata(folder.at("1").join(name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
    let again = CertificateAuthority::found(&folder.at("1"), NodeId(1), now).expect_err("there is one");
    assert!(matches!(again, SecurityError::Exists(_)), "{again}");
}
