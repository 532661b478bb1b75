use super::*;

#[test]
fn every_node_is_told_its_peers_over_links_of_its_own() {
    let folder = std::env::temp_dir().join(format!("seawall-drill-test-{}", std::process::id()));
    let spec = Spec { zones: vec!["a", "b"], client_links: true, ..Spec::of(3) };
    let cluster = Cluster::new(Path::new("/nowhere/seawall"), &folder, &spec).unwrap();
    let mut addresses = BTreeSet::new();
    for id in cluster.ids() {
        let file = std::fs::read_to_string(cluster.node(id).unwrap().config_path()).unwrap();
        let line = file.lines().find(|line| line.starts_with("peers = ")).unwrap();
        let peers: Vec<&str> = line.trim_start_matches("peers = ").trim_matches('"').split(',').collect();
        assert_eq!(peers.len(), 3);
        assert!(peers[usize::try_from(id - 1).unwrap()].ends_with(&cluster.node(id).unwrap().peer.to_string()));
        addresses.extend(peers.into_iter().map(str::to_owned));
        assert!(file.contains("zone = "));
        assert!(file.contains(&format!("advertised_kafka = \"{}\"", cluster.node(id).unwrap().kafka)));
    }
    assert_eq!(addresses.len(), 9, "no two nodes share an address of a peer");
    assert_eq!(cluster.others(2), [1, 3]);
    assert!(cluster.running().is_empty());
    drop(cluster);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_single_node_has_no_peers() {
    let folder = std::env::temp_dir().join(format!("seawall-drill-one-{}", std::process::id()));
    let cluster = Cluster::new(Path::new("/nowhere/seawall"), &folder, &Spec::of(1)).unwrap();
    let file = std::fs::read_to_string(cluster.node(1).unwrap().config_path()).unwrap();
    assert!(file.contains("peers = \"\""));
    drop(cluster);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn ports_are_never_given_twice() {
    let ports: BTreeSet<SocketAddr> = (0..50).map(|_| free_address().unwrap()).collect();
    assert_eq!(ports.len(), 50);
}
