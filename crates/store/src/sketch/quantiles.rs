//! Quantiles by a KLL sketch: values wait in levels, each worth twice the one below; a full level is sorted, and every
//! second of its values goes up.
//!
//! The value at a share is a value that was there: the least whose rank is the share of the count, as in Druid. Exact
//! as long as nothing went up; else its rank is off by about 1 % with the default accuracy.

/// Values that wait before they are sorted, at least; a sketch of no more is exact.
const BUFFER: usize = 256;
/// No level is smaller.
const LEVEL_MIN: usize = 8;
/// More levels than values can be counted.
const LEVELS_MAX: usize = 60;
/// Accuracy when nobody says otherwise.
pub const K_DEFAULT: u16 = 128;
/// Least and greatest accuracy.
pub const K_MIN: u16 = 2;
pub const K_MAX: u16 = 1 << 15;

/// A share of all values, 0 to 1.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub struct Share(f64);

impl Share {
    /// `None` outside of 0 to 1.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    /// Which of `count` values in their order is the one at this share, counted from 1; `None` of nothing. Rounded
    /// first, so that 0.7 of 10 is the seventh.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count is a double, within the count"
    )]
    pub fn rank(self, count: u64) -> Option<u64> {
        let rank = self.0 * count as f64;
        let rank = if count <= 1_000_000 { (rank * 1e7).round() / 1e7 } else { rank };
        (count > 0).then(|| (rank.ceil() as u64).clamp(1, count))
    }
}

// It is never a NaN.
impl Eq for Share {}

/// Numbers, summed up. NaN is not counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quantiles {
    k: u16,
    count: u64,
    /// As [`key`]s, like all values here.
    least: i64,
    greatest: i64,
    /// A value of level `n` stands for 2^n. The first in no order, the others ascending.
    levels: Vec<Vec<i64>>,
    held: usize,
    /// More values than these, and a level has to be halved.
    room: usize,
    coin: u64,
    heap_bytes: usize,
}

/// Numbers as integers of the same order.
fn key(value: f64) -> i64 {
    // Minus zero is zero.
    let bits = (value + 0.0).to_bits().cast_signed();
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

fn value_of(key: i64) -> f64 {
    f64::from_bits((key ^ ((key >> 63).cast_unsigned() >> 1).cast_signed()).cast_unsigned())
}

impl Default for Quantiles {
    fn default() -> Self {
        Self::new(K_DEFAULT)
    }
}

impl Quantiles {
    /// Empty. `k` is its accuracy, within [`K_MIN`] and [`K_MAX`]: twice of it halves the error and doubles the memory.
    #[must_use]
    pub fn new(k: u16) -> Self {
        let k = k.clamp(K_MIN, K_MAX);
        Self {
            k,
            count: 0,
            least: i64::MAX,
            greatest: i64::MIN,
            levels: Vec::new(),
            held: 0,
            room: BUFFER.max(2 * usize::from(k)),
            coin: 0x9e37_79b9_7f4a_7c15,
            heap_bytes: 0,
        }
    }

    /// Values counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Memory beside the struct itself.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.heap_bytes
    }

    fn measure(&mut self) {
        self.heap_bytes = self.levels.capacity() * size_of::<Vec<i64>>()
            + self.levels.iter().map(|level| level.capacity() * 8).sum::<usize>();
    }

    /// Adds one value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        if self.held >= self.room {
            self.halve();
        }
        let key = key(value);
        match self.levels.first_mut() {
            Some(level) if level.len() < level.capacity() => level.push(key),
            _ => self.add_growing(key),
        }
        self.held += 1;
        self.count += 1;
        self.least = self.least.min(key);
        self.greatest = self.greatest.max(key);
    }

    #[cold]
    fn add_growing(&mut self, key: i64) {
        match self.levels.first_mut() {
            Some(level) => level.push(key),
            None => self.levels.push(vec![key]),
        }
        self.measure();
    }

    /// Adds another sketch's values.
    pub fn merge(&mut self, other: &Self) {
        if self.levels.len() < other.levels.len() {
            self.levels.resize(other.levels.len(), Vec::new());
        }
        for (number, (into, from)) in self.levels.iter_mut().zip(&other.levels).enumerate() {
            if number == 0 {
                into.extend_from_slice(from);
            } else if !from.is_empty() {
                *into = merged(into, from.iter().copied());
            }
        }
        self.held += other.held;
        self.count += other.count;
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
        self.room = self.capacity();
        while self.held > self.room {
            self.halve();
        }
        self.measure();
    }

    /// The least value whose rank is at least the share of all; `None` of nothing.
    #[must_use]
    pub fn quantile(&self, share: Share) -> Option<f64> {
        let wanted = share.rank(self.count)?;
        if wanted <= 1 {
            return Some(value_of(self.least));
        }
        if wanted >= self.count {
            return Some(value_of(self.greatest));
        }
        let weighed = |(level, keys): (usize, &Vec<i64>)| keys.iter().map(move |key| (*key, 1_u64 << level)).collect();
        let mut all: Vec<(i64, u64)> = self.levels.iter().enumerate().flat_map::<Vec<_>, _>(weighed).collect();
        all.sort_unstable();
        let mut passed = 0_u64;
        let found = all.iter().find(|(_, weight)| {
            passed = passed.saturating_add(*weight);
            passed >= wanted
        });
        Some(value_of(found.map_or(self.greatest, |(key, _)| *key)))
    }

    /// Values a level may have: those at the top most, two thirds of it a step down.
    fn level_capacity(&self, level: usize) -> usize {
        let least = if level == 0 { BUFFER } else { LEVEL_MIN };
        let mut capacity = 2 * usize::from(self.k);
        for _ in level + 1..self.levels.len() {
            if capacity <= least {
                break;
            }
            capacity = capacity * 2 / 3;
        }
        capacity.max(least)
    }

    fn capacity(&self) -> usize {
        (0..self.levels.len().max(1)).map(|level| self.level_capacity(level)).sum()
    }

    /// Sends every second value of the lowest full level up.
    fn halve(&mut self) {
        let full = |level: &usize| self.levels[*level].len() >= self.level_capacity(*level);
        let Some(level) = (0..self.levels.len()).find(full) else {
            // Only where the capacity was counted wrong: rather larger than never done.
            self.room = self.held + BUFFER;
            return;
        };
        if level + 1 == self.levels.len() && level < LEVELS_MAX {
            self.levels.push(Vec::new());
        }
        let Some([from, to]) = self.levels.get_mut(level..level + 2).and_then(|pair| pair.as_mut_array::<2>()) else {
            self.room = self.held + BUFFER;
            return;
        };
        if level == 0 {
            from.sort_unstable();
        }
        // An odd one stays, so that no weight is lost.
        let stays = if from.len() % 2 == 1 { from.pop() } else { None };
        // Which half goes up is as good as drawn; the same values in the same order give the same sketch.
        self.coin ^= self.coin << 13;
        self.coin ^= self.coin >> 7;
        self.coin ^= self.coin << 17;
        let first = usize::from(self.coin >> 40 & 1 == 1);
        let up = from.len() / 2;
        *to = merged(to, from.iter().skip(first).step_by(2).copied());
        from.clear();
        from.extend(stays);
        self.held -= up;
        self.room = self.capacity();
        self.measure();
    }

    /// The sketch as bytes, for [`Self::from_bytes`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40 + self.levels.len() * 4 + self.held * 8);
        out.extend_from_slice(&self.k.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.least.to_le_bytes());
        out.extend_from_slice(&self.greatest.to_le_bytes());
        for level in &self.levels {
            out.extend_from_slice(&u32::try_from(level.len()).unwrap_or(u32::MAX).to_le_bytes());
            level.iter().for_each(|key| out.extend_from_slice(&key.to_le_bytes()));
        }
        out
    }

    /// From [`Self::to_bytes`]; `None` if that is not what they are.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (k, rest) = bytes.split_first_chunk::<2>()?;
        let (count, rest) = rest.split_first_chunk::<8>()?;
        let (least, rest) = rest.split_first_chunk::<8>()?;
        let (greatest, mut rest) = rest.split_first_chunk::<8>()?;
        let mut sketch = Self::new(u16::from_le_bytes(*k));
        sketch.count = u64::from_le_bytes(*count);
        sketch.least = i64::from_le_bytes(*least);
        sketch.greatest = i64::from_le_bytes(*greatest);
        while let Some((length, values)) = rest.split_first_chunk::<4>() {
            let bytes = usize::try_from(u32::from_le_bytes(*length)).ok()?.checked_mul(8)?;
            let (values, after) = values.split_at_checked(bytes)?;
            let level: Vec<i64> = values.as_chunks::<8>().0.iter().map(|key| i64::from_le_bytes(*key)).collect();
            if sketch.levels.len() > LEVELS_MAX || !(sketch.levels.is_empty() || level.is_sorted()) {
                return None;
            }
            sketch.held += level.len();
            sketch.levels.push(level);
            rest = after;
        }
        sketch.room = sketch.capacity();
        sketch.measure();
        rest.is_empty().then_some(sketch)
    }
}

/// Both, ascending.
fn merged(a: &[i64], b: impl ExactSizeIterator<Item = i64>) -> Vec<i64> {
    let mut out = Vec::with_capacity(a.len() + b.len());
    let mut a = a.iter().copied().peekable();
    for value in b {
        while let Some(before) = a.next_if(|before| *before <= value) {
            out.push(before);
        }
        out.push(value);
    }
    out.extend(a);
    out
}

#[cfg(test)]
mod tests;
