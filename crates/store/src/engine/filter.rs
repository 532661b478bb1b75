//! Filters: brought to a normal form, tied to each segment's codes, evaluated a block at a time into a mask.
//!
//! Three-valued logic: NOT is pushed down to the leaves (De Morgan holds with unknowns), a leaf selects the rows where
//! it, or its negation, is true, and a null is never either. So only "true" has to be followed up the tree.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use memchr::memmem::Finder;

use super::columns::{Slot, SlotId, SlotNames, View};
use super::error::EngineError;
use super::query::{Comparison, Filter, LongTest, StringTest, Value};
use crate::dictionary::IdSet;
use crate::schema::ColumnType;
use crate::segment::column::Data;

mod bound;

pub(super) use bound::{SegmentFilter, Verdict};

/// Deepest nesting of a filter.
const DEPTH_MAX: usize = 256;

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
    /// Not empty.
    Contains(Box<Finder<'static>>),
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
            Self::Contains(finder) => finder.find(text.as_bytes()).is_some(),
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
            Filter::Contains { column, text } => {
                let (slot, ty) = names.slot(column)?;
                if !matches!(ty, ColumnType::String | ColumnType::Json) {
                    return Err(mismatch(column, ty, "a search in strings"));
                }
                let test = match text.is_empty() {
                    true => TextKind::Range(Bound::Unbounded, Bound::Unbounded),
                    false => TextKind::Contains(Box::new(Finder::new(text.as_bytes()).into_owned())),
                };
                self.leaf(slot, negated, Test::Text(TextTest::new(test)))
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
                TextKind::Contains(finder) => set = text.dictionary.containing(text.base as usize, finder),
                kind => set = text.dictionary.select(text.base as usize, |string| kind.test(string)),
            }
            set
        })
    }
}
