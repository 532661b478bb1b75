//! Aggregate states: one value per group, in columns, and the loops that update them.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, TimestampMillisecondArray};
use arrow_schema::{DataType, Field};

use super::columns::{Selection, Slot, SlotId, SlotNames, View};
use super::error::EngineError;
use super::filter::{Leaves, Node};
use super::query::{Aggregate, Function};
use super::table::KeyTable;
use crate::dictionary::IdSet;
use crate::schema::ColumnType;
use crate::segment::bitmap::Mask;
use crate::segment::column::Data;
use crate::sketch::{Quantiles, Share};

mod update;

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
    /// A sketch of this accuracy: of longs, of doubles.
    QuantilesLong(u16),
    QuantilesDouble(u16),
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
    /// Least value and number of values there can be, where a quantile's are few enough to count each.
    domain: Option<(i64, usize)>,
}

/// Most different values that are counted one by one.
const DOMAIN_MAX: usize = 1 << 16;

/// How an aggregate of the answer is made from states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Output {
    /// The rows of the group.
    Rows,
    State(usize),
    /// A sum by a count.
    Average(usize, usize),
    Quantile(usize, Share),
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
            Function::Quantile { column, share, k } => {
                let (slot, ty) = names.slot(column)?;
                let kind = match ty {
                    ColumnType::Long => Kind::QuantilesLong(*k),
                    ColumnType::Double => Kind::QuantilesDouble(*k),
                    _ => return Err(unsupported("a quantile", column, ty)),
                };
                (Output::Quantile(self.state(kind, Some(slot), filter), *share), ColumnType::Double, true)
            }
        };
        Ok(AggregatePlan { name: aggregate.name.clone(), output, ty, nullable })
    }

    fn state(&mut self, kind: Kind, slot: Option<SlotId>, filter: Option<usize>) -> usize {
        let same = |plan: &StatePlan| plan.kind == kind && plan.slot == slot && plan.filter == filter;
        if let Some(at) = self.plans.iter().position(same) {
            return at;
        }
        self.plans.push(StatePlan { kind, slot, filter, always: false, domain: None });
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
            if let (Kind::QuantilesLong(_), Some(slot)) = (plan.kind, plan.slot) {
                plan.domain = domain_of(slot, views);
            }
        }
    }

    /// The longs of a state by group, where every group with rows has one.
    pub(super) fn longs<'a>(&self, output: Output, rows: &'a [i64], states: &'a [State]) -> Option<&'a [i64]> {
        match output {
            Output::Rows => Some(rows),
            Output::State(at) if self.plans.get(at)?.counts_rows() => Some(rows),
            Output::State(at) => match states.get(at)? {
                State::Counts(values) | State::Pairs(_, values) => Some(values),
                State::Longs(values, _) if self.plans.get(at)?.always => Some(values),
                _ => None,
            },
            Output::Average(..) | Output::Quantile(..) => None,
        }
    }

    /// The one state, if it is the distinct strings of the one group, all rows.
    pub(super) fn distinct_strings(&self) -> Option<SlotId> {
        match self.plans.as_slice() {
            [StatePlan { kind: Kind::DistinctText, slot, filter: None, .. }] => *slot,
            _ => None,
        }
    }

    /// Bytes a group takes, roughly.
    pub(super) fn group_bytes(&self) -> usize {
        let bytes = |plan: &StatePlan| match plan.kind {
            Kind::QuantilesLong(_) | Kind::QuantilesDouble(_) => size_of::<Quantiles>(),
            _ => 9,
        };
        8 + self.plans.iter().map(bytes).sum::<usize>()
    }
}

impl StatePlan {
    /// It is how many rows the group has: every row has a value.
    fn counts_rows(&self) -> bool {
        self.kind == Kind::Values && self.always
    }
}

/// The least value of a long column and how many there can be, if they are few, and so few rows that 32 bits count them.
fn domain_of(slot: SlotId, views: &[Option<View>]) -> Option<(i64, usize)> {
    let rows: usize = views.iter().flatten().map(|view| view.segment.rows()).sum();
    u32::try_from(rows).ok()?;
    let columns = views.iter().flatten().filter_map(|view| view.column(slot));
    let mut range: Option<(i64, i64)> = None;
    for column in columns {
        let Data::Longs(longs) = &column.data else { return None };
        let Some((min, max)) = longs.range() else { continue };
        range = Some(range.map_or((min, max), |(least, greatest)| (least.min(min), greatest.max(max))));
    }
    let (min, max) = range?;
    let values = usize::try_from(max.checked_sub(min)?).ok()?.checked_add(1)?;
    (values <= DOMAIN_MAX).then_some((min, values))
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
    /// A sketch of each group, and the memory of all.
    Sketches(Vec<Quantiles>, usize),
    /// The same exactly, of few values and groups: how often each value is there, group after group.
    Histograms(Vec<u32>),
}

/// What a block's rows belong to.
#[derive(Clone, Copy)]
pub(super) enum GroupOf<'a> {
    One,
    /// By place in the selection.
    Each(&'a [u32]),
}

/// Rows of the selection, by place, that belong to one group.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) group: usize,
    pub(super) places: Range<usize>,
}

/// More runs than these are no shorter way.
const RUNS_MAX: usize = 32;

/// The runs of groups, if they are few: rows in order of time and groups that are pieces of time.
pub(super) fn runs_of(groups: &[u32], runs: &mut Vec<Run>) -> bool {
    runs.clear();
    let mut from = 0;
    for run in groups.chunk_by(|a, b| a == b) {
        if runs.len() == RUNS_MAX {
            return false;
        }
        runs.push(Run { group: run[0] as usize, places: from..from + run.len() });
        from += run.len();
    }
    !runs.is_empty()
}

/// A block on its way into the states.
pub(super) struct StateBlock<'a> {
    pub(super) view: &'a View,
    pub(super) slots: &'a [Slot],
    pub(super) block: usize,
    pub(super) selection: &'a Selection,
    pub(super) groups: GroupOf<'a>,
    /// The selection as runs of one group, where they are few.
    pub(super) runs: Option<&'a [Run]>,
    /// What each aggregate filter selects of the block's selected rows.
    pub(super) filtered: &'a [Mask],
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
            Self::Sketches(sketches, bytes) => sketches.capacity() * size_of::<Quantiles>() + bytes,
            Self::Histograms(counts) => counts.capacity() * 4,
        }
    }

    fn long(&self, group: u32, always: bool) -> Option<i64> {
        let at = group as usize;
        match self {
            Self::Counts(values) | Self::Pairs(_, values) => Some(values.get(at).copied().unwrap_or(0)),
            Self::Longs(values, seen) => (always || seen.contains(group)).then(|| values.get(at).copied())?,
            Self::Ids(ids) => i64::try_from(ids.count()).ok(),
            Self::Sets(sets) => i64::try_from(sets.get(at).map_or(0, IdSet::count)).ok(),
            Self::Doubles(..) | Self::Sketches(..) | Self::Histograms(_) => None,
        }
    }

    fn quantile(&self, group: u32, share: Share, domain: Option<(i64, usize)>) -> Option<f64> {
        match (self, domain) {
            (Self::Sketches(sketches, _), _) => sketches.get(group as usize)?.quantile(share),
            (Self::Histograms(counts), Some((least, values))) => {
                let counts = counts.get(group as usize * values..(group as usize + 1) * values)?;
                let all: u64 = counts.iter().map(|count| u64::from(*count)).sum();
                let wanted = share.rank(all)?;
                let mut passed = 0;
                let at = counts.iter().position(|count| {
                    passed += u64::from(*count);
                    passed >= wanted
                });
                Some(to_double(least.saturating_add(i64::try_from(at?).ok()?)))
            }
            _ => None,
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
            Output::State(at) if plans[at].counts_rows() => {
                AggregateValues::Longs(groups.iter().map(|group| Some(count(group))).collect())
            }
            Output::State(at) => AggregateValues::Longs(
                groups.iter().map(|group| states[at].long(*group, always(&plans[at], group))).collect(),
            ),
            Output::Quantile(at, share) => AggregateValues::Doubles(
                groups.iter().map(|group| states[at].quantile(*group, share, plans[at].domain)).collect(),
            ),
            Output::Average(sum, counted) => AggregateValues::Doubles(
                groups
                    .iter()
                    .map(|group| {
                        let counted = match plans[counted].counts_rows() {
                            true => count(group),
                            false => states[counted].long(*group, true)?,
                        };
                        if counted <= 0 {
                            return None;
                        }
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
