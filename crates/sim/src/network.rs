//! The links between nodes, and between clients and nodes: what each does to what is sent over it.

use std::collections::BTreeMap;

use crate::random::Random;

/// Who has a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Port {
    Node(u32),
    Client(u32),
}

/// How one direction of one pair behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    pub cut: bool,
    pub delay_us: u64,
    /// Up to this much more, by chance: what reorders.
    pub jitter_us: u64,
    pub lost_of_thousand: u64,
    pub doubled_of_thousand: u64,
}

impl Link {
    pub const QUIET: Self =
        Self { cut: false, delay_us: 150, jitter_us: 250, lost_of_thousand: 0, doubled_of_thousand: 0 };
}

/// All links. One that was never touched behaves as `usual`.
#[derive(Debug)]
pub struct Network {
    usual: Link,
    links: BTreeMap<(Port, Port), Link>,
    random: Random,
}

impl Network {
    #[must_use]
    pub const fn new(usual: Link, random: Random) -> Self {
        Self { usual, links: BTreeMap::new(), random }
    }

    /// One direction.
    #[must_use]
    pub fn link(&self, from: Port, to: Port) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or(self.usual)
    }

    pub fn change(&mut self, from: Port, to: Port, change: impl FnOnce(&mut Link)) {
        let usual = self.usual;
        change(self.links.entry((from, to)).or_insert(usual));
    }

    /// This direction as it was at the start.
    pub fn restore(&mut self, from: Port, to: Port) {
        self.links.remove(&(from, to));
    }

    /// Every link good from now on, also those that lost by nature.
    pub fn heal_for_good(&mut self) {
        self.links.clear();
        self.usual = Link {
            delay_us: self.usual.delay_us.min(1_000),
            jitter_us: self.usual.jitter_us.min(1_000),
            ..Link::QUIET
        };
    }

    /// When what is sent now arrives, in microseconds; `None` if it is lost. A second time if it is doubled.
    pub fn send(&mut self, from: Port, to: Port) -> (Option<u64>, Option<u64>) {
        let link = self.link(from, to);
        if link.cut || self.random.chance(link.lost_of_thousand) {
            return (None, None);
        }
        let mut arrival = || link.delay_us + self.random.below(link.jitter_us + 1);
        let first = arrival();
        let second = arrival();
        (Some(first), self.random.chance(link.doubled_of_thousand).then_some(second))
    }
}
