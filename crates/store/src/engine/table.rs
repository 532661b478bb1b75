//! The hash table of group keys: from a key of fixed width to a dense group number.

/// A group key packed into words.
pub(super) type Key<const N: usize> = [u64; N];

/// Open addressing with linear probing, at most 5/8 full. The slot holds the key, so that a probe is one cache miss.
#[derive(Debug)]
pub(super) struct KeyTable<const N: usize> {
    slots: Vec<Slot<N>>,
    keys: Vec<Key<N>>,
}

#[derive(Clone, Copy, Debug)]
struct Slot<const N: usize> {
    key: Key<N>,
    /// One more than the group's number; 0 is an empty slot.
    group: u32,
}

const EMPTY: u32 = 0;
const SLOTS_MIN: usize = 1_024;

#[inline]
pub(super) fn hash<const N: usize>(key: &Key<N>) -> u64 {
    let mut hash = 0_u64;
    for word in key {
        // Folded multiplication: all bits of the word reach all bits of the hash.
        let product = u128::from(hash ^ word ^ 0x2d35_8dcc_aa6c_78a5) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are folded")]
        let folded = (product as u64) ^ ((product >> 64) as u64);
        hash = folded;
    }
    hash
}

impl<const N: usize> KeyTable<N> {
    pub(super) fn new() -> Self {
        Self { slots: vec![Slot { key: [0; N], group: EMPTY }; SLOTS_MIN], keys: Vec::new() }
    }

    /// With room for about so many groups.
    pub(super) fn with_capacity(groups: usize) -> Self {
        let slots = (groups * 2).next_power_of_two().max(SLOTS_MIN);
        Self { slots: vec![Slot { key: [0; N], group: EMPTY }; slots], keys: Vec::with_capacity(groups) }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The keys by group number.
    pub(super) fn keys(&self) -> &[Key<N>] {
        &self.keys
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<N>>() + self.keys.capacity() * size_of::<Key<N>>()
    }

    /// The group of a key, a new one if the key is new.
    #[inline]
    pub(super) fn group(&mut self, key: &Key<N>) -> u32 {
        let hash = hash(key);
        let mask = self.slots.len() - 1;
        let mut at = place(hash) & mask;
        loop {
            let slot = &self.slots[at];
            if slot.group == EMPTY {
                return self.insert(at, key);
            }
            if slot.key == *key {
                return slot.group - 1;
            }
            at = (at + 1) & mask;
        }
    }

    fn insert(&mut self, at: usize, key: &Key<N>) -> u32 {
        self.keys.push(*key);
        let group = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        self.slots[at] = Slot { key: *key, group };
        if self.keys.len() * 8 > self.slots.len() * 5 {
            self.grow();
        }
        group - 1
    }

    fn grow(&mut self) {
        let len = self.slots.len() * 4;
        let mask = len - 1;
        let mut slots = vec![Slot { key: [0; N], group: EMPTY }; len];
        for slot in self.slots.iter().filter(|slot| slot.group != EMPTY) {
            let mut at = place(hash(&slot.key)) & mask;
            while slots[at].group != EMPTY {
                at = (at + 1) & mask;
            }
            slots[at] = *slot;
        }
        self.slots = slots;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are masked to the table's size")]
fn place(hash: u64) -> usize {
    hash as usize
}
