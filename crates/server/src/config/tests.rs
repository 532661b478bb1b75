//! Precedence, and every complaint as a user sees it.

use std::time::Duration;

use clap::{Args, FromArgMatches};

use super::value::Peers;
use super::*;

fn with_file(content: &str) -> (tempdir::Folder, Sources) {
    let folder = tempdir::Folder::new();
    let path = folder.0.join("seawall.toml");
    std::fs::write(&path, content).unwrap();
    (folder, Sources { file: Some(path), ..Sources::default() })
}

/// The complaint about a file, its folder cut off.
fn complaint(content: &str) -> String {
    let (folder, sources) = with_file(content);
    let text = load(&sources).map(|_| ()).unwrap_err().to_string();
    text.replace(&format!("{}/", folder.0.display()), "")
}

mod tempdir {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    static COUNT: AtomicU32 = AtomicU32::new(0);

    pub struct Folder(pub PathBuf);

    impl Folder {
        pub fn new() -> Self {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("seawall-config-{}-{number}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

#[test]
fn the_defaults_are_good_and_come_back_from_their_text() {
    let loaded = read(&Sources { dev: true, ..Sources::default() }).unwrap();
    loaded.check().unwrap();
    let mut again = Config::new();
    again.dev = true;
    for key in KEYS {
        (key.set)(&mut again, &key.show(&loaded.config)).unwrap();
        assert!(!key.help().is_empty(), "{} has no help", key.name);
    }
    assert_eq!(again, loaded.config);
    assert_eq!(again.node.data_dir, PathBuf::from("seawall-dev"));
    assert_eq!(again.deep_storage_dir(), PathBuf::from("seawall-dev/deep"));
}

#[test]
fn flags_beat_variables_beat_the_file_beats_the_default() {
    let (_folder, mut sources) =
        with_file("[log]\nretention = \"1d\"\nfile_bytes = \"1GiB\"\ndefault_partitions = 3\n");
    sources.variables = vec![
        ("SEAWALL_LOG_RETENTION".into(), "2d".into()),
        ("SEAWALL_LOG_FILE_BYTES".into(), "2GiB".into()),
        ("SEAWALL_SERVICE_HOST".into(), "10.0.0.1".into()),
    ];
    sources.flags = vec![("log.retention", "set log.retention".into(), "3d".into())];
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.config.log.retention, Some(Duration::from_secs(3 * 86_400)));
    assert_eq!(loaded.config.log.file_bytes, ByteSize(2 << 30));
    assert_eq!(loaded.config.log.default_partitions, 3);
    let origin = |name| loaded.origin(key(name));
    assert_eq!(origin("log.retention").to_string(), "--set log.retention");
    assert_eq!(origin("log.file_bytes").to_string(), "$SEAWALL_LOG_FILE_BYTES");
    assert!(matches!(origin("log.default_partitions"), Origin::File { line: 4, .. }));
    assert_eq!(origin("log.file_age"), Origin::Default);
    assert_eq!(loaded.notes.len(), 1);
}

#[test]
fn a_wrong_file_is_refused_with_its_line() {
    let cases = [
        (
            "[log]\nretenton = \"1d\"\n",
            "seawall.toml:2: there is no key log.retenton; did you mean log.retention?; `seawall config show` lists all",
        ),
        ("[lgo]\n", "seawall.toml:1: there is no key lgo; did you mean log?; `seawall config show` lists all"),
        (
            "[log]\n\nretention = [1]\n",
            "seawall.toml:3: log.retention needs a duration such as 500ms, 10s, 5m, 1h or 7d, not a TOML array",
        ),
        (
            "[log]\nretention = 10\n",
            "seawall.toml:2: log.retention needs a duration such as 500ms, 10s, 5m, 1h or 7d: \"10\" is not a duration; write a number and ms, s, m, h or d, such as 10s (or none)",
        ),
        ("log = 3\n", "seawall.toml:1: log is a section; write [log] on a line of its own and its keys below"),
        (
            "[node]\nid = \"x\"\n",
            "seawall.toml:2: node.id needs a whole number: \"x\" is not a whole number from 0 to 4294967295",
        ),
    ];
    for (content, expected) in cases {
        assert_eq!(complaint(content), expected);
    }
    assert!(complaint("[log]\nretention = \n").starts_with("seawall.toml:2: not valid TOML: "));
}

#[test]
fn an_address_others_can_reach_needs_insecure() {
    let mut sources = Sources { dev: true, ..Sources::default() };
    sources.flags = vec![("listen.http", "http".into(), "0.0.0.0:8888".into())];
    let refused = load(&sources).map(|_| ()).unwrap_err().to_string();
    assert!(refused.starts_with("listen.http (--http): 0.0.0.0:8888 can be reached from other machines"), "{refused}");
    sources.flags.push(("listen.insecure", "insecure".into(), "true".into()));
    load(&sources).unwrap();
}

#[test]
fn two_listeners_cannot_share_a_port() {
    let mut sources = Sources { dev: true, ..Sources::default() };
    sources.flags = vec![("listen.http", "http".into(), "9092".into())];
    let refused = load(&sources).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("is also the address of"), "{refused}");
}

#[test]
fn sizes_and_durations_are_read_and_shown() {
    for (text, millis) in [("500ms", 500), ("10s", 10_000), ("90m", 5_400_000), ("7d", 604_800_000), ("0s", 0)] {
        assert_eq!(Duration::parse(text), Ok(Duration::from_millis(millis)));
    }
    assert_eq!(Duration::from_millis(90_000).show(), "90s");
    assert_eq!(ByteSize::parse("64 KiB"), Ok(ByteSize(65_536)));
    assert_eq!(ByteSize::parse("1gib"), Ok(ByteSize(1 << 30)));
    assert_eq!(ByteSize::parse("12"), Ok(ByteSize(12)));
    assert_eq!(ByteSize(1 << 30).show(), "1GiB");
    assert!(ByteSize::parse("99999999999TiB").is_err());
    assert!(Duration::parse("1.5s").is_err());
    assert_eq!(SocketAddr::parse("localhost:1"), SocketAddr::parse("127.0.0.1:1"));
    assert_eq!(SocketAddr::parse("*:1"), Ok(([0, 0, 0, 0], 1).into()));
    assert!(SocketAddr::parse("example.org:1").is_err());
}

#[test]
fn flags_reach_the_configuration() {
    let command = ConfigFlags::augment_args(clap::Command::new("serve"));
    command.clone().debug_assert();
    let parse = |arguments: &[&str]| {
        let matches = command.clone().try_get_matches_from([&["serve"], arguments].concat())?;
        ConfigFlags::from_arg_matches(&matches)
    };
    let flags =
        parse(&["--dev", "--data-dir", "/d", "--set", "log.retention=1h", "--insecure", "--kafka", "*:1"]).unwrap();
    let mut sources = flags.sources();
    sources.variables.clear();
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.config.node.data_dir, PathBuf::from("/d"));
    assert_eq!(loaded.config.log.retention, Some(Duration::from_secs(3600)));
    assert!(loaded.config.listen.insecure && loaded.config.dev);
    let wrong = parse(&["--set", "log.retenton=1h"]).unwrap_err().to_string();
    assert!(wrong.contains("did you mean log.retention?"), "{wrong}");
}

fn cluster(changes: &[(&'static str, &str)]) -> Result<Loaded, String> {
    let mut sources = Sources { dev: true, ..Sources::default() };
    let three = "1@127.0.0.1:7401, 2@127.0.0.1:7402,3@127.0.0.1:7403";
    let whole = [("cluster.peers", three), ("listen.peer", "7401"), ("deep_storage.url", "/shared")];
    sources.flags =
        whole.iter().chain(changes).map(|(key, value)| (*key, (*key).to_owned(), (*value).to_owned())).collect();
    load(&sources).map_err(|error| error.to_string())
}

#[test]
fn a_cluster_is_named_whole() {
    let loaded = cluster(&[]).unwrap();
    assert_eq!(loaded.config.cluster.peers.0.len(), 3);
    assert_eq!(loaded.config.cluster.peers.show(), "1@127.0.0.1:7401,2@127.0.0.1:7402,3@127.0.0.1:7403");
    assert_eq!(Peers::parse(&loaded.config.cluster.peers.show()), Ok(loaded.config.cluster.peers));
    assert!(cluster(&[("cluster.peers", "")]).is_ok(), "alone");
    let text = "[cluster]\npeers = [\"1@127.0.0.1:1\", \"2@127.0.0.1:2\"]\n";
    assert_eq!(file::parse("f", text).unwrap()[0].text, "1@127.0.0.1:1,2@127.0.0.1:2");
}

#[test]
fn a_cluster_that_cannot_be_is_refused() {
    let refused: &[(&'static str, &str, &str)] = &[
        ("cluster.peers", "1@127.0.0.1:1,1@127.0.0.1:2,3@127.0.0.1:3", "node 1 stands in it twice"),
        ("cluster.peers", "1@127.0.0.1:1,2@127.0.0.1:1", "nodes 1 and 2 have the same address 127.0.0.1:1"),
        ("cluster.peers", "0@127.0.0.1:1", "is not a node's number"),
        ("cluster.peers", "1@example", "is not a node's number"),
        ("cluster.peers", "1@127.0.0.1:7401,2@127.0.0.1:2", "two nodes cannot go on when one of them fails"),
        (
            "cluster.peers",
            "1@1.1.1.1:7401,2@2.1.1.1:1,3@3.1.1.1:1,4@4.1.1.1:1,5@5.1.1.1:1,6@6.1.1.1:1,7@7.1.1.1:1,8@8.1.1.1:1",
            "at most 7",
        ),
        ("node.id", "4", "which 1@127.0.0.1:7401,2@127.0.0.1:7402,3@127.0.0.1:7403 does not name"),
        ("node.id", "0", "must be above zero"),
        ("listen.peer", "7405", "the other nodes look for this one at 127.0.0.1:7401"),
        ("listen.peer", "10.0.0.1:7401", "can be reached from other machines"),
        ("listen.kafka", "7401", "is also the address of listen.peer"),
        ("deep_storage.url", "none", "name a folder that every node sees"),
        ("cluster.join", "4@127.0.0.1:7404", "founds a cluster (cluster.peers) or joins one"),
        ("cluster.join", "1@127.0.0.1:7401", "names this node (node.id = 1)"),
        ("cluster.voters", "2", "must be 1, 3, 5 or 7, not 2"),
        ("cluster.moves_max", "0", "must be above zero"),
    ];
    for (key, value, reason) in refused {
        let told = cluster(&[(key, value)]).map(|_| ()).unwrap_err();
        assert!(told.contains(reason), "{key} = {value}: {told}");
    }
}
