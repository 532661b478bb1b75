//! Bringing the partials of all threads together: whole, or one part of the groups a thread.

use arrow_array::RecordBatch;

use super::{Aggregation, Groups, Partial};
use crate::engine::error::EngineError;
use crate::engine::finish;
use crate::engine::spill::{self, Spill};
use crate::engine::states::State;
use crate::engine::table::KeyTable;

/// One part of all groups, merged.
#[derive(Debug)]
pub struct Merged(Vec<Partial>);

impl Aggregation {
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
        let groups = finish::first_groups(self, from, Some(&*best));
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
            let batches = parts.iter().map(|part| finish::finish(self, part)).collect::<Result<Vec<_>, _>>()?;
            let all = arrow_select::concat::concat_batches(&self.schema, &batches);
            let all = all.map_err(|error| EngineError::Internal(error.to_string()))?;
            return Ok(all.slice(0, all.num_rows().min(self.limit.unwrap_or(usize::MAX))));
        }
        if parts.len() > 1 && self.limit.is_some() {
            let mut best = self.start();
            parts.iter().for_each(|part| self.keep_best(&mut best, part));
            return finish::finish(self, &best);
        }
        let mut first = parts.pop().unwrap_or_else(|| self.start());
        for part in parts {
            self.merge(&mut first, part)?;
        }
        finish::finish(self, &first)
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
        finish::finish(self, &partial)
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
