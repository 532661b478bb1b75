//! Groups that sleep: what they cost, how fast they wake, and that nothing is lost whatever happens meanwhile.

use super::*;

/// Partitions beside the one that every cluster has.
const PARTITIONS: i32 = 40;

fn at(number: i32) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(99)), partition: PartitionIndex(number) }
}

fn all() -> impl Iterator<Item = TopicPartition> {
    (0..PARTITIONS).map(at)
}

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % bound as u64).unwrap()
    }

    fn node(&mut self) -> NodeId {
        VOTERS[self.below(VOTERS.len())]
    }
}

impl Cluster {
    async fn start_many() -> Self {
        let cluster = Self::start().await;
        for node in VOTERS {
            cluster.open_many(node).await;
        }
        cluster
    }

    async fn begin_many(&mut self, node: NodeId) {
        self.begin(node).await;
        self.open_many(node).await;
    }

    async fn open_many(&self, node: NodeId) {
        for id in all() {
            let mut seats = Seats { voters: VOTERS.to_vec(), learners: Vec::new() };
            // Each has another preferred leader.
            seats.voters.rotate_left(usize::try_from(id.partition.0).unwrap() % VOTERS.len());
            // The records are from 1970.
            let config = PartitionConfig { retention_ms: None, ..PartitionConfig::default() };
            self.logs(node).open(id, config, seats).await.unwrap();
        }
    }

    fn nodes(&self) -> BTreeMap<NodeId, LogsHandle> {
        self.mesh.nodes.lock().unwrap().clone()
    }

    /// Waits until every group sleeps on every node that is there.
    async fn asleep(&self) {
        let begun = time::now();
        for logs in self.nodes().values() {
            for id in all() {
                while !logs.status(id).await.unwrap().is_asleep {
                    assert!(time::now().since(begun) < 20_000, "{id} is awake: {:?}", logs.status(id).await);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Asks whoever leads `id` until it is acknowledged; how long that took.
    async fn append_to(&self, id: TopicPartition, value: &str, acks: Acks) -> u64 {
        let begun = time::now();
        loop {
            for logs in self.nodes().into_values() {
                if !logs.leadership(id).is_some_and(|leadership| leadership.borrow().is_mine) {
                    continue;
                }
                if logs.append(id, batch(value), acks, time::now().plus(2_000)).await.is_ok() {
                    return time::now().since(begun);
                }
            }
            assert!(time::now().since(begun) < 20_000, "{id} takes nothing");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until all nodes have the same of every partition; what that is.
    async fn settled(&self) -> BTreeMap<TopicPartition, Vec<String>> {
        let begun = time::now();
        let mut found = BTreeMap::new();
        for id in all() {
            loop {
                let nodes = self.nodes();
                let there: Vec<Vec<String>> = nodes.values().map(|logs| read(&logs.reader(id).unwrap())).collect();
                let has_leader = nodes.values().any(|logs| logs.leadership(id).unwrap().borrow().is_mine);
                if has_leader && there.iter().all(|other| *other == there[0]) {
                    found.insert(id, there[0].clone());
                    break;
                }
                assert!(time::now().since(begun) < 20_000, "{id} differs or has no leader: {there:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        found
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_groups_cost_one_beat_a_tick_and_wake_at_once() {
    let cluster = Cluster::start_many().await;
    for id in all() {
        cluster.append_to(id, "before", Acks::All).await;
    }
    // A machine that stands still wakes them: one quiet second of several will do.
    let mut seconds = Vec::new();
    loop {
        cluster.asleep().await;
        let (groups, beats) = cluster.sent();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (groups, beats) = (cluster.sent().0 - groups, cluster.sent().1 - beats);
        // Three pairs, both ways, a beat and its answer a tick; the one partition beside them is silent too.
        assert!(beats <= 600, "{beats} beats");
        if groups == 0 && beats >= 60 {
            break;
        }
        seconds.push((groups, beats));
        assert!(seconds.len() < 10, "messages of {PARTITIONS} idle groups, and beats, in seconds: {seconds:?}");
    }
    let mut waits = Vec::new();
    for id in all() {
        waits.push(cluster.append_to(id, "after", Acks::All).await);
        waits.push(cluster.append_to(at((id.partition.0 + 7) % PARTITIONS), "more", Acks::Leader).await);
    }
    waits.sort_unstable();
    assert!(waits[waits.len() / 2] < 25, "sleeping partitions answered after {waits:?} ms");
    cluster.asleep().await;
}

impl Cluster {
    /// Messages of groups, and beats.
    fn sent(&self) -> (u64, u64) {
        let sent = self.mesh.sent.lock().unwrap();
        (sent.get(&false).copied().unwrap_or(0), sent.get(&true).copied().unwrap_or(0))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_of_a_sleeping_leader_ends_before_another_leads() {
    let cluster = Cluster::start_many().await;
    cluster.settled().await;
    for round in 0..3 {
        cluster.asleep().await;
        let old = VOTERS[round % VOTERS.len()];
        let nodes = cluster.nodes();
        let led: Vec<(TopicPartition, Term)> =
            nodes[&old].led().into_iter().filter(|(id, _)| *id != super::id()).collect();
        let mut leased = 0;
        for (id, _) in &led {
            let status = nodes[&old].status(*id).await.unwrap();
            leased += usize::from(status.is_asleep && status.has_lease);
        }
        assert!(leased > 0 || led.is_empty(), "a leader that sleeps has its lease");
        cluster.mesh.isolate(old);
        let cut = time::now();
        let mut left = led;
        while !left.is_empty() {
            let mut still = Vec::new();
            for (id, term) in left {
                let newer = |logs: &LogsHandle| {
                    let leadership = *logs.leadership(id).unwrap().borrow();
                    leadership.is_mine && leadership.term > term
                };
                let is_replaced = nodes.iter().any(|(node, logs)| *node != old && newer(logs));
                let status = nodes[&old].status(id).await.unwrap();
                assert!(!(is_replaced && status.has_lease), "two lead {id}: {status:?}");
                if !is_replaced {
                    still.push((id, term));
                }
            }
            left = still;
            assert!(time::now().since(cut) < 10_000, "no other leader of {left:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cluster.mesh.heal();
    }
    cluster.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_dead_follower_wakes_nobody() {
    let mut cluster = Cluster::start_many().await;
    cluster.settled().await;
    cluster.asleep().await;
    // What node 1 leads goes on sleeping with node 2 while node 3 is gone.
    let before = cluster.nodes()[&VOTERS[0]].led();
    cluster.kill(VOTERS[2], false);
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let left = cluster.nodes();
    let mut asleep = 0;
    for (id, _) in &before {
        asleep += usize::from(left[&VOTERS[0]].status(*id).await.unwrap().is_asleep);
    }
    assert!(2 * asleep >= before.len(), "{asleep} of {} sleep on", before.len());
    for id in all() {
        cluster.append_to(id, "without it", Acks::All).await;
    }
    cluster.asleep().await;
    cluster.begin_many(VOTERS[2]).await;
    cluster.settled().await;
    cluster.asleep().await;
}

/// Kills, cuts, pauses between naps; what was acknowledged by all is there in the end.
async fn sleep_and_suffer(seed: u64) {
    let mut draw = Draw(seed);
    let mut cluster = Cluster::start_many().await;
    let mut acked: BTreeMap<TopicPartition, Vec<String>> = BTreeMap::new();
    for round in 0..8 {
        for number in 0..20 {
            let (id, value) = (at(i32::try_from(draw.below(40)).unwrap()), format!("{round}.{number}"));
            cluster.append_to(id, &value, Acks::All).await;
            acked.entry(id).or_default().push(value);
        }
        tokio::time::sleep(Duration::from_millis(300 * draw.below(6) as u64)).await;
        let node = draw.node();
        match draw.below(4) {
            0 => {
                cluster.kill(node, draw.below(2) == 0);
                for number in 0..draw.below(20) {
                    let (id, value) = (at(i32::try_from(draw.below(40)).unwrap()), format!("{round}.killed.{number}"));
                    cluster.append_to(id, &value, Acks::All).await;
                    acked.entry(id).or_default().push(value);
                }
                cluster.begin_many(node).await;
            }
            1 => {
                cluster.mesh.isolate(node);
                tokio::time::sleep(Duration::from_millis(100 * draw.below(10) as u64)).await;
                cluster.mesh.heal();
            }
            2 => {
                let (mesh, pause_ms) = (Arc::clone(&cluster.mesh), 100 * draw.below(8) as u64);
                let pause = move || {
                    let _stands_still = mesh.paused[usize::try_from(node.0 - 1).unwrap()].lock().unwrap();
                    std::thread::sleep(Duration::from_millis(pause_ms));
                };
                tokio::task::spawn_blocking(pause).await.unwrap();
            }
            _ => {
                let (id, to) = (at(i32::try_from(draw.below(40)).unwrap()), draw.node());
                cluster.nodes().values().for_each(|logs| logs.transfer(id, to));
            }
        }
    }
    let there = cluster.settled().await;
    for (id, values) in acked {
        for value in values {
            assert!(there[&id].contains(&value), "seed {seed}: {value} of {id} is lost");
        }
    }
    cluster.asleep().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sleeping_groups_lose_nothing_seed_1() {
    sleep_and_suffer(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sleeping_groups_lose_nothing_seed_2() {
    sleep_and_suffer(2).await;
}
