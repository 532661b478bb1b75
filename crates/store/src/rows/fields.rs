//! Field names -> small numbers (slots), with the order of the last row as the first guess: records of one
//! producer name their fields in one order, so a name is nearly always found by one comparison.

use hashbrown::HashTable;

/// Most names that are remembered. Beyond, an unknown name has no slot.
pub const FIELDS_MAX: usize = 8_192;

/// The names seen so far. Slots are given out in the order of first sight and never change.
#[derive(Debug, Default)]
pub struct Fields {
    names: Vec<Box<str>>,
    table: HashTable<u32>,
    /// At each position of a row, the slot that was there last.
    order: Vec<u32>,
}

/// A fixed seed: the same names give the same table everywhere.
fn hash(name: &str) -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let mut hasher = foldhash::fast::FixedState::with_seed(0).build_hasher();
    hasher.write(name.as_bytes());
    hasher.finish()
}

impl Fields {
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    #[must_use]
    pub fn name(&self, slot: usize) -> &str {
        self.names.get(slot).map_or("", |name| name)
    }

    /// The slot of a name, made if there is room.
    pub fn intern(&mut self, name: &str) -> Option<usize> {
        let hash_of = hash(name);
        let names = &self.names;
        if let Some(slot) = self.table.find(hash_of, |slot| *names[*slot as usize] == *name) {
            return Some(*slot as usize);
        }
        if self.names.len() >= FIELDS_MAX {
            return None;
        }
        let slot = u32::try_from(self.names.len()).ok()?;
        self.names.push(name.into());
        let names = &self.names;
        self.table.insert_unique(hash_of, slot, |slot| hash(&names[*slot as usize]));
        Some(slot as usize)
    }

    /// As [`Fields::intern`], for the field at a position of a row.
    #[inline]
    pub fn at(&mut self, position: usize, name: &str) -> Option<usize> {
        if let Some(&guess) = self.order.get(position)
            && *self.names[guess as usize] == *name
        {
            return Some(guess as usize);
        }
        let slot = self.intern(name)?;
        let number = u32::try_from(slot).ok()?;
        if position < self.order.len() {
            self.order[position] = number;
        } else if position == self.order.len() && position < FIELDS_MAX {
            self.order.push(number);
        }
        Some(slot)
    }
}
