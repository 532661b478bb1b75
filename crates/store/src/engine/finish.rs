//! The answer of an aggregation: groups that occur, sorted, cut, and only then turned into Arrow.

use std::cmp::Ordering;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};

use super::aggregate::{Aggregation, Groups, Partial};
use super::error::EngineError;
use super::keys::KeyValues;
use super::query::{OrderBy, OrderTarget};
use super::states::AggregateValues;

/// A column to sort by.
enum SortColumn {
    Longs(Vec<Option<i64>>),
    Doubles(Vec<Option<f64>>),
    Texts(Vec<Option<Box<str>>>),
}

pub(super) fn finish(plan: &Aggregation, partial: &Partial) -> Result<RecordBatch, EngineError> {
    let mut groups = match partial.groups {
        Groups::One => vec![0],
        _ => first_groups(plan, partial, None),
    };
    if !plan.order.is_empty() {
        groups = sort(plan, partial, groups);
    }
    groups.truncate(plan.limit.unwrap_or(usize::MAX));
    build(plan, partial, &groups)
}

/// The groups that occur and can be among the first of the order, in none. `best` are the groups found elsewhere that
/// they have to be better than.
pub(super) fn first_groups(plan: &Aggregation, partial: &Partial, best: Option<&Partial>) -> Vec<u32> {
    let limit = plan.limit.unwrap_or(usize::MAX);
    let occurring = || (0..).zip(&partial.rows).filter(|(_, rows)| **rows > 0);
    if let Some(first) = plan.order.first()
        && let OrderTarget::Aggregate(at) = first.target
        && let Some(longs) = plan.states.longs(plan.aggregates[at].output, &partial.rows, &partial.states)
        && limit > 0
        && partial.rows.len() > limit
    {
        let rank = |value: i64| if first.descending { !value } else { value };
        let least = best.and_then(|best| {
            let longs = plan.states.longs(plan.aggregates[at].output, &best.rows, &best.states)?;
            edge(longs.iter().map(|value| rank(*value)).collect(), limit)
        });
        let mut least = least.unwrap_or(i64::MAX);
        if best.and_then(|best| best.groups.len()).is_some_and(|groups| groups >= TIES_MAX + limit) {
            least = least.saturating_sub(1);
        }
        let ranks = occurring().map(|(group, _): (u32, _)| (rank(longs[group as usize]), group));
        let ranks = least_ranks(ranks.filter(|(rank, _)| *rank <= least), limit);
        let last = edge(ranks.iter().map(|(rank, _)| *rank).collect(), limit).unwrap_or(i64::MAX);
        return within(&ranks, last, limit);
    }
    let groups: Vec<u32> = occurring().map(|(group, _)| group).collect();
    match plan.order.first() {
        Some(first) if limit < groups.len() / 2 => narrow(plan, partial, groups, *first, limit),
        _ => groups,
    }
}

/// All pairs that are not behind the `limit`th, and some that are; holds few at a time, where ranks differ.
fn least_ranks(pairs: impl Iterator<Item = (i64, u32)>, limit: usize) -> Vec<(i64, u32)> {
    let mut kept: Vec<(i64, u32)> = Vec::new();
    let (mut full, mut least) = (limit.saturating_mul(4).max(4_096), i64::MAX);
    for (rank, group) in pairs {
        if rank > least {
            continue;
        }
        kept.push((rank, group));
        if kept.len() >= full {
            least = kept.select_nth_unstable(limit - 1).1.0;
            kept.retain(|(rank, _)| *rank <= least);
            full = full.max(kept.len() * 2);
        }
    }
    kept
}

/// The `limit`th of some ranks, if there are so many.
fn edge(mut ranks: Vec<i64>, limit: usize) -> Option<i64> {
    let at = limit.checked_sub(1).filter(|at| *at < ranks.len())?;
    Some(*ranks.select_nth_unstable(at).1)
}

/// Groups of equal rank at the edge of the limit are told apart by their keys, as long as they are so many.
const TIES_MAX: usize = 1 << 16;

fn within(ranks: &[(i64, u32)], last: i64, limit: usize) -> Vec<u32> {
    let mut groups: Vec<u32> = ranks.iter().filter(|(rank, _)| *rank < last).map(|(_, group)| *group).collect();
    let ties = ranks.iter().filter(|(rank, _)| *rank == last).map(|(_, group)| *group);
    groups.extend(ties.take(TIES_MAX.max(limit)));
    groups
}

fn build(plan: &Aggregation, partial: &Partial, groups: &[u32]) -> Result<RecordBatch, EngineError> {
    let (words, width) = partial.groups.keys(groups);
    let keys: Vec<&[u64]> = words.chunks_exact(width).collect();
    let mut arrays: Vec<ArrayRef> = plan.keys.iter().map(|key| key.array(&plan.slots, &keys)).collect();
    for aggregate in &plan.aggregates {
        let values = aggregate.values(&plan.states.plans, &partial.rows, &partial.states, groups);
        arrays.push(aggregate.array(values));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(groups.len()));
    RecordBatch::try_new_with_options(plan.schema(), arrays, &options)
        .map_err(|error| EngineError::Internal(error.to_string()))
}

/// The first groups of the order, in it. Ties are broken by the keys, so that the answer is always the same.
fn sort(plan: &Aggregation, partial: &Partial, groups: Vec<u32>) -> Vec<u32> {
    let limit = plan.limit.unwrap_or(usize::MAX);
    let mut order = plan.order.clone();
    let by_key = |at| OrderBy { target: OrderTarget::Key(at), descending: false, nulls_first: true };
    order.extend((0..plan.keys.len()).map(by_key));
    let columns: Vec<(OrderBy, SortColumn)> =
        order.iter().map(|order| (*order, column(plan, partial, &groups, *order))).collect();
    let mut places: Vec<usize> = (0..groups.len()).collect();
    let compare = |a: &usize, b: &usize| {
        let orders = columns.iter().map(|(order, column)| column.compare(*a, *b, *order));
        orders.fold(Ordering::Equal, Ordering::then)
    };
    if limit < places.len() && limit > 0 {
        places.select_nth_unstable_by(limit - 1, compare);
        places.truncate(limit);
    }
    places.sort_unstable_by(compare);
    places.into_iter().map(|place| groups[place]).collect()
}

/// Keeps the groups that are not behind the `limit`th by the first column of the order alone: few, usually.
fn narrow(plan: &Aggregation, partial: &Partial, groups: Vec<u32>, first: OrderBy, limit: usize) -> Vec<u32> {
    if limit == 0 || matches!(first.target, OrderTarget::Key(_)) {
        return groups;
    }
    let column = column(plan, partial, &groups, first);
    let mut places: Vec<usize> = (0..groups.len()).collect();
    let (_, edge, _) = places.select_nth_unstable_by(limit - 1, |a, b| column.compare(*a, *b, first));
    let edge = *edge;
    let mut ties = 0;
    let kept = groups.iter().enumerate().filter(|(place, _)| match column.compare(*place, edge, first) {
        Ordering::Less => true,
        Ordering::Equal => {
            ties += 1;
            ties <= TIES_MAX.max(limit)
        }
        Ordering::Greater => false,
    });
    kept.map(|(_, group)| *group).collect()
}

fn column(plan: &Aggregation, partial: &Partial, groups: &[u32], order: OrderBy) -> SortColumn {
    match order.target {
        OrderTarget::Aggregate(at) => {
            match plan.aggregates[at].values(&plan.states.plans, &partial.rows, &partial.states, groups) {
                AggregateValues::Longs(values) => SortColumn::Longs(values),
                AggregateValues::Doubles(values) => SortColumn::Doubles(values),
            }
        }
        OrderTarget::Key(at) => {
            let (words, width) = partial.groups.keys(groups);
            let keys: Vec<&[u64]> = words.chunks_exact(width).collect();
            match plan.keys[at].values(&plan.slots, &keys) {
                KeyValues::Numbers(values) => SortColumn::Longs(values),
                KeyValues::Doubles(values) => SortColumn::Doubles(values),
                KeyValues::Texts(values) => SortColumn::Texts(values),
            }
        }
    }
}

impl SortColumn {
    fn compare(&self, a: usize, b: usize, order: OrderBy) -> Ordering {
        match self {
            Self::Longs(values) => compare(values[a].as_ref(), values[b].as_ref(), order, i64::cmp),
            Self::Doubles(values) => compare(values[a].as_ref(), values[b].as_ref(), order, f64::total_cmp),
            Self::Texts(values) => compare(values[a].as_deref(), values[b].as_deref(), order, str::cmp),
        }
    }
}

fn compare<T: ?Sized>(a: Option<&T>, b: Option<&T>, order: OrderBy, with: fn(&T, &T) -> Ordering) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if order.descending => with(b, a),
        (Some(a), Some(b)) => with(a, b),
        (None, None) => Ordering::Equal,
        (None, Some(_)) => {
            if order.nulls_first {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (Some(_), None) => {
            if order.nulls_first {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
    }
}
