//! The loops that bring rows into states, and states into one another.

use super::{GroupOf, Kind, State, StateBlock, StatePlan, to_double};
use crate::dictionary::{IdSet, NULL_ID};
use crate::engine::columns::{Scratch, Selection, Slot, SlotId};
use crate::engine::error::EngineError;
use crate::engine::mask;
use crate::engine::table::KeyTable;
use crate::segment::bitmap::Mask;
use crate::segment::column::{Column, Data};
use crate::segment::packing::BLOCK_ROWS;
use crate::sketch::Quantiles;

/// Sets of ids of all groups together take at most this; beyond, a table of pairs is used.
const SETS_BYTES_MAX: usize = 64 << 20;
/// Histograms of all groups together take at most this; beyond, each group has a sketch.
const HISTOGRAMS_BYTES_MAX: usize = 8 << 20;

impl StatePlan {
    /// An empty state; `groups` is how many there can be at most, where that is known.
    pub(in crate::engine) fn start(&self, slots: &[Slot], groups: Option<usize>) -> State {
        let ids = self.slot.and_then(|slot| slots[slot.0].text.as_ref());
        let set_bytes = ids.map_or(usize::MAX, |ids| if ids.has_plain { usize::MAX } else { ids.base as usize / 8 });
        let few = groups.is_some_and(|groups| set_bytes.saturating_mul(groups) <= SETS_BYTES_MAX);
        match self.kind {
            Kind::Rows | Kind::Values => State::Counts(Vec::new()),
            Kind::SumLong | Kind::MinLong | Kind::MaxLong => State::Longs(Vec::new(), IdSet::default()),
            Kind::SumDouble | Kind::MinDouble | Kind::MaxDouble => State::Doubles(Vec::new(), IdSet::default()),
            Kind::DistinctText if groups == Some(1) => State::Ids(IdSet::default()),
            Kind::DistinctText if few => State::Sets(Vec::new()),
            Kind::DistinctText | Kind::DistinctLong => State::Pairs(KeyTable::new(), Vec::new()),
            Kind::QuantilesLong(_) if self.is_counted(groups) => State::Histograms(Vec::new()),
            Kind::QuantilesLong(_) | Kind::QuantilesDouble(_) => State::Sketches(Vec::new(), 0),
        }
    }

    /// True if counting each value of each group takes little.
    fn is_counted(&self, groups: Option<usize>) -> bool {
        let Some(((_, values), groups)) = self.domain.zip(groups) else { return false };
        values.saturating_mul(groups).saturating_mul(4) <= HISTOGRAMS_BYTES_MAX
    }

    fn first_long(&self) -> i64 {
        match self.kind {
            Kind::MinLong => i64::MAX,
            Kind::MaxLong => i64::MIN,
            _ => 0,
        }
    }

    fn first_double(&self) -> f64 {
        match self.kind {
            // A NaN is above everything, so it is where a least value starts.
            Kind::MinDouble => f64::NAN,
            Kind::MaxDouble => f64::NEG_INFINITY,
            _ => 0.0,
        }
    }

    /// Makes room for groups that are new.
    pub(in crate::engine) fn grow(&self, state: &mut State, groups: usize) {
        match state {
            State::Counts(values) => values.resize(groups, 0),
            State::Longs(values, _) => values.resize(groups, self.first_long()),
            State::Doubles(values, _) => values.resize(groups, self.first_double()),
            State::Pairs(_, counts) => counts.resize(groups, 0),
            State::Sets(sets) => sets.resize(groups, IdSet::default()),
            State::Sketches(sketches, _) => {
                let (Kind::QuantilesLong(k) | Kind::QuantilesDouble(k)) = self.kind else { return };
                sketches.resize(groups, Quantiles::new(k));
            }
            State::Histograms(counts) => counts.resize(groups * self.domain.map_or(0, |(_, values)| values), 0),
            State::Ids(_) => {}
        }
    }

    fn add_long(&self, into: &mut i64, value: i64) {
        *into = match self.kind {
            Kind::MinLong => value.min(*into),
            Kind::MaxLong => value.max(*into),
            _ => into.wrapping_add(value),
        };
    }

    fn add_double(&self, into: &mut f64, value: f64) {
        *into = match self.kind {
            Kind::MinDouble => {
                if into.is_nan() || value < *into {
                    value
                } else {
                    *into
                }
            }
            Kind::MaxDouble => {
                if value.is_nan() || value > *into {
                    value
                } else {
                    *into
                }
            }
            _ => *into + value,
        };
    }

    /// Adds a block's rows.
    pub(in crate::engine) fn update(
        &self,
        state: &mut State,
        at: &StateBlock<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), EngineError> {
        if self.counts_rows() {
            return Ok(());
        }
        let selected = self.filter.map_or(at.selection.mask, |filter| at.filtered[filter]);
        let Some(slot) = self.slot else {
            if let State::Counts(counts) = state {
                each(at, &selected, |group, _| counts[group] += 1);
            }
            return Ok(());
        };
        let Some(column) = at.view.column(slot) else { return Ok(()) };
        let selected =
            if column.nulls == 0 { selected } else { mask::and(&selected, &at.view.valid(slot, at.block, scratch)) };
        if mask::is_empty(&selected) {
            return Ok(());
        }
        let full = selected == at.selection.mask;
        match (state, &column.data) {
            (State::Counts(counts), _) if full && at.runs.is_some() => {
                for run in at.runs.unwrap_or_default() {
                    counts[run.group] += i64::try_from(run.places.len()).unwrap_or(0);
                }
            }
            (State::Counts(counts), _) => each(at, &selected, |group, _| counts[group] += 1),
            (State::Longs(values, seen), Data::Longs(_)) => {
                self.update_longs((values, seen), at, column, slot, scratch, &selected);
            }
            (State::Doubles(values, seen), Data::Doubles(doubles)) => {
                self.update_doubles((values, seen), at, doubles, &selected);
            }
            (State::Ids(ids), Data::Codes(_) | Data::Plain(_)) => {
                let mut room = [0; BLOCK_ROWS];
                self.ids(at, slot, scratch, &selected, &mut room)?.iter().for_each(|id| _ = ids.insert(*id));
            }
            (State::Sets(sets), Data::Codes(_) | Data::Plain(_)) => {
                let mut room = [0; BLOCK_ROWS];
                let mut ids = self.ids(at, slot, scratch, &selected, &mut room)?.iter();
                each(at, &selected, |group, _| {
                    if let Some(id) = ids.next() {
                        sets[group].insert(*id);
                    }
                });
            }
            (State::Pairs(pairs, counts), Data::Codes(_) | Data::Plain(_)) => {
                let mut room = [0; BLOCK_ROWS];
                let mut ids = self.ids(at, slot, scratch, &selected, &mut room)?.iter();
                each(at, &selected, |group, _| {
                    if let Some(id) = ids.next() {
                        add_pair(pairs, counts, group, u64::from(*id));
                    }
                });
            }
            (State::Pairs(pairs, counts), Data::Longs(_)) => {
                let longs = scratch.longs(column, slot, at.block);
                each(at, &selected, |group, row| add_pair(pairs, counts, group, longs[row].cast_unsigned()));
            }
            (State::Pairs(pairs, counts), Data::Booleans(bits)) => {
                let bits = bits.block(at.block);
                each(at, &selected, |group, row| {
                    add_pair(pairs, counts, group, u64::from(mask::is_set(&bits, row)));
                });
            }
            (state @ (State::Histograms(_) | State::Sketches(..)), _) => {
                self.update_quantiles(state, at, column, slot, scratch, &selected);
            }
            _ => return Err(EngineError::Internal(format!("a state over column {:?} of another type", column.name()))),
        }
        Ok(())
    }

    fn update_doubles(
        &self,
        (values, seen): (&mut [f64], &mut IdSet),
        at: &StateBlock<'_>,
        doubles: &[f64],
        selected: &Mask,
    ) {
        let doubles = doubles.get(at.block * BLOCK_ROWS..).unwrap_or(&[]);
        let value = |row: usize| doubles.get(row).copied().unwrap_or(0.0);
        match self.kind {
            Kind::SumDouble => each(at, selected, |group, row| values[group] += value(row)),
            _ => each(at, selected, |group, row| self.add_double(&mut values[group], value(row))),
        }
        self.mark(seen, at, selected);
    }

    fn update_quantiles(
        &self,
        state: &mut State,
        at: &StateBlock<'_>,
        column: &Column,
        slot: SlotId,
        scratch: &mut Scratch,
        selected: &Mask,
    ) {
        match (state, &column.data) {
            (State::Histograms(counts), Data::Longs(_)) => {
                let (least, values) = self.domain.unwrap_or_default();
                let longs = scratch.longs(column, slot, at.block);
                each(at, selected, |group, row| {
                    let place = usize::try_from(longs[row].wrapping_sub(least)).ok().filter(|place| *place < values);
                    if let Some(count) = place.and_then(|place| counts.get_mut(group * values + place)) {
                        *count += 1;
                    }
                });
            }
            (State::Sketches(sketches, bytes), Data::Longs(_)) => {
                let longs = scratch.longs(column, slot, at.block);
                each(at, selected, |group, row| add_to_sketch(&mut sketches[group], bytes, to_double(longs[row])));
            }
            (State::Sketches(sketches, bytes), Data::Doubles(doubles)) => {
                let doubles = doubles.get(at.block * BLOCK_ROWS..).unwrap_or(&[]);
                let value = |row: usize| doubles.get(row).copied().unwrap_or(0.0);
                each(at, selected, |group, row| add_to_sketch(&mut sketches[group], bytes, value(row)));
            }
            // A quantile is of longs or doubles, which its plan has seen to.
            _ => {}
        }
    }

    fn update_longs(
        &self,
        (values, seen): (&mut Vec<i64>, &mut IdSet),
        at: &StateBlock<'_>,
        column: &Column,
        slot: SlotId,
        scratch: &mut Scratch,
        selected: &Mask,
    ) {
        let whole = at.selection.all && *selected == at.selection.mask;
        if let (GroupOf::One, true, Data::Longs(longs)) = (at.groups, whole, &column.data) {
            let zone = longs.blocks.get(at.block).copied();
            match (self.kind, zone) {
                (Kind::MinLong, Some(zone)) => values[0] = values[0].min(zone.min),
                (Kind::MaxLong, Some(zone)) => values[0] = values[0].max(zone.max),
                _ => {
                    let block = scratch.longs(column, slot, at.block);
                    let sum = block[..at.selection.count].iter().fold(0_i64, |sum, value| sum.wrapping_add(*value));
                    values[0] = values[0].wrapping_add(sum);
                }
            }
            self.mark(seen, at, selected);
            return;
        }
        let longs = scratch.longs(column, slot, at.block);
        let runs = at.runs.filter(|_| *selected == at.selection.mask);
        match (self.kind, runs) {
            (Kind::SumLong, Some(runs)) => {
                for run in runs {
                    let sum = if at.selection.all {
                        longs[run.places.clone()].iter().fold(0_i64, |sum, value| sum.wrapping_add(*value))
                    } else {
                        let rows = at.selection.rows()[run.places.clone()].iter();
                        rows.fold(0_i64, |sum, row| sum.wrapping_add(longs[usize::from(*row)]))
                    };
                    values[run.group] = values[run.group].wrapping_add(sum);
                }
            }
            (Kind::SumLong, None) => {
                each(at, selected, |group, row| values[group] = values[group].wrapping_add(longs[row]))
            }
            _ => each(at, selected, |group, row| self.add_long(&mut values[group], longs[row])),
        }
        self.mark(seen, at, selected);
    }

    fn mark(&self, seen: &mut IdSet, at: &StateBlock<'_>, selected: &Mask) {
        if self.always {
            return;
        }
        match (at.groups, at.runs.filter(|_| *selected == at.selection.mask)) {
            (GroupOf::One, _) => _ = seen.insert(0),
            (GroupOf::Each(_), Some(runs)) => {
                runs.iter().for_each(|run| _ = seen.insert(u32::try_from(run.group).unwrap_or(u32::MAX)));
            }
            (GroupOf::Each(_), None) => each(at, selected, |group, _| {
                seen.insert(u32::try_from(group).unwrap_or(u32::MAX));
            }),
        }
    }

    /// The ids of the selected rows, in their order.
    fn ids<'a>(
        &self,
        at: &StateBlock<'_>,
        slot: SlotId,
        scratch: &mut Scratch,
        selected: &Mask,
        ids: &'a mut [u32; BLOCK_ROWS],
    ) -> Result<&'a [u32], EngineError> {
        let text = at.slots[slot.0].text.as_ref();
        let text = text.ok_or_else(|| EngineError::Internal("a text state without ids".to_owned()))?;
        if *selected == at.selection.mask {
            scratch.ids(at.view, slot, text, at.block, at.selection, ids)?;
            return Ok(&ids[..at.selection.count]);
        }
        let mut rows = Selection::new();
        rows.set(*selected, at.view.block_rows(at.block));
        scratch.ids(at.view, slot, text, at.block, &rows, ids)?;
        Ok(&ids[..rows.count])
    }

    /// Adds all strings of a segment.
    pub(in crate::engine) fn add_ids(&self, state: &mut State, ids: &[u32]) {
        if let State::Ids(set) = state {
            ids.iter().filter(|id| **id != NULL_ID).for_each(|id| _ = set.insert(*id));
        }
    }

    /// Writes the selected rows' inputs down, in their order, and marks the rows that have one with `flag`.
    pub(in crate::engine) fn inputs(
        &self,
        at: &StateBlock<'_>,
        scratch: &mut Scratch,
        flag: u64,
        flags: &mut [u64],
        out: &mut Vec<u64>,
    ) -> Result<(), EngineError> {
        out.clear();
        out.resize(at.selection.count, 0);
        let mut selected = self.filter.map_or(at.selection.mask, |filter| at.filtered[filter]);
        let rows = at.selection.rows();
        if let Some(slot) = self.slot {
            let Some(column) = at.view.column(slot) else { return Ok(()) };
            if column.nulls > 0 {
                selected = mask::and(&selected, &at.view.valid(slot, at.block, scratch));
            }
            match (&column.data, self.kind) {
                (_, Kind::Values | Kind::Rows) => {}
                (Data::Longs(_), Kind::QuantilesLong(_)) => {
                    let longs = scratch.longs(column, slot, at.block);
                    let value = |row: u16| to_double(longs[usize::from(row)]).to_bits();
                    out.iter_mut().zip(rows).for_each(|(out, row)| *out = value(*row));
                }
                (Data::Longs(_), _) => {
                    let longs = scratch.longs(column, slot, at.block);
                    out.iter_mut().zip(rows).for_each(|(out, row)| *out = longs[usize::from(*row)].cast_unsigned());
                }
                (Data::Doubles(doubles), _) => {
                    let doubles = doubles.get(at.block * BLOCK_ROWS..).unwrap_or(&[]);
                    let value = |row: u16| doubles.get(usize::from(row)).copied().unwrap_or(0.0).to_bits();
                    out.iter_mut().zip(rows).for_each(|(out, row)| *out = value(*row));
                }
                (Data::Booleans(bits), _) => {
                    let bits = bits.block(at.block);
                    let value = |row: u16| u64::from(mask::is_set(&bits, usize::from(row)));
                    out.iter_mut().zip(rows).for_each(|(out, row)| *out = value(*row));
                }
                (Data::Codes(_) | Data::Plain(_), _) => {
                    let mut room = [0; BLOCK_ROWS];
                    let ids = self.ids(at, slot, scratch, &at.selection.mask, &mut room)?;
                    out.iter_mut().zip(ids).for_each(|(out, id)| *out = u64::from(*id));
                }
            }
        }
        let full = selected == at.selection.mask;
        for (flags, row) in flags.iter_mut().zip(rows) {
            if full || mask::is_set(&selected, usize::from(*row)) {
                *flags |= flag;
            }
        }
        Ok(())
    }

    /// Adds one row that was written down.
    #[inline]
    pub(in crate::engine) fn add_input(&self, state: &mut State, group: usize, input: u64) {
        match state {
            State::Counts(counts) => counts[group] += 1,
            State::Longs(values, seen) => {
                self.add_long(&mut values[group], input.cast_signed());
                if !self.always {
                    seen.insert(u32::try_from(group).unwrap_or(u32::MAX));
                }
            }
            State::Doubles(values, seen) => {
                self.add_double(&mut values[group], f64::from_bits(input));
                if !self.always {
                    seen.insert(u32::try_from(group).unwrap_or(u32::MAX));
                }
            }
            State::Pairs(pairs, counts) => add_pair(pairs, counts, group, input),
            State::Sketches(sketches, bytes) => add_to_sketch(&mut sketches[group], bytes, f64::from_bits(input)),
            // Only without keys, and then nothing is written down; and only of few groups.
            State::Ids(_) | State::Sets(_) | State::Histograms(_) => {}
        }
    }

    /// Adds another partial's groups, given as pairs of its group and the group of `into`.
    pub(in crate::engine) fn merge(&self, into: &mut State, from: &State, groups: &[(u32, u32)]) {
        let pairs = groups.iter().map(|(from, into)| (*from as usize, *into as usize));
        match (into, from) {
            (State::Counts(into), State::Counts(from)) => pairs.for_each(|(a, b)| into[b] += from[a]),
            (State::Longs(into, seen), State::Longs(from, from_seen)) => {
                pairs.for_each(|(a, b)| self.add_long(&mut into[b], from[a]));
                merge_seen(seen, from_seen, groups);
            }
            (State::Doubles(into, seen), State::Doubles(from, from_seen)) => {
                pairs.for_each(|(a, b)| self.add_double(&mut into[b], from[a]));
                merge_seen(seen, from_seen, groups);
            }
            (State::Ids(into), State::Ids(from)) => into.union(from),
            (State::Sets(into), State::Sets(from)) => pairs.for_each(|(a, b)| into[b].union(&from[a])),
            (State::Histograms(into), State::Histograms(from)) => {
                let values = self.domain.map_or(0, |(_, values)| values);
                for (a, b) in pairs {
                    let from = &from[a * values..(a + 1) * values];
                    into[b * values..(b + 1) * values].iter_mut().zip(from).for_each(|(into, from)| *into += from);
                }
            }
            (State::Sketches(into, bytes), State::Sketches(from, _)) => pairs.for_each(|(a, b)| {
                let before = into[b].heap_bytes();
                into[b].merge(&from[a]);
                *bytes = (*bytes + into[b].heap_bytes()).saturating_sub(before);
            }),
            (State::Pairs(into, counts), State::Pairs(from, from_counts)) => {
                let mut group_of = vec![u32::MAX; from_counts.len()];
                groups.iter().for_each(|(from, into)| group_of[*from as usize] = *into);
                for pair in from.keys() {
                    let group = usize::try_from(pair[0]).ok().and_then(|group| group_of.get(group).copied());
                    if let Some(group) = group.filter(|group| *group != u32::MAX) {
                        add_pair(into, counts, group as usize, pair[1]);
                    }
                }
            }
            _ => {}
        }
    }
}

fn merge_seen(into: &mut IdSet, from: &IdSet, groups: &[(u32, u32)]) {
    if from.size_bytes() > 0 {
        groups
            .iter()
            .filter(|(from_group, _)| from.contains(*from_group))
            .for_each(|(_, group)| _ = into.insert(*group));
    }
}

/// Adds a value, and what the sketch has grown by.
#[inline]
fn add_to_sketch(sketch: &mut Quantiles, bytes: &mut usize, value: f64) {
    let before = sketch.heap_bytes();
    sketch.add(value);
    *bytes = (*bytes + sketch.heap_bytes()).saturating_sub(before);
}

fn add_pair(pairs: &mut KeyTable<2>, counts: &mut [i64], group: usize, value: u64) {
    let before = pairs.len();
    pairs.group(&[group as u64, value]);
    counts[group] += i64::from(pairs.len() > before);
}

/// Calls `add` with group and row of every selected row, ascending.
#[inline]
fn each(at: &StateBlock<'_>, selected: &Mask, mut add: impl FnMut(usize, usize)) {
    let full = *selected == at.selection.mask;
    match at.groups {
        GroupOf::One if full && at.selection.all => (0..at.selection.count).for_each(|row| add(0, row)),
        GroupOf::One => mask::for_each(selected, |row| add(0, row)),
        GroupOf::Each(groups) if full && at.selection.all => {
            groups.iter().enumerate().for_each(|(row, group)| add(*group as usize, row));
        }
        GroupOf::Each(groups) => {
            for (group, row) in groups.iter().zip(at.selection.rows()) {
                if full || mask::is_set(selected, usize::from(*row)) {
                    add(*group as usize, usize::from(*row));
                }
            }
        }
    }
}
