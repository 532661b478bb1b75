//! What a seed asks for: how many nodes, how bad the network and the disks are by nature, and which faults come
//! how often. Every seed leaves out some kinds of fault, so that each kind is also seen without the others.

use crate::network::Link;
use crate::node::Bug;
use crate::random::Random;

/// A kind of fault the nemesis may choose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// The process dies; what it wrote stays.
    Kill,
    /// The machine loses power; what was not synced is lost, torn or kept.
    Power,
    /// All machines lose power within a few milliseconds.
    Blackout,
    /// The process dies, or the power goes, in the middle of a later disk operation.
    CrashAtWrite,
    Pause,
    WallJump,
    /// One node is cut from every other, perhaps in one direction only.
    Isolate,
    /// Two halves.
    Split,
    /// One link, perhaps in one direction only.
    OneLink,
    /// All links but those of one node.
    HubOnly,
    /// Every link at once.
    Everyone,
    SlowLink,
    LossyLink,
    SlowDisk,
    FullDisk,
    SyncError,
    WriteError,
    Transfer,
    /// Other voters for group 0; who is none of them learns.
    Members,
    /// A node is killed, and a few bits of what it had long made durable flip before it starts again. Once a run.
    BitFlip,
}

impl Kind {
    pub const ALL: [Self; 20] = [
        Self::Kill,
        Self::Power,
        Self::Blackout,
        Self::CrashAtWrite,
        Self::Pause,
        Self::WallJump,
        Self::Isolate,
        Self::Split,
        Self::OneLink,
        Self::HubOnly,
        Self::Everyone,
        Self::SlowLink,
        Self::LossyLink,
        Self::SlowDisk,
        Self::FullDisk,
        Self::SyncError,
        Self::WriteError,
        Self::Transfer,
        Self::Members,
        Self::BitFlip,
    ];

    const fn weight(self) -> u64 {
        match self {
            Self::Kill | Self::Power | Self::CrashAtWrite | Self::Isolate | Self::Pause => 10,
            Self::Split | Self::OneLink | Self::SlowLink | Self::LossyLink | Self::Transfer => 6,
            Self::Members => 5,
            Self::HubOnly | Self::SlowDisk | Self::SyncError | Self::WriteError | Self::FullDisk => 4,
            Self::Blackout | Self::Everyone | Self::WallJump | Self::BitFlip => 3,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub bug: Bug,
    pub nodes: u32,
    pub partitions: i32,
    /// How long faults come.
    pub chaos_ms: u64,
    /// By when everything must have healed after that.
    pub heal_ms_max: u64,
    /// Faults come this far apart, on average.
    pub fault_every_ms: u64,
    pub usual: Link,
    pub sync_us: (u64, u64),
    pub drift_ppm_max: u64,
    /// Kinds with their weights.
    pub kinds: Vec<(Kind, u64)>,
}

impl Plan {
    #[must_use]
    pub fn of(seed: u64, bug: Bug) -> Self {
        let mut random = Random::new(seed ^ 0x506c_616e);
        let mut kinds: Vec<(Kind, u64)> =
            Kind::ALL.iter().map(|kind| (*kind, kind.weight())).filter(|_| !random.chance(350)).collect();
        if kinds.is_empty() {
            kinds.push((Kind::Kill, 1));
        }
        let usual = Link {
            delay_us: random.range(80, 400),
            jitter_us: if random.chance(300) { random.range(1_000, 30_000) } else { random.range(50, 800) },
            lost_of_thousand: if random.chance(250) { random.range(1, 50) } else { 0 },
            doubled_of_thousand: if random.chance(250) { random.range(1, 50) } else { 0 },
            ..Link::QUIET
        };
        Self {
            seed,
            bug,
            nodes: if random.chance(150) { 5 } else { 3 },
            partitions: i32::try_from(random.range(1, 2)).unwrap_or(1),
            chaos_ms: random.range(5_000, 12_000),
            heal_ms_max: 15_000,
            fault_every_ms: random.range(250, 2_000),
            usual,
            sync_us: if random.chance(200) { (1_000, 8_000) } else { (50, 1_000) },
            drift_ppm_max: if random.chance(300) { 20_000 } else { 200 },
            kinds,
        }
    }

    /// A kind by weight.
    #[must_use]
    pub fn draw(&self, random: &mut Random) -> Kind {
        let total: u64 = self.kinds.iter().map(|(_, weight)| weight).sum();
        let mut at = random.below(total);
        for (kind, weight) in &self.kinds {
            if at < *weight {
                return *kind;
            }
            at -= weight;
        }
        Kind::Kill
    }
}
