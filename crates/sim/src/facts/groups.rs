//! Consumer groups: one owner of a partition in a generation; a position that was acknowledged is never lost.

use std::collections::{BTreeMap, BTreeSet};

use base::{Offset, PartitionIndex};

use super::broken;
use crate::trace::Violation;

/// See the module.
#[derive(Debug, Default)]
pub struct GroupFacts {
    owners: BTreeMap<(i32, PartitionIndex), String>,
    members: BTreeMap<(i32, String), Vec<PartitionIndex>>,
    committed: BTreeMap<PartitionIndex, Offset>,
    generations: BTreeSet<i32>,
    commits: u64,
}

impl GroupFacts {
    /// A member was given its part of a generation.
    pub fn assigned(&mut self, generation: i32, member: &str, parts: &[PartitionIndex]) -> Result<(), Violation> {
        self.generations.insert(generation);
        let before = self.members.insert((generation, member.to_owned()), parts.to_vec());
        if before.as_ref().is_some_and(|before| before != parts) {
            let what = format!("generation {generation}: {member} had {before:?} and now has {parts:?}");
            return broken("one owner per partition per generation", what);
        }
        for part in parts {
            let owner = self.owners.entry((generation, *part)).or_insert_with(|| member.to_owned());
            if owner != member {
                let what = format!("generation {generation}: partition {part} is {owner}'s and {member}'s");
                return broken("one owner per partition per generation", what);
            }
        }
        Ok(())
    }

    /// A member was told that its position is kept.
    pub fn committed(&mut self, part: PartitionIndex, offset: Offset) {
        let before = self.committed.entry(part).or_default();
        *before = (*before).max(offset);
        self.commits += 1;
    }

    /// What a position asked for from now on is at least.
    #[must_use]
    pub fn floor(&self, part: PartitionIndex) -> Option<Offset> {
        self.committed.get(&part).copied()
    }

    /// A member asked where to go on; `floor` is what was acknowledged when it asked.
    pub fn position(part: PartitionIndex, floor: Option<Offset>, found: Option<Offset>) -> Result<(), Violation> {
        if found < floor {
            let what = format!("partition {part}: acknowledged was {floor:?}, then found was {found:?}");
            return broken("group position", what);
        }
        Ok(())
    }

    #[must_use]
    pub fn summary(&self) -> String {
        format!("{} generations, {} positions", self.generations.len(), self.commits)
    }
}
