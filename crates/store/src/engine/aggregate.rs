//! Grouped aggregation: plan once, run units on any threads, merge, finish.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};

use super::columns::{Scratch, Selection, Slot, SlotNames, View};
use super::error::EngineError;
use super::filter::{Leaves, Node, SegmentFilter, Verdict};
use super::keys::{KEY_WORDS_MAX, KeyBlock, KeyPlan, Layout, MapCache};
use super::query::{AggregateQuery, Cancel, Filter, Limits, OrderBy, OrderTarget};
use super::spill::{self, Spill};
use super::states::{AggregatePlan, GroupOf, State, StateBlock, States};
use super::table::{KeyTable, hash};
use super::units::{self, Unit};
use crate::segment::bitmap::{Mask, mask_of};
use crate::segment::packing::BLOCK_ROWS;
use crate::snapshot::TableSnapshot;

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
    bound: Vec<Option<SegmentFilter>>,
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

/// How groups are numbered.
#[derive(Debug)]
pub(super) enum Groups {
    One,
    /// The packed key is the number.
    Dense,
    Hash1(KeyTable<1>),
    Hash2(KeyTable<2>),
    Hash4(KeyTable<4>),
    Hash8(KeyTable<8>),
}

/// A thread's room to work in.
#[derive(Debug)]
struct Work {
    segment: usize,
    scratch: Scratch,
    selection: Selection,
    groups: Vec<u32>,
    filtered: Vec<Mask>,
    caches: MapCache,
    flags: Vec<u64>,
    inputs: Vec<Vec<u64>>,
}

/// One part of all groups, merged.
#[derive(Debug)]
pub struct Merged(Vec<Partial>);

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
        let bound = views.iter().map(|view| view.as_ref().map(|view| leaves.bind(&slots, view))).collect();
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
        let view = self.views.get(unit.segment).and_then(Option::as_ref);
        let bound = self.bound.get(unit.segment).and_then(Option::as_ref);
        let (Some(view), Some(bound)) = (view, bound) else { return Ok(()) };
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
        match groups {
            GroupOf::One => partial.rows[0] += i64::try_from(work.selection.count).unwrap_or(0),
            GroupOf::Each(groups) => groups.iter().for_each(|group| partial.rows[*group as usize] += 1),
        }
        let at = StateBlock {
            view,
            slots: &self.slots,
            block,
            selection: &work.selection,
            groups,
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

    /// Adds `from` to `into`.
    ///
    /// # Errors
    /// Cancelled or out of memory.
    pub fn merge(&self, into: &mut Partial, from: Partial) -> Result<(), EngineError> {
        if into.is_open() || from.is_open() {
            into.others.push(from);
            return Ok(());
        }
        let groups = from.groups.map_into(&mut into.groups, from.rows.len(), None);
        self.add_groups(into, &from, &groups);
        drop(from);
        self.charge(into)
    }

    /// Into how many parts the groups can be split, so that [`Self::merge_part`] can run on as many threads: 1 where
    /// merging is cheap.
    #[must_use]
    pub fn merge_parts(&self, threads: usize) -> usize {
        if self.keys.is_empty() || self.dense { 1 } else { threads.clamp(1, spill::PARTS) }
    }

    /// Merges one part of the groups of all partials. Parts share no group: hand all of them to
    /// [`Self::finish_parts`].
    ///
    /// # Errors
    /// Cancelled or out of memory.
    pub fn merge_part(&self, partials: &[Partial], part: usize, parts: usize) -> Result<Merged, EngineError> {
        let mut all = Vec::new();
        partials.iter().for_each(|partial| partial.flatten(&mut all));
        if all.iter().all(|partial| partial.spill.is_none()) {
            let mut into = self.start();
            let wanted = |hash: u64| spill::part_of(hash) % parts.max(1) == part;
            for partial in all {
                let groups = partial.groups.map_into(&mut into.groups, partial.rows.len(), Some(&wanted));
                self.add_groups(&mut into, partial, &groups);
                self.charge(&mut into)?;
            }
            return Ok(Merged(vec![into]));
        }
        let by_part: Vec<Vec<Vec<u32>>> = all.iter().map(|partial| partial.groups.by_part()).collect();
        let (mut best, mut done) = (self.start(), Vec::new());
        for number in (part..spill::PARTS).step_by(parts.max(1)) {
            let mut into = self.start();
            into.groups.reserve(all.iter().map(|partial| partial.spilled_rows(number)).sum());
            for (partial, groups) in all.iter().zip(&by_part) {
                let groups = partial.groups.adopt_into(&mut into.groups, &groups[number]);
                self.add_groups(&mut into, partial, &groups);
            }
            all.iter().for_each(|partial| self.add_written(&mut into, partial, number));
            self.charge(&mut into)?;
            if self.order.is_empty() || self.limit.is_none() {
                done.push(into);
            } else {
                self.keep_best(&mut best, &into);
            }
        }
        if self.limit.is_some() && !self.order.is_empty() {
            done.push(best);
        }
        Ok(Merged(done))
    }

    /// Takes the groups over that can be among the first of the order.
    fn keep_best(&self, best: &mut Partial, from: &Partial) {
        let groups = super::finish::first_groups(self, from, Some(&*best));
        let groups = from.groups.adopt_into(&mut best.groups, &groups);
        self.add_groups(best, from, &groups);
    }

    /// Adds rows and states of groups, given as pairs of the group of `from` and that of `into`.
    fn add_groups(&self, into: &mut Partial, from: &Partial, groups: &[(u32, u32)]) {
        let count = into.groups.len().unwrap_or(from.rows.len());
        self.grow(into, count);
        groups.iter().for_each(|(from_group, group)| into.rows[*group as usize] += from.rows[*from_group as usize]);
        for ((plan, state), from) in self.states.plans.iter().zip(&mut into.states).zip(&from.states) {
            plan.merge(state, from, groups);
        }
    }

    /// Adds the rows of one part that were written down.
    fn add_written(&self, into: &mut Partial, from: &Partial, part: usize) {
        let Some(spill) = &from.spill else { return };
        let words = spill.part(part);
        let Partial { groups, rows, states, .. } = into;
        match groups {
            Groups::Hash1(table) => self.add_rows(table, rows, states, words),
            Groups::Hash2(table) => self.add_rows(table, rows, states, words),
            Groups::Hash4(table) => self.add_rows(table, rows, states, words),
            Groups::Hash8(table) => self.add_rows(table, rows, states, words),
            Groups::One | Groups::Dense => {}
        }
    }

    fn add_rows<const N: usize>(
        &self,
        table: &mut KeyTable<N>,
        rows: &mut Vec<i64>,
        states: &mut [State],
        words: &[u64],
    ) {
        let plans = &self.states.plans;
        for row in words.chunks_exact(Spill::row_words(plans.len(), N)) {
            let Some((key, inputs)) = row.split_first_chunk::<N>() else { continue };
            let group = table.group(key) as usize;
            if group == rows.len() {
                rows.push(0);
                plans.iter().zip(&mut *states).for_each(|(plan, state)| plan.grow(state, group + 1));
            }
            rows[group] += 1;
            let Some((flags, inputs)) = inputs.split_first() else { continue };
            for (number, (plan, state)) in plans.iter().zip(&mut *states).enumerate() {
                if flags >> number & 1 == 1 {
                    plan.add_input(state, group, inputs[number]);
                }
            }
        }
    }

    /// The answer of parts that share no group.
    ///
    /// # Errors
    /// As [`Self::merge`] and [`Self::finish`].
    pub fn finish_parts(&self, parts: Vec<Merged>) -> Result<RecordBatch, EngineError> {
        let mut parts: Vec<Partial> = parts.into_iter().flat_map(|merged| merged.0).collect();
        if parts.len() > 1 && self.order.is_empty() {
            let batches = parts.iter().map(|part| super::finish::finish(self, part)).collect::<Result<Vec<_>, _>>()?;
            let all = arrow_select::concat::concat_batches(&self.schema, &batches);
            let all = all.map_err(|error| EngineError::Internal(error.to_string()))?;
            return Ok(all.slice(0, all.num_rows().min(self.limit.unwrap_or(usize::MAX))));
        }
        if parts.len() > 1 && self.limit.is_some() {
            let mut best = self.start();
            parts.iter().for_each(|part| self.keep_best(&mut best, part));
            return super::finish::finish(self, &best);
        }
        let mut first = parts.pop().unwrap_or_else(|| self.start());
        for part in parts {
            self.merge(&mut first, part)?;
        }
        super::finish::finish(self, &first)
    }

    /// The answer.
    ///
    /// # Errors
    /// Out of memory, cancelled, or a fault of the engine.
    pub fn finish(&self, partial: Partial) -> Result<RecordBatch, EngineError> {
        if partial.is_open() {
            let merged = self.merge_part(&[partial], 0, 1)?;
            return self.finish_parts(vec![merged]);
        }
        super::finish::finish(self, &partial)
    }
}

impl Partial {
    /// True if it is not added up to one number a group and state yet.
    fn is_open(&self) -> bool {
        self.spill.is_some() || !self.others.is_empty()
    }

    fn flatten<'a>(&'a self, out: &mut Vec<&'a Self>) {
        out.push(self);
        self.others.iter().for_each(|other| other.flatten(out));
    }

    fn spilled_rows(&self, part: usize) -> usize {
        let words = match self.groups {
            Groups::One | Groups::Dense | Groups::Hash1(_) => 1,
            Groups::Hash2(_) => 2,
            Groups::Hash4(_) => 4,
            Groups::Hash8(_) => 8,
        };
        let row = Spill::row_words(self.states.len(), words);
        self.spill.as_ref().map_or(0, |spill| spill.part(part).len() / row)
    }
}

impl Work {
    fn new(plan: &Aggregation) -> Self {
        Self {
            segment: usize::MAX,
            scratch: Scratch::new(plan.slots.len()),
            selection: Selection::new(),
            groups: Vec::with_capacity(BLOCK_ROWS),
            filtered: Vec::new(),
            caches: vec![Vec::new(); plan.keys.len()],
            flags: Vec::new(),
            inputs: vec![Vec::new(); plan.states.plans.len()],
        }
    }
}

impl Groups {
    /// Groups numbered so far, where they are numbered one after another.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Self::One | Self::Dense => None,
            Self::Hash1(table) => Some(table.len()),
            Self::Hash2(table) => Some(table.len()),
            Self::Hash4(table) => Some(table.len()),
            Self::Hash8(table) => Some(table.len()),
        }
    }

    fn size_bytes(&self) -> usize {
        match self {
            Self::One | Self::Dense => 0,
            Self::Hash1(table) => table.size_bytes(),
            Self::Hash2(table) => table.size_bytes(),
            Self::Hash4(table) => table.size_bytes(),
            Self::Hash8(table) => table.size_bytes(),
        }
    }

    /// The packed keys of some groups, one after another, and the words of each.
    pub(super) fn keys(&self, groups: &[u32]) -> (Vec<u64>, usize) {
        fn of<const N: usize>(table: &KeyTable<N>, groups: &[u32]) -> (Vec<u64>, usize) {
            (groups.iter().flat_map(|group| table.keys()[*group as usize]).collect(), N)
        }
        match self {
            Self::One => (vec![0; groups.len()], 1),
            Self::Dense => (groups.iter().map(|group| u64::from(*group)).collect(), 1),
            Self::Hash1(table) => of(table, groups),
            Self::Hash2(table) => of(table, groups),
            Self::Hash4(table) => of(table, groups),
            Self::Hash8(table) => of(table, groups),
        }
    }
}

/// Runs `$body` on the tables of two `Groups` of the same kind.
macro_rules! both_tables {
    ($pair:expr, ($into:ident, $from:ident) => $body:expr, $otherwise:expr) => {
        match $pair {
            (Groups::Hash1($into), Groups::Hash1($from)) => $body,
            (Groups::Hash2($into), Groups::Hash2($from)) => $body,
            (Groups::Hash4($into), Groups::Hash4($from)) => $body,
            (Groups::Hash8($into), Groups::Hash8($from)) => $body,
            _ => $otherwise,
        }
    };
}

impl Groups {
    /// Gives these groups numbers in `into`, those whose hash is wanted: pairs of the number here and there.
    fn map_into(&self, into: &mut Self, count: usize, wanted: Option<&dyn Fn(u64) -> bool>) -> Vec<(u32, u32)> {
        fn map<const N: usize>(
            into: &mut KeyTable<N>,
            from: &KeyTable<N>,
            wanted: Option<&dyn Fn(u64) -> bool>,
        ) -> Vec<(u32, u32)> {
            let keys = (0..).zip(from.keys()).filter(|(_, key)| wanted.is_none_or(|wanted| wanted(hash(key))));
            keys.map(|(group, key)| (group, into.group(key))).collect()
        }
        // Numbered by key, so the same in both.
        let same = |count: usize| (0..u32::try_from(count).unwrap_or(u32::MAX)).map(|group| (group, group)).collect();
        both_tables!((into, self), (into, from) => map(into, from, wanted), same(count))
    }

    /// The same for some groups.
    fn adopt_into(&self, into: &mut Self, groups: &[u32]) -> Vec<(u32, u32)> {
        fn adopt<const N: usize>(into: &mut KeyTable<N>, from: &KeyTable<N>, groups: &[u32]) -> Vec<(u32, u32)> {
            groups.iter().map(|group| (*group, into.group(&from.keys()[*group as usize]))).collect()
        }
        let same = || groups.iter().map(|group| (*group, *group)).collect();
        both_tables!((into, self), (into, from) => adopt(into, from, groups), same())
    }

    /// The groups by the part of their key's hash.
    fn by_part(&self) -> Vec<Vec<u32>> {
        fn of<const N: usize>(table: &KeyTable<N>) -> Vec<Vec<u32>> {
            let mut parts = vec![Vec::new(); spill::PARTS];
            for (group, key) in (0..).zip(table.keys()) {
                parts[spill::part_of(hash(key))].push(group);
            }
            parts
        }
        match self {
            Self::Hash1(table) => of(table),
            Self::Hash2(table) => of(table),
            Self::Hash4(table) => of(table),
            Self::Hash8(table) => of(table),
            Self::One | Self::Dense => vec![Vec::new(); spill::PARTS],
        }
    }

    /// Makes an empty table large enough for half of the rows to be new groups.
    fn reserve(&mut self, rows: usize) {
        match self {
            Self::Hash1(table) => *table = KeyTable::with_capacity(rows / 2),
            Self::Hash2(table) => *table = KeyTable::with_capacity(rows / 2),
            Self::Hash4(table) => *table = KeyTable::with_capacity(rows / 2),
            Self::Hash8(table) => *table = KeyTable::with_capacity(rows / 2),
            Self::One | Self::Dense => {}
        }
    }
}

const _: () = assert!(KEY_WORDS_MAX == 8, "the widest table takes the widest key");

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
