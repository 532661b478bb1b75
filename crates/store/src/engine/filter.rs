//! Filters: brought to a normal form, tied to each segment's codes, evaluated a block at a time into a mask.
//!
//! Three-valued logic: NOT is pushed down to the leaves (De Morgan holds with unknowns), a leaf selects the rows where
//! it, or its negation, is true, and a null is never either. So only "true" has to be followed up the tree.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use super::columns::{Scratch, Slot, SlotId, SlotNames, View};
use super::error::EngineError;
use super::mask;
use super::query::{Comparison, Filter, LongTest, StringTest, Value};
use crate::dictionary::IdSet;
use crate::schema::ColumnType;
use crate::segment::bitmap::{Mask, count};
use crate::segment::codes::{Codes, Packing};
use crate::segment::column::{Column, Data};
use crate::segment::packing::BLOCK_ROWS;

/// Deepest nesting of a filter.
const DEPTH_MAX: usize = 256;
/// Few rows left are tested one by one.
const SINGLE_ROWS_MAX: usize = 48;
/// Up to so many codes are compared one after another, more are looked up in a set.
const CODES_COMPARED_MAX: usize = 4;

/// The normal form.
#[derive(Debug)]
pub(super) enum Node {
    Const(bool),
    And(Vec<Node>),
    Or(Vec<Node>),
    Leaf(usize),
}

/// A test of one column.
#[derive(Debug)]
pub(super) struct Leaf {
    slot: SlotId,
    negated: bool,
    test: Test,
}

#[derive(Debug)]
enum Test {
    IsNull,
    Text(TextTest),
    LongRange(i64, i64),
    LongIn(Vec<i64>),
    Long(LongTest),
    Double(DoubleTest),
    /// Selected when false, when true.
    Boolean([bool; 2]),
}

#[derive(Debug)]
struct TextTest {
    kind: TextKind,
    /// The table's ids that pass, made when a segment first needs them.
    ids: OnceLock<IdSet>,
    /// Test every string of the dictionary once, rather than those of each segment.
    eager: bool,
}

#[derive(Debug)]
enum TextKind {
    In(Vec<Arc<str>>),
    Range(Bound<Arc<str>>, Bound<Arc<str>>),
    Test(StringTest),
}

#[derive(Debug)]
enum DoubleTest {
    Compare(Comparison, f64),
    In(Vec<f64>),
}

impl TextKind {
    fn test(&self, text: &str) -> bool {
        match self {
            Self::In(values) => values.binary_search_by(|value| (**value).cmp(text)).is_ok(),
            Self::Range(low, high) => {
                let above = match low {
                    Bound::Included(low) => text >= &**low,
                    Bound::Excluded(low) => text > &**low,
                    Bound::Unbounded => true,
                };
                above
                    && match high {
                        Bound::Included(high) => text <= &**high,
                        Bound::Excluded(high) => text < &**high,
                        Bound::Unbounded => true,
                    }
            }
            Self::Test(test) => (test.0)(text),
        }
    }
}

fn compare_doubles(comparison: Comparison, a: f64, b: f64) -> bool {
    // A NaN equals itself and is above everything else, as in the SQL engine above.
    let order = match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        (a, b) => a.cmp(&b),
    };
    holds(comparison, order)
}

fn holds(comparison: Comparison, order: Ordering) -> bool {
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }
}

impl DoubleTest {
    fn test(&self, value: f64) -> bool {
        match self {
            Self::Compare(comparison, with) => compare_doubles(*comparison, value, *with),
            Self::In(values) => values.iter().any(|with| compare_doubles(Comparison::Equal, value, *with)),
        }
    }
}

/// Filters of one query, in normal form.
#[derive(Debug, Default)]
pub(super) struct Leaves(Vec<Leaf>);

impl Leaves {
    /// Brings a filter to its normal form.
    pub(super) fn plan(&mut self, filter: &Filter, names: &mut SlotNames<'_>) -> Result<Node, EngineError> {
        self.node(filter, false, names, 0)
    }

    fn node(
        &mut self,
        filter: &Filter,
        negated: bool,
        names: &mut SlotNames<'_>,
        depth: usize,
    ) -> Result<Node, EngineError> {
        if depth > DEPTH_MAX {
            return Err(EngineError::Unsupported(format!("a filter nested more than {DEPTH_MAX} deep")));
        }
        Ok(match filter {
            Filter::True => Node::Const(!negated),
            Filter::False => Node::Const(negated),
            Filter::Unknown => Node::Const(false),
            Filter::Not(inner) => self.node(inner, !negated, names, depth + 1)?,
            Filter::And(parts) | Filter::Or(parts) => {
                let nodes = parts.iter().map(|part| self.node(part, negated, names, depth + 1));
                let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
                self.join(nodes, matches!(filter, Filter::And(_)) != negated)
            }
            Filter::IsNull(column) => {
                let (slot, _) = names.slot(column)?;
                self.leaf(slot, negated, Test::IsNull)
            }
            Filter::Compare { column, comparison, value } => {
                let (slot, ty) = names.slot(column)?;
                let negated = negated != (*comparison == Comparison::NotEqual);
                let comparison = if *comparison == Comparison::NotEqual { Comparison::Equal } else { *comparison };
                let test = compare(column, ty, comparison, value)?;
                self.leaf(slot, negated, test)
            }
            Filter::In { column, values, null_in_list } => {
                let (slot, ty) = names.slot(column)?;
                if negated && *null_in_list {
                    return Ok(Node::Const(false));
                }
                let test = is_in(column, ty, values)?;
                self.leaf(slot, negated, test)
            }
            Filter::Matches { column, test } => {
                let (slot, ty) = names.slot(column)?;
                if !matches!(ty, ColumnType::String | ColumnType::Json) {
                    return Err(mismatch(column, ty, "a test of strings"));
                }
                self.leaf(slot, negated, Test::Text(TextTest::new(TextKind::Test(test.clone()))))
            }
            Filter::MatchesLong { column, test } => {
                let (slot, ty) = names.slot(column)?;
                let test = match ty {
                    ColumnType::Long | ColumnType::Timestamp => Test::Long(test.clone()),
                    ColumnType::Boolean => Test::Boolean([(test.0)(0), (test.0)(1)]),
                    _ => return Err(mismatch(column, ty, "a test of longs")),
                };
                self.leaf(slot, negated, test)
            }
        })
    }

    fn leaf(&mut self, slot: SlotId, negated: bool, test: Test) -> Node {
        self.0.push(Leaf { slot, negated, test });
        Node::Leaf(self.0.len() - 1)
    }

    /// And or or of nodes: constants folded, cheap tests first.
    fn join(&self, nodes: Vec<Node>, all: bool) -> Node {
        let mut kept = Vec::with_capacity(nodes.len());
        for node in nodes {
            match node {
                Node::Const(value) if value == all => {}
                Node::Const(_) => return Node::Const(!all),
                Node::And(inner) if all => kept.extend(inner),
                Node::Or(inner) if !all => kept.extend(inner),
                other => kept.push(other),
            }
        }
        kept.sort_by_key(|node| self.cost(node));
        match (kept.len(), all) {
            (0, _) => Node::Const(all),
            (1, _) => kept.pop().unwrap_or(Node::Const(all)),
            (_, true) => Node::And(kept),
            (_, false) => Node::Or(kept),
        }
    }

    fn cost(&self, node: &Node) -> u32 {
        match node {
            Node::Const(_) => 0,
            Node::Leaf(at) => match &self.0[*at].test {
                Test::LongRange(..) | Test::Boolean(_) | Test::IsNull => 1,
                Test::Text(TextTest { kind: TextKind::In(_) | TextKind::Range(..), .. }) => 2,
                Test::LongIn(_) | Test::Double(_) => 3,
                Test::Text(_) => 4,
                Test::Long(_) => 6,
            },
            Node::And(nodes) | Node::Or(nodes) => nodes.iter().map(|node| self.cost(node)).sum(),
        }
    }

    /// Ranges of longs and times that every selected row is in.
    pub(super) fn ranges(&self, node: &Node) -> Vec<(SlotId, i64, i64)> {
        match node {
            Node::Leaf(at) => match &self.0[*at] {
                Leaf { slot, negated: false, test: Test::LongRange(low, high) } => vec![(*slot, *low, *high)],
                _ => Vec::new(),
            },
            Node::And(nodes) => nodes.iter().flat_map(|node| self.ranges(node)).collect(),
            Node::Const(_) | Node::Or(_) => Vec::new(),
        }
    }

    /// Decides for each test of strings whether to run it on the whole dictionary or on each segment's strings.
    pub(super) fn settle(&mut self, slots: &[Slot], views: &[Option<View>]) {
        for leaf in &mut self.0 {
            let Test::Text(test) = &mut leaf.test else { continue };
            let Some(text) = slots.get(leaf.slot.0).and_then(|slot| slot.text.as_ref()) else { continue };
            let columns = views.iter().flatten().filter_map(|view| view.column(leaf.slot));
            let entries: usize = columns
                .map(|column| match &column.data {
                    Data::Codes(codes) if codes.is_sorted() => codes.entries,
                    _ => 0,
                })
                .sum();
            test.eager = entries >= text.base as usize;
        }
    }
}

fn mismatch(column: &str, ty: ColumnType, with: &str) -> EngineError {
    EngineError::Unsupported(format!("column {column:?} of type {ty} against {with}"))
}

#[expect(clippy::cast_precision_loss, reason = "a long is compared with a double as a double, as SQL does")]
fn compare(column: &str, ty: ColumnType, comparison: Comparison, value: &Value) -> Result<Test, EngineError> {
    Ok(match (ty, value) {
        (ColumnType::String | ColumnType::Json, Value::String(value)) => {
            let value = Arc::clone(value);
            Test::Text(TextTest::new(match comparison {
                Comparison::Equal | Comparison::NotEqual => TextKind::In(vec![value]),
                Comparison::Less => TextKind::Range(Bound::Unbounded, Bound::Excluded(value)),
                Comparison::LessOrEqual => TextKind::Range(Bound::Unbounded, Bound::Included(value)),
                Comparison::Greater => TextKind::Range(Bound::Excluded(value), Bound::Unbounded),
                Comparison::GreaterOrEqual => TextKind::Range(Bound::Included(value), Bound::Unbounded),
            }))
        }
        (ColumnType::Long | ColumnType::Timestamp, Value::Long(value)) => long_range(comparison, *value),
        (ColumnType::Long | ColumnType::Timestamp, Value::Double(with)) => {
            let with = *with;
            Test::Long(LongTest(Arc::new(move |value| compare_doubles(comparison, value as f64, with))))
        }
        (ColumnType::Double, Value::Double(with)) => Test::Double(DoubleTest::Compare(comparison, *with)),
        (ColumnType::Double, Value::Long(with)) => Test::Double(DoubleTest::Compare(comparison, *with as f64)),
        (ColumnType::Boolean, Value::Boolean(with)) => {
            Test::Boolean([false, true].map(|value| holds(comparison, value.cmp(with))))
        }
        (ColumnType::Boolean, Value::Long(with)) => {
            Test::Boolean([0, 1].map(|value: i64| holds(comparison, value.cmp(with))))
        }
        _ => return Err(mismatch(column, ty, &format!("{value:?}"))),
    })
}

/// The longs that compare so, as an inclusive range; empty when low is above high.
fn long_range(comparison: Comparison, value: i64) -> Test {
    let none = Test::LongRange(i64::MAX, i64::MIN);
    match comparison {
        Comparison::Equal | Comparison::NotEqual => Test::LongRange(value, value),
        Comparison::Less => value.checked_sub(1).map_or(none, |high| Test::LongRange(i64::MIN, high)),
        Comparison::LessOrEqual => Test::LongRange(i64::MIN, value),
        Comparison::Greater => value.checked_add(1).map_or(none, |low| Test::LongRange(low, i64::MAX)),
        Comparison::GreaterOrEqual => Test::LongRange(value, i64::MAX),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a long is compared with a double as a double, as SQL does")]
fn is_in(column: &str, ty: ColumnType, values: &[Value]) -> Result<Test, EngineError> {
    let wrong = |value: &Value| mismatch(column, ty, &format!("{value:?}"));
    Ok(match ty {
        ColumnType::String | ColumnType::Json => {
            let texts = values.iter().map(|value| match value {
                Value::String(text) => Ok(Arc::clone(text)),
                other => Err(wrong(other)),
            });
            let mut texts = texts.collect::<Result<Vec<_>, _>>()?;
            texts.sort_unstable();
            texts.dedup();
            Test::Text(TextTest::new(TextKind::In(texts)))
        }
        ColumnType::Long | ColumnType::Timestamp => {
            let longs = values.iter().map(|value| match value {
                Value::Long(long) => Ok(*long),
                other => Err(wrong(other)),
            });
            let mut longs = longs.collect::<Result<Vec<_>, _>>()?;
            longs.sort_unstable();
            longs.dedup();
            match longs.as_slice() {
                [one] => Test::LongRange(*one, *one),
                _ => Test::LongIn(longs),
            }
        }
        ColumnType::Double => {
            let doubles = values.iter().map(|value| match value {
                Value::Double(double) => Ok(*double),
                Value::Long(long) => Ok(*long as f64),
                other => Err(wrong(other)),
            });
            Test::Double(DoubleTest::In(doubles.collect::<Result<_, _>>()?))
        }
        ColumnType::Boolean => {
            let mut wanted = [false; 2];
            for value in values {
                match value {
                    Value::Boolean(value) => wanted[usize::from(*value)] = true,
                    other => return Err(wrong(other)),
                }
            }
            Test::Boolean(wanted)
        }
        ColumnType::ArrayString | ColumnType::ArrayLong | ColumnType::ArrayDouble => {
            return Err(mismatch(column, ty, "a list of values"));
        }
    })
}

impl TextTest {
    fn new(kind: TextKind) -> Self {
        Self { kind, ids: OnceLock::new(), eager: true }
    }

    /// The table ids that pass.
    fn ids(&self, slot: &Slot) -> &IdSet {
        self.ids.get_or_init(|| {
            let Some(text) = &slot.text else { return IdSet::default() };
            let mut set = IdSet::new(text.base as usize);
            match &self.kind {
                TextKind::In(values) => {
                    let ids = values.iter().filter_map(|value| text.dictionary.lookup(value));
                    ids.for_each(|id| _ = set.insert(id));
                }
                kind => set = text.dictionary.select(text.base as usize, |string| kind.test(string)),
            }
            set
        })
    }
}

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
pub(super) struct SegmentFilter(Vec<Bounded>);

/// What is known of a block without looking at its rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    No,
    Yes,
    Maybe,
}

impl Leaves {
    /// Ties the leaves to a segment: strings become codes.
    pub(super) fn bind(&self, slots: &[Slot], view: &View) -> SegmentFilter {
        let bound = self.0.iter().map(|leaf| match view.column(leaf.slot) {
            None if matches!(leaf.test, Test::IsNull) && !leaf.negated => Bounded::Null,
            None => Bounded::None,
            Some(column) => leaf.bind(slots, column),
        });
        SegmentFilter(bound.collect())
    }

    /// What the block's zone maps and the segment's codes say.
    pub(super) fn verdict(&self, node: &Node, bound: &SegmentFilter, view: &View, block: usize) -> Verdict {
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
    pub(super) fn evaluate(
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

    /// The rows of a segment, ascending, when the filter is one needle that postings find; else `None`.
    pub(super) fn needle<'a>(&self, node: &Node, bound: &'a SegmentFilter, view: &'a View) -> Option<&'a [u32]> {
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
            let ids = test.ids(slot);
            for (code, passes) in set.iter_mut().enumerate().take(codes.entries).skip(1) {
                let id = codes.id(u32::try_from(code).unwrap_or(0));
                *passes = u8::from(ids.contains(id) != self.negated);
                any |= *passes == 1;
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
fn long_range_mask(longs: &crate::segment::longs::Longs, block: usize, low: i64, high: i64) -> Mask {
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
