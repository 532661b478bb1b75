//! Breaks things, and undoes it after a while.

use base::NodeId;
use base::disk::memory::Fault;

use crate::network::Port;
use crate::plan::Kind;
use crate::time::At;
use crate::world::{Event, World};

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// What was written stays.
    Kill,
    /// What was not synced may be lost.
    Power,
}

/// What ends a fault.
#[derive(Clone, Debug)]
pub enum Undo {
    Start(u32),
    /// These directions are as they were.
    Links(Vec<(Port, Port)>),
    SyncSpeed(u32),
    Disk(u32),
}

/// Faults last this long at most.
const FAULT_MS_MAX: u64 = 4_000;

impl World {
    /// One more fault, by chance.
    pub(crate) fn break_something(&mut self) {
        let kind = self.plan.draw(&mut self.nemesis);
        let id = self.some_node();
        let lasts_ms = if self.nemesis.chance(700) {
            self.nemesis.range(20, 1_200)
        } else {
            self.nemesis.range(1_000, FAULT_MS_MAX)
        };
        self.faults += 1;
        self.trace.event(self.at, &[0xfa, kind as u64, u64::from(id), lasts_ms], || {
            format!("### {kind:?} node {id} for {lasts_ms} ms")
        });
        match kind {
            Kind::Kill => self.die_for(id, Death::Kill, lasts_ms),
            Kind::Power => self.die_for(id, Death::Power, lasts_ms),
            Kind::Blackout => self.blackout(lasts_ms),
            Kind::CrashAtWrite => {
                let node = self.node(id);
                let op = node.disk.ops() + self.nemesis.below(12);
                self.node(id).disk.crash_at(op);
                self.node(id).crash_is_power = lasts_ms % 2 == 0;
            }
            Kind::Pause => {
                let until = self.at.plus_ms(lasts_ms);
                let node = self.node(id);
                node.paused_until = node.paused_until.max(until);
            }
            Kind::WallJump => {
                let by = i64::try_from(self.nemesis.range(0, 7_200_000)).unwrap_or(0) - 3_600_000;
                self.node(id).clock.jump(by);
            }
            Kind::SlowDisk => {
                let slow = self.nemesis.range(20, 400) * 1_000;
                self.node(id).sync_us = (slow / 4, slow);
                self.later(lasts_ms, Event::Undo(Undo::SyncSpeed(id)));
            }
            Kind::FullDisk => self.disk_fault(id, Fault::Full, lasts_ms),
            Kind::SyncError => {
                let after_ops = self.nemesis.below(10);
                self.disk_fault(id, Fault::Sync { after_ops }, lasts_ms);
            }
            Kind::WriteError => {
                let after_ops = self.nemesis.below(10);
                self.disk_fault(id, Fault::Write { after_ops }, lasts_ms);
            }
            Kind::Transfer => self.transfer(id),
            Kind::Members => self.change_members(),
            Kind::BitFlip => self.flip(id, lasts_ms),
            _ => self.break_links(kind, id, lasts_ms),
        }
    }

    fn break_links(&mut self, kind: Kind, id: u32, lasts_ms: u64) {
        let ids = self.node_ids();
        let others: Vec<u32> = ids.iter().copied().filter(|other| *other != id).collect();
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        match kind {
            Kind::Isolate => pairs.extend(others.iter().map(|other| (id, *other))),
            Kind::Split => {
                let half: Vec<u32> = ids.iter().copied().filter(|_| self.nemesis.chance(500)).collect();
                let rest = ids.iter().copied().filter(|id| !half.contains(id));
                pairs.extend(rest.flat_map(|a| half.iter().map(move |b| (a, *b))));
            }
            Kind::HubOnly => {
                let spokes = others.iter().flat_map(|a| others.iter().map(move |b| (*a, *b)));
                pairs.extend(spokes.filter(|(a, b)| a < b));
            }
            Kind::Everyone => {
                let all = ids.iter().flat_map(|a| ids.iter().map(move |b| (*a, *b)));
                pairs.extend(all.filter(|(a, b)| a < b));
            }
            _ => pairs.extend(self.nemesis.pick(&others).map(|other| (id, *other))),
        }
        let one_way = matches!(kind, Kind::Isolate | Kind::OneLink | Kind::SlowLink) && self.nemesis.chance(350);
        let flipped = self.nemesis.chance(500);
        let mut directions = Vec::new();
        for (a, b) in pairs {
            let (a, b) = if flipped { (b, a) } else { (a, b) };
            directions.push((Port::Node(a), Port::Node(b)));
            if !one_way {
                directions.push((Port::Node(b), Port::Node(a)));
            }
        }
        let (slow_us, lost) = (self.nemesis.range(20, 600) * 1_000, self.nemesis.range(50, 700));
        for (from, to) in &directions {
            self.network.change(*from, *to, |link| match kind {
                Kind::SlowLink => link.delay_us += slow_us,
                Kind::LossyLink => {
                    link.lost_of_thousand = lost;
                    link.doubled_of_thousand = lost / 2;
                    link.jitter_us += 5_000;
                }
                _ => link.cut = true,
            });
        }
        self.trace.note(self.at, || format!("### links {directions:?}"));
        self.later(lasts_ms, Event::Undo(Undo::Links(directions)));
    }

    fn disk_fault(&mut self, id: u32, fault: Fault, lasts_ms: u64) {
        if self.node(id).runs() {
            self.node(id).disk.fault(fault);
            self.later(lasts_ms, Event::Undo(Undo::Disk(id)));
        }
    }

    fn die_for(&mut self, id: u32, death: Death, lasts_ms: u64) {
        if self.node(id).runs() {
            self.die(id, death);
            self.later(lasts_ms, Event::Undo(Undo::Start(id)));
        }
    }

    fn blackout(&mut self, lasts_ms: u64) {
        for id in self.node_ids() {
            let spread = self.nemesis.below(lasts_ms + 1);
            self.die_for(id, Death::Power, lasts_ms + spread);
        }
    }

    /// Three or more voters by chance, an odd number; all again at the end.
    fn change_members(&mut self) {
        let mut voters = self.node_ids();
        while voters.len() > 3 && self.nemesis.chance(600) {
            let at = self.nemesis.place(voters.len());
            voters.remove(at);
        }
        if voters.len().is_multiple_of(2) {
            voters.pop();
        }
        if self.nemesis.chance(300) {
            // Two of three decide together, the third learns: allowed to the group, on the way to somewhere.
            voters.pop();
        }
        self.ask_members(&voters);
    }

    /// Whoever leads group 0 is asked to change its voters.
    pub(crate) fn ask_members(&mut self, voters: &[u32]) {
        let learners: Vec<NodeId> = self.node_ids().into_iter().filter(|id| !voters.contains(id)).map(NodeId).collect();
        let voters: Vec<NodeId> = voters.iter().copied().map(NodeId).collect();
        self.trace.note(self.at, || format!("### voters {voters:?} learners {learners:?}"));
        for id in self.node_ids() {
            self.act(id, |node, at| node.change_members(at, &voters, &learners));
        }
    }

    fn flip(&mut self, id: u32, lasts_ms: u64) {
        if self.nodes.values().any(|node| node.was_damaged) || !self.node(id).runs() {
            return;
        }
        self.die(id, Death::Kill);
        let mut random = self.nemesis.fork(7);
        let deleted: Vec<String> = self.facts.deleted.iter().map(ToString::to_string).collect();
        let flipped = self.node(id).flip(&mut random, |folder| !deleted.iter().any(|topic| folder.starts_with(topic)));
        self.trace.note(self.at, || format!("### a bit of node {id}'s log flips: {flipped}"));
        self.later(lasts_ms, Event::Undo(Undo::Start(id)));
    }

    /// Ends one fault.
    pub(crate) fn undo(&mut self, undo: &Undo) {
        self.trace.note(self.at, || format!("### undone {undo:?}"));
        match undo {
            Undo::Start(id) => self.start(*id),
            Undo::Links(directions) => {
                for (from, to) in directions {
                    self.network.restore(*from, *to);
                }
            }
            Undo::SyncSpeed(id) => {
                let usual = self.plan.sync_us;
                self.node(*id).sync_us = usual;
            }
            Undo::Disk(id) => {
                self.node(*id).disk.heal();
                // Someone looks after a node whose disk failed it: it is started again.
                if self.node(*id).stopped() {
                    self.die(*id, Death::Kill);
                    self.start(*id);
                }
            }
        }
    }

    /// Everything is good from now on.
    pub(crate) fn heal(&mut self) {
        self.trace.event(self.at, &[0xfe], || "### faults end".to_owned());
        self.healing_since = Some(self.at);
        self.network.heal_for_good();
        for id in self.node_ids() {
            let usual = (self.plan.sync_us.0, self.plan.sync_us.1.min(2_000));
            let node = self.node(id);
            node.sync_us = usual;
            node.paused_until = At(0);
            node.disk.heal();
            node.disk.crash_at(u64::MAX);
            if self.node(id).runs() && self.node(id).stopped() {
                self.die(id, Death::Kill);
            }
            if !self.node(id).runs() {
                self.start(id);
            }
        }
    }
}
