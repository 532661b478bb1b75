//! Aggregate states: one value per group, in columns, and the loops that update them.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, TimestampMillisecondArray};
use arrow_schema::{DataType, Field};

use super::columns::{Scratch, Selection, Slot, SlotId, SlotNames, View};
use super::error::EngineError;
use super::filter::{Leaves, Node};
use super::mask;
use super::query::{Aggregate, Function};
use super::table::KeyTable;
use crate::dictionary::IdSet;
use crate::schema::ColumnType;
use crate::segment::bitmap::Mask;
use crate::segment::column::{Column, Data};
use crate::segment::packing::BLOCK_ROWS;

/// Sets of ids of all groups together take at most this; beyond, a table of pairs is used.
const SETS_BYTES_MAX: usize = 64 << 20;

/// What is added up for an aggregate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Rows, by the aggregate's own filter.
    Rows,
    Values,
    SumLong,
    SumDouble,
    MinLong,
    MaxLong,
    MinDouble,
    MaxDouble,
    DistinctText,
    DistinctLong,
}

/// One state of the query.
#[derive(Debug)]
pub(super) struct StatePlan {
    kind: Kind,
    slot: Option<SlotId>,
    /// Rows its own filter selects.
    filter: Option<usize>,
    /// Every selected row has a value, so that a group with rows has one.
    always: bool,
}

/// How an aggregate of the answer is made from states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Output {
    /// The rows of the group.
    Rows,
    State(usize),
    /// A sum by a count.
    Average(usize, usize),
}

/// An aggregate of the answer.
#[derive(Debug)]
pub(super) struct AggregatePlan {
    pub(super) name: String,
    pub(super) output: Output,
    ty: ColumnType,
    nullable: bool,
}

/// The states and filters of all aggregates; equal ones are shared.
#[derive(Debug, Default)]
pub(super) struct States {
    pub(super) plans: Vec<StatePlan>,
    pub(super) filters: Vec<Node>,
}

impl States {
    pub(super) fn plan(
        &mut self,
        aggregate: &Aggregate,
        names: &mut SlotNames<'_>,
        leaves: &mut Leaves,
    ) -> Result<AggregatePlan, EngineError> {
        let filter = match &aggregate.filter {
            None => None,
            Some(filter) => {
                self.filters.push(leaves.plan(filter, names)?);
                Some(self.filters.len() - 1)
            }
        };
        let (output, ty, nullable) = match &aggregate.function {
            Function::Count => match filter {
                None => (Output::Rows, ColumnType::Long, false),
                Some(_) => (Output::State(self.state(Kind::Rows, None, filter)), ColumnType::Long, false),
            },
            Function::CountColumn(column) => {
                let (slot, _) = names.slot(column)?;
                (Output::State(self.state(Kind::Values, Some(slot), filter)), ColumnType::Long, false)
            }
            Function::Sum(column) => {
                let (slot, ty) = names.slot(column)?;
                let (kind, ty) = sum_kind(column, ty)?;
                (Output::State(self.state(kind, Some(slot), filter)), ty, true)
            }
            Function::Average(column) => {
                let (slot, ty) = names.slot(column)?;
                let (kind, _) = sum_kind(column, ty)?;
                let sum = self.state(kind, Some(slot), filter);
                let count = self.state(Kind::Values, Some(slot), filter);
                (Output::Average(sum, count), ColumnType::Double, true)
            }
            Function::Min(column) | Function::Max(column) => {
                let (slot, ty) = names.slot(column)?;
                let least = matches!(aggregate.function, Function::Min(_));
                let kind = match (ty, least) {
                    (ColumnType::Long | ColumnType::Timestamp, true) => Kind::MinLong,
                    (ColumnType::Long | ColumnType::Timestamp, false) => Kind::MaxLong,
                    (ColumnType::Double, true) => Kind::MinDouble,
                    (ColumnType::Double, false) => Kind::MaxDouble,
                    _ => return Err(unsupported("the least or greatest", column, ty)),
                };
                (Output::State(self.state(kind, Some(slot), filter)), ty, true)
            }
            Function::CountDistinct(column) => {
                let (slot, ty) = names.slot(column)?;
                let kind = match ty {
                    ColumnType::String | ColumnType::Json => Kind::DistinctText,
                    ColumnType::Long | ColumnType::Timestamp | ColumnType::Boolean => Kind::DistinctLong,
                    _ => return Err(unsupported("the distinct values", column, ty)),
                };
                (Output::State(self.state(kind, Some(slot), filter)), ColumnType::Long, false)
            }
        };
        Ok(AggregatePlan { name: aggregate.name.clone(), output, ty, nullable })
    }

    fn state(&mut self, kind: Kind, slot: Option<SlotId>, filter: Option<usize>) -> usize {
        let same = |plan: &StatePlan| plan.kind == kind && plan.slot == slot && plan.filter == filter;
        if let Some(at) = self.plans.iter().position(same) {
            return at;
        }
        self.plans.push(StatePlan { kind, slot, filter, always: false });
        self.plans.len() - 1
    }

    /// Looks which states can do without a bit per group.
    pub(super) fn settle(&mut self, views: &[Option<View>]) {
        for plan in &mut self.plans {
            let full = |view: &View| match plan.slot.map(|slot| view.column(slot)) {
                None => true,
                Some(None) => false,
                Some(Some(column)) => column.nulls == 0,
            };
            plan.always = plan.filter.is_none() && views.iter().flatten().all(full);
        }
    }

    /// The longs of a state by group, where every group with rows has one.
    pub(super) fn longs<'a>(&self, output: Output, rows: &'a [i64], states: &'a [State]) -> Option<&'a [i64]> {
        match output {
            Output::Rows => Some(rows),
            Output::State(at) => match states.get(at)? {
                State::Counts(values) | State::Pairs(_, values) => Some(values),
                State::Longs(values, _) if self.plans.get(at)?.always => Some(values),
                _ => None,
            },
            Output::Average(..) => None,
        }
    }

    /// Bytes a group takes, roughly.
    pub(super) fn group_bytes(&self) -> usize {
        8 + self.plans.len() * 9
    }
}

fn sum_kind(column: &str, ty: ColumnType) -> Result<(Kind, ColumnType), EngineError> {
    match ty {
        ColumnType::Long => Ok((Kind::SumLong, ColumnType::Long)),
        ColumnType::Double => Ok((Kind::SumDouble, ColumnType::Double)),
        _ => Err(unsupported("the sum", column, ty)),
    }
}

fn unsupported(what: &str, column: &str, ty: ColumnType) -> EngineError {
    EngineError::Unsupported(format!("{what} of column {column:?} of type {ty}"))
}

impl AggregatePlan {
    pub(super) fn arrow_field(&self) -> Field {
        Field::new(&self.name, self.ty.arrow(), self.nullable)
    }
}

/// One state's values by group.
#[derive(Debug)]
pub(super) enum State {
    Counts(Vec<i64>),
    Longs(Vec<i64>, IdSet),
    Doubles(Vec<f64>, IdSet),
    /// Distinct ids of the one group.
    Ids(IdSet),
    /// Distinct ids of each group, when the groups are few.
    Sets(Vec<IdSet>),
    /// Distinct pairs of group and value, and how many each group has.
    Pairs(KeyTable<2>, Vec<i64>),
}

/// What a block's rows belong to.
#[derive(Clone, Copy)]
pub(super) enum GroupOf<'a> {
    One,
    /// By place in the selection.
    Each(&'a [u32]),
}

/// A block on its way into the states.
pub(super) struct StateBlock<'a> {
    pub(super) view: &'a View,
    pub(super) slots: &'a [Slot],
    pub(super) block: usize,
    pub(super) selection: &'a Selection,
    pub(super) groups: GroupOf<'a>,
    /// What each aggregate filter selects of the block's selected rows.
    pub(super) filtered: &'a [Mask],
}

impl StatePlan {
    /// An empty state; `groups` is how many there can be at most, where that is known.
    pub(super) fn start(&self, slots: &[Slot], groups: Option<usize>) -> State {
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
        }
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
    pub(super) fn grow(&self, state: &mut State, groups: usize) {
        match state {
            State::Counts(values) => values.resize(groups, 0),
            State::Longs(values, _) => values.resize(groups, self.first_long()),
            State::Doubles(values, _) => values.resize(groups, self.first_double()),
            State::Pairs(_, counts) => counts.resize(groups, 0),
            State::Sets(sets) => sets.resize(groups, IdSet::default()),
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
    pub(super) fn update(
        &self,
        state: &mut State,
        at: &StateBlock<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), EngineError> {
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
        match (state, &column.data) {
            (State::Counts(counts), _) => each(at, &selected, |group, _| counts[group] += 1),
            (State::Longs(values, seen), Data::Longs(_)) => {
                self.update_longs((values, seen), at, column, slot, scratch, &selected);
            }
            (State::Doubles(values, seen), Data::Doubles(doubles)) => {
                let doubles = doubles.get(at.block * BLOCK_ROWS..).unwrap_or(&[]);
                let value = |row: usize| doubles.get(row).copied().unwrap_or(0.0);
                match self.kind {
                    Kind::SumDouble => each(at, &selected, |group, row| values[group] += value(row)),
                    _ => each(at, &selected, |group, row| self.add_double(&mut values[group], value(row))),
                }
                self.mark(seen, at, &selected);
            }
            (State::Ids(ids), Data::Codes(_) | Data::Plain(_)) => {
                self.ids(at, slot, scratch, &selected)?.iter().for_each(|id| _ = ids.insert(*id));
            }
            (State::Sets(sets), Data::Codes(_) | Data::Plain(_)) => {
                let mut ids = self.ids(at, slot, scratch, &selected)?.into_iter();
                each(at, &selected, |group, _| {
                    if let Some(id) = ids.next() {
                        sets[group].insert(id);
                    }
                });
            }
            (State::Pairs(pairs, counts), Data::Codes(_) | Data::Plain(_)) => {
                let mut ids = self.ids(at, slot, scratch, &selected)?.into_iter();
                each(at, &selected, |group, _| {
                    if let Some(id) = ids.next() {
                        add_pair(pairs, counts, group, u64::from(id));
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
            _ => return Err(EngineError::Internal(format!("a state over column {:?} of another type", column.name()))),
        }
        Ok(())
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
        match self.kind {
            Kind::SumLong => each(at, selected, |group, row| values[group] = values[group].wrapping_add(longs[row])),
            _ => each(at, selected, |group, row| self.add_long(&mut values[group], longs[row])),
        }
        self.mark(seen, at, selected);
    }

    fn mark(&self, seen: &mut IdSet, at: &StateBlock<'_>, selected: &Mask) {
        if self.always {
            return;
        }
        match at.groups {
            GroupOf::One => _ = seen.insert(0),
            GroupOf::Each(_) => each(at, selected, |group, _| {
                seen.insert(u32::try_from(group).unwrap_or(u32::MAX));
            }),
        }
    }

    /// The ids of the selected rows, in their order.
    fn ids(
        &self,
        at: &StateBlock<'_>,
        slot: SlotId,
        scratch: &mut Scratch,
        selected: &Mask,
    ) -> Result<Vec<u32>, EngineError> {
        let text = at.slots[slot.0].text.as_ref();
        let text = text.ok_or_else(|| EngineError::Internal("a text state without ids".to_owned()))?;
        let mut rows = Selection::new();
        rows.set(*selected, at.view.block_rows(at.block));
        let mut ids = [0; BLOCK_ROWS];
        scratch.ids(at.view, slot, text, at.block, &rows, &mut ids)?;
        Ok(ids[..rows.count].to_vec())
    }

    /// Writes the selected rows' inputs down, in their order, and marks the rows that have one with `flag`.
    pub(super) fn inputs(
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
                    let ids = self.ids(at, slot, scratch, &at.selection.mask)?;
                    out.iter_mut().zip(&ids).for_each(|(out, id)| *out = u64::from(*id));
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
    pub(super) fn add_input(&self, state: &mut State, group: usize, input: u64) {
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
            // Only without keys, and then nothing is written down; and only of few groups.
            State::Ids(_) | State::Sets(_) => {}
        }
    }

    /// Adds another partial's groups, given as pairs of its group and the group of `into`.
    pub(super) fn merge(&self, into: &mut State, from: &State, groups: &[(u32, u32)]) {
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

impl State {
    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Self::Counts(values) => values.capacity() * 8,
            Self::Longs(values, seen) => values.capacity() * 8 + seen.size_bytes(),
            Self::Doubles(values, seen) => values.capacity() * 8 + seen.size_bytes(),
            Self::Ids(ids) => ids.size_bytes(),
            Self::Sets(sets) => sets.iter().map(|set| set.size_bytes() + size_of::<IdSet>()).sum(),
            Self::Pairs(pairs, counts) => pairs.size_bytes() + counts.capacity() * 8,
        }
    }

    fn long(&self, group: u32, always: bool) -> Option<i64> {
        let at = group as usize;
        match self {
            Self::Counts(values) | Self::Pairs(_, values) => Some(values.get(at).copied().unwrap_or(0)),
            Self::Longs(values, seen) => (always || seen.contains(group)).then(|| values.get(at).copied())?,
            Self::Ids(ids) => i64::try_from(ids.count()).ok(),
            Self::Sets(sets) => i64::try_from(sets.get(at).map_or(0, IdSet::count)).ok(),
            Self::Doubles(..) => None,
        }
    }

    fn double(&self, group: u32, always: bool) -> Option<f64> {
        match self {
            Self::Doubles(values, seen) => {
                (always || seen.contains(group)).then(|| values.get(group as usize).copied())?
            }
            _ => self.long(group, always).map(to_double),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an average is a double")]
fn to_double(value: i64) -> f64 {
    value as f64
}

/// An aggregate of the answer by group, before it is built: to sort by, and to build from.
pub(super) enum AggregateValues {
    Longs(Vec<Option<i64>>),
    Doubles(Vec<Option<f64>>),
}

impl AggregatePlan {
    /// The aggregate's values for some groups.
    pub(super) fn values(
        &self,
        plans: &[StatePlan],
        rows: &[i64],
        states: &[State],
        groups: &[u32],
    ) -> AggregateValues {
        let count = |group: &u32| rows.get(*group as usize).copied().unwrap_or(0);
        // With no row at all, not even a group that exists has a value.
        let always = |plan: &StatePlan, group: &u32| plan.always && count(group) > 0;
        match self.output {
            Output::Rows => AggregateValues::Longs(groups.iter().map(|group| Some(count(group))).collect()),
            Output::State(at) if matches!(states[at], State::Doubles(..)) => AggregateValues::Doubles(
                groups.iter().map(|group| states[at].double(*group, always(&plans[at], group))).collect(),
            ),
            Output::State(at) => AggregateValues::Longs(
                groups.iter().map(|group| states[at].long(*group, always(&plans[at], group))).collect(),
            ),
            Output::Average(sum, counted) => AggregateValues::Doubles(
                groups
                    .iter()
                    .map(|group| {
                        let counted = states[counted].long(*group, true).filter(|counted| *counted > 0)?;
                        let sum = states[sum].double(*group, always(&plans[sum], group))?;
                        Some(sum / to_double(counted))
                    })
                    .collect(),
            ),
        }
    }

    /// The answer's column.
    pub(super) fn array(&self, values: AggregateValues) -> ArrayRef {
        match (values, self.arrow_field().data_type()) {
            (AggregateValues::Longs(values), DataType::Timestamp(..)) => {
                Arc::new(values.into_iter().collect::<TimestampMillisecondArray>())
            }
            (AggregateValues::Longs(values), _) => Arc::new(values.into_iter().collect::<Int64Array>()),
            (AggregateValues::Doubles(values), _) => Arc::new(values.into_iter().collect::<Float64Array>()),
        }
    }
}
