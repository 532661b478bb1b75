//! Filters tied to a segment: what its codes and zone maps say, and the mask of a block.

use std::ops::Bound;

use super::{Leaf, Leaves, Node, Test, TextKind, TextTest};
use crate::engine::columns::{Scratch, Slot, SlotId, View};
use crate::engine::error::EngineError;
use crate::engine::mask;
use crate::segment::bitmap::{Mask, count};
use crate::segment::codes::{Codes, Packing};
use crate::segment::column::{Column, Data};
use crate::segment::longs::Longs;
use crate::segment::packing::BLOCK_ROWS;

/// Few rows left are tested one by one.
const SINGLE_ROWS_MAX: usize = 48;
/// Up to so many codes are compared one after another, more are looked up in a set.
const CODES_COMPARED_MAX: usize = 4;

/// A leaf tied to one segment.
#[derive(Debug)]
enum Bounded {
    /// No row at all, nulls included.
    None,
    /// Every row that is not null.
    Valid,
    /// Rows that are null.
    Null,
    Codes(Vec<u32>),
    NotCodes(Vec<u32>),
    CodeRange(u32, u32),
    /// A byte (0 or 1) per code.
    CodeSet(Vec<u8>),
    /// Evaluated from the values.
    Values,
}

/// All leaves of a query tied to one segment.
#[derive(Debug)]
pub(in crate::engine) struct SegmentFilter(Vec<Bounded>);

/// What is known of a block without looking at its rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::engine) enum Verdict {
    No,
    Yes,
    Maybe,
}

impl Leaves {
    /// Ties the leaves to a segment: strings become codes.
    pub(in crate::engine) fn bind(&self, slots: &[Slot], view: &View) -> SegmentFilter {
        let bound = self.0.iter().map(|leaf| match view.column(leaf.slot) {
            None if matches!(leaf.test, Test::IsNull) && !leaf.negated => Bounded::Null,
            None => Bounded::None,
            Some(column) => leaf.bind(slots, column),
        });
        SegmentFilter(bound.collect())
    }

    /// What the block's zone maps and the segment's codes say.
    pub(in crate::engine) fn verdict(&self, node: &Node, bound: &SegmentFilter, view: &View, block: usize) -> Verdict {
        match node {
            Node::Const(value) => {
                if *value {
                    Verdict::Yes
                } else {
                    Verdict::No
                }
            }
            Node::Leaf(at) => self.0[*at].verdict(&bound.0[*at], view, block),
            Node::And(nodes) => {
                let mut all = Verdict::Yes;
                for node in nodes {
                    match self.verdict(node, bound, view, block) {
                        Verdict::No => return Verdict::No,
                        Verdict::Maybe => all = Verdict::Maybe,
                        Verdict::Yes => {}
                    }
                }
                all
            }
            Node::Or(nodes) => {
                let mut all = Verdict::No;
                for node in nodes {
                    match self.verdict(node, bound, view, block) {
                        Verdict::Yes => return Verdict::Yes,
                        Verdict::Maybe => all = Verdict::Maybe,
                        Verdict::No => {}
                    }
                }
                all
            }
        }
    }

    /// The rows of `within` that the filter selects.
    pub(in crate::engine) fn evaluate(
        &self,
        node: &Node,
        bound: &SegmentFilter,
        view: &View,
        scratch: &mut Scratch,
        block: usize,
        within: &Mask,
    ) -> Result<Mask, EngineError> {
        match node {
            Node::Const(value) => Ok(if *value { *within } else { [0; 16] }),
            Node::Leaf(at) => self.0[*at].evaluate(&bound.0[*at], view, scratch, block, within),
            Node::And(nodes) => {
                let mut left = *within;
                for node in nodes {
                    if mask::is_empty(&left) {
                        break;
                    }
                    left = self.evaluate(node, bound, view, scratch, block, &left)?;
                }
                Ok(left)
            }
            Node::Or(nodes) => {
                let (mut open, mut found) = (*within, [0; 16]);
                for node in nodes {
                    if mask::is_empty(&open) {
                        break;
                    }
                    let more = self.evaluate(node, bound, view, scratch, block, &open)?;
                    found = mask::or(&found, &more);
                    open = mask::and_not(&open, &more);
                }
                Ok(found)
            }
        }
    }

    /// False if [`Self::needle`] finds nothing in any segment.
    pub(in crate::engine) fn may_be_needle(&self, node: &Node) -> bool {
        match node {
            Node::Leaf(at) => {
                let leaf = &self.0[*at];
                !leaf.negated && matches!(&leaf.test, Test::Text(TextTest { kind: TextKind::In(_), .. }))
            }
            Node::And(nodes) => nodes.iter().any(|node| self.may_be_needle(node)),
            Node::Const(_) | Node::Or(_) => false,
        }
    }

    /// The rows of a segment, ascending, when the filter is one needle that postings find; else `None`.
    pub(in crate::engine) fn needle<'a>(
        &self,
        node: &Node,
        bound: &'a SegmentFilter,
        view: &'a View,
    ) -> Option<&'a [u32]> {
        match node {
            Node::Leaf(at) => {
                let Bounded::Codes(codes) = &bound.0[*at] else { return None };
                let [code] = codes.as_slice() else { return None };
                let Data::Codes(column) = &view.column(self.0[*at].slot)?.data else { return None };
                column.postings.as_ref().map(|postings| postings.of(*code))
            }
            Node::And(nodes) => {
                let needles = nodes.iter().filter_map(|node| self.needle(node, bound, view));
                needles.min_by_key(|rows| rows.len())
            }
            Node::Const(_) | Node::Or(_) => None,
        }
    }
}

impl Leaf {
    fn bind(&self, slots: &[Slot], column: &Column) -> Bounded {
        match (&self.test, &column.data) {
            (Test::IsNull, _) if self.negated => Bounded::Valid,
            (Test::IsNull, _) => Bounded::Null,
            (Test::Text(test), Data::Codes(codes)) => self.bind_text(test, &slots[self.slot.0], codes),
            (Test::Boolean(wanted), _) if wanted[0] == wanted[1] => {
                if wanted[0] == self.negated {
                    Bounded::None
                } else {
                    Bounded::Valid
                }
            }
            _ => Bounded::Values,
        }
    }

    fn bind_text(&self, test: &TextTest, slot: &Slot, codes: &Codes) -> Bounded {
        match &test.kind {
            TextKind::In(values) if values.len() <= CODES_COMPARED_MAX => {
                let found = values.iter().filter_map(|value| match codes.is_sorted() {
                    true => codes.search(value).ok(),
                    false => codes.dictionary.lookup(value).filter(|id| (*id as usize) < codes.entries),
                });
                let found: Vec<u32> = found.collect();
                match (found.is_empty(), self.negated) {
                    (true, true) => Bounded::Valid,
                    (true, false) => Bounded::None,
                    (false, true) => Bounded::NotCodes(found),
                    (false, false) => Bounded::Codes(found),
                }
            }
            TextKind::Range(low, high) if codes.is_sorted() && !self.negated => {
                let from = match low {
                    Bound::Unbounded => 1,
                    Bound::Included(low) => codes.search(low).unwrap_or_else(|at| at),
                    Bound::Excluded(low) => codes.search(low).map_or_else(|at| at, |code| code + 1),
                };
                let to = match high {
                    Bound::Unbounded => u32::try_from(codes.entries).unwrap_or(u32::MAX),
                    Bound::Included(high) => codes.search(high).map_or_else(|at| at, |code| code + 1),
                    Bound::Excluded(high) => codes.search(high).unwrap_or_else(|at| at),
                };
                if from >= to { Bounded::None } else { Bounded::CodeRange(from, to) }
            }
            _ => self.code_set(test, slot, codes),
        }
    }

    /// A byte per code, found by the dictionary's ids or by the segment's own strings.
    fn code_set(&self, test: &TextTest, slot: &Slot, codes: &Codes) -> Bounded {
        let room = 1_usize << codes.packing.width();
        let mut set = vec![0_u8; room.max(codes.entries)];
        let mut any = false;
        if test.eager || !codes.is_sorted() {
            let passing = test.ids(slot);
            let mut mark = |passes: &mut u8, id: u32| {
                *passes = u8::from(passing.contains(id) != self.negated);
                any |= *passes == 1;
            };
            let codes_of = set.iter_mut().take(codes.entries).skip(1);
            match codes.ids() {
                Some(ids) => codes_of.zip(ids.iter().skip(1)).for_each(|(passes, id)| mark(passes, *id)),
                None => codes_of.zip(1..).for_each(|(passes, id)| mark(passes, id)),
            }
        } else {
            let strings = codes.dictionary.strings();
            for (code, passes) in set.iter_mut().enumerate().take(codes.entries).skip(1) {
                let string = strings.get(codes.id(u32::try_from(code).unwrap_or(0)));
                *passes = u8::from(string.is_some_and(|string| test.kind.test(string) != self.negated));
                any |= *passes == 1;
            }
        }
        if any { Bounded::CodeSet(set) } else { Bounded::None }
    }

    fn verdict(&self, bound: &Bounded, view: &View, block: usize) -> Verdict {
        let Some(column) = view.column(self.slot) else {
            return if matches!(bound, Bounded::Null) { Verdict::Yes } else { Verdict::No };
        };
        let no_nulls = column.nulls == 0;
        match bound {
            Bounded::None => Verdict::No,
            Bounded::Valid if no_nulls => Verdict::Yes,
            Bounded::Null if no_nulls => Verdict::No,
            Bounded::Values => match (&self.test, &column.data) {
                (Test::LongRange(low, high), Data::Longs(longs)) => {
                    let Some(zone) = longs.blocks.get(block) else { return Verdict::No };
                    let outside = zone.max < *low || zone.min > *high;
                    let inside = zone.min >= *low && zone.max <= *high;
                    match (outside, inside, self.negated) {
                        (true, _, false) | (_, true, true) => Verdict::No,
                        (true, _, true) | (_, true, false) if no_nulls => Verdict::Yes,
                        _ => Verdict::Maybe,
                    }
                }
                _ => Verdict::Maybe,
            },
            _ => Verdict::Maybe,
        }
    }

    fn evaluate(
        &self,
        bound: &Bounded,
        view: &View,
        scratch: &mut Scratch,
        block: usize,
        within: &Mask,
    ) -> Result<Mask, EngineError> {
        let Some(column) = view.column(self.slot) else {
            return Ok(if matches!(bound, Bounded::Null) { *within } else { [0; 16] });
        };
        Ok(match bound {
            Bounded::None => [0; 16],
            Bounded::Valid => mask::and(within, &view.valid(self.slot, block, scratch)),
            Bounded::Null => mask::and_not(within, &view.valid(self.slot, block, scratch)),
            Bounded::Values => return self.evaluate_values(column, view, scratch, block, within),
            coded => evaluate_codes(coded, column, self.slot, scratch, block, within),
        })
    }

    fn evaluate_values(
        &self,
        column: &Column,
        view: &View,
        scratch: &mut Scratch,
        block: usize,
        within: &Mask,
    ) -> Result<Mask, EngineError> {
        let valid = column.valid(block);
        let mut left = mask::and(within, &valid);
        let negated = self.negated;
        match (&self.test, &column.data) {
            (Test::LongRange(low, high), Data::Longs(longs)) => {
                let found = long_range_mask(longs, block, *low, *high);
                return Ok(if negated { mask::and_not(&left, &found) } else { mask::and(&left, &found) });
            }
            (Test::LongIn(values), Data::Longs(_)) => {
                let longs = scratch.longs(column, self.slot, block);
                mask::keep(&mut left, |row| values.binary_search(&longs[row]).is_ok() != negated);
            }
            (Test::Long(test), Data::Longs(_)) => {
                let longs = scratch.longs(column, self.slot, block);
                mask::keep(&mut left, |row| (test.0)(longs[row]) != negated);
            }
            (Test::Double(test), Data::Doubles(doubles)) => {
                let doubles = doubles.get(block * BLOCK_ROWS..).unwrap_or(&[]);
                mask::keep(&mut left, |row| doubles.get(row).is_some_and(|value| test.test(*value) != negated));
            }
            (Test::Boolean(wanted), Data::Booleans(bits)) => {
                let bits = bits.block(block);
                let when_true = if wanted[1] != negated { bits } else { [0; 16] };
                let when_false = if wanted[0] != negated { mask::and_not(&left, &bits) } else { [0; 16] };
                left = mask::and(&left, &mask::or(&when_true, &when_false));
            }
            (Test::Text(test), Data::Plain(_)) => {
                if mask::is_empty(&left) {
                    return Ok(left);
                }
                let values = scratch.plain(column, self.slot, block).map_err(|error| view.corrupt(error))?;
                mask::keep(&mut left, |row| test.kind.test(values.text(row)) != negated);
            }
            _ => return Err(EngineError::Internal(format!("a filter of another type than {:?}", column.name()))),
        }
        Ok(left)
    }
}

fn evaluate_codes(
    bound: &Bounded,
    column: &Column,
    slot: SlotId,
    scratch: &mut Scratch,
    block: usize,
    within: &Mask,
) -> Mask {
    let Data::Codes(codes) = &column.data else { return [0; 16] };
    let test = |code: u32| match bound {
        Bounded::Codes(wanted) => wanted.contains(&code),
        Bounded::NotCodes(unwanted) => code != 0 && !unwanted.contains(&code),
        Bounded::CodeRange(from, to) => (*from..*to).contains(&code),
        Bounded::CodeSet(set) => set.get(code as usize).is_some_and(|passes| *passes == 1),
        Bounded::None | Bounded::Valid | Bounded::Null | Bounded::Values => false,
    };
    if count(within) <= SINGLE_ROWS_MAX {
        let mut left = *within;
        mask::keep(&mut left, |row| test(codes.packing.get(block * BLOCK_ROWS + row)));
        return left;
    }
    if let (Bounded::Codes(wanted), Packing::Bytes(bytes)) = (bound, &codes.packing)
        && let [wanted] = wanted.as_slice()
        && let Some(bytes) = bytes.get(block * BLOCK_ROWS..(block + 1) * BLOCK_ROWS)
        && let Ok(bytes) = <&[u8; BLOCK_ROWS]>::try_from(bytes)
    {
        return mask::and(within, &mask::of_values(bytes, |code| u32::from(code) == *wanted));
    }
    let values = scratch.codes(column, slot, block);
    let found = match bound {
        Bounded::Codes(wanted) if wanted.len() == 1 => {
            let wanted = wanted[0];
            mask::of_values(values, |code| code == wanted)
        }
        Bounded::CodeRange(from, to) => {
            let (from, span) = (*from, to - from);
            mask::of_values(values, |code| code.wrapping_sub(from) < span)
        }
        Bounded::CodeSet(set) => {
            let mut bytes = [0; BLOCK_ROWS];
            for (byte, code) in bytes.iter_mut().zip(values) {
                *byte = set.get(*code as usize).copied().unwrap_or(0);
            }
            mask::of_bytes(&bytes)
        }
        _ => mask::of_values(values, test),
    };
    mask::and(within, &found)
}

/// Rows whose value is in the range; null rows are anything.
fn long_range_mask(longs: &Longs, block: usize, low: i64, high: i64) -> Mask {
    let mut offsets = [0_u32; BLOCK_ROWS];
    let Some(zone) = longs.blocks.get(block) else { return [0; 16] };
    if high < low || zone.max < low || zone.min > high {
        return [0; 16];
    }
    if let Some(base) = longs.offsets(block, &mut offsets) {
        // Packed offsets fit 32 bits, so within the block the range does too.
        let clip = |value: i64| u32::try_from(i128::from(value) - i128::from(base)).unwrap_or(u32::MAX);
        let from = if low <= base { 0 } else { clip(low) };
        let span = clip(high.min(zone.max)).wrapping_sub(from);
        return mask::of_values(&offsets, |offset| offset.wrapping_sub(from) <= span);
    }
    let mut values = [0; BLOCK_ROWS];
    longs.decode(block, &mut values);
    mask::of_values(&values, |value| low <= value && value <= high)
}
