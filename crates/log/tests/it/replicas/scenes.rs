//! Small scenes, told one by one.

use base::disk::Disk;
use base::disk::memory::Fault;
use base::{NodeId, Offset, ProducerId, Tick};
use log::{Acked, AppendError, PartitionConfig, ReadLimit, Role, Seats};

use super::cluster::{Cluster, batches};
use super::values_of;
use crate::world::{DIR, batch, batch_of};

const ROOMY: u64 = 4 << 20;
const LONG: u64 = 4000;

fn small() -> PartitionConfig {
    PartitionConfig { retention_ms: None, file_bytes_max: 400, index_step_bytes: 1, ..PartitionConfig::default() }
}

fn three(seed: u64) -> Cluster {
    Cluster::new(3, seed, small(), ROOMY)
}

impl Cluster {
    pub(super) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..LONG {
            if done(self) {
                return;
            }
            let failed = self.step();
            assert_eq!(failed, Vec::<u32>::new(), "{what}");
        }
        let state: Vec<_> = self.replicas.values().map(|replica| format!("{:?}", replica.partition)).collect();
        panic!("never: {what}: {state:#?}");
    }

    pub(super) fn pass(&mut self, steps: u64) {
        (0..steps).for_each(|_| drop(self.step()));
    }

    /// Someone leads; who.
    pub(super) fn elect(&mut self) -> u32 {
        self.until("a leader with a lease", |cluster| cluster.leases().len() == 1);
        self.leases()[0]
    }

    /// Appended, and committed where it was.
    pub(super) fn put(&mut self, node: u32, values: &[&str]) -> Offset {
        let appended = self.append(node, batch(values)).unwrap().unwrap();
        self.until("committed", |cluster| cluster.partition(node).unwrap().committed() >= appended.next_offset);
        appended.base_offset
    }

    pub(super) fn all_have(&mut self, end: Offset) {
        self.until("all have all", |cluster| {
            cluster.running().len() == cluster.replicas.len()
                && cluster.replicas.values().all(|r| r.partition.as_ref().is_some_and(|p| p.committed() >= end))
        });
    }

    pub(super) fn values(&self, node: u32) -> Vec<String> {
        let found = batches(&self.reader(node).unwrap(), Offset(0), ReadLimit::Committed).unwrap();
        found.iter().flat_map(|(_, bytes)| values_of(bytes)).collect()
    }

    pub(super) fn isolate(&mut self, node: u32) {
        for other in 1..=3 {
            self.net.cut.insert((node, other));
            self.net.cut.insert((other, node));
        }
    }
}

fn others(node: u32) -> [u32; 2] {
    let mut others = (1..=3).filter(|other| *other != node);
    [others.next().unwrap(), others.next().unwrap()]
}

#[test]
fn what_a_returning_follower_lacks_is_read_beside_the_owner() {
    let mut cluster = Cluster::new(3, 5, PartitionConfig::default(), 64 << 20);
    assert!(cluster.reads_apart);
    let leader = cluster.elect();
    let term = cluster.partition(leader).unwrap().term();
    let [absent, _] = others(leader);
    cluster.isolate(absent);
    let value = "x".repeat(64 << 10);
    for _ in 0..40 {
        cluster.put(leader, &[&value]);
    }
    let (before, end) = (cluster.bytes_read_apart, cluster.partition(leader).unwrap().end());
    cluster.net.cut.clear();
    cluster.all_have(end);
    let read = cluster.bytes_read_apart - before;
    assert!(read >= 36 * value.len(), "only {read} bytes were read apart");
    assert!(read <= 80 * value.len(), "{read} bytes were read for {}", 40 * value.len());
    assert_eq!((cluster.leader(), cluster.partition(leader).unwrap().term()), (Some(leader), term));
}

#[test]
fn only_the_leader_takes_appends_and_the_others_say_who_it_is() {
    let mut cluster = three(1);
    let leader = cluster.elect();
    cluster.put(leader, &["one"]);
    for follower in others(leader) {
        let refused = cluster.append(follower, batch(&["two"])).unwrap();
        assert_eq!(refused, Err(AppendError::NotLeader { leader: Some(NodeId(leader)) }));
        assert_ne!(cluster.partition(follower).unwrap().role(), Role::Leader);
    }
    cluster.all_have(Offset(1));
    assert!((1..=3).all(|node| cluster.values(node) == ["one"]));
}

#[test]
fn what_an_isolated_leader_told_too_early_is_saved_with_what_it_told() {
    let mut cluster = three(2);
    let old = cluster.elect();
    cluster.put(old, &["kept"]);
    cluster.isolate(old);
    let early = cluster.append(old, batch(&["told", "told too"])).unwrap().unwrap();
    assert!(cluster.leases().contains(&old));
    cluster.partition(old).unwrap().note_acked(early.base_offset, early.next_offset);
    cluster.append(old, batch(&["not told"])).unwrap().unwrap();
    cluster.until("the lease ends", |cluster| !cluster.leases().contains(&old));
    cluster.until("another leader", |cluster| cluster.leases().first().is_some_and(|leader| *leader != old));
    let new = cluster.leases()[0];
    cluster.put(new, &["instead"]);
    cluster.net.cut.clear();
    cluster.all_have(Offset(2));
    assert!((1..=3).all(|node| cluster.values(node) == ["kept", "instead"]));
    let partition = cluster.partition(old).unwrap();
    assert_eq!(partition.take_replaced(), Some(Offset(1)));
    assert_eq!(partition.take_replaced(), None);
    let found = partition.lost_and_found();
    let [lost] = &found[..] else { panic!("{found:?}") };
    assert_eq!(lost.replaced_by, partition.term());
    let told: Vec<_> = lost.batches.iter().map(|one| (one.base_offset, one.records, one.acked)).collect();
    assert_eq!(told, [(Offset(1), 2, Acked::Yes), (Offset(3), 1, Acked::No)]);
    assert_eq!(values_of(&partition.read_lost(lost, &lost.batches[0]).unwrap()), ["told", "told too"]);
    // It is there after a restart too.
    cluster.stop(old, true);
    cluster.start(old).unwrap();
    assert_eq!(cluster.partition(old).unwrap().lost_and_found(), found);
}

#[test]
fn what_a_killed_leader_told_is_saved_as_unknown() {
    let mut cluster = three(3);
    let old = cluster.elect();
    cluster.put(old, &["kept"]);
    cluster.isolate(old);
    cluster.append(old, batch(&["perhaps told"])).unwrap().unwrap();
    cluster.pass(30);
    cluster.stop(old, false);
    cluster.until("another leader", |cluster| cluster.leases().len() == 1);
    let new = cluster.leases()[0];
    cluster.put(new, &["instead"]);
    cluster.net.cut.clear();
    cluster.start(old).unwrap();
    assert_eq!(cluster.partition(old).unwrap().committed(), Offset(1), "known before a leader is heard");
    cluster.all_have(Offset(2));
    let found = cluster.partition(old).unwrap().lost_and_found();
    assert_eq!(found[0].batches[0].acked, Acked::Unknown);
}

#[test]
fn lost_and_found_is_bounded_and_counts_what_it_dropped() {
    let mut cluster = Cluster::new(3, 4, PartitionConfig { lost_bytes_max: 700, ..small() }, ROOMY);
    let mut lost = 0;
    for _ in 0..4 {
        let old = cluster.elect();
        cluster.isolate(old);
        for _ in 0..3 {
            cluster.append(old, batch(&["x".repeat(60).as_str()])).unwrap().unwrap();
            lost += 1;
        }
        cluster.until("another leader", |cluster| cluster.leases().first().is_some_and(|leader| *leader != old));
        let new = cluster.leases()[0];
        let end = cluster.put(new, &["instead"]).next();
        cluster.net.cut.clear();
        cluster.all_have(end);
    }
    let statuses: Vec<_> = cluster.replicas.values().map(|r| r.partition.as_ref().unwrap().status()).collect();
    assert_eq!(statuses.iter().map(|status| status.lost_batches + status.lost_dropped).sum::<u64>(), lost);
    for replica in cluster.replicas.values() {
        let files = replica.disk.dump().into_iter().filter(|(path, _)| path.contains("lost+found"));
        assert!(files.map(|(_, bytes)| bytes.len()).sum::<usize>() <= 700);
    }
    assert!(statuses.iter().any(|status| status.lost_dropped > 0), "{statuses:?}");
}

#[test]
fn a_full_disk_of_a_follower_does_not_stop_the_leader() {
    let mut cluster = three(5);
    let leader = cluster.elect();
    cluster.put(leader, &["before"]);
    let [full, _] = others(leader);
    cluster.replicas[&full].disk.fault(Fault::Full);
    for at in 0..20 {
        cluster.put(leader, &[&format!("while full {at}")]);
    }
    assert!(cluster.partition(full).unwrap().status().stalled);
    assert_eq!(cluster.leases(), [leader]);
    cluster.replicas[&full].disk.heal();
    cluster.all_have(Offset(21));
    assert_eq!(cluster.values(full), cluster.values(leader));
}

#[test]
fn who_was_away_for_too_long_starts_where_the_log_starts_and_knows_all_producers() {
    let mut cluster = Cluster::new(3, 6, PartitionConfig { retention_bytes: Some(900), ..small() }, ROOMY);
    let leader = cluster.elect();
    let [away, other] = others(leader);
    cluster.put(leader, &["all have this"]);
    cluster.all_have(Offset(1));
    cluster.stop(away, true);
    let silent = cluster.append(leader, batch_of(7, 0, 0, &["once"])).unwrap().unwrap();
    let mut end = Offset(0);
    for at in 0..40 {
        end = cluster.put(leader, &[&format!("{at} {}", "x".repeat(50))]).next();
        let (now, wall) = (Tick(cluster.now), cluster.wall());
        for node in [leader, other] {
            cluster.partition(node).unwrap().trim(now, wall);
        }
    }
    assert!(cluster.partition(leader).unwrap().start() > silent.next_offset, "the producer's batch is trimmed");
    cluster.start(away).unwrap();
    cluster.all_have(end);
    let start = cluster.reader(away).unwrap().start();
    assert!(start > silent.next_offset && cluster.values(away).len() as i64 == end.0 - start.0);
    // It leads, and knows a batch that it never saw.
    cluster.partition(leader).unwrap().transfer_leadership(NodeId(away)).unwrap();
    cluster.until("it leads", |cluster| cluster.leases() == [away]);
    let again = cluster.append(away, batch_of(7, 0, 0, &["once"])).unwrap().unwrap();
    assert!(again.duplicate && again.base_offset == silent.base_offset);
    // Also after a power loss.
    cluster.stop(away, true);
    cluster.start(away).unwrap();
    cluster.until("it is back", |cluster| cluster.leases().len() == 1);
    let leader = cluster.leases()[0];
    if leader != away {
        cluster.all_have(end);
        cluster.partition(leader).unwrap().transfer_leadership(NodeId(away)).unwrap();
        cluster.until("it leads again", |cluster| cluster.leases() == [away]);
    }
    assert!(cluster.append(away, batch_of(7, 0, 0, &["once"])).unwrap().unwrap().duplicate);
}

#[test]
fn a_duplicate_is_known_to_the_next_leader_committed_or_not() {
    let mut cluster = three(7);
    let old = cluster.elect();
    let first = cluster.append(old, batch_of(1, 0, 0, &["a", "b"])).unwrap().unwrap();
    cluster.until("written on another", |cluster| {
        others(old).iter().any(|node| cluster.partition(*node).unwrap().end() == first.next_offset)
    });
    cluster.stop(old, true);
    let new = cluster.elect();
    let again = cluster.append(new, batch_of(1, 0, 0, &["a", "b"])).unwrap().unwrap();
    assert_eq!((again.base_offset, again.duplicate), (first.base_offset, true));
    let gap = cluster.append(new, batch_of(1, 0, 3, &["d"])).unwrap();
    let producer = ProducerId(1);
    assert_eq!(gap, Err(AppendError::OutOfOrderSequence { producer, expected: 2, found: 3 }));
    cluster.start(old).unwrap();
    cluster.all_have(Offset(2));
    assert!((1..=3).all(|node| cluster.values(node) == ["a", "b"]));
}

/// Flips a bit in the first log file of a node that is down.
fn damage(cluster: &Cluster, node: u32) {
    let disk = &cluster.replicas[&node].disk;
    let (path, _) = disk.dump().into_iter().find(|(path, _)| path.ends_with(".log")).unwrap();
    disk.flip_bit(&path, 8 * 40);
}

#[test]
fn a_damaged_replica_has_no_vote_until_it_has_fetched_everything_again() {
    let mut cluster = Cluster::new(3, 8, PartitionConfig { file_bytes_max: 1 << 20, ..small() }, ROOMY);
    let leader = cluster.elect();
    let values: Vec<String> = (0..20).map(|at| format!("value {at}")).collect();
    for value in &values {
        cluster.put(leader, &[value]);
    }
    cluster.all_have(Offset(20));
    let [hurt, other] = others(leader);
    cluster.stop(hurt, true);
    damage(&cluster, hurt);
    // The others are away: it must not decide anything with what it has not.
    cluster.stop(leader, false);
    cluster.start(hurt).unwrap();
    assert!(cluster.findings[0].contains("fetched from the other replicas"), "{:?}", cluster.findings);
    assert!(cluster.partition(hurt).unwrap().status().damaged);
    cluster.pass(800);
    assert_eq!(cluster.leases(), Vec::<u32>::new(), "no majority without the damaged one's vote");
    assert_eq!(cluster.partition(other).unwrap().committed(), Offset(20));
    let set_aside = |cluster: &Cluster| {
        cluster.replicas[&hurt]
            .disk
            .dump()
            .iter()
            .filter(|(path, _)| path.starts_with(&format!("{DIR}/damaged")))
            .count()
    };
    assert!(set_aside(&cluster) > 0);
    cluster.start(leader).unwrap();
    cluster.all_have(Offset(20));
    cluster.until("it is whole", |cluster| !cluster.partition(hurt).unwrap().status().damaged);
    cluster.until("what was damaged is gone", |cluster| set_aside(cluster) == 0);
    assert_eq!(cluster.values(hurt), values);
    // And it may lead.
    let leader = cluster.elect();
    if leader != hurt {
        cluster.partition(leader).unwrap().transfer_leadership(NodeId(hurt)).unwrap();
    }
    cluster.until("it leads", |cluster| cluster.leases() == [hurt]);
    cluster.put(hurt, &["more"]);
}

#[test]
fn a_log_that_is_gone_is_fetched_again() {
    let mut cluster = three(9);
    let leader = cluster.elect();
    cluster.put(leader, &["a"]);
    cluster.all_have(Offset(1));
    let [hurt, _] = others(leader);
    cluster.stop(hurt, true);
    let disk = &cluster.replicas[&hurt].disk;
    for (path, _) in disk.dump().iter().filter(|(path, _)| path.starts_with(DIR) && !path.ends_with("members")) {
        base::disk::Disk::remove_file(disk, path).unwrap();
    }
    cluster.start(hurt).unwrap();
    assert!(cluster.partition(hurt).unwrap().status().damaged);
    let leader = cluster.elect();
    cluster.put(leader, &["b"]);
    cluster.all_have(Offset(2));
    assert_eq!(cluster.values(hurt), ["a", "b"]);
}

#[test]
fn one_becomes_three_and_three_stay_three() {
    let mut cluster = three(10);
    for node in 1..=3 {
        cluster.stop(node, true);
        cluster.replicas.get_mut(&node).unwrap().disk = base::disk::memory::MemDisk::new(u64::from(node), ROOMY);
    }
    cluster.seats = Seats::alone(NodeId(1));
    cluster.start(1).unwrap();
    cluster.append(1, batch(&["alone"])).unwrap().unwrap();
    cluster.put(1, &["still alone"]);
    cluster.start(2).unwrap();
    cluster.start(3).unwrap();
    let all: Vec<NodeId> = (1..=3).map(NodeId).collect();
    cluster.partition(1).unwrap().propose_membership(&all, &[]).unwrap();
    cluster.until("three voters", |cluster| {
        (1..=3).all(|node| {
            let members = cluster.partition(node).unwrap().members();
            members.voters == all && !members.is_joint()
        })
    });
    cluster.all_have(Offset(2));
    // The first one goes, and comes back with what it knows: it does not decide alone any more.
    cluster.stop(1, true);
    let leader = cluster.elect();
    cluster.put(leader, &["without the first"]);
    cluster.isolate(1);
    cluster.start(1).unwrap();
    cluster.pass(400);
    assert_eq!(cluster.append(1, batch(&["no"])).unwrap(), Err(AppendError::NotLeader { leader: None }));
    cluster.net.cut.clear();
    cluster.all_have(Offset(3));
    assert!((1..=3).all(|node| cluster.values(node) == ["alone", "still alone", "without the first"]));
}

/// Two of three that had been voted out met again after a power loss with the members they had before, and elected a
/// leader among themselves. What came into force here was committed, whatever the mark says.
#[test]
fn a_mark_that_is_behind_does_not_bring_back_the_members_before() {
    let mut cluster = three(13);
    let leader = cluster.elect();
    let [stays, goes] = others(leader);
    cluster.put(leader, &["one"]);
    cluster.all_have(Offset(1));
    let path = format!("{DIR}/mark");
    let old: Vec<Vec<u8>> = [stays, goes]
        .iter()
        .map(|node| cluster.replicas[node].disk.dump().into_iter().find(|(name, _)| *name == path).unwrap().1)
        .collect();
    let voters = [NodeId(leader), NodeId(stays)];
    cluster.partition(leader).unwrap().propose_membership(&voters, &[]).unwrap();
    cluster.until("two voters", |cluster| {
        let members = cluster.partition(stays).unwrap().members();
        members.voters.len() == 2 && !members.is_joint()
    });
    cluster.put(leader, &["two"]);
    for (node, mark) in [stays, goes].into_iter().zip(old) {
        cluster.stop(node, false);
        cluster.replicas[&node].disk.open(&path).unwrap().write_at(0, &mark).unwrap();
    }
    cluster.stop(leader, false);
    cluster.start(stays).unwrap();
    cluster.start(goes).unwrap();
    let members = cluster.partition(stays).unwrap().members().clone();
    assert!(members.voters.len() == 2 || members.is_joint(), "{members:?}");
    cluster.pass(1500);
    assert_eq!(cluster.leader(), None, "those who went cannot elect one who stays, nor he himself");
    cluster.start(leader).unwrap();
    let leader = cluster.elect();
    cluster.put(leader, &["three"]);
    assert_eq!(cluster.values(leader), ["one", "two", "three"]);
}

/// A replica died between writing changes of its members and noting them apart. They take effect all the same: it would
/// call itself a learner for ever, and nobody could hand over to it.
#[test]
fn changes_of_members_that_only_the_log_has_take_effect() {
    let mut cluster = three(14);
    let leader = cluster.elect();
    let [other, late] = others(leader);
    cluster.put(leader, &["one"]);
    cluster.all_have(Offset(1));
    cluster.isolate(late);
    let ids = |nodes: &[u32]| nodes.iter().copied().map(NodeId).collect::<Vec<_>>();
    let two = ids(&[leader, other]);
    cluster.partition(leader).unwrap().propose_membership(&two, &ids(&[late])).unwrap();
    cluster.until("a learner", |cluster| !cluster.partition(leader).unwrap().members().learners.is_empty());
    cluster.put(leader, &["two"]);
    let mut wanted = ids(&[leader, late]);
    wanted.sort_unstable();
    cluster.partition(leader).unwrap().propose_membership(&wanted, &[]).unwrap();
    cluster.until("a change under way", |cluster| cluster.partition(leader).unwrap().members().is_joint());
    cluster.pass(30);
    let all = cluster.partition(leader).unwrap().indexes().0;
    cluster.net.cut.clear();
    cluster.until("all is written", |cluster| cluster.partition(late).unwrap().indexes().0 >= all);
    cluster.stop(late, false);
    cluster.isolate(late);
    cluster.start(late).unwrap();
    cluster.pass(30);
    assert!(cluster.partition(late).unwrap().members().is_joint(), "as far as the log proves");
    // What it has now is what its mark speaks of: once more.
    cluster.stop(late, true);
    cluster.start(late).unwrap();
    cluster.net.cut.clear();
    cluster.until("new members", |cluster| {
        [leader, late].iter().all(|node| {
            let members = cluster.partition(*node).unwrap().members();
            members.voters == wanted && !members.is_joint()
        })
    });
    let leads = cluster.elect();
    if leads != late {
        cluster.partition(leads).unwrap().transfer_leadership(NodeId(late)).unwrap();
    }
    cluster.until("the late one leads", |cluster| cluster.leases() == [late]);
    assert_eq!(cluster.values(late), ["one", "two"]);
}

/// The same of one that decided alone until then: it must not go on so.
#[test]
fn who_wrote_that_others_have_a_vote_does_not_decide_alone_after_it_died() {
    let mut cluster = three(15);
    for node in 1..=3 {
        cluster.stop(node, true);
        cluster.replicas.get_mut(&node).unwrap().disk = base::disk::memory::MemDisk::new(u64::from(node), ROOMY);
    }
    cluster.seats = Seats::alone(NodeId(1));
    cluster.start(1).unwrap();
    cluster.put(1, &["alone"]);
    let all: Vec<NodeId> = (1..=3).map(NodeId).collect();
    let before = cluster.partition(1).unwrap().indexes().0;
    cluster.partition(1).unwrap().propose_membership(&all, &[]).unwrap();
    cluster.partition(1).unwrap().take_messages();
    assert!(cluster.partition(1).unwrap().indexes().0 > before, "written, and not noted apart");
    cluster.stop(1, false);
    cluster.start(1).unwrap();
    cluster.pass(400);
    assert_eq!(cluster.append(1, batch(&["no"])).unwrap(), Err(AppendError::NotLeader { leader: None }));
    cluster.start(2).unwrap();
    cluster.start(3).unwrap();
    cluster.until("three voters", |cluster| {
        (1..=3).all(|node| {
            let members = cluster.partition(node).unwrap().members();
            members.voters == all && !members.is_joint()
        })
    });
    let leader = cluster.elect();
    cluster.put(leader, &["together"]);
    cluster.all_have(Offset(2));
    assert!((1..=3).all(|node| cluster.values(node) == ["alone", "together"]));
}

#[test]
fn records_are_deleted_on_all_replicas_or_on_none() {
    let mut cluster = three(11);
    let leader = cluster.elect();
    for at in 0..10 {
        cluster.put(leader, &[&format!("{at}")]);
    }
    cluster.partition(leader).unwrap().delete_before(Offset(4)).unwrap();
    cluster.until("deleted everywhere", |cluster| {
        (1..=3).all(|node| cluster.partition(node).unwrap().start() == Offset(4))
    });
    for node in 1..=3 {
        cluster.stop(node, true);
        cluster.start(node).unwrap();
        cluster.until("deleted here again", |cluster| cluster.partition(node).unwrap().start() == Offset(4));
    }
    let follower = others(cluster.elect())[0];
    assert!(cluster.partition(follower).unwrap().delete_before(Offset(5)).is_err());
}

#[test]
fn epochs_end_where_they_ended_on_every_replica() {
    let mut cluster = three(12);
    let mut ends = Vec::new();
    let mut end = Offset(0);
    for round in 0..4 {
        let leader = cluster.elect();
        for at in 0..=round {
            end = cluster.put(leader, &[&format!("{round}.{at}")]).next();
        }
        let epoch = cluster.reader(leader).unwrap().leader_epoch();
        ends.push((epoch, end));
        cluster.all_have(end);
        cluster.stop(leader, round % 2 == 0);
        cluster.elect();
        cluster.start(leader).unwrap();
    }
    cluster.all_have(end);
    for node in 1..=3 {
        let reader = cluster.reader(node).unwrap();
        for (epoch, end) in &ends {
            assert_eq!(reader.epoch_end(*epoch), (*epoch, *end), "node {node}");
        }
    }
}
