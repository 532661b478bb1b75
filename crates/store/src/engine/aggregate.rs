//! Grouped aggregation: plan once, run units on any threads, merge, finish.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};

use super::columns::{Scratch, Selection, Slot, SlotNames, View};
use super::error::EngineError;
use super::filter::{Leaves, Node, SegmentFilter, Verdict};
use super::keys::{KeyBlock, KeyPlan, Layout, MapCache};
use super::query::{AggregateQuery, Cancel, Filter, Limits, OrderBy, OrderTarget};
use super::spill::{self, Spill};
use super::states::{AggregatePlan, GroupOf, Run, State, StateBlock, States, runs_of};
use super::table::KeyTable;
use super::units::{self, Unit};
use crate::segment::bitmap::{Mask, mask_of};
use crate::segment::column::Data;
use crate::segment::packing::BLOCK_ROWS;
use crate::snapshot::TableSnapshot;

mod groups;
mod merge;

pub(super) use groups::Groups;
pub use merge::Merged;

/// Cancellation and memory are looked at every so many blocks.
const CHECK_BLOCKS: usize = 16;
/// An array of groups by key up to so many key bits always ..
const DENSE_BITS_ALWAYS: u32 = 14;
/// .. and up to so many when the rows are worth it.
const DENSE_BITS_MAX: u32 = 26;
/// Most aggregates of one query.
const AGGREGATES_MAX: usize = 1_000;

/// A planned aggregation over one snapshot. Shared by all threads that work on it.
#[derive(Debug)]
pub struct Aggregation {
    pub(super) slots: Vec<Slot>,
    views: Vec<Option<View>>,
    leaves: Leaves,
    filter: Node,
    /// By segment, tied to its codes when a thread first works on it.
    bound: Vec<OnceLock<SegmentFilter>>,
    pub(super) keys: Vec<KeyPlan>,
    pub(super) layout: Layout,
    dense: bool,
    pub(super) states: States,
    pub(super) aggregates: Vec<AggregatePlan>,
    pub(super) order: Vec<OrderBy>,
    pub(super) limit: Option<usize>,
    memory: Arc<Memory>,
    cancel: Cancel,
    schema: SchemaRef,
}

/// The memory of all partials of a query together.
#[derive(Debug)]
struct Memory {
    used_bytes: AtomicUsize,
    limit_bytes: usize,
}

/// What one thread has added up so far.
#[derive(Debug)]
pub struct Partial {
    pub(super) groups: Groups,
    /// Rows by group.
    pub(super) rows: Vec<i64>,
    pub(super) states: Vec<State>,
    work: Option<Box<Work>>,
    spill: Option<Spill>,
    /// Rows added so far.
    added: usize,
    /// Partials merged into this one that cannot be added up yet, because rows were written down.
    others: Vec<Partial>,
    memory: Arc<Memory>,
    charged_bytes: usize,
}

/// A thread's room to work in.
#[derive(Debug)]
struct Work {
    segment: usize,
    scratch: Scratch,
    selection: Selection,
    groups: Vec<u32>,
    runs: Vec<Run>,
    filtered: Vec<Mask>,
    caches: MapCache,
    flags: Vec<u64>,
    inputs: Vec<Vec<u64>>,
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.memory.used_bytes.fetch_sub(self.charged_bytes, Ordering::Relaxed);
    }
}

impl Aggregation {
    /// Checks the query against the snapshot and prunes segments. Touches the columns it needs for the first time,
    /// where nobody has yet.
    ///
    /// # Errors
    /// What the engine does not do, a column the table lacks, a damaged segment.
    pub fn plan(snapshot: &TableSnapshot, query: &AggregateQuery, limits: &Limits) -> Result<Self, EngineError> {
        if query.aggregates.len() > AGGREGATES_MAX {
            return Err(EngineError::Unsupported(format!("more than {AGGREGATES_MAX} aggregates")));
        }
        let mut names = SlotNames::new(&snapshot.schema);
        let (mut leaves, mut states) = (Leaves::default(), States::default());
        let filter = leaves.plan(query.filter.as_ref().unwrap_or(&Filter::True), &mut names)?;
        let mut keys = query.keys.iter().map(|key| KeyPlan::plan(key, &mut names)).collect::<Result<Vec<_>, _>>()?;
        let aggregates = query
            .aggregates
            .iter()
            .map(|aggregate| states.plan(aggregate, &mut names, &mut leaves))
            .collect::<Result<Vec<_>, _>>()?;
        check_order(&query.order, keys.len(), aggregates.len())?;
        let ranges = leaves.ranges(&filter);
        let (slots, views) =
            names.open(snapshot, |segment, columns| units::keep(segment, columns, &ranges, &filter))?;
        leaves.settle(&slots, &views);
        states.settle(&views);
        let layout = KeyPlan::lay_out(&mut keys, &slots, &views, &ranges)?;
        let bound = views.iter().map(|_| OnceLock::new()).collect();
        let fields = keys.iter().map(KeyPlan::arrow_field).chain(aggregates.iter().map(AggregatePlan::arrow_field));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let rows: usize = views.iter().flatten().map(|view| view.segment.rows()).sum();
        let dense = is_dense(layout, rows, states.group_bytes(), limits.memory_bytes);
        Ok(Self {
            slots,
            views,
            leaves,
            filter,
            bound,
            keys,
            layout,
            dense,
            states,
            aggregates,
            order: query.order.clone(),
            limit: query.limit,
            memory: Arc::new(Memory { used_bytes: AtomicUsize::new(0), limit_bytes: limits.memory_bytes }),
            cancel: limits.cancel.clone(),
            schema,
        })
    }

    /// The answer's columns: keys, then aggregates, in the query's order.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The work, cut into pieces of about `rows_per_unit` rows; segments that cannot match are left out.
    #[must_use]
    pub fn units(&self, rows_per_unit: usize) -> Vec<Unit> {
        units::cut(&self.views, rows_per_unit)
    }

    /// Rows that have to be looked at, at most: little where rows are only counted, or one string's rows are wanted.
    #[must_use]
    pub fn work_rows(&self, units: &[Unit]) -> usize {
        if self.counts_rows_only() {
            return 0;
        }
        if !self.leaves.may_be_needle(&self.filter) {
            return units.iter().map(|unit| unit.rows).fold(0, usize::saturating_add);
        }
        let mut last = None;
        let rows = units.iter().map(|unit| {
            let Some((view, bound)) = self.view(unit.segment) else { return 0 };
            match self.leaves.needle(&self.filter, bound, view) {
                // They are those of the whole segment.
                Some(_) if last.replace(unit.segment) == Some(unit.segment) => 0,
                Some(rows) => rows.len().saturating_mul(BLOCK_ROWS).min(view.segment.rows()),
                None => unit.rows,
            }
        });
        rows.fold(0, usize::saturating_add)
    }

    /// The ids of a segment's dictionary, if they are all that is asked of it: each of its strings is in a row.
    fn whole_dictionary<'a>(&self, view: &'a View) -> Option<&'a [u32]> {
        if !self.keys.is_empty() || !matches!(self.filter, Node::Const(true)) {
            return None;
        }
        match &view.column(self.states.distinct_strings()?)?.data {
            Data::Codes(codes) => codes.ids(),
            _ => None,
        }
    }

    fn view(&self, segment: usize) -> Option<(&View, &SegmentFilter)> {
        let view = self.views.get(segment)?.as_ref()?;
        Some((view, self.bound.get(segment)?.get_or_init(|| self.leaves.bind(&self.slots, view))))
    }

    fn counts_rows_only(&self) -> bool {
        self.keys.is_empty() && self.states.plans.is_empty() && matches!(self.filter, Node::Const(true))
    }

    /// An empty partial. Use one per thread, not one per unit.
    #[must_use]
    pub fn start(&self) -> Partial {
        let one = self.keys.is_empty();
        let groups = match (one, self.dense, self.layout.words) {
            (true, ..) => Groups::One,
            (_, true, _) => Groups::Dense,
            (_, _, 0 | 1) => Groups::Hash1(KeyTable::new()),
            (_, _, 2) => Groups::Hash2(KeyTable::new()),
            (_, _, 3 | 4) => Groups::Hash4(KeyTable::new()),
            _ => Groups::Hash8(KeyTable::new()),
        };
        let known = match (one, self.dense) {
            (true, _) => Some(1),
            (_, true) => Some(1 << self.layout.bits),
            _ => None,
        };
        let mut partial = Partial {
            groups,
            rows: Vec::new(),
            states: self.states.plans.iter().map(|plan| plan.start(&self.slots, known)).collect(),
            work: None,
            spill: None,
            added: 0,
            others: Vec::new(),
            memory: Arc::clone(&self.memory),
            charged_bytes: 0,
        };
        if one {
            self.grow(&mut partial, 1);
        }
        partial
    }

    fn grow(&self, partial: &mut Partial, groups: usize) {
        if partial.rows.len() < groups {
            partial.rows.resize(groups, 0);
            for (plan, state) in self.states.plans.iter().zip(&mut partial.states) {
                plan.grow(state, groups);
            }
        }
    }

    /// Adds one unit's rows to a partial.
    ///
    /// # Errors
    /// Cancelled, out of memory, or a damaged segment; the partial is of no use then.
    pub fn run(&self, unit: &Unit, partial: &mut Partial) -> Result<(), EngineError> {
        let Some((view, bound)) = self.view(unit.segment) else { return Ok(()) };
        if self.counts_rows_only() {
            partial.rows[0] += i64::try_from(unit.rows).unwrap_or(0);
            return Ok(());
        }
        if let Some(ids) = self.whole_dictionary(view) {
            partial.rows[0] += i64::try_from(unit.rows).unwrap_or(0);
            if unit.blocks.start == 0
                && let ([plan], [state]) = (self.states.plans.as_slice(), partial.states.as_mut_slice())
            {
                plan.add_ids(state, ids);
            }
            return self.charge(partial);
        }
        if self.dense && !self.keys.is_empty() && partial.rows.is_empty() {
            self.grow(partial, 1 << self.layout.bits);
            self.charge(partial)?;
        }
        let mut work = partial.work.take().unwrap_or_else(|| Box::new(Work::new(self)));
        if work.segment != unit.segment {
            work.scratch.reset();
            work.segment = unit.segment;
        }
        let last = unit.blocks.end.min(view.blocks());
        let needle = self.leaves.needle(&self.filter, bound, view);
        let mut since_check = 0;
        let mut block = unit.blocks.start;
        while block < last {
            if let Some(rows) = needle {
                let Some(next) = next_needle_block(rows, block) else { break };
                block = next;
                if block >= last {
                    break;
                }
            }
            self.block(view, bound, block, partial, &mut work)?;
            since_check += 1;
            if since_check == CHECK_BLOCKS {
                since_check = 0;
                self.consider_spill(partial);
                self.charge(partial)?;
            }
            block += 1;
        }
        partial.work = Some(work);
        self.consider_spill(partial);
        self.charge(partial)
    }

    fn block(
        &self,
        view: &View,
        bound: &SegmentFilter,
        block: usize,
        partial: &mut Partial,
        work: &mut Work,
    ) -> Result<(), EngineError> {
        let rows = view.block_rows(block);
        let all = mask_of(rows);
        let selected = match self.leaves.verdict(&self.filter, bound, view, block) {
            Verdict::No => return Ok(()),
            Verdict::Yes => all,
            Verdict::Maybe => self.leaves.evaluate(&self.filter, bound, view, &mut work.scratch, block, &all)?,
        };
        work.selection.set(selected, rows);
        if work.selection.count == 0 {
            return Ok(());
        }
        work.filtered.clear();
        for filter in &self.states.filters {
            let mask = match self.leaves.verdict(filter, bound, view, block) {
                Verdict::No => [0; 16],
                Verdict::Yes => selected,
                Verdict::Maybe => self.leaves.evaluate(filter, bound, view, &mut work.scratch, block, &selected)?,
            };
            work.filtered.push(mask);
        }
        partial.added += work.selection.count;
        if partial.spill.is_some() {
            return self.write_down(view, block, partial, work);
        }
        self.number(view, block, partial, work)?;
        let groups = match partial.groups {
            Groups::One => GroupOf::One,
            _ => GroupOf::Each(&work.groups),
        };
        let in_runs = runs_of(&work.groups, &mut work.runs);
        match groups {
            GroupOf::One => partial.rows[0] += i64::try_from(work.selection.count).unwrap_or(0),
            GroupOf::Each(_) if in_runs => {
                for run in &work.runs {
                    partial.rows[run.group] += i64::try_from(run.places.len()).unwrap_or(0);
                }
            }
            GroupOf::Each(groups) => groups.iter().for_each(|group| partial.rows[*group as usize] += 1),
        }
        let at = StateBlock {
            view,
            slots: &self.slots,
            block,
            selection: &work.selection,
            groups,
            runs: in_runs.then_some(&work.runs),
            filtered: &work.filtered,
        };
        for (plan, state) in self.states.plans.iter().zip(&mut partial.states) {
            plan.update(state, &at, &mut work.scratch)?;
        }
        Ok(())
    }

    /// Finds each selected row's group.
    fn number(&self, view: &View, block: usize, partial: &mut Partial, work: &mut Work) -> Result<(), EngineError> {
        work.groups.clear();
        match &mut partial.groups {
            Groups::One => return Ok(()),
            Groups::Dense => {
                if let [key] = self.keys.as_slice()
                    && let Some(slot) = key.text_slot()
                    && let Some(text) = &self.slots[slot.0].text
                {
                    work.groups.resize(BLOCK_ROWS, 0);
                    let ids = work.groups.as_mut_slice().try_into();
                    let ids = ids.map_err(|_| EngineError::Internal("a block of another length".to_owned()))?;
                    work.scratch.ids(view, slot, text, block, &work.selection, ids)?;
                    work.groups.truncate(work.selection.count);
                    return Ok(());
                }
                let mut keys = [[0_u64; 1]; BLOCK_ROWS];
                let keys = self.pack(view, block, work, &mut keys)?;
                work.groups.extend(keys.iter().map(|key| u32::try_from(key[0]).unwrap_or(u32::MAX)));
            }
            Groups::Hash1(table) => self.number_by(table, view, block, work)?,
            Groups::Hash2(table) => self.number_by(table, view, block, work)?,
            Groups::Hash4(table) => self.number_by(table, view, block, work)?,
            Groups::Hash8(table) => self.number_by(table, view, block, work)?,
        }
        if let Some(groups) = partial.groups.len() {
            self.grow(partial, groups);
        }
        Ok(())
    }

    fn number_by<const N: usize>(
        &self,
        table: &mut KeyTable<N>,
        view: &View,
        block: usize,
        work: &mut Work,
    ) -> Result<(), EngineError> {
        let mut keys = [[0_u64; N]; BLOCK_ROWS];
        let keys = self.pack(view, block, work, &mut keys)?;
        work.groups.extend(keys.iter().map(|key| table.group(key)));
        Ok(())
    }

    fn pack<'k, const N: usize>(
        &self,
        view: &View,
        block: usize,
        work: &mut Work,
        keys: &'k mut [[u64; N]; BLOCK_ROWS],
    ) -> Result<&'k [[u64; N]], EngineError> {
        let keys = &mut keys[..work.selection.count];
        let at = KeyBlock { view, slots: &self.slots, block, selection: &work.selection };
        for (key, cache) in self.keys.iter().zip(&mut work.caches) {
            key.pack(&at, &mut work.scratch, cache, keys)?;
        }
        Ok(keys)
    }

    /// Writes the selected rows down instead of adding them up.
    fn write_down(&self, view: &View, block: usize, partial: &mut Partial, work: &mut Work) -> Result<(), EngineError> {
        let Some(mut spill) = partial.spill.take() else { return Ok(()) };
        let at = StateBlock {
            view,
            slots: &self.slots,
            block,
            selection: &work.selection,
            groups: GroupOf::One,
            runs: None,
            filtered: &work.filtered,
        };
        work.flags.clear();
        work.flags.resize(work.selection.count, 0);
        for (number, (plan, out)) in self.states.plans.iter().zip(&mut work.inputs).enumerate() {
            plan.inputs(&at, &mut work.scratch, 1 << number, &mut work.flags, out)?;
        }
        match partial.groups {
            Groups::Hash1(_) => self.write_keys::<1>(view, block, &mut spill, work)?,
            Groups::Hash2(_) => self.write_keys::<2>(view, block, &mut spill, work)?,
            Groups::Hash4(_) => self.write_keys::<4>(view, block, &mut spill, work)?,
            Groups::Hash8(_) => self.write_keys::<8>(view, block, &mut spill, work)?,
            Groups::One | Groups::Dense => {}
        }
        partial.spill = Some(spill);
        Ok(())
    }

    fn write_keys<const N: usize>(
        &self,
        view: &View,
        block: usize,
        spill: &mut Spill,
        work: &mut Work,
    ) -> Result<(), EngineError> {
        let mut keys = [[0_u64; N]; BLOCK_ROWS];
        let keys = self.pack(view, block, work, &mut keys)?;
        spill.write(keys, &work.flags, &work.inputs);
        Ok(())
    }

    /// Looks whether most rows still make a new group: then further rows are written down.
    fn consider_spill(&self, partial: &mut Partial) {
        let groups = partial.groups.len().unwrap_or(0);
        let many = groups >= spill::GROUPS_MIN && groups > partial.added / 2;
        if many && partial.spill.is_none() && self.states.plans.len() <= spill::STATES_MAX {
            partial.spill = Some(Spill::new(self.states.plans.len()));
        }
    }

    /// Accounts for what the partial has grown to, and looks whether to stop.
    fn charge(&self, partial: &mut Partial) -> Result<(), EngineError> {
        if self.cancel.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        let states: usize = partial.states.iter().map(State::size_bytes).sum();
        let spilled = partial.spill.as_ref().map_or(0, Spill::size_bytes);
        let held = partial.groups.size_bytes() + partial.rows.capacity() * 8 + states + spilled;
        let shared: usize = self.keys.iter().map(KeyPlan::size_bytes).sum::<usize>()
            + self.slots.iter().filter_map(|slot| slot.text.as_ref()).map(|text| text.size_bytes()).sum::<usize>();
        let grown = held.saturating_sub(partial.charged_bytes);
        let used = self.memory.used_bytes.fetch_add(grown, Ordering::Relaxed) + grown;
        partial.charged_bytes += grown;
        let (needed_bytes, limit_bytes) = (used + shared, self.memory.limit_bytes);
        if needed_bytes > limit_bytes {
            return Err(EngineError::Memory { needed_bytes, limit_bytes });
        }
        Ok(())
    }
}

impl Work {
    fn new(plan: &Aggregation) -> Self {
        Self {
            segment: usize::MAX,
            scratch: Scratch::new(plan.slots.len()),
            selection: Selection::new(),
            groups: Vec::with_capacity(BLOCK_ROWS),
            runs: Vec::new(),
            filtered: Vec::new(),
            caches: vec![Vec::new(); plan.keys.len()],
            flags: Vec::new(),
            inputs: vec![Vec::new(); plan.states.plans.len()],
        }
    }
}

/// The first block from `block` on that has one of `rows`.
fn next_needle_block(rows: &[u32], block: usize) -> Option<usize> {
    let at = rows.partition_point(|row| (*row as usize) < block * BLOCK_ROWS);
    rows.get(at).map(|row| *row as usize / BLOCK_ROWS)
}

/// An array by key is faster than a table as long as it is not much larger than the rows there are.
fn is_dense(layout: Layout, rows: usize, group_bytes: usize, memory_bytes: usize) -> bool {
    if layout.bits <= DENSE_BITS_ALWAYS {
        return true;
    }
    layout.bits <= DENSE_BITS_MAX && rows >= (1 << layout.bits) / 4 && (group_bytes << layout.bits) <= memory_bytes / 8
}

fn check_order(order: &[OrderBy], keys: usize, aggregates: usize) -> Result<(), EngineError> {
    for order in order {
        let there = match order.target {
            OrderTarget::Key(at) => at < keys,
            OrderTarget::Aggregate(at) => at < aggregates,
        };
        if !there {
            return Err(EngineError::Internal(format!("order by {:?}, which is not there", order.target)));
        }
    }
    Ok(())
}

/// Plans, runs and finishes on the calling thread.
///
/// # Errors
/// As [`Aggregation::plan`] and [`Aggregation::run`].
pub fn aggregate(
    snapshot: &TableSnapshot,
    query: &AggregateQuery,
    limits: &Limits,
) -> Result<RecordBatch, EngineError> {
    let plan = Aggregation::plan(snapshot, query, limits)?;
    let mut partial = plan.start();
    for unit in plan.units(usize::MAX) {
        plan.run(&unit, &mut partial)?;
    }
    plan.finish(partial)
}
